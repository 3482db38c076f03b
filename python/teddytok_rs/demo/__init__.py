"""Load 700 human blood cells, and arguments to tokenize them. ``SOURCE.md`` describes their origin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData

    from ..config.args import TokenizationArgs

_FOLDER = Path(__file__).parent
#: The cells, as an .h5ad file.
CELLS = _FOLDER / "cells.h5ad"


def cells() -> AnnData:
    """Read the demo cells into memory.

    Returns
    -------
    700 cells and 765 genes, with log-normalised values in ``layers["processed"]``.
    """
    from anndata import read_h5ad

    return read_h5ad(CELLS)


def args(**keys: object) -> TokenizationArgs:
    """Make arguments for the demo cells: TEDDY's annotations, and the cell type as label.

    Parameters
    ----------
    keys
        Arguments of `TokenizationArgs` that override these.

    Raises
    ------
    ConfigError
        If an argument is unknown or its value is not valid.
    """
    from ..config.args import TokenizationArgs
    from ..config.kinds import ANNOTATIONS

    mappings = {f"{kind}_mapping": _FOLDER / f"{kind}_mapping.json" for kind in ANNOTATIONS}
    fitting = {
        "tokenizer_name_or_path": _FOLDER / "vocabulary",
        "add_cls": True,
        "bio_annotations": True,
        "label_column": "cell_type",
        **mappings,
    }
    return TokenizationArgs.load({**fitting, **keys})
