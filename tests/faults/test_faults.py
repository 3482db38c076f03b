"""Whichever call to the file system fails, the run says so, and the next one gives the bytes of an undisturbed one."""

import errno
import itertools
import os
from pathlib import Path

import pytest

import cells
from faults.sweep import compile_injector, sweep
from teddytok_rs import TeddytokError, tokenize_to_disk


def test_a_sample_of_all_faults_costs_no_bytes(tmp_path: Path):
    library = compile_injector(tmp_path)
    if isinstance(library, str):
        pytest.skip(library)
    process = sweep(library, "--most", "6", capture=True)
    *runs, total = process.stdout.splitlines() or [""]
    assert process.returncode == 0, process.stdout + process.stderr
    assert len(runs) == 9
    assert all("refused" in run and "killed" in run for run in runs), runs
    assert total.endswith("; 0 problems")


@pytest.mark.parametrize("name", ["vocab.txt", "sexes.json", "medians.json"])
def test_a_file_of_arguments_that_cannot_be_read_is_named_whenever_that_is(tmp_path: Path, monkeypatch, name: str):
    sexes = cells.write_json(tmp_path / "sexes.json", {"female": 5})
    medians = cells.write_json(tmp_path / "medians.json", dict.fromkeys(cells.GENES, 2.0))
    args = cells.make_args(tmp_path, bio_annotations=True, sex_mapping=sexes, median_dict=medians)
    read = Path.open
    for wanted in itertools.count():
        left = [wanted]

        def fails(path: Path, *words: object, left=left, **options: object) -> object:
            if path.name == name:
                left[0] -= 1
                if left[0] == -1:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            return read(path, *words, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", fails)
            message = ""
            try:
                tokenize_to_disk(cells.make_cells(), args, tmp_path / f"out{wanted}")
            except TeddytokError as bad:
                message = str(bad)
        if left[0] >= 0:  # it is not read so often
            break
        assert f"{name}'" in message
        assert "input/output error" in message
    assert wanted > 1
