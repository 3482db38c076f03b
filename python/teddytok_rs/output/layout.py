"""Define the name of every file of a dataset and of a corpus: names, suffixes, patterns, and output folders.

`is_run_file` and `is_temporary` decide which files belong to a run. All other files in a folder belong to the user or
to other tools: they are never changed or removed, and `verify` lists them as notes.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.files import refuse_url
from ..errors.build import error
from ..mapping.vocabulary_files import FILES
from ..sources.discover import stem_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..sources.protocol import SourceLike

# ---- files of a dataset

MANIFEST = "teddytok.json"
#: Description of the columns, with the class names.
INFO = "dataset_info.json"
GENES = "genes.csv"
#: The file without which `datasets` does not load a folder of Arrow files; written last, and removed first.
STATE = "state.json"
#: Journal of an unfinished run, see `journal`.
JOURNAL = "teddytok.journal"
#: The page that `report` writes; not part of the dataset.
PAGE = "report.html"
#: What the page shows and only the run knows, see `record`; not part of the dataset.
RECORD = "report.json"
#: Format -> suffix of its shards.
SUFFIXES = {"arrow": ".arrow", "parquet": ".parquet", "webdataset": ".tar"}
SHARD_NAME = re.compile(r"data-\d{5,}-of-\d{5,}\.(arrow|parquet|tar)")
_DATASET = frozenset({MANIFEST, INFO, GENES, STATE, JOURNAL, PAGE, RECORD, *FILES})  # FILES: a copy of the vocabulary

# ---- files of a corpus

#: Manifest of a folder of datasets, see `corpus.manifest`.
CORPUS = "corpus.json"
#: Files next to the datasets of a corpus.
CORPUS_FILES = frozenset({CORPUS, PAGE})
#: Folder of a vocabulary that the datasets of a corpus share; its name depends on the content of the files.
_VOCABULARY_FOLDER = re.compile(r"vocabulary-[0-9a-f]{16}")

# ---- files next to medians


def medians_report(path: Path) -> Path:
    """Return the path of the report of medians that are written to a path: sources, arguments and counts."""
    return path.with_name(f"{path.stem}.report.json")


def medians_state(path: Path) -> Path:
    """Return the path of what the finished passes of an interrupted build found, see `medians`."""
    return path.with_name(f"{path.name}.unfinished")


# ---- temporary files and folders of a run

LOCK = ".teddytok.lock"
#: Prefix of the name of a temporary folder, see `temporary`.
TEMPORARY = ".teddytok-"
#: The file in a temporary folder that records its purpose.
MARKER = "teddytok.temporary"
_TEMPORARY_FOLDER = re.compile(re.escape(TEMPORARY) + r"[0-9a-f]{16}")
_TEMPORARY_FILE = re.compile(r"(?P<name>.+)\.[0-9a-f]{8}\.part")
#: Names that a dataset cannot have: those of files that may be written next to it.
_RESERVED = re.compile(rf"\.teddytok.*|(corpus\.json|report\.html)(\..*)?|{_VOCABULARY_FOLDER.pattern}", re.IGNORECASE)

# ---- files of other tools

#: Files that desktop systems, notebooks and network file systems create in a folder that looks empty to its user.
SYSTEM_FILES = re.compile(
    r"\.DS_Store|\._.*|\.localized|Thumbs\.db|desktop\.ini|\.directory|\.ipynb_checkpoints|\.nfs\w+|lost\+found"
)
#: Results that `datasets` keeps next to the shards they were computed from.
DATASETS_CACHE = re.compile(r"cache-.*\.arrow")


def shard_name(number: int, n_shards: int, format_: str) -> str:
    """Return the file name of a shard."""
    return f"data-{number:05d}-of-{n_shards:05d}{SUFFIXES[format_]}"


def is_shard(name: str) -> bool:
    """Return whether a file name is that of a shard."""
    return SHARD_NAME.fullmatch(name) is not None


def is_run_file(name: str) -> bool:
    """Return whether a run writes files of this name in the folder of a dataset, temporary files included."""
    written = _TEMPORARY_FILE.fullmatch(name)
    name = written["name"] if written else name
    return name in _DATASET or is_shard(name)


def is_temporary(name: str) -> bool:
    """Return whether a file name is that of a file being written, see `temporary_name`."""
    written = _TEMPORARY_FILE.fullmatch(name)
    return written is not None and (written["name"] in _DATASET | CORPUS_FILES | {MARKER} or is_shard(written["name"]))


def is_temporary_folder(name: str) -> bool:
    """Return whether a folder name is that of a temporary folder of a run."""
    return _TEMPORARY_FOLDER.fullmatch(name) is not None


def vocabulary_folder(copies: Mapping[str, str]) -> str:
    """Name the folder of a corpus for the vocabulary whose files have these names and checksums."""
    text = "".join(f"{name} {copies[name]}\n" for name in sorted(copies))
    return f"vocabulary-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_vocabulary_folder(name: str) -> bool:
    """Return whether a folder of a corpus has the name of one for a vocabulary."""
    return _VOCABULARY_FOLDER.fullmatch(name) is not None


def temporary_name(path: Path) -> Path:
    """Return a random name under which a file is written before it is renamed."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


def temporary_folder_name() -> str:
    """Return a random name of a temporary folder."""
    return f"{TEMPORARY}{secrets.token_hex(8)}"


def removal_order(name: str) -> tuple[bool, bool, str]:
    """Return a sort key for the order in which the files of a dataset are removed.

    ``state.json`` is first, so that the folder cannot be loaded. The manifest and the journal, which mark the folder as
    one of a run, are last.
    """
    return name != STATE, name in {MANIFEST, JOURNAL}, name


def last_file(format_: str) -> str:
    """Return the name of the file that is written last in a format: without it, a dataset is not finished."""
    return STATE if format_ == "arrow" else MANIFEST


def output_folder(source: SourceLike, save_dir: str | os.PathLike[str] | None, name: str | None = None) -> Path:
    """Return the folder of a source's dataset.

    Parameters
    ----------
    source
        The source, whose file name gives the name of the folder.
    save_dir
        The folder that holds the folder of the dataset.
    name
        Name of the folder of the dataset, in place of that of the source.

    Raises
    ------
    ConfigError
        If ``save_dir`` is None or a URL, or the name is reserved or not a valid folder name.
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
    """Return whether a name is valid text for a file name on every system and in a manifest."""
    return isinstance(name, str) and "\0" not in name and name == name.encode(errors="replace").decode()
