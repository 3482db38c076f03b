"""The border between NumPy and Rust: what may cross, what is refused and how, and what stays behind a call."""

import gc
import multiprocessing
import sys
import threading

import numpy as np
import pyarrow as pa
import pytest

import kernel_calls
from teddytok_rs import _core, demo
from teddytok_rs.errors import InternalError, KernelError
from teddytok_rs.pipeline import batches as tokenizer
from teddytok_rs.pipeline.batches import tokenize_chunk
from teddytok_rs.pipeline.plan import build_plan
from teddytok_rs.pipeline.resources import Resources

X = np.array([[1, 0, 3, 2], [0, 0, 0, 0], [4, 5, 0, 6]], np.float32)
CELLS = [([102, 103, 100], [3, 2, 1]), ([], []), ([103, 101, 100], [6, 5, 4])]
INDPTR = np.array([0, 3, 3, 6])
INDICES = np.array([0, 2, 3, 0, 1, 3], np.int32)
DATA = np.array([1, 3, 2, 4, 5, 6], np.float32)


def kernel(n_columns=4, **arguments):
    return kernel_calls.kernel(n_columns, range(100, 100 + n_columns), **{"max_seq_len": 4, **arguments})


def csr_cells(built, indptr=INDPTR, indices=INDICES, data=DATA, first_row=0):
    rows = kernel_calls.places(max(len(indptr) - 1, 0), first_row)
    return kernel_calls.cut(built.tokenize_csr(indptr, indices, data, rows=rows))


def dense_cells(built, x, first_row=0):
    rows = kernel_calls.places(len(x), first_row)
    return kernel_calls.cut(built.tokenize_dense(x, rows=rows))


def misaligned(array):
    """Copy an array to an address that is no multiple of its items' size."""
    room = np.zeros(array.nbytes + 1, np.uint8)
    moved = np.ndarray(array.shape, array.dtype, buffer=room, offset=1)
    moved[...] = array
    assert not moved.flags.aligned
    return moved


def read_only(array):
    locked = array.copy()
    locked.flags.writeable = False
    return locked


def strided(array):
    return np.repeat(array, 2, axis=-1)[..., ::2]


def reversed_view(array):
    return array[..., ::-1].copy()[..., ::-1]


def big_endian(array):
    return array.astype(array.dtype.newbyteorder(">"))


def as_list(array):
    return array.tolist()


def one_more_axis(array):
    return array[None]


# ---- arrays that are laid out in another way

WRONG = [
    pytest.param(change, id=change.__name__)
    for change in (strided, reversed_view, misaligned, big_endian, as_list, one_more_axis)
]
OTHER_TYPES = ["float16", "bool", "complex64", "object", "U3", "M8[s]", "longdouble"]


def test_plain_arrays_are_taken():
    kernel_calls.assert_same(csr_cells(kernel()), CELLS)
    kernel_calls.assert_same(dense_cells(kernel(), X), CELLS)


def test_read_only_arrays_are_taken():
    kernel_calls.assert_same(csr_cells(kernel(), read_only(INDPTR), read_only(INDICES), read_only(DATA)), CELLS)
    kernel_calls.assert_same(dense_cells(kernel(), read_only(X)), CELLS)


def test_inputs_are_not_written_to():
    before = [array.tobytes() for array in (INDPTR, INDICES, DATA, X)]
    csr_cells(kernel(max_seq_len=1))
    dense_cells(kernel(max_seq_len=1), X)
    assert [array.tobytes() for array in (INDPTR, INDICES, DATA, X)] == before


@pytest.mark.parametrize("change", WRONG)
@pytest.mark.parametrize("name", ["indptr", "indices", "data"])
def test_csr_buffers_of_another_layout_are_refused(change, name):
    buffer = change({"indptr": INDPTR, "indices": INDICES, "data": DATA}[name])
    with pytest.raises(TypeError):
        csr_cells(kernel(), **{name: buffer})


@pytest.mark.parametrize("change", [*WRONG, pytest.param(np.asfortranarray, id="column_major")])
def test_dense_matrices_of_another_layout_are_refused(change):
    with pytest.raises((TypeError, KernelError)):
        dense_cells(kernel(), change(X))


def test_rows_cut_out_of_a_wider_matrix_are_refused():
    with pytest.raises(KernelError):
        dense_cells(kernel(), np.zeros((3, 8), np.float32)[:, :4])


@pytest.mark.parametrize("shape", [(1, 4), (4, 1)], ids=["one row", "one column"])
def test_a_matrix_that_is_both_row_and_column_major_is_read_right(shape):
    x = np.asfortranarray(np.array([4.0, 1, 3, 2]).reshape(shape))
    assert x.flags.c_contiguous
    cells = dense_cells(kernel(shape[1]), x)
    assert [values.tolist() for _, values in cells] == ([[4, 3, 2, 1]] if shape[0] == 1 else [[4], [1], [3], [2]])


@pytest.mark.parametrize("dtype", OTHER_TYPES)
def test_values_of_other_types_are_refused(dtype):
    with pytest.raises(TypeError):
        dense_cells(kernel(), np.zeros((3, 4), dtype))
    with pytest.raises(TypeError):
        csr_cells(kernel(), data=np.zeros(6, dtype))


@pytest.mark.parametrize("dtype", ["int32", "uint64", "float64"])
def test_indptr_of_another_type_is_refused(dtype):
    with pytest.raises(TypeError):
        csr_cells(kernel(), indptr=INDPTR.astype(dtype))


@pytest.mark.parametrize("dtype", ["int16", "uint32", "uint64", "float64"])
def test_indices_of_another_type_are_refused(dtype):
    with pytest.raises(TypeError):
        csr_cells(kernel(), indices=INDICES.astype(dtype))


@pytest.mark.parametrize("shape", [(), (4,), (1, 1, 4)], ids=str)
def test_a_dense_matrix_has_two_axes(shape):
    with pytest.raises(TypeError):
        dense_cells(kernel(), np.zeros(shape, np.float32))


@pytest.mark.parametrize("change", WRONG)
@pytest.mark.parametrize("name", ["position_of_column", "token_of_position", "inverse_medians"])
def test_kernel_tables_of_another_layout_are_refused(change, name):
    tables = {
        "position_of_column": np.arange(4, dtype=np.int32),
        "token_of_position": np.arange(4, dtype=np.int32),
        "inverse_medians": np.ones(4),
    }
    assert build(**tables) is not None
    with pytest.raises(TypeError):
        build(**tables | {name: change(tables[name])})


# ---- nothing at all


@pytest.mark.parametrize("mode", [{}, {"bins": 3}, {"continuous_rank": True}, {"write_values": False}], ids=str)
def test_no_rows_give_no_cells(mode):
    built = kernel(add_cls=True, cls_token_id=1, **mode)
    assert csr_cells(built, INDPTR[:1], INDICES[:0], DATA[:0]) == []
    assert dense_cells(built, X[:0]) == []


def test_rows_without_values_stay_rows():
    empty = csr_cells(kernel(), np.zeros(301, np.int64), INDICES[:0], DATA[:0])
    assert [ids for ids, _ in empty] == [[]] * 300
    zeros = csr_cells(kernel(include_zero_genes=True), np.zeros(301, np.int64), INDICES[:0], DATA[:0])
    assert [ids for ids, _ in zeros] == [[100, 101, 102, 103]] * 300


def test_a_matrix_of_no_columns_gives_empty_sequences():
    assert [ids for ids, _ in dense_cells(kernel(0), np.zeros((3, 0), np.float32))] == [[], [], []]


# ---- errors carry their place


def build(position_of_column, token_of_position, **changes):
    arguments = {
        "max_seq_len": 4,
        "cls_token": None,
        "eos_token": None,
        "include_zero_genes": False,
        "values": "expression",
        "n_bins": 0,
        "gene_seed": None,
        "block_rows": 512,
        "block_genes": 4,
        "target_sum": None,
        "inverse_medians": None,
        "log1p": False,
        "token_dtype": "int32",
    }
    return _core.Kernel(position_of_column, token_of_position, **arguments | changes)


@pytest.mark.parametrize(
    ("buffers", "facts"),
    [
        ({"indptr": INDPTR + 1}, ("indptr_start", None, None)),
        ({"indptr": INDPTR[:0]}, ("indptr_start", None, None)),
        ({"indptr": np.array([0, 4, 3, 6])}, ("indptr_decreases", 1, None)),
        ({"indptr": np.array([0, 3, 3, 5])}, ("indptr_end", None, None)),
        ({"indptr": np.array([0, 3, 3, 2**62])}, ("indptr_end", None, None)),
        ({"indices": INDICES[:-1]}, ("lengths_differ", None, None)),
        ({"data": DATA[:-1]}, ("lengths_differ", None, None)),
        ({"indices": np.array([0, 2, 3, 0, 1, 4])}, ("column_out_of_range", 1002, None)),
        ({"indices": np.array([0, -1, 3, 0, 1, 3], np.int32)}, ("column_out_of_range", 1000, None)),
        ({"indices": np.array([0, 2**32, 3, 0, 1, 3])}, ("column_out_of_range", 1000, None)),
        ({"data": np.array([1, 3, 2, 4, np.nan, 6])}, ("not_finite", 1002, 1)),
        ({"data": np.array([1, 3, np.inf, 4, 5, 6], np.float32)}, ("not_finite", 1000, 3)),
        ({"data": np.array([1, 3, 2, 4, 5, 1e39])}, ("too_large_for_float32", 1002, 3)),
        ({"data": np.array([1, 3, 2, -1e39, 5, 1])}, ("too_large_for_float32", 1002, 0)),
    ],
    ids=lambda part: part[0] if isinstance(part, tuple) else None,
)
def test_an_error_of_a_matrix_carries_kind_row_and_column(buffers, facts):
    with pytest.raises(KernelError) as raised:
        csr_cells(kernel(), first_row=1000, **buffers)
    # Where indptr itself is wrong, the row is one of the chunk.
    assert raised.value.args == (*facts, None)


@pytest.mark.parametrize(
    ("arguments", "x", "facts"),
    [
        ({}, np.zeros((2, 5)), ("lengths_differ", None, None)),
        ({"normalize_total": 1e4}, [[0, 0, 0, 0], [1e308, 1e308, 0, 0]], ("total_not_finite", 71, None)),
        ({"log1p": True}, [[0, 1, -1, 0]], ("normalized_not_finite", 70, 2)),
        ({"log1p": True}, [[0, 1, 0, -2]], ("normalized_not_finite", 70, 3)),
        ({"inverse_medians": np.full(4, 1e10)}, [[0, 1e30, 0, 0]], ("normalized_not_finite", 70, 1)),
        (
            {"position_of_column": np.array([0, 1, 0, 2])},
            np.array([[1, 1, 1, 1], [100, 0, 28, 0]], np.int8),
            ("gene_sum_overflow", 71, 0),
        ),
        ({"token_dtype": "uint16", "add_cls": True, "cls_token_id": 65_536}, X, ("token_does_not_fit", None, None)),
        ({"token_dtype": "uint16", "add_cls": True, "cls_token_id": -1}, X, ("token_does_not_fit", None, None)),
        ({"token_dtype": "uint16", "add_eos": True, "eos_token_id": 65_536}, X, ("token_does_not_fit", None, None)),
    ],
    ids=lambda part: part[0] if isinstance(part, tuple) else "",
)
def test_an_error_of_a_value_carries_kind_row_and_column(arguments, x, facts):
    n_positions = int(np.max(arguments.get("position_of_column", 3))) + 1
    built = kernel_calls.kernel(4, range(n_positions), **{"max_seq_len": 4, **arguments})
    with pytest.raises(KernelError) as raised:
        dense_cells(built, np.array(x), first_row=70)
    assert raised.value.args == (*facts, None)


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"max_seq_len": 0}, "max_seq_len"),
        ({"values": "logits"}, "values"),
        ({"values": "bins", "n_bins": 1}, "n_bins"),
        ({"values": "bins", "n_bins": 2**31}, "n_bins"),
        ({"gene_seed": 1, "block_rows": 0}, "block_rows"),
        ({"inverse_medians": np.ones(3)}, "inverse_medians"),
        ({"token_dtype": "int8"}, "token_dtype"),
        ({"position_of_column": np.array([0, 2, 1, 3], np.int32)}, "position_of_column"),
        ({"position_of_column": np.array([0, 1, 2, -2], np.int32)}, "position_of_column"),
        ({"position_of_column": np.array([0, 1, 2, -1], np.int32)}, "token_of_position"),
        ({"token_of_position": np.arange(3, dtype=np.int32)}, "token_of_position"),
    ],
    ids=str,
)
def test_the_argument_that_builds_no_kernel_is_named(changes, argument):
    tables = {"position_of_column": np.arange(4, dtype=np.int32), "token_of_position": np.arange(4, dtype=np.int32)}
    with pytest.raises(KernelError) as raised:
        build(**tables | changes)
    assert raised.value.args == ("kernel_argument", None, None, argument)


def test_the_argument_that_makes_a_call_impossible_is_named():
    built = kernel()
    for wrong, argument in [
        (lambda: built.tokenize_dense(X, rows=np.arange(2)), "rows"),
        (lambda: built.tokenize_dense(X, rows=np.arange(-1, 2)), "rows"),
        (lambda: built.tokenize_csr(INDPTR, INDICES, DATA, rows=np.arange(4)), "rows"),
        (lambda: built.tokenize_dense(np.asfortranarray(X), rows=np.arange(3)), "x"),
    ]:
        with pytest.raises(KernelError) as raised:
            wrong()
        assert raised.value.args == ("kernel_argument", None, None, argument)


def test_an_argument_that_the_kernel_refuses_is_an_internal_error_that_names_it():
    plan = build_plan(demo.cells(), demo.args(max_seq_len=64))
    with pytest.raises(InternalError, match="its argument 'rows' is not valid"):
        tokenize_chunk(plan, plan.source.read(0, 3), kernel_calls.places(4), plan.source)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_seq_len": -1},
        {"max_seq_len": 2**64},
        {"cls_token": 2**31},
        {"eos_token": 2**31},
        {"gene_seed": 2**64},
        {"gene_seed": -1},
        {"block_rows": -1},
        {"n_bins": -1},
    ],
    ids=str,
)
def test_numbers_that_no_machine_integer_holds_build_no_kernel(changes):
    table = np.arange(4, dtype=np.int32)
    with pytest.raises(OverflowError):
        build(table, table, **changes)


@pytest.mark.parametrize("dropped", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_in_a_dropped_column_harms_only_totals(dropped):
    x = np.array([[1, dropped, 2]])
    arguments = {"position_of_column": np.array([0, -1, 1]), "max_seq_len": 2}
    kernel_calls.assert_same(kernel_calls.tokenize(x, [5, 6], **arguments), [([6, 5], [2, 1])])
    with pytest.raises(KernelError) as raised:
        kernel_calls.tokenize(x, [5, 6], normalize_total=1.0, **arguments)
    assert raised.value.args == ("not_finite", 0, 1, None)


@pytest.mark.parametrize("mode", [{}, {"bins": 5}, {"continuous_rank": True}, {"write_values": False}], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_whatever_is_written(mode, bad):
    with pytest.raises(KernelError) as raised:
        dense_cells(kernel(**mode), np.array([[1, 2, bad, 4]]))
    assert raised.value.args == ("not_finite", 0, 2, None)


@pytest.mark.parametrize(
    "mode",
    [{}, {"normalize_total": 1e4}, {"bins": 5}, {"continuous_rank": True}, {"write_values": False}],
    ids=["expression", "normalized", "bins", "ranks", "none"],
)
def test_shared_columns_that_sum_to_infinity_are_refused_whatever_is_written(mode):
    x = np.array([[3e38, 3e38, 1, 2]], np.float32)
    built = kernel_calls.kernel(4, [5, 6, 7], position_of_column=np.array([0, 0, 1, 2]), max_seq_len=4, **mode)
    with pytest.raises(KernelError) as raised:
        dense_cells(built, x)
    assert raised.value.args[1:] == (0, 0, None)


def with_bad_rows():
    """700 cells of four genes; rows 130, 131, 400 and 699 are wrong, each in its own way."""
    indptr = np.arange(0, 2801, 4)
    indices = np.tile(np.arange(4), 700)
    data = np.ones(2800)
    data[130 * 4 + 2] = np.nan
    indices[131 * 4] = 4
    data[400 * 4] = 1e39
    data[699 * 4 + 3] = np.inf
    return indptr, indices, data


def test_of_several_bad_rows_the_first_is_reported():
    with pytest.raises(KernelError) as raised:
        csr_cells(kernel(), *with_bad_rows(), first_row=10**9)
    assert raised.value.args == ("not_finite", 10**9 + 130, 2, None)


def test_a_kernel_serves_on_after_an_error():
    built = kernel()
    with pytest.raises(KernelError):
        csr_cells(built, data=np.full(6, np.nan))
    kernel_calls.assert_same(csr_cells(built), CELLS)


@pytest.mark.skipif(not hasattr(_core, "_panic"), reason="built without the cargo feature test-panic")
def test_a_panic_is_an_internal_error_and_the_process_lives(capfd):
    with pytest.raises(InternalError, match=r"on purpose.*bug in teddytok-rs"):
        _core._panic()
    assert "on purpose" in capfd.readouterr().err
    kernel_calls.assert_same(csr_cells(kernel()), CELLS)


# ---- buffers are moved, not copied


def test_arrow_lists_lie_where_the_kernel_wrote_them():
    plan = build_plan(demo.cells(), demo.args(max_seq_len=64))
    tokens = tokenize_chunk(plan, plan.source.read(0, 700), kernel_calls.places(700), plan.source)
    batch = tokenizer._batch(plan, tokenizer._concatenate([tokens]), (0, 700), reading=0.0, tokenizing=0.0).record_batch
    for name, numbers in (("gene_ids", tokens.gene_ids), ("values", tokens.values)):
        column = batch.column(name)
        # The first number of the batch, wherever its buffer is taken to begin.
        at = column.values.buffers()[1].address + 4 * (column.values.offset + column.offsets[0].as_py())
        assert at == numbers.ctypes.data
        assert column[9].as_py() == numbers[slice(*tokens.offsets[9:11])].tolist()


def test_a_record_batch_keeps_the_kernels_buffers_alive():
    plan = build_plan(demo.cells(), demo.args(max_seq_len=64))
    batch = next(tokenizer.tokenize_batches(plan, resources=Resources(1, 2**26))).record_batch
    before = pa.RecordBatch.from_pylist(batch.to_pylist(), schema=batch.schema)
    gc.collect()
    for _ in range(5):
        next(tokenizer.tokenize_batches(plan, resources=Resources(1, 2**26)))
    assert batch.equals(before)


# ---- threads and processes


def long_call():
    """Make a call that takes some tenths of a second."""
    random = np.random.default_rng(0)
    x = random.integers(0, 100, (1500, 2000)).astype(np.float32)
    built = kernel_calls.kernel(2000, range(2000), max_seq_len=2000)
    return lambda: kernel_calls.call(built, x)


@pytest.fixture
def no_forced_switches():
    """Block all other threads until the running one releases the interpreter by itself."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no lock to let go of")
@pytest.mark.usefixtures("no_forced_switches")
def test_python_threads_run_during_a_call():
    call = long_call()
    go, ran = threading.Event(), threading.Event()

    def other():
        go.wait()
        ran.set()

    thread = threading.Thread(target=other)
    thread.start()
    go.set()
    assert not ran.is_set()
    for _ in range(20):  # on a busy machine one call may be over before the other thread gets a core
        call()
        if ran.is_set():
            break
    during = ran.is_set()
    thread.join()
    assert during


def test_python_threads_may_share_a_kernel():
    built = kernel_calls.kernel(50, range(50), max_seq_len=20, random_genes=True, gene_seed=1, batch_size=10)
    x = np.random.default_rng(0).integers(-3, 9, (400, 50))
    wanted = kernel_calls.as_bytes(kernel_calls.call(built, x))
    results = []

    def work():
        results.extend(kernel_calls.as_bytes(kernel_calls.call(built, x)) == wanted for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80


def bytes_of_a_call():
    """Tokenize the same cells in any process."""
    x = np.random.default_rng(0).integers(-3, 9, (400, 50))
    built = kernel_calls.kernel(50, range(50), max_seq_len=20, random_genes=True, gene_seed=1, batch_size=10)
    return kernel_calls.as_bytes(kernel_calls.call(built, x))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_process_may_call_after_its_parent_has(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    wanted = bytes_of_a_call()
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(bytes_of_a_call).get(timeout=60) == wanted
    assert bytes_of_a_call() == wanted
