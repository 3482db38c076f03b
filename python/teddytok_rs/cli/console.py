"""Print results as text or as one JSON document, and log to standard error."""

from __future__ import annotations

import json
import logging
import math
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING

import click

from ..errors.text import printable, printable_json
from ..progress import write_line
from .options import debug_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

logger = logging.getLogger("teddytok_rs")


def write(text: str = "", *, err: bool = False) -> None:
    """Print text, of one line or several, with escapes for what a terminal would obey. All commands print by this."""
    click.echo(printable(text, keep="\n\t"), err=err)


def write_traceback(exc: BaseException) -> None:
    """Print where an error was raised, and the exception of a library that it came from."""
    exc.__suppress_context__ = False
    write("".join(traceback.format_exception(exc)).rstrip(), err=True)


@dataclass(frozen=True)
class Console:
    """The output of a command: text or JSON on standard output, and problems on standard error.

    Attributes
    ----------
    quiet
        Show only errors and problems, on standard error.
    as_json
        Results are one JSON document on standard output, with nothing else there.
    debug
        Show the traceback of an error.
    """

    quiet: bool
    as_json: bool
    debug: bool

    @property
    def progress(self) -> bool:
        """Value for the argument ``progress`` of the package's functions."""
        return not self.quiet

    def print_text(self, text: str = "") -> None:
        """Print text, unless the output is quiet or JSON."""
        if not self.quiet and not self.as_json:
            write(text)

    def warn(self, problem: str) -> None:
        """Print a problem of a result to standard error, where the result itself is not shown."""
        if self.quiet and not self.as_json:
            write(f"teddytok: {' '.join(problem.split())}", err=True)

    def print_json(self, document: Mapping[str, object]) -> None:
        """Print a result as JSON, if JSON is requested."""
        if self.as_json:
            write(as_json(document))


def as_json(document: object) -> str:
    """Write a document, whatever is in it; what JSON has no number for becomes null, and other things text."""
    return printable_json(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(thing: object) -> object:
    if isinstance(thing, dict):
        return {str(key): _plain(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple | set):
        return [_plain(value) for value in thing]
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else None
    return thing if thing is None or isinstance(thing, str | int) else str(thing)


def console_options(*, json_option: bool = True) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Add the options -v, -q, --json and --debug to a command, and pass a `Console` to its function."""

    def decorate(command: Callable[..., object]) -> Callable[..., object]:
        @wraps(command)
        def call_command(
            *arguments: object, verbose: int, quiet: bool, debug: bool, as_json: bool = False, **options: object
        ) -> object:
            with _logging_to_stderr(verbose, quiet=quiet):
                return command(*arguments, console=Console(quiet, as_json, debug), **options)

        json_flag = click.option(
            "--json", "as_json", is_flag=True, help="Print the result, or the error, as one JSON document."
        )
        verbose = click.option("--verbose", "-v", count=True, help="Log what is done to standard error; -vv for more.")
        quiet = click.option("--quiet", "-q", is_flag=True, help="Show only errors and problems.")
        decorated = verbose(quiet(debug_option(call_command)))
        return json_flag(decorated) if json_option else decorated

    return decorate


class _Lines(logging.Handler):
    """Write a line for each record, above a progress bar if one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        level = {logging.WARNING: "warning: ", logging.ERROR: ""}.get(record.levelno, f"{time.strftime('%H:%M:%S')} ")
        text = " ".join(record.getMessage().split())
        write_line(f"teddytok: {level}{text}")


@contextmanager
def _logging_to_stderr(verbose: int, *, quiet: bool) -> Iterator[None]:
    levels = [logging.WARNING, logging.INFO, logging.DEBUG]
    before, handler = logger.level, _Lines()
    logger.setLevel(logging.ERROR if quiet else levels[min(verbose, 2)])
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
