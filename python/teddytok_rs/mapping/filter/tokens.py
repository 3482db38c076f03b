"""Cut an expression on obs columns into tokens."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(
    r"""
      (?P<blank>[ \t\r\n\f]+|\#[^\r\n]*)
    | (?P<text>[rRuU]?(?:'''(?:[^\\]|\\.)*?'''|\"""(?:[^\\]|\\.)*?\"""|'(?:[^\\'\r\n]|\\.)*'|"(?:[^\\"\r\n]|\\.)*"))
    | (?P<number>0[xXoObB][0-9a-fA-F_]+|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9][0-9_]*)?)
    | (?P<name>[^\W\d]\w*)
    | (?P<quoted>`(?:[^`]|``)+`)
    | (?P<symbol>[=!<>]=|\*\*|//|<<|>>|[-+*/%<>()\[\],.&|~=@;:^!?{}$\\])
    """,
    re.VERBOSE | re.DOTALL,
)
#: Escapes in text that mean a character; all others stay as they are, as in Python.
_ESCAPE = re.compile(
    r"""\\(?:\n|[\\'"abfnrtv]|[0-3]?[0-7]{1,2}|x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|N\{[^{}]+\}|[xuUN])"""
)
#: The longest number; sums and products of longer ones would take long.
_DIGITS = 100

ALLOWED = (
    "Allowed are obs columns, numbers, text in quotes, True, False, lists of these, + - * / // %, comparisons, in, "
    "and, or, not, and the methods of columns isin, between, isna, notna, str.contains, str.startswith, str.endswith, "
    "str.lower, str.upper"
)


class FilterError(ValueError):
    """What is wrong with an expression, and what to do about it."""

    def __init__(self, reason: str, hint: str = ALLOWED) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


class Token(NamedTuple):
    """A piece of an expression.

    Attributes
    ----------
    kind
        ``"name"``, ``"quoted"`` (a name in backticks), ``"text"``, ``"number"``, ``"symbol"`` or ``"end"``.
    text
        As it is written.
    position
        Number of its first character, from 1.
    """

    kind: str
    text: str
    position: int

    @property
    def shown(self) -> str:
        """Quote it for a message, and say where it is."""
        text = self.text if len(self.text) <= 40 else f"{self.text[:40]}..."
        return f"{text!r} at position {self.position}"


def cut(expression: str) -> Iterator[Token]:
    """Cut an expression into tokens, the last of which is its end.

    Raises
    ------
    FilterError
        At a character that begins no token, when it is reached.
    """
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            opens = expression[at] in {"'", '"', "`"}
            raise FilterError(f"{Token('', expression[at], at + 1).shown} is not {'closed' if opens else 'allowed'}")
        if match.lastgroup != "blank":
            yield Token(str(match.lastgroup), match[0], at + 1)
        at = match.end()
    yield Token("end", "", at + 1)


def read_number(token: Token) -> int | float:
    """Read the number that a token writes, as Python does."""
    text = token.text
    is_float = text[:2].lower() not in {"0x", "0b", "0o"} and any(mark in text for mark in ".eE")
    try:
        number = float(text) if is_float else int(text[: _DIGITS + 1], 0)
    except ValueError:
        number = None
    if number is None or len(text) > _DIGITS:
        raise FilterError(f"{token.shown} is not a valid number")
    return number


def read_text(token: Token) -> str:
    """Read the text that a token writes in quotes, as Python does."""
    prefix, text = token.text[:1], token.text.lstrip("rRuU")
    quotes = 3 if text[:3] in {"'''", '"""'} and len(text) >= 6 else 1
    text = text[quotes:-quotes]
    if prefix in {"r", "R"}:
        return text
    try:
        return _ESCAPE.sub(lambda escape: codecs.decode(escape[0], "unicode_escape"), text)
    except UnicodeDecodeError:
        raise FilterError(f"{token.shown} holds an escape of no character", r"Write \\ for a backslash") from None
