"""Describe a run and its shards, written as `teddytok.json`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path  # noqa: TC003 -- pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, SkipValidation

from ..config.args import DEFAULTS, LOCATIONS, NOTES, PATHS, recorded
from ..config.files import DocumentError
from ..config.kinds import ANNOTATIONS, columns_by_name
from ..config.parts import NOT_WRITTEN, Count, DocumentWithTotals, MappedPart, Part, Sha256, parse_part, to_document
from ..config.tables import TableChecksum
from ..errors.build import error
from ..errors.text import Rows, TextRepr, count, size_text, some
from ..mapping.gene_map import gene_map_checksum
from ..mapping.genes import GROUPS
from ..mapping.reports import (
    AnnotationReport,
    GeneReport,
    SourceReport,
    duplicates_text,
    gene_text,
    group_rows,
    layer_rows,
    unmapped_rows,
)
from ..mapping.vocabulary_files import FILES, is_same_vocabulary
from ..pipeline.schema import features
from ..pipeline.warnings import collect_warnings
from ..sources.identity import fingerprint
from .checksum import read_checked, with_checksum
from .dataset_info import dataset_info
from .layout import GENES, INFO, JOURNAL, MANIFEST, SHARD_NAME
from .overwrite import is_replacement_interrupted
from .storage import reading, sha256_of
from .vocabulary import copies_of

if TYPE_CHECKING:
    from ..pipeline.plan import Plan


@dataclass(frozen=True)
class Shard(Part):
    """One file of a dataset's cells.

    Attributes
    ----------
    expression, expression_kept
        Sum of absolute values of its cells over all genes, and over the kept ones; 12 significant digits.
    expression_of_group
        The same over the genes that ``gene_map`` ``"mapped"``, those that are ``"ambiguous"``, and those that
        ``gene_filter`` left out (``"filtered"``); empty where there are none of these.
    """

    file: Annotated[str, Field(pattern=f"^{SHARD_NAME.pattern}$")]
    rows: Count
    tokens: Count
    bytes: Count
    sha256: Sha256
    expression: float
    expression_kept: float
    expression_of_group: dict[str, float] = field(default_factory=dict)

    def has_recorded_length(self, folder: Path) -> bool:
        """Return whether the file exists with the recorded length."""
        path = folder / self.file
        return path.is_file() and path.stat().st_size == self.bytes

    def is_undamaged(self, folder: Path) -> bool:
        """Return whether the file exists with the recorded length and checksum."""
        return self.has_recorded_length(folder) and sha256_of(folder / self.file) == self.sha256


#: Name of a file of a vocabulary.
VocabularyFile = Annotated[str, Field(pattern=f"^({'|'.join(map(re.escape, FILES))})$")]


@dataclass(frozen=True)
class RecordedArgs(Part):
    """The arguments that readers look up; a manifest records all of its version."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="ignore")

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
    output_names: dict[str, str] = field(default_factory=dict)

    @cached_property
    def columns_by_name(self) -> dict[str, str]:
        """Which of the `OUTPUT_COLUMNS` has which name in the dataset."""
        return columns_by_name(self.output_names)


def _check_configuration(configuration: dict[str, object]) -> dict[str, object]:
    """Check the arguments; those that an earlier version did not know have their defaults."""
    parse_part(RecordedArgs, configuration)
    return configuration | {
        key: value for key, value in DEFAULTS.items() if key not in configuration and key not in LOCATIONS
    }


#: All arguments of a run.
Configuration = Annotated[dict[str, object], AfterValidator(_check_configuration)]


@dataclass(frozen=True, repr=False)
class RecordedSource(SourceReport):
    """What was tokenized.

    Attributes
    ----------
    fingerprint
        Of all names and a sample of the values.
    stamp
        Of its files, see `sources.identity.stamp`; None in manifests of version 0.1.0.
    """

    fingerprint: str
    stamp: str | None = None


@dataclass(frozen=True)
class Checksums(MappedPart):
    """The sha256 of what a dataset depends on: group -> file or argument -> checksum.

    Attributes
    ----------
    vocabulary, mappings
        Of each file of the vocabulary, of each mapping, of the medians and of the gene map.
    contents
        Of what the mappings and medians hold, which is the same for a file and for a dict (see `content_checksum`), and
        of the gene map's file.
    genes, columns
        Of ``genes.csv`` and of ``dataset_info.json``.
    cells
        Of what ``obs`` gave: the cells kept and their annotation columns.
    copies
        Of the vocabulary's copies in the dataset's folder; version 0.1.0 made none.
    """

    vocabulary: dict[str, Sha256]
    mappings: dict[str, Sha256]
    genes: Annotated[dict[Annotated[str, Field(pattern=f"^{re.escape(GENES)}$")], Sha256], Field(min_length=1)]
    columns: Annotated[dict[Annotated[str, Field(pattern=f"^{re.escape(INFO)}$")], Sha256], Field(min_length=1)]
    cells: dict[str, Sha256]
    copies: dict[VocabularyFile, Sha256] = field(default_factory=dict)
    contents: dict[str, Sha256] = field(default_factory=dict)

    @property
    def tables(self) -> dict[str, TableChecksum]:
        """The checksums of each mapping and of the medians, to be compared."""
        return {key: TableChecksum(sha256, self.contents.get(key)) for key, sha256 in self.mappings.items()}


@dataclass(frozen=True)
class Totals(Part):
    """What people and scripts want to know of all shards together."""

    cells: Count
    tokens: Count
    expression_lost: float


def _short(group: str, manifest: Manifest) -> dict[str, object]:
    """List the checksums of a group, as far as a message shows them."""
    files: dict[str, str] = getattr(manifest.checksums, group)
    return {f"sha256 of {group} {name}": sha256[:12] for name, sha256 in files.items()}


def _named(checksum: TableChecksum | None) -> str:
    return "none" if checksum is None else repr((checksum.contents or checksum.sha256)[:12])


@dataclass(frozen=True, repr=False)
class Manifest(TextRepr, DocumentWithTotals):
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
        Name, layer and number type of the source, its cells, and those that ``cell_filter`` dropped; its fingerprint
        and stamp.
    checksums
        sha256 of what the dataset depends on.
    genes
        Genes of the source, kept and dropped; tokens with several genes.
    annotations
        For each annotation: the obs column, the token id and number of cells of each label, the unmapped labels.
    cls_token
        Id of the CLS token; None where there is none.
    eos_token
        Likewise of the EOS token.
    shards
        The files of its cells, in order.
    special_tokens
        Role (``"pad"``, ``"mask"``, ...) -> id of each special token of the vocabulary; none in those of 0.1.0.
    warnings
        What did not stop the run but may be unintended, see `collect_warnings`; none in those of 0.1.0.
    n_kept
        Shards that an earlier call had finished and this one kept; not in the file.
    """

    path: Annotated[Path, SkipValidation] = field(metadata=NOT_WRITTEN)
    version: str
    configuration: Configuration
    gene_seed: Annotated[int, Field(ge=0, lt=2**64)] | None
    source: RecordedSource
    checksums: Checksums
    genes: GeneReport
    annotations: dict[Annotated[str, Field(pattern=f"^({'|'.join(ANNOTATIONS)})$")], AnnotationReport]
    cls_token: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None
    shards: list[Shard]
    warnings: list[str] = field(default_factory=list)
    special_tokens: dict[str, Count] = field(default_factory=dict)
    eos_token: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    n_kept: int = field(default=0, compare=False, metadata=NOT_WRITTEN)

    @cached_property
    def args(self) -> RecordedArgs:
        """Those of the arguments that readers look up."""
        return parse_part(RecordedArgs, self.configuration)

    @property
    def n_special(self) -> int:
        """Number of special tokens of each sequence: CLS and EOS."""
        return (self.cls_token is not None) + (self.eos_token is not None)

    @property
    def n_cells(self) -> int:
        """Cells of the dataset."""
        return sum(shard.rows for shard in self.shards)

    @property
    def n_tokens(self) -> int:
        """Tokens of the dataset."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def n_shards(self) -> int:
        """Shards of the dataset."""
        return len(self.shards)

    @property
    def expression_lost(self) -> float:
        """Share of the cells' total expression in dropped genes, except those that ``gene_filter`` left out."""
        total = sum(shard.expression for shard in self.shards)
        kept = sum(shard.expression_kept for shard in self.shards)
        return max(0.0, 1 - kept / total - self._share_of("filtered")) if total > 0 else 0.0

    @property
    def expression_shares(self) -> dict[str, float]:
        """Share of the total expression in the genes that a `GeneReport` counts as mapped, ambiguous and so on."""
        shares = {group: self._share_of(group) for group in GROUPS}
        return shares | {"unmapped": max(0.0, self.expression_lost - shares["ambiguous"])}

    def _share_of(self, group: str) -> float:
        total = sum(shard.expression for shard in self.shards)
        return sum(shard.expression_of_group.get(group, 0.0) for shard in self.shards) / (total or 1.0)

    @property
    def stamp(self) -> str | None:
        """The `stamp` of the source when it was tokenized; None where that was not recorded."""
        return self.source.stamp

    @property
    def totals(self) -> Totals:
        """What people and scripts want to know of all shards together."""
        return Totals(self.n_cells, self.n_tokens, round(self.expression_lost, 6))

    def _rows(self) -> tuple[str, Rows]:
        return manifest_title(self), manifest_rows(self)

    @classmethod
    def of(cls, plan: Plan, path: Path, stamp: str, *, copy_vocabulary: bool = True) -> Self:
        """Describe a run that is about to begin, of a source that has this `stamp` now."""
        from .. import __version__

        tables = dict(plan.annotations.mappings)
        if plan.medians is not None:
            tables["median_dict"] = plan.medians.checksum
        if plan.args.gene_map is not None:
            tables["gene_map"] = gene_map_checksum(plan.args.gene_map)
        described = features(plan.args, plan.annotations.columns)
        return cls(
            path=path,
            version=__version__,
            configuration=recorded(plan.args),
            gene_seed=plan.seed,
            source=RecordedSource(
                name=plan.source.name,
                n_cells=plan.source.n_cells,
                cells_dropped=plan.source.n_cells - len(plan.cells),
                layer=plan.source.layer,
                dtype=str(plan.source.dtype),
                fingerprint=fingerprint(plan.source),
                stamp=stamp,
            ),
            checksums=Checksums(
                vocabulary=plan.vocabulary.sha256,
                mappings={key: checksum.sha256 for key, checksum in tables.items()},
                genes={GENES: hashlib.sha256(plan.genes.csv.encode()).hexdigest()},
                columns={INFO: hashlib.sha256(dataset_info(described).encode()).hexdigest()},
                cells={"obs": plan.annotations.sha256_of_cells},
                copies=copies_of(plan.vocabulary.sha256) if copy_vocabulary else {},
                contents={key: checksum.contents for key, checksum in tables.items() if checksum.contents},
            ),
            genes=plan.genes.report,
            annotations=plan.annotations.reports,
            cls_token=plan.cls_token,
            eos_token=plan.eos_token,
            shards=[],
            warnings=collect_warnings(plan),
            special_tokens=plan.vocabulary.special_ids,
        )

    def with_shards(self, shards: list[Shard]) -> Manifest:
        """Describe the run once these shards are written, in whatever order."""
        return replace(self, shards=sorted(shards, key=lambda shard: (len(shard.file), shard.file)))

    def differences(self, other: Manifest) -> list[str]:
        """Name what makes the other run write other bytes: argument or part, here and there."""
        mine, theirs = self._identity(), other._identity()
        if not is_same_vocabulary(self.checksums.vocabulary, other.checksums.vocabulary):
            mine, theirs = mine | _short("vocabulary", self), theirs | _short("vocabulary", other)
        tables, others = self.checksums.tables, other.checksums.tables
        return [
            f"{key} ({mine.get(key)!r} there, {theirs.get(key)!r} now)"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ] + [
            f"contents of {key} ({_named(tables.get(key))} there, {_named(others.get(key))} now)"
            for key in sorted(tables.keys() | others.keys())
            if tables.get(key) != others.get(key)
        ]

    def _identity(self) -> dict[str, object]:
        """List what the bytes depend on. Paths do not count, but the content of the files does."""
        no_part = PATHS | NOTES | {"gene_seed"}
        identity = {key: value for key, value in self.configuration.items() if key not in no_part}
        for group in self.checksums.keys() - {"vocabulary", "copies", "mappings", "contents"}:
            identity |= _short(group, self)
        identity["fingerprint of the source"] = self.source.fingerprint[:12]
        identity["teddytok-rs version"] = self.version
        identity["gene_seed"] = self.gene_seed
        return identity

    def to_json(self) -> str:
        """Write as JSON, the same text for the same run."""
        return with_checksum(to_document(self))

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
                document, has_checksum = read_checked(path / MANIFEST)
                manifest = parse_part(cls, document, path=path)
                if has_checksum or manifest.stamp is None:  # 0.1.0 wrote neither
                    return manifest
                reason = f"{MANIFEST} has lost its checksum"
            except DocumentError as exc:
                reason = f"{MANIFEST}: {exc}"
                if (path / JOURNAL).exists():
                    reason = "its run is unfinished, and the same run again continues it"
                elif path.is_dir() and is_replacement_interrupted(path):
                    reason = "replacing it was interrupted, and the same run again completes it"
                elif path.is_dir() and (inside := sorted(found.parent.name for found in path.glob(f"*/{MANIFEST}"))):
                    one = repr(str(path / inside[0]))
                    give = one if len(inside) == 1 else f"one of them, such as {one}"
                    raise error("several_datasets", path=str(path), inside=some(inside), give=give) from None
                elif not path.is_dir():
                    reason = "it is a file" if path.exists() else "there is no such folder"
            except ValueError as exc:
                reason = f"{MANIFEST} is not one that teddytok wrote: {exc}"
            raise error("output_unreadable", path=str(path), reason=reason)


# ---- texts of the command line and of the repr


def manifest_title(manifest: Manifest) -> str:
    """Format the source of a dataset."""
    return f"{manifest.source.name}: {count(manifest.n_cells, 'cell')}"


def manifest_rows(manifest: Manifest) -> Rows:
    """Summarize a dataset in rows."""
    source, genes = manifest.source, manifest.genes
    mean = manifest.n_tokens / manifest.n_cells if manifest.n_cells else 0.0
    rows: Rows = []
    if source.cells_dropped:
        rows.append(("cells", f"{source.cells_dropped:,} dropped by cell_filter"))
    rows += layer_rows(manifest.args.layer, source.layer)
    rows.append(("genes", gene_text(genes, manifest.expression_lost)))
    rows += group_rows(genes, manifest.expression_shares)
    if genes.duplicates:
        rows.append(("duplicates", duplicates_text(genes)))
    rows.append(("sequences", f"{manifest.n_tokens:,} tokens, {mean:,.1f} per cell"))
    rows += unmapped_rows(manifest.annotations)
    if manifest.gene_seed is not None:
        rows.append(("gene seed", str(manifest.gene_seed)))
    size = size_text(sum(shard.bytes for shard in manifest.shards))
    rows.append(("written", f"{manifest.path} ({count(manifest.n_shards, 'shard')}, {size})"))
    if kept := manifest.n_kept:
        what = "all of it" if kept == manifest.n_shards else count(kept, "shard")
        rows.append(("kept", f"{what}, finished by an earlier run"))
    return rows + [("warning", text) for text in manifest.warnings]
