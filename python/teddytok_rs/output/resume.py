"""Find what an earlier run left in a folder."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import OutputError
from ..errors.build import error
from ..errors.text import some
from .journal import read_journal
from .layout import CORPUS, JOURNAL, LOCK, MANIFEST, SYSTEM_FILES, is_temporary, removal_order
from .manifest import Manifest
from .storage import list_run_files
from .verify import find_damage

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

logger = logging.getLogger("teddytok_rs")


def found_in(folder: Path) -> list[str]:
    """List what an earlier run left in the folder, in the order in which it may be removed.

    The journal, which is written first, marks a folder as one of a run. Other files may be next to the files of a run.
    A folder that is not marked must be empty except for system files, so that a mistyped path does not fill it.

    Raises
    ------
    OutputError
        If no run signed the folder and it is not empty, or something else than a file has the name of a run's file.
    """
    found = list_run_files(folder)
    if not found & {MANIFEST, JOURNAL}:
        names = {path.name for path in folder.iterdir()} - {LOCK}
        others = {name for name in names if not is_temporary(name) and not SYSTEM_FILES.fullmatch(name)}
        if others:
            raise error("output_exists", path=str(folder), files=some(sorted(others)))
    return sorted(found, key=removal_order)


def former_run(folder: Path, found: Collection[str]) -> tuple[Manifest | None, bool]:
    """Return the manifest of the run in a folder, None if there is none to resume, and whether it was finished.

    Raises
    ------
    OutputError
        If the folder is that of a finished dataset whose manifest cannot be read.
    """
    if JOURNAL not in found:
        return (Manifest.read(folder), True) if MANIFEST in found else (None, False)
    unfinished = read_journal(folder)
    if MANIFEST in found and (unfinished is None or _is_finished(folder)):
        return Manifest.read(folder), True  # to remove the journal is the last thing that a run does
    if unfinished is None:
        logger.warning("%s cannot be read: the run starts again, and keeps nothing", folder / JOURNAL)
    return (unfinished, False) if unfinished is not None and unfinished.shards else (None, False)


def _is_finished(folder: Path) -> bool:
    try:
        return find_damage(Manifest.read(folder)).keys() == {JOURNAL}
    except OutputError:
        return False


def holds_corpus(folder: Path) -> bool:
    """Return whether a folder is that of a corpus. A corpus that cannot be read is reported when it is used."""
    with suppress(PermissionError):
        return (folder / CORPUS).exists()
    return False
