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
