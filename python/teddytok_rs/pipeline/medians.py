"""Compute the exact median of each gene's nonzero values over any number of sources, out of core.

The genes of all sources are numbered first. Then all values are counted in a few passes, as ``rust/src/medians.rs``
describes: the memory depends on the number of genes, not of cells. Threads read and count chunks of rows; a source is
open only while it is read.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from ..errors import KernelError
from ..errors.build import error
from ..errors.text import size_text, some
from ..mapping.genes import gene_ids, match_genes
from ..mapping.reports import SourceReport, describe_source
from ..mapping.vocabulary import Vocabulary
from ..parallel import map_in_order
from ..progress import progress_bar
from ..sources.identity import fingerprint, stamp
from ..sources.layers import AUTO
from ..sources.open import open_source
from ..sources.protocol import CsrChunk
from .batches import BATCH_ROWS, N_QUEUED, check_counts, name_cell_and_gene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from ..config.args import TokenizationArgs
    from ..mapping.genes import GeneIndex
    from ..sources.protocol import Source, SourceLike
    from .resources import Resources

logger = logging.getLogger("teddytok_rs")

#: Maximum bytes of the table in which values are counted: with 60,000 genes two passes for about a million cells, and
#: three for more.
TABLE_BYTES = 2**29


@dataclass(frozen=True)
class CountedSource:
    """A source whose values are counted.

    Attributes
    ----------
    origin
        What to open.
    report, fingerprint, stamp
        What it was when its genes were read.
    """

    origin: SourceLike
    report: SourceReport
    fingerprint: str
    stamp: str


@dataclass(frozen=True)
class GeneTable:
    """The genes of several sources.

    Attributes
    ----------
    sources
        The sources, in the order given.
    genes
        All genes by number: their sorted ids, whatever the order of the sources.
    n_cells
        Shape (n_genes,), int64: number of cells of the sources that have each gene.
    """

    sources: list[CountedSource]
    genes: list[str]
    n_cells: NDArray[np.int64]


def read_genes(sources: Iterable[SourceLike], args: TokenizationArgs, resources: Resources) -> GeneTable:
    """Read the genes of all sources, and what identifies each source.

    Raises
    ------
    SourceError, DataError
        If a source cannot be read, or lacks the layer or ``gene_id_column``.
    """
    counted = []
    n_cells: dict[str, int] = {}
    for source in sources:
        with closing(open_source(source, args.layer)) as opened:
            ids = gene_ids(
                opened.var,
                args.gene_id_column,
                strip=args.strip_gene_version,
                source=opened.name,
                unreadable=opened.unreadable,
            )
            for gene_id in set(ids):
                if gene_id is not None:
                    n_cells[gene_id] = n_cells.get(gene_id, 0) + opened.n_cells
            report = describe_source(opened, 0)
            counted.append(CountedSource(source, report, fingerprint(opened), stamp(opened, resources.threads)))
    genes = sorted(n_cells)
    return GeneTable(counted, genes, np.array([n_cells[gene_id] for gene_id in genes], dtype=np.int64))


def compute_medians(
    table: GeneTable,
    args: TokenizationArgs,
    *,
    resources: Resources,
    progress: bool | None = None,
    state: NDArray[np.uint64] | None = None,
    finish_pass: Callable[[NDArray[np.uint64]], None] = lambda _: None,
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Compute the median of each gene's nonzero values after ``normalize_total``.

    Parameters
    ----------
    table
        The sources and their genes.
    args
        ``layer``, ``normalize_total``, ``gene_id_column``, ``strip_gene_version`` and ``duplicate_genes`` are used.
    resources
        Threads and bytes to use, in addition to `TABLE_BYTES`.
    progress
        Whether to show progress, a bar for each pass.
    state
        What ``finish_pass`` was given after the last pass of an interrupted call.
    finish_pass
        Called after each pass but the last.

    Returns
    -------
    The number of nonzero values of each gene, shape (n_genes,), and their medians, NaN where there is none.

    Raises
    ------
    DataError
        If a value is NaN, infinite or negative, or a matrix is malformed.
    SourceError
        If a source cannot be read, or changed.
    """
    counter = _core.MedianCounter(len(table.genes), max_bytes=TABLE_BYTES, state=state)
    vocabulary = Vocabulary("", {gene_id: number for number, gene_id in enumerate(table.genes)})
    total = sum(source.report.n_cells for source in table.sources)
    logger.debug(
        "%s cells, %d threads, %s at a time", f"{total:,}", resources.threads, size_text(resources.chunk_bytes)
    )
    is_finished = False
    while not is_finished:
        with progress_bar(total, show=progress, doing="counting") as advance:
            for source in table.sources:
                _count_source(counter, source, vocabulary, args, resources=resources, advance=advance)
        try:
            is_finished = not counter.finish_pass()
        except KernelError:
            names = some(source.report.name for source in table.sources)
            raise error("values_changed", sources=names) from None
        if not is_finished:
            finish_pass(counter.state())
    n_values, medians = counter.medians()
    assert medians is not None  # noqa: S101 -- the last pass is finished
    return n_values, medians


def _count_source(
    counter: _core.MedianCounter,
    source: CountedSource,
    vocabulary: Vocabulary,
    args: TokenizationArgs,
    *,
    resources: Resources,
    advance: Callable[[int], None],
) -> None:
    """Count all values of one source."""
    with closing(open_source(source.origin, source.report.layer)) as opened:
        genes = match_genes(opened.var, vocabulary, args, opened.name, opened.unreadable)

        def count_rows(span: tuple[int, int]) -> int:
            _count_chunk(counter, opened, genes, args, span)
            return span[1] - span[0]

        spans = _spans(opened, resources.bytes_per_thread)
        n_threads = resources.threads if resources.threads > 1 else 0
        with closing(
            map_in_order(count_rows, spans, threads=n_threads, window=resources.threads + N_QUEUED)
        ) as counted:
            for n_cells in counted:
                advance(n_cells)
        if opened.path is not None and stamp(opened) != source.stamp:
            raise error("values_changed", sources=repr(opened.name))


def _spans(source: Source, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut a source into chunks of rows that fit into ``chunk_bytes``, or hold a single row."""
    start = 0
    while start < source.n_cells:
        rows = min(max(source.rows_within(start, chunk_bytes, 0), 1), BATCH_ROWS)
        stop = min(start + rows, source.n_cells)
        yield start, stop
        start = stop


def _count_chunk(
    counter: _core.MedianCounter, source: Source, genes: GeneIndex, args: TokenizationArgs, span: tuple[int, int]
) -> None:
    """Read rows and count their values: the work of one thread."""
    chunk, rows = source.read(*span), np.arange(*span, dtype=np.int64)
    if args.layer == AUTO:
        check_counts(genes, chunk, rows, source)
    positions, numbers = genes.position_of_column, genes.token_of_position
    target_sum = args.normalize_total
    try:
        if isinstance(chunk, CsrChunk):
            counter.count_csr(
                chunk.indptr, chunk.indices, chunk.data,
                rows=rows, position_of_column=positions, gene_of_position=numbers, target_sum=target_sum,
            )  # fmt: skip
        else:
            counter.count_dense(
                chunk.x, rows=rows, position_of_column=positions, gene_of_position=numbers, target_sum=target_sum
            )
    except KernelError as exc:
        raise name_cell_and_gene(exc, genes, source) from None
