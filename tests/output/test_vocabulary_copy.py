"""A dataset can be used on another machine: it holds its vocabulary, and a corpus holds one for all its datasets."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cells
from command_line import teddytok
from folders import contents
from raises import raises
from teddytok_rs import (
    CorpusManifest,
    Manifest,
    inspect,
    load_vocabulary,
    tokenize_corpus,
    tokenize_to_disk,
    verify,
    write_report,
)
from teddytok_rs.mapping.vocabulary_files import is_same_vocabulary
from teddytok_rs.output.layout import is_vocabulary_folder
from teddytok_rs.output.vocabulary import dataset_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable


def as_folder(folder: Path) -> Path:
    """A vocabulary of several files, one of which says how padding is written."""
    path = folder / "vocabulary"
    path.mkdir()
    (path / "vocab.txt").write_text("\n".join(["[pad]", *cells.TOKENS[1:]]) + "\n", encoding="utf-8")
    (path / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[pad]"}), encoding="utf-8")
    (path / "README.md").write_text("not read", encoding="utf-8")
    return path


def as_text(folder: Path) -> Path:
    path = folder / "genes.txt"
    path.write_text("\n".join(cells.TOKENS) + "\n", encoding="utf-8")
    return path


def as_json(folder: Path) -> Path:
    path = folder / "my tokens.json"
    path.write_text(json.dumps(cells.TOKEN), encoding="utf-8")
    return path


def make_source(folder: Path, name: str = "cells.h5ad") -> Path:
    return cells.save(cells.make_cells(7), folder / name)


@pytest.mark.parametrize("make", [as_folder, as_text, as_json])
def test_a_moved_dataset_has_its_vocabulary(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    path = make(here)
    vocabulary = load_vocabulary(str(path))
    monkeypatch.chdir(here)
    written = tokenize_to_disk(make_source(here), {"tokenizer_name_or_path": path.name}, here / "out").path
    shutil.move(written, there)
    shutil.rmtree(here)
    monkeypatch.chdir(tmp_path)
    copy = dataset_vocabulary(Manifest.read(there))
    assert (copy.ids, copy.special) == (vocabulary.ids, vocabulary.special)
    assert copy.path == str(there)
    found = verify(there)
    assert (found.problems, found.notes) == ([], [])
    assert load_vocabulary(str(there)).ids == vocabulary.ids  # the folder is a vocabulary itself


def test_a_corpus_has_one_vocabulary_for_all_its_datasets(tmp_path: Path):
    path = as_folder(tmp_path)
    sources = [make_source(tmp_path, name) for name in ("a.h5ad", "b.h5ad")]
    args = {"tokenizer_name_or_path": str(path)}
    corpus = tokenize_corpus(sources, args, tmp_path / "out").path
    vocabulary = load_vocabulary(str(path))
    copies = [name for name in contents(corpus) if name.endswith(("vocab.txt", "special_tokens_map.json"))]
    (folder,) = {Path(name).parent.name for name in copies}
    assert is_vocabulary_folder(folder)
    assert len(copies) == 2
    shutil.rmtree(path)
    shutil.move(corpus, tmp_path / "moved")
    for name in ("a", "b"):
        copy = dataset_vocabulary(Manifest.read(tmp_path / "moved" / name))
        assert (copy.ids, copy.special) == (vocabulary.ids, vocabulary.special)
    found = verify(tmp_path / "moved")
    assert (found.problems, found.notes) == ([], [])
    assert CorpusManifest.read(tmp_path / "moved").vocabulary == vocabulary.sha256


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"?"), Path.unlink], ids=["damaged", "removed"])
@pytest.mark.parametrize("in_corpus", [False, True])
def test_a_damaged_copy_is_found_and_written_again(spoil: Callable[[Path], object], tmp_path: Path, *, in_corpus: bool):
    source, args = make_source(tmp_path), {"tokenizer_name_or_path": str(as_folder(tmp_path))}

    def write() -> Path:
        if in_corpus:
            return tokenize_corpus([source], args, tmp_path / "out").path
        return tokenize_to_disk(source, args, tmp_path / "out").path

    folder = write()
    before = contents(folder)
    (copy,) = folder.rglob("vocab.txt")
    spoil(copy)
    (problem,) = verify(folder).problems
    assert "vocab.txt" in problem
    assert write() == folder
    assert contents(folder) == before


def test_a_dataset_of_an_older_version_has_its_vocabulary_where_it_was(tmp_path: Path):
    golden = Path(__file__).parents[1] / "golden" / "0.1.0"
    manifest = next(Manifest.read(path.parent) for path in sorted(golden.rglob("teddytok.json")))
    assert manifest.checksums.copies == {}
    shutil.copytree(manifest.path, tmp_path / "old")
    document = json.loads((tmp_path / "old" / "teddytok.json").read_text(encoding="utf-8"))
    document["configuration"]["tokenizer_name_or_path"] = str(as_text(tmp_path))  # 0.1.0 wrote no checksum
    (tmp_path / "old" / "teddytok.json").write_text(json.dumps(document), encoding="utf-8")
    with raises("config_conflict", "is not the one that", str(tmp_path / "old")):
        dataset_vocabulary(Manifest.read(tmp_path / "old"))


# ---- moved to another machine


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without huggingface_hub a name is an error of its own kind, so that no test asks the Hub unnoticed."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)


@pytest.fixture(params=["dataset", "corpus"])
def moved(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None) -> Path:
    """A dataset or a corpus of two, moved; all else of its old place is deleted."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    args = {
        "tokenizer_name_or_path": as_folder(here).name,
        "bio_annotations": True,
        "disease_mapping": cells.write_json(here / "disease.json", {"normal": "melanoma"}),
        "sex_mapping": {"male": 7},
        "label_column": "cell_type",
        "add_cls": True,
    }
    sources = [make_source(here, name) for name in ("a.h5ad", "b.h5ad")]
    if request.param == "corpus":
        made = tokenize_corpus(sources, args, "out").path
    else:
        made = tokenize_to_disk(sources[0], args, "out").path
    there = tmp_path / "there"
    shutil.move(made, there)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(here)
    return there


def test_a_moved_folder_is_used_as_before(moved: Path):
    datasets = [path.parent for path in sorted(moved.rglob("teddytok.json"))]
    for folder in {moved, *datasets}:
        vocabulary = load_vocabulary(folder)
        assert vocabulary.ids == load_vocabulary(str(folder)).ids == {"[pad]": 0, **dict(list(cells.TOKEN.items())[1:])}
        assert vocabulary.pad_token_id == 0
        assert verify(folder).problems == []
        assert f"tokens {len(cells.TOKENS)}" in " ".join(teddytok("vocab", "show", folder).stdout.split())
    for folder in datasets:
        (sequence,) = inspect(folder, cells=1).sequences
        assert (sequence.genes[0], sequence.annotations["labels"]) == ("CLS", "T cell")
        assert Manifest.read(folder).special_tokens == {"pad": 0, "unk": 1, "cls": 2, "mask": 3}


def test_a_moved_folder_is_reported(moved: Path):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    page = Path(write_report(moved)).read_text(encoding="utf-8")
    assert "special_tokens_map.json" in page
    assert "dict of 1 key, not stored; sha256" in page


def test_a_dataset_without_its_corpus_says_what_is_missing(moved: Path, tmp_path: Path):
    if not (moved / "corpus.json").exists():
        (moved / "vocab.txt").unlink()
        folder = "vocabulary-"
        alone = moved
    else:
        (shared,) = moved.glob("vocabulary-*")
        folder = shared.name
        alone = Path(shutil.copytree(moved / "b", tmp_path / "alone" / "b"))
    with raises("vocabulary_left_behind", repr(str(alone)), "'vocabulary' does not exist here", folder):
        load_vocabulary(alone)
    assert "has no undamaged copy" in teddytok("vocab", "show", alone).stderr
    assert inspect(alone).sequences[0].genes[0] == "CLS"
    if (moved / "corpus.json").exists():
        shutil.copytree(shared, tmp_path / "alone" / shared.name)
        assert load_vocabulary(alone).pad_token_id == 0


def test_a_moved_dataset_trains(moved: Path, tmp_path: Path):
    pytest.importorskip("torch", reason="PyTorch is not installed; it is an extra of several GB")
    from torch.utils.data import DataLoader

    from teddytok_rs.torch import Collator, WrittenDataset

    dataset = WrittenDataset(moved)
    collator = Collator.for_dataset(dataset)
    assert collator.pad_id == 0 == dataset.special_tokens["pad"]
    assert dataset.load_vocabulary().ids["[pad]"] == 0
    batches = list(DataLoader(dataset, batch_size=3, collate_fn=collator))
    assert sum(len(batch["labels"]) for batch in batches) == len(dataset)
    if (moved / "corpus.json").exists():  # a dataset alone has the ids of its special tokens
        alone = Path(shutil.copytree(moved / "b", tmp_path / "alone" / "b"))
        assert Collator.for_dataset(WrittenDataset(alone)) == collator


def test_a_dataset_of_0_1_0_accepts_the_tokenizer_json_that_it_did_not_record():
    recorded = {"vocab.txt": "a", "special_tokens_map.json": "b"}
    assert is_same_vocabulary(recorded, {**recorded, "tokenizer.json": "c"})
    assert not is_same_vocabulary({**recorded, "tokenizer.json": "d"}, {**recorded, "tokenizer.json": "c"})
    assert not is_same_vocabulary(recorded, {**recorded, "added_tokens.json": "c"})
    assert not is_same_vocabulary({**recorded, "tokenizer.json": "c"}, recorded)
