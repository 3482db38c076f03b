"""Parquet and WebDataset hold what Arrow holds, to the readers of each, and are written as durably."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import multiprocessing
import random
import resource
import signal
import subprocess
import sys
import tarfile
import time
import typing
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cells
import teddytok_rs
from folders import contents
from raises import raises
from teddytok_rs import Manifest, demo, tokenize, tokenize_to_disk
from teddytok_rs.output.layout import INFO, JOURNAL, MANIFEST, SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

N_CELLS = 2345
OTHERS = ["parquet", "webdataset"]
#: Times that a run is killed.
KILLS = 12
EVERY_OTHER = pytest.mark.parametrize("name", OTHERS)
DEMO = {"max_shard_samples": 150, "random_genes": True, "random_genes_count": 300, "gene_seed": 11}
#: webdataset leaves it to the garbage collector to close what it read.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning"),
]


def many_cells(n_cells: int = N_CELLS) -> Any:
    return cells.make_cells(
        n_cells,
        number=np.arange(n_cells, dtype="i2"),
        real=np.where(np.arange(n_cells) % 5, np.linspace(0, 1, n_cells), np.nan),
        single=np.linspace(0, 1, n_cells, dtype="f4"),
        flag=np.arange(n_cells) % 3 == 0,
        note=pd.array([None if row % 7 else f"n{row} \u00fc.\n" for row in range(n_cells)], dtype="string"),
    )


def many_args(folder: Path, **keys: Any) -> dict[str, Any]:
    columns = ["index", "number", "real", "single", "flag", "note"]
    keys = {"bio_annotations": True, "label_column": "cell_type", "obs_columns": columns, **keys}
    return cells.make_args(folder, max_shard_samples=1001, **keys)


class Written:
    """The same cells, with every kind of column, in all formats."""

    def __init__(self, folder: Path) -> None:
        self.source = many_cells()
        self.args = many_args(folder)
        self.table = tokenize(self.source, self.args)
        self.manifests = {
            name: tokenize_to_disk(self.source, {**self.args, "format": name}, folder / name, name="many")
            for name in SUFFIXES
        }

    def files(self, name: str) -> list[str]:
        manifest = self.manifests[name]
        return [str(manifest.path / shard.file) for shard in manifest.shards]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("written"))


def test_the_formats_are_those_of_the_argument():
    annotation = teddytok_rs.TokenizationArgs.model_fields["format"].annotation
    assert list(SUFFIXES) == list(typing.get_args(annotation))
    assert [*SUFFIXES][1:] == OTHERS


@EVERY_OTHER
def test_a_folder_holds_these_files_and_no_others(name: str, written: Written):
    shards = [f"data-0000{number}-of-00003{SUFFIXES[name]}" for number in range(3)]
    found = sorted(path.name for path in written.manifests[name].path.iterdir())
    assert found == [*shards, "dataset_info.json", "genes.csv", "teddytok.json", "vocab.txt"]


@EVERY_OTHER
def test_datasets_does_not_take_it_for_a_dataset_of_its_own(name: str, written: Written):
    datasets = pytest.importorskip("datasets")
    with pytest.raises(FileNotFoundError):
        datasets.load_from_disk(str(written.manifests[name].path))


# ---- as Parquet's readers see it


def test_datasets_reads_parquet_as_it_reads_arrow(written: Written, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    arrow = datasets.load_from_disk(str(written.manifests["arrow"].path))
    files = written.files("parquet")
    parquet = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert parquet.features == arrow.features
    assert parquet.features["labels"].names == sorted(cells.LABELS["cell_type"])
    assert parquet.with_format("arrow")[:].to_pydict() == arrow.with_format("arrow")[:].to_pydict()
    streamed = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    assert streamed.features == arrow.features
    assert list(streamed.take(1002)) == [arrow[row] for row in range(1002)]


def test_pyarrow_and_pandas_read_parquet(written: Written):
    files = written.files("parquet")
    table = pa.concat_tables([pq.read_table(file) for file in files])
    assert table.schema.metadata == written.table.schema.metadata
    assert [str(field.type) for field in table.schema] == [
        str(field.type).replace("item", "element") for field in written.table.schema
    ]
    assert table.to_pydict() == written.table.to_pydict()
    frame = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    assert frame["cell_id"].tolist() == [f"cell-{row}" for row in range(N_CELLS)]
    np.testing.assert_array_equal(frame["gene_ids"][7], written.table["gene_ids"][7].as_py())


def test_row_groups_are_of_1000_cells_and_compressed(written: Written):
    sizes = []
    for file in written.files("parquet"):
        metadata = pq.read_metadata(file)
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        sizes.append([group.num_rows for group in groups])
        columns = [group.column(column) for group in groups for column in range(group.num_columns)]
        assert {column.compression for column in columns} == {"ZSTD"}
    assert sizes == [[1000, 1], [1000, 1], [343]]


@pytest.mark.parametrize("token_dtype", ["uint16", "int64"])
@EVERY_OTHER
def test_types_are_kept(name: str, token_dtype: str, tmp_path: Path):
    args = cells.make_args(tmp_path, token_dtype=token_dtype, bins=4, format=name)
    manifest = tokenize_to_disk(cells.make_cells(), args, tmp_path / "out")
    path = manifest.path / manifest.shards[0].file
    wanted = tokenize(cells.make_cells(), args)
    if name == "parquet":
        assert pq.read_table(path).cast(wanted.schema).equals(wanted)
        assert pq.read_table(path).schema.field("gene_ids").type.value_type == token_dtype
    else:
        sample = next(iter(wds_samples([str(path)])))
        assert {key: str(sample[key].dtype) for key in sample if key.endswith("npy")} == {
            "gene_ids.npy": token_dtype, "values.npy": "int32",
        }  # fmt: skip
    assert teddytok_rs.inspect(manifest.path).schema.equals(wanted.schema, check_metadata=True)


# ---- as WebDataset's readers see it


def wds_samples(files: list[str]) -> Any:
    webdataset = pytest.importorskip("webdataset")
    return webdataset.WebDataset(files, shardshuffle=False).decode()


def as_row(sample: dict[str, Any], names: list[str]) -> dict[str, Any]:
    lists = {name: sample[f"{name}.npy"].tolist() for name in names if f"{name}.npy" in sample}
    classes = {"labels": sample["labels.cls"]} if "labels.cls" in sample else {}
    row = lists | classes | sample.get("obs.json", {})
    return {name: row[name] for name in names}


def test_webdataset_decodes_what_was_tokenized(written: Written):
    names = written.table.column_names
    samples = list(wds_samples(written.files("webdataset")))
    assert [sample["__key__"] for sample in samples] == [f"{row:09d}" for row in range(N_CELLS)]
    assert {"gene_ids.npy", "values.npy", "bio_annotations.npy", "labels.cls", "obs.json"} < samples[0].keys()
    assert [as_row(sample, names) for sample in samples] == written.table.to_pylist()
    first = samples[0]
    assert (first["gene_ids.npy"].dtype, first["values.npy"].dtype) == (np.int32, np.float32)
    described = json.loads((written.manifests["webdataset"].path / INFO).read_text(encoding="utf-8"))
    names = described["features"]["labels"]["names"]
    assert [names[sample["labels.cls"]] for sample in samples[:9]] == list(written.source.obs["cell_type"][:9])


def test_datasets_reads_webdataset(written: Written):
    datasets = pytest.importorskip("datasets")
    read = datasets.load_dataset("webdataset", data_files=written.files("webdataset"), split="train", streaming=True)
    rows = list(read.take(1002))
    assert [as_row({key: np.asarray(value) if key.endswith("npy") else value for key, value in row.items()},
                   ["gene_ids", "labels", "number"]) for row in rows] == (
        written.table.select(["gene_ids", "labels", "number"]).slice(0, 1002).to_pylist()
    )  # fmt: skip


def test_a_dataloader_takes_webdataset(written: Written):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; it is an extra of several GB")
    dataset = wds_samples(written.files("webdataset")).to_tuple("gene_ids.npy", "labels.cls")
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)
    found = sorted((ids.tolist(), int(label)) for ids, label in loader)
    columns = written.table["gene_ids"].to_pylist(), written.table["labels"].to_pylist()
    assert found == sorted(zip(*columns, strict=True))


@pytest.mark.parametrize(
    ("keys", "members"),
    [
        ({}, {"gene_ids.npy", "values.npy"}),
        ({"write_values": False, "add_disease_annotation": True}, {"gene_ids.npy", "labels.cls"}),
        ({"write_values": False, "label_column": "weight"}, {"gene_ids.npy", "obs.json"}),
    ],
)
def test_a_column_that_was_not_written_is_no_member(keys: dict[str, Any], members: set[str], tmp_path: Path):
    args = cells.make_args(tmp_path, format="webdataset", **keys)
    source = cells.make_cells(weight=[0.5] * 6)
    manifest = tokenize_to_disk(source, args, tmp_path / "out")
    for sample in wds_samples([str(manifest.path / manifest.shards[0].file)]):
        assert {key for key in sample if not key.startswith("__")} == members
    assert teddytok_rs.verify(manifest.path).problems == []


@EVERY_OTHER
def test_a_column_of_ones_own_that_is_called_labels_may_lack_values(name: str, tmp_path: Path):
    labels = pd.array([1, None, 3, None, 5, 6], dtype="Int64")
    args = cells.make_args(tmp_path, obs_columns=["labels"], format=name)
    manifest = tokenize_to_disk(cells.make_cells(labels=labels), args, tmp_path / "out")
    found = teddytok_rs.inspect(manifest.path, cells=6).sequences
    assert [sequence.annotations["labels"] for sequence in found] == [1, None, 3, None, 5, 6]
    assert teddytok_rs.verify(manifest.path).problems == []


# ---- as the package itself sees it


@EVERY_OTHER
def test_verify_and_inspect_see_what_they_see_of_arrow(name: str, written: Written):
    manifest = written.manifests[name]
    assert teddytok_rs.verify(manifest.path).problems == []
    mine, arrow = (teddytok_rs.inspect(written.manifests[other].path, cells=1500) for other in (name, "arrow"))
    assert mine.sequences == arrow.sequences
    assert mine.schema.equals(arrow.schema, check_metadata=True)
    counts = [(shard.rows, shard.tokens, shard.expression) for shard in manifest.shards]
    assert counts == [(shard.rows, shard.tokens, shard.expression) for shard in written.manifests["arrow"].shards]


@pytest.mark.parametrize("name", SUFFIXES)
def test_check_reports_the_size(name: str, written: Written):
    told = teddytok_rs.check(written.source, {**written.args, "format": name}).n_bytes
    size = sum(shard.bytes for shard in written.manifests[name].shards)
    assert size < told if name == "parquet" else 0.8 < told / size < 1.2  # half a block is a guess for short members


@EVERY_OTHER
def test_a_source_without_cells_is_a_dataset_without_rows(name: str, tmp_path: Path):
    nothing = cells.make_cells()[:0].copy()
    nothing.obs["sex"] = pd.Categorical([], categories=["female", "male"])
    args = cells.make_args(tmp_path, label_column="sex", format=name)
    manifest = tokenize_to_disk(nothing, args, tmp_path / "out")
    assert (manifest.n_cells, len(manifest.shards)) == (0, 1)
    assert teddytok_rs.verify(manifest.path).problems == []
    assert teddytok_rs.inspect(manifest.path).sequences == []
    if name == "parquet":
        assert pq.read_table(manifest.path / manifest.shards[0].file).num_rows == 0
    else:
        with tarfile.open(manifest.path / manifest.shards[0].file) as tar:
            assert tar.getnames() == []


@EVERY_OTHER
def test_a_cell_without_expression_stays_a_row(name: str, tmp_path: Path):
    x = cells.make_counts()
    x[[0, 3, 5]] = 0
    manifest = tokenize_to_disk(cells.with_layer(x), cells.make_args(tmp_path, format=name), tmp_path / "out")
    empty = [not sequence.genes for sequence in teddytok_rs.inspect(manifest.path, cells=6).sequences]
    assert empty == [True, False, False, True, False, True]


def test_the_library_that_is_missing_is_named_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    args = demo.args(format="webdataset")
    with raises("format_extra", "'webdataset'", "teddytok-rs[webdataset]"):
        tokenize_to_disk(demo.CELLS, args, tmp_path / "out")
    with raises("format_extra"):
        teddytok_rs.tokenize_corpus(demo.CELLS, args, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_torch_is_needed_neither_to_write_nor_to_read_webdataset(tmp_path: Path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import teddytok_rs, webdataset; from teddytok_rs import demo\n"
        "path = teddytok_rs.tokenize_to_disk(demo.CELLS, demo.args(format='webdataset'), 'out').path\n"
        "samples = webdataset.WebDataset(str(path / 'data-00000-of-00001.tar'), shardshuffle=False).decode()\n"
        "print(sum(len(sample['gene_ids.npy']) for sample in samples))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert int(process.stdout) == json.loads((tmp_path / "out/cells" / MANIFEST).read_text())["totals"]["tokens"]


# ---- the same bytes


@EVERY_OTHER
def test_any_threads_and_chunks_write_the_same_files(name: str, tmp_path: Path):
    args = demo.args(format=name, obs_columns=["index"], **DEMO)
    files = [
        contents(
            tokenize_to_disk(
                demo.CELLS, args, tmp_path / f"{threads} {chunk_bytes}", threads=threads, chunk_bytes=chunk_bytes
            ).path
        )
        for threads, chunk_bytes in [(1, None), (2, None), (7, None), (1, 1), (2, 10_000), (7, 2**20), (2, 2**62)]
    ]
    assert len(files[0]) == 5 + 3 + 2
    assert files == [files[0]] * len(files)


@EVERY_OTHER
def test_the_time_and_the_user_are_not_in_the_bytes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    args = demo.args(format=name)
    now = tokenize_to_disk(demo.CELLS, args, tmp_path / "now").shards
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setenv("USER", "somebody else")
    assert tokenize_to_disk(demo.CELLS, args, tmp_path / "then").shards == now


def test_the_members_of_a_tar_file_are_plain(written: Written):
    with tarfile.open(written.files("webdataset")[0]) as tar:
        members = tar.getmembers()[:10]
    assert {(tar.mtime, tar.uid, tar.gid, tar.uname, tar.gname, tar.mode) for tar in members} == {
        (0, 0, 0, "", "", 0o444)
    }
    order = [f"00000000{row}.{name}" for row in (0, 1)
             for name in ("bio_annotations.npy", "gene_ids.npy", "labels.cls", "obs.json", "values.npy")]  # fmt: skip
    assert [member.name for member in members] == order


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@EVERY_OTHER
def test_processes_write_the_same_corpus(name: str, processes: ProcessPoolExecutor, tmp_path: Path):
    for stem in ("a", "b"):
        (tmp_path / f"{stem}.h5ad").write_bytes(demo.CELLS.read_bytes())
    args = demo.args(format=name, **DEMO)
    alone = tokenize_to_disk(tmp_path / "a.h5ad", args, tmp_path / "alone")
    corpus = teddytok_rs.tokenize_corpus(tmp_path / "*.h5ad", args, tmp_path / "corpus", executor=processes)
    assert [source.error for source in corpus.sources] == [None, None]
    shards = {shard.file: shard.sha256 for shard in alone.shards}
    assert shards.items() <= contents(tmp_path / "corpus" / "a").items()
    assert teddytok_rs.verify(tmp_path / "corpus").problems == []
    (tmp_path / "c.h5ad").write_bytes(demo.CELLS.read_bytes())
    before = contents(tmp_path / "corpus" / "b")
    more = teddytok_rs.tokenize_corpus(tmp_path / "*.h5ad", args, tmp_path / "corpus")
    assert [(source.folder, source.error) for source in more.sources] == [("a", None), ("b", None), ("c", None)]
    assert contents(tmp_path / "corpus" / "b") == before
    with raises("output_differs", f"format ({name!r} there, 'arrow' now)"):
        teddytok_rs.tokenize_corpus(tmp_path / "*.h5ad", demo.args(**DEMO), tmp_path / "corpus")


# ---- runs that end early, and damage


def run(save_dir: Path, name: str, threads: int = 2) -> None:
    tokenize_to_disk(demo.CELLS, demo.args(format=name, **{**DEMO, "max_shard_samples": 23}), save_dir, threads=threads)


def in_child(target: Any, *words: Any) -> Any:
    child = multiprocessing.get_context("fork").Process(target=target, args=words)
    child.start()
    return child


@EVERY_OTHER
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(name: str, tmp_path: Path):
    began = time.perf_counter()
    run(tmp_path / "undisturbed", name)
    whole = time.perf_counter() - began
    undisturbed = contents(tmp_path / "undisturbed" / "cells")
    moments = random.Random(1)
    kills = finished = 0
    while kills < KILLS:
        folder = tmp_path / f"run{finished}" / "cells"
        while True:
            child = in_child(run, folder.parent, name)
            # On a busy machine a run may take longer than the first did: then the last one is let to its end.
            child.join(moments.uniform(0, 1.1 * whole) if kills < KILLS else None)
            if child.exitcode is not None:
                break
            child.kill()
            child.join()
            kills += 1
            if (folder / MANIFEST).exists():
                assert not teddytok_rs.verify(folder).problems or (folder / JOURNAL).exists()
        assert child.exitcode == 0
        assert contents(folder) == undisturbed
        finished += 1


@pytest.mark.parametrize("threads", [1, 2])
@EVERY_OTHER
def test_a_full_disk_is_one_clear_error_and_the_run_continues_later(name: str, threads: int, tmp_path: Path):
    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
        with raises("output_failed", "file too large"):
            run(tmp_path / "out", name, threads)

    child = in_child(fill)
    child.join()
    assert child.exitcode == 0
    run(tmp_path / "out", name)
    run(tmp_path / "undisturbed", name)
    assert contents(tmp_path / "out" / "cells") == contents(tmp_path / "undisturbed" / "cells")


@EVERY_OTHER
def test_a_run_that_fails_leaves_no_dataset_and_no_parts(name: str, tmp_path: Path):
    x = np.tile(cells.make_counts(), (400, 1))
    x[2222, 4] = np.nan
    with raises("not_finite"):
        tokenize_to_disk(cells.with_layer(x), cells.make_args(tmp_path, format=name), tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith("data-")]
    assert not (tmp_path / "out" / "anndata" / MANIFEST).exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "grow"])
@EVERY_OTHER
def test_verify_names_a_damaged_shard_and_the_same_run_repairs_it(name: str, damage: str, tmp_path: Path):
    args = demo.args(format=name, **DEMO)
    folder = tokenize_to_disk(demo.CELLS, args, tmp_path).path
    before = contents(folder)
    shard = folder / f"data-00002-of-00005{SUFFIXES[name]}"
    whole = bytearray(shard.read_bytes())
    if damage == "flip":
        whole[len(whole) // 2] ^= 1
    shard.write_bytes({"flip": whole, "cut": whole[:-100], "grow": whole + b"\0", "remove": b""}[damage])
    if damage == "remove":
        shard.unlink()
    (problem,) = teddytok_rs.verify(folder).problems
    assert shard.name in problem
    if damage == "flip":  # as long as it was: not looked at, as ever
        shard.unlink()
    tokenize_to_disk(demo.CELLS, args, tmp_path)
    assert contents(folder) == before


@EVERY_OTHER
def test_a_repair_that_is_killed_is_continued(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from teddytok_rs.output import run as module

    args = demo.args(format=name, **DEMO)
    folder = tokenize_to_disk(demo.CELLS, args, tmp_path).path
    before = contents(folder)
    for path in list(folder.glob("data-*"))[:2]:
        path.unlink()
    write_file = module.write_file

    def killed(path: Path, text: str) -> None:
        if path.name == MANIFEST:
            raise KeyboardInterrupt
        write_file(path, text)

    monkeypatch.setattr(module, "write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        tokenize_to_disk(demo.CELLS, args, tmp_path)
    monkeypatch.undo()
    assert tokenize_to_disk(demo.CELLS, args, tmp_path).n_cells == 700
    assert contents(folder) == before


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("there", "now"), [("arrow", "parquet"), ("parquet", "webdataset"), ("webdataset", "arrow"), ("parquet", "arrow")]
)
def test_a_folder_of_another_format_is_refused(
    there: str, now: str, finished: bool, tmp_path: Path, interrupt_after: Any
):
    with nullcontext() if finished else interrupt_after(2):
        tokenize_to_disk(demo.CELLS, demo.args(format=there, **DEMO), tmp_path)
    before = contents(tmp_path / "cells")
    with raises("output_differs", f"format ({there!r} there, {now!r} now)"):
        tokenize_to_disk(demo.CELLS, demo.args(format=now, **DEMO), tmp_path)
    assert contents(tmp_path / "cells") == before
    tokenize_to_disk(demo.CELLS, demo.args(format=now, **DEMO), tmp_path, overwrite=True)
    fresh = tokenize_to_disk(demo.CELLS, demo.args(format=now, **DEMO), tmp_path / "fresh")
    assert contents(tmp_path / "cells") == contents(fresh.path)


@EVERY_OTHER
def test_other_classes_than_were_written_are_seen(name: str, tmp_path: Path):
    folder = tokenize_to_disk(demo.CELLS, demo.args(format=name, **DEMO), tmp_path).path
    text = (folder / INFO).read_text(encoding="utf-8")
    (folder / INFO).write_text(text.replace("CD14+ Monocyte", "CD14+ monocyte"), encoding="utf-8")
    assert teddytok_rs.verify(folder).problems == [f"{INFO} is damaged (checksum mismatch)"]


# ---- manipulated files with matching checksums


def tampered(folder: Path, content: bytes) -> None:
    """Put other content into the only shard, and into the manifest what fits it."""
    manifest = Manifest.read(folder)
    (shard,) = manifest.shards
    (folder / shard.file).write_bytes(content)
    shard = dataclasses.replace(shard, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest = manifest.with_shards([shard])
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def tar_of(*members: tuple[str, bytes | None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(content)
            tar.addfile(info, None if content is None else io.BytesIO(content))
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


GOOD = npy(np.arange(3, dtype="i4"))
LONGER = GOOD.replace(b"(3,), }         ", b"(999999999999,)}")
TARS = {
    "no tar": b"no tar file at all" * 99,
    "a link": tar_of(("000000000.gene_ids.npy", None)),
    "objects": tar_of(("000000000.gene_ids.npy", npy(np.array([None, 1])))),
    "other numbers": tar_of(("000000000.gene_ids.npy", npy(np.arange(3.0)))),
    "a longer array": tar_of(("000000000.gene_ids.npy", LONGER)),
    "no array": tar_of(("000000000.gene_ids.npy", b"\x93NUMPY")),
    "a missing member": tar_of(("000000000.values.npy", npy(np.zeros(3, "f4")))),
    "no JSON": tar_of(("000000000.obs.json", b"{")),
    "a list": tar_of(("000000000.gene_ids.npy", GOOD), ("000000000.obs.json", b"[]")),
    "pickle": tar_of(("000000000.pickle", b"cos\nsystem\n(S'touch stolen'\ntR.")),
}


@pytest.mark.parametrize("content", TARS.values(), ids=TARS.keys())
def test_a_tar_file_of_others_is_refused_and_runs_nothing(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    folder = tokenize_to_disk(demo.CELLS, demo.args(format="webdataset"), tmp_path).path
    tampered(folder, content)
    with raises("output_unreadable"):
        teddytok_rs.inspect(folder)
    (problem,) = teddytok_rs.verify(folder).problems
    assert "cannot be read" in problem
    assert not (tmp_path / "stolen").exists()


@EVERY_OTHER
def test_a_damaged_file_is_an_error_and_no_crash(name: str, tmp_path: Path):
    folder = tokenize_to_disk(demo.CELLS, demo.args(format=name, max_seq_len=8), tmp_path).path
    (path,) = folder.glob("data-*")
    whole = path.read_bytes()
    places, found = random.Random(5), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(8):
            damaged[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        tampered(folder, bytes(damaged))
        found += bool(teddytok_rs.verify(folder).problems)  # a checksum was made to fit: what else is seen is luck
    assert found
