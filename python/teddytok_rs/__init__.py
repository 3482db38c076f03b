"""Single-cell gene expression (AnnData) in, token sequences for TEDDY models out.

::

    h5ad | zarr | SOMA | AnnData     args                    vocabulary folder
           |                           |                            |
      sources/  --- var, obs ----> args.py checks ------> vocabulary.py
           |            |                                           |
           |            +------------> genes.py  column -> token <--+
           | rows (indptr, indices, data)      |
           v                                   v
      tokenizer.py == numbers only ==> _core.Kernel (Rust)
           |        <== offsets, gene_ids, values ==
           +-- annotations.py columns --> pa.RecordBatch --> shards.py --> run.py

Reading order: ``tokenizer.py``, ``_core.pyi``, ``rust/src/kernel.rs``, ``rust/src/select.rs``, ``tests/spec/``.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from .args import TokenizationArgs
    from .corpus import tokenize_corpus
    from .corpus_manifest import CorpusManifest, CorpusSource
    from .dataset import Inspection, Verification, inspect, verify
    from .errors import (
        ConfigError,
        DataError,
        GeneMatchError,
        InternalError,
        OutputError,
        SourceError,
        TeddytokError,
        VocabularyError,
    )
    from .manifest import Manifest
    from .preflight import CheckReport, check
    from .report import write_report
    from .run import tokenize_to_disk
    from .tokenizer import iter_batches, tokenize
    from .vocabulary import Vocabulary, load_vocabulary

__version__: str = _core.build_info["version"]

_HOMES = {
    "args": ["TokenizationArgs"],
    "corpus": ["tokenize_corpus"],
    "corpus_manifest": ["CorpusManifest", "CorpusSource"],
    "dataset": ["Inspection", "Verification", "inspect", "verify"],
    "errors": [
        "ConfigError", "DataError", "GeneMatchError", "InternalError", "OutputError", "SourceError", "TeddytokError",
        "VocabularyError",
    ],
    "manifest": ["Manifest"],
    "preflight": ["CheckReport", "check"],
    "report": ["write_report"],
    "run": ["tokenize_to_disk"],
    "tokenizer": ["iter_batches", "tokenize"],
    "vocabulary": ["Vocabulary", "load_vocabulary"],
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CheckReport",
    "ConfigError",
    "CorpusManifest",
    "CorpusSource",
    "DataError",
    "GeneMatchError",
    "Inspection",
    "InternalError",
    "Manifest",
    "OutputError",
    "SourceError",
    "TeddytokError",
    "TokenizationArgs",
    "Verification",
    "Vocabulary",
    "VocabularyError",
    "check",
    "inspect",
    "iter_batches",
    "load_vocabulary",
    "tokenize",
    "tokenize_corpus",
    "tokenize_to_disk",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562): importing the package alone stays fast."""
    if name not in _HOME_OF:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


if _core.build_info["profile"] != "release":
    warnings.warn("teddytok_rs was built without optimisation and is slow", RuntimeWarning, stacklevel=2)
