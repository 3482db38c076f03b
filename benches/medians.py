"""Measure how fast medians are built, next to reading alone: ``python benches/medians.py --help``.

Each measurement is a separate process, on synthetic counts that are repeated to the number of cells. The medians are
compared with those that NumPy computes.
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

import numpy as np

#: Cells that are drawn; more are repetitions of them.
DRAWN = 20_000


def main() -> None:
    """Read the command line, measure, compare and print."""
    parser = argparse.ArgumentParser(description="Time teddytok_rs.build_medians.")
    parser.add_argument("--times", type=int, default=10, help=f"repetitions of the {DRAWN:,} cells")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:  # a child process: `_run_job` below starts it
        print(json.dumps(_job(*json.loads(options.job))))
        return
    with tempfile.TemporaryDirectory(prefix="teddytok-bench-") as folder:
        _run_job("make", folder, options.times, 0)
        for times in (1, options.times):
            measured = {
                what: [_run_job(what, folder, times, options.threads) for _ in range(options.repeats)]
                for what in ("read", "build")
            }
            for what, results in measured.items():
                seconds = median(result["seconds"] for result in results)
                rate, peak = times * DRAWN / seconds, max(result["bytes"] for result in results)
                passes = f", {results[0]['passes']} passes" if what == "build" else ""
                cpu = median(result["cpu"] for result in results)
                print(
                    f"{what}, {times * DRAWN:,} cells: {rate:,.0f} cells/s, {cpu:.1f} s of CPU{passes}, "
                    f"peak {peak / 1e6:,.0f} MB"
                )
        print(f"genes whose median differs from NumPy's: {_run_job('compare', folder, options.times, 0)['n']}")


def _run_job(*job: object) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--job", json.dumps(job)]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))


def _job(what: str, folder: str, times: int, threads: int) -> dict[str, float]:
    import data

    path = Path(folder) / data.STORES["h5ad"] if times == 1 else data.cells_path(Path(folder), times * DRAWN)
    if what == "make":
        data.make_h5ad(Path(folder), DRAWN, normalized=False)
        data.repeat(Path(folder), times)
        return {}
    if what == "compare":
        return {"n": _n_different(Path(folder), times)}
    import resource

    from teddytok_rs import build_medians
    from teddytok_rs.parallel import map_in_order
    from teddytok_rs.pipeline import medians
    from teddytok_rs.pipeline.batches import N_QUEUED
    from teddytok_rs.sources.open import open_source

    passes, count = 0, medians._count_source

    def counting(*args: object, **keys: object) -> None:
        nonlocal passes
        passes += 1
        count(*args, **keys)

    medians._count_source = counting
    started, cpu_started = time.perf_counter(), time.process_time()
    if what == "read":
        source = open_source(path, data.LAYER)

        def read(rows: tuple[int, int]) -> None:
            source.read(*rows)

        for _ in map_in_order(read, medians._spans(source, 2**27), threads=threads, window=threads + N_QUEUED):
            pass
        source.close()
    else:
        out = Path(folder) / f"medians-{times}.json"
        for file in Path(folder).glob(f"medians-{times}.*"):
            file.unlink()
        build_medians(path, out, layer=data.LAYER, normalize_total=data.TARGET_SUM, threads=threads, progress=False)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "cpu": cpu, "passes": passes, "bytes": peak}


def _n_different(folder: Path, times: int) -> int:
    """Count the genes whose median of the repeated cells is not the one that NumPy computes."""
    import anndata

    import data

    adata = anndata.read_h5ad(folder / data.STORES["h5ad"])
    counts = adata.layers[data.LAYER]
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    shares = (counts.data / np.repeat(totals, np.diff(counts.indptr))).astype(np.float32)
    counts.data = (shares.astype(np.float64) * data.TARGET_SUM).astype(np.float32)
    columns = counts.tocsc()
    found = json.loads((folder / f"medians-{times}.json").read_text(encoding="utf-8"))
    n_different = 0
    for number, gene in enumerate(adata.var_names):
        values = np.sort(columns.data[columns.indptr[number] : columns.indptr[number + 1]])
        n = len(values) * times
        if n == 0:
            n_different += gene in found
            continue
        middle = values[[(n - 1) // 2 // times, n // 2 // times]].astype(np.float64).mean()
        n_different += found.get(gene) != float(np.float32(middle))
    return n_different


if __name__ == "__main__":
    main()
