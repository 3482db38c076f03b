"""Vocabulary files as people have them, and as they go wrong; vocabularies that are built."""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cells
from raises import raises
from teddytok_rs import TokenizationArgs, Vocabulary, VocabularyError, build_vocabulary, load_vocabulary, tokenize

LARGEST = 2**31 - 1


def text_vocabulary(folder: Path, content: str | bytes) -> str:
    (folder / "vocab.txt").write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder)


def folder_of(folder: Path, **files: Any) -> str:
    """Write JSON files, named without their ending."""
    for name, document in files.items():
        cells.write_json(folder / f"{name}.json", document)
    return str(folder)


# ---- vocab.txt


@pytest.mark.parametrize(
    "content",
    [b"a\nb\nc\n", b"a\nb\nc", b"a\r\nb\r\nc\r\n", b"a\r\nb\nc", b"\xef\xbb\xbfa\nb\nc\n"],
    ids=["LF", "no newline at the end", "CRLF", "mixed", "byte order mark"],
)
def test_the_id_of_a_token_is_its_line_number_from_0(content: bytes, tmp_path: Path):
    assert load_vocabulary(text_vocabulary(tmp_path, content)).ids == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize(
    "inside",
    ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r", " ", "\t", "\u00a0", "\0"],
    ids=lambda character: f"U+{ord(character):04X}",
)
def test_no_other_character_cuts_a_line(inside: str, tmp_path: Path):
    vocabulary = load_vocabulary(text_vocabulary(tmp_path, f"a{inside}b\nc\n"))
    assert vocabulary.ids == {f"a{inside}b": 0, "c": 1}


@pytest.mark.parametrize("token", [" a", "a ", "\u2028", "\ufeffa"], ids=ascii)
def test_tokens_are_not_trimmed(token: str, tmp_path: Path):
    assert load_vocabulary(text_vocabulary(tmp_path, f"x\n{token}\n")).ids == {"x": 0, token: 1}


def test_an_empty_line_takes_an_id(tmp_path: Path):
    assert load_vocabulary(text_vocabulary(tmp_path, "a\n\nb\n")).ids["b"] == 2


def test_letters_are_distinguished_by_case_and_form(tmp_path: Path):
    vocabulary = load_vocabulary(text_vocabulary(tmp_path, "Actb\nACTB\n\u00e9\ne\u0301\n"))
    assert list(vocabulary.ids.values()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "ids", "named"),
    [
        ("a\nb\na\n", {"a": 2, "b": 1}, ["'a'"]),
        ("a\nb\r\nb\n", {"a": 0, "b": 2}, ["'b'"]),
        ("a\n\n\nb\n", {"a": 0, "": 2, "b": 3}, []),
        ("a\nb\n", {"a": 0, "b": 1}, []),
    ],
    ids=["apart", "with another line end", "empty lines", "none"],
)
def test_a_token_on_several_lines_has_the_id_of_the_last(
    content: str, ids: dict[str, int], named: list[str], tmp_path: Path
):
    vocabulary = load_vocabulary(text_vocabulary(tmp_path, content))
    assert vocabulary.ids == ids
    assert len(vocabulary.warnings) == len(named)
    for warning, token in zip(vocabulary.warnings, named, strict=True):
        assert token in warning
        assert "vocab.txt" in warning


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_vocabulary_that_is_not_utf8_is_refused(encoding: str, tmp_path: Path):
    with raises("vocabulary_file", "vocab.txt", "not UTF-8"):
        load_vocabulary(text_vocabulary(tmp_path, "\u00e9a\n".encode(encoding)))


def test_an_empty_vocab_txt_is_refused(tmp_path: Path):
    with raises("vocabulary_file", "vocab.txt", "no token"):
        load_vocabulary(text_vocabulary(tmp_path, ""))


# ---- vocab.json


def test_a_json_vocabulary_gives_the_ids_it_holds(tmp_path: Path):
    vocabulary = load_vocabulary(folder_of(tmp_path, vocab={"b": 7, "a": 0, "c": LARGEST}))
    assert vocabulary.ids == {"a": 0, "b": 7, "c": LARGEST}
    assert (len(vocabulary), vocabulary.largest_id) == (3, LARGEST)


def test_tokens_may_share_an_id(tmp_path: Path):
    assert load_vocabulary(folder_of(tmp_path, vocab={"TP53": 1, "P53": 1})).ids == {"TP53": 1, "P53": 1}


@pytest.mark.parametrize(
    "token_id", [-1, 2**31, 1.0, 1.5, True, None, "x", "", "-1", "\u0663", [1], {"id": 1}], ids=ascii
)
def test_a_bad_id_is_refused_with_its_token(token_id: Any, tmp_path: Path):
    with raises("vocabulary_file", "'TP53'", f"{token_id!r}", "an integer from 0 to 2147483647"):
        load_vocabulary(folder_of(tmp_path, vocab={"a": 0, "TP53": token_id}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a": 0, "a": 1}', "key 'a' occurs more than once"),
        ('{"a": 0', "not JSON"),
        ('["a", "b"]', "list"),
        ('{"a": NaN}', "NaN"),
        ("{}", "no token"),
    ],
    ids=["key twice", "cut off", "list", "NaN", "empty"],
)
def test_a_malformed_json_vocabulary_is_refused(content: str, reason: str, tmp_path: Path):
    (tmp_path / "vocab.json").write_text(content, encoding="utf-8")
    with raises("vocabulary_file", "vocab.json", reason):
        load_vocabulary(str(tmp_path))


def test_an_empty_json_vocabulary_gets_no_advice_about_lines(tmp_path: Path):
    with raises("vocabulary_file") as caught:
        load_vocabulary(folder_of(tmp_path, vocab={}))
    assert "a line" not in str(caught.value)


# ---- the files next to it


def test_added_tokens_are_added(tmp_path: Path):
    text_vocabulary(tmp_path, "a\nb\n")
    folder_of(
        tmp_path, added_tokens={"<cls>": 2, "x": 9}, tokenizer_config={"added_tokens_decoder": {"9": {"content": "x"}}}
    )
    assert load_vocabulary(str(tmp_path)).ids == {"a": 0, "b": 1, "<cls>": 2, "x": 9}


def test_tokens_of_the_tokenizer_configuration_are_added(tmp_path: Path):
    decoder = {"0": {"content": "a", "special": False}, "5": {"content": "<cls>", "special": True}, "6": "plain"}
    folder_of(tmp_path, vocab={"a": 0}, tokenizer_config={"added_tokens_decoder": decoder})
    assert load_vocabulary(str(tmp_path)).ids == {"a": 0, "<cls>": 5, "plain": 6}


@pytest.mark.parametrize(
    "decoder",
    [{"x": {"content": "a"}}, {"-1": {"content": "a"}}, {"1.0": "a"}, {"1": {}}, {"1": 5}, {"1": None}, ["a"]],
    ids=str,
)
def test_a_malformed_decoder_is_refused(decoder: Any, tmp_path: Path):
    folder_of(tmp_path, vocab={"b": 0}, tokenizer_config={"added_tokens_decoder": decoder})
    with raises("vocabulary_file", "tokenizer_config.json"):
        load_vocabulary(str(tmp_path))


def test_a_bad_id_in_a_decoder_is_reported_with_the_token_itself(tmp_path: Path):
    folder_of(tmp_path, vocab={"b": 0}, tokenizer_config={"added_tokens_decoder": {"-1": {"content": "<cls>"}}})
    with raises("vocabulary_file", "token '<cls>' has id '-1'"):
        load_vocabulary(str(tmp_path))


@pytest.mark.parametrize("form", ["[C]", {"content": "[C]", "lstrip": False}], ids=["text", "object"])
@pytest.mark.parametrize("file", ["special_tokens_map", "tokenizer_config"])
def test_special_tokens_are_named_as_text_or_object(file: str, form: Any, tmp_path: Path):
    text_vocabulary(tmp_path, "[C]\n[U]\n")
    folder_of(tmp_path, **{file: {"cls_token": form, "unk_token": "[U]", "bos_token": None, "model_max_length": 512}})
    vocabulary = load_vocabulary(str(tmp_path))
    assert vocabulary.special == {"cls": "[C]", "unk": "[U]"}
    assert vocabulary.special_id("cls", needs="a test", advice="None") == 0


@pytest.mark.parametrize("spelling", ["<cls>", "[CLS]"])
def test_special_tokens_that_no_file_names_are_known_by_their_usual_spelling(spelling: str, tmp_path: Path):
    vocabulary = load_vocabulary(text_vocabulary(tmp_path, f"a\n{spelling}\n"))
    assert vocabulary.special == {"cls": spelling}


def test_two_usual_spellings_name_none(tmp_path: Path):
    assert load_vocabulary(text_vocabulary(tmp_path, "<cls>\n[CLS]\n")).special == {}


def test_a_special_token_that_a_file_names_wins_over_the_usual_spelling(tmp_path: Path):
    text_vocabulary(tmp_path, "<cls>\nstart\n")
    folder_of(tmp_path, special_tokens_map={"cls_token": "start"})
    assert load_vocabulary(str(tmp_path)).special == {"cls": "start"}


def test_files_that_name_different_special_tokens_are_refused(tmp_path: Path):
    text_vocabulary(tmp_path, "<cls>\nstart\n")
    folder_of(tmp_path, special_tokens_map={"cls_token": "start"}, tokenizer_config={"cls_token": "<cls>"})
    with pytest.raises(VocabularyError, match=r"'start'.*'<cls>'|'<cls>'.*'start'"):
        load_vocabulary(str(tmp_path))


def test_a_token_that_has_different_ids_in_two_files_is_refused(tmp_path: Path):
    text_vocabulary(tmp_path, "a\nb\n")
    folder_of(tmp_path, added_tokens={"b": 5})
    with raises("vocabulary_conflict", "'b'", "1 in vocab.txt", "5 in added_tokens.json"):
        load_vocabulary(str(tmp_path))


def test_vocab_txt_and_vocab_json_must_agree(tmp_path: Path):
    text_vocabulary(tmp_path, "a\nb\n")
    assert load_vocabulary(folder_of(tmp_path, vocab={"a": 0, "b": 1, "c": 2})).ids == {"a": 0, "b": 1, "c": 2}
    with raises("vocabulary_conflict", "'a'", "vocab.txt", "vocab.json"):
        load_vocabulary(folder_of(tmp_path, vocab={"a": 1, "b": 0}))


def test_a_token_that_has_different_ids_in_one_decoder_is_refused(tmp_path: Path):
    decoder = {"5": {"content": "<cls>"}, "6": {"content": "<cls>"}}
    folder_of(tmp_path, vocab={"a": 0}, tokenizer_config={"added_tokens_decoder": decoder})
    with pytest.raises(VocabularyError, match="'<cls>'"):
        load_vocabulary(str(tmp_path))


def test_checksums_are_those_of_all_files_read(tmp_path: Path):
    text_vocabulary(tmp_path, "a\n")
    folder_of(tmp_path, added_tokens={"b": 1}, special_tokens_map={}, tokenizer_config={})
    folder_of(tmp_path, tokenizer={"model": {"type": "WordLevel", "vocab": {"a": 0}}})
    names = ["vocab.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"]
    expected = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names}
    assert load_vocabulary(str(tmp_path)).sha256 == expected


def test_a_tokenizer_file_adds_its_tokens_and_must_agree(tmp_path: Path):
    text_vocabulary(tmp_path, "a\nb\n")
    folder_of(tmp_path, tokenizer={"model": {"vocab": {"a": 0, "c": 7}}, "added_tokens": [{"id": 8, "content": "<x>"}]})
    assert load_vocabulary(str(tmp_path)).ids == {"a": 0, "b": 1, "c": 7, "<x>": 8}
    folder_of(tmp_path, tokenizer={"model": {"type": "Unigram", "vocab": [["a", -1.5]]}, "added_tokens": None})
    assert load_vocabulary(str(tmp_path)).ids == {"a": 0, "b": 1}
    folder_of(tmp_path, tokenizer={"model": {"vocab": {"a": 1}}})
    with raises("vocabulary_conflict", "'a'", "0 in vocab.txt", "1 in tokenizer.json"):
        load_vocabulary(str(tmp_path))


@pytest.mark.parametrize(
    "document",
    [
        {"model": {"vocab": {"a": "0"}}},
        {"added_tokens": {"a": 0}},
        {"added_tokens": ["a"]},
        {"added_tokens": [{"content": "a"}]},
        {"added_tokens": [{"id": 0}]},
    ],
    ids=str,
)
def test_a_malformed_tokenizer_file_is_refused(document: Any, tmp_path: Path):
    text_vocabulary(tmp_path, "a\n")
    folder_of(tmp_path, tokenizer=document)
    with raises("vocabulary_file", "tokenizer.json"):
        load_vocabulary(str(tmp_path))


# ---- its path


@pytest.mark.parametrize("name", ["vocab.txt", "tokens.txt"])
def test_a_text_file_alone_is_a_vocabulary(name: str, tmp_path: Path):
    (tmp_path / name).write_text("a\nb\n", encoding="utf-8")
    cells.write_json(tmp_path / "added_tokens.json", {"c": 2})
    assert load_vocabulary(str(tmp_path / name)).ids == {"a": 0, "b": 1}


@pytest.mark.parametrize("name", ["vocab.json", "tokens.json"])
def test_a_json_file_alone_is_a_vocabulary(name: str, tmp_path: Path):
    assert load_vocabulary(cells.write_json(tmp_path / name, {"a": 3})).ids == {"a": 3}


@pytest.mark.parametrize("files", [[], ["added_tokens", "special_tokens_map"], ["tokenizer"]], ids=str)
def test_a_folder_with_neither_vocabulary_file_is_none(files: list[str], tmp_path: Path):
    folder_of(tmp_path, **{name: {} for name in files})
    with raises("vocabulary_not_found", str(tmp_path), "neither vocab.txt nor vocab.json"):
        load_vocabulary(str(tmp_path))


@pytest.mark.parametrize("name", ["vocabulary", "./vocabulary", "/no/such/folder", "vocab.txt"])
def test_a_path_that_does_not_exist_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    with raises("vocabulary_not_found", repr(name), "no such file or folder"):
        load_vocabulary(name)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_pickle_is_never_opened(given: str, tmp_path: Path):
    went_off, pickled = tmp_path / "went off", tmp_path / "vocab.pkl"
    pickled.write_bytes(pickle.dumps(Bomb(went_off)))
    kind = {"folder": "vocabulary_not_found", "file": "vocabulary_file"}[given]
    with raises(kind):
        load_vocabulary(str(tmp_path if given == "folder" else pickled))
    assert not went_off.exists()
    pickle.loads(pickled.read_bytes())
    assert went_off.exists(), "the bomb was none"


# ---- special tokens that a run needs


def test_add_cls_needs_a_cls_token(tmp_path: Path):
    vocabulary = cells.write_vocabulary(tmp_path / "v", cells.KEPT)
    args = {"tokenizer_name_or_path": vocabulary, "add_cls": True, "max_seq_len": 3}
    with raises("no_special_token", "add_cls needs the vocabulary's CLS token", vocabulary, "Set cls_token_id"):
        tokenize(cells.make_cells(), args)
    table = tokenize(cells.make_cells(), {**args, "cls_token_id": 77})
    assert {ids[0] for ids in table["gene_ids"].to_pylist()} == {77}
    assert {values[0] for values in table["values"].to_pylist()} == {1.0}


def test_add_eos_needs_an_eos_token(tmp_path: Path):
    vocabulary = cells.write_vocabulary(tmp_path / "v", cells.KEPT)
    args = {"tokenizer_name_or_path": vocabulary, "add_eos": True, "max_seq_len": 3}
    with raises("no_special_token", "add_eos needs the vocabulary's EOS token", vocabulary, "Set eos_token_id"):
        tokenize(cells.make_cells(), args)
    table = tokenize(cells.make_cells(), {**args, "eos_token_id": 77})
    assert {ids[-1] for ids in table["gene_ids"].to_pylist()} == {77}
    assert {values[-1] for values in table["values"].to_pylist()} == {0.0}
    named = cells.write_vocabulary(tmp_path / "named", [*cells.KEPT, "<eos>"])
    table = tokenize(cells.make_cells(), {**args, "tokenizer_name_or_path": named})
    assert {ids[-1] for ids in table["gene_ids"].to_pylist()} == {10}


def test_the_cls_token_is_the_vocabularys_unless_set(tmp_path: Path):
    args = cells.make_args(tmp_path, add_cls=True)
    assert {ids[0] for ids in tokenize(cells.make_cells(), args)["gene_ids"].to_pylist()} == {cells.CLS}


def test_a_named_special_token_without_an_id_is_reported_as_such(tmp_path: Path):
    vocabulary = cells.write_vocabulary(tmp_path, cells.KEPT)
    folder_of(tmp_path, special_tokens_map={"cls_token": "[START]"})
    with raises("no_special_token", "[START]"):
        tokenize(cells.make_cells(), {"tokenizer_name_or_path": vocabulary, "add_cls": True})


# ---- building one


def test_a_built_vocabulary_holds_special_tokens_then_labels_then_genes(tmp_path: Path):
    tokens = build_vocabulary([cells.make_cells()], tmp_path / "v", obs_columns=["sex", "disease"])
    labels = sorted([*cells.LABELS["sex"], *cells.LABELS["disease"]])
    assert tokens == ["<pad>", "<unk>", "<cls>", "<mask>", *labels, *cells.GENES]
    vocabulary = load_vocabulary(str(tmp_path / "v"))
    assert list(vocabulary.ids) == tokens
    assert vocabulary.special == {"pad": "<pad>", "unk": "<unk>", "cls": "<cls>", "mask": "<mask>"}


def test_the_order_of_the_sources_does_not_matter(tmp_path: Path):
    one, other = cells.make_cells()[:, :7].copy(), cells.make_cells()[:, 5:].copy()
    forth = build_vocabulary([one, other], tmp_path / "forth", obs_columns=["sex"])
    back = build_vocabulary([other, one], tmp_path / "back", obs_columns=["sex"])
    assert forth == back
    for name in ("vocab.txt", "special_tokens_map.json"):
        assert (tmp_path / "forth" / name).read_bytes() == (tmp_path / "back" / name).read_bytes()


def test_a_vocabulary_is_built_from_the_genes_that_will_be_tokenized(tmp_path: Path):
    made = cells.make_cells()
    made.var["versioned"] = [f"{gene}.{number}" for number, gene in enumerate(cells.GENES)]
    raw = build_vocabulary([made], tmp_path / "raw", layer="raw")
    assert set(cells.RAW_GENES) < set(raw)
    symbols = build_vocabulary([made], tmp_path / "symbols", gene_id_column="symbol")
    assert symbols[4:] == sorted(cells.SYMBOLS)
    stripped = build_vocabulary([made], tmp_path / "v", gene_id_column="versioned", strip_gene_version=True)
    assert stripped[4:] == cells.GENES


def test_a_file_and_its_cells_in_memory_build_the_same_vocabulary(tmp_path: Path):
    made = cells.make_cells()
    made.write_h5ad(tmp_path / "cells.h5ad")
    from_file = build_vocabulary([tmp_path / "cells.h5ad"], tmp_path / "file", obs_columns=["disease"])
    assert from_file == build_vocabulary([made], tmp_path / "memory", obs_columns=["disease"])


def test_a_built_vocabulary_tokenizes_its_source_without_loss(tmp_path: Path):
    build_vocabulary([cells.make_cells()], tmp_path / "v")
    table = tokenize(cells.make_cells(), {"tokenizer_name_or_path": str(tmp_path / "v"), "min_gene_overlap": 1})
    assert table.num_rows == 6


@pytest.mark.parametrize("file", ["vocab.txt", "special_tokens_map.json", "vocab.json", "tokenizer.json"])
def test_a_folder_that_holds_a_vocabulary_is_not_overwritten(file: str, tmp_path: Path):
    (tmp_path / file).write_text("{}", encoding="utf-8")
    with raises("vocabulary_exists", str(tmp_path)):
        build_vocabulary([cells.make_cells()], tmp_path)
    with raises("vocabulary_exists", str(tmp_path)):
        Vocabulary("", {"a": 0}).save_pretrained(tmp_path)
    assert (tmp_path / file).read_text(encoding="utf-8") == "{}"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with raises("output_failed", str(tmp_path / "file" / "v")):
        build_vocabulary([cells.make_cells()], tmp_path / "file" / "v")


@pytest.mark.parametrize("bad", ["", "a\nb", "a\r"], ids=ascii)
def test_a_label_that_cannot_stand_on_a_line_is_refused(bad: str, tmp_path: Path):
    with raises("config_conflict", "cannot be written on a line", repr(bad)):
        build_vocabulary([cells.make_cells(donor=bad)], tmp_path / "v", obs_columns=["donor"])
    assert not (tmp_path / "v").exists()


def test_a_missing_label_gets_no_token(tmp_path: Path):
    donors = ["d1", None, "d2", None, "d1", "d1"]
    tokens = build_vocabulary([cells.make_cells(donor=donors)], tmp_path / "v", obs_columns=["donor"])
    assert tokens[4:6] == ["d1", "d2"]


@pytest.mark.parametrize("form", ["memory", "h5ad"])
def test_a_missing_obs_column_is_refused_before_anything_is_written(form: str, tmp_path: Path):
    source: Any = cells.make_cells()
    if form == "h5ad":
        source.write_h5ad(tmp_path / "cells.h5ad")
        source = tmp_path / "cells.h5ad"
    with raises("obs_column_missing", "'donor'", "'disease'"):
        build_vocabulary([source], tmp_path / "v", obs_columns=["donor"])
    assert not (tmp_path / "v").exists()


def test_a_missing_gene_column_is_refused(tmp_path: Path):
    with raises("gene_column_missing", "'gene_name'", "'symbol'"):
        build_vocabulary([cells.make_cells()], tmp_path / "v", gene_id_column="gene_name")


def test_a_vocabulary_is_a_plain_object_that_travels(tmp_path: Path):
    vocabulary = load_vocabulary(text_vocabulary(tmp_path, "a\n<unk>\n"))
    assert isinstance(vocabulary, Vocabulary)
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary


# ---- what training code asks


def test_tokens_become_ids_and_back(tmp_path: Path):
    vocabulary = load_vocabulary(text_vocabulary(tmp_path, "<pad>\n<unk>\n<cls>\n<mask>\nTP53\nCD3E\n"))
    assert vocabulary.encode(["CD3E", "TP53", "no gene"]) == [5, 4, 1]
    assert vocabulary.decode(np.array([5, 4, 1])) == ["CD3E", "TP53", "<unk>"]
    ids = (vocabulary.pad_token_id, vocabulary.unk_token_id, vocabulary.cls_token_id, vocabulary.mask_token_id)
    assert ids == (0, 1, 2, 3)
    with raises("unknown_token_id", "no token of id 6"):
        vocabulary.decode([4, 6])


def test_a_vocabulary_without_special_tokens_has_no_ids_of_them(tmp_path: Path):
    vocabulary = load_vocabulary(text_vocabulary(tmp_path, "\nTP53\n"))  # the first token is empty
    assert vocabulary.pad_token_id is None
    assert vocabulary.decode([0, 1]) == ["", "TP53"]
    with raises("no_special_token", "encoding 'CD3E' needs the vocabulary's UNK token"):
        vocabulary.encode(["TP53", "CD3E"])


def test_an_id_of_two_tokens_is_decoded_as_the_first(tmp_path: Path):
    vocabulary = load_vocabulary(folder_of(tmp_path, vocab={"TP53": 0, "ENSG00000141510": 0}))
    assert vocabulary.encode(["ENSG00000141510"]) == [0]
    assert vocabulary.decode([0]) == ["TP53"]


@pytest.mark.parametrize("tokens", ["ENSG00000141510", "", b"TP53"])
def test_one_text_is_not_encoded_letter_by_letter(tokens: Any, tmp_path: Path):
    vocabulary = load_vocabulary(text_vocabulary(tmp_path, "ENSG00000141510\n<unk>\n"))
    with raises("config_value", "tokens", "a list of tokens"):
        vocabulary.encode(tokens)


def test_a_vocabulary_is_a_mapping(tmp_path: Path):
    vocabulary = load_vocabulary(folder_of(tmp_path, vocab={"<pad>": 0, "TP53": 7}, special_tokens_map={}))
    assert "TP53" in vocabulary
    assert "CD3E" not in vocabulary
    assert vocabulary["TP53"] == 7
    with pytest.raises(KeyError):
        vocabulary["CD3E"]
    assert vocabulary.get("CD3E") is None
    assert (len(vocabulary), vocabulary.vocab_size, vocabulary.largest_id) == (2, 2, 7)
    assert list(vocabulary) == ["<pad>", "TP53"]
    assert dict(vocabulary) == vocabulary.get_vocab() == vocabulary.ids
    vocabulary.get_vocab()["TP53"] = 8
    assert vocabulary["TP53"] == 7


ROLES = ["pad", "unk", "cls", "mask", "sep", "eos", "bos"]


@pytest.mark.parametrize("role", ROLES)
def test_special_tokens_have_the_names_of_transformers(role: str, tmp_path: Path):
    folder_of(tmp_path, vocab={"a": 0, "[x]": 5}, special_tokens_map={f"{role}_token": "[x]"})
    vocabulary = load_vocabulary(str(tmp_path))
    assert {name: getattr(vocabulary, f"{name}_token_id") for name in ROLES} == dict.fromkeys(ROLES) | {role: 5}
    assert "Id of the token" in type(vocabulary).__dict__[f"{role}_token_id"].__doc__


# ---- written for this package and for transformers

TOKENS = st.text(st.characters(codec="utf-8"), max_size=4)


@given(st.dictionaries(TOKENS, st.integers(0, 9) | st.integers(0, LARGEST), min_size=1, max_size=6), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_saved_vocabulary_is_read_back(tmp_path: Path, ids: dict[str, int], lines: bool):
    if lines:
        ids = {token: number for number, token in enumerate(ids)}
    special = {"pad": next(iter(ids)), "cls": "a token without an id"}
    folder = Path(tempfile.mkdtemp(dir=tmp_path)) / "v"
    Vocabulary("", ids, special).save_pretrained(folder)
    vocabulary = load_vocabulary(str(folder))
    assert vocabulary.ids == ids
    assert (vocabulary.pad_token_id, vocabulary.cls_token_id) == (ids[special["pad"]], ids.get(special["cls"]))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
        assert load_vocabulary(str(folder)).ids == ids  # the same without the files for transformers


def test_a_vocabulary_of_lines_stays_one(tmp_path: Path):
    Vocabulary("", {"b": 1, "a": 0, "c d": 2}).save_pretrained(tmp_path)
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8") == "a\nb\nc d\n"
    assert not (tmp_path / "vocab.json").exists()
    with raises("output_url", "s3://"):
        Vocabulary("", {"a": 0}).save_pretrained("s3://bucket/v")


# ---- building one from many sources, and for a configuration


def test_a_vocabulary_needs_no_layer(tmp_path: Path):
    made = cells.make_cells()
    del made.layers["processed"]
    made.layers["other"] = made.X
    made.X = None
    stored = cells.save(made, tmp_path / "cells.h5ad")
    for number, source in enumerate([made, stored]):
        assert build_vocabulary(source, tmp_path / str(number))[4:] == cells.GENES
    del made.layers["other"]
    assert build_vocabulary(made, tmp_path / "raw")[4:] == sorted([*cells.RAW_GENES, *cells.GENES])


def test_sources_are_paths_folders_globs_and_cells_in_memory(tmp_path: Path):
    atlas = tmp_path / "atlas"
    atlas.mkdir()
    parts = [cells.make_cells()[:, columns].copy() for columns in (slice(0, 5), slice(5, 9), slice(9, 12))]
    paths = [cells.save(part, atlas / f"{number}.h5ad") for number, part in enumerate(parts)]
    whole = build_vocabulary(parts, tmp_path / "memory")
    assert whole[4:] == cells.GENES
    forms = [atlas, str(atlas / "*.h5ad"), paths, [str(atlas / "[01].h5ad"), parts[2]], iter(paths)]
    for number, form in enumerate(forms):
        assert build_vocabulary(form, tmp_path / f"v{number}") == whole, form
    assert build_vocabulary(paths[0], tmp_path / "one")[4:] == cells.GENES[:5]
    with raises("no_sources"):
        build_vocabulary([], tmp_path / "none")
    with raises("no_sources", "nothing"):
        build_vocabulary(str(atlas / "nothing*"), tmp_path / "none")
    with raises("source_type"):
        build_vocabulary([3], tmp_path / "none")


DISEASES = ["asthma || melanoma", "normal", "melanoma || flu", "flu||cold", None, "normal"]


def test_the_parts_of_a_label_get_tokens(tmp_path: Path):
    made = cells.make_cells(disease=DISEASES)
    tokens = build_vocabulary([made], tmp_path / "v", obs_columns=["disease"])
    assert tokens[4:-12] == ["asthma", "flu", "flu||cold", "melanoma", "normal"]
    args = {"tokenizer_name_or_path": str(tmp_path / "v"), "bio_annotations": True, "unmapped_annotations": "unk"}
    ids = [four[0] for four in tokenize(made, args)["bio_annotations"].to_pylist()]
    expected = ["asthma", "normal", "melanoma", "flu||cold", "<unk>", "normal"]
    assert ids == [tokens.index(token) for token in expected]


def test_a_configuration_says_what_gets_tokens(tmp_path: Path):
    made = cells.make_cells(disease=DISEASES, keep=[True, True, True, True, True, False])
    made.var["versioned"] = [f"{gene}.{number}" for number, gene in enumerate(cells.GENES)]
    args = {
        "bio_annotations": True,
        "disease_mapping": {"asthma": "A", "normal": 7, "flu": "F", "flu||cold": "A", "unused": "U"},
        "sex_mapping": cells.write_json(tmp_path / "sex.json", {"male": "M", "female": "W"}),
        "cell_filter": "sex == 'female' or tissue == 'blood'",
        "gene_id_column": "versioned",
        "strip_gene_version": True,
        "obs_columns": ["keep"],
    }
    built = {}
    for form in ("dict", "args", "file"):
        form_of: Any = args
        if form == "args":
            form_of = TokenizationArgs.load(args, tokenizer_name_or_path="nowhere")
        if form == "file":
            form_of = cells.write_json(tmp_path / "args.json", args)
        built[form] = build_vocabulary([made], tmp_path / form, form_of)
    tokens = built["dict"]
    assert built["args"] == built["file"] == tokens
    assert tokens[4:-12] == sorted(["A", "F", "W", "blood", *cells.LABELS["cell_type"]])
    assert tokens[-12:] == cells.GENES
    table = tokenize(made, {**args, "tokenizer_name_or_path": str(tmp_path / "dict"), "min_gene_overlap": 1})
    assert table.num_rows == 3
    by_symbol = build_vocabulary([made], tmp_path / "symbols", args, gene_id_column="symbol", strip_gene_version=False)
    assert by_symbol[-12:] == sorted(cells.SYMBOLS)
    disease = build_vocabulary([made], tmp_path / "disease", {"add_disease_annotation": True})
    assert disease[4:-12] == ["asthma", "flu", "flu||cold", "melanoma", "normal"]
    assert set(cells.RAW_GENES) < set(build_vocabulary([made], tmp_path / "auto", {"layer": "auto"}))
    with raises("mapping_file", "disease_mapping", "nowhere.json"):
        build_vocabulary([made], tmp_path / "none", {"bio_annotations": True, "disease_mapping": "nowhere.json"})


def test_a_vocabulary_for_sequences_with_eos_has_the_token(tmp_path: Path):
    made = cells.make_cells()
    build_vocabulary(made, tmp_path / "own", {"add_eos": True, "max_seq_len": 5})
    args = TokenizationArgs(tokenizer_name_or_path=tmp_path / "own", max_seq_len=5, add_eos=True)
    eos = load_vocabulary(tmp_path / "own").eos_token_id
    assert {row["gene_ids"][-1] for row in tokenize(made, args).to_pylist()} == {eos}


@pytest.mark.parametrize("key", ["gene_map", "gene_filter"])
def test_a_configuration_that_changes_the_ids_builds_no_vocabulary(key: str, tmp_path: Path):
    with raises("config_conflict", key):
        build_vocabulary(cells.make_cells(), tmp_path / "own", {key: "anything"})
    assert not (tmp_path / "own").exists()
