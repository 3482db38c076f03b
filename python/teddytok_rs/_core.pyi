"""Declare the compiled extension: NumPy arrays and numbers are all that crosses between Python and Rust.

All arrays must be C-contiguous, aligned and of native byte order; `sources/` makes them so. Inputs must not be written
to during a call, which runs without the GIL.
"""

from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Kernel", "MedianCounter", "build_info", "draw_genes", "unpack_chunks"]

build_info: dict[str, str]
"""Version, profile ("release" or "debug") and target of the extension."""

_Arrays = tuple[NDArray[np.int32], NDArray[np.integer], NDArray[np.number] | None, NDArray[np.float64]]
"""offsets (n_rows + 1,), gene_ids (offsets[-1],), values (offsets[-1],) or None, totals (2 * n_rows,).

Cell i's sequence is ``offsets[i]:offsets[i + 1]``. Its sum of absolute values over all columns is ``totals[2 * i]``,
over those of kept genes ``totals[2 * i + 1]``.
"""

@final
class Kernel:
    """Tokenize the cells of a run: frozen, any number of threads can share it.

    Parameters
    ----------
    position_of_column
        Shape (n_var,), int32: the position of each column's gene, -1 if it is dropped. Columns may share a position.
    token_of_position
        Shape (G,), int32: the token id of each position.
    values
        ``"expression"``, ``"bins"``, ``"ranks"`` or ``"none"``.
    n_bins
        Number of bins, if ``values`` is ``"bins"``; else ignored.
    gene_seed
        Seed of the random subsets; None if each cell uses all genes. The next two are then ignored.
    block_rows
        Rows in a block, all of which use the same random subset.
    block_genes
        Genes in a random subset.
    inverse_medians
        Shape (n_var,), float64.

    Raises
    ------
    KernelError
        If an argument is not valid or contradicts another one; its args are kind, None, None and the argument's name.
    """

    def __new__(
        cls,
        position_of_column: NDArray[np.int32],
        token_of_position: NDArray[np.int32],
        *,
        max_seq_len: int,
        cls_token: int | None,
        eos_token: int | None,
        include_zero_genes: bool,
        values: str,
        n_bins: int,
        gene_seed: int | None,
        block_rows: int,
        block_genes: int,
        target_sum: float | None,
        inverse_medians: NDArray[np.float64] | None,
        log1p: bool,
        token_dtype: Literal["int32", "uint16", "int64"],
    ) -> Kernel: ...
    def tokenize_csr(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[np.integer],
        data: NDArray[np.number],
        *,
        rows: NDArray[np.int64],
    ) -> _Arrays:
        """Tokenize CSR rows, in the caller's thread. Other threads can call at the same time.

        Parameters
        ----------
        indptr, indices, data
            Shapes (n_rows + 1,), (nnz,), (nnz,); indices int32 or int64; data float32, float64 or any integer type.
        rows
            Shape (n_rows,): the number of each row in the source, which random subsets and errors refer to.

        Raises
        ------
        KernelError
            If the matrix is malformed, a value cannot be tokenized or an argument is not valid; its args are kind,
            row, column and argument, None where one does not apply.
        InternalError
            If the kernel panics.
        """

    def tokenize_dense(self, x: NDArray[np.number], *, rows: NDArray[np.int64]) -> _Arrays:
        """Tokenize dense rows; ``x`` has shape (n_rows, n_var). All else is as in `tokenize_csr`."""

@final
class MedianCounter:
    """Find the median of each gene's nonzero values in passes over all cells. Any number of threads can share it.

    Call `count_csr` or `count_dense` for all cells, in any order, then `finish_pass`; repeat while it returns True.

    Parameters
    ----------
    n_genes
        Number of genes.
    max_bytes
        Maximum memory for counts and values. The medians do not depend on it.
    state
        What `state` returned after a pass: the next pass is the one after it.

    Raises
    ------
    KernelError
        If ``n_genes`` or ``state`` is not valid; its args are kind, None, None and the argument's name.
    """

    def __new__(cls, n_genes: int, *, max_bytes: int, state: NDArray[np.uint64] | None = None) -> MedianCounter: ...
    def count_csr(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[np.integer],
        data: NDArray[np.number],
        *,
        rows: NDArray[np.int64],
        position_of_column: NDArray[np.int32],
        gene_of_position: NDArray[np.int32],
        target_sum: float | None,
    ) -> None:
        """Count the values of CSR rows, in the caller's thread. Other threads can call at the same time.

        Parameters
        ----------
        indptr, indices, data, rows, position_of_column
            As of `Kernel`.
        gene_of_position
            Shape (G,), int32: the number of the gene of each position, from 0 to ``n_genes - 1``.
        target_sum
            Values are divided by the sum of their row's absolute values and multiplied by this first.

        Raises
        ------
        KernelError
            If the matrix is malformed, a value is NaN, infinite or negative, or an argument is not valid; its args are
            kind, row, column and argument, None where one does not apply.
        InternalError
            If the kernel panics.
        """

    def count_dense(
        self,
        x: NDArray[np.number],
        *,
        rows: NDArray[np.int64],
        position_of_column: NDArray[np.int32],
        gene_of_position: NDArray[np.int32],
        target_sum: float | None,
    ) -> None:
        """Count the values of dense rows; ``x`` has shape (n_rows, n_var). All else is as in `count_csr`."""

    def finish_pass(self) -> bool:
        """End a pass over all cells, and return whether another one is needed.

        Raises
        ------
        KernelError
            If the values were not those of the passes before; its args are kind, None, None and None.
        """

    def state(self) -> NDArray[np.uint64]:
        """Return all that is known after a pass; shape (1 + 4 * n_genes,)."""

    def medians(self) -> tuple[NDArray[np.uint64], NDArray[np.float32] | None]:
        """Return the number of values of each gene, and the medians once they are known; shape (n_genes,) each.

        The median of a gene without values is NaN.
        """

def draw_genes(gene_seed: int, block: int, n_genes: int, count: int) -> NDArray[np.uint32]:
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
    """Unpack chunks that HDF5's filters packed; return the number of the first damaged one, if there is one.

    Parameters
    ----------
    stored
        The bytes of all chunks, one after another.
    sizes
        Stored bytes of each chunk.
    masks
        Bit ``i`` is set if ``filters[i]`` was skipped for the chunk.
    filters
        HDF5's numbers of the filters: 2 (shuffle) or none, then 1 (deflate), 32000 (LZF), 32015 (Zstandard) or none.
    item_bytes
        Bytes of a number.
    out
        Filled with the unpacked bytes, an equal part for each chunk.

    Raises
    ------
    KernelError
        If an argument is not valid or contradicts another one; its args are kind, None, None and the argument's name.
    """
