"""Check and convert the arrays of a matrix, before the kernel sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from ..errors.build import error

if TYPE_CHECKING:
    from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)


# ---- what all sources share


def number_type(dtype: np.dtype[np.generic], layer: str, source: str) -> np.dtype[np.number]:
    """Choose the type in which the kernel reads numbers of a stored type, without changing any of them."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype == np.float16:
        return np.dtype(np.float32)
    if dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize in {4, 8}):
        return cast("np.dtype[np.number]", dtype.newbyteorder("="))  # as its kind says
    raise error("matrix_type", layer=layer, source=source, got=f"values of type {dtype}")


def refuse_non_integers(dtype: np.dtype[np.generic], layer: str, source: str) -> None:
    """Refuse column indices that are no integers; a conversion would round them."""
    if dtype.kind not in "iu":
        raise error("matrix_malformed", layer=layer, source=source, reason=f"its indices are of type {dtype}")


def as_indices(indices: NDArray[np.generic]) -> NDArray[np.int32] | NDArray[np.int64]:
    """Widen column indices to one of the two types that the kernel reads."""
    narrow = indices.dtype.kind in "iu" and (indices.dtype.itemsize < 4 or indices.dtype == np.int32)
    return as_contiguous(indices, np.dtype(np.int32)) if narrow else as_contiguous(indices, np.dtype(np.int64))


def as_contiguous(array: NDArray[np.generic], dtype: np.dtype[Number]) -> NDArray[Number]:
    """Make an array contiguous, aligned and of the given type; copies only where it must."""
    return np.require(array, dtype=dtype, requirements=["C", "A"])


def checked_indptr(
    indptr: NDArray[np.integer], n_rows: int, n_stored: tuple[int, int], layer: str, source: str
) -> NDArray[np.int64]:
    """Check that ``indptr`` cuts the ``n_stored`` indices and values into rows, and widen it to int64."""
    reason = None
    if indptr.ndim != 1 or indptr.dtype.kind not in "iu":
        reason = f"indptr is a {indptr.ndim}-dimensional array of {indptr.dtype}"
    elif len(indptr) != n_rows + 1:
        reason = f"indptr has {len(indptr):,} entries for {n_rows:,} rows"
    elif n_stored[0] != n_stored[1]:
        reason = f"there are {n_stored[0]:,} indices for {n_stored[1]:,} values"
    elif indptr[0] != 0:
        reason = f"indptr starts at {indptr[0]:,}, not at 0"
    elif int(indptr[-1]) != n_stored[0]:
        reason = f"indptr ends at {indptr[-1]:,}, but {n_stored[0]:,} values are stored"
    elif (falls := np.flatnonzero(indptr[1:] < indptr[:-1])).size:
        reason = f"indptr decreases at row {falls[0]:,}"
    if reason is not None:
        raise error("matrix_malformed", layer=layer, source=source, reason=reason)
    return as_contiguous(indptr, np.dtype(np.int64))


def csr_rows_within(
    indptr: NDArray[np.int64], start: int, n_bytes: int, bytes_per_value: int, bytes_per_row: int
) -> int:
    """Count the rows from ``start`` whose values and extra bytes fit into ``n_bytes``."""
    low, high = 0, len(indptr) - 1 - start
    while low < high:  # the size grows with the row, so the last one that fits can be searched for
        middle = (low + high + 1) // 2
        size = int(indptr[start + middle] - indptr[start]) * bytes_per_value + middle * bytes_per_row
        low, high = (middle, high) if size <= n_bytes else (low, middle - 1)
    return low
