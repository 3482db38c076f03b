"""Medians of genes are those that NumPy gives of the joined matrix, for any order, chunks, threads and formats."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

import cells
import oracle
import strategies
import teddytok_rs
from command_line import teddytok
from raises import raises
from teddytok_rs import _core
from teddytok_rs.errors import KernelError
from teddytok_rs.pipeline import medians as module

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

#: Of a source: its values (n_cells, n_genes) and the id of each column.
Joined = list[tuple["NDArray[Any]", list[str]]]


def values_of_genes(sources: Joined, normalize_total: float | None) -> dict[str, NDArray[np.float32]]:
    """Normalise each row, and collect the nonzero values of each gene, sorted."""
    found: dict[str, list[np.float32]] = {}
    for matrix, genes in sources:
        for gene in genes:
            found.setdefault(gene, [])
        for row in matrix:
            processed = oracle.normalize(row, normalize_total=normalize_total).astype(np.float32)
            for gene, value in zip(genes, processed, strict=True):
                if value != 0:
                    found[gene].append(value)
    return {gene: np.sort(np.array(values, dtype=np.float32)) for gene, values in sorted(found.items())}


def expected(sources: Joined, normalize_total: float | None, min_cells: int = 1) -> dict[str, float]:
    """Compute the medians: the mean of the middle values in float64, as float32."""
    medians = {}
    for gene, values in values_of_genes(sources, normalize_total).items():
        if len(values) >= min_cells:
            lower, upper = np.float64(values[(len(values) - 1) // 2]), np.float64(values[len(values) // 2])
            medians[gene] = float(np.float32((lower + upper) / 2))
            if lower == upper or max(lower, upper) < 1e30:  # where NumPy's own sum in float32 does not overflow
                assert np.median(values) == pytest.approx(medians[gene], rel=1e-6, abs=1e-44)
    return medians


@st.composite
def joined_sources(draw: st.DrawFn) -> list[tuple[strategies.Matrix, list[str]]]:
    """One to three matrices of any number type, whose genes overlap."""
    sources = []
    for _ in range(draw(st.integers(1, 3))):
        matrix = draw(strategies.matrices(non_negative=True))
        genes = draw(st.permutations([f"g{number}" for number in range(14)]))
        sources.append((matrix, list(genes[: matrix.n_genes])))
    return sources


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data(), sources=joined_sources(), normalize_total=st.sampled_from([None, 1e4, 0.37]))
def test_medians_are_those_of_the_joined_matrix(
    data: st.DataObject, sources: list[tuple[strategies.Matrix, list[str]]], normalize_total: float | None
):
    joined: Joined = [(matrix.dense, genes) for matrix, genes in sources]
    with np.errstate(over="ignore"):
        assume(all(np.isfinite(matrix.astype(np.float32)).all() for matrix, _ in joined))
        assume(all(np.isfinite(oracle.row_total(row)) for matrix, _ in joined for row in matrix))
    min_cells = data.draw(st.integers(1, 3))
    given_sources = [
        cells.with_layer(matrix.csr if data.draw(st.booleans()) else matrix.dense, genes) for matrix, genes in sources
    ]
    with mock.patch.object(module, "TABLE_BYTES", data.draw(st.sampled_from([0, 300, 2000, 2**20]))):
        built = teddytok_rs.build_medians(
            data.draw(st.permutations(given_sources)),
            layer="processed",
            normalize_total=normalize_total,
            min_cells=min_cells,
            threads=data.draw(st.integers(1, 3)),
            chunk_bytes=data.draw(st.sampled_from([1, 100, 10_000])),
        )
    assert built.medians == expected(joined, normalize_total, min_cells)
    counted = {gene: len(values) for gene, values in values_of_genes(joined, normalize_total).items()}
    assert {gene: found.nonzero for gene, found in built.genes.items()} == counted
    assert list(built.genes) == sorted(counted)
    for gene, found in built.genes.items():
        assert found.cells == sum(len(matrix) for matrix, genes in joined if gene in genes)


def counts_of(n_cells: int, genes: Sequence[str], seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.poisson(rng.gamma(0.5, 3, size=(n_cells, len(genes))))).astype(np.float32)


GENES_OF = {"one": cells.GENES[:9], "two": cells.GENES[3:]}


@pytest.fixture
def two(tmp_path: Path) -> tuple[Joined, list[Path]]:
    """Two files of counts with different genes, in ``X``."""
    joined, paths = [], []
    for seed, (name, genes) in enumerate(GENES_OF.items()):
        matrix = counts_of(1100 - 400 * seed, genes, seed)
        made = cells.with_layer(sparse.csr_matrix(matrix), genes)
        made.X = made.layers.pop("processed")
        paths.append(cells.save(made, tmp_path / f"{name}.h5ad"))
        joined.append((matrix, genes))
    return joined, paths


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_matrix, np.asarray], ids=["csr", "csc", "dense"])
@pytest.mark.parametrize("dtype", ["float64", "uint16"])
def test_every_format_gives_the_same_medians(make: Any, suffix: str, dtype: str, tmp_path: Path):
    if suffix == ".zarr":
        pytest.importorskip("zarr", reason="zarr is not installed")
    matrix = counts_of(300, cells.GENES, 7).astype(dtype)
    path = cells.save(cells.with_layer(make(matrix)), tmp_path / f"cells{suffix}")
    built = teddytok_rs.build_medians(path, layer="processed", normalize_total=1e4, threads=2, chunk_bytes=4000)
    assert built.medians == expected([(matrix, cells.GENES)], 1e4)


def test_the_command_writes_medians_that_tokenizing_takes(two: tuple[Joined, list[Path]], tmp_path: Path):
    joined, paths = two
    words = ["medians", "build", *paths, "--layer", "auto", "--normalize-total", "10000", "--out", tmp_path / "m.json"]
    done = teddytok(*words, "--min-cells", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert written == expected(joined, 1e4)
    assert list(written) == sorted(written)
    document = json.loads(done.stdout)
    assert document["command"] == "medians build"
    assert (document["cells"], document["genes"], document["genes_left_out"]) == (1800, 12, 0)
    assert [source["layer"] for source in document["sources"]] == ["X", "X"]
    report = json.loads((tmp_path / "m.report.json").read_text(encoding="utf-8"))
    assert document["report"] == str(tmp_path / "m.report.json")
    assert report["settings"]["normalize_total"] == 1e4
    assert [source["name"] for source in report["sources"]] == ["one.h5ad", "two.h5ad"]
    assert all(len(source["stamp"]) == len(source["fingerprint"]) == 64 for source in report["sources"])
    values = values_of_genes(joined, 1e4)
    assert {gene: found["nonzero"] for gene, found in report["genes"].items()} == {
        gene: len(found) for gene, found in values.items()
    }
    assert report["genes"][cells.GENES[0]]["cells"] == 1100
    assert report["genes"][cells.GENES[5]]["cells"] == 1800
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "m.report.json", "one.h5ad", "two.h5ad"]

    args = cells.make_args(
        tmp_path, layer="X", normalize_total=1e4, median_dict=str(tmp_path / "m.json"), min_gene_overlap=0.0
    )
    matrix, genes = joined[0]
    kept = [gene in cells.KEPT for gene in genes]
    positions = np.where(kept, np.cumsum(kept) - 1, -1)
    wanted = oracle.tokenize_matrix(
        matrix[:50],
        [cells.TOKEN[gene] for gene in genes if gene in cells.KEPT],
        max_seq_len=8,
        position_of_column=positions,
        normalize_total=1e4,
        inverse_medians=1 / np.array([written[gene] for gene in genes]),
    )
    assert cells.sequences(paths[0], args)[:50] == [(ids, values) for ids, values in wanted]


def test_the_command_prints_what_the_result_says(two: tuple[Joined, list[Path]], tmp_path: Path):
    done = teddytok("medians", "build", str(tmp_path / "*.h5ad"), "--out", tmp_path / "new" / "m.json")
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert done.stdout.startswith(f"{tmp_path / 'new' / 'm.json'}: 12 genes, 1,800 cells of 2 sources")
    assert ["layer", "X (chosen by layer = 'auto')"] in lines
    assert ["values", "as stored, not normalised"] in lines
    assert json.loads((tmp_path / "new" / "m.json").read_text(encoding="utf-8")) == expected(two[0], None)


def test_genes_are_joined_by_the_id_that_is_asked_for(tmp_path: Path):
    one = cells.with_layer(counts_of(40, cells.GENES, 1))
    two = cells.with_layer(counts_of(30, cells.GENES, 2))
    one.var["id"] = [f"{gene}.{number}" for number, gene in enumerate(cells.GENES)]
    two.var["id"] = [f"{gene}.9" for gene in reversed(cells.GENES)]
    two.var.loc[cells.GENES[0], "id"] = None
    built = teddytok_rs.build_medians([one, two], layer="processed", gene_id_column="id", strip_gene_version=True)
    joined = [(one.layers["processed"], cells.GENES), (two.layers["processed"][:, 1:], cells.GENES[-2::-1])]
    assert built.medians == expected(joined, None)


def test_columns_of_one_gene_are_refused_added_up_or_kept():
    genes = [*cells.GENES[:11], cells.GENES[0]]
    made = cells.with_layer(counts_of(60, cells.GENES, 3))
    made.var["id"] = genes
    keys: dict[str, Any] = {"layer": "processed", "gene_id_column": "id"}
    with raises("duplicate_genes", cells.GENES[0]):
        teddytok_rs.build_medians(made, **keys)
    matrix = made.layers["processed"]
    summed = matrix[:, :11].copy()
    summed[:, 0] += matrix[:, 11]
    built = teddytok_rs.build_medians(made, duplicate_genes="sum", **keys)
    assert built.medians == expected([(summed, genes[:11])], None)
    built = teddytok_rs.build_medians(made, duplicate_genes="keep", **keys)
    assert built.medians == expected([(matrix, genes)], None)


def test_data_in_memory_without_cells_or_values_has_no_medians():
    empty = cells.with_layer(sparse.csr_matrix((0, 5), dtype=np.float32))
    zeros = cells.with_layer(sparse.csr_matrix((4, 5), dtype=np.float32))
    built = teddytok_rs.build_medians([empty, zeros], layer="processed", normalize_total=1e4)
    assert built.medians == {}
    assert {(gene.cells, gene.nonzero) for gene in built.genes.values()} == {(4, 0)}
    assert repr(built).startswith("medians: 0 genes, 4 cells of 2 sources")


# ---- interrupted builds


@contextmanager
def counted_sources(*, stop_at: int | None = None) -> Iterator[list[str]]:
    """List the sources that are counted, one pass after another; interrupt the build at one of them."""
    count, names = module._count_source, []

    def note(counter: Any, source: Any, *args: Any, **keys: Any) -> None:
        if len(names) == stop_at:
            raise KeyboardInterrupt
        names.append(source.report.name)
        count(counter, source, *args, **keys)

    with mock.patch.object(module, "_count_source", note):
        yield names


def test_an_interrupted_build_continues_with_the_pass(
    two: tuple[Joined, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "TABLE_BYTES", 12 * 8 * 2**8)  # digits of 8 bits
    out = tmp_path / "m.json"
    keys: dict[str, Any] = {"normalize_total": 1e4, "progress": False}
    with counted_sources(stop_at=3), pytest.raises(KeyboardInterrupt):
        teddytok_rs.build_medians(two[1], out, **keys)
    unfinished = tmp_path / "m.json.unfinished"
    assert {path.name for path in tmp_path.glob("m.*")} == {unfinished.name}
    with counted_sources() as names:
        built = teddytok_rs.build_medians(two[1], out, **keys)
    assert names == ["one.h5ad", "two.h5ad"]
    assert built.medians == json.loads(out.read_text(encoding="utf-8")) == expected(two[0], 1e4)
    assert not unfinished.exists()


def test_another_build_starts_from_the_first_pass(two: tuple[Joined, list[Path]], tmp_path: Path):
    out = tmp_path / "m.json"
    with counted_sources(stop_at=3), pytest.raises(KeyboardInterrupt):
        teddytok_rs.build_medians(two[1], out, normalize_total=1e4)
    with counted_sources() as names:
        built = teddytok_rs.build_medians(two[1][:1], out, normalize_total=1e4)
    assert names == ["one.h5ad"] * 2
    assert built.medians == expected(two[0][:1], 1e4)


KILLED = """
import os, signal, sys
import teddytok_rs
from teddytok_rs.pipeline import medians

count, calls = medians._count_source, []
def note(*args, **keys):
    calls.append(None)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    count(*args, **keys)
medians._count_source = note
teddytok_rs.build_medians(sys.argv[2:], sys.argv[1], normalize_total=1e4)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGKILL")
def test_a_killed_build_leaves_no_medians_and_is_continued(two: tuple[Joined, list[Path]], tmp_path: Path):
    out = tmp_path / "m.json"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(out), *map(str, two[1])], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.glob("m.*")} == {"m.json.unfinished"}
    with counted_sources() as names:
        built = teddytok_rs.build_medians(two[1], out, normalize_total=1e4)
    assert len(names) == 2
    assert built.medians == expected(two[0], 1e4)


# ---- errors


@pytest.mark.parametrize(("value", "kind"), [(-1.0, "negative_value"), (np.nan, "not_finite"), (np.inf, "not_finite")])
@pytest.mark.parametrize("make", [sparse.csr_matrix, np.asarray], ids=["csr", "dense"])
@pytest.mark.parametrize("normalize_total", [None, 1e4])
def test_a_value_without_a_meaning_is_named(make: Any, value: float, kind: str, normalize_total: float | None):
    matrix = cells.make_counts(2000)
    matrix[1500, 7] = matrix[1999, 3] = value
    with raises(kind, "'cell-1500'", "row 1,500", cells.GENES[7]):
        teddytok_rs.build_medians(
            cells.with_layer(make(matrix)), layer="processed", normalize_total=normalize_total, threads=2
        )


def test_auto_takes_counts_alone():
    counts = cells.make_counts(2000)
    counts[1500, 2] = 0.5
    made = cells.with_layer(sparse.csr_matrix(counts))
    made.layers["counts"] = made.layers.pop("processed")
    with raises("not_a_count", "'cell-1500'"):
        teddytok_rs.build_medians(made)


def test_values_beyond_float32_are_refused():
    made = cells.with_layer(np.full((3, 2), 1e300))
    with raises("too_large_for_float32", "cell-0"):
        teddytok_rs.build_medians(made, layer="processed")
    assert set(teddytok_rs.build_medians(made, layer="processed", normalize_total=1.0).medians.values()) == {0.5}
    with raises("normalized_not_finite", "cell-0"):
        teddytok_rs.build_medians(made, layer="processed", normalize_total=1e39)


def test_a_source_that_changes_is_an_error(two: tuple[Joined, list[Path]], tmp_path: Path):
    made = cells.with_layer(sparse.csr_matrix(counts_of(50, cells.GENES, 5)))
    matrix = made.layers["processed"]

    def spoil(path: Path | None) -> Any:
        count, calls = module._count_source, []

        def note(*args: Any, **keys: Any) -> None:
            calls.append(None)
            if len(calls) == 2 and path is None:
                matrix.data[:] = 1e6
            count(*args, **keys)
            if path is not None:
                os.utime(path, ns=(0, 0))

        return mock.patch.object(module, "_count_source", note)

    with spoil(None), raises("values_changed", "AnnData"):
        teddytok_rs.build_medians(made, layer="processed")
    with spoil(two[1][0]), raises("values_changed", "one.h5ad"):
        teddytok_rs.build_medians(two[1], tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("name", ["m.json", "m.report.json", "m.json.unfinished"])
@pytest.mark.parametrize("as_link", [False, True])
def test_a_file_that_exists_is_left_alone(name: str, as_link: bool, two: tuple[Joined, list[Path]], tmp_path: Path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine", encoding="utf-8")
    if as_link:
        (tmp_path / name).symlink_to(mine)
    else:
        mine.rename(tmp_path / name)
    with raises("medians_exist", name):
        teddytok_rs.build_medians(two[1], tmp_path / "m.json")
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"
    assert (tmp_path / name).is_symlink() == as_link


def test_arguments_that_are_not_valid_are_refused(two: tuple[Joined, list[Path]], tmp_path: Path):
    one = two[1][0]
    with raises("config_value", "min_cells"):
        teddytok_rs.build_medians(one, min_cells=0)
    with raises("config_value", "normalize_total"):
        teddytok_rs.build_medians(one, normalize_total=-1.0)
    with raises("config_value", "duplicate_genes"):
        teddytok_rs.build_medians(one, duplicate_genes="first")
    with raises("config_value", "sources"):
        teddytok_rs.build_medians("https://example.org/cells.h5ad")
    with raises("config_conflict", "given twice"):
        teddytok_rs.build_medians([one, str(one)])
    link = one.with_name("link.h5ad")
    link.symlink_to(one)
    with raises("config_conflict", "given twice", "link.h5ad"):
        teddytok_rs.build_medians([one, link])
    with raises("no_sources"):
        teddytok_rs.build_medians([])
    with raises("source_type"):
        teddytok_rs.build_medians(3)  # type: ignore[arg-type]
    with raises("output_url"):
        teddytok_rs.build_medians(one, "s3://bucket/m.json")
    with raises("output_failed"):
        teddytok_rs.build_medians(one, one / "m.json")
    with raises("layer_missing"):
        teddytok_rs.build_medians(one, layer="other")


def test_a_call_that_is_not_valid_is_refused():
    def counter() -> _core.MedianCounter:
        return _core.MedianCounter(2, max_bytes=100)

    rows, two = np.arange(1, dtype=np.int64), np.arange(2, dtype=np.int32)
    keys: dict[str, Any] = {"rows": rows, "position_of_column": two, "gene_of_position": two, "target_sum": None}
    x = np.ones((1, 2), dtype=np.float32)
    for change, argument in [
        ({"rows": rows - 1}, "rows"),
        ({"rows": np.arange(2)}, "rows"),
        ({"gene_of_position": two + 1}, "gene_of_position"),
        ({"gene_of_position": two - 1}, "gene_of_position"),
        ({"position_of_column": two[::-1].copy()}, "position_of_column"),
    ]:
        with pytest.raises(KernelError) as caught:
            counter().count_dense(x, **{**keys, **change})
        assert caught.value.args[::3] == ("kernel_argument", argument)
    with pytest.raises(KernelError, match="lengths_differ"):
        counter().count_dense(np.ones((1, 3)), **keys)
    with pytest.raises(KernelError, match="'x'"):
        counter().count_dense(np.ones((2, 2), order="F"), **{**keys, "rows": np.arange(2)})
    with pytest.raises(KernelError, match="column_out_of_range"):
        counter().count_csr(np.array([0, 1]), np.array([2]), np.ones(1), **keys)
    for state in (np.zeros(3, dtype=np.uint64), np.full(9, 2**63, dtype=np.uint64)):
        with pytest.raises(KernelError, match="state"):
            _core.MedianCounter(2, max_bytes=100, state=state)
    with pytest.raises(KernelError, match="n_genes"):
        _core.MedianCounter(2**31, max_bytes=100)
