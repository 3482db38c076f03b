"""Decide whether datasets can be joined: whether their tokens, values and labels mean the same."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.args import MAY_DIFFER
from ..errors.build import error
from ..errors.text import some
from .formats import open_shard

if TYPE_CHECKING:
    import pyarrow as pa

    from .manifest import Manifest, Shard


# ---- several datasets as one


def check_mapped(folder: Path, shard: Shard) -> None:
    """Refuse a shard that cannot be mapped into memory: not an Arrow file, missing, or of another length.

    Raises
    ------
    OutputError
        If it is one of these.
    """
    readers = {".parquet": "datasets.load_dataset('parquet', ...)", ".tar": "webdataset.WebDataset"}
    suffix = Path(shard.file).suffix
    if suffix in readers:
        raise error("format_not_mapped", path=str(folder), format=suffix.removeprefix("."), reader=readers[suffix])
    if not shard.is_as_long(folder):
        reason = f"{shard.file} is missing or has another length than was written"
        raise error("output_unreadable", path=str(folder), reason=reason)


def refuse_mixture(first: Manifest, other: Manifest) -> None:
    """Refuse two datasets whose tokens, values or labels mean different things.

    Raises
    ------
    OutputError
        If they differ in their vocabulary, mappings, columns or in an argument that changes what a sequence means.
    """
    refuse_difference(first.path, meaning(first), other.path, meaning(other))


def refuse_difference(first: str | Path, mine: dict[str, Any], other: str | Path, theirs: dict[str, Any]) -> None:
    """Refuse two datasets, or sources of such, whose meanings differ."""
    differ = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if not differ:
        return
    advice = "Tokenize all of them with one vocabulary and one configuration, or train on one"
    columns, others = mine.get("columns"), theirs.get("columns")
    if "columns" in differ and columns and others and (labels := columns.labels_differ(others)):
        differ[differ.index("columns")] = f"columns ({labels})"
        advice = "Give each a folder of its own, or leave label_column out and use bio_annotations or obs_columns"
    raise error("datasets_differ", first=str(first), second=str(other), differences=", ".join(differ), advice=advice)


def meaning(manifest: Manifest, schema: pa.Schema | None = None) -> dict[str, Any]:
    """List all that says what a dataset's tokens, values and labels mean; give the schema of one not yet written."""
    columns = _schema(manifest) if schema is None else Columns.of(schema, manifest.args.label_column)
    return (
        {key: value or None for key, value in manifest.configuration.items() if key not in MAY_DIFFER}
        | {f"sha256 of {name}": sha256 for name, sha256 in manifest.checksums["vocabulary"].items()}
        | {f"sha256 of {name}": sha256 for name, sha256 in manifest.checksums["mappings"].items()}
        | {"cls_token": manifest.cls_token, "columns": columns}
    )


def _schema(manifest: Manifest) -> Columns | None:
    """Describe the columns; None for a dataset without a cell."""
    for shard in manifest.shards:
        with open_shard(manifest.path / shard.file) as (schema, _):
            return Columns.of(schema, manifest.args.label_column)
    return None


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset, equal where they mean the same.

    Attributes
    ----------
    text
        The schema, with the names of classes.
    label_column, labels
        The obs column whose labels are classes, and these; None and none where there is no such column.
    """

    text: str
    label_column: str | None = field(default=None, compare=False)
    labels: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, schema: pa.Schema, label_column: str | None) -> Columns:
        """Describe a schema. Arrow's own text cuts long metadata, and with it the names of classes."""
        described = (schema.metadata or {}).get(b"huggingface")
        try:
            labels = tuple(json.loads(described or b"null")["info"]["features"]["labels"]["names"])
        except (ValueError, KeyError, TypeError):  # no classes, or a damaged shard, which is reported elsewhere
            labels = ()
        return cls(f"{schema.remove_metadata()} {described!r}", label_column, labels)

    def labels_differ(self, other: Columns) -> str | None:
        """Say in what the labels differ; None where they do not, or one has none."""
        if self.labels == other.labels or not self.labels or not other.labels:
            return None
        if self.label_column != other.label_column:
            return f"labels are of {self.label_column!r} in the first and of {other.label_column!r} in the second"
        only = [
            f"{some(labels)} only in the {which}"
            for which, mine, theirs in (("first", self.labels, other.labels), ("second", other.labels, self.labels))
            if (labels := [label for label in mine if label not in set(theirs)])
        ]
        return f"labels of {self.label_column!r} differ: {'; '.join(only) or 'they have another order'}"
