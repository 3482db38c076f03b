"""Three programs that make the same tokens, timed in alternation: ``python benches/run.py --help``.

Each measurement is a process of its own: its peak memory is that of one program alone, no program finds the heap that
another left behind, and threads of torch and of the package never meet. Imports and a warm-up on 600 cells come before
the clock starts. This process imports nothing large, because Linux counts a parent's peak memory as its child's.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

HERE = Path(__file__).parent
OURS = "teddytok_rs"
PROGRAMS = ("reference", "argsort", "argsort, stable", OURS)
STAGES = {"memory": "tokenize in memory", "disk": "h5ad to dataset on disk"}
MAX_SEQ_LEN = 2048  # the default of TEDDY and of the package
WARM_CELLS = 600  # more than one batch of the reference
SEED = 0


def main() -> None:
    """Read the command line, measure, print and write the results."""
    parser = argparse.ArgumentParser(description="Time teddytok_rs beside what users run today.")
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=_cores(), help="default: all cores")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:  # a child process: `_run_job` below starts it
        job = json.loads(options.job)
        job["folder"] = Path(job["folder"])
        print(json.dumps(JOBS[job.pop("kind")](**job)))
        return
    with tempfile.TemporaryDirectory(prefix="teddytok-bench-") as folder:
        results = _run(Path(folder), options.cells, options.repeats, options.threads)
    print("\n" + _table(results))
    results_folder = HERE / "results"
    results_folder.mkdir(exist_ok=True)
    path = results_folder / f"{results['date'].replace(':', '')}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\nWritten to {path}")


def _run(folder: Path, n_cells: int, repeats: int, threads: int) -> dict[str, Any]:
    """Make the data, run all jobs, compare what they wrote."""
    programs = [name for name in PROGRAMS if name != "reference" or importlib.util.find_spec("torch")]
    print(f"Making {n_cells:,} cells", file=sys.stderr)
    made = _run_job(folder, threads, kind="make", n_cells=n_cells)
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {stage: {name: [] for name in PROGRAMS} for stage in STAGES}
    for stage, title in STAGES.items():
        for repeat in range(repeats):
            for name in programs:
                shutil.rmtree(_output(folder, name), ignore_errors=True)
                run = _run_job(folder, threads, kind=stage, program=name, threads=threads)
                runs[stage][name].append(run)
                print(f"{title}, {repeat + 1}/{repeats}, {name}: {run['seconds']:.2f} s", file=sys.stderr)
    print("Comparing tokens", file=sys.stderr)
    agreement = {name: _run_job(folder, threads, kind="compare", program=name) for name in programs if name != OURS}
    versions = ("teddytok-rs", "torch", "numpy", "scipy", "anndata", "h5py", "datasets", "pyarrow")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "arguments": {"cells": n_cells, "repeats": repeats, "threads": threads, "max_seq_len": MAX_SEQ_LEN},
        "machine": {"cpu": _cpu(), "cores": _cores(), "system": platform.system()},
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in versions},
        "data": made,
        "runs": runs,
        "agreement": agreement,
    }


def _run_job(folder: Path, n_threads: int, **job: Any) -> dict[str, Any]:
    """Run one of `JOBS` in a process of its own, after pending writes of the one before are on the disk."""
    os.sync()
    environment = {"OMP_NUM_THREADS": str(n_threads), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(folder)}
    command = [sys.executable, __file__, "--job", json.dumps({"folder": str(folder), **job})]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _output(folder: Path, program: str) -> Path:
    return folder / f"dataset of {program}"


# ---- in the child processes


def _make(folder: Path, n_cells: int) -> dict[str, Any]:
    """Write the cells, some to warm up on, and the vocabulary."""
    import data

    adata = data.cells(n_cells, SEED)
    adata.write_h5ad(folder / "cells.h5ad")
    adata[:WARM_CELLS].write_h5ad(folder / "warm.h5ad")
    vocabulary = data.vocabulary(folder / "vocabulary", adata)
    return {
        "nonzeros_per_cell": adata.layers["processed"].nnz / adata.n_obs,
        "genes": adata.n_vars,
        "genes_kept": len(data.kept_genes(adata, vocabulary)[0]),
    }


def _memory(folder: Path, program: str, threads: int) -> dict[str, Any]:
    """Time from cells in memory to tokens in memory, in whichever form the program makes them."""
    from anndata import read_h5ad

    warm, adata = read_h5ad(folder / "warm.h5ad"), read_h5ad(folder / "cells.h5ad")
    _tokenize(warm, folder, program, threads)
    return _timed(lambda: _tokenize(adata, folder, program, threads))


def _disk(folder: Path, program: str, threads: int) -> dict[str, Any]:
    """Time from a file to a dataset on disk."""
    _to_disk(folder / "warm.h5ad", folder / "warm", folder, program, threads)
    shutil.rmtree(folder / "warm")
    return _timed(lambda: _to_disk(folder / "cells.h5ad", _output(folder, program), folder, program, threads))


def _tokenize(adata: AnnData, folder: Path, program: str, threads: int) -> Any:
    vocabulary = folder / "vocabulary"
    if program == "reference":
        import reference

        return reference.tokenize(adata, vocabulary, MAX_SEQ_LEN, threads)
    if program == OURS:
        import teddytok_rs

        return teddytok_rs.tokenize(adata, _our_arguments(folder), threads=threads)
    import argsort

    return argsort.tokenize(adata, vocabulary, MAX_SEQ_LEN, stable=program == "argsort, stable")


def _to_disk(path: Path, output: Path, folder: Path, program: str, threads: int) -> None:
    if program == OURS:
        import teddytok_rs

        teddytok_rs.tokenize_to_disk(path, _our_arguments(folder), output.parent, name=output.name, threads=threads)
        return
    from anndata import read_h5ad

    tokens = _tokenize(read_h5ad(path), folder, program, threads)
    if program == "reference":
        import reference

        reference.save(tokens, output)
    else:
        import argsort

        argsort.save(tokens, output)


def _our_arguments(folder: Path) -> dict[str, Any]:
    return {"tokenizer_name_or_path": folder / "vocabulary", "max_seq_len": MAX_SEQ_LEN}


def _timed(call: Callable[[], Any]) -> dict[str, Any]:
    """Time a call; the peak memory is that of the whole process, interpreter and libraries included."""
    busy, cpu, start = _busy_seconds(), time.process_time(), time.perf_counter()
    result = call()  # named, so that freeing it is not timed
    seconds, cpu_seconds, busy = time.perf_counter() - start, time.process_time() - cpu, _busy_seconds() - busy
    del result
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    others = max(busy - cpu_seconds, 0) / (seconds * (os.cpu_count() or 1)) if busy else None
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak, "others_share": others}


def _busy_seconds() -> float:
    """Sum the time for which the machine's cores were busy, or taken by other machines; 0 where nothing tells."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, stat.read_text().splitlines()[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _compare(folder: Path, program: str) -> dict[str, float]:
    """Compare a program's dataset with ours, cell by cell; stops the benchmark where they differ.

    All cells must have the same values, and the same genes with each value. Of genes that share the last value of a
    cell that was cut, each program may take others; `argsort, stable` alone must take the same, in the same order.
    """
    import numpy as np

    lengths, values, ids = _read(_output(folder, OURS))
    their_lengths, their_values, their_ids = _read(_output(folder, program))
    if not np.array_equal(lengths, their_lengths) or not np.array_equal(values, their_values):
        sys.exit(f"{program} and {OURS} selected different values")
    rows = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.ones(len(values), dtype=bool)  # of a run of equal values in a cell
    starts[1:] = (values[1:] != values[:-1]) | (rows[1:] != rows[:-1])
    run = np.cumsum(starts) - 1
    last = np.cumsum(lengths)[lengths == MAX_SEQ_LEN] - 1
    decided = ~np.isin(run, run[last])
    ours, theirs = (np.sort((run[decided] << 32) | tokens[decided]) for tokens in (ids, their_ids))
    if not np.array_equal(ours, theirs):
        sys.exit(f"{program} and {OURS} selected different genes")
    same = float(np.mean(ids == their_ids))
    if program == "argsort, stable" and same < 1:
        sys.exit(f"{program} and {OURS} ordered equal values differently")
    unique = np.bincount(run)[run] == 1
    return {
        "cells": len(lengths),
        "tokens_per_cell": float(np.mean(lengths)),
        "cells_cut": int(np.sum(lengths == MAX_SEQ_LEN)),
        "share_of_unique_values": float(np.mean(unique)),
        "share_of_places_with_the_same_gene": same,
    }


def _read(folder: Path) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Read a dataset: the length of each cell, and the values and gene ids of all."""
    import numpy as np
    from datasets import load_from_disk

    table = load_from_disk(str(folder)).data.table
    values, ids = (table.column(name).combine_chunks() for name in ("values", "gene_ids"))
    lengths = np.asarray(values.value_lengths()).astype(np.int64)
    if not np.array_equal(lengths, np.asarray(ids.value_lengths())):
        sys.exit(f"{folder.name}: cells with more ids than values, or fewer")
    return lengths, np.asarray(values.flatten()), np.asarray(ids.flatten()).astype(np.int64)


JOBS: dict[str, Callable[..., dict[str, Any]]] = {"make": _make, "memory": _memory, "disk": _disk, "compare": _compare}


# ---- the report


def _table(results: dict[str, Any]) -> str:
    """Lay out medians, and how many times as fast the package is, as a Markdown table."""
    n_cells = results["arguments"]["cells"]
    titles = "".join(f" {title}, cells/s | {OURS} is | CPU |" for title in STAGES.values())
    lines = [f"| program |{titles} peak memory |", "| --- |" + 7 * " --: |"]
    for name in PROGRAMS:
        if not results["runs"]["disk"][name]:
            lines.append(f"| {name} | torch is not installed |" + 6 * " |")
            continue
        cells = []
        for runs in results["runs"].values():
            seconds, ours = (median(run["seconds"] for run in runs[program]) for program in (name, OURS))
            cpu_seconds = median(run["cpu_seconds"] for run in runs[name])
            ratio = "" if name == OURS else f"{seconds / ours:.1f} x as fast"
            cells += [f"{n_cells / seconds:,.0f}", ratio, f"{cpu_seconds:.2f} s"]
        peak = median(run["peak_bytes"] for run in results["runs"]["disk"][name])
        lines.append(f"| {name} | {' | '.join(cells)} | {peak / 1e6:,.0f} MB |")
    runs = [run for programs in results["runs"].values() for runs in programs.values() for run in runs]
    others = [run["others_share"] for run in runs if run["others_share"] is not None]
    if others:
        shares = f"{median(others):.0%} of the machine's CPU time ({max(others):.0%} at most)"
        lines += ["", f"Median of {len(others)} runs: other programs took {shares}; above 5 %, the figures are rough."]
    return "\n".join(lines)


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
