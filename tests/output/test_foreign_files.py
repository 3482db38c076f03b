"""A run changes and removes only what runs wrote, whatever else is in the output folder and however it ends."""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import os
import shutil
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cells
from raises import raises
from teddytok_rs import inspect, tokenize_corpus, tokenize_to_disk, verify, write_report
from teddytok_rs.cli.main import cli, main
from teddytok_rs.corpus.state import COPY
from teddytok_rs.mapping.build_vocabulary import build_vocabulary
from teddytok_rs.output import layout, overwrite
from teddytok_rs.output.layout import is_vocabulary_folder
from teddytok_rs.output.temporary import find_temporary, make_temporary, record_files, remove_stale

if TYPE_CHECKING:
    from collections.abc import Callable

fork = multiprocessing.get_context("fork")


class Home:
    """Three sources, one of which holds a value that cannot be tokenized, and arguments that give several shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for seed, name in enumerate(["a", "b", "bad"]):
            counts = cells.make_counts(12, seed=seed)
            if name == "bad":
                counts[11, 0] = np.nan
            cells.save(cells.with_layer(np.log1p(counts)), folder / f"{name}.h5ad")
        self.a, self.b, self.bad = (folder / f"{name}.h5ad" for name in ("a", "b", "bad"))
        self.args = cells.make_args(folder, max_shard_samples=5)
        self.other = self.args | {"max_seq_len": 4, "max_shard_samples": 4}
        self.config = cells.write_json(folder / "args.json", self.args)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


def snapshot(folder: Path, but: Callable[[Path], bool] = lambda _: False) -> dict[str, Any]:
    """Describe everything in a folder, links not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if but(path):
            continue
        state = path.lstat()
        content: Any = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (stat.S_IFMT(state.st_mode), content)
    return found


def ours(folder: Path) -> dict[str, bytes]:
    """Read the files of a dataset."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if layout.is_run_file(path.name)}


# ---- other files stay

TRICKY = [
    "thesis.txt", "x.part", "state.json.part", "corpus.json.part", "report.html.part", "cache-0123.arrow", ".DS_Store",
    "data-notes.txt", "data-donors.arrow", "data-0-of-1.arrow", "genes.csv.bak", "teddytok.temporary", ".sources",
    ".teddytok-0123456789abcdef", ".teddytok-notes", "state.json.0123456.part", "thesis.0123abcd.part",
    ".ipynb_checkpoints",
]  # fmt: skip
KINDS = ["file", "folder", "link to a file", "link to a folder", "broken link", "fifo", "marked folder"]


def put(path: Path, kind: str, elsewhere: Path) -> None:
    """Put something of somebody else's into a folder."""
    if kind == "file":
        path.write_text("only copy", encoding="utf-8")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a file":
        path.symlink_to(elsewhere / "precious.txt")
    elif kind == "link to a folder":
        path.symlink_to(elsewhere)
    elif kind == "broken link":
        path.symlink_to(elsewhere / "nowhere")
    else:
        path.mkdir()
        (path / "data-00000-of-00001.arrow").write_text("only copy", encoding="utf-8")
        (path / "link").symlink_to(elsewhere)
        if kind == "marked folder":  # as a run makes them, but copied from elsewhere under another name
            marker = {"folder": ".teddytok-fedcba9876543210", "purpose": COPY, "files": ["data-00000-of-00001.arrow"]}
            (path / "teddytok.temporary").write_text(json.dumps(marker), encoding="utf-8")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    inside=st.dictionaries(st.sampled_from(TRICKY), st.sampled_from(KINDS), min_size=1, max_size=6),
    around=st.dictionaries(st.sampled_from(TRICKY), st.sampled_from(KINDS), max_size=6),
)
def test_other_files_survive_every_kind_of_run(home: Home, tmp_path: Path, inside: Any, around: Any):
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    elsewhere, out = tmp_path / "x" / "elsewhere", tmp_path / "x" / "out"
    elsewhere.mkdir(parents=True)
    out.mkdir()
    (elsewhere / "precious.txt").write_text("only copy", encoding="utf-8")
    (elsewhere / "data-00000-of-00001.arrow").write_text("only copy", encoding="utf-8")
    names = {out / name: kind for name, kind in around.items()}
    for path, kind in names.items():
        put(path, kind, elsewhere)
    tokenize_to_disk(home.a, home.args, out)
    names |= {out / "a" / name: kind for name, kind in inside.items()}
    for name, kind in inside.items():
        put(out / "a" / name, kind, elsewhere)

    def is_written(path: Path) -> bool:
        return not any(path == name or path.is_relative_to(name) for name in names)

    theirs = partial(snapshot, tmp_path / "x", lambda path: path.is_relative_to(out) and is_written(path))
    before = theirs()
    tokenize_to_disk(home.a, home.args, out)
    assert theirs() == before
    next((out / "a").glob("data-00001-of-*")).unlink()
    tokenize_to_disk(home.a, home.args, out)
    assert theirs() == before
    tokenize_to_disk(home.a, home.other, out, overwrite=True)
    assert theirs() == before
    with raises("not_finite"):
        tokenize_to_disk(home.bad, home.args, out, name="a", overwrite=True)
    assert theirs() == before
    tokenize_to_disk(home.a, home.args, out, overwrite=True)
    assert theirs() == before
    (out / "a" / "teddytok.json").rename(out / "a" / "teddytok.journal")  # unfinished, and the journal torn
    (out / "a" / "state.json").unlink()
    tokenize_to_disk(home.a, home.args, out)
    assert theirs() == before
    corpus = tokenize_corpus([home.a, home.b, home.bad], home.args, out)
    assert [source.folder for source in corpus.failed] == ["bad"]
    assert theirs() == before
    tokenize_corpus([home.a, home.b], home.other, out, overwrite=True)
    assert theirs() == before
    found = verify(out / "a")
    assert found.problems == []
    assert {note.partition(" ")[0] for note in found.notes} == set(inside)
    notes = {note.partition(" ")[0] for note in verify(out).notes}
    assert set(around) <= notes
    assert not [path for path in out.rglob(".teddytok*") if is_written(path)]


@pytest.mark.parametrize("name", [*sorted(layout.CORPUS_FILES), layout.LOCK])
def test_a_link_with_a_name_of_the_corpus_is_refused(home: Home, tmp_path: Path, name: str):
    target = tmp_path / "precious.txt"
    target.write_text("only copy", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(target)
    before = snapshot(tmp_path)
    with raises("output_symlink", name):
        tokenize_corpus([home.a], home.args, tmp_path / "out")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["state.json", "teddytok.journal", "report.html", "data-00000-of-00003.arrow"])
def test_a_link_with_the_name_of_a_file_of_the_dataset_is_refused(home: Home, tmp_path: Path, name: str):
    folder = tokenize_to_disk(home.a, home.args, tmp_path / "out").path
    target = tmp_path / "precious"
    target.write_text("only copy", encoding="utf-8")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    before = snapshot(tmp_path)
    for again in (False, True):
        with raises("output_symlink", name):
            tokenize_to_disk(home.a, home.other, tmp_path / "out", overwrite=again)
    if name == "report.html":
        pytest.importorskip("jinja2")
        pytest.importorskip("matplotlib")
        with raises("output_symlink", name):
            write_report(folder)
    assert snapshot(tmp_path) == before


def test_a_report_does_not_touch_the_file_next_to_it(home: Home, tmp_path: Path):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    folder = tokenize_to_disk(home.a, home.args, tmp_path / "out").path
    (tmp_path / "page.html.part").write_text("only copy", encoding="utf-8")
    write_report(folder, tmp_path / "page.html")
    assert (tmp_path / "page.html.part").read_text(encoding="utf-8") == "only copy"


def test_a_folder_reached_through_a_link_of_the_user_is_written(home: Home, tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert verify(tokenize_to_disk(home.a, home.args, tmp_path / "out").path).problems == []
    assert not tokenize_corpus([home.a, home.b], home.args, tmp_path / "out").failed
    *rest, vocabulary = sorted(path.name for path in (tmp_path / "disk").iterdir())
    assert rest == ["a", "b", "corpus.json"]
    assert is_vocabulary_folder(vocabulary)


def test_caches_of_datasets_are_named_when_their_shards_are_replaced(home: Home, tmp_path: Path, caplog: Any):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    folder = tokenize_to_disk(home.a, home.args, tmp_path).path
    kept = datasets.load_from_disk(str(folder)).filter(lambda cell: len(cell["gene_ids"]) > 3)
    (cache,) = folder.glob("cache-*.arrow")
    del kept
    caplog.clear()
    tokenize_to_disk(home.a, home.args, tmp_path)
    assert not caplog.records
    tokenize_to_disk(home.a, home.other, tmp_path, overwrite=True)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert cache.name in record.getMessage()
    assert cache.exists()
    assert verify(folder).notes == [f"{cache.name} is not a file of teddytok, and is left alone"]


def test_the_command_shows_notes_and_succeeds(home: Home, tmp_path: Path, capsys: Any):
    folder = tokenize_to_disk(home.a, home.args, tmp_path).path
    (folder / "thesis.txt").write_text("only copy", encoding="utf-8")
    note = "thesis.txt is not a file of teddytok, and is left alone"
    assert not cli.main(["verify", str(folder)], standalone_mode=False)
    assert f"{folder}: note: {note}" in capsys.readouterr().out.splitlines()
    assert not cli.main(["verify", str(folder), "--json"], standalone_mode=False)
    document = json.loads(capsys.readouterr().out)
    assert (document["sound"], document["problems"], document["notes"]) == (True, [], [note])


def test_a_file_of_others_with_the_name_of_the_lock_is_refused(home: Home, tmp_path: Path):
    (tmp_path / layout.LOCK).write_text("only copy", encoding="utf-8")
    with raises("output_exists", layout.LOCK):
        tokenize_corpus([home.a], home.args, tmp_path)
    assert (tmp_path / layout.LOCK).read_text(encoding="utf-8") == "only copy"


# ---- temporary folders


def test_what_a_killed_copy_left_is_removed_but_nothing_else(tmp_path: Path, caplog: Any):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a").write_text("only copy", encoding="utf-8")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    left, added = make_temporary(corpus, COPY), make_temporary(corpus, COPY)
    for folder in (left, added):
        record_files(folder, ["x.zarr/a", "x.zarr/b/c", "link/a", "missing"])
        (folder / "x.zarr" / "b").mkdir(parents=True)
        for name in ("a", "b/c"):
            (folder / "x.zarr" / name).write_text("copied", encoding="utf-8")
    (added / "thesis.txt").write_text("only copy", encoding="utf-8")
    (added / "link").symlink_to(elsewhere)
    remove_stale(corpus, COPY)
    assert [path.name for path in corpus.iterdir()] == [added.name]
    assert {path.name for path in added.iterdir()} == {"thesis.txt", "link", "teddytok.temporary"}
    assert (elsewhere / "a").read_text(encoding="utf-8") == "only copy"
    assert "'link', 'thesis.txt'" in caplog.text


@pytest.mark.parametrize("file", ["../thesis.txt", "/thesis.txt", "a/../../thesis.txt", "", 3, None, "a\0b"])
def test_a_marker_that_names_files_elsewhere_is_not_obeyed(tmp_path: Path, file: Any):
    (tmp_path / "thesis.txt").write_text("only copy", encoding="utf-8")
    folder = make_temporary(tmp_path, COPY)
    marker = {"folder": folder.name, "purpose": COPY, "files": [file]}
    (folder / "teddytok.temporary").write_text(json.dumps(marker), encoding="utf-8")
    assert find_temporary(tmp_path, COPY) == []
    remove_stale(tmp_path, COPY)
    assert (tmp_path / "thesis.txt").exists()
    assert folder.exists()


# ---- overwriting


def dies_at(work: Callable[[], Any], step: int) -> bool:
    """Do some work in a process that dies before its change number ``step`` on the disk; return whether it did."""

    def die_at_step() -> None:
        left = [step]

        def counted(do: Any) -> Any:
            def change(*words: Any, **options: Any) -> Any:
                if not left[0]:
                    os._exit(9)
                left[0] -= 1
                return do(*words, **options)

            return change

        for owner, name in [(Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (Path, "rmdir"), (os, "fsync")]:
            setattr(owner, name, counted(getattr(owner, name)))
        work()
        os._exit(0)

    child = fork.Process(target=die_at_step)
    child.start()
    child.join()
    assert child.exitcode in {0, 9}
    return child.exitcode == 9


@pytest.mark.parametrize("format_", ["arrow", "parquet"])
def test_an_overwrite_that_is_killed_at_any_step_loses_no_dataset(home: Home, tmp_path: Path, format_: str):
    args, other = ({**keys, "format": format_} for keys in (home.args, home.other))
    out = tmp_path / "out"
    folder = out / "a"
    replace = partial(tokenize_to_disk, home.a, other, out, overwrite=True, threads=1)
    old_path = tokenize_to_disk(home.a, args, tmp_path / "old").path
    (old_path / "thesis.txt").write_text("only copy", encoding="utf-8")
    old, new = ours(old_path), ours(tokenize_to_disk(home.a, other, tmp_path / "new").path)
    seen = {"old": 0, "halfway": 0, "new": 0}
    for step in itertools.count():
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(old_path, folder)
        died = dies_at(replace, step)
        files = {name: data for name, data in ours(folder).items() if not layout.is_temporary(name)}
        if files == old and not overwrite.is_replacement_interrupted(folder):
            seen["old"] += 1
            assert verify(folder).problems == []
        elif files == new:
            seen["new"] += 1
            assert verify(folder).problems == []
        else:
            seen["halfway"] += 1
            assert overwrite.is_replacement_interrupted(folder)
            assert not (layout.last_file(format_) in files and files != old), "a mixture looks like a dataset"
            if "teddytok.json" not in files:
                with raises("output_unreadable", "replacing it was interrupted"):
                    inspect(folder)
            if step % 2:  # any run completes it
                assert ours(tokenize_to_disk(home.a, other, out).path) == new
        assert ours(replace().path) == new
        assert (folder / "thesis.txt").read_text(encoding="utf-8") == "only copy"
        assert sorted(path.name for path in folder.iterdir()) == sorted([*new, "thesis.txt"])
        if not died:
            break
    assert all(seen.values()), seen
    print(f"{step} steps: {seen}")  # noqa: T201 -- the figures to quote


def interrupted_overwrite(home: Home, out: Path, interrupt_after: Any, shards: int) -> Path:
    """Interrupt overwriting a dataset after some shards; the folder of the new one."""
    folder = tokenize_to_disk(home.a, home.args, out).path
    with interrupt_after(shards):
        tokenize_to_disk(home.a, home.other, out, overwrite=True)
    (staging,) = folder.glob(".teddytok-*")
    return staging


def test_an_interrupted_overwrite_is_continued(home: Home, tmp_path: Path, interrupt_after: Any, caplog: Any):
    staging = interrupted_overwrite(home, tmp_path / "out", interrupt_after, 2)
    folder = staging.parent
    before = ours(folder)
    assert verify(folder).problems == []
    assert verify(folder).notes == [
        f"{staging.name} holds a new dataset, unfinished: tokenizing again with overwrite continues it"
    ]
    tokenize_to_disk(home.a, home.args, tmp_path / "out")  # without overwrite the old one stays, and the new one too
    assert "overwriting was interrupted" in caplog.text
    assert ours(folder) == before
    inodes = {path.name: path.stat().st_ino for path in staging.glob("data-*")}
    assert len(inodes) == 2
    manifest = tokenize_to_disk(home.a, home.other, tmp_path / "out", overwrite=True)
    assert manifest.n_kept == 2
    assert {name: (folder / name).stat().st_ino for name in inodes} == inodes
    assert ours(folder) == ours(tokenize_to_disk(home.a, home.other, tmp_path / "fresh").path)
    assert not staging.exists()


def test_an_interrupted_overwrite_by_other_arguments_is_discarded(
    home: Home, tmp_path: Path, interrupt_after: Any, caplog: Any
):
    staging = interrupted_overwrite(home, tmp_path / "out", interrupt_after, 2)
    (staging / "thesis.txt").write_text("only copy", encoding="utf-8")
    third = home.args | {"max_seq_len": 3}
    manifest = tokenize_to_disk(home.a, third, tmp_path / "out", overwrite=True)
    assert ours(manifest.path) == ours(tokenize_to_disk(home.a, third, tmp_path / "fresh").path)
    assert {path.name for path in staging.iterdir()} == {"thesis.txt", "teddytok.temporary"}
    assert str(staging) in caplog.text


def test_an_overwrite_that_fails_keeps_the_old_dataset(home: Home, tmp_path: Path):
    folder = tokenize_to_disk(home.a, home.args, tmp_path).path
    before = ours(folder)
    for _ in range(2):
        with raises("not_finite"):
            tokenize_to_disk(home.bad, home.args, tmp_path, name="a", overwrite=True)
        assert ours(folder) == before
    assert verify(folder).problems == []


# ---- places that are refused, before anything is made


@pytest.mark.parametrize(
    "stem",
    [
        *sorted(layout.CORPUS_FILES),
        layout.LOCK,
        "Corpus.JSON",
        "corpus.json.part",
        "corpus.json.0123abcd.part",
        "report.html.part",
        ".teddytok-0123456789abcdef",
        ".teddytok",
    ],
)
def test_a_reserved_name_is_refused(home: Home, tmp_path: Path, stem: str):
    source = shutil.copy(home.a, tmp_path / f"{stem}.h5ad")
    with raises("output_name_reserved", repr(stem)):
        tokenize_to_disk(source, home.args, tmp_path / "out")
    with raises("output_name_reserved", repr(stem)):
        tokenize_to_disk(home.a, home.args, tmp_path / "out", name=stem)
    with raises("output_name_reserved", repr(stem)):
        tokenize_corpus([home.a, source], home.args, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("below", ["", "deep/down"])
def test_an_output_in_another_dataset_is_refused(home: Home, tmp_path: Path, below: str, *, unfinished: bool):
    folder = tokenize_to_disk(home.a, home.args, tmp_path / "out").path
    if unfinished:
        (folder / "teddytok.json").rename(folder / "teddytok.journal")
    (tmp_path / "link").symlink_to(folder)
    before = snapshot(tmp_path)
    for place in (folder / below, tmp_path / "link" / below):
        with raises("output_nested", "inside the dataset", str(folder)):
            tokenize_to_disk(home.b, home.args, place)
        with raises("output_nested", "inside the dataset", str(folder)):
            tokenize_corpus([home.b], home.args, place)
    assert snapshot(tmp_path) == before


def test_an_output_in_its_source_is_refused(home: Home, tmp_path: Path):
    pytest.importorskip("zarr")
    store = cells.save(cells.with_layer(cells.make_counts(4)), tmp_path / "cells.zarr")
    plain = Path(shutil.copytree(store, tmp_path / "cells"))
    before = snapshot(tmp_path)
    for source, place in ((store, store), (store, store / "deep" / "down"), (plain, tmp_path)):
        with raises("output_nested", "the source", str(source)):
            tokenize_to_disk(source, home.args, place)
        with raises("output_nested", "the source", str(source)):
            tokenize_corpus([home.a, source], home.args, place)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("linked", [False, True])
def test_a_source_in_its_output_is_refused(home: Home, tmp_path: Path, *, linked: bool):
    folder = tmp_path / "out" / "a"
    folder.mkdir(parents=True)
    source = folder / "a.h5ad"
    source.symlink_to(home.a) if linked else shutil.copy(home.a, source)
    before = snapshot(tmp_path)
    with raises("output_nested", "the folder of the source", str(source)):
        tokenize_to_disk(source, home.args, tmp_path / "out")
    with raises("output_nested", "the folder of the source", str(source)):
        tokenize_corpus([home.b, source], home.args, tmp_path / "out")
    assert snapshot(tmp_path) == before


def test_sources_next_to_their_datasets_are_fine(home: Home, tmp_path: Path):
    for source in (home.a, home.b):
        shutil.copy(source, tmp_path)
    assert not tokenize_corpus(tmp_path, home.args, tmp_path).failed
    assert verify(tmp_path).problems == []
    assert not tokenize_corpus(tmp_path, home.args, tmp_path / "a.h5ad-tokens").failed


@pytest.mark.parametrize(
    "url", ["s3://bucket/tokens", "gs://b", "file:///tmp/x", "memory://x", "S3:/bucket", "simplecache::s3://b/x"]
)
def test_an_output_at_a_url_is_refused(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.chdir(tmp_path)
    for place in (url, Path(url)):
        with raises("output_url", str(place)):
            tokenize_to_disk(home.a, home.args, place)
        with raises("output_url", str(place)):
            tokenize_corpus([home.a, home.b], home.args, place)
        with raises("output_url", str(place)):
            tokenize_to_disk(home.a, home.args | {"save_dir": str(place)})
        with raises("output_url", str(place)):
            build_vocabulary([home.a], place)
    monkeypatch.setattr("sys.argv", ["teddytok", "tokenize", str(home.a), "-c", home.config, "--out", url])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert list(tmp_path.iterdir()) == []
