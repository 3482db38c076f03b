"""Verify a corpus: every dataset, and that they can be joined."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import OutputError
from ..output.compatibility import Joined, meaning
from ..output.layout import (
    CORPUS,
    CORPUS_FILES,
    LOCK,
    MANIFEST,
    is_temporary,
    is_temporary_folder,
    is_vocabulary_folder,
    vocabulary_folder,
)
from ..output.manifest import Manifest
from ..output.verify import Verification, checksum_problem, notes_of, problems_of
from ..progress import progress_bar
from .manifest import CorpusManifest, CorpusSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def verify_corpus(folder: Path, *, progress: bool | None) -> Verification:
    """Check every byte of every dataset of a corpus, that they can be joined, and that `corpus.json` lists them all.

    Raises
    ------
    OutputError
        If ``corpus.json`` cannot be read.
    """
    corpus = CorpusManifest.read(folder)
    with progress_bar(corpus.n_cells, show=progress, doing="verifying") as advance:
        problems = _problems_of(corpus, advance)
    listed = {source.folder for source in corpus.sources}
    there = {file.parent.name for file in folder.glob(f"*/{MANIFEST}")}
    problems += [f"{name}: {CORPUS} does not list it" for name in sorted(there - listed)]
    return Verification(corpus, problems, _list_notes(corpus))


def _list_notes(corpus: CorpusManifest) -> list[str]:
    """List what is in the folder of a corpus, and in those of its datasets, in addition to what runs wrote."""
    folders = {source.folder for source in corpus.sources}
    notes = []
    for path in sorted(corpus.path.iterdir()):
        if path.name in folders:
            notes += [f"{path.name}: {note}" for note in notes_of(path)] if path.is_dir() else []
        elif is_vocabulary_folder(path.name):
            if path.name != vocabulary_folder(corpus.vocabulary):
                notes.append(f"{path.name} is of a vocabulary that no dataset uses any more")
        elif is_temporary(path.name) or is_temporary_folder(path.name):
            notes.append(f"{path.name} was left by a run that was killed: the next run removes what is its own")
        elif path.name not in CORPUS_FILES | {LOCK} and not (path / MANIFEST).exists():
            notes.append(f"{path.name} is not of teddytok, and is left alone")
    return notes


def _problems_of(corpus: CorpusManifest, advance: Callable[[int], None]) -> list[str]:
    """List what is wrong with the datasets that a corpus lists."""
    problems: list[str] = []
    if not corpus.is_canonical():
        problems.append(f"{CORPUS} was changed since it was written")
    shared = vocabulary_folder(corpus.vocabulary)
    for name, sha256 in corpus.vocabulary.items():
        if problem := checksum_problem(corpus.path / shared / name, sha256):
            problems.append(f"{shared}/{name} {problem}")
    joined = Joined()
    for source in corpus.sources:
        if source.error is not None:
            problems.append(f"{source.folder}: {source.source!r} failed: {source.error.message}")
            continue
        try:
            manifest = Manifest.read(corpus.path / source.folder)
            found = problems_of(manifest, advance)
            if source != CorpusSource.finished(source.source, manifest, source.stamp):
                found.append(f"{CORPUS} lists other cells or shards than {MANIFEST}")
            if manifest.stamp is not None and not corpus.has_checksum:  # 0.1.0 wrote neither
                found.append(f"{CORPUS} has lost its checksum")
            problems += [f"{source.folder}: {problem}" for problem in found]
            if not found:
                joined.add(manifest.path, meaning(manifest))
        except OutputError as exc:
            problems.append(f"{source.folder}: {exc}")
    return problems
