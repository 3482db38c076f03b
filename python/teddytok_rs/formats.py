"""Record batches in, the bytes of a shard in one of the formats out; and back.

All formats get the same record batches, cut by row alone, and the bytes hang on nothing else:

::

    arrow       a stream of the batches, uncompressed, so that it can be mapped into memory
    parquet     a row group a batch, compressed with Zstandard
    webdataset  a tar file; a sample a cell, a member a column:

                000000000.gene_ids.npy  000000000.values.npy  000000000.labels.cls  000000000.obs.json  000000001...
"""

from __future__ import annotations

import importlib.util
import io
import json
import tarfile
from contextlib import contextmanager
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from .manifest import INFO
from .messages import error
from .schema import schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Write = Callable[[pa.RecordBatch], Any]

#: Bytes of a tar file that are handed on together: the tar library writes 10 kB at a time, each of which would cost a
#: call to the thread that hashes.
BLOCK_BYTES = 2**20
#: Samples of a tar file that are read together.
BATCH_SAMPLES = 1000
#: Bytes of a member beside its numbers, about: the headers of tar and of NumPy, and half a block to fill up.
MEMBER_BYTES = 512 + 128 + 256
#: Member of a sample that holds all columns which have no member of their own.
OBS = "obs.json"


def check_format(name: str) -> None:
    """Check that what a format needs is installed.

    Raises
    ------
    ConfigError
        If the library is missing.
    """
    if name == "webdataset" and importlib.util.find_spec("webdataset") is None:
        raise error("format_extra", format=name)


@contextmanager
def shard_writer(name: str, file: Any, schema: pa.Schema, first_row: int) -> Iterator[Write]:
    """Write a shard in a format to ``file``, anything with ``write``; what the block gets takes its record batches.

    Parameters
    ----------
    first_row
        Row of the dataset that the shard begins with.
    """
    check_format(name)
    writers: dict[str, Callable[[], Any]] = {
        "arrow": lambda: _write_arrow(file, schema),
        "parquet": lambda: _write_parquet(file, schema),
        "webdataset": lambda: _write_tar(file, first_row),
    }
    with writers[name]() as write:
        yield write


@contextmanager
def open_shard(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Read a shard's schema, features included, and record batches; an `OSError` or `ValueError` if it is damaged."""
    readers = {".arrow": _read_arrow, ".parquet": _read_parquet, ".tar": _read_tar}
    with readers[path.suffix](path) as read:
        yield read


# ---- Arrow


@contextmanager
def _write_arrow(file: Any, schema: pa.Schema) -> Iterator[Write]:
    with pa.ipc.new_stream(pa.PythonFile(file, "w"), schema) as stream:
        yield stream.write_batch


@contextmanager
def _read_arrow(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        yield stream.schema, iter(stream)


# ---- Parquet


@contextmanager
def _write_parquet(file: Any, schema: pa.Schema) -> Iterator[Write]:
    import pyarrow.parquet as pq

    # A batch, of 1,000 cells at most, is a row group: so the groups hang on the rows alone, memory is bounded here and
    # in readers that stream, and 8 MB of tokens are enough for compression. Encodings that make smaller files
    # (BYTE_STREAM_SPLIT of integers, by a quarter) are too new for many readers.
    writer = pq.ParquetWriter(file, schema, compression="zstd")
    try:
        yield writer.write_batch
        writer.close()
    except BaseException:
        writer.is_open = False  # or it would write a footer when it is collected
        raise


@contextmanager
def _read_parquet(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        # Not the file's own schema: in Parquet the items of a list have another name.
        described = json.loads((file.schema_arrow.metadata or {})[b"huggingface"])
        schema = schema_of(described["info"]["features"])
        groups = (file.read_row_group(group, use_threads=False) for group in range(file.num_row_groups))
        yield schema, (batch for table in groups for batch in table.cast(schema).to_batches())


# ---- WebDataset


def members_of(schema: pa.Schema) -> int:
    """Count the members of a sample."""
    own = [field.name for field in schema if pa.types.is_list(field.type) or _is_class(field)]
    return len(own) + (len(own) < len(schema.names))


@contextmanager
def _write_tar(file: Any, first_row: int) -> Iterator[Write]:
    import webdataset

    buffer, row = io.BytesIO(), first_row

    def hand_over() -> None:
        file.write(buffer.getvalue())
        buffer.seek(0)
        buffer.truncate()

    def write(batch: pa.RecordBatch) -> None:
        nonlocal row
        for sample in _samples(batch):
            tar.write({"__key__": f"{row:09d}", **sample})
            row += 1
            if buffer.tell() >= BLOCK_BYTES:
                hand_over()
                tar.tarstream.members = []  # or they would all stay in memory

    # Neither the time nor the user of the run may be in the bytes.
    with webdataset.TarWriter(buffer, user="", group="", mtime=0) as tar:
        yield write
    hand_over()


def _samples(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Make a sample of each cell: its members by name, as webdataset encodes them by their extension."""
    lists, plain = [], []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_list(column.type):
            lists.append((f"{name}.npy", column.offsets.to_numpy(), column.values.to_numpy()))
        else:
            is_class = _is_class(batch.schema.field(name))
            plain.append((name, column.to_pylist(), is_class))
    for row in range(batch.num_rows):
        sample: dict[str, Any] = {name: items[offsets[row] : offsets[row + 1]] for name, offsets, items in lists}
        obs = {}
        for name, column, is_class in plain:
            if is_class and column[row] is not None:
                sample[f"{name}.cls"] = column[row]
            else:
                obs[name] = column[row]
        yield sample | {OBS: obs} if obs else sample


def _is_class(field: pa.Field) -> bool:
    """Tell whether a column is a class or token to predict, which webdataset's users look for under ``.cls``."""
    return field.name == "labels" and bool(pa.types.is_integer(field.type))


@contextmanager
def _read_tar(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    # Not by webdataset, which would unpickle what a member's extension tells it to.
    described = json.loads((path.parent / INFO).read_text(encoding="utf-8"))
    schema = schema_of(described["features"])
    yield schema, _tar_batches(path, schema)


def _tar_batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    try:
        with tarfile.open(path, "r|") as tar:
            samples = groupby(_members(tar), key=lambda member: member[0])
            rows = (_row({name: content for _, name, content in members}, schema) for _, members in samples)
            while batch := list(islice(rows, BATCH_SAMPLES)):
                yield pa.RecordBatch.from_pylist(batch, schema=schema)
    except (tarfile.TarError, TypeError, AttributeError) as bad:
        raise ValueError(str(bad)) from bad


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, bytes]]:
    """List sample, name and content of each member."""
    for member in tar:
        content = tar.extractfile(member)
        if member.type != tarfile.REGTYPE or member.issparse() or content is None:
            strange = f"{member.name!r} is no plain file"
            raise ValueError(strange)
        key, _, name = member.name.partition(".")
        yield key, name, content.read()
        tar.members = []  # type: ignore[attr-defined]  # or they would all stay in memory


def _row(sample: dict[str, bytes], schema: pa.Schema) -> dict[str, Any]:
    row = json.loads(sample.get(OBS, "{}"))
    for field in schema:
        if pa.types.is_list(field.type):
            row[field.name] = _array(sample[f"{field.name}.npy"], np.dtype(field.type.value_type.to_pandas_dtype()))
        elif f"{field.name}.cls" in sample:
            row[field.name] = int(sample[f"{field.name}.cls"])
    return {name: row[name] for name in schema.names}


def _array(content: bytes, dtype: np.dtype[Any]) -> Any:
    """Read an array from the bytes that are there; its header is compared with the one it must have, not evaluated."""
    start = 10 + int.from_bytes(content[8:10], "little")
    array = np.frombuffer(content, dtype, offset=min(start, len(content)))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    if header.getvalue() != content[:start]:
        damaged = f"an array is not one of {dtype} with as many numbers as it says"
        raise ValueError(damaged)
    return array
