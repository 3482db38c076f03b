"""Dask, Ray and Spark do shards to the bytes of one process, whatever dies on the way, and tokenize Arrow batches."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

import teddytok_rs
from command_line import teddytok, teddytok_process
from corpora import Home, assert_whole
from raises import raises
from teddytok_rs import CorpusManifest, demo, tokenize_corpus
from teddytok_rs.engines.arrow import ArrowTokenizer

if TYPE_CHECKING:
    from pathlib import Path

# Engines warn of much that is theirs: open sockets, ports in use, deprecations.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]


# ---- shards


class Deadly(Executor):
    """Kills the worker of the first task that is begun, after its first record batch."""

    def __init__(self, inner: Executor, marker: Path) -> None:
        self._inner, self._marker = inner, str(marker)

    def submit(self, work: Any, /, *words: Any, **keys: Any) -> Future[Any]:
        marker = self._marker

        def deadly(*words: Any, **keys: Any) -> Any:  # nested, so that it travels by value
            import os
            import signal

            from teddytok_rs.output import shard as shards

            def die(*_: Any) -> None:
                os.kill(os.getpid(), signal.SIGKILL)

            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return work(*words, **keys)
            shards.ShardFile.count = die
            return work(*words, **keys)

        return self._inner.submit(deadly, *words, **keys)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Twenty sources of all formats, one of them corrupt, and what one process makes of each."""
    return Home(tmp_path_factory.mktemp("corpus"))


def assert_same(corpus: Home, executor: Executor, out: Path) -> None:
    """Undisturbed, and with a worker killed in the middle of a task."""
    whole = tokenize_corpus(corpus.sources, corpus.args, out / "whole", executor=executor)
    assert_whole(whole, corpus)
    killed = tokenize_corpus(corpus.sources, corpus.args, out / "killed", executor=Deadly(executor, out / "marker"))
    assert (out / "marker").exists()
    assert_whole(killed, corpus)


@pytest.mark.slow
def test_dask_writes_the_same_shards(corpus: Home, tmp_path: Path):
    pytest.importorskip("distributed")
    from teddytok_rs.engines import dask

    with dask.executor(n_workers=2, threads_per_worker=1, dashboard_address=None) as executor:
        assert_same(corpus, executor, tmp_path)


@pytest.mark.slow
def test_dask_hands_over_the_error_of_a_task(corpus: Home, tmp_path: Path):
    pytest.importorskip("distributed")
    from teddytok_rs.engines import dask
    from teddytok_rs.output.run import open_run
    from teddytok_rs.output.shard import run_shard

    source = shutil.copytree(next(corpus.sources.glob("*.zarr")), tmp_path / "a.zarr")
    with open_run(source, corpus.args, tmp_path / "out") as run:
        shutil.rmtree(source)
        source.mkdir()  # zarr's own exception cannot be unpickled
        with dask.executor(n_workers=1, threads_per_worker=1, retries=0, dashboard_address=None) as executor:
            future = executor.submit(run_shard, run.tasks[0])
            with raises("source_unreadable", str(source)):
                future.result(60)


@pytest.mark.slow
def test_ray_writes_the_same_shards_on_two_nodes(corpus: Home, tmp_path: Path):
    pytest.importorskip("ray", reason="Ray is not installed; it is an extra of 200 MB")
    from ray.cluster_utils import Cluster

    from teddytok_rs.engines import ray

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        with ray.executor(cluster.address) as executor:
            assert_same(corpus, executor, tmp_path)
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def spark():
    pytest.importorskip("pyspark", reason="Spark is not installed; it is an extra of 480 MB")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false")  # a task is tried 4 times
    session = builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    yield session
    session.stop()


@pytest.mark.slow
def test_spark_writes_the_same_shards(corpus: Home, tmp_path: Path, spark):
    from teddytok_rs.engines import spark as engine

    with engine.executor(spark) as executor:
        assert_same(corpus, executor, tmp_path)


@pytest.mark.slow
def test_spark_keeps_its_workers(spark):
    """A new one for each task would import the package each time."""
    from teddytok_rs.engines import spark as engine

    with engine.executor(spark) as executor:
        assert len({executor.submit(os.getpid).result() for _ in range(6)}) <= 2  # as many as there are cores


@pytest.mark.slow
def test_the_command_takes_an_engine(corpus: Home, tmp_path: Path):
    pytest.importorskip("distributed")
    words = ["tokenize", corpus.sources, "--engine", "dask", "-o", tmp_path / "out", "-c", corpus.config]
    done = teddytok_process(*words)
    assert done.returncode == 1, done.stderr
    assert_whole(CorpusManifest.read(tmp_path / "out"), corpus)


def test_a_cluster_that_is_not_there_is_named():
    pytest.importorskip("distributed")
    from teddytok_rs.engines import dask

    for address in ("tcp://127.0.0.1:1", "no address"):
        with raises("engine_unreachable", address), dask.executor(address, timeout=1):
            pass


@pytest.mark.slow
def test_a_ray_cluster_that_is_not_there_is_named():
    pytest.importorskip("ray", reason="Ray is not installed; it is an extra of 200 MB")
    from teddytok_rs.engines import ray

    with raises("engine_unreachable", "auto"), ray.executor("auto"):
        pass


def test_an_address_without_an_engine_is_refused(tmp_path: Path):
    words = ["tokenize", "a.h5ad", "--address", "here", "--tokenizer-name-or-path", "v", "-o", str(tmp_path)]
    done = teddytok(*words)
    assert done.returncode == 2
    assert "address is set without engine" in done.stderr


@pytest.mark.parametrize(("module", "library"), [("dask", "distributed"), ("ray", "ray"), ("spark", "pyspark")])
def test_an_engine_that_is_missing_is_named(module: str, library: str, monkeypatch: pytest.MonkeyPatch):
    import importlib

    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"teddytok_rs.engines.{module}", raising=False)
    with raises("engine_extra", f"pip install 'teddytok-rs[{module}]'"):
        importlib.import_module(f"teddytok_rs.engines.{module}")


# ---- Arrow batches

GENES = ["ENSG00000273559", "ENSG00000275302"]
ARGS = {"bio_annotations": False, "label_column": None}


def plain_args(**more: Any) -> teddytok_rs.TokenizationArgs:
    return demo.args(**{**ARGS, **more})


@pytest.fixture(scope="module")
def counts() -> Any:
    return demo.cells()


def csr_table(adata: Any) -> pa.Table:
    matrix = adata.layers["processed"].tocsr()
    ends = pa.array(matrix.indptr.astype(np.int32))
    columns = {
        "row": pa.array(np.arange(adata.n_obs)),
        "indices": pa.ListArray.from_arrays(ends, pa.array(matrix.indices)),
        "data": pa.ListArray.from_arrays(ends, pa.array(matrix.data)),
        "cell": pa.array(adata.obs_names.to_list()),
    }
    return pa.table(columns)


OPTIONS = [
    {},
    {"bins": 11},
    {"token_dtype": "int64"},
    {"write_values": False},
    {"random_genes": True, "gene_seed": 5},
    {"normalize_total": 100, "median_dict": dict.fromkeys(demo.cells().var_names[:9], 3.0), "median_column": "index"},
    {"add_eos": True, "eos_token_id": 3, "write_length": True, "output_names": {"gene_ids": "input_ids"}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_batches_give_the_tokens_of_the_whole(counts: Any, options: dict[str, Any]):
    args = plain_args(max_seq_len=64, **options)
    expected = teddytok_rs.tokenize(counts, args)
    tokenizer = pickle.loads(pickle.dumps(ArrowTokenizer(args, list(counts.var_names), keep=["cell"])))
    table = csr_table(counts)
    for size in (700, 99):
        made = [tokenizer(table.slice(start, size)) for start in range(0, 700, size)]
        tokens = pa.concat_tables(made).combine_chunks()
        assert tokens.column("cell").to_pylist() == counts.obs_names.to_list()
        for name in tokens.column_names[:-1]:
            assert tokens.column(name).to_pylist() == expected.column(name).to_pylist()


def test_a_column_for_each_gene_gives_the_same(counts: Any):
    args = plain_args(max_seq_len=64)
    dense = counts.layers["processed"].toarray()
    genes = list(counts.var_names)
    table = pa.table({gene: dense[:, column] for column, gene in enumerate(genes)})
    tokens = ArrowTokenizer(args, genes)(table)
    expected = teddytok_rs.tokenize(counts, args)
    assert tokens.column("gene_ids").to_pylist() == expected.column("gene_ids").to_pylist()
    assert tokens.column("values").to_pylist() == expected.column("values").to_pylist()
    assert ArrowTokenizer(args, genes)(table.slice(0, 0)).num_rows == 0


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"indices": [[0]], "data": [[1.0]], "extra": [1]}, None),
        ({"indices": [[0]], "data": [[1.0, 2.0]]}, "differ in length"),
        ({"indices": [[0], None], "data": [[1.0], [1.0]]}, "missing lists"),
        ({"indices": [[0]], "data": [[None]]}, "missing values"),
        ({"indices": [[0.5]], "data": [[1.0]]}, "'indices' holds"),
        ({"indices": [["a"]], "data": [[1.0]]}, "holds string"),
        ({"indices": [0], "data": [1.0]}, "holds int64"),
        ({GENES[0]: [1.0]}, f"no column {GENES[1]!r}"),
        ({GENES[0]: [1.0], GENES[1]: [1]}, "one is needed"),
    ],
)
def test_batches_that_hold_something_else_are_refused(columns: dict[str, Any], words: str | None):
    tokenizer = ArrowTokenizer(plain_args(min_gene_overlap=0.0), GENES)
    if words is None:
        assert tokenizer(pa.table(columns)).num_rows == 1
        return
    with raises("batch_columns", words):
        tokenizer(pa.table(columns))


def test_what_a_batch_does_not_know_is_refused(counts: Any):
    genes = list(counts.var_names)
    with raises("config_conflict", "has no obs"):
        ArrowTokenizer(demo.args(), genes)
    with raises("config_conflict", "output column"):
        ArrowTokenizer(plain_args(), genes, keep=["values"])
    tokenizer = ArrowTokenizer(plain_args(random_genes=True), genes)
    with raises("batch_columns", "random_genes"):
        tokenizer(csr_table(counts).drop_columns(["row"]))
    with raises("batch_columns", "from 0"):
        tokenizer(csr_table(counts.copy()[:1]).set_column(0, "row", pa.array([-1])))


def test_genes_that_no_vocabulary_has_are_those_of_a_batch():
    with raises("no_genes_match", "a batch of counts"):
        ArrowTokenizer(plain_args(), ["x", "y"])


def test_a_bad_value_names_its_row(counts: Any):
    tokenizer = ArrowTokenizer(plain_args(), list(counts.var_names))
    table = pa.table({"indices": [[0], [1]], "data": [[1.0], [float("nan")]]})
    with raises("not_finite", "row 1"):
        tokenizer(table)


@pytest.mark.slow
def test_spark_maps_batches(counts: Any, spark):
    from teddytok_rs.engines.spark import tokenize_frame

    args = plain_args(max_seq_len=64)
    tokenizer = ArrowTokenizer(args, list(counts.var_names), keep=["row"])
    frame = spark.createDataFrame(csr_table(counts)).repartition(3)
    made = {row["row"]: (row["gene_ids"], row["values"]) for row in tokenize_frame(frame, tokenizer).collect()}
    expected = teddytok_rs.tokenize(counts, args).to_pydict()
    assert made == dict(enumerate(zip(expected["gene_ids"], expected["values"], strict=True)))
    with raises("config_value", "Spark"):
        tokenize_frame(frame, ArrowTokenizer(plain_args(token_dtype="uint16"), list(counts.var_names)))


@pytest.mark.slow
def test_ray_data_maps_batches(counts: Any):
    data = pytest.importorskip("ray.data", reason="Ray is not installed; it is an extra of 200 MB")
    import ray

    args = plain_args(max_seq_len=64)
    tokenizer = ArrowTokenizer(args, list(counts.var_names), keep=["row"])
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        dataset = data.from_arrow(csr_table(counts)).map_batches(tokenizer, batch_format="pyarrow", batch_size=100)
        rows = sorted(dataset.take_all(), key=lambda row: row["row"])
    finally:
        ray.shutdown()
    expected = teddytok_rs.tokenize(counts, args).to_pydict()
    assert [list(row["gene_ids"]) for row in rows] == expected["gene_ids"]
    assert [list(row["values"]) for row in rows] == expected["values"]
