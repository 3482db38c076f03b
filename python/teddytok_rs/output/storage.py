"""Write files so that they are complete or absent: lock, temporary name, fsync, rename."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import TeddytokError
from ..errors.build import error
from .layout import LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator


def sha256_of(path: Path) -> str:
    """Compute the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what the system says when a folder cannot be looked into into one error."""
    try:
        yield
    except OSError as bad:
        if isinstance(bad, TeddytokError):
            raise
        raise error("output_unreadable", path=str(folder), reason=(bad.strerror or str(bad)).lower()) from bad


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other writers out of the folder. The system frees the lock of a process that dies."""
    from filelock import FileLock, Timeout

    if folder.is_symlink() or (folder / LOCK).is_symlink():
        raise error("output_symlink", path=str(folder))
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise error("output_locked", path=str(folder)) from None
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows removes no open file
            remove(folder / LOCK)  # while it is held: whoever opened it meanwhile sees that it is gone
        lock.release()
        for path in made:  # a run that was refused leaves nothing behind
            if not any(path.iterdir()):
                path.rmdir()


@contextmanager
def writing(folder: str | Path) -> Iterator[None]:
    """Turn what the system says when a folder cannot be written into one error."""
    try:
        yield
    except OSError as bad:
        if isinstance(bad, TeddytokError):
            raise
        reason: object = bad.strerror or bad
        if isinstance(bad, NotADirectoryError | FileExistsError):
            file = next((path for path in (Path(folder), *Path(folder).parents) if path.is_file()), None)
            reason = reason if file is None else f"{str(file)!r} is a file"
        raise error("output_failed", path=str(folder), reason=reason) from bad


def write_file(path: Path, text: str) -> None:
    """Write a small file: beside its name, synced, then renamed."""
    beside = path.with_name(f"{path.name}.part")
    beside.unlink(missing_ok=True)
    with beside.open("x", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)
