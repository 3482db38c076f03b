"""Compare the datasets of two programs, and stop the benchmark if they differ."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from jobs import MAX_SEQ_LEN, OURS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def compare(folder: Path, program: str, ours: str, theirs: str) -> dict[str, float]:
    """Compare a program's dataset with one of ours, cell by cell.

    All cells must have the same values, and the same genes with each value. Genes that share the last value of a
    truncated cell are excepted, as each program may select others. `argsort, stable` and the package must select the
    same genes in the same order.
    """
    lengths, values, ids = _read(folder / ours)
    their_lengths, their_values, their_ids = _read(folder / theirs)
    if not np.array_equal(lengths, their_lengths) or not np.array_equal(values, their_values):
        sys.exit(f"{program} and {OURS} selected different values")
    rows = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.ones(len(values), dtype=bool)  # of a run of equal values in a cell
    starts[1:] = (values[1:] != values[:-1]) | (rows[1:] != rows[:-1])
    run = np.cumsum(starts) - 1
    last = np.cumsum(lengths)[lengths == MAX_SEQ_LEN] - 1
    decided = ~np.isin(run, run[last])
    genes, their_genes = (np.sort((run[decided] << 32) | tokens[decided]) for tokens in (ids, their_ids))
    if not np.array_equal(genes, their_genes):
        sys.exit(f"{program} and {OURS} selected different genes")
    same = float(np.mean(ids == their_ids))
    if program in {"argsort, stable", OURS} and same < 1:
        sys.exit(f"{program} and {OURS} ordered equal values differently")
    unique = np.bincount(run)[run] == 1
    return {
        "cells": len(lengths),
        "tokens_per_cell": float(np.mean(lengths)),
        "cells_cut": int(np.sum(lengths == MAX_SEQ_LEN)),
        "share_of_unique_values": float(np.mean(unique)),
        "share_of_places_with_the_same_gene": same,
    }


def _read(folder: Path) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Read a dataset: the length of each cell, and the values and gene ids of all."""
    from datasets import load_from_disk

    table = load_from_disk(str(folder)).data.table
    values, ids = (table.column(name).combine_chunks() for name in ("values", "gene_ids"))
    lengths = np.asarray(values.value_lengths()).astype(np.int64)
    if not np.array_equal(lengths, np.asarray(ids.value_lengths())):
        sys.exit(f"{folder.name}: cells with more ids than values, or fewer")
    return lengths, np.asarray(values.flatten()), np.asarray(ids.flatten()).astype(np.int64)
