"""Write and read shards as Parquet files."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..pipeline.schema import schema_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from .arrow import Sink, Write


@contextmanager
def write_parquet(file: Sink, schema: pa.Schema) -> Iterator[Write]:
    """Write a shard as a Parquet file.

    Yields
    ------
    A function that writes a record batch.
    """
    import pyarrow.parquet as pq

    # A record batch, of at most 1,000 cells, is one row group. So the groups depend on the rows only, memory is bounded
    # here and in readers that stream, and 8 MB of tokens compress well. Encodings that make files a quarter smaller
    # (BYTE_STREAM_SPLIT of integers) are too new for many readers.
    writer = pq.ParquetWriter(file, schema, compression="zstd")  # type: ignore[arg-type]  # as PythonFile does
    try:
        yield writer.write_batch
        writer.close()
    except BaseException:
        writer.is_open = False  # otherwise it writes a footer when it is garbage-collected
        raise


@contextmanager
def read_parquet(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Read the schema and the record batches of a Parquet shard."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        # Not the schema of the file: Parquet gives the items of a list another name.
        described = json.loads((file.schema_arrow.metadata or {})[b"huggingface"])
        schema = schema_of(described["info"]["features"])
        groups = (file.read_row_group(group, use_threads=False) for group in range(file.num_row_groups))
        yield schema, (batch for table in groups for batch in table.cast(schema).to_batches())
