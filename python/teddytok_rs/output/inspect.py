"""Decode the first sequences of a dataset into gene names and labels."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.files import plain_file
from ..config.kinds import ANNOTATIONS
from ..errors.build import error
from ..errors.text import Rows, TextRepr, count, reason_of, size_text
from ..mapping.reports import gene_text, group_rows
from .formats import open_shard
from .manifest import Manifest

if TYPE_CHECKING:
    import os

    import pyarrow as pa


#: Maximum number of shards in a list, and of tokens in the repr of a sequence.
SHOWN_SHARDS, SHOWN_TOKENS = 5, 8


@dataclass(frozen=True, repr=False)
class Sequence(TextRepr):
    """One cell's sequence, decoded.

    Attributes
    ----------
    row
        Row of the dataset.
    genes
        Name of each token: the gene's name, its id where it has no name, ``"CLS"`` or ``"EOS"``.
    values
        The value of each; None where none were written.
    annotations
        The other columns, decoded: class labels and annotation tokens as their labels.
    """

    row: int
    genes: list[str]
    values: list[float] | None
    annotations: dict[str, object]

    def _rows(self) -> tuple[str, Rows]:
        rows = [("annotations", annotations_text(self)), ("tokens", tokens_text(self, SHOWN_TOKENS))]
        return f"row {self.row}", rows


@dataclass(frozen=True, repr=False)
class Inspection(TextRepr):
    """What a dataset's folder holds."""

    manifest: Manifest
    schema: pa.Schema
    sequences: list[Sequence]

    def _rows(self) -> tuple[str, Rows]:
        rows = inspection_rows(self.manifest)
        rows.append(("columns", ", ".join(f"{name} {kind}" for name, kind in column_types(self.schema).items())))
        size = size_text(sum(shard.bytes for shard in self.manifest.shards))
        rows.append(("shards", f"{count(self.manifest.n_shards, 'shard')}, {size}"))
        rows += [(f"row {sequence.row}", tokens_text(sequence, SHOWN_TOKENS)) for sequence in self.sequences]
        return inspection_title(self.manifest), rows


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
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise error("output_unreadable", path=str(path), reason=reason_of(exc)) from None
    return Inspection(manifest, schema, [_decode(row, cell, names, manifest, schema) for row, cell in enumerate(rows)])


def token_names(folder: Path, manifest: Manifest) -> dict[int, str]:
    """Name each token that a dataset may hold: as its gene, ``"CLS"`` or ``"EOS"``."""
    names: dict[int, str] = {}
    with plain_file(folder / "genes.csv").open(encoding="utf-8", newline="") as file:
        genes = csv.DictReader(file)
        if genes.fieldnames != ["gene_id", "name", "token"]:
            damaged = "genes.csv is damaged"
            raise ValueError(damaged)
        for gene in genes:
            if gene["token"]:
                names.setdefault(int(gene["token"]), gene["name"] or gene["gene_id"])
    if manifest.cls_token is not None:
        names[manifest.cls_token] = "CLS"
    if manifest.eos_token is not None:
        names[manifest.eos_token] = "EOS"
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
    if schema is None:
        reason = "its manifest lists no shard"
        raise ValueError(reason)
    return schema, rows


def _decode(row: int, cell: dict[str, Any], names: dict[int, str], manifest: Manifest, schema: pa.Schema) -> Sequence:
    described = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    annotations: dict[str, object] = {}
    genes: list[str] = []
    values: list[float] | None = None
    for name, value in cell.items():
        column = manifest.args.columns_by_name.get(name)
        if column == "gene_ids":
            genes = [names.get(token, str(token)) for token in value]
        elif column == "values":
            values = value
        elif described[name].get("_type") == "ClassLabel":
            annotations[name] = described[name]["names"][value]
        elif column == "labels" and manifest.args.add_disease_annotation:
            annotations[name] = label_of(manifest, "disease", value)
        elif column == "bio_annotations":
            tokens = zip(ANNOTATIONS, value, strict=True)
            annotations |= {kind: label_of(manifest, kind, token) for kind, token in tokens}
        else:
            annotations[name] = value
    return Sequence(row, genes, values, annotations)


def label_of(manifest: Manifest, kind: str, token: int) -> str:
    """Name an annotation's token by the labels that were mapped to it."""
    tokens = manifest.annotations[kind].tokens
    return " | ".join(label for label, mapped in tokens.items() if mapped == token) or f"unmapped (token {token})"


# ---- texts of the command line and of the repr


def inspection_title(manifest: Manifest) -> str:
    """Name a dataset and its source."""
    return f"{manifest.path}: {count(manifest.n_cells, 'cell')} of {manifest.source.name}"


def inspection_rows(manifest: Manifest) -> Rows:
    """Format how a dataset was made."""
    rows = [("genes", gene_text(manifest.genes, manifest.expression_lost))]
    rows += group_rows(manifest.genes, manifest.expression_shares)
    if manifest.gene_seed is not None:
        rows.append(("gene seed", str(manifest.gene_seed)))
    return [*rows, ("written by", f"teddytok-rs {manifest.version}")]


def column_types(schema: pa.Schema) -> dict[str, str]:
    """Name the type of each column."""
    return {field.name: str(field.type).replace("item: ", "") for field in schema}


def shard_rows(manifest: Manifest) -> Rows:
    """List the first shards."""
    rows = [
        (shard.file, f"{count(shard.rows, 'row')}, {size_text(shard.bytes)}, sha256 {shard.sha256[:12]}")
        for shard in manifest.shards[:SHOWN_SHARDS]
    ]
    return rows if len(manifest.shards) <= SHOWN_SHARDS else [*rows, ("...", f"{manifest.n_shards:,} shards in all")]


def annotations_text(sequence: Sequence) -> str:
    """Write the annotations of a sequence."""
    return ", ".join(f"{name}: {value}" for name, value in sequence.annotations.items())


def tokens_text(sequence: Sequence, n_tokens: int) -> str:
    """Write the first tokens of a sequence, each with its value after a space that is not wrapped."""
    tokens = sequence.genes
    if sequence.values is not None:
        tokens = [f"{gene}\xa0{value:.3g}" for gene, value in zip(sequence.genes, sequence.values, strict=True)]
    more = f"  ... {len(tokens) - n_tokens:,} more" if len(tokens) > n_tokens else ""
    return f"{'  '.join(tokens[:n_tokens]) or '(empty)'}{more}"
