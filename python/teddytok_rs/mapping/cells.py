"""A source and `cell_filter` in, the cells to tokenize out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors.build import error
from ..errors.text import nearest, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from ..sources.protocol import Source


#: What an expression may ask of a column, beside comparing it.
METHODS = {"str", "isin", "isna", "notna", "contains", "startswith", "endswith", "lower", "upper", "between"}


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
        """Tell which row of the source a cell is."""
        return cell if self.rows is None else int(self.rows[cell])

    def column(self, column: str, key: str) -> pd.Series[Any]:
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
        A boolean obs column, or an expression on obs columns as `pandas.DataFrame.query` takes it; None for all.

    Raises
    ------
    ConfigError
        If it is neither, or gives something else than true or false for each cell.
    DataError
        If it keeps no cell.
    """
    if cell_filter is None:
        return Cells(source)
    if cell_filter in source.obs_columns:
        kept: Any = source.obs_column(cell_filter)
    else:
        kept = _evaluate(source, cell_filter)
    dtype = getattr(kept, "dtype", None)
    if str(dtype) not in {"bool", "boolean"} or len(kept) != source.n_cells or kept.isna().any():
        got = f"it gives {dtype or type(kept).__name__}, not true or false for every cell"
        raise error("cell_filter", cell_filter=cell_filter, source=source.name, reason=got)
    rows = np.flatnonzero(kept.to_numpy(dtype=bool)).astype(np.int64)
    if not rows.size:
        labels = _labels(source, cell_filter)
        raise error("no_cells_kept", cell_filter=cell_filter, n_cells=source.n_cells, source=source.name, labels=labels)
    return Cells(source, None if len(rows) == source.n_cells else rows)


def _refuse_calls(source: Source, expression: str) -> None:
    """Refuse what goes beyond comparing: pandas would call any method, and compute any power, that it is given."""
    import ast

    try:
        tree = ast.parse(expression.replace("`", "_").strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # pandas says better what is wrong with it, or knows how to read it
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr not in METHODS:
            what = f"it uses {node.attr!r}; there are {', '.join(sorted(METHODS))}"
        elif isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute):
            what = "it calls a function"
        elif isinstance(node, ast.Pow | ast.LShift | ast.Lambda | ast.comprehension):
            what = "it does more than compare"
        else:
            continue
        raise error("cell_filter", cell_filter=expression, source=source.name, reason=what)


def _labels(source: Source, expression: str) -> str:
    """List what the columns of text that an expression names hold."""
    held = ""
    for column in source.obs_columns:
        if column in expression:
            labels = source.obs_column(column).dropna().unique()
            if len(labels) and isinstance(labels[0], str):
                held += f"; obs column {column!r} holds {some(labels)}"
    return held


def _evaluate(source: Source, expression: str) -> Any:
    import pandas as pd

    _refuse_calls(source, expression)
    # Only columns whose name the expression holds are read: obs may be wide.
    columns = {column: source.obs_column(column) for column in source.obs_columns if column in expression}
    if not columns:
        reason = (
            f"it names no obs column{nearest(expression, source.obs_columns)}; there are {some(source.obs_columns)}"
        )
        raise error("cell_filter", cell_filter=expression, source=source.name, reason=reason)
    frame = pd.DataFrame({column: series.reset_index(drop=True) for column, series in columns.items()})
    try:
        kept = frame.eval(expression, engine="python", local_dict={}, global_dict={})
    except Exception as bad:  # pandas raises whatever the expression does
        reason = f"{type(bad).__name__}: {' '.join(str(bad).split())}"
    else:
        if not isinstance(kept, pd.DataFrame):
            return kept
        reason = "= sets a column; == compares"
    raise error("cell_filter", cell_filter=expression, source=source.name, reason=reason)
