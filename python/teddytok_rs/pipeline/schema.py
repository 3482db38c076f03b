"""Describe the output columns as features of `datasets` and as an Arrow schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.args import TokenizationArgs
    from ..mapping.annotations import Column, Feature


def features(args: TokenizationArgs, columns: list[Column]) -> dict[str, Feature]:
    """Describe all output columns as in ``dataset_info.json``.

    Lists are written as ``Sequence``, which every version of `datasets` from 2.21 to 5 loads.
    """
    described: dict[str, Feature] = {args.output_name("gene_ids"): _sequence(args.token_dtype)}
    if args.write_values:
        described[args.output_name("values")] = _sequence("int32" if args.n_bins else "float32")
    if args.write_length:
        described[args.output_name("length")] = {"dtype": "int32", "_type": "Value"}
    return described | {column.name: column.feature for column in columns}


def _sequence(dtype: str) -> Feature:
    return {"feature": {"dtype": dtype, "_type": "Value"}, "_type": "Sequence"}


def arrow_schema(args: TokenizationArgs, columns: list[Column]) -> pa.Schema:
    """Return the schema of the output. Its metadata holds the features, so that every shard describes itself."""
    return schema_of(features(args, columns))


def schema_of(described: Mapping[str, Feature]) -> pa.Schema:
    """Return the schema of columns that `features` described."""
    fields = [pa.field(name, _type_of(feature)) for name, feature in described.items()]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": described}})})


def _type_of(feature: Feature) -> pa.DataType:
    if feature["_type"] == "Sequence":
        return pa.list_(pa.field("item", _type_of(feature["feature"])))
    if feature["_type"] == "ClassLabel":
        return pa.int64()
    named: pa.DataType = pa.type_for_alias(feature["dtype"])  # type: ignore[call-overload]  # has a case for each name
    return named


#: Approximate overhead of a member in bytes: the headers of tar and of NumPy, and half a block of padding.
MEMBER_BYTES = 512 + 128 + 256


# ---- WebDataset


def members_of(schema: pa.Schema, labels: str) -> int:
    """Return the number of members of a sample; ``labels`` is the name of the labels."""
    own = [field.name for field in schema if pa.types.is_list(field.type) or is_class_label(field, labels)]
    return len(own) + (len(own) < len(schema.names))


def is_class_label(field: pa.Field[pa.DataType], labels: str) -> bool:
    """Return whether a column is a class or token to predict, which webdataset's users expect as ``.cls``."""
    return field.name == labels and bool(pa.types.is_integer(field.type))
