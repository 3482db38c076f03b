"""Write and read shards as Arrow IPC streams."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeAlias

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from _typeshed import ReadableBuffer

    #: Takes the next record batch of a shard.
    Write: TypeAlias = Callable[[pa.RecordBatch], object]


class Sink(Protocol):
    """Where a shard goes: a file, as far as the writers of the formats need one."""

    def write(self, buffer: ReadableBuffer, /) -> int:
        """Take some bytes."""
        ...


@contextmanager
def write_arrow(file: Sink, schema: pa.Schema) -> Iterator[Write]:
    """Write a shard as an Arrow IPC stream.

    Yields
    ------
    A function that writes a record batch.
    """
    sink = pa.PythonFile(file, "w")  # type: ignore[arg-type]  # accepts anything with write, flush and closed
    with pa.ipc.new_stream(sink, schema) as stream:
        yield stream.write_batch


@contextmanager
def read_arrow(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Memory-map a shard, and read its schema and record batches."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        yield stream.schema, iter(stream)
