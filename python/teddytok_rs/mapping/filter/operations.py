"""Take the steps of a cell filter on obs columns.

Every operation is looked up by its name in a table of this module; no name from an expression ever reaches `getattr`.
Operands are columns (Series with one index), numbers, booleans, text or lists of these. pandas computes the results, so
that they are those of `pandas.DataFrame.query`; which operands fit together is checked first.
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypedDict, TypeGuard

import numpy as np

from .patterns import PatternError
from .tokens import FilterError, Token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

    from .patterns import LabelPattern

#: What an expression writes, and what its operations take and give.
Constant: TypeAlias = bool | int | float | str | None
Operand: TypeAlias = "pd.Series | Constant | list[Constant]"
_Truth: TypeAlias = "pd.Series | bool"

_ARITHMETIC: dict[str, Callable[..., Operand]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv,
    "%": operator.mod,
}  # fmt: skip
_EQUALITY: dict[str, Callable[..., _Truth]] = {"==": operator.eq, "!=": operator.ne}
_ORDER: dict[str, Callable[..., _Truth]] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_LOGIC: dict[str, Callable[..., _Truth]] = {
    "and": operator.and_, "&": operator.and_, "or": operator.or_, "|": operator.or_,
}  # fmt: skip
_LISTS = "Write an obs column and a list, as in tissue in ['blood', 'lung']"
#: A time of day, which pandas takes for one of today, as it does "now" and "today".
_TIME = re.compile(r"\d{1,2}:\d{2}(:[\d.]+)?(\s*[+-]\d{2}:?\d{2})?")
_BOOLEANS = 'Give it comparisons or boolean columns, as in "n_genes > 200 and not is_doublet"'
_NUMBERS = {"number", "boolean"}
#: Text columns that one filter may join by +: each makes all texts longer.
_MAX_JOINS = 10


class Keywords(TypedDict, total=False):
    """The arguments of a method: those that must be constants by name, and the names of the others, its operands."""

    operands: list[str]
    inclusive: str
    pat: str
    pattern: LabelPattern
    case: bool
    flags: int
    na: bool
    regex: bool


Argument: TypeAlias = Constant | list[Constant] | list[str] | Keywords


class Step(NamedTuple):
    """One operation on what the steps before it gave.

    Attributes
    ----------
    operation
        ``"column"``, ``"value"``, ``"arithmetic"``, ``"compare"``, ``"logic"``, ``"not"``, ``"sign"``, ``"at"`` or the
        name of a method.
    argument
        The column's name, the value, the operator (of ``"compare"``, a list of them) or the method's keywords.
    n_operands
        How many results it takes.
    token
        Where it is written.
    """

    operation: str
    argument: Argument
    n_operands: int
    token: Token


class _UnfitError(Exception):
    """Operands do not fit an operation: why not, and what to do."""

    def __init__(self, why: str = "", hint: str = "Use numbers with numbers, and labels with text in quotes") -> None:
        super().__init__(why)
        self.why, self.hint = why, hint


def run_steps(steps: Iterable[Step], read: Callable[[str], pd.Series]) -> pd.Series:
    """Compute the result of an expression.

    Parameters
    ----------
    steps
        Its operations in order, operands first.
    read
        Reads an obs column.

    Raises
    ------
    FilterError
        If the columns do not fit the operations.
    """
    columns: dict[str, pd.Series] = {}
    results: list[Operand] = []
    n_joins = 0
    for step in steps:
        if step.operation == "column":
            name = str(step.argument)
            if name not in columns:
                columns[name] = read(name).reset_index(drop=True)
                columns[name].name = name
            results.append(columns[name])
            continue
        operands = results[len(results) - step.n_operands :]
        del results[len(results) - step.n_operands :]
        try:
            with np.errstate(all="ignore"):
                result = _OPERATIONS[step.operation](step.argument, *operands)
        except _UnfitError as exc:
            raise _refusal(step, operands, exc) from None
        except MemoryError:
            raise
        except Exception as exc:  # pandas raises whatever the values of a column do
            unfit = _UnfitError(f"{type(exc).__name__}: {' '.join(str(exc).split())}".rstrip("."))
            raise _refusal(step, operands, unfit) from None
        if _is_column(result):
            result.name = None
        n_joins += step.operation == "arithmetic" and _kind(operands[0]) == "text"
        if n_joins > _MAX_JOINS:
            raise _refusal(step, operands, _UnfitError(f"more than {_MAX_JOINS} columns of text are joined"))
        results.append(result)
    (result,) = results
    return _column(result)


def _refusal(step: Step, operands: Iterable[Operand], unfit: _UnfitError) -> FilterError:
    on = " and ".join(map(describe, operands))
    why = f" ({unfit.why})" if unfit.why else ""
    return FilterError(f"{step.token.shown} cannot be used on {on}{why}", unfit.hint)


def describe(operand: Operand) -> str:
    """Name an operand in a message."""
    if not _is_column(operand):
        text = repr(operand)
        return f"the {_kind(operand)} {text if len(text) <= 40 else f'{text[:40]}...'}"
    named = "a column" if operand.name is None else f"obs column {operand.name!r}"
    return f"{named} of type {operand.dtype}"


def _is_column(operand: Operand) -> TypeGuard[pd.Series]:
    return hasattr(operand, "dtype")


def _kind(operand: Operand) -> str:
    """Return the kind of an operand: number, boolean, text, list, date, duration, category, nothing or other."""
    import pandas as pd

    if not _is_column(operand):
        return {bool: "boolean", int: "number", float: "number", str: "text", list: "list"}[type(operand)]
    dtype, types = operand.dtype, pd.api.types
    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    for is_kind, kind in (
        (types.is_bool_dtype, "boolean"),
        (types.is_numeric_dtype, "number"),
        (types.is_datetime64_any_dtype, "date"),
        (types.is_timedelta64_dtype, "duration"),
    ):
        if is_kind(dtype):
            return kind
    held = types.infer_dtype(operand, skipna=True)
    return {"string": "text", "boolean": "boolean", "empty": "nothing"}.get(held, "other")


# ---- operators


def _arithmetic(symbol: str, left: Operand, right: Operand) -> Operand:
    kinds = {_kind(left), _kind(right)}
    if not (
        kinds <= _NUMBERS
        or (symbol == "+" and kinds <= {"text", "nothing"} and _is_column(left) and _is_column(right))
        or (symbol in "+-" and kinds <= {"date", "duration"})
    ):
        raise _UnfitError
    return _ARITHMETIC[symbol](left, right)


def _sign(symbol: str, operand: Operand) -> Operand:
    if operand is None or isinstance(operand, str | list) or _kind(operand) not in _NUMBERS:
        raise _UnfitError
    return -operand if symbol == "-" else +operand


def _not(_: str, operand: Operand) -> _Truth:
    if _kind(operand) != "boolean":
        raise _UnfitError("it takes true or false", _BOOLEANS)
    if not _is_column(operand):
        return not operand
    if operand.dtype == object:
        missing = int(operand.isna().sum())
        if missing:
            hint = "Say what they count as, as in str.contains('T cell', na=False)"
            raise _UnfitError(f"{missing:,} of {len(operand):,} cells have no value", hint)
        operand = operand.astype(bool)
    return ~operand


def _logic(symbol: str, left: Operand, right: Operand) -> _Truth:
    if {_kind(left), _kind(right)} - {"nothing"} != {"boolean"}:
        raise _UnfitError("it takes true or false on both sides", _BOOLEANS)
    return _LOGIC[symbol](left, right)


def _compare(symbols: list[str], *operands: Operand) -> _Truth:
    """Compare neighbours, as in ``1 < n < 5``."""
    result = _compare_two(symbols[0], operands[0], operands[1])
    for symbol, left, right in zip(symbols[1:], operands[1:-1], operands[2:], strict=True):
        result = result & _compare_two(symbol, left, right)
    return result


def _compare_two(symbol: str, left: Operand, right: Operand) -> _Truth:
    constants = [operand for operand in (left, right) if not _is_column(operand)]
    if len(constants) == 2 and not {_kind(left), _kind(right)} <= _NUMBERS:
        raise _UnfitError("one side must be a column")
    if symbol in {"in", "not in"}:
        return _is_in(left, right) if symbol == "in" else ~_is_in(left, right)
    if symbol in _EQUALITY:
        if any(isinstance(operand, str | list) for operand in constants):
            return _is_in(left, right) if symbol == "==" else ~_is_in(left, right)
        return _EQUALITY[symbol](_convert(left, right), _convert(right, left))
    _check_order(left, right)
    return _ORDER[symbol](_convert(left, right), _convert(right, left))


def _check_order(left: Operand, right: Operand) -> None:
    import pandas as pd

    kinds = {_kind(left), _kind(right)}
    for operand in (left, right):
        if _is_column(operand) and isinstance(operand.dtype, pd.CategoricalDtype) and not operand.dtype.ordered:
            raise _UnfitError("only ==, != and in compare categories without an order")
    fits = (
        kinds <= _NUMBERS
        or len(kinds) == 1
        or (kinds & {"category", "nothing", "other"} and "list" not in kinds)
        or kinds in ({"date", "text"}, {"date", "number"}, {"duration", "text"})
    )
    if not fits:
        raise _UnfitError


def _is_in(left: Operand, right: Operand) -> pd.Series:
    """Compute which values of a column are in a list; either side may be the column, as in pandas."""
    column, values = (left, right) if _is_column(left) else (right, left)
    if isinstance(values, str):
        values = [values]
    if not _is_column(column) or not (isinstance(values, list) or (_is_column(values) and column is left)):
        raise _UnfitError("it takes a column and a list", _LISTS)
    if isinstance(values, list):
        return column.isin([_convert(value, column) if isinstance(value, str) else value for value in values])
    return column.isin(values)


def _convert(operand: Operand, other: Operand) -> Operand | pd.Timestamp | pd.Timedelta:
    """Turn a constant next to a column of dates or durations into one of these."""
    import pandas as pd

    if isinstance(operand, str | int | float) and not isinstance(operand, bool) and _is_column(other):
        kind = _kind(other)
        if kind == "date":
            date = pd.Timestamp(str(operand))
            if not pd.isna(date) and not re.search(r"\d", _TIME.sub("", str(operand))):
                raise _UnfitError(f"{operand!r} is another day each day", "Write the date, as in '2024-05-31'")
            return date
        if kind == "duration" and isinstance(operand, str):
            return pd.Timedelta(operand)
    return operand


# ---- methods


class _Texts(Protocol):
    """pandas' text methods of a column, as far as an expression uses them."""

    def contains(self, pat: str, *, regex: bool, case: bool = True, na: bool = ...) -> pd.Series: ...
    def startswith(self, pat: str, *, na: bool = ...) -> pd.Series: ...
    def endswith(self, pat: str, *, na: bool = ...) -> pd.Series: ...
    def lower(self) -> pd.Series: ...
    def upper(self) -> pd.Series: ...
    def __getitem__(self, at: int, /) -> pd.Series: ...


def _isin(_: Keywords, column: Operand, values: Operand) -> pd.Series:
    if isinstance(values, str):
        raise _UnfitError("it takes a list", _LISTS)
    return _is_in(_column(column), values)


def _between(keywords: Keywords, column: Operand, *bounds: Operand) -> _Truth:
    bound = dict(zip(keywords["operands"], bounds, strict=True))
    inclusive = keywords.get("inclusive", "both")
    low = ">=" if inclusive in {"both", "left"} else ">"
    high = "<=" if inclusive in {"both", "right"} else "<"
    return _compare_two(low, _column(column), bound["left"]) & _compare_two(high, column, bound["right"])


def _column(operand: Operand) -> pd.Series:
    if not _is_column(operand):
        raise _UnfitError("methods are for columns", "Name an obs column before it")
    return operand


def _texts(operand: Operand) -> _Texts:
    """Get pandas' text methods of a column."""
    try:
        return _column(operand).str
    except AttributeError:
        raise _UnfitError("str is for columns of text", "Compare the column instead") from None


def _contains(keywords: Keywords, column: Operand) -> pd.Series:
    if "pattern" not in keywords:
        return _texts(column).contains(keywords["pat"], regex=False, case=keywords.get("case", True), **_na(keywords))
    # As every text contains "", this is true for texts, and for missing values what pandas makes of them.
    result = _texts(column).contains("", regex=False, **_na(keywords))
    return _search(_column(column), keywords["pattern"], result)


def _search(column: pd.Series, pattern: LabelPattern, result: pd.Series) -> pd.Series:
    """Search each distinct label once, and write into ``result`` what was found where there is text."""
    import pandas as pd

    codes, labels = pd.factorize(column)
    is_text = np.array([isinstance(label, str) for label in labels] + [False])  # the code of a missing value is -1
    try:
        found = pattern.search([label if isinstance(label, str) else "" for label in labels])
    except PatternError as exc:
        raise _UnfitError(str(exc), "Write the pattern in another way") from None
    result[is_text[codes]] = np.append(found, [False])[codes[is_text[codes]]]
    return result


_OPERATIONS: dict[str, Callable[..., Operand]] = {
    "value": lambda value: value,
    "arithmetic": _arithmetic,
    "sign": _sign,
    "not": _not,
    "logic": _logic,
    "compare": _compare,
    "isin": _isin,
    "between": _between,
    "isna": lambda _, column: _column(column).isna(),
    "notna": lambda _, column: _column(column).notna(),
    "str.contains": _contains,
    "str.startswith": lambda keywords, column: _texts(column).startswith(keywords["pat"], **_na(keywords)),
    "str.endswith": lambda keywords, column: _texts(column).endswith(keywords["pat"], **_na(keywords)),
    "str.lower": lambda _, column: _texts(column).lower(),
    "str.upper": lambda _, column: _texts(column).upper(),
    "str.at": lambda at, column: _texts(column)[at],
}


def _na(keywords: Keywords) -> dict[str, bool]:
    return {"na": keywords["na"]} if "na" in keywords else {}
