"""What the system does not give is said, and not blamed on a file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import pytest

import cells
from raises import raises
from teddytok_rs import TokenizationArgs, tokenize, tokenize_to_disk
from teddytok_rs.errors.build import system_error
from teddytok_rs.sources.stored import StoredCsr

if TYPE_CHECKING:
    from collections.abc import Callable

#: Open as many files as the process may, and then do something.
EXHAUST = """
import os, resource, sys
from teddytok_rs import TokenizationArgs, check, tokenize, tokenize_to_disk
from teddytok_rs.errors import TeddytokError
from teddytok_rs.sources.open import open_source
import anndata.io, filelock, pyarrow.ipc
what, path, vocabulary, config = sys.argv[1:]
args = {"tokenizer_name_or_path": vocabulary, "layer": "processed"}
for place in (path, path.replace("h5ad", "zarr")):
    tokenize(place, args, threads=1)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
while True:
    try:
        held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        break
try:
    if what == "source":
        open_source(path, "processed")
    elif what == "store":
        open_source(path.replace("h5ad", "zarr"), "processed")
    elif what == "vocabulary":
        tokenize(path, args, threads=1)
    elif what == "configuration":
        TokenizationArgs.load(config)
    else:
        tokenize_to_disk(path, args, config + ".out", threads=1)
except TeddytokError as bad:
    print(bad.kind, isinstance(bad, OSError), bad)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sets no such limit")
@pytest.mark.parametrize("what", ["source", "store", "vocabulary", "configuration", "output"])
def test_too_many_open_files_are_said(what: str, tmp_path: Path):
    made = cells.make_cells(6)
    path = cells.save(made, tmp_path / "cells.h5ad")
    cells.save(made, tmp_path / "cells.zarr")
    vocabulary = cells.write_vocabulary(tmp_path / "vocabulary")
    config = cells.write_json(tmp_path / "config.json", {"tokenizer_name_or_path": vocabulary})
    command = [sys.executable, "-c", EXHAUST, what, path, vocabulary, config]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("too_many_open_files True "), done.stderr + done.stdout
    assert "too many open files" in done.stdout
    assert "ulimit -n" in done.stdout


FAILS = {
    "no memory": (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "out_of_memory", "cannot allocate memory"),
    "no array": (MemoryError("Unable to allocate 7.00 TiB"), "out_of_memory", "Unable to allocate 7.00 TiB"),
    "no files": (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "too_many_open_files", "too many open files"),
}


def no_file(monkeypatch: pytest.MonkeyPatch, bad: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise bad

    monkeypatch.setattr(h5py, "File", fail)


def no_rows(monkeypatch: pytest.MonkeyPatch, bad: BaseException) -> None:
    def fail(*_: object) -> None:
        raise bad

    monkeypatch.setattr(StoredCsr, "read", fail)


def no_output(monkeypatch: pytest.MonkeyPatch, bad: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise bad

    monkeypatch.setattr("teddytok_rs.output.run.write_file", fail)


@pytest.mark.parametrize(("bad", "kind", "said"), FAILS.values(), ids=FAILS)
@pytest.mark.parametrize("where", [no_file, no_rows], ids=["opening", "reading"])
def test_a_limit_of_the_system_is_not_blamed_on_the_source(
    where: Callable, bad: BaseException, kind: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = cells.save(cells.make_cells(6), tmp_path / "cells.h5ad")
    where(monkeypatch, bad)
    with raises(kind, str(path), said) as caught:
        tokenize(path, cells.make_args(tmp_path), threads=1)
    assert "complete .h5ad" not in str(caught.value)


@pytest.mark.parametrize("name", ["no memory", "no files"])
def test_a_limit_of_the_system_is_not_blamed_on_the_output(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bad, kind, said = FAILS[name]
    no_output(monkeypatch, bad)
    with raises(kind, said):
        tokenize_to_disk(cells.make_cells(6), cells.make_args(tmp_path), tmp_path / "out")


@pytest.mark.parametrize("name", ["no memory", "no array", "no files"])
def test_a_limit_of_the_system_is_not_blamed_on_the_configuration(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bad, kind, said = FAILS[name]

    def fail(*_: object, **__: object) -> None:
        raise bad

    path = cells.write_json(tmp_path / "config.json", cells.make_args(tmp_path))
    monkeypatch.setattr(Path, "open", fail)
    with raises(kind, said, path):
        TokenizationArgs.load(path)


def test_other_errors_of_the_system_are_what_they_were():
    denied = system_error("source_unreadable", PermissionError(errno.EACCES, "Permission denied"), path="x")
    assert (denied.kind, denied.context["reason"]) == ("source_unreadable", "permission denied")
