"""Special tokens at both ends, other names for columns, and the column of lengths: in every format and value mode."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

import cells
import oracle
from raises import raises
from teddytok_rs import inspect, tokenize, tokenize_corpus, tokenize_to_disk, verify
from teddytok_rs.output.checksum import with_checksum
from teddytok_rs.output.formats import open_shard
from teddytok_rs.output.layout import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

EOS = 3
NAMES = {"gene_ids": "input_ids", "values": "x", "length": "n", "bio_annotations": "four", "labels": "y"}
ENDS = {"add_cls": True, "add_eos": True, "eos_token_id": EOS}
MODES = {
    "expression": {},
    "bins": {"bins": 4},
    "ranks": {"continuous_rank": True},
    "none": {"write_values": False},
    "uint16": {"token_dtype": "uint16"},
    "int64": {"token_dtype": "int64", "bins": 3},
}
FORMATS = pytest.mark.parametrize("name", ["arrow", "parquet", "webdataset"])


def read(folder: Path) -> pa.Table:
    """Read the shards of a dataset with the package's readers, which verify uses too."""
    batches: list[pa.RecordBatch] = []
    for path in sorted(folder.glob("data-*")):
        with open_shard(path) as (_, found):
            batches += found
    return pa.Table.from_batches(batches)


def expected(args: dict[str, Any]) -> list[tuple[list[int], list[float]]]:
    """Tokenize the cells by the oracle."""
    keys = ("max_seq_len", "add_cls", "add_eos", "eos_token_id", "bins", "continuous_rank")
    x = cells.make_cells().layers["processed"].toarray()[:, : len(cells.KEPT)]
    x[2] = 0  # a cell with nothing to select
    return oracle.tokenize_matrix(
        x, cells.GENE_TOKENS, cls_token_id=cells.CLS, **{k: args[k] for k in keys if k in args}
    )


def source() -> Any:
    """Make the cells, of which the third has no expressed gene."""
    made = cells.make_cells()
    processed = made.layers["processed"].toarray()
    processed[2] = 0
    made.layers["processed"] = processed
    return made


@FORMATS
@pytest.mark.parametrize("mode", MODES)
def test_a_sequence_ends_with_eos_in_each_format_and_mode(name: str, mode: str, tmp_path: Path):
    args = cells.make_args(tmp_path, format=name, write_length=True, max_shard_samples=4, **ENDS, **MODES[mode])
    manifest = tokenize_to_disk(source(), args, tmp_path / "out")
    assert (manifest.cls_token, manifest.eos_token) == (cells.CLS, EOS)
    assert verify(manifest.path).problems == []
    table, wanted = read(manifest.path), expected(args)
    assert table["gene_ids"].to_pylist() == [ids for ids, _ in wanted]
    assert table["gene_ids"].to_pylist()[2] == [cells.CLS, EOS]
    assert (table["length"].type, table["length"].to_pylist()) == (pa.int32(), [len(ids) for ids, _ in wanted])
    if mode == "none":
        assert table.column_names == ["gene_ids", "length"]
    else:
        assert table.column_names == ["gene_ids", "values", "length"]
        values = [np.array(values, table["values"].type.value_type.to_pandas_dtype()).tolist() for _, values in wanted]
        assert table["values"].to_pylist() == values
        assert {values[-1] for values in table["values"].to_pylist()} == {0}


def test_without_cls_a_cell_with_nothing_to_select_is_eos_alone(tmp_path: Path):
    table = tokenize(source(), cells.make_args(tmp_path, add_eos=True, eos_token_id=EOS))
    assert (table["gene_ids"][2].as_py(), table["values"][2].as_py()) == ([EOS], [0.0])


@FORMATS
def test_renamed_columns_hold_what_they_hold_otherwise(name: str, tmp_path: Path):
    args = cells.make_args(
        tmp_path, format=name, bio_annotations=True, label_column="cell_type", write_length=True, obs_columns=["index"],
        max_shard_samples=4, **ENDS,
    )  # fmt: skip
    plain = tokenize_to_disk(source(), args, tmp_path / "plain")
    renamed = tokenize_to_disk(source(), {**args, "output_names": NAMES}, tmp_path / "renamed", report=True)
    assert verify(renamed.path).problems == []
    table = read(plain.path)
    assert read(renamed.path).equals(table.rename_columns([NAMES.get(column, column) for column in table.column_names]))
    theirs = [sequence.__dict__ for sequence in inspect(plain.path, cells=6).sequences]
    ours = [sequence.__dict__ for sequence in inspect(renamed.path, cells=6).sequences]
    back = {written: own for own, written in NAMES.items()}
    for sequence in ours:
        sequence["annotations"] = {back.get(key, key): value for key, value in sequence["annotations"].items()}
    assert ours == theirs
    assert ours[2]["genes"] == ["CLS", "EOS"]
    (renamed.path / "teddytok.journal").unlink(missing_ok=True)
    again = tokenize_to_disk(source(), {**args, "output_names": NAMES}, tmp_path / "renamed")
    assert again.n_kept == again.n_shards
    with raises("output_differs", "output_names"):
        tokenize_to_disk(source(), args, tmp_path / "renamed")


def test_datasets_reads_renamed_columns(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    args = cells.make_args(tmp_path, label_column="cell_type", write_length=True, output_names=NAMES)
    loaded = datasets.load_from_disk(str(tokenize_to_disk(source(), args, tmp_path / "out").path))
    assert loaded.column_names == ["input_ids", "x", "n", "y"]
    assert loaded.features["y"].names == sorted(cells.LABELS["cell_type"])
    assert loaded["n"][:] == [len(ids) for ids in loaded["input_ids"]]


def test_webdataset_names_members_by_the_new_names(tmp_path: Path):
    args = cells.make_args(tmp_path, format="webdataset", label_column="cell_type", output_names=NAMES)
    manifest = tokenize_to_disk(source(), args, tmp_path / "out")
    with tarfile.open(manifest.path / manifest.shards[0].file) as tar:
        assert {name.partition(".")[2] for name in tar.getnames()} == {"input_ids.npy", "x.npy", "y.cls"}


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        ("input_ids", {"output_names": {"gene_ids": "input_ids"}}),
        ("y", {"output_names": {"labels": "y"}, "label_column": "sex"}),
        ("length", {"write_length": True}),
        ("n", {"write_length": True, "output_names": {"length": "n"}}),
    ],
)
def test_a_copied_column_may_not_have_a_new_name(column: str, keys: dict[str, Any], tmp_path: Path):
    made = cells.make_cells()
    made.obs[column] = "x"
    with raises("obs_column_reserved", repr(column)):
        tokenize(made, cells.make_args(tmp_path, obs_columns=[column], **keys))


def test_a_name_that_is_given_up_is_free(tmp_path: Path):
    made = cells.make_cells(gene_ids="x", length=1.5)
    args = cells.make_args(tmp_path, obs_columns=["gene_ids", "length"], output_names={"gene_ids": "input_ids"})
    manifest = tokenize_to_disk(made, args, tmp_path / "out", report=True)
    assert verify(manifest.path).problems == []
    assert inspect(manifest.path).sequences[0].annotations == {"gene_ids": "x", "length": 1.5}


# ---- datasets of a version that knew none of these arguments


def forget(path: Path) -> None:
    """Take the arguments, and what records them, out of a manifest."""
    document = json.loads(path.read_text(encoding="utf-8"))
    for key in ("add_eos", "eos_token_id", "output_names", "write_length"):
        del document["configuration"][key]
    del document["sha256"]
    document.pop("eos_token", None)
    path.write_text(with_checksum(document), encoding="utf-8")


def test_a_dataset_from_before_is_valid_and_finished(tmp_path: Path):
    path, args = cells.save(cells.make_cells(), tmp_path / "cells.h5ad"), cells.make_args(tmp_path)
    manifest = tokenize_to_disk(path, args, tmp_path / "out", report=True)
    forget(manifest.path / MANIFEST)
    before = (manifest.path / MANIFEST).read_bytes()
    assert verify(manifest.path).problems == []
    assert inspect(manifest.path).sequences[0].genes
    again = tokenize_to_disk(path, args, tmp_path / "out")
    assert (again.n_kept, (manifest.path / MANIFEST).read_bytes()) == (1, before)
    (manifest.path / manifest.shards[0].file).unlink()
    assert tokenize_to_disk(path, args, tmp_path / "out").shards == manifest.shards
    with raises("output_differs", "write_length (False there, True now)"):
        tokenize_to_disk(path, {**args, "write_length": True}, tmp_path / "out")


def test_a_corpus_from_before_is_taken_over(tmp_path: Path):
    for stem in ("a", "b"):
        cells.save(cells.make_cells(), tmp_path / f"{stem}.h5ad")
    args, out = cells.make_args(tmp_path), tmp_path / "out"
    tokenize_corpus([tmp_path / "a.h5ad"], args, out)
    forget(out / "a" / MANIFEST)
    forget(out / "corpus.json")
    made = tokenize_corpus([tmp_path / "a.h5ad", tmp_path / "b.h5ad"], args, out)
    assert not made.failed
    assert verify(out).problems == []
    with raises("output_differs", "write_length"):
        tokenize_corpus([tmp_path / "a.h5ad"], {**args, "write_length": True}, out)
