"""Which genes a sequence holds, in which order, whatever the matrix: the kernel against the oracle, to the bit."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

import kernel_calls
import oracle
from strategies import DTYPES, Matrix, kernel_arguments, matrices, position_tables
from teddytok_rs.errors import KernelError

N_GENES = 7
TOKENS = range(100, 100 + N_GENES)
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)
#: Each of these is tokenized with every combination of arguments below.
CELLS = {
    "empty": [],
    "explicit zeros": [(0, 0), (3, 0)],
    "ties": [(column, 2) for column in range(N_GENES)],
    "ties, unsorted": [(6, 1), (0, 3), (3, 3), (1, 2), (5, 3)],
    "duplicates that make a tie": [(2, 1), (5, 3), (2, 2), (0, 3)],
    "duplicates that cancel": [(1, 4), (2, 1), (1, -4)],
    "negatives behind zeros": [(0, -1), (5, 2), (3, -1), (6, 0)],
    "all negative": [(column, -1 - column % 2) for column in range(N_GENES)],
    "the last gene alone": [(N_GENES - 1, 1)],
}
MAX_SEQ_LENS = (1, 2, 3, N_GENES - 1, N_GENES, N_GENES + 1, N_GENES + 2, 1000)
MODES = ({}, {"bins": 4}, {"continuous_rank": True})
SUBSETS = (
    {},
    {"random_genes": True},
    *({"random_genes": True, "random_genes_count": count} for count in (1, N_GENES - 1, N_GENES, N_GENES + 5)),
)


def extremes(dtype):
    """Values at the ends of a dtype, and neighbours that a narrower float cannot tell apart."""
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        values = [info.min, info.max, info.max - 1, 2**24 + 1, 2**24, 2**53 + 1, 2**53]
        return [value for value in values if info.min <= value <= info.max]
    info = np.finfo(dtype)
    largest = float(np.finfo(np.float32).max)
    return [-0.0, largest, -largest, float(info.tiny), float(info.smallest_subnormal), 1.0, 1 + float(info.eps)]


def adversarial(dtype, cells):
    """Make a matrix of cells that the dtype can hold."""
    cells = [[(column, value) for column, value in cell if dtype[0] != "u" or value >= 0] for cell in cells]
    return Matrix([*cells, list(enumerate(extremes(dtype)))], N_GENES, dtype, "int32")


@EVERY_DTYPE
@pytest.mark.parametrize("subset", SUBSETS, ids=lambda subset: f"{subset.get('random_genes_count', bool(subset))}")
def test_every_combination_of_arguments_gives_the_oracles_cells(dtype, subset):
    matrix = adversarial(dtype, CELLS.values())
    for max_seq_len, add_cls, zeros, mode in product(MAX_SEQ_LENS, (False, True), (False, True), MODES):
        arguments = {
            "max_seq_len": max_seq_len,
            "add_cls": add_cls,
            "cls_token_id": 9,
            "include_zero_genes": zeros,
            "gene_seed": 3,
            "batch_size": 4,
            **mode,
            **subset,
        }
        expected = oracle.tokenize_matrix(matrix.dense, TOKENS, **arguments)
        kernel_calls.assert_same(kernel_calls.tokenize(matrix.csr, TOKENS, **arguments), expected)
        kernel_calls.assert_same(kernel_calls.tokenize(matrix.dense, TOKENS, **arguments), expected)


@pytest.mark.parametrize("max_seq_len", [1, 2, 3])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("mode", MODES, ids=["expression", "bins", "ranks"])
def test_a_single_gene_is_tokenized_as_the_oracle_does(max_seq_len, zeros, mode):
    matrix = Matrix([[], [(0, 5)], [(0, 0)], [(0, -2)], [(0, 1), (0, 1)], [(0, 1), (0, -1)]], 1, "float32", "int64")
    for add_cls in (False, True):
        arguments = {
            "max_seq_len": max_seq_len,
            "include_zero_genes": zeros,
            "add_cls": add_cls,
            "cls_token_id": 1,
            **mode,
        }
        expected = oracle.tokenize_matrix(matrix.dense, [7], **arguments)
        kernel_calls.assert_same(kernel_calls.tokenize(matrix.csr, [7], **arguments), expected)
        kernel_calls.assert_same(kernel_calls.tokenize(matrix.dense, [7], **arguments), expected)


@pytest.mark.parametrize("n_genes", [63, 64, 65, 128, 200])
@pytest.mark.parametrize("subset", [{}, {"random_genes": True, "random_genes_count": 50, "gene_seed": 1}], ids=str)
def test_zeros_are_found_across_machine_words(n_genes, subset):
    x = np.random.default_rng(n_genes).integers(-1, 2, (20, n_genes), dtype=np.int8)
    for max_seq_len in (1, n_genes // 2, n_genes - 1, n_genes, n_genes + 1):
        arguments = {"max_seq_len": max_seq_len, "include_zero_genes": True, **subset}
        expected = oracle.tokenize_matrix(x, range(n_genes), **arguments)
        cells = kernel_calls.tokenize(sparse.csr_matrix(x), range(n_genes), **arguments)
        kernel_calls.assert_same(cells, expected)


@given(data=st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_matrix_and_any_arguments_give_the_oracles_cells(data):
    compare_with_the_oracle(data)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=1000, deadline=None)
def test_more_matrices_and_arguments_give_the_oracles_cells(data):
    compare_with_the_oracle(data)


def compare_with_the_oracle(data):
    n_columns = data.draw(st.integers(1, 12))
    arguments = data.draw(kernel_arguments(n_columns))
    matrix = data.draw(matrices(n_genes=n_columns, non_negative=arguments["log1p"]))
    positions = data.draw(position_tables(n_columns))
    tokens = range(100, 101 + int(positions.max()))
    expected = oracle.tokenize_matrix(matrix.dense, tokens, position_of_column=positions, **arguments)
    for stored in (matrix.csr, matrix.dense):
        cells = kernel_calls.tokenize(stored, tokens, position_of_column=positions, **arguments)
        kernel_calls.assert_same(cells, expected)


# ---- the order


def genes_of(x, **arguments):
    x = np.atleast_2d(x)
    [(gene_ids, _)] = kernel_calls.tokenize(x, range(x.shape[1]), **arguments)
    return gene_ids


@EVERY_DTYPE
def test_equal_values_keep_gene_order(dtype):
    assert genes_of(np.array([1, 2, 1, 2, 2, 1], dtype), max_seq_len=6) == [1, 3, 4, 0, 2, 5]


def test_equal_values_at_the_cut_keep_the_first_genes():
    assert genes_of(np.full(300, 4, np.float32), max_seq_len=100) == list(range(100))


def test_zeros_take_the_places_of_negatives():
    x = np.array([-1, 0, 5, 0, -2])
    assert genes_of(x, max_seq_len=3) == [2]
    assert genes_of(x, max_seq_len=4) == [2, 0]


def test_negative_zero_is_a_zero():
    x = np.array([[-0.0, 1, 0.0]], np.float32)
    [(gene_ids, values)] = kernel_calls.tokenize(x, [5, 6, 7], max_seq_len=3, include_zero_genes=True)
    assert gene_ids == [6, 5, 7]
    assert values.tobytes() == np.array([1, 0, 0], np.float32).tobytes()


@pytest.mark.parametrize(
    "x",
    [np.array([1.0, 1 + 2**-40]), np.array([2**53, 2**53 + 1]), np.array([2**24, 2**24 + 1], np.uint32)],
    ids=["float64", "int64", "uint32"],
)
def test_the_order_is_decided_on_the_stored_precision(x):
    assert np.float32(x[0]) == np.float32(x[1])
    assert genes_of(x, max_seq_len=2) == [1, 0]


def test_the_order_is_decided_after_normalization():
    x = np.array([1.0, 1 + 2**-40, 7])
    assert genes_of(x, max_seq_len=3, normalize_total=1e4) == [2, 0, 1]


# ---- one matrix, several forms


@given(matrix=matrices(overflow=True), data=st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_csr_csc_and_dense_give_the_same_bytes(matrix, data):
    arguments = data.draw(kernel_arguments(matrix.n_genes)) | {"log1p": False}
    first_row = arguments.pop("first_row")
    built = kernel_calls.kernel(matrix.n_genes, range(matrix.n_genes), **arguments)
    wanted = kernel_calls.as_bytes(kernel_calls.call(built, matrix.dense, first_row=first_row))
    for stored in (matrix.csr, matrix.csr.tocsc().tocsr(), sparse.csr_matrix(matrix.dense)):
        assert kernel_calls.as_bytes(kernel_calls.call(built, stored, first_row=first_row)) == wanted


@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
def test_both_index_types_give_the_same_cells(index_dtype):
    cells = [[(4, 1), (0, 2), (4, 3)], [], [(2, 9)]]
    csr = Matrix(cells, 5, "float32", index_dtype).csr
    assert csr.indices.dtype == index_dtype
    assert [ids for ids, _ in kernel_calls.tokenize(csr, range(5), max_seq_len=5)] == [[4, 0], [], [2]]


# ---- dropped and shared columns


def test_dropped_columns_are_no_candidates():
    positions = np.array([0, -1, 1, -1, 2])
    x = np.array([[1, 9, 3, 8, 2]], np.float32)
    [(gene_ids, values)] = kernel_calls.tokenize(x, [50, 51, 52], position_of_column=positions, max_seq_len=4)
    assert gene_ids == [51, 52, 50]
    assert values.tolist() == [3, 2, 1]


def test_dropped_columns_leave_no_zeros():
    positions = np.array([-1, 0, -1, 1])
    arguments = {"position_of_column": positions, "max_seq_len": 4, "include_zero_genes": True}
    [(gene_ids, _)] = kernel_calls.tokenize(np.zeros((1, 4)), [50, 51], **arguments)
    assert gene_ids == [50, 51]


def test_dropped_columns_count_towards_the_total():
    arguments = {"position_of_column": np.array([0, -1]), "max_seq_len": 2, "normalize_total": 8.0}
    [(_, values)] = kernel_calls.tokenize(np.array([[1, 3]]), [50], **arguments)
    assert values.tolist() == [2]


def test_totals_are_sums_of_absolute_values_over_all_and_over_kept_columns():
    built = kernel_calls.kernel(3, [50, 51], position_of_column=np.array([0, -1, 1]), max_seq_len=1)
    *_, totals = kernel_calls.call(built, np.array([[1.0, -4, -2], [0, 0, 3]]))
    assert totals.tolist() == [7, 3, 3, 3]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_totals_are_added_up_in_float64_in_the_order_of_columns(dtype):
    x = (np.random.default_rng(1).normal(size=(50, 30)) * 1e9).astype(dtype)
    wanted = np.array([oracle.row_total(row) for row in x])
    for stored in (x, sparse.csr_matrix(x)):
        *_, totals = kernel_calls.call(kernel_calls.kernel(30, range(30), max_seq_len=4), stored)
        assert totals[::2].tobytes() == totals[1::2].tobytes() == wanted.tobytes()


def test_columns_that_share_a_position_are_summed_into_its_place():
    positions = np.array([0, 1, 0, 2, 1])
    x = np.array([[1, 2, 3, 4, 2], [0, 0, 0, 0, 5], [-1, 1, 1, 0, 0]])
    cells = kernel_calls.tokenize(x, [50, 51, 52], position_of_column=positions, max_seq_len=3)
    assert [(ids, values.tolist()) for ids, values in cells] == [([50, 51, 52], [4, 4, 4]), ([51], [5]), ([51], [1])]


def sums_fit(dense, positions):
    """Compute for each row whether the columns of every gene add up within the dtype, one after the other."""
    fits = []
    for row in dense:
        sums = [0] * len(positions)
        fine = True
        for value, position in zip(row.tolist(), positions.tolist(), strict=True):
            if position >= 0:
                sums[position] += value
                if np.issubdtype(dense.dtype, np.integer):
                    fine &= np.iinfo(dense.dtype).min <= sums[position] <= np.iinfo(dense.dtype).max
                else:
                    fine &= abs(sums[position]) <= float(np.finfo(np.float32).max)
        fits.append(fine)
    return fits


@given(data=st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_shared_columns_give_the_oracles_cells_or_an_error_where_their_sum_overflows(data):
    n_columns = data.draw(st.integers(2, 8))
    arguments = data.draw(kernel_arguments(n_columns))
    matrix = data.draw(matrices(n_genes=n_columns, non_negative=arguments["log1p"]))
    positions = data.draw(position_tables(n_columns, shared=True))
    tokens = range(100, 101 + int(positions.max()))
    arguments["position_of_column"] = positions
    fits = sums_fit(matrix.dense, positions)
    if all(fits):
        expected = oracle.tokenize_matrix(matrix.dense, tokens, **arguments)
        for stored in (matrix.csr, matrix.dense):
            kernel_calls.assert_same(kernel_calls.tokenize(stored, tokens, **arguments), expected)
    else:
        assume(np.issubdtype(matrix.dense.dtype, np.integer))
        with pytest.raises(KernelError) as raised:
            kernel_calls.tokenize(matrix.csr, tokens, **arguments)
        kind, row, *_ = raised.value.args
        assert (kind, row) == ("gene_sum_overflow", arguments["first_row"] + fits.index(False))


# ---- from raw counts

STEPS = [
    {"normalize_total": 1e4},
    {"log1p": True},
    {"inverse_medians": 1 / np.linspace(0.3, 3, 40)},
    {"normalize_total": 1e4, "log1p": True},
    {"normalize_total": 1e4, "inverse_medians": 1 / np.linspace(0.3, 3, 40), "log1p": True},
]
EVERY_STEP = pytest.mark.parametrize("steps", STEPS, ids=" ".join)


def counts(dtype, seed=0):
    """Integer-valued counts, so that their sums are exact in any order; the last cell is empty."""
    drawn = np.random.default_rng(seed).negative_binomial(0.3, 0.02, (60, 40)).astype(dtype)
    drawn[-1] = 0
    return drawn


@EVERY_STEP
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "int64"])
def test_normalization_is_the_oracles_to_the_bit(steps, dtype):
    x = counts(dtype)
    expected = oracle.tokenize_matrix(x, range(40), max_seq_len=30, **steps)
    kernel_calls.assert_same(kernel_calls.tokenize(x, range(40), max_seq_len=30, **steps), expected)
    kernel_calls.assert_same(kernel_calls.tokenize(sparse.csr_matrix(x), range(40), max_seq_len=30, **steps), expected)


@EVERY_STEP
def test_normalization_is_that_of_scikit_learn_and_numpy(steps):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x = counts("float32")
    y = x.astype(np.float64)
    if "normalize_total" in steps:
        y = preprocessing.normalize(y, norm="l1").astype(np.float32)
        y = (y.astype(np.float64) * steps["normalize_total"]).astype(np.float32)
    if "inverse_medians" in steps:
        y = (y.astype(np.float64) * steps["inverse_medians"]).astype(np.float32)
    if "log1p" in steps:
        y = np.log1p(y.astype(np.float64)).astype(np.float32)
    expected = oracle.tokenize_matrix(y.astype(np.float32), range(40), max_seq_len=40)
    kernel_calls.assert_same(kernel_calls.tokenize(x, range(40), max_seq_len=40, **steps), expected)


def test_a_row_of_zeros_is_normalized_to_zeros():
    arguments = {"normalize_total": 1e4, "log1p": True, "include_zero_genes": True, "max_seq_len": 2}
    [(_, values)] = kernel_calls.tokenize(np.zeros((1, 2), np.float32), [5, 6], **arguments)
    assert values.tobytes() == np.zeros(2, np.float32).tobytes()


# ---- the script this package replaces


@pytest.mark.parametrize("max_seq_len", [1, 10, 40, 64, 65])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_without_ties_the_genes_are_those_of_torch_topk_without_zeros(max_seq_len):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(5)
    x = random.permuted(np.tile(np.arange(-12, 52, dtype=np.float32), (100, 1)), axis=1)
    x[x == 0] = 0.5
    x[(x > 0) & (random.random(x.shape) < 0.4)] = 0
    values, positions = torch.topk(torch.from_numpy(x), k=min(max_seq_len, x.shape[1]), dim=1)
    keep = values != 0
    expected = [(p[k].tolist(), v[k].tolist()) for p, v, k in zip(positions, values, keep, strict=True)]
    kernel_calls.assert_same(kernel_calls.tokenize(x, range(64), max_seq_len=max_seq_len), expected)
    kernel_calls.assert_same(kernel_calls.tokenize(sparse.csr_matrix(x), range(64), max_seq_len=max_seq_len), expected)


@pytest.mark.parametrize("medians", [False, True], ids=["", "medians"])
def test_values_that_normalizing_makes_equal_keep_gene_order(medians):
    n_genes = 400  # enough to be sorted by counting
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (5, n_genes)) / 10 * (1 + rng.integers(0, 9, (5, n_genes)) * 2.0**-40)
    assert len(np.unique(x[0])) > len(np.unique(x[0].astype(np.float32)))
    tokens = range(100, 100 + n_genes)
    arguments = {"max_seq_len": 300, "normalize_total": 50.0, "log1p": True}
    if medians:
        arguments["inverse_medians"] = rng.choice([1.0, 1 + 2.0**-30], n_genes)
    for extra in ({}, {"include_zero_genes": True}, {"random_genes": True, "gene_seed": 3, "batch_size": 2}):
        expected = oracle.tokenize_matrix(x, tokens, **arguments, **extra)
        kernel_calls.assert_same(kernel_calls.tokenize(x, tokens, **arguments, **extra), expected)
