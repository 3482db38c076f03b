"""Slices read without HDF5 or zarr equal those read with them; damage is reported; what is unusual is left to them."""

from __future__ import annotations

import io
import os
import threading
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numcodecs
import numpy as np
import pyarrow as pa
import pytest
import zarr
import zarr.codecs
import zarr.storage
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import cells
from raises import raises
from teddytok_rs import _core
from teddytok_rs.errors import KernelError
from teddytok_rs.sources import chunked, csc, hdf5
from teddytok_rs.sources.chunked import ChunkedArray
from teddytok_rs.sources.open import open_source
from teddytok_rs.sources.protocol import DenseChunk
from teddytok_rs.sources.zarr_chunks import open_zarr_array

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N = 1000
ZSTD = 32015
DTYPES = ["int8", "uint16", "int32", "int64", "float32", "float64"]
#: How to store an array so that it is read without HDF5.
FAST: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": (64,)},
    "gzip": {"chunks": (64,), "compression": "gzip"},
    "gzip, no effort": {"chunks": (64,), "compression": "gzip", "compression_opts": 0},
    "lzf": {"chunks": (64,), "compression": "lzf"},
    "shuffle": {"chunks": (50,), "shuffle": True},
    "shuffle, gzip": {"chunks": (64,), "shuffle": True, "compression": "gzip"},
    "shuffle, lzf": {"chunks": (64,), "shuffle": True, "compression": "lzf"},
    "one item": {"chunks": (1,), "compression": "gzip"},
    "one chunk": {"chunks": (N,), "shuffle": True, "compression": "gzip"},
    "more than one chunk": {"chunks": (3 * N,), "maxshape": (None,), "compression": "gzip"},
    "more than one plain chunk": {"chunks": (3 * N,), "maxshape": (None,)},
}


def numbers(dtype: str, n: int = N) -> np.ndarray:
    """Numbers that compress, with a part that does not."""
    rng = np.random.default_rng(1)
    values = rng.poisson(1.0, n)
    values[n // 4 : n // 2] = rng.integers(0, 127, n // 2 - n // 4)
    return values.astype(dtype)


def store(path: Path, values: np.ndarray, **how: Any) -> h5py.Dataset:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=values, **how)
    return h5py.File(path)["a"]


def store_chunks(path: Path, dtype: str, filters: list[int], chunks: list[tuple[bytes, int]]) -> h5py.Dataset:
    """Write chunks of 64 items as they are, each with the mask of filters it did not pass."""
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((64,))
        for number in filters:
            values = {hdf5.SHUFFLE: (np.dtype(dtype).itemsize,), h5py.h5z.FILTER_DEFLATE: (4,)}.get(number, ())
            plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, values)
        space = h5py.h5s.create_simple((64 * len(chunks),))
        data = h5py.h5d.create(file.id, b"a", h5py.h5t.py_create(np.dtype(dtype)), space, plist)
        for i, (stored, mask) in enumerate(chunks):
            data.write_direct_chunk((64 * i,), stored, mask)
    return h5py.File(path)["a"]


def shuffled(values: np.ndarray) -> bytes:
    return values.view(np.uint8).reshape(len(values), -1).T.tobytes()


SLICES = [(0, N), (0, 0), (0, 1), (63, 64), (64, 128), (63, 129), (1, N - 1), (N - 1, N), (500, 400), (900, 2 * N)]


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("how", FAST)
def test_every_slice_equals_that_of_hdf5_without_asking_it(how, libver, tmp_path, monkeypatch):
    for dtype in DTYPES:
        values = numbers(dtype)
        with h5py.File(tmp_path / dtype, "w", libver=libver) as file:
            file.create_dataset("a", data=values, **FAST[how])
        dataset = h5py.File(tmp_path / dtype)["a"]
        array = hdf5.open_dataset(dataset)
        assert array is not dataset
        assert (array.shape, array.dtype) == (dataset.shape, dataset.dtype)
        theirs = [dataset[low:high] for low, high in SLICES]
        with monkeypatch.context() as patch:
            patch.delattr(h5py.Dataset, "__getitem__")
            ours = [array[low:high] for low, high in SLICES]
        for a, b in zip(ours, theirs, strict=True):
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_chunks_and_slices_equal_those_of_hdf5(data, tmp_path_factory):
    n = data.draw(st.integers(1, 500))
    how = {
        "chunks": (data.draw(st.integers(1, 600)),),
        "maxshape": (None,),
        "shuffle": data.draw(st.booleans()),
        "compression": data.draw(st.sampled_from([None, "gzip", "lzf"])),
    }
    dataset = store(tmp_path_factory.mktemp("h5") / "a.h5", numbers(data.draw(st.sampled_from(DTYPES)), n), **how)
    array = hdf5.open_dataset(dataset)
    for low, high in data.draw(st.lists(st.tuples(st.integers(0, n), st.integers(0, n)), min_size=1, max_size=5)):
        np.testing.assert_array_equal(array[low:high], dataset[low:high])


@pytest.mark.parametrize(
    ("filters", "masks"),
    [
        ([2, 1], [0b00, 0b01, 0b10, 0b11]),
        ([1], [0, 1]),
        ([2], [0, 1]),
        ([hdf5.ZSTD], [0, 1]),
        ([2, hdf5.ZSTD], [0, 1, 2, 3]),
    ],
)
def test_filters_that_a_chunk_did_not_pass_are_not_undone(filters, masks, tmp_path):
    chunks, values = [], numbers("int32", 64 * len(masks))
    for i, mask in enumerate(masks):
        part = values[64 * i : 64 * i + 64]
        stored = shuffled(part) if filters[0] == 2 and not mask & 1 else part.tobytes()
        if filters[-1] != 2 and not mask & (1 << (len(filters) - 1)):
            stored = zlib.compress(stored) if filters[-1] == 1 else pa.Codec("zstd").compress(stored, asbytes=True)
        chunks.append((stored, mask))
    dataset = store_chunks(tmp_path / "a.h5", "int32", filters, chunks)
    array = hdf5.open_dataset(dataset)
    assert isinstance(array, ChunkedArray)
    np.testing.assert_array_equal(array[:], values)
    if hdf5.ZSTD not in filters:  # without its plugin HDF5 cannot read that
        np.testing.assert_array_equal(dataset[:], values)


def nbit(path: Path) -> h5py.Dataset:
    """Integers of twelve bits in sixteen."""
    kind = h5py.h5t.STD_U16LE.copy()
    kind.set_precision(12)
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"a", kind, h5py.h5s.create_simple((N,)))
        file["a"][...] = numbers("uint16")
    return h5py.File(path)["a"]


def compact(path: Path) -> h5py.Dataset:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    with h5py.File(path, "w") as file:
        kind, space = h5py.h5t.NATIVE_INT16, h5py.h5s.create_simple((N,))
        h5py.h5d.create(file.id, b"a", kind, space, plist).write(h5py.h5s.ALL, h5py.h5s.ALL, numbers("int16"))
    return h5py.File(path)["a"]


def in_part(path: Path) -> h5py.Dataset:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (N,), "int32", chunks=(64,))[100:200] = 7
    return h5py.File(path)["a"]


def with_userblock(**how: Any) -> Callable[[Path], h5py.Dataset]:
    def make(path: Path) -> h5py.Dataset:
        with h5py.File(path, "w", userblock_size=512) as file:
            file.create_dataset("a", data=numbers("int32"), **how)
        return h5py.File(path)["a"]

    return make


def outside(path: Path) -> h5py.Dataset:
    (path.parent / "raw").write_bytes(numbers("int32").tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (N,), "int32", external=[(str(path.parent / "raw"), 0, 4 * N)])
    return h5py.File(path)["a"]


def through_python(path: Path) -> h5py.Dataset:
    store(path, numbers("int32"), chunks=(64,)).file.close()
    return h5py.File(io.BytesIO(path.read_bytes()), "r")["a"]


def in_memory(path: Path) -> h5py.Dataset:
    store(path, numbers("int32"), chunks=(64,)).file.close()
    return h5py.File(path, driver="core")["a"]


def stored(values: np.ndarray, **how: Any) -> Callable[[Path], h5py.Dataset]:
    return lambda path: store(path, values, **how)


LEFT_TO_HDF5: dict[str, Callable[[Path], h5py.Dataset]] = {
    "fletcher32": stored(numbers("int32"), chunks=(64,), fletcher32=True),
    "gzip and fletcher32": stored(numbers("int32"), chunks=(64,), fletcher32=True, compression="gzip"),
    "scale and offset": stored(numbers("int32"), chunks=(64,), scaleoffset=0),
    "big-endian": stored(numbers("int32").astype(">i4"), chunks=(64,), compression="gzip"),
    "booleans": stored(numbers("int32") > 0, chunks=(64,)),
    "nothing": stored(numbers("int32", 0)),
    "no chunks": stored(numbers("int32", 0), chunks=(64,), maxshape=(None,), compression="gzip"),
    "two dimensions": stored(numbers("int32").reshape(-1, 2)),
    "twelve bits": nbit,
    "compact": compact,
    "chunks never written": in_part,
    "userblock": with_userblock(),
    "userblock, gzip": with_userblock(chunks=(64,), compression="gzip"),
    "outside": outside,
    "file object": through_python,
    "in memory": in_memory,
}


@pytest.mark.parametrize("what", LEFT_TO_HDF5)
def test_what_is_unusual_is_left_to_hdf5(what, tmp_path):
    dataset = LEFT_TO_HDF5[what](tmp_path / "a.h5")
    assert hdf5.open_dataset(dataset) is dataset
    assert len(dataset[10:20]) in {10, 0}


def test_a_file_that_is_being_written_is_left_to_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("a", data=numbers("int32"), chunks=(64,))
        assert hdf5.open_dataset(dataset) is dataset
        again = h5py.File(tmp_path / "a.h5", "r")["a"]
        assert hdf5.open_dataset(again) is again
        again.file.close()


def test_a_last_chunk_without_its_filters_is_left_to_hdf5(tmp_path):
    """HDF5 can be told to leave partial chunks unfiltered, and says so nowhere that h5py shows."""
    values = numbers("int32", 64)
    dataset = store_chunks(tmp_path / "a.h5", "int32", [1], [(values.tobytes(), 0)])
    dataset.file.close()
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.create_dataset("b", (60,), "int32", chunks=(64,), maxshape=(None,), compression="gzip")
        file["b"].id.write_direct_chunk((0,), values.tobytes(), 0)
    dataset = h5py.File(tmp_path / "a.h5")["b"]
    assert hdf5.open_dataset(dataset) is dataset


def test_a_file_that_is_closed_between_reads_is_read_to_its_end(tmp_path):
    dataset = store(tmp_path / "a.h5", numbers("int32"), chunks=(64,), compression="gzip")
    array = hdf5.open_dataset(dataset)
    dataset.file.close()
    others = [(tmp_path / str(i)).open("wb") for i in range(4)]  # that may get the number of the file's handle
    np.testing.assert_array_equal(array[:], numbers("int32"))
    for other in others:
        other.close()


@pytest.mark.parametrize("how", ["contiguous", "chunked", "shuffle, gzip", "one chunk"])
def test_no_lock_of_hdf5_is_waited_for(how, tmp_path):
    array = hdf5.open_dataset(store(tmp_path / "a.h5", numbers("int32"), **FAST[how]))
    with h5py._objects.phil, ThreadPoolExecutor(1) as pool:
        np.testing.assert_array_equal(pool.submit(lambda: array[5:-5]).result(timeout=30), numbers("int32")[5:-5])


@pytest.mark.parametrize("how", FAST)
def test_many_threads_read_what_one_does(how, tmp_path):
    values = numbers("float32")
    array = hdf5.open_dataset(store(tmp_path / "a.h5", values, **FAST[how]))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            parts = pool.map(lambda low: array[low : low + 37], range(0, N, 37))
            np.testing.assert_array_equal(np.concatenate(list(parts)), values)


# ---- damage


def saved(folder: Path, **how: Any) -> Path:
    return cells.save(cells.make_cells(), folder / "cells.h5ad", **how)


def places(path: Path, name: str = "data") -> tuple[int, int]:
    """Where the first chunk of an array of the layer lies, and its bytes."""
    with h5py.File(path) as file:
        info = file["layers/processed"][name].id.get_chunk_info(0)
        return info.byte_offset, info.size


def test_no_changed_byte_of_a_gzip_chunk_changes_a_number(tmp_path):
    path = saved(tmp_path, compression="gzip")
    start, size = places(path)
    whole, right = path.read_bytes(), open_source(path, "processed").read(0, 6).data
    told = 0
    for place in range(start, start + size):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        source = open_source(path, "processed")
        assert isinstance(source._matrix._data, ChunkedArray)
        try:
            np.testing.assert_array_equal(source.read(0, 6).data, right)
        except OSError:
            told += 1
    assert told > 0.9 * size
    path.write_bytes(whole[: start + 9] + b"\xff\xff\xff" + whole[start + 12 :])
    with raises("source_unreadable", "chunk 0 of the 1 of '/layers/processed/data' is damaged"):
        open_source(path, "processed").read(0, 6)


@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
def test_a_file_that_is_cut_short_while_it_is_read_is_reported(compression, tmp_path):
    path = saved(tmp_path, compression=compression)
    source = open_source(path, "processed")
    with h5py.File(path) as file:
        data = file["layers/processed/data"].id
        start = places(path)[0] if compression else data.get_offset() or places(path)[0]
    os.truncate(path, start + 1)
    with raises("source_unreadable", "it ends within '/layers/processed/"):
        for row in range(6):
            source.read(row, row + 1)


@pytest.mark.parametrize("n", [1, 63, 65, 6400])
@pytest.mark.parametrize("filters", [[1], [2, 1], [hdf5.ZSTD], [32000]])
def test_a_chunk_of_another_length_is_damaged(filters, n, tmp_path):
    bytes_of = np.zeros(n, dtype="int32").tobytes()
    packed = {1: zlib.compress, hdf5.ZSTD: lambda b: pa.Codec("zstd").compress(b, asbytes=True), 32000: literal_lzf}
    good = np.zeros(64, dtype="int32").tobytes()
    chunks = [(packed[filters[-1]](part), 0) for part in (good, bytes_of)]
    array = hdf5.open_dataset(store_chunks(tmp_path / "a.h5", "int32", filters, chunks))
    assert not array[:64].any()
    for part in (slice(0, 128), slice(64, 128), slice(100, 101), slice(100, 101)):
        with pytest.raises(OSError, match="chunk 1 of the 2 of '/a' is damaged"):
            array[part]


def literal_lzf(stored: bytes) -> bytes:
    return b"".join(bytes([len(stored[i : i + 32]) - 1]) + stored[i : i + 32] for i in range(0, len(stored), 32))


# ---- the border


def unpack(**changes: Any) -> int | None:
    keys: dict[str, Any] = {
        "stored": np.arange(16, dtype=np.uint8),
        "sizes": np.array([8, 8]),
        "masks": np.zeros(2, dtype=np.uint32),
        "filters": [2],
        "item_bytes": 4,
        "out": np.empty(16, dtype=np.uint8),
    } | changes
    arrays = [keys.pop(name) for name in ("stored", "sizes", "masks")]
    return _core.unpack_chunks(*arrays, **keys)


def test_arguments_that_contradict_one_another_are_refused_at_the_border():
    out = np.zeros(16, dtype=np.uint8)
    assert unpack(out=out) is None
    assert out.tolist()[:8] == [0, 2, 4, 6, 1, 3, 5, 7]
    for changes, argument in (
        ({"sizes": np.array([8, 9])}, "sizes"),
        ({"sizes": np.array([8, -8])}, "sizes"),
        ({"sizes": np.zeros(0, dtype=np.int64), "masks": np.zeros(0, dtype=np.uint32)}, "sizes"),
        ({"masks": np.zeros(1, dtype=np.uint32)}, "masks"),
        ({"filters": [3]}, "filters"),
        ({"filters": [1, 2]}, "filters"),
        ({"item_bytes": 0}, "item_bytes"),
        ({"item_bytes": 3}, "item_bytes"),
        ({"out": np.empty(15, dtype=np.uint8)}, "out"),
        ({"out": np.empty(0, dtype=np.uint8)}, "out"),
    ):
        with pytest.raises(KernelError) as caught:
            unpack(**changes)
        assert caught.value.args == ("kernel_argument", None, None, argument)
    read_only = np.empty(16, dtype=np.uint8)
    read_only.flags.writeable = False
    for changes in ({"out": read_only}, {"out": np.empty(32, dtype=np.uint8)[::2]}, {"out": np.empty(4, "int32")}):
        with pytest.raises((TypeError, ValueError)):
            unpack(**changes)


# ---- zarr


def zarr_array(path: Path, values: np.ndarray, version: int, **how: Any) -> Any:
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    group.create_group("x").create_array("a", data=values, **how)
    return zarr.open_group(str(path), mode="r")["x/a"]


ZARR: dict[str, tuple[int, dict[str, Any]]] = {
    "2, blosc": (2, {"compressors": numcodecs.Blosc()}),
    "2, blosc zstd": (2, {"compressors": numcodecs.Blosc("zstd", shuffle=numcodecs.Blosc.BITSHUFFLE)}),
    "2, zstd": (2, {"compressors": numcodecs.Zstd()}),
    "3, zstd": (3, {"compressors": zarr.codecs.ZstdCodec()}),
    "3, zstd with checksum": (3, {"compressors": zarr.codecs.ZstdCodec(checksum=True)}),
    "3, blosc": (3, {"compressors": zarr.codecs.BloscCodec()}),
}


@pytest.mark.parametrize("how", ZARR)
def test_every_slice_equals_that_of_zarr_without_asking_it(how, tmp_path, monkeypatch):
    version, keys = ZARR[how]
    for dtype in DTYPES:
        values = numbers(dtype)
        theirs = zarr_array(tmp_path / dtype, values, version, chunks=(64,), **keys)
        array = open_zarr_array(theirs)
        assert isinstance(array, ChunkedArray)
        with monkeypatch.context() as patch:
            patch.delattr(zarr.Array, "__getitem__")
            ours = [array[low:high] for low, high in SLICES]
        for part, (low, high) in zip(ours, SLICES, strict=True):
            assert (part.dtype, part.tobytes()) == (values.dtype, theirs[low:high].tobytes())


LEFT_TO_ZARR: dict[str, tuple[np.ndarray, int, dict[str, Any]]] = {
    "3, shards": (numbers("int32"), 3, {"chunks": (50,), "shards": (100,)}),
    "3, gzip": (numbers("int32"), 3, {"chunks": (64,), "compressors": zarr.codecs.GzipCodec()}),
    "3, two codecs": (
        numbers("int32"),
        3,
        {"chunks": (64,), "compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
    ),
    "3, not packed": (numbers("int32"), 3, {"chunks": (64,), "compressors": None}),
    "3, big-endian": (numbers("int32"), 3, {"chunks": (64,), "serializer": zarr.codecs.BytesCodec(endian="big")}),
    "2, gzip": (numbers("int32"), 2, {"chunks": (64,), "compressors": numcodecs.GZip()}),
    "2, not packed": (numbers("int32"), 2, {"chunks": (64,), "compressors": None}),
    "2, big-endian": (numbers("int32").astype(">i4"), 2, {"chunks": (64,)}),
    "2, filtered": (numbers("int32"), 2, {"chunks": (64,), "filters": [numcodecs.Delta("i4")]}),
    "two dimensions": (numbers("int32").reshape(-1, 2), 3, {"chunks": (64, 2)}),
}


@pytest.mark.parametrize("what", LEFT_TO_ZARR)
def test_what_is_unusual_is_left_to_zarr(what, tmp_path):
    values, version, how = LEFT_TO_ZARR[what]
    array = zarr_array(tmp_path / "a.zarr", values, version, **how)
    assert open_zarr_array(array) is array
    np.testing.assert_array_equal(array[:], values)


def test_a_store_that_is_not_a_folder_is_left_to_zarr():
    array = zarr.create_array(zarr.storage.MemoryStore(), data=numbers("int32"))
    assert open_zarr_array(array) is array


@pytest.mark.parametrize("how", ZARR)
def test_chunks_that_are_not_there_are_filled_as_zarr_does(how, tmp_path):
    version, keys = ZARR[how]
    values = numbers("int32")
    values[64:128] = values[960:] = 0
    array = open_zarr_array(zarr_array(tmp_path / "a.zarr", values, version, chunks=(64,), **keys))
    files = {path.name for path in (tmp_path / "a.zarr" / "x" / "a").rglob("*") if path.is_file()}
    assert not {"1", "15"} & files
    np.testing.assert_array_equal(array[:], values)
    np.testing.assert_array_equal(array[100:120], values[100:120])


@pytest.mark.parametrize("how", ZARR)
def test_a_damaged_chunk_of_a_store_is_reported(how, tmp_path):
    version, keys = ZARR[how]
    array = open_zarr_array(zarr_array(tmp_path / "a.zarr", numbers("int32"), version, chunks=(500,), **keys))
    file = tmp_path / "a.zarr" / "x" / "a" / ("1" if version == 2 else "c/1")
    whole = file.read_bytes()
    longer = zarr_array(tmp_path / "b.zarr", numbers("int32"), version, chunks=(600,), **keys)
    other = tmp_path / "b.zarr" / "x" / "a" / ("0" if version == 2 else "c/0")
    assert longer.shape == (N,)
    for bad in (b"", whole[:8], whole[:-1], other.read_bytes()):
        file.write_bytes(bad)
        for part in (slice(500, 1000), slice(700, 701)):
            with pytest.raises(OSError, match="chunk 1 of '/x/a' is damaged"):
                array[part]
    np.testing.assert_array_equal(array[:500], numbers("int32")[:500])


@pytest.mark.parametrize("version", [2, 3])
def test_what_anndata_writes_is_read_without_zarr(version, tmp_path):
    path = tmp_path / "cells.zarr"
    with ad.settings.override(zarr_write_format=version):
        cells.save(cells.make_cells(), path)
    matrix = open_source(path, "processed")._matrix
    for array in (matrix._indices, matrix._data):
        assert isinstance(array, ChunkedArray) or array.shards, "anndata 0.13 writes shards"


# ---- what is kept


class Counted:
    """Unpacks the numbers from 0 on, and counts."""

    def __init__(self, items: int) -> None:
        self.items, self.calls, self.fails = items, [], False
        self.lock = threading.Lock()

    def __call__(self, first: int, n: int, out: np.ndarray) -> None:
        assert len(out) == n * self.items
        with self.lock:
            self.calls += range(first, first + n)
        if self.fails:
            msg = "no"
            raise OSError(msg)
        out[:] = np.arange(first * self.items, (first + n) * self.items)


def test_a_chunk_that_many_slices_share_is_unpacked_once():
    unpack = Counted(items=2**22)
    array = ChunkedArray(2**22 - 5, np.dtype(np.int64), unpack.items, unpack)  # 32 MiB, more than is kept
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda low: array[low : low + 2**18], range(0, 2**22, 2**18)))
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(2**22 - 5))
    assert unpack.calls == [0]


def test_slices_side_by_side_unpack_each_chunk_once():
    unpack = Counted(items=1000)
    array = ChunkedArray(100_500, np.dtype(np.int64), unpack.items, unpack)
    parts = [array[low : low + 2500] for low in range(0, 100_500, 2500)]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(100_500))
    assert sorted(unpack.calls) == list(range(101))


def test_threads_at_the_border_of_two_large_chunks_unpack_each_once():
    unpack = Counted(items=2**22)
    array = ChunkedArray(2**23, np.dtype(np.int64), unpack.items, unpack)
    for low in (2**22 - 5, 2**22 + 5, 2**22 - 10, 2**22 + 10):  # as threads get there that run ahead and behind
        np.testing.assert_array_equal(array[low : low + 20], np.arange(low, low + 20))
    assert unpack.calls == [0, 1]


def test_only_so_many_bytes_are_kept():
    unpack = Counted(items=2**18)  # 2 MiB
    array = ChunkedArray(2**23, np.dtype(np.int64), unpack.items, unpack)
    for low in range(0, 2**23, 2**18):
        array[low : low + 1]
        assert sum(kept.result().nbytes for kept in array._kept.values()) <= chunked.KEPT_BYTES
    assert len(array._kept) == chunked.KEPT_BYTES // 2**21


def test_a_chunk_that_failed_fails_for_all_who_wait_and_is_tried_again():
    unpack = Counted(items=1000)
    array = ChunkedArray(1000, np.dtype(np.int64), 1000, unpack)
    unpack.fails = True
    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            array[:10]
    assert (unpack.calls, len(array._kept)) == ([0, 0], 0)
    unpack.fails = False
    np.testing.assert_array_equal(array[:10], np.arange(10))


def test_a_forked_process_waits_for_no_thread_of_its_parent():
    unpack = Counted(items=1000)
    array = ChunkedArray(1000, np.dtype(np.int64), 1000, unpack)
    array._kept[0], array._process = Future(), -1  # as a thread leaves it that is in the middle of a chunk
    np.testing.assert_array_equal(array[:10], np.arange(10))


@pytest.mark.parametrize("encoding", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_many_threads_read_any_source_as_one_does(encoding, suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(csc, "BAND_ROWS", 7)  # so that threads want different bands
    x = cells.make_counts(200, seed=3)
    how = {"compression": "gzip"} if suffix == "h5ad" else {}
    path = cells.save(cells.with_layer(encoding(x)), tmp_path / f"cells.{suffix}", **how)
    source = open_source(path, "processed")

    def dense(row: int) -> np.ndarray:
        chunk = source.read(row, row + 3)
        if isinstance(chunk, DenseChunk):
            return chunk.x
        return sparse.csr_matrix((chunk.data, chunk.indices, chunk.indptr), shape=(3, x.shape[1])).toarray()

    rows = np.random.default_rng(1).permutation(198)
    with ThreadPoolExecutor(8) as pool:
        for row, part in zip(rows, pool.map(dense, rows), strict=True):
            np.testing.assert_array_equal(part, x[row : row + 3])
