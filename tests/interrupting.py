"""Run a command as a process that obeys Ctrl-C and ends when the test does."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def interruptible(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a command whose standard error is read as text."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_obey, **options) as process:  # noqa: PLW1509
        try:
            yield process
        finally:
            process.kill()


def _obey() -> None:
    """Restore the default action of Ctrl-C: processes started in a shell's background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
