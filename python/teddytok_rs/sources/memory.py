"""An AnnData in, in memory or backed, a `Source` out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ..errors.build import error
from ..errors.text import some
from .limits import reading, unreadable
from .matrix import RowReader
from .stored import open_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from .protocol import CsrChunk, DenseChunk


class AnnDataSource:
    """An AnnData and one of its layers. See `Source`."""

    def __init__(self, adata: AnnData, layer: str) -> None:
        self.name, self.path, self.layer = "AnnData", None, layer
        self._obs = adata.obs
        matrix, self.var = _layer(adata, layer, self.name)
        # A backed matrix is read as the file it lies in is.
        stored = getattr(matrix, "group", None)
        with reading(self.name):
            self._rows = (
                RowReader(matrix, layer, self.name)
                if stored is None
                else open_matrix(stored, layer, self.name, (len(self._obs), len(self.var)), self.name)
            )
        if not self.var.columns.is_unique:
            raise unreadable(self.name, "var has several columns of one name")
        self.n_cells, self.n_var = self._rows.shape
        self.dtype = self._rows.dtype
        self.obs_columns = [str(column) for column in self._obs.columns]

    def obs_column(self, column: str) -> pd.Series[Any]:
        """See `Source`."""
        series: Any = self._obs[column]
        if series.ndim != 1:
            raise unreadable(self.name, f"obs has several columns {column!r}")
        return cast("pd.Series[Any]", series)

    def cell_names(self, start: int = 0, stop: int | None = None) -> Sequence[str]:
        """See `Source`."""
        return [str(name) for name in self._obs.index[start:stop]]

    def cell_name(self, row: int) -> str:
        """See `Source`."""
        return str(self._obs.index[row])

    def rows_within(self, start: int, n_bytes: int, bytes_per_row: int) -> int:
        """See `Source`."""
        return self._rows.rows_within(start, n_bytes, bytes_per_row)

    def read(self, start: int, stop: int) -> CsrChunk | DenseChunk:
        """See `Source`."""
        with reading(self.name):  # a backed AnnData reads its file
            return self._rows.read(start, stop)


def _layer(adata: AnnData, layer: str, source: str) -> tuple[Any, pd.DataFrame]:
    matrix: Any = None
    if layer == "raw":
        if adata.raw is not None:
            return adata.raw.X, adata.raw.var
    elif layer == "X":
        matrix = adata.X
    elif layer in adata.layers:
        matrix = adata.layers[layer]
    if matrix is None:
        # anndata 0.13 lists X among the layers, under the name None.
        layers = [name for name in adata.layers if name is not None]
        layers += ["X"] * (adata.X is not None) + ["raw"] * (adata.raw is not None)
        raise error("layer_missing", source=source, layer=layer, layers=some(layers))
    return matrix, adata.var
