"""A kind of trouble and its facts in, an exception with one clear message out."""

from __future__ import annotations

from contextlib import contextmanager
from string import Formatter
from typing import TYPE_CHECKING, Any

from .errors import TeddytokError
from .kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator


def error(kind: str, /, **context: Any) -> TeddytokError:
    """Make the exception of a kind.

    Parameters
    ----------
    kind
        A key of `KINDS`.
    context
        The facts that the kind's message names.

    Returns
    -------
    The exception, ready to be raised, with ``kind`` and ``context`` set.
    """
    row = KINDS[kind]
    context = {name: str(fact) if isinstance(fact, BaseException) else fact for name, fact in context.items()}
    if isinstance(context.get("reason"), str):
        context["reason"] = context["reason"].rstrip(".")  # the sentence around it has a full stop of its own
    exception = row.raises(_Message().vformat(f"{row.what} {row.mend}", (), context))
    exception.kind = kind
    exception.context = context
    return exception


@contextmanager
def noting(problems: list[TeddytokError]) -> Iterator[None]:
    """Put an error of the package that ends the block into a list, and go on after it."""
    try:
        yield
    except TeddytokError as bad:
        problems.append(bad)


class _Message(Formatter):
    """Fills facts into a sentence; what strangers wrote in them stays on one line, printable and short."""

    MOST = 1000

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        try:
            return super().convert_field(value, conversion)
        except (ValueError, RecursionError):  # Python writes no integer of more than 4,300 digits
            return f"a {type(value).__name__} too long to show"

    def format_field(self, value: Any, format_spec: str) -> str:
        text: str = super().format_field(value, format_spec)
        if len(text) > self.MOST:
            text = f"{text[: self.MOST - 100].rstrip()} ... {text[-90:].lstrip()}"
        if not text.isprintable():
            text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        return text


def some(names: Any, limit: int = 5) -> str:
    """Write a list for a message: the first few items, quoted, and how many there are in all."""
    items = [str(name) for name in names]
    text = ", ".join(repr(name) for name in items[:limit]) or "none"
    return f"{text}, ... ({len(items):,} in all)" if len(items) > limit else text


def nearest(name: str, names: Any) -> str:
    """Ask whether another name was meant, in parentheses, if one is like it."""
    from difflib import get_close_matches

    close = get_close_matches(name, [str(other) for other in names], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def tally(counts: dict[str, int], limit: int = 5) -> str:
    """Write labels and their numbers of cells for a message, the most frequent first."""
    items = [f"{label!r} ({count(n, 'cell')})" for label, n in sorted(counts.items(), key=lambda item: -item[1])]
    return f"{', '.join(items[:limit])}, ... ({len(items):,} in all)" if len(items) > limit else ", ".join(items)


def count(n: int, noun: str) -> str:
    """Write a number of things."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
