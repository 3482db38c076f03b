"""Check whether datasets can be joined: whether their tokens, values and labels mean the same."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.args import MAY_DIFFER
from ..errors import OutputError
from ..errors.build import error
from ..errors.text import some
from ..mapping.vocabulary_files import TOKENIZER
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
    if not shard.has_recorded_length(folder):
        reason = "it is missing or has another length than was written"
        raise error("file_damaged", path=str(folder), file=shard.file, reason=reason)


class Joined:
    """Datasets, or sources of such, that are joined: each that is added must mean what the others do.

    Names of classes may be appended in some of them: one list of names must be a prefix of the other.

    Attributes
    ----------
    label_names
        The longest list of names; empty where ``labels`` are not classes, or nothing was added.
    """

    def __init__(self) -> None:
        self._longest: tuple[str | Path, Mapping[str, object]] | None = None
        self.label_names: tuple[str, ...] = ()

    def add(self, place: str | Path, means: Mapping[str, object]) -> None:
        """Add one that is in a place and has a `meaning`.

        Raises
        ------
        OutputError
            If it differs in its vocabulary, mappings, columns or in an argument that changes what a sequence means.
        """
        if self._longest is not None:
            _refuse_difference(*self._longest, place, means)
        columns = means["columns"]
        names = columns.labels if isinstance(columns, Columns) else ()
        if self._longest is None or len(names) > len(self.label_names):
            self._longest, self.label_names = (place, means), names


def _refuse_difference(
    first: str | Path, mine: Mapping[str, object], other: str | Path, theirs: Mapping[str, object]
) -> None:
    differ = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if mine.keys() ^ theirs.keys() == {f"sha256 of {TOKENIZER}"}:  # see `is_same_vocabulary`
        differ.remove(f"sha256 of {TOKENIZER}")
    advice = "Tokenize all of them with one vocabulary and one configuration, or train on one"
    columns, others = mine.get("columns"), theirs.get("columns")
    labels = columns.labels_differ(others) if isinstance(columns, Columns) and isinstance(others, Columns) else None
    if labels:
        differ = [*(key for key in differ if key != "columns"), f"columns ({labels})"]
        advice = (
            "Give both one list of names by label_names, as tokenize_corpus does by itself, or leave label_column out "
            "and use bio_annotations or obs_columns"
        )
    if differ:
        facts = {"differences": ", ".join(differ), "advice": advice}
        raise error("datasets_differ", first=str(first), second=str(other), **facts)


def meaning(manifest: Manifest, schema: pa.Schema | None = None) -> dict[str, object]:
    """List everything that defines what a dataset's tokens, values and labels mean.

    ``schema`` is that of a dataset that is not written yet; by default it is read from the first shard.
    """
    columns = _schema(manifest) if schema is None else Columns.of(schema, manifest.args.label_column)
    return (
        {key: value or None for key, value in manifest.configuration.items() if key not in MAY_DIFFER}
        | {f"sha256 of {name}": sha256 for name, sha256 in manifest.checksums.vocabulary.items()}
        | {
            f"sha256 of {name}": checksum
            for name, checksum in manifest.checksums.tables.items()
            if name != "gene_map"  # it says what a source calls its genes, as gene_id_column does
        }
        | {"cls_token": manifest.cls_token, "eos_token": manifest.eos_token, "columns": columns}
    )


def class_names(manifest: Manifest) -> tuple[str, ...]:
    """Read the names of the classes of ``labels``; none where there are no classes, or the file is damaged."""
    try:
        return Columns.of(schema_of(read_features(manifest)), None).labels
    except OutputError:
        return ()


def _schema(manifest: Manifest) -> Columns | None:
    """Describe the columns of a written dataset; None if it has no cells."""
    if not manifest.shards:
        return None
    return Columns.of(schema_of(read_features(manifest)), manifest.args.label_column)


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset. They compare equal if they mean the same, whatever the class names are.

    Attributes
    ----------
    text
        The schema, without the class names.
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
        labels: tuple[str, ...] = ()
        try:
            document = json.loads(described or b"null")
            features = document["info"]["features"].values()
            labels = tuple(next(feature for feature in features if feature["_type"] == "ClassLabel").pop("names"))
            described = json.dumps(document).encode()
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration):  # no classes, or a damaged shard
            pass
        return cls(f"{schema.remove_metadata()} {described!r}", label_column, labels)

    def labels_differ(self, other: Columns) -> str | None:
        """Describe how the labels differ; None where one list of names is a prefix of the other."""
        if all(mine == theirs for mine, theirs in zip(self.labels, other.labels, strict=False)):
            return None
        if self.label_column != other.label_column:
            return f"labels are of {self.label_column!r} in the first and of {other.label_column!r} in the second"
        differ = [
            f"{some(labels)} only in the {which}"
            for which, mine, theirs in (("first", self.labels, other.labels), ("second", other.labels, self.labels))
            if (labels := [label for label in mine if label not in set(theirs)])
        ]
        mine, theirs = (
            [label for label in labels if label in set(others)]
            for labels, others in ((self.labels, other.labels), (other.labels, self.labels))
        )
        differ += ["they have another order"] if mine != theirs else []
        return f"labels of {self.label_column!r} differ: {'; '.join(differ)}"
