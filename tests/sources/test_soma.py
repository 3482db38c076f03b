"""A query of a SOMA experiment gives the tokens of the same cells in memory, and is opened as it was at one time."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse

import cells
import oracle
from raises import raises
from teddytok_rs import Manifest, build_medians, check, tokenize, tokenize_corpus, tokenize_to_disk, verify
from teddytok_rs.mapping.build_vocabulary import build_vocabulary
from teddytok_rs.pipeline.plan import build_plan
from teddytok_rs.sources.identity import fingerprint, stamp, stamp_of_path
from teddytok_rs.sources.open import open_source
from teddytok_rs.sources.soma_url import SomaUrl

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

N_CELLS = 60
MODULE = [sys.executable, "-m", "teddytok_rs"]


@pytest.fixture(scope="session")
def soma() -> Any:
    tiledbsoma = pytest.importorskip("tiledbsoma", reason="TileDB-SOMA is not installed; it is an extra of 450 MB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("tiledbsoma.io")
    return tiledbsoma


def made() -> ad.AnnData:
    """Cells with columns of every kind that annotations are made of."""
    numbers = np.arange(N_CELLS)
    some = pd.array([None if n % 7 == 0 else 2**60 + n for n in numbers], dtype="Int64")
    return cells.make_cells(N_CELLS, n=numbers, score=numbers / 7, primary=numbers % 3 == 0, some=some)


def write(soma: Any, adata: ad.AnnData, path: Path, **options: Any) -> Path:
    """Write an experiment as tiledbsoma does, which changes what it is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        soma.io.from_anndata(str(path), adata.copy(), options.pop("measurement_name", "RNA"), **options)
    return path


def url_of(path: Path | str, obs_value_filter: str | None = None, measurement_name: str = "RNA", **more: Any) -> str:
    filtered = "" if obs_value_filter is None else f"&obs_value_filter={quote(obs_value_filter)}"
    return f"soma://{path}?measurement_name={measurement_name}{filtered}" + "".join(
        f"&{k}={v}" for k, v in more.items()
    )


@pytest.fixture(scope="module")
def experiment(soma: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(soma, made(), tmp_path_factory.mktemp("soma") / "brain")


def table_of(source: Any, args: dict[str, Any], **how: Any) -> dict[str, list[Any]]:
    return tokenize(source, args, **how).to_pydict()


# ---- the same tokens

FILTERS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "tissue == 'lung'": lambda obs: obs.tissue == "lung",
    "tissue == 'lung' and cell_type in ['B cell', 'monocyte']": lambda obs: (
        (obs.tissue == "lung") & obs.cell_type.isin(["B cell", "monocyte"])
    ),
    "primary == True and n >= 7": lambda obs: obs.primary & (obs.n >= 7),
    "soma_joinid > 40 or soma_joinid == 3": lambda obs: (obs.n > 40) | (obs.n == 3),
    "n == 17": lambda obs: obs.n == 17,
}
ARGS: list[dict[str, Any]] = [
    {},
    {"layer": "data", "normalize_total": 1e4, "log1p": True},
    {"random_genes": True, "random_genes_count": 5, "gene_seed": 3, "batch_size": 4},
    {"include_zero_genes": True, "bins": 5},
    {"layer": "data", "gene_id_column": "var_id", "continuous_rank": True, "add_cls": True},
]


@pytest.mark.parametrize("keys", ARGS, ids=str)
@pytest.mark.parametrize("obs_value_filter", [None, *FILTERS])
def test_a_query_gives_the_tokens_of_the_same_cells_in_memory(experiment, obs_value_filter, keys, tmp_path):
    adata = made()
    adata.var["var_id"] = adata.var_names
    if obs_value_filter is not None:
        adata = adata[FILTERS[obs_value_filter](adata.obs).to_numpy()].copy()
    assert len(adata) > 0
    args = cells.make_args(
        tmp_path, bio_annotations=True, obs_columns=["index", "n", "score", "primary", "some"], **keys
    )
    in_memory = table_of(adata, args | ({"layer": "X"} if keys.get("layer") == "data" else {}))
    assert table_of(url_of(experiment, obs_value_filter), args) == in_memory
    assert in_memory["cell_id"][0].startswith("cell-")


def test_what_is_computed_densely_is_what_a_query_gives(experiment, tmp_path):
    x = np.log1p(cells.make_counts(N_CELLS))[:, :10]
    expected = oracle.tokenize_matrix(x, cells.GENE_TOKENS, max_seq_len=8)
    assert cells.sequences(url_of(experiment), cells.make_args(tmp_path)) == expected


def test_any_chunks_and_threads_give_the_same_tokens_from_bounded_reads(experiment, tmp_path, monkeypatch):
    from teddytok_rs.sources.soma import SomaSource

    url, args = url_of(experiment, "n != 5"), cells.make_args(tmp_path)
    whole = tokenize(url, args, threads=1)
    read, rows = SomaSource.read, []

    def counted(self: Any, start: int, stop: int) -> Any:
        rows.append(stop - start)
        return read(self, start, stop)

    monkeypatch.setattr(SomaSource, "read", counted)
    monkeypatch.setattr("teddytok_rs.sources.counts.BLOCK_ROWS", 1)
    for threads in (1, 2, 3):
        for chunk_bytes in (1, 2000 * threads, 10_000, 2**20):
            assert tokenize(url, args, threads=threads, chunk_bytes=chunk_bytes).equals(whole)
            assert max(rows) <= max(chunk_bytes // 100, 1)
            rows.clear()


def test_auto_takes_counts_of_the_measurement(experiment, soma, tmp_path):
    """`from_anndata` calls X ``data``, and writes raw.X as a measurement of its own, which the URL does not name."""
    args = cells.make_args(tmp_path, layer="auto", log1p=True)
    assert build_plan(url_of(experiment), args).source.layer == "data"
    assert tokenize(url_of(experiment), args).equals(tokenize(made(), args | {"layer": "X"}))
    opened = open_source(url_of(experiment), "auto")
    assert (
        stamp(opened) == stamp_of_path(url_of(experiment), "auto") == stamp_of_path(url_of(experiment), "layers/data")
    )
    logs = made()
    logs.layers["raw"], logs.X = logs.X, logs.layers["processed"]
    logs.layers["auto"] = logs.layers["raw"]
    url = url_of(write(soma, logs, tmp_path / "logs"))
    assert tokenize(url, args).equals(tokenize(made(), args | {"layer": "X"}))
    assert open_source(url, "auto").layer == "raw"
    assert open_source(url, "layers/auto").layer == "layers/auto"
    expected = "Set layer (--layer) to 'raw', which holds counts"
    assert [warning.endswith(expected) for warning in check(url, args | {"layer": "data"}).warnings] == [True]
    none = made()
    none.X = none.layers["processed"]
    with raises("no_counts", "'raw' does not exist; 'counts' does not exist; 'data' holds values that are not whole"):
        tokenize(url_of(write(soma, none, tmp_path / "none")), args)


def test_labels_and_cell_filter_see_the_cells_of_the_query(experiment, tmp_path):
    """Classes are all that the experiment declares, as with `cell_filter` alone, so that queries can be joined."""
    args = cells.make_args(tmp_path, label_column="cell_type", obs_columns=["n", "soma_joinid"])
    found = table_of(url_of(experiment, "tissue == 'lung'"), args | {"cell_filter": "cell_type == 'B cell' and n > 8"})
    in_memory = table_of(
        made(), args | {"obs_columns": ["n"], "cell_filter": "tissue == 'lung' and cell_type == 'B cell' and n > 8"}
    )
    assert found.pop("soma_joinid") == found["n"]
    assert found == in_memory
    assert len(found["n"]) > 3


def test_a_query_and_the_same_cells_in_memory_have_one_fingerprint(experiment):
    adata = made()
    rows = (adata.obs.tissue == "lung").to_numpy()
    assert fingerprint(open_source(url_of(experiment, "tissue == 'lung'"), "processed")) == fingerprint(
        open_source(adata[rows].copy(), "processed")
    )


def test_a_vocabulary_is_built_from_an_experiment(experiment, tmp_path):
    tokens = build_vocabulary([url_of(experiment)], tmp_path / "vocabulary", obs_columns=["tissue"])
    assert tokens == build_vocabulary([made()], tmp_path / "other", obs_columns=["tissue"])


def test_medians_of_an_experiment_are_those_of_the_same_cells(experiment):
    built, wanted = (
        build_medians(source, layer="processed", normalize_total=1e4) for source in (url_of(experiment), made())
    )
    assert built.genes == wanted.genes
    assert built.medians


# ---- experiments as others write them


def write_plain(
    soma: Any,
    path: Path,
    x: Any,
    cell_ids: Any,
    gene_ids: Any,
    *,
    n_writes: int = 1,
    dtype: Any = None,
    note: str | None = None,
) -> Path:
    """Write matrix and frames with these joinids, in an order that is none, as Census does without an index column."""
    order = np.random.default_rng(4).permutation(len(cell_ids))
    obs = pa.table({"soma_joinid": np.asarray(cell_ids)[order], "feature": [f"f{row % 3}" for row in order]})
    genes = np.random.default_rng(5).permutation(len(gene_ids))
    var = pa.table({
        "soma_joinid": np.asarray(gene_ids)[genes],
        "feature_id": [cells.GENES[g] for g in genes],
        "feature_name": [cells.SYMBOLS[g] for g in genes],
    })  # fmt: skip
    matrix = sparse.coo_matrix(x)
    shape = (int(max(cell_ids)) + 1, int(max(gene_ids)) + 1)
    with soma.Experiment.create(str(path)) as experiment:
        for parent, name, frame in (
            (experiment, "obs", obs),
            (experiment.add_new_collection("ms").add_new_collection("RNA", kind=soma.Measurement), "var", var),
        ):
            domain = [[0, int(max(frame["soma_joinid"].to_pylist()))]]
            array = parent.add_new_dataframe(
                name, schema=frame.schema, index_column_names=["soma_joinid"], domain=domain
            )
            array.write(frame)
            if note is not None:
                array.metadata["soma_dataframe_original_index_name"] = note
        layers = experiment.ms["RNA"].add_new_collection("X")
        kind = pa.from_numpy_dtype(matrix.dtype) if dtype is None else dtype
        layers.add_new_sparse_ndarray("raw", type=kind, shape=shape)
        uri = layers["raw"].uri
    rows, columns = np.asarray(cell_ids)[matrix.row], np.asarray(gene_ids)[matrix.col]
    for part in range(n_writes):
        taken = np.arange(matrix.nnz) % n_writes == part
        entries = {
            "soma_dim_0": rows[taken],
            "soma_dim_1": columns[taken],
            "soma_data": pa.array(matrix.data[taken], kind),
        }
        time.sleep(0.005)  # a time of its own
        with soma.SparseNDArray.open(uri, "w") as array:
            array.write(pa.table(entries))
    return path


@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_gaps_in_the_joinids_and_any_number_type(soma, dtype, tmp_path):
    x = cells.make_counts(30).astype(dtype)
    cell_ids, gene_ids = np.cumsum(np.arange(30) % 4 + 1) + 7, np.cumsum(np.arange(12) % 3 + 1)
    path = write_plain(soma, tmp_path / "plain", x, cell_ids, gene_ids, n_writes=3)
    args = cells.make_args(tmp_path, layer="raw", gene_id_column="feature_id", obs_columns=["soma_joinid", "index"])
    found = table_of(url_of(path, "feature != 'f1'"), args)
    rows = [row for row in range(30) if row % 3 != 1]
    expected = oracle.tokenize_matrix(x[rows][:, :10].astype("f8"), cells.GENE_TOKENS, max_seq_len=8)
    assert list(zip(found["gene_ids"], found["values"], strict=True)) == expected
    assert found["soma_joinid"] == cell_ids[rows].tolist()
    assert found["cell_id"] == [str(number) for number in cell_ids[rows]]
    assert open_source(url_of(path), "raw").dtype == np.dtype(dtype)


def test_booleans_count_as_0_and_1(soma, tmp_path):
    x = cells.make_counts(10) > 0
    path = write_plain(soma, tmp_path / "plain", x, range(10), range(12))
    args = cells.make_args(tmp_path, layer="raw", gene_id_column="feature_id")
    assert cells.sequences(url_of(path), args) == oracle.tokenize_matrix(
        x[:, :10].astype("f4"), cells.GENE_TOKENS, max_seq_len=8
    )


def test_sums_do_not_depend_on_the_order_in_which_entries_come(soma, tmp_path):
    """Values whose float sum is another in another order, written in fragments that TileDB gives as they come."""
    x = (np.random.default_rng(9).lognormal(0, 9, (40, 12)) * (cells.make_counts(40) > 0)).astype("f4")
    path = write_plain(soma, tmp_path / "plain", x, range(40), range(12), n_writes=7)
    args = cells.make_args(tmp_path, gene_id_column="feature_id", normalize_total=1e4)
    adata = cells.with_layer(sparse.csr_matrix(x))
    adata.var["feature_id"] = adata.var_names
    assert cells.sequences(url_of(path), args | {"layer": "raw"}) == cells.sequences(adata, args)


def test_cells_without_values_and_no_cells_at_all(soma, tmp_path):
    x = cells.make_counts(6)
    x[[0, 2, 3, 5]] = 0
    path = write_plain(soma, tmp_path / "few", x, range(6), range(12))
    args = cells.make_args(tmp_path, layer="raw", gene_id_column="feature_id")
    expected = oracle.tokenize_matrix(x[:, :10], cells.GENE_TOKENS, max_seq_len=8)
    assert [len(tokens) for tokens, _ in expected] == [0, 3, 0, 0, 6, 0]
    assert cells.sequences(url_of(path), args) == expected
    assert cells.sequences(url_of(path, "soma_joinid == 2"), args) == [([], [])]
    nothing = write_plain(soma, tmp_path / "nothing", x * 0, range(6), range(12))
    assert cells.sequences(url_of(nothing), args) == [([], [])] * 6
    with soma.DataFrame.open(str(nothing / "obs"), "d") as obs:
        obs.delete_cells((slice(0, 5),))
    assert cells.sequences(url_of(nothing), args) == []


@pytest.mark.parametrize("name", [None, "index", "barcode"])
def test_index_means_what_tiledbsoma_makes_the_index(soma, name, tmp_path):
    adata = made()
    adata.obs.index.name = adata.var.index.name = name
    url = url_of(write(soma, adata, tmp_path / "named"))
    with soma.Experiment.open(str(tmp_path / "named")) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = soma.io.to_anndata(opened, "RNA", X_layer_name="data")
    source = open_source(url, "processed")
    assert source.cell_names() == list(there.obs_names) == list(adata.obs_names)
    assert list(source.var.index) == list(there.var_names)
    assert source.cell_name(3) == "cell-3"
    assert source.cell_names(3, 5) == ["cell-3", "cell-4"]


def test_without_an_index_the_joinids_are_the_names(soma, tmp_path):
    path = write_plain(soma, tmp_path / "plain", cells.make_counts(5), [2, 4, 6, 8, 9], range(12))
    source = open_source(url_of(path), "raw")
    assert source.cell_names() == ["2", "4", "6", "8", "9"]
    with raises("no_genes_match", "feature_id"):
        tokenize(url_of(path), cells.make_args(tmp_path, layer="raw"))


def test_values_of_genes_that_var_does_not_have_are_refused(soma, tmp_path):
    for name, gene_ids in (("first", range(12)), ("gaps", [*range(11), 15])):
        path = write_plain(soma, tmp_path / name, cells.make_counts(8), range(8), gene_ids)
        with soma.DataFrame.open(str(path / "ms/RNA/var"), "d") as var:
            last = int(gene_ids[-1])
            var.delete_cells((slice(last, last),))
        with raises("matrix_malformed", f"gene {gene_ids[-1]}, a soma_joinid that var does not have"):
            tokenize(url_of(path), cells.make_args(tmp_path, layer="raw", gene_id_column="feature_id"))


# ---- to disk


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".arrow"}


def disk_args(folder: Path) -> dict[str, Any]:
    return cells.make_args(
        folder, max_shard_samples=7, random_genes=True, random_genes_count=6, gene_seed=2, label_column="tissue"
    )


#: A run that kills itself when its fourth shard is written but has no name yet.
KILLED = """
import json, os, signal, sys
from teddytok_rs import tokenize_to_disk
from teddytok_rs.output import run
commit, begun = run.ShardFile.commit, []
def deadly(self):
    begun.append(self)
    return commit(self) if len(begun) < 4 else os.kill(os.getpid(), signal.SIGKILL)
run.ShardFile.commit = deadly
tokenize_to_disk(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], threads=1)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_run_that_is_killed_is_continued(experiment, tmp_path):
    url, args = url_of(experiment, "n != 5"), disk_args(tmp_path)
    whole = tokenize_to_disk(url, args, tmp_path / "whole")
    assert whole.path.name == "brain"
    assert len(whole.shards) == 9
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, url, json.dumps(args), str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_ino for path in (out / "brain").glob("*.arrow")}
    assert len(kept) == 3
    manifest = tokenize_to_disk(url, args, out)
    assert {path: path.stat().st_ino for path in kept} == kept
    assert contents(out / "brain") == contents(whole.path)
    assert manifest.shards == whole.shards
    assert verify(out / "brain").problems == []


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.skipif(os.name == "nt", reason="Windows cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_write_the_same_bytes(experiment, method, tmp_path, monkeypatch):
    """Also forked ones, after their parent read from TileDB, and where a relative path leads elsewhere."""
    monkeypatch.chdir(experiment.parent)
    url, args = url_of(experiment.name, "n != 5"), disk_args(tmp_path)
    whole = tokenize_to_disk(url, args, tmp_path / "whole", threads=2)
    there = tmp_path / "there"
    there.mkdir()
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context, initializer=os.chdir, initargs=(there,)) as pool:
        corpus = tokenize_corpus([url], args, tmp_path / "out", executor=pool)
    assert not corpus.failed
    assert contents(tmp_path / "out/brain") == contents(whole.path)
    assert corpus.sources[0].sha256 == tokenize_corpus([url], args, tmp_path / "whole").sources[0].sha256


def test_a_corpus_of_queries_and_files_leaves_finished_ones_as_they_are(soma, experiment, tmp_path):
    cells.save(made(), tmp_path / "liver.h5ad")
    own = write(soma, made(), tmp_path / "blood.soma")
    sources = [url_of(experiment, "tissue == 'lung'"), str(tmp_path / "liver.h5ad"), url_of(own)]
    args, out = disk_args(tmp_path), tmp_path / "out"
    corpus = tokenize_corpus(sources, args, out)
    assert [source.folder for source in corpus.sources] == ["blood", "brain", "liver"]
    assert {source.source for source in corpus.sources} == set(sources)
    before = {path: path.stat().st_ino for path in out.glob("*/*")}
    again = tokenize_corpus(sources, args, out)
    assert again == corpus
    assert {path: path.stat().st_ino for path in out.glob("*/*")} == before
    change(soma, own)
    assert [source.error["kind"] for source in tokenize_corpus(sources, args, out).failed] == ["output_differs"]
    with raises("config_conflict", "would be written to one place", "brain"):
        tokenize_corpus([url_of(experiment), url_of(experiment, "n == 1")], args, out)


def test_the_command_takes_a_query(experiment, tmp_path):
    config = cells.write_json(tmp_path / "args.json", disk_args(tmp_path))
    url = url_of(experiment, "tissue == 'lung'")
    for words in (["check", url, "-c", config], ["tokenize", url, "-c", config, "-o", str(tmp_path / "out")]):
        done = subprocess.run([*MODULE, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert Manifest.read(tmp_path / "out/brain").source["n_cells"] == 30
    assert not check(url, config).problems


# ---- as it was at one time


def change(soma: Any, experiment: Path) -> None:
    """Write another value into the first cell."""
    time.sleep(0.005)
    with soma.SparseNDArray.open(str(experiment / "ms/RNA/X/processed"), "w") as x:
        x.write(pa.table({"soma_dim_0": [0], "soma_dim_1": [0], "soma_data": pa.array([9.0], pa.float32())}))
    time.sleep(0.005)


def test_a_run_does_not_see_what_is_written_after_it_began(soma, tmp_path):
    path, args = write(soma, made(), tmp_path / "brain"), cells.make_args(tmp_path)
    time.sleep(0.005)
    now = int(time.time() * 1000)
    before = tokenize(url_of(path), args)
    plan = build_plan(url_of(path), args)
    seen = stamp(plan.source)
    change(soma, path)
    assert stamp(plan.source) == seen
    assert cells.sequences(plan.source.path, args) == list(
        zip(before["gene_ids"].to_pylist(), before["values"].to_pylist(), strict=True)
    )
    assert tokenize(url_of(path, timestamp=now), args).equals(before)
    after = tokenize(url_of(path), args)
    assert not after.equals(before)
    assert after["values"][0].as_py()[0] == 9.0
    assert after.slice(1).equals(before.slice(1))


def test_a_stamp_changes_with_what_is_read_and_with_nothing_else(soma, tmp_path):
    path = write(soma, made(), tmp_path / "brain")

    def seen(**keys: Any) -> str:
        return stamp(open_source(url_of(path, **keys), "processed"))

    first = seen()
    assert seen() == first
    assert seen(obs_value_filter="n == 1") != first
    time.sleep(0.005)
    with soma.SparseNDArray.open(str(path / "ms/RNA/X/data"), "w") as x:
        x.write(pa.table({"soma_dim_0": [0], "soma_dim_1": [0], "soma_data": pa.array([9.0], pa.float32())}))
    assert seen() == first
    change(soma, path)
    assert seen() != first


# ---- what cannot be used


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("soma://a", "it has no measurement_name"),
        ("soma://?measurement_name=RNA", "it has no URI"),
        ("soma:///?measurement_name=RNA", "it has no URI"),
        ("soma://a?measurement_name=", "got 'measurement_name='"),
        ("soma://a?measurement_name", "bad query field: 'measurement_name'"),
        ("soma://a?measurement=RNA", "got 'measurement=RNA'"),
        ("soma://a?measurement_name=RNA&&timestamp=1", "bad query field: ''"),
        ("soma://a?measurement_name=RNA&", "bad query field: ''"),
        ("soma://a?measurement_name=RNA&measurement_name=RNA", "a key is there twice"),
        ("soma://a?measurement_name=RNA&obs_value_filter=a == '10% b'", "'% b' is not a percent sign"),
        ("soma://a?measurement_name=RNA&obs_value_filter=a == 1 & b == 2", "got ' b == 2'"),
        ("soma://a?measurement_name=RNA&timestamp=now", "timestamp = 'now'"),
        ("soma://a?measurement_name=RNA&timestamp=0", "timestamp = '0'"),
        ("soma://a?measurement_name=%FF", "is not valid UTF-8"),
        ("soma://%FF?measurement_name=RNA", "is not valid UTF-8"),
    ],
)
def test_a_url_that_is_not_valid_is_refused(url: str, reason: str, tmp_path: Path):
    for use in (lambda: open_source(url, "raw"), lambda: tokenize_corpus([url], cells.make_args(tmp_path), tmp_path)):
        with raises("soma_url", reason):
            use()


@pytest.mark.parametrize(
    ("url", "query"),
    [
        ("soma:///data/a.soma?measurement_name=RNA", SomaUrl("/data/a.soma", "RNA")),
        ("soma://s3://b/c/a?measurement_name=RNA", SomaUrl("s3://b/c/a", "RNA")),
        (
            "soma://tiledb://n/a?obs_value_filter=x == 'CD4+, 5%25 a%26b?=c'&measurement_name=a%26b&timestamp=12",
            SomaUrl("tiledb://n/a", "a&b", "x == 'CD4+, 5% a&b?=c'", 12),
        ),
        ("soma:///a%3Fb%25c?measurement_name=%C3%A9", SomaUrl("/a?b%c", "é")),
        ("soma:///a+b[1]#c;d?measurement_name=R;N#A+", SomaUrl("/a+b[1]#c;d", "R;N#A+")),
        ("soma:///a?measurement_name=R\tN&obs_value_filter=x ==\n'é'", SomaUrl("/a", "R\tN", "x ==\n'é'")),
    ],
)
def test_a_url_is_parsed_and_written_again(url: str, query: SomaUrl):
    assert SomaUrl.parse(url) == query
    assert SomaUrl.parse(str(query)) == query
    assert query.name == {"a.soma": "a"}.get(Path(query.uri).name, Path(query.uri).name)


def test_a_relative_path_is_written_as_an_absolute_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert SomaUrl.parse(str(SomaUrl("a/b", "RNA"))).uri == str(tmp_path / "a/b")


def test_what_an_experiment_does_not_have_is_named(experiment, tmp_path):
    for layer in ("X", "raw", "counts"):
        with raises("layer_missing", f"brain has no layer {layer!r}; it has 'data', 'processed'."):
            open_source(url_of(experiment), layer)
    with raises("soma_measurement", "brain has no measurement 'rna'; it has 'RNA', 'raw'."):
        open_source(url_of(experiment, measurement_name="rna"), "X")
    assert open_source(url_of(experiment, measurement_name="raw"), "data").n_var == 14
    with raises("obs_column_missing", "'age'", "'soma_joinid'"):
        tokenize(url_of(experiment), cells.make_args(tmp_path, obs_columns=["age"]))


@pytest.mark.parametrize(
    ("obs_value_filter", "reason"),
    [
        ("age == 1", "age"),
        ("tissue ==", "Could not parse"),
        ("tissue", "must be made up of one or more boolean expressions"),
        ("tissue == 3", "incompatible function arguments"),
        ("__import__('os').getcwd() == 'a'", "getcwd"),
    ],
)
def test_a_filter_that_cannot_be_used_is_named(experiment, obs_value_filter, reason):
    with raises("soma_filter", repr(obs_value_filter), reason) as caught:
        open_source(url_of(experiment, obs_value_filter), "processed")
    assert "tiledbsoma/" not in str(caught.value)


def test_a_filter_that_selects_nothing_is_an_error(experiment):
    with raises("soma_no_cells", "tissue == 'heart'", "brain"):
        open_source(url_of(experiment, "tissue == 'heart'"), "processed")


def test_a_dense_layer_is_refused(soma, tmp_path):
    adata = made()
    adata.X = adata.X.toarray()
    del adata.layers["processed"], adata.raw
    path = write(soma, adata, tmp_path / "dense", X_kind=soma.DenseNDArray)
    with raises("soma_dense", "'data'", "dense"):
        open_source(url_of(path), "data")


def test_what_is_no_experiment_is_named(experiment, tmp_path):
    for path in (tmp_path / "nothing", tmp_path, experiment / "obs", experiment / "ms/RNA"):
        with raises("soma_unreadable", str(path)):
            open_source(url_of(path), "processed")


def test_a_damaged_array_is_an_error(soma, tmp_path):
    path = write(soma, made(), tmp_path / "brain")
    (data,) = (path / "ms/RNA/X/processed/__fragments").glob("*/a0.tdb")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with raises("soma_unreadable", "brain"):
        tokenize(url_of(path), cells.make_args(tmp_path))


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiledbsoma", None)
    with raises("soma_extra", "pip install 'teddytok-rs[soma]'"):
        open_source("soma:///data/brain?measurement_name=RNA", "raw")


def test_a_cell_with_nan_is_named(soma, tmp_path):
    x = cells.make_counts(8)
    x[5, 2] = np.nan
    path = write_plain(soma, tmp_path / "plain", x, range(10, 18), range(12))
    with raises("not_finite", "cell '15' (row 5 of plain, layer 'raw')", cells.GENES[2]):
        tokenize(url_of(path), cells.make_args(tmp_path, layer="raw", gene_id_column="feature_id"))
