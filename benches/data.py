"""A number of cells and a seed in, synthetic single-cell data and a vocabulary for it out."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: Genes of 10x Genomics' human reference 2020-A.
N_GENES = 36_601
#: Mean and spread of a cell's total count, and spread of the genes' popularity (both log-normal). Together they give
#: about 2,881 nonzero genes a cell (5 % of cells below 1,650, 5 % above 4,450), three fifths of them with a count of 1.
TOTAL_MEAN, TOTAL_SIGMA, POPULARITY_SIGMA = 10_000, 0.5, 2.585
#: Share of the genes that the vocabulary holds.
IN_VOCABULARY = 0.7
SPECIAL_TOKENS = {"pad_token": "<pad>", "mask_token": "<mask>", "unk_token": "<unk>", "cls_token": "<cls>"}
#: Cells that are drawn together: 75 MB of random numbers.
BLOCK = 512


def cells(n_cells: int, seed: int, cache: Path | None = None) -> anndata.AnnData:
    """Make cells whose log-normalised values lie in ``layers["processed"]`` as CSR float32.

    Counts are Poisson, given a cell's total and the genes' popularity, so cells have ties as real ones do. There are no
    cell types and no genes that vary together: a tokenizer does not see them.

    Parameters
    ----------
    cache
        Folder in which the cells are kept as an uncompressed ``.h5ad`` file, and looked for first.
    """
    path = None if cache is None else cells_path(cache, n_cells, seed)
    if path is not None and path.exists():
        return anndata.read_h5ad(path)
    rng = np.random.default_rng(seed)
    standard = NormalDist()
    quantiles = np.array([standard.inv_cdf((gene + 0.5) / N_GENES) for gene in range(N_GENES)])
    popularity = rng.permutation(np.exp(POPULARITY_SIGMA * quantiles))
    popularity = (popularity / popularity.sum()).astype(np.float32)
    totals = rng.lognormal(np.log(TOTAL_MEAN) - TOTAL_SIGMA**2 / 2, TOTAL_SIGMA, n_cells).astype(np.float32)

    starts = range(0, n_cells, BLOCK)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        blocks = list(pool.map(lambda start: _block(totals[start : start + BLOCK], popularity, [seed, start]), starts))
    layer = sparse.vstack(blocks, format="csr")

    obs = pd.DataFrame(index=pd.Index([f"cell-{cell:07d}" for cell in range(n_cells)]))
    var = pd.DataFrame(index=pd.Index([f"ENSG{7 * gene + 3:011d}" for gene in range(N_GENES)]))
    adata = anndata.AnnData(obs=obs, var=var, layers={"processed": layer})
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        adata.write_h5ad(path)
    return adata


def cells_path(cache: Path, n_cells: int, seed: int) -> Path:
    """Name the file in which `cells` keeps what it made."""
    return cache / f"cells-{n_cells}-{seed}.h5ad"


def _block(totals: NDArray[np.float32], popularity: NDArray[np.float32], seed: list[int]) -> Any:
    """Draw the counts of some cells and normalise them to 10,000 a cell, then ln(1 + value)."""
    rng = np.random.default_rng(seed)
    # A Poisson process of rate `mean` has its first event at time -ln(1 - uniform) / mean; where that is before 1, the
    # events after it are Poisson again. So most genes, which have none, cost a comparison alone.
    uniform = rng.random((len(totals), N_GENES), dtype=np.float32)
    rows, columns = np.nonzero(uniform < -np.expm1(-totals[:, None] * popularity))
    mean = totals[rows] * popularity[columns]
    rest = mean + np.log1p(-uniform[rows, columns])
    counts = 1 + rng.poisson(np.maximum(rest, 0))
    sums = np.bincount(rows, weights=counts, minlength=len(totals))
    data = np.log1p((counts * (10_000 / sums[rows])).astype(np.float32))
    indptr = np.searchsorted(rows, np.arange(len(totals) + 1))
    return sparse.csr_matrix((data, columns.astype(np.int32), indptr), shape=(len(totals), N_GENES))


def vocabulary(folder: Path, adata: anndata.AnnData) -> Path:
    """Write a vocabulary of special tokens and a random 70 % of the genes; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    genes = adata.var_names.to_numpy()
    known = np.sort(np.random.default_rng(0).choice(len(genes), int(IN_VOCABULARY * len(genes)), replace=False))
    tokens = [*SPECIAL_TOKENS.values(), *genes[known]]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL_TOKENS), encoding="utf-8")
    return folder


def kept_genes(adata: anndata.AnnData, folder: Path) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Match genes by hand, as the programs we compare with do: columns that are in the vocabulary, and their tokens."""
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    token_of = {token: number for number, token in enumerate(lines)}
    kept = [(column, token_of[gene]) for column, gene in enumerate(adata.var_names) if gene in token_of]
    columns, tokens = zip(*kept, strict=True)
    return np.array(columns, dtype=np.int64), np.array(tokens, dtype=np.int32)
