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


def map_arrow(path: Path, schema: pa.Schema, n_bytes: int, n_rows: int) -> list[pa.RecordBatch]:
    """Map the record batches of a shard into memory, without a look at their columns: `check_mapped_batch` does that.

    Parameters
    ----------
    schema
        Its columns.
    n_bytes, n_rows
        Its length and its rows.

    Raises
    ------
    OSError, ValueError, pyarrow.ArrowException
        If it cannot be mapped, or is not such a shard.
    """
    with pa.memory_map(str(path)) as file:
        if (size := file.size()) != n_bytes:
            reason = f"it has {size:,} bytes instead of {n_bytes:,}"
            raise ValueError(reason)
        with pa.ipc.open_stream(file) as stream:
            if not stream.schema.equals(schema):
                reason = "its columns are not those of the dataset"
                raise ValueError(reason)
            batches = list(stream)
    if (found := sum(batch.num_rows for batch in batches)) != n_rows:
        reason = f"it holds {found:,} rows instead of {n_rows:,}"
        raise ValueError(reason)
    return batches


def check_mapped_batch(batch: pa.RecordBatch) -> None:
    """Check that the columns of a mapped record batch can be read: that no offset or length leads out of a column.

    Numbers themselves are not looked at, so that it takes the same short time for sequences of any length.

    Raises
    ------
    ValueError
        If one does, a list is missing, or a column is not where it was written.
    """
    batch.validate(full=True)
    end = 0
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if isinstance(column, pa.ListArray) and (column.null_count or column.values.null_count):
            reason = f"lists or items are missing in {name!r}"
            raise ValueError(reason)
        for buffer in column.buffers():
            if buffer is None:
                continue
            # A wrong place could be inside the shard, and give numbers of another column or cell.
            if end and buffer.address != end:
                reason = f"{name!r} is not where it was written"
                raise ValueError(reason)
            end = buffer.address + -(-buffer.size // _ALIGNMENT) * _ALIGNMENT


#: Bytes that a buffer in a record batch is filled up to a multiple of.
_ALIGNMENT = 8
