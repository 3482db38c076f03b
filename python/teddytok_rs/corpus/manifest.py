"""Describe a corpus: the result of each of its sources, written as `corpus.json`."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter

from ..errors.build import error
from ..output.checksum import is_canonical, read_checked, with_checksum
from ..output.layout import CORPUS, FILE_NAME
from ..output.manifest import Count, Part, RecordedArgs, Sha256, VocabularyFile, checked
from ..output.storage import reading

if TYPE_CHECKING:
    import os

    from ..output.manifest import Manifest


@dataclass(frozen=True)
class CorpusSource:
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
    folder: str
    cells: int = 0
    tokens: int = 0
    shards: int = 0
    sha256: str | None = None
    stamp: str | None = None
    error: dict[str, str] | None = None

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


def sha256_of_shards(manifest: Manifest) -> str:
    """Compute one checksum for all shards of a dataset."""
    return hashlib.sha256("".join(shard.sha256 for shard in manifest.shards).encode()).hexdigest()


@dataclass(frozen=True)
class CorpusManifest:
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
        The result of each source, by the name of its folder: ``source``, ``folder``, ``cells``, ``tokens``,
        ``shards``, ``sha256``, and ``error`` (a dict of ``kind`` and ``message``, or None).
    vocabulary
        sha256 of each file of the vocabulary in the folder that the datasets share; version 0.1.0 had none.
    has_checksum
        Whether the file that it was read from ends with a checksum; version 0.1.0 wrote none. Not in the file.
    """

    path: Path
    version: str
    configuration: dict[str, object]
    sources: list[CorpusSource]
    vocabulary: dict[str, str] = field(default_factory=dict)
    has_checksum: bool = field(default=True, compare=False)

    @cached_property
    def args(self) -> RecordedArgs:
        """Those of the arguments that readers look up."""
        return RecordedArgs.model_validate(self.configuration)

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
    def _totals(self) -> dict[str, int]:
        return {"cells": self.n_cells, "tokens": self.n_tokens, "shards": self.n_shards, "failed": len(self.failed)}

    def to_json(self) -> str:
        """Write as JSON, the same text for the same corpus."""
        document = {key: value for key, value in asdict(self).items() if key not in {"path", "has_checksum"}}
        return with_checksum(document | {"totals": self._totals}, ascii_only=True)

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
            parts = checked(_DOCUMENT, document)
            sources = [CorpusSource(**source) for source in parts.pop("sources")]
            totals = parts.pop("totals")
            manifest = cls(path=folder, sources=sources, has_checksum=has_checksum, **parts)
            if totals == manifest._totals and len({source.folder for source in sources}) == len(sources):
                return manifest
            reason = "the totals are not those of the sources, or a folder is listed twice"
        except ValueError as bad:
            reason = str(bad)
        reason = f"{CORPUS}: {' '.join(reason.split())}; 'teddytok tokenize' writes it again where it is removed"
        raise error("output_unreadable", path=str(folder), reason=reason)


def find_datasets(folder: Path) -> list[Path]:
    """List a folder that is a dataset; the finished datasets of a corpus; or the datasets in a folder, by name."""
    with reading(folder):
        if (folder / FILE_NAME).exists() or not folder.is_dir():
            return [folder]
        if (folder / CORPUS).exists():
            return [folder / source.folder for source in CorpusManifest.read(folder).finished] or [folder]
    return sorted(file.parent for file in folder.glob(f"*/{FILE_NAME}")) or [folder]


# ---- what the parts of the document must be, so that no reader meets anything else


def _plain_name(name: str) -> str:
    if name in {"", ".", ".."} or "\0" in name or Path(name).name != name:
        reason = "it is not the plain name of a folder"
        raise ValueError(reason)
    return name


class _Error(Part):
    kind: str
    message: str


class _Source(Part):
    model_config = ConfigDict(extra="forbid")

    source: str
    folder: Annotated[str, AfterValidator(_plain_name)]
    cells: Count = 0
    tokens: Count = 0
    shards: Count = 0
    sha256: Sha256 | None = None
    stamp: str | None = None
    error: _Error | None = None


class _Document(Part):
    model_config = ConfigDict(extra="forbid")

    version: str
    configuration: RecordedArgs
    sources: list[_Source]
    vocabulary: dict[VocabularyFile, Sha256] = Field(default_factory=dict)
    totals: dict[str, Any]


_DOCUMENT = TypeAdapter(_Document)
