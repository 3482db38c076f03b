"""A one-dimensional HDF5 dataset in, something that reads slices of it without HDF5 out.

HDF5 lets one thread of the process in at a time, and unpacks every chunk with zlib inside. It is asked once where the
chunks lie; from then on their bytes are read from the file by any number of threads, and unpacked in Rust. Whatever
is not as plain as nearly all files are is left to HDF5.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from .. import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: HDF5's numbers of the filters that are undone here: a shuffle, and compressors of which one may follow it.
SHUFFLE, COMPRESSORS = h5py.h5z.FILTER_SHUFFLE, {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF, 32015}  # Zstandard
#: Bytes that are unpacked in one go: what is stored for them stays in a core's cache.
UNPACK_BYTES = 2**20
#: Bytes of chunks that are kept unpacked because only a part was asked for, and the rest will be; one is always kept.
KEPT_BYTES = 16 * 2**20


def open_array(dataset: Any) -> Any:
    """Give a dataset as an array that can be sliced by many threads at a time; itself where only HDF5 can read it."""
    if not isinstance(dataset, h5py.Dataset) or not hasattr(os, "preadv"):  # Windows lacks it
        return dataset
    dtype, file, plist = dataset.dtype, dataset.file, dataset.id.get_create_plist()
    filters = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    numbers = [number for number, *_ in filters]
    shuffled = numbers[:1] == [SHUFFLE]
    plain = (
        len(dataset.shape) == 1
        and dataset.shape[0] > 0
        and file.driver == "sec2"
        and file.mode == "r"  # whoever writes may have chunks in memory that the file does not hold yet
        and file.userblock_size == 0  # whether places count from its end hangs on HDF5's version
        and dtype.kind in "iuf"
        and dtype.isnative
        and dataset.id.get_type() == h5py.h5t.py_create(dtype)
        and not dataset.external
        and (not shuffled or filters[0][2][0] == dtype.itemsize)
        and (len(numbers) == shuffled or (len(numbers) == shuffled + 1 and numbers[-1] in COMPRESSORS))
    )
    places = _places(dataset) if plain else None
    return dataset if places is None else ChunkedArray(dataset, numbers, *places)


def _places(dataset: Any) -> tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]] | None:
    """Find the chunks: items of each, where each starts, its stored bytes, its mask of filters left out.

    None if that is not what a whole file says: HDF5 has the words for it.
    """
    n, item_bytes = dataset.shape[0], dataset.dtype.itemsize
    layout = dataset.id.get_create_plist().get_layout()
    if layout == h5py.h5d.CONTIGUOUS:
        found = [(0, dataset.id.get_offset(), dataset.id.get_storage_size(), 0)]
        items = n
    elif layout == h5py.h5d.CHUNKED and hasattr(dataset.id, "chunk_iter"):
        found = []
        dataset.id.chunk_iter(lambda at: found.append((at.chunk_offset[0], at.byte_offset, at.size, at.filter_mask)))
        items = dataset.chunks[0]
    else:
        return None
    n_chunks = -(-n // items)
    if len(found) != n_chunks or found[0][1] is None:
        return None
    firsts, starts, sizes, masks = np.ascontiguousarray(np.array(sorted(found), dtype=np.int64).T)
    whole = np.array_equal(firsts, np.arange(n_chunks) * items) and sizes.min() >= 0
    if layout == h5py.h5d.CONTIGUOUS or dataset.id.get_create_plist().get_nfilters() == 0:
        whole = whole and bool((sizes == items * item_bytes).all())
    elif n % items and sizes[-1] == items * item_bytes and masks[-1] == 0:
        return None  # HDF5 can be told to store a last chunk in part without its filters, and does not mark it
    if not whole or (starts > os.fstat(dataset.file.id.get_vfd_handle()).st_size - sizes).any():
        return None
    return items, starts, sizes, masks.astype(np.uint32)


class ChunkedArray:
    """A one-dimensional array in a file, of which slices can be read.

    Parameters
    ----------
    dataset
        The dataset, of a file that is open for reading only.
    filters
        Numbers of the filters its chunks have passed.
    items
        Items of a chunk; the last chunk may reach beyond the end of the array.
    starts, sizes, masks
        Of each chunk: where in the file it starts, its stored bytes, and which of the filters it did not pass.
    """

    def __init__(
        self,
        dataset: Any,
        filters: list[int],
        items: int,
        starts: NDArray[np.int64],
        sizes: NDArray[np.int64],
        masks: NDArray[np.uint32],
    ) -> None:
        self.shape: tuple[int] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self._name, self._filters, self._items = dataset.name, filters, items
        self._starts, self._sizes, self._masks = starts, sizes, masks
        # Our own handle: if the file were closed, the number of HDF5's could come to stand for another file.
        self._handle = os.dup(dataset.file.id.get_vfd_handle())
        weakref.finalize(self, os.close, self._handle)
        self._kept: OrderedDict[int, Future[NDArray[Any]]] = OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __getitem__(self, items: slice) -> NDArray[Any]:
        """Read a slice without a step."""
        low, high, _ = items.indices(self.shape[0])
        out = np.empty(max(high - low, 0), dtype=self.dtype)
        if not len(out):
            return out
        first, last = low // self._items, (high - 1) // self._items
        if not self._filters:
            starts = self._starts[first : last + 1].copy()
            ends = starts + self._items * self.dtype.itemsize
            starts[0] += (low - first * self._items) * self.dtype.itemsize
            ends[-1] -= ((last + 1) * self._items - high) * self.dtype.itemsize
            self._read(starts, ends - starts, out)
            return out
        chunk, end = first, last + 1
        at_a_time = max(UNPACK_BYTES // (self._items * self.dtype.itemsize), 1)
        while chunk < end:
            start = chunk * self._items
            if start < low or start + self._items > high:
                part = slice(max(low - start, 0), min(high - start, self._items))
                out[start + part.start - low : start + part.stop - low] = self._whole(chunk)[part]
                chunk += 1
            else:
                n = min(at_a_time, high // self._items - chunk)
                self._unpack(chunk, n, out[start - low : start - low + n * self._items])
                chunk += n
        return out

    def _whole(self, chunk: int) -> NDArray[Any]:
        """Get a chunk of which a part is needed, and keep it: its other parts are next, in this thread or another."""
        with self._lock:
            if self._process != os.getpid():  # forked: the threads that would have finished these are not here
                self._process, self._kept = os.getpid(), OrderedDict()
            kept = self._kept.get(chunk)
            mine: Future[NDArray[Any]] = Future()
            if kept is None:
                self._kept[chunk] = mine
                while len(self._kept) * self._items * self.dtype.itemsize > KEPT_BYTES and len(self._kept) > 1:
                    self._kept.popitem(last=False)
        if kept is not None:
            return kept.result()
        try:
            out = np.empty(self._items, dtype=self.dtype)
            self._unpack(chunk, 1, out)
            mine.set_result(out)
        except BaseException as bad:
            with self._lock:
                self._kept.pop(chunk, None)
            mine.set_exception(bad)
            raise
        return out

    def _unpack(self, first: int, n: int, out: NDArray[Any]) -> None:
        """Read and unpack whole chunks."""
        chunks = slice(first, first + n)
        stored = np.empty(int(self._sizes[chunks].sum()), dtype=np.uint8)
        self._read(self._starts[chunks], self._sizes[chunks], stored)
        damaged = _core.unpack_chunks(
            stored,
            self._sizes[chunks],
            self._masks[chunks],
            filters=self._filters,
            item_bytes=self.dtype.itemsize,
            out=out.view(np.uint8),
        )
        if damaged is not None:
            msg = f"chunk {first + damaged:,} of the {len(self._starts):,} of {self._name!r} is damaged"
            raise OSError(msg)

    def _read(self, starts: NDArray[np.int64], sizes: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read pieces of the file side by side; those that are neighbours in the file, which most are, in one go."""
        room = memoryview(out).cast("B")
        cuts = np.flatnonzero(starts[1:] != starts[:-1] + sizes[:-1]) + 1
        firsts = np.concatenate([[0], cuts])
        for start, size in zip(starts[firsts].tolist(), np.add.reduceat(sizes, firsts).tolist(), strict=True):
            done = 0
            while done < size:
                got = os.preadv(self._handle, [room[done:size]], start + done)
                if not got:
                    msg = f"it ends within {self._name!r}"
                    raise OSError(msg)
                done += got
            room = room[size:]
