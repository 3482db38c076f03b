"""Keep a copy of the vocabulary with the datasets that were written with it, and read it from there.

A dataset holds the copy itself; the datasets of a corpus share one, in a folder next to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors.build import error
from ..mapping.vocabulary import copy_name, load_vocabulary, read_vocabulary
from ..mapping.vocabulary_files import is_same_vocabulary
from .layout import vocabulary_folder
from .storage import exists, is_plain_file, refuse_others, sha256_of, write_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..mapping.vocabulary import Vocabulary
    from .manifest import Manifest


def write_shared_copy(corpus: Path, vocabulary: Vocabulary) -> None:
    """Write the copy of a vocabulary that the datasets of a corpus share; files that are already right are kept."""
    wanted = copies_of(vocabulary.sha256)
    folder = corpus / vocabulary_folder(wanted)
    if folder.is_symlink():
        raise error("output_symlink", path=str(folder))
    folder.mkdir(exist_ok=True)
    refuse_others(folder, set(vocabulary.files))
    for name, content in vocabulary.files.items():
        path = folder / name
        if not path.exists() or sha256_of(path) != wanted[name]:
            write_file(path, content)


def copies_of(sha256: Mapping[str, str]) -> dict[str, str]:
    """Name the copies of a vocabulary's files, with their checksums."""
    return {copy_name(name): digest for name, digest in sha256.items()}


def dataset_vocabulary(manifest: Manifest) -> Vocabulary:
    """Read the vocabulary that a dataset was written with: its copy, else the path in its configuration.

    Of a dataset that version 0.1.0 wrote, which made no copies, this may also be a name on the Hugging Face Hub.

    Raises
    ------
    ConfigError
        If there is no copy, and the configured vocabulary is another one now.
    VocabularyError
        If there is no copy, and the configured vocabulary cannot be read.
    """
    wanted = manifest.checksums.vocabulary
    copies = copies_of(wanted)
    shared = manifest.path.absolute().parent / vocabulary_folder(copies)
    for folder in (manifest.path, shared):
        files = {folder / name: digest for name, digest in copies.items()}
        if all(is_plain_file(path) and sha256_of(path) == digest for path, digest in files.items()):
            return read_vocabulary(str(folder), list(files))
    name = manifest.args.tokenizer_name_or_path
    if manifest.stamp is not None and not exists(name):
        raise error("vocabulary_left_behind", path=str(manifest.path), name=name, folder=shared.name)
    vocabulary = load_vocabulary(name)
    if not is_same_vocabulary(wanted, vocabulary.sha256):
        problem = f"the vocabulary {vocabulary.path!r} is not the one that {str(manifest.path)!r} was written with"
        raise error("config_conflict", where="", problem=problem, advice="Put that one back")
    return vocabulary
