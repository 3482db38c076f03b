"""Tokenize cells in the usual way: dense batches of 512 cells, `torch.topk`, one Python list per cell.

This is the loop that users run today: it makes all columns of a batch dense, then selects those of the vocabulary.
`run.py` also times a variant that drops the other columns while the batch is sparse. The lists are passed to
`Dataset.from_dict`, as `from_generator` takes ten times as long.
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
    """Select the largest values of each cell. The order of equal values is that of `torch.topk`."""
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
    """Write the lists as a dataset, in the types of the package. Without `features` it is twice as large."""
    features = Features({"gene_ids": Sequence(Value("int32")), "values": Sequence(Value("float32"))})
    Dataset.from_dict(tokens, features=features).save_to_disk(folder)
