"""Mappings and medians as dicts: the same tokens, bytes and runs as those of files."""

from __future__ import annotations

import hashlib
import json
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

import cells
from command_line import teddytok
from folders import contents
from raises import raises
from teddytok_rs import (
    Manifest,
    TokenizationArgs,
    check,
    inspect,
    tokenize,
    tokenize_corpus,
    tokenize_to_disk,
    verify,
)
from teddytok_rs.engines.arrow import ArrowTokenizer
from teddytok_rs.output.compatibility import Joined, meaning

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

#: Tables of each argument; every one changes the tokens or their order.
TABLES: dict[str, dict[str, Any]] = {
    "disease_mapping": {"normal": "melanoma", "melanoma": 40, "asthma": "normal"},
    "tissue_mapping": {"blood": 41, "lung": "blood"},
    "cell_mapping": {"T cell": "B cell", "B cell": "T cell", "monocyte": 42},
    "sex_mapping": {"female": 43, "male": 44},
    "median_dict": {gene: 0.5 + number for number, gene in enumerate(cells.GENES)},
}
SWITCHES = {"bio_annotations": True, "normalize_total": 1e4, "layer": "X", "max_shard_samples": 4}


@pytest.fixture
def given(tmp_path: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A source of two shards, and arguments that name files and that hold the same as dicts, in another order."""
    args = cells.make_args(tmp_path, **SWITCHES)
    files = {key: cells.write_json(tmp_path / f"{key}.json", table) for key, table in TABLES.items()}
    dicts = {key: dict(reversed(table.items())) for key, table in TABLES.items()}
    return cells.save(cells.make_cells(7), tmp_path / "cells.h5ad"), args | files, args | dicts


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("data-*"))}


# ---- tokens and bytes


def test_each_table_matters(given: Any):
    source, files, _ = given
    plain = tokenize(source, {**files, **dict.fromkeys(TABLES)})
    for key in TABLES:
        assert not tokenize(source, {**files, **dict.fromkeys(TABLES.keys() - {key})}).equals(plain), key


def test_a_dict_gives_the_tokens_and_the_bytes_of_its_file(given: Any, tmp_path: Path):
    source, files, dicts = given
    assert tokenize(source, dicts).equals(tokenize(source, files))
    one = tokenize_to_disk(source, files, tmp_path / "files")
    other = tokenize_to_disk(source, dicts, tmp_path / "dicts")
    assert len(one.shards) == 2
    assert shards(one.path) == shards(other.path)
    assert one.annotations == other.annotations


def test_a_configuration_file_may_hold_the_tables(given: Any, tmp_path: Path):
    source, files, dicts = given
    config = tmp_path / "args.json"
    config.write_text(TokenizationArgs.load(dicts).model_dump_json(), encoding="utf-8")
    assert TokenizationArgs.load(config) == TokenizationArgs.load(dicts)
    assert tokenize(source, config).equals(tokenize(source, files))
    yaml = tmp_path / "args.yaml"
    yaml.write_text(json.dumps(dicts), encoding="utf-8")
    assert TokenizationArgs.load(yaml) == TokenizationArgs.load(dicts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_numpy_numbers_are_those_of_python(dtype: type, given: Any):
    source, _, dicts = given
    numbers = {gene: dtype(3) for gene in cells.GENES[:4]}
    plain = dict.fromkeys(cells.GENES[:4], 3)
    args = TokenizationArgs.load(dicts, median_dict=numbers)
    assert args == TokenizationArgs.load(dicts, median_dict=plain)
    assert json.loads(args.model_dump_json())["median_dict"] == plain
    assert tokenize(source, args).equals(tokenize(source, {**dicts, "median_dict": plain}))


def test_processes_get_the_dicts(given: Any, tmp_path: Path):
    source, files, dicts = given
    one = tokenize_corpus([source], files, tmp_path / "files").path
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as executor:
        other = tokenize_corpus([source], dicts, tmp_path / "dicts", executor=executor)
    assert not other.failed
    assert shards(one / "cells") == shards(other.path / "cells")


def test_batches_of_counts_take_the_medians(given: Any):
    _, files, dicts = given
    tokenizers = [
        pickle.loads(pickle.dumps(ArrowTokenizer({**args, "bio_annotations": False}, cells.GENES)))
        for args in (files, dicts)
    ]
    counts = [[1.0, 3.0, 2.0], [2.0]]
    batch = pa.table({"indices": [[0, 2, 5], [1]], "data": counts})
    assert tokenizers[0](batch).equals(tokenizers[1](batch))
    assert tokenizers[1](batch)["values"].to_pylist() != counts


# ---- the arguments stay what they are


def test_a_dict_that_is_changed_later_changes_no_arguments(tmp_path: Path):
    mapping = {"normal": 1}
    args = TokenizationArgs(tokenizer_name_or_path="v", disease_mapping=mapping)
    mapping["normal"] = 2
    assert args.disease_mapping == {"normal": 1}
    with pytest.raises(TypeError):
        args.disease_mapping["normal"] = 3  # type: ignore[index]


def test_arguments_with_dicts_are_compared_hashed_pickled_and_replaced():
    args, other = (TokenizationArgs(tokenizer_name_or_path="v", **TABLES) for _ in range(2))
    assert args == other == pickle.loads(pickle.dumps(args))
    assert hash(args) == hash(other)
    assert args != args.replace(sex_mapping={})
    assert args.replace(max_seq_len=9).median_dict == TABLES["median_dict"]
    assert TokenizationArgs.load(args.model_dump()) == args


def test_the_repr_shows_the_size_of_a_dict():
    args = TokenizationArgs(tokenizer_name_or_path="v", median_dict={f"g{number}": 1 for number in range(20_000)})
    assert "median_dict             dict of 20,000 keys" in repr(args)


@pytest.mark.parametrize(
    ("table", "entry"), [({"a": 1, "b": [1]}, {"b": [1]}), ({"a": 1, 2: 3}, {2: 3}), ({"a": {}}, {"a": {}})], ids=str
)
def test_an_entry_that_is_no_text_or_number_is_refused_alone(table: Any, entry: Any):
    with raises("config_value", f"disease_mapping = {entry!r} is not valid"):
        TokenizationArgs(tokenizer_name_or_path="v", disease_mapping=table)


@pytest.mark.parametrize("median", [0, -1, float("nan"), float("inf"), "2", True, None], ids=str)
def test_a_median_that_is_not_valid_is_refused(median: Any, given: Any):
    source, _, dicts = given
    args = {**dicts, "median_dict": {cells.GENES[0]: 2.0, cells.GENES[1]: median}}
    with raises("median_file", "median_dict: dict of 2 keys cannot be used", f"has median {median!r}"):
        tokenize(source, args)


@pytest.mark.parametrize("token", [1.5, True, -1, None], ids=str)
def test_a_token_that_is_not_valid_is_refused(token: Any, given: Any):
    source, _, dicts = given
    with raises("mapping_file", "sex_mapping: dict of 1 key cannot be used", "label 'male' is mapped to"):
        tokenize(source, {**dicts, "sex_mapping": {"male": token}})
    problems = check(source, {**dicts, "sex_mapping": {"male": token}}).problems
    assert any("sex_mapping: dict of 1 key" in problem for problem in problems)


# ---- the manifest


def test_the_manifest_holds_checksums_and_not_the_entries(given: Any, tmp_path: Path):
    source, files, dicts = given
    medians = {f"GENE{number}": 1.0 for number in range(50_000)} | TABLES["median_dict"]
    manifest = tokenize_to_disk(source, {**dicts, "median_dict": medians}, tmp_path / "out")
    assert (manifest.path / "teddytok.json").stat().st_size < 20_000
    text = json.dumps(medians, sort_keys=True, separators=(",", ":"))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    assert manifest.configuration["median_dict"] == f"dict of 50,012 keys, not stored; sha256 {sha256}"
    assert manifest.checksums.mappings["median_dict"] == manifest.checksums.contents["median_dict"] == sha256
    assert Manifest.read(manifest.path) == manifest
    assert verify(manifest.path).problems == []
    assert inspect(manifest.path).sequences[0].annotations["sex"] == "female"
    assert f"'dict of 50,012 keys, not stored; sha256 {sha256}'" in teddytok("inspect", manifest.path).stdout
    with raises("median_file", "'dict of 50,012 keys, not stored; sha256", "no such file"):
        tokenize(source, {**manifest.configuration, "tokenizer_name_or_path": files["tokenizer_name_or_path"]})


def test_a_run_is_the_same_with_a_file_and_with_a_dict(given: Any, tmp_path: Path):
    source, files, dicts = given
    finished = tokenize_to_disk(source, files, tmp_path)
    before = contents(finished.path)
    again = tokenize_to_disk(source, dicts, tmp_path)
    assert again.n_kept == 2
    assert contents(finished.path) == before


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["file first", "dict first"])
def test_an_interrupted_run_is_continued_with_the_other_form(
    order: slice, given: Any, tmp_path: Path, interrupt_after: Callable[[int], AbstractContextManager[None]]
):
    source, *forms = given
    first, second = forms[order]
    with interrupt_after(1):
        tokenize_to_disk(source, first, tmp_path, threads=1)
    assert tokenize_to_disk(source, second, tmp_path).n_kept == 1


def test_a_corpus_is_the_same_with_files_and_with_dicts(given: Any, tmp_path: Path):
    source, files, dicts = given
    folder = tokenize_corpus([source], files, tmp_path / "out").path
    kept = []
    tokenize_corpus([source], dicts, folder, on_source=lambda outcome: kept.append(outcome.manifest.n_kept))
    assert kept == [2]


@pytest.mark.parametrize("key", TABLES)
@pytest.mark.parametrize("in_corpus", [False, True], ids=["", "corpus"])
def test_other_contents_are_another_run(key: str, in_corpus: bool, given: Any, tmp_path: Path):
    source, _, dicts = given
    other = {**dicts, key: {**TABLES[key], "more": 1}}
    if in_corpus:
        folder = tokenize_corpus([source], dicts, tmp_path / "out").path
        (failed,) = tokenize_corpus([source], other, folder).failed
        assert f"contents of {key}" in failed.error.message
        return
    tokenize_to_disk(source, dicts, tmp_path)
    with raises("output_differs", f"contents of {key}"):
        tokenize_to_disk(source, other, tmp_path)


def test_datasets_made_with_files_and_with_dicts_are_joined(given: Any, tmp_path: Path):
    source, files, dicts = given
    joined = Joined()
    for name, args in {"files": files, "dicts": dicts}.items():
        manifest = tokenize_to_disk(source, args, tmp_path / name)
        joined.add(manifest.path, meaning(manifest))
    other = tokenize_to_disk(source, {**dicts, "sex_mapping": {"male": 1, "female": 2}}, tmp_path / "other")
    with raises("datasets_differ", "sha256 of sex_mapping"):
        joined.add(other.path, meaning(other))
