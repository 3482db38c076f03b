"""Slice an array that is stored in chunks, from any thread."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

#: Bytes that are unpacked in one go: what is stored for them stays in a core's cache.
UNPACK_BYTES = 2**20
#: Bytes of chunks that are kept unpacked because only a part was asked for, and the rest will be. Two are always kept:
#: with one, four threads at the border of two chunks of 64 MB unpack each almost twice (14 times for 8 chunks).
KEPT_BYTES = 16 * 2**20


class Sliceable(Protocol):
    """A one-dimensional array that gives NumPy arrays for its slices: in memory, of HDF5, of zarr, or made here."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its length."""
        ...

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of its items."""
        ...

    def __getitem__(self, items: slice, /) -> NDArray[np.generic]: ...


class ChunkedArray:
    """A one-dimensional array that is stored in chunks.

    Parameters
    ----------
    n
        Its length.
    dtype
        Its number type.
    items
        Items of a chunk; the last chunk may reach beyond the end.
    unpack
        Reads a number of chunks from the given one on into an array of just their length; called by many threads.
    """

    def __init__(
        self, n: int, dtype: np.dtype[np.number], items: int, unpack: Callable[[int, int, NDArray[np.number]], None]
    ) -> None:
        self.shape, self.dtype = (n,), dtype
        self._items, self._chunk_bytes, self._unpack = items, items * dtype.itemsize, unpack
        self._kept: OrderedDict[int, Future[NDArray[np.number]]] = OrderedDict()
        self._lock, self._process = threading.Lock(), os.getpid()

    def __getitem__(self, items: slice) -> NDArray[np.number]:
        """Read a slice without a step."""
        low, high, _ = items.indices(self.shape[0])
        out = np.empty(max(high - low, 0), dtype=self.dtype)
        at_a_time = max(UNPACK_BYTES // self._chunk_bytes, 1)
        done = low
        while done < high:
            chunk, skip = divmod(done, self._items)
            n = min((high - done) // self._items, at_a_time)
            if skip or not n:
                part = self._whole(chunk)[skip : skip + high - done]
                out[done - low : done - low + len(part)] = part
                done += len(part)
            else:
                self._unpack(chunk, n, out[done - low : done - low + n * self._items])
                done += n * self._items
        return out

    def _whole(self, chunk: int) -> NDArray[np.number]:
        """Get a chunk of which a part is needed, and keep it: its other parts are next, in this thread or another."""
        with self._lock:
            if self._process != os.getpid():  # forked: the threads that would have finished these are not here
                self._process, self._kept = os.getpid(), OrderedDict()
            kept = self._kept.get(chunk)
            if kept is None:
                mine: Future[NDArray[np.number]] = Future()
                self._kept[chunk] = mine
                while len(self._kept) > 2 and len(self._kept) * self._chunk_bytes > KEPT_BYTES:
                    self._kept.popitem(last=False)
        if kept is not None:
            return kept.result()
        try:
            out = np.empty(self._items, dtype=self.dtype)
            self._unpack(chunk, 1, out)
        except BaseException as exc:
            with self._lock:
                self._kept.pop(chunk, None)
            mine.set_exception(exc)
            raise
        mine.set_result(out)
        return out
