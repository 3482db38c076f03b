"""Work done by several threads or processes comes out as one thread would do it, and nothing is left of them."""

from __future__ import annotations

import _thread
import dataclasses
import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from contextlib import closing

import numpy as np
import pytest
from scipy import sparse

import teddytok_rs
from folders import contents
from raises import raises
from teddytok_rs import demo
from teddytok_rs.output.layout import JOURNAL, is_run_file, is_temporary
from teddytok_rs.output.run import open_run
from teddytok_rs.output.shard import ShardTask, run_shard
from teddytok_rs.parallel import map_in_order
from teddytok_rs.pipeline import batches as tokenizer
from teddytok_rs.pipeline.plan import build_plan
from teddytok_rs.pipeline.resources import Resources

THREADS = pytest.mark.parametrize("threads", [1, 2, 7])
#: 31 shards, so at least as many record batches.
ARGS = demo.args(max_shard_samples=23, random_genes=True, random_genes_count=300, gene_seed=11, obs_columns=["index"])


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("local")
    return contents(teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, folder, threads=1).path)


# ---- in_order


@pytest.mark.parametrize("threads", [0, 1, 2, 7])
def test_results_come_in_the_order_of_the_items(threads):
    def work(item):
        time.sleep(random.Random(item).random() / 200)
        return item * item

    assert list(map_in_order(work, range(60), threads=threads, window=9)) == [item * item for item in range(60)]


@pytest.mark.parametrize("threads", [0, 1, 2, 7])
def test_the_first_error_in_order_is_raised_however_late_it_comes(threads):
    def work(item):
        if item == 3:
            time.sleep(0.05)
        if item >= 3:
            raise ValueError(item)
        return item

    results = map_in_order(work, range(20), threads=threads, window=9)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^3$"):
        next(results)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_no_more_than_the_window_is_worked_on_or_waits(threads):
    taken, given, most = [0], [0], [0]

    def items():
        for item in range(50):
            taken[0] += 1
            most[0] = max(most[0], taken[0] - given[0])
            yield item

    for _ in map_in_order(str, items(), threads=threads, window=5):
        time.sleep(0.001)  # the threads could run far ahead
        given[0] += 1
    assert most[0] == 5


def test_large_results_make_the_window_small():
    asked: list[int | None] = []
    pending, most = [0], [0]

    def capacity(last):
        asked.append(last)
        return 4 if last is None else 0  # 0 is one all the same

    def items():
        for item in range(20):
            pending[0] += 1
            if asked[1:]:
                most[0] = max(most[0], pending[0])
            yield item

    for _ in map_in_order(int, items(), threads=3, window=5, capacity=capacity):
        pending[0] -= 1
    assert asked == [None, *range(19 - 3), *asked[17:]]
    assert most[0] <= 2  # the one that the caller holds, and the next


@pytest.mark.parametrize("end", ["close", "forget", "raise"])
def test_stopping_early_leaves_no_work_going_on(end):
    done = []

    def work(item):
        time.sleep(0.01)
        done.append(item)

    results = map_in_order(work, range(1000), threads=2, window=10)
    next(results)
    if end == "close":
        results.close()
    elif end == "raise":
        with pytest.raises(KeyboardInterrupt), closing(results):
            raise KeyboardInterrupt
    del results
    n_done = len(done)
    assert n_done <= 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("teddytok")]
    time.sleep(0.05)
    assert len(done) == n_done


# ---- tokenize


class Instrumented:
    """A source that counts who reads from it, and may be slow, bad or interrupted at a row."""

    def __init__(self, source, at=None):
        self.source, self.at, self.reads, self.threads = source, at or {}, 0, set()

    def __getattr__(self, name):
        return getattr(self.source, name)

    def read(self, start, stop):
        self.reads += 1
        self.threads.add(threading.current_thread().name)
        self.at.get(start, lambda: None)()
        return self.source.read(start, stop)


def ready_with(source, **at):
    plan = build_plan(source, ARGS)
    return dataclasses.replace(plan, source=Instrumented(plan.source, **at))


@THREADS
def test_no_more_batches_are_read_than_the_window_holds(threads):
    plan = ready_with(demo.cells())
    given = 0
    for _ in tokenizer.tokenize_batches(plan, resources=Resources(threads, 2**30)):
        time.sleep(0.002)
        given += 1
        assert plan.source.reads - given < threads + tokenizer.N_QUEUED
    assert given == plan.source.reads == 31
    others = plan.source.threads - {threading.main_thread().name}
    assert len(others) == 0 if threads == 1 else 1 < len(others) <= threads


@THREADS
def test_batches_that_fill_the_memory_given_are_made_one_at_a_time(threads):
    plan = ready_with(demo.cells())
    batches = tokenizer.tokenize_batches(plan, resources=Resources(threads, 1))
    next(batches)
    assert plan.source.reads == 23  # one cell per chunk, and no second batch
    batches.close()


@THREADS
def test_the_first_bad_cell_is_named_however_slowly_it_is_read(threads):
    cells = demo.cells()
    matrix = cells.layers["processed"].tocsr()
    for row in (100, 101, 400, 690):
        matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]] = np.nan
    cells.layers["processed"] = matrix
    plan = ready_with(cells, at={92: lambda: time.sleep(0.1)})
    batches = tokenizer.tokenize_batches(plan, resources=Resources(threads, 2**30))
    with raises("not_finite", f"{cells.obs_names[100]!r} (row 100"):
        list(batches)


@THREADS
def test_an_abandoned_iteration_leaves_no_thread(threads):
    batches = teddytok_rs.iter_batches(demo.cells(), ARGS, threads=threads)
    next(batches)
    batches.close()
    batches = teddytok_rs.iter_batches(demo.cells(), ARGS, threads=threads)
    next(batches)
    del batches  # and the fixture looks for threads


def test_a_keyboard_interrupt_ends_the_threads():
    plan = ready_with(demo.cells(), at={46: lambda: (_thread.interrupt_main(), time.sleep(0.05))})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            list(tokenizer.tokenize_batches(plan, resources=Resources(2, 2**30)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert plan.source.reads < 10
    for thread in threading.enumerate():  # one that was being started just then is not waited for, but ends too
        if thread.name.startswith("teddytok"):
            thread.join(timeout=60)


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("suffix", ["memory", "h5ad"])
def test_any_threads_and_chunks_give_the_same_bytes(form, suffix, tmp_path, monkeypatch):
    from teddytok_rs.sources import csc

    monkeypatch.setattr(csc, "BAND_BYTES", 20_000)  # many bands for so few cells
    cells = demo.cells()
    wanted = teddytok_rs.tokenize(cells, ARGS, threads=1)
    matrix = cells.layers["processed"].tocsr()
    cells.layers["processed"] = {"csr": matrix.tocsr, "csc": matrix.tocsc, "dense": matrix.toarray}[form]()
    source = cells
    if suffix == "h5ad":
        source = tmp_path / "cells.h5ad"
        cells.write_h5ad(source)
    for threads in (1, 2, 7):
        for chunk_bytes in (1, 200_000, 2**40):
            assert teddytok_rs.tokenize(source, ARGS, threads=threads, chunk_bytes=chunk_bytes).equals(wanted)


def test_a_lazy_matrix_is_computed_by_these_threads(tmp_path):
    array = pytest.importorskip("dask.array")
    cells = demo.cells()
    wanted = teddytok_rs.tokenize(cells, ARGS)
    cells.layers["processed"] = array.from_array(cells.layers["processed"].toarray(), chunks=(50, -1))
    assert teddytok_rs.tokenize(cells, ARGS, threads=3).equals(wanted)


def test_bands_of_columns_are_sorted_once_for_all_threads(tmp_path, monkeypatch):
    from teddytok_rs.sources import csc

    monkeypatch.setattr(csc, "BAND_BYTES", 1_000_000)
    cells = demo.cells()
    cells.layers["processed"] = sparse.csc_matrix(cells.layers["processed"])
    cells.write_h5ad(tmp_path / "cells.h5ad")
    sort, bands = csc.CscRows._in_row_order, []
    monkeypatch.setattr(
        csc.CscRows, "_in_row_order", lambda rows, band, *rest: bands.append(band) or sort(rows, band, *rest)
    )
    assert teddytok_rs.tokenize(tmp_path / "cells.h5ad", ARGS, threads=2).num_rows == 700
    assert sorted(bands) == list(range(len(bands)))


def test_a_band_that_cannot_be_read_is_an_error_for_all_who_wait(tmp_path, monkeypatch):
    from teddytok_rs.sources import csc

    cells = demo.cells()
    cells.layers["processed"] = sparse.csc_matrix(cells.layers["processed"])
    cells.write_h5ad(tmp_path / "cells.h5ad")

    def fail(_rows, _band, *_rest):
        time.sleep(0.05)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(csc.CscRows, "_in_row_order", fail)
    with raises("source_unreadable", "input/output error"):
        teddytok_rs.tokenize(tmp_path / "cells.h5ad", ARGS, threads=3)


# ---- shards as tasks


def in_processes(tasks: list[ShardTask]):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield from pool.imap_unordered(run_shard, tasks)


def test_tasks_done_by_processes_in_any_order_are_the_local_run(tmp_path, local, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_run(demo.CELLS, ARGS, "out") as run:
        assert len(run.tasks) == 31
        tasks = [task for task in run.tasks for _ in range(1 + task.start % 2)]  # some are done again
        random.Random(1).shuffle(tasks)
        monkeypatch.chdir("/")  # the folder was given from where the run began, and the absolute path is shown
        for shard in in_processes(tasks):
            run.note(shard)
        monkeypatch.chdir(tmp_path)
        manifest = run.commit()
    assert contents(tmp_path / "out" / "cells") == local
    assert teddytok_rs.verify(manifest.path).problems == []
    assert teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, "out") == manifest


def test_a_task_is_small_and_plans_once_a_process(tmp_path, local, monkeypatch):
    from teddytok_rs.output import shard as shards

    planned = []
    monkeypatch.setattr(
        shards, "build_plan", lambda *words, **keys: planned.append(words) or build_plan(*words, **keys)
    )
    shards._planned.cache_clear()
    with open_run(demo.CELLS, ARGS, tmp_path) as run:
        assert pickle.loads(pickle.dumps(run.tasks)) == run.tasks
        assert len(pickle.dumps(run.tasks[0])) < 4000
        for threads, task in enumerate(run.tasks, start=1):
            run.note(run_shard(dataclasses.replace(task, resources=Resources.resolve(threads % 3 + 1, None))))
        run.commit()
    assert len(planned) == 1
    assert contents(tmp_path / "cells") == local


def test_one_task_done_at_once_by_several_is_done_once(tmp_path):
    with open_run(demo.CELLS, ARGS, tmp_path) as run:
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            shards = pool.map(run_shard, [run.tasks[3]] * 12, chunksize=1)
        assert all(shard == shards[0] for shard in shards)
        assert shards[0].is_undamaged(run.manifest.path)
        assert {path.name for path in run.manifest.path.iterdir() if path.name.startswith("data")} == {shards[0].file}


def killed(task: ShardTask) -> None:
    """Do a task in a process that dies before the shard has its name."""
    from teddytok_rs.output import shard as shards

    shards.ShardFile.commit = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    run_shard(task)


def test_what_a_killed_worker_leaves_is_removed(tmp_path, local):
    with open_run(demo.CELLS, ARGS, tmp_path) as run:
        child = multiprocessing.get_context("spawn").Process(target=killed, args=(run.tasks[0],))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        (left,) = run.manifest.path.glob("data-*")
        assert left.name.startswith("data-00000-of-00031.arrow.")
        assert is_run_file(left.name) or is_temporary(left.name)
        for task in run.tasks:
            run.note(run_shard(task))
        run.commit()
    assert contents(tmp_path / "cells") == local


def test_a_local_run_continues_from_shards_that_others_wrote(tmp_path, local):
    with open_run(demo.CELLS, ARGS, tmp_path) as run:
        for task in run.tasks[7:20]:
            run.note(run_shard(task))
        folder = run.manifest.path
        (folder / f"{run.tasks[0].file}.0123abcd.part").write_bytes(b"of a worker that was killed")
        before = {path.name: path.stat().st_ino for path in folder.glob("data-*.arrow")}
    assert (folder / JOURNAL).exists()
    teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path, threads=2)
    assert {name: (folder / name).stat().st_ino for name in before} == before
    assert contents(folder) == local
    assert len(before) == 13


def test_processes_go_on_from_a_local_run(tmp_path, local, interrupt_after):
    with interrupt_after(5):
        teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path, threads=2)
    with open_run(demo.CELLS, ARGS, tmp_path) as run:
        assert [task.start for task in run.tasks] == list(range(5 * 23, 700, 23))
        for task in reversed(run.tasks):
            run.note(run_shard(task))
        run.commit()
    assert contents(tmp_path / "cells") == local


def test_a_shard_is_noted_when_it_has_its_name_and_not_before(tmp_path, monkeypatch):
    from teddytok_rs.output.run import Run

    note, noted = Run.note, []

    def look(run, shard):
        assert shard.is_undamaged(run.manifest.path)
        assert shard.file not in (run.manifest.path / JOURNAL).read_text()
        note(run, shard)
        assert shard.file in (run.manifest.path / JOURNAL).read_text()
        noted.append(shard.file)

    monkeypatch.setattr(Run, "note", look)
    for threads in (1, 2):
        teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path / str(threads), threads=threads)
    assert len(noted) == 62


def test_a_late_worker_of_another_run_is_refused(tmp_path):
    """Its driver died, and another run was begun in the folder."""
    with open_run(demo.CELLS, ARGS, tmp_path) as run:
        late = run.tasks[2]
    other = type(ARGS)(**{**ARGS.model_dump(), "max_seq_len": 9})
    with open_run(demo.CELLS, other, tmp_path, overwrite=True) as run:
        with raises("output_differs", "max_seq_len"):
            run_shard(late)
        assert not list(run.manifest.path.glob("data-*"))


def test_a_worker_whose_folder_is_taken_while_it_writes_gives_up(tmp_path, monkeypatch):
    from teddytok_rs.output import shard as shards

    with open_run(demo.CELLS, ARGS, tmp_path) as run:
        late = run.tasks[2]
    other = type(ARGS)(**{**ARGS.model_dump(), "max_seq_len": 9})
    write = shards.write_shard

    def slow(*words, **options):
        file = write(*words, **options)
        teddytok_rs.tokenize_to_disk(demo.CELLS, other, tmp_path, overwrite=True)
        return file

    monkeypatch.setattr(shards, "write_shard", slow)
    with raises("output_differs", "max_seq_len"):
        run_shard(late)
    assert teddytok_rs.verify(tmp_path / "cells").problems == []


def test_a_worker_that_is_late_for_its_own_run_does_no_harm(tmp_path, local):
    with open_run(demo.CELLS, ARGS, tmp_path) as run:
        for task in run.tasks:
            run.note(run_shard(task))
        run.commit()
        late = run.tasks[2]
    assert run_shard(late).is_undamaged(tmp_path / "cells")
    assert contents(tmp_path / "cells") == local


def test_a_worker_that_sees_another_source_is_refused(tmp_path):
    source = tmp_path / "cells.h5ad"
    source.write_bytes(demo.CELLS.read_bytes())
    with open_run(source, ARGS, tmp_path / "out") as run:
        run_shard(run.tasks[0])
        os.utime(source, ns=(1, 1))
        with raises("source_changed"):
            run_shard(run.tasks[1])
        cells = demo.cells()
        cells.layers["processed"] = cells.layers["processed"] * 2
        source.unlink()
        cells.write_h5ad(source)
        with raises("output_differs", "fingerprint of the source"):
            run_shard(dataclasses.replace(run.tasks[1], stamp="another"))
        assert [path.name for path in run.manifest.path.glob("data-*")] == [run.tasks[0].file]


def test_cells_in_memory_are_no_work_for_another_process(tmp_path):
    with open_run(demo.cells(), ARGS, tmp_path) as run, raises("source_in_memory"):
        run_shard(run.tasks[0])


def test_a_run_that_lacks_shards_is_not_committed(tmp_path, local):
    with open_run(demo.CELLS, ARGS, tmp_path) as run:
        for task in run.tasks[1:]:
            run.note(run_shard(task))
        with raises("shards_missing", "lacks 1 of its shards: 'data-00000-of-00031.arrow"):
            run.commit()
        run.note(run_shard(run.tasks[0]))
        there = run.manifest.path / run.tasks[9].file
        away = there.replace(tmp_path / "away")  # as on a machine that has another disk
        with raises("shards_missing", "data-00009-of-00031.arrow"):
            run.commit()
        away.replace(there)
        run.commit()
    assert contents(tmp_path / "cells") == local


def test_a_finished_run_has_no_tasks(tmp_path):
    manifest = teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path)
    with open_run(demo.CELLS, ARGS, tmp_path) as run:
        assert run.tasks == []
        assert run.commit() == manifest
