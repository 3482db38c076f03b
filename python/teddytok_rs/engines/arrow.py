"""Tokenize Arrow batches of counts.

For Spark's ``mapInArrow`` and Ray's ``map_batches``. A batch does not know its source: it holds the counts,
and the genes are given beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..config.args import TokenizationArgs
from ..errors.build import error
from ..errors.text import Rows, TextRepr, count, some
from ..mapping.inputs import fetch_inputs
from ..mapping.vocabulary import load_vocabulary
from ..pipeline.batches import BATCH_ROWS, tokenize_chunk
from ..pipeline.plan import GenePlan, plan_genes
from ..pipeline.schema import arrow_schema
from ..sources.protocol import CsrChunk, DenseChunk
from ..sources.validate import as_contiguous, as_indices, number_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ..config.args import ArgsLike
    from ..mapping.annotations import ArrowArray

__all__ = ["ArrowTokenizer"]

#: What messages call the source.
BATCH = "a batch of counts"
#: Column of each cell's place in the source.
ROW = "row"
#: Arguments that ask for columns of `obs`.
OF_OBS = ("cell_filter", "label_column", "add_disease_annotation", "bio_annotations", "obs_columns")
#: Arguments that ask for columns of `var`.
OF_VAR = ("gene_filter", "median_column")
#: Bytes of a dense matrix at a time.
DENSE_BYTES = 2**26


class ArrowTokenizer(TextRepr):
    """Tokenizes record batches whose rows are cells, with the tokens that `tokenize` gives the same cells.

    A batch has its counts in two list columns, ``indices`` (integers, the place of a gene in ``genes``) and ``data``
    (numbers), or else in a column for each gene, called by its id, all of one number type. It pickles; a worker reads
    the vocabulary from the same path again.

    Parameters
    ----------
    args
        A `TokenizationArgs` or a dict of its fields. Where values are (``layer``) does not matter here, but
        ``"auto"`` has every value checked to be a count.
    genes
        Ids of the genes in the order of the matrix's columns: what `tokenize` reads from ``gene_id_column``.
    keep
        Columns to pass on as they are.

    Attributes
    ----------
    seed
        Seed of the random subsets, drawn here where ``gene_seed`` is not set; None where there are none.

    Raises
    ------
    ConfigError, VocabularyError, DataError
        As `tokenize` does; `ConfigError` also if an argument asks for columns of ``obs``.

    Examples
    --------
    >>> import pyarrow
    >>> from teddytok_rs import demo
    >>> from teddytok_rs.engines.arrow import ArrowTokenizer
    >>> args = demo.args(bio_annotations=False, label_column=None)
    >>> tokenizer = ArrowTokenizer(args, ["ENSG00000273559", "ENSG00000275302", "ENSG00000276168"])
    >>> batch = pyarrow.table({"indices": [[0, 2], [1]], "data": [[1.0, 3.0], [2.0]], "cell": ["a", "b"]})
    >>> tokenizer(batch)["values"].to_pylist()
    [[3.0, 1.0], [2.0]]
    """

    def __init__(self, args: ArgsLike, genes: Sequence[str], *, keep: Sequence[str] = ()) -> None:
        args = fetch_inputs(TokenizationArgs.load(args))
        if asked := [key for key in OF_OBS if getattr(args, key)]:
            problem = f"{asked[0]} is set, but a batch of counts has no obs"
            raise error("config_conflict", where="", problem=problem, advice="Drop it, and pass columns on with keep")
        if asked := [key for key in OF_VAR if getattr(args, key) not in {None, "index"}]:
            problem = f"{asked[0]} is set, but a batch of counts has no var"
            raise error("config_conflict", where="", problem=problem, advice="Drop it")
        places = {
            key: str(Path(place).absolute())  # a worker may have another current folder
            for key, place in [
                ("tokenizer_name_or_path", args.tokenizer_name_or_path),
                ("median_dict", args.median_dict),
                ("gene_map", args.gene_map),
            ]
            # else it is on the Hugging Face Hub, and named by its commit
            if isinstance(place, str) and Path(place).exists()
        }
        self.args, self.genes, self.keep = args.model_copy(update=places), list(genes), tuple(keep)
        self.seed: int | None = None
        self.seed = self._ready.seed
        if twice := [name for name in self.keep if name in self.schema.names]:
            problem = f"keep names {twice[0]!r}, which is an output column"
            raise error("config_conflict", where="", problem=problem, advice="Rename the column first")

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_ready"}

    def _rows(self) -> tuple[str, Rows]:
        rows = [("genes", some(self.genes)), ("keep", some(self.keep))]
        return f"ArrowTokenizer of {count(len(self.genes), 'gene')}", [*rows, *self.args._rows()[1]]

    @cached_property
    def _ready(self) -> GenePlan:
        """Plan once in each process."""
        import pandas as pd

        args = self.args.model_copy(update={"gene_id_column": "index"})
        vocabulary = load_vocabulary(args.tokenizer_name_or_path)
        return plan_genes(pd.DataFrame(index=self.genes), vocabulary, args, name=BATCH, seed=self.seed)

    @property
    def schema(self) -> pa.Schema:
        """Columns that are made: ``gene_ids``, and ``values`` and ``length`` if they are written."""
        return arrow_schema(self.args, []).remove_metadata()

    def __call__(self, batch: pa.Table | pa.RecordBatch) -> pa.Table:
        """Tokenize a batch, as `ray.data.Dataset.map_batches` asks with ``batch_format="pyarrow"``."""
        kept = [pa.field(name, _column(batch, name).type) for name in self.keep]
        # Fields of a schema that is not the plan's own: it says of no column that it cannot be null.
        made = [pa.field(field.name, field.type) for field in self.schema]
        return pa.Table.from_batches(list(self._parts(batch)), pa.schema([*made, *kept]))

    def map_in_arrow(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Tokenize batches one after the other, as `pyspark.sql.DataFrame.mapInArrow` asks."""
        for batch in batches:
            yield from self._parts(batch)

    def _parts(self, batch: pa.Table | pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        is_dense = not {"indices", "data"} <= set(batch.schema.names)
        n_rows = BATCH_ROWS
        if is_dense:
            n_rows = min(n_rows, max(DENSE_BYTES // (8 * len(self.genes)), 1))
        for start in range(0, batch.num_rows, n_rows):
            part = batch.slice(start, n_rows)
            rows = _rows(part, start, needed=self.seed is not None)
            chunk = _dense(part, self.genes) if is_dense else _csr(part)
            dtype = chunk.x.dtype if isinstance(chunk, DenseChunk) else chunk.data.dtype
            tokens = tokenize_chunk(self._ready, chunk, rows, _Batch(dtype))
            arrays = [*tokens.columns(self.args), *(_column(part, name) for name in self.keep)]
            yield pa.RecordBatch.from_arrays(arrays, names=[*self.schema.names, *self.keep])


@dataclass(frozen=True)
class _Batch:
    """What messages say of the cells of a batch, which have no names."""

    dtype: np.dtype[np.number]
    name: str = BATCH
    layer: str = "data"

    def cell_name(self, row: int) -> str:
        return f"row {row}"


def _bad(reason: str) -> Exception:
    return error("batch_columns", reason=reason)


def _column(batch: pa.Table | pa.RecordBatch, name: str) -> ArrowArray:
    if name not in batch.schema.names:
        raise _bad(f"there is no column {name!r}; it has {some(batch.schema.names)}")
    column = batch.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numbers(array: ArrowArray, name: str) -> NDArray[np.number]:
    if array.null_count:
        raise _bad(f"column {name!r} has missing values")
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        raise _bad(f"column {name!r} holds {array.type}")
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _rows(batch: pa.Table | pa.RecordBatch, first: int, *, needed: bool) -> NDArray[np.int64]:
    """Place the cells in their source, or, where nothing depends on it, in the batch."""
    if ROW not in batch.schema.names:
        if needed:
            raise _bad(f"random_genes depends on each cell's row in its source, which a column {ROW!r} must hold")
        return np.arange(first, first + batch.num_rows, dtype=np.int64)
    rows = _numbers(_column(batch, ROW), ROW)
    if rows.dtype.kind not in "iu" or (rows < 0).any():
        raise _bad(f"column {ROW!r} holds other than places from 0")
    return as_contiguous(rows, np.dtype(np.int64))


def _lists(batch: pa.Table | pa.RecordBatch, name: str) -> tuple[NDArray[np.int64], NDArray[np.number]]:
    column = _column(batch, name)
    if not isinstance(column, pa.ListArray | pa.LargeListArray) or column.null_count:
        raise _bad(f"column {name!r} holds {column.type}{' with missing lists' if column.null_count else ''}")
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return indptr, _numbers(column.flatten(), name)


def _csr(batch: pa.Table | pa.RecordBatch) -> CsrChunk:
    indptr, indices = _lists(batch, "indices")
    ends, data = _lists(batch, "data")
    if not np.array_equal(indptr, ends):
        raise _bad("'indices' and 'data' differ in length")
    if indices.dtype.kind not in "iu":
        raise _bad(f"column 'indices' holds {indices.dtype}")
    dtype = number_type(data.dtype, "data", BATCH)
    return CsrChunk(indptr.astype(np.int64), as_indices(indices), as_contiguous(data, dtype))


def _dense(batch: pa.Table | pa.RecordBatch, genes: list[str]) -> DenseChunk:
    columns = [_numbers(_column(batch, gene), gene) for gene in genes]
    types = {column.dtype for column in columns}
    if len(types) > 1:  # a common one might round
        raise _bad(f"its genes are of types {some(sorted(map(str, types)))}, and one is needed")
    dtype = number_type(columns[0].dtype, "data", BATCH)
    return DenseChunk(as_contiguous(np.column_stack(columns), dtype))
