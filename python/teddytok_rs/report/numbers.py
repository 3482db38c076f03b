"""The shards of written datasets in; how long their sequences are, what values, genes and labels they hold, out.

The shards are memory-mapped and read a record batch at a time, with no Python for each cell. What is counted stays
small, whatever the number of cells.
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
from ..output.formats import lists_of, open_shard
from ..output.inspect import label_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ..mapping.annotations import ArrowArray
    from ..output.manifest import Manifest

#: Ranks of which the most frequent genes are listed; 1 is the first gene of a sequence, after CLS.
RANKS = (1, 10, 100)
#: Bins of a histogram, at most.
BINS = 64
#: Labels that are counted, at most: a column may hold another one for each cell.
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
    """Count numbers, given in parts, in at most `BINS` bins of one width.

    The width is a power of two: where the numbers so far need too many bins, two neighbours become one. So the range
    need not be known in advance, and the bins are the same for any order of the parts.
    """

    def __init__(self, width: float = 1.0) -> None:
        self.width, self.first = width, 0
        self.counts = np.zeros(0, dtype=np.int64)
        self.n, self.total, self.smallest, self.largest = 0, 0.0, np.inf, -np.inf

    def add(self, numbers: NDArray[np.number]) -> None:
        """Count some numbers."""
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
        """Give the bins, and the mean, least and largest number; None of each where there is no number."""
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
    """What sequences hold, counted.

    Attributes
    ----------
    lengths
        Sequences of each length, CLS included, by length.
    values
        Values of genes, without those of CLS.
    ranks
        Rank -> token -> sequences that have it there.
    labels, too_many_labels
        Label -> cells; None where there is no such column, or where there are more than `LABELS` of them.
    missing
        Other columns -> cells without a value.
    """

    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    values: Histogram | None = None
    ranks: dict[int, Counter[int]] = field(default_factory=lambda: {rank: Counter() for rank in RANKS})
    labels: Counter[str] | None = None
    too_many_labels: bool = False
    missing: dict[str, int] = field(default_factory=dict)

    def median_length(self) -> float:
        """Compute the median of the lengths; 0 where there is no sequence."""
        n = int(self.lengths.sum())
        below = np.cumsum(self.lengths)
        middle = [int(np.searchsorted(below, place, side="right")) for place in ((n - 1) // 2, n // 2)]
        return sum(middle) / 2 if n else 0.0


def count_numbers(manifests: Iterable[Manifest]) -> Numbers:
    """Count what the shards of one dataset hold, or of several that can be joined.

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
                        batch.validate(full=True)  # a damaged offset would be followed wherever it leads
                        _count(numbers, batch, manifest, names)
            except (OSError, ValueError, TypeError, KeyError, IndexError) as bad:
                reason = f"{shard.file}: {' '.join(str(bad).split())}; 'teddytok verify' lists all that is damaged"
                raise error("output_unreadable", path=str(manifest.path), reason=reason) from bad
    return numbers


def _class_names(schema: pa.Schema) -> list[str] | None:
    """Read the names of the classes that ``labels`` holds, from what `datasets` reads too."""
    described = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    return described["labels"].get("names") if "labels" in described else None


def _count(numbers: Numbers, batch: pa.RecordBatch, manifest: Manifest, names: list[str] | None) -> None:
    ends, tokens = _parts(batch, "gene_ids")
    starts, lengths = ends[:-1], np.diff(ends)
    found = np.bincount(lengths, minlength=len(numbers.lengths))
    found[: len(numbers.lengths)] += numbers.lengths
    numbers.lengths = found
    cls = int(manifest.cls_token is not None)
    for rank, counts in numbers.ranks.items():
        place = cls + rank - 1
        there = tokens[starts[lengths > place] + place]
        counts.update(dict(zip(*(part.tolist() for part in np.unique(there, return_counts=True)), strict=True)))
    for name in batch.schema.names:
        if name == "values":
            values = _parts(batch, name)[1]
            if numbers.values is None:  # bins are whole numbers
                numbers.values = Histogram(1.0 if values.dtype.kind == "i" else 2.0**-20)
            numbers.values.add(np.delete(values, starts[lengths > 0]) if cls else values)
        elif name == "labels":
            _count_labels(numbers, batch.column(name), manifest, names)
        elif name not in {"gene_ids", "bio_annotations"}:
            numbers.missing[name] = numbers.missing.get(name, 0) + batch.column(name).null_count


def _parts(batch: pa.RecordBatch, name: str) -> tuple[NDArray[np.int64], NDArray[np.number]]:
    """Give where the lists of a column begin and end, and all they hold; nothing is copied but the ends."""
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
