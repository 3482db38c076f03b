"""The cells of a run's source in; what its written folder does not tell, counted on the source, out.

Which dropped genes hold the lost expression, and how many cells had more genes than a sequence holds, cannot be seen
from the sequences. Of a large source only some record batches are read, spread evenly over it: then the numbers are
estimates.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from .batches import chunks, cut, over_batches, read_cells
from .check import entries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .plan import Plan

#: Record batches that are read, at most: 100,000 cells, a few seconds.
BATCHES = 100
#: Dropped genes that are named, at most.
GENES = 20


def count_source(ready: Plan, *, threads: int, chunk_bytes: int) -> dict[str, Any]:
    """Count on the source, reading at most `BATCHES` record batches.

    Returns
    -------
    ``cells`` that were read, of ``of_cells``; ``truncated``, those with more nonzero kept genes than fit into a
    sequence (None with ``random_genes``, where fewer are chosen from); ``lost_genes``, a list of ``gene_id``, ``name``
    and ``share`` of all expression, the largest first.
    """
    kept = ready.genes.position_of_column >= 0
    n_cells = len(ready.cells)
    batches = list(cut((0, n_cells), ready.args.max_shard_samples))
    chosen = np.unique(np.linspace(0, len(batches) - 1, min(BATCHES, len(batches))).astype(int)) if batches else ()
    spans = [batches[number] for number in chosen]

    def count_batch(batch: tuple[int, int]) -> tuple[NDArray[np.float64], int]:
        found = [_count(ready, kept, chunk) for chunk in chunks(ready, batch, chunk_bytes // threads)]
        return np.sum([per_gene for per_gene, _ in found], axis=0), sum(truncated for _, truncated in found)

    per_gene, truncated = np.zeros(len(kept)), 0
    with closing(over_batches(count_batch, ready, spans, threads=threads)) as counted:
        for sums, n in counted:
            per_gene += sums
            truncated += n
    lost = np.where(kept, 0.0, per_gene) / (per_gene.sum() or 1.0)
    worst = [column for column in np.argsort(-lost, kind="stable")[:GENES].tolist() if lost[column] > 0]
    names = ready.genes.names or [""] * len(kept)
    return {
        "cells": sum(stop - start for start, stop in spans),
        "of_cells": n_cells,
        "truncated": None if ready.args.random_genes else truncated,
        "lost_genes": [
            {
                "gene_id": ready.genes.gene_ids[column] or "(missing)",
                "name": names[column],
                "share": float(lost[column]),
            }
            for column in worst
        ],
    }


def _count(ready: Plan, kept: NDArray[np.bool_], cells: tuple[int, int]) -> tuple[NDArray[np.float64], int]:
    """Sum each gene's absolute values over some cells, and count the cells with more genes than a sequence holds."""
    chunk, _ = read_cells(ready, cells)
    columns, values, rows = entries(chunk)
    values = np.abs(values.astype(np.float64))
    per_gene = np.bincount(columns, weights=values, minlength=len(kept)).astype(np.float64)
    positions = ready.genes.position_of_column[columns]
    there = (positions >= 0) & (values != 0)
    if ready.genes.report.duplicates and ready.args.duplicate_genes == "sum":  # their columns are one gene
        rows = np.unique(rows[there] * np.int64(ready.genes.n_genes) + positions[there]) // ready.genes.n_genes
    else:
        rows = rows[there]
    n_genes = np.bincount(rows, minlength=cells[1] - cells[0])
    return per_gene, int((n_genes > ready.args.n_selected).sum())
