"""Write a new dataset while the old one is kept, and replace the old one when the new one is complete.

::

    cells/                      the old dataset: complete and loadable
      .teddytok-<random>/       the new one while it is written: a dataset folder of its own, with a journal
        teddytok.temporary      purpose "overwrite"; lists the files of the new dataset once that is complete

The new dataset is inside the folder of the old one: on the same file system, under the same lock, and where readers of
a corpus do not look. When it is complete, its files are listed in the marker and then moved into place one by one. If
the run is killed during this step, the next run of any kind completes it (`complete_overwrite`). Until then
``state.json`` or ``teddytok.json`` is missing, so that no reader takes the mixture for a dataset. Other files are left
alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .layout import MANIFEST, STATE, is_run_file, is_temporary
from .storage import is_plain_file, list_run_files, remove, sync_folder
from .temporary import find_temporary, make_temporary, record_files, recorded_files, remove_temporary, remove_unmarked

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("teddytok_rs")

PURPOSE = "overwrite"


def start_overwrite(folder: Path) -> Path:
    """Create the folder of a new dataset, inside the folder of the old one."""
    return make_temporary(folder, PURPOSE)


def find_overwrite(folder: Path) -> Path | None:
    """Return the folder of an overwrite that was interrupted before the new dataset was complete; None if none was."""
    return next((path for path in find_temporary(folder, PURPOSE) if recorded_files(path) is None), None)


def discard_overwrite(staging: Path) -> None:
    """Remove the files of an incomplete new dataset."""
    remove_temporary(staging, list_run_files(staging))


def replace_dataset(folder: Path, staging: Path) -> None:
    """Replace the old dataset with a complete new one."""
    files = [name for name in list_run_files(staging) if not is_temporary(name)]
    record_files(staging, sorted(files))
    _move(folder, staging, files)


def complete_overwrite(folder: Path) -> bool:
    """Complete the replacement of a dataset if it was interrupted, and return whether it was."""
    remove_unmarked(folder)
    recorded = {path: recorded_files(path) for path in find_temporary(folder, PURPOSE)}
    interrupted = {path: files for path, files in recorded.items() if files is not None}
    for staging, files in interrupted.items():
        logger.warning("replacing the dataset in %s was interrupted: it is completed now", folder)
        _move(folder, staging, files)
    return bool(interrupted)


def is_replacement_interrupted(folder: Path) -> bool:
    """Return whether a folder holds files of two datasets because replacing one was interrupted."""
    return any(recorded_files(path) is not None for path in find_temporary(folder, PURPOSE))


def _move(folder: Path, staging: Path, recorded: list[str]) -> None:
    """Move the files of a new dataset into place. Each step may be repeated after an interruption."""
    loadable = (MANIFEST, STATE)  # the files that make a folder loadable, in the order they are written
    files = {name for name in recorded if is_run_file(name)}
    in_order = [STATE, MANIFEST]  # without STATE, a folder of Arrow files cannot be loaded
    for name in sorted(list_run_files(folder), key=lambda name: in_order.index(name) if name in in_order else 2):
        # A file that is still in the new folder has not been moved: the one in the old folder is the old one.
        is_old = name not in files or (name in loadable and is_plain_file(staging / name))
        if is_old:
            remove(folder / name)
    sync_folder(folder)
    for name in sorted(files, key=lambda name: loadable.index(name) if name in loadable else -1):
        if is_plain_file(staging / name):
            if name in loadable:
                sync_folder(folder)  # all other files are on the disk first
            (staging / name).replace(folder / name)
    sync_folder(folder)
    remove_temporary(staging, list_run_files(staging))
