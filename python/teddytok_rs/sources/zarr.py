"""The path of a zarr store in, a `Source` out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import error
from .stored import StoredSource, unreadable

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
    return StoredSource(root, path.name, str(path), layer)
