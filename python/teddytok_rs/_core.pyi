"""The border to Rust, typed: NumPy buffers in, NumPy buffers out.

All arrays must be C-contiguous, aligned and of native byte order; `sources/` sees to that. Inputs must not be written
to during a call, which runs without the interpreter lock.
"""

from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Kernel", "_panic", "build_info", "draw_genes", "unpack_chunks"]

build_info: dict[str, str]
"""version, profile ("release" or "debug") and target of the extension."""

_Arrays = tuple[NDArray[np.int32], NDArray[Any], NDArray[Any] | None, NDArray[np.float64]]
"""offsets (n_rows + 1,), gene_ids (offsets[-1],), values (offsets[-1],) or None, totals (2 * n_rows,).

Cell i's sequence is ``offsets[i]:offsets[i + 1]``. Its sum of absolute values over all columns is ``totals[2 * i]``,
over those of kept genes ``totals[2 * i + 1]``.
"""

@final
class Kernel:
    """The tokenizer of a run: frozen, shared by any number of threads.

    Parameters
    ----------
    position_of_column
        Shape (n_var,), int32: position of each column's gene, -1 where it is dropped. Columns may share one.
    token_of_position
        Shape (G,), int32.
    n_bins
        Bins, where ``values`` is ``"bins"``.
    random
        Seed, rows a block, genes a block.
    inverse_medians
        Shape (n_var,), float64.

    Raises
    ------
    KernelError
        If the arguments contradict one another.
    """

    def __new__(
        cls,
        position_of_column: NDArray[np.int32],
        token_of_position: NDArray[np.int32],
        *,
        max_seq_len: int,
        cls_token: int | None,
        include_zero_genes: bool,
        values: str,
        n_bins: int,
        random: tuple[int, int, int] | None,
        target_sum: float | None,
        inverse_medians: NDArray[np.float64] | None,
        log1p: bool,
        token_dtype: Literal["int32", "uint16", "int64"],
    ) -> Kernel: ...
    def tokenize_csr(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[Any],
        data: NDArray[Any],
        *,
        rows: NDArray[np.int64],
    ) -> _Arrays:
        """Tokenize CSR rows, in the caller's thread. Other threads may call meanwhile.

        Parameters
        ----------
        indptr, indices, data
            Shapes (n_rows + 1,), (nnz,), (nnz,); indices int32 or int64; data float32, float64 or any integer type.
        rows
            Shape (n_rows,): the place of each row in the whole source, which random subsets and errors go by.

        Raises
        ------
        KernelError
            If the matrix is malformed or a value cannot be tokenized; its args are kind, row and column.
        InternalError
            If the kernel panics.
        """

    def tokenize_dense(self, x: NDArray[Any], *, rows: NDArray[np.int64]) -> _Arrays:
        """Tokenize dense rows; ``x`` has shape (n_rows, n_var). Otherwise as `tokenize_csr`."""

def draw_genes(seed: int, block: int, n_genes: int, count: int) -> NDArray[np.uint32]:
    """Draw the positions of a block's random subset, ascending; shape (min(count, n_genes),)."""

def unpack_chunks(
    stored: NDArray[np.uint8],
    sizes: NDArray[np.int64],
    masks: NDArray[np.uint32],
    *,
    filters: list[int],
    item_bytes: int,
    out: NDArray[np.uint8],
) -> int | None:
    """Undo HDF5's filters on chunks that lie side by side in ``stored``; gives the first damaged one, if there is one.

    Parameters
    ----------
    sizes
        Stored bytes of each chunk.
    masks
        Bit ``i`` is set where the chunk did not pass ``filters[i]``.
    filters
        HDF5's numbers of the filters: 2 (shuffle) or none, then 1 (deflate), 32000 (LZF), 32015 (Zstandard) or none.
    item_bytes
        Bytes of a number.
    out
        What is filled, an equal part for each chunk.

    Raises
    ------
    KernelError
        If the arguments contradict one another.
    """

def _panic() -> None: ...
