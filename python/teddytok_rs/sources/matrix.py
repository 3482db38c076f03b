"""Read chunks of rows from a matrix in memory, or from one that gives its rows when sliced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors.build import error
from .protocol import CsrChunk, DenseChunk
from .validate import as_contiguous, as_indices, checked_indptr, csr_rows_within, number_type, refuse_non_integers

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array, csr_matrix, sparray, spmatrix


class RowReader:
    """Reads rows of any matrix that AnnData holds.

    Parameters
    ----------
    matrix
        A SciPy sparse matrix or array, a NumPy array, or something that gives one of these for ``matrix[a:b]``: a
        backed AnnData's matrix, an HDF5 or zarr array, a Dask array.
    layer, source
        Their names, for messages.
    """

    def __init__(self, matrix: Any, layer: str, source: str) -> None:
        from scipy import sparse

        self.layer, self.source = layer, source
        if sparse.issparse(matrix) and matrix.format != "csr":
            matrix = self._to_csr(matrix)
        if isinstance(matrix, np.ma.MaskedArray):
            raise error("matrix_type", layer=layer, source=source, got="values under a mask")
        if len(matrix.shape) != 2:
            raise error("matrix_type", layer=layer, source=source, got=f"an array of shape {tuple(matrix.shape)}")
        self.matrix = matrix
        self.shape: tuple[int, int] = (int(matrix.shape[0]), int(matrix.shape[1]))
        self.dtype = number_type(np.dtype(matrix.dtype), layer, source)
        self.indptr: NDArray[np.int64] | None = None
        if sparse.issparse(matrix):
            refuse_non_integers(matrix.indices.dtype, layer, source)
            stored = (len(matrix.indices), len(matrix.data))
            self.indptr = checked_indptr(np.asarray(matrix.indptr), self.shape[0], stored, layer, source)

    def _to_csr(self, matrix: spmatrix | sparray) -> csr_matrix | csr_array:
        try:
            if hasattr(matrix, "check_format"):
                matrix.check_format(full_check=True)  # SciPy's conversion trusts the indices it is given
            return matrix.tocsr()
        except ValueError as exc:
            raise error("matrix_malformed", layer=self.layer, source=self.source, reason=exc) from None

    def rows_within(self, start: int, n_bytes: int, bytes_per_row: int) -> int:
        """See `Source.rows_within`."""
        if self.indptr is not None:
            return csr_rows_within(self.indptr, start, n_bytes, self.dtype.itemsize + 8, bytes_per_row)
        return min(n_bytes // (self.shape[1] * self.dtype.itemsize + bytes_per_row), self.shape[0] - start)

    def sample(self, start: int, stop: int) -> NDArray[np.number]:
        """See `Source.sample`."""
        return self.read(start, stop).values

    def read(self, start: int, stop: int) -> CsrChunk | DenseChunk:
        """See `Source.read`."""
        if self.indptr is not None:
            low, high = self.indptr[start], self.indptr[stop]
            indices, data = self.matrix.indices[low:high], self.matrix.data[low:high]
            return CsrChunk(self.indptr[start : stop + 1] - low, as_indices(indices), as_contiguous(data, self.dtype))
        rows = self.matrix[start:stop]
        if hasattr(rows, "compute"):
            from dask.base import get_scheduler

            # In this thread, of which there are several, rather than in a pool of Dask's: unless the user chose one.
            rows = rows.compute(scheduler=get_scheduler() or "synchronous")
        if isinstance(rows, np.ndarray):
            return DenseChunk(as_contiguous(np.asarray(rows), self.dtype))
        return RowReader(rows, self.layer, self.source).read(0, stop - start)

    def close(self) -> None:
        """Close what it opened, which is nothing."""
