"""Read the values of a run's cells once, and count what is not stored in the dataset folder.

`check` scans all cells. The report of a large source scans record batches that are spread evenly over it, so its
numbers are estimates.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..config.parts import Count, Part, Share
from ..errors import TeddytokError
from ..mapping.genes import GROUPS
from ..sources.counts import ValueSummary
from ..sources.protocol import DenseChunk
from .batches import chunks, count_nonzero_genes, cut, map_record_batches, read_cells, tokenize_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ..mapping.genes import GeneIndex
    from ..sources.protocol import CsrChunk
    from .plan import Plan
    from .resources import Resources

#: Maximum number of record batches that the report reads: 100,000 cells, a few seconds.
BATCHES = 100
#: Maximum number of dropped genes that the report names.
GENES = 20
#: Maximum number of named cells with NaN or infinity, and of named chunks that cannot be tokenized.
NAMED_CELLS, NAMED_REFUSALS = 20, 5


@dataclass(frozen=True)
class ScanCounts:
    """Counts over some cells of a source.

    Attributes
    ----------
    n_cells
        Number of cells.
    expression
        Shape (n_var,): sum of each gene's absolute values.
    values
        Summary of the values.
    n_tokens, n_empty
        Number of tokens of the sequences, and of cells whose sequence has no gene.
    n_truncated
        Number of cells with more nonzero genes to select from than a sequence holds.
    n_not_finite, not_finite
        Number of cells with NaN or infinity in kept genes. For each of the first `NAMED_CELLS`: its row in the source,
        and up to three columns.
    n_refused, refused
        Number of chunks of cells that cannot be tokenized, whose tokens are not counted. The error messages of the
        first `NAMED_REFUSALS`.
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
        """Add the counts of other cells."""
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
        """Compute the share of all expression that is in each lost gene; 0 for any other gene. Shape (n_var,)."""
        return np.where(genes.is_lost, self.expression, 0.0) / (self.expression.sum() or 1.0)

    def group_shares(self, genes: GeneIndex) -> dict[str, float]:
        """Compute the share of all expression that is in each of `GROUPS` and in unmapped genes."""
        total = self.expression.sum() or 1.0
        of_group = np.bincount(genes.groups, weights=self.expression, minlength=1 + len(GROUPS)) / total
        shares = dict(zip(GROUPS, of_group[1:].tolist(), strict=True))
        return shares | {"unmapped": max(0.0, float(self.lost_shares(genes).sum()) - shares["ambiguous"])}

    def lost_genes(self, genes: GeneIndex, limit: int) -> list[tuple[int, float]]:
        """List the column and the share of the lost genes with the most expression, the largest first."""
        lost = self.lost_shares(genes)
        worst = np.argsort(-lost, kind="stable")[:limit].tolist()
        return [(column, float(lost[column])) for column in worst if lost[column] > 0]


@dataclass(frozen=True)
class LostGene(Part):
    """A dropped gene, and its share of all expression."""

    gene_id: str
    name: str
    share: Share


@dataclass(frozen=True)
class SourceCounts(Part):
    """What the report takes from a source: how many of its cells were read and cut, and the genes lost, worst first."""

    cells: Count
    of_cells: Count
    truncated: Count | None
    lost_genes: list[LostGene]


def scan(
    plan: Plan,
    spans: Iterable[tuple[int, int]] | None = None,
    *,
    resources: Resources,
    advance: Callable[[int], None] = lambda _: None,
) -> ScanCounts:
    """Count over spans of a run's cells, or over all cells.

    Parameters
    ----------
    plan
        The run.
    spans
        Cells (start, stop); all if None.
    resources
        Threads and bytes to use.
    advance
        Called after each record batch with its number of cells.

    Raises
    ------
    DataError
        If the matrix is malformed, so that its columns cannot be counted. Other errors are counted in ``n_refused``.
    """

    def scan_batch(batch: tuple[int, int]) -> ScanCounts:
        counts = ScanCounts(0, np.zeros(plan.source.n_var))
        for cells in chunks(plan, batch, resources.bytes_per_thread):
            counts += _scan_chunk(plan, cells)
        return counts

    total = ScanCounts(0, np.zeros(plan.source.n_var))
    with closing(map_record_batches(scan_batch, plan, spans, threads=resources.threads)) as batches:
        for counts in batches:
            total += counts
            advance(counts.n_cells)
    return total


def count_source(plan: Plan, resources: Resources) -> SourceCounts:
    """Count for the report, from at most `BATCHES` record batches."""
    genes, n_cells = plan.genes, len(plan.cells)
    batches = list(cut((0, n_cells), plan.args.max_shard_samples))
    chosen = np.unique(np.linspace(0, len(batches) - 1, min(BATCHES, len(batches))).astype(int)) if batches else ()
    counts = scan(plan, [batches[number] for number in chosen], resources=resources)
    names = genes.names or [""] * plan.source.n_var
    lost_genes = [
        LostGene(genes.gene_ids[column] or "(missing)", names[column], share)
        for column, share in counts.lost_genes(genes, GENES)
    ]
    return SourceCounts(counts.n_cells, n_cells, counts.n_truncated, lost_genes)


def _scan_chunk(plan: Plan, cells: tuple[int, int]) -> ScanCounts:
    """Count over the cells of a chunk."""
    kept = plan.genes.position_of_column >= 0
    chunk, places = read_cells(plan, cells)
    n_tokens = n_empty = n_truncated = 0
    refused: tuple[str, ...] = ()
    kind = ""
    try:
        offsets = tokenize_chunk(plan, chunk, places, plan.source).offsets
        n_tokens = int(offsets[-1])
        n_empty = int((np.diff(offsets) == plan.args.n_special).sum())
        if _max_genes(plan, chunk) > plan.args.n_selected:
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
    if at.size and kind != "not_a_count":  # NaN and infinity are the reason, and all such cells are counted below
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


def _max_genes(plan: Plan, chunk: CsrChunk | DenseChunk) -> int:
    """Return an upper bound of the number of nonzero genes of a chunk's cells, without reading the values."""
    if isinstance(chunk, DenseChunk):
        return plan.genes.n_genes
    return min(plan.genes.n_genes, int(np.diff(chunk.indptr).max(initial=0)))


def _entries(chunk: CsrChunk | DenseChunk) -> tuple[NDArray[np.integer], NDArray[np.number], NDArray[np.integer]]:
    """Return the columns, values and rows of a chunk's stored entries. Rows are counted from the chunk's first."""
    if isinstance(chunk, DenseChunk):
        rows, columns = np.nonzero(chunk.x)
        return columns, chunk.x[rows, columns], rows
    return chunk.indices, chunk.data, np.repeat(np.arange(len(chunk.indptr) - 1), np.diff(chunk.indptr))
