"""Arrow batches of counts in, Arrow batches of token sequences out: for Spark's ``mapInArrow`` and Ray's ``map_batches``.

A batch does not know what source it is of: it holds the counts, and the genes are told beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..args import TokenizationArgs
from ..messages import error, some
from ..sources import (
    CsrChunk,
    DenseChunk,
    as_contiguous,
    as_indices,
    checked_indptr,
    number_type,
    refuse_non_integers,
)
from ..tokenizer import BATCH_ROWS, MOST_TOKENS, Plan, plan, tokenize_chunk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["ArrowTokenizer"]

#: Column of each cell's place in the source.
ROW = "row"
#: Arguments that ask for columns of `obs`.
OF_OBS = ("cell_filter", "label_column", "add_disease_annotation", "bio_annotations", "obs_columns")
#: Bytes of a dense matrix at a time.
DENSE_BYTES = 2**26


class ArrowTokenizer:
    """Tokenizes record batches whose rows are cells, with the tokens that `tokenize` gives the same cells.

    A batch has its counts in two list columns, ``indices`` (integers, the place of a gene in ``genes``) and ``data``
    (numbers), or else in a column for each gene, called by its id, all of one number type. It pickles; a worker reads
    the vocabulary from the same path again.

    Parameters
    ----------
    args
        A `TokenizationArgs` or a dict of its fields. Where values lie (``layer``) does not matter here.
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
    >>> tokenizer = ArrowTokenizer(demo.args(), ["CD3E", "NKG7", "LYZ"])
    >>> batch = pyarrow.table({"indices": [[0, 2], [1]], "data": [[1.0, 3.0], [2.0]], "cell": ["a", "b"]})
    >>> tokenizer(batch)["values"].to_pylist()
    [[3.0, 1.0], [2.0]]
    """

    def __init__(
        self, args: TokenizationArgs | Mapping[str, Any], genes: Sequence[str], *, keep: Sequence[str] = ()
    ) -> None:
        args = TokenizationArgs.load(args)
        if asked := [key for key in OF_OBS if getattr(args, key)]:
            problem = f"{asked[0]} is set, but a batch of counts has no obs"
            raise error("config_conflict", where="", problem=problem, advice="Drop it, and pass columns on with keep")
        places = {
            key: str(Path(place).absolute())  # a worker may stand in another folder
            for key, place in [("tokenizer_name_or_path", args.tokenizer_name_or_path), ("median_dict", args.median_dict)]
            if place is not None and Path(place).exists()  # or it is a name on the Hugging Face Hub
        }
        self.args, self.genes, self.keep = args.model_copy(update=places), list(genes), tuple(keep)
        self.seed: int | None = None
        self.seed = self._ready.seed
        if twice := [name for name in self.keep if name in self.schema.names]:
            problem = f"keep names {twice[0]!r}, which is an output column"
            raise error("config_conflict", where="", problem=problem, advice="Rename the column first")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_ready"}

    @cached_property
    def _ready(self) -> Plan:
        """Plan once in each process, for no cells of these genes."""
        import pandas as pd
        from anndata import AnnData
        from scipy import sparse

        # As a column, for an index of genes that are not unique is something that anndata warns of.
        var = pd.DataFrame({"genes": self.genes}, index=[str(column) for column in range(len(self.genes))])
        nothing = AnnData(sparse.csr_matrix((0, len(self.genes)), dtype=np.float32), var=var)
        args = self.args.model_copy(update={"gene_id_column": "genes", "layer": "X"})
        return plan(nothing, args, seed=self.seed)

    @property
    def schema(self) -> pa.Schema:
        """Columns that are made: ``gene_ids``, and ``values`` if they are written."""
        return self._ready.schema.remove_metadata()

    def __call__(self, batch: pa.Table | pa.RecordBatch) -> pa.Table:
        """Tokenize a batch, as `ray.data.Dataset.map_batches` asks with ``batch_format="pyarrow"``."""
        schema = pa.schema([*self.schema, *(_field(batch, name) for name in self.keep)])
        return pa.Table.from_batches(self._parts(batch), schema)

    def map_in_arrow(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Tokenize batches one after the other, as `pyspark.sql.DataFrame.mapInArrow` asks."""
        for batch in batches:
            yield from self._parts(batch)

    def _parts(self, batch: pa.Table | pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        most_tokens = min(self.args.max_seq_len, len(self.genes) + 1)
        most = min(BATCH_ROWS, max(MOST_TOKENS // most_tokens, 1))
        is_dense = not {"indices", "data"} <= set(batch.schema.names)
        if is_dense:
            most = min(most, max(DENSE_BYTES // (8 * max(len(self.genes), 1)), 1))
        first = 0
        for start in range(0, batch.num_rows, most):
            part = batch.slice(start, most)
            rows = _rows(part, start, needed=self.seed is not None)
            matrix, dtype = self._dense(part) if is_dense else self._csr(part)
            ready = replace(self._ready, source=_Batch(dtype, first, rows))
            tokens = tokenize_chunk(ready, matrix, rows)
            ends = pa.array(tokens.offsets)
            arrays = [pa.ListArray.from_arrays(ends, pa.array(tokens.gene_ids))]
            if tokens.values is not None:
                arrays.append(pa.ListArray.from_arrays(ends, pa.array(tokens.values)))
            arrays += [_column(part, name) for name in self.keep]
            yield pa.RecordBatch.from_arrays(arrays, [*self.schema.names, *self.keep])
