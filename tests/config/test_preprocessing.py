"""TEDDY's two configuration files, unchanged: in one pass the tokens of its two steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import cells
from command_line import teddytok
from raises import raises
from teddytok_rs import TokenizationArgs, tokenize

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The keys of TEDDY's preprocessing, as its tutorial writes them.
PREPROCESSING: dict[str, Any] = {
    "min_gene_counts": None,
    "remove_assays": [],
    "max_mitochondrial_prop": None,
    "remove_cell_types": [],
    "hvg_method": None,
    "normalized_total": 10000,
    "median_dict": None,
    "log1p": False,
    "compute_medians": False,
    "median_column": "index",
    "reference_id_only": False,
    "load_dir": "counts",
    "save_dir": "processed",
}
#: The keys of its tokenization that matter here.
TOKENIZATION: dict[str, Any] = {
    "gene_id_column": "index",
    "max_seq_len": 8,
    "pad_length": 8,
    "add_cls": False,
    "bins": 0,
    "truncation_method": "max",
    "include_zero_genes": False,
    "load_dir": "processed",
    "save_dir": "tokenized",
}
MEDIANS = {cells.GENES[0]: 2.5, cells.GENES[4]: 700.0, cells.GENES[9]: 0.25}


def make_counts() -> ad.AnnData:
    """Cells with logarithms in X and counts in raw.X, of two assays."""
    made = cells.make_cells(9)
    counts = made.X
    made.raw = ad.AnnData(counts, var=made.var, obs=made.obs[[]])
    made.X = sparse.csr_matrix(np.log1p(counts.toarray()))
    del made.layers["processed"]
    made.obs["assay"] = ["10x 3' v3", "Drop-seq", 'Smart-seq2 "x"'] * 3
    return made


def normalize_rows(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide each row by its sum, with scikit-learn where it is installed."""
    try:
        from sklearn.preprocessing import normalize
    except ImportError:
        total = np.abs(x.astype(np.float64)).sum(axis=1, keepdims=True)
        return (x / np.where(total == 0, 1, total)).astype(np.float32)
    return normalize(sparse.csr_matrix(x), norm="l1").toarray().astype(np.float32)


def preprocess(made: ad.AnnData, config: dict[str, Any]) -> ad.AnnData:
    """Do TEDDY's first step with scikit-learn and NumPy: layers["processed"] of the cells that stay."""
    stay = ~made.obs["assay"].isin(config["remove_assays"]) & ~made.obs["cell_type"].isin(config["remove_cell_types"])
    x = made.raw.X.toarray()
    if config["normalized_total"]:
        x = (normalize_rows(x).astype(np.float64) * config["normalized_total"]).astype(np.float32)
    if config["median_dict"]:
        medians = json.loads(Path(config["median_dict"]).read_text(encoding="utf-8"))
        column = config["median_column"] or "index"
        ids = made.var_names if column == "index" else made.var[column]
        x = (x.astype(np.float64) * [1 / medians.get(gene, 1.0) for gene in ids]).astype(np.float32)
    if config["log1p"]:
        x = np.log1p(x.astype(np.float64)).astype(np.float32)
    done = ad.AnnData(obs=made.obs, var=made.var)
    done.layers["processed"] = sparse.csr_matrix(x)
    return done[stay.to_numpy()].copy()


CHANGES: dict[str, dict[str, Any]] = {
    "as in the tutorial": {"median_dict": MEDIANS},
    "no medians": {},
    "log1p": {"median_dict": MEDIANS, "log1p": True},
    "not normalised": {"normalized_total": None, "log1p": True},
    "medians by symbol": {"median_dict": {"TP53": 3.0, "NKG7": 9.0}, "median_column": "symbol"},
    "cells removed": {"remove_assays": ['Smart-seq2 "x"'], "remove_cell_types": ["T cell", "none's"]},
}


@pytest.mark.parametrize("values", [{"continuous_rank": True}, {"continuous_rank": False}], ids=["ranks", "values"])
@pytest.mark.parametrize("name", CHANGES)
def test_one_pass_gives_the_tokens_of_two_steps(name: str, values: dict[str, Any], tmp_path: Path):
    config = {**PREPROCESSING, **CHANGES[name]}
    if config["median_dict"]:
        config["median_dict"] = cells.write_json(tmp_path / "medians.json", config["median_dict"])
    vocabulary = cells.write_vocabulary(tmp_path / "vocabulary")
    tokenization = {**TOKENIZATION, **values, "tokenizer_name_or_path": vocabulary}
    made = make_counts()
    files = [cells.write_json(tmp_path / name, one) for name, one in (("t.json", tokenization), ("p.json", config))]
    args = TokenizationArgs.load(files[0], preprocessing=files[1])
    assert (args.layer, args.load_dir, args.save_dir) == ("auto", "counts", "tokenized")
    expected = tokenize(preprocess(made, config), tokenization)
    assert tokenize(made, args).equals(expected)
    assert expected.num_rows == (3 if name == "cells removed" else 9)
    assert TokenizationArgs.load(tokenization, preprocessing=config) == args
    assert TokenizationArgs.load(TokenizationArgs(**tokenization), preprocessing=config) == args


def test_the_command_line_takes_both_files_and_the_folder_of_the_counts(tmp_path: Path):
    (tmp_path / "counts").mkdir()
    cells.save(make_counts(), tmp_path / "counts" / "blood.h5ad")
    vocabulary = cells.write_vocabulary(tmp_path / "vocabulary")
    cells.write_json(tmp_path / "tokenization.json", {**TOKENIZATION, "tokenizer_name_or_path": vocabulary})
    cells.write_json(tmp_path / "preprocessing.json", PREPROCESSING)
    words = ["tokenize", "--config", "tokenization.json", "--preprocessing", "preprocessing.json", "--json"]
    done = teddytok(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(one["layer"], one["cells"]) for one in json.loads(done.stdout)["sources"]] == [("raw", 9)]
    assert (tmp_path / "tokenized" / "blood" / "teddytok.json").exists()
    preset = teddytok(*words[:-1], "--preset", "scgpt", "--bins", "4", "--out", "other", cwd=tmp_path)
    assert preset.returncode == 0, preset.stderr


def load(change: dict[str, Any], tokenization: dict[str, Any] | None = None, **keys: Any) -> TokenizationArgs:
    given = {"tokenizer_name_or_path": "vocabulary", **(tokenization or {})}
    return TokenizationArgs.load(given, preprocessing={**PREPROCESSING, **change}, **keys)


@pytest.mark.parametrize("off", [None, False, [], ""], ids=repr)
@pytest.mark.parametrize(
    ("key", "value", "way"),
    [
        ("min_gene_counts", 225, "cell_filter"),
        ("max_mitochondrial_prop", 0.1, "cell_filter"),
        ("hvg_method", "seurat_v3", "gene_filter = 'highly_variable'"),
        ("reference_id_only", True, "gene_filter"),
        ("compute_medians", True, "teddytok medians build"),
    ],
)
def test_a_step_that_needs_all_cells_first_is_refused_with_the_way_to_get_it(key: str, value: Any, way: str, off: Any):
    assert load({key: off}) == load({})
    with raises("config_conflict", f"{key} = {value!r} is not done in the same pass", way, f"set {key} to null"):
        load({key: value})


def test_cells_are_removed_in_addition_to_a_filter():
    removed = {"remove_assays": ["Drop-seq"]}
    both = "(n_genes > 200 or keep) and assay not in ['Drop-seq']"
    assert load(removed).cell_filter == "assay not in ['Drop-seq']"
    assert load(removed, {"cell_filter": "n_genes > 200 or keep"}).cell_filter == both
    assert load(removed, cell_filter="n_genes > 200 or keep").cell_filter == both
    assert load({}, {"cell_filter": "keep"}).cell_filter == "keep"


def test_a_layer_that_is_named_is_read_and_options_override_both_files():
    assert load({}, {"layer": "counts"}).layer == "counts"
    args = load({}, {"normalize_total": 10000}, load_dir="here", normalize_total=5.0, median_column=None)
    assert (args.load_dir, args.normalize_total, args.median_column) == ("here", 5.0, None)


def test_files_that_contradict_each_other_are_refused():
    with raises("config_conflict", "normalize_total is 10000, but 500", "Set it in one of them"):
        load({}, {"normalize_total": 500})
    for given in ({}, {"layer": "processed"}):
        with raises("config_conflict", "layer = 'processed' holds values that are preprocessed already"):
            load({}, given, **({} if given else {"layer": "processed"}))


def test_files_that_are_mixed_up_are_recognised(tmp_path: Path):
    first = cells.write_json(tmp_path / "preprocessing.json", PREPROCESSING)
    second = cells.write_json(tmp_path / "tokenization.json", {"tokenizer_name_or_path": "vocabulary"})
    with raises("config_conflict", f"{first}: it is a configuration of TEDDY's preprocessing", "--preprocessing"):
        TokenizationArgs.load(first)
    with raises("config_conflict", f"{second}: it is a configuration for tokenizing", "--config"):
        TokenizationArgs.load({"tokenizer_name_or_path": "vocabulary"}, preprocessing=second)
    with raises("config_conflict", "--preprocessing"):
        TokenizationArgs.load(first, preprocessing=second)


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"normalised_total": 1}, "config_key_unknown", "did you mean 'normalized_total'?"),
        ({"normalized_total": "10000"}, "config_value", "normalize_total = '10000'"),
        ({"remove_assays": "Drop-seq"}, "config_value", "a list of values of obs column 'assay'"),
        ({"remove_cell_types": [3]}, "config_value", "remove_cell_types = [3]"),
    ],
)
def test_a_key_or_value_that_is_wrong_is_refused(change: dict[str, Any], kind: str, reason: str):
    with raises(kind, reason):
        load(change)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    for content, reason in (("[1]", "it holds a list"), ("null", "it is empty"), ("{", "not JSON")):
        path = tmp_path / "p.json"
        path.write_text(content, encoding="utf-8")
        with raises("config_file", "p.json", reason):
            TokenizationArgs.load({"tokenizer_name_or_path": "v"}, preprocessing=path)
    with raises("config_value", "preprocessing = 3 is not valid"):
        TokenizationArgs.load({"tokenizer_name_or_path": "v"}, preprocessing=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "ours"), [("normalized_total", "normalize_total"), ("median_dict", "median_dict")])
def test_null_turns_a_step_off_in_each_place(key: str, ours: str):
    preprocessing = {**PREPROCESSING, "median_dict": MEDIANS, key: None}
    args = TokenizationArgs.preset("teddy-g", preprocessing=preprocessing)
    assert getattr(args, ours) is None
    given = {"tokenizer_name_or_path": "vocabulary", "median_dict": MEDIANS, "normalize_total": 10_000}
    with raises("config_conflict", f"{ours} is None"):
        TokenizationArgs.load(given, preprocessing=preprocessing)


@pytest.mark.parametrize("layer", [None, "layers/processed", "processed"])
def test_values_are_never_normalised_twice(layer: str | None):
    preprocessing = {**PREPROCESSING, "median_dict": MEDIANS}
    given = {"tokenizer_name_or_path": "vocabulary", "layer": layer}
    with raises("config_conflict", "processed"):
        TokenizationArgs.preset("teddy-g", given)
    if layer is None:
        assert TokenizationArgs.load(given, preprocessing=preprocessing).layer == "auto"
    else:
        with raises("config_conflict", "preprocessed already"):
            TokenizationArgs.load(given, preprocessing=preprocessing)
