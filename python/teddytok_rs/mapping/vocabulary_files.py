"""Write a vocabulary into a folder, for this package and for `transformers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.files import refuse_url
from ..errors.build import error, system_error

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

#: The file that alone lets `transformers.AutoTokenizer` open a folder.
TOKENIZER = "tokenizer.json"
#: Files of a vocabulary folder that are read, and fetched where the vocabulary is on the Hub.
FILES = ("vocab.txt", "vocab.json", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json", TOKENIZER)


def is_same_vocabulary(recorded: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Compare the checksums of a vocabulary's files; version 0.1.0 neither read nor recorded ``tokenizer.json``."""
    return recorded == now or recorded == {name: sha256 for name, sha256 in now.items() if name != TOKENIZER}


def write_vocabulary(folder: str | os.PathLike[str], ids: Mapping[str, int], special: Mapping[str, str]) -> None:
    """Write a vocabulary that is read back with the same ids, and that `transformers.AutoTokenizer` opens.

    Tokens are written as ``vocab.txt`` where their ids are the numbers of its lines, otherwise as ``vocab.json``.

    Parameters
    ----------
    folder
        The folder, which is made.
    ids
        Token -> id.
    special
        Role -> token. Those without an id are left out.

    Raises
    ------
    ConfigError
        If the folder is a URL.
    OutputError
        If it holds a vocabulary already or cannot be written.
    """
    refuse_url(folder)
    folder = Path(folder)
    if any((folder / name).exists() or (folder / name).is_symlink() for name in FILES):
        raise error("vocabulary_exists", path=str(folder))
    special = {role: token for role, token in special.items() if token in ids}
    names = {f"{role}_token": token for role, token in special.items()}
    texts = {
        "special_tokens_map.json": json.dumps(names, indent=2),
        # Not a class of transformers by itself: the class that reads any tokenizer.json.
        "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}, indent=2),
        TOKENIZER: _tokenizer(ids, special),
    }
    if _are_lines(ids):
        texts["vocab.txt"] = "\n".join(sorted(ids, key=ids.__getitem__))
    else:
        texts["vocab.json"] = json.dumps(dict(ids), ensure_ascii=False, indent=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(f"{text}\n", encoding="utf-8", newline="\n")
    except OSError as exc:
        raise system_error("output_failed", exc, path=str(folder)) from None


def is_line(token: str) -> bool:
    """Return whether a line of ``vocab.txt`` can hold a token."""
    return "\n" not in token and not token.endswith("\r")


def _are_lines(ids: Mapping[str, int]) -> bool:
    """Return whether ``vocab.txt`` can hold all tokens, the first of which must not look like a byte order mark."""
    in_order = sorted(ids.values()) == list(range(len(ids)))
    return in_order and all(is_line(token) and not token.startswith("\ufeff") for token in ids)


def _tokenizer(ids: Mapping[str, int], special: Mapping[str, str]) -> str:
    """Write a tokenizer of `tokenizers` that looks words up, with a key on each line."""
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[token], "content": token, **added} for token in dict.fromkeys(special.values())],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        # A name is required; a line feed is not a token of any vocabulary file of lines.
        "model": {"type": "WordLevel", "vocab": dict(ids), "unk_token": special.get("unk", "\n")},
    }
    lines = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in tokenizer.items())
    return "{\n" + ",\n".join(lines) + "\n}"
