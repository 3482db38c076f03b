"""Every byte of a dataset counts; `verify`, a rerun and a corpus agree; a changed source is noticed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import errno
import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

import cells
import teddytok_rs
from raises import raises
from teddytok_rs import CorpusManifest, Manifest, tokenize_corpus, tokenize_to_disk, verify
from teddytok_rs.corpus.manifest import find_datasets
from teddytok_rs.errors import OutputError
from teddytok_rs.output.checksum import with_checksum
from teddytok_rs.output.dataset_info import dataset_state
from teddytok_rs.output.layout import JOURNAL
from teddytok_rs.output.manifest import RecordedArgs
from teddytok_rs.output.run import open_run
from teddytok_rs.output.shard import run_shard

#: Every how many bytes of a JSON or CSV file one is flipped; 1 for the whole search.
STEP = int(os.environ.get("TEDDYTOK_FLIP_STEP", "23"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


class Home:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.args = cells.make_args(folder, max_shard_samples=4, label_column="cell_type", layer="X")
        self.sources = [cells.save(cells.make_cells(n), folder / f"s{n}.h5ad") for n in (6, 9)]
        self.corpus = folder / "corpus"
        tokenize_corpus(self.sources, self.args, self.corpus, threads=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def corpus(home: Home, tmp_path: Path) -> Path:
    return shutil.copytree(home.corpus, tmp_path / "corpus")


def is_found(folder: Path) -> bool:
    try:
        return bool(verify(folder, progress=False).problems)
    except OutputError:
        return True


def damaged(content: bytes, place: int) -> list[bytes]:
    """Flip a bit of a byte, and where that is a digit make it another digit."""
    one = content[place]
    others = [one ^ 1 << place % 8, *([48 + (one - 48 + 1) % 10] if 48 <= one < 58 else [])]
    return [content[:place] + bytes([other]) + content[place + 1 :] for other in others]


def flips_not_found(corpus: Path, step: int, shard_step: int) -> tuple[int, list[str]]:
    n, missed = 0, []
    for path in sorted(path for path in corpus.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for place in range(n % step, len(whole), shard_step if path.suffix == ".arrow" else step):
            for content in damaged(whole, place):
                path.write_bytes(content)
                n += 1
                if not is_found(corpus):
                    missed.append(f"{path.relative_to(corpus)}: byte {place}")
        path.write_bytes(whole)
    return n, missed


def test_verify_finds_a_change_of_any_byte_of_any_file(corpus: Path):
    n, missed = flips_not_found(corpus, STEP, 37 * STEP)
    assert missed == []
    print(f"{n} changed bytes, all found")  # noqa: T201 -- the figure to quote
    assert verify(corpus).problems == []


@pytest.mark.parametrize("add", [" ", "\n", "\ufeff"])
@pytest.mark.parametrize("name", ["corpus.json", "s6/teddytok.json", "s6/state.json", "s6/dataset_info.json"])
def test_blanks_and_order_marks_count_too(corpus: Path, name: str, add: str):
    path = corpus / name
    path.write_text(add + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert is_found(corpus)


def test_a_document_without_its_checksum_is_noticed(corpus: Path):
    for path in (corpus / "s6" / "teddytok.json", corpus / "corpus.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        assert list(document)[-1] == "sha256"
        del document["sha256"]
        path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    problems = verify(corpus).problems
    assert [problem for problem in problems if "s6" in problem and "lost its checksum" in problem]
    assert "s9: corpus.json has lost its checksum" in problems


def test_the_checksum_can_be_computed_by_anyone(corpus: Path):
    document = json.loads((corpus / "s6" / "teddytok.json").read_text(encoding="utf-8"))
    recorded = document.pop("sha256")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == recorded


# ---- of version 0.1.0


def as_version_0_1_0(folder: Path) -> None:
    """Write the manifest as version 0.1.0 did: without the source's stamp and without a checksum."""
    document = json.loads((folder / "teddytok.json").read_text(encoding="utf-8"))
    del document["sha256"], document["source"]["stamp"]
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "teddytok.json").write_text(text, encoding="utf-8")


def test_a_dataset_of_version_0_1_0_verifies_and_is_left_as_it_is(home: Home, tmp_path: Path, caplog):
    source = shutil.copy(home.sources[0], tmp_path)
    folder = tokenize_to_disk(source, home.args, tmp_path).path
    as_version_0_1_0(folder)
    assert verify(folder).problems == []
    before = files(folder)
    os.utime(source, ns=(0, 5))
    tokenize_to_disk(source, home.args, tmp_path)
    assert files(folder) == before
    assert [message for message in caplog.messages if "teddytok.json records no stamp" in message]
    (folder / "data-00001-of-00002.arrow").unlink()
    tokenize_to_disk(source, home.args, tmp_path)
    assert verify(folder).problems == []
    assert Manifest.read(folder).stamp is None
    path = folder / "teddytok.json"
    path.write_text(path.read_text(encoding="utf-8").replace("\n", " \n", 1), encoding="utf-8")
    assert verify(folder).problems == ["teddytok.json was changed since it was written"]


# ---- one definition


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "fingerprint": lambda path: path.write_bytes(
        path.read_bytes().replace(b'"_fingerprint": "', b'"_fingerprint": "0')
    ),
}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(
            (name, kind)
            for name in ("data-00000-of-00002.arrow", "genes.csv", "state.json")
            for kind in ("missing", "longer")
        ),
        ("state.json", "fingerprint"),
        ("teddytok.json", "longer"),
    ],
)
def test_verify_and_a_rerun_and_a_corpus_agree(home: Home, corpus: Path, name: str, damage: str, caplog):
    whole = contents(corpus)
    for again in (
        lambda: tokenize_to_disk(home.sources[0], home.args, corpus),
        lambda: tokenize_corpus(home.sources, home.args, corpus),
    ):
        DAMAGE[damage](corpus / "s6" / name)
        (problem,) = verify(corpus).problems
        assert problem.startswith(f"s6: {name} ")
        caplog.clear()
        again()
        assert [message for message in caplog.messages if message.endswith("damaged: written again")] == [
            f"{corpus / 's6' / name} is damaged: written again"
        ]
        assert contents(corpus) == whole


def test_a_shard_that_belongs_to_no_run_is_found_and_removed(home: Home, corpus: Path, caplog):
    whole = contents(corpus)
    shutil.copy(corpus / "s6" / "data-00000-of-00002.arrow", corpus / "s6" / "data-00000-of-00003.arrow")
    assert verify(corpus).problems == ["s6: data-00000-of-00003.arrow belongs to no run"]
    tokenize_to_disk(home.sources[0], home.args, corpus)
    assert f"{corpus / 's6' / 'data-00000-of-00003.arrow'} belongs to no run: removed" in caplog.messages
    assert contents(corpus) == whole


# ---- manifests with missing or other parts


VALUES = [
    None,
    5,
    -1,
    1.5,
    "x",
    "../../etc",
    [],
    {},
    True,
    float("inf"),
    10**40,
    [[1]],
    {"a": 1},
    "\ud800",
    float("nan"),
]


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = (
        document if isinstance(document, dict) else range(min(len(document), 2)) if isinstance(document, list) else ()
    )
    return [at, *(place for key in inside for place in places(document[key], (*at, key)))]


@pytest.mark.parametrize("name", ["s6/teddytok.json", "corpus.json"])
@pytest.mark.parametrize("checksum", [True, False])
def test_a_manifest_with_other_parts_is_one_clear_error_or_none(home: Home, corpus: Path, name: str, checksum: bool):
    path, rng = corpus / name, random.Random(f"{name} {checksum}")
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["sha256"]
    if not checksum:
        document.get("source", {}).pop("stamp", None)
    readers = [
        lambda: verify(corpus, progress=False),
        lambda: verify(corpus / "s6", progress=False),
        lambda: teddytok_rs.inspect(corpus / "s6"),
        lambda: find_datasets(corpus),
        lambda: teddytok_rs.write_report(
            corpus if name == "corpus.json" else corpus / "s6", corpus.parent / "page.html"
        ),
        lambda: tokenize_to_disk(home.sources[0], home.args, corpus, progress=False),
        lambda: tokenize_corpus(home.sources, home.args, corpus, progress=False),
    ]
    whole = contents(corpus)
    for place in rng.sample(places(document)[1:], 10):
        for value in [*rng.sample(VALUES, 2), ...]:
            changed = copy.deepcopy(document)
            part = changed
            for key in place[:-1]:
                part = part[key]
            if value is ...:
                del part[place[-1]]
            else:
                part[place[-1]] = value
            try:
                text = with_checksum(changed) if checksum else json.dumps(changed)
            except ValueError:
                text = json.dumps(changed)
            path.write_text(text, encoding="utf-8")
            for read in readers if value is ... else rng.sample(readers, 2):
                with contextlib.suppress(OutputError):
                    read()
            for file, content in whole.items():
                if not (corpus / file).is_file() or (corpus / file).read_bytes() != content:
                    (corpus / file).write_bytes(content)


@pytest.mark.parametrize(
    "key",
    [part.name for part in dataclasses.fields(RecordedArgs) if part.default_factory is dataclasses.MISSING],
)
def test_a_manifest_without_an_argument_that_readers_look_up_is_one_clear_error(corpus: Path, key: str):
    for name, read in (("s6/teddytok.json", teddytok_rs.inspect), ("corpus.json", CorpusManifest.read)):
        path = corpus / name
        document = json.loads(path.read_text(encoding="utf-8"))
        del document["sha256"], document["configuration"][key]
        path.write_text(with_checksum(document), encoding="utf-8")
        with raises("output_unreadable", name.rpartition("/")[2], key):
            read(path.parent)


def test_a_shard_whose_tokens_are_not_lists_is_one_problem(corpus: Path):
    folder = corpus / "s6"
    manifest = Manifest.read(folder)
    first = manifest.shards[0]
    with pa.ipc.open_stream((folder / first.file).read_bytes()) as stream:
        table = stream.read_all()
    place = table.schema.get_field_index("gene_ids")
    table = table.set_column(place, "gene_ids", pa.array([0] * table.num_rows, pa.int32()))
    with pa.ipc.new_stream(folder / first.file, table.schema) as stream:
        stream.write_table(table)
    content = (folder / first.file).read_bytes()
    changed = dataclasses.replace(first, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest = manifest.with_shards([changed, *manifest.shards[1:]])
    (folder / "teddytok.json").write_text(manifest.to_json(), encoding="utf-8")
    described = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))["features"]
    (folder / "state.json").write_text(dataset_state(manifest.shards, described), encoding="utf-8")
    assert verify(folder).problems == [f"{first.file} cannot be read: column 'gene_ids' holds int32, not lists"]


# ---- the journal


def interrupted(home: Home, save_dir: Path, interrupt_after: Any, *, shards: int) -> Path:
    with interrupt_after(shards):
        tokenize_to_disk(home.sources[1], home.args, save_dir, threads=1)
    return save_dir / "s9"


TORN = {
    "a hole": lambda lines: [*lines[:1], b"\0" * (len(lines[1]) - 1) + b"\n", *lines[2:]],
    "a torn line": lambda lines: [*lines[:1], lines[1][:70] + lines[1][90:], *lines[2:]],
    "a torn end": lambda lines: [*lines[:-1], lines[-1][:40]],
    "zeros at the end": lambda lines: [*lines[:-1], b"\0" * len(lines[-1])],
    "garbage": lambda lines: [*lines[:-1], b"\xff\xfe{[\n\n", b"9" * 5000],
    "another digit": lambda lines: [*lines[:-1], lines[-1].replace(b'"tokens": ', b'"tokens": 1')],
}


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN.keys())
def test_a_line_of_the_journal_that_cannot_be_read_is_a_shard_that_is_not_finished(
    home, tmp_path, interrupt_after, tear
):
    folder = interrupted(home, tmp_path, interrupt_after, shards=2)
    journal = folder / JOURNAL
    journal.write_bytes(b"".join(tear(journal.read_bytes().splitlines(keepends=True))))
    assert tokenize_to_disk(home.sources[1], home.args, tmp_path).n_kept == 1
    assert contents(folder) == contents(tokenize_to_disk(home.sources[1], home.args, tmp_path / "again").path)


HEADS = {
    "zeros": lambda whole: b"\0" * len(whole),
    "nothing": lambda whole: b"",
    "a digit": lambda whole: whole.replace(b'"max_seq_len": 8', b'"max_seq_len": 9'),
    "not ours": lambda whole: b"{}\n" * 3,
}


@pytest.mark.parametrize("spoil", HEADS.values(), ids=HEADS.keys())
def test_a_journal_without_its_head_is_a_run_that_starts_again_and_says_so(
    home, tmp_path, interrupt_after, caplog, spoil
):
    folder = interrupted(home, tmp_path, interrupt_after, shards=2)
    (folder / JOURNAL).write_bytes(spoil((folder / JOURNAL).read_bytes()))
    assert tokenize_to_disk(home.sources[1], home.args, tmp_path).n_kept == 0
    assert f"{folder / JOURNAL} cannot be read: the run starts again, and keeps nothing" in caplog.messages
    assert contents(folder) == contents(tokenize_to_disk(home.sources[1], home.args, tmp_path / "again").path)


def test_a_journal_that_cannot_be_read_does_not_end_a_finished_dataset(home: Home, corpus: Path):
    whole = contents(corpus)
    (corpus / "s6" / JOURNAL).write_bytes(b"\0\0")
    with raises("output_differs", "max_seq_len"):
        tokenize_to_disk(home.sources[0], {**home.args, "max_seq_len": 5}, corpus)
    assert tokenize_to_disk(home.sources[0], home.args, corpus).n_kept == 2
    assert contents(corpus) == whole


def test_each_noted_shard_is_synced(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced, sync = [], os.fsync

    def count(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", count)
    inode = []
    remove = Path.unlink
    monkeypatch.setattr(
        Path,
        "unlink",
        lambda path, **keys: (path.name == JOURNAL and inode.append(path.stat().st_ino), remove(path, **keys))[1],
    )
    tokenize_to_disk(home.sources[1], home.args, tmp_path, threads=1)
    assert synced.count(inode[0]) == 1 + 3


# ---- a source that changed


def make(form: str, folder: Path, made: Any) -> Any:
    """Write a source where it was before, if it is one that is written."""
    if form == "memory":
        return made
    path = folder / f"made.{form}"
    if path.is_dir():
        shutil.rmtree(path)
    return cells.save(made, path)


FORMS = pytest.mark.parametrize("form", ["memory", "h5ad", "zarr"])
FORMATS = pytest.mark.parametrize("format_", ["arrow", "parquet"])


def hundred() -> Any:
    return cells.with_layer(sparse.csr_matrix(cells.make_counts(100)))


@FORMS
@FORMATS
def test_a_change_that_the_fingerprint_does_not_see_is_an_error_and_the_dataset_stays(home, tmp_path, form, format_):
    args = {**home.args, "layer": "processed", "label_column": None, "max_shard_samples": 40, "format": format_}
    folder = tokenize_to_disk(make(form, tmp_path, hundred()), args, tmp_path / "out", name="made").path
    before = files(folder)
    made = hundred()
    unseen = next(row for row in range(41, 80) if row not in set(np.linspace(0, 99, 64).astype(int)))
    made.layers["processed"].data[made.layers["processed"].indptr[unseen] :][:1] += 90
    source = make(form, tmp_path, made)
    for _ in range(2):
        with raises("output_differs", "data-00001-of-00003.", "--overwrite") as caught:
            tokenize_to_disk(source, args, tmp_path / "out", name="made")
        assert "data-00000" not in str(caught.value)
        assert files(folder) == before
        assert verify(folder).problems == []
    tokenize_to_disk(source, args, tmp_path / "out", name="made", overwrite=True)
    fresh = tokenize_to_disk(source, args, tmp_path / "fresh", name="made").path
    assert contents(folder) == contents(fresh)


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_a_source_that_was_only_touched_keeps_its_shards_and_gets_a_new_stamp(home, tmp_path, form, caplog):
    args = {**home.args, "layer": "processed", "label_column": None, "max_shard_samples": 40}
    source = make(form, tmp_path, hundred())
    manifest = tokenize_to_disk(source, args, tmp_path / "out", name="made")
    shards = {name: known for name, known in files(manifest.path).items() if name.startswith("data-")}
    for path in [source, *source.rglob("*")]:
        os.utime(path, ns=(0, 7))
    again = tokenize_to_disk(source, args, tmp_path / "out", name="made")
    assert "made again and compared" in caplog.text
    assert again.n_kept == 3
    assert shards.items() <= files(manifest.path).items()
    assert again.stamp != manifest.stamp
    assert Manifest.read(manifest.path) == again
    assert verify(manifest.path).problems == []
    caplog.clear()
    tokenize_to_disk(source, args, tmp_path / "out", name="made")
    assert "made again and compared" not in caplog.text


def test_a_damaged_shard_of_a_touched_source_is_written_again(home: Home, tmp_path: Path):
    source = Path(shutil.copy(home.sources[1], tmp_path))
    folder = tokenize_to_disk(source, home.args, tmp_path).path
    whole = {name: content for name, content in contents(folder).items() if name != "teddytok.json"}
    os.utime(source, ns=(0, 7))
    (folder / "data-00001-of-00003.arrow").write_bytes(b"")
    assert tokenize_to_disk(source, home.args, tmp_path).n_kept == 2
    assert whole.items() <= contents(folder).items()
    assert verify(folder).problems == []


def test_workers_compare_too(home: Home, tmp_path: Path):
    source = Path(shutil.copy(home.sources[1], tmp_path))
    folder = tokenize_to_disk(source, home.args, tmp_path).path
    os.utime(source, ns=(0, 7))
    before = files(folder)
    with open_run(source, home.args, tmp_path) as run:
        assert len(run.tasks) == 3
        for task in run.tasks:
            run.note(run_shard(task))
        assert files(folder).items() >= before.items()
        run.commit()
    assert verify(folder).problems == []


def test_a_changed_source_of_a_corpus_fails_and_its_old_cells_are_not_read(home: Home, tmp_path: Path):
    sources = [Path(shutil.copy(source, tmp_path)) for source in home.sources]
    out = tmp_path / "out"
    tokenize_corpus(sources, home.args, out)
    assert find_datasets(out) == [out / "s6", out / "s9"]
    os.utime(sources[0], ns=(0, 7))
    corpus = tokenize_corpus(sources, home.args, out)
    assert corpus.failed == []
    assert verify(out).problems == []
    cells.save(cells.make_cells(7), sources[0])
    corpus = tokenize_corpus(sources, home.args, out)
    (failed,) = corpus.failed
    assert (failed.folder, failed.error["kind"]) == ("s6", "output_differs")
    assert CorpusManifest.read(out) == corpus
    assert find_datasets(out) == [out / "s9"]
    assert corpus.n_cells == 9
    assert verify(out / "s6").problems == []
    corpus = tokenize_corpus(sources, home.args, out, overwrite=True)
    assert find_datasets(out) == [out / "s6", out / "s9"]
    assert corpus.n_cells == 16
    assert verify(out).problems == []


def test_a_journal_that_the_system_does_not_let_be_read_loses_no_shard(home, tmp_path, interrupt_after, monkeypatch):
    folder = interrupted(home, tmp_path, interrupt_after, shards=2)
    shards = files(folder).keys()
    with monkeypatch.context() as patch:
        opened = Path.open

        def fail(path: Path, *words: Any, **keys: Any) -> Any:
            if path.name == JOURNAL:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return opened(path, *words, **keys)

        patch.setattr(Path, "open", fail)
        with raises("output_failed", str(folder), "input/output error"):
            tokenize_to_disk(home.sources[1], home.args, tmp_path)
    assert files(folder).keys() == shards
    assert tokenize_to_disk(home.sources[1], home.args, tmp_path).n_kept == 2


# ---- manifests with other parts


def places_in(document: object, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the places of all values of a document."""
    inside = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [*([at] if at else []), *(place for key, value in inside for place in places_in(value, (*at, key)))]


def changed(document: dict[str, Any], place: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Put another value in a place of a copy; remove it if the value is ``...``."""
    document = copy.deepcopy(document)
    inside: Any = document
    for key in place[:-1]:
        inside = inside[key]
    if value is ...:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    return document


OTHERS: list[object] = [..., None, [], {}, "x", -1, 10**30, 0.5, True, ["x"], {"x": 1}, "\x1b[0m"]


@pytest.mark.parametrize("name", ["teddytok.json", "corpus.json"])
def test_manifests_with_other_parts_are_one_clear_error_to_every_reader(corpus: Path, tmp_path: Path, name: str):
    """With a checksum that fits: somebody else wrote them, or another version."""
    folder = corpus if name == "corpus.json" else corpus / "s9"
    document = json.loads((folder / name).read_text(encoding="utf-8"))
    del document["sha256"]
    places, refused = places_in(document), 0
    for place in places:
        for value in OTHERS:
            made = changed(document, place, value)
            (folder / name).write_text(with_checksum(made, ascii_only=name == "corpus.json"), encoding="utf-8")
            for read in (verify, teddytok_rs.inspect) if folder != corpus else (verify,):
                message = str(folder)
                try:
                    read(folder)
                except teddytok_rs.TeddytokError as refusal:
                    refused, message = refused + 1, str(refusal)
                assert str(folder) in message, (place, value)
    assert refused > len(places)
