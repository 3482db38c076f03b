"""Open an .h5ad file; refuse links that lead out of it."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import h5py

from ..config.files import plain_file
from ..errors.build import error
from .files import StoredFile, closed_on_error
from .layers import layer_key
from .limits import DEPTH, ITEMS, reading, unreadable
from .stored import StoredSource

if TYPE_CHECKING:
    from pathlib import Path

#: What files begin with that gzip, bzip2, xz, Zstandard and zip have packed.
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK")


def open_h5ad(path: Path, layer: str) -> StoredSource:
    """Open an ``.h5ad`` file. See `open_source`."""
    stored = StoredFile(str(path), partial(_open, path.absolute(), str(path)))
    with closed_on_error(stored), reading(str(path)):
        file = stored.opened().root
        matrix = layer_key(layer)
        for part in ("obs", "raw/var" if layer == "raw" else "var", matrix):
            _refuse_links(file, part, str(path))
        if matrix in file and isinstance(file[matrix], h5py.Group):
            _refuse_missing_chunks(file[matrix], matrix, str(path))
        return StoredSource(stored, path.name, str(path), layer)


def _open(path: Path, name: str) -> h5py.File:
    """Open an HDF5 file; HDF5's own words for one that is none, or cut off, are hard to read."""
    plain_file(path)
    try:
        return h5py.File(path, "r")
    except OSError as exc:
        with path.open("rb") as file:  # says best why it may not be read
            head = file.read(8)
        if not head:
            raise unreadable(name, "it is empty") from None
        if not h5py.is_hdf5(path):
            packed = (
                "it is packed; unpack it first"
                if head.startswith(PACKED)
                else f"it is no HDF5, but starts with {head!r}"
            )
            raise unreadable(name, packed) from None
        if cut := re.search(r"truncated file: eof = (\d+),.* stored_eof = (\d+)", str(exc)):
            reason = f"it is cut off, with {int(cut[1]):,} of its {int(cut[2]):,} bytes"
            raise unreadable(name, reason) from None
        raise


def _refuse_missing_chunks(group: h5py.Group, key: str, path: str) -> None:
    """Refuse a sparse matrix of which some was never written: HDF5 would read it as zeros."""
    for name in {"data", "indices", "indptr"} & set(group):
        array = group[name]
        if isinstance(array, h5py.Dataset) and array.chunks and array.ndim == 1:
            n_chunks = -(-array.shape[0] // array.chunks[0])
            missing = n_chunks - array.id.get_num_chunks()
            if missing > 0:
                raise error("chunks_missing", path=path, item=f"{key}/{name}", missing=missing, n_chunks=n_chunks)


def _refuse_links(file: h5py.File, part: str, path: str) -> None:
    """Refuse what HDF5 would follow out of the file, or fill with zeros where its target is missing.

    On the way to a part of the file, and in all of it.
    """
    item: h5py.Group | h5py.Dataset = file
    for name in part.split("/"):
        if not isinstance(item, h5py.Group) or name not in list(item):  # `in item` would follow links, and take "."
            return
        item = _follow(item, name, path)
    items, n_items = [(item, 0)], 0
    while items:
        item, depth = items.pop()
        n_items += 1
        if depth > DEPTH or n_items > ITEMS:
            raise unreadable(path, f"{part!r} holds groups in groups, or is a part of itself")
        if isinstance(item, h5py.Group):
            items += [(_follow(item, name, path), depth + 1) for name in item]


def _follow(group: h5py.Group, name: str, path: str) -> h5py.Group | h5py.Dataset:
    """Get a member of a group, unless it is a link elsewhere."""
    link = group.get(name, getlink=True)
    what = None
    if isinstance(link, h5py.ExternalLink):
        what = f"an external link to {link.filename!r}"
    elif isinstance(link, h5py.SoftLink):
        what = f"a soft link to {link.path!r}"
    item = None if what else group[name]
    if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
        what = "kept outside the file"
    if what is not None:
        raise error("source_link", path=path, item=f"{group.name}/{name}".replace("//", "/").lstrip("/"), what=what)
    return item
