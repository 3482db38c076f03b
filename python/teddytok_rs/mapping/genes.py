"""Match the genes of a source against a vocabulary."""

from __future__ import annotations

import csv
import io
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..errors.build import error
from ..errors.text import count, some
from ..sharing import SharedPool
from .gene_map import ENSEMBL, read_gene_map
from .reports import GeneReport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from ..config.args import TokenizationArgs
    from .gene_map import GeneMap
    from .vocabulary import Vocabulary

#: An Ensembl stable id with a version: ENSG00000141510.18, ENSMUSG00000059552.15.
VERSIONED = re.compile(r"(ENS[A-Z]*\d{11})\.\d+")
#: var columns that hold gene names, as CELLxGENE, 10x Genomics and scanpy call them; only shown, never matched.
NAME_COLUMNS = ("feature_name", "gene_symbols", "gene_symbol", "gene_name", "gene_names", "symbol")
#: Groups of genes whose expression is counted: those that `gene_map` mapped, those that it has several ids for, and
#: those that `gene_filter` leaves out. A gene of none of these is in group 0.
GROUPS = ("mapped", "ambiguous", "filtered")
MAPPED, AMBIGUOUS, FILTERED = range(1, 1 + len(GROUPS))


@dataclass(frozen=True)
class GeneIndex:
    """Column of ``var`` -> position among the kept genes -> token.

    Attributes
    ----------
    position_of_column
        Shape (n_var,), int32; -1 where the gene is dropped.
    token_of_position
        Shape (G,), int32.
    gene_ids
        Id of each column as it was matched, after ``gene_map``; None where it is missing.
    names
        Name of each column, for people to read; empty where ``var`` has no column of names.
    report
        What was kept and lost.
    group_of_column
        Shape (n_var,), uint8: the group of each column, see `GROUPS`; None where every gene is in group 0.
    """

    position_of_column: NDArray[np.int32]
    token_of_position: NDArray[np.int32]
    gene_ids: list[str | None]
    names: list[str]
    report: GeneReport
    group_of_column: NDArray[np.uint8] | None = None

    @property
    def n_genes(self) -> int:
        """Number of kept genes, G."""
        return len(self.token_of_position)

    @property
    def groups(self) -> NDArray[np.uint8]:
        """The group of each gene, see `GROUPS`. Shape (n_var,)."""
        none = np.zeros(len(self.position_of_column), dtype=np.uint8)
        return none if self.group_of_column is None else self.group_of_column

    @property
    def is_lost(self) -> NDArray[np.bool_]:
        """Whether each gene is dropped though ``gene_filter`` does not leave it out. Shape (n_var,)."""
        lost: NDArray[np.bool_] = (self.position_of_column < 0) & (self.groups != FILTERED)
        return lost

    @property
    def dropped(self) -> list[str]:
        """Ids of the dropped genes, in ``var`` order; ``"(missing)"`` where there is none."""
        return [_shown(self.gene_ids[column]) for column in np.flatnonzero(self.position_of_column < 0).tolist()]

    @cached_property
    def csv(self) -> str:
        """Every gene of the source, a row each: its id, its name, and its token where it was kept."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["gene_id", "name", "token"])
        # One past the last is at -1 too: the token of what was dropped.
        tokens = np.array([*self.token_of_position.tolist(), None])[self.position_of_column].tolist()
        rows.writerows(zip(self.gene_ids, self.names or [""] * len(self.gene_ids), tokens, strict=True))
        return text.getvalue()


def match_genes(
    var: pd.DataFrame,
    vocabulary: Vocabulary,
    args: TokenizationArgs,
    source: str,
    unreadable: Mapping[str, str] | None = None,
) -> GeneIndex:
    """Match the genes of a source against the vocabulary.

    Parameters
    ----------
    var
        One row per gene, in the order of the matrix's columns.
    vocabulary, args
        What to match against, and how.
    source
        Name of the source, for messages.
    unreadable
        Columns that ``var`` lacks since they cannot be read, and why.

    Raises
    ------
    SourceError
        If ``gene_id_column`` cannot be read.
    DataError
        If ``gene_id_column`` is missing, or several genes have one token and ``duplicate_genes`` is ``"error"``.
    GeneMatchError
        If no gene is in the vocabulary, or fewer than ``min_gene_overlap``; the message names what would match.
    """
    column, strip = args.gene_id_column, args.strip_gene_version
    ids = gene_ids(var, column, strip=strip, source=source, vocabulary=vocabulary, unreadable=unreadable)
    gene_map = {} if args.gene_map is None else read_gene_map(args.gene_map, vocabulary.ids)
    matched, groups = _map_genes(ids, gene_map, vocabulary)
    if args.gene_filter is not None:
        groups[~_read_filter(var, args.gene_filter, source, unreadable)] = FILTERED
    is_candidate = groups != FILTERED
    tokens = np.array([vocabulary.ids.get(gene_id, -1) if gene_id else -1 for gene_id in matched], dtype=np.int64)
    tokens[~is_candidate | (groups == AMBIGUOUS)] = -1

    columns, n_candidates = np.flatnonzero(tokens >= 0), int(is_candidate.sum())
    if not len(columns) or len(columns) / n_candidates < args.min_gene_overlap:
        candidates = np.flatnonzero(is_candidate)
        given = [ids[column] for column in candidates.tolist()]
        raise error(
            "few_genes_match" if len(columns) else "no_genes_match", source=source, n_var=n_candidates,
            n_kept=len(columns), share=len(columns) / max(n_candidates, 1), minimum=args.min_gene_overlap,
            examples=_examples(given, vocabulary),
            hints=_hints(var.iloc[candidates], vocabulary, given, len(columns), gene_map),
        )  # fmt: skip

    kept = tokens[columns]
    distinct, first, place = np.unique(kept, return_index=True, return_inverse=True)
    duplicates: dict[int, list[str]] = {}
    if len(distinct) < len(kept):
        for column in columns[np.bincount(place)[place] > 1].tolist():
            duplicates.setdefault(int(tokens[column]), []).append(str(ids[column]))
        if args.duplicate_genes == "error":
            examples = some(f"{token}: {', '.join(genes)}" for token, genes in duplicates.items())
            raise error("duplicate_genes", source=source, n=count(len(duplicates), "token"), examples=examples)
    position_of_column = np.full(len(tokens), -1, dtype=np.int32)
    if args.duplicate_genes == "sum":  # the first column of a token gives it its position
        in_order = np.sort(first)
        position_of_column[columns] = np.searchsorted(in_order, first[place])
        token_of_position = kept[in_order]
    else:
        position_of_column[columns] = np.arange(len(columns))
        token_of_position = kept

    name_column = next((column for column in NAME_COLUMNS if column in var.columns), None)
    names = [] if name_column is None else [_shown(name) for name in column_text(var, name_column)]
    if not names and matched != ids:
        names = [_shown(gene_id) for gene_id in ids]
    n_of_group = np.bincount(groups, minlength=1 + len(GROUPS)).tolist()
    report = GeneReport(len(tokens), len(columns), len(tokens) - len(columns), duplicates, *n_of_group[1:])
    index = GeneIndex(
        position_of_column,
        token_of_position.astype(np.int32),
        matched,
        names,
        report,
        groups if groups.any() else None,
    )
    return INDEXES.share((len(tokens), len(columns), *matched[:1], *matched[-1:]), index)


def _map_genes(
    ids: Sequence[str | None], gene_map: GeneMap, vocabulary: Vocabulary
) -> tuple[list[str | None], NDArray[np.uint8]]:
    """Map the ids that are not in the vocabulary to ids that are, and return all with the group of each gene."""
    matched, groups = list(ids), np.zeros(len(ids), dtype=np.uint8)
    for column, gene_id in enumerate(ids if gene_map else ()):
        targets = () if gene_id is None or gene_id in vocabulary.ids else gene_map.get(gene_id, ())
        if len(targets) > 1:
            groups[column] = AMBIGUOUS
        elif targets and targets[0] in vocabulary.ids:
            matched[column], groups[column] = targets[0], MAPPED
    return matched, groups


def _read_filter(
    var: pd.DataFrame, column: str, source: str, unreadable: Mapping[str, str] | None
) -> NDArray[np.bool_]:
    """Read which genes ``gene_filter`` keeps. Shape (n_var,).

    Raises
    ------
    DataError
        If there is no such column, it does not hold true or false for each gene, or it keeps none.
    """
    from pandas.api.types import infer_dtype, is_bool_dtype

    reason = "it keeps no gene"
    if column not in var.columns:
        booleans = [name for name in var.columns if is_bool_dtype(var[name])]
        reason = (unreadable or {}).get(column, f"there is none; boolean columns are {some(booleans)}")
    elif n_missing := int(var[column].isna().sum()):
        reason = f"{count(n_missing, 'gene')} of {len(var):,} {'has' if n_missing == 1 else 'have'} no value"
    elif not is_bool_dtype(var[column]) and infer_dtype(var[column]) != "boolean":
        reason = f"it holds values of type {var[column].dtype}, not true or false"
    else:
        is_kept: NDArray[np.bool_] = var[column].to_numpy(dtype=bool)
        if is_kept.any():
            return is_kept
    raise error("gene_filter", source=source, column=column, reason=reason)


def _are_equal(one: GeneIndex, other: GeneIndex) -> bool:
    return (
        np.array_equal(one.position_of_column, other.position_of_column)
        and np.array_equal(one.token_of_position, other.token_of_position)
        and np.array_equal(one.groups, other.groups)
        and (one.gene_ids, one.names, one.report) == (other.gene_ids, other.names, other.report)
    )


#: Sources with equal gene tables share one index.
INDEXES = SharedPool(_are_equal)


def gene_ids(
    var: pd.DataFrame,
    column: str,
    *,
    strip: bool,
    source: str,
    vocabulary: Vocabulary | None = None,
    unreadable: Mapping[str, str] | None = None,
    key: str = "gene_id_column",
) -> list[str | None]:
    """Read the gene ids of a source; None where one is missing. ``key`` is the argument that names their column.

    Raises
    ------
    SourceError
        If the column is one of the ``unreadable`` ones.
    DataError
        If ``var`` has no such column; the message names those whose values are in the ``vocabulary``.
    """
    if unreadable and column in unreadable:
        raise error("source_unreadable", path=source, reason=f"var column {column!r}: {unreadable[column]}")
    if column != "index" and column not in var.columns:
        matches = [] if vocabulary is None else _matches(var, vocabulary)
        best = ", ".join(f"{how} ({n:,} genes)" for n, how in matches[:5])
        candidates = f"in the vocabulary are ids of {best}" if best else f"it has {some(var.columns)}"
        raise error("gene_column_missing", source=source, column=column, key=key, candidates=candidates)
    # An empty id is a missing one, or it would match an empty line of vocab.txt.
    ids = [text or None for text in column_text(var, column)]
    return [gene_id and strip_version(gene_id) for gene_id in ids] if strip else ids


def column_text(var: pd.DataFrame, column: str) -> list[str | None]:
    """Read a ``var`` column, or the index, as text; None where a value is missing."""
    values = var.index if column == "index" else var[column]
    texts = values.tolist()
    with suppress(TypeError):  # of what is no text, or missing
        if "".join(texts).isascii():  # as ids are: a look at all of them takes far less time than at each
            return texts
    missing = np.asarray(values.isna())
    return [None if absent else _text(value) for value, absent in zip(values, missing, strict=True)]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if type(value) is str and value.isascii():
        return value
    # Half a surrogate pair is no text that could be matched or written.
    return str(value).encode(errors="replace").decode()


def find_id_column(var: pd.DataFrame) -> str | None:
    """Find the column that has most Ensembl ids, the index before others; None where none has."""
    n_ids = {column: sum(map(_is_ensembl, column_text(var, column))) for column in _columns(var)}
    best = max(n_ids, key=lambda column: n_ids[column])
    return best if n_ids[best] else None


def find_name_column(var: pd.DataFrame, ids_column: str) -> str | None:
    """Find the column of the names of the genes whose ids are in another; None where there is none."""
    columns = [column for column in (*NAME_COLUMNS, "index") if column == "index" or column in var.columns]
    return next((column for column in columns if column != ids_column), None)


def _is_ensembl(gene_id: str | None) -> bool:
    return gene_id is not None and ENSEMBL.fullmatch(gene_id) is not None


def _columns(var: pd.DataFrame) -> list[str]:
    """List what ``gene_id_column`` may name."""
    return ["index", *(column for column in var.columns if isinstance(column, str) and column != "index")]


def strip_version(gene_id: str) -> str:
    """Remove the version of an Ensembl id; leave anything else as it is."""
    match = VERSIONED.fullmatch(gene_id)
    return match[1] if match else gene_id


def _shown(text: str | None) -> str:
    return "(missing)" if text is None else text


def _examples(ids: list[str | None], vocabulary: Vocabulary) -> str:
    special = set(vocabulary.special.values())
    unmatched = [_shown(gene_id) for gene_id in ids if gene_id not in vocabulary.ids]
    tokens = [token for token in vocabulary.ids if token not in special]
    # The end of a vocabulary is genes, its start may be annotations.
    return f" (unmatched: {some(unmatched[:5])}; vocabulary: {some(tokens[-5:])})"


def _n_matched(ids: Sequence[str | None], vocabulary: Vocabulary) -> int:
    return sum(gene_id in vocabulary.ids for gene_id in ids if gene_id is not None)


def _matches(var: pd.DataFrame, vocabulary: Vocabulary) -> list[tuple[int, str]]:
    """Try every column: how many genes it would match and the arguments that say so, the best first."""
    found = []
    for column in _columns(var):
        ids = column_text(var, column)
        plain = _n_matched(ids, vocabulary)
        stripped = _n_matched([gene_id and strip_version(gene_id) for gene_id in ids], vocabulary)
        if stripped > plain:
            found.append((stripped, f"gene_id_column = {column!r} with strip_gene_version = true"))
        elif plain:
            found.append((plain, f"gene_id_column = {column!r}"))
    return sorted(found, key=lambda match: -match[0])


#: A genome that 10x Genomics puts before gene ids where a reference has several.
GENOME_PREFIX = re.compile(r"(GRCh\d+|hg\d+|GRCm\d+|mm\d+|[A-Za-z]+\d+)_+(?=\S)")


def _changed_matches(ids: Sequence[str | None], vocabulary: Vocabulary, n_kept: int) -> str | None:
    """Find a change of the ids that would match more genes, and describe it."""
    upper = {token.upper() for token in vocabulary.ids}
    changes: list[tuple[str, str, int]] = []
    present = [gene_id for gene_id in ids if gene_id is not None]
    changes.append(("case", "write them as the vocabulary does", sum(gene_id.upper() in upper for gene_id in present)))
    trimmed = [gene_id.strip() for gene_id in present]
    changes.append(("blanks around them", "trim them first", _n_matched(trimmed, vocabulary)))
    plain = [GENOME_PREFIX.sub("", gene_id, count=1) for gene_id in present]
    changes.append(("a genome prefix", "remove it first", _n_matched(plain, vocabulary)))
    what, advice, n = max(changes, key=lambda change: change[2])
    return f"{n:,} ids differ from the vocabulary's only in {what}: {advice}" if n > n_kept else None


def _hints(var: pd.DataFrame, vocabulary: Vocabulary, ids: Sequence[str | None], n_kept: int, gene_map: GeneMap) -> str:
    """Find what would match more genes, and describe it."""
    better = [f"{how} would match {n:,}" for n, how in _matches(var, vocabulary) if n > n_kept]
    if better:
        return "; ".join(better[:3])
    if changed := _changed_matches(ids, vocabulary, n_kept):
        return changed
    if gene_map:
        found = [gene_map[gene_id] for gene_id in ids if gene_id is not None and gene_id in gene_map]
        examples = some(target for targets in found[:5] for target in targets)
        return (
            f"gene_map has {len(found):,} of these ids, and maps them to {examples}: use one to ids of the vocabulary"
        )
    present = [gene_id for gene_id in ids if gene_id is not None]
    given = sum(map(_is_ensembl, present)) > len(present) / 2
    wanted = sum(map(_is_ensembl, vocabulary.ids)) > len(vocabulary) / 2
    if given != wanted and n_kept < 0.05 * len(ids):  # some ids of both kinds may be alike
        has, lacks = ("Ensembl ids", "other names") if wanted else ("other names", "Ensembl ids")
        return (
            f"The vocabulary holds {has}, the source {lacks}: name a var column of {has} in gene_id_column, or set "
            f"gene_map (--gene-map) to the features.tsv.gz of the 10x run, a CSV or TSV table of two columns with a "
            f"header or a JSON object, from {lacks} to {has}; 'teddytok genes map-from OTHER.h5ad --out map.json' "
            "writes one from a file that has both"
        )
    return (
        "Check that source and vocabulary are of one species and one kind of gene id (gene_map maps other ids); "
        "lower min_gene_overlap only if so few common genes are right"
    )
