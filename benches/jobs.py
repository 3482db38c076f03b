"""Take one measurement; `run.py` runs each in a separate process: ``python jobs.py '{"kind": …}'``.

Before the timing starts, the program imports its libraries, warms up on 600 cells, and reads the file once, so that it
is in the system's cache: programs are compared, not disks.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import data

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from anndata import AnnData

OURS = "teddytok_rs"
MAX_SEQ_LEN = 2048  # the default of TEDDY and of the package
READ_CELLS = 1000  # cells of a record batch
SHARD_CELLS = 10_000  # the package's default
BYTES_PER_CELL = 14_600  # bytes that the package writes for these cells


def make(folder: Path, n_cells: int) -> dict[str, Any]:
    """Generate the data."""
    return data.make(folder, n_cells)


def repeat(folder: Path, times: int) -> dict[str, Any]:
    """Write a file with all cells repeated."""
    return data.repeat(folder, times)


def tokenize(folder: Path, program: str, threads: int, values: str = "ties", **options: Any) -> dict[str, Any]:
    """Time from cells in memory to tokens in memory, in the form that the program gives them."""
    warm, adata = _cells(folder, "warm-"), _cells(folder)
    if values != "ties":
        import numpy as np

        layer = adata.layers[data.LAYER]
        layer.data = np.fromfile(folder / f"{values}.f32", "<f4")
    _tokenize(warm, folder, program, threads, options)
    return _timed(lambda: _tokenize(adata, folder, program, threads, options), _count_tokens)


def end_to_end(folder: Path, program: str, threads: int, store: str, output: str, **options: Any) -> dict[str, Any]:
    """Time from a file to a dataset on disk."""
    out, name = folder / output, data.STORES.get(store, store)
    warm = data.STORES.get(store, data.STORES["h5ad"])
    how = {"threads": threads, "options": options}
    _to_disk(folder / f"warm-{warm}", folder / "warm dataset", folder, program, **how)
    shutil.rmtree(folder / "warm dataset")
    shutil.rmtree(out, ignore_errors=True)
    _into_cache(folder / name)
    stages: dict[str, float] = {}
    run = _timed(lambda: stages.update(_to_disk(folder / name, out, folder, program, **how)))
    written = sum(path.stat().st_size for path in out.glob("*.arrow"))
    return {**run, "stages": stages, "bytes": written}


def read(folder: Path, program: str, threads: int, store: str) -> dict[str, Any]:
    """Time only reading the layer's values and indices, and dropping them."""
    once = _read_ours if program == OURS else _read_whole
    once(folder / f"warm-{data.STORES[store]}", threads)
    _into_cache(folder / data.STORES[store])
    run = _timed(lambda: once(folder / data.STORES[store], threads))
    return {**run, "stages": {"read": run["seconds"]}}


def write(folder: Path, threads: int, output: str, **options: Any) -> dict[str, Any]:
    """Time only writing our tokens, with the same steps as the package."""
    import teddytok_rs

    table = teddytok_rs.tokenize(_cells(folder), _our_arguments(folder, options), threads=threads)
    out = folder / output
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    run = _timed(lambda: _write_shards(table, out))
    written = sum(path.stat().st_size for path in out.iterdir())
    shutil.rmtree(out)
    return {**run, "stages": {"write": run["seconds"]}, "bytes": written}


def write_bytes(folder: Path, cells: int, output: str) -> dict[str, Any]:
    """Time writing and syncing files of as many bytes as the package writes for a number of cells."""
    out, zeros = folder / output, bytes(BYTES_PER_CELL * SHARD_CELLS)
    out.mkdir()

    def write_all() -> None:
        for start in range(0, cells, SHARD_CELLS):
            with (out / f"{start}.arrow").open("wb", buffering=0) as file:
                file.write(zeros[: BYTES_PER_CELL * (cells - start)])
                os.fsync(file.fileno())

    run = _timed(write_all)
    shutil.rmtree(out)
    return {**run, "stages": {"write": run["seconds"]}, "bytes": BYTES_PER_CELL * cells}


def rust(folder: Path, executable: str, program: str, threads: int, values: str = "ties") -> dict[str, Any]:
    """Run `kernel/` to time its floor, or the kernel without Python, on the same arrays."""
    command = [executable, "rows", str(folder), program, values, str(threads)]
    result: dict[str, Any] = json.loads(subprocess.check_output(command, text=True))
    return result


def _into_cache(path: Path) -> None:
    """Read a file, or all files of a folder, in parts, and drop them."""
    for part in path.rglob("*") if path.is_dir() else [path]:
        if part.is_file():
            with part.open("rb", buffering=0) as file:
                while file.read(2**24):
                    pass


def _cells(folder: Path, prefix: str = "") -> AnnData:
    from anndata import read_h5ad

    return read_h5ad(folder / f"{prefix}{data.STORES['h5ad']}")


def _tokenize(adata: AnnData, folder: Path, program: str, threads: int, options: dict[str, Any]) -> Any:
    vocabulary = folder / "vocabulary"
    if program == OURS:
        import teddytok_rs

        return teddytok_rs.tokenize(adata, _our_arguments(folder, options), threads=threads)
    if program.startswith("reference"):
        import reference

        drop_sparse = program == "reference, columns dropped while sparse"
        return reference.tokenize(adata, vocabulary, MAX_SEQ_LEN, threads, drop_sparse=drop_sparse)
    import argsort

    return argsort.tokenize(adata, vocabulary, MAX_SEQ_LEN, stable=program == "argsort, stable")


def _count_tokens(tokens: Any) -> dict[str, int]:
    gene_ids = tokens[0] if isinstance(tokens, tuple) else tokens["gene_ids"]
    lists = [part.flatten() for part in gene_ids.chunks] if hasattr(gene_ids, "chunks") else gene_ids
    return {"tokens": sum(map(len, lists))}


def _to_disk(
    path: Path, out: Path, folder: Path, program: str, *, threads: int, options: dict[str, Any]
) -> dict[str, float]:
    """Run a program from file to dataset; return the seconds of each stage if the program runs them in sequence."""
    if program == OURS:
        import teddytok_rs

        arguments = _our_arguments(folder, options)
        teddytok_rs.tokenize_to_disk(path, arguments, out.parent, name=out.name, threads=threads)
        return {}
    from anndata import read_h5ad, read_zarr

    start = time.perf_counter()
    adata = read_zarr(path) if path.suffix == ".zarr" else read_h5ad(path)
    was_read = time.perf_counter()
    tokens = _tokenize(adata, folder, program, threads, options)
    was_tokenized = time.perf_counter()
    if program.startswith("reference"):
        import reference

        reference.save(tokens, out)
    else:
        import argsort

        argsort.save(tokens, out)
    was_written = time.perf_counter()
    return {"read": was_read - start, "kernel": was_tokenized - was_read, "write": was_written - was_tokenized}


def _our_arguments(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    if "median_dict" in options:
        options = options | {"median_dict": folder / options["median_dict"]}
    return {"tokenizer_name_or_path": folder / "vocabulary", "max_seq_len": MAX_SEQ_LEN, **options}


def _read_ours(path: Path, threads: int) -> int:
    """Read in parts as the package does, and drop each part."""
    from teddytok_rs.sources.open import open_source

    source = open_source(path, data.LAYER)

    def part(start: int) -> int:
        chunk: Any = source.read(start, min(start + READ_CELLS, source.n_cells))
        return chunk.indices.nbytes + chunk.data.nbytes

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(part, range(0, source.n_cells, READ_CELLS)))


def _read_whole(path: Path, _: int) -> int:
    """Read the two arrays with the format's own library."""
    if path.suffix == ".zarr":
        import zarr

        layer: Any = zarr.open_group(path, mode="r")[f"layers/{data.LAYER}"]
    else:
        import h5py

        layer = h5py.File(path)[f"layers/{data.LAYER}"]
    return sum(layer[name][...].nbytes for name in ("data", "indices"))


def _write_shards(table: pa.Table, out: Path) -> None:
    """Write Arrow streams of a shard's cells, sync them to the disk, and compute their checksums."""
    import pyarrow as pa

    for start in range(0, table.num_rows, SHARD_CELLS):
        path = out / f"data-{start}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            for batch in table.slice(start, SHARD_CELLS).to_batches():
                stream.write_batch(batch)
        with path.open("rb+") as written:
            hashlib.file_digest(written, "sha256")
            os.fsync(written.fileno())


def _timed(call: Callable[[], Any], count: Callable[[Any], dict[str, int]] = lambda _: {}) -> dict[str, Any]:
    """Time a call. The peak memory is that of the whole process, with interpreter and libraries."""
    busy, cpu, start = _busy_seconds(), time.process_time(), time.perf_counter()
    result = call()  # named, so that freeing it is not timed
    seconds, cpu_seconds, busy = time.perf_counter() - start, time.process_time() - cpu, _busy_seconds() - busy
    counted = count(result)
    del result
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    others = max(busy - cpu_seconds, 0) / (seconds * (os.cpu_count() or 1)) if busy else None
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak, "others_share": others, **counted}


def _busy_seconds() -> float:
    """Sum the seconds in which the machine's cores were busy or used by other machines; 0 if unknown."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, stat.read_text().splitlines()[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run the job given on the command line."""
    import agreement

    job = json.loads(sys.argv[1])
    kinds = (make, repeat, tokenize, end_to_end, read, write, write_bytes, rust, agreement.compare)
    kind = {function.__name__: function for function in kinds}[job.pop("kind")]
    print(json.dumps(kind(Path(job.pop("folder")), **job)))


if __name__ == "__main__":
    main()
