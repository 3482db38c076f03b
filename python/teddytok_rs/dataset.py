"""A written folder in; what it holds in words of biology, or what is wrong with it, out."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .folder import STATE
from .formats import open_shard
from .manifest import CORPUS, FILE_NAME, JOURNAL, Manifest, Shard, reading, sha256_of
from .messages import error, some
from .progress import progress_bar

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import pyarrow as pa

    from .corpus_manifest import CorpusManifest

#: Arguments that say where a source keeps things, and paths whose contents are compared by checksum: datasets that
#: differ in any other have sequences that mean different things.
MAY_DIFFER = {
    "cell_column", "cell_filter", "cell_mapping", "disease_column", "disease_mapping", "gene_id_column", "gene_seed",
    "label_column", "layer", "max_shard_samples", "median_dict", "min_gene_overlap", "sex_column", "sex_mapping",
    "tissue_column", "tissue_mapping", "tokenizer_name_or_path", "unmapped_annotations",
}  # fmt: skip


@dataclass(frozen=True)
class Sequence:
    """One cell's sequence, decoded.

    Attributes
    ----------
    row
        Row of the dataset.
    genes
        Name of each token: the gene's name, its id where it has no name, or ``"CLS"``.
    values
        The value of each; None where none were written.
    annotations
        The other columns, decoded: class labels and annotation tokens as their labels.
    """

    row: int
    genes: list[str]
    values: list[float] | None
    annotations: dict[str, Any]


@dataclass(frozen=True)
class Inspection:
    """What a dataset's folder holds."""

    manifest: Manifest
    schema: pa.Schema
    sequences: list[Sequence]


def inspect(path: str | os.PathLike[str], *, cells: int = 3) -> Inspection:
    """Look into a dataset.

    Parameters
    ----------
    path
        The folder of a finished dataset.
    cells
        How many sequences to decode, from the first row on.

    Raises
    ------
    OutputError
        If the folder is no finished dataset or a file of it cannot be read.
    """
    folder = Path(path)
    manifest = Manifest.read(folder)
    try:
        names = token_names(folder, manifest)
        schema, rows = _first_rows(folder, manifest, cells)
    except (OSError, ValueError, KeyError, TypeError) as bad:
        raise error("output_unreadable", path=str(path), reason=" ".join(str(bad).split())) from bad
    return Inspection(manifest, schema, [_decode(row, cell, names, manifest, schema) for row, cell in enumerate(rows)])


@dataclass(frozen=True)
class Verification:
    """What is wrong with the folder of a dataset or corpus; ``problems`` is empty where nothing is."""

    manifest: Manifest | CorpusManifest
    problems: list[str]


def verify(path: str | os.PathLike[str], *, progress: bool | None = None) -> Verification:
    """Check every byte of a dataset, or of each of a corpus: checksums, counts, and that each shard can be read.

    `datasets.load_from_disk` checks nothing: a shard that was cut loads fewer rows, and a bad offset is a crash.

    Parameters
    ----------
    path
        The folder of a finished dataset, or of a corpus.
    progress
        As for `tokenize`.

    Raises
    ------
    OutputError
        If the folder is no finished dataset.
    """
    with reading(Path(path)):
        is_corpus = (Path(path) / CORPUS).exists()
    if is_corpus:
        from .corpus_manifest import verify_corpus

        return verify_corpus(Path(path), progress=progress)
    manifest = Manifest.read(Path(path))
    with progress_bar(manifest.n_cells, show=progress, doing="verifying") as advance:
        return Verification(manifest, problems_of(manifest, advance))


def problems_of(manifest: Manifest, advance: Callable[[int], None]) -> list[str]:
    """List what is wrong with a dataset, see `verify`; ``advance`` takes the cells of each shard that was looked at."""
    folder = manifest.path
    problems: list[str] = []
    for name, sha256 in (manifest.checksums["genes"] | manifest.checksums["columns"]).items():
        if not (folder / name).is_file() or sha256_of(folder / name) != sha256:
            problems.append(f"{name} is not as it was written")
    for shard in manifest.shards:
        problems += _verify_shard(folder, shard)
        advance(shard.rows)
    if manifest.configuration["format"] == "arrow":
        problems += _verify_state(manifest)
    known = {shard.file for shard in manifest.shards}
    problems += [f"{file.name} belongs to no run" for file in sorted(folder.glob("data-*")) if file.name not in known]
    if (folder / JOURNAL).exists():
        problems.append(f"{JOURNAL} tells of an unfinished run; run it again to finish it")
    return problems


def _verify_state(manifest: Manifest) -> list[str]:
    try:
        state = json.loads((manifest.path / STATE).read_text(encoding="utf-8"))
        listed = [file["filename"] for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as bad:
        return [f"{STATE} cannot be read: {' '.join(str(bad).split())}"]
    same = listed == [shard.file for shard in manifest.shards]
    return [] if same else [f"{STATE} lists other shards than {FILE_NAME}"]


def _verify_shard(folder: Path, shard: Shard) -> list[str]:
    if not (folder / shard.file).is_file():
        return [f"{shard.file} is missing"]
    size = (folder / shard.file).stat().st_size
    if size != shard.bytes:
        return [f"{shard.file} has {size:,} bytes instead of {shard.bytes:,}"]
    if not shard.is_whole(folder):
        return [f"{shard.file} has other bytes than were written (sha256)"]
    rows = tokens = 0
    try:
        with open_shard(folder / shard.file) as (_, batches):
            for batch in batches:
                batch.validate(full=True)
                rows += batch.num_rows
                tokens += len(batch.column("gene_ids").flatten())
    except (OSError, ValueError, KeyError) as bad:
        return [f"{shard.file} cannot be read: {' '.join(str(bad).split())}"]
    if (rows, tokens) != (shard.rows, shard.tokens):
        return [
            f"{shard.file} holds {rows:,} rows and {tokens:,} tokens instead of {shard.rows:,} and {shard.tokens:,}"
        ]
    return []


def token_names(folder: Path, manifest: Manifest) -> dict[int, str]:
    """Name each token that a dataset may hold: as its gene, or ``"CLS"``."""
    names: dict[int, str] = {}
    with (folder / "genes.csv").open(encoding="utf-8", newline="") as file:
        genes = csv.DictReader(file)
        if genes.fieldnames != ["gene_id", "name", "token"]:
            damaged = "genes.csv is damaged"
            raise ValueError(damaged)
        for gene in genes:
            if gene["token"]:
                names.setdefault(int(gene["token"]), gene["name"] or gene["gene_id"])
    if manifest.cls_token is not None:
        names[manifest.cls_token] = "CLS"
    return names


def _first_rows(folder: Path, manifest: Manifest, n_rows: int) -> tuple[pa.Schema, list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    schema = None
    for shard in manifest.shards:
        with open_shard(folder / shard.file) as (found, batches):
            schema = found
            for batch in batches:
                batch.validate(full=True)  # a damaged offset would be followed wherever it leads
                rows += batch.slice(0, n_rows - len(rows)).to_pylist()
                if len(rows) >= n_rows:
                    return schema, rows
    return schema, rows


def _decode(row: int, cell: dict[str, Any], names: dict[int, str], manifest: Manifest, schema: pa.Schema) -> Sequence:
    described = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    annotations: dict[str, Any] = {}
    for column, value in cell.items():
        if column in {"gene_ids", "values"}:
            continue
        if described[column].get("_type") == "ClassLabel":
            annotations[column] = described[column]["names"][value]
        elif column == "labels" and manifest.configuration["add_disease_annotation"]:
            annotations[column] = label_of(manifest, "disease", value)
        elif column == "bio_annotations":
            kinds = ("disease", "tissue", "cell", "sex")
            annotations |= {kind: label_of(manifest, kind, token) for kind, token in zip(kinds, value, strict=True)}
        else:
            annotations[column] = value
    genes = [names.get(token, str(token)) for token in cell["gene_ids"]]
    return Sequence(row, genes, cell.get("values"), annotations)


def label_of(manifest: Manifest, kind: str, token: int) -> str:
    """Name an annotation's token by the labels that were mapped to it."""
    tokens = manifest.annotations[kind]["tokens"]
    return " | ".join(label for label, mapped in tokens.items() if mapped == token) or f"unmapped (token {token})"


# ---- several datasets as one


def find_datasets(folder: Path) -> list[Path]:
    """List a folder that is a dataset, or the datasets in a folder, by name."""
    with reading(folder):
        if (folder / FILE_NAME).exists() or not folder.is_dir():
            return [folder]
    return sorted(file.parent for file in folder.glob(f"*/{FILE_NAME}")) or [folder]


def check_mapped(folder: Path, shard: Shard) -> None:
    """Refuse a shard that cannot be mapped into memory: not an Arrow file, missing, or of another length.

    Raises
    ------
    OutputError
        If it is one of these.
    """
    readers = {".parquet": "datasets.load_dataset('parquet', ...)", ".tar": "webdataset.WebDataset"}
    suffix = Path(shard.file).suffix
    if suffix in readers:
        raise error("format_not_mapped", path=str(folder), format=suffix.removeprefix("."), reader=readers[suffix])
    if not shard.is_as_long(folder):
        reason = f"{shard.file} is missing or has another length than was written"
        raise error("output_unreadable", path=str(folder), reason=reason)


def refuse_mixture(first: Manifest, other: Manifest) -> None:
    """Refuse two datasets whose tokens, values or labels mean different things.

    Raises
    ------
    OutputError
        If they differ in their vocabulary, mappings, columns or in an argument that changes what a sequence means.
    """
    refuse_difference(first.path, meaning(first), other.path, meaning(other))


def refuse_difference(first: str | Path, mine: dict[str, Any], other: str | Path, theirs: dict[str, Any]) -> None:
    """Refuse two datasets, or sources of such, whose meanings differ."""
    differ = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if not differ:
        return
    advice = "Tokenize all of them with one vocabulary and one configuration, or train on one"
    columns, others = mine.get("columns"), theirs.get("columns")
    if "columns" in differ and columns and others and (labels := columns.labels_differ(others)):
        differ[differ.index("columns")] = f"columns ({labels})"
        advice = "Give each a folder of its own, or leave label_column out and use bio_annotations or obs_columns"
    raise error("datasets_differ", first=str(first), second=str(other), differences=", ".join(differ), advice=advice)


def meaning(manifest: Manifest, schema: pa.Schema | None = None) -> dict[str, Any]:
    """List all that says what a dataset's tokens, values and labels mean; give the schema of one not yet written."""
    columns = _schema(manifest) if schema is None else Columns.of(schema, manifest.configuration.get("label_column"))
    return (
        {key: value or None for key, value in manifest.configuration.items() if key not in MAY_DIFFER}
        | {f"sha256 of {name}": sha256 for name, sha256 in manifest.checksums["vocabulary"].items()}
        | {f"sha256 of {name}": sha256 for name, sha256 in manifest.checksums["mappings"].items()}
        | {"cls_token": manifest.cls_token, "columns": columns}
    )


def _schema(manifest: Manifest) -> Columns | None:
    """Describe the columns; None for a dataset without a cell."""
    for shard in manifest.shards:
        with open_shard(manifest.path / shard.file) as (schema, _):
            return Columns.of(schema, manifest.configuration.get("label_column"))
    return None


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset, equal where they mean the same.

    Attributes
    ----------
    text
        The schema, with the names of classes.
    label_column, labels
        The obs column whose labels are classes, and these; None and none where there is no such column.
    """

    text: str
    label_column: str | None = field(default=None, compare=False)
    labels: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, schema: pa.Schema, label_column: str | None) -> Columns:
        """Describe a schema. Arrow's own text cuts long metadata, and with it the names of classes."""
        described = (schema.metadata or {}).get(b"huggingface")
        try:
            labels = tuple(json.loads(described or b"null")["info"]["features"]["labels"]["names"])
        except (ValueError, KeyError, TypeError):  # no classes, or a damaged shard, which others tell of
            labels = ()
        return cls(f"{schema.remove_metadata()} {described!r}", label_column, labels)

    def labels_differ(self, other: Columns) -> str | None:
        """Say in what the labels differ; None where they do not, or one has none."""
        if self.labels == other.labels or not self.labels or not other.labels:
            return None
        if self.label_column != other.label_column:
            return f"labels are of {self.label_column!r} in the first and of {other.label_column!r} in the second"
        only = [
            f"{some(labels)} only in the {which}"
            for which, mine, theirs in (("first", self.labels, other.labels), ("second", other.labels, self.labels))
            if (labels := [label for label in mine if label not in set(theirs)])
        ]
        return f"labels of {self.label_column!r} differ: {'; '.join(only) or 'they have another order'}"
