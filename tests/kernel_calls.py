"""Call the kernel with the oracle's arguments: how tests call `_core.Kernel`, and how they compare to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from teddytok_rs import _core

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Cell = tuple[list[int], NDArray[Any] | None]


def kernel(
    n_columns: int,
    tokens: Sequence[int] | NDArray[Any],
    *,
    max_seq_len: int,
    add_cls: bool = False,
    cls_token_id: int | None = None,
    add_eos: bool = False,
    eos_token_id: int | None = None,
    include_zero_genes: bool = False,
    bins: int | None = None,
    continuous_rank: bool = False,
    write_values: bool = True,
    position_of_column: NDArray[Any] | None = None,
    random_genes: bool = False,
    random_genes_count: int | None = None,
    gene_seed: int | None = None,
    batch_size: int = 512,
    normalize_total: float | None = None,
    inverse_medians: NDArray[np.float64] | None = None,
    log1p: bool = False,
    token_dtype: str = "int32",
) -> _core.Kernel:
    """Build a kernel for matrices of ``n_columns``; the keywords are those of ``oracle.tokenize_matrix``."""
    positions = np.arange(n_columns) if position_of_column is None else position_of_column
    values = "bins" if bins else "ranks" if continuous_rank else "expression"
    count = random_genes_count or max_seq_len - add_cls - add_eos
    return _core.Kernel(
        positions.astype(np.int32),
        np.asarray(tokens, dtype=np.int32),
        max_seq_len=max_seq_len,
        cls_token=cls_token_id if add_cls else None,
        eos_token=eos_token_id if add_eos else None,
        include_zero_genes=include_zero_genes,
        values=values if write_values else "none",
        n_bins=bins or 0,
        gene_seed=gene_seed if random_genes else None,
        block_rows=batch_size,
        block_genes=count,
        target_sum=normalize_total,
        inverse_medians=inverse_medians,
        log1p=log1p,
        token_dtype=token_dtype,
    )


def call(built: _core.Kernel, matrix: Any, *, first_row: int = 0) -> tuple[NDArray[Any], ...]:
    """Call a kernel on a SciPy CSR matrix, just as stored, or on a dense array: offsets, gene_ids, values, totals."""
    rows = places(matrix.shape[0], first_row)
    if not sparse.issparse(matrix):
        return built.tokenize_dense(matrix, rows=rows)
    indptr = matrix.indptr.astype(np.int64)
    return built.tokenize_csr(indptr, matrix.indices, matrix.data, rows=rows)


def places(n_rows: int, first_row: int = 0) -> NDArray[np.int64]:
    """Places in the source of rows that follow one another."""
    return np.arange(first_row, first_row + n_rows, dtype=np.int64)


def cut(buffers: tuple[NDArray[Any], ...]) -> list[Cell]:
    """Cut the kernel's buffers into cells."""
    offsets, gene_ids, values, _ = buffers
    ends = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    return [(gene_ids[a:b].tolist(), None if values is None else values[a:b]) for a, b in ends]


def tokenize(matrix: Any, tokens: Sequence[int] | NDArray[Any], *, first_row: int = 0, **arguments: Any) -> list[Cell]:
    """Build a kernel and call it: ``oracle.tokenize_matrix``, but by the package and also for CSR."""
    built = kernel(matrix.shape[1], tokens, **arguments)
    return cut(call(built, matrix, first_row=first_row))


def as_bytes(buffers: tuple[NDArray[Any], ...]) -> list[bytes]:
    """All that a call gave, as bytes."""
    return [b"" if buffer is None else buffer.tobytes() for buffer in buffers]


def assert_same(cells: list[Cell], expected: list[tuple[list[int], Any]]) -> None:
    """Compare cells with the oracle's: equal tokens, and values equal to the bit."""
    assert len(cells) == len(expected)
    for row, ((gene_ids, values), (wanted_ids, wanted_values)) in enumerate(zip(cells, expected, strict=True)):
        assert gene_ids == wanted_ids, f"row {row}"
        wanted = np.array(wanted_values, dtype=values.dtype)
        assert wanted.tolist() == list(wanted_values), f"row {row}: the values are of another type"
        assert values.tobytes() == wanted.tobytes(), f"row {row}: {values} is not {wanted}"
