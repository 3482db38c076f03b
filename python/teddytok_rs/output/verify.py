"""Verify a dataset: whether it is complete and undamaged, and whether its shards hold what the manifest says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors.text import Rows, TextRepr, count, reason_of
from ..progress import progress_bar
from .checksum import is_canonical
from .dataset_info import dataset_state
from .formats import lists_of, open_shard
from .layout import INFO, JOURNAL, LOCK, MANIFEST, STATE, is_run_file, is_shard, is_temporary
from .manifest import Manifest, Shard
from .overwrite import find_overwrite
from .storage import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..corpus.manifest import CorpusManifest


@dataclass(frozen=True, repr=False)
class Verification(TextRepr):
    """What is wrong with the folder of a dataset or corpus.

    Attributes
    ----------
    problems
        What is missing, damaged or unfinished; empty where nothing is.
    notes
        What else is in the folder: files of other tools, and what a killed run left.
    """

    manifest: Manifest | CorpusManifest
    problems: list[str]
    notes: list[str] = field(default_factory=list)

    def _rows(self) -> tuple[str, Rows]:
        rows = [("problem", text) for text in self.problems] + [("note", text) for text in self.notes]
        return f"{self.manifest.path}: {verdict(self)}", rows


def verify_dataset(folder: Path, *, progress: bool | None = None) -> Verification:
    """Check every byte of one dataset.

    Raises
    ------
    OutputError
        If the folder is not that of a finished dataset.
    """
    manifest = Manifest.read(folder)
    with progress_bar(manifest.n_cells, show=progress, doing="verifying") as advance:
        return Verification(manifest, problems_of(manifest, advance), notes_of(folder))


def notes_of(folder: Path) -> list[str]:
    """List what is in the folder of a dataset in addition to the files of the dataset."""
    overwrite_folder = find_overwrite(folder)
    notes = []
    for name in sorted(path.name for path in folder.iterdir()):
        if overwrite_folder is not None and name == overwrite_folder.name:
            notes.append(f"{name} holds a new dataset, unfinished: tokenizing again with overwrite continues it")
        elif is_temporary(name):
            notes.append(f"{name} was left by a run that was killed: the next run removes it")
        elif not is_run_file(name) and name != LOCK:
            notes.append(f"{name} is not a file of teddytok, and is left alone")
    return notes


def problems_of(manifest: Manifest, advance: Callable[[int], None]) -> list[str]:
    """List what is wrong with a dataset, see `verify`; ``advance`` takes the cells of each shard that was checked."""
    damage = find_damage(manifest, advance)
    undamaged = (shard for shard in manifest.shards if shard.file not in damage)
    problems = [f"{file} {problem}" for file, problem in damage.items()]
    return problems + [problem for shard in undamaged for problem in _check_content(manifest, shard)]


def find_damage(manifest: Manifest, advance: Callable[[int], None] = lambda _: None) -> dict[str, str]:
    """Find what keeps a dataset from being complete and undamaged: each file, and what is wrong with it.

    This is the one definition, for `verify`, for a run that may be finished already, and for a corpus. Every byte of
    every file counts.
    """
    folder = manifest.path
    found = {MANIFEST: _problem(folder / MANIFEST, is_canonical, "was changed since it was written")}
    checksums = manifest.checksums
    for name, sha256 in {**checksums.genes, **checksums.columns, **checksums.copies}.items():
        found[name] = checksum_problem(folder / name, sha256)
    for shard in manifest.shards:
        found[shard.file] = checksum_problem(folder / shard.file, shard.sha256, shard.bytes)
        advance(shard.rows)
    if manifest.args.format == "arrow" and found[INFO] is None:
        try:
            described = json.loads((folder / INFO).read_bytes())["features"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
            found[INFO] = f"cannot be read: {reason_of(exc)}"
        else:
            state = dataset_state(manifest.shards, described).encode()
            wrong = "is not what is written for these shards"
            found[STATE] = _problem(folder / STATE, lambda path: path.read_bytes() == state, wrong)
    for name in sorted(path.name for path in folder.iterdir()):
        if name not in found and is_shard(name):
            found[name] = "belongs to no run"
    if (folder / JOURNAL).exists():
        found[JOURNAL] = "is of an unfinished run; run it again to finish it"
    return {file: problem for file, problem in found.items() if problem is not None}


def checksum_problem(path: Path, sha256: str, n_bytes: int | None = None) -> str | None:
    """Describe the damage of a file that must have this checksum and size; None if there is none."""
    if n_bytes is not None and path.is_file() and (size := path.stat().st_size) != n_bytes:
        return f"has {size:,} bytes instead of {n_bytes:,}"
    return _problem(path, lambda file: sha256_of(file) == sha256, "is damaged (checksum mismatch)")


def _problem(path: Path, is_right: Callable[[Path], bool], wrong: str) -> str | None:
    try:
        if not path.is_file():
            return "is missing"
        return None if is_right(path) else wrong
    except (OSError, ValueError) as exc:
        return f"cannot be read: {reason_of(exc)}"


def _check_content(manifest: Manifest, shard: Shard) -> list[str]:
    """Check that a shard of the right bytes can be read, and holds as much as is recorded."""
    rows = tokens = 0
    try:
        with open_shard(manifest.path / shard.file) as (_, batches):
            for batch in batches:
                batch.validate(full=True)
                rows += batch.num_rows
                tokens += len(lists_of(batch, manifest.args.output_names.get("gene_ids", "gene_ids")).flatten())
    except (OSError, ValueError, KeyError) as exc:
        return [f"{shard.file} cannot be read: {reason_of(exc)}"]
    if (rows, tokens) != (shard.rows, shard.tokens):
        return [
            f"{shard.file} holds {rows:,} rows and {tokens:,} tokens instead of {shard.rows:,} and {shard.tokens:,}"
        ]
    return []


def verdict(found: Verification) -> str:
    """Format what a folder holds, and whether it is valid."""
    manifest = found.manifest
    held = f"{count(manifest.n_cells, 'cell')} in {count(manifest.n_shards, 'shard')}"
    if not isinstance(manifest, Manifest):
        held = f"{count(len(manifest.sources), 'dataset')}, {held}"
    return f"{held}, {count(len(found.problems), 'problem') if found.problems else 'all valid'}"
