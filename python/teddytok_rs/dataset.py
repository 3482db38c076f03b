"""A written folder in, what it holds in words of biology out."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .errors import error
from .manifest import Manifest

if TYPE_CHECKING:
    import os


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
        names = _token_names(folder, manifest)
        schema, rows = _first_rows(folder, manifest, cells)
    except (OSError, ValueError, KeyError) as bad:
        raise error("output_unreadable", path=str(path), reason=" ".join(str(bad).split())) from bad
    return Inspection(manifest, schema, [_decode(row, cell, names, manifest, schema) for row, cell in enumerate(rows)])


def _token_names(folder: Path, manifest: Manifest) -> dict[int, str]:
    names: dict[int, str] = {}
    with (folder / "genes.csv").open(encoding="utf-8", newline="") as file:
        for gene in csv.DictReader(file):
            if gene["token"]:
                names.setdefault(int(gene["token"]), gene["name"] or gene["gene_id"])
    if manifest.cls_token is not None:
        names[manifest.cls_token] = "CLS"
    return names


def _first_rows(folder: Path, manifest: Manifest, n_rows: int) -> tuple[pa.Schema, list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    schema = None
    for shard in manifest.shards:
        with pa.memory_map(str(folder / shard.file)) as file, pa.ipc.open_stream(file) as stream:
            schema = stream.schema
            for batch in stream:
                rows += batch.slice(0, n_rows - len(rows)).to_pylist()
                if len(rows) >= n_rows:
                    return schema, rows
    return schema, rows


def _decode(row: int, cell: dict[str, Any], names: dict[int, str], manifest: Manifest, schema: pa.Schema) -> Sequence:
    import json

    described = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    annotations: dict[str, Any] = {}
    for column, value in cell.items():
        if column in {"gene_ids", "values"}:
            continue
        if described[column].get("_type") == "ClassLabel":
            annotations[column] = described[column]["names"][value]
        elif column == "bio_annotations":
            kinds = ("disease", "tissue", "cell", "sex")
            annotations |= {kind: _label(manifest, kind, token) for kind, token in zip(kinds, value, strict=True)}
        else:
            annotations[column] = value
    genes = [names.get(token, str(token)) for token in cell["gene_ids"]]
    return Sequence(row, genes, cell.get("values"), annotations)


def _label(manifest: Manifest, kind: str, token: int) -> str:
    """Name an annotation's token by the labels that were mapped to it."""
    tokens = manifest.annotations[kind]["tokens"]
    return " | ".join(label for label, mapped in tokens.items() if mapped == token) or f"unmapped (token {token})"
