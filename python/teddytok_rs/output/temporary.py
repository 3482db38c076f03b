"""Create temporary folders of a run, and remove only the files that the run put there.

A temporary folder has a random name and a marker: a file that records the purpose of the folder and later the files in
it. The marker identifies the folder after its process was killed. Files that it does not list are never removed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypedDict

from ..config.files import MAX_BYTES
from ..errors.text import some
from .layout import MARKER, is_temporary, is_temporary_folder, temporary_folder_name
from .storage import is_plain_file, remove, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

logger = logging.getLogger("teddytok_rs")


def make_temporary(parent: Path, purpose: str) -> Path:
    """Create a temporary folder with a marker that records its purpose."""
    folder = parent / temporary_folder_name()
    folder.mkdir()
    _mark(folder, purpose, None)
    return folder


def find_temporary(parent: Path, purpose: str) -> list[Path]:
    """List the temporary folders with this purpose."""
    return [
        path
        for path in sorted(parent.iterdir())
        if is_temporary_folder(path.name) and (marker := _marker(path)) is not None and marker["purpose"] == purpose
    ]


def record_files(folder: Path, files: list[str]) -> None:
    """Record the relative paths of the files that are or will be in a temporary folder."""
    marker = _marker(folder)
    if marker is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder / MARKER))
    _mark(folder, marker["purpose"], files)


def recorded_files(folder: Path) -> list[str] | None:
    """Return the recorded files of a temporary folder; None if none are recorded yet."""
    marker = _marker(folder)
    return None if marker is None else marker["files"]


def remove_temporary(folder: Path, files: Iterable[str]) -> None:
    """Remove files from a temporary folder, and the folder if it has no other files. Links are not followed."""
    folders = {folder}
    for file in files:
        path = folder / file
        above = [parent for parent in path.parents if parent.is_relative_to(folder)]
        if all(parent in folders or _is_plain_folder(parent) for parent in above):
            folders.update(above)
            if is_plain_file(path):
                remove(path)
    folders.discard(folder)
    for path in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):  # it is not empty
            path.rmdir()
    names = {path.name for path in folder.iterdir()}
    if others := {name for name in names if name != MARKER and not is_temporary(name)}:
        logger.warning("%s is left: it holds %s, which no run put there", folder, some(sorted(others)))
        return
    for name in names:
        remove(folder / name)
    folder.rmdir()


@contextmanager
def temporary_folder(parent: Path, purpose: str) -> Iterator[Path]:
    """Create a temporary folder for the ``with`` block; on exit remove the files recorded by `record_files`."""
    folder = make_temporary(parent, purpose)
    try:
        yield folder
    finally:
        with suppress(FileNotFoundError):  # removed by hand
            remove_temporary(folder, recorded_files(folder) or [])


def remove_stale(parent: Path, purpose: str) -> None:
    """Remove the temporary folders with this purpose that killed processes left.

    The caller must hold the lock of the parent folder.
    """
    for folder in find_temporary(parent, purpose):
        remove_temporary(folder, recorded_files(folder) or [])
    remove_unmarked(parent)


def remove_unmarked(parent: Path) -> None:
    """Remove temporary folders whose process was killed before it wrote their marker or after it removed it."""
    for folder in parent.iterdir():
        if is_temporary_folder(folder.name) and _is_plain_folder(folder):
            left = list(folder.iterdir())
            if all(is_temporary(path.name) and path.name.startswith(MARKER) and is_plain_file(path) for path in left):
                remove_temporary(folder, [])


class _Marker(TypedDict):
    """What the marker of a folder says; the files are not known at first."""

    folder: str
    purpose: str
    files: list[str] | None


def _mark(folder: Path, purpose: str, files: list[str] | None) -> None:
    write_file(folder / MARKER, json.dumps({"folder": folder.name, "purpose": purpose, "files": files}) + "\n")


def _marker(folder: Path) -> _Marker | None:
    """Read the marker of a folder; None if the folder is not a temporary folder of a run."""
    if not _is_plain_folder(folder) or not is_plain_file(folder / MARKER):
        return None
    with (folder / MARKER).open("rb") as file:  # one that cannot be read may be a run's: that is an error
        content = file.read(MAX_BYTES)
    try:
        marker = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(marker, dict) or marker.keys() != {"folder", "purpose", "files"}:
        return None
    files = marker["files"]
    right = files is None or (isinstance(files, list) and all(map(_is_inside, files)))
    if not right or marker["folder"] != folder.name:
        return None
    return {"folder": folder.name, "purpose": marker["purpose"], "files": files}


def _is_inside(file: object) -> bool:
    path = PurePosixPath(file) if isinstance(file, str) and "\0" not in file else None
    return path is not None and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _is_plain_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
