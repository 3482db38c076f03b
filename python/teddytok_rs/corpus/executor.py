"""The shards of a corpus in, as many tasks as an executor's workers need at a time, and their shards noted, out."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ..errors.build import error
from ..output.shard import run_shard

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from ..errors import TeddytokError
    from ..output.manifest import Shard
    from .state import Open, Work

#: Tasks that an executor holds for each of its workers, so that none waits for this process; and where it does not
#: tell how many workers it has.
TASKS_PER_WORKER, TASKS = 4, 256


def do_with(executor: Executor, work: Work, found: list[str], *, fail_fast: bool) -> None:
    """Do the sources with the workers of an executor.

    However it ends, what was written is noted, and what has not begun is cancelled.

    Raises
    ------
    OutputError
        If the executor broke down.
    """
    flight = _Flight(executor, work, fail_fast=fail_fast)
    try:
        for source in found:
            if flight.is_to_stop():
                break
            if not work.is_finished(source) and (opened := work.open(source)) is not None:
                flight.submit(opened)
        flight.land_all()
    finally:
        flight.end()


class _Flight:
    """The tasks that an executor holds: a bounded number of them, and so of open runs."""

    def __init__(self, executor: Executor, work: Work, *, fail_fast: bool) -> None:
        self._executor, self._work, self._fail_fast = executor, work, fail_fast
        n_workers = getattr(executor, "max_workers", None) or getattr(executor, "_max_workers", None)
        self._most = TASKS_PER_WORKER * n_workers if isinstance(n_workers, int) else TASKS
        self._flying: dict[Future[Shard], Open] = {}
        self._landed: SimpleQueue[Future[Shard]] = SimpleQueue()

    def is_to_stop(self) -> bool:
        """Tell whether a failure ends it all."""
        return self._fail_fast and self._work.any_failed

    def submit(self, opened: Open) -> None:
        """Have the executor do the tasks of a run, as it gets to them."""
        for task in opened.run.tasks:
            while len(self._flying) >= self._most:
                self._land()
            if opened.error is not None or self.is_to_stop():
                break
            try:
                future = self._executor.submit(run_shard, task)
            except RuntimeError as bad:  # it is broken, or was shut down
                raise self._broken(bad) from bad
            self._flying[future] = opened
            opened.n_flying += 1
            future.add_done_callback(self._landed.put)
        else:
            opened.all_submitted = True
        self._close_if_done(opened)

    def land_all(self) -> None:
        """Wait for all tasks."""
        while self._flying:
            if self.is_to_stop():
                self._cancel(list(self._flying))
            self._land()

    def end(self) -> None:
        """Cancel what has not begun and note what is done. What is at work ends by itself, and is not waited for."""
        self._cancel(list(self._flying))
        for future, opened in self._flying.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                opened.run.note(future.result())

    def _land(self) -> None:
        """Wait for a task and note its shard."""
        future = self._landed.get()
        opened = self._flying.pop(future)
        opened.n_flying -= 1
        if future.cancelled():
            opened.all_submitted = False
            if opened.error is None and not self.is_to_stop():
                raise self._broken("a task was cancelled")
        elif (bad := future.exception()) is None:
            shard = future.result()
            opened.run.note(shard)
            self._work.bar.advance(shard.rows)
        elif isinstance(bad, BrokenExecutor):
            raise self._broken(bad) from bad
        elif not isinstance(bad, Exception):  # Ctrl-C, which workers get too
            raise bad
        elif opened.error is None:
            opened.error = bad
            self._cancel([other for other, its in self._flying.items() if its is opened])
        self._close_if_done(opened)

    def _close_if_done(self, opened: Open) -> None:
        if not opened.n_flying and (opened.all_submitted or opened.error is not None):
            self._work.close(opened)

    def _cancel(self, futures: list[Future[Shard]]) -> None:
        for future in futures:
            future.cancel()

    def _broken(self, reason: object) -> TeddytokError:
        said = " ".join(str(reason).split()) or type(reason).__name__
        return error("executor_broken", path=str(self._work.folder), reason=said)
