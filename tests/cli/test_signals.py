"""SIGTERM and SIGHUP end a run as Ctrl-C does, with a message and their exit code; the same command continues it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest

import cells
from command_line import MODULE
from folders import contents
from teddytok_rs import tokenize_corpus, tokenize_to_disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
if os.name != "nt":
    CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}

N_CELLS = 120


def noted(folder: Path) -> int:
    """Count the shards that a journal notes; a line that is being written does not count."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / "teddytok.journal").read_bytes().count(b"\n") - 1
    return 0


def start(words: list[object], folder: Path, number: int, handler: object = None) -> subprocess.Popen[str]:
    """Start a command that obeys a signal, or ignores it as under nohup, whatever the tests were started by."""

    def prepare() -> None:
        for each in CODES:
            signal.signal(each, signal.SIG_DFL)
        if handler is not None:
            signal.signal(number, handler)  # type: ignore[arg-type]

    command = [*MODULE, *map(str, words)]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, preexec_fn=prepare)  # noqa: PLW1509


def wait_until(process: subprocess.Popen[str], is_so: Callable[[], bool]) -> None:
    while not is_so():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
        assert process.returncode is None, process.stderr and process.stderr.read()


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """A run of many small shards, so that a signal comes before its end."""
    cells.save(cells.with_layer(cells.make_counts(N_CELLS)), tmp_path / "many.h5ad")
    cells.write_json(tmp_path / "args.json", cells.make_args(tmp_path, max_shard_samples=1))
    return ["tokenize", "many.h5ad", "-c", "args.json", "-o", "out", "-q"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_run_that_the_same_command_continues(name: str, words: list[object], tmp_path: Path):
    number = getattr(signal, name)
    expected = contents(tokenize_to_disk(tmp_path / "many.h5ad", tmp_path / "args.json", tmp_path / "alone").path)
    folder = tmp_path / "out" / "many"
    with start(words, tmp_path, number) as process:
        wait_until(process, lambda: noted(folder) > 0)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    assert process.returncode == CODES[number]
    assert err.strip() == f"teddytok: interrupted by {name}. The same command again continues an unfinished run."
    assert not (folder / "state.json").exists()
    assert not list(folder.glob(".teddytok*"))
    assert noted(folder) > 0
    with start(words, tmp_path, number) as process:
        _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert contents(folder) == expected


def test_a_signal_that_is_ignored_from_the_start_stays_ignored(words: list[object], tmp_path: Path):
    folder = tmp_path / "out" / "many"
    with start(words, tmp_path, signal.SIGHUP, signal.SIG_IGN) as process:
        wait_until(process, lambda: noted(folder) > 0)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")


KILLED = """
import os, sys, threading, time
from multiprocessing import get_context
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
import teddytok_rs

if __name__ == "__main__":
    number, journal = int(sys.argv[1]), Path("corpus/many/teddytok.journal")
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        pid = pool.submit(os.getpid).result()
        def watch():
            while not journal.exists() or journal.read_bytes().count(b"\\n") < 2:
                time.sleep(0.01)
            os.kill(pid, number)
        threading.Thread(target=watch, daemon=True).start()
        try:
            teddytok_rs.tokenize_corpus(["many.h5ad"], "args.json", "corpus", executor=pool)
        except teddytok_rs.TeddytokError as bad:
            print(bad.kind)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_a_worker_is_an_error_that_the_same_call_continues_from(
    name: str, words: list[object], tmp_path: Path
):
    del words  # its files are what is needed
    source, args = tmp_path / "many.h5ad", tmp_path / "args.json"
    (tmp_path / "killed.py").write_text(KILLED, encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "killed.py", str(int(getattr(signal, name)))],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert process.stdout.split() == ["executor_broken"], process.stderr
    with ProcessPoolExecutor(1) as pool:
        assert tokenize_corpus([source], args, tmp_path / "corpus", executor=pool).n_cells == N_CELLS
    alone = tokenize_corpus([source], args, tmp_path / "alone").path
    without = "corpus.json"
    assert contents(tmp_path / "corpus", without=without) == contents(alone, without=without)
