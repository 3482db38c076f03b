"""Read an AnnData that is stored in an HDF5 file or a zarr store, in chunks of rows."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import h5py
import numpy as np

from ..errors import SourceError
from ..errors.build import error
from ..errors.text import some
from ..sharing import SharedPool
from .chunked import ChunkedArray
from .columns import StoredColumn
from .csc import CscRows
from .files import FileArray, Store, StoredFile
from .foreign import refuse_foreign
from .hdf5 import PlainArray, open_dataset
from .layers import layer_key, layer_names
from .limits import check_array, check_backed, check_name, is_group, read_elem, reading, text_attributes, unreadable
from .matrix import RowReader
from .protocol import CsrChunk, DenseChunk
from .validate import as_contiguous, as_indices, checked_indptr, csr_rows_within, number_type, refuse_non_integers
from .zarr_chunks import open_zarr_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from .chunked import Sliceable
    from .limits import StoredArray, StoredGroup, StoredItem

logger = logging.getLogger("teddytok_rs")


#: Tables of genes.
TABLES: SharedPool[pd.DataFrame] = SharedPool(lambda one, other: one.equals(other))


class StoredSource:
    """The cells of a file or store. See `Source`.

    Parameters
    ----------
    file
        The file or store; the roots of both give groups, attributes and array slices the same way.
    name
        What messages call it.
    path
        Its path, for messages about reading it.
    layer
        A name as `layers.canonical` gives it.
    """

    def __init__(self, file: StoredFile | Store, name: str, path: str, layer: str) -> None:
        # A file's name need not be text; what is written about it must.
        self.name, self.layer = name.encode(errors="replace").decode(), layer
        self.path: str = path
        self.origin: str = path
        self._file = file
        with reading(path):
            root = file.opened().root
            refuse_foreign(root, path)
            self._obs = Frame(file, "obs", path)
            self.obs_columns = self._obs.columns
            self.layers = _layers_of(root)
            if layer not in self.layers:
                raise error("layer_missing", source=name, layer=layer, layers=some(self.layers), names=self.layers)
            item = root[layer_key(layer)]
            self.var, self.unreadable = Frame(file, "raw/var" if layer == "raw" else "var", path).read()
            self.warnings = [
                f"var column {column!r} of {self.name} cannot be read and is left out: {reason}"
                for column, reason in self.unreadable.items()
            ]
            shape = (self._obs.n_rows, len(self.var))
            self._matrix = open_matrix(item, layer, name, shape, path, file=file)
        self.n_cells, self.n_var = self._matrix.shape
        self.dtype: np.dtype[np.number] = self._matrix.dtype

    def obs_column(self, column: str, start: int = 0, stop: int | None = None) -> pd.Series:
        """See `Source`."""
        return self._obs.column(column, start, stop)

    def cell_names(self, start: int = 0, stop: int | None = None) -> Sequence[str]:
        """See `Source`."""
        return self._obs.index(start, stop)

    def cell_name(self, row: int) -> str:
        """See `Source`."""
        return self._obs.index(row, row + 1)[0]

    def rows_within(self, start: int, n_bytes: int, bytes_per_row: int) -> int:
        """See `Source`."""
        return self._matrix.rows_within(start, n_bytes, bytes_per_row)

    def read(self, start: int, stop: int) -> CsrChunk | DenseChunk:
        """See `Source`."""
        with reading(self.path):
            return self._matrix.read(start, stop)

    def sample(self, start: int, stop: int) -> NDArray[np.number]:
        """See `Source`."""
        with reading(self.path):
            return self._matrix.sample(start, stop)

    def release(self) -> None:
        """See `Source`."""
        self._file.release()

    def close(self) -> None:
        """See `Source`."""
        self._file.close()
        self._matrix.close()


class Frame:
    """A stored DataFrame, read a column at a time."""

    def __init__(self, file: StoredFile | Store, key: str, path: str) -> None:
        self._file, self._key, self._path = file, key, path
        self._frame: pd.DataFrame | None = None
        self._columns: dict[str, StoredColumn] = {}
        group = self._group
        attrs = text_attributes(group)
        # Layouts older than this keep categories elsewhere or the frame in one array; anndata knows them all.
        current = is_group(group) and attrs.get("encoding-version") == "0.2.0" and "_index" in attrs
        if not current:
            self._frame = read_frame(file.opened().root, key, path)
            self.columns = [str(column) for column in self._frame.columns]
            self.n_rows = len(self._frame)
            return
        given: list[object] = np.atleast_1d(np.asarray(attrs["column-order"])).tolist()
        order = [name.decode() if isinstance(name, bytes) else name for name in given]
        self.columns = [check_name(column, path) for column in order]
        if len(set(self.columns)) < len(self.columns):
            raise unreadable(path, f"{key!r} is not a table with a name for each column")
        self._index = check_name(attrs["_index"], path)
        index = group[self._index]
        check_backed(index, path)
        #: Number of rows.
        self.n_rows = len(read_elem(index, path)) if is_group(index) else int(index.shape[0])

    @property
    def _group(self) -> StoredGroup:
        return _member(self._file.opened().root, self._key, self._path)

    def column(self, column: str, start: int = 0, stop: int | None = None) -> pd.Series:
        """Read rows ``start`` to ``stop`` of one column."""
        if self._frame is not None:
            return self._frame[column].iloc[start:stop]
        with reading(self._path):
            item = self._group[column]
            if column not in self._columns:
                named = f"{self._key} column {column!r}"
                self._columns[column] = StoredColumn(item, named, self.n_rows, self._path)
            return self._columns[column].rows(item, start, self.n_rows if stop is None else stop)

    def read(self) -> tuple[pd.DataFrame, dict[str, str]]:
        """Read all columns that can be read; and say of the others why not.

        One table is shared by all sources of equal tables, for as long as one of them is in use.
        """
        import pandas as pd

        frame, left_out = self._frame, {}
        if frame is None:
            columns = {}
            for column in self.columns:
                try:
                    columns[column] = self.column(column)
                except SourceError as exc:
                    left_out[column] = str(exc.context.get("reason", exc))
            frame = pd.DataFrame(columns, columns=list(columns), index=pd.RangeIndex(self.n_rows))
            frame.index = pd.Index(self.index(), dtype=object)
        names = frame.index
        key = (frame.shape, *frame.columns, *frame.dtypes.astype(str), *names[:1], *names[-1:])
        return TABLES.share(key, frame), left_out

    def index(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Read the names of rows ``start`` to ``stop``."""
        if self._frame is not None:
            return [str(name) for name in self._frame.index[start:stop]]
        with reading(self._path):
            item = self._group[self._index]
            names = read_elem(item, self._path)[start:stop] if is_group(item) else item[start:stop]
            return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def read_frame(root: StoredGroup, key: str, path: str) -> pd.DataFrame:
    """Read a stored DataFrame, whole."""
    import pandas as pd

    frame = read_elem(_member(root, key, path), path)
    if not isinstance(frame, pd.DataFrame) or not frame.columns.is_unique:
        raise unreadable(path, f"{key!r} is not a table with a name for each column")
    return frame


def _member(root: StoredGroup, key: str, path: str) -> StoredItem:
    if key not in root:
        held = some(sorted(root)) if len(root) else "nothing"
        raise unreadable(path, f"it has no {key!r}, so it is not an AnnData; it holds {held}")
    return root[key]


class StoredCsr:
    """A CSR matrix whose ``indices`` and ``data`` stay in the file."""

    def __init__(
        self,
        indptr: NDArray[np.integer],
        indices: Sliceable,
        data: Sliceable,
        *,
        shape: tuple[int, int],
        layer: str,
        source: str,
    ) -> None:
        self.shape = shape
        self._indices, self._data = indices, data
        self.dtype = number_type(np.dtype(self._data.dtype), layer, source)
        refuse_non_integers(np.dtype(self._indices.dtype), layer, source)
        stored = (int(self._indices.shape[0]), int(self._data.shape[0]))
        self._indptr = checked_indptr(indptr, shape[0], stored, layer, source)

    def rows_within(self, start: int, n_bytes: int, bytes_per_row: int) -> int:
        """See `Source.rows_within`."""
        return csr_rows_within(self._indptr, start, n_bytes, self.dtype.itemsize + 8, bytes_per_row)

    def sample(self, start: int, stop: int) -> NDArray[np.number]:
        """See `Source.sample`."""
        return self.read(start, stop).values

    def read(self, start: int, stop: int) -> CsrChunk:
        """See `Source.read`."""
        low, high = int(self._indptr[start]), int(self._indptr[stop])
        indices = as_indices(np.asarray(self._indices[low:high]))
        data = as_contiguous(np.asarray(self._data[low:high]), self.dtype)
        return CsrChunk(self._indptr[start : stop + 1] - low, indices, data)

    def close(self) -> None:
        """Close what it opened, which is nothing."""


def open_matrix(
    item: StoredItem,
    layer: str,
    source: str,
    shape: tuple[int, int],
    path: str,
    *,
    file: StoredFile | Store | None = None,
) -> StoredCsr | CscRows | RowReader:
    """Open a stored matrix by its encoding.

    ``shape`` is that of the cells and genes it must fit, ``file`` where it is, if that may be closed between reads.
    """
    attrs = text_attributes(item)
    encoding = attrs.get("encoding-type") or f"{attrs.get('h5sparse_format', 'array')}_matrix"  # anndata before 0.7
    if encoding in {"csr_matrix", "csc_matrix"} and is_group(item):
        declared = attrs.get("shape", attrs.get("h5sparse_shape"))
        parts = {name: item[name] for name in ("indptr", "indices", "data") if name in item}
        if declared is None or len(parts) < 3:
            lacks = "it lacks shape, indptr, indices or data"
            raise error("matrix_malformed", layer=layer, source=source, reason=lacks)
        _check_shape(declared, shape, layer, source)
        for name, part in parts.items():
            if is_group(part) or part.shape is None or len(part.shape) != 1:
                what = "no array" if is_group(part) else f"a {len(part.shape or ())}-dimensional array"
                raise error("matrix_malformed", layer=layer, source=source, reason=f"{name} is {what}")
            check_array(part, path)
        indptr = np.asarray(parts["indptr"][...])
        indices, data = (_open_array(parts[name], file) for name in ("indices", "data"))
        if not isinstance(indices, ChunkedArray | PlainArray) and indices.shape[0]:
            reader = "HDF5" if isinstance(parts["indices"], h5py.Dataset) else "zarr"
            logger.info(
                "%s: layer %r is stored in a way that %s alone reads, a thread at a time", source, layer, reader
            )
        matrix = StoredCsr if encoding == "csr_matrix" else CscRows
        return matrix(indptr, indices, data, shape=shape, layer=layer, source=source)
    if encoding in {"array", "array_matrix"} and not is_group(item) and item.shape is not None:
        check_array(item, path, gaps=not isinstance(item, h5py.Dataset))
        if len(item.shape) == 2:
            _check_shape(item.shape, shape, layer, source)
        if isinstance(item, h5py.Dataset) and isinstance(file, StoredFile):
            item = FileArray(file, item)
        return RowReader(item, layer, source)
    raise error("matrix_type", layer=layer, source=source, got=f"an item encoded as {encoding!r}")


def _open_array(item: StoredArray, file: StoredFile | Store | None) -> Sliceable:
    """Open an array so that many threads can slice it at a time, where that is possible."""
    if not isinstance(item, h5py.Dataset):
        return open_zarr_array(item)
    stored = file if isinstance(file, StoredFile) else None
    array = open_dataset(item, stored)
    return FileArray(stored, item) if array is item and stored is not None else array


def _check_shape(declared: object, shape: tuple[int, int], layer: str, source: str) -> None:
    """Refuse a matrix of another shape than its cells and genes, before anything is made of that shape."""
    try:
        numbers = list(declared) if isinstance(declared, Iterable) else []
        is_shape = len(numbers) == 2 and all(n == int(n) for n in numbers)
    except (TypeError, ValueError, OverflowError):
        is_shape = False
    if not is_shape:
        reason = f"its shape is {declared!r}, not rows and columns"
        raise error("matrix_malformed", layer=layer, source=source, reason=reason)
    n_rows, n_columns = (int(n) for n in numbers)
    if (n_rows, n_columns) != shape:
        names = f"obs has {shape[0]:,} rows and var has {shape[1]:,} rows"
        reason = f"the matrix is {n_rows:,} x {n_columns:,}, but {names}"
        raise error("matrix_malformed", layer=layer, source=source, reason=reason)


def _is_none(item: StoredItem) -> bool:
    """Return whether an item means None, as anndata 0.12.0 and 0.12.1 write it if there is no X."""
    return bool(text_attributes(item).get("encoding-type") == "null")


def _layers_of(root: StoredGroup) -> list[str]:
    """List the layers that a file or store holds."""
    names = list(root["layers"]) if "layers" in root and is_group(root["layers"]) else []
    return layer_names(names, has_x=_holds(root, "X"), has_raw=_holds(root, "raw/X"))


def _holds(root: StoredGroup, key: str) -> bool:
    if key not in root:
        return False
    try:
        return not _is_none(root[key])
    except (KeyError, OSError):  # a link that leads nowhere: refused if it is the layer that is read
        return True
