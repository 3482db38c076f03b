"""Read slices of a one-dimensional zarr array in the thread that asks.

zarr sends every chunk through an event loop, a thread that all readers share. What anndata writes by default
is read here without it: a plain file for each chunk, packed with Zstandard (format 3) or Blosc (format 2).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .chunked import ChunkedArray
from .hdf5 import ZSTD

if TYPE_CHECKING:
    from collections.abc import Mapping

    import zarr
    from numpy.typing import NDArray

    from .chunked import Sliceable

#: What a buffer of Blosc begins with: among other things its bytes unpacked and packed.
BLOSC_HEADER = struct.Struct("<4xI4xI")


def open_zarr_array(array: zarr.Array) -> Sliceable:
    """Give an array as one that many threads can slice at a time; itself where only zarr can read it."""
    import zarr.storage

    itself: Sliceable = array
    local = getattr(zarr.storage, "LocalStore", None)  # from zarr-python 3 on
    if local is None or not isinstance(array.store, local):
        return itself
    codec = _codec(array.metadata.to_dict())
    plain = array.ndim == 1 and array.shape[0] > 0 and array.dtype.kind in "iuf" and array.dtype.isnative
    if codec is None or not plain or array.shards is not None:
        return itself
    return ChunkedArray(array.shape[0], array.dtype, array.chunks[0], Files(array, codec).unpack)


def _codec(metadata: Mapping[str, Any]) -> str | None:
    """Name the one compressor of an array; None for anything else."""
    if metadata["zarr_format"] == 2:
        codec = None if metadata["filters"] else metadata["compressor"]
        name = None if codec is None else codec["id"]
    else:
        names = [codec["name"] for codec in metadata["codecs"]]
        endian = metadata["codecs"][0].get("configuration", {}).get("endian", "little")
        known = names[:1] == ["bytes"] and len(names) == 2 and endian == "little"
        name = names[1] if known and not metadata.get("storage_transformers") else None
    return name if name in {"zstd", "blosc"} else None


class Files:
    """The chunks of an array, each in its file."""

    def __init__(self, array: zarr.Array, codec: str) -> None:
        self._array, self._codec = array, codec
        self._folder = Path(array.store.root, array.path)

    def unpack(self, first: int, n: int, out: NDArray[np.number]) -> None:
        """Read and unpack ``n`` whole chunks from ``first`` on."""
        items = self._array.chunks[0]
        for i in range(n):
            self._unpack_one(first + i, out[i * items : (i + 1) * items])

    def _unpack_one(self, chunk: int, out: NDArray[np.number]) -> None:
        try:
            stored = Path(self._folder, self._array.metadata.encode_chunk_key((chunk,))).read_bytes()
        except FileNotFoundError:  # zarr knows what to fill it with
            items = self._array[chunk * len(out) : (chunk + 1) * len(out)]
            out[: len(items)] = items
            return
        if self._codec == "zstd":
            raw, sizes = np.frombuffer(stored, dtype=np.uint8), np.array([len(stored)])
            no_mask = np.zeros(1, dtype=np.uint32)
            whole = None is _core.unpack_chunks(
                raw, sizes, no_mask, filters=[ZSTD], item_bytes=out.itemsize, out=out.view(np.uint8)
            )
        else:
            from numcodecs import Blosc

            # Blosc believes its header, and would read on behind the end of a file that was cut short.
            fits = len(stored) >= BLOSC_HEADER.size
            whole = fits and BLOSC_HEADER.unpack_from(stored) == (out.nbytes, len(stored))
            if whole:
                Blosc().decode(stored, out)
        if not whole:
            msg = f"chunk {chunk:,} of {self._array.name!r} is damaged"
            raise OSError(msg)
