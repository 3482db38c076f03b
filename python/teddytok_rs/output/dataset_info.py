"""Write the two JSON files that `datasets.load_from_disk` reads."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .manifest import Shard


def dataset_info(described: dict[str, Any]) -> str:
    """Write ``dataset_info.json``: the columns and the names of classes, as `datasets` describes a dataset."""
    info = {"citation": "", "description": "", "features": described, "homepage": "", "license": ""}
    return json.dumps(info, indent=2)


def dataset_state(shards: list[Shard], described: dict[str, Any]) -> str:
    """Write ``state.json``, without which `datasets.load_from_disk` sees no dataset."""
    content = "".join(shard.sha256 for shard in shards) + json.dumps(described)
    state: dict[str, Any] = {
        "_data_files": [{"filename": shard.file} for shard in shards],
        "_fingerprint": hashlib.sha256(content.encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    return json.dumps(state, indent=2)
