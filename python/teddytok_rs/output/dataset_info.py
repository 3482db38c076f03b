"""Write the two JSON files that `datasets.load_from_disk` reads."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..mapping.annotations import Feature
    from .manifest import Shard


def dataset_info(described: Mapping[str, Feature]) -> str:
    """Return the text of ``dataset_info.json``: the columns and class names, as `datasets` describes a dataset."""
    info = {"citation": "", "description": "", "features": described, "homepage": "", "license": ""}
    return json.dumps(info, indent=2)


def dataset_state(shards: list[Shard], described: Mapping[str, Feature]) -> str:
    """Return the text of ``state.json``, which `datasets.load_from_disk` needs to load a folder."""
    content = "".join(shard.sha256 for shard in shards) + json.dumps(described)
    state: dict[str, object] = {
        "_data_files": [{"filename": shard.file} for shard in shards],
        "_fingerprint": hashlib.sha256(content.encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    return json.dumps(state, indent=2)
