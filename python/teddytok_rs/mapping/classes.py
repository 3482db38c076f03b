"""Number the classes of the labels in an obs column."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.files import DocumentError, read_document
from ..errors.build import error
from ..errors.text import some
from .cells import Cells, check_column, column_type_error, refuse_mixed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..sources.protocol import Source


@dataclass(frozen=True)
class Classes:
    """The classes of an obs column of one source.

    Attributes
    ----------
    names
        The declared categories of a categorical, otherwise the values that occur; of all cells, whatever
        ``cell_filter`` keeps.
    is_ordered
        Whether the names have an order of their own.
    are_numbers
        Whether the names are written numbers.
    """

    names: tuple[str, ...]
    is_ordered: bool = False
    are_numbers: bool = False


def find_classes(source: Source, column: str) -> Classes | None:
    """Find the classes of an obs column; None where it holds numbers or booleans, which are labels as they are.

    Raises
    ------
    DataError
        If there is no such column, or it holds values that cannot be classes.
    """
    import pandas as pd

    check_column(source, column, "label_column")
    cells = Cells(source)
    series = cells.read(column, 0, 0)
    if isinstance(series.dtype, pd.CategoricalDtype):
        categories = series.cat.categories
        try:
            sorted(categories)
        except TypeError:
            raise column_type_error(source, column, "label_column", "categories of several types") from None
        are_numbers = pd.api.types.is_numeric_dtype(categories.dtype) and not pd.api.types.is_bool_dtype(categories)
        return Classes(tuple(map(str, categories)), bool(series.cat.ordered), bool(are_numbers))
    if pd.api.types.is_string_dtype(series.dtype) or series.dtype == object:
        names: set[str] = set()
        for span in cells.spans():
            series = cells.read(column, *span)
            refuse_mixed(source, series, column, "label_column")
            names.update(series.dropna().unique())
        return Classes(tuple(sorted(names)))
    return None


def number_classes(found: Iterable[Classes], column: str, known: Sequence[str] = ()) -> tuple[str, ...]:
    """List the names of all classes by their numbers: those that have one already, then the others, sorted.

    Ordered categoricals keep their order. The order of the sources does not matter.

    Parameters
    ----------
    found
        The classes of each source.
    column
        The obs column, for messages.
    known
        Names that have their numbers already.

    Raises
    ------
    ConfigError
        If ordered categoricals contradict each other.
    """
    found = list(found)
    key: Callable[[str], object] = _number if all(classes.are_numbers for classes in found) else str
    new = {name for classes in found for name in classes.names}.difference(known)
    before: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(new, ()))
    for classes in found:
        if classes.is_ordered:
            for name, following in pairwise(name for name in classes.names if name in new):
                before.add(following, name)
    try:
        before.prepare()
    except CycleError as exc:
        problem = f"obs column {column!r} has categories in another order in another source: {some(exc.args[1])}"
        raise error("config_conflict", where="", problem=problem, advice="Set label_names to one list") from None
    waiting: list[tuple[object, str]] = []
    names = list(known)
    while before.is_active():
        for name in before.get_ready():
            heappush(waiting, (key(name), name))
        names.append(heappop(waiting)[1])
        before.done(names[-1])
    return tuple(names)


def _number(name: str) -> int | float:
    return int(name) if name.removeprefix("-").isdecimal() else float(name)


def read_label_names(label_names: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Read the names that ``label_names`` fixes: a list of them, or the path of a JSON file with one.

    Raises
    ------
    ConfigError
        If the file cannot be read or holds something else.
    """
    if not isinstance(label_names, str):
        return label_names
    reason = "a name occurs twice"
    try:
        names = read_document(Path(label_names))
    except DocumentError as exc:
        raise error("label_names", file=label_names, reason=exc) from None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        reason = "it holds something else than a list of names"
    elif len(set(names)) == len(names):
        return tuple(names)
    raise error("label_names", file=label_names, reason=reason)
