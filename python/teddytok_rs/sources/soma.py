"""Read the cells of a query of a SOMA experiment, a chunk of rows at a time, with TileDB-SOMA."""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..errors import TeddytokError
from ..errors.build import error
from ..errors.text import some
from .files import closed_on_error
from .layers import AUTO, PREFIX
from .protocol import CsrChunk
from .soma_url import SomaUrl
from .validate import as_contiguous, as_indices, number_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    import pyarrow as pa
    import tiledbsoma
    from numpy.typing import NDArray
    from pandas.api.extensions import ExtensionDtype

    ArrowColumn: TypeAlias = pa.ChunkedArray[pa.Scalar[pa.DataType]]

JOINID = "soma_joinid"
#: Where tiledbsoma notes which column was the index of a data frame, and what it calls one that had no name.
INDEX_NOTE = "soma_dataframe_original_index_name"
#: Options of TileDB. Each column of a read has a buffer of this size, by default of a gigabyte; and a Ctrl-C
#: is for Python to see.
OPTIONS = {"soma.init_buffer_bytes": 16 * 2**20, "sm.enable_signal_handlers": "false"}
#: Bytes of a stored value in addition to itself while it is read: two coordinates, sorted in two steps.
READ_BYTES = 48
#: Whatever TileDB writes has in its name from when to when it was written.
WRITTEN = re.compile(r"__(\d+)_(\d+)_")


@dataclass(frozen=True)
class Arrays:
    """The arrays of an experiment that a query is about, open as they were at one time, as long as it is."""

    experiment: tiledbsoma.Experiment
    obs: tiledbsoma.DataFrame
    var: tiledbsoma.DataFrame
    x: tiledbsoma.SparseNDArray
    layers: list[str]

    def close(self) -> None:
        """Close the experiment, and with it the arrays."""
        self.experiment.close()


def open_soma(url: str, layer: str) -> SomaSource:
    """Open the query that a URL spells. See `open_source`."""
    query = SomaUrl.parse(url)
    if query.timestamp is None:  # what is written from now on is not seen, here or in another process
        query = replace(query, timestamp=int(time.time() * 1000))
    return SomaSource(query, layer)


def soma_stamp(url: str, layer: str) -> str:
    """Compute what changes whenever the arrays of a query do, without reading them.

    Of an experiment on this machine it covers name, size and time of every file; of one elsewhere how much is stored.
    """
    query = SomaUrl.parse(url)
    digest = hashlib.sha256(f"{query.measurement_name}\0{query.obs_value_filter}\0{layer}".encode())
    with _reading(url), closing(_open_arrays(query, layer)) as arrays:
        stored = [arrays.obs.count, arrays.var.count, arrays.x.nnz] if query.local is None else []
        for array in (arrays.obs, arrays.var, arrays.x):
            digest.update(f"{array.schema}\0".encode())
            if query.local is not None:
                stored += _files(Path(array.uri.removeprefix("file://")), query.timestamp)
    digest.update("\0".join(map(str, stored)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(folder: Path, timestamp: int | None) -> Iterator[str]:
    """List the files of an array that are not from after a time."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        written = [int(times[2]) for part in name.parts if (times := WRITTEN.match(part))]
        if path.is_file() and (timestamp is None or all(last <= timestamp for last in written)):
            state = path.stat()
            yield f"{name} {state.st_size} {state.st_mtime_ns}"


class SomaSource:
    """The cells that a query of a SOMA experiment selects, by ascending ``soma_joinid``. See `Source`."""

    def __init__(self, query: SomaUrl, layer: str) -> None:
        self.name, self.layer, self.path = query.name, layer, str(query)
        self.origin = self.path
        self._query, self._filter = query, query.obs_value_filter
        self.unreadable: dict[str, str] = {}
        self.warnings: list[str] = []
        self._read_rows = self._read_values = 0
        with closed_on_error(self):
            self._read_shape(layer)

    def _read_shape(self, layer: str) -> None:
        with _reading(self.path):
            arrays = self._arrays
            self.layers = arrays.layers
            self.obs_columns: list[str] = list(arrays.obs.schema.names)
            self._cells, _ = _ascending(self._read_obs()[JOINID], "obs", self)
            genes = arrays.var.read().concat()
            self._genes, order = _ascending(genes[JOINID], "var", self)
            self.var: pd.DataFrame = _frame(genes.take(order), _index_column(arrays.var, "var_id"))
            value = arrays.x.schema.field("soma_data").type
            self.dtype = number_type(np.dtype(value.to_pandas_dtype()), layer, self.name)
        if self._filter is not None and not len(self._cells):
            raise error("soma_no_cells", obs_value_filter=self._filter, source=self.name)
        self.n_cells, self.n_var = len(self._cells), len(self._genes)
        self._genes_from_0 = bool((self._genes == np.arange(self.n_var)).all())

    def obs_column(self, column: str, start: int = 0, stop: int | None = None) -> pd.Series:
        """See `Source`."""
        with _reading(self.path):
            return _series(self._in_order(column, start, stop))

    def cell_names(self, start: int = 0, stop: int | None = None) -> Sequence[str]:
        """See `Source`."""
        column = _index_column(self._arrays.obs, "obs_id")
        names = self._cells[start:stop] if column is None else self.obs_column(column, start, stop)
        return [str(name) for name in names.tolist()]

    def cell_name(self, row: int) -> str:
        """See `Source`."""
        return self.cell_names(row, row + 1)[0]

    def rows_within(self, start: int, n_bytes: int, bytes_per_row: int) -> int:
        """See `Source`; estimated from the rows read so far, as the array does not store how full a row is."""
        values = self._read_values / self._read_rows if self._read_rows else self.n_var
        each = values * (self.dtype.itemsize + READ_BYTES) + bytes_per_row
        return min(int(n_bytes // max(each, 1)), self.n_cells - start)

    def read(self, start: int, stop: int) -> CsrChunk:
        """See `Source`."""
        wanted = self._cells[start:stop]
        if not len(wanted):
            nothing = np.zeros(1, dtype=np.int64)
            return CsrChunk(nothing, nothing[:0], np.empty(0, self.dtype))
        first, last = int(wanted[0]), int(wanted[-1])
        has_gaps = last - first >= len(wanted)
        with _reading(self.path):
            # A slice, which includes its end, is searched for faster than points.
            read = self._arrays.x.read((wanted if has_gaps else slice(first, last),)).tables()
            rows, columns, values = _joined(list(read))
        rows = np.searchsorted(wanted, rows) if has_gaps else rows - first
        columns = self._columns(columns)
        # TileDB gives them in whatever order they come. By row and column, sums over a row are the same each time.
        order = np.argsort(columns.astype(np.min_scalar_type(self.n_var)), kind="stable")
        order = order[np.argsort(rows[order].astype(np.min_scalar_type(len(wanted))), kind="stable")]
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(wanted)))])
        self._read_rows, self._read_values = self._read_rows + len(wanted), self._read_values + len(values)
        return CsrChunk(
            as_contiguous(indptr, np.dtype(np.int64)),
            as_indices(columns[order]),
            as_contiguous(values[order], self.dtype),
        )

    def sample(self, start: int, stop: int) -> NDArray[np.number]:
        """See `Source`."""
        return self.read(start, stop).values

    @cached_property
    def _arrays(self) -> Arrays:
        """Open its arrays, as they were at the time of the query."""
        return _open_arrays(self._query, self.layer)

    def release(self) -> None:
        """See `Source`; TileDB keeps no files open between reads."""

    def close(self) -> None:
        """See `Source`."""
        if (arrays := self.__dict__.pop("_arrays", None)) is not None:
            arrays.close()

    def _columns(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the columns of genes by their joinids."""
        columns = genes if self._genes_from_0 else np.searchsorted(self._genes, genes)
        known = (columns >= 0) & (columns < self.n_var)
        if not self._genes_from_0:
            known[known] = self._genes[columns[known]] == genes[known]
        if not known.all():
            reason = f"it has values of gene {genes[~known][0]}, a soma_joinid that var does not have"
            raise error("matrix_malformed", layer=self.layer, source=self.name, reason=reason)
        return columns

    def _read_obs(self, *columns: str, joinids: slice | None = None) -> pa.Table:
        """Read columns of the selected cells, or of those with these joinids, in the order in which they come."""
        wanted = list(dict.fromkeys([JOINID, *columns]))
        try:
            within = () if joinids is None else (joinids,)
            obs = self._arrays.obs
            read: pa.Table = obs.read(within, value_filter=self._filter, column_names=wanted).concat()
        except Exception as exc:
            if self._filter is None:
                raise
            raise error(
                "soma_filter", obs_value_filter=self._filter, source=self.name, reason=_error_text(exc)
            ) from None
        return read

    def _in_order(self, column: str, start: int, stop: int | None) -> ArrowColumn:
        """Read a column of the selected cells ``start`` to ``stop``."""
        wanted = self._cells[start:stop]
        joinids = None
        if len(wanted) < self.n_cells and tuple(self._arrays.obs.index_column_names) == (JOINID,):
            joinids = slice(int(wanted[0]), int(wanted[-1])) if len(wanted) else slice(0, 0)
        table = self._read_obs(column, joinids=joinids)
        cells, order = _ascending(table[JOINID], "obs", self)
        if joinids is None:  # it has another index, and is read whole
            chosen = slice(start, stop)
        else:
            chosen = slice(0, len(wanted))
            cells, order = (each if len(wanted) else each[:0] for each in (cells, order))
        if not np.array_equal(cells, self._cells if joinids is None else wanted):
            raise error("source_changed", path=self.name)
        return table.take(order[chosen])[column]


def _open_arrays(query: SomaUrl, layer: str) -> Arrays:
    try:
        import tiledbsoma
    except ImportError:
        raise error("soma_extra", path=str(query)) from None
    # A context of its own: the one that tiledbsoma shares would not live on in a process that is forked.
    context = tiledbsoma.SOMATileDBContext(OPTIONS, timestamp=query.timestamp)
    experiment = tiledbsoma.open(query.place, soma_type="SOMAExperiment", context=context)
    with closed_on_error(experiment):
        return _arrays_of(experiment, query, layer)


def _arrays_of(experiment: tiledbsoma.Experiment, query: SomaUrl, layer: str) -> Arrays:
    import tiledbsoma

    if query.measurement_name not in experiment.ms:
        measurements = some(sorted(experiment.ms))
        raise error("soma_measurement", source=query.name, name=query.measurement_name, measurements=measurements)
    measurement = experiment.ms[query.measurement_name]
    stored = measurement.X if "X" in measurement else {}
    layers = [f"{PREFIX}{name}" if name == AUTO else name for name in sorted(stored)]  # X and raw mean no more here
    name = layer.removeprefix(PREFIX)
    if name not in stored:
        raise error("layer_missing", source=query.name, layer=layer, layers=some(layers), names=layers)
    x = stored[name]
    if not isinstance(x, tiledbsoma.SparseNDArray):
        raise error("soma_dense", source=query.name, layer=layer)
    return Arrays(experiment, experiment.obs, measurement.var, x, layers)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn whatever TileDB raises into one error."""
    try:
        yield
    except TeddytokError:
        raise
    except Exception as exc:
        raise error("soma_unreadable", path=path, reason=_error_text(exc)) from None


def _error_text(exc: Exception) -> str:
    """Take what an error says without the lines of Python code that tiledbsoma puts below."""
    text = str(exc).partition("\nAt:\n")[0].partition("\nInvoked with:")[0]
    return " ".join(text.split()) or type(exc).__name__


def _ascending(joinids: ArrowColumn, frame: str, source: SomaSource) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Sort joinids; gives them and their order."""
    numbers = joinids.to_numpy()
    order = np.argsort(numbers, kind="stable")
    ascending = numbers[order]
    if (ascending[1:] == ascending[:-1]).any():
        raise error("soma_unreadable", path=source.path, reason=f"{frame} has a soma_joinid twice")
    return ascending, order


def _index_column(frame: tiledbsoma.DataFrame, usual: str) -> str | None:
    """Name the column that `tiledbsoma.io.to_anndata` makes the index; None for the joinids."""
    noted = json.loads(frame.metadata.get(INDEX_NOTE, "null"))
    name = usual if noted is None else noted
    return name if name in frame.schema.names else None


def _frame(table: pa.Table, index: str | None) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame({column: _series(table[column]) for column in table.column_names})
    frame.index = pd.Index(frame[index or JOINID].astype(str).to_numpy())
    return frame


def _series(column: ArrowColumn) -> pd.Series:
    """Turn a column into what AnnData holds: categories where TileDB enumerates values."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    missing: dict[pa.DataType, ExtensionDtype] = {}
    if column.null_count:  # as floats, large integers would be rounded
        missing = dict(_nullable())
    series: pd.Series = column.to_pandas(types_mapper=missing.get)
    return series.reset_index(drop=True)


def _nullable() -> Iterator[tuple[pa.DataType, ExtensionDtype]]:
    """List Arrow's types of whole numbers and booleans, each with that of pandas that has missing values."""
    import pandas as pd
    import pyarrow as pa

    for name in ("Boolean", *(f"{sign}Int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "U"))):
        dtype = getattr(pd, f"{name}Dtype")()
        yield pa.from_numpy_dtype(dtype.numpy_dtype), dtype


def _joined(tables: list[pa.Table]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.number]]:
    """Put the parts of a read side by side: row, column and value of each entry."""
    names = ("soma_dim_0", "soma_dim_1", "soma_data")
    rows, columns, values = (np.concatenate([table[name].to_numpy() for table in tables]) for name in names)
    return rows, columns, values
