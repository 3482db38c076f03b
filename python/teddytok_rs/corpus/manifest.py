"""Describe a corpus: the result of each of its sources, written as `corpus.json`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, SkipValidation

from ..config.parts import (
    NOT_WRITTEN,
    Count,
    DocumentWithTotals,
    MappedPart,
    Part,
    Sha256,
    parse_part,
    to_document,
)
from ..errors.build import error
from ..errors.text import Rows, TextRepr, count
from ..output.checksum import is_canonical, read_checked, with_checksum
from ..output.layout import CORPUS, MANIFEST
from ..output.manifest import Configuration, RecordedArgs, VocabularyFile
from ..output.storage import reading

if TYPE_CHECKING:
    import os

    from ..output.manifest import Manifest


def _plain_name(name: str) -> str:
    if name in {"", ".", ".."} or "\0" in name or Path(name).name != name:
        reason = "it is not the plain name of a folder"
        raise ValueError(reason)
    return name


@dataclass(frozen=True)
class Failure(MappedPart):
    """What made a source fail: the kind of error and its message."""

    kind: str
    message: str


@dataclass(frozen=True, repr=False)
class CorpusSource(TextRepr, Part):
    """The result of one source of a corpus.

    Attributes
    ----------
    source
        Its path or URL.
    folder
        Name of its dataset's folder in the corpus.
    cells, tokens, shards
        What the dataset holds; 0 where the source failed.
    sha256
        Of the checksums of its shards; None where the source failed.
    stamp
        What the source's files looked like, to see whether it was changed since; None where it failed.
    error
        ``kind`` and ``message`` of what made the source fail; None where it is finished.
    """

    source: str
    folder: Annotated[str, AfterValidator(_plain_name)]
    cells: Count = 0
    tokens: Count = 0
    shards: Count = 0
    sha256: Sha256 | None = None
    stamp: str | None = None
    error: Failure | None = None

    @classmethod
    def finished(cls, source: str, manifest: Manifest, stamp: str | None) -> CorpusSource:
        """Describe a source whose dataset is finished."""
        return cls(
            source=source,
            folder=manifest.path.name,
            cells=manifest.n_cells,
            tokens=manifest.n_tokens,
            shards=len(manifest.shards),
            sha256=sha256_of_shards(manifest),
            stamp=stamp,
        )

    def _rows(self) -> tuple[str, Rows]:
        if self.error is not None:
            return f"{self.source}: failed", [("kind", self.error.kind), ("message", self.error.message)]
        return self.source, [("folder", self.folder), ("holds", held_text(self.cells, self.tokens, self.shards))]


def sha256_of_shards(manifest: Manifest) -> str:
    """Compute one checksum for all shards of a dataset."""
    return hashlib.sha256("".join(shard.sha256 for shard in manifest.shards).encode()).hexdigest()


def held_text(cells: int, tokens: int, shards: int) -> str:
    """Format the totals of datasets."""
    return f"{count(cells, 'cell')}, {count(tokens, 'token')}, {count(shards, 'shard')}"


@dataclass(frozen=True)
class CorpusTotals(Part):
    """What all datasets of a corpus hold, and how many sources failed."""

    cells: int
    tokens: int
    shards: int
    failed: int


@dataclass(frozen=True, repr=False)
class CorpusManifest(TextRepr, DocumentWithTotals):
    """Many sources tokenized into one folder. Written there as ``corpus.json``, with a checksum of itself.

    Attributes
    ----------
    path
        The folder.
    version
        Of teddytok-rs.
    configuration
        All arguments but ``load_dir`` and ``save_dir``.
    sources
        The result of each source, by the name of its folder.
    vocabulary
        sha256 of each file of the vocabulary in the folder that the datasets share; version 0.1.0 had none.
    has_checksum
        Whether the file that it was read from ends with a checksum; version 0.1.0 wrote none. Not in the file.
    """

    path: Annotated[Path, SkipValidation] = field(metadata=NOT_WRITTEN)
    version: str
    configuration: Configuration
    sources: list[CorpusSource]
    vocabulary: dict[VocabularyFile, Sha256] = field(default_factory=dict)
    has_checksum: Annotated[bool, SkipValidation] = field(default=True, compare=False, metadata=NOT_WRITTEN)

    @cached_property
    def args(self) -> RecordedArgs:
        """Those of the arguments that readers look up."""
        return parse_part(RecordedArgs, self.configuration)

    @property
    def finished(self) -> list[CorpusSource]:
        """The sources whose dataset is finished."""
        return [source for source in self.sources if source.error is None]

    @property
    def failed(self) -> list[CorpusSource]:
        """The sources that could not be tokenized."""
        return [source for source in self.sources if source.error is not None]

    @property
    def n_cells(self) -> int:
        """Cells of all datasets."""
        return sum(source.cells for source in self.sources)

    @property
    def n_tokens(self) -> int:
        """Tokens of all datasets."""
        return sum(source.tokens for source in self.sources)

    @property
    def n_shards(self) -> int:
        """Shards of all datasets."""
        return sum(source.shards for source in self.sources)

    @property
    def totals(self) -> CorpusTotals:
        """What all datasets hold, and how many sources failed."""
        return CorpusTotals(self.n_cells, self.n_tokens, self.n_shards, len(self.failed))

    def _rows(self) -> tuple[str, Rows]:
        return corpus_title(self), [("failed", source.source) for source in self.failed]

    def to_json(self) -> str:
        """Write as JSON, the same text for the same corpus."""
        return with_checksum(to_document(self), ascii_only=True)

    def is_canonical(self) -> bool:
        """Return whether the bytes of the file are exactly those that its content is written as."""
        return is_canonical(self.path / CORPUS, ascii_only=True)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CorpusManifest:
        """Read the manifest of a corpus.

        Raises
        ------
        OutputError
            If the folder has none, or it is not one that this package wrote.
        """
        folder = Path(path)
        try:
            document, has_checksum = read_checked(folder / CORPUS)
            manifest = parse_part(cls, document, path=folder, has_checksum=has_checksum)
            if len({source.folder for source in manifest.sources}) == len(manifest.sources):
                return manifest
            reason = "it lists a folder twice"
        except ValueError as exc:
            reason = str(exc)
        reason = f"{CORPUS}: {' '.join(reason.split())}; 'teddytok tokenize' writes it again where it is removed"
        raise error("output_unreadable", path=str(folder), reason=reason)


def find_datasets(folder: Path) -> list[Path]:
    """List a folder that is a dataset; the finished datasets of a corpus; or the datasets in a folder, by name."""
    with reading(folder):
        if (folder / MANIFEST).exists() or not folder.is_dir():
            return [folder]
        if (folder / CORPUS).exists():
            return [folder / source.folder for source in CorpusManifest.read(folder).finished] or [folder]
    return sorted(file.parent for file in folder.glob(f"*/{MANIFEST}")) or [folder]


def corpus_title(corpus: CorpusManifest) -> str:
    """Format one line about a corpus."""
    held = held_text(corpus.n_cells, corpus.n_tokens, corpus.n_shards)
    return f"{corpus.path}: {count(len(corpus.finished), 'dataset')}, {held}"
