"""What is read from obs: annotation tokens, labels and copied columns."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cells
from raises import raises
from teddytok_rs import check, tokenize, tokenize_to_disk
from teddytok_rs.pipeline.plan import build_plan

UNK = cells.UNK


def annotate(folder: Path, made: Any = None, **keys: Any) -> list[Any]:
    """The column bio_annotations of some cells."""
    args = cells.make_args(folder, bio_annotations=True, **keys)
    return tokenize(cells.make_cells() if made is None else made, args)["bio_annotations"].to_pylist()


def diseases(folder: Path, labels: Any, mapping: dict[str, Any] | None = None, **keys: Any) -> list[int]:
    """The disease tokens of cells with these labels."""
    if mapping is not None:
        keys["disease_mapping"] = cells.write_json(folder / "disease.json", mapping)
    made = cells.make_cells(len(labels), disease=labels)
    args = cells.make_args(folder, add_disease_annotation=True, **keys)
    return tokenize(made, args)["labels"].to_pylist()


def report(folder: Path, made: Any, kind: str = "disease", **keys: Any) -> Any:
    return check(made, cells.make_args(folder, bio_annotations=True, **keys)).annotations[kind]


# ---- bio_annotations


def test_annotations_are_disease_tissue_cell_type_and_sex_in_this_order(tmp_path: Path):
    obs = cells.make_cells().obs
    columns = ["disease", "tissue", "cell_type", "sex"]
    expected = [[cells.TOKEN[label] for label in row] for row in obs[columns].itertuples(index=False)]
    assert annotate(tmp_path) == expected


def test_annotations_are_lists_of_int32(tmp_path: Path):
    table = tokenize(cells.make_cells(), cells.make_args(tmp_path, bio_annotations=True))
    assert table.schema.field("bio_annotations").type == pa.list_(pa.int32())


@pytest.mark.parametrize("kind", ["disease", "tissue", "cell", "sex"])
def test_each_annotation_has_its_own_column_argument(kind: str, tmp_path: Path):
    place = ["disease", "tissue", "cell", "sex"].index(kind)
    made = cells.make_cells(other=["<mask>"] * 6)
    for row in annotate(tmp_path, made, **{f"{kind}_column": "other"}):
        assert row[place] == cells.TOKEN["<mask>"]
        assert row.count(cells.TOKEN["<mask>"]) == 1


@pytest.mark.parametrize("kind", ["disease", "tissue", "cell", "sex"])
def test_each_annotation_has_its_own_mapping(kind: str, tmp_path: Path):
    place = ["disease", "tissue", "cell", "sex"].index(kind)
    labels = list(cells.LABELS.values())[place]
    mapping = cells.write_json(tmp_path / "m.json", {label: 1000 + n for n, label in enumerate(labels)})
    rows = annotate(tmp_path, **{f"{kind}_mapping": mapping})
    assert [row[place] for row in rows] == [1000 + row % len(labels) for row in range(6)]


@pytest.mark.parametrize("kind", ["disease", "tissue", "cell", "sex"])
def test_a_missing_annotation_column_is_refused_with_those_that_there_are(kind: str, tmp_path: Path):
    column = {"cell": "cell_type"}.get(kind, kind)
    made = cells.make_cells()
    made.obs = made.obs.rename(columns={column: "other"})
    with raises("obs_column_missing", f"no obs column {column!r}", f"{kind}_column", "'other'"):
        annotate(tmp_path, made)


def test_obs_without_any_column_is_reported(tmp_path: Path):
    made = cells.make_cells()
    made.obs = made.obs[[]]
    with raises("obs_column_missing", "it has none"):
        annotate(tmp_path, made)


def test_annotation_columns_are_not_needed_unless_asked_for(tmp_path: Path):
    made = cells.make_cells()
    made.obs = made.obs[[]]
    assert tokenize(made, cells.make_args(tmp_path)).column_names == ["gene_ids", "values"]


# ---- mapping files


def test_a_mapping_gives_ids_or_tokens(tmp_path: Path):
    mapping = {"a": 0, "b": "melanoma", "c": 2**31 - 1}
    assert diseases(tmp_path, ["a", "b", "c"], mapping) == [0, cells.TOKEN["melanoma"], 2**31 - 1]


def test_a_label_that_looks_like_a_number_is_a_label(tmp_path: Path):
    assert diseases(tmp_path, ["1", "2"], {"1": 70, "2": 71}) == [70, 71]


@pytest.mark.parametrize("labels", [[1, 2], pd.Categorical([1, 2]), np.array([1, 2], dtype="int8")])
def test_labels_that_are_numbers_are_looked_up_by_their_digits(labels: Any, tmp_path: Path):
    assert diseases(tmp_path, labels, {"1": 70, "2": 71}) == [70, 71]


def test_without_a_mapping_the_label_itself_is_looked_up(tmp_path: Path):
    assert diseases(tmp_path, ["asthma", "normal"]) == [cells.TOKEN["asthma"], cells.TOKEN["normal"]]


def test_with_a_mapping_the_vocabulary_is_not_looked_at(tmp_path: Path):
    assert diseases(tmp_path, ["asthma", "normal"], {"normal": 70}) == [UNK, 70]


def test_labels_are_matched_exactly(tmp_path: Path):
    assert diseases(tmp_path, ["normal", "Normal", "normal ", "norm"]) == [cells.TOKEN["normal"], UNK, UNK, UNK]


@pytest.mark.parametrize("token", [-1, 2**31, 1.5, 1.0, True, None, [1], {"id": 1}], ids=str)
def test_a_mapping_to_no_token_is_refused_with_its_label(token: Any, tmp_path: Path):
    with raises("mapping_file", "disease_mapping", "disease.json", "label 'a'", repr(token)):
        diseases(tmp_path, ["a"], {"a": token})


def test_a_mapping_to_a_token_that_is_not_in_the_vocabulary_is_refused(tmp_path: Path):
    with raises("mapping_token", "disease_mapping", "maps 'a' to 'flu'", "not in the vocabulary"):
        diseases(tmp_path, ["normal", "a"], {"normal": 1, "a": "flu"})
    with raises("mapping_token", "maps 'a' to 'flu'"):
        diseases(tmp_path, ["b || a"], {"a": "flu"})


def test_a_mapping_entry_that_no_cell_needs_is_a_warning(tmp_path: Path):
    mapping = tmp_path / "some.json"
    mapping.write_text('{"normal": 1, "a": "flu", "b": "cold"}', encoding="utf-8")
    made = cells.make_cells()
    made.obs["disease"] = "normal"
    args = cells.make_args(tmp_path, bio_annotations=False, label_column=None, add_disease_annotation=True)
    report = check(made, {**args, "disease_mapping": str(mapping)})
    assert not report.problems
    (warning,) = [text for text in report.warnings if "disease_mapping" in text]
    assert "2 labels" in warning
    assert "'a'" in warning


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "key 'a' occurs more than once"),
        ("[1]", "list"),
        ("{", "not JSON"),
        ('{"a": NaN}', "NaN is not JSON"),
    ],
    ids=["key twice", "list", "cut off", "NaN"],
)
def test_a_malformed_mapping_is_refused(text: str, reason: str, tmp_path: Path):
    (tmp_path / "m.json").write_text(text, encoding="utf-8")
    with raises("mapping_file", "disease_mapping", "m.json", reason):
        diseases(tmp_path, ["a"], disease_mapping=tmp_path / "m.json")


def test_a_missing_mapping_file_is_refused(tmp_path: Path):
    with raises("mapping_file", "sex_mapping", "nowhere.json", "no such file"):
        annotate(tmp_path, sex_mapping=tmp_path / "nowhere.json")


# ---- labels of several parts


def test_a_label_of_several_parts_is_looked_up_whole_first(tmp_path: Path):
    assert diseases(tmp_path, ["flu || asthma"], {"flu": 70, "asthma": 71, "flu || asthma": 72}) == [72]


@pytest.mark.parametrize(
    ("label", "token"),
    [
        ("flu || asthma", 70),
        ("asthma || flu", 71),
        ("gout || asthma || flu", 71),
        ("gout || scurvy", UNK),
        ("flu||asthma", UNK),
        ("flu | asthma", UNK),
    ],
)
def test_a_label_of_several_parts_has_the_token_of_its_first_mapped_part(label: str, token: int, tmp_path: Path):
    assert diseases(tmp_path, [label], {"flu": 70, "asthma": 71}) == [token]


def test_parts_are_looked_up_in_the_vocabulary_without_a_mapping(tmp_path: Path):
    assert diseases(tmp_path, ["gout || melanoma || asthma"]) == [cells.TOKEN["melanoma"]]


def test_labels_that_were_mapped_by_a_part_are_counted_as_such(tmp_path: Path):
    labels = ["gout || normal", "normal", "gout", "gout || normal", "asthma || normal", "normal"]
    seen = report(tmp_path, cells.make_cells(disease=labels))
    assert seen.by_part == {"gout || normal": "normal", "asthma || normal": "asthma"}
    assert seen.cells == {"gout || normal": 2, "normal": 2, "gout": 1, "asthma || normal": 1}
    assert seen.unmapped == {"gout": 1}
    assert seen.tokens["gout || normal"] == cells.TOKEN["normal"]


# ---- labels without a token


def test_a_label_without_a_token_becomes_the_unknown_token_and_is_counted(tmp_path: Path):
    labels = ["flu", "normal", None, "flu", np.nan, "gout"]
    assert diseases(tmp_path, labels) == [UNK, cells.TOKEN["normal"], UNK, UNK, UNK, UNK]
    seen = report(tmp_path, cells.make_cells(disease=labels))
    assert seen.unmapped == {"(missing)": 2, "flu": 2, "gout": 1}
    assert seen.cells["(missing)"] == 2


def test_unmapped_labels_are_in_the_manifest(tmp_path: Path):
    made = cells.make_cells(disease=["flu", "normal", "flu", "normal", "normal", "gout || flu"])
    args = cells.make_args(tmp_path, bio_annotations=True)
    manifest = tokenize_to_disk(made, args, tmp_path / "out")
    assert manifest.annotations["disease"]["unmapped"] == {"flu": 2, "gout || flu": 1}
    assert manifest.annotations["sex"]["unmapped"] == {}


def test_a_category_that_no_cell_has_is_not_reported(tmp_path: Path):
    labels = pd.Categorical(["normal"] * 6, categories=["normal", "flu"])
    assert report(tmp_path, cells.make_cells(disease=labels)).unmapped == {}


def test_a_vocabulary_without_an_unknown_token_refuses_unmapped_labels(tmp_path: Path):
    vocabulary = cells.write_vocabulary(tmp_path, [token for token in cells.TOKENS if token != "<unk>"])
    made = cells.make_cells(disease=["flu"] * 5 + ["normal"])
    args = {"tokenizer_name_or_path": vocabulary, "bio_annotations": True}
    with raises("no_special_token", "UNK", "'disease'", "'flu' (5 cells)", "disease_mapping", "<unk>"):
        tokenize(made, args)
    assert tokenize(cells.make_cells(), args).num_rows == 6


def test_unmapped_labels_are_refused_if_asked_for_the_most_frequent_first(tmp_path: Path):
    labels = [f"rare {n}" for n in range(7)] + ["flu"] * 3 + [None, "normal"]
    made = cells.make_cells(12, disease=labels)
    with raises("unmapped_annotation", "9 labels", "'flu' (3 cells)", "(9 in all)", "disease_mapping") as caught:
        annotate(tmp_path, made, unmapped_annotations="error")
    message = str(caught.value)
    assert message.index("flu") < message.index("rare 0")
    assert "rare 6" not in message


def test_one_label_of_one_cell_is_reported_in_the_singular(tmp_path: Path):
    with raises("unmapped_annotation", "1 label with no token: 'flu' (1 cell)"):
        annotate(tmp_path, cells.make_cells(1, disease=["flu"]), unmapped_annotations="error")


def test_no_unmapped_label_is_no_error(tmp_path: Path):
    assert annotate(tmp_path, unmapped_annotations="error") == annotate(tmp_path)


def test_checksums_of_mappings_are_in_the_manifest(tmp_path: Path):
    mapping = cells.write_json(tmp_path / "m.json", {"normal": 1})
    args = cells.make_args(tmp_path, bio_annotations=True, disease_mapping=mapping)
    manifest = tokenize_to_disk(cells.make_cells(), args, tmp_path / "out")
    expected = {"disease_mapping": hashlib.sha256(Path(mapping).read_bytes()).hexdigest()}
    assert manifest.checksums["mappings"] == expected


# ---- labels


def label(folder: Path, values: Any) -> tuple[Any, list[str] | None]:
    """The labels of cells, and the names of their classes."""
    made = cells.make_cells(len(values), label=values)
    plan = build_plan(made, cells.make_args(folder, label_column="label"))
    column = plan.annotations.columns[0]
    table = tokenize(made, cells.make_args(folder, label_column="label"))
    values = column.read(0, len(made))
    assert table["labels"].to_pylist() == values.to_pylist()
    return values, column.feature.get("names")


@pytest.mark.parametrize(
    "values",
    [
        ["b", "a", "b"],
        np.array(["b", "a", "b"]),
        pd.array(["b", "a", "b"], dtype="string"),
        pd.array(["b", "a", "b"], dtype="string[pyarrow]"),
        pd.Categorical(["b", "a", "b"]),
        pd.Categorical(["b", "a", "b"], categories=["b", "a"]),
    ],
    ids=["objects", "NumPy", "string", "Arrow string", "categorical", "unsorted categorical"],
)
def test_text_becomes_class_labels_with_sorted_names(values: Any, tmp_path: Path):
    ids, names = label(tmp_path, values)
    assert (ids.type, ids.to_pylist(), names) == (pa.int64(), [1, 0, 1], ["a", "b"])


def test_all_declared_categories_are_classes_so_that_split_files_agree(tmp_path: Path):
    whole = pd.Categorical(["c", "a", "c"], categories=["d", "c", "b", "a"])
    ids, names = label(tmp_path, whole)
    assert (ids.to_pylist(), names) == ([2, 0, 2], ["a", "b", "c", "d"])


def test_categories_that_are_numbers_are_classes(tmp_path: Path):
    ids, names = label(tmp_path, pd.Categorical([10, 9, 10]))
    assert names == ["9", "10"]
    assert ids.to_pylist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([3, -1], dtype="int64"), "int64"),
        (np.array([3, 1], dtype="uint8"), "uint8"),
        (np.array([0.5, -1], dtype="float32"), "float"),
        ([0.5, 1e300], "double"),
        ([True, False], "bool"),
        (pd.array([3, 1], dtype="Int32"), "int32"),
        (pd.array([0.5, 1], dtype="Float64"), "double"),
        (pd.array([True, False], dtype="boolean"), "bool"),
    ],
    ids=["int64", "uint8", "float32", "float64", "bool", "nullable int", "nullable float", "nullable bool"],
)
def test_numbers_and_booleans_are_labels_as_they_are(values: Any, dtype: str, tmp_path: Path):
    written, names = label(tmp_path, values)
    assert (str(written.type), written.to_pylist(), names) == (dtype, list(values), None)


@pytest.mark.parametrize(
    "values",
    [
        pd.Categorical(["a", "b", None, None]),
        ["a", "b", None, None],
        pd.array(["a", "b", None, None], dtype="string"),
        [1.0, 2.0, np.nan, np.nan],
        pd.array([1, 2, None, None], dtype="Int64"),
        pd.array([True, False, None, None], dtype="boolean"),
    ],
    ids=["categorical", "objects", "string", "float", "nullable int", "nullable bool"],
)
def test_a_missing_label_is_refused_with_its_cell(values: Any, tmp_path: Path):
    with raises("label_missing", "cell 'cell-2' (row 2 of AnnData)", "'label' (label_column)", "1 other cell"):
        label(tmp_path, values)


def test_the_row_of_a_missing_label_is_written_with_separators(tmp_path: Path):
    values = ["a"] * 1234 + [None]
    with raises("label_missing", "cell 'cell-1234' (row 1,234 of AnnData) has no value") as caught:
        label(tmp_path, values)
    assert "other" not in str(caught.value)


def test_a_missing_label_column_is_refused(tmp_path: Path):
    with raises("obs_column_missing", "'lable'", "label_column", "'disease'"):
        tokenize(cells.make_cells(), cells.make_args(tmp_path, label_column="lable"))


MIXED = [
    pytest.param([1, "a"], "int", id="numbers and text"),
    pytest.param([b"a", b"b"], "bytes", id="bytes"),
    pytest.param([["a"], ["b"]], "list", id="lists"),
    pytest.param(pd.Categorical([1, "a"]), "", id="categories of numbers and text"),
    pytest.param(pd.to_datetime(["2020-01-01", "2020-01-02"]), "", id="dates"),
    pytest.param(pd.to_timedelta([1, 2]), "", id="durations"),
    pytest.param([1 + 2j, 2], "complex", id="complex numbers"),
]


@pytest.mark.parametrize(("values", "got"), MIXED)
def test_labels_of_any_other_type_are_refused(values: Any, got: str, tmp_path: Path):
    with raises("obs_column_type", "obs column 'label' of AnnData holds", got, "label_column"):
        label(tmp_path, values)


# ---- add_disease_annotation


def test_the_disease_token_is_the_label_and_overrides_label_column(tmp_path: Path):
    args = cells.make_args(tmp_path, add_disease_annotation=True, label_column="sex")
    table = tokenize(cells.make_cells(), args)
    assert table.schema.field("labels").type == pa.int64()
    expected = [cells.TOKEN[disease] for disease in cells.make_cells().obs["disease"]]
    assert table["labels"].to_pylist() == expected
    assert table.column_names == ["gene_ids", "values", "labels"]


def test_the_disease_label_agrees_with_the_annotations(tmp_path: Path):
    table = tokenize(cells.make_cells(), cells.make_args(tmp_path, add_disease_annotation=True, bio_annotations=True))
    assert table["labels"].to_pylist() == [row[0] for row in table["bio_annotations"].to_pylist()]


# ---- obs_columns


def copy(folder: Path, values: Any, **keys: Any) -> pa.ChunkedArray:
    made = cells.make_cells(len(values), extra=values)
    return tokenize(made, cells.make_args(folder, obs_columns=["extra"], **keys))["extra"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["a", "b"], "string"),
        (["a", None], "string"),
        ([None, None], "string"),
        (pd.array(["a", None], dtype="string"), "string"),
        (pd.Categorical(["a", None]), "string"),
        (pd.Categorical([2, 1]), "int64"),
        (pd.Categorical([True, False]), "bool"),
        (np.array([1, -2], dtype="int8"), "int8"),
        (np.array([1, 2], dtype="uint64"), "uint64"),
        (np.array([1.5, 2], dtype="float32"), "float"),
        ([1.5, 2.0], "double"),
        ([True, False], "bool"),
        (pd.array([1, None], dtype="Int16"), "int16"),
        (pd.array([True, None], dtype="boolean"), "bool"),
        (pd.Categorical([2, None]), "int64"),
        (pd.Categorical([True, None]), "bool"),
    ],
    ids=[
        "text", "text and none", "nothing", "string", "categories", "categories of numbers", "categories of booleans",
        "int8", "uint64", "float32", "float64", "bool", "nullable int", "nullable bool",
        "categories of numbers and none", "categories of booleans and none",
    ],
)  # fmt: skip
def test_obs_columns_are_copied_as_what_they_are(values: Any, dtype: str, tmp_path: Path):
    copied = copy(tmp_path, values)
    assert str(copied.type) == dtype
    assert copied.to_pylist() == [None if pd.isna(value) else value for value in values]


def test_missing_numbers_stay_missing(tmp_path: Path):
    assert copy(tmp_path, [1.5, np.nan]).to_pylist() in ([1.5, None], [1.5, pytest.approx(np.nan, nan_ok=True)])


def test_index_gives_the_cell_names(tmp_path: Path):
    table = tokenize(cells.make_cells(), cells.make_args(tmp_path, obs_columns=["sex", "index"]))
    assert table.column_names == ["gene_ids", "values", "sex", "cell_id"]
    assert table["cell_id"].to_pylist() == [f"cell-{row}" for row in range(6)]


def test_columns_of_obs_stay_with_their_cells_across_batches(tmp_path: Path):
    made = cells.make_cells(2345, number=np.arange(2345))
    args = cells.make_args(tmp_path, obs_columns=["index", "number"], bio_annotations=True, max_shard_samples=777)
    table = tokenize(made, args)
    assert table["number"].to_pylist() == list(range(2345))
    assert table["cell_id"].to_pylist() == [f"cell-{row}" for row in range(2345)]
    assert [row[1] for row in table["bio_annotations"].to_pylist()] == [
        cells.TOKEN[tissue] for tissue in made.obs["tissue"]
    ]


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        ("gene_ids", {}),
        ("values", {}),
        ("values", {"write_values": False}),
        ("labels", {"label_column": "sex"}),
        ("labels", {"add_disease_annotation": True}),
        ("bio_annotations", {"bio_annotations": True}),
    ],
)
def test_a_column_may_not_have_the_name_of_an_output_column(column: str, keys: dict[str, Any], tmp_path: Path):
    made = cells.make_cells()
    made.obs[column] = "x"
    with raises("obs_column_reserved", repr(column)):
        tokenize(made, cells.make_args(tmp_path, obs_columns=[column], **keys))


@pytest.mark.parametrize("column", ["labels", "bio_annotations", "cell_id"])
def test_the_name_of_an_output_column_that_is_not_written_is_free(column: str, tmp_path: Path):
    made = cells.make_cells()
    made.obs[column] = "x"
    table = tokenize(made, cells.make_args(tmp_path, obs_columns=[column]))
    assert table[column].to_pylist() == ["x"] * 6


def test_a_column_called_cell_id_does_not_go_with_the_index(tmp_path: Path):
    made = cells.make_cells(cell_id=["x"] * 6)
    with raises("obs_column_reserved", "'index'", "'cell_id'"):
        tokenize(made, cells.make_args(tmp_path, obs_columns=["cell_id", "index"]))


def test_a_column_that_is_named_twice_is_reported(tmp_path: Path):
    with raises("obs_column_reserved", "'sex'", "already the name"):
        tokenize(cells.make_cells(), cells.make_args(tmp_path, obs_columns=["sex", "sex"]))


@pytest.mark.parametrize(("values", "got"), MIXED)
def test_columns_of_any_other_type_are_refused(values: Any, got: str, tmp_path: Path):
    with raises("obs_column_type", "obs column 'extra' of AnnData holds", got, "obs_columns"):
        copy(tmp_path, values)


def test_a_missing_column_is_refused(tmp_path: Path):
    with raises("obs_column_missing", "'donor'", "obs_columns", "'disease'"):
        tokenize(cells.make_cells(), cells.make_args(tmp_path, obs_columns=["donor"]))
