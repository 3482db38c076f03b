"""Choose cells by an expression on obs columns.

An expression may come from a stranger's configuration. `grammar` parses it: neither pandas' `eval` and `query`
nor Python's parser sees any of it. (`ast` with a list of allowed nodes would not know backticks, would read ``&``
before ``==`` where pandas reads it after, and fails on deep nesting in ways of its own.) The result is a list of steps,
each one of the few operations of `operations`. Columns are read, and the steps taken, only when all of the
expression is known to be allowed.

What is allowed means what `pandas.DataFrame.query` makes of it: ``&`` and ``|`` bind like ``and`` and ``or``, and
``==`` with text or a list asks for membership.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors.text import some
from .grammar import EXAMPLE, parse_expression, quote
from .operations import Step, run_steps
from .tokens import FilterError, Token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True)
class CellFilter:
    """An expression on obs columns, checked.

    Attributes
    ----------
    names
        The obs columns it names.
    steps
        Its operations, operands first.
    """

    names: list[str]
    steps: list[Step]

    @classmethod
    def parse(cls, expression: str, columns: Sequence[str]) -> CellFilter:
        """Parse an expression, or the name of a column.

        Parameters
        ----------
        expression
            What the user wrote.
        columns
            Names of the obs columns.

        Raises
        ------
        FilterError
            If any part of it is not allowed, or is not one of the columns.
        """
        if expression in columns:
            return cls([expression], [Step("column", expression, 0, Token("name", expression, 1))])
        steps = parse_expression(expression, columns)
        names = list(dict.fromkeys(str(step.argument) for step in steps if step.operation == "column"))
        if not names:
            raise FilterError(f"it names no obs column; there are {some(columns)}", EXAMPLE)
        return cls(names, steps)

    def evaluate(self, read: Callable[[str], pd.Series]) -> NDArray[np.bool_]:
        """Compute which cells to keep.

        Parameters
        ----------
        read
            Reads an obs column; called once for each of ``names``.

        Returns
        -------
        Shape (n_cells,).

        Raises
        ------
        FilterError
            If columns are of types that do not fit, or a cell has no value.
        """
        from pandas import CategoricalDtype
        from pandas.api.types import infer_dtype

        result = run_steps(self.steps, read)
        present = result.notna()
        is_boolean = not isinstance(result.dtype, CategoricalDtype) and infer_dtype(result, skipna=True) == "boolean"
        if present.any() and not is_boolean:
            reason = f"it gives values of type {result.dtype}, not true or false"
            raise FilterError(reason, self._as_comparison(result[present].iloc[0]))
        missing = len(result) - int(present.sum())
        if missing:
            known = " and ".join(f"{quote(name)}.notna()" for name in self.names)
            hint = f'Fill the values, or write "{known} and ..." to leave these cells out'
            raise FilterError(f"{missing:,} of {len(result):,} cells have no value", hint)
        return result.to_numpy(dtype=bool)

    def _as_comparison(self, value: object) -> str:
        if len(self.steps) > 1:
            return EXAMPLE
        plain = value.item() if hasattr(value, "item") else value
        return f'Compare it, as in "{quote(self.names[0])} == {plain!r}"'
