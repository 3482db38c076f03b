"""Check the values: expression values, bin ids, ranks, or nothing."""

import numpy as np
import pytest

import kernel_calls

G = 40
TOKENS = range(1000, 1000 + G)


def drawn(kind):
    """Cells of a kind, (12, G): about a third of them zeros, the last two of one value and of none."""
    random = np.random.default_rng(3)
    x = {
        "counts": lambda: random.poisson(3, (12, G)).astype(np.int32),
        "two values": lambda: random.integers(1, 3, (12, G)).astype(np.uint8),
        "normal": lambda: random.normal(size=(12, G)).astype(np.float32),
        "negative": lambda: -random.gamma(1, 5, (12, G)).astype(np.float32),
        "float64": lambda: random.normal(size=(12, G)) * 10.0 ** random.integers(-30, 30, (12, G)),
        "rounded": lambda: random.normal(size=(12, G)).round(1),
        "near one": lambda: 1 + random.integers(0, 5, (12, G)) * 2.0**-52,
        "large int64": lambda: random.integers(2**53, 2**62, (12, G)),
    }[kind]()
    x[random.random(x.shape) < 0.35] = 0
    x[-2] = 0
    x[-2, 17] = 1
    x[-1] = 0
    return x


KINDS = pytest.mark.parametrize(
    "kind", ["counts", "two values", "normal", "negative", "float64", "rounded", "near one", "large int64"]
)


def map_in_order(row):
    """All values of a cell: largest first, equal ones by gene."""
    return np.array(sorted(row.tolist(), reverse=True), dtype=row.dtype)


def numpy_bins(values, n_bins):
    """Bin values with NumPy alone, in float64."""
    values = values.astype(np.float64)
    nonzero = values[values != 0]
    if not len(nonzero):
        return np.zeros(len(values), np.int32)
    edges = np.quantile(nonzero, np.linspace(0, 1, n_bins - 1), method="linear")
    return np.where(values == 0, 0, np.digitize(values, edges)).astype(np.int32)


# ---- bins


@KINDS
def test_bins_are_those_of_numpy_quantile_and_digitize(kind):
    x = drawn(kind)
    for n_bins in range(2, 201):
        cells = kernel_calls.tokenize(x, TOKENS, max_seq_len=G, include_zero_genes=True, bins=n_bins)
        for row, (_, ids) in zip(x, cells, strict=True):
            np.testing.assert_array_equal(ids, numpy_bins(map_in_order(row), n_bins), f"{n_bins} bins", strict=True)


@pytest.mark.parametrize("n_values", range(1, 60))
def test_cells_of_any_length_are_binned_as_numpy_does(n_values):
    x = np.random.default_rng(n_values).gamma(1, 2, (1, n_values))
    for n_bins in (2, 3, 10, 51):
        [(_, ids)] = kernel_calls.tokenize(x, range(n_values), max_seq_len=n_values, bins=n_bins)
        np.testing.assert_array_equal(ids, numpy_bins(map_in_order(x[0]), n_bins), strict=True)


def test_edges_are_quantiles_of_the_selected_values_only():
    x = drawn("normal")
    cells = kernel_calls.tokenize(x, TOKENS, max_seq_len=8, bins=5)
    for row, (_, ids) in zip(x[:10], cells, strict=False):
        np.testing.assert_array_equal(ids, numpy_bins(map_in_order(row)[:8], 5), strict=True)


def test_normalized_values_are_binned_as_the_float32_numbers_they_are():
    x = drawn("counts")
    arguments = {"max_seq_len": G, "include_zero_genes": True, "normalize_total": 1e4, "log1p": True}
    expression = kernel_calls.tokenize(x, TOKENS, **arguments)
    binned = kernel_calls.tokenize(x, TOKENS, bins=9, **arguments)
    for (_, values), (_, ids) in zip(expression, binned, strict=True):
        np.testing.assert_array_equal(ids, numpy_bins(values, 9), strict=True)


def test_float64_values_are_binned_before_they_are_rounded():
    x = np.array([[1, 1 + 2**-40, 1 + 2**-41]])
    [(gene_ids, ids)] = kernel_calls.tokenize(x, [5, 6, 7], max_seq_len=3, bins=4)
    assert (gene_ids, ids.tolist()) == ([6, 7, 5], [3, 2, 1])


def test_zeros_have_bin_zero_and_the_largest_value_the_last_bin():
    [(_, ids)] = kernel_calls.tokenize(
        np.array([[0, 4, -1]]), [5, 6, 7], max_seq_len=3, include_zero_genes=True, bins=9
    )
    assert ids.tolist() == [8, 0, 1]


# ---- ranks


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 10, 100, 2047, 2048])
def test_ranks_go_from_one_to_minus_one_in_even_steps(length):
    x = np.arange(1, length + 1)[None]
    [(_, ranks)] = kernel_calls.tokenize(x, range(length), max_seq_len=length, continuous_rank=True)
    steps = [1.0] if length == 1 else [1 - 2 * i / (length - 1) for i in range(length)]
    np.testing.assert_array_equal(ranks, np.array(steps, np.float32), strict=True)


def test_ranks_count_the_genes_of_the_sequence_and_not_cls():
    x = np.array([[3, 0, 2, 1]])
    [(gene_ids, ranks)] = kernel_calls.tokenize(
        x, [5, 6, 7, 8], max_seq_len=5, add_cls=True, cls_token_id=0, continuous_rank=True
    )
    assert (gene_ids, ranks.tolist()) == ([0, 5, 7, 8], [1, 1, 0, -1])


# ---- expression values


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64"])
def test_values_are_rounded_to_the_nearest_float32(dtype):
    x = np.array([[2**24 + 1, 2**24 + 3, 2**40 + 2**15, 2**62 + 2**37]], dtype)
    [(_, values)] = kernel_calls.tokenize(x, range(4), max_seq_len=4)
    assert values.tobytes() == x[0, ::-1].astype(np.float32).tobytes()


def test_a_value_that_rounds_to_zero_is_not_a_zero():
    [(gene_ids, values)] = kernel_calls.tokenize(np.array([[0, 1e-50, 2]]), [5, 6, 7], max_seq_len=3)
    assert (gene_ids, values.tolist()) == ([7, 6], [2, 0])


# ---- CLS, types, none


@pytest.mark.parametrize("mode", [{}, {"bins": 5}, {"continuous_rank": True}], ids=["expression", "bins", "ranks"])
@pytest.mark.parametrize("x", [[[0, 0]], [[7, 3]], [[-7, 0]]], ids=["empty", "positive", "negative"])
def test_cls_comes_first_with_value_one(mode, x):
    [(gene_ids, values)] = kernel_calls.tokenize(
        np.array(x), [5, 6], max_seq_len=3, add_cls=True, cls_token_id=2, **mode
    )
    assert (gene_ids[0], values[0]) == (2, 1)


def test_cls_alone_fills_a_sequence_of_one():
    [(gene_ids, values)] = kernel_calls.tokenize(np.array([[4]]), [5], max_seq_len=1, add_cls=True, cls_token_id=2)
    assert (gene_ids, values.tolist()) == ([2], [1])


@pytest.mark.parametrize(
    ("mode", "dtype"), [({}, "float32"), ({"bins": 5}, "int32"), ({"continuous_rank": True}, "float32")]
)
def test_values_have_the_type_of_their_mode(mode, dtype):
    for x in (np.ones((2, 3)), np.zeros((2, 3)), np.zeros((0, 3))):
        _, _, values, _ = kernel_calls.call(kernel_calls.kernel(3, [5, 6, 7], max_seq_len=3, **mode), x)
        assert values.dtype == dtype


@pytest.mark.parametrize("add_cls", [False, True])
def test_without_values_the_tokens_are_the_same(add_cls):
    x = drawn("counts")
    arguments = {"max_seq_len": 9, "add_cls": add_cls, "cls_token_id": 1}
    offsets, gene_ids, values, _ = kernel_calls.call(kernel_calls.kernel(G, TOKENS, write_values=False, **arguments), x)
    wanted = kernel_calls.call(kernel_calls.kernel(G, TOKENS, **arguments), x)
    assert values is None
    assert kernel_calls.as_bytes((offsets, gene_ids)) == kernel_calls.as_bytes(wanted[:2])


@pytest.mark.parametrize("token_dtype", ["int32", "uint16", "int64"])
def test_tokens_of_every_type_are_the_same_numbers(token_dtype):
    built = kernel_calls.kernel(3, [0, 65_535, 7], max_seq_len=3, token_dtype=token_dtype)
    _, gene_ids, _, _ = kernel_calls.call(built, np.array([[1, 2, 3]]))
    assert (gene_ids.dtype, gene_ids.tolist()) == (token_dtype, [7, 65_535, 0])
