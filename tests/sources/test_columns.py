"""Rows of an obs column, whatever stores it, are those that anndata reads."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cells
from raises import raises
from teddytok_rs import check, tokenize
from teddytok_rs.mapping import cells as obs_in_parts
from teddytok_rs.mapping.cells import Cells, filter_cells
from teddytok_rs.sources.open import open_source

if TYPE_CHECKING:
    from pathlib import Path

N = 50
COLUMNS: dict[str, Any] = {
    "text": [f"é{row % 7}" * (row % 4) for row in range(N)],
    "unique": [f"cell {row}" for row in range(N)],
    "category": pd.Categorical([("b", "a", None)[row % 3] for row in range(N)], categories=["c", "b", "a"]),
    "ordered": pd.Categorical([row % 3 for row in range(N)], categories=[2, 0, 1, 9], ordered=True),
    "int": np.arange(N, dtype=np.int16) - 3,
    "float": np.where(np.arange(N) % 5 == 0, np.nan, np.arange(N) / 3).astype(np.float32),
    "flag": np.arange(N) % 2 == 0,
    "nullable": pd.array([None if row % 4 == 0 else row for row in range(N)], dtype="Int16"),
    "maybe": pd.array([None if row % 4 == 0 else row % 3 == 0 for row in range(N)], dtype="boolean"),
    "nullable text": pd.array([None if row % 4 == 0 else f"t{row}" for row in range(N)], dtype="string"),
}
CONTAINERS = ["memory", "plain.h5ad", "packed.h5ad", "v2.zarr", "v3.zarr", "lazy", "backed"]


def plain(values: pd.Series) -> list[Any]:
    return [None if pd.isna(value) else value for value in values]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder, made = tmp_path_factory.mktemp("columns"), cells.make_cells(N, **COLUMNS)
    with anndata.settings.override(allow_write_nullable_strings=True):
        cells.save(made.copy(), folder / "plain.h5ad", convert_strings_to_categoricals=False)
        cells.save(made.copy(), folder / "packed.h5ad", compression="gzip", convert_strings_to_categoricals=False)
        for version in (2, 3):
            with anndata.settings.override(zarr_write_format=version):
                cells.save(made.copy(), folder / f"v{version}.zarr", convert_strings_to_categoricals=False)
    return {
        **{name: folder / name for name in CONTAINERS if "." in name},
        "memory": made,
        "lazy": anndata.experimental.read_lazy(folder / "plain.h5ad"),
        "backed": anndata.read_h5ad(folder / "plain.h5ad", backed="r"),
    }


@pytest.mark.parametrize("where", CONTAINERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=st.sampled_from(sorted(COLUMNS)), start=st.integers(0, N), length=st.integers(0, N))
def test_rows_are_those_of_the_whole_column(sources: dict[str, Any], where: str, column: str, start: int, length: int):
    expected = sources["memory"].obs[column].iloc[start : start + length].reset_index(drop=True)
    with closing(open_source(sources[where], "X")) as source:
        read = source.obs_column(column, start, min(start + length, N))
        whole = source.obs_column(column)
    assert read.dtype == whole.dtype
    assert len(whole) == N
    if column in {"text", "unique", "nullable text"}:  # object, str or string
        assert plain(read) == plain(expected)
        return
    pd.testing.assert_series_equal(read.reset_index(drop=True), expected, check_names=False)
    if isinstance(expected.dtype, pd.CategoricalDtype):
        assert list(read.cat.categories) == list(expected.cat.categories)
        assert read.cat.ordered == expected.cat.ordered


@pytest.mark.parametrize("where", CONTAINERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_parts_of_the_kept_cells_are_put_together(sources: dict[str, Any], where: str, data: st.DataObject):
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=N, max_size=N)))
    rows = data.draw(st.sampled_from([None, np.flatnonzero(keep)]))
    column = data.draw(st.sampled_from(["unique", "category", "nullable", "float"]))
    with pytest.MonkeyPatch.context() as patched, closing(open_source(sources[where], "X")) as source:
        patched.setattr(obs_in_parts, "PART_ROWS", data.draw(st.integers(1, 2 * N)))
        chosen = Cells(source, rows)
        whole = sources["memory"].obs[column].iloc[slice(None) if rows is None else rows]
        spans = list(chosen.spans())
        assert [cell for span in spans for cell in range(*span)] == list(range(len(chosen)))
        start = data.draw(st.integers(0, len(chosen)))
        stop = data.draw(st.integers(start, len(chosen)))
        for span in [*spans, (start, stop)]:
            assert plain(chosen.read(column, *span)) == plain(whole.iloc[slice(*span)])
            assert chosen.read_names(*span) == whole.index[slice(*span)].tolist()


FILTERS = [
    "flag",
    "unique != 'cell 3' and int > 4",
    "category in ['a', 'b'] and nullable.notna()",
    "ordered >= 0 and text.str.contains('é[12]')",
    "category.isna() & ~flag",
    "float > 3 or float.isna()",
]


@pytest.mark.parametrize("where", CONTAINERS)
@pytest.mark.parametrize("cell_filter", FILTERS)
@pytest.mark.parametrize("part", [1, 7, 1000])
def test_a_filter_gives_the_same_cells_in_parts(
    sources: dict[str, Any], where: str, cell_filter: str, part: int, monkeypatch: pytest.MonkeyPatch
):
    with closing(open_source(sources["memory"], "X")) as source:
        whole = filter_cells(source, cell_filter).rows
    monkeypatch.setattr(obs_in_parts, "PART_ROWS", part)
    with closing(open_source(sources[where], "X")) as source:
        found = filter_cells(source, cell_filter).rows
    assert np.array_equal(found, whole)


def test_what_a_filter_lacks_is_counted_over_all_parts(sources: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(obs_in_parts, "PART_ROWS", 7)
    with closing(open_source(sources["plain.h5ad"], "X")) as source, raises("cell_filter", "13 of 50 cells"):
        filter_cells(source, "nullable > 5")


@pytest.mark.parametrize("part", [1, 7])
@pytest.mark.parametrize("where", ["plain.h5ad", "v3.zarr", "memory"])
def test_tokens_and_columns_do_not_depend_on_the_parts(
    sources: dict[str, Any], where: str, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    columns = ["index", "text", "category", "ordered", "int", "float", "flag", "nullable", "maybe", "sex"]
    for keys in ({"label_column": "unique", "bio_annotations": True}, {"add_disease_annotation": True}):
        args = cells.make_args(tmp_path, obs_columns=columns, cell_filter="int % 3 != 0", max_shard_samples=9, **keys)
        whole = tokenize(sources["memory"], args)
        n_bytes = check(sources["memory"], args).n_bytes
        with monkeypatch.context() as patched:
            patched.setattr(obs_in_parts, "PART_ROWS", part)
            assert tokenize(sources[where], args).equals(whole)
            assert abs(check(sources[where], args).n_bytes - n_bytes) < 1000  # validity bits and offsets of each part
    rows = sources["memory"].obs.query("int % 3 != 0")
    assert whole["cell_id"].to_pylist() == list(rows.index)
    assert whole["category"].to_pylist() == [None if pd.isna(label) else label for label in rows["category"]]


def test_bad_labels_are_counted_over_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(obs_in_parts, "PART_ROWS", 2)
    made = cells.make_cells(9, label=["a", "b", "a", None, "b", "c", None, "a", "c"])
    args = cells.make_args(tmp_path, label_column="label", label_names=["a", "b"])
    with raises("label_missing", "cell 'cell-3' (row 3 of AnnData)", "1 other cell"):
        tokenize(made, args)
    with raises("label_unknown", "cell 'cell-5' (row 5 of AnnData) has 'c'", "1 other cell"):
        tokenize(made, {**args, "cell_filter": "label.notna()"})


@pytest.mark.parametrize("length", [3, 5])
def test_a_column_of_another_length_is_refused(length: int, tmp_path: Path):
    path = cells.save(cells.make_cells(4, number=range(4)), tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        attributes = dict(file["obs/number"].attrs)
        del file["obs/number"]
        file["obs/number"] = np.arange(length)
        file["obs/number"].attrs.update(attributes)
    with raises("source_unreadable", "obs column 'number' is not one value for each of its 4 rows"):
        tokenize(path, cells.make_args(tmp_path, obs_columns=["number"]))
