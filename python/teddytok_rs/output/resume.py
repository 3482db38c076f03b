"""Find what an earlier run left in a folder."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import OutputError
from ..errors.build import error
from ..errors.text import some
from .journal import read_journal
from .layout import CORPUS, FILE_NAME, JOURNAL, LOCK, OURS, STATE
from .manifest import Manifest
from .verify import find_damage

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("teddytok_rs")


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


def former_run(folder: Path, found: list[str]) -> tuple[Manifest | None, bool]:
    """Read what run the folder is of, and tell whether it was finished; None where there is nothing to continue.

    Raises
    ------
    OutputError
        If the folder is that of a finished dataset whose manifest cannot be read.
    """
    if JOURNAL not in found:
        return (Manifest.read(folder), True) if FILE_NAME in found else (None, False)
    unfinished = read_journal(folder)
    if FILE_NAME in found and (unfinished is None or _is_finished(folder)):
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
    """Tell whether a folder is that of a corpus; of one that cannot be read, whoever uses it reports that."""
    with suppress(PermissionError):
        return (folder / CORPUS).exists()
    return False
