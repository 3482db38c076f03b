"""The path of an .h5ad file in, a `Source` out; links that lead out of the file are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py

from ..errors import error
from .stored import StoredSource, layer_key, unreadable

if TYPE_CHECKING:
    from pathlib import Path


def open_h5ad(path: Path, layer: str) -> StoredSource:
    """Open an ``.h5ad`` file. See `open_source`."""
    try:
        file = h5py.File(path, "r")
    except OSError as bad:
        raise unreadable(str(path), bad) from bad
    _refuse_links(file, "raw" if layer == "raw" else layer_key(layer), str(path))
    return StoredSource(file, path.name, str(path), layer)


def _refuse_links(file: h5py.File, layer: str, path: str) -> None:
    """Refuse what HDF5 would follow out of the file, or fill with zeros where its target is missing."""
    needed = ("obs", "var", layer)

    def check(name: str, link: object) -> None:
        inside = any(f"{name}/".startswith(f"{part}/") or f"{part}/".startswith(f"{name}/") for part in needed)
        if not inside:
            return
        if isinstance(link, h5py.ExternalLink):
            what = f"an external link to {link.filename!r}"
            raise error("source_link", path=path, item=name, what=what)
        if isinstance(link, h5py.SoftLink):
            what = f"a soft link to {link.path!r}"
            raise error("source_link", path=path, item=name, what=what)
        item = file.get(name)
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            raise error("source_link", path=path, item=name, what="kept outside the file")

    try:
        file.visititems_links(check)
    except (RuntimeError, KeyError) as bad:
        raise unreadable(path, bad) from bad
