"""Feed PyTorch training loops: from written datasets, or from sources that are tokenized on the fly.

::

    folder --- WrittenDataset[i] ----+
                                     +--> cells --> DataLoader --> Collator --> gene_ids, attention_mask, ...
    h5ad, zarr --- OnTheFlyDataset --+

A cell is a dict of tensors and numbers: ``gene_ids``, and where they were asked for ``values``, ``bio_annotations``,
``labels`` and ``obs_columns``. Needs ``pip install 'teddytok-rs[torch]'``.
"""

from __future__ import annotations

from ..errors.build import error

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError:
    raise error("torch_extra") from None

from .collator import Collator
from .datasets import OnTheFlyDataset, WrittenDataset

__all__ = ["Collator", "OnTheFlyDataset", "WrittenDataset"]
