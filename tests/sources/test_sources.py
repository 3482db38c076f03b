"""The same cells in every form that AnnData gives them; files that are damaged, or that lead out of themselves."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import cells
import oracle
from raises import raises
from teddytok_rs import check, iter_batches, tokenize
from teddytok_rs.errors import KernelError
from teddytok_rs.pipeline.batches import tokenize_batches
from teddytok_rs.pipeline.plan import build_plan
from teddytok_rs.pipeline.resources import Resources
from teddytok_rs.sources.identity import fingerprint
from teddytok_rs.sources.matrix import RowReader
from teddytok_rs.sources.open import open_source

if TYPE_CHECKING:
    from collections.abc import Callable

MATRIX = "layers/processed"
N_CELLS = 6
COUNTS = cells.make_counts(N_CELLS)
#: Ones where the counts are not 0.
BINARY = (COUNTS > 0).astype(np.float32)


def expected(x: np.ndarray = COUNTS) -> list[Any]:
    return oracle.tokenize_matrix(x[:, :10], cells.GENE_TOKENS, max_seq_len=8)


def run(source: Any, folder: Path, **keys: Any) -> list[Any]:
    return cells.sequences(source, cells.make_args(folder, **keys))


def as_csr(dtype: str) -> Callable[[np.ndarray], Any]:
    """Make a CSR matrix whose data have a dtype that SciPy's constructor would change."""

    def make(x: np.ndarray) -> Any:
        matrix = sparse.csr_matrix(x)
        matrix.data = matrix.data.astype(dtype)
        return matrix

    return make


def unsorted_with_zeros(x: np.ndarray) -> Any:
    """A CSR matrix whose rows run from the last column to the first, with zeros stored."""
    n_cells, n_genes = x.shape
    indices = np.tile(np.arange(n_genes)[::-1], n_cells)
    return sparse.csr_matrix((x[:, ::-1].ravel(), indices, np.arange(0, x.size + 1, n_genes)), shape=x.shape)


def with_duplicates(x: np.ndarray) -> Any:
    """A CSR matrix that stores each entry as two halves."""
    matrix = sparse.csr_matrix(x)
    halves = np.repeat(matrix.data / 2, 2)
    return sparse.csr_matrix((halves, np.repeat(matrix.indices, 2), matrix.indptr * 2), shape=x.shape)


FORMS = {
    "CSR": sparse.csr_matrix,
    "CSC": sparse.csc_matrix,
    "CSR array": sparse.csr_array,
    "CSC array": sparse.csc_array,
    "dense": np.array,
    "Fortran order": np.asfortranarray,
    "every other column of a wider array": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "data frame": pd.DataFrame,
    "unsorted CSR with zeros": unsorted_with_zeros,
    "CSR with duplicates": with_duplicates,
    **{dtype: lambda x, dtype=dtype: x.astype(dtype) for dtype in ("f2", "f8", ">f4", ">f8", ">i2", "i1", "u8", "i4")},
    **{f"CSR {dtype}": as_csr(dtype) for dtype in ("f8", ">f4", ">i8", "i1", "u2", "i8")},
}


# ---- in memory


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("layer", ["processed", "X"])
def test_the_same_cells_give_the_same_tokens_in_any_form(form: Callable, layer: str, tmp_path: Path):
    made = cells.with_layer(form(COUNTS))
    if layer == "X":
        made.X = form(COUNTS)
        del made.layers["processed"]
    assert run(made, tmp_path, layer=layer) == expected()


@pytest.mark.parametrize("form", [np.array, sparse.csr_matrix, sparse.csc_matrix], ids=["dense", "CSR", "CSC"])
def test_booleans_count_as_0_and_1(form: Callable, tmp_path: Path):
    assert run(cells.with_layer(form(COUNTS.astype(bool))), tmp_path) == expected(BINARY)


@pytest.mark.parametrize("form", ["coo", "lil", "bsr", "dia", "dok"])
def test_other_sparse_matrices_are_read_as_rows(form: str):
    chunk = RowReader(sparse.csr_matrix(COUNTS).asformat(form), "processed", "a matrix").read(1, 4)
    rows = sparse.csr_matrix((chunk.data, chunk.indices, chunk.indptr), shape=(3, COUNTS.shape[1]))
    np.testing.assert_array_equal(rows.toarray(), COUNTS[1:4])


@pytest.mark.parametrize("rows", [slice(None, None, -1), slice(1, 5), [4, 0, 0]], ids=str)
def test_a_view_gives_its_own_rows(rows: Any, tmp_path: Path):
    whole = run(cells.make_cells(N_CELLS), tmp_path)
    view = cells.make_cells(N_CELLS)[rows]
    assert view.is_view
    assert run(view, tmp_path) == [whole[row] for row in np.arange(N_CELLS)[rows]]


def test_a_view_of_genes_gives_those_genes(tmp_path: Path):
    view = cells.with_layer(COUNTS)[:, ::-2]
    tokens = [cells.TOKEN[gene] for gene in view.var_names if gene in cells.TOKEN]
    x = COUNTS[:, ::-2][:, 1:]
    assert run(view, tmp_path) == oracle.tokenize_matrix(x, tokens, max_seq_len=8)


def test_the_source_is_not_changed(tmp_path: Path):
    made = cells.with_layer(unsorted_with_zeros(COUNTS))
    before = made.layers["processed"].copy()
    run(made, tmp_path, normalize_total=1e4, log1p=True)
    after = made.layers["processed"]
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(after, part), getattr(before, part))


def test_a_masked_value_is_not_read_as_what_is_under_the_mask(tmp_path: Path):
    masked = np.ma.MaskedArray(COUNTS, mask=COUNTS > 1)
    with raises("matrix_type", "mask"):
        run(cells.with_layer(masked), tmp_path)


# ---- files


def write(folder: Path, form: Any = sparse.csr_matrix, name: str = "cells.h5ad", **options: Any) -> Path:
    """Write cells whose layer and X are of a form."""
    made = cells.make_cells(N_CELLS)
    made.layers["processed"] = form(COUNTS)
    made.X = form(COUNTS)
    return cells.save(made, folder / name, **options)


STORED = {
    "CSR": sparse.csr_matrix,
    "CSC": sparse.csc_matrix,
    "dense": np.array,
    "integers": lambda x: sparse.csr_matrix(x.astype("i2")),
    "float16": lambda x: x.astype("f2"),
    "big-endian": lambda x: x.astype(">f4"),
    "unsorted": unsorted_with_zeros,
}


@pytest.mark.parametrize("form", STORED.values(), ids=STORED)
@pytest.mark.parametrize("layer", ["processed", "X"])
def test_an_h5ad_file_gives_the_same_tokens(form: Callable, layer: str, tmp_path: Path):
    assert run(write(tmp_path, form), tmp_path, layer=layer) == expected()


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_a_compressed_file_gives_the_same_tokens(compression: str, tmp_path: Path):
    assert run(write(tmp_path, compression=compression), tmp_path) == expected()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("form", STORED.values(), ids=STORED)
def test_a_zarr_store_gives_the_same_tokens(
    form: Callable, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("zarr")
    with ad.settings.override(zarr_write_format=version):
        store = write(tmp_path, form, "cells.zarr")
    assert (store / "zarr.json").exists() == (version == 3)
    assert run(store, tmp_path) == expected()


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr"])
def test_raw_in_a_file_gives_the_tokens_of_raw_in_memory(name: str, tmp_path: Path):
    pytest.importorskip("zarr")
    keys = {"layer": "raw", "bio_annotations": True, "normalize_total": 1e4, "log1p": True}
    assert run(write(tmp_path, name=name), tmp_path, **keys) == run(cells.make_cells(N_CELLS), tmp_path, **keys)


@pytest.mark.parametrize("form", STORED.values(), ids=STORED)
def test_a_backed_anndata_gives_the_same_tokens(form: Callable, tmp_path: Path):
    backed = ad.read_h5ad(write(tmp_path, form), backed="r")
    assert run(backed, tmp_path, layer="X") == expected()
    assert run(backed, tmp_path) == expected()
    assert run(backed, tmp_path, layer="raw") == run(cells.make_cells(N_CELLS), tmp_path, layer="raw")
    backed.file.close()


def test_a_view_of_a_backed_anndata_gives_its_own_rows(tmp_path: Path):
    backed = ad.read_h5ad(write(tmp_path), backed="r")
    assert run(backed[2:5], tmp_path, layer="X") == expected()[2:5]
    backed.file.close()


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr"])
def test_obs_in_a_file_gives_the_columns_of_obs_in_memory(name: str, tmp_path: Path):
    pytest.importorskip("zarr")
    columns = {
        "text": ["a", "b", "c", "d", "e", "f"],
        "number": np.arange(6, dtype="i2"),
        "real": np.linspace(0, 1, 6),
        "flag": [True, False] * 3,
        "nullable": pd.array([1, None, 3, 4, 5, 6], dtype="Int64"),
        "maybe": pd.array([True, None] * 3, dtype="boolean"),
        "category": pd.Categorical(["x", None, "y"] * 2),
    }
    made = cells.make_cells(N_CELLS, **columns)
    cells.save(made, tmp_path / name)
    args = cells.make_args(
        tmp_path, bio_annotations=True, label_column="disease", obs_columns=["index", *columns], layer="X"
    )
    from_file, from_memory = tokenize(tmp_path / name, args), tokenize(made, args)
    assert from_file.schema == from_memory.schema
    assert from_file.equals(from_memory)


def test_obs_columns_in_memory_may_be_named_by_numbers(tmp_path: Path):
    made = cells.make_cells(N_CELLS, number=np.arange(N_CELLS))
    made.obs = made.obs.rename(columns={"number": 1})
    args = cells.make_args(tmp_path, obs_columns=["1"], cell_filter="`1` > 2", layer="X")
    assert tokenize(made, args)["1"].to_pylist() == list(range(3, N_CELLS))
    made.obs["1"] = 0
    with raises("source_unreadable", "obs has several columns '1'"):
        tokenize(made, args)


@pytest.mark.parametrize("make_path", [str, Path], ids=["str", "Path"])
def test_a_path_may_be_text_or_a_path_object(make_path: Callable, tmp_path: Path):
    assert run(make_path(write(tmp_path)), tmp_path) == expected()


def test_a_file_may_be_written_again_after_it_was_tokenized(tmp_path: Path):
    path = write(tmp_path)
    assert run(path, tmp_path) == expected()
    write(tmp_path, np.array)
    assert run(path, tmp_path) == expected()


def test_the_fingerprint_distinguishes_cells_and_not_how_they_are_stored(tmp_path: Path):
    pytest.importorskip("zarr")
    prints = {
        fingerprint(open_source(write(tmp_path, form, name), "processed"))
        for form, name in ((sparse.csr_matrix, "a.h5ad"), (np.array, "b.h5ad"), (sparse.csc_matrix, "c.zarr"))
    }
    assert len(prints) == 1
    for change in (COUNTS + np.eye(6, 12, 3, dtype=np.float32), COUNTS.astype("f8")):
        prints.add(fingerprint(open_source(cells.with_layer(change), "processed")))
    assert len(prints) == 3


# ---- files of former versions of anndata


def test_a_file_of_anndata_0_7_gives_the_same_tokens_and_labels(tmp_path: Path):
    path = write(tmp_path)
    with h5py.File(path, "r+") as file:
        for column, labels in cells.LABELS.items():
            codes, names = file[f"obs/{column}/codes"][()], sorted(labels)
            del file[f"obs/{column}"]
            file[f"obs/__categories/{column}"] = names
            file[f"obs/{column}"] = codes
            file[f"obs/{column}"].attrs["categories"] = file[f"obs/__categories/{column}"].ref
        for frame in ("obs", "var"):
            file[frame].attrs["encoding-version"] = "0.1.0"
    check_against_anndata(path, tmp_path, layer="processed")


def test_a_file_of_anndata_0_6_is_refused_and_not_misread(tmp_path: Path):
    # Its obs is one array of codes whose labels lie in uns.
    path = tmp_path / "old.h5ad"
    matrix = sparse.csr_matrix(COUNTS)
    with h5py.File(path, "w") as file:
        for part in ("data", "indices", "indptr"):
            file[f"X/{part}"] = getattr(matrix, part)
        file["X"].attrs["h5sparse_format"] = "csr"
        file["X"].attrs["h5sparse_shape"] = matrix.shape
        names = [f"cell-{row}" for row in range(N_CELLS)]
        dtype = [("index", "S10"), *((column, "i1") for column in cells.LABELS)]
        codes = [tuple(row % len(labels) for labels in cells.LABELS.values()) for row in range(N_CELLS)]
        file["obs"] = np.array([(name, *row) for name, row in zip(names, codes, strict=True)], dtype=dtype)
        file["var"] = np.array([(gene,) for gene in cells.GENES], dtype=[("index", "S20")])
        for column, labels in cells.LABELS.items():
            file[f"uns/{column}_categories"] = labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own word about the age of the file
        with raises("source_format", str(path), "before anndata 0.7", "anndata.read_h5ad("):
            run(path, tmp_path, layer="X")
        ad.read_h5ad(path).write_h5ad(tmp_path / "new.h5ad")
    assert run(tmp_path / "new.h5ad", tmp_path, layer="X") == expected()


@pytest.mark.parametrize("part", ["data", "indices"])
def test_a_matrix_that_was_never_written_is_not_read_as_zeros(part: str, tmp_path: Path):
    path = write(tmp_path)
    with h5py.File(path, "r+") as file:
        shape, dtype = file[f"{MATRIX}/{part}"].shape, file[f"{MATRIX}/{part}"].dtype
        del file[f"{MATRIX}/{part}"]
        file.create_dataset(f"{MATRIX}/{part}", shape=shape, dtype=dtype, chunks=(4,))
    with raises("chunks_missing", f"{MATRIX}/{part}"):
        run(path, tmp_path)


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr"])
def test_a_relative_path_is_read_as_any_other(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("zarr")
    write(tmp_path, name=name)
    monkeypatch.chdir(tmp_path)
    assert run(Path(name), tmp_path) == expected()


def check_against_anndata(path: Path, folder: Path, layer: str) -> None:
    """The file must give what it gives when anndata reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = ad.read_h5ad(path)
        read.obs["disease"].cat.categories  # noqa: B018 -- it is a categorical
        args = cells.make_args(folder, layer=layer, bio_annotations=True, label_column="disease")
        from_file = tokenize(path, args)
    assert from_file.schema == tokenize(read, args).schema
    assert from_file.equals(tokenize(read, args))


# ---- layers


@pytest.mark.parametrize("form", ["memory", "cells.h5ad", "cells.zarr"])
def test_a_missing_layer_is_refused_with_those_that_there_are(form: str, tmp_path: Path):
    pytest.importorskip("zarr")
    source = cells.make_cells() if form == "memory" else write(tmp_path, name=form)
    name = "AnnData" if form == "memory" else form
    with raises("layer_missing", f"{name} has no layer 'counts'", "'processed', 'X', 'raw'"):
        run(source, tmp_path, layer="counts")


@pytest.mark.parametrize("form", ["memory", "cells.h5ad", "cells.zarr"])
@pytest.mark.parametrize("layer", ["X", "raw", "processed"])
def test_a_layer_is_not_replaced_by_another(layer: str, form: str, tmp_path: Path):
    pytest.importorskip("zarr")
    bare: Any = cells.make_cells()
    bare.raw, bare.X = None, None
    bare.layers["counts"] = bare.layers.pop("processed")
    if form != "memory":
        bare = cells.save(bare, tmp_path / form)
    with raises("layer_missing", f"no layer {layer!r}; it has 'counts'."):
        run(bare, tmp_path, layer=layer)


def test_a_matrix_that_is_stored_as_nothing_is_not_there(tmp_path: Path):
    path = write(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        file.create_dataset("X", data=h5py.Empty("f4"))
        file["X"].attrs.update({"encoding-type": "null", "encoding-version": "0.1.0"})
    with raises("layer_missing", "no layer 'X'; it has 'processed', 'raw'."):
        run(path, tmp_path, layer="X")


@pytest.mark.parametrize("layer", ["../X", "processed/data", "/X", "."])
def test_a_layer_is_a_name_not_a_path(layer: str, tmp_path: Path):
    with raises("layer_missing", repr(layer)):
        run(write(tmp_path), tmp_path, layer=layer)


# ---- what is not a source


@pytest.mark.parametrize(
    "thing",
    [None, 3, COUNTS, pd.DataFrame(COUNTS), sparse.csr_matrix(COUNTS), [], b"cells.h5ad"],
    ids=lambda t: type(t).__name__,
)
def test_anything_else_is_not_a_source(thing: Any, tmp_path: Path):
    with raises("source_type", f"{type(thing).__name__} is not a source", "Give an AnnData, or a path"):
        run(thing, tmp_path)


def test_what_anndata_has_besides_anndata_is_not_a_source(tmp_path: Path):
    made = cells.make_cells()
    for thing in (made.raw, made.obs, made.layers, ad):
        with raises("source_type"):
            run(thing, tmp_path)


@pytest.mark.parametrize("name", ["nowhere.h5ad", "nowhere.zarr", "", "a\0b.h5ad"], ids=ascii)
def test_a_path_to_nothing_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with raises("source_unreadable" if name == "" else "source_not_found"):
        run(name, tmp_path)


def make_empty_file(path: Path) -> None:
    path.write_bytes(b"")


def make_text(path: Path) -> None:
    path.write_text("gene,cell\nTP53,1\n", encoding="utf-8")


def make_half_a_file(path: Path) -> None:
    whole = write(path.parent, name="whole.h5ad").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def make_other_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["matrix/barcodes"] = ["a"]


def make_empty_folder(path: Path) -> None:
    path.mkdir()


def make_folder_of_files(path: Path) -> None:
    path.mkdir()
    write(path)


def make_zarr_array(path: Path) -> None:
    pytest.importorskip("zarr").save_array(str(path), COUNTS)


def make_other_zarr(path: Path) -> None:
    pytest.importorskip("zarr").open_group(str(path), mode="w").create_group("matrix")


@pytest.mark.parametrize(
    "make",
    [make_empty_file, make_text, make_half_a_file, make_other_hdf5, make_empty_folder, make_folder_of_files,
     make_zarr_array, make_other_zarr],
)  # fmt: skip
def test_what_is_no_anndata_cannot_be_read(make: Callable, tmp_path: Path):
    make(tmp_path / "thing")
    with raises("source_unreadable", str(tmp_path / "thing")):
        run(tmp_path / "thing", tmp_path)


def test_a_zarr_store_needs_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("zarr")
    store = write(tmp_path, name="cells.zarr")
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with raises("zarr_extra", str(store), "pip install 'teddytok-rs[zarr]'"):
        run(store, tmp_path)


# ---- damaged files


def damaged(folder: Path, change: Callable[[Any], None], form: Any = sparse.csr_matrix) -> Path:
    path = write(folder, form)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replaced(item: str, edit: Callable[[np.ndarray], Any]) -> Callable[[Any], None]:
    """Replace a dataset by an edited copy, with its attributes."""

    def change(file: Any) -> None:
        values, attrs = file[item][()], dict(file[item].attrs)
        del file[item]
        file[item] = edit(values)
        file[item].attrs.update(attrs)

    return change


def removed(item: str) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[item]

    return change


def attribute(item: str, name: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        if value is None:
            del file[item].attrs[name]
        else:
            file[item].attrs[name] = value

    return change


def at(place: int, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    def edit(values: np.ndarray) -> np.ndarray:
        values[place] = value
        return values

    return edit


def swapped(values: np.ndarray) -> np.ndarray:
    values[[2, 3]] = values[[3, 2]]
    return values


MALFORMED = {
    "indptr from 1": (replaced(f"{MATRIX}/indptr", at(0, 1)), "indptr starts at 1"),
    "indptr decreases": (replaced(f"{MATRIX}/indptr", swapped), "indptr decreases"),
    "indptr negative": (replaced(f"{MATRIX}/indptr", at(2, -5)), "indptr decreases"),
    "indptr ends late": (replaced(f"{MATRIX}/indptr", at(-1, 10_000)), "indptr ends at 10,000"),
    "indptr ends early": (replaced(f"{MATRIX}/indptr", at(-1, 0)), "indptr ends at 0"),
    "indptr too short": (replaced(f"{MATRIX}/indptr", lambda values: values[:-1]), "indptr has"),
    "indptr empty": (replaced(f"{MATRIX}/indptr", lambda values: values[:0]), "indptr has 0 entries"),
    "indptr of reals": (replaced(f"{MATRIX}/indptr", lambda values: values.astype(float)), "float64"),
    "indptr two-dimensional": (replaced(f"{MATRIX}/indptr", lambda values: values[None]), "2-dimensional"),
    "index negative": (replaced(f"{MATRIX}/indices", at(0, -1)), "ind"),
    "index too large": (replaced(f"{MATRIX}/indices", at(0, 12)), "ind"),
    "index beyond int32": (replaced(f"{MATRIX}/indices", lambda v: at(0, 2**40)(v.astype("i8"))), "ind"),
    "index not below int64": (replaced(f"{MATRIX}/indices", lambda v: at(0, 2**64 - 1)(v.astype("u8"))), "ind"),
    "indices of reals": (replaced(f"{MATRIX}/indices", lambda v: v + 0.5), "float64"),
    "fewer values than indices": (replaced(f"{MATRIX}/data", lambda values: values[:-1]), "indices for"),
    "fewer indices than values": (replaced(f"{MATRIX}/indices", lambda values: values[:-1]), "indices for"),
    "values two-dimensional": (replaced(f"{MATRIX}/data", lambda values: values[None]), ""),
    "no indptr": (removed(f"{MATRIX}/indptr"), "indptr"),
    "no indices": (removed(f"{MATRIX}/indices"), "indices"),
    "no values": (removed(f"{MATRIX}/data"), "data"),
    "no shape": (attribute(MATRIX, "shape", None), "shape"),
    "shape of one number": (attribute(MATRIX, "shape", [6]), "shape"),
    "more rows than obs": (attribute(MATRIX, "shape", [7, 12]), ""),
    "more columns than var": (attribute(MATRIX, "shape", [6, 13]), ""),
    "fewer columns than var": (attribute(MATRIX, "shape", [6, 11]), ""),
    "negative shape": (attribute(MATRIX, "shape", [-6, 12]), ""),
}


@pytest.mark.parametrize(("change", "reason"), MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix], ids=["CSR", "CSC"])
def test_a_malformed_sparse_matrix_is_refused(form: Any, change: Callable, reason: str, tmp_path: Path):
    path = damaged(tmp_path, change, form)
    with raises("matrix_malformed", "layer 'processed' of cells.h5ad is malformed", reason):
        run(path, tmp_path)


@pytest.mark.parametrize(("place", "row"), [(0, 0), (-1, 5)])
def test_an_index_out_of_range_is_reported_with_its_row(place: int, row: int, tmp_path: Path):
    path = damaged(tmp_path, replaced(f"{MATRIX}/indices", at(place, 99)))
    with raises("matrix_malformed", f"row {row}"):
        run(path, tmp_path)


IN_MEMORY = {
    "indptr from 1": {"indptr": at(0, 1)},
    "indptr decreases": {"indptr": swapped},
    "indptr ends late": {"indptr": at(-1, 10_000)},
    "indptr too short": {"indptr": lambda values: values[:-1]},
    "index negative": {"indices": at(0, -1)},
    "index too large": {"indices": at(0, 12)},
    "fewer values than indices": {"data": lambda values: values[:-1]},
    "fewer indices than values": {"indices": lambda values: values[:-1]},
}


@pytest.mark.parametrize("changes", IN_MEMORY.values(), ids=IN_MEMORY)
@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix], ids=["CSR", "CSC"])
def test_a_malformed_matrix_in_memory_is_refused(form: Any, changes: dict[str, Callable], tmp_path: Path):
    made = cells.with_layer(form(COUNTS))
    for part, edit in changes.items():
        setattr(made.layers["processed"], part, edit(getattr(made.layers["processed"], part)))
    with raises("matrix_malformed", "layer 'processed' of AnnData is malformed"):
        run(made, tmp_path)


LENGTHS = {
    "obs shorter than the matrix": (slice(None, -1), slice(None), "obs has 5 rows"),
    "obs longer than the matrix": (slice(None), slice(None), "obs has 6 rows"),
    "var shorter than the matrix": (slice(None), slice(None, -1), "var has 11 rows"),
}


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.array], ids=["CSR", "CSC", "dense"])
@pytest.mark.parametrize(("obs", "var", "reason"), LENGTHS.values(), ids=LENGTHS)
def test_a_matrix_that_does_not_fit_its_names_is_refused(
    form: Any, obs: slice, var: slice, reason: str, tmp_path: Path
):
    path, frames = write(tmp_path, form), cells.make_cells(N_CELLS)
    rows = 5 if reason == "obs has 6 rows" else 6
    with h5py.File(path, "r+") as file:
        del file["obs"], file["var"], file[MATRIX]
        ad.io.write_elem(file, "obs", frames.obs.iloc[obs])
        ad.io.write_elem(file, "var", frames.var.iloc[var])
        ad.io.write_elem(file["layers"], "processed", form(COUNTS[:rows]))
    with raises("matrix_malformed", f"the matrix is {rows} x 12", reason):
        run(path, tmp_path)


@pytest.mark.parametrize("how", ["label_column", "obs_columns", "disease_column"])
@pytest.mark.parametrize("column", ["disease/codes", "number"])
def test_an_obs_column_of_another_length_is_refused(how: str, column: str, tmp_path: Path):
    made = cells.make_cells(number=range(6))
    made.write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "r+") as file:
        replaced(f"obs/{column}", lambda values: values[:-1])(file)
    name = column.partition("/")[0]
    keys = {how: [name] if how == "obs_columns" else name, "bio_annotations": how == "disease_column"}
    with raises("source_unreadable", "obs column", repr(name), "5"):
        run(tmp_path / "cells.h5ad", tmp_path, **keys)


@pytest.mark.parametrize("codes", [99, -5])
def test_a_code_without_a_category_is_refused(codes: int, tmp_path: Path):
    path = damaged(tmp_path, replaced("obs/disease/codes", at(0, codes)))
    with raises("source_unreadable"):
        run(path, tmp_path, label_column="disease")


FRAMES = {
    "no obs": removed("obs"),
    "no var": removed("var"),
    "no obs index": removed("obs/_index"),
    "no var index": removed("var/_index"),
    "no name of the obs index": attribute("obs", "_index", None),
    "no column order": attribute("obs", "column-order", None),
    "a column without data": removed("obs/disease"),
    "a categorical without codes": removed("obs/disease/codes"),
}


@pytest.mark.parametrize("change", FRAMES.values(), ids=FRAMES)
def test_a_file_that_lacks_a_part_is_unreadable(change: Callable, tmp_path: Path):
    path = damaged(tmp_path, change)
    with raises("source_unreadable", str(path)):
        run(path, tmp_path, label_column="disease")


def test_raw_without_genes_is_unreadable(tmp_path: Path):
    path = damaged(tmp_path, removed("raw/var"))
    with raises("source_unreadable", str(path)):
        run(path, tmp_path, layer="raw")


OTHER_MATRICES = {
    "text": (lambda file: file.create_dataset(MATRIX, data=COUNTS.astype("S3")), "values of type"),
    "text of any length": (lambda file: file.create_dataset(MATRIX, data=COUNTS.astype(str).astype(object)), "object"),
    "complex numbers": (lambda file: file.create_dataset(MATRIX, data=COUNTS.astype(complex)), "complex128"),
    "long doubles": (lambda file: file.create_dataset(MATRIX, data=COUNTS.astype("longdouble")), "float128"),
    "three dimensions": (lambda file: file.create_dataset(MATRIX, data=COUNTS[None]), "(1, 6, 12)"),
    "one dimension": (lambda file: file.create_dataset(MATRIX, data=COUNTS[0]), "(12,)"),
    "one number": (lambda file: file.create_dataset(MATRIX, data=1.0), "()"),
    "a data frame": (
        lambda file: ad.io.write_elem(file["layers"], "processed", pd.DataFrame(COUNTS, columns=cells.GENES)),
        "dataframe",
    ),
    "a plain group": (lambda file: file.create_group(MATRIX), ""),
    "an unknown encoding": (
        lambda file: file.create_dataset(MATRIX, data=COUNTS).attrs.update({"encoding-type": "ragged"}),
        "ragged",
    ),
    "a compound": (
        lambda file: file.create_dataset(MATRIX, data=np.zeros((6, 12), dtype=[("a", "f4"), ("b", "f4")])),
        "values of type",
    ),
}


@pytest.mark.parametrize(("make", "got"), OTHER_MATRICES.values(), ids=OTHER_MATRICES)
def test_a_layer_that_is_no_matrix_of_numbers_is_refused(make: Callable, got: str, tmp_path: Path):
    path = write(tmp_path)
    with h5py.File(path, "r+") as file:
        del file[MATRIX]
        make(file)
    with raises("matrix_type", "layer 'processed' of cells.h5ad holds", got):
        run(path, tmp_path)


@pytest.mark.parametrize(
    ("matrix", "got"),
    [
        (COUNTS.astype(str), "values of type"),
        (COUNTS.astype(object), "object"),
        (COUNTS.astype(complex), "complex128"),
        (COUNTS.astype("longdouble"), "float128"),
        (sparse.csr_matrix(COUNTS.astype(complex)), "complex128"),
        (COUNTS.astype("M8[s]"), "datetime64"),
    ],
    ids=["text", "objects", "complex", "long double", "sparse complex", "dates"],
)
def test_a_layer_in_memory_that_is_no_matrix_of_numbers_is_refused(matrix: Any, got: str, tmp_path: Path):
    with raises("matrix_type", "layer 'processed' of AnnData holds", got):
        run(cells.with_layer(matrix), tmp_path)


@pytest.mark.parametrize("item", ["data", "indices", "indptr", "var/_index", "obs/disease/codes"])
def test_a_chunk_that_cannot_be_decompressed_is_unreadable(item: str, tmp_path: Path):
    item = item if "/" in item else f"{MATRIX}/{item}"
    path = write(tmp_path)
    with h5py.File(path, "r+") as file:
        item += "/values" if isinstance(file[item], h5py.Group) else ""  # names as pandas 3 holds them
        values, attrs = file[item][()], dict(file[item].attrs)
        dtype = file[item].dtype
        del file[item]
        file.create_dataset(item, data=values, dtype=dtype, compression="gzip", chunks=(1,)).attrs.update(attrs)
        place = file[item].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    with raises("source_unreadable", str(path)):
        run(path, tmp_path, label_column="disease")


def chunk_files(store: Path, item: str) -> list[Path]:
    files = sorted(path for path in (store / MATRIX / item).rglob("*") if path.is_file())
    return [path for path in files if not path.name.startswith((".z", "zarr"))]


@pytest.mark.parametrize("item", ["data", "indices"])
def test_a_zarr_chunk_that_is_missing_is_not_read_as_zeros(item: str, tmp_path: Path):
    zarr = pytest.importorskip("zarr")
    store = write(tmp_path, name="cells.zarr")
    matrix = zarr.open_group(str(store / MATRIX), mode="r+")
    values = matrix[item][...]
    del matrix[item]
    matrix.create_array(item, data=values, chunks=(5,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr: consolidated metadata is not in the specification of version 3
        zarr.consolidate_metadata(str(store))
    assert run(store, tmp_path) == expected()
    chunk_files(store, item)[-1].unlink()
    with raises("chunks_missing", str(store), repr(f"{MATRIX}/{item}"), "1 of the"):
        run(store, tmp_path)


@pytest.mark.parametrize("item", ["indices", "indptr"])
def test_a_zarr_array_without_any_chunk_is_not_read_as_zeros(item: str, tmp_path: Path):
    pytest.importorskip("zarr")
    store = write(tmp_path, name="cells.zarr")
    for chunk in chunk_files(store, item):
        chunk.unlink()
    with raises("chunks_missing" if item == "indices" else "matrix_malformed", str(store.name)):
        run(store, tmp_path)


def test_a_zarr_chunk_that_is_cut_off_is_unreadable(tmp_path: Path):
    pytest.importorskip("zarr")
    store = write(tmp_path, name="cells.zarr")
    chunk = chunk_files(store, "data")[0]
    chunk.write_bytes(chunk.read_bytes()[:5])
    with raises("source_unreadable", str(store)):
        run(store, tmp_path)


# ---- links that lead out of the file


def external_link(file: Any, item: str) -> None:
    del file[item]
    file[item] = h5py.ExternalLink("other.h5ad", item)


def external_storage(file: Any, item: str) -> None:
    shape, dtype = file[item].shape, file[item].dtype
    del file[item]
    file.create_dataset(item, shape, dtype, external=[("outside.bin", 0, h5py.h5f.UNLIMITED)])


def virtual(file: Any, item: str) -> None:
    shape, dtype = file[item].shape, file[item].dtype
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource("other.h5ad", item, shape)
    del file[item]
    file.create_virtual_dataset(item, layout, fillvalue=0)


@pytest.mark.parametrize("target", ["present", "missing"])
@pytest.mark.parametrize("item", ["layers", MATRIX, f"{MATRIX}/data", "obs", "obs/disease", "obs/disease/codes", "var"])
def test_an_external_link_is_refused(item: str, target: str, tmp_path: Path):
    path = write(tmp_path)
    if target == "present":
        shutil.copy(path, tmp_path / "other.h5ad")
    with h5py.File(path, "r+") as file:
        external_link(file, item)
    with raises("source_link", repr(item), "external link", "other.h5ad"):
        run(path, tmp_path)


@pytest.mark.parametrize("link", [external_storage, virtual])
@pytest.mark.parametrize("item", [f"{MATRIX}/data", f"{MATRIX}/indices", f"{MATRIX}/indptr", "obs/disease/codes"])
def test_data_that_are_kept_outside_of_the_file_are_refused(item: str, link: Callable, tmp_path: Path):
    path = damaged(tmp_path, lambda file: link(file, item))
    with raises("source_link", repr(item)):
        run(path, tmp_path)


@pytest.mark.parametrize("link", [external_link, external_storage, virtual])
def test_a_dense_layer_that_is_kept_outside_of_the_file_is_refused(link: Callable, tmp_path: Path):
    path = damaged(tmp_path, lambda file: link(file, MATRIX), np.array)
    with raises("source_link", repr(MATRIX)):
        run(path, tmp_path)


def test_links_in_parts_that_are_not_read_do_no_harm(tmp_path: Path):
    path = write(tmp_path)
    with h5py.File(path, "r+") as file:
        external_link(file, "X")
        file["uns/link"] = h5py.ExternalLink("nowhere.h5", "x")
        file["layers/other"] = h5py.ExternalLink("nowhere.h5", "x")
    assert run(path, tmp_path) == expected()
    with raises("source_link", "'X'"):
        run(path, tmp_path, layer="X")


def test_raw_that_is_a_link_is_refused(tmp_path: Path):
    path = damaged(tmp_path, lambda file: external_link(file, "raw"))
    with raises("source_link", "'raw'"):
        run(path, tmp_path, layer="raw")


# ---- values that cannot be tokenized


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [np.array, sparse.csr_matrix, sparse.csc_matrix], ids=["dense", "CSR", "CSC"])
def test_a_value_that_is_not_finite_is_reported_with_cell_and_gene(form: Any, value: float, tmp_path: Path):
    x = COUNTS.copy()
    x[3, 4] = value
    place = "cell 'cell-3' (row 3 of AnnData, layer 'processed')"
    with raises("not_finite", place, f"gene {cells.GENES[4]!r}") as caught:
        run(cells.with_layer(form(x)), tmp_path)
    assert {key: caught.value.context[key] for key in ("cell", "row", "gene")} == {
        "cell": "cell-3", "row": 3, "gene": cells.GENES[4],
    }  # fmt: skip


def test_a_value_that_is_not_finite_is_reported_with_its_row_in_the_whole_file(tmp_path: Path):
    x = np.tile(COUNTS, (400, 1))
    x[2222, 4] = np.nan
    made = cells.with_layer(sparse.csr_matrix(x))
    made.write_h5ad(tmp_path / "brain.h5ad")
    with raises("not_finite", "cell 'cell-2222' (row 2,222 of brain.h5ad, layer 'processed')", cells.GENES[4]):
        run(tmp_path / "brain.h5ad", tmp_path)


def test_everything_before_the_bad_value_is_tokenized(tmp_path: Path):
    x = np.tile(COUNTS, (400, 1))
    x[2222, 4] = np.nan
    batches = iter_batches(cells.with_layer(x), cells.make_args(tmp_path, max_shard_samples=500))
    with raises("not_finite"):
        for _ in batches:
            pass


def test_a_dropped_gene_may_hold_anything(tmp_path: Path):
    x = COUNTS.copy()
    x[:, 10:] = np.nan
    assert run(cells.with_layer(x), tmp_path) == expected()


def test_check_lists_every_cell_that_is_not_finite(tmp_path: Path):
    x = np.tile(COUNTS, (400, 1))
    x[[3, 2222], 4] = np.nan
    x[7, 11] = np.nan
    problems = check(cells.with_layer(sparse.csr_matrix(x)), cells.make_args(tmp_path)).problems
    assert len(problems) == 1
    for fact in ("2 cells", "'cell-3'", "'cell-2222'", cells.GENES[4]):
        assert fact in problems[0]
    assert "cell-7" not in problems[0]


def test_a_total_that_overflows_is_refused(tmp_path: Path):
    x = COUNTS.astype("f8")
    x[1, 10:] = 1.7e308
    with raises("total_not_finite", "cell 'cell-1' (row 1", "float64"):
        run(cells.with_layer(x), tmp_path, normalize_total=1e4)


def test_a_logarithm_of_a_negative_number_is_refused(tmp_path: Path):
    x = COUNTS.copy()
    x[1, 2] = -2
    with raises("normalized_not_finite", "cell 'cell-1' (row 1", cells.GENES[2], "log1p"):
        run(cells.with_layer(x), tmp_path, log1p=True)


def test_a_value_beyond_float32_is_refused(tmp_path: Path):
    x = COUNTS.astype("f8")
    x[1, 2] = 1e39
    with raises("too_large_for_float32", "cell 'cell-1' (row 1", cells.GENES[2]):
        run(cells.with_layer(x), tmp_path)


def test_what_the_kernel_says_of_its_own_arguments_is_a_bug_of_ours(tmp_path: Path):
    class Kernel:
        def tokenize_csr(self, *_: Any, **__: Any) -> None:
            raise KernelError("seed_out_of_range", None, None, None)

    plan = dataclasses.replace(build_plan(cells.make_cells(), cells.make_args(tmp_path)), kernel=Kernel())
    with raises("internal", "seed_out_of_range", "bug in teddytok-rs"):
        next(tokenize_batches(plan, resources=Resources(1, 2**26)))
