"""Configuration and annotation columns in; the Arrow schema, and the features that `datasets` reads, out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from .annotations import Column
    from .args import TokenizationArgs


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
    fields = [pa.field("gene_ids", pa.list_(_item(args.token_dtype)))]
    if args.write_values:
        fields.append(pa.field("values", pa.list_(_item("int32" if args.n_bins else "float32"))))
    fields += [pa.field(column.name, column.values.type) for column in columns]
    metadata = json.dumps({"info": {"features": features(args, columns)}})
    return pa.schema(fields, metadata={"huggingface": metadata})


def _item(dtype: str) -> pa.Field:
    return pa.field("item", pa.type_for_alias(dtype))
