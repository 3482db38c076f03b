"""Choose the cells of a source that are tokenized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors.build import error
from ..errors.text import nearest, some
from .filter.cell_filter import CellFilter
from .filter.tokens import FilterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from ..sources.protocol import Source


@dataclass(frozen=True)
class Cells:
    """The cells of a source that are tokenized, in its order.

    Attributes
    ----------
    source
        Where they come from.
    rows
        Shape (n_cells,), int64: the row of each in the source; None where all are kept.
    """

    source: Source
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.source.n_cells if self.rows is None else len(self.rows)

    def source_row(self, cell: int) -> int:
        """Return the row of the source that is a cell."""
        return cell if self.rows is None else int(self.rows[cell])

    def column(self, column: str, key: str) -> pd.Series:
        """Read an obs column, which the argument ``key`` names.

        Raises
        ------
        DataError
            If there is none of that name.
        """
        if column not in self.source.obs_columns:
            there = self.source.obs_columns
            facts = {"source": self.source.name, "column": column, "key": key, "columns": some(there)}
            raise error("obs_column_missing", nearest=nearest(column, there), **facts)
        series = self.source.obs_column(column)
        return series if self.rows is None else series.iloc[self.rows]

    def names(self) -> Sequence[str]:
        """Read the names of the cells."""
        names = self.source.cell_names()
        return names if self.rows is None else [names[row] for row in self.rows]


def filter_cells(source: Source, cell_filter: str | None) -> Cells:
    """Choose the cells of a source.

    Parameters
    ----------
    source
        The source.
    cell_filter
        A boolean obs column, or an expression on obs columns (see `cell_filter`); None for all.

    Raises
    ------
    ConfigError
        If it is neither, or gives something else than true or false for each cell.
    DataError
        If it keeps no cell.
    """
    if cell_filter is None:
        return Cells(source)
    try:
        chosen = CellFilter.parse(cell_filter, source.obs_columns)
        kept = chosen.evaluate(source.obs_column)
    except FilterError as bad:
        facts = {"source": source.name, "reason": bad.reason, "hint": bad.hint}
        raise error("cell_filter", cell_filter=cell_filter, **facts) from None
    rows = np.flatnonzero(kept).astype(np.int64)
    if not rows.size:
        labels = _labels(source, chosen.names)
        raise error("no_cells_kept", cell_filter=cell_filter, n_cells=source.n_cells, source=source.name, labels=labels)
    return Cells(source, None if len(rows) == source.n_cells else rows)


def _labels(source: Source, columns: list[str]) -> str:
    """List what those of some columns that are of text hold."""
    held = ""
    for column in columns:
        labels = source.obs_column(column).dropna().unique()
        if len(labels) and isinstance(labels[0], str):
            held += f"; obs column {column!r} holds {some(labels)}"
    return held
