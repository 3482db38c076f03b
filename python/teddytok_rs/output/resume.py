"""Find what an earlier run left in a folder."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from ..errors.build import error
from ..errors.text import some
from .dataset_info import dataset_state
from .layout import CORPUS, FILE_NAME, INFO, JOURNAL, LOCK, OURS, STATE
from .manifest import Manifest
from .storage import reading, sha256_of

if TYPE_CHECKING:
    from pathlib import Path


def found_in(folder: Path, *, overwrite: bool) -> list[str]:
    """List what an earlier run left in the folder, in the order in which it may be removed.

    What makes it loadable comes first, what tells that it is ours last. Anything else is nobody's to remove.
    """
    found = {path.name for path in folder.iterdir()} - {LOCK}
    if any((folder / name).is_symlink() for name in found):
        raise error("output_symlink", path=str(folder))
    foreign = {name for name in found if not OURS.fullmatch(name) or (folder / name).is_dir()}
    signed = found & {FILE_NAME, JOURNAL}
    if not signed:
        # A run signs the folder with its journal first. Shards alone may stay behind where that was removed by hand.
        foreign |= {name for name in found if not (name.endswith(".part") or (overwrite and name.startswith("data-")))}
    if foreign:
        raise error("output_exists", path=str(folder), files=some(sorted(foreign)))
    return sorted(found, key=lambda name: (name != STATE, name in signed, name))


def former_run(folder: Path, found: list[str]) -> Manifest | None:
    """Read what run the folder is of, finished or not; None where there is nothing to continue."""
    if FILE_NAME in found and JOURNAL not in found:
        return Manifest.read(folder)
    unfinished = Manifest.read_journal(folder)
    return unfinished if unfinished is not None and unfinished.shards else None  # no shard: nothing to continue


def damaged_files(manifest: Manifest) -> list[str]:
    """List what is missing or not as it was written of the files beside the shards of a finished dataset."""
    folder = manifest.path
    recorded = manifest.checksums["genes"] | manifest.checksums["columns"]
    damaged = [name for name, sha256 in recorded.items() if _sha256_of(folder / name) != sha256]
    if manifest.configuration["format"] == "arrow" and INFO not in damaged:
        described = json.loads((folder / INFO).read_bytes())["features"]
        state = dataset_state(manifest.shards, described).encode()
        if _sha256_of(folder / STATE) != hashlib.sha256(state).hexdigest():
            damaged.append(STATE)
    return damaged


def _sha256_of(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None


def holds_corpus(folder: Path) -> bool:
    """Tell whether a folder is that of a corpus; of one that cannot be read, whoever uses it reports that."""
    with suppress(PermissionError):
        return (folder / CORPUS).exists()
    return False
