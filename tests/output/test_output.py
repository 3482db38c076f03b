"""The folder that a run writes: what readers find in it, and what it never does to other folders."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cells
from raises import raises
from teddytok_rs import Manifest, TokenizationArgs, __version__, inspect, iter_batches, tokenize, tokenize_to_disk
from teddytok_rs.pipeline import batches, resources
from teddytok_rs.pipeline.plan import build_plan

N_CELLS = 2345
SMALL = ["teddytok.json", "genes.csv", "dataset_info.json", "state.json", "vocab.txt"]


def many_cells(n_cells: int = N_CELLS) -> Any:
    return cells.make_cells(
        n_cells,
        number=np.arange(n_cells, dtype="i2"),
        real=np.linspace(0, 1, n_cells),
        flag=np.arange(n_cells) % 3 == 0,
        note=pd.array([None if row % 7 else f"n{row}" for row in range(n_cells)], dtype="string"),
    )


def many_columns(folder: Path, **keys: Any) -> dict[str, Any]:
    columns = ["index", "number", "real", "flag", "note"]
    keys = {"bio_annotations": True, "label_column": "cell_type", "obs_columns": columns, **keys}
    return cells.make_args(folder, max_shard_samples=1001, **keys)


class Written:
    """A dataset with every kind of column, and what it was made from."""

    def __init__(self, folder: Path) -> None:
        self.args = many_columns(folder)
        self.source = many_cells()
        self.manifest = tokenize_to_disk(self.source, self.args, folder / "out", name="many")
        self.path = self.manifest.path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("written"))


@pytest.fixture(scope="module")
def dataset(written: Written) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.load_from_disk(str(written.path))


def read_shards(folder: Path) -> list[list[pa.RecordBatch]]:
    shards = []
    for path in sorted(folder.glob("data-*.arrow")):
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            shards.append(list(stream))
    return shards


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(
    folder: Path, source: Any = None, *, out: str = "out", name: str | None = None, overwrite: bool = False, **keys: Any
) -> Manifest:
    """Write a few cells to ``folder/out/anndata``, or as given."""
    source = cells.make_cells() if source is None else source
    return tokenize_to_disk(source, cells.make_args(folder, **keys), folder / out, name=name, overwrite=overwrite)


def no_cells() -> Any:
    """No cells at all, but all the categories that there might be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata 0.12 with pandas 2.1 makes the index of no cells again
        nothing = cells.make_cells()[:0].copy()
    for column, labels in cells.LABELS.items():
        nothing.obs[column] = pd.Categorical([], categories=sorted(labels))
    return nothing


# ---- as datasets sees it


def test_datasets_finds_the_rows_in_order(dataset: Any):
    assert len(dataset) == N_CELLS
    assert dataset["cell_id"][:] == [f"cell-{row}" for row in range(N_CELLS)]
    assert dataset["number"][:] == list(range(N_CELLS))


def test_datasets_finds_what_tokenize_gives(dataset: Any, written: Written):
    table = tokenize(written.source, written.args)
    assert dataset.column_names == table.column_names
    assert dataset[:] == table.to_pydict()


def test_datasets_finds_the_names_of_the_classes(dataset: Any, written: Written):
    names = sorted(cells.LABELS["cell_type"])
    assert dataset.features["labels"].names == names
    assert dataset.features["labels"].int2str(dataset[:9]["labels"]) == list(written.source.obs["cell_type"][:9])


def test_datasets_finds_the_types_that_were_promised(dataset: Any):
    lists = {name: dataset.features[name].feature.dtype for name in ("gene_ids", "values", "bio_annotations")}
    assert lists == {"gene_ids": "int32", "values": "float32", "bio_annotations": "int32"}
    others = {name: dataset.features[name].dtype for name in ("labels", "number", "real", "flag", "note", "cell_id")}
    assert others == {
        "labels": "int64", "number": "int16", "real": "float64", "flag": "bool", "note": "string", "cell_id": "string",
    }  # fmt: skip


def test_datasets_maps_the_shards_into_memory(dataset: Any, written: Written):
    files = [Path(file["filename"]) for file in dataset.cache_files]
    assert files == [written.path / shard.file for shard in written.manifest.shards]
    allocated = pa.total_allocated_bytes()
    again = pytest.importorskip("datasets").load_from_disk(str(written.path))
    assert again.data.nbytes > 100_000
    assert pa.total_allocated_bytes() - allocated < 10_000


@pytest.mark.parametrize(
    "rows",
    [0, 1000, 1001, N_CELLS - 1, slice(995, 1010), slice(2000, None), [2344, 0, 1001, 1000, 0]],
    ids=["first", "1000", "1001", "last", "across shards", "to the end", "as a DataLoader asks"],
)
def test_rows_are_found_by_any_index(rows: Any, dataset: Any, written: Written):
    table = tokenize(written.source, written.args)
    found = dataset.with_format("numpy")[rows]
    wanted = np.arange(N_CELLS)[rows]
    gene_ids = [found["gene_ids"]] if isinstance(rows, int) else found["gene_ids"]
    for row, ids in zip(np.atleast_1d(wanted), gene_ids, strict=True):
        np.testing.assert_array_equal(ids, table["gene_ids"][int(row)].as_py())
    np.testing.assert_array_equal(found["number"], wanted)


def test_two_loads_have_one_fingerprint_and_other_content_another(written: Written, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    first, again = (datasets.load_from_disk(str(written.path))._fingerprint for _ in range(2))
    assert first == again
    copy = tokenize_to_disk(written.source, written.args, tmp_path / "copy", name="other name")
    assert datasets.load_from_disk(str(copy.path))._fingerprint == first
    other = tokenize_to_disk(written.source, {**written.args, "max_seq_len": 3}, tmp_path / "other")
    assert datasets.load_from_disk(str(other.path))._fingerprint != first


def test_state_and_info_have_the_keys_that_datasets_writes(written: Written, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"a": [1]}).save_to_disk(str(tmp_path / "theirs"))
    for name in ("state.json", "dataset_info.json"):
        ours, theirs = (json.loads((path / name).read_text()) for path in (written.path, tmp_path / "theirs"))
        assert ours.keys() == theirs.keys()


def test_lists_are_written_as_the_one_spelling_that_all_versions_read(written: Written):
    features = json.loads((written.path / "dataset_info.json").read_text())["features"]
    for name in ("gene_ids", "values", "bio_annotations"):
        assert features[name]["_type"] == "Sequence"
    for shard_batches in read_shards(written.path):
        metadata = json.loads(shard_batches[0].schema.metadata[b"huggingface"])
        assert metadata["info"]["features"] == features


READ = """
import json, sys, datasets
found = []
for folder in sys.argv[1:]:
    dataset = datasets.load_from_disk(folder)
    names = getattr(dataset.features.get("labels"), "names", None)
    found.append([dataset.column_names, len(dataset), names, dataset[:5], len(dataset.cache_files)])
print(json.dumps(found))
"""
PYTHONS = [path for path in os.environ.get("TEDDYTOK_DATASETS_PYTHONS", "").split(os.pathsep) if path]


@pytest.mark.parametrize(
    "python",
    PYTHONS
    or [pytest.param("", marks=pytest.mark.skip("TEDDYTOK_DATASETS_PYTHONS names no interpreters with datasets"))],
)
def test_other_versions_of_datasets_read_the_same(python: str, written: Written, tmp_path: Path):
    folders, expected = [written.path], [tokenize(written.source, written.args)]
    for name, source, keys in (
        ("empty", no_cells(), {"bio_annotations": True, "label_column": "sex"}),
        ("bins", cells.make_cells(), {"bins": 4, "token_dtype": "uint16"}),
        ("no values", cells.make_cells(), {"write_values": False, "token_dtype": "int64"}),
        ("shards", cells.make_cells(), {"max_shard_samples": 1}),
    ):
        args = cells.make_args(tmp_path, **keys)
        folders.append(tokenize_to_disk(source, args, tmp_path / "out", name=name).path)
        expected.append(tokenize(source, args))
    process = subprocess.run([python, "-c", READ, *map(str, folders)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    for (columns, n_rows, _, rows, _), table in zip(found, expected, strict=True):
        assert (columns, n_rows) == (table.column_names, table.num_rows)
        assert rows == table.slice(0, 5).to_pydict()
    assert [names for _, _, names, _, _ in found] == [
        sorted(cells.LABELS["cell_type"]), sorted(cells.LABELS["sex"]), None, None, None,
    ]  # fmt: skip
    assert [n_files for *_, n_files in found] == [3, 1, 1, 1, 6]


# ---- as Arrow sees it


def test_every_shard_is_a_valid_stream(written: Written):
    for shard_batches in read_shards(written.path):
        for batch in shard_batches:
            batch.validate(full=True)


def test_record_batches_hold_at_most_1000_rows(written: Written):
    sizes = [[batch.num_rows for batch in shard_batches] for shard_batches in read_shards(written.path)]
    assert sizes == [[1000, 1], [1000, 1], [343]]


def test_the_stream_is_not_compressed_so_that_it_can_be_mapped(written: Written):
    with pa.memory_map(str(written.path / written.manifest.shards[0].file)) as file:
        allocated = pa.total_allocated_bytes()
        batches = list(pa.ipc.open_stream(file))
        assert sum(batch.num_rows for batch in batches) == 1001
        assert pa.total_allocated_bytes() <= allocated


@pytest.mark.parametrize("n_rows", [1, 2, 6, 7])
def test_shard_i_holds_its_rows_and_the_last_one_what_is_left(n_rows: int, tmp_path: Path):
    manifest = write(tmp_path, max_shard_samples=n_rows, obs_columns=["index"])
    n_shards = -(-6 // n_rows)
    names = [f"data-{number:05d}-of-{n_shards:05d}.arrow" for number in range(n_shards)]
    assert [shard.file for shard in manifest.shards] == names
    assert sorted(path.name for path in manifest.path.glob("data-*")) == names
    found = [[name for batch in shard for name in batch["cell_id"].to_pylist()] for shard in read_shards(manifest.path)]
    assert found == [[f"cell-{row}" for row in range(6)][first : first + n_rows] for first in range(0, 6, n_rows)]


@pytest.mark.parametrize("n_rows", [999, 1000, 1001, 2344, 2345, 2346])
def test_no_row_is_lost_where_shards_and_record_batches_meet(n_rows: int, written: Written, tmp_path: Path):
    args = {**written.args, "max_shard_samples": n_rows}
    manifest = tokenize_to_disk(written.source, args, tmp_path)
    shards = read_shards(manifest.path)
    rows = [sum(batch.num_rows for batch in shard) for shard in shards]
    assert rows == [shard.rows for shard in manifest.shards]
    assert rows == [n_rows] * (N_CELLS // n_rows) + ([N_CELLS % n_rows] if N_CELLS % n_rows else [])
    assert (
        pa.Table.from_batches([batch for shard in shards for batch in shard]).to_pydict()
        == tokenize(written.source, written.args).to_pydict()
    )


def test_iterating_gives_the_rows_of_the_table_in_batches(written: Written):
    batches = list(iter_batches(written.source, written.args))
    table = tokenize(written.source, written.args)
    assert pa.Table.from_batches(batches).equals(table)
    assert [batch.num_rows for batch in batches] == [1000, 1, 1000, 1, 343]
    assert [batch for shard in read_shards(written.path) for batch in shard] == batches


@pytest.mark.parametrize("n_bytes", [1, 10_000, 100_000])
@pytest.mark.parametrize("form", ["memory", "h5ad", "dense h5ad"])
def test_the_size_of_a_chunk_changes_nothing(
    form: str, n_bytes: int, written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = written.source
    if form != "memory":
        copy = source.copy()
        if form == "dense h5ad":
            copy.layers["processed"] = copy.layers["processed"].toarray()
        source = cells.save(copy, tmp_path / "cells.h5ad")
    whole = tokenize(source, written.args)
    monkeypatch.setattr(resources, "CHUNK_BYTES", n_bytes)
    plan = build_plan(source, written.args)
    assert len(list(batches.chunks(plan, (0, 1000), n_bytes // 2))) > 1
    assert tokenize(source, written.args).equals(whole)


def test_problems_are_reported_before_the_first_batch_is_asked_for(tmp_path: Path):
    with raises("obs_column_missing"):
        iter_batches(cells.make_cells(), cells.make_args(tmp_path, label_column="x"))


# ---- columns and types


@pytest.mark.parametrize("token_dtype", ["int32", "uint16", "int64"])
def test_tokens_have_the_type_that_was_asked_for(token_dtype: str, tmp_path: Path):
    manifest = write(tmp_path, token_dtype=token_dtype, add_cls=True)
    (batches,) = read_shards(manifest.path)
    assert batches[0].schema.field("gene_ids").type == pa.list_(pa.type_for_alias(token_dtype))
    plain = tokenize(cells.make_cells(), cells.make_args(tmp_path, add_cls=True))
    assert batches[0]["gene_ids"].to_pylist() == plain["gene_ids"].to_pylist()
    features = json.loads((manifest.path / "dataset_info.json").read_text())["features"]
    assert features["gene_ids"]["feature"]["dtype"] == token_dtype


@pytest.mark.parametrize(("largest", "fits"), [(65_535, True), (65_536, False)])
@pytest.mark.parametrize("what", ["gene", "CLS"])
def test_uint16_is_refused_where_a_token_does_not_fit(what: str, largest: int, fits: bool, tmp_path: Path):
    ids = dict(cells.TOKEN)
    ids[cells.GENES[3] if what == "gene" else "<cls>"] = largest
    vocabulary = cells.write_json(tmp_path / "vocab.json", ids)
    args = {"tokenizer_name_or_path": vocabulary, "token_dtype": "uint16", "add_cls": True}
    if fits:
        assert max(max(ids) for ids in tokenize(cells.make_cells(), args)["gene_ids"].to_pylist()) == largest
    else:
        with raises("token_dtype", "65,536", "Use token_dtype = 'int32'"):
            tokenize(cells.make_cells(), args)


def test_values_can_be_left_out(tmp_path: Path):
    manifest = write(tmp_path, write_values=False, label_column="sex")
    (batches,) = read_shards(manifest.path)
    assert batches[0].schema.names == ["gene_ids", "labels"]
    assert batches[0]["gene_ids"].to_pylist() == tokenize(cells.make_cells(), cells.make_args(tmp_path))[0].to_pylist()


@pytest.mark.parametrize(
    ("keys", "dtype"), [({}, "float"), ({"bins": 3}, "int32"), ({"continuous_rank": True}, "float")]
)
def test_values_are_float32_and_bins_int32(keys: dict[str, Any], dtype: str, tmp_path: Path):
    (batches,) = read_shards(write(tmp_path, **keys).path)
    assert str(batches[0].schema.field("values").type.value_type) == dtype


def test_a_source_without_cells_is_a_dataset_without_rows(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    nothing = no_cells()
    keys = {"bio_annotations": True, "label_column": "sex", "obs_columns": ["index", "tissue"]}
    manifest = write(tmp_path, nothing, **keys)
    loaded = datasets.load_from_disk(str(manifest.path))
    assert (len(loaded), manifest.n_cells, manifest.n_tokens, len(manifest.shards)) == (0, 0, 0, 1)
    assert loaded.column_names == ["gene_ids", "values", "bio_annotations", "labels", "cell_id", "tissue"]
    assert loaded.features["labels"].names == ["female", "male"]
    assert tokenize(nothing, cells.make_args(tmp_path, **keys)).num_rows == 0


def test_a_cell_without_expression_stays_a_row(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    x = cells.make_counts()
    x[[0, 3, 5]] = 0
    loaded = datasets.load_from_disk(str(write(tmp_path, cells.with_layer(x), max_shard_samples=1).path))
    assert [len(ids) == 0 for ids in loaded["gene_ids"]] == [True, False, False, True, False, True]


# ---- the files next to the shards


def test_a_folder_holds_these_files_and_no_others(written: Written):
    shards = [f"data-0000{number}-of-00003.arrow" for number in range(3)]
    assert sorted(path.name for path in written.path.iterdir()) == sorted([*shards, *SMALL])
    assert list(written.path.parent.iterdir()) == [written.path]


def test_the_manifest_lists_what_was_done(written: Written):
    document = json.loads((written.path / "teddytok.json").read_text(encoding="utf-8"))
    assert document["version"] == __version__
    places = {"load_dir", "save_dir"}
    assert document["configuration"] == TokenizationArgs(**written.args).model_dump(mode="json", exclude=places)
    assert document["source"]["n_cells"] == N_CELLS
    assert (document["source"]["name"], document["source"]["layer"]) == ("AnnData", "processed")
    table = tokenize(written.source, written.args)
    assert document["totals"]["tokens"] == sum(len(ids) for ids in table["gene_ids"].to_pylist())
    assert document["gene_seed"] is None
    assert {kind: report["column"] for kind, report in document["annotations"].items()} == {
        "disease": "disease", "tissue": "tissue", "cell": "cell_type", "sex": "sex",
    }  # fmt: skip


def test_the_checksums_of_the_manifest_are_right(written: Written):
    manifest = written.manifest
    for shard in manifest.shards:
        content = (written.path / shard.file).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    vocabulary = Path(written.args["tokenizer_name_or_path"]) / "vocab.txt"
    assert dict(manifest.checksums) == {
        "vocabulary": {"vocab.txt": hashlib.sha256(vocabulary.read_bytes()).hexdigest()},
        "mappings": {},
        "genes": {"genes.csv": hashlib.sha256((written.path / "genes.csv").read_bytes()).hexdigest()},
        "columns": {"dataset_info.json": hashlib.sha256((written.path / "dataset_info.json").read_bytes()).hexdigest()},
        "cells": {"obs": manifest.checksums["cells"]["obs"]},
        "copies": {"vocab.txt": hashlib.sha256(vocabulary.read_bytes()).hexdigest()},
        "contents": {},
    }


def test_the_checksum_of_the_medians_is_recorded_with_those_of_the_mappings(tmp_path: Path):
    medians = cells.write_json(tmp_path / "medians.json", {cells.GENES[0]: 2.0})
    manifest = write(tmp_path, median_dict=medians)
    assert manifest.checksums["mappings"]["median_dict"] == hashlib.sha256(Path(medians).read_bytes()).hexdigest()


def test_the_manifest_is_read_back_unchanged(written: Written):
    assert Manifest.read(written.path) == written.manifest


def test_every_gene_is_listed_with_its_token_or_none(written: Written):
    with (written.path / "genes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    tokens = [str(cells.TOKEN.get(gene, "")) for gene in cells.GENES]
    assert [row["gene_id"] for row in rows] == cells.GENES
    assert [row["name"] for row in rows] == cells.SYMBOLS
    assert [row["token"] for row in rows] == tokens


def test_a_seed_that_was_drawn_is_recorded_and_gives_the_same_bytes_again(tmp_path: Path):
    manifest = write(tmp_path / "a", random_genes=True, random_genes_count=4)
    assert 0 <= manifest.gene_seed < 2**64
    again = write(tmp_path / "b", random_genes=True, random_genes_count=4, gene_seed=manifest.gene_seed)
    assert [shard.sha256 for shard in again.shards] == [shard.sha256 for shard in manifest.shards]
    assert write(tmp_path / "c", random_genes=True).gene_seed != manifest.gene_seed


def test_the_same_run_into_another_folder_gives_the_same_bytes(written: Written, tmp_path: Path):
    again = tokenize_to_disk(written.source, written.args, tmp_path / "else" / "where", name="other")
    assert folder_bytes(again.path) == folder_bytes(written.path)


# ---- where it goes


def test_a_dataset_is_named_after_its_source(tmp_path: Path):
    assert write(tmp_path).path == tmp_path / "out" / "anndata"
    for name in ("brain.h5ad", "a.b.h5ad", "Zellen \u00fc 1.h5ad"):
        assert write(tmp_path, cells.save(cells.make_cells(), tmp_path / name)).path.name == name.removesuffix(".h5ad")
    pytest.importorskip("zarr")
    assert write(tmp_path, cells.save(cells.make_cells(), tmp_path / "lung.zarr")).path.name == "lung"


def test_save_dir_is_an_argument_too_and_the_one_given_wins(tmp_path: Path):
    args = cells.make_args(tmp_path, save_dir=tmp_path / "configured")
    assert tokenize_to_disk(cells.make_cells(), args).path == tmp_path / "configured" / "anndata"
    assert tokenize_to_disk(cells.make_cells(), args, tmp_path / "given").path == tmp_path / "given" / "anndata"


def test_without_a_folder_to_write_to_nothing_is_done(tmp_path: Path):
    with raises("no_save_dir", "save_dir"):
        tokenize_to_disk(cells.make_cells(), cells.make_args(tmp_path))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", "a/", "a\0b", "./a"], ids=ascii)
def test_a_name_never_leads_elsewhere(name: str, tmp_path: Path):
    before = set(tmp_path.rglob("*"))
    with raises("output_name", repr(name)):
        write(tmp_path, name=name)
    assert {path.name for path in set(tmp_path.rglob("*")) - before} <= {"vocabulary", "vocab.txt"}


def test_an_empty_folder_is_used(tmp_path: Path):
    (tmp_path / "out" / "anndata").mkdir(parents=True)
    assert write(tmp_path).n_cells == 6


@pytest.mark.parametrize("place", ["out", "out/anndata"])
def test_a_file_in_the_place_of_a_folder_is_refused(place: str, tmp_path: Path):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("precious", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(OSError, match="out") as caught:
            write(tmp_path, overwrite=overwrite)
        assert caught.value.kind in {"output_failed", "output_exists"}
    assert (tmp_path / place).read_text(encoding="utf-8") == "precious"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "out").write_text("", encoding="utf-8")
    with raises("output_failed", str(tmp_path / "out" / "anndata")):
        write(tmp_path)


# ---- what was there before


def test_a_dataset_is_not_replaced_unasked(tmp_path: Path):
    manifest = write(tmp_path)
    before = folder_bytes(manifest.path)
    with raises("output_differs", str(manifest.path), "overwrite"):
        write(tmp_path, max_seq_len=3)
    assert folder_bytes(manifest.path) == before


def test_a_dataset_is_replaced_whole_if_asked_for(tmp_path: Path):
    write(tmp_path, max_shard_samples=1)
    manifest = write(tmp_path, max_seq_len=3, overwrite=True)
    assert len(list(manifest.path.glob("data-*"))) == 1
    assert folder_bytes(manifest.path) == folder_bytes(write(tmp_path, out="fresh", max_seq_len=3).path)


FOREIGN = ["notes.txt", ".hidden", "cells.h5ad", "data-notes.txt", "data-donors.arrow", "folder/genes.csv"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_with_only_other_files_is_refused(name: str, tmp_path: Path):
    folder = tmp_path / "out" / "anndata"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("precious", encoding="utf-8")
    before = folder_bytes(folder)
    for overwrite in (False, True):
        with raises("output_exists", str(folder), name.partition("/")[0]):
            write(tmp_path, overwrite=overwrite)
    assert folder_bytes(folder) == before


@pytest.mark.parametrize("name", [".DS_Store", ".ipynb_checkpoints/a.ipynb", "Thumbs.db"])
def test_what_systems_leave_in_an_empty_folder_refuses_nothing(name: str, tmp_path: Path):
    path = tmp_path / "out" / "anndata" / name
    path.parent.mkdir(parents=True)
    path.write_text("left", encoding="utf-8")
    write(tmp_path)
    assert path.read_text(encoding="utf-8") == "left"


def test_a_dataset_of_another_program_is_never_removed(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    theirs = tmp_path / "out" / "anndata"
    datasets.Dataset.from_dict({"a": [1]}).save_to_disk(str(theirs))
    before = folder_bytes(theirs)
    with raises("output_exists", str(theirs)):
        write(tmp_path, overwrite=True)
    assert folder_bytes(theirs) == before


def test_a_dataset_stays_where_the_new_run_cannot_start(tmp_path: Path):
    manifest = write(tmp_path)
    before = folder_bytes(manifest.path)
    with raises("obs_column_missing"):
        write(tmp_path, overwrite=True, label_column="x")
    assert folder_bytes(manifest.path) == before


def test_a_link_to_a_folder_is_not_followed_when_it_is_replaced(tmp_path: Path):
    manifest = write(tmp_path / "elsewhere")
    before = folder_bytes(manifest.path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "anndata").symlink_to(manifest.path, target_is_directory=True)
    with pytest.raises(OSError, match="anndata") as caught:
        write(tmp_path, overwrite=True)
    assert caught.value.kind in {"output_symlink"}
    assert folder_bytes(manifest.path) == before


# ---- runs that end early


def spoilt() -> Any:
    x = np.tile(cells.make_counts(), (400, 1))
    x[2222, 4] = np.nan
    return cells.with_layer(x)


def test_a_run_that_fails_leaves_no_dataset(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    with raises("not_finite"):
        write(tmp_path, spoilt(), max_shard_samples=1000)
    folder = tmp_path / "out" / "anndata"
    assert not (folder / "state.json").exists()
    assert not (folder / "dataset_info.json").exists()
    with pytest.raises(FileNotFoundError):
        datasets.load_from_disk(str(folder))
    with raises("output_unreadable", str(folder)):
        inspect(folder)


def test_what_a_failed_run_left_can_be_overwritten(tmp_path: Path):
    with raises("not_finite"):
        write(tmp_path, spoilt(), max_shard_samples=1000)
    manifest = write(tmp_path, overwrite=True)
    assert not list(manifest.path.glob("*.part"))
    assert folder_bytes(manifest.path) == folder_bytes(write(tmp_path, out="fresh").path)


@pytest.mark.parametrize("name", ["data-00000-of-00002.arrow", *SMALL])
def test_what_a_killed_run_left_can_be_overwritten(name: str, tmp_path: Path):
    folder = tmp_path / "out" / "anndata"
    folder.mkdir(parents=True)
    (folder / "data-00000-of-00003.arrow").write_bytes(b"")
    (folder / f"{name}.0123abcd.part").write_bytes(b"half")
    for overwrite in (False, True):  # nothing says that it is of a run
        with raises("output_exists"):
            write(tmp_path, overwrite=overwrite)
    (folder / "teddytok.journal").write_bytes(b"")
    write(tmp_path, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(["data-00000-of-00001.arrow", *SMALL])


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with raises("output_failed", str(tmp_path / "out" / "anndata"), "no space left on device", "free space"):
        write(tmp_path)


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    write(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_on_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    tokenize_to_disk(cells.make_cells(), cells.make_args(tmp_path), tmp_path / "out", progress=True)
    assert capfd.readouterr().out == ""


# ---- looking into a folder


def test_a_sequence_is_shown_with_names(written: Written):
    seen = inspect(written.path, cells=2)
    assert [sequence.row for sequence in seen.sequences] == [0, 1]
    table = tokenize(written.source, written.args).slice(0, 1).to_pylist()[0]
    names = dict(zip(cells.GENE_TOKENS, cells.SYMBOLS, strict=False))
    first = seen.sequences[0]
    assert first.genes == [names[token] for token in table["gene_ids"]]
    assert first.values == table["values"]
    obs = written.source.obs.iloc[0]
    assert first.annotations == {
        "disease": obs["disease"], "tissue": obs["tissue"], "cell": obs["cell_type"], "sex": obs["sex"],
        "labels": obs["cell_type"], "cell_id": "cell-0", "number": 0, "real": 0.0, "flag": True, "note": "n0",
    }  # fmt: skip


def test_the_cls_token_is_called_cls(tmp_path: Path):
    manifest = write(tmp_path, add_cls=True, write_values=False)
    (sequence,) = inspect(manifest.path, cells=1).sequences
    assert sequence.genes[0] == "CLS"
    assert sequence.values is None


@pytest.mark.parametrize(("asked", "shown"), [(0, 0), (3, 3), (6, 6), (99, 6)])
def test_as_many_sequences_are_shown_as_there_are(asked: int, shown: int, tmp_path: Path):
    manifest = write(tmp_path, max_shard_samples=2)
    assert len(inspect(manifest.path, cells=asked).sequences) == shown


def test_an_unmapped_annotation_is_shown_as_such(tmp_path: Path):
    made = cells.make_cells(disease=["flu"] * 6)
    manifest = tokenize_to_disk(made, cells.make_args(tmp_path, bio_annotations=True), tmp_path / "out")
    assert inspect(manifest.path).sequences[0].annotations["disease"] == f"unmapped (token {cells.UNK})"


def test_a_disease_label_is_shown_by_its_name(tmp_path: Path):
    manifest = write(tmp_path, add_disease_annotation=True)
    assert inspect(manifest.path).sequences[0].annotations["labels"] == cells.make_cells().obs["disease"].iloc[0]


@pytest.mark.parametrize("missing", ["teddytok.json", "genes.csv", "data-00000-of-00001.arrow"])
def test_a_folder_that_lacks_a_file_is_not_a_dataset(missing: str, tmp_path: Path):
    manifest = write(tmp_path)
    (manifest.path / missing).unlink()
    with raises("output_unreadable", str(manifest.path), missing):
        inspect(manifest.path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("teddytok.json", b"{"),
        ("teddytok.json", b"{}"),
        ("teddytok.json", b"[]"),
        ("teddytok.json", b"\xff"),
        ("genes.csv", b""),
        ("genes.csv", b"gene_id,name,token\na,b,c\n"),
        ("genes.csv", b"\xff\xfe"),
        ("data-00000-of-00001.arrow", b""),
        ("data-00000-of-00001.arrow", b"ARROW1 but no stream"),
    ],
)
def test_a_folder_with_a_damaged_file_is_not_a_dataset(name: str, content: bytes, tmp_path: Path):
    manifest = write(tmp_path)
    (manifest.path / name).write_bytes(content)
    with raises("output_unreadable", str(manifest.path)):
        inspect(manifest.path)


@pytest.mark.parametrize("name", ["nowhere", "file", "empty"])
def test_what_is_not_a_dataset_is_refused(name: str, tmp_path: Path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    with raises("output_unreadable", str(tmp_path / name), "teddytok tokenize"):
        inspect(tmp_path / name)
