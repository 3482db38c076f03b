"""Choose the cells of a source that are tokenized, and read their ``obs`` in parts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..errors.build import error
from ..errors.text import nearest, some
from .filter.cell_filter import CellFilter
from .filter.tokens import FilterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from ..errors import TeddytokError
    from ..sources.protocol import Source


#: Rows of an obs column that are read together: enough that a read costs little a row, few enough to be small.
#: The checksum of obs in the manifest of a larger dataset depends on it.
PART_ROWS = 2**13
#: Parts of each column that are kept: threads that work on neighbouring cells need two.
KEPT_PARTS = 2


class Parts:
    """The parts of obs columns that were read last."""

    def __init__(self) -> None:
        self._kept: dict[str | None, OrderedDict[int, pd.Series]] = {}
        self._lock = threading.Lock()

    def get(self, column: str | None, number: int, read: Callable[[], pd.Series]) -> pd.Series:
        """Return a part of a column, which ``read`` reads where it is not kept."""
        with self._lock:
            kept = self._kept.setdefault(column, OrderedDict())
            if number not in kept:
                kept[number] = read()
                if len(kept) > KEPT_PARTS:
                    kept.popitem(last=False)
            kept.move_to_end(number)
            return kept[number]


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
    _parts: Parts = field(default_factory=Parts, repr=False, compare=False)

    def __len__(self) -> int:
        return self.source.n_cells if self.rows is None else len(self.rows)

    def source_row(self, cell: int) -> int:
        """Return the row of the source that is a cell."""
        return cell if self.rows is None else int(self.rows[cell])

    def spans(self) -> Iterator[tuple[int, int]]:
        """Cut the cells into spans of which obs is read in one part; an empty one where there is no cell."""
        starts = np.arange(0, self.source.n_cells, PART_ROWS)
        if self.rows is not None:
            starts = np.unique(np.searchsorted(self.rows, starts))
            starts = starts[starts < len(self)]
        ends = [*starts.tolist()[1:], len(self)]
        yield from zip(starts.tolist(), ends, strict=True) if len(self) else [(0, 0)]

    def read(self, column: str, start: int, stop: int) -> pd.Series:
        """Read an obs column for cells ``start`` to ``stop``."""
        return self._read(column, start, stop)

    def read_names(self, start: int, stop: int) -> list[str]:
        """Read the names of cells ``start`` to ``stop``."""
        return self._read(None, start, stop).tolist()

    def _read(self, column: str | None, start: int, stop: int) -> pd.Series:
        import pandas as pd

        if start >= stop:
            return self._read_part(column, 0, 0)
        first, last = self.source_row(start) // PART_ROWS, self.source_row(stop - 1) // PART_ROWS
        read = []
        for number in range(first, last + 1):
            low, high = number * PART_ROWS, (number + 1) * PART_ROWS
            places: slice | NDArray[np.int64] = slice(max(start, low) - low, min(stop, high) - low)
            if self.rows is not None:
                within = np.searchsorted(self.rows[start:stop], [low, high]) + start
                places = self.rows[slice(*within)] - low
                if not len(places):
                    continue
            part = self._parts.get(column, number, partial(self._read_part, column, low, high))
            read.append(part.iloc[places])
        return read[0] if len(read) == 1 else pd.concat(read)

    def _read_part(self, column: str | None, start: int, stop: int) -> pd.Series:
        import pandas as pd

        stop = min(stop, self.source.n_cells)
        if column is not None:
            return self.source.obs_column(column, start, stop)
        return pd.Series(self.source.cell_names(start, stop), dtype=object)


def check_column(source: Source, column: str, key: str) -> None:
    """Check that a source has an obs column, which the argument ``key`` names.

    Raises
    ------
    DataError
        If there is none of that name.
    """
    if column not in source.obs_columns:
        facts = {"source": source.name, "column": column, "key": key, "columns": some(source.obs_columns)}
        raise error("obs_column_missing", nearest=nearest(column, source.obs_columns), **facts)


def refuse_mixed(source: Source, series: pd.Series, column: str, key: str) -> None:
    """Refuse a column of Python objects that are not all strings, some of which may be missing."""
    types = {type(value).__name__ for value in series.dropna()} - {"str"}
    if types:
        raise column_type_error(source, column, key, f"Python objects ({', '.join(sorted(types))})")


def column_type_error(source: Source, column: str, key: str, got: str) -> TeddytokError:
    """Return the error that an obs column holds what the argument ``key`` cannot use."""
    return error("obs_column_type", column=column, source=source.name, got=got, key=key)


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
        kept = _evaluate(chosen, Cells(source))
    except FilterError as exc:
        facts = {"source": source.name, "reason": exc.reason, "hint": exc.hint}
        raise error("cell_filter", cell_filter=cell_filter, **facts) from None
    rows = np.flatnonzero(kept).astype(np.int64)
    if not rows.size:
        labels = _labels(source, chosen.names)
        raise error("no_cells_kept", cell_filter=cell_filter, n_cells=source.n_cells, source=source.name, labels=labels)
    return Cells(source, None if len(rows) == source.n_cells else rows)


def _evaluate(chosen: CellFilter, cells: Cells) -> NDArray[np.bool_]:
    """Evaluate a filter on all cells, a part at a time.

    Where that fails the whole columns decide: what they hold, and how many cells have no value.
    """
    try:
        parts = [chosen.evaluate(partial(cells.read, start=start, stop=stop)) for start, stop in cells.spans()]
    except FilterError:
        return chosen.evaluate(cells.source.obs_column)
    return np.concatenate(parts)


def _labels(source: Source, columns: list[str]) -> str:
    """List what those of some columns that are of text hold."""
    held = ""
    for column in columns:
        labels = source.obs_column(column).dropna().unique()
        if len(labels) and isinstance(labels[0], str):
            held += f"; obs column {column!r} holds {some(labels)}"
    return held
