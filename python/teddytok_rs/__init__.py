"""Turn single-cell gene expression (AnnData) into token sequences for TEDDY models.

::

    source -> chunk of rows -> kernel (Rust) -> record batch -> shard -> dataset -> corpus

Each stage is a package, and imports only from the stages before it: ``errors``, ``config``, ``sources``, ``mapping``,
``pipeline``, ``output``, ``corpus``, then ``report``, ``engines`` and ``torch``, ``api``, ``cli``. Read
``pipeline/batches.py`` first, then ``_core.pyi``, ``rust/src/kernel.rs`` and ``tests/spec/``.
"""

from __future__ import annotations

import warnings

import lazy_loader

from . import _core

__version__: str = _core.build_info["version"]

# The public names are in __init__.pyi; each is imported when it is first used: importing the package alone stays fast.
__getattr__, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __dir__() -> list[str]:
    return sorted({*globals(), *_names()})


if _core.build_info["profile"] != "release":
    warnings.warn("teddytok_rs was built without optimisation and is slow", RuntimeWarning, stacklevel=2)
