"""Format results as one table per stage and the list of targets."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

OURS = "teddytok_rs"
TITLES = {
    "memory": "Tokenize in memory",
    "distinct": "Tokenize in memory, almost no equal values in a cell",
    "options": "Options, in memory",
    "h5ad": "Uncompressed h5ad to dataset on disk",
    "gzip": "Gzip h5ad to dataset on disk",
    "zarr": "Zarr to dataset on disk",
    "zeros": "include_zero_genes, h5ad to dataset on disk",
    "scaling": "A tenth of the cells, all, ten times all; h5ad to dataset on disk",
}


@dataclass(frozen=True)
class Target:
    """A target, its measured value if there is one, and its minimum or maximum ``limit`` if it has one."""

    promise: str
    measured: float | None
    limit: float | None
    at_least: bool

    @property
    def is_met(self) -> bool | None:
        """Return whether the target is met; None if that is unknown."""
        if self.measured is None or self.limit is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def report(results: dict[str, Any]) -> str:
    """Format the tables and the targets as Markdown, and add the targets to the results."""
    n_cells = results["arguments"]["cells"]
    parts = [_table(stage, rows, n_cells) for stage, rows in results["runs"].items()]
    found = targets(results)
    results["targets"] = [{**vars(target), "is_met": target.is_met} for target in found]
    lines = ["## Targets", "", "| target | limit | measured | |", "| --- | --: | --: | --- |"]
    for target in found:
        measured = "not measured" if target.measured is None else f"{target.measured:.2f}"
        verdict = {True: "met", False: "NOT MET", None: ""}[target.is_met]
        limit = "" if target.limit is None else f"{'>=' if target.at_least else '<='} {target.limit:g}"
        lines.append(f"| {target.promise} | {limit} | {measured} | {verdict} |")
    parts.append("\n".join(lines))
    runs = [run for rows in results["runs"].values() for row in rows.values() for run in row["runs"]]
    others = [run["others_share"] for run in runs if run.get("others_share") is not None]
    if others:
        shares = f"{median(others):.0%} of the machine's CPU time ({max(others):.0%} at most)"
        parts.append(f"Median of {len(others)} runs: other programs took {shares}; above 5 %, the figures are rough.")
    return "\n\n".join(parts)


def targets(results: dict[str, Any]) -> list[Target]:
    """Compute the targets from the medians."""

    def ratio(stage: str, row: str, by: str = OURS, by_stage: str | None = None) -> float | None:
        """Divide the seconds of a row by those of another."""
        above, below = (_seconds(results, *place) for place in ((stage, row), (by_stage or stage, by)))
        return None if above is None or below is None else above / below

    above, below = {"at_least": True}, {"at_least": False}
    found = [
        Target("in memory: times as fast as the reference", ratio("memory", "reference"), 40, **above),
        Target("in memory: times as fast as the argsort loop", ratio("memory", "argsort"), 5, **above),
        Target("in memory: times the unsorted copy", ratio("memory", OURS, "unsorted copy"), 2, **below),
        Target(
            "in memory, distinct values: times as fast as the reference", ratio("distinct", "reference"), 40, **above
        ),
        Target(
            "in memory, distinct values: times as fast as the argsort loop", ratio("distinct", "argsort"), 5, **above
        ),
        Target(
            "in memory, distinct values: times the unsorted copy", ratio("distinct", OURS, "unsorted copy"), 2, **below
        ),
    ]
    threads = results["arguments"]["threads"]
    if threads >= 2:
        faster = ratio("memory", f"{OURS}, 1 thread")
        found.append(Target(f"in memory: {threads} threads, times as fast as one", faster, 1.8, **above))
    found += [
        Target("h5ad: times as fast as the reference", ratio("h5ad", "reference"), 40, **above),
        Target("h5ad: times as fast as the argsort pipeline", ratio("h5ad", "argsort"), 6, **above),
        Target("gzip h5ad: times as fast as the reference", ratio("gzip", "reference"), 25, **above),
        Target("gzip h5ad: times as fast as h5py reads the layer", ratio("gzip", "h5py reads the layer"), 1, **above),
    ]
    for row in ("bins", "random_genes", "from raw counts", "from raw counts, with medians"):
        found.append(Target(f"{row}: times the plain run", ratio("options", row, OURS), 1.5, **below))
    bound = ratio("zeros", "include_zero_genes, in memory alone", "include_zero_genes, writing alone")
    found.append(Target("include_zero_genes: tokenizing, times writing the same alone", bound, 1, **below))
    return found + _scaling_targets(results)


def _scaling_targets(results: dict[str, Any]) -> list[Target]:
    """Compare the time of an additional cell, and the peak memory, for few and for many cells."""
    slope = bytes_slope = memory = None
    rows = list(results["runs"].get("scaling", {}).values())
    if rows:
        few, some, many, *written = (_median(row["runs"], "seconds") for row in rows)
        slope = (many - some) / 9 / ((some - few) / 0.9)
        bytes_slope = (written[2] - written[1]) / 9 / ((written[1] - written[0]) / 0.9)
        memory = _median(rows[2]["runs"], "peak_bytes") / _median(rows[1]["runs"], "peak_bytes")
    return [
        Target("linear: time a further cell takes beyond all cells, to below", slope, 1.1, at_least=False),
        Target("the same of writing as many bytes alone, which is the machine's", bytes_slope, None, at_least=False),
        Target("flat: peak memory with ten times the cells, to that with all", memory, 1.1, at_least=False),
    ]


def _seconds(results: dict[str, Any], stage: str, row: str) -> float | None:
    runs = results["runs"].get(stage, {}).get(row, {}).get("runs")
    return _median(runs, "seconds") if runs else None


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return median(run[key] for run in runs)


def _table(stage: str, rows: dict[str, Any], n_cells: int) -> str:
    """Format the medians of a stage, and their ratios to the time of the package."""
    parts = [part for part in ("read", "kernel", "write") if any(part in r.get("stages", {}) for r in _all_runs(rows))]
    written = any("bytes" in run for run in _all_runs(rows))
    heads = [*(f"{part}, s" for part in parts), "all, s", "cells/s", f"times {OURS}", "CPU, s", "peak memory, MB"]
    heads += ["MB written/s"] if written else []
    lines = [f"## {TITLES[stage]}", "", f"| program | {' | '.join(heads)} |", "| --- |" + len(heads) * " --: |"]
    ours = median(run["seconds"] for run in rows[OURS]["runs"]) if rows.get(OURS, {}).get("runs") else None
    for name, row in rows.items():
        runs = row["runs"]
        if not runs:
            lines.append(f"| {name} | {row['missing']} |" + (len(heads) - 1) * " |")
            continue
        seconds = _median(runs, "seconds")
        cells = [_median([r["stages"] for r in runs], p) if p in runs[0].get("stages", {}) else None for p in parts]
        cells = ["" if part is None else f"{part:.3f}" for part in cells]
        n = int(name.split()[0].replace(",", "")) if stage == "scaling" else n_cells
        cells += [f"{seconds:.3f}", f"{n / seconds:,.0f}", f"{seconds / ours:.2f}" if ours else ""]
        cells.append(f"{_median(runs, 'cpu_seconds'):.2f}" if "cpu_seconds" in runs[0] else "")
        cells.append(f"{_median(runs, 'peak_bytes') / 1e6:,.0f}" if "peak_bytes" in runs[0] else "")
        if written:
            cells.append(f"{_median(runs, 'bytes') / seconds / 1e6:,.0f}" if "bytes" in runs[0] else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _all_runs(rows: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for row in rows.values() for run in row["runs"]]
