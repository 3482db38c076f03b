"""Name every file of a dataset and of a corpus, once: names, suffixes, patterns, and where a dataset goes.

What a run wrote is what `is_ours` and `is_temporary` say. Everything else in a folder belongs to the user or to other
tools: it is never changed or removed, and `verify` lists it as a note.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.files import refuse_url
from ..errors.build import error
from ..mapping.vocabulary import FILES
from ..sources.discover import stem_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# ---- files of a dataset

FILE_NAME = "teddytok.json"
#: Description of the columns, with the names of classes.
INFO = "dataset_info.json"
GENES = "genes.csv"
#: The file without which `datasets` sees no dataset of Arrow files; written last, and removed first.
STATE = "state.json"
#: Journal of an unfinished run, see `journal`.
JOURNAL = "teddytok.journal"
#: The page that `report` writes; no part of the dataset.
PAGE = "report.html"
#: What only the run knows and the page shows, see `record`; no part of the dataset either.
RECORD = "report.json"
#: How the files of each format end.
SUFFIXES = {"arrow": ".arrow", "parquet": ".parquet", "webdataset": ".tar"}
SHARD_NAME = re.compile(r"data-\d{5,}-of-\d{5,}\.(arrow|parquet|tar)")
_DATASET = frozenset({FILE_NAME, INFO, GENES, STATE, JOURNAL, PAGE, RECORD, *FILES})  # FILES: a copy of the vocabulary

# ---- files of a corpus

#: Manifest of a folder of datasets, see `corpus.manifest`.
CORPUS = "corpus.json"
#: Files next to the datasets of a corpus.
CORPUS_FILES = frozenset({CORPUS, PAGE})
#: Folder of a vocabulary that the datasets of a corpus share; its name depends on the content of the files.
_VOCABULARY_FOLDER = re.compile(r"vocabulary-[0-9a-f]{16}")

# ---- files and folders for as long as a run lasts

LOCK = ".teddytok.lock"
#: How the name of a temporary folder begins, see `temporary`.
TEMPORARY = ".teddytok-"
#: The file in a temporary folder that says what the folder is for.
MARKER = "teddytok.temporary"
_TEMPORARY_FOLDER = re.compile(re.escape(TEMPORARY) + r"[0-9a-f]{16}")
_TEMPORARY_FILE = re.compile(r"(?P<name>.+)\.[0-9a-f]{8}\.part")
#: Names that no dataset can have: those of files that may be written next to it.
_RESERVED = re.compile(rf"\.teddytok.*|(corpus\.json|report\.html)(\..*)?|{_VOCABULARY_FOLDER.pattern}", re.IGNORECASE)

# ---- files of others

#: What desktop systems, notebooks and network file systems leave in a folder that is empty to its user.
LEFT_BY_SYSTEMS = re.compile(
    r"\.DS_Store|\._.*|\.localized|Thumbs\.db|desktop\.ini|\.directory|\.ipynb_checkpoints|\.nfs\w+|lost\+found"
)
#: Results that `datasets` keeps next to the shards they were computed from.
DATASETS_CACHE = re.compile(r"cache-.*\.arrow")


def shard_name(number: int, n_shards: int, format_: str) -> str:
    """Name a shard of a dataset."""
    return f"data-{number:05d}-of-{n_shards:05d}{SUFFIXES[format_]}"


def is_shard(name: str) -> bool:
    """Tell whether a file is called as a shard is."""
    return SHARD_NAME.fullmatch(name) is not None


def is_ours(name: str) -> bool:
    """Tell whether a file in the folder of a dataset is called as one that a run writes, temporary ones included."""
    written = _TEMPORARY_FILE.fullmatch(name)
    name = written["name"] if written else name
    return name in _DATASET or is_shard(name)


def is_temporary(name: str) -> bool:
    """Tell whether a file is called as one that is being written, see `temporary_name`."""
    written = _TEMPORARY_FILE.fullmatch(name)
    return written is not None and (written["name"] in _DATASET | CORPUS_FILES | {MARKER} or is_shard(written["name"]))


def is_temporary_folder(name: str) -> bool:
    """Tell whether a folder is called as those that a run makes for as long as it lasts."""
    return _TEMPORARY_FOLDER.fullmatch(name) is not None


def vocabulary_folder(copies: Mapping[str, str]) -> str:
    """Name the folder of a corpus for the vocabulary whose files have these names and checksums."""
    text = "".join(f"{name} {copies[name]}\n" for name in sorted(copies))
    return f"vocabulary-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_vocabulary_folder(name: str) -> bool:
    """Return whether a folder of a corpus has the name of one for a vocabulary."""
    return _VOCABULARY_FOLDER.fullmatch(name) is not None


def temporary_name(path: Path) -> Path:
    """Name the file that a file is written as; each attempt has a name of its own, which no user's file has."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


def temporary_folder_name() -> str:
    """Make up the name of a temporary folder."""
    return f"{TEMPORARY}{secrets.token_hex(8)}"


def removal_order(name: str) -> tuple[bool, bool, str]:
    """Sort the files of a dataset as they may be removed: what makes it loadable first, what says it is ours last."""
    return name != STATE, name in {FILE_NAME, JOURNAL}, name


def last_file(format_: str) -> str:
    """Name the file that is written last in a format: a folder without it is not a finished dataset."""
    return STATE if format_ == "arrow" else FILE_NAME


def output_folder(source: Any, save_dir: str | os.PathLike[str] | None, name: str | None = None) -> Path:
    """Name the folder that a source's dataset goes to.

    Raises
    ------
    ConfigError
        If there is no ``save_dir`` or it is a URL, or the name is not a plain folder name or a reserved one.
    """
    if save_dir is None:
        raise error("no_save_dir")
    if name is None:
        name = stem_of(os.fspath(source)) if isinstance(source, str | os.PathLike) else "anndata"
    if not _is_text(name) or name in {"", ".", ".."} or Path(name).name != name:
        raise error("output_name", name=name)
    if _RESERVED.fullmatch(name):
        raise error("output_name_reserved", name=name)
    if not _is_text(os.fspath(save_dir)):
        raise error("output_name", name=save_dir)
    refuse_url(save_dir)
    return Path(save_dir) / name


def _is_text(name: object) -> bool:
    """Tell whether a name is text that files can be called by, everywhere and in a manifest."""
    return isinstance(name, str) and "\0" not in name and name == name.encode(errors="replace").decode()
