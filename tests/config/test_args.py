"""Every argument, in each form that a user gives it: what is taken, and what is refused in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError

import cells
from raises import raises
from teddytok_rs import TokenizationArgs, tokenize

if TYPE_CHECKING:
    from collections.abc import Callable

VOCABULARY = "vocabulary/"
PATH = (["a.json", "../a b/ü.json"], [3, True, b"a.json", ["a.json"]])
#: What a file may hold, or a dict.
TABLE = ([*PATH[0], {}, {"a": 1, "b": 2.5}, {"a": "b"}], [*PATH[1], {"a": [1]}, {"a": {"b": 1}}, {1: 2}, [("a", 1)]])
FLAG = ([True, False], [1, 0, "true", "yes", 1.0, []])
COLUMN = (["x", "cell type", "ü"], ["", 3, True, ["x"]])
COUNT = ([1, 7, 2**31 - 1], [0, -1, 2.0, "7", True, 2**31, float("nan"), [7]])
#: Field -> values that are taken, values that are refused.
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "preset_name": (["teddy-g", "teddy-g:70M", "scgpt"], ["teddy", "teddy-g:", "teddy-x:70M", "", 3, True, ["scgpt"]]),
    "tokenizer_name_or_path": (["vocabulary", "owner/name"], ["", 3, b"vocabulary", ["vocabulary"]]),
    "gene_id_column": COLUMN,
    "strip_gene_version": FLAG,
    "gene_map": PATH,
    "gene_filter": COLUMN,
    "min_gene_overlap": ([0, 0.0, 0.5, 1, 1.0], [-0.1, 1.1, "0.5", True, float("nan"), float("inf")]),
    "duplicate_genes": (["error", "sum", "keep"], ["Sum", "drop", "", True, 1]),
    "layer": (["processed", "X", "raw", "my layer"], ["", 3, True]),
    "normalize_total": ([10_000, 1e4, 0.5], [0, -1, 0.0, "1e4", True, float("nan"), float("inf")]),
    "median_dict": TABLE,
    "median_column": COLUMN,
    "log1p": FLAG,
    "max_seq_len": COUNT,
    "add_cls": FLAG,
    "cls_token_id": ([0, 1, 2**31 - 1], [-1, 2**31, 1.0, "1", True]),
    "add_eos": FLAG,
    "eos_token_id": ([0, 1, 2**31 - 1], [-1, 2**31, 1.0, "1", True]),
    "include_zero_genes": FLAG,
    "bins": ([0, 2, 51, 2**31 - 1], [1, -1, 2.0, "51", True, 2**31, {}, {"bins": 3}]),
    "continuous_rank": FLAG,
    "random_genes": FLAG,
    "random_genes_count": COUNT,
    "batch_size": COUNT,
    "gene_seed": ([0, 7, 2**64 - 1], [-1, 2**64, 0.0, "7", True]),
    "truncation_method": (["max"], ["min", "random", "", 1]),
    "pad_length": COUNT,
    "bio_annotations": FLAG,
    "disease_mapping": TABLE,
    "tissue_mapping": TABLE,
    "cell_mapping": TABLE,
    "sex_mapping": TABLE,
    "disease_column": COLUMN,
    "tissue_column": COLUMN,
    "cell_column": COLUMN,
    "sex_column": COLUMN,
    "unmapped_annotations": (["unk", "error"], ["drop", "", True]),
    "label_column": COLUMN,
    "label_names": (
        [["a"], ["b", "a", ""], ("a", "b"), "names.json"],
        [3, True, "", [], [3], ["a", "a"], [["a"]], {"a": 1}, b"names.json"],
    ),
    "add_disease_annotation": FLAG,
    "cell_filter": (["keep", "a == 3"], [3, "", ["a"], True]),
    "obs_columns": ([[], ["a", "index"], ("a",)], ["a", 3, [3], [""], [["a"]], {"a": 1}]),
    "max_shard_samples": COUNT,
    "write_values": FLAG,
    "write_length": FLAG,
    "output_names": (
        [{}, {"gene_ids": "input_ids"}, {"length": "n", "labels": "y_1"}],
        [
            *("gene_ids", ["gene_ids"], {"genes": "x"}, {"cell_id": "x"}, {"values": ""}, {"values": "a.b"}),
            *({"values": "_a"}, {"values": "a\n"}, {"values": 3}, {"values": None}),
        ],
    ),
    "format": (["arrow", "parquet", "webdataset"], ["Arrow", "lance", "tar", "", True]),
    "token_dtype": (["int32", "uint16", "int64"], ["int8", "uint32", "float32", "", 32]),
    "load_dir": PATH,
    "save_dir": PATH,
}
GOOD = [pytest.param(key, value, id=f"{key}={value!r}") for key, (good, _) in VALUES.items() for value in good]
BAD = [pytest.param(key, value, id=f"{key}={value!r}") for key, (_, bad) in VALUES.items() for value in bad]
#: As people write it for TEDDY's own script.
ORIGINAL = {
    "tokenizer_name_or_path": VOCABULARY,
    "gene_id_column": "index",
    "bio_annotations": True,
    "disease_mapping": "disease.json",
    "tissue_mapping": "tissue.json",
    "cell_mapping": "cell.json",
    "sex_mapping": "sex.json",
    "max_shard_samples": 500,
    "max_seq_len": 2048,
    "pad_length": 2048,
    "add_cls": False,
    "cls_token_id": None,
    "bins": 0,
    "continuous_rank": True,
    "truncation_method": "max",
    "add_disease_annotation": False,
    "include_zero_genes": False,
    "load_dir": "in",
    "save_dir": "out",
    "random_genes": False,
    "gene_seed": None,
    "label_column": None,
}


def make(**keys: Any) -> TokenizationArgs:
    return TokenizationArgs(**{"tokenizer_name_or_path": VOCABULARY, **keys})


def load_dict(keys: dict[str, Any], folder: Path) -> TokenizationArgs:
    return TokenizationArgs.load(keys)


def load_keywords(keys: dict[str, Any], folder: Path) -> TokenizationArgs:
    return TokenizationArgs(**keys)


def load_json(keys: dict[str, Any], folder: Path) -> TokenizationArgs:
    return TokenizationArgs.load(cells.write_json(folder / "args.json", keys))


def load_yaml(keys: dict[str, Any], folder: Path) -> TokenizationArgs:
    import yaml

    path = folder / "args.yaml"
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return TokenizationArgs.load(path)


FORMS = pytest.mark.parametrize("load", [load_dict, load_keywords, load_json, load_yaml])


# ---- each field


def test_the_tables_above_cover_every_field():
    assert set(VALUES) == set(TokenizationArgs.model_fields)


@pytest.mark.parametrize(("key", "value"), GOOD)
def test_a_good_value_is_taken_as_it_is(key: str, value: Any):
    others = {"max_seq_len": 1} if key == "pad_length" else {}
    taken = getattr(make(**{key: value, **others}), key)
    assert taken == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_bad_value_is_refused_with_key_and_value_and_what_is_taken(key: str, value: Any):
    takes = TokenizationArgs.model_fields[key].json_schema_extra["takes"]
    with raises("config_value", f"{key} = ", f"Expected {takes}."):
        make(**{key: value})


@pytest.mark.parametrize(("key", "value"), [param for param in BAD if not isinstance(param.values[1], list | dict)])
def test_a_refused_value_is_quoted(key: str, value: Any):
    with raises("config_value", f"{key} = {value!r} is not valid") as caught:
        make(**{key: value})
    assert caught.value.context["key"] == key


@pytest.mark.parametrize("key", [key for key in VALUES if key != "tokenizer_name_or_path"])
def test_none_means_not_set(key: str):
    assert make(**{key: None}) == make()


@FORMS
@pytest.mark.parametrize("keys", [{}, {"tokenizer_name_or_path": None}], ids=["left out", "null"])
def test_the_one_key_that_must_be_given_is_asked_for(load: Callable, keys: dict[str, Any], tmp_path: Path):
    with raises("config_key_missing", "tokenizer_name_or_path is missing", "folder or file with the vocabulary"):
        load(keys, tmp_path)


@pytest.mark.parametrize(
    ("field", "default"),
    [("max_seq_len", 2048), ("layer", "processed"), ("gene_id_column", "index"), ("min_gene_overlap", 0.1),
     ("duplicate_genes", "error"), ("batch_size", 512), ("truncation_method", "max"), ("write_values", True),
     ("token_dtype", "int32"), ("format", "arrow"), ("unmapped_annotations", "unk"), ("strip_gene_version", False)],
)  # fmt: skip
def test_defaults_are_those_of_the_specification(field: str, default: Any):
    assert getattr(make(), field) == default


def test_every_field_has_a_line_of_meaning_and_says_what_it_takes():
    for name, field in TokenizationArgs.model_fields.items():
        assert field.description.endswith("."), name
        assert field.json_schema_extra["takes"], name


# ---- unknown keys


@FORMS
@pytest.mark.parametrize(
    ("key", "nearest"), [("max_seq_length", "max_seq_len"), ("bin", "bins"), ("gene_id_colum", "gene_id_column")]
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(load: Callable, key: str, nearest: str, tmp_path: Path):
    with raises("config_key_unknown", f"unknown configuration key {key!r} (did you mean {nearest!r}?)"):
        load({"tokenizer_name_or_path": VOCABULARY, key: 8}, tmp_path)


def test_an_unknown_key_that_is_like_none_gets_no_suggestion():
    with raises("config_key_unknown", "unknown configuration key 'zzz'.") as caught:
        make(zzz=1)
    assert "did you mean" not in str(caught.value)


def test_an_unknown_key_is_refused_though_its_value_is_none():
    with raises("config_key_unknown", "'max_seq_length'"):
        make(max_seq_length=None)


def test_a_misspelt_key_is_named_before_the_one_that_it_leaves_missing():
    with raises("config_key_unknown", "did you mean 'tokenizer_name_or_path'?"):
        TokenizationArgs(tokenizer_path_or_name="vocabulary")


@pytest.mark.parametrize("load", [load_dict, load_yaml])
@pytest.mark.parametrize("key", [3, True, None, "self"], ids=repr)
def test_a_key_that_is_not_text_is_unknown(load: Callable, key: Any, tmp_path: Path):
    with raises("config_key_unknown", repr(str(key))):
        load({"tokenizer_name_or_path": VOCABULARY, key: 4}, tmp_path)


# ---- several keys together


@pytest.mark.parametrize("off", [0, None])
def test_bins_that_are_off_go_with_continuous_rank(off: int | None):
    args = make(bins=off, continuous_rank=True)
    assert args.n_bins == 0


@FORMS
def test_bins_with_continuous_rank_are_refused(load: Callable, tmp_path: Path):
    keys = {"tokenizer_name_or_path": VOCABULARY, "bins": 2, "continuous_rank": True}
    with raises("config_conflict", "bins and continuous_rank are both set", "Set one of them"):
        load(keys, tmp_path)


@pytest.mark.parametrize(
    ("in_file", "where"),
    [([], ""), (["bins"], "{} (bins): "), (["bins", "continuous_rank"], "{}: ")],
    ids=str,
)
def test_a_conflict_names_the_file_for_what_is_in_it(in_file: list[str], where: str, tmp_path: Path):
    keys = {"bins": 51, "continuous_rank": True}
    document = {"tokenizer_name_or_path": VOCABULARY, **{key: keys.pop(key) for key in in_file}}
    path = tmp_path / "args.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with raises("config_conflict") as caught:
        TokenizationArgs.load(path, **keys)
    assert str(caught.value).startswith(f"{where.format(path)}bins and continuous_rank are both set")


@FORMS
def test_one_bin_is_refused_with_its_value(load: Callable, tmp_path: Path):
    keys = {"tokenizer_name_or_path": VOCABULARY, "bins": 1, "continuous_rank": True}
    with raises("config_value", "bins = 1 is not valid", "at least 2, or 0 for off"):
        load(keys, tmp_path)


@pytest.mark.parametrize(
    ("add_cls", "add_eos", "n_selected"), [(False, False, 8), (True, False, 7), (False, True, 7), (True, True, 6)]
)
def test_a_special_token_takes_one_place_of_the_sequence(add_cls: bool, add_eos: bool, n_selected: int):
    assert make(max_seq_len=8, add_cls=add_cls, add_eos=add_eos).n_selected == n_selected


def test_a_sequence_has_places_for_its_special_tokens():
    assert make(max_seq_len=2, add_cls=True, add_eos=True).n_selected == 0
    assert make(max_seq_len=1, add_eos=True).n_selected == 0
    with raises("config_conflict", "max_seq_len = 1 has no place for CLS and EOS"):
        make(max_seq_len=1, add_cls=True, add_eos=True)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ({"gene_ids": "values"}, "values"),
        ({"gene_ids": "x", "length": "x"}, "x"),
        ({"labels": "attention_mask"}, "attention_mask"),
    ],
    ids=str,
)
def test_two_columns_cannot_have_one_name(names: dict[str, str], taken: str):
    with raises("config_conflict", f"output_names gives a column the name {taken!r}"):
        make(output_names=names)


def test_columns_may_exchange_their_names():
    assert make(output_names={"gene_ids": "values", "values": "gene_ids"}).output_name("values") == "gene_ids"


# ---- threads


@pytest.mark.parametrize("threads", [0, -1, "2", 1.5], ids=repr)
def test_a_number_of_threads_that_cannot_be_is_refused(threads: Any, tmp_path: Path):
    with raises("config_value", f"threads = {threads!r} is not valid", "an integer of at least 1"):
        tokenize(cells.make_cells(), cells.make_args(tmp_path), threads=threads)


# ---- forms


@FORMS
def test_a_configuration_for_the_original_script_is_taken_in_every_form(load: Callable, tmp_path: Path):
    args = load(ORIGINAL, tmp_path)
    assert {key: getattr(args, key) for key in ORIGINAL} == ORIGINAL


def test_a_configuration_for_the_original_script_tokenizes(tmp_path: Path):
    mappings = {
        f"{kind}_mapping": cells.write_json(tmp_path / f"{kind}.json", {label: cells.TOKEN[label] for label in labels})
        for kind, labels in zip(["disease", "tissue", "cell", "sex"], cells.LABELS.values(), strict=True)
    }
    vocabulary = cells.write_vocabulary(tmp_path / "vocabulary")
    config = cells.write_json(tmp_path / "args.json", {**ORIGINAL, **mappings, "tokenizer_name_or_path": vocabulary})
    table = tokenize(cells.make_cells(), TokenizationArgs.load(config))
    assert table.column_names == ["gene_ids", "values", "bio_annotations"]
    assert [values[0] for values in table["values"].to_pylist()] == [1.0] * 6


@pytest.mark.parametrize("make_path", [Path, str], ids=["Path", "str"])
def test_paths_are_taken_as_text_or_path_objects(make_path: Callable):
    args = make(tokenizer_name_or_path=make_path("vocabulary"), save_dir=make_path("out"), median_dict=make_path("m"))
    assert (args.tokenizer_name_or_path, args.save_dir, args.median_dict) == ("vocabulary", "out", "m")


@pytest.mark.parametrize(
    ("key", "value", "plain"),
    [
        ("max_seq_len", np.int64(8), 8),
        ("max_seq_len", np.uint8(8), 8),
        ("gene_seed", np.uint64(2**64 - 1), 2**64 - 1),
        ("normalize_total", np.float64(1e4), 1e4),
        ("min_gene_overlap", np.float32(0.5), 0.5),
        ("add_cls", np.bool_(True), True),
        ("layer", np.str_("X"), "X"),
        ("max_seq_len", np.array(8), 8),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_numpy_scalars_are_taken_as_what_they_are(key: str, value: Any, plain: Any):
    taken = getattr(make(**{key: value}), key)
    assert taken == plain
    assert type(taken) is type(plain)


@pytest.mark.parametrize(("key", "value"), [("max_seq_len", np.float64(8)), ("add_cls", np.int64(1))])
def test_numpy_scalars_are_not_converted_to_another_kind(key: str, value: Any):
    with raises("config_value", f"{key} = "):
        make(**{key: value})


@pytest.mark.parametrize("keys", [{"max_seq_len": 8}, {"obs_columns": ["a"]}, {"bins": 5}], ids=str)
def test_keywords_override_what_is_loaded(keys: dict[str, Any]):
    for base in (make(max_seq_len=4), {"tokenizer_name_or_path": VOCABULARY, "max_seq_len": 4}):
        assert TokenizationArgs.load(base, **keys) == make(**{"max_seq_len": 4, **keys})


def test_arguments_load_as_themselves():
    args = make()
    assert TokenizationArgs.load(args) is args


@pytest.mark.parametrize("thing", [None, 3, ["a"], b"args.json"], ids=repr)
def test_anything_else_is_no_arguments(thing: Any):
    with raises("config_value", "a TokenizationArgs, a dict or the path of a file"):
        TokenizationArgs.load(thing)


@pytest.mark.parametrize(
    "args", [make(), make(**{**ORIGINAL, "obs_columns": ["a", "b"], "normalize_total": 1e4})], ids=["defaults", "many"]
)
def test_dumped_arguments_load_as_equal_ones(args: TokenizationArgs, tmp_path: Path):
    path = tmp_path / "args.json"
    path.write_text(args.model_dump_json(), encoding="utf-8")
    assert TokenizationArgs.load(path) == args
    assert TokenizationArgs.load(args.model_dump()) == args
    assert TokenizationArgs.load(json.loads(args.model_dump_json())) == args
    assert hash(TokenizationArgs.load(path)) == hash(args)


def test_arguments_are_frozen():
    args = make()
    with pytest.raises(ValidationError, match="frozen"):
        args.max_seq_len = 4
    assert args.max_seq_len == 2048


# ---- configuration files


def test_a_message_about_a_file_begins_with_its_name(tmp_path: Path):
    path = cells.write_json(tmp_path / "args.json", {"tokenizer_name_or_path": VOCABULARY, "max_seq_len": 0})
    with raises("config_value", f"{path}: max_seq_len = 0 is not valid"):
        TokenizationArgs.load(path)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", '{"bins": 0, "bins": 5}', "key 'bins' occurs more than once"),
        ("a.yaml", "bins: 0\nbins: 5\n", "key 'bins' occurs more than once"),
        ("a.yml", "x: {bins: 0, bins: 5}\n", "key 'bins' occurs more than once"),
        ("a.json", '{"bins": 0,}', "not JSON"),
        ("a.json", "{'bins': 0}", "line 1, column 2"),
        ("a.json", "", "not JSON"),
        ("a.json", "bins: 0", "not JSON"),
        ("a.yaml", "bins: [", "not YAML"),
        ("a.yaml", "x: !!python/object/apply:os.system [true]", "not YAML"),
        ("a.yaml", "\x07", "not YAML"),
        ("a.json", "[1]", "list"),
        ("a.json", '"bins"', "str"),
        ("a.yaml", "- bins", "list"),
        ("a.json", '{"bins": NaN}', "NaN is not JSON"),
        ("a.json", '{"bins": -Infinity}', "-Infinity is not JSON"),
        ("a.json", '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ("a.yaml", "x: " + "[" * 5_000 + "]" * 5_000, "nested too deeply"),
        ("a.json", '{"bins": ' + "9" * 5000 + "}", "limit"),
    ],
    ids=[
        "JSON key twice", "YAML key twice", "inner YAML key twice", "trailing comma", "single quotes", "empty JSON",
        "YAML named json", "open bracket", "YAML object", "control character", "JSON list", "JSON string", "YAML list",
        "NaN", "infinity", "deep JSON", "deep YAML", "long number",
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_refused(name: str, text: str, reason: str, tmp_path: Path):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with raises("config_file", f"configuration file {str(path)!r} cannot be read", reason):
        TokenizationArgs.load(path)


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_an_empty_file_is_called_empty(name: str, tmp_path: Path):
    path = tmp_path / name
    path.write_text("" if name == "a.yaml" else "null", encoding="utf-8")
    with raises("config_file") as caught:
        TokenizationArgs.load(path)
    assert "NoneType" not in str(caught.value), "a word of Python, not of the reader"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b'{"layer": "\xff"}', "not UTF-8 at byte 11"), ('{"bins": 5}'.encode("utf-16"), "not UTF-8 at byte 0")],
    ids=["Latin-1", "UTF-16"],
)
def test_a_file_that_is_not_utf8_is_refused(content: bytes, reason: str, tmp_path: Path):
    path = tmp_path / "args.json"
    path.write_bytes(content)
    with raises("config_file", reason):
        TokenizationArgs.load(path)


@pytest.mark.parametrize("name", ["args.json", "args.yaml"])
def test_a_byte_order_mark_is_no_part_of_the_first_key(name: str, tmp_path: Path):
    path = tmp_path / name
    path.write_text('{"tokenizer_name_or_path": "vocabulary"}', encoding="utf-8-sig")
    assert TokenizationArgs.load(path).tokenizer_name_or_path == "vocabulary"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.json", "no such file"), ("", "is a directory"), ("a\0b.json", "null")],
    ids=["missing", "a folder", "a null byte"],
)
def test_a_file_that_cannot_be_opened_is_refused(name: str, reason: str, tmp_path: Path):
    with raises("config_file", reason):
        TokenizationArgs.load(str(tmp_path / name))


def test_yaml_has_comments_and_unset_keys(tmp_path: Path):
    path = tmp_path / "args.yaml"
    text = "# cells of the lung\ntokenizer_name_or_path: vocabulary\nbins:\nobs_columns: [donor, index]\nlog1p: true\n"
    path.write_text(text, encoding="utf-8")
    expected = TokenizationArgs(tokenizer_name_or_path="vocabulary", obs_columns=("donor", "index"), log1p=True)
    assert TokenizationArgs.load(path) == expected


def test_padding_that_is_shorter_than_a_sequence_is_refused():
    with raises("config_conflict", "pad_length = 511 is smaller than max_seq_len = 512"):
        make(max_seq_len=512, pad_length=511)
    assert make(max_seq_len=512, pad_length=512).pad_length == 512


def test_all_unknown_keys_are_named_at_once():
    with raises("config_key_unknown", "'max_len'", "'layr'", "'layer'", "'nonsense'"):
        make(max_len=3, layr="X", nonsense=1)
