"""The tokens of the models' own code, which was run once and whose results are stored, and is run again where it is.

``TEDDYTOK_GENEFORMER`` and ``TEDDYTOK_SCGPT`` name clones; see ``run.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import cells
import kernel_calls
from parity.run import GENEFORMER, SCGPT, run_binning, run_geneformer
from teddytok_rs import TokenizationArgs, tokenize

VERSIONS = pytest.mark.parametrize("version", ["V1", "V2"])


def stored(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert len(document["commit"]) == 40
    return document


@VERSIONS
def test_geneformers_own_tokenizer_gives_the_same_ids(version: str, tmp_path: Path):
    made = stored(GENEFORMER)
    counts = np.array(made["counts"], dtype=np.float32)
    source = anndata.AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame(index=[str(row) for row in range(len(counts))]),
        var=pd.DataFrame(index=made["genes"]),
    )
    files = {
        "tokenizer_name_or_path": cells.write_json(tmp_path / "vocab.json", made["tokens"]),
        "median_dict": cells.write_json(tmp_path / "medians.json", made["medians"]),
    }
    args = TokenizationArgs.preset(f"geneformer-{version.lower()}", files, max_seq_len=made["max_seq_len"])
    table = tokenize(source, args)
    theirs = made["input_ids"][version]
    assert len(theirs) == len(counts) - 1, "Geneformer drops the empty cell"
    for row, ids in enumerate(table["input_ids"].to_pylist()):
        assert ids == theirs.get(str(row), [2, 3] if version == "V2" else [])
    assert max(map(len, theirs.values())) == made["max_seq_len"] > min(map(len, theirs.values()))


def test_scgpts_own_binning_gives_the_same_bins():
    made = stored(SCGPT)
    n_edges_hit = 0
    for row, theirs in zip(made["rows"], made["bins"], strict=True):
        x = np.array([row])
        [(order, values)] = kernel_calls.tokenize(x, range(len(row)), max_seq_len=len(row), bins=made["n_bins"])
        ours = dict(zip(order, values.tolist(), strict=True))
        edges = np.quantile(row, np.linspace(0, 1, made["n_bins"] - 1))
        for place, (value, bin_) in enumerate(zip(row, theirs, strict=True)):
            on_edge = int((edges == value).sum())
            n_edges_hit += on_edge > 0
            assert ours[place] - on_edge <= bin_ <= ours[place]  # scGPT draws among the bins of equal edges
    assert 0 < n_edges_hit < sum(map(len, made["rows"]))


@VERSIONS
@pytest.mark.filterwarnings("ignore")  # of Geneformer's own code
@pytest.mark.skipif("TEDDYTOK_GENEFORMER" not in os.environ, reason="TEDDYTOK_GENEFORMER names no clone")
def test_the_stored_ids_are_those_of_a_clone(version: str, tmp_path: Path):
    pytest.importorskip("loompy")
    made = stored(GENEFORMER)
    clone = Path(os.environ["TEDDYTOK_GENEFORMER"])
    assert run_geneformer(clone, made, version, tmp_path / version) == made["input_ids"][version]


@pytest.mark.skipif("TEDDYTOK_SCGPT" not in os.environ, reason="TEDDYTOK_SCGPT names no clone")
def test_the_stored_bins_are_those_of_a_clone():
    made = stored(SCGPT)
    assert run_binning(Path(os.environ["TEDDYTOK_SCGPT"]), made["rows"], made["n_bins"]) == made["bins"]
