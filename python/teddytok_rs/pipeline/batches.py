"""Tokenize a planned source into record batches. Read this file first.

`plan` checks everything and builds the kernel. Each thread then makes one record batch at a time: it reads the rows,
passes them to the kernel and adds the annotation columns. The batches are yielded in order.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa

from ..errors import KernelError
from ..errors.build import error
from ..errors.text import size_text
from ..mapping.genes import GROUPS
from ..parallel import map_in_order
from ..sources.counts import first_not_count
from ..sources.layers import AUTO
from ..sources.protocol import CsrChunk, DenseChunk

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from numpy.typing import NDArray

    from .._core import Kernel, _Arrays
    from ..config.args import TokenizationArgs
    from ..mapping.annotations import ArrowArray
    from ..mapping.genes import GeneIndex
    from ..sources.protocol import NamedCells
    from .plan import GenePlan, Plan
    from .resources import Resources


logger = logging.getLogger("teddytok_rs")
Result = TypeVar("Result")

#: Rows per record batch: `datasets` finds a row by bisecting batches, and list offsets stay far below 2^31.
BATCH_ROWS = 1000
#: Record batches that are queued in addition to those that threads work on: one that is finished, one that is next.
N_QUEUED = 2
#: Maximum number of tokens of a kernel call: its offsets are 32-bit.
MAX_TOKENS = 2**31 - 1

#: Error kind of a malformed matrix, as the kernel reports it -> text for the message.
MALFORMED = {
    "indptr_start": "indptr does not start at 0",
    "indptr_decreases": "indptr decreases",
    "indptr_end": "indptr does not end at the number of stored values",
    "lengths_differ": "its parts differ in length",
    "column_out_of_range": "a column index is negative or beyond the number of genes",
}


def record_batches(
    batches: Generator[Batch],
    advance: Callable[[int], None] = lambda _: None,
    finish: Callable[[float], None] = lambda _: None,
) -> Iterator[pa.RecordBatch]:
    """Yield the record batches, and end the threads when the caller stops.

    Parameters
    ----------
    batches
        The output of `tokenize_batches`.
    advance
        Called after each record batch with its number of cells.
    finish
        Called after the last record batch with the share of the expression that is lost, from 0 to 1: that of dropped
        genes, except those that ``gene_filter`` leaves out.
    """
    expression = kept = 0.0
    with closing(batches):  # ends the threads when the caller stops iterating
        for batch in batches:
            yield batch.record_batch
            advance(batch.record_batch.num_rows)
            expression += batch.expression
            kept += batch.expression_kept + batch.expression_of_group.get("filtered", 0.0)
    finish(max(0.0, 1 - kept / expression) if expression > 0 else 0.0)


def tokenize_batches(
    plan: Plan, spans: Iterable[tuple[int, int]] | None = None, *, resources: Resources
) -> Generator[Batch]:
    """Tokenize spans of a plan's cells, or all cells, and yield one record batch at a time in order."""
    logger.debug("%s: %d threads, %s at a time", plan.source.name, resources.threads, size_text(resources.chunk_bytes))
    pending_bytes = resources.chunk_bytes // 2  # the other half is for the chunks that the threads work on

    def capacity(last: Batch | None) -> int:
        n_tokens = BATCH_ROWS * _max_tokens(plan) if last is None else last.n_tokens  # Arrow's nbytes is slow
        return pending_bytes // max(n_tokens * _token_bytes(plan), 1)

    function = partial(_tokenize_batch, plan, resources.bytes_per_thread // 2)
    yield from map_record_batches(function, plan, spans, threads=resources.threads, capacity=capacity)


def map_record_batches(
    function: Callable[[tuple[int, int]], Result],
    plan: Plan,
    spans: Iterable[tuple[int, int]] | None = None,
    *,
    threads: int,
    capacity: Callable[[Result | None], int] | None = None,
) -> Generator[Result]:
    """Call ``function`` for the cells (start, stop) of each record batch, in threads. See `map_in_order`."""
    spans = [(0, len(plan.cells))] if spans is None else spans
    batches = (batch for span in spans for batch in cut(span, plan.args.max_shard_samples))
    n_threads = threads if threads > 1 else 0
    return map_in_order(function, batches, threads=n_threads, window=threads + N_QUEUED, capacity=capacity)


def cut(span: tuple[int, int], shard_rows: int) -> Iterator[tuple[int, int]]:
    """Cut cells into record batches.

    The cuts depend on the cells and on ``shard_rows`` only, and so do the bytes of a shard.
    """
    cell, stop = span
    while cell < stop:
        end = min(cell + BATCH_ROWS - cell % shard_rows % BATCH_ROWS, (cell // shard_rows + 1) * shard_rows, stop)
        yield cell, end
        cell = end


def chunks(plan: Plan, batch: tuple[int, int], chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut a record batch into chunks that fit into ``chunk_bytes`` with their tokens, or hold a single cell."""
    start, stop = batch
    while start < stop:
        end = min(start + max(cells_within(plan, start, chunk_bytes), 1), stop)
        yield start, end
        start = end


def cells_within(plan: Plan, start: int, chunk_bytes: int) -> int:
    """Return how many cells from ``start`` fit into ``chunk_bytes`` with their tokens."""
    row = plan.cells.source_row(start)
    rows = plan.source.rows_within(row, chunk_bytes, _max_tokens(plan) * _token_bytes(plan))
    rows = min(rows, MAX_TOKENS // _max_tokens(plan))
    if plan.cells.rows is None:
        return rows
    return int(np.searchsorted(plan.cells.rows, row + rows)) - start


def _max_tokens(plan: Plan) -> int:
    return min(plan.args.max_seq_len, plan.genes.n_genes + plan.args.n_special)


def _token_bytes(plan: Plan) -> int:
    """Return the maximum number of bytes of a token and its value."""
    return np.dtype(plan.args.token_dtype).itemsize + 4


@dataclass(frozen=True)
class Tokens:
    """The kernel's output for some cells: the tokens of all of them in contiguous buffers.

    Attributes
    ----------
    offsets
        Shape (n_cells + 1,): cell ``i`` has the tokens from ``offsets[i]`` to ``offsets[i + 1]``.
    gene_ids, values
        Shape (n_tokens,): token ids and their values. ``values`` is None where none are written.
    totals
        Shape (n_cells, 2): sum of the absolute values of each cell, over all genes and over the kept genes.
    group_totals
        The same over the genes of each of `GROUPS`, shape (n_cells, 3); None where every gene is in none of them.
    """

    offsets: NDArray[np.int32]
    gene_ids: NDArray[np.integer]
    values: NDArray[np.number] | None
    totals: NDArray[np.float64]
    group_totals: NDArray[np.float64] | None

    def columns(self, args: TokenizationArgs) -> list[ArrowArray]:
        """Wrap the buffers, without a copy, as the columns that `features` describes first."""
        ends = pa.array(self.offsets, pa.int32())
        columns: list[ArrowArray] = [pa.ListArray.from_arrays(ends, pa.array(self.gene_ids))]
        if self.values is not None:
            columns.append(pa.ListArray.from_arrays(ends, pa.array(self.values)))
        if args.write_length:
            columns.append(pa.array(np.diff(self.offsets), pa.int32()))
        return columns


def read_cells(plan: Plan, chunk: tuple[int, int]) -> tuple[CsrChunk | DenseChunk, NDArray[np.int64]]:
    """Read the values of a chunk's cells, and return them with their rows in the source."""
    if plan.cells.rows is None:
        return plan.source.read(*chunk), np.arange(*chunk, dtype=np.int64)
    rows = plan.cells.rows[slice(*chunk)]
    first = int(rows[0])
    return plan.source.read(first, int(rows[-1]) + 1).take(rows - first), rows


def tokenize_chunk(plan: GenePlan, chunk: CsrChunk | DenseChunk, rows: NDArray[np.int64], source: NamedCells) -> Tokens:
    """Tokenize a chunk with the kernel. ``rows`` are the rows of its cells in the source."""
    if plan.args.layer == AUTO:
        check_counts(plan.genes, chunk, rows, source)
    offsets, gene_ids, values, totals = _call(plan.kernel, plan.genes, chunk, rows, source)
    return Tokens(offsets, gene_ids, values, totals.reshape(-1, 2), _sum_groups(plan.genes, chunk))


def _sum_groups(genes: GeneIndex, chunk: CsrChunk | DenseChunk) -> NDArray[np.float64] | None:
    """Sum the absolute values of each cell over the genes of each group, in the order in which they are stored."""
    groups = genes.group_of_column
    if groups is None:
        return None
    columns: NDArray[np.integer]
    if isinstance(chunk, DenseChunk):
        rows, columns = np.nonzero(groups * (chunk.x != 0))
        values = chunk.x[rows, columns]
    else:
        at = np.flatnonzero(groups[chunk.indices])
        columns, values = chunk.indices[at], chunk.data[at]
        rows = np.searchsorted(chunk.indptr, at, side="right") - 1
    width = 1 + len(GROUPS)
    magnitudes = np.abs(values.astype(np.float64))
    magnitudes[~np.isfinite(magnitudes)] = 0.0  # as the kernel counts them, where it allows them
    sums = np.bincount(rows * width + groups[columns], weights=magnitudes, minlength=chunk.n_rows * width)
    return sums.astype(np.float64).reshape(-1, width)[:, 1:]


def count_nonzero_genes(plan: Plan, chunk: CsrChunk | DenseChunk, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """Count the nonzero genes of each cell of a chunk from which its sequence is selected."""
    offsets = _call(plan.counting_kernel, plan.genes, chunk, rows, plan.source)[0]
    return np.diff(offsets)


def _call(
    kernel: Kernel, genes: GeneIndex, chunk: CsrChunk | DenseChunk, rows: NDArray[np.int64], source: NamedCells
) -> _Arrays:
    try:
        if isinstance(chunk, CsrChunk):
            return kernel.tokenize_csr(chunk.indptr, chunk.indices, chunk.data, rows=rows)
        return kernel.tokenize_dense(chunk.x, rows=rows)
    except KernelError as exc:
        raise name_cell_and_gene(exc, genes, source) from None


def check_counts(genes: GeneIndex, chunk: CsrChunk | DenseChunk, rows: NDArray[np.int64], source: NamedCells) -> None:
    """Check that all values are counts, as the layer was chosen from a sample of its rows."""
    first = first_not_count(chunk.values)
    if first is None:
        return
    if isinstance(chunk, DenseChunk):
        row, column = divmod(first, chunk.x.shape[1])
    else:
        row, column = int(np.searchsorted(chunk.indptr, first, side="right")) - 1, int(chunk.indices[first])
    gene_ids = genes.gene_ids
    if 0 <= column < len(gene_ids):  # else the kernel refuses the matrix
        cell, gene = source.cell_name(int(rows[row])), gene_ids[column] or f"of column {column:,}"
        facts = {"source": source.name, "layer": source.layer}
        raise error("not_a_count", cell=cell, row=int(rows[row]), gene=gene, value=chunk.values[first].item(), **facts)


def _concatenate(parts: list[Tokens]) -> Tokens:
    """Concatenate the tokens of a record batch's chunks. A single chunk is not copied."""
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(part.offsets[-1] for part in parts)], dtype=np.int32)
    offsets = [part.offsets[1:] + end for part, end in zip(parts, ends, strict=False)]
    values = [part.values for part in parts if part.values is not None]
    group_totals = [part.group_totals for part in parts if part.group_totals is not None]
    return Tokens(
        np.concatenate([ends[:1], *offsets]),
        np.concatenate([part.gene_ids for part in parts]),
        np.concatenate(values) if values else None,
        np.concatenate([part.totals for part in parts]),
        np.concatenate(group_totals) if group_totals else None,
    )


@dataclass(frozen=True)
class Batch:
    """A record batch and its counts.

    Attributes
    ----------
    n_tokens
        Number of tokens of its cells.
    expression, expression_kept
        Sum of the absolute values of its cells, over all genes and over the kept genes.
    expression_of_group
        The same over the genes of each of `GROUPS`; empty where every gene is in none of them.
    reading, tokenizing
        Seconds that a thread spent reading and decompressing its rows, and in the kernel.
    """

    record_batch: pa.RecordBatch
    n_tokens: int
    expression: float
    expression_kept: float
    expression_of_group: dict[str, float]
    reading: float
    tokenizing: float


def _tokenize_batch(plan: Plan, chunk_bytes: int, cells: tuple[int, int]) -> Batch:
    """Make the record batch of cells (start, stop): the work of one thread, from the source's rows to Arrow."""
    parts: list[Tokens] = []
    reading = tokenizing = 0.0
    for chunk in chunks(plan, cells, chunk_bytes):
        started = perf_counter()
        values, rows = read_cells(plan, chunk)
        read = perf_counter()
        parts.append(tokenize_chunk(plan, values, rows, plan.source))
        reading, tokenizing = reading + read - started, tokenizing + perf_counter() - read
        del values  # frees its memory before the next chunk is read
    return _batch(plan, _concatenate(parts), cells, reading=reading, tokenizing=tokenizing)


def _batch(plan: Plan, tokens: Tokens, cells: tuple[int, int], *, reading: float, tokenizing: float) -> Batch:
    """Wrap the kernel's buffers, and add the annotation columns of the same cells."""
    start, stop = cells
    columns = tokens.columns(plan.args)
    columns += [column.slice(start, stop, len(plan.cells)) for column in plan.annotations.columns]
    record_batch = pa.RecordBatch.from_arrays(columns, schema=plan.schema)
    expression, kept = tokens.totals.sum(axis=0).tolist()
    groups = {}
    if tokens.group_totals is not None:
        groups = dict(zip(GROUPS, tokens.group_totals.sum(axis=0).tolist(), strict=True))
    return Batch(record_batch, len(tokens.gene_ids), expression, kept, groups, reading, tokenizing)


def name_cell_and_gene(exc: KernelError, genes: GeneIndex, source: NamedCells) -> Exception:
    """Convert a kernel error into an error that names the cell and the gene."""
    kind, row, column, argument = exc.args
    facts = {"source": source.name, "layer": source.layer}
    if kind in MALFORMED:
        reason = MALFORMED[kind] if row is None else f"{MALFORMED[kind]} (row {row:,})"
        return error("matrix_malformed", reason=reason, **facts)
    if row is None:
        what = f"its argument {argument!r} is not valid" if argument else kind
        return error("internal", reason=f"the kernel refused a call: {what}")
    gene = None if column is None else genes.gene_ids[column]
    return error(kind, cell=source.cell_name(row), row=row, gene=gene, dtype=source.dtype, **facts)
