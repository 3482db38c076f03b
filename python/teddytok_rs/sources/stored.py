"""An AnnData as laid out in an HDF5 file or a zarr store, in; a `Source` that reads it in chunks, out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import error, some
from . import (
    CsrChunk,
    DenseChunk,
    as_contiguous,
    as_indices,
    checked_indptr,
    csr_rows_within,
    number_type,
    refuse_non_integers,
)
from .csc import CscRows
from .matrix import RowReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


class StoredSource:
    """The cells of a file or store. See `Source`.

    Parameters
    ----------
    root
        The open ``h5py.File`` or ``zarr.Group``; both give groups, attributes and array slices the same way.
    name
        What messages call it.
    path
        Where it lies, for messages about reading it.
    layer
        Name of a layer, ``"X"`` or ``"raw"``.
    """

    def __init__(self, root: Any, name: str, path: str, layer: str) -> None:
        self.name, self.layer, self.path = name, layer, path
        self._obs = Frame(root, "obs", path)
        self.obs_columns = self._obs.columns
        self.var: pd.DataFrame = read_elem(root["raw/var" if layer == "raw" else "var"], path)
        self._matrix = open_matrix(_find_layer(root, layer, name), layer, name)
        self.n_cells, self.n_var = self._matrix.shape
        self.dtype: np.dtype[Any] = self._matrix.dtype
        for axis, n, n_names in (("obs", self.n_cells, self._obs.n_rows), ("var", self.n_var, len(self.var))):
            if n_names != n:
                reason = f"the matrix is {self.n_cells:,} x {self.n_var:,}, but {axis} has {n_names:,} rows"
                raise error("matrix_malformed", layer=layer, source=name, reason=reason)

    def obs_column(self, column: str) -> pd.Series[Any]:
        """See `Source`."""
        return self._obs.column(column)

    def cell_names(self) -> Sequence[str]:
        """See `Source`."""
        return self._obs.index()

    def cell_name(self, row: int) -> str:
        """See `Source`."""
        return self._obs.index()[row]

    def rows_within(self, start: int, n_bytes: int, bytes_per_row: int) -> int:
        """See `Source`."""
        return self._matrix.rows_within(start, n_bytes, bytes_per_row)

    def read(self, start: int, stop: int) -> CsrChunk | DenseChunk:
        """See `Source`."""
        try:
            return self._matrix.read(start, stop)
        except (OSError, RuntimeError, KeyError) as bad:
            raise unreadable(self.path, bad) from bad


class Frame:
    """A stored DataFrame, read a column at a time."""

    def __init__(self, root: Any, key: str, path: str) -> None:
        if key not in root:
            raise error("source_unreadable", path=path, reason=f"it has no {key!r}, so it is no AnnData")
        self._group, self._path = root[key], path
        self._frame: pd.DataFrame | None = None
        # Layouts older than this keep categories elsewhere or the frame in one array; anndata knows them all.
        current = dict(self._group.attrs).get("encoding-version") == "0.2.0" and "_index" in self._group.attrs
        if not current:
            self._frame = read_elem(self._group, path)
        frame = self._frame
        order = list(self._group.attrs["column-order"]) if frame is None else frame.columns
        self.columns = [str(column) for column in order]

    def column(self, column: str) -> pd.Series[Any]:
        """Read one column."""
        import pandas as pd

        if self._frame is not None:
            return self._frame[column]
        return pd.Series(read_elem(self._group[column], self._path))

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        if self._frame is not None:
            return len(self._frame)
        return int(self._group[self._group.attrs["_index"]].shape[0])

    def index(self) -> list[str]:
        """Read the row names."""
        frame = self._frame
        index = read_elem(self._group[self._group.attrs["_index"]], self._path) if frame is None else frame.index
        return [str(name) for name in index]


class StoredCsr:
    """A CSR matrix whose ``indices`` and ``data`` stay in the file."""

    def __init__(self, group: Any, shape: tuple[int, int], layer: str, source: str) -> None:
        self.shape = shape
        self._indices, self._data = group["indices"], group["data"]
        self.dtype = number_type(np.dtype(self._data.dtype), layer, source)
        refuse_non_integers(np.dtype(self._indices.dtype), layer, source)
        stored = (int(self._indices.shape[0]), int(self._data.shape[0]))
        self._indptr = checked_indptr(np.asarray(group["indptr"][...]), shape[0], stored, layer, source)

    def rows_within(self, start: int, n_bytes: int, bytes_per_row: int) -> int:
        """See `Source.rows_within`."""
        return csr_rows_within(self._indptr, start, n_bytes, self.dtype.itemsize + 8, bytes_per_row)

    def read(self, start: int, stop: int) -> CsrChunk:
        """See `Source.read`."""
        low, high = int(self._indptr[start]), int(self._indptr[stop])
        indices = as_indices(np.asarray(self._indices[low:high]))
        data = as_contiguous(np.asarray(self._data[low:high]), self.dtype)
        return CsrChunk(self._indptr[start : stop + 1] - low, indices, data)


def open_matrix(item: Any, layer: str, source: str) -> StoredCsr | CscRows | RowReader:
    """Open a stored matrix by its encoding."""
    attrs: dict[str, Any] = dict(item.attrs)
    encoding = attrs.get("encoding-type") or f"{attrs.get('h5sparse_format', 'array')}_matrix"  # anndata before 0.7
    if encoding in {"csr_matrix", "csc_matrix"}:
        shape = tuple(int(n) for n in attrs["shape" if "shape" in attrs else "h5sparse_shape"])
        if len(shape) != 2 or not {"indptr", "indices", "data"} <= set(item):
            lacks = "it lacks shape, indptr, indices or data"
            raise error("matrix_malformed", layer=layer, source=source, reason=lacks)
        if encoding == "csr_matrix":
            return StoredCsr(item, (shape[0], shape[1]), layer, source)
        indptr = np.asarray(item["indptr"][...])
        return CscRows(indptr, item["indices"], item["data"], shape=(shape[0], shape[1]), layer=layer, source=source)
    if encoding in {"array", "array_matrix"} and hasattr(item, "shape"):
        return RowReader(item, layer, source)
    raise error("matrix_type", layer=layer, source=source, got=f"an item encoded as {encoding!r}")


def layer_key(layer: str) -> str:
    """Tell where a layer lies in a file or store."""
    return {"X": "X", "raw": "raw/X"}.get(layer, f"layers/{layer}")


def _find_layer(root: Any, layer: str, source: str) -> Any:
    key = layer_key(layer)
    named = layer in {"X", "raw"} or ("layers" in root and layer in list(root["layers"]))
    if not named or key not in root:
        layers = list(root["layers"]) if "layers" in root else []
        layers += [name for name, place in (("X", "X"), ("raw", "raw/X")) if place in root]
        raise error("layer_missing", source=source, layer=layer, layers=some(layers))
    return root[key]


def read_elem(item: Any, path: str) -> Any:
    """Read a stored element with anndata, which knows every encoding it has ever written."""
    from anndata.io import read_elem

    try:
        return read_elem(item)
    except Exception as bad:
        raise unreadable(path, bad) from bad


def unreadable(path: str, bad: Exception) -> Exception:
    """Say that a file cannot be read, and why."""
    reason = " ".join(str(bad).split()) or type(bad).__name__
    return error("source_unreadable", path=path, reason=reason)
