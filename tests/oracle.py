"""Tokenize a dense matrix of cells to (gene_ids, values): the semantics, written to be read, not to be fast.

This file imports nothing from the package, which is tested against it. A *column* is one of ``var``; a *position*
counts the kept genes, 0 to G - 1, in ``var`` order; a *block* is the ``batch_size`` cells that share a random subset.
Values are finite; the package checks that, and much else, before it comes to what is here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Tokenized = tuple[list[int], list[float] | list[int]]

WORD = 2**32


def philox4x32_10(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Random words: Philox4x32-10, "Parallel random numbers: as easy as 1, 2, 3" (Salmon et al., SC 2011)."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (b // WORD) ^ c1 ^ k0, b % WORD, (a // WORD) ^ c3 ^ k1, a % WORD
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return c0, c1, c2, c3


def draw_genes(seed: int, block: int, n_genes: int, count: int) -> list[int]:
    """Random subset: the positions with the ``count`` smallest (key, position), here in ascending order."""

    def key(position: int) -> int:
        out = philox4x32_10((position // 2, 0, block % WORD, block // WORD), (seed % WORD, seed // WORD))
        low, high = out[:2] if position % 2 == 0 else out[2:]
        return low + WORD * high

    return sorted(sorted(range(n_genes), key=lambda position: (key(position), position))[:count])


def match_genes(
    ids: Sequence[str],
    vocabulary: dict[str, int],
    *,
    gene_map: dict[str, list[str]] | None = None,
    keep: Sequence[bool] | None = None,
) -> tuple[NDArray[np.int64], list[int]]:
    """Genes: the position of each column (n_var,), -1 where it is dropped, and the token of each position.

    An id that is not in the vocabulary is replaced by the one that ``gene_map`` has for it; one that it has several
    for is dropped, and so is a gene that ``keep`` leaves out. The columns of one token share a position.
    """
    positions, tokens = [], []
    for column, gene_id in enumerate(ids):
        mapped = (gene_map or {}).get(gene_id, [])
        if gene_id not in vocabulary and len(set(mapped)) == 1:
            gene_id = mapped[0]  # noqa: PLW2901
        token = vocabulary.get(gene_id)
        if token is None or (keep is not None and not keep[column]):
            positions.append(-1)
            continue
        if token not in tokens:
            tokens.append(token)
        positions.append(tokens.index(token))
    return np.array(positions), tokens


def row_total(x: NDArray[Any]) -> float:
    """Row total: the sum of absolute values of the row x (n_var,), added up in float64, one column after the other."""
    total = 0.0
    for value in x.astype(np.float64).tolist():
        total += abs(value)  # neither np.sum, which adds in pairs, nor sum(), which compensates since Python 3.12
    return total


def as_stored(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounding: a number computed in float64 is stored as float32, from where the next step takes it."""
    return y.astype(np.float32).astype(np.float64)


def normalize(
    x: NDArray[Any],
    *,
    normalize_total: float | None = None,
    inverse_medians: NDArray[np.float64] | None = None,
    log1p: bool = False,
    total: float | None = None,
) -> NDArray[Any]:
    """From raw counts: up to four steps, each computed in float64 and stored as float32; with none, x as it is.

    x and ``inverse_medians`` hold one number a gene. ``total`` is the row's where x is not the whole row.
    """
    if normalize_total is None and inverse_medians is None and not log1p:
        return x
    y = x.astype(np.float64)
    total = row_total(x) if total is None else total
    if normalize_total is not None and total > 0:  # a row whose sum is 0 stays 0
        y = as_stored(y / total)
        y = as_stored(y * normalize_total)
    if inverse_medians is not None:
        y = as_stored(y * inverse_medians)
    if log1p:  # by math: the last bit of np.log1p depends on the machine's vector instructions
        y = as_stored(np.array([math.log1p(value) for value in y.tolist()]))
    return y.astype(np.float32)


def select(
    x: NDArray[Any], n: int, *, candidates: Sequence[int] | None = None, include_zero_genes: bool = False
) -> list[int]:
    """Selection: of the cell x (G,), the first n positions, largest value first, equal values by position.

    Zeros take their places before negatives do; only then are they dropped, unless ``include_zero_genes``.
    """
    values = x.tolist()  # Python numbers: exact for every dtype, and -value never overflows
    order = sorted(range(len(x)) if candidates is None else candidates, key=lambda p: (-values[p], p))
    return [p for p in order[:n] if include_zero_genes or values[p] != 0]


def expression(values: NDArray[Any]) -> list[float]:
    """Values, by default: the expression values as float32 numbers; -0.0 is 0."""
    as_float32: list[float] = values.astype(np.float32).tolist()
    return [number if value != 0 else 0.0 for value, number in zip(values, as_float32, strict=True)]


def bin_ids(values: NDArray[Any] | Sequence[float], n_bins: int) -> list[int]:
    """Values, ``bins``: 0 for 0, else the number of edges not above the value; edges are quantiles of the nonzero."""
    x = np.asarray(values).astype(np.float64)
    if not x.any():
        return [0] * len(x)
    edges = np.quantile(x[x != 0], np.linspace(0, 1, n_bins - 1))
    return [0 if value == 0 else int(np.digitize(value, edges)) for value in x]


def ranks(length: int) -> NDArray[np.float32]:
    """Values, ``continuous_rank``: even steps from 1 to -1, in float64, then float32; a single gene has 1."""
    if length == 1:
        return np.ones(1, dtype=np.float32)
    return np.array([1 - 2 * i / (length - 1) for i in range(length)], dtype=np.float32)


def tokenize_cell(
    x: NDArray[Any],
    tokens: Sequence[int] | NDArray[np.integer],
    *,
    max_seq_len: int,
    add_cls: bool = False,
    cls_token_id: int | None = None,
    add_eos: bool = False,
    eos_token_id: int | None = None,
    include_zero_genes: bool = False,
    bins: int | None = None,
    continuous_rank: bool = False,
    candidates: Sequence[int] | None = None,
) -> Tokenized:
    """One cell x (G,), any dtype, to its sequence: select, look up the tokens (G,), add the values."""
    assert not (bins and continuous_rank)
    n = max_seq_len - add_cls - add_eos
    selected = select(x, n, candidates=candidates, include_zero_genes=include_zero_genes)
    gene_ids = [int(tokens[p]) for p in selected]
    values: list[float] | list[int]
    if bins:
        values = bin_ids(x[selected], bins)
    elif continuous_rank:
        values = ranks(len(selected)).tolist()
    else:
        values = expression(x[selected])
    if add_cls:
        assert cls_token_id is not None
        gene_ids, values = [cls_token_id, *gene_ids], [1 if bins else 1.0, *values]
    if add_eos:
        assert eos_token_id is not None
        gene_ids, values = [*gene_ids, eos_token_id], [*values, 0 if bins else 0.0]
    return gene_ids, values


def tokenize_matrix(
    x: NDArray[Any],
    tokens: Sequence[int] | NDArray[np.integer],
    *,
    max_seq_len: int,
    add_cls: bool = False,
    add_eos: bool = False,
    position_of_column: NDArray[np.integer] | None = None,
    first_row: int = 0,
    random_genes: bool = False,
    random_genes_count: int | None = None,
    gene_seed: int | None = None,
    batch_size: int = 512,
    normalize_total: float | None = None,
    inverse_medians: NDArray[np.float64] | None = None,
    log1p: bool = False,
    **cell_arguments: Any,
) -> list[Tokenized]:
    """All cells of x (n_cells, n_var), any dtype: sum genes that share a position, normalize, draw, tokenize.

    ``position_of_column`` (n_var,) is -1 for a dropped column; None keeps all. ``inverse_medians`` (n_var,) is 1 for a
    gene without a median. ``first_row`` is the place of x[0] in the whole source, which is what blocks are counted in.
    """
    n_genes, n_var = len(tokens), x.shape[1]
    positions = np.arange(n_var) if position_of_column is None else position_of_column
    kept = positions >= 0
    if inverse_medians is not None:  # a gene of several columns has the median of its first
        inverse_medians = inverse_medians[[positions.tolist().index(p) for p in range(n_genes)]]
    steps: dict[str, Any] = {"normalize_total": normalize_total, "inverse_medians": inverse_medians, "log1p": log1p}
    cell_arguments |= {"max_seq_len": max_seq_len, "add_cls": add_cls, "add_eos": add_eos}
    count = min(random_genes_count or max_seq_len - add_cls - add_eos, n_genes)
    sequences = []
    for row, columns in enumerate(x, start=first_row):
        genes = np.zeros(n_genes, dtype=x.dtype)
        np.add.at(genes, positions[kept], columns[kept])  # one column after the other, in the stored dtype
        genes = normalize(genes, total=row_total(columns), **steps)  # the total is over dropped columns too
        candidates = None
        if random_genes:
            assert gene_seed is not None
            candidates = draw_genes(gene_seed, row // batch_size, n_genes, count)
        sequences.append(tokenize_cell(genes, tokens, candidates=candidates, **cell_arguments))
    return sequences
