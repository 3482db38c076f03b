"""Read a vocabulary: tokens, ids, and the special tokens by role."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, overload

from ..config.files import DocumentError, plain_file, read_bytes, read_document, read_text
from ..errors.build import error, system_error
from ..errors.text import TextRepr, count, some
from ..sharing import SharedPool
from .hub import fetch, hub_name
from .vocabulary_files import FILES, TOKENIZER, write_vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger("teddytok_rs")

#: How the special tokens are written where no file names them, as TEDDY and BERT write them.
USUAL_SPELLINGS = {
    "cls": ("<cls>", "[CLS]"),
    "unk": ("<unk>", "[UNK]"),
    "pad": ("<pad>", "[PAD]"),
    "mask": ("<mask>", "[MASK]"),
    "sep": ("<sep>", "[SEP]"),
    "eos": ("<eos>", "</s>"),
}
MAX_ID = 2**31 - 1  # tokens are int32


class _SpecialId:
    """The id of the special token of a role, as `transformers` names it; None where the vocabulary has none."""

    def __init__(self, role: str, use: str) -> None:
        self._role, self.__doc__ = role, f"Id of the token {use}, if there is one."

    @overload
    def __get__(self, vocabulary: None, owner: type[Vocabulary]) -> Self: ...
    @overload
    def __get__(self, vocabulary: Vocabulary, owner: type[Vocabulary]) -> int | None: ...
    def __get__(self, vocabulary: Vocabulary | None, owner: type[Vocabulary]) -> Self | int | None:
        if vocabulary is None:
            return self
        return vocabulary.special_ids.get(self._role)


@dataclass(frozen=True, repr=False)
class Vocabulary(TextRepr, Mapping[str, int]):
    """Tokens and their ids; a mapping of token to id.

    Attributes
    ----------
    path
        Where it was read from.
    ids
        Token -> id.
    special
        Role (``"cls"``, ``"unk"``, ``"pad"``, ...) -> token, for the roles the vocabulary has.
    sha256
        File name -> checksum of each file read.
    files
        Name in a copy of the vocabulary -> content of each file read; `copy_name` gives the names.
    warnings
        What may be unintended in these files, a sentence each.
    """

    path: str
    ids: dict[str, int]
    special: dict[str, str] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict, compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)

    pad_token_id = _SpecialId("pad", "that fills up short sequences")
    cls_token_id = _SpecialId("cls", "that starts a sequence")
    mask_token_id = _SpecialId("mask", "that hides another")
    unk_token_id = _SpecialId("unk", "for unknown ones")
    sep_token_id = _SpecialId("sep", "between two sequences")
    eos_token_id = _SpecialId("eos", "that ends a sequence")
    bos_token_id = _SpecialId("bos", "that begins a text")

    def __getitem__(self, token: str) -> int:
        return self.ids[token]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def _rows(self) -> tuple[str, list[tuple[str, str]]]:
        special = ", ".join(f"{role} {token!r}" for role, token in self.special.items())
        rows = [("ids", f"0 to {self.largest_id:,}" if self.ids else "none"), ("tokens", some(self.ids))]
        return f"Vocabulary of {count(len(self), 'token')}: {self.path}", [*rows, ("special", special or "none")]

    @property
    def largest_id(self) -> int:
        """The largest id in use."""
        return max(self.ids.values())

    @property
    def special_ids(self) -> dict[str, int]:
        """Role -> id of each special token that has one."""
        return {role: self.ids[token] for role, token in self.special.items() if token in self.ids}

    def special_id(self, role: str, *, needs: str, advice: str) -> int:
        """Look up the id of a special token.

        Raises
        ------
        VocabularyError
            If the vocabulary has no token of that role.
        """
        token = self.special.get(role)
        if token is None or token not in self.ids:
            lacks = "names none" if token is None else f"gives the one it names, {token!r}, no id"
            raise error("no_special_token", needs=needs, role=role.upper(), path=self.path, lacks=lacks, advice=advice)
        return self.ids[token]

    # ---- what training code asks of TEDDY's GeneTokenizer

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Return the ids of gene ids or other tokens; a token that the vocabulary lacks gets the unknown token's id.

        Raises
        ------
        ConfigError
            If a single text is given: it would be taken letter by letter.
        VocabularyError
            If the vocabulary lacks one, and has no unknown token.
        """
        if isinstance(tokens, str | bytes):
            raise error("config_value", where="", key="tokens", got=tokens, expected="a list of tokens, not one text")
        advice = "Name an unk_token in special_tokens_map.json, or encode known tokens alone"
        return [
            self.ids[token] if token in self.ids else self.special_id("unk", needs=f"encoding {token!r}", advice=advice)
            for token in tokens
        ]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the tokens of ids, which may be a one-dimensional tensor.

        Raises
        ------
        VocabularyError
            If an id is not in use.
        """
        tokens = []
        for token_id in map(int, ids):
            if token_id not in self._tokens:
                raise error("unknown_token_id", path=self.path, token_id=token_id)
            tokens.append(self._tokens[token_id])
        return tokens

    @cached_property
    def _tokens(self) -> dict[int, str]:
        # Where tokens share an id, the one that was read first.
        return {token_id: token for token, token_id in reversed(self.ids.items())}

    @property
    def vocab_size(self) -> int:
        """Number of tokens. A table of embeddings needs ``largest_id + 1`` rows, which are more where ids have gaps."""
        return len(self)

    def get_vocab(self) -> dict[str, int]:
        """Return a dict of token to id, as tokenizers of `transformers` do."""
        return dict(self.ids)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the vocabulary into a folder that this package and `transformers.AutoTokenizer` open.

        Raises
        ------
        ConfigError
            If the folder is a URL.
        OutputError
            If it holds a vocabulary already or cannot be written.
        """
        write_vocabulary(folder, self.ids, self.special)


#: The vocabulary of many sources is held once.
VOCABULARIES: SharedPool[Vocabulary] = SharedPool(lambda one, other: one == other)


def load_vocabulary(name_or_path: str | os.PathLike[str]) -> Vocabulary:
    """Read a vocabulary.

    Parameters
    ----------
    name_or_path
        A folder with ``vocab.txt`` or ``vocab.json``, one such file, or the name of either on the Hugging Face Hub,
        ``owner/name/folder@revision``; a path that exists is never taken for a name.

    Raises
    ------
    ConfigError
        If it is a name on the Hub, and nothing can be fetched.
    VocabularyError
        If there is none, or its files are malformed or contradict one another.
    """
    name_or_path = os.fspath(name_or_path)
    path = Path(name_or_path)
    if (name := hub_name(name_or_path)) is not None:
        key = "tokenizer_name_or_path"
        files = fetch({key: name}, FILES)[key].paths
        is_folder = not name.is_file
    else:
        try:
            is_folder = path.is_dir()
            files = _files_in(path) if is_folder else [plain_file(path)] if path.exists() else []
        except OSError as exc:  # a name longer than any, a folder that may not be read
            raise system_error("vocabulary_not_found", exc, path=name_or_path) from None
        if not files and not is_folder:
            raise error("vocabulary_not_found", path=name_or_path, reason="no such file or folder")
    if is_folder and not any(file.name in {"vocab.txt", "vocab.json"} for file in files):
        raise error("vocabulary_not_found", path=name_or_path, reason="the folder has neither vocab.txt nor vocab.json")
    return read_vocabulary(str(name_or_path), files)


def first_tokens(vocabulary: Vocabulary, n_tokens: int) -> list[tuple[str, int]]:
    """List the tokens with the smallest ids, and these."""
    return sorted(vocabulary.ids.items(), key=lambda item: item[1])[:n_tokens]


def copy_name(name: str) -> str:
    """Name the copy of a vocabulary's file, so that the folder of the copies is a vocabulary too."""
    return name if name in FILES else f"vocab{'.txt' if name.endswith('.txt') else '.json'}"


def read_vocabulary(name_or_path: str, files: list[Path]) -> Vocabulary:
    """Read the files of a vocabulary.

    Raises
    ------
    VocabularyError
        If the files are malformed or contradict one another.
    """
    ids: dict[str, int] = {}
    warnings: list[str] = []
    defined: dict[str, dict[str, int]] = {}
    special: dict[str, str] = {}
    for file in files:
        tokens = _read_tokens(file, warnings)
        for token, token_id in tokens.items() if ids else ():
            if ids.get(token, token_id) != token_id:
                raise error(
                    "vocabulary_conflict", path=name_or_path, token=token, first=ids[token], second=token_id,
                    first_file=next(name for name in defined if token in defined[name]), second_file=file.name,
                )  # fmt: skip
        defined[file.name] = tokens
        ids |= tokens
        for role, token in _read_special(file).items():
            if special.setdefault(role, token) != token:
                reason = f"it names {token!r} as {role}_token, and another file names {special[role]!r}"
                raise _bad_file(file, reason, "Make the files agree")
    if not ids:
        raise _bad_file(files[0], "it holds no token", "A vocabulary has one token at least")
    _name_special_tokens(special, ids)
    logger.debug("vocabulary %s: %s tokens", name_or_path, f"{len(ids):,}")
    contents = {file.name: _read_bytes(file) for file in files}
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    copies = {copy_name(name): content for name, content in contents.items()}
    vocabulary = Vocabulary(name_or_path, ids, special, sha256, copies, tuple(warnings))
    return VOCABULARIES.share((vocabulary.path, *sha256.items()), vocabulary)


def _files_in(folder: Path) -> list[Path]:
    return [folder / name for name in FILES if (folder / name).exists()]


def _read_tokens(file: Path, warnings: list[str]) -> dict[str, int]:
    """Read the tokens that one file defines."""
    if file.suffix == ".txt":
        return _read_lines(file, warnings)
    document = _read_object(file)
    for token in document:
        if not _is_text(token):
            raise _bad_file(file, f"{token!r} is no text")
    if file.name == "special_tokens_map.json":
        return {}
    if file.name == "tokenizer_config.json":
        decoder = document.get("added_tokens_decoder") or {}
        if not isinstance(decoder, dict):
            raise _bad_file(file, "added_tokens_decoder is not an object")
        ids: dict[str, int] = {}
        for key, value in decoder.items():
            token = _content(file, value)
            token_id = _token_id(file, token, _key_as_id(key))
            if ids.setdefault(token, token_id) != token_id:
                raise _bad_file(file, f"token {token!r} has ids {ids[token]} and {token_id}")
        return ids
    if file.name == TOKENIZER:
        return _read_tokenizer(file, document)
    return {token: _token_id(file, token, value) for token, value in document.items()}


def _read_tokenizer(file: Path, document: dict[str, object]) -> dict[str, int]:
    """Read the tokens of a model that looks words up, and those added to any model."""
    model, added = document.get("model"), document.get("added_tokens") or []
    words = model.get("vocab") if isinstance(model, dict) else None
    ids = {token: _token_id(file, token, value) for token, value in words.items()} if isinstance(words, dict) else {}
    if not isinstance(added, list):
        raise _bad_file(file, "added_tokens is not a list")
    for entry in added:
        token = _content(file, entry)
        ids[token] = _token_id(file, token, entry.get("id") if isinstance(entry, dict) else None)
    return ids


def _read_lines(file: Path, warnings: list[str]) -> dict[str, int]:
    """Read one token per line. A token on several lines has the id of the last, as in BERT's own loaders."""
    try:
        text = read_text(file)
    except DocumentError as exc:
        raise _bad_file(file, str(exc)) from None
    # Not splitlines(): it would also cut at other Unicode breaks, and shift every id after one.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    ids = {token: number for number, token in enumerate(lines)}
    if len(ids) < len(lines):
        n_lines = Counter(lines)
        if repeated := [token for token, n in n_lines.items() if n > 1 and token]:
            warnings.append(
                f"{str(file)!r} has {count(len(repeated), 'token')} on several lines, which have the id of their last "
                f"line: {some(repeated)}"
            )
    return ids


def _read_object(file: Path) -> dict[str, object]:
    try:
        document = read_document(file)
    except DocumentError as exc:
        raise _bad_file(file, str(exc)) from None
    if not isinstance(document, dict):
        raise _bad_file(file, f"it holds a {type(document).__name__}")
    return document


def _token_id(file: Path, token: object, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_ID:
        raise _bad_file(file, f"token {token!r} has id {value!r}", f"An id is an integer from 0 to {MAX_ID}")
    return value


def _key_as_id(key: str) -> int | str:
    # The decoder's ids are keys of a JSON object, which are always text.
    return int(key) if key.isdecimal() and key.isascii() and len(key) <= 10 else key


def _is_text(token: str) -> bool:
    # JSON can spell half of a surrogate pair, which no file or Arrow column can hold.
    try:
        token.encode()
    except UnicodeEncodeError:
        return False
    return True


def _content(file: Path, entry: object) -> str:
    """Read a token that is written as itself or as an object with its ``content``."""
    content = entry.get("content") if isinstance(entry, dict) else entry
    if not isinstance(content, str) or not _is_text(content):
        raise _bad_file(file, f"{entry!r} is not a token")
    return content


def _read_special(file: Path) -> dict[str, str]:
    if file.name not in {"special_tokens_map.json", "tokenizer_config.json"}:
        return {}
    return {
        key.removesuffix("_token"): _content(file, value)
        for key, value in _read_object(file).items()
        if key.endswith("_token") and (isinstance(value, str) or (isinstance(value, dict) and "content" in value))
    }


def _name_special_tokens(special: dict[str, str], ids: dict[str, int]) -> None:
    """Add usual spellings for roles that no file names."""
    for role, spellings in USUAL_SPELLINGS.items():
        found = [token for token in spellings if token in ids]
        if role not in special and len(found) == 1:
            special[role] = found[0]


def _read_bytes(file: Path) -> bytes:
    try:
        return read_bytes(file)
    except DocumentError as exc:
        raise _bad_file(file, str(exc)) from None


def _bad_file(file: Path, reason: str, advice: str = "Correct the file") -> Exception:
    return error("vocabulary_file", file=str(file), reason=reason, advice=advice)
