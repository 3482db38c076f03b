"""Write the two JSON files that `datasets.load_from_disk` reads."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from ..errors.build import error
from .layout import INFO
from .storage import reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..mapping.annotations import Feature
    from .manifest import Manifest, Shard


def dataset_info(described: Mapping[str, Feature]) -> str:
    """Return the text of ``dataset_info.json``: the columns and class names, as `datasets` describes a dataset."""
    info = {"citation": "", "description": "", "features": described, "homepage": "", "license": ""}
    return json.dumps(info, indent=2)


def read_features(manifest: Manifest) -> dict[str, Feature]:
    """Read the description of a dataset's columns.

    Raises
    ------
    OutputError
        If it cannot be read, or is not the one that was written.
    """
    with reading(manifest.path):
        content = (manifest.path / INFO).read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.checksums.columns[INFO]:
        raise error("file_damaged", path=str(manifest.path), file=INFO, reason="checksum mismatch")
    features: dict[str, Feature] = json.loads(content)["features"]
    return features


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
