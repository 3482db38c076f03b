"""Write files so that they are complete or absent: lock, temporary name, fsync, rename. No link is followed."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.files import plain_file
from ..errors import TeddytokError
from ..errors.build import error, system_error
from ..errors.text import some
from .layout import LOCK, is_run_file, is_temporary, temporary_name

if TYPE_CHECKING:
    from collections.abc import Iterator


def sha256_of(path: Path) -> str:
    """Compute the checksum of a file."""
    with plain_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what the system says when a folder cannot be looked into into one error."""
    try:
        yield
    except OSError as exc:
        if isinstance(exc, TeddytokError):
            raise
        raise system_error("output_unreadable", exc, path=str(folder)) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other writers out of the folder. The system frees the lock of a process that dies."""
    from filelock import FileLock, Timeout

    if folder.is_symlink():
        raise error("output_symlink", path=str(folder))
    refuse_others(folder, {LOCK})
    if is_plain_file(folder / LOCK) and (folder / LOCK).stat().st_size:  # ours is empty
        raise error("output_exists", path=str(folder), files=some([LOCK]))
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
            remove(folder / LOCK)  # while it is held: a process that has just opened it notices that it was removed
        lock.release()
        for path in made:  # a run that was refused leaves nothing behind
            if not any(path.iterdir()):
                path.rmdir()


@contextmanager
def writing(folder: str | Path) -> Iterator[None]:
    """Turn what the system says when a folder cannot be written into one error."""
    try:
        yield
    except OSError as exc:
        if isinstance(exc, TeddytokError):
            raise
        if isinstance(exc, NotADirectoryError | FileExistsError):
            file = next((path for path in (Path(folder), *Path(folder).parents) if path.is_file()), None)
            if file is not None:
                raise error("output_failed", path=str(folder), reason=f"{str(file)!r} is a file") from None
        raise system_error("output_failed", exc, path=str(folder)) from None


def write_file(path: Path, content: str | bytes) -> None:
    """Write a small file: under a temporary name, synced, then renamed."""
    if path.is_symlink():
        raise error("output_symlink", path=str(path))
    temporary = temporary_name(path)
    with temporary.open("xb") as file:
        try:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def exists(path: str | Path) -> bool:
    """Return whether there is a file or folder; a name that no file can have is none."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_plain_file(path: Path) -> bool:
    """Return whether a path is a regular file, not a link, a folder or a device."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def list_run_files(folder: Path) -> set[str]:
    """List the files in the folder of a dataset that have the name of a file of a run.

    Raises
    ------
    OutputError
        If something else than a file has such a name.
    """
    found = {path.name for path in folder.iterdir() if is_run_file(path.name)}
    refuse_others(folder, found)
    return found


def refuse_others(folder: Path, names: set[str] | frozenset[str]) -> None:
    """Refuse a link, a folder or a device with the name of a file that a run writes."""
    for name in sorted(names):
        path = folder / name
        if path.is_symlink():
            raise error("output_symlink", path=str(path))
        if path.exists() and not is_plain_file(path):
            raise error("output_exists", path=str(folder), files=some([name]))


def remove_temporary_files(folder: Path) -> None:
    """Remove the files that a killed process was writing. No other process may write to the folder at this time."""
    for path in folder.iterdir():
        if is_temporary(path.name) and is_plain_file(path):
            remove(path)


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
