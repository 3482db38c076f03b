"""Decode the first sequences of a dataset into gene names and labels."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.kinds import ANNOTATIONS
from ..errors.build import error
from .formats import open_shard
from .manifest import Manifest

if TYPE_CHECKING:
    import os

    import pyarrow as pa


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
    if schema is None:
        reason = "its manifest lists no shard"
        raise ValueError(reason)
    return schema, rows


def _decode(row: int, cell: dict[str, Any], names: dict[int, str], manifest: Manifest, schema: pa.Schema) -> Sequence:
    described = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    annotations: dict[str, Any] = {}
    for column, value in cell.items():
        if column in {"gene_ids", "values"}:
            continue
        if described[column].get("_type") == "ClassLabel":
            annotations[column] = described[column]["names"][value]
        elif column == "labels" and manifest.args.add_disease_annotation:
            annotations[column] = label_of(manifest, "disease", value)
        elif column == "bio_annotations":
            tokens = zip(ANNOTATIONS, value, strict=True)
            annotations |= {kind: label_of(manifest, kind, token) for kind, token in tokens}
        else:
            annotations[column] = value
    genes = [names.get(token, str(token)) for token in cell["gene_ids"]]
    return Sequence(row, genes, cell.get("values"), annotations)


def label_of(manifest: Manifest, kind: str, token: int) -> str:
    """Name an annotation's token by the labels that were mapped to it."""
    tokens = manifest.annotations[kind]["tokens"]
    return " | ".join(label for label, mapped in tokens.items() if mapped == token) or f"unmapped (token {token})"
