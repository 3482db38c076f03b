"""Read and write `gene_map`, which gives ids of a source the ids that the vocabulary has for the same genes."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..config.files import DocumentError, parse_document, read_bytes, read_unpacked
from ..config.tables import TableChecksum
from ..errors.build import error

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

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
