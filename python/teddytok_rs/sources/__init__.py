"""An AnnData or a path in, a `Source` out: cells and genes to ask for, rows of the matrix to read in chunks."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..messages import error
from ..pipeline import in_order
from .soma_url import is_soma

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray


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
    indices: NDArray[Any]
    data: NDArray[Any]

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

    x: NDArray[Any]

    def take(self, rows: NDArray[np.int64]) -> DenseChunk:
        """Keep some of the rows, counted from the first, ascending."""
        return self if len(rows) == len(self.x) else DenseChunk(self.x[rows])


class Source(Protocol):
    """Where cells come from.

    Attributes
    ----------
    name
        What messages call it: a file name, or ``"AnnData"``.
    layer
        Where its values lie.
    n_cells, n_var
        Shape of the matrix.
    var
        One row a gene.
    obs_columns
        Names of the obs columns.
    dtype
        Number type of the values.
    """

    name: str
    layer: str
    n_cells: int
    var: pd.DataFrame
    obs_columns: list[str]
    dtype: np.dtype[Any]

    @property
    def path(self) -> str | None:
        """Where it lies; None in memory."""
        ...

    @property
    def n_var(self) -> int:
        """Number of genes."""
        ...

    def obs_column(self, column: str) -> pd.Series[Any]:
        """Read one obs column, for all cells."""
        ...

    def cell_names(self, start: int = 0, stop: int | None = None) -> Sequence[str]:
        """Read the names of cells ``start`` to ``stop``."""
        ...

    def cell_name(self, row: int) -> str:
        """Name one cell."""
        ...

    def rows_within(self, start: int, n_bytes: int, bytes_per_row: int) -> int:
        """Count the rows from ``start`` that take up ``n_bytes`` at most, each with ``bytes_per_row`` on top."""
        ...

    def read(self, start: int, stop: int) -> CsrChunk | DenseChunk:
        """Read rows ``start`` to ``stop``."""
        ...


def open_source(source: Any, layer: str) -> Source:
    """Open a source.

    Parameters
    ----------
    source
        An AnnData (in memory or backed), the path of an ``.h5ad`` file or a ``.zarr`` store, or the ``soma://`` URL of
        a SOMA query.
    layer
        Name of a layer, ``"X"`` or ``"raw"``.

    Raises
    ------
    ConfigError
        If it is a ``soma://`` URL that is not well spelt, or its filter cannot be used.
    SourceError
        If it is neither, does not exist, or cannot be read.
    DataError
        If it has no such layer, or the layer holds something else than a matrix of numbers.
    """
    if isinstance(source, str) and is_soma(source):
        from .soma import open_soma

        return open_soma(source, layer)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            exists, is_folder = path.exists(), path.is_dir()
        except OSError as bad:  # a name longer than any, a folder that may not be read
            raise error("source_unreadable", path=str(path), reason=(bad.strerror or str(bad)).lower()) from None
        if not exists:
            raise error("source_not_found", path=str(path))
        if is_folder:
            from .zarr import open_zarr

            return open_zarr(path, layer)
        from .h5ad import open_h5ad

        return open_h5ad(path, layer)

    from anndata import AnnData

    if isinstance(source, AnnData):
        from .memory import AnnDataSource

        return AnnDataSource(source, layer)
    raise error("source_type", got=f"a {type(source).__name__}")


def fingerprint(source: Source) -> str:
    """Compute a checksum that tells one source from another without reading it whole.

    It covers the shape, the number type, all names of cells and genes, and the values of up to 64 rows spread evenly
    over the source; not where the source lies or how it is stored.
    """
    digest = hashlib.sha256(f"{source.n_cells} {source.n_var} {source.dtype.str}".encode())
    for names in chain(_parts_of_names(source), [map(str, source.var.index)]):
        digest.update("\0".join(names).encode(errors="surrogatepass"))
    for row in sorted({int(row) for row in np.linspace(0, source.n_cells - 1, 64)} if source.n_cells else ()):
        chunk = source.read(row, row + 1)
        if isinstance(chunk, DenseChunk):
            columns = np.flatnonzero(chunk.x[0])
            values = chunk.x[0, columns]
        else:
            order = np.argsort(chunk.indices, kind="stable")
            columns, values = chunk.indices[order], chunk.data[order]
            columns, values = columns[values != 0], values[values != 0]
        digest.update(columns.astype("<i8").tobytes())
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def stamp(source: Source, threads: int = 1) -> str:
    """Compute what changes whenever the source is changed: of a file its size and time, in memory all its values.

    Unlike `fingerprint` it also changes where a file is merely copied or touched.
    """
    if source.path is None:
        return _stamp_of_values(source, threads)
    return stamp_of_path(source.path, source.layer)


def stamp_of_path(path: str, layer: str) -> str:
    """Compute the `stamp` of a file or store, or of what a SOMA query reads."""
    if is_soma(path):
        from .soma import soma_stamp

        return soma_stamp(path, layer)
    return _stamp_of_files(Path(path))


def _stamp_of_files(path: Path) -> str:
    digest = hashlib.sha256()
    # Whatever its path is from where this process stands.
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        state = file.stat()
        name = file.relative_to(path)
        digest.update(f"{name} {state.st_size} {state.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _stamp_of_values(source: Source, threads: int) -> str:
    def spans() -> Iterator[tuple[int, int]]:
        start = 0
        while start < source.n_cells:
            stop = min(start + max(source.rows_within(start, 2**24, 0), 1), source.n_cells)
            yield start, stop
            start = stop

    def digest_of(rows: tuple[int, int]) -> bytes:
        chunk = source.read(*rows)
        arrays = (chunk.x,) if isinstance(chunk, DenseChunk) else (chunk.indptr, chunk.indices, chunk.data)
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(array.data)
        return digest.digest()

    beside = threads if threads > 1 else 0
    digests = in_order(digest_of, spans(), threads=beside, window=threads + 1)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _parts_of_names(source: Source) -> Iterator[Sequence[str]]:
    """Read the cell names in parts, so that they are not all in memory."""
    part = 10_000
    for start in range(0, source.n_cells, part):
        yield source.cell_names(start, start + part)


# ---- what all sources share


def number_type(dtype: np.dtype[Any], layer: str, source: str) -> np.dtype[Any]:
    """Choose the type in which the kernel reads numbers of a stored type, without changing any of them."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype == np.float16:
        return np.dtype(np.float32)
    if dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize in {4, 8}):
        return dtype.newbyteorder("=")
    raise error("matrix_type", layer=layer, source=source, got=f"values of type {dtype}")


def refuse_non_integers(dtype: np.dtype[Any], layer: str, source: str) -> None:
    """Refuse column indices that are no integers; a conversion would round them."""
    if dtype.kind not in "iu":
        raise error("matrix_malformed", layer=layer, source=source, reason=f"its indices are of type {dtype}")


def as_indices(indices: NDArray[Any]) -> NDArray[Any]:
    """Widen column indices to one of the two types that the kernel reads."""
    narrow = indices.dtype.kind in "iu" and (indices.dtype.itemsize < 4 or indices.dtype == np.int32)
    return as_contiguous(indices, np.dtype(np.int32) if narrow else np.dtype(np.int64))


def as_contiguous(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Make an array contiguous, aligned and of the given type; copies only where it must."""
    return np.require(array, dtype=dtype, requirements=["C", "A"])


def checked_indptr(
    indptr: NDArray[Any], n_rows: int, n_stored: tuple[int, int], layer: str, source: str
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
