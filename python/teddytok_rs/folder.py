"""A folder in; who may write to it, what of an earlier run is in it, and files that are whole or not there, out."""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import TeddytokError
from .manifest import CORPUS, FILE_NAME, INFO, JOURNAL, SHARD_NAME, Manifest, sha256_of
from .messages import error, some
from .schema import dataset_state
from .sources.listing import stem_of

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The file without which `datasets` sees no dataset of Arrow files; written last, and removed first.
STATE = "state.json"
LOCK = ".teddytok.lock"
#: The page that `report` writes; no part of the dataset.
PAGE = "report.html"
#: Names of the files that a run writes.
OURS = re.compile(
    SHARD_NAME.pattern + r"(\.([0-9a-f]{8}\.)?part)?"
    r"|((dataset_info|state|teddytok)\.json|genes\.csv|teddytok\.journal|report\.html)(\.part)?"
)


def output_folder(source: Any, save_dir: str | os.PathLike[str] | None, name: str | None = None) -> Path:
    """Name the folder that a source's dataset goes to.

    Raises
    ------
    ConfigError
        If there is no ``save_dir``, or the name is not a plain folder name.
    """
    if save_dir is None:
        raise error("no_save_dir")
    if name is None:
        name = stem_of(os.fspath(source)) if isinstance(source, str | os.PathLike) else "anndata"
    if not _is_text(name) or name in {"", ".", ".."} or Path(name).name != name:
        raise error("output_name", name=name)
    if not _is_text(os.fspath(save_dir)):
        raise error("output_name", name=save_dir)
    return Path(save_dir) / name


def holds_corpus(folder: Path) -> bool:
    """Tell whether a folder is that of a corpus, which tells of all datasets in it.

    Raises
    ------
    OutputError
        If one may not look into it.
    """
    with writing(folder):
        return (folder / CORPUS).exists()


def last_file(name: str) -> str:
    """Name the file that is written last in a format: a folder without it is no finished dataset."""
    return STATE if name == "arrow" else FILE_NAME


def _is_text(name: object) -> bool:
    """Tell whether a name is text that files can be called by, everywhere and in a manifest."""
    return isinstance(name, str) and "\0" not in name and name == name.encode(errors="replace").decode()


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
