"""Parse an expression on obs columns into steps, by a closed grammar.

Precedence climbing over tokens, with limits of its own: no input is too long or too deep for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, cast

from ...errors.text import nearest, some
from .operations import Step
from .patterns import LabelPattern, PatternError
from .tokens import ALLOWED, FilterError, Token, cut, read_number, read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .operations import Argument, Constant, Keywords

#: Characters of an expression, its operators and methods, and how deep they may lie in one another.
LENGTH, OPERATIONS, DEPTH = 2**20, 1000, 100

#: The methods of a column, and their parameters in pandas' order.
METHODS: dict[str, tuple[str, ...]] = {
    "isin": ("values",),
    "between": ("left", "right", "inclusive"),
    "isna": (),
    "notna": (),
    "str.contains": ("pat", "case", "flags", "na", "regex"),
    "str.startswith": ("pat", "na"),
    "str.endswith": ("pat", "na"),
    "str.lower": (),
    "str.upper": (),
}
#: Parameters that take a constant of one type; the others take anything, and are required, as is ``pat``.
_CONSTANT: dict[str, type] = {"inclusive": str, "pat": str, "case": bool, "flags": int, "na": bool, "regex": bool}
INCLUSIVE = ("both", "neither", "left", "right")
_CONSTANT_TYPES = (bool, int, float, str, type(None))
_REQUIRED = {"values", "left", "right", "pat"}
_NAMES_OF_TYPES = {str: "text in quotes", bool: "True or False", int: "a whole number"}

_COMPARISONS = {"==", "!=", "<", "<=", ">", ">=", "in", "not in"}
#: How tightly an operator binds, as in pandas' `query`.
_BINDING = {
    "or": 1, "|": 1, "and": 2, "&": 2, **dict.fromkeys(_COMPARISONS, 4), "+": 5, "-": 5, "*": 6, "/": 6, "//": 6,
    "%": 6,
}  # fmt: skip
_NOT, _COMPARISON, _SIGN = 3, 4, 7
_OPERATION_OF_BINDING = {1: "logic", 2: "logic", 5: "arithmetic", 6: "arithmetic"}

_WORDS = {"and", "or", "not", "in"}
_CONSTANTS: dict[str, Constant] = {"True": True, "False": False, "None": None, "inf": float("inf"), "Inf": float("inf")}

EXAMPLE = "Name a boolean obs column, or write an expression such as \"tissue == 'blood' and n_genes > 200\""


def parse_expression(expression: str, columns: Sequence[str]) -> list[Step]:
    """Parse an expression into steps, operands first.

    Raises
    ------
    FilterError
        If any part of it is not allowed, or is not one of the columns.
    """
    if len(expression) > LENGTH:
        raise FilterError(f"it is longer than {LENGTH:,} characters", "Make a boolean obs column instead")
    return _Parser(expression, columns).parse()


def quote(name: str) -> str:
    """Write the name of a column as an expression takes it."""
    plain = name.isidentifier() and name not in {*_CONSTANTS, *_WORDS}
    return name if plain else f"`{name.replace('`', '``')}`"


class _Parser:
    """Write the steps of an expression, by precedence climbing."""

    def __init__(self, expression: str, columns: Sequence[str]) -> None:
        self._expression, self._columns, self._known = expression, columns, set(columns)
        self._tokens = cut(expression)
        self._token = next(self._tokens)
        self._following: Token | None = None
        self._steps: list[Step] = []
        self._depth = self._n_operations = 0

    def parse(self) -> list[Step]:
        self._parse_expression(0)
        if self._token.kind != "end":
            self._refuse()
        for step in self._steps:
            if step.operation == "value" and step.argument is None:
                raise FilterError(
                    f"{step.token.shown} is allowed in lists alone", "Find cells without a value by .isna()"
                )
        return self._steps

    # ---- tokens

    def _advance(self) -> Token:
        token = self._token
        if self._following is not None:
            self._token, self._following = self._following, None
        else:
            self._token = next(self._tokens)
        return token

    def _peek(self) -> Token:
        if self._following is None:
            self._following = next(self._tokens, self._token)
        return self._following

    def _is(self, *symbols: str) -> bool:
        return self._token.kind in {"symbol", "name"} and self._token.text in symbols

    def _take(self, symbol: str) -> bool:
        if self._is(symbol):
            self._advance()
            return True
        return False

    def _expect(self, symbol: str) -> None:
        if not self._take(symbol):
            self._refuse()

    def _refuse(self, why: str = "", hint: str = "") -> NoReturn:
        """Refuse the next token."""
        token = self._token
        if token.kind == "end":
            raise FilterError("it ends too early", hint or ALLOWED)
        if not why:
            why = {
                "=": "sets a column; == compares",
                "@": "names a Python variable; write its value",
            }.get(token.text, "is not allowed here")
        raise FilterError(f"{token.shown} {why}", hint or self._backticks(token) or ALLOWED)

    def _backticks(self, token: Token) -> str:
        """Find a column with blanks or dots around a token that is not in backticks."""
        at = token.position - 1
        for column in self._columns:
            around = self._expression[max(0, at - len(column) + 1) : at + len(column)]
            if column in around and not column.isidentifier():
                return f"Write obs column {column!r} in backticks: {quote(column)}"
        return ""

    # ---- grammar

    def _emit(self, operation: str, argument: Argument, n_operands: int, token: Token) -> None:
        self._steps.append(Step(operation, argument, n_operands, token))
        if n_operands:
            self._n_operations += 1
        if self._n_operations > OPERATIONS:
            raise FilterError(f"it has more than {OPERATIONS:,} operators", "Test for many values with .isin([...])")

    def _parse_expression(self, least: int) -> None:
        """Parse operands and the operators between them that bind at least so tightly."""
        self._depth += 1
        if self._depth > DEPTH:
            self._refuse(f"is nested more than {DEPTH} levels deep")
        self._parse_operand(least)
        while True:
            symbol = self._operator()
            binding = _BINDING.get(symbol, -1)
            if binding < least:
                break
            token = self._advance()
            if binding == _COMPARISON:
                self._parse_comparison(symbol, token)
            else:
                self._parse_expression(binding + 1)
                self._emit(_OPERATION_OF_BINDING[binding], symbol, 2, token)
        self._depth -= 1

    def _operator(self) -> str:
        """Read the next operator; of ``not in``, the first word is taken."""
        if self._token.kind not in {"symbol", "name"}:
            return ""
        if self._token.text == "not" and self._peek().text == "in":
            return "not in"
        return self._token.text

    def _parse_comparison(self, symbol: str, first: Token) -> None:
        symbols = [symbol]
        while True:
            if symbol == "not in":
                self._advance()
            self._parse_expression(_COMPARISON + 1)
            symbol = self._operator()
            if symbol not in _COMPARISONS:
                break
            symbols.append(symbol)
            self._advance()
        self._emit("compare", symbols, len(symbols) + 1, first)

    def _parse_operand(self, least: int) -> None:
        token = self._token
        if self._is("not") and least <= _NOT:
            self._advance()
            self._parse_expression(_NOT)
            self._emit("not", "not", 1, token)
        elif self._is("~"):
            self._advance()
            self._parse_expression(_SIGN)
            self._emit("not", "~", 1, token)
        elif self._is("+", "-"):
            self._advance()
            self._parse_expression(_SIGN)
            last = self._steps[-1]
            number = last.argument
            if last.operation == "value" and isinstance(number, int | float) and not isinstance(number, bool):
                self._steps[-1] = last._replace(argument=-number if token.text == "-" else number, token=token)
            else:
                self._emit("sign", token.text, 1, token)
        else:
            self._parse_atom()
            while self._take("."):
                self._parse_method()

    def _parse_atom(self) -> None:
        token = self._token
        if token.kind in {"name", "quoted"}:
            self._parse_name()
        elif token.kind == "number":
            self._advance()
            self._emit("value", read_number(token), 0, token)
        elif token.kind == "text":
            self._advance()
            self._emit("value", read_text(token), 0, token)
        elif self._take("["):
            self._emit("value", self._parse_items("]"), 0, token)
        elif self._take("("):
            mark = len(self._steps)
            if not self._is(")"):
                self._parse_expression(0)
            if self._is(",") or len(self._steps) == mark:
                first = [] if len(self._steps) == mark else [self._constant(mark, token)]
                if first:
                    self._advance()
                self._emit("value", first + self._parse_items(")"), 0, token)
            else:
                self._expect(")")
        else:
            self._refuse()

    def _parse_name(self) -> None:
        token = self._token
        name = token.text if token.kind == "name" else token.text[1:-1].replace("``", "`")
        if token.kind == "name" and name in _WORDS:
            self._refuse()
        if token.kind == "name" and name in _CONSTANTS:
            self._advance()
            self._emit("value", _CONSTANTS[name], 0, token)
            return
        if self._peek().text == "(":
            self._refuse("is a function, and none can be called")
        if name not in self._known:
            there = f"is not an obs column{nearest(name, self._columns)}; there are {some(self._columns)}"
            self._refuse(there, self._backticks(token) or EXAMPLE)
        self._advance()
        self._emit("column", name, 0, token)

    def _parse_items(self, end: str) -> list[Constant]:
        items: list[Constant] = []
        while not self._is(end):
            token, mark = self._token, len(self._steps)
            self._parse_expression(0)
            items.append(self._constant(mark, token))
            if not self._take(","):
                break
        self._expect(end)
        return items

    def _constant(self, mark: int, token: Token, of: tuple[type, ...] = _CONSTANT_TYPES) -> Constant:
        """Take back the steps since a mark, which must be one constant."""
        steps = self._steps[mark:]
        del self._steps[mark:]
        argument = steps[0].argument if len(steps) == 1 and steps[0].operation == "value" else []
        if not isinstance(argument, int | float | str | None) or type(argument) not in of:
            wanted = _NAMES_OF_TYPES[of[0]] if len(of) == 1 else "a number, text in quotes, True or False"
            raise FilterError(f"{token.shown} should be {wanted}")
        return argument

    def _parse_method(self) -> None:
        token = self._token
        name = token.text
        if name == "str" and token.kind == "name":
            self._advance()
            if self._take("["):
                self._parse_index(token)
                return
            self._expect(".")
            name = f"str.{self._token.text}"
        if name not in METHODS:
            self._refuse("is not an allowed method")
        self._advance()
        if not self._is("("):
            self._refuse(f"is in the place of parentheses after .{name}", f"Write .{name}(...)")
        self._advance()
        keywords, n_operands = self._parse_arguments(name)
        self._emit(name, keywords, n_operands + 1, token)

    def _parse_index(self, token: Token) -> None:
        start, mark = self._token, len(self._steps)
        self._parse_expression(0)
        at = self._constant(mark, start, (int,))
        self._expect("]")
        self._emit("str.at", at, 1, token)

    def _parse_arguments(self, method: str) -> tuple[Keywords, int]:
        """Parse the arguments of a method: constants by name, and how many other operands there are."""
        parameters = METHODS[method]
        constants: dict[str, Constant] = {}
        given: list[str] = []
        by_name = False
        while not self._is(")"):
            token = self._token
            by_name = by_name or (token.kind == "name" and self._peek().text == "=")
            parameter = token.text if by_name else "".join(parameters[len(given) : len(given) + 1])
            if parameter not in parameters or parameter in given:
                takes = f"The arguments of .{method} are " if parameters else f"Write .{method}"
                self._refuse(f"is not an argument of .{method}", f"{takes}({', '.join(parameters)})")
            if by_name:
                self._advance()
                self._expect("=")
            given.append(parameter)
            start, mark = self._token, len(self._steps)
            self._parse_expression(0)
            if parameter in _CONSTANT:
                constants[parameter] = self._constant(mark, start, (_CONSTANT[parameter],))
                if parameter == "inclusive" and constants[parameter] not in INCLUSIVE:
                    raise FilterError(f"{start.shown} is not one of {some(INCLUSIVE)}", "Choose one of these")
            if not self._take(","):
                break
        for parameter in parameters:
            if parameter in _REQUIRED and parameter not in given:
                self._refuse(f"comes too early: .{method} needs {parameter}")
        self._expect(")")
        operands = [parameter for parameter in given if parameter not in constants]
        keywords = cast("Keywords", {**constants, "operands": operands})  # each of the type that _CONSTANT says
        if method == "str.contains" and keywords.pop("regex", True):
            flags, case = keywords.pop("flags", 0), keywords.pop("case", True)
            try:
                keywords["pattern"] = LabelPattern.parse(keywords["pat"], flags, ignore_case=not case)
            except PatternError as exc:
                reason = f"pattern {keywords['pat']!r} cannot be searched for ({exc})"
                raise FilterError(
                    reason, "Look-around and backreferences are not supported; regex=False takes it as text"
                ) from None
        return keywords, len(operands)
