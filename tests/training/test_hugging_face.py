"""What transformers does with our vocabularies and datasets: it opens the ones, and masks the others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import cells
from teddytok_rs import Vocabulary, build_vocabulary, load_vocabulary, tokenize_corpus, tokenize_to_disk

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
datasets = pytest.importorskip("datasets", reason="datasets is not installed")
torch = pytest.importorskip("torch", reason="PyTorch is not installed; it is an extra of several GB")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def opened(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(str(folder))


def assert_same(tokenizer: Any, vocabulary: Vocabulary) -> None:
    assert tokenizer.get_vocab() == vocabulary.get_vocab() == vocabulary.ids
    assert len(tokenizer) == tokenizer.vocab_size == len(vocabulary) == vocabulary.vocab_size
    for role in ("pad", "unk", "cls", "mask", "sep", "eos", "bos"):
        assert getattr(tokenizer, f"{role}_token_id") == getattr(vocabulary, f"{role}_token_id"), role
    tokens = [*vocabulary, *(["no such token"] if vocabulary.unk_token_id is not None else [])]
    assert tokenizer.convert_tokens_to_ids(tokens) == vocabulary.encode(tokens)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    made = cells.make_cells(note=["T cell", "a || b", "ü", "  two  blanks", "\u2028", "<x>"])
    build_vocabulary([made], tmp_path / "built", obs_columns=["note"])
    return tmp_path / "built"


def test_a_built_vocabulary_opens_with_the_same_ids(built: Path):
    tokenizer, vocabulary = opened(built), load_vocabulary(str(built))
    assert_same(tokenizer, vocabulary)
    assert {"T cell", "a", "b", "  two  blanks"} < set(vocabulary)
    text = f"<cls> {cells.GENES[3]} {cells.GENES[1]} nothing <mask>"
    assert tokenizer(text)["input_ids"] == vocabulary.encode(text.split())
    assert tokenizer.decode(vocabulary.encode(cells.GENES[:2])) == " ".join(cells.GENES[:2])


@pytest.mark.parametrize(
    ("ids", "special"),
    [
        ({"<pad>": 0, "TP53": 1}, {"pad": "<pad>"}),
        ({"TP53": 5, "[U]": 9, "CD3E": 70_000}, {"unk": "[U]", "sep": "[U]"}),
        ({"": 0, "a": 1, "\n": 2}, {}),
        (
            {"x": 0, "S": 1, "E": 2, "B": 3},
            {"sep": "S", "eos": "E", "bos": "B", "cls": "without an id"},
        ),
    ],
    ids=["no unknown", "gaps and one token of two roles", "odd tokens", "other roles"],
)
def test_a_saved_vocabulary_opens_with_the_same_ids(ids: dict[str, int], special: dict[str, str], tmp_path: Path):
    vocabulary = Vocabulary("", ids, special)
    vocabulary.save_pretrained(tmp_path / "v")
    assert_same(opened(tmp_path / "v"), vocabulary)
    assert_same(opened(tmp_path / "v"), load_vocabulary(str(tmp_path / "v")))


@pytest.mark.parametrize("in_corpus", [False, True], ids=["dataset", "corpus"])
def test_the_copy_of_a_moved_dataset_opens(built: Path, tmp_path: Path, *, in_corpus: bool):
    source = cells.save(cells.make_cells(), tmp_path / "cells.h5ad")
    args = {"tokenizer_name_or_path": str(built)}
    if in_corpus:
        folder = tokenize_corpus([source], args, tmp_path / "out").path
    else:
        folder = tokenize_to_disk(source, args, tmp_path / "out").path
    vocabulary = load_vocabulary(str(built))
    shutil.rmtree(built)
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    (copy,) = moved.rglob("tokenizer.json")
    assert_same(opened(copy.parent), vocabulary)


def test_the_masking_collator_masks_our_sequences(built: Path, tmp_path: Path):
    source = cells.save(cells.make_cells(200), tmp_path / "cells.h5ad")
    args = {"tokenizer_name_or_path": str(built), "add_cls": True, "write_values": False}
    written = tokenize_to_disk(source, args, tmp_path / "out")
    rows = datasets.load_from_disk(str(written.path)).rename_column("gene_ids", "input_ids")
    tokenizer, vocabulary = opened(written.path), load_vocabulary(str(built))
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=0.3, seed=1)
    batch = collator([rows[row] for row in range(200)])
    lengths = [len(ids) for ids in rows["input_ids"]]
    assert batch["input_ids"].shape == batch["labels"].shape == (200, max(lengths))
    n_masked = 0
    for row, ids in enumerate(rows["input_ids"]):
        seen, labels = batch["input_ids"][row].tolist(), batch["labels"][row].tolist()
        assert batch["attention_mask"][row].tolist() == [1] * len(ids) + [0] * (max(lengths) - len(ids))
        assert seen[len(ids) :] == [vocabulary.pad_token_id] * (max(lengths) - len(ids))
        assert labels[0] == -100  # CLS is a special token
        for place, token in enumerate(ids):
            assert labels[place] in {-100, token}
            assert labels[place] != -100 or seen[place] == token
        assert set(labels[len(ids) :]) <= {-100}
        n_masked += seen.count(vocabulary.mask_token_id)
    n_labelled = int((batch["labels"] != -100).sum())
    assert 0.2 < n_labelled / (sum(lengths) - 200) < 0.4
    assert 0.6 < n_masked / n_labelled <= 1
