"""A source and its arguments in, record batches of token sequences out. The file to read first.

The walk: `plan` checks everything and builds the kernel; `tokenize_batches` reads a chunk of rows, hands it to the
kernel, sets the annotation columns beside the result, and cuts it into record batches.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from . import _core
from .annotations import Annotations, read_annotations
from .args import TokenizationArgs
from .errors import KernelError, error
from .genes import GeneIndex, inverse_medians, match_genes
from .schema import arrow_schema
from .sources import CsrChunk, DenseChunk, Source, open_source
from .vocabulary import Vocabulary, load_vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

#: Rows a record batch: `datasets` finds a row by bisecting batches, and no list offset comes near 2^31.
BATCH_ROWS = 1000
#: Bytes of matrix and tokens that are in memory at a time, so that memory does not grow with the source.
CHUNK_BYTES = 64 * 2**20
#: What messages say of kinds that the kernel finds in a matrix's structure.
MALFORMED = {
    "indptr_start": "indptr does not start at 0",
    "indptr_decreases": "indptr decreases",
    "indptr_end": "indptr does not end at the number of stored values",
    "lengths_differ": "its parts differ in length",
    "column_out_of_range": "a column index is negative or beyond the number of genes",
}


@dataclass(frozen=True)
class Plan:
    """All that a run needs, checked; the description from which a worker could do any part of it.

    Attributes
    ----------
    cls_token
        Id that starts each sequence; None where none does.
    seed
        Seed of the random subsets; None where none are drawn.
    """

    source: Source
    args: TokenizationArgs
    vocabulary: Vocabulary
    genes: GeneIndex
    annotations: Annotations
    schema: pa.Schema
    kernel: _core.Kernel
    cls_token: int | None
    seed: int | None


@dataclass
class Expression:
    """Sums of absolute values: over all genes, and over the kept ones."""

    total: float = 0.0
    kept: float = 0.0

    @property
    def lost(self) -> float:
        """Share of the total that lies in dropped genes; 0 where there is none at all."""
        return 1 - self.kept / self.total if self.total > 0 else 0.0

    def add(self, totals: NDArray[np.float64]) -> None:
        """Add a record batch of (total, kept) rows; batch by batch, so that the sum does not hang on chunks."""
        total, kept = totals.sum(axis=0)
        self.total += float(total)
        self.kept += float(kept)


def plan(source: Any, args: TokenizationArgs | Mapping[str, Any]) -> Plan:
    """Check everything that can be checked without reading the matrix, and build the kernel."""
    args = TokenizationArgs.load(args)
    vocabulary = load_vocabulary(args.tokenizer_name_or_path)
    opened = open_source(source, args.layer)
    genes = match_genes(opened.var, vocabulary, args, opened.name)
    medians = inverse_medians(genes, args)
    cls_token = args.cls_token_id if args.add_cls else None
    if args.add_cls and cls_token is None:
        advice = "Set cls_token_id, or name a cls_token in special_tokens_map.json"
        cls_token = vocabulary.special_id("cls", needs="add_cls", advice=advice)
    written = max(int(genes.token_of_position.max()), cls_token or 0)
    if args.token_dtype == "uint16" and written > np.iinfo(np.uint16).max:
        raise error("token_dtype", largest=written)
    annotations = read_annotations(opened, vocabulary, args)
    seed = None
    if args.random_genes:
        seed = secrets.randbits(64) if args.gene_seed is None else args.gene_seed
    kernel = _core.Kernel(
        genes.position_of_column,
        genes.token_of_position,
        max_seq_len=args.max_seq_len,
        cls_token=cls_token,
        include_zero_genes=args.include_zero_genes,
        values=_value_mode(args),
        n_bins=args.n_bins,
        random=None if seed is None else (seed, args.batch_size, args.random_genes_count or args.n_selected),
        target_sum=args.normalize_total,
        inverse_medians=medians,
        log1p=args.log1p,
        token_dtype=args.token_dtype,
    )
    schema = arrow_schema(args, annotations.columns)
    return Plan(opened, args, vocabulary, genes, annotations, schema, kernel, cls_token, seed)


def _value_mode(args: TokenizationArgs) -> str:
    if not args.write_values:
        return "none"
    if args.n_bins:
        return "bins"
    return "ranks" if args.continuous_rank else "expression"


def tokenize(source: Any, args: TokenizationArgs | Mapping[str, Any], *, threads: int | None = None) -> pa.Table:
    """Tokenize a source into one table in memory.

    Parameters
    ----------
    source
        An AnnData, or the path of an ``.h5ad`` file or a ``.zarr`` store.
    args
        A `TokenizationArgs` or a dict of its fields.
    threads
        Threads to use; all cores if not given. The result is the same for any number.

    Returns
    -------
    A row a cell, in the order of the source, in chunks of at most 1,000 rows: ``gene_ids`` list<int32> (or
    ``token_dtype``), ``values`` list<float32> (list<int32> with ``bins``), then ``bio_annotations``, ``labels`` and
    ``obs_columns``, where asked for.

    Raises
    ------
    ConfigError
        If an argument, or a file it names, is not valid.
    VocabularyError
        If the vocabulary cannot be read or lacks a special token that is needed.
    SourceError
        If the source cannot be opened or read.
    DataError
        If the source's genes, cells or values cannot be tokenized as asked; `GeneMatchError` where too few genes are
        in the vocabulary.

    Examples
    --------
    >>> import teddytok_rs
    >>> from teddytok_rs import demo
    >>> table = teddytok_rs.tokenize(demo.cells(), demo.args(max_seq_len=4))
    >>> table.num_rows, table.column_names
    (700, ['gene_ids', 'values', 'bio_annotations', 'labels'])
    """
    ready = plan(source, args)
    return pa.Table.from_batches(tokenize_batches(ready, threads=threads), ready.schema)


def iter_batches(
    source: Any, args: TokenizationArgs | Mapping[str, Any], *, threads: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Tokenize a source in record batches of at most 1,000 cells, holding a bounded part of it in memory.

    Parameters and errors are those of `tokenize`; everything but the values is checked before the first batch.
    """
    return tokenize_batches(plan(source, args), threads=threads)


def tokenize_batches(
    ready: Plan, *, threads: int | None = None, expression: Expression | None = None
) -> Iterator[pa.RecordBatch]:
    """Tokenize a planned source, a record batch at a time; batches end where shards end.

    ``expression`` is added to, where given.
    """
    for start, stops in chunks(ready):
        batch_start = start
        tokens = tokenize_chunk(ready, ready.source.read(start, stops[-1]), start, threads)
        for stop in stops:
            rows = slice(batch_start - start, stop - start)
            if expression is not None:
                expression.add(tokens.totals[rows])
            yield _record_batch(ready, tokens, rows, batch_start)
            batch_start = stop


def chunks(ready: Plan) -> Iterator[tuple[int, list[int]]]:
    """Cut the source into chunks: each a first row, and the ends of the record batches in it."""
    start = row = 0
    stops: list[int] = []
    n_cells, shard = ready.source.n_cells, ready.args.max_shard_samples
    bytes_per_row = min(ready.args.max_seq_len, ready.genes.n_genes + 1) * (8 + 8 * (ready.args.token_dtype == "int64"))
    while row < n_cells:
        room = start + ready.source.rows_within(start, CHUNK_BYTES, bytes_per_row)
        stop = min(row + BATCH_ROWS, (row // shard + 1) * shard, n_cells)
        if stops and stop > room:
            yield start, stops
            start, stops = row, []
            continue
        stops.append(stop)
        row = stop
    if stops:
        yield start, stops


@dataclass(frozen=True)
class Tokens:
    """What the kernel made of a chunk: buffers of all its cells, side by side."""

    offsets: NDArray[np.int32]
    gene_ids: NDArray[Any]
    values: NDArray[Any] | None
    totals: NDArray[np.float64]


def tokenize_chunk(ready: Plan, chunk: CsrChunk | DenseChunk, first_row: int, threads: int | None) -> Tokens:
    """Hand a chunk, whose first row is ``first_row`` of the source, to the kernel."""
    threads = default_threads() if threads is None else threads
    if threads < 1:
        raise error("config_value", where="", key="threads", got=threads, expected="an integer of at least 1")
    try:
        if isinstance(chunk, CsrChunk):
            indptr, indices, data = chunk.indptr, chunk.indices, chunk.data
            arrays = ready.kernel.tokenize_csr(indptr, indices, data, first_row=first_row, threads=threads)
        else:
            arrays = ready.kernel.tokenize_dense(chunk.x, first_row=first_row, threads=threads)
    except KernelError as bad:
        raise _named(bad, ready) from None
    offsets, gene_ids, values, totals = arrays
    return Tokens(offsets, gene_ids, values, totals.reshape(-1, 2))


def _record_batch(ready: Plan, tokens: Tokens, rows: slice, first_row: int) -> pa.RecordBatch:
    """Wrap the kernel's buffers, without a copy, beside the annotation columns of the same cells."""
    offsets = pa.array(tokens.offsets)[rows.start : rows.stop + 1]
    columns = [pa.ListArray.from_arrays(offsets, pa.array(tokens.gene_ids))]
    if tokens.values is not None:
        columns.append(pa.ListArray.from_arrays(offsets, pa.array(tokens.values)))
    n_rows = rows.stop - rows.start
    columns += [column.values.slice(first_row, n_rows) for column in ready.annotations.columns]
    return pa.RecordBatch.from_arrays(columns, schema=ready.schema)


def _named(bad: KernelError, ready: Plan) -> Exception:
    """Give the row and column of a kernel error their names."""
    kind, row, column = bad.args
    source = ready.source
    facts = {"source": source.name, "layer": source.layer}
    if kind in MALFORMED:
        reason = MALFORMED[kind] if row is None else f"{MALFORMED[kind]} (row {row:,})"
        return error("matrix_malformed", reason=reason, **facts)
    if row is None:
        return error("internal", reason=f"the kernel refused its own arguments ({kind})")
    gene = None if column is None else ready.genes.gene_ids[column]
    return error(kind, cell=source.cell_name(row), row=row, gene=gene, dtype=source.dtype, **facts)


def default_threads() -> int:
    """All cores that this process may use; 1 in a worker process, which has siblings."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
