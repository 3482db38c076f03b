"""Run the tasks of one dataset: lock its folder, write its shards, then commit it.

Every file is written under a temporary name, synced and renamed. Finished shards are noted in a journal, so that a run
that was killed can be continued. The file that makes the folder a dataset comes last.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..config.args import PATHS, TokenizationArgs
from ..errors.build import error
from ..errors.text import some
from ..pipeline.batches import tokenize_batches
from ..pipeline.plan import Plan, plan
from ..pipeline.schema import features
from ..progress import progress_bar
from ..sources.identity import stamp
from ..sources.soma_url import is_soma
from .clock import Clock
from .dataset_info import dataset_info, dataset_state
from .formats import check_format
from .layout import FILE_NAME, GENES, INFO, JOURNAL, STATE, SUFFIXES, last_file, output_folder
from .manifest import Manifest, Shard
from .resume import damaged_files, former_run, found_in
from .shard import ShardFile, ShardTask, write_shard
from .storage import locked, remove, write_file, writing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

logger = logging.getLogger("teddytok_rs")

#: Shards that are synced and renamed while the next one is written, at most.
CLOSING = 2


def finish_run(run: Run, threads: int, chunk_bytes: int, *, progress: bool | None) -> Manifest:
    """Write all shards of a run that are missing, and commit it."""
    if run.tasks:
        n_cells, done = len(run.plan.cells), sum(shard.rows for shard in run.shards.values())
        with progress_bar(n_cells, done=done, show=progress) as advance:
            write_shards(run, threads, chunk_bytes, advance)
    return run.commit()


def write_shards(run: Run, threads: int, chunk_bytes: int, advance: Callable[[int], None]) -> None:
    """Do all tasks of a run here. The batches of all shards are one stream, so that no thread waits for a shard."""

    def finish(file: ShardFile) -> None:
        run.note(clock.timed("writing", file.commit)())

    clock, began = run.clock, time.perf_counter()
    ready, write = clock.watch(run.plan), clock.timed("writing", write_shard)
    spans = [(task.start, task.stop) for task in run.tasks]
    unfinished: deque[Future[None]] = deque()
    with (
        # However it ends, what is written already is finished and noted.
        ThreadPoolExecutor(CLOSING, thread_name_prefix="teddytok") as pool,
        closing(clock.waited_for(tokenize_batches(ready, spans, threads=threads, chunk_bytes=chunk_bytes))) as batches,
    ):
        for task in run.tasks:
            file = write(task, run.plan, batches, advance, threads=threads)
            if threads == 1:
                finish(file)
                continue
            unfinished.append(pool.submit(finish, file))
            if len(unfinished) > CLOSING:
                unfinished.popleft().result()
        for future in unfinished:
            future.result()
    clock.seconds, clock.threads = time.perf_counter() - began, threads
    clock.cells = sum(stop - start for start, stop in spans)


@dataclass
class Run:
    """A run whose folder this process has locked: what is left to do, by whomever, and the end of it.

    Attributes
    ----------
    manifest
        What the run is, without its shards.
    plan
        The plan of this process.
    tasks
        The shards to write, for `run_shard`; none where all are written.
    shards
        The finished shards by file name.
    clock
        What the shards took that this process wrote.
    """

    manifest: Manifest
    plan: Plan
    tasks: list[ShardTask]
    shards: dict[str, Shard]
    _stamp: str
    _damaged: dict[str, Shard]  # what was recorded of shards that are to be mended
    _journal: TextIO | None  # none of a run that was finished before
    clock: Clock = field(default_factory=Clock)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._files = {task.file for task in self.tasks}
        self._n_kept = len(self.shards)

    def note(self, shard: Shard) -> None:
        """Note a shard that is synced and has its name, so that a later run can go on from there.

        Shards may come in any order, from any thread, and more than once.
        """
        if self._journal is None or shard.file not in self._files:
            return
        with self._lock:
            if shard.file not in self.shards:
                self.shards[shard.file] = shard
                logger.info("%s: %s tokens", self.manifest.path / shard.file, f"{shard.tokens:,}")
                self._journal.write(_line(shard))
                self._journal.flush()

    def commit(self) -> Manifest:
        """Make the folder a dataset, now that all tasks are done.

        Raises
        ------
        OutputError
            If a shard was not noted or is not in the folder, or one that is mended has other bytes than it had.
        SourceError
            If the source changed since the run began.
        """
        if self._journal is None:
            return replace(self.manifest, n_kept=self._n_kept)
        missing = [
            task.file
            for task in self.tasks
            if task.file not in self.shards or not self.shards[task.file].is_as_long(self.manifest.path)
        ]
        if missing:
            raise error("shards_missing", path=str(self.manifest.path), n=len(missing), files=some(missing))
        if stamp(self.plan.source) != self._stamp:
            raise error("source_changed", path=self.plan.source.name)
        changed = [
            f"{file} ({shard.sha256[:12]} there, {self.shards[file].sha256[:12]} now)"
            for file, shard in self._damaged.items()
            if self.shards[file].sha256 != shard.sha256
        ]
        if changed:  # the source is not what it was, where the fingerprint does not see it
            raise error("output_differs", path=str(self.manifest.path), differences="; ".join(changed[:5]))
        manifest = self.manifest.with_shards(list(self.shards.values()))
        return _commit_dataset(self.plan, replace(manifest, n_kept=self._n_kept))


@contextmanager
def open_run(
    source: Any,
    args: TokenizationArgs | Mapping[str, Any],
    save_dir: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    chunk_bytes: int | None = None,
    overwrite: bool = False,
) -> Iterator[Run]:
    """Lock the folder of a run, new or unfinished, for as long as the block lasts, and list what is to be done.

    `tokenize_to_disk` does the tasks with threads. An engine has `run_shard` do them in processes anywhere, gives each
    shard to `Run.note`, and ends with `Run.commit`. Parameters and errors are those of `tokenize_to_disk`.
    """
    args = TokenizationArgs.load(args)
    check_format(args.format)
    folder = output_folder(source, save_dir or args.save_dir, name)
    with writing(folder), locked(folder):
        found = found_in(folder, overwrite=overwrite)
        before = None if overwrite else former_run(folder, found)
        ready = plan(source, args, seed=before.gene_seed if before else None)
        manifest = Manifest.of(ready, folder)
        if overwrite:  # not before the arguments are known to be right
            for file in found:
                remove(folder / file)
        if before is not None and (differences := before.differences(manifest)):
            raise error("output_differs", path=str(folder), differences="; ".join(differences))
        begun = stamp(ready.source)
        tasks = _tasks(ready, folder, begun, chunk_bytes)
        complete = before is not None and last_file(args.format) in found and before.n_cells == len(ready.cells)
        was_finished = before is not None and JOURNAL not in found
        # The fingerprint is of a sample. Where more than that is in doubt, nothing is kept. A finished dataset has no
        # stamp: what is mended of it must come out as it was.
        unchanged = was_finished or Manifest.read_stamp(folder) == begun
        finished = before.shards if before is not None and (complete or unchanged) else []
        kept = {shard.file: shard for shard in finished if shard.is_whole(folder)}
        files = damaged_files(before) if before is not None and (complete or was_finished) else []
        if before is not None and complete and len(kept) == len(before.shards) and not files:
            remove(folder / JOURNAL)  # the last thing a run does, and what one killed then did not get to
            logger.info("%s is finished already and left as it is", folder)
            yield Run(before, ready, [], kept, begun, {}, None)
            return
        if before is not None and not unchanged:
            logger.warning("%s may have changed since the run began; all shards are written again", folder)
            finished, kept = [], {}
        for file in [*(shard.file for shard in finished if shard.file not in kept), *files]:
            logger.warning("%s is damaged: written again", folder / file)
        for file in found:
            if file.endswith(".part"):
                remove(folder / file)
        n_shards = len(tasks)
        tasks = [task for task in tasks if task.file not in kept]
        if kept:
            logger.info("%s: %s of its %s shards are finished and kept", folder, f"{len(kept):,}", f"{n_shards:,}")
        damaged = {shard.file: shard for shard in finished if was_finished and shard.file not in kept}
        # If mending is interrupted, what the damaged shards were is lost: that run may keep nothing.
        known = "" if damaged else begun
        with _journal(folder, manifest.with_shards(list(kept.values())), known) as journal:
            yield Run(manifest, ready, tasks, kept, begun, damaged, journal)


def _tasks(ready: Plan, folder: Path, begun: str, chunk_bytes: int | None) -> list[ShardTask]:
    """Cut a run into shards, all of them."""
    rows, n_cells = ready.args.max_shard_samples, len(ready.cells)
    n_shards = max(-(-n_cells // rows), 1)  # no cells are one empty shard
    source = ready.source.path
    if source is not None and not is_soma(source):
        source = str(Path(source).absolute())
    places = {
        key: str(Path(place).absolute())  # a worker may stand in another folder
        for key in sorted(PATHS)
        if (place := getattr(ready.args, key)) is not None
        and Path(place).exists()  # or it is a name on the Hugging Face Hub
    }
    args = ready.args.model_copy(update=places)
    return [
        ShardTask(
            folder=str(folder.absolute()),
            file=f"data-{number:05d}-of-{n_shards:05d}{SUFFIXES[args.format]}",
            source=source,
            stamp=begun,
            args=args,
            seed=ready.seed,
            start=number * rows,
            stop=min((number + 1) * rows, n_cells),
            chunk_bytes=chunk_bytes,
        )
        for number in range(n_shards)
    ]


@contextmanager
def _journal(folder: Path, manifest: Manifest, begun: str) -> Iterator[TextIO]:
    """Open the journal that finished shards are noted in."""
    head = manifest.with_shards([]).to_json(indent=None)
    write_file(folder / JOURNAL, json.dumps(begun) + "\n" + head + "".join(map(_line, manifest.shards)))
    # Of a dataset that is mended; not before the journal tells what it is.
    remove(folder / last_file(manifest.configuration["format"]))
    with (folder / JOURNAL).open("a", encoding="utf-8", newline="") as journal:
        yield journal


def _commit_dataset(ready: Plan, manifest: Manifest) -> Manifest:
    """Write the files beside the shards, last the one that makes the folder a dataset; remove what is left over."""
    folder = manifest.path
    wanted = {shard.file for shard in manifest.shards}
    for path in folder.glob("data-*"):
        if path.name not in wanted:
            remove(path)
    described = features(ready.args, ready.annotations.columns)
    write_file(folder / GENES, ready.genes.csv)
    write_file(folder / INFO, dataset_info(described))
    write_file(folder / FILE_NAME, manifest.to_json())
    if ready.args.format == "arrow":
        write_file(folder / STATE, dataset_state(manifest.shards, described))
    remove(folder / JOURNAL)
    logger.info("%s is a dataset of %s cells", folder, f"{manifest.n_cells:,}")
    return manifest


def _line(shard: Shard) -> str:
    return json.dumps(asdict(shard)) + "\n"
