"""Define what a source is, and the chunks of rows it is read in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray


class AnnDataLike(Protocol):
    """What identifies an `AnnData` to a type checker: anndata has no type marker, so its class would match anything."""

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        ...

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        ...

    @property
    def obs_names(self) -> pd.Index[str]:
        """Names of the cells."""
        ...

    @property
    def var_names(self) -> pd.Index[str]:
        """Names of the genes."""
        ...


#: What users give as a source: an AnnData, a path of an ``.h5ad`` file or a ``.zarr`` store, or a ``soma://`` URL.
SourceLike: TypeAlias = "AnnDataLike | str | os.PathLike[str]"


@dataclass(frozen=True)
class CsrChunk:
    """Some consecutive rows, as the kernel takes them: contiguous, aligned, native byte order.

    Attributes
    ----------
    indptr
        Shape (n_rows + 1,), int64, from 0.
    indices
        Column of each stored value, int32 or int64; not checked here.
    data
        The stored values; float32, float64 or an integer type.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.integer]
    data: NDArray[np.number]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @property
    def values(self) -> NDArray[np.number]:
        """The stored values, shape (n,)."""
        return self.data

    def take(self, rows: NDArray[np.int64]) -> CsrChunk:
        """Keep some of the rows, counted from the first, ascending."""
        if len(rows) == len(self.indptr) - 1:
            return self
        lengths = np.diff(self.indptr)
        kept = np.zeros(len(lengths), dtype=bool)
        kept[rows] = True
        stored = np.repeat(kept, lengths)
        indptr = np.concatenate([[0], np.cumsum(lengths[rows])]).astype(np.int64)
        return CsrChunk(indptr, self.indices[stored], self.data[stored])


@dataclass(frozen=True)
class DenseChunk:
    """Some consecutive rows, dense.

    Attributes
    ----------
    x
        Shape (n_rows, n_var), C order; float32, float64 or an integer type.
    """

    x: NDArray[np.number]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.x)

    @property
    def values(self) -> NDArray[np.number]:
        """All values, shape (n,)."""
        return self.x.reshape(-1)

    def take(self, rows: NDArray[np.int64]) -> DenseChunk:
        """Keep some of the rows, counted from the first, ascending."""
        return self if len(rows) == len(self.x) else DenseChunk(self.x[rows])


class NamedCells(Protocol):
    """What messages call some cells, and where their values are."""

    @property
    def name(self) -> str:
        """What messages call the source: a file name, or ``"AnnData"``."""
        ...

    @property
    def layer(self) -> str:
        """Where its values are."""
        ...

    @property
    def dtype(self) -> np.dtype[np.number]:
        """Number type of the values."""
        ...

    def cell_name(self, row: int) -> str:
        """Name one cell."""
        ...


class Source(NamedCells, Protocol):
    """Where cells come from.

    Attributes
    ----------
    layers
        Names of all layers that it has.
    n_cells, n_var
        Shape of the matrix.
    var
        One row per gene.
    obs_columns
        Names of the obs columns.
    unreadable
        Columns that ``var`` lacks since they cannot be read, and why.
    warnings
        What may be unintended about the source, a sentence each.
    """

    layers: list[str]
    n_cells: int
    var: pd.DataFrame
    obs_columns: list[str]
    unreadable: dict[str, str]
    warnings: list[str]

    @property
    def origin(self) -> SourceLike:
        """What it was opened from."""
        ...

    @property
    def path(self) -> str | None:
        """Its path or URL; None in memory."""
        ...

    @property
    def n_var(self) -> int:
        """Number of genes."""
        ...

    def obs_column(self, column: str, start: int = 0, stop: int | None = None) -> pd.Series:
        """Read rows ``start`` to ``stop`` of one obs column: of one type, and of one set of categories."""
        ...

    def cell_names(self, start: int = 0, stop: int | None = None) -> Sequence[str]:
        """Read the names of cells ``start`` to ``stop``."""
        ...

    def rows_within(self, start: int, n_bytes: int, bytes_per_row: int) -> int:
        """Count the rows from ``start`` that take up ``n_bytes`` at most, each with ``bytes_per_row`` on top."""
        ...

    def read(self, start: int, stop: int) -> CsrChunk | DenseChunk:
        """Read rows ``start`` to ``stop``."""
        ...

    def sample(self, start: int, stop: int) -> NDArray[np.number]:
        """Read the values of rows ``start`` to ``stop``, or as many others where single rows take long to read."""
        ...

    def release(self) -> None:
        """Close its files as soon as no read is in progress; the next read opens them again."""
        ...

    def close(self) -> None:
        """Close its files at once, and free temporary space; the next read makes both again."""
        ...
