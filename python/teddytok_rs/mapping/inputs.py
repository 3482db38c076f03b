"""Fetch the files that arguments name on the Hugging Face Hub, before any of them is read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..config.args import ON_HUB
from .hub import fetch, hub_name
from .vocabulary_files import FILES

if TYPE_CHECKING:
    from ..config.args import TokenizationArgs


def fetch_inputs(args: TokenizationArgs) -> TokenizationArgs:
    """Fetch all that the arguments name on the Hub, and name it by its commit, which is then what a run records.

    What has a commit already is in the cache, or fetched again as it was, so that a run reads the same files from its
    beginning to its end, and in each of its processes.

    Raises
    ------
    ConfigError
        If anything cannot be fetched.
    """
    places = {key: place for key in ON_HUB if isinstance(place := getattr(args, key), str)}
    names = {key: name for key, place in places.items() if (name := hub_name(place)) is not None}
    names = {key: name for key, name in names.items() if name.is_file or key == "tokenizer_name_or_path"}
    if not names:
        return args
    fetched = fetch(names, FILES)
    pinned = {key: str(replace(name, revision=fetched[key].commit)) for key, name in names.items()}
    return args.model_copy(update=pinned)
