"""A run that is killed, fills the disk or loses its source is continued to the same bytes, or refused with a reason."""

import errno
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import anndata
import pytest

import teddytok_rs
from command_line import teddytok
from folders import contents, damage_shard
from interrupting import interruptible
from raises import raises
from teddytok_rs import demo, tokenize_to_disk
from teddytok_rs.output.layout import JOURNAL

#: Kill-and-resume cycles; set it higher for a long search.
CYCLES = int(os.environ.get("TEDDYTOK_KILL_CYCLES", "30"))
ARGS = demo.args(max_shard_samples=23, random_genes=True, random_genes_count=300, gene_seed=11)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, str]:
    return contents(teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path_factory.mktemp("undisturbed")).path)


def in_child(target, *words) -> multiprocessing.Process:
    # Forked, so that a cycle costs no imports; the kernel leaves no thread behind that a fork would break.
    child = multiprocessing.get_context("fork").Process(target=target, args=words)
    child.start()
    return child


def run(save_dir: Path) -> None:
    teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, save_dir, threads=2)


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(tmp_path, undisturbed):
    began = time.perf_counter()
    run(tmp_path / "timed")
    whole = time.perf_counter() - began
    moments = random.Random(1)
    kills = finished = 0
    while kills < CYCLES:
        save_dir = tmp_path / f"run{finished}"
        while True:
            child = in_child(run, save_dir)
            # On a busy machine a run may take longer than the first did: then the last one is let to its end.
            child.join(moments.uniform(0, 1.1 * whole) if kills < CYCLES else None)
            if child.exitcode is not None:
                break
            child.kill()
            child.join()
            kills += 1
            folder = save_dir / "cells"
            if (folder / "state.json").exists():
                assert not teddytok_rs.verify(folder).problems or (folder / JOURNAL).exists()
        assert child.exitcode == 0
        assert contents(save_dir / "cells") == undisturbed
        finished += 1
    print(f"{kills} kills, {finished} finished runs")  # noqa: T201 -- the figure to quote


def test_finished_shards_are_kept_and_not_written_again(tmp_path, undisturbed, interrupted):
    folder = interrupted(tmp_path, shards=5)
    before = {path.name: path.stat().st_ino for path in folder.glob("data-*.arrow")}
    assert len(before) == 5
    teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path)
    assert {name: (folder / name).stat().st_ino for name in before} == before
    assert contents(folder) == undisturbed


@pytest.fixture
def interrupted(interrupt_after):
    """Return a function that makes a run which is interrupted after some shards."""

    def interrupt(save_dir: Path, *, shards: int, args=ARGS) -> Path:
        with interrupt_after(shards):
            teddytok_rs.tokenize_to_disk(demo.CELLS, args, save_dir)
        return save_dir / "cells"

    return interrupt


def test_a_run_without_a_finished_shard_locks_no_arguments(tmp_path, interrupted):
    interrupted(tmp_path, shards=0)
    other = type(ARGS)(**{**ARGS.model_dump(), "max_seq_len": 9})
    teddytok_rs.tokenize_to_disk(demo.CELLS, other, tmp_path)
    assert teddytok_rs.verify(tmp_path / "cells").problems == []


def test_an_unfinished_folder_is_not_a_dataset(tmp_path, interrupted):
    import datasets

    folder = interrupted(tmp_path, shards=3)
    with pytest.raises(FileNotFoundError):
        datasets.load_from_disk(folder)
    with raises("output_unreadable", "unfinished"):
        teddytok_rs.verify(folder)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "grow"])
def test_a_damaged_shard_is_written_again_on_resume(tmp_path, undisturbed, interrupted, damage):
    folder = interrupted(tmp_path, shards=4)
    damage_shard(folder / "data-00002-of-00031.arrow", damage)
    teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path)
    assert contents(folder) == undisturbed


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "grow"])
def test_verify_finds_a_damaged_shard(tmp_path, damage):
    folder = teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path).path
    assert teddytok_rs.verify(folder).problems == []
    damage_shard(folder / "data-00002-of-00031.arrow", damage)
    (problem,) = teddytok_rs.verify(folder).problems
    assert "data-00002-of-00031.arrow" in problem


def test_verify_finds_every_flipped_byte(tmp_path):
    folder = teddytok_rs.tokenize_to_disk(demo.CELLS, demo.args(max_seq_len=8), tmp_path).path
    (shard,) = folder.glob("data-*")
    whole = bytearray(shard.read_bytes())
    for place in random.Random(3).sample(range(len(whole)), 50):
        whole[place] ^= 1 << place % 8
        shard.write_bytes(whole)
        assert teddytok_rs.verify(folder).problems
        whole[place] ^= 1 << place % 8


def test_a_finished_run_is_left_as_it_is(tmp_path):
    manifest = teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path)
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in manifest.path.iterdir()}
    assert teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path) == manifest
    assert {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in manifest.path.iterdir()} == before


def test_a_run_killed_before_its_journal_was_removed_lists_its_shards_in_their_order(tmp_path, monkeypatch):
    from teddytok_rs.output import run as module

    remove = module.remove
    monkeypatch.setattr(module, "remove", lambda path: path.name != JOURNAL and remove(path))
    manifest = teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path)
    monkeypatch.undo()
    journal = manifest.path / JOURNAL
    head, *shards = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([head, *reversed(shards)]))  # threads finish them in any order
    assert teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path).shards == manifest.shards
    assert not journal.exists()


def test_a_finished_run_that_lost_a_shard_is_repaired(tmp_path, undisturbed):
    folder = teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path).path
    (folder / "data-00007-of-00031.arrow").unlink()
    teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path)
    assert contents(folder) == undisturbed


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "grow"])
@pytest.mark.parametrize("name", ["data-00007-of-00031.arrow", "genes.csv", "dataset_info.json", "state.json"])
def test_a_finished_run_that_is_damaged_is_repaired_and_reported(tmp_path, undisturbed, caplog, name, damage):
    folder = teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path).path
    inodes = {path.name: path.stat().st_ino for path in folder.glob("data-*")}
    damage_shard(folder / name, damage)
    caplog.clear()
    n_kept = tokenize_to_disk(demo.CELLS, ARGS, tmp_path).n_kept
    assert contents(folder) == undisturbed
    messages = [record.message for record in caplog.records if "has a token" not in record.message]
    assert messages == [f"{folder / name} is damaged: written again"]
    assert n_kept == 31 - name.startswith("data-")
    assert all((folder / file).stat().st_ino == inode for file, inode in inodes.items() if file != name)


@pytest.mark.parametrize("format_", ["parquet", "webdataset"])
def test_a_finished_run_of_another_format_is_repaired(tmp_path, format_):
    args = demo.args(max_shard_samples=300, format=format_)
    folder = teddytok_rs.tokenize_to_disk(demo.CELLS, args, tmp_path).path
    whole = contents(folder)
    for name in [next(folder.glob("data-00001*")).name, "genes.csv"]:
        damage_shard(folder / name, "flip")
    assert tokenize_to_disk(demo.CELLS, args, tmp_path).n_kept == 2
    assert contents(folder) == whole
    assert tokenize_to_disk(demo.CELLS, args, tmp_path).n_kept == 3


def test_a_finished_run_is_not_repaired_from_a_source_that_changed_unseen(tmp_path):
    cells = demo.cells()
    path = tmp_path / "cells.h5ad"
    cells.write_h5ad(path)
    folder = teddytok_rs.tokenize_to_disk(path, ARGS, tmp_path / "out").path
    matrix = cells.layers["processed"]
    matrix.data[matrix.indptr[1] : matrix.indptr[2]] *= 2  # row 1 is in no sample and in the first shard
    cells.write_h5ad(path)
    damage_shard(folder / "data-00000-of-00031.arrow", "flip")
    damaged = contents(folder)
    for _ in range(2):
        with raises("output_differs", "data-00000-of-00031.arrow ("):
            teddytok_rs.tokenize_to_disk(path, ARGS, tmp_path / "out")
        assert contents(folder) == damaged
    assert tokenize_to_disk(path, ARGS, tmp_path / "out", overwrite=True).n_kept == 0
    fresh = teddytok_rs.tokenize_to_disk(path, ARGS, tmp_path / "fresh").path
    assert contents(folder) == contents(fresh)


def test_the_command_counts_as_kept_what_was_kept(tmp_path):
    args = tmp_path / "args.json"
    args.write_text(demo.args(max_shard_samples=300).model_dump_json())
    words = ["tokenize", demo.CELLS, "-c", args, "-o", tmp_path]
    assert teddytok(*words).returncode == 0
    for path in (tmp_path / "cells").glob("data-*"):
        os.truncate(path, 1000)
    process = teddytok(*words)
    assert "kept" not in process.stdout
    assert "may have changed" not in process.stderr
    assert process.stderr.count("is damaged: written again") == 3
    process = teddytok(*words)
    assert "all of it, finished by an earlier run" in process.stdout
    assert "damaged" not in process.stderr


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_seq_len": 100}, "max_seq_len (2048 there, 100 now)"),
        ({"gene_seed": 12}, "gene_seed (11 there, 12 now)"),
        ({"label_column": "tissue"}, "label_column"),
        ({"sex_mapping": None}, "contents of sex_mapping"),
        ({"cell_filter": "tissue == 'blood'"}, "cell_filter"),
    ],
)
def test_another_run_is_refused_by_what_differs(tmp_path, interrupted, finished, change, named):
    if finished:
        teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path)
    else:
        interrupted(tmp_path, shards=2)
    before = contents(tmp_path / "cells")
    other = type(ARGS)(**{**ARGS.model_dump(), **change})
    with raises("output_differs", named):
        teddytok_rs.tokenize_to_disk(demo.CELLS, other, tmp_path)
    assert contents(tmp_path / "cells") == before
    teddytok_rs.tokenize_to_disk(demo.CELLS, other, tmp_path, overwrite=True)
    assert teddytok_rs.verify(tmp_path / "cells").problems == []


def test_a_source_that_changed_between_runs_is_refused(tmp_path, interrupted):
    cells = demo.cells()
    path = tmp_path / "cells.h5ad"
    cells.write_h5ad(path)
    folder = interrupted(tmp_path / "out", shards=2)
    cells.layers["processed"] = cells.layers["processed"] * 2
    cells.write_h5ad(path)
    with raises("output_differs", "fingerprint of the source"):
        teddytok_rs.tokenize_to_disk(path, ARGS, tmp_path / "out")
    assert folder.exists()


def test_a_change_that_the_fingerprint_does_not_see_is_not_mixed_in(tmp_path, interrupt_after):
    path = tmp_path / "cells.h5ad"
    cells = demo.cells()
    cells.write_h5ad(path)
    with interrupt_after(3):
        teddytok_rs.tokenize_to_disk(path, ARGS, tmp_path / "out")
    matrix = cells.layers["processed"]
    matrix.data[matrix.indptr[1] : matrix.indptr[2]] *= 2  # row 1 is in no sample and in the first shard
    cells.write_h5ad(path)
    resumed = teddytok_rs.tokenize_to_disk(path, ARGS, tmp_path / "out")
    fresh = teddytok_rs.tokenize_to_disk(path, ARGS, tmp_path / "fresh")
    assert contents(resumed.path) == contents(fresh.path)


def test_a_damaged_dataset_is_refused_by_inspect_and_not_followed(tmp_path):
    folder = teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path).path
    shard = folder / "data-00000-of-00031.arrow"
    whole = bytearray(shard.read_bytes())
    for place in range(1000, len(whole), 4):  # somewhere among these lie the offsets
        if whole[place : place + 4] == b"\0\0\0\0":
            whole[place : place + 4] = b"\xff\xff\xff\x7f"
    shard.write_bytes(whole)
    with raises("output_unreadable"):
        teddytok_rs.inspect(folder)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document["configuration"].pop("format"),
        lambda document: document["checksums"].pop("columns"),
        lambda document: document["checksums"].update(columns={"dataset_info.json": 5}),
        lambda document: document["source"].pop("fingerprint"),
        lambda document: document.update(source=[]),
    ],
)
def test_a_manifest_that_lacks_a_part_is_one_clear_error(tmp_path, spoil):
    folder = teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path).path
    document = json.loads((folder / "teddytok.json").read_text())
    spoil(document)
    (folder / "teddytok.json").write_text(json.dumps(document))
    with raises("output_unreadable", str(folder)):
        teddytok_rs.verify(folder)
    with raises("output_unreadable", str(folder)):
        run(tmp_path)


def test_arguments_are_checked_before_anything_is_replaced(tmp_path):
    folder = teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path).path
    before = contents(folder)
    for keys in ({"threads": 0}, {"chunk_bytes": 0}, {"threads": "2"}):
        with raises("config_value"):
            teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path, overwrite=True, **keys)
    assert contents(folder) == before


def test_labels_that_changed_between_runs_are_refused(tmp_path, interrupted):
    interrupted(tmp_path, shards=2)
    cells = demo.cells()
    cells.obs["cell_type"] = cells.obs["cell_type"].to_numpy()[::-1]
    with raises("output_differs", "sha256 of cells obs"):
        teddytok_rs.tokenize_to_disk(cells, ARGS, tmp_path, name="cells")


def test_a_drawn_seed_is_kept_over_an_interruption(tmp_path, interrupted):
    args = type(ARGS)(**{**ARGS.model_dump(), "gene_seed": None})
    folder = interrupted(tmp_path, shards=2, args=args)
    manifest = teddytok_rs.tokenize_to_disk(demo.CELLS, args, tmp_path)
    seeded = type(ARGS)(**{**args.model_dump(), "gene_seed": manifest.gene_seed})
    again = teddytok_rs.tokenize_to_disk(demo.CELLS, seeded, tmp_path / "again")
    assert [shard.sha256 for shard in again.shards] == [shard.sha256 for shard in manifest.shards]
    assert teddytok_rs.verify(folder).problems == []


def test_a_full_disk_is_one_clear_error_and_the_run_continues_later(tmp_path, undisturbed):
    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))
        with raises("output_failed", "file too large"):
            run(tmp_path)

    child = in_child(fill)
    child.join()
    assert child.exitcode == 0
    run(tmp_path)
    assert contents(tmp_path / "cells") == undisturbed


def test_a_disk_that_fails_while_more_is_written_fails_the_run(tmp_path, undisturbed, monkeypatch):
    sync, failed = os.fsync, []

    def fails_once(file):
        """Report an error once, as Linux does: the next call finds nothing wrong."""
        if threading.current_thread() is not threading.main_thread() and not failed:
            failed.append(file)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(file)

    monkeypatch.setattr("teddytok_rs.output.shard.SYNC_BYTES", 1)
    monkeypatch.setattr(os, "fsync", fails_once)
    with raises("output_failed", "input/output error"):
        run(tmp_path)
    assert failed
    assert not [path for path in (tmp_path / "cells").iterdir() if path.suffix in {".arrow", ".part"}]
    run(tmp_path)
    assert contents(tmp_path / "cells") == undisturbed


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="needs a user who may not write")
def test_a_read_only_folder_is_one_clear_error(tmp_path):
    def refuse() -> None:
        if os.geteuid() == 0:
            os.seteuid(65534)
        with raises("output_failed", "permission denied"):
            run(tmp_path)

    tmp_path.chmod(0o555)
    child = in_child(refuse)
    child.join()
    tmp_path.chmod(0o755)
    assert child.exitcode == 0


def test_a_second_writer_is_refused_and_a_dead_ones_lock_is_taken_over(tmp_path, undisturbed):
    from teddytok_rs.output import run as module

    ready, go = multiprocessing.get_context("fork").Event(), multiprocessing.get_context("fork").Event()

    def hold() -> None:
        with module.locked(tmp_path / "cells"):
            ready.set()
            go.wait()

    child = in_child(hold)
    ready.wait()
    with raises("output_locked"):
        run(tmp_path)
    child.kill()
    child.join()
    run(tmp_path)
    assert contents(tmp_path / "cells") == undisturbed


def test_interrupting_the_command_gives_130_and_a_folder_that_is_continued(tmp_path, undisturbed):
    args = tmp_path / "args.json"
    args.write_text(ARGS.model_dump_json())
    command = [sys.executable, "-m", "teddytok_rs", "tokenize", str(demo.CELLS), "-c", str(args), "-o", str(tmp_path)]
    with interruptible(command, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None and not list(tmp_path.glob("cells/data-*")):
            pass
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=60)
    assert child.returncode in {130, 0}  # 0: it was faster
    if child.returncode == 130:
        assert [line for line in stderr.split("\n") if line and "warning: no label" not in line] == [
            "teddytok: interrupted. The same command again continues an unfinished run."
        ]
    subprocess.run(command, check=True, capture_output=True)
    assert contents(tmp_path / "cells") == undisturbed


@pytest.mark.parametrize("link", ["folder", "shard", "part"])
def test_symbolic_links_in_the_output_are_refused(tmp_path, link):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "out" / "cells"
    if link == "folder":
        folder.parent.mkdir()
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir(parents=True)
        name = "data-00000-of-00031.arrow" + (".0123abcd.part" if link == "part" else "")
        (folder / name).symlink_to(elsewhere / "target")
    with raises("output_symlink"):
        run(tmp_path / "out")
    assert list(elsewhere.iterdir()) == []


def test_a_source_that_changes_during_the_run_is_an_error(tmp_path, monkeypatch):
    from teddytok_rs.output import run as module

    cells = demo.cells()
    write = module.write_shard

    def spoil(*words, **options):
        cells.layers["processed"].data[:] += 1
        return write(*words, **options)

    monkeypatch.setattr(module, "write_shard", spoil)
    with raises("source_changed"):
        teddytok_rs.tokenize_to_disk(cells, ARGS, tmp_path)
    assert not (tmp_path / "anndata" / "state.json").exists()


def test_shards_of_a_former_run_are_removed(tmp_path):
    teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path)
    fewer = type(ARGS)(**{**ARGS.model_dump(), "max_shard_samples": 350})
    folder = teddytok_rs.tokenize_to_disk(demo.CELLS, fewer, tmp_path, overwrite=True).path
    assert sorted(path.name for path in folder.glob("data-*")) == [f"data-0000{i}-of-00002.arrow" for i in range(2)]


def test_a_truncated_source_is_a_source_error(tmp_path):
    path = tmp_path / "cells.h5ad"
    whole = demo.CELLS.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1000):
        path.write_bytes(whole[:length])
        with raises("source_unreadable", str(path)):
            teddytok_rs.tokenize_to_disk(path, ARGS, tmp_path)


def test_readers_of_an_old_dataset_keep_it_while_it_is_replaced(tmp_path):
    import datasets

    old = datasets.load_from_disk(teddytok_rs.tokenize_to_disk(demo.CELLS, ARGS, tmp_path).path)
    first = old[0]["gene_ids"]
    other = type(ARGS)(**{**ARGS.model_dump(), "max_seq_len": 5})
    teddytok_rs.tokenize_to_disk(demo.CELLS, other, tmp_path, overwrite=True)
    assert old[0]["gene_ids"] == first
    assert isinstance(demo.cells(), anndata.AnnData)


@pytest.mark.parametrize("form", ["memory", "dense", "h5ad", "csc h5ad"])
def test_filtered_cells_are_those_of_the_whole(tmp_path, form):
    import numpy as np
    import pyarrow as pa
    from scipy import sparse

    cells = demo.cells()
    cells.obs["chosen"] = np.random.default_rng(0).random(700) < 0.3
    keys = {"random_genes": True, "random_genes_count": 200, "gene_seed": 3, "batch_size": 64, "max_shard_samples": 50}
    keys["obs_columns"] = ["index"]
    whole = teddytok_rs.tokenize(cells, demo.args(**keys))
    if form == "dense":
        cells.layers["processed"] = cells.layers["processed"].toarray()
    if form.startswith("csc"):
        cells.layers["processed"] = sparse.csc_matrix(cells.layers["processed"])
    source = cells
    if form.endswith("h5ad"):
        source = tmp_path / "cells.h5ad"
        cells.write_h5ad(source)
    chosen = teddytok_rs.tokenize(source, demo.args(cell_filter="chosen", **keys))
    assert chosen.to_pylist() == whole.filter(pa.array(cells.obs["chosen"])).to_pylist()
    assert teddytok_rs.tokenize(source, demo.args(cell_filter="chosen == True and sex == 'unknown'", **keys)) == chosen
    manifest = teddytok_rs.tokenize_to_disk(source, demo.args(cell_filter="chosen", **keys), tmp_path)
    assert manifest.source["cells_dropped"] == 700 - chosen.num_rows == 700 - manifest.n_cells
    assert teddytok_rs.verify(manifest.path).problems == []


def test_no_space_to_sort_a_matrix_stored_by_column_is_reported(tmp_path, monkeypatch):
    import tempfile

    from scipy import sparse

    cells = demo.cells()
    cells.layers["processed"] = sparse.csc_matrix(cells.layers["processed"])
    cells.write_h5ad(tmp_path / "cells.h5ad")

    class Full:
        def seek(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with raises("no_temporary_space", "TMPDIR", "no space left"):
        teddytok_rs.tokenize(tmp_path / "cells.h5ad", demo.args())
