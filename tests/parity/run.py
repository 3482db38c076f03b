"""Run Geneformer's own tokenizer and scGPT's own binning from a clone, and store what they give.

``python tests/parity/run.py GENEFORMER SCGPT`` writes the two JSON files next to this one; it needs loompy, scanpy and
datasets. Tests compare with these files, and with a new run where the environment variables name the clones.
"""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

HERE = Path(__file__).parent
GENEFORMER, SCGPT = HERE / "geneformer.json", HERE / "scgpt.json"
#: Most tokens of a sequence, so small that some cells are cut.
SIZE = 40


def draw_inputs() -> dict[str, Any]:
    """Draw counts of 30 cells, of which one is empty, with genes that Geneformer does not know among them."""
    rng = np.random.default_rng(15)
    genes = [f"ENSG{number:011d}" for number in range(100)]
    counts = rng.negative_binomial(0.7, 0.1, size=(30, 100))
    counts[::2] *= rng.random((15, 100)) < 0.4
    counts[4] = 0
    known = [gene for number, gene in enumerate(genes) if number % 7 != 3]
    tokens = {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3}
    tokens |= {gene: 4 + number for number, gene in enumerate(rng.permutation(known).tolist())}
    medians = dict(zip(known, rng.uniform(0.5, 20, len(known)).round(6).tolist(), strict=True))
    return {"genes": genes, "counts": counts.tolist(), "tokens": tokens, "medians": medians}


def run_geneformer(clone: Path, inputs: dict[str, Any], version: str, folder: Path) -> dict[str, list[int]]:
    """Tokenize by ``TranscriptomeTokenizer``; returns the input_ids of each cell that it keeps, by cell."""
    folder.mkdir()
    counts = np.array(inputs["counts"], dtype=np.float32)
    obs = pd.DataFrame({"n_counts": counts.sum(axis=1)}, index=[str(row) for row in range(len(counts))])
    obs["cell"] = obs.index
    cells = anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=inputs["genes"]))
    cells.var["ensembl_id"] = inputs["genes"]
    cells.write_h5ad(folder / "cells.h5ad")
    tokens = dict(inputs["tokens"])
    if version == "V1":
        del tokens["<cls>"], tokens["<eos>"]
    package = types.ModuleType("geneformer")  # its __init__ imports all of transformers; its dictionaries are ours
    package.__path__ = [str(clone / "geneformer")]
    mapping = {gene: gene for gene in inputs["medians"]}
    for name, table in (("TOKEN_DICTIONARY", tokens), ("GENE_MEDIAN", inputs["medians"]), ("ENSEMBL_MAPPING", mapping)):
        path = folder / f"{name}.pkl"
        path.write_bytes(pickle.dumps(table))
        setattr(package, f"{name}_FILE", path)
        setattr(package, f"{name}_FILE_30M", path)
    sys.modules["geneformer"] = package
    sys.modules.pop("geneformer.tokenizer", None)
    try:
        from geneformer.tokenizer import TranscriptomeTokenizer

        tokenizer = TranscriptomeTokenizer({"cell": "cell"}, model_version=version)
        assert tokenizer.model_input_size == {"V1": 2048, "V2": 4096}[version]
        tokenizer.model_input_size = SIZE
        made = tokenizer.create_dataset(*tokenizer.tokenize_files(folder, "h5ad"))
    finally:
        del sys.modules["geneformer"]
        sys.modules.pop("geneformer.tokenizer", None)
    assert made["length"][:] == [len(ids) for ids in made["input_ids"]]
    return dict(zip(made["cell"][:], (list(map(int, ids)) for ids in made["input_ids"]), strict=True))


def run_binning(clone: Path, rows: list[list[float]], n_bins: int, seed: int = 0) -> list[list[int]]:
    """Bin rows by ``binning`` of scGPT's preprocess.py, whose other imports are not needed for that."""
    source = (clone / "scgpt" / "preprocess.py").read_text(encoding="utf-8")
    wanted = [part for part in ast.parse(source).body if getattr(part, "name", "") in {"binning", "_digitize"}]
    torch = types.SimpleNamespace(Tensor=type("Tensor", (), {}))
    names: dict[str, Any] = {"np": np, "torch": torch, "Union": __import__("typing").Union}
    exec(compile(ast.Module(wanted, []), "preprocess.py", "exec"), names)
    np.random.seed(seed)  # what scGPT draws from
    return [names["binning"](np.array(row), n_bins).astype(int).tolist() for row in rows]


def commit_of(clone: Path) -> str:
    """Name the commit of a clone."""
    command = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout.strip()


def main(geneformer: Path, scgpt: Path, folder: Path) -> None:
    """Run both and store the results."""
    inputs = draw_inputs()
    results = {version: run_geneformer(geneformer, inputs, version, folder / version) for version in ("V1", "V2")}
    about = "Geneformer's TranscriptomeTokenizer on small dictionaries of our own, in the format of its pickles"
    made = {"about": about, "commit": commit_of(geneformer), "max_seq_len": SIZE, **inputs, "input_ids": results}
    GENEFORMER.write_text(json.dumps(made, separators=(",", ":")) + "\n", encoding="utf-8", newline="")
    rows = [[float(value) for value in row if value] for row in inputs["counts"] if any(row)]
    rng = np.random.default_rng(16)
    rows += np.round(rng.gamma(1.5, 2, size=(10, 60)), 6).tolist()
    bins = run_binning(scgpt, rows, 51)
    about = "binning(row, 51) of scGPT's preprocess.py; a value that is an edge gets a bin at random"
    made = {"about": about, "commit": commit_of(scgpt), "n_bins": 51, "rows": rows, "bins": bins}
    SCGPT.write_text(json.dumps(made, separators=(",", ":")) + "\n", encoding="utf-8", newline="")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1]), Path(sys.argv[2]), Path(scratch))
