"""Read the values of a run's cells once, and count what its written folder does not tell.

`check` scans all cells. The report scans some record batches of a large source, spread evenly over it: then its numbers
are estimates.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from ..errors import TeddytokError
from ..sources.counts import ValueSummary
from ..sources.protocol import DenseChunk
from .batches import chunks, count_nonzero_genes, cut, over_batches, read_cells, tokenize_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ..mapping.genes import GeneIndex
    from ..sources.protocol import CsrChunk
    from .plan import Plan
    from .resources import Resources

#: Record batches that the report reads, at most: 100,000 cells, a few seconds.
BATCHES = 100
#: Dropped genes that the report names, at most.
GENES = 20
#: Cells with NaN or infinity, and refused chunks of cells, that are named, at most.
NAMED_CELLS, NAMED_REFUSALS = 20, 5


@dataclass(frozen=True)
class ScanCounts:
    """What was counted on some cells.

    Attributes
    ----------
    n_cells
        These cells.
    expression
        Shape (n_var,): sum of each gene's absolute values.
    values
        What the values look like.
    n_tokens, n_empty
        Tokens of the sequences; cells without a gene in theirs.
    n_truncated
        Cells with more nonzero genes to select from than a sequence holds.
    n_not_finite, not_finite
        Cells with NaN or infinity in kept genes; row in the source and up to three columns of each of the first ones.
    n_refused, refused
        Chunks of cells that cannot be tokenized, of which tokens are not counted; why, for the first ones.
    """

    n_cells: int
    expression: NDArray[np.float64]
    values: ValueSummary = field(default_factory=ValueSummary)
    n_tokens: int = 0
    n_empty: int = 0
    n_truncated: int = 0
    n_not_finite: int = 0
    not_finite: tuple[tuple[int, tuple[int, ...]], ...] = ()
    n_refused: int = 0
    refused: tuple[str, ...] = ()

    def __add__(self, other: ScanCounts) -> ScanCounts:
        """Count both."""
        return ScanCounts(
            self.n_cells + other.n_cells,
            self.expression + other.expression,
            self.values + other.values,
            self.n_tokens + other.n_tokens,
            self.n_empty + other.n_empty,
            self.n_truncated + other.n_truncated,
            self.n_not_finite + other.n_not_finite,
            (self.not_finite + other.not_finite)[:NAMED_CELLS],
            self.n_refused + other.n_refused,
            (self.refused + other.refused)[:NAMED_REFUSALS],
        )

    def lost_shares(self, genes: GeneIndex) -> NDArray[np.float64]:
        """Compute the share of all expression that is in each dropped gene; 0 for a kept one."""
        return np.where(genes.position_of_column >= 0, 0.0, self.expression) / (self.expression.sum() or 1.0)

    def lost_genes(self, genes: GeneIndex, limit: int) -> list[tuple[int, float]]:
        """List the dropped genes that hold most expression: column and share, the largest first."""
        lost = self.lost_shares(genes)
        worst = np.argsort(-lost, kind="stable")[:limit].tolist()
        return [(column, float(lost[column])) for column in worst if lost[column] > 0]


class LostGene(TypedDict):
    """A dropped gene, and its share of all expression."""

    gene_id: str
    name: str
    share: float


class SourceCounts(TypedDict):
    """What the report takes from a source: how many of its cells were read and cut, and the genes lost, worst first."""

    cells: int
    of_cells: int
    truncated: int
    lost_genes: list[LostGene]


def scan(
    plan: Plan,
    spans: Iterable[tuple[int, int]] | None = None,
    *,
    resources: Resources,
    advance: Callable[[int], None] = lambda _: None,
) -> ScanCounts:
    """Count on these spans of a run's cells, or on all.

    Raises
    ------
    DataError
        If the matrix is malformed, so that its columns cannot be counted. Whatever else cannot be tokenized is counted.
    """

    def scan_batch(batch: tuple[int, int]) -> ScanCounts:
        counts = ScanCounts(0, np.zeros(plan.source.n_var))
        for cells in chunks(plan, batch, resources.bytes_per_thread):
            counts += _scan_chunk(plan, cells)
        return counts

    total = ScanCounts(0, np.zeros(plan.source.n_var))
    with closing(over_batches(scan_batch, plan, spans, threads=resources.threads)) as batches:
        for counts in batches:
            total += counts
            advance(counts.n_cells)
    return total


def count_source(plan: Plan, resources: Resources) -> SourceCounts:
    """Count for the report, reading at most `BATCHES` record batches."""
    genes, n_cells = plan.genes, len(plan.cells)
    batches = list(cut((0, n_cells), plan.args.max_shard_samples))
    chosen = np.unique(np.linspace(0, len(batches) - 1, min(BATCHES, len(batches))).astype(int)) if batches else ()
    counts = scan(plan, [batches[number] for number in chosen], resources=resources)
    names = genes.names or [""] * plan.source.n_var
    return {
        "cells": counts.n_cells,
        "of_cells": n_cells,
        "truncated": counts.n_truncated,
        "lost_genes": [
            {"gene_id": genes.gene_ids[column] or "(missing)", "name": names[column], "share": share}
            for column, share in counts.lost_genes(genes, GENES)
        ],
    }


def _scan_chunk(plan: Plan, cells: tuple[int, int]) -> ScanCounts:
    """Count on the cells of a chunk."""
    kept = plan.genes.position_of_column >= 0
    chunk, places = read_cells(plan, cells)
    n_tokens = n_empty = n_truncated = 0
    refused: tuple[str, ...] = ()
    kind = ""
    try:
        offsets = tokenize_chunk(plan, chunk, places).offsets
        n_tokens = int(offsets[-1])
        n_empty = int((np.diff(offsets) == (plan.cls_token is not None)).sum())
        if _most_genes(plan, chunk) > plan.args.n_selected:
            n_truncated = int((count_nonzero_genes(plan, chunk, places) > plan.args.n_selected).sum())
    except TeddytokError as problem:
        if problem.kind == "matrix_malformed":
            raise
        refused, kind = (str(problem),), problem.kind
    columns, values, rows = _entries(chunk)
    finite = np.isfinite(values)
    magnitudes = np.where(finite, np.abs(values.astype(np.float64)), 0.0)
    at = np.flatnonzero(~finite & kept[columns])
    bad_rows = np.unique(rows[at])
    if at.size and kind != "not_a_count":  # the reason, and these cells are counted all
        refused = ()
    return ScanCounts(
        n_cells=cells[1] - cells[0],
        expression=np.bincount(columns, weights=magnitudes, minlength=len(kept)).astype(np.float64),
        values=ValueSummary.of(values),
        n_tokens=n_tokens,
        n_empty=n_empty,
        n_truncated=n_truncated,
        n_not_finite=len(bad_rows),
        not_finite=tuple(
            (int(places[row]), tuple(columns[at[rows[at] == row]][:3].tolist())) for row in bad_rows[:NAMED_CELLS]
        ),
        n_refused=len(refused),
        refused=refused,
    )


def _most_genes(plan: Plan, chunk: CsrChunk | DenseChunk) -> int:
    """Bound the number of nonzero genes of any cell of a chunk, without a look at the values."""
    if isinstance(chunk, DenseChunk):
        return plan.genes.n_genes
    return min(plan.genes.n_genes, int(np.diff(chunk.indptr).max(initial=0)))


def _entries(chunk: CsrChunk | DenseChunk) -> tuple[NDArray[np.integer], NDArray[np.number], NDArray[np.integer]]:
    """List the stored entries of a chunk: columns, values, rows (from the chunk's first)."""
    if isinstance(chunk, DenseChunk):
        rows, columns = np.nonzero(chunk.x)
        return columns, chunk.x[rows, columns], rows
    return chunk.indices, chunk.data, np.repeat(np.arange(len(chunk.indptr) - 1), np.diff(chunk.indptr))
