"""Read an AnnData in memory, or a backed one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors.build import error
from ..errors.text import some
from .layers import PREFIX, layer_names
from .limits import reading, unreadable
from .matrix import RowReader
from .stored import open_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from .protocol import CsrChunk, DenseChunk


class AnnDataSource:
    """An AnnData and one of its layers. See `Source`."""

    def __init__(self, adata: AnnData, layer: str) -> None:
        self.name, self.path, self.layer, self.origin = "AnnData", None, layer, adata
        # anndata 0.13 lists X among the layers, under the name None.
        names = [str(name) for name in adata.layers if name is not None]
        self.layers = layer_names(names, has_x=adata.X is not None, has_raw=adata.raw is not None)
        if layer not in self.layers:
            raise error("layer_missing", source=self.name, layer=layer, layers=some(self.layers), names=self.layers)
        self.unreadable: dict[str, str] = {}
        self.warnings: list[str] = []
        self._obs = adata.obs
        matrix, var = _layer(adata, layer)
        with reading(self.name):
            self.var = _in_memory(var)
        # A backed matrix is read as its file is.
        stored = getattr(matrix, "group", None)
        with reading(self.name):
            self._rows = (
                RowReader(matrix, layer, self.name)
                if stored is None
                else open_matrix(stored, layer, self.name, (adata.n_obs, len(self.var)), self.name)
            )
        if not self.var.columns.is_unique:
            raise unreadable(self.name, "var has several columns of one name")
        self.n_cells, self.n_var = self._rows.shape
        self.dtype = self._rows.dtype
        self.obs_columns = [str(column) for column in self._obs.columns]

    def obs_column(self, column: str, start: int = 0, stop: int | None = None) -> pd.Series:
        """See `Source`."""
        import pandas as pd

        keys = [key for key in self._obs.columns if str(key) == column]  # which may be numbers
        if len(keys) > 1:
            raise unreadable(self.name, f"obs has several columns {column!r}")
        with reading(self.name):
            series: pd.Series = self._obs[keys[0]]
            if _is_in_memory(self._obs):
                return series.iloc[start:stop]
            rows: pd.Series = _in_memory(self._obs[keys].iloc[start:stop])[keys[0]]
            declared = series.dtype  # of categories: all, where these rows have their own alone
            return rows.astype(declared) if isinstance(declared, pd.CategoricalDtype) else rows

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

    def sample(self, start: int, stop: int) -> NDArray[np.number]:
        """See `Source`."""
        with reading(self.name):
            return self._rows.sample(start, stop)

    def release(self) -> None:
        """See `Source`; the owner of the AnnData closes its file."""

    def close(self) -> None:
        """See `Source`."""
        self._rows.close()


def _is_in_memory(frame: pd.DataFrame) -> bool:
    """Return whether a data frame is in memory, not one of `anndata.experimental.read_lazy`."""
    return not hasattr(frame, "to_memory")


def _in_memory(frame: pd.DataFrame) -> pd.DataFrame:
    to_memory: Callable[[], pd.DataFrame] | None = getattr(frame, "to_memory", None)
    return frame if to_memory is None else to_memory()


def _layer(adata: AnnData, layer: str) -> tuple[Any, pd.DataFrame]:
    if layer == "raw":
        return adata.raw.X, adata.raw.var
    return (adata.X if layer == "X" else adata.layers[layer.removeprefix(PREFIX)]), adata.var
