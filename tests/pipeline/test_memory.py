"""Memory does not grow with the cells, with labels and obs columns too: measured in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

resource = pytest.importorskip("resource", reason="Windows does not say what a process took")

FEW, MANY = 200_000, 800_000
GENES = [f"ENSG{number:011d}" for number in range(8)]
#: What is promised, and what two equal processes may differ by.
BYTES_PER_CELL, NOISE = 16, 8 * 2**20
CHILD = """
import json, resource, sys
import teddytok_rs

path, what, args, out = sys.argv[1:]
if what == "disk":
    teddytok_rs.tokenize_to_disk(path, json.loads(args), out, threads=2, progress=False)
elif what == "check":
    assert not teddytok_rs.check(path, json.loads(args), threads=2, progress=False).problems
else:
    for batch in teddytok_rs.iter_batches(path, json.loads(args), threads=2):
        pass
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


def write_cells(path: Path, n_cells: int) -> Path:
    """Write cells of two genes each, a part at a time, with labels, names and numbers of their own."""
    text = h5py.string_dtype("utf-8")
    with h5py.File(path, "w") as file:

        def mark(name: str, encoding: str, version: str = "0.2.0", **attributes: Any) -> Any:
            file[name].attrs.update({"encoding-type": encoding, "encoding-version": version, **attributes})
            return file[name]

        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, columns in {"obs": ["cell_type", "note", "number"], "var": []}.items():
            file.create_group(name)
            frame = mark(name, "dataframe", _index="_index")
            frame.attrs.create("column-order", np.array(columns, dtype=object), (len(columns),), text)
        file.create_dataset("var/_index", data=np.array(GENES, dtype=object), dtype=text)
        for name in ("_index", "note"):
            names = file.create_dataset(f"obs/{name}", (n_cells,), dtype=text)
            for start in range(0, n_cells, 50_000):
                names[start : start + 50_000] = [f"{name}-of-cell-{row:08d}" for row in range(start, start + 50_000)]
            mark(f"obs/{name}", "string-array")
        mark("var/_index", "string-array")
        file["obs/number"] = np.arange(n_cells, dtype=np.float64)
        mark("obs/number", "array")
        file["obs/cell_type/codes"] = (np.arange(n_cells) % 40).astype(np.int8)
        file.create_dataset(
            "obs/cell_type/categories", data=np.array([f"type {number}" for number in range(40)], object), dtype=text
        )
        mark("obs/cell_type/codes", "array")
        mark("obs/cell_type/categories", "string-array")
        mark("obs/cell_type", "categorical", ordered=False)
        file["X/indptr"] = np.arange(n_cells + 1, dtype=np.int64) * 2
        file["X/indices"] = np.tile(np.array([1, 5], dtype=np.int32), n_cells)
        file["X/data"] = np.ones(2 * n_cells, dtype=np.float32)
        mark("X", "csr_matrix", "0.1.0", shape=(n_cells, len(GENES)))
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("memory")
    (folder / "vocab.txt").write_text("\n".join(["<pad>", "<unk>", *GENES, "type 1"]), encoding="utf-8")
    return {n_cells: write_cells(folder / f"{n_cells}.h5ad", n_cells) for n_cells in (FEW, MANY)}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["disk", "check", "iterate"])
def test_labels_and_obs_columns_take_no_memory_for_each_cell(sources: dict[int, Path], what: str, tmp_path: Path):
    base = {"tokenizer_name_or_path": str(sources[FEW].parent / "vocab.txt"), "layer": "X", "normalize_total": 1e4}
    keys = {
        "label_column": "cell_type",
        "obs_columns": ["index", "note", "number"],
        "add_disease_annotation": False,
        "cell_filter": "number >= 0 and note != 'x'",
    }
    peaks = {}
    for name, args in {"without": base, "with": base | keys}.items():
        for n_cells, path in sources.items():
            out = tmp_path / f"{name}-{n_cells}"
            command = [sys.executable, "-c", CHILD, str(path), what, json.dumps(args), str(out)]
            peaks[name, n_cells] = int(subprocess.run(command, check=True, capture_output=True).stdout)
    growth = {name: peaks[name, MANY] - peaks[name, FEW] for name in ("without", "with")}
    assert growth["with"] - max(growth["without"], 0) <= BYTES_PER_CELL * (MANY - FEW) + NOISE, peaks


#: Builds medians with a table that is too small to keep values.
MEDIANS = """
import resource, sys
import teddytok_rs
from teddytok_rs.pipeline import medians

medians.TABLE_BYTES = 2**20
teddytok_rs.build_medians(sys.argv[1], sys.argv[2], layer="X", normalize_total=1e4, threads=2, progress=False)
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""
#: Genes of the cells, all of which are nonzero.
N_VALUES = 64
#: Writes the same cells a number of times. A process would inherit the peak memory of the one that starts it.
REPEATED = f"""
import sys
import numpy as np
from anndata import AnnData
from scipy import sparse

values = np.random.default_rng(1).integers(1, 1000, size=(20_000, {N_VALUES})).astype(np.float32)
AnnData(sparse.csr_matrix(np.tile(values, (int(sys.argv[2]), 1)))).write_h5ad(sys.argv[1])
"""


@pytest.mark.slow
def test_medians_take_no_memory_for_each_value(tmp_path: Path):
    peaks, medians = [], []
    for times in (1, 10):
        path, out = tmp_path / "cells.h5ad", tmp_path / f"{times}.json"
        subprocess.run([sys.executable, "-c", REPEATED, str(path), str(times)], check=True)
        command = [sys.executable, "-c", MEDIANS, str(path), str(out)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True).stdout))
        medians.append(json.loads(out.read_text(encoding="utf-8")))
    float32_bytes = 9 * 20_000 * N_VALUES * 4  # of the values that only the second file has
    assert peaks[1] - peaks[0] <= float32_bytes / 2, peaks
    assert medians[0] == medians[1]
    assert len(medians[0]) == N_VALUES
