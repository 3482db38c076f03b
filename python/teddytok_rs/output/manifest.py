"""Describe a run and its shards, written as `teddytok.json`."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..config.args import LOCATIONS, PATHS
from ..config.files import DocumentError
from ..errors.build import error
from ..errors.text import some
from ..pipeline.schema import features
from ..pipeline.warnings import collect_warnings
from ..sources.identity import fingerprint
from .checksum import read_checked, with_checksum
from .dataset_info import dataset_info

if TYPE_CHECKING:
    from ..pipeline.plan import Plan
from .layout import FILE_NAME, GENES, INFO, JOURNAL, SHARD_NAME
from .overwrite import is_replaced
from .storage import reading, sha256_of
from .vocabulary import copies_of


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

    def is_as_long(self, folder: Path) -> bool:
        """Return whether the file exists with the recorded length."""
        path = folder / self.file
        return path.is_file() and path.stat().st_size == self.bytes

    def is_whole(self, folder: Path) -> bool:
        """Return whether the file exists with the recorded length and checksum."""
        return self.is_as_long(folder) and sha256_of(folder / self.file) == self.sha256


@dataclass(frozen=True)
class Manifest:
    """What a dataset is made of and from. Written next to its shards as ``teddytok.json``, with a checksum of itself.

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
        Name, fingerprint, stamp, layer and number type of the source, its cells, and those that ``cell_filter``
        dropped. Version 0.1.0 recorded no stamp.
    checksums
        sha256 of each file of the vocabulary, of each mapping, of ``genes.csv``, of ``dataset_info.json``, of what
        ``obs`` gave (the cells kept and their annotation columns), and of the vocabulary's copies in this folder.
    genes
        Genes of the source, kept and dropped; tokens with several genes.
    annotations
        For each annotation: the obs column, the token id and number of cells of each label, the unmapped labels.
    cls_token
        Id of the CLS token; None where there is none.
    shards
        The files of its cells, in order.
    warnings
        What did not stop the run but may be unintended, see `collect_warnings`; none in those of 0.1.0.
    n_kept
        Shards that an earlier call had finished and this one kept; not in the file.
    """

    path: Path
    version: str
    configuration: dict[str, object]
    gene_seed: int | None
    source: dict[str, Any]
    checksums: dict[str, dict[str, str]]
    genes: dict[str, Any]
    annotations: dict[str, Any]
    cls_token: int | None
    shards: list[Shard]
    warnings: list[str] = field(default_factory=list)
    n_kept: int = field(default=0, compare=False)

    @cached_property
    def args(self) -> RecordedArgs:
        """Those of the arguments that readers look up."""
        return RecordedArgs.model_validate(self.configuration)

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
        """Share of the cells' total expression that is in dropped genes; 0 where there is none at all."""
        total = sum(shard.expression for shard in self.shards)
        return 1 - sum(shard.expression_kept for shard in self.shards) / total if total > 0 else 0.0

    @property
    def stamp(self) -> str | None:
        """The `stamp` of the source when it was tokenized; None where that was not recorded."""
        return self.source.get("stamp")

    @property
    def _totals(self) -> dict[str, Any]:
        """What people and scripts want to know of all shards together."""
        return {"cells": self.n_cells, "tokens": self.n_tokens, "expression_lost": round(self.expression_lost, 6)}

    @classmethod
    def of(cls, plan: Plan, path: Path, stamp: str, *, copy_vocabulary: bool = True) -> Self:
        """Describe a run that is about to begin, of a source that has this `stamp` now."""
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
                "stamp": stamp,
                "n_cells": plan.source.n_cells,
                "cells_dropped": plan.source.n_cells - len(plan.cells),
                "layer": plan.source.layer,
                "dtype": str(plan.source.dtype),
            },
            checksums={
                "vocabulary": plan.vocabulary.sha256,
                "mappings": mappings,
                "genes": {GENES: hashlib.sha256(plan.genes.csv.encode()).hexdigest()},
                "columns": {INFO: hashlib.sha256(dataset_info(described).encode()).hexdigest()},
                "cells": {"obs": _sha256_of_cells(plan)},
                "copies": copies_of(plan.vocabulary.sha256) if copy_vocabulary else {},
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
            warnings=collect_warnings(plan),
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
        """List what the bytes depend on. Paths do not count, but the content of the files does."""
        identity = {key: value for key, value in self.configuration.items() if key not in PATHS | {"gene_seed"}}
        for group in self.checksums.keys() - {"copies"}:
            identity |= {f"sha256 of {group} {name}": sha256[:12] for name, sha256 in self.checksums[group].items()}
        identity["fingerprint of the source"] = self.source["fingerprint"][:12]
        identity["teddytok-rs version"] = self.version
        identity["gene_seed"] = self.gene_seed
        return identity

    def to_document(self) -> dict[str, Any]:
        """List all parts that are written."""
        document = {key: value for key, value in asdict(self).items() if key not in {"path", "n_kept"}}
        return document | {"totals": self._totals}

    def to_json(self) -> str:
        """Write as JSON, the same text for the same run."""
        return with_checksum(self.to_document())

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
                document, has_checksum = read_checked(path / FILE_NAME)
                manifest = cls.parse(path, document)
                if has_checksum or manifest.stamp is None:  # 0.1.0 wrote neither
                    return manifest
                reason = f"{FILE_NAME} has lost its checksum"
            except DocumentError as bad:
                reason = f"{FILE_NAME}: {bad}"
                if (path / JOURNAL).exists():
                    reason = "its run is unfinished, and the same run again continues it"
                elif path.is_dir() and is_replaced(path):
                    reason = "replacing it was interrupted, and the same run again completes it"
                elif path.is_dir() and (inside := sorted(found.parent.name for found in path.glob(f"*/{FILE_NAME}"))):
                    one = repr(str(path / inside[0]))
                    give = one if len(inside) == 1 else f"one of them, such as {one}"
                    raise error("several_datasets", path=str(path), inside=some(inside), give=give) from None
                elif not path.is_dir():
                    reason = "it is a file" if path.exists() else "there is no such folder"
            except ValueError as bad:
                reason = f"{FILE_NAME} is not one that teddytok wrote: {bad}"
            raise error("output_unreadable", path=str(path), reason=reason)

    @classmethod
    def parse(cls, path: Path, document: Any) -> Manifest:
        """Make the manifest of a folder from its parts.

        Raises
        ------
        ValueError
            If a part is missing, unknown or of another type.
        """
        parts = {key: value for key, value in checked(_DOCUMENT, document).items() if key not in {"shards", "totals"}}
        manifest = cls(path=path, shards=[Shard(**shard) for shard in document["shards"]], **parts)
        if document["totals"] != manifest._totals:
            reason = "totals: they are not those of the shards"
            raise ValueError(reason)
        return manifest


def parse_shard(document: Any) -> Shard:
    """Make a shard from its parts; a `ValueError` if one is missing, unknown or of another type."""
    return Shard(**checked(_SHARD, document))


# ---- what the parts of a document must be, so that no reader meets anything else


class Part(BaseModel):
    """A part of a document: it may hold more than is named here, but not of another type."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


Count = Annotated[int, Field(ge=0, lt=2**63)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
VocabularyFile = Literal[
    "vocab.txt", "vocab.json", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"
]


class _Shard(Part):
    model_config = ConfigDict(extra="forbid")

    file: Annotated[str, Field(pattern=f"^{SHARD_NAME.pattern}$")]
    rows: Count
    tokens: Count
    bytes: Count
    sha256: Sha256
    expression: float
    expression_kept: float


class _Source(Part):
    name: str
    fingerprint: str
    stamp: str = ""
    n_cells: Count
    cells_dropped: Count
    layer: str
    dtype: str


class RecordedArgs(Part):
    """The arguments that readers look up; a manifest records all of its version."""

    tokenizer_name_or_path: str
    layer: str
    add_cls: bool
    format: Literal["arrow", "parquet", "webdataset"]
    max_seq_len: Count
    pad_length: Count | None
    bins: Count | None
    continuous_rank: bool
    add_disease_annotation: bool
    disease_column: str | None
    label_column: str | None


class _Genes(Part):
    n_var: Count
    kept: Count
    dropped: Count
    duplicates: dict[str, list[str]]


class _Annotation(Part):
    column: str
    tokens: dict[str, int]
    cells: dict[str, Count]
    by_part: dict[str, str]
    unmapped: dict[str, Count]


class _Checksums(Part):
    __pydantic_extra__: dict[str, dict[str, Sha256]]
    vocabulary: dict[str, Sha256]
    mappings: dict[str, Sha256]
    genes: Annotated[dict[Literal["genes.csv"], Sha256], Field(min_length=1)]
    columns: Annotated[dict[Literal["dataset_info.json"], Sha256], Field(min_length=1)]
    cells: dict[str, Sha256]
    copies: dict[VocabularyFile, Sha256] = Field(default_factory=dict)


class _Document(Part):
    model_config = ConfigDict(extra="forbid")

    version: str
    configuration: RecordedArgs
    gene_seed: Annotated[int, Field(ge=0, lt=2**64)] | None
    source: _Source
    checksums: _Checksums
    genes: _Genes
    annotations: dict[Literal["disease", "tissue", "cell", "sex"], _Annotation]
    cls_token: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None
    shards: list[_Shard]
    warnings: list[str] = []
    totals: dict[str, Any]


_SHARD, _DOCUMENT = TypeAdapter(_Shard), TypeAdapter(_Document)


def checked(adapter: TypeAdapter[Any], document: Any) -> dict[str, Any]:
    """Return a document once all its parts are of the right types; a `ValueError` that names the first that is not."""
    try:
        adapter.validate_python(document)
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]
        raise ValueError(reason) from None
    return dict(document)
