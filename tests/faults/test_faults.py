"""Whichever call to the file system fails, the run says so, and the next one gives the bytes of an undisturbed one."""

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import cells
from faults.sweep import compile_injector, sweep
from folders import contents
from teddytok_rs import OutputError, TeddytokError, tokenize_to_disk, verify
from teddytok_rs.output.layout import MARKER


def test_a_sample_of_all_faults_costs_no_bytes(tmp_path: Path):
    library = compile_injector(tmp_path)
    if isinstance(library, str):
        pytest.skip(library)
    process = sweep(library, "--most", "6", capture=True)
    *runs, total = process.stdout.splitlines() or [""]
    assert process.returncode == 0, process.stdout + process.stderr
    assert len(runs) == 9
    assert all("refused" in run for run in runs), runs
    assert "killed" in process.stdout
    assert total.endswith("; 0 problems")


@pytest.mark.parametrize("name", ["vocab.txt", "sexes.json", "medians.json"])
def test_a_file_of_arguments_that_cannot_be_read_is_named_whenever_that_is(tmp_path: Path, monkeypatch, name: str):
    sexes = cells.write_json(tmp_path / "sexes.json", {"female": 5})
    medians = cells.write_json(tmp_path / "medians.json", dict.fromkeys(cells.GENES, 2.0))
    args = cells.make_args(tmp_path, bio_annotations=True, sex_mapping=sexes, median_dict=medians)
    for wanted in itertools.count():
        message = ""
        with failing_open(monkeypatch, name, wanted) as is_reached:
            try:
                tokenize_to_disk(cells.make_cells(), args, tmp_path / f"out{wanted}")
            except TeddytokError as bad:
                message = str(bad)
        if not is_reached():
            break
        assert f"{name}'" in message
        assert "input/output error" in message
    assert wanted > 0


def test_an_overwrite_whose_marker_cannot_be_read_loses_no_dataset(tmp_path: Path, monkeypatch):
    """An unreadable marker was once taken for that of an empty new dataset, which replaced the old one."""
    args = cells.make_args(tmp_path)
    tokenize_to_disk(cells.make_cells(), args, tmp_path / "out")
    new = contents(tokenize_to_disk(cells.make_cells(), args | {"max_seq_len": 4}, tmp_path / "new").path)
    folder = tmp_path / "out" / "anndata"
    old = contents(folder)
    for wanted in itertools.count():
        with failing_open(monkeypatch, MARKER, wanted) as is_reached, suppress(OutputError):
            tokenize_to_disk(cells.make_cells(), args | {"max_seq_len": 4}, tmp_path / "out", overwrite=True)
        if not is_reached():
            break
        kept = {name: sha for name, sha in contents(folder).items() if not name.startswith(".teddytok-")}
        assert kept == old
        assert verify(folder).problems == []
    assert wanted
    assert contents(folder) == new


@contextmanager
def failing_open(monkeypatch: pytest.MonkeyPatch, name: str, wanted: int) -> Iterator[Callable[[], bool]]:
    """Fail one opening of a file for reading; yield whether it was reached."""
    left, real = [wanted], Path.open

    def fails(path: Path, mode: str = "r", *words: object, **options: object) -> object:
        if path.name == name and mode == "rb":
            left[0] -= 1
            if left[0] == -1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, mode, *words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fails)
        yield lambda: left[0] < 0
