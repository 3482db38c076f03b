"""Equal input gives equal bytes, whatever the number of threads, the chunks, or the form of the matrix."""

import hashlib
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import kernel_calls
import teddytok_rs
from teddytok_rs import demo
from teddytok_rs.pipeline import batches, resources
from teddytok_rs.pipeline.plan import build_plan

THREADS = (1, 2, 7)
#: Shards of 150 cells and blocks of 64: chunks, shards and blocks all end at different rows.
RANDOM = {"random_genes": True, "gene_seed": 2**40 + 7, "batch_size": 64, "max_seq_len": 100, "max_shard_samples": 150}
ARGS = {
    "expression": {"max_seq_len": 100, "max_shard_samples": 150},
    "random genes": RANDOM,
    "random genes in bins": {**RANDOM, "bins": 51, "random_genes_count": 300, "include_zero_genes": True},
    "normalized, ranks": {"normalize_total": 1e4, "log1p": True, "continuous_rank": True, "max_shard_samples": 333},
    "everything else": {"token_dtype": "uint16", "obs_columns": ["index", "tissue"], "write_values": False},
}
EVERY_ARGS = pytest.mark.parametrize("args", ARGS.values(), ids=ARGS.keys())


@pytest.fixture(scope="module")
def cells():
    return demo.cells()


def written(source, folder, args, **keywords):
    """Tokenize into a folder; give the sha256 of each file by name."""
    manifest = teddytok_rs.tokenize_to_disk(source, demo.args(**args), folder, **keywords)
    files = sorted(manifest.path.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@EVERY_ARGS
def test_a_second_run_writes_the_same_files(cells, tmp_path, args):
    assert written(cells, tmp_path / "a", args) == written(cells, tmp_path / "b", args)


@pytest.mark.parametrize("part_rows", [1, 5, 64])
def test_any_part_of_obs_that_is_held_gives_the_same_files(tmp_path, monkeypatch, part_rows):
    """Also where a shard's padding holds values of the next cells, as Arrow writes slices."""
    cells = demo.cells()[:100].copy()
    n = len(cells)
    cells.obs["text"] = ["x" * (row % 7) for row in range(n)]
    cells.obs["empty"] = [""] * (n - 1) + ["y" * 70]
    cells.obs["small"] = np.arange(n, dtype="i1")
    cells.obs["bool"] = np.arange(n) % 3 == 0
    cells.obs["nullable"] = pd.array([None if row % 5 == 0 else row for row in range(n)], dtype="Int16")
    cells.obs["missing"] = pd.Categorical([None if row % 4 == 0 else f"c{row % 3}" for row in range(n)])
    columns = ["text", "empty", "small", "bool", "nullable", "missing", "index", "tissue"]
    args = {"max_seq_len": 8, "max_shard_samples": 13, "obs_columns": columns, "bio_annotations": True}
    whole = written(cells, tmp_path / "whole", args)
    monkeypatch.setattr("teddytok_rs.mapping.cells.PART_ROWS", part_rows)
    parts = written(cells, tmp_path / "parts", args)
    assert parts.pop("teddytok.json")  # its checksum of obs is that of the parts
    assert whole.pop("teddytok.json")
    assert parts == whole


# ---- threads


@EVERY_ARGS
def test_any_threads_write_the_same_files(cells, tmp_path, args):
    runs = [written(cells, tmp_path / str(threads), args, threads=threads) for threads in THREADS]
    assert runs == [runs[0]] * len(THREADS)


def test_the_manifest_names_the_files_as_they_are(cells, tmp_path):
    files = written(cells, tmp_path, RANDOM, threads=2)
    manifest = json.loads((tmp_path / "anndata" / "teddytok.json").read_text(encoding="utf-8"))
    assert {shard["file"]: shard["sha256"] for shard in manifest["shards"]}.items() <= files.items()
    assert len(manifest["shards"]) == 5


# ---- chunks


def n_chunks(source, args):
    plan = build_plan(source, demo.args(**args))
    return len(list(batches.chunks(plan, (0, len(plan.cells)), resources.CHUNK_BYTES)))


@pytest.mark.parametrize("chunk_bytes", [1, 10_000, 2**20, 2**62])
@EVERY_ARGS
def test_chunks_of_any_size_write_the_same_files(cells, tmp_path, monkeypatch, args, chunk_bytes):
    wanted = written(cells, tmp_path / "default", args)
    monkeypatch.setattr(resources, "CHUNK_BYTES", chunk_bytes)
    for threads in (1, 2):
        assert written(cells, tmp_path / str(threads), args, threads=threads) == wanted


def test_smaller_chunks_are_more_chunks(cells, monkeypatch):
    numbers = []
    for chunk_bytes in (1, 2**20, 2**62):
        monkeypatch.setattr(resources, "CHUNK_BYTES", chunk_bytes)
        numbers.append(n_chunks(cells, RANDOM))
    assert numbers[0] == 700
    assert numbers[0] > numbers[1] > numbers[2] == 1


def test_shards_of_any_size_hold_the_same_cells(cells, tmp_path):
    datasets = pytest.importorskip("datasets")
    wanted = teddytok_rs.tokenize(cells, demo.args(**RANDOM)).to_pydict()
    for shard_rows in (37, 64, 699, 700, 5000):
        args = demo.args(**{**RANDOM, "max_shard_samples": shard_rows})
        manifest = teddytok_rs.tokenize_to_disk(cells, args, tmp_path, name=str(shard_rows))
        loaded = datasets.load_from_disk(str(manifest.path))
        assert loaded.with_format("arrow")[:].to_pydict() == wanted


def test_the_kernels_pieces_of_a_source_are_its_whole(cells):
    matrix = cells.layers["processed"]
    built = kernel_calls.kernel(765, range(765), max_seq_len=64, random_genes=True, gene_seed=3, batch_size=100)
    whole = kernel_calls.call(built, matrix, first_row=50)
    starts = (0, 1, 64, 130, 699)
    parts = [
        kernel_calls.call(built, matrix[start:stop], first_row=50 + start)
        for start, stop in zip(starts, (*starts[1:], 700), strict=True)
    ]
    for at in (1, 2, 3):
        assert np.concatenate([part[at] for part in parts]).tobytes() == whole[at].tobytes()


# ---- forms of one matrix


def in_form(cells, form):
    changed = cells.copy()
    matrix = sparse.csr_matrix(changed.layers["processed"])
    changed.layers["processed"] = {"csr": matrix.tocsr, "csc": matrix.tocsc, "dense": matrix.toarray}[form]()
    return changed


def unsorted(cells):
    """Store each cell's genes in reverse order, with an explicit zero at each end of the matrix."""
    changed = cells.copy()
    matrix = changed.layers["processed"].tocsr()
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    backwards = np.lexsort((-matrix.indices, rows))
    parts = (matrix.data[backwards], matrix.indices[backwards], matrix.indptr)
    changed.layers["processed"] = sparse.csr_matrix(parts, shape=matrix.shape)
    assert not changed.layers["processed"].has_sorted_indices
    return changed


@EVERY_ARGS
def test_any_form_in_memory_writes_the_same_files(cells, tmp_path, args):
    wanted = written(in_form(cells, "csr"), tmp_path / "csr", args) | {"teddytok.json": ""}
    forms = {form: in_form(cells, form) for form in ("csc", "dense")} | {"unsorted": unsorted(cells)}
    for form, source in forms.items():
        assert written(source, tmp_path / form, args) | {"teddytok.json": ""} == wanted
        assert but_for_the_name(tmp_path / form / "anndata") == but_for_the_name(tmp_path / "csr" / "anndata")


def write_source(cells, folder, form, suffix):
    """Store the cells as ``cells.h5ad`` or ``cells.zarr``, always under that name."""
    folder.mkdir()
    path = folder / f"cells.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata announces a change of its zarr format
        stored = in_form(cells, form)
        if suffix == "zarr":
            pytest.importorskip("zarr")
            stored.write_zarr(path)
        else:
            stored.write_h5ad(path)
    return path


def but_for_the_name(folder):
    """Read the manifest without the name of the source, and what depends on the form in which it is stored."""
    manifest = json.loads((folder / "teddytok.json").read_text(encoding="utf-8"))
    name = manifest["source"].pop("name")
    manifest["warnings"] = [warning.replace(name, "SOURCE") for warning in manifest["warnings"]]
    del manifest["source"]["stamp"], manifest["sha256"]
    return manifest


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("chunk_bytes", [10_000, 2**62])
def test_any_stored_form_writes_the_shards_that_memory_does(cells, tmp_path, monkeypatch, form, suffix, chunk_bytes):
    args = ARGS["random genes in bins"]
    wanted = written(cells, tmp_path / "memory", args)
    path = write_source(cells, tmp_path / "source", form, suffix)
    monkeypatch.setattr(resources, "CHUNK_BYTES", chunk_bytes)
    files = written(path, tmp_path / "stored", args, threads=2)
    assert files | {"teddytok.json": ""} == wanted | {"teddytok.json": ""}
    assert but_for_the_name(tmp_path / "stored" / "cells") == but_for_the_name(tmp_path / "memory" / "anndata")
