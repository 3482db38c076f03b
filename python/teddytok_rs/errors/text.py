"""Write parts of messages: lists, counts, sizes, nearest names, escaped characters."""

from __future__ import annotations

import json
import logging
import re
from abc import ABC, abstractmethod
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What may need an escape: all but the printable characters of ASCII. `str.isprintable` decides.
_UNUSUAL = re.compile(r"[^ -~]")


def printable(text: str, keep: str = "") -> str:
    """Escape what a terminal would obey and not show: control characters, changes of direction, half surrogates.

    ``keep`` lists those that stay, such as the line breaks of a text of several lines.
    """

    def escaped(found: re.Match[str]) -> str:
        character = found[0]
        if character.isprintable() or character in keep:
            return character
        return character.encode("unicode_escape").decode()

    return _UNUSUAL.sub(escaped, text)


def printable_json(text: str) -> str:
    """Escape the same characters in a JSON text, as JSON spells them."""
    return _UNUSUAL.sub(
        lambda found: found[0] if found[0].isprintable() or found[0] == "\n" else json.dumps(found[0])[1:-1], text
    )


def _make_printable(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage()), None
    return True


# Log handlers print what the package logs: file names and labels must not reach a terminal unescaped.
logging.getLogger("teddytok_rs").addFilter(_make_printable)


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


def reason_of(exc: BaseException, *, with_file: bool = True) -> str:
    """Write the reason that an exception gives, on one line, to follow a colon; and the file that the system names."""
    text = os_error_text(exc) if isinstance(exc, OSError) else str(exc)
    if with_file and isinstance(exc, OSError) and exc.strerror and isinstance(exc.filename, str):
        text = f"{text}: {PurePath(exc.filename).name!r}"
    return " ".join(text.split()).rstrip(".") or type(exc).__name__


def size_text(n_bytes: float) -> str:
    """Write a number of bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


#: A name and a text each.
Rows: TypeAlias = list[tuple[str, str]]
#: Maximum number of rows, and of characters in a line, of the repr of an object.
ROWS, WIDTH = 18, 100


class TextRepr(ABC):
    """Add a ``repr`` of one screen to a class, and the same as an HTML table for notebooks."""

    @abstractmethod
    def _rows(self) -> tuple[str, Rows]:
        """Return a title, and the rows below it."""

    def __repr__(self) -> str:
        title, rows = self._rows()
        rows = _first(rows)
        width = max((len(name) for name, _ in rows), default=0)
        lines = [shortened(title, WIDTH)]
        lines += [f"  {name:<{width}}  {shortened(text, WIDTH - width - 4)}".rstrip() for name, text in rows]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        title, rows = self._rows()
        cells = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(shortened(text, 4 * WIDTH))}</td></tr>"
            for name, text in _first(rows)
        )
        return f"<table><caption style='text-align:left'>{escape(shortened(title, 4 * WIDTH))}</caption>{cells}</table>"


def _first(rows: Rows) -> Rows:
    """Shorten the names of rows, and say how many are left out."""
    shown = rows if len(rows) <= ROWS else [*rows[: ROWS - 1], ("...", f"{len(rows) - ROWS + 1:,} more")]
    return [(shortened(name, WIDTH // 3), text) for name, text in shown]


def shortened(text: str, limit: int) -> str:
    """Cut the middle of a long text, and keep it on one line."""
    text = printable(text.replace("\xa0", " "))
    if len(text) > limit:
        text = f"{text[: limit * 2 // 3 - 5]} ... {text[-limit // 3 :]}"
    return text
