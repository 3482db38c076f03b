"""Count the lengths, values, genes and labels of the sequences in written datasets.

Shards are read one record batch at a time, without a Python loop over cells. The memory for the counts does not depend
on the number of cells.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors.build import error
from ..errors.text import reason_of
from ..output.formats import lists_of, open_shard
from ..output.inspect import label_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ..mapping.annotations import ArrowArray
    from ..output.manifest import Manifest

#: Ranks for which the most frequent genes are listed; 1 is the first gene of a sequence, after CLS.
RANKS = (1, 10, 100)
#: Maximum number of bins of a histogram.
BINS = 64
#: Maximum number of labels that are counted: a column may have a different label for each cell.
LABELS = 10_000


class Bins(TypedDict):
    """Bins of one width: the left end of the first, their width, and how many are in each."""

    start: float
    width: float
    counts: list[int]


class HistogramBins(Bins):
    """The bins of a `Histogram`, and its numbers: how many, their mean, the least and the largest."""

    n: int
    mean: float | None
    min: float | None
    max: float | None


class Histogram:
    """Count numbers, added in parts, in at most `BINS` bins of equal width.

    The width is a power of two. When the numbers need too many bins, pairs of neighbouring bins are merged. So the
    range need not be known in advance, and the bins do not depend on the order of the parts.
    """

    def __init__(self, width: float = 1.0) -> None:
        self.width, self.first = width, 0
        self.counts = np.zeros(0, dtype=np.int64)
        self.n, self.total, self.smallest, self.largest = 0, 0.0, np.inf, -np.inf

    def add(self, numbers: NDArray[np.number]) -> None:
        """Add numbers to the counts."""
        if not numbers.size:
            return
        numbers = numbers.astype(np.float64)
        smallest, largest = float(numbers.min()), float(numbers.max())
        self.n += numbers.size
        self.total += float(numbers.sum())
        self.smallest, self.largest = min(self.smallest, smallest), max(self.largest, largest)
        while self.largest // self.width - self.smallest // self.width >= BINS:
            self._widen()
        first = min(self.first, int(smallest // self.width)) if self.counts.size else int(smallest // self.width)
        places = np.floor(numbers * (1 / self.width)).astype(np.int64) - first  # exact: the width is a power of two
        self.counts = np.pad(self.counts, (self.first - first if self.counts.size else 0, 0))
        self.first = first
        found = np.bincount(places, minlength=len(self.counts))
        found[: len(self.counts)] += self.counts
        self.counts = found

    def _widen(self) -> None:
        self.width *= 2
        if self.counts.size:
            places = (self.first + np.arange(len(self.counts))) // 2
            self.first = int(places[0])
            self.counts = np.bincount(places - self.first, weights=self.counts).astype(np.int64)

    def to_dict(self) -> HistogramBins:
        """Return the left edge of the first bin, the width and the counts of the bins, and n, mean, min and max."""
        if not self.n:
            return {"n": 0, "mean": None, "min": None, "max": None, "start": 0.0, "width": self.width, "counts": []}
        return {
            "n": self.n,
            "mean": self.total / self.n,
            "min": self.smallest,
            "max": self.largest,
            "start": self.first * self.width,
            "width": self.width,
            "counts": self.counts.tolist(),
        }


@dataclass
class Numbers:
    """Counts over the sequences of datasets.

    Attributes
    ----------
    lengths
        Shape (longest + 1,): number of sequences of each length, CLS and EOS included.
    values
        Histogram of the values of genes, without those of CLS and EOS.
    ranks
        Rank -> token -> number of sequences with this token at this rank.
    labels, too_many_labels
        Label -> number of cells; None if there is no such column, or more than `LABELS` different labels.
    missing
        Other column -> number of cells without a value.
    """

    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    values: Histogram | None = None
    ranks: dict[int, Counter[int]] = field(default_factory=lambda: {rank: Counter() for rank in RANKS})
    labels: Counter[str] | None = None
    too_many_labels: bool = False
    missing: dict[str, int] = field(default_factory=dict)

    def median_length(self) -> float:
        """Compute the median of the lengths; 0 if there is no sequence."""
        n = int(self.lengths.sum())
        below = np.cumsum(self.lengths)
        middle = [int(np.searchsorted(below, place, side="right")) for place in ((n - 1) // 2, n // 2)]
        return sum(middle) / 2 if n else 0.0


def count_numbers(manifests: Iterable[Manifest]) -> Numbers:
    """Count over the shards of one dataset, or of several datasets that can be joined.

    Raises
    ------
    OutputError
        If a shard cannot be read.
    """
    numbers = Numbers()
    for manifest in manifests:
        for shard in manifest.shards:
            path = manifest.path / shard.file
            try:
                with open_shard(path) as (schema, batches):
                    names = _class_names(schema)
                    for batch in batches:
                        batch.validate(full=True)  # a damaged offset could point outside the buffer
                        _count(numbers, batch, manifest, names)
            except (OSError, ValueError, TypeError, KeyError, IndexError) as exc:
                reason = f"{shard.file}: {reason_of(exc)}; 'teddytok verify' lists all that is damaged"
                raise error("output_unreadable", path=str(manifest.path), reason=reason) from None
    return numbers


def _class_names(schema: pa.Schema) -> list[str] | None:
    """Read the class names of ``labels`` from the features of `datasets`; None if there are none."""
    described = json.loads(schema.metadata[b"huggingface"])["info"]["features"].values()
    return next((feature["names"] for feature in described if feature["_type"] == "ClassLabel"), None)


def _count(numbers: Numbers, batch: pa.RecordBatch, manifest: Manifest, names: list[str] | None) -> None:
    by_name = manifest.args.columns_by_name
    ends, tokens = _parts(batch, next(name for name, column in by_name.items() if column == "gene_ids"))
    starts, lengths = ends[:-1], np.diff(ends)
    found = np.bincount(lengths, minlength=len(numbers.lengths))
    found[: len(numbers.lengths)] += numbers.lengths
    numbers.lengths = found
    cls, eos = int(manifest.cls_token is not None), int(manifest.eos_token is not None)
    for rank, counts in numbers.ranks.items():
        place = cls + rank - 1
        there = tokens[starts[lengths - eos > place] + place]
        counts.update(dict(zip(*(part.tolist() for part in np.unique(there, return_counts=True)), strict=True)))
    for name in batch.schema.names:
        column = by_name.get(name)
        if column == "values":
            values = _parts(batch, name)[1]
            first, last = starts[: len(starts) * cls], ends[1:][: len(starts) * eos] - 1
            if numbers.values is None:  # bins are whole numbers
                numbers.values = Histogram(1.0 if values.dtype.kind == "i" else 2.0**-20)
            numbers.values.add(np.delete(values, np.concatenate([first, last])))
        elif column == "labels":
            _count_labels(numbers, batch.column(name), manifest, names)
        elif column not in {"gene_ids", "length", "bio_annotations"}:
            numbers.missing[name] = numbers.missing.get(name, 0) + batch.column(name).null_count


def _parts(batch: pa.RecordBatch, name: str) -> tuple[NDArray[np.int64], NDArray[np.number]]:
    """Return the offsets of a list column and its flat values. Only the offsets are copied."""
    column = lists_of(batch, name)
    ends = column.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    return ends - ends[0], column.flatten().to_numpy(zero_copy_only=False)


def _count_labels(numbers: Numbers, column: ArrowArray, manifest: Manifest, names: list[str] | None) -> None:
    if numbers.too_many_labels:
        return
    numbers.labels = Counter() if numbers.labels is None else numbers.labels
    found = pc.value_counts(column)
    is_disease = names is None and manifest.args.add_disease_annotation
    for label, n in zip(found.field("values").to_pylist(), found.field("counts").to_numpy().tolist(), strict=True):
        if names is None and not is_disease:
            name = str(label)
        elif not isinstance(label, int):
            raise TypeError("column 'labels' has a cell without a label")
        else:
            name = label_of(manifest, "disease", label) if names is None else names[label]
        numbers.labels[name] += n
    if len(numbers.labels) > LABELS:
        numbers.labels, numbers.too_many_labels = None, True
