"""Run the tasks of one dataset: lock its folder, write its shards, then commit it.

Every file is written under a temporary name, synced and renamed. Finished shards are noted in a journal, so that a run
that was killed can be continued. The file that makes the folder a dataset comes last.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.args import PATHS, TokenizationArgs, recorded
from ..errors import OutputError
from ..errors.build import error
from ..errors.text import some
from ..mapping.inputs import fetch_inputs
from ..pipeline.batches import tokenize_batches
from ..pipeline.plan import Plan, build_plan
from ..pipeline.resources import Resources
from ..pipeline.schema import features
from ..pipeline.warnings import lost_expression
from ..progress import progress_bar
from ..sources.identity import stamp
from ..sources.soma_url import is_soma
from .dataset_info import dataset_info, dataset_state
from .formats import check_format
from .journal import open_journal
from .layout import (
    DATASETS_CACHE,
    GENES,
    INFO,
    JOURNAL,
    MANIFEST,
    STATE,
    is_shard,
    last_file,
    output_folder,
    shard_name,
)
from .manifest import Manifest, Shard
from .nesting import refuse_nesting
from .overwrite import complete_overwrite, discard_overwrite, find_overwrite, replace_dataset, start_overwrite
from .record import Throughput
from .resume import former_run, found_in
from .shard import ShardFile, ShardTask, write_shard
from .storage import list_run_files, locked, remove, remove_temporary_files, write_file, writing
from .verify import find_damage

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from ..config.args import ArgsLike
    from ..sources.protocol import SourceLike

logger = logging.getLogger("teddytok_rs")

#: Maximum number of shards that are synced and renamed while the next one is written.
MAX_CLOSING = 2


def finish_run(run: Run, *, progress: bool | None) -> Manifest:
    """Write all shards of a run that are missing, and commit it."""
    if run.tasks:
        n_cells, done = len(run.plan.cells), sum(shard.rows for shard in run.shards.values())
        with progress_bar(n_cells, done=done, show=progress) as advance:
            write_shards(run, advance)
    return run.commit()


def write_shards(run: Run, advance: Callable[[int], None]) -> None:
    """Do all tasks of a run here. The batches of all shards are one stream, so that no thread waits for a shard."""
    throughput, started = run.throughput, time.perf_counter()

    def finish(file: ShardFile) -> None:
        closed = time.perf_counter()
        shard = file.commit()
        throughput.add_writing(time.perf_counter() - closed)
        run.note(shard)

    spans = [(task.start, task.stop) for task in run.tasks]
    unfinished: deque[Future[None]] = deque()
    with (
        # However it ends, what is written already is finished and noted.
        ThreadPoolExecutor(MAX_CLOSING, thread_name_prefix="teddytok") as pool,
        closing(tokenize_batches(run.plan, spans, resources=run.resources)) as batches,
    ):
        for task in run.tasks:
            file = write_shard(task, run.plan, batches, advance, throughput)
            if run.resources.threads == 1:
                finish(file)
                continue
            unfinished.append(pool.submit(finish, file))
            if len(unfinished) > MAX_CLOSING:
                unfinished.popleft().result()
        for future in unfinished:
            future.result()
    throughput.seconds, throughput.threads = time.perf_counter() - started, run.resources.threads


@dataclass
class Run:
    """A run whose folder this process has locked: what is left to do, by whomever, and the end of it.

    Attributes
    ----------
    manifest
        What the run is, without the shards that are to be written.
    plan
        The plan of this process.
    tasks
        The shards to write, for `run_shard`; none where all are written.
    shards
        The finished shards by file name.
    n_kept
        Shards that an earlier run had finished and this one keeps.
    resources
        What this process, or each task, may use.
    throughput
        What the shards took that this process wrote.
    """

    manifest: Manifest
    plan: Plan
    tasks: list[ShardTask]
    shards: dict[str, Shard]
    n_kept: int
    resources: Resources
    _folder: Path  # of the shards: the dataset's, or where a new one is written while the old one is kept
    _stamp: str
    _journal: Callable[[Shard], None] | None  # none of a dataset that was finished before
    _damaged: bool = False  # whether a file of that dataset is to be written again
    throughput: Throughput = field(default_factory=Throughput)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._tasks = {task.file: task for task in self.tasks}

    def note(self, shard: Shard) -> None:
        """Note a shard that is synced and has its name, so that a later run can go on from there.

        Shards may come in any order, from any thread, and more than once.
        """
        if shard.file not in self._tasks:
            return
        with self._lock:
            if shard.file not in self.shards:
                self.shards[shard.file] = shard
                logger.info("%s: %s tokens", self.manifest.path / shard.file, f"{shard.tokens:,}")
                if self._journal is not None:
                    self._journal(shard)

    def commit(self) -> Manifest:
        """Make the folder a dataset, now that all tasks are done.

        Raises
        ------
        OutputError
            If a shard was not noted or is not in the folder, or one of a finished dataset comes out with other bytes
            than it had; the folder is left as it is then.
        SourceError
            If the source changed since the run began.
        """
        manifest = replace(self.manifest.with_shards(list(self.shards.values())), n_kept=self.n_kept)
        if self._journal is not None:  # else the manifest has them already
            lost = lost_expression(self.plan.source.name, manifest.expression_lost)
            manifest = replace(manifest, warnings=[*manifest.warnings, *lost])
        if self._journal is not None or self.tasks or self._damaged:
            self._check_shards()
            _commit_dataset(self.plan, manifest, self._folder)
        if self._folder != manifest.path:
            replace_dataset(manifest.path, self._folder)
            logger.info("%s is replaced", manifest.path)
        if self._journal is not None:
            _warn_about_caches(manifest.path)
        return manifest

    def _check_shards(self) -> None:
        path = self._folder
        missing = [file for file in self._tasks if file not in self.shards]
        if not missing:
            if stamp(self.plan.source) != self._stamp:
                raise error("source_changed", path=self.plan.source.name)
            changed = [
                f"{file} ({task.expected[:12]} there, {self.shards[file].sha256[:12]} now)"
                for file, task in self._tasks.items()
                if task.expected is not None and task.expected != self.shards[file].sha256
            ]
            if changed:  # the source is not what it was, where the fingerprint does not see it
                raise error("output_differs", path=str(self.manifest.path), differences="; ".join(changed[:5]))
            missing = [file for file in self._tasks if not self.shards[file].has_recorded_length(path)]
        if missing:
            raise error("shards_missing", path=str(self.manifest.path), n=len(missing), files=some(missing))


@contextmanager
def open_run(
    source: SourceLike,
    args: ArgsLike,
    save_dir: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    resources: Resources | None = None,
    overwrite: bool = False,
    copy_vocabulary: bool = True,
) -> Iterator[Run]:
    """Lock the folder of a run, new or unfinished, for the ``with`` block, and list the tasks to do.

    `tokenize_to_disk` does the tasks with threads. An engine has `run_shard` do them in processes anywhere, gives each
    shard to `Run.note`, and ends with `Run.commit`. Parameters and errors are those of `tokenize_to_disk`;
    ``resources`` are those of each task, a single thread if not given. The datasets of a corpus share a copy of the
    vocabulary, and do without ``copy_vocabulary``.
    """
    resources = resources or Resources.resolve(1, None)
    args = fetch_inputs(TokenizationArgs.load(args))
    check_format(args.format)
    folder = output_folder(source, save_dir or args.save_dir, name)
    refuse_nesting([(source, folder)])
    with writing(folder), locked(folder), ExitStack() as opened:
        was_replaced = complete_overwrite(folder)
        found = found_in(folder)
        if overwrite and was_replaced and _is_configured(Manifest.read(folder), args):
            overwrite = False  # it was this very call that was interrupted
        new = _find_overwrite(folder, args, overwrite=overwrite)
        work = new or folder
        before, was_finished = (None, False) if overwrite and new is None else former_run(work, list_run_files(work))
        plan = build_plan(source, args, seed=before.gene_seed if before else None)
        opened.callback(plan.source.close)
        source_stamp = stamp(plan.source)
        manifest = Manifest.of(plan, folder, source_stamp, copy_vocabulary=copy_vocabulary)
        if before is not None and (differences := before.differences(manifest)):
            if new is None:
                raise error("output_differs", path=str(folder), differences="; ".join(differences))
            discard_overwrite(new)
            new = before = None
        if overwrite and new is None:  # not before the arguments are known to be right
            if MANIFEST in found:
                work = start_overwrite(folder)
            else:  # nothing is complete yet
                work = folder
                for file in found:
                    remove(folder / file)
        remove_temporary_files(folder)
        remove_temporary_files(work)
        tasks = _tasks(plan, work, source_stamp, resources)
        if before is not None and was_finished:
            yield _run_of_finished(before, plan, tasks, source_stamp, folder)
            return
        kept = {} if before is None else _kept(before, source_stamp)
        if kept:
            logger.info("%s: %s of its %s shards are finished and kept", folder, f"{len(kept):,}", f"{len(tasks):,}")
        tasks = [task for task in tasks if task.file not in kept]
        with open_journal(work, manifest.with_shards(list(kept.values()))) as journal:
            remove(work / last_file(args.format))  # not before the journal says what the folder is
            yield Run(manifest, plan, tasks, kept, len(kept), resources, work, source_stamp, journal)


def _find_overwrite(folder: Path, args: TokenizationArgs, *, overwrite: bool) -> Path | None:
    """Find the new dataset of an interrupted overwrite, to be continued. One of other arguments is discarded."""
    new = find_overwrite(folder)
    if new is None:
        return None
    if not overwrite:
        logger.warning("%s is left as it is: overwriting was interrupted; --overwrite again continues it", folder)
        return None
    with suppress(OutputError):  # what cannot be read of it is not continued
        former, _ = former_run(new, list_run_files(new))
        if former is not None and _is_configured(former, args):
            return new
    discard_overwrite(new)
    return None


def _is_configured(manifest: Manifest, args: TokenizationArgs) -> bool:
    return manifest.configuration == recorded(args)


def _warn_about_caches(folder: Path) -> None:
    """Name the results that `datasets` computed from shards which are replaced now."""
    caches = sorted(path.name for path in folder.iterdir() if DATASETS_CACHE.fullmatch(path.name))
    if caches:
        logger.warning(
            "%s holds caches that datasets made of an earlier dataset, which are not used any more: %s",
            folder,
            some(caches),
        )


def _kept(before: Manifest, source_stamp: str) -> dict[str, Shard]:
    """List the finished shards of an unfinished run that are kept: those undamaged, of a source as it is now."""
    if before.stamp != source_stamp:  # the fingerprint is of a sample
        logger.warning("%s may have changed since the run began; all shards are written again", before.path)
        return {}
    kept = {shard.file: shard for shard in before.shards if shard.is_undamaged(before.path)}
    for shard in before.shards:
        if shard.file not in kept:
            logger.warning("%s is damaged: written again", before.path / shard.file)
    return kept


def _run_of_finished(before: Manifest, plan: Plan, tasks: list[ShardTask], source_stamp: str, path: Path) -> Run:
    """List the tasks of a finished dataset, which stays loadable while they run.

    Nothing, if it is undamaged and of the source as it is now. Otherwise shards are made again: the damaged ones, or
    all where the source may have changed. No file is replaced unless its bytes come out as they were.
    """
    folder = before.path
    damage = [file for file in find_damage(before) if file != JOURNAL]
    changed = before.stamp not in {None, source_stamp}
    recorded = {shard.file: shard for shard in before.shards}
    for file in damage:
        of_run = file in recorded or not is_shard(file)
        logger.warning("%s %s", folder / file, "is damaged: written again" if of_run else "belongs to no run: removed")
    if changed:
        logger.warning("the source of %s may have changed since; its shards are made again and compared", folder)
    elif not damage:
        remove(folder / JOURNAL)
        logger.info("%s is finished already and left as it is", folder)
        if before.stamp is None:
            logger.warning(
                "%s records no stamp, so that a change of its source since is not noticed", folder / MANIFEST
            )
    resources = tasks[0].resources
    if [*recorded] != [task.file for task in tasks]:
        raise error("output_unreadable", path=str(folder), reason=f"{MANIFEST} lists other shards than its cells have")
    tasks = [
        replace(task, expected=recorded[task.file].sha256, keep=task.file not in damage)
        for task in tasks
        if changed or task.file in damage
    ]
    n_kept = sum(file not in damage for file in recorded)
    for task in tasks:
        del recorded[task.file]
    if changed:
        before = replace(before, source=replace(before.source, stamp=source_stamp))
    before = replace(before, path=path)
    return Run(before, plan, tasks, recorded, n_kept, resources, folder, source_stamp, None, bool(damage))


def _tasks(plan: Plan, folder: Path, source_stamp: str, resources: Resources) -> list[ShardTask]:
    """Cut a run into shards, all of them."""
    rows, n_cells = plan.args.max_shard_samples, len(plan.cells)
    n_shards = max(-(-n_cells // rows), 1)  # no cells are one empty shard
    source = plan.source.path
    if source is not None and not is_soma(source):
        source = str(Path(source).absolute())
    places = {
        key: str(Path(place).absolute())  # a worker may have another current folder
        for key in sorted(PATHS)
        if isinstance(place := getattr(plan.args, key), str)
        and Path(place).exists()  # or it is on the Hugging Face Hub, and named by its commit
    }
    args = plan.args.model_copy(update=places)
    return [
        ShardTask(
            folder=str(folder.absolute()),
            file=shard_name(number, n_shards, args.format),
            source=source,
            stamp=source_stamp,
            args=args,
            seed=plan.seed,
            start=number * rows,
            stop=min((number + 1) * rows, n_cells),
            resources=resources,
        )
        for number in range(n_shards)
    ]


def _commit_dataset(plan: Plan, manifest: Manifest, folder: Path) -> None:
    """Write the files next to the shards, last the one that makes the folder a dataset; remove what is left over."""
    wanted = {shard.file for shard in manifest.shards}
    remove_temporary_files(folder)  # of workers that were killed
    for name in list_run_files(folder):
        if is_shard(name) and name not in wanted:
            remove(folder / name)
    described = features(plan.args, plan.annotations.columns)
    write_file(folder / GENES, plan.genes.csv)
    for name in manifest.checksums.copies:
        write_file(folder / name, plan.vocabulary.files[name])
    write_file(folder / INFO, dataset_info(described))
    write_file(folder / MANIFEST, manifest.to_json())
    if plan.args.format == "arrow":
        write_file(folder / STATE, dataset_state(manifest.shards, described))
    remove(folder / JOURNAL)
    logger.info("%s is a dataset of %s cells", folder, f"{manifest.n_cells:,}")
