"""Measure the speed of a PyTorch `DataLoader` with our datasets: ``python benches/loader.py --help``.

A measurement is the second epoch of a process, without a model: the workers are running and have opened their files,
and the shuffle buffers are filled again. It alternates between a written folder and tokenizing on the fly.
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


def main() -> None:
    """Read the command line, measure and print medians."""
    parser = argparse.ArgumentParser(description="Time teddytok_rs.torch.")
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64, help="cells per batch")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="numbers of workers to measure")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:  # a child process: `_run_job` below starts it
        print(_epoch(*json.loads(options.job)))
        return
    with tempfile.TemporaryDirectory(prefix="teddytok-bench-") as folder:
        tokens = _run_job("make", folder, options.cells, 0)
        print(f"{options.cells:,} cells, {tokens:,.0f} tokens per cell, batches of {options.batch}")
        jobs = [
            (way, folder, options.batch, workers) for way in ("written", "on the fly") for workers in options.workers
        ]
        rates = [[_run_job(*job) for job in jobs] for _ in range(options.repeats)]
    for (way, *_, workers), measured in zip(jobs, zip(*rates, strict=True), strict=True):
        rate = median(measured)
        spread = f"{min(measured):,.0f} to {max(measured):,.0f}"
        print(f"{way}, {workers} workers: {rate:,.0f} cells/s, {rate * tokens / 1e6:.1f} M tokens/s ({spread} cells/s)")


def _run_job(*job: object) -> float:
    command = [sys.executable, "-W", "ignore", __file__, "--job", json.dumps(job)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _epoch(way: str, folder: str, batch: int, workers: int) -> float:
    """Return the cells/s of an epoch; or, as the first job, generate the data and return their tokens per cell."""
    from torch.utils.data import DataLoader

    import teddytok_rs
    from teddytok_rs.torch import Collator, OnTheFlyDataset, WrittenDataset

    source, tokens = Path(folder) / "cells.h5ad", Path(folder) / "tokens"
    args = {"tokenizer_name_or_path": str(Path(folder) / "vocabulary"), "max_seq_len": 2048, "pad_length": 2048}
    if way == "make":
        import data

        data.make_h5ad(Path(folder), batch)
        manifest = teddytok_rs.tokenize_to_disk(source, args, tokens)
        return manifest.n_tokens / manifest.n_cells
    written = way == "written"
    dataset = WrittenDataset(tokens) if written else OnTheFlyDataset(source, args)
    options = {"num_workers": workers, "persistent_workers": workers > 0, "shuffle": written or None}
    loader = DataLoader(dataset, batch, collate_fn=Collator.for_dataset(dataset), **options)
    for _ in loader:
        pass
    start = time.perf_counter()
    n_cells = sum(len(batch["gene_ids"]) for batch in loader)
    return n_cells / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
