"""Write and read shards as Arrow IPC streams."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Write = Callable[[pa.RecordBatch], Any]


@contextmanager
def write_arrow(file: Any, schema: pa.Schema) -> Iterator[Write]:
    """Write a shard as an Arrow IPC stream.

    Yields
    ------
    A function that writes a record batch.
    """
    with pa.ipc.new_stream(pa.PythonFile(file, "w"), schema) as stream:
        yield stream.write_batch


@contextmanager
def read_arrow(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Memory-map a shard, and read its schema and record batches."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        yield stream.schema, iter(stream)
