"""Describe a run and its shards, written as `teddytok.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..config.args import LOCATIONS, PATHS
from ..config.files import DocumentError, read_document, read_text
from ..errors.build import error
from ..errors.text import some
from ..pipeline.schema import features
from ..sources.identity import fingerprint
from .dataset_info import dataset_info

if TYPE_CHECKING:
    from ..pipeline.plan import Plan
from .layout import FILE_NAME, INFO, JOURNAL, SHARD_NAME
from .storage import reading, sha256_of


def _sha256_of_cells(plan: Plan) -> str:
    digest = hashlib.sha256(b"" if plan.cells.rows is None else plan.cells.rows.astype("<i8").tobytes())
    for column in plan.annotations.columns:
        digest.update(f"{column.name} {column.feature}".encode())
        for buffer in column.values.buffers():
            digest.update(b"" if buffer is None else buffer)
    return digest.hexdigest()


@dataclass(frozen=True)
class Shard:
    """One file of a dataset's cells.

    Attributes
    ----------
    expression, expression_kept
        Sum of absolute values of its cells over all genes, and over the kept ones; 12 significant digits.
    """

    file: str
    rows: int
    tokens: int
    bytes: int
    sha256: str
    expression: float
    expression_kept: float

    def __post_init__(self) -> None:
        numbers = (self.rows, self.tokens, self.bytes)
        if not SHARD_NAME.fullmatch(str(self.file)) or not all(isinstance(number, int) for number in numbers):
            damaged = f"{self.file!r} is no shard"
            raise ValueError(damaged)

    def is_as_long(self, folder: Path) -> bool:
        """Tell whether the file is there, as long as it was written."""
        path = folder / self.file
        return path.is_file() and path.stat().st_size == self.bytes

    def is_whole(self, folder: Path) -> bool:
        """Tell whether the file is there with the bytes that were written."""
        return self.is_as_long(folder) and sha256_of(folder / self.file) == self.sha256


@dataclass(frozen=True)
class Manifest:
    """What a dataset is made of and from. Written beside it as ``teddytok.json``.

    Attributes
    ----------
    path
        The dataset's folder.
    version
        Of teddytok-rs.
    configuration
        All arguments but ``load_dir`` and ``save_dir``.
    gene_seed
        The seed used; None where no random subsets were drawn.
    source
        Name, fingerprint, layer and number type of the source, its cells, and those that ``cell_filter`` dropped.
    checksums
        sha256 of each file of the vocabulary, of each mapping, of ``genes.csv``, of ``dataset_info.json``, and of what
        ``obs`` gave: the cells kept and their annotation columns.
    genes
        Genes of the source, kept and dropped; tokens with several genes.
    annotations
        For each annotation: the obs column, the token id and number of cells of each label, the unmapped labels.
    cls_token
        Id of the CLS token; None where there is none.
    shards
        The files of its cells, in order.
    n_kept
        Shards that an earlier call had finished and this one kept; not in the file.
    """

    path: Path
    version: str
    configuration: dict[str, Any]
    gene_seed: int | None
    source: dict[str, Any]
    checksums: dict[str, dict[str, str]]
    genes: dict[str, Any]
    annotations: dict[str, Any]
    cls_token: int | None
    shards: list[Shard]
    n_kept: int = field(default=0, compare=False)

    @property
    def n_cells(self) -> int:
        """Cells of the dataset."""
        return sum(shard.rows for shard in self.shards)

    @property
    def n_tokens(self) -> int:
        """Tokens of the dataset."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def expression_lost(self) -> float:
        """Share of the cells' total expression that lies in dropped genes; 0 where there is none at all."""
        total = sum(shard.expression for shard in self.shards)
        return 1 - sum(shard.expression_kept for shard in self.shards) / total if total > 0 else 0.0

    @classmethod
    def of(cls, plan: Plan, path: Path) -> Self:
        """Describe a run that is about to begin."""
        from .. import __version__

        mappings = dict(plan.annotations.sha256)
        if plan.args.median_dict is not None:
            mappings["median_dict"] = sha256_of(Path(plan.args.median_dict))
        report = plan.genes.report
        described = features(plan.args, plan.annotations.columns)
        return cls(
            path=path,
            version=__version__,
            configuration=plan.args.model_dump(mode="json", exclude=LOCATIONS),
            gene_seed=plan.seed,
            source={
                "name": plan.source.name,
                "fingerprint": fingerprint(plan.source),
                "n_cells": plan.source.n_cells,
                "cells_dropped": plan.source.n_cells - len(plan.cells),
                "layer": plan.source.layer,
                "dtype": str(plan.source.dtype),
            },
            checksums={
                "vocabulary": plan.vocabulary.sha256,
                "mappings": mappings,
                "genes": {"genes.csv": hashlib.sha256(plan.genes.csv.encode()).hexdigest()},
                "columns": {INFO: hashlib.sha256(dataset_info(described).encode()).hexdigest()},
                "cells": {"obs": _sha256_of_cells(plan)},
            },
            genes={
                "n_var": report.n_var,
                "kept": report.n_kept,
                "dropped": report.n_dropped,
                "duplicates": {str(token): ids for token, ids in report.duplicates.items()},
            },
            annotations={kind: asdict(report) for kind, report in plan.annotations.reports.items()},
            cls_token=plan.cls_token,
            shards=[],
        )

    def with_shards(self, shards: list[Shard]) -> Manifest:
        """Describe the run once these shards are written, in whatever order."""
        return replace(self, shards=sorted(shards, key=lambda shard: (len(shard.file), shard.file)))

    def differences(self, other: Manifest) -> list[str]:
        """Name what makes the other run write other bytes: argument or part, here and there."""
        mine, theirs = self._identity(), other._identity()
        return [
            f"{key} ({mine.get(key)!r} there, {theirs.get(key)!r} now)"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]

    def _identity(self) -> dict[str, Any]:
        """List what the bytes depend on. Paths do not count, but what lay there does."""
        identity = {key: value for key, value in self.configuration.items() if key not in PATHS | {"gene_seed"}}
        for group in self.checksums:
            identity |= {f"sha256 of {group} {name}": sha256[:12] for name, sha256 in self.checksums[group].items()}
        identity["fingerprint of the source"] = self.source["fingerprint"][:12]
        identity["teddytok-rs version"] = self.version
        identity["gene_seed"] = self.gene_seed
        return identity

    def to_json(self, indent: int | None = 2) -> str:
        """Write as JSON, the same text for the same run."""
        document = {key: value for key, value in asdict(self).items() if key not in {"path", "n_kept"}}
        # For people and scripts; counted anew when it is read.
        lost = round(self.expression_lost, 6)
        document["totals"] = {"cells": self.n_cells, "tokens": self.n_tokens, "expression_lost": lost}
        return json.dumps(document, indent=indent, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read the manifest of a dataset's folder.

        Raises
        ------
        OutputError
            If the folder has none, or it is not one that this package wrote.
        """
        with reading(path):
            try:
                return cls._parse(path, read_document(path / FILE_NAME))
            except DocumentError as bad:
                reason = f"{FILE_NAME}: {bad}"
                if (path / JOURNAL).exists():
                    reason = "its run is unfinished, and the same run again continues it"
                elif path.is_dir() and (inside := sorted(found.parent.name for found in path.glob(f"*/{FILE_NAME}"))):
                    one = repr(str(path / inside[0]))
                    give = one if len(inside) == 1 else f"one of them, such as {one}"
                    raise error("several_datasets", path=str(path), inside=some(inside), give=give) from None
                elif not path.is_dir():
                    reason = "it is a file" if path.exists() else "there is no such folder"
            except (TypeError, KeyError, AttributeError, ValueError) as bad:
                reason = f"{FILE_NAME} is not one that teddytok wrote ({bad})"
            raise error("output_unreadable", path=str(path), reason=reason)

    @classmethod
    def read_journal(cls, path: Path) -> Manifest | None:
        """Read the journal of an unfinished run in a folder; None where there is none.

        A last line that a crash cut short does not count.

        Raises
        ------
        OutputError
            If it is not one that this package wrote.
        """
        if not (path / JOURNAL).exists():
            return None
        try:
            _, head, *lines = read_text(path / JOURNAL).split("\n")
            manifest = cls._parse(path, json.loads(head))
            shards = [Shard(**json.loads(line)) for line in lines[:-1]]  # as they were finished, by several threads
            return manifest.with_shards(sorted(shards, key=lambda shard: (len(shard.file), shard.file)))
        except (DocumentError, TypeError, KeyError, AttributeError, ValueError, RecursionError) as bad:
            reason = f"{JOURNAL} is not one that teddytok wrote ({bad})"
        raise error("output_unreadable", path=str(path), reason=reason)

    @staticmethod
    def read_stamp(path: Path) -> str | None:
        """Read from the journal what stamp the source had; None where that is not known."""
        try:
            return str(json.loads(read_text(path / JOURNAL).split("\n")[0]))
        except (DocumentError, ValueError, RecursionError):
            return None

    @classmethod
    def _parse(cls, path: Path, document: Any) -> Manifest:
        shards = [Shard(**shard) for shard in document.pop("shards")]
        document.pop("totals")
        manifest = cls(path=path, shards=shards, **document)
        parts = (manifest.configuration, manifest.source, manifest.checksums, manifest.genes, manifest.annotations)
        if not all(isinstance(part, dict) for part in (*parts, *manifest.checksums.values())):
            damaged = "a part of it is of another type"
            raise TypeError(damaged)
        sums = (sha256 for group in manifest.checksums.values() for sha256 in group.values())
        texts = (manifest.configuration["format"], manifest.source["fingerprint"], *sums)
        if not {"genes", "columns"} <= set(manifest.checksums) or not all(isinstance(text, str) for text in texts):
            damaged = "a part of it is missing or of another type"
            raise TypeError(damaged)
        return manifest
