"""Write and read shards as WebDataset tar files."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import contextmanager
from itertools import groupby, islice
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..config.files import plain_file
from ..pipeline.schema import schema_of
from .layout import INFO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from .arrow import Sink, Write
from ..pipeline.schema import is_class_label

#: Bytes of a tar file that are written together: the tar library writes 10 kB at a time, and each write is a call to
#: the thread that hashes.
BLOCK_BYTES = 2**20
#: Samples of a tar file that are read together.
BATCH_SAMPLES = 1000
#: Member of a sample that holds all columns without their own member.
OBS = "obs.json"


@contextmanager
def write_tar(file: Sink, first_row: int, *, labels: str) -> Iterator[Write]:
    """Write a shard as a tar file of samples.

    Yields
    ------
    A function that writes a record batch.
    """
    import webdataset

    buffer, row = io.BytesIO(), first_row

    def flush_buffer() -> None:
        file.write(buffer.getvalue())
        buffer.seek(0)
        buffer.truncate()

    def write(batch: pa.RecordBatch) -> None:
        nonlocal row
        for sample in _samples(batch, labels):
            tar.write({"__key__": f"{row:09d}", **sample})
            row += 1
            if buffer.tell() >= BLOCK_BYTES:
                flush_buffer()
                tar.tarstream.members = []  # otherwise all stay in memory

    # The bytes must not depend on the time or the user of the run.
    with webdataset.TarWriter(buffer, user="", group="", mtime=0) as tar:
        yield write
    flush_buffer()


def _samples(batch: pa.RecordBatch, labels: str) -> Iterator[dict[str, object]]:
    """Make a sample per cell: name -> content of each member, which webdataset encodes according to the extension."""
    lists, plain = [], []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if isinstance(column, pa.ListArray):
            lists.append((f"{name}.npy", column.offsets.to_numpy(), column.values.to_numpy()))
        else:
            is_class = is_class_label(batch.schema.field(name), labels)
            plain.append((name, column.to_pylist(), is_class))
    for row in range(batch.num_rows):
        sample: dict[str, object] = {name: items[offsets[row] : offsets[row + 1]] for name, offsets, items in lists}
        obs = {}
        for name, values, is_class in plain:
            if is_class and values[row] is not None:
                sample[f"{name}.cls"] = values[row]
            else:
                obs[name] = values[row]
        yield sample | {OBS: obs} if obs else sample


@contextmanager
def read_tar(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Read the schema and the samples of a tar shard."""
    # Not with webdataset, which unpickles members according to their extension.
    described = json.loads(plain_file(path.parent / INFO).read_text(encoding="utf-8"))
    schema = schema_of(described["features"])
    yield schema, _tar_batches(path, schema)


def _tar_batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    try:
        with tarfile.open(path, "r|") as tar:
            samples = groupby(_members(tar), key=lambda member: member[0])
            rows = (_row({name: content for _, name, content in members}, schema) for _, members in samples)
            while batch := list(islice(rows, BATCH_SAMPLES)):
                yield pa.RecordBatch.from_pylist(batch, schema=schema)
    except (tarfile.TarError, TypeError, AttributeError) as exc:
        raise ValueError(str(exc)) from None


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, bytes]]:
    """Yield the sample, name and content of each member."""
    for member in tar:
        content = tar.extractfile(member)
        if member.type != tarfile.REGTYPE or member.issparse() or content is None:
            message = f"{member.name!r} is not a plain file"
            raise ValueError(message)
        key, _, name = member.name.partition(".")
        yield key, name, content.read()
        tar.members = []  # type: ignore[attr-defined]  # otherwise all stay in memory


def _row(sample: dict[str, bytes], schema: pa.Schema) -> dict[str, object]:
    row = json.loads(sample.get(OBS, "{}"))
    for field in schema:
        if pa.types.is_list(field.type):
            row[field.name] = _array(sample[f"{field.name}.npy"], np.dtype(field.type.value_type.to_pandas_dtype()))
        elif f"{field.name}.cls" in sample:
            row[field.name] = int(sample[f"{field.name}.cls"])
    return {name: row[name] for name in schema.names}


def _array(content: bytes, dtype: np.dtype[np.number]) -> NDArray[np.number]:
    """Read a one-dimensional array of NumPy's format. Its header is compared with the expected one, not evaluated."""
    start = 10 + int.from_bytes(content[8:10], "little")
    array = np.frombuffer(content, dtype, offset=min(start, len(content)))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    if header.getvalue() != content[:start]:
        message = f"an array is not one of {dtype} with as many numbers as it says"
        raise ValueError(message)
    return array
