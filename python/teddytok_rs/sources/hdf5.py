"""Read slices of a one-dimensional HDF5 dataset without HDF5.

HDF5 lets one thread of the process in at a time, and unpacks every chunk with zlib inside. It is asked once where the
chunks lie; from then on their bytes are read from the file by any number of threads, and unpacked in Rust. Whatever
is not as plain as nearly all files are is left to HDF5.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

from .. import _core
from .chunked import ChunkedArray
from .files import StoredFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .chunked import Sliceable

#: HDF5's numbers of the filters that are undone here: a shuffle, and compressors of which one may follow it.
SHUFFLE, ZSTD = h5py.h5z.FILTER_SHUFFLE, 32015
COMPRESSORS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF, ZSTD}


def open_dataset(dataset: h5py.Dataset, stored: StoredFile | None = None) -> Sliceable:
    """Return a dataset as an array that many threads can slice at a time; unchanged if only HDF5 can read it.

    Parameters
    ----------
    dataset
        The dataset.
    stored
        Its file, which may be closed between reads; if not given, the dataset's own file is used while it is open.
    """
    itself: Sliceable = dataset
    if not hasattr(os, "preadv"):  # Windows
        return itself
    dtype, file, plist = dataset.dtype, dataset.file, dataset.id.get_create_plist()
    filters = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    numbers = [number for number, *_ in filters]
    shuffled = numbers[:1] == [SHUFFLE]
    plain = (
        len(dataset.shape) == 1
        and dataset.shape[0] > 0
        and file.driver == "sec2"
        and file.mode == "r"  # a writer may have chunks in memory that are not in the file yet
        and file.userblock_size == 0  # whether places count from its end depends on HDF5's version
        and dtype.kind in "iuf"
        and dtype.isnative
        and dataset.id.get_type() == h5py.h5t.py_create(dtype)
        and not dataset.external
        and (not shuffled or filters[0][2][0] == dtype.itemsize)
        and (len(numbers) == shuffled or (len(numbers) == shuffled + 1 and numbers[-1] in COMPRESSORS))
    )
    places = _places(dataset, filtered=bool(numbers)) if plain else None
    if places is None:
        return itself
    stored = stored or StoredFile(file.filename, lambda: file, is_own=False)
    pieces = Pieces(dataset, numbers, places, stored)
    return ChunkedArray(dataset.shape[0], dtype, places.items, pieces.unpack) if numbers else PlainArray(pieces)


@dataclass(frozen=True)
class Places:
    """Where the chunks of a dataset lie.

    Attributes
    ----------
    items
        Items of a chunk; the last chunk may reach beyond the end of the dataset.
    starts, sizes, masks
        Of each chunk: where in the file it starts, its stored bytes, and which of the filters it did not pass.
    """

    items: int
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    masks: NDArray[np.uint32]


def _places(dataset: h5py.Dataset, *, filtered: bool) -> Places | None:
    """Find the chunks, or the one piece that it all is; None if that is not what a whole file says.

    HDF5 has the words for it then.
    """
    n, layout = dataset.shape[0], dataset.id.get_create_plist().get_layout()
    if layout == h5py.h5d.CONTIGUOUS:
        found = [(0, dataset.id.get_offset(), dataset.id.get_storage_size(), 0)]
        items = n
    elif layout == h5py.h5d.CHUNKED and hasattr(dataset.id, "chunk_iter"):  # not with HDF5 1.10
        found = []
        dataset.id.chunk_iter(lambda at: found.append((at.chunk_offset[0], at.byte_offset, at.size, at.filter_mask)))
        items = dataset.chunks[0]
    else:
        return None
    n_chunks, chunk_bytes = -(-n // items), items * dataset.dtype.itemsize
    if len(found) != n_chunks or found[0][1] is None:
        return None
    firsts, starts, sizes, masks = np.ascontiguousarray(np.array(sorted(found), dtype=np.int64).T)
    file_bytes = os.fstat(dataset.file.id.get_vfd_handle()).st_size
    if (firsts != np.arange(n_chunks) * items).any() or (sizes < 0).any() or (starts > file_bytes - sizes).any():
        return None
    if not filtered and (sizes != chunk_bytes).any():
        return None
    if filtered and n % items and sizes[-1] == chunk_bytes and masks[-1] == 0:
        return None  # HDF5 can be set to store a last, partial chunk without its filters, and does not mark it
    return Places(items, starts, sizes, masks.astype(np.uint32))


class Pieces:
    """The chunks of a dataset, of a file that is read only; ``filters`` are those they have passed."""

    def __init__(self, dataset: h5py.Dataset, filters: list[int], places: Places, stored: StoredFile) -> None:
        self.n_items, self.dtype, self.places = int(dataset.shape[0]), dataset.dtype, places
        self._name, self._filters, self._stored = dataset.name, filters, stored
        if not stored.is_own:
            stored.opened().handle()  # while its owner has it open

    def unpack(self, first: int, n: int, out: NDArray[np.number]) -> None:
        """Read and unpack ``n`` whole chunks from ``first`` on."""
        chunks = slice(first, first + n)
        sizes = self.places.sizes[chunks]
        stored = np.empty(int(sizes.sum()), dtype=np.uint8)
        self.read(self.places.starts[chunks], sizes, stored)
        damaged = _core.unpack_chunks(
            stored,
            sizes,
            self.places.masks[chunks],
            filters=self._filters,
            item_bytes=self.dtype.itemsize,
            out=out.view(np.uint8),
        )
        if damaged is not None:
            msg = f"chunk {first + damaged:,} of the {len(self.places.starts):,} of {self._name!r} is damaged"
            raise OSError(msg)

    def read(self, starts: NDArray[np.int64], sizes: NDArray[np.int64], out: NDArray[np.number]) -> None:
        """Read parts of the file side by side; those that are neighbours in it, as most are, in one go."""
        room, opened = out.data.cast("B"), self._stored.opened()
        handle = opened.handle()
        cuts = np.flatnonzero(starts[1:] != starts[:-1] + sizes[:-1]) + 1
        firsts = np.concatenate([[0], cuts])
        for start, size in zip(starts[firsts].tolist(), np.add.reduceat(sizes, firsts).tolist(), strict=True):
            done = 0
            while done < size:
                got = os.preadv(handle, [room[done:size]], start + done)
                if not got:
                    msg = f"it ends within {self._name!r}"
                    raise OSError(msg)
                done += got
            room = room[size:]


class PlainArray:
    """A dataset that was stored as it is: only what is asked for is read, straight to its place."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self.shape, self.dtype = (pieces.n_items,), pieces.dtype

    def __getitem__(self, items: slice) -> NDArray[np.number]:
        """Read a slice without a step."""
        low, high, _ = items.indices(self.shape[0])
        out = np.empty(max(high - low, 0), dtype=self.dtype)
        if len(out):
            per_chunk, item_bytes = self._pieces.places.items, self.dtype.itemsize
            first, last = low // per_chunk, (high - 1) // per_chunk
            starts = self._pieces.places.starts[first : last + 1].copy()
            ends = starts + per_chunk * item_bytes
            starts[0] += (low - first * per_chunk) * item_bytes
            ends[-1] -= ((last + 1) * per_chunk - high) * item_bytes
            self._pieces.read(starts, ends - starts, out)
        return out
