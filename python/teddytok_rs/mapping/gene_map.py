"""Read and write `gene_map`, which gives ids of a source the ids that the vocabulary has for the same genes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..config.files import DocumentError, parse_document, read_bytes, read_unpacked, refuse_url
from ..config.tables import TableChecksum
from ..errors.build import error, system_error
from ..errors.text import some

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from ..sources.protocol import SourceLike

    #: Source id -> the different ids that it is mapped to. Several are ambiguous.
    GeneMap: TypeAlias = Mapping[str, tuple[str, ...]]

#: An Ensembl gene id. Those of transcripts (ENST) and proteins (ENSP) are not.
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?")
#: Type of the rows of a 10x features.tsv that are genes; others are antibodies, guides and the like.
GENE_ROW = "Gene Expression"


def read_gene_map(path: str, vocabulary: Collection[str]) -> GeneMap:
    """Read a gene map.

    Parameters
    ----------
    path
        A JSON object of source id -> id of the vocabulary, or a list of such; a CSV or TSV table of these two columns,
        with a header; or the ``features.tsv`` of a 10x run, which has ids and symbols. Each may be packed with gzip.
    vocabulary
        The vocabulary's tokens: of the columns of a ``features.tsv``, those that it has more of are mapped to.

    Raises
    ------
    ConfigError
        If the file cannot be read or is none of these.
    """
    targets: dict[str, dict[str, None]] = {}
    reason: object = "it maps no id"
    try:
        for source_id, target in _pairs(Path(path), vocabulary):
            if source_id and target:
                targets.setdefault(source_id, {})[target] = None
    except (DocumentError, csv.Error) as exc:
        targets, reason = {}, exc
    if not targets:
        raise error("gene_map_file", file=path, reason=reason) from None
    return {source_id: tuple(ids) for source_id, ids in targets.items()}


def gene_map_checksum(path: str) -> TableChecksum:
    """Compute the checksum of a gene map's file.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    try:
        sha256 = hashlib.sha256(read_bytes(Path(path))).hexdigest()
    except DocumentError as exc:
        raise error("gene_map_file", file=path, reason=exc) from None
    return TableChecksum(sha256, sha256)


def _pairs(path: Path, vocabulary: Collection[str]) -> Iterable[tuple[str, str]]:
    """Read pairs of a source id and an id of the vocabulary."""
    text = read_unpacked(path)
    if text.lstrip()[:1] in {"{", "["}:
        return _pairs_of_json(parse_document(text))
    first, _, _ = text.partition("\n")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in first else ",", strict=True)
    head = next(rows, [])
    if "\t" in first and _is_10x(head):
        return _pairs_of_10x([head, *rows], vocabulary)
    if len(head) != 2:
        reason = f"its first line has {len(head):,} columns, not two"
        raise DocumentError(reason)
    if any(field in vocabulary or ENSEMBL.fullmatch(field) for field in head):
        reason = "its first line holds a gene, not the names of the columns"
        raise DocumentError(reason)
    return _pairs_of_table(rows)


def _pairs_of_json(document: object) -> Iterator[tuple[str, str]]:
    if not isinstance(document, dict):
        reason = f"it holds a {type(document).__name__}"
        raise DocumentError(reason)
    for source_id, target in document.items():
        targets = target if isinstance(target, list) else [target]
        if not all(isinstance(target, str) for target in targets):
            reason = f"{source_id!r} is mapped to {target!r}"
            raise DocumentError(reason)
        yield from ((source_id, target) for target in targets)


def _pairs_of_table(rows: Iterator[list[str]]) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(rows, start=2):
        if len(row) == 2:
            yield row[0], row[1]
        elif row:
            reason = f"row {number:,} has {len(row):,} columns, not two"
            raise DocumentError(reason)


def _is_10x(row: list[str]) -> bool:
    """Return whether a row is of a 10x table, which has no header: id, symbol, type; until Cell Ranger 2 no type."""
    return row[2:3] == [GENE_ROW] or (len(row) == 2 and ENSEMBL.fullmatch(row[0]) is not None)


def _pairs_of_10x(rows: list[list[str]], vocabulary: Collection[str]) -> Iterator[tuple[str, str]]:
    genes = [(row[0], row[1]) for row in rows if len(row) == 2 or row[2:3] == [GENE_ROW]]
    in_vocabulary = [sum(gene[column] in vocabulary for gene in genes) for column in (0, 1)]
    return ((gene_id, name) if in_vocabulary[1] > in_vocabulary[0] else (name, gene_id) for gene_id, name in genes)


# ---- a map of a source that has names and ids


@dataclass(frozen=True)
class WrittenGeneMap:
    """A gene map that was written.

    Attributes
    ----------
    path
        The file.
    names_column, ids_column
        The columns of ``var`` that hold names and ids; ``"index"`` for ``var_names``.
    n_mapped, n_ambiguous
        Number of names with one id, and with several.
    """

    path: Path
    names_column: str
    ids_column: str
    n_mapped: int
    n_ambiguous: int


def build_gene_map(source: SourceLike, path: str | os.PathLike[str]) -> WrittenGeneMap:
    """Write a JSON file for ``gene_map``, from the names to the Ensembl ids of the genes of a source.

    Parameters
    ----------
    source
        An AnnData, the path of an ``.h5ad`` file or a ``.zarr`` store, or a ``soma://`` URL. Names and ids are in
        columns of its ``var`` or in ``var_names``, as in files of CELLxGENE (``feature_name`` and ``var_names``) and of
        10x Genomics (``var_names`` and ``gene_ids``).
    path
        The file to write. A name with one id is mapped to this id, one with several to a list, which is ambiguous.
        Versions of ids are removed.

    Raises
    ------
    SourceError
        If the source cannot be read.
    DataError
        If it has no column of names, or none of Ensembl ids.
    ConfigError
        If ``path`` is a URL.
    OutputError
        If the file exists or cannot be written.
    """
    from ..sources.open import open_without_layer
    from .genes import column_text, find_id_column, find_name_column, strip_version

    refuse_url(path)
    with closing(open_without_layer(source)) as opened:
        var, name = opened.var, opened.name
    ids_column = find_id_column(var)
    names_column = None if ids_column is None else find_name_column(var, ids_column)
    if ids_column is None or names_column is None:
        columns = ["index", *map(str, var.columns)]
        lacks = "Ensembl ids" if ids_column is None else "names"
        raise error("gene_map_source", source=name, lacks=lacks, columns=some(columns))
    ids_of_name: dict[str, dict[str, None]] = {}
    for gene, gene_id in zip(column_text(var, names_column), column_text(var, ids_column), strict=True):
        if gene and gene_id and gene != gene_id:
            ids_of_name.setdefault(gene, {})[strip_version(gene_id)] = None
    document = {gene: next(iter(ids)) if len(ids) == 1 else list(ids) for gene, ids in sorted(ids_of_name.items())}
    try:
        with Path(path).open("x", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(document, indent=0, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise error("gene_map_exists", path=str(path)) from None
    except OSError as exc:
        raise system_error("output_failed", exc, path=str(path)) from None
    n_ambiguous = sum(isinstance(ids, list) for ids in document.values())
    return WrittenGeneMap(Path(path), names_column, ids_column, len(document) - n_ambiguous, n_ambiguous)
