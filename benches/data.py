"""Generate a folder of synthetic single-cell data: files, arrays and their vocabulary."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from scipy import sparse

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SEED = 0
#: Genes of 10x Genomics' human reference 2020-A.
N_GENES = 36_601
#: Mean and spread of a cell's total count, and spread of the genes' popularity (both log-normal). Together they give
#: about 2,881 nonzero genes per cell (5 % of cells below 1,650, 5 % above 4,450), three fifths with a count of 1.
TOTAL_MEAN, TOTAL_SIGMA, POPULARITY_SIGMA = 10_000, 0.5, 2.585
#: Sum to which the counts of a cell are scaled before the logarithm.
TARGET_SUM = 10_000
#: Spread of the genes' medians (log-normal).
MEDIAN_SIGMA = 0.5
#: Share of the genes that are in the vocabulary.
IN_VOCABULARY = 0.7
SPECIAL_TOKENS = {"pad_token": "<pad>", "mask_token": "<mask>", "unk_token": "<unk>", "cls_token": "<cls>"}
#: Cells that are drawn together: 75 MB of random numbers.
BLOCK = 512
#: Cells to warm up on: more than one batch of the reference.
WARM_CELLS = 600
#: The same cells in each kind of store.
STORES = {"h5ad": "cells.h5ad", "gzip": "cells-gzip.h5ad", "zarr": "cells.zarr"}
LAYER = "processed"


def make(folder: Path, n_cells: int) -> dict[str, Any]:
    """Write the cells in each kind of store and as plain arrays, a few cells for the warm-up, vocabulary and medians.

    The layer holds log-normalised values, CSR float32. Counts are Poisson, given a cell's total and the genes'
    popularity, so cells have ties like real ones. There are no cell types and no correlated genes, as these do not
    matter to a tokenizer. The little-endian arrays are the layer's ``indptr``, ``indices`` and values (``ties``), and
    other values for the same entries: the raw ``counts``, and ``distinct`` values, for which each gene was divided by
    its own median before the logarithm, so that almost no two values of a cell are equal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts = _counts(n_cells)
    lengths = np.diff(counts.indptr)
    scaled = counts.data * np.repeat(TARGET_SUM / np.asarray(counts.sum(axis=1)).ravel(), lengths).astype(np.float32)
    medians = np.random.default_rng([SEED, 1]).lognormal(0, MEDIAN_SIGMA, N_GENES)
    distinct = np.log1p(scaled * (1 / medians).astype(np.float32)[counts.indices])
    layer = sparse.csr_matrix((np.log1p(scaled), counts.indices, counts.indptr), shape=counts.shape)

    var = pd.DataFrame(index=pd.Index([f"ENSG{7 * gene + 3:011d}" for gene in range(N_GENES)]))
    adata = anndata.AnnData(obs=_obs(n_cells), var=var, layers={LAYER: layer})
    for part, prefix in ((adata, ""), (adata[:WARM_CELLS], "warm-")):
        part.write_h5ad(folder / f"{prefix}{STORES['h5ad']}")
        part.write_h5ad(folder / f"{prefix}{STORES['gzip']}", compression="gzip")
        part.write_zarr(folder / f"{prefix}{STORES['zarr']}")
    adata[: n_cells // 10].write_h5ad(cells_path(folder, n_cells // 10))

    vocabulary = _vocabulary(folder / "vocabulary", adata)
    (folder / "medians.json").write_text(json.dumps(dict(zip(var.index, medians.tolist(), strict=True))))
    columns, tokens = kept_genes(adata, vocabulary)
    token_of_column = np.full(N_GENES, -1, np.int32)
    token_of_column[columns] = tokens
    counts.indptr.astype("<i8").tofile(folder / "indptr.i64")
    for name, array in (("indices", counts.indices), ("token_of_column", token_of_column)):
        array.astype("<i4").tofile(folder / f"{name}.i32")
    for name, array in (("ties", layer.data), ("distinct", distinct), ("counts", counts.data)):
        array.astype("<f4").tofile(folder / f"{name}.f32")
    return {"seed": SEED, "nonzeros_per_cell": layer.nnz / n_cells, "genes": N_GENES, "genes_kept": len(columns)}


def make_h5ad(folder: Path, n_cells: int, *, normalized: bool = True) -> dict[str, str]:
    """Write cells as an uncompressed ``cells.h5ad``, and their vocabulary; return both paths.

    The layer holds log-normalised values, or the counts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layer = _counts(n_cells)
    if normalized:
        totals = np.asarray(layer.sum(axis=1)).ravel()
        layer.data = np.log1p(layer.data * np.repeat(TARGET_SUM / totals, np.diff(layer.indptr)).astype(np.float32))
    var = pd.DataFrame(index=pd.Index([f"ENSG{7 * gene + 3:011d}" for gene in range(N_GENES)]))
    adata = anndata.AnnData(obs=_obs(n_cells), var=var, layers={LAYER: layer})
    adata.write_h5ad(folder / STORES["h5ad"])
    return {"source": str(folder / STORES["h5ad"]), "vocabulary": str(_vocabulary(folder / "vocabulary", adata))}


def cells_path(folder: Path, n_cells: int) -> Path:
    """Return the path of the uncompressed file with another number of cells than `STORES`."""
    return folder / f"cells-{n_cells}.h5ad"


def repeat(folder: Path, times: int) -> dict[str, Any]:
    """Write an uncompressed ``.h5ad`` with all cells repeated, in the memory of one copy."""
    with h5py.File(folder / STORES["h5ad"]) as source:
        matrix = source["layers"][LAYER]
        indptr = matrix["indptr"][...].astype(np.int64)
        n_cells, n_stored = len(indptr) - 1, int(indptr[-1])
        with h5py.File(cells_path(folder, times * n_cells), "w") as file:
            file.attrs.update(source.attrs)
            for name in set(source) - {"obs", "layers"}:
                source.copy(name, file)
            write_elem(file, "obs", _obs(times * n_cells))
            file.create_group("layers").attrs.update(source["layers"].attrs)
            group = file["layers"].create_group(LAYER)
            group.attrs.update(matrix.attrs)
            group.attrs["shape"] = np.array([times * n_cells, N_GENES])
            ends = np.arange(times)[:, None] * n_stored + indptr[1:]
            group["indptr"] = np.concatenate([[0], ends.ravel()])
            for name in ("indices", "data"):
                once = matrix[name][...]
                array = group.create_dataset(name, (times * n_stored,), once.dtype)
                for number in range(times):
                    array[number * n_stored : (number + 1) * n_stored] = once
    return {"cells": times * n_cells}


def _obs(n_cells: int) -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index([f"cell-{cell:07d}" for cell in range(n_cells)]))


def _counts(n_cells: int) -> Any:
    """Draw the counts of all cells, in blocks."""
    rng = np.random.default_rng(SEED)
    standard = NormalDist()
    quantiles = np.array([standard.inv_cdf((gene + 0.5) / N_GENES) for gene in range(N_GENES)])
    popularity = rng.permutation(np.exp(POPULARITY_SIGMA * quantiles))
    popularity = (popularity / popularity.sum()).astype(np.float32)
    totals = rng.lognormal(np.log(TOTAL_MEAN) - TOTAL_SIGMA**2 / 2, TOTAL_SIGMA, n_cells).astype(np.float32)
    starts = range(0, n_cells, BLOCK)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        blocks = list(pool.map(lambda start: _block(totals[start : start + BLOCK], popularity, [SEED, start]), starts))
    return sparse.vstack(blocks, format="csr")


def _block(totals: NDArray[np.float32], popularity: NDArray[np.float32], seed: list[int]) -> Any:
    """Draw the counts of some cells."""
    rng = np.random.default_rng(seed)
    # A Poisson process of rate `mean` has its first event at time -ln(1 - uniform) / mean; if that is before 1, the
    # number of later events is Poisson again. So most genes, which have no event, need only a comparison.
    uniform = rng.random((len(totals), N_GENES), dtype=np.float32)
    rows, columns = np.nonzero(uniform < -np.expm1(-totals[:, None] * popularity))
    mean = totals[rows] * popularity[columns]
    rest = mean + np.log1p(-uniform[rows, columns])
    counts = (1 + rng.poisson(np.maximum(rest, 0))).astype(np.float32)
    indptr = np.searchsorted(rows, np.arange(len(totals) + 1))
    return sparse.csr_matrix((counts, columns.astype(np.int32), indptr), shape=(len(totals), N_GENES))


def _vocabulary(folder: Path, adata: anndata.AnnData) -> Path:
    """Write a vocabulary of special tokens and a random 70 % of the genes; returns the folder."""
    folder.mkdir(exist_ok=True)
    genes = adata.var_names.to_numpy()
    known = np.sort(np.random.default_rng(SEED).choice(len(genes), int(IN_VOCABULARY * len(genes)), replace=False))
    tokens = [*SPECIAL_TOKENS.values(), *genes[known]]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL_TOKENS), encoding="utf-8")
    return folder


def kept_genes(adata: anndata.AnnData, folder: Path) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Match genes as the other programs do: return the columns that are in the vocabulary, and their tokens."""
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    token_of = {token: number for number, token in enumerate(lines)}
    kept = [(column, token_of[gene]) for column, gene in enumerate(adata.var_names) if gene in token_of]
    columns, tokens = zip(*kept, strict=True)
    return np.array(columns, dtype=np.int64), np.array(tokens, dtype=np.int32)
