"""Time programs that give the same tokens, in alternation, stage by stage: ``python benches/run.py --help``.

Each measurement is a separate process (`jobs.py`): its peak memory is that of one program only, no program reuses the
heap of another, and the threads of torch and of the package are never in one process. This process imports nothing
large, because Linux counts the peak memory of a parent as that of its child.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from report import OURS, report

HERE = Path(__file__).parent
STORES = ("h5ad", "gzip", "zarr")
STAGES = ("memory", "distinct", "options", *STORES, "zeros", "scaling")
#: One job per row of a stage; see `stages` below.
Jobs = dict[str, dict[str, Any]]


def stages(threads: int, n_cells: int, executable: str | None) -> dict[str, Jobs]:
    """List the measurements: stage -> row of its table -> job. Programs that are not installed are left out."""

    def job(kind: str, program: str, n_threads: int = threads, **more: Any) -> dict[str, Any]:
        return {"kind": kind, "program": program, "threads": n_threads, **more}

    def in_memory(values: str) -> Jobs:
        jobs = {
            name: job("tokenize", name, values=values) for name in ("reference", "argsort", "argsort, stable", OURS)
        }
        jobs[f"{OURS}, 1 thread"] = job("tokenize", OURS, 1, values=values)
        for row, program, n_threads in (
            ("kernel in Rust", "kernel", threads),
            ("unsorted copy", "floor", threads),
            ("unsorted copy, 1 thread", "floor", 1),
        ):
            jobs[row] = {**job("rust", program, n_threads, values=values), "executable": executable}
        return jobs

    def stored(store: str) -> Jobs:
        library = "zarr" if store == "zarr" else "h5py"
        names = ("reference", "argsort", OURS)
        jobs = {name: job("end_to_end", name, store=store, output=f"{store} {name}") for name in names}
        jobs[f"{OURS}, reading alone"] = job("read", OURS, store=store)
        jobs[f"{library} reads the layer"] = job("read", library, store=store)
        return jobs

    slow = "reference, columns dropped while sparse"
    memory, h5ad = in_memory("ties"), stored("h5ad")
    memory = {"reference": memory.pop("reference"), slow: job("tokenize", slow), **memory}
    for name in (slow, "argsort, stable"):
        h5ad[name] = job("end_to_end", name, store="h5ad", output=f"h5ad {name}")
    h5ad[f"{OURS}, writing alone"] = {"kind": "write", "threads": threads, "output": "written alone"}

    raw = {"layer": "processed", "values": "counts", "normalize_total": 10_000, "log1p": True}
    options: dict[str, dict[str, Any]] = {
        OURS: {},
        "bins": {"bins": 51},
        "random_genes": {"random_genes": True, "gene_seed": 0},
        "from raw counts": raw,
        "from raw counts, with medians": {**raw, "median_dict": "medians.json"},
        "include_zero_genes": {"include_zero_genes": True},
    }
    zeros = {"include_zero_genes": True}
    scaling = {
        n_cells // 10: f"cells-{n_cells // 10}.h5ad",
        n_cells: "h5ad",
        10 * n_cells: f"cells-{10 * n_cells}.h5ad",
    }
    return {
        "memory": memory,
        "distinct": in_memory("distinct"),
        "options": {row: job("tokenize", OURS, **more) for row, more in options.items()},
        "h5ad": h5ad,
        "gzip": stored("gzip"),
        "zarr": stored("zarr"),
        "zeros": {
            OURS: job("end_to_end", OURS, store="h5ad", output="plain"),
            "include_zero_genes": job("end_to_end", OURS, store="h5ad", output="zeros", **zeros),
            "include_zero_genes, in memory alone": job("tokenize", OURS, **zeros),
            "include_zero_genes, writing alone": {
                "kind": "write",
                "threads": threads,
                "output": "zeros alone",
                **zeros,
            },
        },
        "scaling": {
            **{f"{n:,} cells": job("end_to_end", OURS, store=store, output="scaling") for n, store in scaling.items()},
            **{
                f"{n:,} cells, as many bytes written alone": {"kind": "write_bytes", "cells": n, "output": "bytes"}
                for n in scaling
            },
        },
    }


def main() -> None:
    """Read the command line, measure, print and write the results."""
    parser = argparse.ArgumentParser(description="Time teddytok_rs next to what users run today.")
    parser.add_argument("--cells", type=int, default=20_000, help="default: 20,000; they must fit into memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=_cores(), help="default: all cores")
    parser.add_argument("--only", nargs="+", choices=STAGES, metavar="STAGE", help=f"of {', '.join(STAGES)}")
    parser.add_argument(
        "--scaling", action="store_true", help="also with a tenth and ten times the cells (10 GB of disk)"
    )
    parser.add_argument("--data", type=Path, help="keep the data in this folder, and reuse those of an earlier run")
    options = parser.parse_args()
    chosen = options.only or [stage for stage in STAGES if stage != "scaling" or options.scaling]
    with tempfile.TemporaryDirectory(prefix="teddytok-bench-") as temporary:
        folder = (options.data or Path(temporary)).absolute()
        results = _run(folder, chosen, options.cells, options.repeats, options.threads)
    print("\n" + report(results))
    results_folder = HERE / "results"
    results_folder.mkdir(exist_ok=True)
    path = results_folder / f"{results['date'].replace(':', '')}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\nWritten to {path}")


def _run(folder: Path, chosen: list[str], n_cells: int, repeats: int, threads: int) -> dict[str, Any]:
    """Generate the data, run all jobs, and compare the written datasets."""
    executable, missing = _kernel_program()
    torch = importlib.util.find_spec("torch")
    made = _make(folder, n_cells, threads, scaling="scaling" in chosen)
    runs: dict[str, dict[str, Any]] = {}
    agreement: dict[str, Any] = {}
    for stage, jobs in stages(threads, n_cells, executable).items():
        if stage not in chosen:
            continue
        runs[stage] = {row: {"job": job, "runs": []} for row, job in jobs.items()}
        for repeat in range(repeats):
            for row, job in jobs.items():
                reason = None
                if job["kind"] == "rust" and executable is None:
                    reason = missing
                elif job.get("program", "").startswith("reference") and not torch:
                    reason = "torch is not installed"
                if reason:
                    runs[stage][row]["missing"] = reason
                    continue
                run = _run_job(folder, threads, **job)
                runs[stage][row]["runs"].append(run)
                print(f"{stage}, {repeat + 1}/{repeats}, {row}: {run['seconds']:.3f} s", file=sys.stderr)
        counts = {run["tokens"] for row in runs[stage].values() for run in row["runs"] if "tokens" in run}
        if stage in {"memory", "distinct"} and len(counts) > 1:
            sys.exit(f"{stage}: the programs made different numbers of tokens: {counts}")
        if stage in STORES:
            agreement[stage] = _compare(folder, threads, stage, runs[stage])
        for job in jobs.values():
            if "output" in job:
                shutil.rmtree(folder / job["output"], ignore_errors=True)
    versions = ("teddytok-rs", "torch", "numpy", "scipy", "anndata", "h5py", "zarr", "datasets", "pyarrow")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "arguments": {"cells": n_cells, "repeats": repeats, "threads": threads, "stages": chosen},
        "machine": {"cpu": _cpu(), "cores": _cores(), "system": platform.system()},
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in versions},
        "data": made,
        "runs": runs,
        "agreement": agreement,
    }


def _make(folder: Path, n_cells: int, threads: int, *, scaling: bool) -> dict[str, Any]:
    """Generate the data, unless the folder already has them."""
    note = folder / f"made-{n_cells}.json"
    if not note.exists():
        print(f"Making {n_cells:,} cells", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("made-*.json"):
            stale.unlink()
        made = _run_job(folder, threads, kind="make", n_cells=n_cells)
        note.write_text(json.dumps(made), encoding="utf-8")
    if scaling and not (folder / f"cells-{10 * n_cells}.h5ad").exists():
        print(f"Making {10 * n_cells:,} cells", file=sys.stderr)
        _run_job(folder, threads, kind="repeat", times=10)
    return dict(json.loads(note.read_text(encoding="utf-8")))


def _compare(folder: Path, threads: int, store: str, rows: dict[str, Any]) -> dict[str, Any]:
    """Compare each program's dataset with ours."""
    outputs = {row: of["job"]["output"] for row, of in rows.items() if of["runs"] and of["job"]["kind"] == "end_to_end"}
    ours = outputs.pop(OURS)
    print(f"Comparing tokens, {store}", file=sys.stderr)
    return {
        row: _run_job(folder, threads, kind="compare", program=row, ours=ours, theirs=theirs)
        for row, theirs in outputs.items()
    }


def _run_job(folder: Path, n_threads: int, **job: Any) -> dict[str, Any]:
    """Run a job in a separate process, after the pending writes of the previous job are on the disk."""
    os.sync()
    environment = {"OMP_NUM_THREADS": str(n_threads), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(folder)}
    command = [sys.executable, str(HERE / "jobs.py"), json.dumps({"folder": str(folder), **job})]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _kernel_program() -> tuple[str | None, str | None]:
    """Build `kernel/`; return its path, or the reason why it could not be built."""
    cargo = shutil.which("cargo")
    if cargo is None:
        return None, "cargo is not installed"
    print("Building benches/kernel", file=sys.stderr)
    command = [cargo, "bench", "--quiet", "--bench", "kernel", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        return None, "cargo could not build it"
    messages = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    return next(message["executable"] for message in messages if message.get("executable")), None


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
