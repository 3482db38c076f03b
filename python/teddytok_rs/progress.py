"""Show how many cells are done: a bar on a terminal or in a notebook, lines in a log file."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds between two lines in a log file. A shorter run writes none.
LINE_SECONDS = 30.0
#: Seconds between two updates of a bar. A shorter run shows none.
BAR_SECONDS = 0.5


@contextmanager
def progress_bar(
    n_cells: int, *, done: int = 0, show: bool | None, doing: str = "tokenizing"
) -> Iterator[Callable[[int], None]]:
    """Show progress while the ``with`` block runs.

    Parameters
    ----------
    n_cells, done
        Total number of cells, and number of cells that were already finished.
    show
        True for a bar on a terminal or in a notebook, and lines on standard error elsewhere. None for the bar only.
        False for no output.
    doing
        Label of the bar, such as ``"tokenizing"``.

    Yields
    ------
    A function that takes a number of newly finished cells.
    """
    drawn = _can_draw()
    if show is False or not (show or drawn):
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0  # no monitor thread, which would outlive the bar

    seconds = BAR_SECONDS if drawn else LINE_SECONDS
    place = {"dynamic_ncols": True} if drawn else {"file": _LogFile(), "ncols": 0, "position": 0}
    common: dict[str, object] = {
        "unit": " cells",
        "miniters": 1,
        "mininterval": seconds,
        "delay": seconds,
        "leave": False,
    }
    with Bar(total=n_cells, initial=done, desc=doing, **common, **place) as bar:
        yield bar.update


def write_line(text: str) -> None:
    """Write a line to standard error, above the bar if one is shown."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(printable(text), file=sys.stderr)
    else:
        sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def _can_draw() -> bool:
    """Return whether this process runs a notebook, or standard error is a terminal that can redraw a line."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None:
        return True
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


class _LogFile:
    """Write each state of a bar to standard error as a separate line."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()
