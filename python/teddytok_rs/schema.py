"""Configuration and annotation columns in; the Arrow schema, and the features that `datasets` reads, out."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from .annotations import Column
    from .args import TokenizationArgs
    from .manifest import Shard


def features(args: TokenizationArgs, columns: list[Column]) -> dict[str, Any]:
    """Describe all output columns as ``dataset_info.json`` does.

    Lists are written as ``Sequence``: the one spelling that `datasets` 2.21 to 5 all load.
    """
    described: dict[str, Any] = {"gene_ids": _sequence(args.token_dtype)}
    if args.write_values:
        described["values"] = _sequence("int32" if args.n_bins else "float32")
    return described | {column.name: column.feature for column in columns}


def _sequence(dtype: str) -> dict[str, Any]:
    return {"feature": {"dtype": dtype, "_type": "Value"}, "_type": "Sequence"}


def arrow_schema(args: TokenizationArgs, columns: list[Column]) -> pa.Schema:
    """Make the schema of the output; its metadata carries the features, so that a shard read alone has them too."""
    return schema_of(features(args, columns))


def schema_of(described: dict[str, Any]) -> pa.Schema:
    """Make the schema of columns that were described by `features`."""
    fields = [pa.field(name, _type_of(feature)) for name, feature in described.items()]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": described}})})


def _type_of(feature: dict[str, Any]) -> pa.DataType:
    if feature["_type"] == "Sequence":
        return pa.list_(pa.field("item", _type_of(feature["feature"])))
    return pa.int64() if feature["_type"] == "ClassLabel" else pa.type_for_alias(feature["dtype"])


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
