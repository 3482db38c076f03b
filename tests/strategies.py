"""Hypothesis strategies: matrices as files really hold them, and the arguments that a kernel takes.

A test draws both for the same genes, for ``log1p`` takes no value of -1 or less::

    arguments = data.draw(kernel_arguments(n_genes))
    matrix = data.draw(matrices(n_genes=n_genes, non_negative=arguments["log1p"]))
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Number = int | float
    Cell = list[tuple[int, Number]]

DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Matrix:
    """A drawn matrix. Its repr is the call that makes it again."""

    cells: list[Cell]
    """Each cell's stored (column, value) in storage order."""
    n_genes: int
    dtype: str
    index_dtype: str

    @cached_property
    def csr(self) -> csr_matrix:
        """The cells as stored, (n_cells, n_genes): unsorted, with duplicates and explicit zeros, where drawn so."""
        entries = [entry for cell in self.cells for entry in cell]
        ends = np.cumsum([0, *(len(cell) for cell in self.cells)])
        csr = csr_matrix((len(self.cells), self.n_genes), dtype=self.dtype)
        # Set one by one: the constructor would store small int64 indices as int32.
        csr.data = np.array([value for _, value in entries], dtype=self.dtype)
        csr.indices = np.array([column for column, _ in entries], dtype=self.index_dtype)
        csr.indptr = ends.astype(self.index_dtype)
        return csr

    @cached_property
    def dense(self) -> NDArray[Any]:
        """The cells as SciPy sees them, (n_cells, n_genes): duplicates summed in storage order, integers wrapping."""
        dense: NDArray[Any] = self.csr.toarray()
        return dense


def value_range(dtype: str, *, non_negative: bool = False) -> tuple[Number, Number]:
    """The least and the greatest value drawn. Those of float64 are float32's, for tokens' values are float32."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return 0 if non_negative else int(info.min), int(info.max)
    return 0.0 if non_negative else -FLOAT32_MAX, FLOAT32_MAX


def values(dtype: str, *, non_negative: bool = False) -> st.SearchStrategy[Number]:
    """One value of the dtype, finite: small, anything, or one of those that go wrong."""
    low, high = value_range(dtype, non_negative=non_negative)
    if np.issubdtype(dtype, np.integer):
        # Two neighbours each that float32, then float64, cannot tell apart.
        special: list[Number] = [low, low + 1, high - 1, high, 2**24, 2**24 + 1, 2**53, 2**53 + 1]
        small: st.SearchStrategy[Number] = st.integers(max(int(low), -2), 3)
        anything: st.SearchStrategy[Number] = st.integers(int(low), int(high))
    else:
        special = [low, high, float(np.finfo(dtype).tiny), float(np.finfo(dtype).smallest_subnormal)]
        if dtype == "float64":
            special += [1 + 2**-40, 1 + 2**-41, 1e-50, -1e-50, 2e-50]  # one float32 number, or none but 0
        small = st.sampled_from([value for value in (0.0, -0.0, 0.5, 1.0, 2.0, -0.5, -1.0) if value >= low])
        anything = st.floats(low, high, width=32 if dtype == "float32" else 64)
    return st.one_of(small, anything, st.sampled_from([value for value in special if low <= value <= high]))


def keep_in_range(cell: Cell, dtype: str, low: Number, high: Number) -> Cell:
    """Zero each entry that would take the sum of its column, added up in the dtype, out of range."""
    sums: dict[int, Number] = {}
    kept: Cell = []
    for column, value in cell:
        in_range = low <= sums.get(column, 0) + value <= high
        kept.append((column, value if in_range else 0))
        sums[column] = np.dtype(dtype).type(sums.get(column, 0) + kept[-1][1]).item()
    return kept


@st.composite
def matrices(
    draw: st.DrawFn,
    *,
    n_genes: int | None = None,
    dtypes: tuple[str, ...] = DTYPES,
    non_negative: bool = False,
    overflow: bool = False,
) -> Matrix:
    """A matrix of 0 to 6 cells and, unless ``n_genes`` is given, 1 to 12 genes.

    With ``overflow``, sums of duplicate integers may wrap, even below zero; sums of floats stay finite in any case.
    """
    n_genes = draw(st.integers(1, 12)) if n_genes is None else n_genes
    dtype = draw(st.sampled_from(dtypes))
    # All cells share a handful of values, so that ties are the rule.
    pool = draw(st.lists(values(dtype, non_negative=non_negative), min_size=1, max_size=5))
    entry = st.tuples(st.integers(0, n_genes - 1), st.sampled_from([*pool, 0]))
    as_stored = st.lists(entry, max_size=2 * n_genes)
    sorted_and_unique = as_stored.map(lambda cell: sorted(dict(cell).items()))
    cells = draw(st.lists(as_stored | sorted_and_unique, max_size=6))
    if not (overflow and np.issubdtype(dtype, np.integer)):
        low, high = value_range(dtype, non_negative=non_negative)
        cells = [keep_in_range(cell, dtype, low, high) for cell in cells]
    return Matrix(cells, n_genes, dtype, draw(st.sampled_from(["int32", "int64"])))


@st.composite
def position_tables(draw: st.DrawFn, n_columns: int, *, shared: bool = False) -> NDArray[np.int32]:
    """A position for each of ``n_columns`` columns, -1 for a dropped one; at least one is kept.

    With ``shared``, several columns may have one position. New positions always come in column order.
    """
    table: list[int] = []
    for _ in range(n_columns):
        new = max(table, default=-1) + 1
        table.append(draw(st.sampled_from([new, -1, *(range(new) if shared else ())])))
    if max(table) < 0:
        table[draw(st.integers(0, n_columns - 1))] = 0
    return np.array(table, dtype=np.int32)


@st.composite
def kernel_arguments(draw: st.DrawFn, n_genes: int) -> dict[str, Any]:
    """Keyword arguments of ``oracle.tokenize_matrix`` for a matrix of ``n_genes`` columns.

    Where ``log1p`` is drawn, the matrix must hold no negative value.
    """
    add_cls, add_eos = draw(st.booleans()), draw(st.booleans())
    mode = draw(st.sampled_from(["expression", "bins", "ranks"]))
    normalize_total = draw(st.none() | st.just(10_000.0) | st.floats(0.5, 1e6))
    # A median below 1 would take float32's largest value out of range, unless the row is normalized first.
    medians = st.sampled_from([1.0, 3.0, 7.0]) | st.floats(1.0 if normalize_total is None else 0.01, 1e3)
    inverse_medians = st.lists(medians, min_size=n_genes, max_size=n_genes).map(lambda drawn: 1 / np.array(drawn))
    return {
        "max_seq_len": draw(st.integers(max(add_cls + add_eos, 1), n_genes + 4)),
        "add_cls": add_cls,
        "cls_token_id": draw(st.integers(0, 50)) if add_cls else None,
        "add_eos": add_eos,
        "eos_token_id": draw(st.integers(0, 50)) if add_eos else None,
        "include_zero_genes": draw(st.booleans()),
        "bins": draw(st.integers(2, 8)) if mode == "bins" else None,
        "continuous_rank": mode == "ranks",
        "random_genes": draw(st.booleans()),
        "random_genes_count": draw(st.none() | st.integers(1, n_genes + 2)),
        "gene_seed": draw(st.integers(0, 2**64 - 1)),
        "batch_size": draw(st.integers(1, 4)),
        "normalize_total": normalize_total,
        "inverse_medians": draw(st.none() | inverse_medians),
        "log1p": draw(st.booleans()),
        # Far down a source, the number of a block needs its high word.
        "first_row": draw(st.integers(0, 9) | st.integers(2**34 - 9, 2**34 + 9)),
    }
