"""Name every file of a dataset and of a corpus, once: names, suffixes, patterns, and where a dataset goes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ..errors.build import error
from ..sources.discover import stem_of

FILE_NAME = "teddytok.json"
#: Description of the columns, with the names of classes.
INFO = "dataset_info.json"
#: Manifest of a folder of datasets, see `corpus_manifest`.
CORPUS = "corpus.json"
#: Journal of an unfinished run: the source's stamp, the manifest without shards, then each finished shard, a line each.
JOURNAL = "teddytok.journal"
#: How the files of each format end.
SUFFIXES = {"arrow": ".arrow", "parquet": ".parquet", "webdataset": ".tar"}
SHARD_NAME = re.compile(r"data-\d{5,}-of-\d{5,}\.(arrow|parquet|tar)")

#: The file without which `datasets` sees no dataset of Arrow files; written last, and removed first.
STATE = "state.json"
LOCK = ".teddytok.lock"
#: The page that `report` writes; no part of the dataset.
PAGE = "report.html"
#: Names of the files that a run writes.
OURS = re.compile(
    SHARD_NAME.pattern + r"(\.([0-9a-f]{8}\.)?part)?"
    r"|((dataset_info|state|teddytok)\.json|genes\.csv|teddytok\.journal|report\.html)(\.part)?"
)


def output_folder(source: Any, save_dir: str | os.PathLike[str] | None, name: str | None = None) -> Path:
    """Name the folder that a source's dataset goes to.

    Raises
    ------
    ConfigError
        If there is no ``save_dir``, or the name is not a plain folder name.
    """
    if save_dir is None:
        raise error("no_save_dir")
    if name is None:
        name = stem_of(os.fspath(source)) if isinstance(source, str | os.PathLike) else "anndata"
    if not _is_text(name) or name in {"", ".", ".."} or Path(name).name != name:
        raise error("output_name", name=name)
    if not _is_text(os.fspath(save_dir)):
        raise error("output_name", name=save_dir)
    return Path(save_dir) / name


def last_file(name: str) -> str:
    """Name the file that is written last in a format: a folder without it is no finished dataset."""
    return STATE if name == "arrow" else FILE_NAME


def _is_text(name: object) -> bool:
    """Tell whether a name is text that files can be called by, everywhere and in a manifest."""
    return isinstance(name, str) and "\0" not in name and name == name.encode(errors="replace").decode()


GENES = "genes.csv"
