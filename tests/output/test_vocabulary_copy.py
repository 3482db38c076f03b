"""A dataset can be used on another machine: it holds its vocabulary, and a corpus holds one for all its datasets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cells
from folders import contents
from raises import raises
from teddytok_rs import CorpusManifest, Manifest, tokenize_corpus, tokenize_to_disk, verify
from teddytok_rs.mapping.vocabulary import load_vocabulary
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
