"""Write a new dataset while the old one is kept, and put it in the old one's place when it is complete.

::

    cells/                      the old dataset: complete and loadable
      .teddytok-<random>/       the new one while it is written: a dataset folder of its own, with a journal
        teddytok.temporary      purpose "overwrite"; lists the files of the new dataset once that is complete

The new dataset is inside the folder of the old one: on the same file system, under the same lock, and where no reader
of a corpus looks. Once its files are listed, they are moved into place one by one; a run that was killed meanwhile is
completed by the next run of any kind (`complete_overwrite`), and until then ``state.json`` and ``teddytok.json`` are
missing, so that no reader takes the mixture for a dataset. Files of others stay where they are.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .layout import FILE_NAME, STATE, is_ours, is_temporary
from .storage import is_plain_file, ours_in, remove, sync_folder
from .temporary import find_temporary, make_temporary, record_files, recorded_files, remove_temporary, remove_unmarked

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("teddytok_rs")

PURPOSE = "overwrite"


def begin_overwrite(folder: Path) -> Path:
    """Make the folder that a new dataset is written to while the old one is kept."""
    return make_temporary(folder, PURPOSE)


def begun_overwrite(folder: Path) -> Path | None:
    """Find the folder of an overwrite that was interrupted before the new dataset was complete."""
    return next((path for path in find_temporary(folder, PURPOSE) if recorded_files(path) is None), None)


def discard_overwrite(staging: Path) -> None:
    """Remove what was written of a new dataset."""
    remove_temporary(staging, ours_in(staging))


def replace_dataset(folder: Path, staging: Path) -> None:
    """Put a complete new dataset in the place of the old one."""
    files = [name for name in ours_in(staging) if not is_temporary(name)]
    record_files(staging, sorted(files))
    _move(folder, staging)


def complete_overwrite(folder: Path) -> bool:
    """Go on with replacing a dataset, if a run was killed meanwhile; tell whether there was one."""
    remove_unmarked(folder)
    halfway = [path for path in find_temporary(folder, PURPOSE) if recorded_files(path) is not None]
    for staging in halfway:
        logger.warning("replacing the dataset in %s was interrupted: it is completed now", folder)
        _move(folder, staging)
    return bool(halfway)


def is_replaced(folder: Path) -> bool:
    """Tell whether the files of a folder are those of two datasets, as replacing one was interrupted."""
    return any(recorded_files(path) is not None for path in find_temporary(folder, PURPOSE))


def _move(folder: Path, staging: Path) -> None:
    """Move the files of a new dataset into place; each step may have been done before."""
    loadable = (FILE_NAME, STATE)  # what makes it so, the last to be written last
    files = {name for name in recorded_files(staging) or () if is_ours(name)}
    in_order = [STATE, FILE_NAME]  # without the first, no folder of Arrow files is a dataset
    for name in sorted(ours_in(folder), key=lambda name: in_order.index(name) if name in in_order else 2):
        # What is still in the new folder has not been moved, so that the old folder's is the old one.
        is_old = name not in files or (name in loadable and is_plain_file(staging / name))
        if is_old:
            remove(folder / name)
    sync_folder(folder)
    for name in sorted(files, key=lambda name: loadable.index(name) if name in loadable else -1):
        if is_plain_file(staging / name):
            if name in loadable:
                sync_folder(folder)  # all else is on the disk before
            (staging / name).replace(folder / name)
    sync_folder(folder)
    remove_temporary(staging, ours_in(staging))
