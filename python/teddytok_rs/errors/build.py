"""Build the exception of a kind, with its message."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from string import Formatter
from typing import TYPE_CHECKING

from . import TeddytokError
from .catalogue import KINDS
from .text import printable, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What libraries say where memory, or address space, or threads run out.
_NO_MEMORY = (
    "cannot allocate memory", "unable to allocate", "memory allocation failed", "out of memory", "bad_alloc",
    "failed to map segment", "can't start new thread", "can't allocate",
)  # fmt: skip


def error(kind: str, /, **context: object) -> TeddytokError:
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
    if isinstance(reason := context.get("reason"), str):
        context["reason"] = reason.rstrip(".")  # the sentence around it ends with its own full stop
    exception = row.raises(_Message().vformat(f"{row.what} {row.hint}", (), context))
    exception.kind = kind
    exception.context = context
    return exception


def system_error(kind: str, exc: BaseException, /, **context: object) -> TeddytokError:
    """Make the exception of a kind for what the system or a library refused.

    No more memory and no more open files are kinds of their own: whatever was asked for is not to blame.

    Parameters
    ----------
    kind
        A key of `KINDS` whose message names a ``reason``.
    exc
        What was raised.
    context
        The other facts of the message, among them the ``path`` or ``source``.
    """
    if (limit := limit_error(exc, context.get("path") or context.get("source"))) is not None:
        return limit
    return error(kind, reason=reason_of(exc, with_file=False), **context)


def limit_error(exc: BaseException, path: object) -> TeddytokError | None:
    """Make the exception for a limit of the system that stopped work on a path, if known; None for any other error."""
    number = exc.errno if isinstance(exc, OSError) else None
    # Libraries add words of their own to those of the system.
    reason = reason_of(exc, with_file=False) if number is None else os.strerror(number).lower()
    where = "" if path is None else f" to read or write {str(path)!r}"
    if isinstance(exc, MemoryError) or number == errno.ENOMEM or any(words in reason.lower() for words in _NO_MEMORY):
        return error("out_of_memory", where=where, reason=reason)
    if number in {errno.EMFILE, errno.ENFILE} and path is not None:
        return error("too_many_open_files", path=str(path), reason=reason)
    return None


def describe_error(exc: Exception) -> tuple[str, str]:
    """Return the kind and the message of what ended a run: an error of the package, or any other."""
    if isinstance(exc, TeddytokError):
        return exc.kind, str(exc)
    if (limit := limit_error(exc, None)) is not None:
        return limit.kind, str(limit)
    text = " ".join(f"{type(exc).__name__}: {exc}".split()).rstrip(".")
    return "unexpected", f"unexpected error: {text}. Run again with --debug, and please report it."


@contextmanager
def noting(problems: list[TeddytokError]) -> Iterator[None]:
    """Catch an error of the package that the block raises, and append it to a list."""
    try:
        yield
    except TeddytokError as exc:
        problems.append(exc)


class _Message(Formatter):
    """Fill facts into a sentence; text from files stays on one line, printable and short."""

    MAX_LENGTH = 1000

    def convert_field(self, value: object, conversion: str | None) -> object:
        try:
            return super().convert_field(value, conversion)
        except (ValueError, RecursionError):  # Python writes no integer of more than 4,300 digits
            return f"a {type(value).__name__} too long to show"

    def format_field(self, value: object, format_spec: str) -> str:
        text: str = super().format_field(value, format_spec)
        if len(text) > self.MAX_LENGTH:
            text = f"{text[: self.MAX_LENGTH - 100].rstrip()} ... {text[-90:].lstrip()}"
        return printable(text)
