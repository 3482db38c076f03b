"""End a command on SIGTERM and SIGHUP as on Ctrl-C: by an exception, so that whatever is open is closed."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

#: What ends a command in addition to Ctrl-C. Windows has no SIGHUP.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Ended(KeyboardInterrupt):
    """One of these signals came. It is handled wherever Ctrl-C is.

    Attributes
    ----------
    name, exit_code
        Name of the signal, and the exit code that shells know it by.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name, self.exit_code = signal.Signals(number).name, 128 + number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `Ended` in the block where a signal comes; the second one kills the process, as it would without this.

    A signal that is ignored from the start, as with ``nohup``, or that has a handler, stays as it is.
    """
    ours: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        restore()
        raise Ended(number)

    def restore() -> None:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        ours += [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        restore()


@contextmanager
def importing() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C wait while the block imports: as an exception it may be lost there. The other signals kill at once.

    Nothing is open yet, and a library that hangs while it is loaded, as where memory is short, runs no Python. The
    block gets a function that raises for a Ctrl-C that came.
    """
    interrupted = threading.Event()
    on_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)} if on_main_thread else {}
    if before.get(signal.SIGINT) is not signal.default_int_handler:  # it is ignored here, or another's
        before.pop(signal.SIGINT, None)
    for number, handler in list(before.items()):
        if number == signal.SIGINT:
            signal.signal(number, lambda *_: interrupted.set())
        elif getattr(handler, "__module__", None) == __name__:
            signal.signal(number, signal.SIG_DFL)
        else:
            del before[number]

    def raise_if_interrupted() -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt

    try:
        yield raise_if_interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
