"""Submit the shards of a corpus to an executor, a bounded number at a time, and note what its workers wrote."""

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
    from .state import CorpusRun, OpenRun

#: Pending tasks for each worker of an executor, so that no worker waits for this process; and the number where the
#: executor does not say how many workers it has.
TASKS_PER_WORKER, TASKS = 4, 256


def run_on_executor(executor: Executor, corpus_run: CorpusRun, sources: list[str], *, fail_fast: bool) -> None:
    """Tokenize the sources with the workers of an executor.

    However it ends, shards that were written are noted, and tasks that have not started are cancelled.

    Raises
    ------
    OutputError
        If the executor is broken.
    """
    pending = _PendingTasks(executor, corpus_run, fail_fast=fail_fast)
    try:
        for source in sources:
            if pending.should_stop():
                break
            if (opened := corpus_run.open(source)) is not None:
                pending.submit(opened)
        pending.wait_all()
    finally:
        pending.end()


class _PendingTasks:
    """Hold the tasks submitted to an executor: a bounded number, and so a bounded number of open runs."""

    def __init__(self, executor: Executor, corpus_run: CorpusRun, *, fail_fast: bool) -> None:
        self._executor, self._work, self._fail_fast = executor, corpus_run, fail_fast
        n_workers = getattr(executor, "max_workers", None) or getattr(executor, "_max_workers", None)
        self._limit = TASKS_PER_WORKER * n_workers if isinstance(n_workers, int) else TASKS
        self._pending: dict[Future[Shard], OpenRun] = {}
        self._done: SimpleQueue[Future[Shard]] = SimpleQueue()

    def should_stop(self) -> bool:
        """Return whether a failure ends the whole call."""
        return self._fail_fast and self._work.any_failed

    def submit(self, opened: OpenRun) -> None:
        """Submit the tasks of a run; wait while too many are pending."""
        for task in opened.run.tasks:
            while len(self._pending) >= self._limit:
                self._wait()
            if opened.error is not None or self.should_stop():
                break
            try:
                future = self._executor.submit(run_shard, task)
            except RuntimeError as exc:  # it is broken, or was shut down
                raise self._executor_error(exc) from None
            self._pending[future] = opened
            opened.n_pending += 1
            future.add_done_callback(self._done.put)
        else:
            opened.all_submitted = True
        self._close_if_done(opened)

    def wait_all(self) -> None:
        """Wait for all tasks."""
        while self._pending:
            if self.should_stop():
                self._cancel(list(self._pending))
            self._wait()

    def end(self) -> None:
        """Cancel tasks that have not started, and note finished ones. Running tasks are not waited for."""
        self._cancel(list(self._pending))
        for future, opened in self._pending.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                opened.run.note(future.result())

    def _wait(self) -> None:
        """Wait for a task and note its shard."""
        future = self._done.get()
        opened = self._pending.pop(future)
        opened.n_pending -= 1
        if future.cancelled():
            opened.all_submitted = False
            if opened.error is None and not self.should_stop():
                raise self._executor_error("a task was cancelled")
        elif (exc := future.exception()) is None:
            shard = future.result()
            opened.run.note(shard)
            self._work.bar.advance(shard.rows)
        elif isinstance(exc, BrokenExecutor):
            raise self._executor_error(exc) from None
        elif not isinstance(exc, Exception):  # Ctrl-C, which workers get too
            raise exc
        elif opened.error is None:
            opened.error = exc
            self._cancel([other for other, run in self._pending.items() if run is opened])
        self._close_if_done(opened)

    def _close_if_done(self, opened: OpenRun) -> None:
        if not opened.n_pending and (opened.all_submitted or opened.error is not None):
            self._work.close(opened)

    def _cancel(self, futures: list[Future[Shard]]) -> None:
        for future in futures:
            future.cancel()

    def _executor_error(self, reason: object) -> TeddytokError:
        text = " ".join(str(reason).split()) or type(reason).__name__
        return error("executor_broken", path=str(self._work.folder), reason=text)
