"""The shape that every error of the package must have, as a context manager."""

from __future__ import annotations

import os
import pickle
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from teddytok_rs import TeddytokError
from teddytok_rs.errors.catalogue import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Names the file to which each kind is added that a test raised; see `conftest.py`.
RAISED = "TEDDYTOK_RAISED_KINDS"
#: What a message quotes.
QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
#: A field of a template that was never filled, as in "no layer {layer!r}".
UNFILLED = re.compile(r"\{[a-z_]\w*(![rsa])?(:[^{}]*)?\}")


@contextmanager
def raises(kind: str, /, *fragments: str) -> Iterator[pytest.ExceptionInfo[TeddytokError]]:
    """Expect the error of a kind, well made and with these fragments in its message."""
    with pytest.raises(TeddytokError) as caught:
        yield caught
    error, message = caught.value, str(caught.value)
    assert error.kind == kind, message
    assert type(error) is KINDS[kind].raises
    for fragment in fragments:
        assert fragment in message, f"{fragment!r} is not in {message!r}"
    check_message(message)
    assert error.context or "{" not in KINDS[kind].what + KINDS[kind].hint
    error.__cause__ = error.__context__ = None  # as `run_shard` does; Dask, where it is imported, would pickle them too
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.kind, str(copy)) == (type(error), kind, message)
    assert repr(copy.context) == repr(error.context)
    for name, fact in error.context.items():
        assert not isinstance(fact, BaseException), f"context[{name!r}] is an exception, not a fact"
    if RAISED in os.environ:
        # A child that may not write, or not so much, says nothing; such kinds are raised elsewhere too.
        with suppress(OSError), open(os.environ[RAISED], "a", encoding="utf-8") as file:  # noqa: PTH123 -- one write, also of a child
            file.write(f"{kind}\n")


def check_message(message: str) -> None:
    """One line of whole sentences with all facts filled in."""
    assert message.endswith("."), message
    assert not UNFILLED.search(message), message
    assert "\n" not in message, message
    words = QUOTED.sub("''", message)  # what is quoted is the user's
    assert "  " not in words, message
    assert not re.search(r"(?<!\.)\.\.( |$)|[?!;:]\.( |$)|\. \.", words), message
