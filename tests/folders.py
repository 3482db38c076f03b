"""What a folder holds, compared byte for byte, and how a file in it is damaged."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def contents(folder: Path, *, without: str = "") -> dict[str, str]:
    """Map each file below a folder to its SHA-256; files of the name ``without`` are left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != without]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def damage_shard(path: Path, how: str) -> None:
    """Flip a bit of a shard, or another file of a dataset, cut its end off, let it grow by a byte, or remove it."""
    whole = bytearray(path.read_bytes())
    if how == "remove":
        path.unlink()
        return
    if how == "flip":
        whole[len(whole) // 2] ^= 1
    path.write_bytes({"flip": whole, "cut": whole[:-100], "grow": whole + b"\0"}[how])
