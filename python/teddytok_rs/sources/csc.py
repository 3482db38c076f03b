"""Read the rows of a matrix that is stored by column (CSC), without holding it in memory.

Rows cannot be read from columns, so the entries are sorted into bands of rows once: two passes over the matrix, and a
temporary file as large as its entries. Each band, of bounded size, is then put in row order when it is read; threads
that read from one band wait for the one that does so.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import weakref
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..errors.build import error, system_error
from ..errors.text import size_text
from .files import RecentlyUsed
from .protocol import CsrChunk
from .validate import as_contiguous, checked_indptr, csr_rows_within, number_type, refuse_non_integers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .chunked import Sliceable

logger = logging.getLogger("teddytok_rs")

#: Entries that are read at a time.
ENTRIES = 2**20
#: Bytes of a band of rows, and its rows at most: 16-bit numbers sort several times as fast (NumPy's radix sort).
BAND_BYTES = 32 * 2**20
BAND_ROWS = 2**16
#: Bands that are kept in row order: threads that read consecutive record batches are at two or three at a time.
BANDS_KEPT = 2


class SortedFile:
    """A temporary file, which is gone as soon as nobody holds it."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="teddytok-")  # noqa: SIM115 -- closed below
        self.close = weakref.finalize(self, self.file.close)


#: Matrices that hold a temporary file. Where there are too many, the one that was not read for longest sorts again.
SORTED = RecentlyUsed()


class CscRows:
    """The rows of a CSC matrix whose ``indices`` and ``data`` can be sliced: arrays in memory, in HDF5 or in zarr.

    Parameters
    ----------
    indptr
        Shape (n_columns + 1,).
    indices, data
        Row and value of each entry; anything that gives a NumPy array when sliced.
    shape
        Rows and columns.
    layer, source
        Their names, for messages.
    """

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
        self.shape, self._layer, self._source = shape, layer, source
        self._indices, self._data = indices, data
        self.dtype = number_type(np.dtype(data.dtype), layer, source)
        refuse_non_integers(np.dtype(indices.dtype), layer, source)
        stored = (int(indices.shape[0]), int(data.shape[0]))
        self._column_ends = checked_indptr(indptr, shape[1], stored, layer, source)[1:]
        self._indptr = self._count()
        self._entry = np.dtype([("row", np.uint16), ("column", np.int32), ("value", self.dtype)])
        self._bands = self._cut()
        self._sorted_file: SortedFile | None = None
        self._lock = threading.Lock()
        self._sorted: dict[int, Future[tuple[NDArray[np.int32], NDArray[np.number]]]] = {}

    def rows_within(self, start: int, n_bytes: int, bytes_per_row: int) -> int:
        """See `Source.rows_within`."""
        return csr_rows_within(self._indptr, start, n_bytes, self.dtype.itemsize + 8, bytes_per_row)

    def read(self, start: int, stop: int) -> CsrChunk:
        """See `Source.read`."""
        with self._lock:
            file = self._sorted_file
            if file is None:
                file = self._sorted_file = self._sort_into_bands()
        SORTED.use(self)
        parts = []
        band = int(np.searchsorted(self._bands, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self._bands[band + 1]))
            columns, values = self._load(band, file)
            offset = self._indptr[self._bands[band]]
            entries = slice(self._indptr[start] - offset, self._indptr[end] - offset)
            parts.append((columns[entries], values[entries], self._indptr[start : end + 1]))
            start, band = end, band + 1
        if not parts:
            nothing = np.zeros(1, dtype=np.int64)
            return CsrChunk(nothing, nothing[:0], np.empty(0, self.dtype))
        indptr = np.concatenate([parts[0][2], *(part[2][1:] for part in parts[1:])])
        columns, values = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        return CsrChunk(indptr - indptr[0], columns, as_contiguous(values, self.dtype))

    def sample(self, start: int, stop: int) -> NDArray[np.number]:
        """See `Source.sample`: values of some columns, for which nothing is sorted."""
        low, high = (int(self._data.shape[0]) * row // max(self.shape[0], 1) for row in (start, stop))
        return as_contiguous(np.asarray(self._data[low:high]), self.dtype)

    def release(self) -> None:
        """Free the temporary space as soon as no read is in progress; the next read sorts again."""
        SORTED.drop(self)
        self._sorted_file = None

    def close(self) -> None:
        """Free the temporary space at once; the next read sorts again."""
        file = self._sorted_file
        self.release()
        if file is not None:
            file.close()

    def _entries(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Read the rows of the entries, part by part: the place of the first, and the rows."""
        n_stored = int(self._indices.shape[0])
        for first in range(0, n_stored, ENTRIES):
            rows = np.asarray(self._indices[first : first + ENTRIES]).astype(np.int64)
            if rows.min() < 0 or rows.max() >= self.shape[0]:
                reason = "a row index is negative or beyond the number of cells"
                raise error("matrix_malformed", layer=self._layer, source=self._source, reason=reason)
            yield first, rows

    def _count(self) -> NDArray[np.int64]:
        """Count the entries of each row, as the ``indptr`` of the rows."""
        counts = np.zeros(self.shape[0], dtype=np.int64)
        for _, rows in self._entries():
            counts += np.bincount(rows, minlength=self.shape[0])
        return np.concatenate([[0], np.cumsum(counts)])

    def _cut(self) -> NDArray[np.int64]:
        """Cut the rows into bands; gives the first row of each, and one past the last."""
        firsts = [0]
        while firsts[-1] < self.shape[0]:
            fitting = csr_rows_within(self._indptr, firsts[-1], BAND_BYTES, self._entry.itemsize, 0)
            firsts.append(firsts[-1] + min(max(fitting, 1), BAND_ROWS))
        return np.array(firsts, dtype=np.int64)

    def _sort_into_bands(self) -> SortedFile:
        """Write all entries to a temporary file, band after band, in the order of the columns within each."""
        n_bytes = int(self._indptr[-1]) * self._entry.itemsize
        message = "%s: layer %r is stored by column (CSC); sorting it into rows takes %s of temporary space"
        logger.warning(message, self._source, self._layer, size_text(n_bytes))
        with self._temporary_space():
            sorted_file = SortedFile()
            file = sorted_file.file
        ends = self._indptr[self._bands[:-1]] * self._entry.itemsize
        narrow = np.uint16 if len(ends) <= BAND_ROWS else np.int64
        for first, rows in self._entries():
            bands = (np.searchsorted(self._bands, rows, side="right") - 1).astype(narrow)
            order = np.argsort(bands, kind="stable")
            entries = np.empty(len(rows), dtype=self._entry)
            entries["row"] = (rows - self._bands[bands])[order]
            entries["column"] = self._columns(first, len(rows))[order]
            entries["value"] = np.asarray(self._data[first : first + len(rows)])[order]
            cuts = np.concatenate([[0], np.cumsum(np.bincount(bands, minlength=len(ends)))])
            with self._temporary_space():
                for band in np.flatnonzero(np.diff(cuts)):
                    file.seek(ends[band])
                    ends[band] += file.write(entries[cuts[band] : cuts[band + 1]].tobytes())
        with self._temporary_space():
            file.flush()
        return sorted_file

    @contextmanager
    def _temporary_space(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise system_error("no_temporary_space", exc, source=self._source, layer=self._layer) from None

    def _columns(self, first: int, n: int) -> NDArray[np.int32]:
        """Return the column of each of ``n`` entries from ``first`` on."""
        low, high = np.searchsorted(self._column_ends, [first, first + n - 1], side="right")
        ends = np.minimum(self._column_ends[low : high + 1], first + n)
        return np.repeat(np.arange(low, high + 1, dtype=np.int32), np.diff(ends, prepend=first))

    def _load(self, band: int, file: SortedFile) -> tuple[NDArray[np.int32], NDArray[np.number]]:
        """Return the columns and values of a band in row order. One thread sorts it while others wait for it."""
        with self._lock:
            there = self._sorted.get(band)
            if there is None:
                mine = self._sorted[band] = Future()
                while len(self._sorted) > BANDS_KEPT:
                    del self._sorted[next(iter(self._sorted))]  # its readers hold a reference
        if there is not None:
            return there.result()
        try:
            mine.set_result(self._in_row_order(band, file))
        except BaseException as exc:
            mine.set_exception(exc)
            with self._lock:
                self._sorted.pop(band, None)
            raise
        return mine.result()

    def _in_row_order(self, band: int, file: SortedFile) -> tuple[NDArray[np.int32], NDArray[np.number]]:
        first, last = self._indptr[self._bands[band]], self._indptr[self._bands[band + 1]]
        n_bytes = int(last - first) * self._entry.itemsize
        with self._lock:  # the file has one position
            file.file.seek(int(first) * self._entry.itemsize)
            raw = file.file.read(n_bytes)
        entries = np.frombuffer(raw, dtype=self._entry)
        order = np.argsort(np.ascontiguousarray(entries["row"]), kind="stable")
        return entries["column"][order], entries["value"][order]
