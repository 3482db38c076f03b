"""Open a source of any kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors.build import error
from .soma_url import is_soma

if TYPE_CHECKING:
    from .protocol import Source, SourceLike


def open_source(source: SourceLike, layer: str) -> Source:
    """Open a source.

    Parameters
    ----------
    source
        An AnnData (in memory or backed), the path of an ``.h5ad`` file or a ``.zarr`` store, or the ``soma://`` URL of
        a SOMA query.
    layer
        Name of a layer, ``"X"`` or ``"raw"``.

    Raises
    ------
    ConfigError
        If it is a ``soma://`` URL that is not well spelt, or its filter cannot be used.
    SourceError
        If it is neither, does not exist, or cannot be read.
    DataError
        If it has no such layer, or the layer holds something else than a matrix of numbers.
    """
    if isinstance(source, str) and is_soma(source):
        from .soma import open_soma

        return open_soma(source, layer)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            exists, is_folder = path.exists(), path.is_dir()
        except OSError as bad:  # a name longer than any, a folder that may not be read
            raise error("source_unreadable", path=str(path), reason=(bad.strerror or str(bad)).lower()) from None
        if not exists:
            raise error("source_not_found", path=str(path))
        if is_folder:
            from .zarr import open_zarr

            return open_zarr(path, layer)
        from .h5ad import open_h5ad

        return open_h5ad(path, layer)

    from anndata import AnnData

    if isinstance(source, AnnData):
        from .memory import AnnDataSource

        return AnnDataSource(source, layer)
    raise error("source_type", got=f"a {type(source).__name__}")
