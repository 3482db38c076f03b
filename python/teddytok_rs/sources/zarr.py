"""The path of a zarr store in, a `Source` out; chunks that were written and are gone are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import error
from .stored import StoredSource, layer_key, unreadable

if TYPE_CHECKING:
    from pathlib import Path


def open_zarr(path: Path, layer: str) -> StoredSource:
    """Open a zarr store of format 2 or 3. See `open_source`."""
    try:
        import zarr
    except ImportError:
        raise error("zarr_extra", path=str(path)) from None
    try:
        root = zarr.open_group(str(path), mode="r")
    except Exception as bad:
        raise unreadable(str(path), bad) from bad
    source = StoredSource(root, path.name, str(path), layer)
    _refuse_missing_chunks(root[layer_key(layer)], layer_key(layer), source.n_cells, str(path))
    return source


def _refuse_missing_chunks(matrix: Any, key: str, n_cells: int, path: str) -> None:
    """Refuse a sparse matrix with chunks that are not in the store: they would read as zeros.

    Writers leave out chunks that hold nothing but zeros, so for a dense matrix a missing chunk means just that. A
    sparse one stores no run of zeros: not among its values, and among its column indices only where each cell has
    one value at most.
    """
    if "data" not in matrix or not hasattr(matrix, "keys"):
        return
    n_stored = matrix["data"].shape[0]
    for name in ("data", "indices", "indptr"):
        array = matrix[name]
        missing = array.nchunks - array.nchunks_initialized
        if missing > 0 and n_stored > (n_cells if name == "indices" else 0):
            raise error("chunks_missing", path=path, item=f"{key}/{name}", missing=missing, n_chunks=array.nchunks)
