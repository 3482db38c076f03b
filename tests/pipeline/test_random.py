"""Random subsets of genes: each block of source rows has its own, whatever part of the source a call sees."""

import numpy as np
import pytest
from scipy import sparse

import kernel_calls
import oracle
from teddytok_rs import _core

G = 30
TOKENS = list(range(G))
#: Every gene of every cell is expressed, so that a sequence holds just its subset.
X = np.random.default_rng(0).integers(1, 9, (40, G)).astype(np.float32)
BATCH_SIZES = pytest.mark.parametrize("batch_size", [1, 3, 512])
FIRST_ROWS = pytest.mark.parametrize("first_row", [0, 1, 2, 500, 511, 512, 2**32 * 3 - 5, 2**40 - 7, 2**40])


def subsets(n_rows, *, first_row=0, seed=7, count=6, **arguments):
    """The positions that each row's sequence is made of."""
    cells = kernel_calls.tokenize(
        X[:n_rows],
        TOKENS,
        max_seq_len=G,
        random_genes=True,
        random_genes_count=count,
        gene_seed=seed,
        first_row=first_row,
        **arguments,
    )
    return [sorted(gene_ids) for gene_ids, _ in cells]


@BATCH_SIZES
@FIRST_ROWS
def test_blocks_are_counted_from_the_first_row_of_the_source(batch_size, first_row):
    drawn = subsets(40, first_row=first_row, batch_size=batch_size)
    rows = range(first_row, first_row + 40)
    assert drawn == [oracle.draw_genes(7, row // batch_size, G, 6) for row in rows]


def test_cells_of_one_block_share_a_subset_and_the_next_block_has_another():
    drawn = subsets(9, first_row=4, batch_size=3)
    assert drawn[:2] == [drawn[0]] * 2
    assert drawn[2:5] == [drawn[2]] * 3
    assert drawn[5:8] == [drawn[5]] * 3
    assert len({tuple(subset) for subset in drawn}) == 4


@BATCH_SIZES
@pytest.mark.parametrize("piece", [1, 2, 7, 39])
@pytest.mark.parametrize("stored", [np.asarray, sparse.csr_matrix], ids=["dense", "csr"])
def test_pieces_of_a_source_give_what_the_whole_gives(batch_size, piece, stored):
    arguments = {"max_seq_len": 10, "random_genes": True, "gene_seed": 2**63 + 1, "batch_size": batch_size}
    built = kernel_calls.kernel(G, TOKENS, **arguments)
    start = 1021
    whole = kernel_calls.cut(kernel_calls.call(built, stored(X), first_row=start))
    parts = []
    for row in range(0, len(X), piece):
        parts += kernel_calls.cut(kernel_calls.call(built, stored(X[row : row + piece]), first_row=start + row))
    kernel_calls.assert_same(parts, [(ids, values.tolist()) for ids, values in whole])


def test_a_call_draws_the_subset_of_each_block_that_it_meets():
    x = np.ones((700, G), np.int8)
    built = kernel_calls.kernel(G, TOKENS, max_seq_len=5, random_genes=True, gene_seed=1, batch_size=100)
    cells = kernel_calls.cut(kernel_calls.call(built, x, first_row=50))
    assert [ids for ids, _ in cells] == [oracle.draw_genes(1, (50 + row) // 100, G, 5) for row in range(700)]


@pytest.mark.parametrize("count", [G, G + 1, 10**6, 2**31 - 1])
def test_a_subset_of_all_genes_changes_nothing(count):
    plain = kernel_calls.tokenize(X, TOKENS, max_seq_len=12)
    drawn = kernel_calls.tokenize(
        X, TOKENS, max_seq_len=12, random_genes=True, random_genes_count=count, gene_seed=5, batch_size=4
    )
    kernel_calls.assert_same(drawn, [(ids, values.tolist()) for ids, values in plain])


@pytest.mark.parametrize(("max_seq_len", "add_cls", "count"), [(8, False, 8), (8, True, 7), (1, True, 0)])
def test_without_a_count_a_subset_is_as_large_as_a_sequence(max_seq_len, add_cls, count):
    cells = kernel_calls.tokenize(
        X, TOKENS, max_seq_len=max_seq_len, add_cls=add_cls, cls_token_id=99, random_genes=True, gene_seed=5
    )
    wanted = oracle.draw_genes(5, 0, G, count)
    assert [sorted(ids[int(add_cls) :]) for ids, _ in cells] == [wanted] * len(X)


def test_a_subset_larger_than_a_sequence_gives_its_largest_values():
    x = np.arange(G, dtype=np.int16)[None]
    [(gene_ids, _)] = kernel_calls.tokenize(
        x, TOKENS, max_seq_len=4, random_genes=True, random_genes_count=10, gene_seed=5
    )
    assert gene_ids == oracle.draw_genes(5, 0, G, 10)[:-5:-1]


def test_zeros_outside_the_subset_take_no_places():
    drawn = oracle.draw_genes(5, 0, G, 4)
    x = np.zeros((1, G))
    x[0, drawn[2]] = -1
    [(gene_ids, _)] = kernel_calls.tokenize(
        x, TOKENS, max_seq_len=4, random_genes=True, gene_seed=5, include_zero_genes=True
    )
    assert gene_ids == [drawn[0], drawn[1], drawn[3], drawn[2]]


def test_the_subset_is_of_positions_and_not_of_columns():
    positions = np.array([-1, -1, 0, 1, -1, 2, 3, 4])
    [(gene_ids, _)] = kernel_calls.tokenize(
        np.ones((1, 8)), range(5), position_of_column=positions, max_seq_len=2, random_genes=True, gene_seed=5
    )
    assert gene_ids == oracle.draw_genes(5, 0, 5, 2)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("block", [0, 1, 2**32 - 1, 2**32, 2**40 + 3, 2**64 - 1])
def test_any_seed_and_block_draw_the_oracles_subset(seed, block):
    for n_genes, count in [(1, 1), (2, 1), (9, 4), (10, 9), (65, 20), (5, 0), (5, 50)]:
        drawn = _core.draw_genes(seed, block, n_genes, count)
        assert drawn.tolist() == oracle.draw_genes(seed, block, n_genes, count)


@pytest.mark.parametrize("other", [8, 7 + 2**32, 7 + 2**63], ids=["next", "high word", "highest bit"])
def test_another_seed_draws_another_subset(other):
    blocks = range(10)
    assert [_core.draw_genes(7, b, 100, 20).tolist() for b in blocks] != [
        _core.draw_genes(other, b, 100, 20).tolist() for b in blocks
    ]


def test_every_gene_is_drawn_about_as_often_as_any_other():
    n_blocks, count = 3000, 10
    drawn = np.concatenate([_core.draw_genes(11, block, G, count) for block in range(n_blocks)])
    times = np.bincount(drawn, minlength=G)
    deviation = np.sqrt(n_blocks * (count / G) * (1 - count / G))
    assert np.abs(times - n_blocks * count / G).max() < 4 * deviation
