"""Open a source of any kind."""

from __future__ import annotations

import logging
import os
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, TeddytokError
from ..errors.build import error, system_error
from .counts import summarize_sample
from .files import closed_on_error
from .layers import AUTO, COUNT_LAYERS, SOMA_COUNT_LAYERS, canonical, layer_place
from .soma_url import is_soma

if TYPE_CHECKING:
    from .protocol import Source, SourceLike


logger = logging.getLogger("teddytok_rs")


def open_source(source: SourceLike, layer: str) -> Source:
    """Open a source.

    Parameters
    ----------
    source
        An AnnData (in memory or backed), the path of an ``.h5ad`` file or a ``.zarr`` store, or the ``soma://`` URL of
        a SOMA query.
    layer
        Name of a layer, ``"X"``, ``"raw"``, or ``"auto"``: the first of raw.X, ``layers["counts"]`` and X (in a SOMA
        measurement: its layers ``raw``, ``counts`` and ``data``) whose values are whole numbers from 0 on, judged by a
        sample of rows. ``layers/NAME`` is the layer of that name, whatever the name.

    Raises
    ------
    ConfigError
        If it is a ``soma://`` URL that is not valid, or its filter cannot be used.
    SourceError
        If it is neither, does not exist, or cannot be read.
    DataError
        If it has no such layer, or the layer holds something else than a matrix of numbers.
    """
    return _open_counts(source) if layer == AUTO else _open_layer(source, canonical(layer))


def open_any_layer(source: SourceLike) -> Source:
    """Open a source for its genes: at X, or at another layer where it has no X. Errors are those of `open_source`."""
    try:
        return _open_layer(source, "X")
    except DataError as exc:
        layers = exc.context.get("names")
        if not isinstance(layers, list) or not layers:
            raise
    return _open_layer(source, layers[0])


def find_counts(source: Source) -> str | None:
    """Name another layer of a source that holds counts, judged by a sample of rows; None where there is none."""
    first = [layer for layer in _count_layers(source.origin) if layer in source.layers]
    for layer in dict.fromkeys([*first, *source.layers]):
        if layer != source.layer:
            with suppress(TeddytokError), closing(_open_layer(source.origin, layer)) as opened:
                values = summarize_sample(opened)  # what cannot be read is not recommended
                if values.n_values and values.are_counts:
                    return layer
    return None


def _is_soma(source: SourceLike) -> bool:
    return isinstance(source, str) and is_soma(source)


def _count_layers(source: SourceLike) -> tuple[str, ...]:
    return SOMA_COUNT_LAYERS if _is_soma(source) else COUNT_LAYERS


def _open_counts(source: SourceLike) -> Source:
    """Open the first layer that holds counts."""
    held, name = [], ""
    for layer in _count_layers(source):
        place = repr(layer) if _is_soma(source) else layer_place(layer)
        try:
            opened = _open_layer(source, layer)
        except DataError as exc:
            if exc.kind not in {"layer_missing", "matrix_type"}:
                raise
            name, got = str(exc.context["source"]), exc.context.get("got")
            held.append(f"{place} does not exist" if got is None else f"{place} holds {got}")
            continue
        with closed_on_error(opened):
            name, values = opened.name, summarize_sample(opened)
        if values.are_counts:
            logger.info("%s: layer = 'auto' takes %s, which holds counts", name, place)
            return opened
        held.append(f"{place} holds {values.describe()}")
        opened.close()
    raise error("no_counts", source=name, held="; ".join(held))


def _open_layer(source: SourceLike, layer: str) -> Source:
    if isinstance(source, str) and is_soma(source):
        from .soma import open_soma

        return open_soma(source, layer)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            exists, is_folder = path.exists(), path.is_dir()
        except OSError as exc:  # a name longer than any, a folder that may not be read
            raise system_error("source_unreadable", exc, path=str(path)) from None
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
