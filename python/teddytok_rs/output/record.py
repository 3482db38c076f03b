"""Store what only a run knows about a dataset, for its report."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..config.files import read_document
from ..config.parts import Part, Share, parse_part, to_document
from ..pipeline.scan import SourceCounts
from .layout import RECORD
from .storage import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from ..pipeline.batches import Batch
    from .manifest import Manifest


@dataclass
class Throughput:
    """The time that a run took. Each stage is summed over all threads, so it may be longer than the run.

    Attributes
    ----------
    reading, tokenizing, writing
        Seconds that threads spent reading and decompressing rows, in the kernel, and writing and syncing shards.
    seconds
        Seconds from the request of the first record batch to the sync of the last shard.
    cells, threads
        Number of cells that were tokenized in this time, and number of threads.
    """

    reading: float = 0.0
    tokenizing: float = 0.0
    writing: float = 0.0
    seconds: float = 0.0
    cells: int = 0
    threads: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, batch: Batch) -> None:
        """Add the cells and the seconds of a record batch, from any thread."""
        with self._lock:
            self.reading += batch.reading
            self.tokenizing += batch.tokenizing
            self.cells += batch.record_batch.num_rows

    def add_writing(self, seconds: float) -> None:
        """Add seconds of writing, from any thread."""
        with self._lock:
            self.writing += seconds

    def timings(self) -> Timings | None:
        """Return what was measured; None if this process tokenized no cell."""
        names = [part.name for part in fields(Timings)]
        return Timings(**{name: getattr(self, name) for name in names}) if self.cells else None


@dataclass(frozen=True)
class Timings(Part):
    """What a `Throughput` had measured when its run ended."""

    reading: Share
    tokenizing: Share
    writing: Share
    seconds: Annotated[float, Field(gt=0)]
    cells: Annotated[int, Field(gt=0)]
    threads: Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class Record(Part):
    """What only a run knows about a dataset. It is stored next to the manifest, which is the same for equal runs.

    Attributes
    ----------
    shards
        Checksums of the dataset's shards.
    source
        Counts over the source, see `count_source`; None if the run made no report.
    throughput
        See `Throughput`; None if the run's own process tokenized no cell.
    """

    shards: list[str]
    source: SourceCounts | None = None
    throughput: Timings | None = None

    @classmethod
    def read(cls, manifest: Manifest) -> Record:
        """Read the record of a dataset; an empty one if it is missing, damaged or of other shards."""
        shards = [shard.sha256 for shard in manifest.shards]
        try:
            record = parse_part(cls, read_document(manifest.path / RECORD))
        except ValueError:
            return cls(shards)
        return record if record.shards == shards else cls(shards)

    def write(self, folder: Path) -> None:
        """Write the record into the folder of its dataset."""
        write_file(folder / RECORD, json.dumps(to_document(self), indent=2, sort_keys=True, ensure_ascii=False) + "\n")
