"""Files are closed when a call ends, however it ends; and few are open at a time, however many sources there are."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from scipy import sparse

import cells
from raises import raises
from teddytok_rs import check, iter_batches, tokenize, tokenize_corpus, tokenize_to_disk
from teddytok_rs.mapping.build_vocabulary import build_vocabulary
from teddytok_rs.pipeline import batches
from teddytok_rs.sources import csc, files
from teddytok_rs.sources.identity import fingerprint
from teddytok_rs.sources.open import find_counts, open_source
from teddytok_rs.sources.stored import StoredSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HANDLES = Path("/proc/self/fd")
pytestmark = pytest.mark.skipif(not HANDLES.exists(), reason="the handles of a process are counted in /proc")

N_CELLS = 40
FORMS = {
    "CSR": sparse.csr_matrix,
    "CSC": sparse.csc_matrix,
    "dense": np.array,
}


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """What closes a file must not be the garbage collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def handles(*paths: Path) -> list[str]:
    """List what this process has open: these files, those below these folders, and temporary files."""
    places = [str(path) for path in paths]
    found = []
    for handle in HANDLES.iterdir():
        try:
            place = os.readlink(handle)  # noqa: PTH115
        except FileNotFoundError:  # that of the listing itself
            continue
        if any(place.startswith(start) for start in places) or "teddytok-" in place:
            found.append(place)
    return found


def write(folder: Path, form: Callable = sparse.csr_matrix, name: str = "cells.h5ad", **options: str) -> Path:
    made = cells.make_cells(N_CELLS)
    made.layers["processed"] = form(cells.make_counts(N_CELLS))
    folder.mkdir(exist_ok=True)
    return cells.save(made, folder / name, **options)


def written_again(path: Path) -> None:
    """Write a file again, as a user does who corrected it: HDF5 refuses that where it is open."""
    with h5py.File(path, "w") as file:
        file["new"] = 1


CALLS = {
    "tokenize": lambda path, args, folder: tokenize(path, args, threads=2),
    "iter_batches, all": lambda path, args, folder: list(iter_batches(path, args, threads=2)),
    "iter_batches, the first": lambda path, args, folder: list(islice(iter_batches(path, args, threads=2), 1)),
    "check": lambda path, args, folder: check(path, args, threads=2),
    "tokenize_to_disk": lambda path, args, folder: tokenize_to_disk(path, args, folder, threads=2),
    "a finished dataset": lambda path, args, folder: [tokenize_to_disk(path, args, folder) for _ in range(2)],
    "tokenize_corpus": lambda path, args, folder: tokenize_corpus([path], args, folder, threads=2),
    "tokenize_corpus with threads": lambda path, args, folder: tokenize_corpus(
        [path], args, folder, executor=ThreadPoolExecutor(2)
    ),
    "build_vocabulary": lambda path, args, folder: build_vocabulary([path], folder, obs_columns=["sex"]),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_file_is_open_after_a_call(form: Callable, call: Callable, tmp_path: Path):
    path = write(tmp_path / "in", form)
    result = call(path, cells.make_args(tmp_path, label_column="sex"), tmp_path / "out")
    left = handles(tmp_path)
    if call is CALLS["tokenize_corpus with threads"]:
        # A thread that writes shards keeps what it sorted for the next shard of the source.
        left = [place for place in left if place.startswith(str(tmp_path))]
    assert not left
    written_again(path)
    assert result


def nan_in_the_last_cell(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["layers/processed/data"][-6:] = np.nan


def no_label(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["obs/sex/codes"][3] = -1


def cut_indptr(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["layers/processed/indptr"][0] = 1


def unchanged(path: Path) -> None:
    pass


def pack_badly(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        data = file["layers/processed/data"]
        values = data[()]
        del file["layers/processed/data"]
        data = file.create_dataset("layers/processed/data", data=values, chunks=(16,), compression="gzip")
        data.id.write_direct_chunk((32,), b"not gzip")


REFUSED = {
    "a value": (nan_in_the_last_cell, {}, "not_finite"),
    "a label": (no_label, {"label_column": "sex"}, "label_missing"),
    "a matrix": (cut_indptr, {}, "matrix_malformed"),
    "a chunk": (pack_badly, {}, "source_unreadable"),
    "a layer": (unchanged, {"layer": "no such"}, "layer_missing"),
    "a column": (unchanged, {"obs_columns": ["no such"]}, "obs_column_missing"),
    "a filter": (unchanged, {"cell_filter": "sex == 'no such'"}, "no_cells_kept"),
    "genes": (unchanged, {"gene_id_column": "no such"}, "gene_column_missing"),
}


#: What `check` raises too, rather than report it.
RAISED_BY_CHECK = {"a matrix", "a chunk", "a layer"}


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name in ("tokenize", "iter_batches, all", "tokenize_to_disk") for case in REFUSED]
    + [("check", case) for case in sorted(RAISED_BY_CHECK)],
)
def test_no_file_is_open_after_an_error_that_is_kept(name: str, case: str, tmp_path: Path):
    change, keys, kind = REFUSED[case]
    path = write(tmp_path / "in")
    change(path)
    with raises(kind) as caught:  # with its traceback, as notebooks keep it
        CALLS[name](path, cells.make_args(tmp_path, **keys), tmp_path / "out")
    assert not handles(tmp_path)
    written_again(path)
    assert caught.tb is not None


def test_no_file_is_open_after_no_layer_holds_counts(tmp_path: Path):
    made = cells.make_cells(N_CELLS)
    made.X = sparse.csr_matrix(cells.make_counts(N_CELLS) + np.float32(0.5))
    del made.raw
    path = cells.save(made, tmp_path / "cells.h5ad")
    with raises("no_counts") as caught:
        tokenize(path, cells.make_args(tmp_path, layer="auto"))
    assert not handles(path)
    assert caught.tb is not None


def test_looking_for_counts_leaves_no_file_open(tmp_path: Path):
    path = write(tmp_path)
    with closing(open_source(path, "processed")) as source:
        before = handles(path)
        assert find_counts(source) == "raw"
        assert handles(path) == before


@pytest.mark.parametrize("name", ["tokenize", "iter_batches, all", "tokenize_to_disk", "check"])
@pytest.mark.parametrize("when", ["planning", "reading"])
def test_no_file_is_open_after_an_interrupt(name: str, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path = write(tmp_path / "in")
    if when == "planning":
        monkeypatch.setattr(StoredSource, "obs_column", interrupt)
    else:
        monkeypatch.setattr(batches, "tokenize_chunk", interrupt)
        monkeypatch.setattr("teddytok_rs.pipeline.scan.read_cells", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        CALLS[name](path, cells.make_args(tmp_path, label_column="sex"), tmp_path / "out")
    assert not handles(tmp_path)
    written_again(path)
    assert caught.tb is not None


def test_a_backed_anndata_stays_as_open_as_it_was(tmp_path: Path):
    import anndata as ad

    made = cells.make_cells(N_CELLS)
    made.X = made.layers["processed"]
    path = cells.save(made, tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(path, backed="r")
    before = handles(path)
    for _ in range(2):
        tokenize(backed, cells.make_args(tmp_path, layer="X"))
        assert handles(path) == before
    assert backed.X[:2].shape == (2, made.n_vars)
    backed.file.close()


# ---- closed and opened again


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("compression", [None, "gzip", "szip"])
@pytest.mark.parametrize("close", ["release", "close"])
def test_a_source_that_was_closed_is_read_on(form: Callable, compression: str | None, close: str, tmp_path: Path):
    if compression == "szip" and not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
        compression = "lzf"
    path = write(tmp_path, form, compression=compression)
    with closing(open_source(path, "processed")) as source:
        before = source.read(3, 9)
        names, column, print_ = source.cell_names(), source.obs_column("sex"), fingerprint(source)
        getattr(source, close)()
        assert not handles(path)
        after = source.read(3, 9)
        np.testing.assert_array_equal(before.values, after.values)
        assert (list(source.cell_names()), fingerprint(source)) == (list(names), print_)
        getattr(source, close)()
        assert source.obs_column("sex").equals(column)
        assert source.cell_name(7) == names[7]
    assert not handles(path)


def test_a_relative_path_is_opened_again_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    with closing(open_source("cells.h5ad", "processed")) as source:
        before = source.read(0, 4).values
        source.release()
        monkeypatch.chdir("/")
        np.testing.assert_array_equal(source.read(0, 4).values, before)


def test_another_file_is_not_opened_again(tmp_path: Path):
    path = write(tmp_path)
    with closing(open_source(path, "processed")) as source:
        source.release()
        write(tmp_path, name="other.h5ad", compression="gzip").replace(path)
        with raises("source_changed", str(path)):
            source.read(0, 4)


def test_what_is_released_while_it_is_read_is_read_to_the_end(tmp_path: Path):
    paths = [write(tmp_path, FORMS["dense" if n % 2 else "CSR"], f"{n}.h5ad", compression="gzip") for n in range(4)]
    sources = [open_source(path, "processed") for path in paths]
    expected = [source.read(0, N_CELLS).values for source in sources]

    def work(number: int) -> bool:
        source = sources[number % 4]
        if number % 3 == 0:
            source.release()
        return bool((source.read(0, N_CELLS).values == expected[number % 4]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(2000)))
    for source in sources:
        source.close()
    assert not handles(tmp_path)


def test_a_forked_process_reads_through_a_file_of_its_own(tmp_path: Path):
    with closing(open_source(write(tmp_path, compression="gzip"), "processed")) as source:
        expected = source.read(0, N_CELLS).values
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(theirs, pickle.dumps(source.read(0, N_CELLS).values))
            finally:
                os._exit(0)
        os.close(theirs)
        with open(ours, "rb") as answer:  # noqa: PTH123
            np.testing.assert_array_equal(pickle.loads(answer.read()), expected)
        os.waitpid(child, 0)
        np.testing.assert_array_equal(source.read(0, N_CELLS).values, expected)


def test_what_was_sorted_is_kept_when_a_file_is_released_and_freed_when_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sorted_ = []
    monkeypatch.setattr(csc.CscRows, "_sort_into_bands", counted(csc.CscRows._sort_into_bands, sorted_))
    with closing(open_source(write(tmp_path, sparse.csc_matrix), "processed")) as source:
        for _ in range(3):
            source.read(0, 9)
            source.release()
        assert len(sorted_) == 1
        source.close()
        assert not handles(tmp_path)
        source.read(0, 9)
        assert len(sorted_) == 2


def counted(method: Callable, calls: list[int]) -> Callable:
    def call(self: object) -> object:
        calls.append(1)
        return method(self)

    return call


# ---- many


def test_few_files_are_open_however_many_sources_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "MAX_OPEN", 5)
    paths = [write(tmp_path, FORMS["dense" if n % 3 else "CSR"], f"{n}.h5ad") for n in range(20)]
    sources = [open_source(path, "processed") for path in paths]
    expected = cells.make_counts(N_CELLS)
    for number in np.random.default_rng(0).integers(0, 20, 200).tolist():
        chunk = sources[number].read(5, 10)
        assert chunk.values[chunk.values != 0].tolist() == expected[5:10][expected[5:10] != 0].tolist()
        open_now = handles(*paths)
        assert len(set(open_now)) <= 5
        assert len(open_now) <= 10
    for source in sources:
        source.close()
    assert not handles(*paths)
    assert not files.OPEN.items


def test_few_matrices_are_sorted_at_a_time_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "MAX_OPEN", 3)
    path = write(tmp_path, sparse.csc_matrix)
    sources = [open_source(path, "processed") for _ in range(8)]
    expected = cells.make_counts(N_CELLS)
    for source in sources * 2:
        chunk = source.read(5, 10)
        assert chunk.values[chunk.values != 0].tolist() == expected[5:10][expected[5:10] != 0].tolist()
        assert sum("teddytok-" in place for place in handles()) <= 3
    with ThreadPoolExecutor(8) as pool:  # some are released while others read from them
        parts = list(pool.map(lambda n: sources[n % 8].read(n % 30, n % 30 + 5).values.sum(), range(400)))
    assert parts == [np.float32(expected[n % 30 : n % 30 + 5].sum()) for n in range(400)]
    for source in sources:
        source.close()
    assert not handles(path)


def test_a_source_that_is_dropped_is_closed(tmp_path: Path):
    path = write(tmp_path)
    source = open_source(path, "processed")
    assert handles(path)
    del source
    assert not handles(path)


MANY = """
import resource, sys
from contextlib import closing
from pathlib import Path
from teddytok_rs.sources.open import open_source
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
paths = sorted(Path(sys.argv[1]).glob("*.h5ad"))
sources = [open_source(path, "processed") for path in paths]
for _ in range(2):
    for source in sources:
        source.read(0, 3)
        source.obs_column("sex")
print(len(sources))
"""


def test_more_sources_are_open_than_the_system_allows_files(tmp_path: Path):
    first = write(tmp_path, name="0.h5ad")
    for number in range(1, 100):
        (tmp_path / f"{number}.h5ad").hardlink_to(first)
    done = subprocess.run([sys.executable, "-c", MANY, tmp_path], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("100\n", "")
