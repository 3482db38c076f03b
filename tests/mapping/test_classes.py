"""Which label has which number: the same for every filter, container and order of the cells."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cells
from raises import raises
from teddytok_rs import check, tokenize, tokenize_to_disk
from teddytok_rs.mapping.classes import Classes, number_classes

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ["", "B", "NK cell", "T", "b", "é", "10", "9"]


def labels_and_names(source: Any, args: dict[str, Any]) -> tuple[list[int], list[str]]:
    """The labels of a source, and the names of their classes."""
    table = tokenize(source, args, threads=1)
    described = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["labels"]
    return table["labels"].to_pylist(), described.get("names")


def expected_names(column: pd.Series) -> list[str]:
    """Compute with pandas the classes of a whole column."""
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return sorted(column.dropna().unique())
    categories = column.cat.categories
    return list(map(str, categories if column.cat.ordered else categories.sort_values()))


@st.composite
def columns(draw: st.DrawFn) -> pd.Series:
    """A column of labels: strings of several types, or a categorical with unused and unsorted categories."""
    values = draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=12))
    kind = draw(st.sampled_from(["object", "string", "categorical", "ordered", "numbers"]))
    if kind in {"object", "string"}:
        return pd.Series(values, dtype=kind)
    if kind == "numbers":
        values = [int(number) for number in draw(st.lists(st.sampled_from([-2, 9, 10, 100]), min_size=1, max_size=12))]
    others = [-1, 7] if kind == "numbers" else ["unused", "A"]
    categories = draw(st.permutations([*dict.fromkeys(values), *others]))
    return pd.Series(pd.Categorical(values, categories=categories, ordered=kind == "ordered"))


@pytest.mark.parametrize("where", ["memory", "cells.h5ad", "cells.zarr"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=columns(), data=st.data())
def test_numbers_depend_on_the_whole_column_alone(
    where: str, column: pd.Series, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("classes")
    keep = data.draw(st.lists(st.booleans(), min_size=len(column), max_size=len(column)).filter(any))
    names = expected_names(column)
    made = cells.make_cells(len(column), keep=keep)
    made.obs["label"] = column.to_numpy() if column.dtype == object else column.array
    with anndata.settings.override(allow_write_nullable_strings=True):
        source: Any = made if where == "memory" else cells.save(made.copy(), folder / where)
    args = cells.make_args(folder, label_column="label", cell_filter="keep")
    expected = [names.index(str(label)) for label, kept in zip(column, keep, strict=True) if kept]
    assert labels_and_names(source, args) == (expected, names)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_union_keeps_every_order_and_does_not_depend_on_the_order_of_sources(data: st.DataObject):
    whole = data.draw(st.permutations("abcdefg"))
    found = []
    for _ in range(data.draw(st.integers(1, 4))):
        names = data.draw(st.lists(st.sampled_from(whole), unique=True))
        ordered = data.draw(st.booleans())
        found.append(Classes(tuple(sorted(names, key=whole.index) if ordered else names), is_ordered=ordered))
    known = tuple(data.draw(st.lists(st.sampled_from("abxy"), unique=True)))
    names = number_classes(found, "label", known)
    assert names == number_classes(data.draw(st.permutations(found)), "label", known)
    assert names[: len(known)] == known
    assert sorted(names) == sorted({*known, *(name for classes in found for name in classes.names)})
    new = [name for name in names if name not in known]
    for classes in found:
        if classes.is_ordered:
            assert [name for name in new if name in classes.names] == [n for n in classes.names if n in new]
    if not any(classes.is_ordered for classes in found):
        assert new == sorted(new)
    assert number_classes(found, "label", names) == names


def test_ordered_categoricals_that_contradict_each_other_need_label_names():
    found = [Classes(("low", "high"), is_ordered=True), Classes(("high", "low"), is_ordered=True)]
    with raises("config_conflict", "obs column 'grade'", "'high'", "label_names"):
        number_classes(found, "grade")


def test_an_ordered_categorical_keeps_its_order(tmp_path: Path):
    grades = pd.Categorical(["low", "high", "low"], categories=["low", "mid", "high"], ordered=True)
    args = cells.make_args(tmp_path, label_column="grade")
    for source in (
        cells.make_cells(3, grade=grades),
        cells.save(cells.make_cells(3, grade=grades), tmp_path / "a.h5ad"),
    ):
        assert labels_and_names(source, args) == ([0, 2, 0], ["low", "mid", "high"])


# ---- label_names


def names_in(form: str, names: list[str], folder: Path) -> list[str] | str:
    return names if form == "list" else cells.write_json(folder / "names.json", names)


@pytest.mark.parametrize("form", ["list", "file"])
@pytest.mark.parametrize(
    "values",
    [["B", "T", "B"], pd.Categorical(["B", "T", "B"], categories=["T", "B"], ordered=True)],
    ids=["text", "ordered"],
)
def test_label_names_fix_names_and_order(form: str, values: Any, tmp_path: Path):
    names = names_in(form, ["T", "NK", "B"], tmp_path)
    args = cells.make_args(tmp_path, label_column="label", label_names=names)
    assert labels_and_names(cells.make_cells(3, label=values), args) == ([2, 0, 2], ["T", "NK", "B"])


def test_categories_that_are_numbers_are_named_by_their_digits(tmp_path: Path):
    args = cells.make_args(tmp_path, label_column="label", label_names=["10", "9"])
    assert labels_and_names(cells.make_cells(3, label=pd.Categorical([9, 10, 9])), args) == ([1, 0, 1], ["10", "9"])


@pytest.mark.parametrize("values", [["B", "T", "T"], pd.Categorical(["B", "T", "T"])], ids=["text", "categorical"])
def test_a_label_that_is_not_listed_is_refused_with_its_cell(values: Any, tmp_path: Path):
    args = cells.make_args(tmp_path, label_column="label", label_names=["B"])
    made = cells.make_cells(3, label=values)
    with raises("label_unknown", "cell 'cell-1' (row 1 of AnnData) has 'T'", "'label'", "1 other cell"):
        tokenize(made, args)
    assert labels_and_names(made, {**args, "cell_filter": "label == 'B'"}) == ([0], ["B"])
    (problem,) = check(made, args).problems
    assert "'T'" in problem


@pytest.mark.parametrize("values", [[1, 2, 3], [0.5, 1, 2], [True, False, True]], ids=["int", "float", "bool"])
def test_names_of_numbers_are_refused(values: Any, tmp_path: Path):
    args = cells.make_args(tmp_path, label_column="label", label_names=["B"])
    with raises("config_conflict", "obs column 'label' of AnnData holds numbers", "leave label_names out"):
        tokenize(cells.make_cells(3, label=values), args)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('["a", "a"]', "a name occurs twice"),
        ('{"a": 1}', "something else than a list"),
        ("[]", "something else than a list"),
        ('["a", 1]', "something else than a list"),
        ("[", "not JSON"),
    ],
    ids=["name twice", "object", "nothing", "number", "cut off"],
)
def test_a_malformed_file_of_names_is_refused(text: str, reason: str, tmp_path: Path):
    (tmp_path / "names.json").write_text(text, encoding="utf-8")
    args = cells.make_args(tmp_path, label_column="sex", label_names=tmp_path / "names.json")
    with raises("label_names", "names.json", reason):
        tokenize(cells.make_cells(), args)


def test_label_names_without_labels_are_a_warning(tmp_path: Path):
    report = check(cells.make_cells(), cells.make_args(tmp_path, label_names=["a"]))
    assert any("label_names" in warning and "label_column" in warning for warning in report.warnings)


def test_names_of_train_and_test_donors_agree_by_label_names(tmp_path: Path):
    """Runs of different donors, each without some of the classes."""
    datasets = pytest.importorskip("datasets")
    names = ["B cell", "NK cell", "T cell"]
    args = cells.make_args(tmp_path, label_column="cell_type", label_names=names)
    for donor, types in {"train": names, "test": names[1:]}.items():
        made = cells.make_cells(6, cell_type=pd.Categorical(np.resize(types, 6)))
        manifest = tokenize_to_disk(made, args, tmp_path / "out", name=donor)
        dataset = datasets.load_from_disk(str(manifest.path))
        assert dataset.features["labels"].names == names
        assert dataset.features["labels"].int2str(dataset["labels"][:]) == list(made.obs["cell_type"])


def test_a_changed_list_of_names_is_another_run(tmp_path: Path):
    run = partial(tokenize_to_disk, cells.make_cells(), save_dir=tmp_path / "out")
    args = cells.make_args(tmp_path, label_column="sex", label_names=["female", "male"])
    run(args=args)
    assert run(args={**args, "label_names": cells.write_json(tmp_path / "n.json", ["female", "male"])}).n_kept == 1
    with raises("output_differs", "dataset_info.json"):
        run(args={**args, "label_names": ["male", "female"]})
