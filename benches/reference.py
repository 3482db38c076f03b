"""Tokenize cells in the plain way: dense batches of 512 cells, `torch.topk`, a Python list a cell.

This is the loop that users run today: it densifies all columns of a batch, then takes those of the vocabulary. With the
columns dropped while the batch is sparse the same loop has less to fill; `run.py` times that variant too. Lists go
through `Dataset.from_dict`, because `from_generator` takes ten times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from datasets import Dataset, Features, Sequence, Value

from data import LAYER, kept_genes

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

Tokens = dict[str, list[list[int]] | list[list[float]]]

BATCH_CELLS = 512


def tokenize(adata: AnnData, vocabulary: Path, max_seq_len: int, threads: int, *, drop_sparse: bool) -> Tokens:
    """Select the largest values of each cell; the order of equal values is what `torch.topk` makes it."""
    torch.set_num_threads(threads)
    columns, token_ids = kept_genes(adata, vocabulary)
    token_of_position = torch.from_numpy(token_ids)
    layer = adata.layers[LAYER]
    gene_ids: list[list[int]] = []
    values: list[list[float]] = []
    for start in range(0, adata.n_obs, BATCH_CELLS):
        rows = layer[start : start + BATCH_CELLS]
        if drop_sparse:
            batch = torch.from_numpy(rows[:, columns].toarray())
        else:
            batch = torch.from_numpy(rows.toarray())[:, columns]
        largest, positions = torch.topk(batch, k=min(max_seq_len, len(columns)), dim=1)
        for cell_values, cell_tokens in zip(largest, token_of_position[positions], strict=True):
            nonzero = cell_values != 0
            gene_ids.append(cell_tokens[nonzero].tolist())
            values.append(cell_values[nonzero].tolist())
    return {"gene_ids": gene_ids, "values": values}


def save(tokens: Tokens, folder: Path) -> None:
    """Write the lists as a dataset, in the types that the package writes; without `features` it is twice as large."""
    features = Features({"gene_ids": Sequence(Value("int32")), "values": Sequence(Value("float32"))})
    Dataset.from_dict(tokens, features=features).save_to_disk(folder)
