"""Turn single-cell gene expression (AnnData) into token sequences for TEDDY models.

::

    source -> chunk of rows -> kernel (Rust) -> record batch -> shard -> dataset -> corpus

Each stage is a package, and imports only from the stages before it: ``errors``, ``config``, ``sources``, ``mapping``,
``pipeline``, ``output``, ``corpus``, then ``report``, ``engines`` and ``torch``, ``api``, ``cli``. Read
``pipeline/batches.py`` first, then ``_core.pyi``, ``rust/src/kernel.rs`` and ``tests/spec/``.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from .api import check, inspect, iter_batches, tokenize, tokenize_corpus, tokenize_to_disk, verify, write_report
    from .config.args import TokenizationArgs
    from .corpus.manifest import CorpusManifest, CorpusSource
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
    from .mapping.vocabulary import Vocabulary, load_vocabulary
    from .output.inspect import Inspection
    from .output.manifest import Manifest
    from .output.verify import Verification
    from .pipeline.check import CheckReport

__version__: str = _core.build_info["version"]

_HOMES = {
    "api": [
        "check", "inspect", "iter_batches", "tokenize", "tokenize_corpus", "tokenize_to_disk", "verify", "write_report",
    ],
    "config.args": ["TokenizationArgs"],
    "corpus.manifest": ["CorpusManifest", "CorpusSource"],
    "errors": [
        "ConfigError", "DataError", "GeneMatchError", "InternalError", "OutputError", "SourceError", "TeddytokError",
        "VocabularyError",
    ],
    "mapping.vocabulary": ["Vocabulary", "load_vocabulary"],
    "output.inspect": ["Inspection"],
    "output.manifest": ["Manifest"],
    "output.verify": ["Verification"],
    "pipeline.check": ["CheckReport"],
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
