"""Check that what a stored item declares is backed by bytes that are there.

A file of a kilobyte may declare an array of a terabyte. HDF5 and zarr would fill it with zeros, and ask the system
for the memory first; so whatever is read passes here before.
"""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import h5py

from ..errors import TeddytokError
from ..errors.build import error, system_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    import zarr

    #: What is stored in a file or store: HDF5 and zarr give groups, attributes and array slices the same way.
    StoredGroup: TypeAlias = h5py.Group | zarr.Group
    StoredArray: TypeAlias = h5py.Dataset | zarr.Array
    StoredItem: TypeAlias = StoredGroup | StoredArray

#: Bytes that an array may declare without being backed: all that is small is read, whatever it says.
FREE_BYTES = 64 * 2**20
#: Bytes of an array that one stored byte may expand to: equal bytes under zstd, the best any filter does.
MAX_COMPRESSION = 2**15
#: Chunks that an array may declare without being backed.
FREE_CHUNKS = 2**18
#: Levels of groups, and items in all, below one that is read whole: a data frame, its columns, their parts.
DEPTH, ITEMS = 4, 2**16


#: HDF5 filters that hdf5plugin brings, by their numbers.
FILTERS = {
    307: "bzip2",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32026: "Blosc2",
}


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn whatever a reader of files raises into one error: what is in a file decides which exceptions there are."""
    try:
        yield
    except TeddytokError:
        raise
    except Exception as exc:
        raise system_error("source_unreadable", exc, path=path) from None


def unreadable(path: str, reason: str) -> TeddytokError:
    """Make the error of a file that cannot be read, with its reason."""
    return error("source_unreadable", path=path, reason=" ".join(reason.split()))


def text_attributes(item: StoredItem) -> dict[str, object]:
    """Read the attributes of an item, with text as text: rhdf5 and others write it as bytes of fixed length."""
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in item.attrs.items()}


def is_group(item: object) -> bool:
    """Return whether an item is a group and not an array."""
    return hasattr(item, "keys")


def check_backed(item: StoredItem, path: str) -> None:
    """Check an array, or all arrays of a group that is read whole.

    Raises
    ------
    SourceError
        If an array declares more than its stored bytes can hold, or groups lie too deep in one another.
    """
    items = [(item, 0)]
    n_items = 0
    while items:
        item, depth = items.pop()
        n_items += 1
        if depth > DEPTH or n_items > ITEMS:
            raise unreadable(path, f"{_name(item)!r} holds groups in groups, or is a part of itself")
        if is_group(item):
            for name in item:
                check_name(name, path)
                items.append((item[name], depth + 1))
        else:
            check_array(item, path)


def read_elem(item: StoredItem, path: str) -> Any:
    """Read a stored element with anndata, which knows every encoding it has ever written."""
    from anndata.io import read_elem

    with reading(path):
        check_backed(item, path)
        return read_elem(item)


def check_name(name: object, path: str) -> str:
    """Check that a name leads to a member of its group, and nowhere else."""
    if not isinstance(name, str) or any(part in {"", ".", ".."} for part in name.split("/")):
        raise unreadable(path, f"{name!r} is not a valid column name")
    return name


def check_array(array: StoredArray, path: str, *, gaps: bool = False) -> None:
    """Check one array. With ``gaps``, chunks that were left out are zeros and the array may be of any size.

    Raises
    ------
    SourceError
        If it declares more than its stored bytes can hold.
    """
    if array.shape is None:  # HDF5's empty dataset
        return
    if isinstance(array, h5py.Dataset):
        _check_filters(array, path)
        stored, item_size = array.id.get_storage_size(), array.id.get_type().get_size()
        compressed = array.id.get_create_plist().get_nfilters() > 0
    else:
        stored = array.nbytes_stored() if callable(array.nbytes_stored) else array.nbytes_stored
        item_size, compressed = array.dtype.itemsize, True
    n_bytes = math.prod(array.shape) * item_size
    n_chunks = chunk_bytes = 0
    for chunks in (array.chunks, getattr(array, "shards", None)):
        if chunks:
            n_chunks = max(
                n_chunks, math.prod(-(-n // max(chunk, 1)) for n, chunk in zip(array.shape, chunks, strict=True))
            )
            chunk_bytes = max(chunk_bytes, math.prod(chunks) * item_size)
    most = FREE_BYTES + stored * (MAX_COMPRESSION if compressed else 1)
    for declared, limit, unit in (
        (chunk_bytes if gaps else max(n_bytes, chunk_bytes), most, "bytes"),
        (n_chunks, FREE_CHUNKS + stored, "chunks"),
    ):
        if declared > limit:
            reason = f"{_name(array)!r} declares {_count(declared)} {unit}, but {stored:,} bytes are stored for it"
            raise unreadable(path, reason)


def load_filter(number: int) -> bool:
    """Load an HDF5 filter, from hdf5plugin where h5py does not bring it; False where neither has it."""
    if not h5py.h5z.filter_avail(number):
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401 -- which registers its filters
    return bool(h5py.h5z.filter_avail(number))


def _check_filters(dataset: h5py.Dataset, path: str) -> None:
    """Refuse a dataset that went through a filter which is not installed."""
    created = dataset.id.get_create_plist()
    for place in range(created.get_nfilters()):
        number, *_, name = created.get_filter(place)
        if not load_filter(number):
            named = FILTERS.get(number) or name.decode(errors="replace") or "an unknown filter"
            advice = "Install it: pip install hdf5plugin" if number in FILTERS else "Write the file again without it"
            raise error(
                "hdf5_filter", path=path, item=_name(dataset).strip("/"), number=number, name=named, advice=advice
            )


def _name(item: StoredItem) -> str:
    return str(item.name)


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**24 else "more than 10^24"
