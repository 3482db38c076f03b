"""Open a zarr store; refuse pickles, and chunks that were written and are gone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.files import plain_file
from ..errors.build import error
from .files import Store
from .layers import layer_key
from .limits import is_group, reading, unreadable
from .stored import StoredSource

if TYPE_CHECKING:
    from .limits import StoredItem

#: Files that say what arrays are, in zarr's formats 2 and 3.
METADATA = {".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json"}


def open_zarr(path: Path, layer: str) -> StoredSource:
    """Open a zarr store of format 2 or 3. See `open_source`."""
    try:
        import zarr
    except ImportError:
        raise error("zarr_extra", path=str(path)) from None
    with reading(str(path)):
        # Before zarr sees it: its format 2 calls the codec that an array names as early as when it is opened.
        _refuse_pickles(path)
        if not any((path / file).exists() for file in METADATA):
            raise unreadable(str(path), "it has neither .zgroup nor zarr.json, so it is no zarr store")
        root = zarr.open_group(str(path), mode="r")
        source = StoredSource(Store(root), path.name, str(path), layer)
        if _holds_zeros_alone(root[layer_key(layer)], layer_key(layer), str(path)):
            source.warnings.append(f"no value of layer {layer!r} of {source.name} is stored: all of them are read as 0")
    return source


def _refuse_pickles(path: Path) -> None:
    """Refuse a store that names the codec of Python's pickles, which run code, or has parts that are not looked at."""

    def check(pairs: list[tuple[str, object]]) -> dict[str, object]:
        for key, value in pairs:
            if key in {"id", "name"} and isinstance(value, str) and value.rpartition(".")[2] == "pickle":
                raise unreadable(str(path), "it holds Python pickles, which could run any code")
        return dict(pairs)

    root = path.resolve()
    for folder, folders, files in os.walk(path):
        for name in folders:
            if (link := Path(folder, name)).is_symlink() and not link.resolve().is_relative_to(root):
                raise unreadable(str(path), f"{str(link)!r} is a link to a folder outside of it")
        for file in files:
            plain_file(Path(folder, file))
            if file.lower() not in METADATA:  # in any spelling: there are file systems that take these for one
                continue
            metadata = Path(folder, file)
            if not metadata.is_file():
                raise unreadable(str(path), f"{str(metadata)!r} is not a plain file")
            json.loads(metadata.read_bytes(), object_pairs_hook=check)


def _holds_zeros_alone(matrix: StoredItem, key: str, path: str) -> bool:
    """Refuse a sparse matrix with chunks that are not in the store, unless its values may all be zeros.

    Writers leave out chunks that hold only zeros, so for a dense matrix a missing chunk means zeros. A
    sparse one stores no run of zeros: not among its values, and among its indices only where each row (of a CSC
    matrix: each column) has one value at most. Where none of its values is in the store, they were zeros: a copy of
    just that would lack other files too.
    """
    if not is_group(matrix):
        return False
    n_stored, n_lines = matrix["data"].shape[0], matrix["indptr"].shape[0] - 1
    for name in ("data", "indices", "indptr"):
        array = matrix[name]
        missing = array.nchunks - array.nchunks_initialized
        if name == "data" and missing == array.nchunks:
            continue
        if missing > 0 and n_stored > (n_lines if name == "indices" else 0):
            raise error("chunks_missing", path=path, item=f"{key}/{name}", missing=missing, n_chunks=array.nchunks)
    return bool(n_stored) and not matrix["data"].nchunks_initialized
