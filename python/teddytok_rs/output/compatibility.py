"""Check whether datasets can be joined: whether their tokens, values and labels mean the same."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.args import MAY_DIFFER
from ..errors.build import error
from ..errors.text import some
from ..pipeline.schema import schema_of
from .dataset_info import read_features

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from .manifest import Manifest, Shard


def check_mapped(folder: Path, shard: Shard) -> None:
    """Check that a shard can be memory-mapped.

    Raises
    ------
    OutputError
        If it is not an Arrow file, is missing, or has another length than recorded.
    """
    readers = {".parquet": "datasets.load_dataset('parquet', ...)", ".tar": "webdataset.WebDataset"}
    suffix = Path(shard.file).suffix
    if suffix in readers:
        raise error("format_not_mapped", path=str(folder), format=suffix.removeprefix("."), reader=readers[suffix])
    if not shard.is_as_long(folder):
        reason = "it is missing or has another length than was written"
        raise error("file_damaged", path=str(folder), file=shard.file, reason=reason)


def refuse_mixture(first: Manifest, other: Manifest) -> None:
    """Check that the tokens, values and labels of two datasets mean the same.

    Raises
    ------
    OutputError
        If the vocabulary, the mappings, the columns or an argument that changes the meaning of a sequence differs.
    """
    refuse_difference(first.path, meaning(first), other.path, meaning(other))


def refuse_difference(
    first: str | Path, mine: Mapping[str, object], other: str | Path, theirs: Mapping[str, object]
) -> None:
    """Check that the meanings of two datasets, or of their sources, are equal."""
    differ = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if not differ:
        return
    advice = "Tokenize all of them with one vocabulary and one configuration, or train on one"
    columns, others = mine.get("columns"), theirs.get("columns")
    labels = columns.labels_differ(others) if isinstance(columns, Columns) and isinstance(others, Columns) else None
    if labels:
        differ[differ.index("columns")] = f"columns ({labels})"
        advice = "Give each a folder of its own, or leave label_column out and use bio_annotations or obs_columns"
    raise error("datasets_differ", first=str(first), second=str(other), differences=", ".join(differ), advice=advice)


def meaning(manifest: Manifest, schema: pa.Schema | None = None) -> dict[str, object]:
    """List everything that defines what a dataset's tokens, values and labels mean.

    ``schema`` is that of a dataset that is not written yet; by default it is read from the first shard.
    """
    columns = _schema(manifest) if schema is None else Columns.of(schema, manifest.args.label_column)
    return (
        {key: value or None for key, value in manifest.configuration.items() if key not in MAY_DIFFER}
        | {f"sha256 of {name}": sha256 for name, sha256 in manifest.checksums.vocabulary.items()}
        | {f"sha256 of {name}": sha256 for name, sha256 in manifest.checksums.mappings.items()}
        | {"cls_token": manifest.cls_token, "columns": columns}
    )


def _schema(manifest: Manifest) -> Columns | None:
    """Describe the columns of a written dataset; None if it has no cells."""
    if not manifest.shards:
        return None
    return Columns.of(schema_of(read_features(manifest)), manifest.args.label_column)


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset. They compare equal if they mean the same.

    Attributes
    ----------
    text
        The schema, with the class names.
    label_column, labels
        The obs column that is the source of the labels, and the class names; None and empty if there are none.
    """

    text: str
    label_column: str | None = field(default=None, compare=False)
    labels: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, schema: pa.Schema, label_column: str | None) -> Columns:
        """Describe a schema, as Arrow's own text truncates long metadata, class names included."""
        described = (schema.metadata or {}).get(b"huggingface")
        try:
            labels = tuple(json.loads(described or b"null")["info"]["features"]["labels"]["names"])
        except (ValueError, KeyError, TypeError):  # no classes, or a damaged shard, which is reported elsewhere
            labels = ()
        return cls(f"{schema.remove_metadata()} {described!r}", label_column, labels)

    def labels_differ(self, other: Columns) -> str | None:
        """Describe the difference of the labels; None if they are equal or one dataset has none."""
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
