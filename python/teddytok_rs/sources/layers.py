"""Resolve the name of a layer to a matrix of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The layer that holds counts, see `open.open_source`.
AUTO = "auto"
#: Layers that may hold counts, the first choice first, as TEDDY's preprocessing takes raw.X before X; and in a SOMA
#: measurement, where the Census calls counts ``raw``, and ``tiledbsoma.io.from_anndata`` calls X ``data``.
COUNT_LAYERS = ("raw", "counts", "X")
SOMA_COUNT_LAYERS = ("raw", "counts", "data")
#: What a name begins with that is one of ``layers``, whatever else it could mean.
PREFIX = "layers/"
#: Names that mean something else than one of ``layers``.
RESERVED = {"X", "raw", AUTO}


def canonical(layer: str) -> str:
    """Drop the prefix ``layers/`` where the name means the same without it."""
    name = layer.removeprefix(PREFIX)
    return layer if name in RESERVED or name.startswith(PREFIX) else name


def layer_key(layer: str) -> str:
    """Return the path of a layer in a file or store."""
    return {"X": "X", "raw": "raw/X"}.get(layer, f"{PREFIX}{layer.removeprefix(PREFIX)}")


def layer_place(layer: str) -> str:
    """Write where a layer is in an AnnData, for messages."""
    return {"X": "X", "raw": "raw.X"}.get(layer, f"layers[{layer.removeprefix(PREFIX)!r}]")


def layer_names(names: Iterable[str], *, has_x: bool, has_raw: bool) -> list[str]:
    """List the layers of a source by the names that ``layer`` takes."""
    return [*(canonical(f"{PREFIX}{name}") for name in names), *["X"] * has_x, *["raw"] * has_raw]
