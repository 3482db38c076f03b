"""Describe a corpus: what became of each of its sources, written as `corpus.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.files import DocumentError, read_document
from ..errors.build import error
from ..output.layout import CORPUS

if TYPE_CHECKING:
    import os

    from ..output.manifest import Manifest


@dataclass(frozen=True)
class CorpusSource:
    """What became of one source of a corpus.

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
    def finished(cls, source: str, manifest: Manifest, stamp: str) -> CorpusSource:
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
    """Many sources tokenized into one folder. Written there as ``corpus.json``.

    Attributes
    ----------
    path
        The folder.
    version
        Of teddytok-rs.
    configuration
        All arguments but ``load_dir`` and ``save_dir``.
    sources
        What became of each source, by the name of its folder: ``source``, ``folder``, ``cells``, ``tokens``,
        ``shards``, ``sha256``, and ``error`` (a dict of ``kind`` and ``message``, or None).
    """

    path: Path
    version: str
    configuration: dict[str, Any]
    sources: list[CorpusSource]

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

    def to_json(self) -> str:
        """Write as JSON, the same text for the same corpus."""
        document = {key: value for key, value in asdict(self).items() if key != "path"}
        totals = {"cells": self.n_cells, "tokens": self.n_tokens, "shards": self.n_shards, "failed": len(self.failed)}
        return json.dumps(document | {"totals": totals}, indent=2, sort_keys=True) + "\n"

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
            document = read_document(folder / CORPUS)
            sources = [CorpusSource(**source) for source in document.pop("sources")]
            document.pop("totals")
            manifest = cls(path=folder, sources=sources, **document)
            manifest.to_json()
        except (DocumentError, TypeError, KeyError, AttributeError, ValueError) as bad:
            reason = f"{CORPUS}: {' '.join(str(bad).split())}; 'teddytok tokenize' writes it again where it is removed"
            raise error("output_unreadable", path=str(folder), reason=reason) from None
        return manifest
