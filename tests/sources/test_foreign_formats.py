"""Files of other formats are named; what tools other than anndata write into a file is read, or named."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import cells
from raises import raises
from teddytok_rs import check, tokenize, tokenize_to_disk
from teddytok_rs.mapping.build_vocabulary import build_vocabulary
from teddytok_rs.pipeline.plan import build_plan
from teddytok_rs.sources import stored
from teddytok_rs.sources.identity import fingerprint, stamp
from teddytok_rs.sources.open import open_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MATRIX = "layers/processed"
N_CELLS = 6


def write(path: Path, **options: Any) -> Path:
    made = cells.make_cells(N_CELLS)
    made.var["name"] = [f"name of {gene}" for gene in made.var_names]
    return cells.save(made, path, **options)


def expected(folder: Path) -> list[Any]:
    return cells.sequences(cells.make_cells(N_CELLS), cells.make_args(folder))


# ---- other formats


def loom(file: Any) -> None:
    file["matrix"] = np.ones((3, 4))
    for name in ("row_attrs/Gene", "col_attrs/CellID"):
        file[name] = np.arange(3)


def tenx(group: str) -> Callable[[Any], None]:
    def make(file: Any) -> None:
        for name in ("barcodes", "data", "indices", "indptr", "shape", "features/id"):
            file[f"{group}/{name}"] = np.arange(3)

    return make


def mudata(file: Any) -> None:
    file.attrs["encoding-type"] = "MuData"
    parts = file.create_group("mod")
    for name in ("rna", "prot"):
        ad.io.write_elem(parts, name, cells.make_cells(N_CELLS))
    ad.io.write_elem(file, "obs", pd.DataFrame(index=list("ab")))


def spatialdata(file: Any) -> None:
    file.attrs["spatialdata_attrs"] = {"version": "0.1"} if not isinstance(file, h5py.Group) else "0.1"
    ad.io.write_elem(file.create_group("tables"), "table", cells.make_cells(N_CELLS))


OTHERS = {
    "loom": (loom, ["a loom file", "read_loom("]),
    "10x": (tenx("matrix"), ["10x Genomics", "scanpy.read_10x_h5("]),
    "10x, version 2": (tenx("GRCh38"), ["10x Genomics", "scanpy.read_10x_h5("]),
    "MuData": (mudata, ["a MuData", "'mod/prot', 'mod/rna'", "mudata.read_h5mu("]),
}


@pytest.mark.parametrize(("make", "fragments"), OTHERS.values(), ids=OTHERS)
def test_another_format_is_named_and_what_to_do_with_it(make: Callable, fragments: list[str], tmp_path: Path):
    path = tmp_path / "cells.h5"
    with h5py.File(path, "w") as file:
        make(file)
    with raises("source_format", str(path), *fragments):
        tokenize(path, cells.make_args(tmp_path))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("make", "what", "part"), [(mudata, "a MuData", "mod/prot"), (spatialdata, "a SpatialData", "tables/table")]
)
def test_the_path_of_a_part_of_a_store_is_named_and_read(make: Callable, what: str, part: str, version: int, tmp_path):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "cells.zarr"
    with warnings.catch_warnings(), ad.settings.override(zarr_write_format=version):
        warnings.simplefilter("ignore")
        make(zarr.open_group(str(path), mode="w", zarr_format=version))
    with raises("source_format", what, repr(f"{path}/{part}")):
        tokenize(path, cells.make_args(tmp_path))
    assert cells.sequences(f"{path}/{part}", cells.make_args(tmp_path)) == expected(tmp_path)


# ---- compressed by filters that h5py does not bring


RUN = """
import sys
if sys.argv[3] == "without":
    sys.modules["hdf5plugin"] = None
from teddytok_rs import check
from teddytok_rs.errors import TeddytokError
try:
    print(check(sys.argv[1], {"tokenizer_name_or_path": sys.argv[2], "layer": "processed"}).problems)
except TeddytokError as bad:
    print(bad.kind, bad)
"""


@pytest.mark.parametrize(("name", "number"), [("Zstandard", 32015), ("LZ4", 32004)])
@pytest.mark.parametrize("form", ["CSR", "dense"])
def test_a_filter_of_hdf5plugin_is_loaded_or_named(name: str, number: int, form: str, tmp_path: Path):
    pytest.importorskip("hdf5plugin")
    path = tmp_path / "cells.h5ad"
    made = cells.make_cells(300)
    if form == "dense":
        made.layers["processed"] = made.layers["processed"].toarray()
    cells.save(made, path, compression=number)
    vocabulary = cells.write_vocabulary(tmp_path / "vocabulary")

    def run(how: str) -> str:
        command = [sys.executable, "-W", "error", "-c", RUN, path, vocabulary, how]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run("with") == "[]\n"
    assert run("without").startswith(f"hdf5_filter {str(path)!r}")
    assert f"{name} (HDF5 filter {number})" in run("without")
    assert "pip install hdf5plugin" in run("without")


def test_a_filter_that_nobody_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "cells.h5ad")
    with h5py.File(path, "r+") as file:
        indptr = file[f"{MATRIX}/indptr"][()]
        del file[f"{MATRIX}/indptr"]
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((len(indptr),))
        created.set_filter(40000, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((len(indptr),))
        made = h5py.h5d.create(file[MATRIX].id, b"indptr", h5py.h5t.NATIVE_INT64, space, created)
        made.write_direct_chunk((0,), indptr.astype("i8").tobytes())
    with raises("hdf5_filter", "layers/processed/indptr", "40000", "without it"):
        tokenize(path, cells.make_args(tmp_path))


# ---- attributes as bytes


def test_text_attributes_of_fixed_length_are_text(tmp_path: Path):
    path = write(tmp_path / "cells.h5ad")

    def shorten(_: str, item: Any) -> None:
        for name, value in item.attrs.items():
            if isinstance(value, str):
                item.attrs[name] = np.bytes_(value)
            elif isinstance(value, np.ndarray) and value.dtype.kind == "O" and len(value):
                item.attrs[name] = value.astype("S")

    with h5py.File(path, "r+") as file:
        shorten("", file)
        file.visititems(shorten)
    args = cells.make_args(tmp_path, label_column="disease", obs_columns=["sex", "index"])
    assert tokenize(path, args).equals(tokenize(cells.make_cells(N_CELLS), args))
    keys = {"gene_id_column": "name", "min_gene_overlap": 0}
    with raises("no_genes_match", "name of"):
        tokenize(path, args | keys)


# ---- columns that cannot be read


def unreadable_column(path: Path, part: str, name: str = "made up") -> None:
    with h5py.File(path, "r+") as file:
        file[part].create_group(name).attrs["encoding-type"] = "made-up"
        order = [*file[part].attrs["column-order"], name]
        file[part].attrs["column-order"] = np.array(order, dtype=object)


def test_a_var_column_that_nobody_needs_is_left_out_with_a_warning(tmp_path: Path):
    path = write(tmp_path / "cells.h5ad")
    unreadable_column(path, "var")
    warning = "var column 'made up' of cells.h5ad cannot be read and is left out: "
    args = cells.make_args(tmp_path)
    assert cells.sequences(path, args) == expected(tmp_path)
    for found in (check(path, args).warnings, tokenize_to_disk(path, args, tmp_path / "out").warnings):
        assert [text for text in found if text.startswith(warning)]
    for column in ("name", "index"):
        assert open_source(path, "processed").var.reset_index()[column].tolist()


def test_a_var_column_that_is_needed_and_cannot_be_read_is_an_error(tmp_path: Path):
    path = write(tmp_path / "cells.h5ad")
    unreadable_column(path, "var")
    with raises("source_unreadable", "cells.h5ad", "var column 'made up'", "made-up"):
        tokenize(path, cells.make_args(tmp_path, gene_id_column="made up"))
    with raises("source_unreadable", "cells.h5ad", "var column 'made up'"):
        build_vocabulary([path], tmp_path / "v", gene_id_column="made up")


def test_an_obs_column_that_cannot_be_read_matters_where_it_is_needed(tmp_path: Path):
    path = write(tmp_path / "cells.h5ad")
    unreadable_column(path, "obs")
    assert cells.sequences(path, cells.make_args(tmp_path)) == expected(tmp_path)
    with raises("source_unreadable", str(path), "made-up"):
        tokenize(path, cells.make_args(tmp_path, label_column="made up"))


def test_var_is_read_as_anndata_reads_it(tmp_path: Path):
    made = cells.make_cells(N_CELLS)
    n = made.n_vars
    made.var["text"] = [f"t{i}" for i in range(n)]
    made.var["kind"] = pd.Categorical(["a", "b"] * (n // 2), categories=["b", "a"], ordered=True)
    made.var["number"] = np.arange(n, dtype="i2")
    made.var["flag"] = np.arange(n) % 2 == 0
    made.var["maybe"] = pd.array([None, *range(n - 1)], dtype="Int32")
    made.var.index.name = "gene"
    for name in ("cells.h5ad", "cells.zarr"):
        path = cells.save(made, tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            there = (ad.read_zarr if name.endswith("zarr") else ad.read_h5ad)(path).var
        there.index = there.index.astype(object)  # anndata 0.13 has pandas' string type here
        pd.testing.assert_frame_equal(open_source(path, "processed").var, there, check_names=False)


# ---- zeros that zarr does not store


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix])
def test_a_layer_of_stored_zeros_is_read_from_zarr_as_from_h5ad(form: Callable, version: int, tmp_path: Path):
    pytest.importorskip("zarr")
    made = cells.make_cells(N_CELLS)
    matrix = form(cells.make_counts(N_CELLS))
    matrix.data[:] = 0
    made.layers["processed"] = matrix
    with ad.settings.override(zarr_write_format=version):
        store = cells.save(made, tmp_path / "cells.zarr")
    args = cells.make_args(tmp_path)
    assert cells.sequences(store, args) == cells.sequences(cells.save(made, tmp_path / "cells.h5ad"), args)
    (warning,) = [text for text in check(store, args).warnings if "no value" in text]
    assert warning == "no value of layer 'processed' of cells.zarr is stored: all of them are read as 0"


# ---- columns called "index"


def test_index_means_the_names_and_a_column_of_that_name_is_warned_of(tmp_path: Path):
    made = cells.make_cells(N_CELLS)
    made.var["index"] = [f"other {gene}" for gene in made.var_names]
    made.obs["index"] = [f"other {cell}" for cell in made.obs_names]
    args = cells.make_args(tmp_path, obs_columns=["index"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources = [made, cells.save(made, tmp_path / "cells.h5ad"), cells.save(made, tmp_path / "cells.zarr")]
    for source in sources:
        table = tokenize(source, args)
        assert table["cell_id"].to_pylist() == made.obs_names.tolist()
        assert table["gene_ids"].to_pylist() == [genes for genes, _ in expected(tmp_path)]
        found = check(source, args).warnings
        assert any("gene_id_column = 'index' means the var_names" in text for text in found)
        assert any("'index' in obs_columns means the obs_names" in text for text in found)
    assert not [text for text in check(cells.make_cells(N_CELLS), args).warnings if "means the" in text]


def test_a_column_called_index_is_not_recommended(tmp_path: Path):
    made = cells.make_cells(N_CELLS)
    made.var["index"] = made.var_names
    made.var_names = [f"x{i}" for i in range(made.n_vars)]
    with raises("no_genes_match") as caught:
        tokenize(made, cells.make_args(tmp_path))
    assert "gene_id_column = 'index'" not in str(caught.value)


# ---- lazily


LAZY_KEYS = {
    "nothing": {},
    "labels": {"label_column": "cell_type"},
    "numbers": {"label_column": "number"},
    "columns": {"obs_columns": ["number", "text", "sex", "index", "flag"]},
    "a filter": {"cell_filter": "number > 1 and flag"},
    "annotations": {"bio_annotations": True},
    "a var column": {"gene_id_column": "gene"},
    "raw": {"layer": "raw"},
}


@pytest.mark.filterwarnings("ignore:.*read_lazy:")
@pytest.mark.parametrize("keys", LAZY_KEYS.values(), ids=LAZY_KEYS)
@pytest.mark.parametrize(
    ("name", "form"), [("cells.h5ad", sparse.csr_matrix), ("cells.zarr", np.array)], ids=["h5ad CSR", "zarr dense"]
)
def test_a_lazy_anndata_gives_what_it_gives_in_memory(form: Callable, name: str, keys: dict[str, Any], tmp_path: Path):
    pytest.importorskip("xarray")
    made = cells.make_cells(N_CELLS, number=np.arange(N_CELLS), flag=np.arange(N_CELLS) % 2 == 0)
    made.obs["text"] = [f"t{i}" for i in range(N_CELLS)]
    made.layers["processed"] = form(cells.make_counts(N_CELLS))
    made.var["gene"] = made.var_names.to_numpy()
    path = cells.save(made, tmp_path / name)
    lazy = ad.experimental.read_lazy(path)
    args = cells.make_args(tmp_path, **keys)
    table = tokenize(path, args)
    assert tokenize(lazy, args, threads=3, chunk_bytes=1).equals(table)
    assert tokenize(made, args).equals(table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        view = lazy[1:5]
    if "cell_filter" not in keys and "label_column" not in keys:  # whose classes are those of all cells
        assert tokenize(view, args).equals(table.slice(1, 4))


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr"])
def test_a_lazy_anndata_has_the_fingerprint_of_its_file_and_a_stamp_of_its_values(name: str, tmp_path: Path):
    pytest.importorskip("xarray")
    path = write(tmp_path / name)
    lazy = ad.experimental.read_lazy(path)
    source = open_source(lazy, "processed")
    assert fingerprint(source) == fingerprint(open_source(path, "processed"))
    assert stamp(source) == stamp(open_source(cells.make_cells(N_CELLS), "processed"))
    args = cells.make_args(tmp_path)
    first = tokenize_to_disk(lazy, args, tmp_path / "out")
    assert tokenize_to_disk(lazy, args, tmp_path / "out").n_kept == len(first.shards)


# ---- what equal sources share


def test_equal_gene_tables_are_held_once_and_freed_with_the_last(tmp_path: Path):
    paths = [write(tmp_path / f"{n}.h5ad") for n in range(3)]
    other = cells.make_cells(N_CELLS)
    other.var["name"] = "another"
    args = cells.make_args(tmp_path, layer="processed")
    plans = [build_plan(path, args) for path in (*paths, cells.save(other, tmp_path / "other.h5ad"))]
    for attribute in (lambda p: p.source.var, lambda p: p.genes, lambda p: p.vocabulary):
        assert len({id(attribute(each)) for each in plans[:3]}) == 1
    assert plans[3].source.var is not plans[0].source.var
    assert plans[3].genes is not None
    var = plans[0].source.var
    assert any(kept is var for kept in stored.TABLES._kept.values())
    for each in plans:
        each.source.close()
    marker = id(var)
    del plans, var, each
    assert marker not in {id(kept) for kept in stored.TABLES._kept.values()}
