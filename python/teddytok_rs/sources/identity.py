"""Identify sources: the fingerprint of their content, and the stamp that changes with a file."""

from __future__ import annotations

import hashlib
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..parallel import map_in_order
from .layers import AUTO, canonical
from .soma_url import is_soma

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

from .protocol import DenseChunk, Source


def fingerprint(source: Source) -> str:
    """Compute a checksum that tells one source from another without reading it whole.

    It covers the shape, the number type, all names of cells and genes, and the values of up to 64 rows spread evenly
    over the source; not where the source lies or how it is stored.
    """
    digest = hashlib.sha256(f"{source.n_cells} {source.n_var} {source.dtype.str}".encode())
    for names in chain(_parts_of_names(source), [map(str, source.var.index)]):
        digest.update("\0".join(names).encode(errors="surrogatepass"))
    for row in sorted({int(row) for row in np.linspace(0, source.n_cells - 1, 64)} if source.n_cells else ()):
        chunk = source.read(row, row + 1)
        columns: NDArray[np.integer]
        if isinstance(chunk, DenseChunk):
            columns = np.flatnonzero(chunk.x[0])
            values = chunk.x[0, columns]
        else:
            order = np.argsort(chunk.indices, kind="stable")
            columns, values = chunk.indices[order], chunk.data[order]
            columns, values = columns[values != 0], values[values != 0]
        digest.update(columns.astype("<i8").tobytes())
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def stamp(source: Source, threads: int = 1) -> str:
    """Compute what changes whenever the source is changed: of a file its size and time, in memory all its values.

    Unlike `fingerprint` it also changes where a file is merely copied or touched.
    """
    if source.path is None:
        return _stamp_of_values(source, threads)
    return stamp_of_path(source.path, source.layer)


def stamp_of_path(path: str, layer: str) -> str:
    """Compute the `stamp` of a file or store, or of what a SOMA query reads."""
    if is_soma(path):
        from .open import open_source
        from .soma import soma_stamp

        if layer == AUTO:
            with closing(open_source(path, layer)) as opened:
                layer = opened.layer
        return soma_stamp(path, canonical(layer))
    return _stamp_of_files(Path(path))


def _stamp_of_files(path: Path) -> str:
    digest = hashlib.sha256()
    # Whatever its path is from where this process stands.
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        state = file.stat()
        name = file.relative_to(path)
        digest.update(f"{name} {state.st_size} {state.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _stamp_of_values(source: Source, threads: int) -> str:
    def spans() -> Iterator[tuple[int, int]]:
        start = 0
        while start < source.n_cells:
            stop = min(start + max(source.rows_within(start, 2**24, 0), 1), source.n_cells)
            yield start, stop
            start = stop

    def digest_of(rows: tuple[int, int]) -> bytes:
        chunk = source.read(*rows)
        arrays = (chunk.x,) if isinstance(chunk, DenseChunk) else (chunk.indptr, chunk.indices, chunk.data)
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(array.data)
        return digest.digest()

    n_threads = threads if threads > 1 else 0
    digests = map_in_order(digest_of, spans(), threads=n_threads, window=threads + 1)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _parts_of_names(source: Source) -> Iterator[Sequence[str]]:
    """Read the cell names in parts, so that they are not all in memory."""
    part = 10_000
    for start in range(0, source.n_cells, part):
        yield source.cell_names(start, start + part)
