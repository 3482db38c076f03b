"""Write and read shards as Parquet files."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..pipeline.schema import schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

    Write = Callable[[pa.RecordBatch], Any]


# ---- Parquet


@contextmanager
def write_parquet(file: Any, schema: pa.Schema) -> Iterator[Write]:
    """Write a shard as a Parquet file."""
    import pyarrow.parquet as pq

    # A batch, of 1,000 cells at most, is a row group: so the groups depend on the rows alone, memory is bounded here
    # and in readers that stream, and 8 MB of tokens are enough for compression. Encodings that make smaller files
    # (BYTE_STREAM_SPLIT of integers, by a quarter) are too new for many readers.
    writer = pq.ParquetWriter(file, schema, compression="zstd")
    try:
        yield writer.write_batch
        writer.close()
    except BaseException:
        writer.is_open = False  # or it would write a footer when it is collected
        raise


@contextmanager
def read_parquet(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Read the schema and the record batches of a Parquet shard."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        # Not the file's own schema: in Parquet the items of a list have another name.
        described = json.loads((file.schema_arrow.metadata or {})[b"huggingface"])
        schema = schema_of(described["info"]["features"])
        groups = (file.read_row_group(group, use_threads=False) for group in range(file.num_row_groups))
        yield schema, (batch for table in groups for batch in table.cast(schema).to_batches())
