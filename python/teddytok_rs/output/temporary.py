"""Make folders for as long as a run lasts, and remove from them only what was put there.

A temporary folder has a random name and a marker: a file that says what the folder is for and, once that is known,
which files are in it. What a killed process left is recognised by its marker; files that nobody recorded stay.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ..config.files import DocumentError, read_text
from ..errors.text import some
from .layout import MARKER, is_temporary, is_temporary_folder, temporary_folder_name
from .storage import is_plain_file, remove, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

logger = logging.getLogger("teddytok_rs")


def make_temporary(parent: Path, purpose: str) -> Path:
    """Make a temporary folder for a purpose."""
    folder = parent / temporary_folder_name()
    folder.mkdir()
    _mark(folder, purpose, None)
    return folder


def find_temporary(parent: Path, purpose: str) -> list[Path]:
    """List the temporary folders that a run made for a purpose."""
    return [
        path
        for path in sorted(parent.iterdir())
        if is_temporary_folder(path.name) and (marker := _marker(path)) is not None and marker["purpose"] == purpose
    ]


def record_files(folder: Path, files: list[str]) -> None:
    """Record which files, by their relative paths, are or will be in a temporary folder."""
    marker = _marker(folder)
    if marker is not None:
        _mark(folder, marker["purpose"], files)


def recorded_files(folder: Path) -> list[str] | None:
    """Read which files are recorded of a temporary folder; None before any are."""
    marker = _marker(folder)
    return None if marker is None else marker["files"]


def remove_temporary(folder: Path, files: Iterable[str]) -> None:
    """Remove these files of a temporary folder, and the folder if nothing else is in it. No link is followed."""
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
        with suppress(OSError):  # something else is in it
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
    """Make a temporary folder for as long as the block lasts; then remove what `record_files` recorded of it."""
    folder = make_temporary(parent, purpose)
    try:
        yield folder
    finally:
        with suppress(FileNotFoundError):  # removed by hand
            remove_temporary(folder, recorded_files(folder) or [])


def remove_left(parent: Path, purpose: str) -> None:
    """Remove what a killed process left of a purpose. Nobody else may write to the parent meanwhile."""
    for folder in find_temporary(parent, purpose):
        remove_temporary(folder, recorded_files(folder) or [])
    remove_unmarked(parent)


def remove_unmarked(parent: Path) -> None:
    """Remove temporary folders whose process was killed before it marked them, or after it emptied them."""
    for folder in parent.iterdir():
        if is_temporary_folder(folder.name) and _is_plain_folder(folder):
            left = list(folder.iterdir())
            if all(is_temporary(path.name) and path.name.startswith(MARKER) and is_plain_file(path) for path in left):
                remove_temporary(folder, [])


def _mark(folder: Path, purpose: str, files: list[str] | None) -> None:
    write_file(folder / MARKER, json.dumps({"folder": folder.name, "purpose": purpose, "files": files}) + "\n")


def _marker(folder: Path) -> dict[str, Any] | None:
    """Read the marker of a folder; None where the folder is not one that a run made."""
    if not _is_plain_folder(folder) or not is_plain_file(folder / MARKER):
        return None
    try:
        marker = json.loads(read_text(folder / MARKER))
    except (DocumentError, ValueError, RecursionError):
        return None
    if not isinstance(marker, dict) or marker.keys() != {"folder", "purpose", "files"}:
        return None
    files = marker["files"]
    right = files is None or (isinstance(files, list) and all(map(_is_inside, files)))
    return marker if right and marker["folder"] == folder.name else None


def _is_inside(file: object) -> bool:
    path = PurePosixPath(file) if isinstance(file, str) and "\0" not in file else None
    return path is not None and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _is_plain_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
