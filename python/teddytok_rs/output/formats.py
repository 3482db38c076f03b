"""Write and read shards in each of the formats.

All formats get the same record batches, which are cut by row only, and their bytes depend on nothing else:

::

    arrow       a stream of the record batches, uncompressed, so that it can be memory-mapped
    parquet     one row group per record batch, compressed with Zstandard
    webdataset  a tar file with one sample per cell and one member per column:

                000000000.gene_ids.npy  000000000.values.npy  000000000.labels.cls  000000000.obs.json  000000001...
"""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..config.files import plain_file
from ..errors.build import error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pyarrow as pa

    from .arrow import Sink, Write
from .arrow import read_arrow, write_arrow
from .parquet import read_parquet, write_parquet
from .webdataset import read_tar, write_tar


def check_format(name: str) -> None:
    """Check that the library of a format is installed.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if name == "webdataset" and importlib.util.find_spec("webdataset") is None:
        raise error("format_extra", format=name)


@contextmanager
def shard_writer(name: str, file: Sink, schema: pa.Schema, first_row: int, *, labels: str) -> Iterator[Write]:
    """Write a shard in a format.

    Parameters
    ----------
    name
        The format: ``arrow``, ``parquet`` or ``webdataset``.
    file
        A writable binary file object.
    schema
        Schema of the record batches, with the features in its metadata.
    first_row
        Row of the dataset with which the shard begins.
    labels
        Name of the column of labels.

    Yields
    ------
    A function that writes a record batch.

    Raises
    ------
    ConfigError
        If the library of the format is not installed.
    """
    check_format(name)
    writers: dict[str, Callable[[], AbstractContextManager[Write]]] = {
        "arrow": lambda: write_arrow(file, schema),
        "parquet": lambda: write_parquet(file, schema),
        "webdataset": lambda: write_tar(file, first_row, labels=labels),
    }
    with writers[name]() as write:
        yield write


@contextmanager
def open_shard(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Open a shard for the ``with`` block.

    Yields
    ------
    The schema, with the features in its metadata, and an iterator of the record batches.

    Raises
    ------
    OSError, ValueError
        If the shard is damaged; also while the record batches are read.
    """
    readers = {".arrow": read_arrow, ".parquet": read_parquet, ".tar": read_tar}
    with readers[path.suffix](plain_file(path)) as read:
        yield read


def lists_of(batch: pa.RecordBatch, name: str) -> pa.ListArray[pa.Scalar[pa.DataType]]:
    """Get a column of lists of a shard; a `KeyError` or `ValueError` if the shard has no such column."""
    import pyarrow as pa

    column = batch.column(name)
    if not isinstance(column, pa.ListArray):
        reason = f"column {name!r} holds {column.type}, not lists"
        raise ValueError(reason)  # noqa: TRY004 -- as whatever else is wrong in a shard
    return column
