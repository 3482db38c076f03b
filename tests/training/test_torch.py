"""What comes out of a `DataLoader` is what was written, each cell once, in an order that can be repeated."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import teddytok_rs
from cells import KEPT, LABELS, TOKEN, make_args, make_cells, make_counts, save, write_vocabulary
from raises import raises
from teddytok_rs import demo

torch = pytest.importorskip("torch", reason="PyTorch is not installed; it is an extra of several GB")

from torch.utils.data import DataLoader  # noqa: E402

from teddytok_rs.torch import Collator, OnTheFlyDataset, WrittenDataset, datasets  # noqa: E402
from teddytok_rs.torch.datasets import BLOCK_CELLS  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),  # from Python 3.12 on
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # on one core
]

N_CELLS = 700  # several blocks, the last one short
#: Each changes what is written; none may change it on the fly alone.
OPTIONS = {
    "plain": {},
    "cls": {"add_cls": True},
    "eos": {"add_cls": True, "add_eos": True, "eos_token_id": 3},
    "names": {
        "output_names": {"gene_ids": "input_ids", "labels": "y"},
        "write_length": True,
        "label_column": "cell_type",
    },
    "zeros": {"include_zero_genes": True},
    "bins": {"bins": 5},
    "ranks": {"continuous_rank": True},
    "random genes": {"random_genes": True, "random_genes_count": 5, "batch_size": 7, "gene_seed": 3},
    "no values": {"write_values": False},
    "uint16": {"token_dtype": "uint16"},
    "int64": {"token_dtype": "int64"},
    "filter": {"cell_filter": "number % 3 == 0"},
    "from counts": {"layer": "X", "normalize_total": 10000, "log1p": True},
    "annotations": {"bio_annotations": True, "add_disease_annotation": True},
    "labels": {"label_column": "cell_type", "obs_columns": ["index"]},
    "number labels": {"label_column": "weight"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    numbers = np.arange(N_CELLS)
    save(make_cells(N_CELLS, number=numbers, weight=numbers / 4, even=numbers % 2 == 0), folder / "cells.h5ad")
    return folder


@pytest.fixture
def source(folder) -> Path:
    return folder / "cells.h5ad"


def args_for(folder: Path, **keys) -> dict:
    return make_args(folder, obs_columns=["number"]) | keys


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) and one[key].dtype == other[key].dtype
        if torch.is_tensor(one[key])
        else one[key] == other[key]
        for key in one
    )


def loader(dataset, workers=0, start="fork", **options) -> DataLoader:
    if workers:
        options |= {"num_workers": workers, "multiprocessing_context": start}
    return DataLoader(dataset, collate_fn=Collator.for_dataset(dataset), **{"batch_size": 32, **options})


def numbers(batches) -> list[int]:
    return [number for batch in batches for number in batch["number"]]


# ---- a written folder


def test_a_written_cell_is_what_was_tokenized(tmp_path, source):
    args = args_for(tmp_path, max_shard_samples=300, label_column="cell_type", bio_annotations=True)
    written = WrittenDataset(teddytok_rs.tokenize_to_disk(source, args, tmp_path).path)
    rows = teddytok_rs.tokenize(source, args).to_pylist()
    assert len(written) == len(rows) == N_CELLS
    for index in (0, 299, 300, 301, 699):
        cell = {key: value.tolist() if torch.is_tensor(value) else value for key, value in written[index].items()}
        assert cell == rows[index]
    assert same(written[-1], written[699])
    assert same(written[np.int64(3)], written[3])
    for index in (N_CELLS, -N_CELLS - 1):
        with pytest.raises(IndexError):
            written[index]
    assert sum(1 for _ in written) == N_CELLS


def test_a_cell_can_be_written_to(tmp_path, source):
    written = WrittenDataset(teddytok_rs.tokenize_to_disk(source, args_for(tmp_path), tmp_path).path)
    before = written[5]["gene_ids"].clone()
    written[5]["gene_ids"].fill_(0)
    assert torch.equal(written[5]["gene_ids"], before)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_the_cells_that_the_process_itself_gives(tmp_path, source, start):
    args = args_for(tmp_path, max_shard_samples=300, label_column="cell_type", bio_annotations=True)
    written = WrittenDataset(teddytok_rs.tokenize_to_disk(source, args, tmp_path).path)
    batches = list(loader(written))  # its maps are open when the workers start
    assert numbers(batches) == list(range(N_CELLS))
    for mine, theirs in zip(batches, loader(written, 2, start), strict=True):
        assert same(mine, theirs)


def test_a_written_dataset_is_pickled_small_and_read_by_threads(tmp_path, source):
    written = WrittenDataset(teddytok_rs.tokenize_to_disk(source, args_for(tmp_path), tmp_path).path)
    expected = [written[index]["gene_ids"].tolist() for index in range(N_CELLS)]
    pickled = pickle.dumps(written)
    assert len(pickled) < 20_000
    copy = pickle.loads(pickled)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda index: copy[index]["gene_ids"].tolist(), range(N_CELLS))) == expected


def test_several_datasets_are_one_in_the_order_of_their_names(tmp_path, source):
    args = args_for(tmp_path)
    for name in ("b", "a", "c"):
        cells = make_cells(10, number=[f"{name}{row}" for row in range(10)])
        teddytok_rs.tokenize_to_disk(cells, args, tmp_path / "corpus", name=name)
    expected = [f"{name}{row}" for name in "abc" for row in range(10)]
    assert [cell["number"] for cell in WrittenDataset(tmp_path / "corpus")] == expected
    listed = WrittenDataset([tmp_path / "corpus" / "c", str(tmp_path / "corpus" / "a")])
    assert [cell["number"] for cell in listed] == expected[20:] + expected[:10]


@pytest.mark.parametrize(
    ("keys", "difference"),
    [
        ({"max_seq_len": 5}, "max_seq_len"),
        ({"bins": 5}, "bins"),
        ({"token_dtype": "int64"}, "token_dtype"),
        ({"pad_length": 9}, "pad_length"),
        ({"label_column": "sex"}, "columns (labels are of 'cell_type' in the first and of 'sex' in the second)"),
    ],
)
def test_datasets_that_mean_different_things_are_no_mixture(tmp_path, source, keys, difference):
    args = args_for(tmp_path, label_column="cell_type")
    teddytok_rs.tokenize_to_disk(source, args, tmp_path / "corpus", name="one")
    teddytok_rs.tokenize_to_disk(source, {**args, **keys}, tmp_path / "corpus", name="other")
    with raises("datasets_differ", difference):
        WrittenDataset(tmp_path / "corpus")


def test_datasets_of_different_vocabularies_are_no_mixture(tmp_path, source):
    args = args_for(tmp_path)
    teddytok_rs.tokenize_to_disk(source, args, tmp_path / "corpus", name="one")
    other = write_vocabulary(tmp_path / "other", [*TOKEN, "one more"])
    teddytok_rs.tokenize_to_disk(source, args | {"tokenizer_name_or_path": other}, tmp_path / "corpus", name="two")
    with raises("datasets_differ", "sha256 of vocab.txt"):
        WrittenDataset(tmp_path / "corpus")


def test_where_a_source_keeps_things_may_differ(tmp_path, source):
    args = args_for(tmp_path)
    teddytok_rs.tokenize_to_disk(source, args, tmp_path / "corpus", name="one")
    keys = {"layer": "X", "max_shard_samples": 100, "cell_filter": "even", "bins": 0}
    teddytok_rs.tokenize_to_disk(source, args | keys, tmp_path / "corpus", name="two")
    assert len(WrittenDataset(tmp_path / "corpus")) == N_CELLS * 3 // 2


@pytest.mark.parametrize(("name", "reader"), [("parquet", "load_dataset"), ("webdataset", "WebDataset")])
def test_a_folder_that_cannot_be_mapped_is_refused(tmp_path, source, name, reader):
    path = teddytok_rs.tokenize_to_disk(source, args_for(tmp_path, format=name), tmp_path / "out").path
    with raises("format_not_mapped", str(path), reader, "format = 'arrow'"):
        WrittenDataset(path)


def test_what_is_not_a_dataset_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with raises("output_unreadable", "empty"):
        WrittenDataset(tmp_path / "empty")
    with raises("output_unreadable", "nowhere"):
        WrittenDataset(tmp_path / "nowhere")
    with raises("no_sources", "WrittenDataset"):
        WrittenDataset([])


def test_a_shard_that_is_gone_or_cut_or_damaged_is_named(tmp_path, source):
    path = teddytok_rs.tokenize_to_disk(source, args_for(tmp_path, max_shard_samples=300), tmp_path).path
    second = path / "data-00001-of-00003.arrow"
    content = second.read_bytes()
    written = WrittenDataset(path)
    assert written[0]
    second.write_bytes(content[:-8])
    with raises("file_damaged", second.name, "another length"):
        written[300]
    second.write_bytes(b"\xff" * len(content))
    with raises("file_damaged", second.name):
        written[300]
    second.unlink()
    with raises("file_damaged", second.name, "missing"):
        WrittenDataset(path)


# ---- padding


def test_padding_is_marked_and_nothing_else_is(tmp_path, source):
    args = args_for(tmp_path, label_column="cell_type", bio_annotations=True)
    dataset = OnTheFlyDataset(source, args, shuffle=False)
    cells = list(itertools.islice(dataset, 64))
    lengths = [len(cell["gene_ids"]) for cell in cells]
    assert min(lengths) < max(lengths)
    for pad_length in (None, 20):
        batch = Collator(pad_id=0, pad_length=pad_length)(cells)
        assert list(batch) == ["gene_ids", "attention_mask", "values", "bio_annotations", "labels", "number"]
        shape = (64, pad_length or max(lengths))
        for key in ("gene_ids", "attention_mask", "values"):
            assert batch[key].shape == shape
        assert {batch[key].dtype for key in ("gene_ids", "attention_mask", "labels", "bio_annotations")} == {
            torch.int64
        }
        assert batch["values"].dtype == torch.float32
        assert (batch["labels"].shape, batch["bio_annotations"].shape) == ((64,), (64, 4))
        assert batch["attention_mask"].sum(dim=1).tolist() == lengths
        assert ((batch["attention_mask"] == 0) == (batch["gene_ids"] == 0)).all()
        assert (batch["values"][batch["attention_mask"] == 0] == 0).all()
        for row, cell in enumerate(cells):
            assert torch.equal(batch["gene_ids"][row, : lengths[row]], cell["gene_ids"].long())
            assert torch.equal(batch["values"][row, : lengths[row]], cell["values"])
            assert batch["bio_annotations"][row].tolist() == cell["bio_annotations"].tolist()
            assert batch["labels"][row] == cell["labels"]


@pytest.mark.parametrize(
    ("keys", "column", "dtype"),
    [
        ({"bins": 5}, "values", "int64"),
        ({"continuous_rank": True}, "values", "float32"),
        ({"token_dtype": "uint16"}, "gene_ids", "int64"),
        ({"label_column": "weight"}, "labels", "float32"),
        ({"label_column": "even"}, "labels", "int64"),
    ],
)
def test_tensors_have_the_types_that_models_take(tmp_path, source, keys, column, dtype):
    batch = next(iter(loader(OnTheFlyDataset(source, args_for(tmp_path, **keys)))))
    assert batch[column].dtype == getattr(torch, dtype)


def test_a_column_that_was_not_written_is_not_in_the_batch(tmp_path, source):
    args = make_args(tmp_path, write_values=False)
    assert list(next(iter(loader(OnTheFlyDataset(source, args))))) == ["gene_ids", "attention_mask"]


def test_the_collator_knows_the_names_of_columns(tmp_path, source):
    names = {"gene_ids": "input_ids", "values": "x", "length": "n", "bio_annotations": "four", "labels": "y"}
    args = args_for(tmp_path, label_column="cell_type", bio_annotations=True, write_length=True)
    renamed = args | {"output_names": names}
    written = WrittenDataset(teddytok_rs.tokenize_to_disk(source, renamed, tmp_path).path)
    plain = next(iter(loader(OnTheFlyDataset(source, args, shuffle=False))))
    assert plain["length"].tolist() == plain["attention_mask"].sum(dim=1).tolist()
    for dataset in (written, OnTheFlyDataset(source, renamed, shuffle=False)):
        assert dataset.output_names == names
        batch = next(iter(loader(dataset)))
        assert batch.keys() == {"input_ids", "attention_mask", "x", "n", "four", "y", "number"}
        assert same({names.get(key, key): value for key, value in plain.items()}, batch)
        assert dataset.label_names == tuple(sorted({"T cell", "B cell", "monocyte"}))


def test_datasets_whose_columns_have_other_names_are_no_mixture(tmp_path, source):
    folders = [
        teddytok_rs.tokenize_to_disk(source, args_for(tmp_path, **keys), tmp_path, name=name).path
        for name, keys in (("a", {}), ("b", {"output_names": {"gene_ids": "input_ids"}}), ("c", {"write_length": True}))
    ]
    for other, key in zip(folders[1:], ("output_names", "write_length"), strict=True):
        with raises("datasets_differ", key, "columns"):
            WrittenDataset([folders[0], other])


def test_a_column_of_obs_called_length_may_hold_anything(tmp_path, source):
    assert Collator(0)([{"gene_ids": [1], "length": "short"}])["length"] == ["short"]


def test_the_collator_pads_as_the_dataset_says(tmp_path, source):
    args = args_for(tmp_path, max_seq_len=12, pad_length=12)
    written = WrittenDataset(teddytok_rs.tokenize_to_disk(source, args, tmp_path).path)
    for dataset in (written, OnTheFlyDataset(source, args)):
        assert Collator.for_dataset(dataset) == Collator(pad_id=TOKEN["<pad>"], pad_length=12)


def test_a_sequence_longer_than_pad_length_is_not_cut(tmp_path, source):
    cells = list(OnTheFlyDataset(source, args_for(tmp_path, include_zero_genes=True)))
    with raises("config_conflict", "a sequence of 8 tokens is longer than pad_length = 5"):
        Collator(pad_id=0, pad_length=5)(cells)


def test_the_collator_takes_lists_and_arrays_as_tensors(tmp_path, source):
    args = args_for(tmp_path, bio_annotations=True, label_column="cell_type")
    cells = list(OnTheFlyDataset(source, args))[:5]
    plain = [
        {key: value.tolist() if torch.is_tensor(value) else value for key, value in cell.items()} for cell in cells
    ]
    arrays = [
        {key: value.numpy() if torch.is_tensor(value) else value for key, value in cell.items()} for cell in cells
    ]
    collator = Collator(pad_id=0)
    assert same(collator(plain), collator(cells))
    assert same(collator(arrays), collator(cells))


def test_labels_that_are_names_of_classes_become_their_numbers(tmp_path, source):
    args = args_for(tmp_path, label_column="cell_type")
    written = WrittenDataset(teddytok_rs.tokenize_to_disk(source, args, tmp_path).path)
    for dataset in (written, OnTheFlyDataset(source, args)):
        collator = Collator.for_dataset(dataset)
        cells = list(itertools.islice(dataset, 50))
        named = [cell | {"labels": dataset.label_names[cell["labels"]]} for cell in cells]
        assert len({cell["labels"] for cell in named}) > 1
        assert same(collator(named), collator(cells))
        assert same(collator([*named[:25], *cells[25:]]), collator(cells))


def test_labels_that_are_no_class_are_a_clear_error():
    cell = {"gene_ids": [1, 2]}
    with raises("config_conflict", "the label 'B cell' is text", "Use Collator.for_dataset"):
        Collator(pad_id=0)([cell | {"labels": "B cell"}])
    with raises("config_conflict", "'B cel' is not the name of a class (did you mean 'B cell'?)", "'T cell'"):
        Collator(pad_id=0, label_names=("B cell", "T cell"))([cell | {"labels": "B cel"}])
    with raises("config_conflict", "neither numbers nor names of classes, such as None"):
        Collator(pad_id=0)([cell | {"labels": None}])


def test_the_collator_takes_the_pad_token_that_was_used(tmp_path, source):
    args = args_for(tmp_path)
    written = WrittenDataset(teddytok_rs.tokenize_to_disk(source, args, tmp_path).path)
    expected = Collator.for_dataset(written)
    write_vocabulary(tmp_path / "vocabulary", [*TOKEN, "one more"])
    assert written.load_vocabulary().ids == TOKEN  # the dataset has a copy
    (written.manifests[0].path / "vocab.txt").unlink()
    with raises("config_conflict", "not the one that"):
        written.load_vocabulary()
    shutil.rmtree(tmp_path / "vocabulary")
    with raises("vocabulary_left_behind"):
        written.load_vocabulary()
    assert Collator.for_dataset(written) == expected  # the manifest has the ids
    write_vocabulary(tmp_path / "vocabulary", KEPT)
    with raises("no_special_token", "PAD"):
        Collator.for_dataset(OnTheFlyDataset(source, args))


# ---- damaged shards

N_FLIPS = int(os.environ.get("TEDDYTOK_FLIPS", "300"))
FLIPS = """
import json, sys
from pathlib import Path
from teddytok_rs.errors import TeddytokError
from teddytok_rs.torch import WrittenDataset

def content():
    cells = WrittenDataset(folder)
    return [{key: getattr(value, "tolist", lambda: value)() for key, value in cell.items()} for cell in cells]

folder, shard = Path(sys.argv[1]), Path(sys.argv[2])
whole, expected = shard.read_bytes(), content()
for place, bit in json.load(sys.stdin):
    damaged = bytearray(whole)
    damaged[place] ^= 1 << bit
    shard.write_bytes(damaged)
    print(place, bit, end=" ", flush=True)
    try:
        differ = sum(mine != theirs for mine, theirs in zip(content(), expected, strict=True))
        print("cells", differ, flush=True)
    except TeddytokError as error:
        print(error.kind, 0, flush=True)
    except Exception as error:
        print("raw", repr(error), flush=True)
shard.write_bytes(whole)
"""


@pytest.mark.timeout(120 + N_FLIPS)
def test_a_flipped_bit_is_an_error_or_changes_a_number_and_never_crashes(tmp_path):
    """``TEDDYTOK_FLIPS`` says how many bits are flipped."""
    n_cells, n_flips = 1100, N_FLIPS
    numbers = np.arange(n_cells)
    cells = make_cells(n_cells, number=numbers, name=[f"cell {number}" for number in numbers], even=numbers % 2 == 0)
    columns = ["index", "number", "name", "even"]
    args = make_args(tmp_path, obs_columns=columns, label_column="cell_type", bio_annotations=True)
    manifest = teddytok_rs.tokenize_to_disk(cells, args, tmp_path)
    shard = manifest.path / manifest.shards[0].file
    rng = np.random.default_rng(0)
    # Half of them where the shard is described: at its start, between its record batches and at its end.
    with pa.memory_map(str(shard)) as file:
        messages = pa.ipc.MessageReader.open_stream(file)
        described, end = [], 0
        for message in messages:
            start, end = end, file.tell()
            described += range(start, end - message.body.size)
    described += range(end, shard.stat().st_size)
    places = np.where(rng.random(n_flips) < 0.5, rng.choice(described, n_flips), rng.integers(0, end, n_flips))
    flips = [[int(place), int(bit)] for place, bit in zip(places, rng.integers(0, 8, n_flips), strict=True)]
    ran = subprocess.run(
        [sys.executable, "-c", FLIPS, str(manifest.path), str(shard)],
        input=json.dumps(flips), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout.splitlines()[-1:]} {ran.stderr[-2000:]}"
    found = [line.split(maxsplit=3)[2:] for line in ran.stdout.splitlines()]
    assert len(found) == n_flips
    counts = Counter(what if what != "cells" else f"{number} cells differ" for what, number in found)
    # A number of a cell, or the place where one cell ends and the next begins.
    assert counts.keys() <= {"file_damaged", "0 cells differ", "1 cells differ", "2 cells differ"}, counts
    assert counts["file_damaged"] > n_flips / 4


def test_what_is_cut_off_by_others_is_named(tmp_path, source):
    path = teddytok_rs.tokenize_to_disk(source, args_for(tmp_path), tmp_path).path
    described = path / "dataset_info.json"
    described.write_text(described.read_text().replace("gene_ids", "gene_idz"))
    with raises("file_damaged", "dataset_info.json", "checksum mismatch"):
        WrittenDataset(path)


LIMITED = """
import resource, sys
from pathlib import Path
from teddytok_rs.torch import WrittenDataset

written = WrittenDataset(sys.argv[1])
assert written[0]
limit = getattr(resource, sys.argv[2])
pages = int(Path("/proc/self/statm").read_text().split()[0])
# The second shard is longer than what is left.
least = 3 if limit == resource.RLIMIT_NOFILE else pages * resource.getpagesize() + 3_000_000
resource.setrlimit(limit, (least, resource.getrlimit(limit)[1]))
try:
    written[len(written) - 1]
except OSError as error:
    print(error.kind, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize(("limit", "kind"), [("RLIMIT_NOFILE", "too_many_open_files"), ("RLIMIT_AS", "out_of_memory")])
def test_a_limit_of_the_system_is_named_and_the_file_is_not_blamed(tmp_path, limit, kind):
    cells = make_cells(600, text=["long " * 4000] * 600)
    args = make_args(tmp_path, obs_columns=["text"], max_shard_samples=300)
    path = teddytok_rs.tokenize_to_disk(cells, args, tmp_path).path
    assert (path / "data-00001-of-00002.arrow").stat().st_size > 5_000_000
    ran = subprocess.run([sys.executable, "-c", LIMITED, str(path), limit], capture_output=True, text=True, check=False)
    assert ran.stdout.startswith(f"{kind} "), ran
    assert "damaged" not in ran.stdout


def test_maps_are_bounded_whatever_the_number_of_shards(tmp_path, source, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_MAPPED", 5)
    path = teddytok_rs.tokenize_to_disk(source, args_for(tmp_path, max_shard_samples=20), tmp_path).path
    written = WrittenDataset(path)

    def n_maps() -> int:
        maps = Path("/proc/self/maps")
        return maps.read_text().count(str(path)) if maps.exists() else len(written._open)

    order = np.random.default_rng(0).permutation(N_CELLS).tolist()
    most = 0
    for index in order:
        assert written[index]["number"] == index
        most = max(most, n_maps())
    assert most == 5
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda index: written[index]["number"], order)) == order
    assert n_maps() <= 5


# ---- on the fly


@pytest.mark.parametrize("keys", OPTIONS.values(), ids=OPTIONS)
def test_on_the_fly_is_to_the_bit_what_is_written(tmp_path, source, keys):
    args = args_for(tmp_path, **{"obs_columns": ["number"], **keys})
    written = WrittenDataset(teddytok_rs.tokenize_to_disk(source, args, tmp_path).path)
    in_order = list(OnTheFlyDataset(source, args, shuffle=False))
    assert len(in_order) == len(written) == len(OnTheFlyDataset(source, args))
    assert all(same(cell, expected) for cell, expected in zip(in_order, written, strict=True))
    shuffled = OnTheFlyDataset(source, args | {"obs_columns": ["index", "number"]}, buffer_cells=50)
    kept = {cell["number"]: cell for cell in OnTheFlyDataset(source, args | {"obs_columns": ["index", "number"]})}
    assert all(same(cell, kept[cell["number"]]) for cell in shuffled)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_each_cell_once_and_as_it_is_written(tmp_path, folder, suffix, start):
    source = folder / f"cells.{suffix}"
    if suffix == "zarr" and not source.exists():
        pytest.importorskip("zarr")
        save(make_cells(N_CELLS, number=np.arange(N_CELLS)), source)
    args = args_for(
        tmp_path, random_genes=True, random_genes_count=5, batch_size=100, gene_seed=3, max_seq_len=8, pad_length=8
    )
    written = WrittenDataset(teddytok_rs.tokenize_to_disk(source, args, tmp_path).path)
    dataset = OnTheFlyDataset(source, args, seed=1, buffer_cells=64)
    assert next(iter(dataset))  # the source is open when the workers start
    seen = []
    for batch in loader(dataset, 2, start):
        seen += batch["number"]
        expected = Collator.for_dataset(written)([written[number] for number in batch["number"]])
        assert same(batch, expected)
    assert sorted(seen) == list(range(N_CELLS))
    assert seen != sorted(seen)


def test_an_order_can_be_repeated_and_epochs_differ(tmp_path, source):
    dataset = OnTheFlyDataset(source, args_for(tmp_path), seed=5, buffer_cells=64)
    order = {}
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        now = [cell["number"] for cell in dataset]
        assert sorted(now) == list(range(N_CELLS))
        assert order.setdefault(epoch, now) == now
    assert order[0] != order[1]
    again = OnTheFlyDataset(source, args_for(tmp_path), seed=5, buffer_cells=64)
    assert [cell["number"] for cell in again] == order[0]
    other = OnTheFlyDataset(source, args_for(tmp_path), seed=6, buffer_cells=64)
    assert [cell["number"] for cell in other] != order[0]
    # Pinned, so that an order outlasts releases of NumPy.
    assert order[0][:8] == [546, 548, 575, 551, 572, 579, 571, 537]


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_differ_without_set_epoch_and_can_be_repeated(tmp_path, source, workers):
    orders = []
    for _ in range(2):
        dataset = OnTheFlyDataset(source, args_for(tmp_path), seed=5, buffer_cells=64)
        batches = loader(dataset, workers)
        orders.append([numbers(batches) for _ in range(3)])
        dataset.set_epoch(0)
        orders[-1].append(numbers(batches))
    assert orders[0] == orders[1]
    first, second, third, again = orders[0]
    assert first != second != third != first
    assert again == first
    assert sorted(first) == sorted(second) == sorted(third) == list(range(N_CELLS))


def test_a_rank_or_worker_that_began_more_often_loses_no_cell(tmp_path, source):
    dataset = OnTheFlyDataset(source, args_for(tmp_path), seed=5, buffer_cells=64)
    seen = []
    for rank in (0, 1):
        mine = pickle.loads(pickle.dumps(dataset))
        mine._rank = (rank, 2)  # as a worker that a rank spawned
        for _ in range(rank):
            next(iter(mine))
        seen += [cell["number"] for cell in mine]
    assert sorted(seen) == list(range(N_CELLS))


@pytest.mark.parametrize("batch_size", [1, 32, 256])
def test_the_length_of_a_loader_counts_the_batches_of_all_workers(tmp_path, source, batch_size):
    dataset = OnTheFlyDataset(source, args_for(tmp_path))
    batches = loader(dataset, 3, batch_size=batch_size)
    assert len(list(batches)) == len(batches) == -(-N_CELLS // batch_size)


def test_the_shuffle_mixes_cells_of_several_blocks(tmp_path, source):
    dataset = OnTheFlyDataset(source, args_for(tmp_path), buffer_cells=600)
    first = [cell["number"] for cell in itertools.islice(dataset, 60)]
    assert len({number // BLOCK_CELLS for number in first}) == 3


def test_the_epoch_reaches_workers_that_outlive_it(tmp_path, source):
    dataset = OnTheFlyDataset(source, args_for(tmp_path), buffer_cells=64)
    batches = loader(dataset, 2, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        orders.append(numbers(batches))
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[1]) == list(range(N_CELLS))


def test_a_drawn_gene_seed_is_one_for_all_workers_and_reported(tmp_path, source):
    args = args_for(tmp_path, random_genes=True, random_genes_count=5, batch_size=7, max_seq_len=8, pad_length=8)
    dataset = OnTheFlyDataset(source, args)
    written = WrittenDataset(teddytok_rs.tokenize_to_disk(source, dataset.args, tmp_path).path)
    for batch in loader(dataset, 2):
        assert same(batch, Collator.for_dataset(written)([written[number] for number in batch["number"]]))
    assert OnTheFlyDataset(source, args).args.gene_seed != dataset.args.gene_seed


def test_several_sources_are_one(tmp_path, source):
    save(make_cells(300, number=np.arange(1000, 1300)), tmp_path / "more.h5ad")
    dataset = OnTheFlyDataset([source, str(tmp_path / "more.h5ad")], args_for(tmp_path), buffer_cells=2000)
    expected = [*range(N_CELLS), *range(1000, 1300)]
    assert len(dataset) == 1000
    assert sorted(numbers(loader(dataset, 2))) == expected
    in_order = OnTheFlyDataset(dataset.sources, dataset.args, shuffle=False)
    assert [cell["number"] for cell in in_order] == expected


def test_classes_are_numbered_over_all_sources_and_numbers_are_no_classes(tmp_path, source):
    more = make_cells(30)
    more.obs["cell_type"] = "T cell"
    more.obs["number"] = np.arange(30)
    save(more, tmp_path / "more.h5ad")
    args = args_for(tmp_path, label_column="cell_type")
    dataset = OnTheFlyDataset([source, tmp_path / "more.h5ad"], args, shuffle=False)
    names = dataset.args.label_names
    assert names == tuple(sorted(LABELS["cell_type"]))
    assert [cell["labels"] for cell in dataset][-30:] == [names.index("T cell")] * 30
    more.obs["cell_type"] = 1.5
    save(more, tmp_path / "more.h5ad")
    with raises("config_conflict", "more.h5ad holds numbers"):
        OnTheFlyDataset([source, tmp_path / "more.h5ad"], args)


def test_a_source_that_changed_is_not_read(tmp_path, source):
    shutil.copy(source, tmp_path / "cells.h5ad")
    dataset = OnTheFlyDataset(tmp_path / "cells.h5ad", args_for(tmp_path))
    save(make_cells(N_CELLS, number=np.arange(N_CELLS)), tmp_path / "cells.h5ad")
    with raises("source_changed"):
        next(iter(dataset))


@pytest.mark.parametrize("keys", [{"seed": -1}, {"seed": 2**64}, {"seed": 1.5}, {"buffer_cells": 0}])
def test_a_seed_and_a_buffer_are_numbers_of_their_range(tmp_path, source, keys):
    with raises("config_value", next(iter(keys))):
        OnTheFlyDataset(source, args_for(tmp_path), **keys)


def test_on_the_fly_takes_paths_and_at_least_one(tmp_path):
    for sources in (make_cells(), [make_cells()]):
        with raises("config_value", "sources = 'AnnData'"):
            OnTheFlyDataset(sources, args_for(tmp_path))
    with raises("no_sources", "OnTheFlyDataset"):
        OnTheFlyDataset([], args_for(tmp_path))
    with raises("source_not_found"):
        OnTheFlyDataset(tmp_path / "nowhere.h5ad", args_for(tmp_path))


# ---- ranks

RANK = """
import json, sys
import torch
from torch.utils.data import DataLoader
from teddytok_rs.errors import TeddytokError
from teddytok_rs.torch import Collator, OnTheFlyDataset

if __name__ == "__main__":
    rank, store, source, args, start, drop_last = json.loads(sys.argv[1])
    early = OnTheFlyDataset(source, args, seed=2, drop_last=drop_last, buffer_cells=64)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    told = []
    for keys in ({}, {"random_genes": True}):
        try:
            OnTheFlyDataset(source, args | keys, drop_last=False if keys else None)
        except TeddytokError as error:
            told.append(str(error))
    collate = Collator.for_dataset(early)
    options = {"num_workers": 2, "multiprocessing_context": start, "persistent_workers": start == "spawn"}
    loader = DataLoader(early, 10, collate_fn=collate, **options)
    orders, batches = [], 0
    for epoch in (0, 1):
        early.set_epoch(epoch)
        orders.append([])
        for batch in loader:
            orders[-1] += batch["number"]
            batches += epoch == 0
    print(json.dumps([len(early), batches, orders, told]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


@pytest.mark.timeout(400)  # each of four spawned workers imports PyTorch
@pytest.mark.parametrize(("start", "drop_last"), [("fork", False), ("spawn", True)])
def test_two_ranks_of_two_workers_share_the_cells(tmp_path, start, drop_last):
    n_cells = 1441  # one is over; and the last batch of one rank's worker would be empty but for it
    save(make_cells(n_cells, number=np.arange(n_cells)), tmp_path / "cells.h5ad")
    (tmp_path / "rank.py").write_text(RANK, encoding="utf-8")
    given = [str(tmp_path / "store"), str(tmp_path / "cells.h5ad"), args_for(tmp_path), start, drop_last]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "rank.py"), json.dumps([rank, *given])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    (one, other) = (json.loads(out.splitlines()[-1]) for out, _ in said)
    for epoch in (0, 1):
        seen = sorted(one[2][epoch] + other[2][epoch])
        assert len(seen) == len(set(seen)) == n_cells - drop_last
    assert one[2][0] != one[2][1]
    assert (one[0], other[0]) == ((720, 720) if drop_last else (720, 721))
    # Of each rank's cells the first worker has 256, the other the rest.
    assert (one[1], other[1]) == (26 + 47, 26 + 47)
    for told in (one[3], other[3]):
        assert ["drop_last" in told[0], "gene_seed" in told[1]] == [True, True]


# ---- training


@pytest.fixture
def one_thread():
    """On a busy machine, PyTorch's threads wait longer for each other than such a small model takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_small_model_learns(tmp_path):
    torch.manual_seed(0)
    expressed = make_counts(N_CELLS)[:, 0] > 0  # what the tokens tell
    source = save(make_cells(N_CELLS, expressed=expressed), tmp_path / "cells.h5ad")
    dataset = OnTheFlyDataset(source, make_args(tmp_path, max_seq_len=12, label_column="expressed", add_cls=True))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(len(TOKEN), 16, padding_idx=TOKEN["<pad>"])
            layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0, batch_first=True)
            self.encoder = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.head = torch.nn.Linear(16, 2)

        def forward(self, gene_ids, attention_mask, values, labels, **more):
            hidden = self.embedding(gene_ids) + values[:, :, None]
            hidden = self.encoder(hidden, src_key_padding_mask=~attention_mask.bool())
            return torch.nn.functional.cross_entropy(self.head(hidden[:, 0]), labels)

    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for batch in loader(dataset):
            loss = model(**batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[0] > 0.5
    assert max(losses[-5:]) < 0.1


MANY_SOURCES = """
import resource, sys
from pathlib import Path
from teddytok_rs import demo
from teddytok_rs.torch import OnTheFlyDataset
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
paths = sorted(Path(sys.argv[1]).glob("*.h5ad"))
dataset = OnTheFlyDataset(paths, demo.args(max_seq_len=4))
for epoch in range(2):
    dataset.set_epoch(epoch)
    assert sum(1 for _ in dataset) == 700 * len(paths) == len(dataset)
left = [str(place) for handle in Path("/proc/self/fd").iterdir() if (place := handle.resolve()).suffix == ".h5ad"]
print(len(paths), left)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the handles of a process are counted in /proc")
def test_more_sources_are_read_than_the_system_allows_files(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.h5ad").symlink_to(demo.CELLS)
    command = [sys.executable, "-c", MANY_SOURCES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("40 []\n", 0), done.stderr
