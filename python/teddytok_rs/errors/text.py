"""Text helpers for messages: lists, counts, sizes, nearest names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def some(names: Iterable[object], limit: int = 5) -> str:
    """Write a list for a message: the first few items, quoted, and how many there are in all."""
    items = [str(name) for name in names]
    text = ", ".join(repr(name) for name in items[:limit]) or "none"
    return f"{text}, ... ({len(items):,} in all)" if len(items) > limit else text


def nearest(name: str, names: Iterable[object]) -> str:
    """Suggest a similar name, in parentheses, if there is one."""
    from difflib import get_close_matches

    close = get_close_matches(name, [str(other) for other in names], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def tally(counts: dict[str, int], limit: int = 5) -> str:
    """Write labels and their counts of cells for a message, the most frequent first."""
    items = [f"{label!r} ({count(n, 'cell')})" for label, n in sorted(counts.items(), key=lambda item: -item[1])]
    return f"{', '.join(items[:limit])}, ... ({len(items):,} in all)" if len(items) > limit else ", ".join(items)


def count(n: int, noun: str) -> str:
    """Write a number and its noun, in the plural where needed."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def os_error_text(exc: OSError) -> str:
    """Write the operating system's reason of an error, to follow a colon."""
    return (exc.strerror or str(exc)).lower()


def size_text(n_bytes: float) -> str:
    """Write a number of bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


class TextRepr(ABC):
    """Give an object a ``repr`` of one screen, and the same as an HTML table in a notebook."""

    @abstractmethod
    def _rows(self) -> tuple[str, list[tuple[str, str]]]:
        """Return a title and the rows below it, each a name and a text."""

    def __repr__(self) -> str:
        title, rows = self._rows()
        width = max((len(name) for name, _ in rows), default=0)
        lines = [title, *(f"  {name:<{width}}  {shortened(text)}" for name, text in rows)]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        title, rows = self._rows()
        cells = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(shortened(text, 400))}</td></tr>"
            for name, text in rows
        )
        return f"<table><caption style='text-align:left'>{escape(title)}</caption>{cells}</table>"


def shortened(text: str, limit: int = 200) -> str:
    """Cut the middle of a long text."""
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 4 :]}"
