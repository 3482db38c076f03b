"""Cells done in; a bar on a terminal or in a notebook, or now and then a line in a log file, out."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds between two lines in a log file; a run that is over by then leaves none.
LINE_SECONDS = 30.0
#: Seconds between two changes of a bar in a notebook, each of which is sent to a browser.
NOTEBOOK_SECONDS = 0.5


@contextmanager
def progress_bar(
    n_cells: int, *, done: int = 0, show: bool | None, doing: str = "tokenizing"
) -> Iterator[Callable[[int], None]]:
    """Show progress while the block runs; gives the function to report cells to.

    Parameters
    ----------
    n_cells, done
        Cells in all, and those that were finished before.
    show
        True for a bar on a terminal or in a notebook, and elsewhere lines on standard error; None for the bar alone;
        False for nothing.
    doing
        What is done to the cells, in a word.
    """
    pace = Pace(n_cells, done, doing)
    if show is False:
        yield lambda _: None
    elif (display := _notebook_display()) is not None:
        with _in_notebook(pace, display) as advance:
            yield advance
    elif _is_terminal():
        with _on_terminal(pace) as advance:
            yield advance
    elif show:
        yield _in_lines(pace)
    else:
        yield lambda _: None


class Pace:
    """How far the work is, how fast it goes and how long it will take."""

    def __init__(self, n_cells: int, done: int, doing: str) -> None:
        self.n_cells, self.done, self.doing = n_cells, done, doing
        self._before, self._began = done, time.monotonic()

    @property
    def speed(self) -> float:
        """Cells a second, of those that were done here."""
        seconds = time.monotonic() - self._began
        return (self.done - self._before) / seconds if seconds > 0 else 0.0

    def __str__(self) -> str:
        share = f"{self.done / self.n_cells:.0%}" if self.n_cells else "100%"
        text = f"{self.doing} {share}, {self.done:,} of {self.n_cells:,}"
        if self.speed <= 0:
            return f"{text} cells"
        return f"{text}, {self.speed:,.0f} cells/s, {_clock((self.n_cells - self.done) / self.speed)} left"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _is_terminal() -> bool:
    """Tell whether standard error is a terminal that lines can be drawn on anew."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def _notebook_display() -> Callable[..., Any] | None:
    """Find the function that shows things in the notebook that this process runs, if it does."""
    ipython = sys.modules.get("IPython")
    if ipython is None or getattr(ipython.get_ipython(), "kernel", None) is None:
        return None
    from IPython.display import display

    return display


@contextmanager
def _on_terminal(pace: Pace) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task
    from rich.table import Column
    from rich.text import Text

    class Words(ProgressColumn):
        def render(self, _task: Task) -> Text:
            return Text(str(pace))

    columns = (BarColumn(None), Words(Column(no_wrap=True)))
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bars:
        task = bars.add_task("", total=pace.n_cells, completed=pace.done)

        def advance(cells: int) -> None:
            pace.done += cells
            bars.advance(task, cells)

        yield advance


@contextmanager
def _in_notebook(pace: Pace, display: Callable[..., Any]) -> Iterator[Callable[[int], None]]:
    """Draw with what every notebook has; widgets would be one more thing to install."""
    handle: Any = None
    shown = time.monotonic()

    def draw() -> None:
        nonlocal handle, shown
        bar = f'<progress value="{pace.done}" max="{max(pace.n_cells, 1)}"></progress>'
        content = {"text/plain": str(pace), "text/html": f"{bar} {pace}"}
        if handle is None:
            handle = display(content, raw=True, display_id=True)
        else:
            handle.update(content, raw=True)
        shown = time.monotonic()

    def advance(cells: int) -> None:
        pace.done += cells
        if time.monotonic() - shown >= NOTEBOOK_SECONDS:
            draw()

    yield advance
    if handle is not None:
        draw()


def _in_lines(pace: Pace) -> Callable[[int], None]:
    said = time.monotonic()

    def advance(cells: int) -> None:
        nonlocal said
        pace.done += cells
        if time.monotonic() - said >= LINE_SECONDS:
            said = time.monotonic()
            sys.stderr.write(f"{pace}\n")
            sys.stderr.flush()

    return advance
