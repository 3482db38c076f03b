"""A few cells as AnnData, and the vocabulary that fits them: what most tests start from.

Twelve genes, of which the first ten are in the vocabulary. Every choice is fixed, so that two calls give equal cells.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import teddytok_rs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

GENES = [f"ENSG{number:011d}" for number in range(141510, 141522)]
SYMBOLS = ["TP53", "CD3E", "CD8A", "MS4A1", "NKG7", "LYZ", "GNLY", "CST3", "FCER1A", "PPBP", "XIST", "MALAT1"]
#: Genes of `raw` alone.
RAW_GENES = ["ENSG00000200001", "ENSG00000200002"]
KEPT = GENES[:10]
SPECIAL = ["<pad>", "<unk>", "<cls>", "<mask>"]
LABELS = {
    "disease": ["normal", "melanoma", "asthma"],
    "tissue": ["blood", "lung"],
    "cell_type": ["T cell", "B cell", "monocyte"],
    "sex": ["female", "male"],
}
TOKENS = [*SPECIAL, *(label for labels in LABELS.values() for label in labels), *KEPT]
TOKEN = {token: number for number, token in enumerate(TOKENS)}
GENE_TOKENS = [TOKEN[gene] for gene in KEPT]
UNK, CLS = TOKEN["<unk>"], TOKEN["<cls>"]


def make_counts(n_cells: int = 6, n_genes: int = len(GENES), seed: int = 1) -> NDArray[np.float32]:
    """Counts (n_cells, n_genes) from 0 to 5, about half of them 0, with many ties."""
    return np.random.default_rng(seed).binomial(5, 0.15, size=(n_cells, n_genes)).astype(np.float32)


def make_cells(n_cells: int = 6, **obs: Any) -> ad.AnnData:
    """Cells with counts in X and raw.X, and ``layers["processed"]``; ``obs`` adds or replaces columns."""
    counts = make_counts(n_cells)
    names = [f"cell-{row}" for row in range(n_cells)]
    columns = {
        column: pd.Categorical([labels[row % len(labels)] for row in range(n_cells)], categories=sorted(labels))
        for column, labels in LABELS.items()
    }
    var = pd.DataFrame({"symbol": SYMBOLS}, index=GENES)
    cells = ad.AnnData(sparse.csr_matrix(counts), obs=pd.DataFrame(columns, index=names), var=var)
    for column, values in obs.items():
        cells.obs[column] = values
    cells.layers["processed"] = sparse.csr_matrix(np.log1p(counts))
    more = np.hstack([make_counts(n_cells, len(RAW_GENES), seed=2), counts])
    cells.raw = ad.AnnData(sparse.csr_matrix(more), obs=cells.obs[[]], var=pd.DataFrame(index=[*RAW_GENES, *GENES]))
    return cells


def with_layer(matrix: Any, genes: list[str] | None = None, **obs: Any) -> ad.AnnData:
    """Cells that hold only one matrix, as ``layers["processed"]``."""
    n_cells, n_genes = matrix.shape
    index = [f"cell-{row}" for row in range(n_cells)]
    columns = {column: list(values) for column, values in obs.items()}
    var = pd.DataFrame(index=(GENES if genes is None else genes)[:n_genes])
    cells = ad.AnnData(obs=pd.DataFrame(columns, index=index), var=var)
    cells.layers["processed"] = matrix
    return cells


def save(made: ad.AnnData, path: Path, **options: Any) -> Path:
    """Write an .h5ad file or a .zarr store, without anndata's warnings of what it will do in the future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (made.write_zarr if path.suffix == ".zarr" else made.write_h5ad)(path, **options)
    return path


def write_json(path: Path, document: Any) -> str:
    """Write a JSON file and give its path as text."""
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def write_vocabulary(folder: Path, tokens: list[str] | None = None) -> str:
    """Write a folder with only ``vocab.txt``, and return its path as text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{token}\n" for token in (TOKENS if tokens is None else tokens))
    (folder / "vocab.txt").write_text(text, encoding="utf-8", newline="")
    return str(folder)


def make_args(folder: Path, **keys: Any) -> dict[str, Any]:
    """Arguments that tokenize `make_cells` with `TOKENS`, whose vocabulary is written into ``folder``."""
    return {"tokenizer_name_or_path": write_vocabulary(folder / "vocabulary"), "max_seq_len": 8, **keys}


def sequences(source: Any, args: dict[str, Any]) -> list[tuple[list[int], list[float]]]:
    """Tokenize into what `oracle.tokenize_matrix` gives: each cell's (gene_ids, values)."""
    table = teddytok_rs.tokenize(source, args, threads=1)
    return list(zip(table["gene_ids"].to_pylist(), table["values"].to_pylist(), strict=True))
