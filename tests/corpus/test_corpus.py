"""Many sources become one dataset each, the same as alone, on any executor and with any interruptions."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cells
import teddytok_rs
from command_line import MODULE, teddytok
from corpora import CORRUPT, Home, assert_whole, inodes, write_source
from folders import contents
from raises import check_message, raises
from teddytok_rs import CorpusManifest, Manifest, tokenize_corpus
from teddytok_rs.corpus.state import COPY
from teddytok_rs.output.checksum import with_checksum
from teddytok_rs.output.layout import vocabulary_folder
from teddytok_rs.output.temporary import make_temporary, record_files


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


# ---- the same bytes


def test_twenty_files_become_what_each_becomes_alone(home, tmp_path):
    corpus = tokenize_corpus(home.sources, home.args, tmp_path, threads=2)
    assert_whole(corpus, home)
    assert corpus.n_cells == sum(40 + number for number in range(20) if number != 7)


def test_processes_write_the_same_bytes(home, tmp_path, processes):
    assert_whole(tokenize_corpus(home.sources, home.args, tmp_path, executor=processes), home)


class Lazy(Executor):
    """Does its tasks only when it holds so many, or the last one: who expects it to do one earlier waits for ever."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self.waiting: list[tuple[Future[Any], Any, Any]] = []

    def submit(self, work: Any, /, task: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, work, task))
        self.held = max(self.held, len(self.waiting))
        if len(self.waiting) == self.most or task.folder.endswith("s19-v3"):
            for waiting, its_work, its_task in self.waiting:
                waiting.set_result(its_work(its_task))
            self.waiting.clear()
        return future


def test_an_executor_of_unknown_size_holds_a_bounded_number_of_tasks(home, tmp_path, monkeypatch):
    from teddytok_rs.corpus import executor as module

    monkeypatch.setattr(module, "TASKS", 9)
    executor = Lazy(9)
    assert_whole(tokenize_corpus(home.sources, home.args, tmp_path, executor=executor), home)
    assert executor.held == 9


def test_an_executor_holds_four_tasks_for_each_worker_and_as_many_runs_are_open(home, tmp_path, monkeypatch):
    from teddytok_rs.corpus import state as module

    opened: list[int] = []
    open_run = module.open_run

    @contextlib.contextmanager
    def counted(*args: Any, **kwargs: Any):
        opened.append(opened[-1] + 1 if opened else 1)
        with open_run(*args, **kwargs) as run:
            yield run
        opened.append(opened[-1] - 1)

    monkeypatch.setattr(module, "open_run", counted)
    executor = Lazy(4)
    executor.max_workers = 1
    assert_whole(tokenize_corpus(home.sources, home.args, tmp_path, executor=executor), home)
    assert executor.held == 4
    assert max(opened) <= 5


def test_a_corpus_is_one_dataset_for_training(home, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed; it is an extra of several GB")
    from teddytok_rs.torch import WrittenDataset

    corpus = tokenize_corpus(home.sources, home.args, tmp_path)
    assert len(WrittenDataset(tmp_path)) == corpus.n_cells


# ---- interruptions


def die(_task: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dying(Executor):
    """Processes one of which is killed with its task, after some others were done."""

    def __init__(self, inner: Executor, tasks: int) -> None:
        self.inner, self.left = inner, tasks

    def submit(self, work: Any, /, *words: Any) -> Future[Any]:
        self.left -= 1
        return self.inner.submit(die if self.left == 0 else work, *words)


def test_a_killed_worker_is_one_clear_error_and_the_same_call_continues(home, tmp_path, processes):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as inner:
        with raises("executor_broken", str(tmp_path), "the same call"):
            tokenize_corpus(home.sources, home.args, tmp_path, executor=Dying(inner, 30))
        finished = [source.folder for source in CorpusManifest.read(tmp_path).finished]
        assert 2 < len(finished) < 15
        before = inodes(tmp_path)
        with raises("executor_broken"):  # this one stays broken
            tokenize_corpus(home.sources, home.args, tmp_path, executor=inner)
    corpus = tokenize_corpus(home.sources, home.args, tmp_path, executor=processes)
    assert_whole(corpus, home)
    after = inodes(tmp_path)
    kept = {path for path in before if Path(path).parent.name in finished and not path.endswith("lock")}
    assert kept
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}


def test_ctrl_c_cancels_what_has_not_begun(home, tmp_path):
    class Interrupted(Executor):
        max_workers = 1
        futures: list[Future[Any]] = []  # noqa: RUF012

        def submit(self, work: Any, /, *words: Any) -> Future[Any]:
            future: Future[Any] = Future()
            if len(self.futures) == 10:
                raise KeyboardInterrupt
            if len(self.futures) < 7:
                future.set_result(work(*words))
            self.futures.append(future)
            return future

    with pytest.raises(KeyboardInterrupt):
        tokenize_corpus(home.sources, home.args, tmp_path, executor=Interrupted())
    assert [future.cancelled() for future in Interrupted.futures] == [False] * 7 + [True] * 3
    assert len(list(tmp_path.glob("s01-csc/data-*.arrow"))) == 3
    assert_whole(tokenize_corpus(home.sources, home.args, tmp_path), home)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_command_that_is_killed_is_continued_by_the_same_command(home, tmp_path):
    out = tmp_path / "out"
    command = [*MODULE, "tokenize", str(home.sources), "-c", home.config, "-o", str(out)]
    for n_finished in (2, 8):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("*/state.json"))) < n_finished:
            time.sleep(0.002)
        process.kill()
        process.wait()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert_whole(CorpusManifest.read(out), home)


def test_a_finished_corpus_is_left_as_it_is_without_opening_a_source(home, tmp_path, monkeypatch):
    from teddytok_rs.corpus import state as corpus_work

    corpus = tokenize_corpus(home.sources, home.args, tmp_path)
    before = inodes(tmp_path)
    opened = []
    open_run = corpus_work.open_run
    monkeypatch.setattr(
        corpus_work,
        "open_run",
        lambda path, *words, **keys: opened.append(Path(path).stem) or open_run(path, *words, **keys),
    )
    assert tokenize_corpus(home.sources, home.args, tmp_path) == corpus
    assert opened == [CORRUPT]
    assert inodes(tmp_path) == before


@pytest.mark.parametrize("name", ["data-00001-of-00004.arrow", "genes.csv", "dataset_info.json", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_finished_source_that_is_damaged_is_repaired(home, tmp_path, caplog, name, damage):
    sources = [home.sources / "s00-csr.h5ad", home.sources / "s05-csr.h5ad"]
    corpus = tokenize_corpus(sources, home.args, tmp_path)
    before = contents(tmp_path, without="corpus.json")
    path = tmp_path / "s00-csr" / name
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.unlink()
    if damage == "flip":
        path.write_bytes(whole)
    caplog.clear()
    outcomes = []
    assert tokenize_corpus(sources, home.args, tmp_path, on_source=outcomes.append) == corpus
    assert contents(tmp_path, without="corpus.json") == before
    assert f"{path} is damaged: written again" in [record.message for record in caplog.records]
    kept = {outcome.source.folder: outcome.manifest.n_kept for outcome in outcomes}
    assert kept == {"s00-csr": 4 - name.startswith("data-"), "s05-csr": 5}


def test_what_failed_is_tried_again_and_what_was_lost_or_changed_is_not_skipped(home, tmp_path):
    sources = tmp_path / "in"
    sources.mkdir()
    bad, lost, changed = (write_source(sources, number, "csr.h5ad") for number in range(3))
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-500])
    out = tmp_path / "out"
    (failed,) = tokenize_corpus(sources, home.args, out).failed
    assert failed.source == str(bad)
    bad.write_bytes(whole)
    next((out / lost.stem).glob("data-*")).unlink()
    changed.write_bytes(write_source(tmp_path, 9, "csr.h5ad").read_bytes())
    corpus = tokenize_corpus(sources, home.args, out)
    assert [source.error and source.error["kind"] for source in corpus.sources] == [None, None, "output_differs"]
    corpus = tokenize_corpus(sources, home.args, out, overwrite=True)
    assert (corpus.failed, [source.cells for source in corpus.sources]) == ([], [40, 41, 49])
    assert teddytok_rs.verify(out).problems == []


# ---- what cannot be


def test_fail_fast_stops_at_the_first(home, tmp_path, processes):
    for name, keys in {"here": {}, "processes": {"executor": processes}}.items():
        corpus = tokenize_corpus(home.sources, home.args, tmp_path / name, fail_fast=True, **keys)
        assert [source.folder for source in corpus.failed] == [CORRUPT]
        assert all(source.folder < CORRUPT for source in corpus.finished)
        assert not (tmp_path / name / "s19-v3").exists()
        assert_whole(tokenize_corpus(home.sources, home.args, tmp_path / name, **keys), home)


def test_a_task_that_fails_makes_its_source_bad_and_no_other(home, tmp_path, processes):
    sources = tmp_path / "in"
    sources.mkdir()
    for number in range(3):
        counts = cells.make_counts(40, seed=number)
        if number == 1:
            counts[33, 2] = np.nan
        cells.save(cells.with_layer(counts), sources / f"c{number}.h5ad")
    expected = tokenize_corpus(sources, home.args, tmp_path / "here")
    (failed,) = expected.failed
    assert (failed.folder, failed.error["kind"]) == ("c1", "not_finite")
    assert "'cell-33'" in failed.error["message"]
    corpus = tokenize_corpus(sources, home.args, tmp_path / "processes", executor=processes)
    assert corpus.sources == expected.sources
    corpus = tokenize_corpus(sources, home.args, tmp_path / "fast", executor=processes, fail_fast=True)
    assert [source.folder for source in corpus.failed] == ["c1"]
    assert teddytok_rs.verify(tmp_path / "here").problems == [
        f"c1: {str(sources / 'c1.h5ad')!r} failed: {failed.error['message']}"
    ]


def test_a_bug_in_one_source_does_not_stop_the_others(home, tmp_path, monkeypatch):
    from teddytok_rs.corpus import state as corpus_work

    write = corpus_work.write_shards

    def break_once(run: Any, *words: Any) -> None:
        if run.manifest.path.name == "s01-csc":
            raise ZeroDivisionError("what\nnow")
        write(run, *words)

    monkeypatch.setattr(corpus_work, "write_shards", break_once)
    corpus = tokenize_corpus(
        [home.sources / f"s0{name}" for name in ("0-csr.h5ad", "1-csc.h5ad", "2-dense.h5ad")], home.args, tmp_path
    )
    (failed,) = corpus.failed
    assert failed.error.kind == "unexpected"
    message = "unexpected error: ZeroDivisionError: what now. Run again with --debug, and please report it."
    assert failed.error.message == message
    assert len(corpus.finished) == 2


def test_datasets_that_cannot_be_joined_are_not_written(home, tmp_path):
    sources = tmp_path / "in"
    sources.mkdir()
    for name, depths in {"a": [1, 2], "b": [0.5, 1.5], "c": [2, 1]}.items():
        cells.save(cells.with_layer(cells.make_counts(2), depth=depths), sources / f"{name}.h5ad")
    args = {**home.args, "label_column": "depth"}
    for _ in range(2):
        corpus = tokenize_corpus(sources, args, tmp_path / "out")
        assert [(source.folder, source.error["kind"]) for source in corpus.failed] == [("b", "datasets_differ")]
        check_message(corpus.failed[0].error["message"])
        assert not (tmp_path / "out" / "b" / "state.json").exists()


@pytest.mark.parametrize(
    ("whole", "damaged"), [(b'"names"', b'"Names"'), (b'{"info"', b'["info"'), (b'"left"', b'"lift"')]
)
def test_a_damaged_shard_does_not_say_what_others_must_mean(home, tmp_path, whole, damaged):
    sources = [home.sources / "s00-csr.h5ad", home.sources / "s05-csr.h5ad"]
    args = {**home.args, "label_column": "site"}
    corpus = tokenize_corpus(sources, args, tmp_path)
    before = contents(tmp_path, without="corpus.json")
    shard = min((tmp_path / "s00-csr").glob("data-*"))
    assert whole in shard.read_bytes()
    shard.write_bytes(shard.read_bytes().replace(whole, damaged))
    assert tokenize_corpus([*sources, home.sources / "s10-csr.h5ad"], args, tmp_path).failed == []
    assert before.items() <= contents(tmp_path, without="corpus.json").items()
    assert len(corpus.finished) == 2


def test_a_corpus_of_other_arguments_is_refused_and_other_sources_are_added(home, tmp_path):
    first, second = home.sources / "s00-csr.h5ad", home.sources / "s05-csr.h5ad"
    tokenize_corpus(first, home.args, tmp_path)
    with raises("output_differs", "max_seq_len (8 there, 7 now)"):
        tokenize_corpus([first, second], {**home.args, "max_seq_len": 7}, tmp_path)
    with raises("output_differs", "the vocabulary"):
        other = cells.write_vocabulary(tmp_path / "other", [*cells.TOKENS, "more"])
        tokenize_corpus(second, {**home.args, "tokenizer_name_or_path": other}, tmp_path)
    shutil.rmtree(tmp_path / "other")
    corpus = tokenize_corpus(second, home.args, tmp_path)
    assert [source.folder for source in corpus.sources] == ["s00-csr", "s05-csr"]
    assert teddytok_rs.verify(tmp_path).problems == []
    corpus = tokenize_corpus(second, {**home.args, "max_seq_len": 7}, tmp_path, overwrite=True)
    assert [source.folder for source in corpus.sources] == ["s05-csr"]
    assert teddytok_rs.verify(tmp_path).problems == ["s00-csr: corpus.json does not list it"]


def test_seeds_that_are_drawn_are_each_source_s_own(home, tmp_path):
    args = {key: value for key, value in home.args.items() if key != "gene_seed"}
    names = ["s00-csr.h5ad", "s05-csr.h5ad"]
    tokenize_corpus([home.sources / name for name in names], args, tmp_path)
    seeds = {Manifest.read(tmp_path / Path(name).stem).gene_seed for name in names}
    assert len(seeds) == 2
    assert None not in seeds


def test_a_second_writer_is_refused(home, tmp_path):
    source = home.sources / "s00-csr.h5ad"

    def again(_: Any) -> None:
        with raises("output_locked", str(tmp_path)):
            tokenize_corpus(source, home.args, tmp_path)

    assert len(tokenize_corpus(source, home.args, tmp_path, on_source=again).finished) == 1


def test_arguments_are_checked_before_anything_is_made(home, tmp_path, processes):
    out = tmp_path / "out"
    with raises("config_conflict", "threads"):
        tokenize_corpus(home.sources, home.args, out, executor=processes, threads=2)
    with raises("config_value"):
        tokenize_corpus(home.sources, home.args, out, threads=0)
    with raises("vocabulary_not_found"):
        tokenize_corpus(home.sources, {**home.args, "tokenizer_name_or_path": "./nowhere"}, out)
    with raises("no_save_dir"):
        tokenize_corpus(home.sources, home.args)
    assert not out.exists()


def test_a_damaged_manifest_is_refused(home, tmp_path):
    source = home.sources / "s00-csr.h5ad"
    for text in ("", "[]", '{"sources": [{}]}', '{"sources": [], "totals": {}}', '{"sources": 3}'):
        (tmp_path / "corpus.json").write_text(text)
        with raises("output_unreadable", "corpus.json"):
            tokenize_corpus(source, home.args, tmp_path)
        with raises("output_unreadable", "corpus.json"):
            teddytok_rs.verify(tmp_path)
    assert len(tokenize_corpus(source, home.args, tmp_path, overwrite=True).finished) == 1


# ---- which sources


def test_folders_globs_and_paths_are_listed_by_name(home, tmp_path):
    from teddytok_rs.sources.discover import find_sources

    (tmp_path / "below").mkdir()
    for name in ("b.h5ad", "a.h5ad", "notes.txt", "below/c.h5ad"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "d.zarr").mkdir()
    store = tmp_path / "store"
    store.mkdir()
    (store / "zarr.json").write_text("{}")

    def names(given: Any) -> list[str]:
        return [str(Path(found).relative_to(tmp_path)) for found in find_sources(given)]

    assert names(tmp_path) == ["a.h5ad", "b.h5ad", "d.zarr"]
    assert names(f"{tmp_path}/*") == ["a.h5ad", "b.h5ad", "d.zarr"]
    assert names(f"{tmp_path}/**/*.h5ad") == ["a.h5ad", "b.h5ad", "below/c.h5ad"]
    assert names([tmp_path / "d.zarr", f"file://{tmp_path}/b.h5ad", store, tmp_path / "missing.h5ad"]) == [
        "d.zarr", "b.h5ad", "store", "missing.h5ad",
    ]  # fmt: skip
    (tmp_path / "x[1].h5ad").write_bytes(b"")
    assert names(tmp_path / "x[1].h5ad") == ["x[1].h5ad"]
    assert names(f"{tmp_path}/{'x' * 300}.h5ad") == [f"{'x' * 300}.h5ad"]
    for nothing in (f"{tmp_path}/*.txt", tmp_path / "below" / "..", []):
        if nothing != tmp_path / "below" / "..":
            with raises("no_sources"):
                find_sources(nothing)
    for other in (3, [None], cells.make_cells(), b"a.h5ad"):
        with raises("source_type"):
            find_sources(other)


def test_a_missing_file_is_a_source_that_failed(home, tmp_path):
    corpus = tokenize_corpus([home.sources / "s00-csr.h5ad", tmp_path / "nowhere.h5ad"], home.args, tmp_path / "out")
    assert [source.error["kind"] for source in corpus.failed] == ["source_not_found"]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["corpus.json", "s00-csr", vocabulary_folder(corpus.vocabulary)]


@pytest.mark.parametrize("second", ["other/s00-csr.h5ad", "s00-csr.zarr"])
def test_sources_that_would_be_written_to_one_place_are_refused(home, tmp_path, second):
    with raises("config_conflict", "would be written to one place", str(tmp_path / "out")):
        sources = [home.sources / "s00-csr.h5ad", tmp_path / second]
        tokenize_corpus(sources, home.args, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- remote sources


@pytest.fixture
def memory():
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed; it is an extra")
    files = fsspec.filesystem("memory")
    yield files
    with contextlib.suppress(FileNotFoundError):
        files.rm("/cells", recursive=True)


@pytest.mark.parametrize("through", ["here", "processes"])
def test_remote_sources_are_fetched_and_give_the_same_bytes(home, tmp_path, memory, processes, through):
    memory.put(str(home.sources) + "/", "/cells/", recursive=True)
    keys = {"executor": processes} if through == "processes" else {}
    corpus = tokenize_corpus("memory://cells", home.args, tmp_path, **keys)
    assert_whole(corpus, home)
    assert corpus.finished[0].source == "memory:///cells/s00-csr.h5ad"
    before = inodes(tmp_path)
    assert tokenize_corpus("memory:///cells/*", home.args, tmp_path, **keys).finished == corpus.finished
    assert inodes(tmp_path) == before


def test_a_remote_run_that_is_interrupted_keeps_its_shards(home, tmp_path, memory):
    from teddytok_rs.corpus import executor as corpus_flight

    memory.put(str(home.sources / "s00-csr.h5ad"), "/cells/s00-csr.h5ad")
    left = [2]

    def interrupt(task: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return teddytok_rs.output.shard.run_shard(task)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as executor:
        patch.setattr(corpus_flight, "run_shard", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize_corpus("memory://cells/s00-csr.h5ad", home.args, tmp_path, executor=executor)
    folder = tmp_path / "s00-csr"
    before = {path.name: path.stat().st_ino for path in folder.glob("data-*.arrow")}
    assert len(before) == 2
    left = make_temporary(tmp_path, COPY)  # as a killed process leaves it
    record_files(left, ["s00-csr.h5ad", "s00.zarr/zarr.json"])
    (left / "s00.zarr").mkdir()
    (left / "s00.zarr" / "zarr.json").write_text("{}")
    corpus = tokenize_corpus("memory://cells/s00-csr.h5ad", home.args, tmp_path)
    assert {name: (folder / name).stat().st_ino for name in before} == before
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["corpus.json", "s00-csr", vocabulary_folder(corpus.vocabulary)]


def test_a_remote_source_that_changed_is_seen(home, tmp_path, memory):
    memory.put(str(home.sources / "s00-csr.h5ad"), "/cells/a.h5ad")
    assert not tokenize_corpus("memory://cells/a.h5ad", home.args, tmp_path).failed
    memory.put(str(home.sources / "s05-csr.h5ad"), "/cells/a.h5ad")
    (failed,) = tokenize_corpus("memory://cells/a.h5ad", home.args, tmp_path).failed
    assert failed.error["kind"] == "output_differs"


def test_what_a_remote_store_says_is_one_error(home, tmp_path, memory, monkeypatch):
    from teddytok_rs.sources import remote

    def kinds(*urls: str) -> list[str]:
        return [source.error["kind"] for source in tokenize_corpus(urls, home.args, tmp_path).failed]

    assert kinds("memory://cells/nowhere.h5ad", "memory://cells/nowhere2.zarr") == ["source_not_found"] * 2
    assert kinds("nosuchstore://a/b.h5ad") == ["source_remote"]
    with raises("source_remote", "nosuchstore"):
        tokenize_corpus("nosuchstore://a/*.h5ad", home.args, tmp_path)
    with raises("no_sources", "memory://cells/*.h5ad"):
        tokenize_corpus("memory://cells/*.h5ad", home.args, tmp_path)
    memory.put(str(home.sources / "s00-csr.h5ad"), "/cells/a.h5ad")
    monkeypatch.setattr(type(memory), "get", lambda self, there, here: [Path(p).write_bytes(b"x") for p in here])
    with raises("source_remote", "1 of the"):
        remote.copy_source("memory://cells/a.h5ad", tmp_path / "copy", print)
    assert kinds("memory://cells/a.h5ad") == ["source_remote"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "copy"] == ["corpus.json"]
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with raises("cloud_extra", "pip install"):
        remote.remote_stamp("memory://cells/a.h5ad")


def test_a_store_with_names_that_lead_elsewhere_is_refused(tmp_path, memory, monkeypatch):
    from teddytok_rs.sources import remote

    found = {"/cells/a.zarr/../../evil": {"size": 1}}
    monkeypatch.setattr(type(memory), "find", lambda self, path, detail: found)
    with raises("source_remote", "evil"):
        remote.copy_source("memory://cells/a.zarr", tmp_path / "in" / "copy", print)
    assert not (tmp_path / "evil").exists()


# ---- the command line


def test_the_command_reports_each_source_and_the_corpus(home, tmp_path):
    words = ["tokenize", home.sources, "-c", home.config, "-o", "out"]
    process = teddytok(*words, cwd=tmp_path)
    assert process.returncode == 1
    (line,) = [line for line in process.stderr.splitlines() if "warning: " not in line]
    assert line.startswith("teddytok: ")
    assert line.count(f"{home.sources / CORRUPT}.h5ad") == 1
    check_message(line)
    *summaries, last = [line for line in process.stdout.splitlines() if not line.startswith(" ")]
    assert len(summaries) == 19
    corpus = CorpusManifest.read(tmp_path / "out")
    assert last == (
        f"out: 19 datasets, {corpus.n_cells} cells, {corpus.n_tokens:,} tokens, {corpus.n_shards} shards, "
        "1 source of 20 failed"
    )
    process = teddytok(*words, "--fail-fast", cwd=tmp_path)
    assert process.returncode == 1
    assert process.stdout.splitlines()[0] == "s00-csr.h5ad: 40 cells"
    assert "all of it, finished by an earlier run" in process.stdout
    assert teddytok(*words, "-q", cwd=tmp_path).stdout == ""


def test_the_command_takes_globs_and_writes_no_corpus_for_a_single_file(home, tmp_path):
    process = teddytok("tokenize", f"{home.sources}/*-v?.zarr", "-c", home.config, "-o", "out", cwd=tmp_path)
    warnings = process.stderr.splitlines()
    assert process.returncode == 0
    assert len(warnings) == len(set(warnings)) == 8  # one for each source, as these hold counts
    assert all("holds whole numbers" in line for line in warnings)
    assert len(CorpusManifest.read(tmp_path / "out").finished) == 8
    process = teddytok("tokenize", home.sources / "s00-csr.h5ad", "-c", home.config, "-o", "one", cwd=tmp_path)
    assert process.returncode == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["s00-csr"]
    assert process.stdout.startswith("s00-csr.h5ad: 40 cells\n")
    process = teddytok("tokenize", f"{home.sources}/*.nothing", "-c", home.config, "-o", "none", cwd=tmp_path)
    assert (process.returncode, process.stdout) == (2, "")


def test_a_single_file_is_added_to_the_corpus_that_is_there(home, tmp_path):
    first = [home.sources / "s00-csr.h5ad", home.sources / "s01-csc.h5ad"]
    words = ["-c", home.config, "-o", "out"]
    assert teddytok("tokenize", *first, *words, cwd=tmp_path).returncode == 0
    process = teddytok("tokenize", home.sources / "s02-dense.h5ad", *words, "--json", cwd=tmp_path)
    assert process.returncode == 0
    assert [source["source"] for source in json.loads(process.stdout)["sources"]] == [
        str(home.sources / "s02-dense.h5ad")
    ]
    corpus = CorpusManifest.read(tmp_path / "out")
    assert [source.folder for source in corpus.finished] == ["s00-csr", "s01-csc", "s02-dense"]
    assert teddytok("verify", "out", cwd=tmp_path).returncode == 0


def test_verify_checks_every_dataset_and_the_manifest(home, tmp_path):
    shutil.copytree(home.folder / "alone" / "s00-csr", tmp_path / "kept")
    sources = [home.sources / f"s0{name}" for name in ("0-csr.h5ad", "1-csc.h5ad", "2-dense.h5ad", "3-v2.zarr")]
    out = tmp_path / "out"
    tokenize_corpus(sources, home.args, out)
    process = teddytok("verify", out, cwd=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == f"{out}: 4 datasets, 166 cells in 19 shards, all valid\n"
    shard = next((out / "s01-csc").glob("data-*"))
    whole = bytearray(shard.read_bytes())
    whole[-200] ^= 1
    shard.write_bytes(whole)
    shutil.rmtree(out / "s02-dense")
    document = json.loads((out / "corpus.json").read_text())
    document["sources"][3]["sha256"] = "0" * 64
    del document["sha256"]
    (out / "corpus.json").write_text(with_checksum(document, ascii_only=True))
    shutil.copytree(tmp_path / "kept", out / "stranger")
    process = teddytok("verify", out, cwd=tmp_path)
    assert process.returncode == 1
    starts = ["s01-csc: data-", "s02-dense: ", "s03-v2: corpus.json lists other", "stranger: corpus.json does not"]
    for line, start in zip(process.stdout.splitlines(), starts, strict=True):
        assert line.startswith(f"{out}: {start}")


def test_progress_is_shown_over_all_sources(home, tmp_path, capsys, processes):
    keys = {"progress": True}
    tokenize_corpus(home.sources, home.args, tmp_path / "here", **keys)
    tokenize_corpus(home.sources, home.args, tmp_path / "there", executor=processes, **keys)
    assert capsys.readouterr().out == ""


def test_check_continues_after_a_source_that_cannot_be_read(home, tmp_path):
    done = teddytok("check", home.sources, "-c", home.config, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("ready to tokenize") == 19
    assert done.stderr.count(f"{CORRUPT}.h5ad") == 1
