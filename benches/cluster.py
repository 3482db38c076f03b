"""Simulate a corpus of 116 million cells on 64 workers, from times measured here: ``python benches/cluster.py --help``.

It measures on this machine: opening a run, one shard in a worker with one thread that has opened the source before,
recording a shard, committing a dataset, bytes read and written. Then it simulates the corpus, event by event: one
coordinator that opens runs and submits shards in order, workers with one thread each, and shared storage.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import data

SHARD_CELLS = 10_000  # the package's default
#: Spread of the sources' sizes (log-normal): the largest of a few thousand has about a million cells.
FILE_SIGMA = 1.2


@dataclass(frozen=True)
class Costs:
    """Measured seconds of one worker or of the coordinator, and bytes per cell."""

    open_run: float
    plan: float  # of a worker, once per source
    cell: float  # of a worker with one thread
    note: float
    commit: float
    read_bytes: float  # per cell
    written_bytes: float


def measure(folder: Path, store: str, repeats: int) -> Costs:
    """Measure the time of a shard in this process, with one thread."""
    from teddytok_rs.output import shard as shards
    from teddytok_rs.output.run import open_run

    args = {"tokenizer_name_or_path": str(folder / "vocabulary"), "max_seq_len": 2048}
    source, out = folder / data.STORES[store], folder / "cluster"
    seconds: dict[str, list[float]] = {name: [] for name in ("open_run", "shard", "note", "commit")}

    def timed(name: str, call: Any, *words: Any) -> Any:
        start = time.perf_counter()
        result = call(*words)
        seconds[name].append(time.perf_counter() - start)
        return result

    for _ in range(repeats + 1):  # the first warms up
        shutil.rmtree(out, ignore_errors=True)
        shards._planned.cache_clear()
        with ExitStack() as stack:
            run = timed("open_run", stack.enter_context, open_run(source, args, out))
            first, again = run.tasks
            written = [shards.run_shard(first), timed("shard", shards.run_shard, again)]
            for shard in written:
                timed("note", run.note, shard)
            timed("commit", run.commit)
    shutil.rmtree(out)
    cells = sum(shard.rows for shard in written)
    of = {name: median(times[1:]) for name, times in seconds.items()}
    size = source.stat().st_size if source.is_file() else sum(path.stat().st_size for path in source.rglob("*"))
    return Costs(
        open_run=of["open_run"],
        plan=of["open_run"],  # a worker does the same, except for the lock
        cell=of["shard"] / written[1].rows,
        note=of["note"],
        commit=of["commit"],
        read_bytes=size / len(run.plan.cells),
        written_bytes=sum(shard.bytes for shard in written) / cells,
    )


@dataclass(frozen=True)
class Outcome:
    """The result of a simulation: seconds, and shares of them."""

    seconds: float
    worker_busy: float
    coordinator_busy: float
    storage_busy: float
    plan_share: float  # of the workers' time, spent on opening sources
    cells: int


def simulate(costs: Costs, sizes: list[int], workers: int, storage: float) -> Outcome:
    """Simulate a corpus, event by event: the coordinator opens a run when there is room, workers take tasks in order.

    A worker plans again when its task has another source than its last one. A shard takes the longer of the worker's
    time and the time that the shared storage needs to read and write it, at ``storage`` bytes per second.
    """
    coordinator = storage_free = 0.0
    free = [(0.0, worker) for worker in range(workers)]
    heapq.heapify(free)
    last = [-1] * workers
    ends: list[float] = []  # of submitted tasks
    most = 4 * workers
    busy = planning = moved = served = 0.0
    for source, cells in enumerate(sizes):
        while len(ends) >= most:
            coordinator = max(coordinator, heapq.heappop(ends)) + costs.note
        coordinator += costs.open_run
        served += costs.open_run + costs.commit
        for start in range(0, cells, SHARD_CELLS):
            while len(ends) >= most:
                coordinator = max(coordinator, heapq.heappop(ends)) + costs.note
            n_cells = min(SHARD_CELLS, cells - start)
            at, worker = heapq.heappop(free)
            begin = max(at, coordinator)
            plan = costs.plan if last[worker] != source else 0.0
            last[worker] = source
            n_bytes = n_cells * (costs.read_bytes + costs.written_bytes)
            storage_free = max(storage_free, begin) + n_bytes / storage
            end = max(begin + plan + n_cells * costs.cell, storage_free)
            busy += end - begin
            planning += plan
            moved += n_bytes
            served += costs.note
            heapq.heappush(free, (end, worker))
            heapq.heappush(ends, end)
        coordinator += costs.commit
    seconds = max(*(at for at, _ in free), coordinator)
    return Outcome(
        seconds, busy / (seconds * workers), served / seconds, moved / storage / seconds, planning / busy,
        sum(sizes),
    )  # fmt: skip


def sizes_of(cells: int, files: int) -> list[int]:
    """Draw the sizes of the sources from a log-normal distribution, in random order."""
    rng = random.Random(0)
    drawn = [rng.lognormvariate(0, FILE_SIGMA) for _ in range(files)]
    total = sum(drawn)
    return [max(round(cells * size / total), 1) for size in drawn]


def main() -> None:
    """Read the command line, measure, simulate and print."""
    parser = argparse.ArgumentParser(description="Model a corpus on a cluster.")
    parser.add_argument("--data", type=Path, help="a folder written by run.py --data; created if not given")
    parser.add_argument("--store", choices=["h5ad", "gzip", "zarr"], default="gzip")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cells", type=int, default=116_000_000)
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--storage", type=float, nargs="+", default=[1.0, 5.0, 20.0], help="GB/s of the shared storage")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="teddytok-bench-") as temporary:
        folder = options.data or Path(temporary)
        if not (folder / "vocabulary").exists():
            print("Making 20,000 cells", file=sys.stderr)
            data.make(folder, 20_000)
        costs = measure(folder, options.store, options.repeats)
    print(f"Measured, {options.store}, medians of {options.repeats}:")
    print(json.dumps({name: round(value, 6) for name, value in vars(costs).items()}))
    sizes = sizes_of(options.cells, options.files)
    read, written = (options.cells * each / 1e12 for each in (costs.read_bytes, costs.written_bytes))
    print(f"\n{options.cells:,} cells in {options.files:,} files, the largest of {max(sizes):,} cells")
    print(f"{read:.2f} TB read, {written:.2f} TB written, in {sum(-(-n // SHARD_CELLS) for n in sizes):,} shards\n")
    print("| workers | storage | hours | cells/s | workers busy | of it plans | coordinator busy | storage busy |")
    print("| --: | --: | --: | --: | --: | --: | --: | --: |")
    for storage in options.storage:
        for workers in options.workers:
            run = simulate(costs, sizes, workers, storage * 1e9)
            shares = (run.worker_busy, run.plan_share, run.coordinator_busy, run.storage_busy)
            time_taken = f"{run.seconds / 3600:.2f} | {run.cells / run.seconds:,.0f}"
            print(f"| {workers} | {storage:g} GB/s | {time_taken} | {' | '.join(f'{share:.0%}' for share in shares)} |")


if __name__ == "__main__":
    main()
