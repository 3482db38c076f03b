"""Write one shard: under a temporary name and hashed on the way, synced, then renamed.

A shard is the unit of work. `run_shard` does one anywhere, in any order and as often as an engine likes: the bytes
depend only on the task, and the file gets its name when it is complete.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from ..config.args import TokenizationArgs
from ..errors import TeddytokError
from ..errors.build import error
from ..pipeline.batches import Batch, tokenize_batches
from ..pipeline.plan import Plan, build_plan
from ..sources.identity import stamp
from .formats import shard_writer
from .journal import read_head
from .layout import temporary_name
from .manifest import Manifest, Shard
from .storage import sync_folder, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import ReadableBuffer

    from ..pipeline.resources import Resources
    from .record import Throughput


#: Maximum number of buffers that wait to be hashed: about one record batch.
UNHASHED = 8
#: Bytes after which those written so far are sent to the disk while more are made, so that the end has less to do.
SYNC_BYTES = 48 * 2**20


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to write one shard of a run. Small, and pickles.

    Attributes
    ----------
    folder, file
        Where it goes.
    source, stamp
        Path of the source, None where it is in this process's memory; what `sources.stamp` gave when the run began.
    args, seed
        What to do; the seed of the random subsets, if any.
    start, stop
        The cells of the shard.
    resources
        What may be used for it.
    expected, keep
        Checksum that the shard was recorded with; None of a new one. One that comes out otherwise changes no file, nor
        does any where the file is undamaged and only to be compared (``keep``).
    """

    folder: str
    file: str
    source: str | None
    stamp: str
    args: TokenizationArgs
    seed: int | None
    start: int
    stop: int
    resources: Resources
    expected: str | None = None
    keep: bool = False


def run_shard(task: ShardTask) -> Shard:
    """Write the shard of a task, in any process that sees the source and the folder.

    The folder must be open for the task's run (see `run.open_run`) or hold it finished. Doing a task again, at the same
    time too, replaces a file by an equal one.

    Raises
    ------
    ConfigError, VocabularyError, SourceError, DataError
        As `tokenize` does; `SourceError` also if the source is in memory, or changed since the run began.
    OutputError
        If the folder is of another run, or cannot be written.
    """
    try:
        if task.source is None:
            raise error("source_in_memory")
        with writing(task.folder), ExitStack() as opened:
            # A forked process must not read through the file that its parent opened.
            plan, manifest = _planned(os.getpid(), task.source, task.args.model_dump_json(), task.seed, task.stamp)
            opened.callback(plan.source.release)
            _check_run(task, plan, manifest)
            with closing(tokenize_batches(plan, [(task.start, task.stop)], resources=task.resources)) as batches:
                file = write_shard(task, plan, batches)
            try:
                _check_run(task, plan, manifest)
            except BaseException:
                file.discard()
                raise
            return file.commit()
    except TeddytokError as exc:
        # Dask pickles what an error came from too, and not every library's exceptions can be unpickled.
        exc.__cause__ = exc.__context__ = None
        raise


@lru_cache(maxsize=1)
def _planned(_process: int, source: str, args: str, seed: int | None, stamped: str) -> tuple[Plan, Manifest]:
    """Plan, once for all tasks of a run that a process does, and describe the run."""
    plan = build_plan(source, TokenizationArgs.model_validate_json(args), seed=seed)
    return plan, Manifest.of(plan, Path(), stamped)


def _check_run(task: ShardTask, plan: Plan, manifest: Manifest) -> None:
    """Check that the folder is still of the task's run, and the source as it was."""
    folder = Path(task.folder)
    there = read_head(folder) or Manifest.read(folder)
    if differences := there.differences(manifest):
        raise error("output_differs", path=task.folder, differences="; ".join(differences))
    if stamp(plan.source) != task.stamp:
        raise error("source_changed", path=plan.source.name)


def write_shard(
    task: ShardTask,
    plan: Plan,
    batches: Iterator[Batch],
    advance: Callable[[int], None] = lambda _: None,
    throughput: Throughput | None = None,
) -> ShardFile:
    """Write the next batches, up to the end of the shard, as one file under a temporary name."""
    file = ShardFile(
        Path(task.folder, task.file), threaded=task.resources.threads > 1, expected=task.expected, keep=task.keep
    )
    try:
        started, waiting = perf_counter(), 0.0
        labels = plan.args.output_name("labels")
        with shard_writer(plan.args.format, file, plan.schema, task.start, labels=labels) as write:
            while file.rows < task.stop - task.start:
                wait_started = perf_counter()
                batch = next(batches)
                waiting += perf_counter() - wait_started
                write(batch.record_batch)
                file.count(batch)
                if throughput is not None:
                    throughput.count(batch)
                advance(batch.record_batch.num_rows)
        if throughput is not None:
            throughput.add_writing(perf_counter() - started - waiting)
    except BaseException:
        file.discard()
        raise
    return file


class ShardFile:
    """A shard while it is written: a file under a temporary name, and its counts. The format's library writes to it.

    Each attempt has a name of its own, so that two workers never write to one file.

    Parameters
    ----------
    path
        The shard's name.
    threaded
        Hash, and send bytes to the disk, in threads next to the writing one, which takes as long as the first.
    expected, keep
        See `ShardTask`.
    """

    def __init__(self, path: Path, *, threaded: bool, expected: str | None = None, keep: bool = False) -> None:
        self._path, self._temporary_path = path, temporary_name(path)
        self._expected, self._keep = expected, keep
        self._file = self._temporary_path.open("xb")
        self._sha256 = hashlib.sha256()
        self._hasher, self._syncer = (
            ThreadPoolExecutor(1, thread_name_prefix="teddytok") if threaded else None for _ in range(2)
        )
        self._hashing: deque[Future[None]] = deque()
        self._syncing: Future[None] | None = None
        self._unsynced = 0
        self._bytes = self.rows = self._tokens = 0
        self._expression = self._kept = 0.0
        self._of_group: dict[str, float] = {}
        # Arrow asks this often, and takes an exception for yes. A plain attribute runs no Python, so that no Ctrl-C,
        # which may come wherever Python runs, can come there and be lost.
        self.closed = False

    def write(self, buffer: ReadableBuffer) -> int:
        """Take a buffer in memory, which must not change."""
        if self._hasher is None:
            self._sha256.update(buffer)
        else:
            self._hashing.append(self._hasher.submit(self._sha256.update, buffer))
            if len(self._hashing) > UNHASHED:  # they keep their record batch in memory
                self._hashing.popleft().result()
        self._bytes += (n_bytes := self._file.write(buffer))
        self._unsynced += n_bytes
        if self._syncer is not None and self._unsynced >= SYNC_BYTES:
            self._synced()
            self._syncing = self._syncer.submit(os.fsync, self._file.fileno())
            self._unsynced = 0
        return n_bytes

    def _synced(self) -> None:
        """Wait for the disk to have what was sent to it. It reports an error once, so that every answer counts."""
        if self._syncing is not None:
            self._syncing.result()

    def flush(self) -> None:
        """Do nothing: `commit` writes what is left."""

    def count(self, batch: Batch) -> None:
        """Count what was written."""
        self.rows += batch.record_batch.num_rows
        self._tokens += batch.n_tokens
        self._expression += batch.expression
        self._kept += batch.expression_kept
        for group, expression in batch.expression_of_group.items():
            self._of_group[group] = self._of_group.get(group, 0.0) + expression

    def commit(self) -> Shard:
        """Rename the shard, after its bytes are on the disk and match the expected checksum, if there is one."""
        try:
            self._end_threads()
            self._synced()
            for hashing in self._hashing:
                hashing.result()
            sha256 = self._sha256.hexdigest()
            if self._keep or self._expected not in {None, sha256}:
                self.discard()
            else:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._temporary_path.replace(self._path)
                sync_folder(self._path.parent)
        except BaseException:
            self.discard()
            raise
        sums = (_rounded(self._expression), _rounded(self._kept))
        of_group = {group: _rounded(expression) for group, expression in self._of_group.items()}
        return Shard(self._path.name, self.rows, self._tokens, self._bytes, sha256, *sums, of_group)

    def _end_threads(self, *, cancel_futures: bool = False) -> None:
        for thread in (self._hasher, self._syncer):
            if thread is not None:
                thread.shutdown(cancel_futures=cancel_futures)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._end_threads(cancel_futures=True)
        with suppress(OSError):  # of a full disk, again
            self._file.close()
        self._temporary_path.unlink(missing_ok=True)


def _rounded(total: float) -> float:
    """Keep 12 digits, which another processor's way of summing cannot change, of a number that JSON can hold."""
    return float(f"{min(total, 1e308):.12g}")
