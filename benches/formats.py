"""Measure the time to write each format: ``python benches/formats.py --help``.

It tokenizes an ``.h5ad`` file to a dataset on disk, each format in a separate process, in alternation. It measures the
elapsed time, and the processor time of all threads, which depends less on other programs on the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

FORMATS = ("arrow", "parquet", "webdataset")


def main() -> None:
    """Read the command line, measure and print medians."""
    parser = argparse.ArgumentParser(description="Time teddytok_rs's output formats.")
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:  # a child process: started below
        print(json.dumps(_write(*json.loads(options.job))))
        return
    import data

    with tempfile.TemporaryDirectory(prefix="teddytok-bench-") as folder:
        made = data.make_h5ad(Path(folder), options.cells)
        rounds = [
            [_run_job(made, name, f"{folder}/{name}{number}", options.threads) for name in FORMATS]
            for number in range(options.repeats)
        ]
    print(f"{options.cells:,} cells, threads: {options.threads}")
    for name, measured in zip(FORMATS, zip(*rounds, strict=True), strict=True):
        rate, cpu, size = (median(figures) for figures in zip(*measured, strict=True))
        print(f"{name}: {rate:,.0f} cells/s, {cpu:.0f} us of processor time per cell, {size / 1000:.1f} kB per cell")


def _run_job(*job: object) -> list[float]:
    command = [sys.executable, "-W", "ignore", __file__, "--job", json.dumps(job)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _write(made: dict[str, str], name: str, folder: str, threads: int) -> list[float]:
    """Return cells/s, microseconds of processor time per cell, and bytes per cell."""
    import teddytok_rs
    from teddytok_rs.output.formats import check_format

    check_format(name)
    if name == "webdataset":
        import webdataset  # noqa: F401 -- it imports PyTorch if installed, which takes seconds
    args = {"tokenizer_name_or_path": made["vocabulary"], "max_seq_len": 2048, "format": name}
    start, cpu = time.perf_counter(), time.process_time()
    manifest = teddytok_rs.tokenize_to_disk(made["source"], args, folder, threads=threads)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    n_bytes = sum(shard.bytes for shard in manifest.shards)
    return [manifest.n_cells / seconds, 1e6 * cpu / manifest.n_cells, n_bytes / manifest.n_cells]


if __name__ == "__main__":
    main()
