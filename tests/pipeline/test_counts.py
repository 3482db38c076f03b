"""Which layer ``auto`` takes, what is said of values that do not fit, and what is counted on the source."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse

import cells
import oracle
from raises import raises
from teddytok_rs import Manifest, TokenizationArgs, check, iter_batches, tokenize, tokenize_corpus, tokenize_to_disk
from teddytok_rs.cli import cli
from teddytok_rs.engines.arrow import ArrowTokenizer
from teddytok_rs.mapping.build_vocabulary import build_vocabulary
from teddytok_rs.sources.counts import BLOCK_ROWS, BLOCKS, sample_spans
from teddytok_rs.sources.open import open_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLDEN = Path(__file__).parents[1] / "golden"
ALL_RAW = [*cells.RAW_GENES, *cells.GENES]
#: Rows enough that a sample leaves some out, and one that it leaves out.
MANY, LATE = 400, 203
#: What no layer of counts holds.
SCALED = cells.make_counts(8, 12, seed=20) - np.float32(0.5)


def drawn(seed: int, n_genes: int = len(cells.GENES)) -> NDArray[np.float32]:
    return cells.make_counts(8, n_genes, seed=seed)


def made(raw: Any = None, counts: Any = None, x: Any = None, **layers: Any) -> ad.AnnData:
    """Cells that hold what is given, and nothing where nothing is."""
    n_cells = next(len(matrix) for matrix in (x, counts, raw, *layers.values()) if matrix is not None)
    obs = pd.DataFrame(index=[f"cell-{row}" for row in range(n_cells)])
    adata = ad.AnnData(None if x is None else sparse.csr_matrix(x), obs=obs, var=pd.DataFrame(index=cells.GENES))
    if raw is not None:
        adata.raw = ad.AnnData(sparse.csr_matrix(raw), obs=obs, var=pd.DataFrame(index=ALL_RAW))
    for name, matrix in {**layers, **({} if counts is None else {"counts": counts})}.items():
        adata.layers[name] = sparse.csr_matrix(matrix)
    return adata


def stored(adata: ad.AnnData, container: str, folder: Path) -> Any:
    if container == "memory":
        return adata
    path = cells.save(adata, folder / f"cells.{'h5ad' if container == 'backed' else container}")
    return ad.read_h5ad(path, backed="r") if container == "backed" else path


def expected(counts: NDArray[Any]) -> list[Any]:
    """Tokens of cells whose first kept gene is the first of `cells.GENES`, which comes last but for these."""
    return oracle.tokenize_matrix(counts[:, -12:-2], cells.GENE_TOKENS, max_seq_len=8)


CHOICES = {
    "raw": {"raw": drawn(1, 14), "counts": drawn(2), "x": drawn(3)},
    "counts": {"raw": np.log1p(drawn(1, 14)), "counts": drawn(2), "x": drawn(3)},
    "X": {"raw": -drawn(1, 14), "counts": SCALED, "x": drawn(3)},
}
CONTAINERS = pytest.mark.parametrize("container", ["memory", "backed", "h5ad", "zarr"])


# ---- which layer


@CONTAINERS
@pytest.mark.parametrize("layer", CHOICES)
def test_auto_takes_the_first_layer_of_whole_numbers(layer: str, container: str, tmp_path: Path, caplog):
    place = {"raw": "raw.X", "counts": "layers['counts']", "X": "X"}[layer]
    source = stored(made(**CHOICES[layer]), container, tmp_path)
    args = cells.make_args(tmp_path, layer="auto")
    with caplog.at_level(logging.INFO, logger="teddytok_rs"):
        assert cells.sequences(source, args) == expected(CHOICES[layer][layer.lower()])
    assert f"layer = 'auto' takes {place}, which holds counts" in caplog.text
    manifest = tokenize_to_disk(source, args, tmp_path / "out", name="n", threads=1)
    read = Manifest.read(manifest.path)
    assert (read.source["layer"], read.configuration["layer"]) == (layer, "auto")
    assert check(source, args, threads=1).layer == layer


@pytest.mark.parametrize("container", ["memory", "h5ad", "zarr"])
def test_auto_passes_over_layers_that_do_not_exist(container: str, tmp_path: Path):
    source = stored(made(x=drawn(3)), container, tmp_path)
    assert open_source(source, "auto").layer == "X"


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "int16", "uint8", "bool"])
def test_auto_takes_counts_however_they_are_stored(kind: str, tmp_path: Path):
    counts = np.minimum(drawn(3), 1) if kind == "bool" else drawn(3)
    matrix = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}.get(
        kind, lambda x: x.astype(kind)
    )
    adata = made(x=np.log1p(counts))
    adata.layers["counts"] = matrix(counts)
    for container in ("memory", "h5ad"):
        source = stored(adata, container, tmp_path)
        assert cells.sequences(source, cells.make_args(tmp_path, layer="auto")) == expected(counts)


@pytest.mark.parametrize("container", ["memory", "h5ad", "zarr"])
def test_without_counts_the_error_says_what_each_layer_holds(container: str, tmp_path: Path):
    holey = drawn(3)
    holey[2, 2] = np.nan
    source = stored(made(raw=np.log1p(drawn(1, 14)), x=holey), container, tmp_path)
    said = (
        "raw.X holds values that are not whole numbers; layers['counts'] does not exist; X holds NaN or infinity",
        "Set layer (--layer)",
    )
    for function in (tokenize, check):
        with raises("no_counts", *said):
            function(source, cells.make_args(tmp_path, layer="auto"))
    with raises("no_counts", *said):
        build_vocabulary([source], tmp_path / "v", layer="auto")
    source = stored(made(counts=-drawn(2), x=SCALED), container, tmp_path)  # the file is not open any more
    with raises(
        "no_counts", "layers['counts'] holds negative values; X holds values that are not whole numbers and neg"
    ):
        tokenize(source, cells.make_args(tmp_path, layer="auto"))


def test_a_layer_of_text_is_no_layer_of_counts(tmp_path: Path):
    adata = made(x=drawn(3))
    adata.layers["counts"] = np.full((8, 12), "a")
    assert cells.sequences(adata, cells.make_args(tmp_path, layer="auto")) == expected(drawn(3))
    adata.X = np.log1p(adata.X)
    with raises("no_counts", "layers['counts'] holds values of type <U1"):
        tokenize(adata, cells.make_args(tmp_path, layer="auto"))


@pytest.mark.parametrize("container", ["memory", "h5ad", "zarr"])
def test_a_prefix_reaches_layers_of_names_that_mean_something_else(container: str, tmp_path: Path):
    layers = {"auto": drawn(4), "X": drawn(5), "raw": drawn(6), "processed": drawn(7)}
    adata = made(raw=drawn(1, 14), x=drawn(3))
    for name, counts in layers.items():
        adata.layers[name] = sparse.csr_matrix(counts)
    source = stored(adata, container, tmp_path)
    for name, counts in layers.items():
        args = cells.make_args(tmp_path, layer=f"layers/{name}", bins=3)
        assert [ids for ids, _ in cells.sequences(source, args)] == [ids for ids, _ in expected(counts)]
    for name, counts in (("processed", drawn(7)), ("X", drawn(3)), ("raw", drawn(1, 14))):
        assert cells.sequences(source, cells.make_args(tmp_path, layer=name)) == expected(counts)
    with raises(
        "layer_missing", "no layer 'counts'", "'layers/auto'", "'layers/X'", "'layers/raw'", "'processed'", "'X'"
    ):
        tokenize(source, cells.make_args(tmp_path, layer="counts"))  # of raw.X and X it says nothing
    with raises("layer_missing", "no layer 'counts'"):
        tokenize(source, cells.make_args(tmp_path, layer="layers/counts"))


# ---- every value is a count


def late(value: float, column: int, *, dense: bool = False) -> ad.AnnData:
    """Counts but for one value in a row that no sample has."""
    assert all(not start <= LATE < stop for start, stop in sample_spans(MANY))
    counts = cells.make_counts(MANY)
    counts[LATE, column] = value
    adata = made(x=counts)
    if dense:
        adata.X = counts
    return adata


@pytest.mark.parametrize("n_rows", [0, 1, 63, 64, 65, 100, 10_000])
def test_a_sample_has_the_first_row_and_the_last_and_no_row_twice(n_rows: int):
    rows = [row for start, stop in sample_spans(n_rows) for row in range(start, stop)]
    assert len(rows) == len(set(rows)) == min(n_rows, BLOCKS * BLOCK_ROWS)
    assert set(rows) <= set(range(n_rows))
    assert not rows or (rows[0], rows[-1]) == (0, n_rows - 1)


@pytest.mark.parametrize("column", [3, 11], ids=["kept", "dropped"])
@pytest.mark.parametrize(("value", "dense"), [(0.5, False), (-2, True), (np.nan, False), (np.inf, True)])
def test_a_value_beyond_the_sample_that_is_no_count_is_an_error(value: float, dense: bool, column: int, tmp_path: Path):
    source = late(value, column, dense=dense)
    args = cells.make_args(tmp_path, layer="auto", normalize_total=1e4, max_shard_samples=100)
    gene = cells.GENES[column]
    said = f"cell 'cell-{LATE}' (row {LATE} of AnnData, layer 'X') has the value {float(value)} for gene '{gene}'"
    with raises("not_a_count", said):
        tokenize(source, args, threads=1)
    with raises("not_a_count", said):
        list(iter_batches(source, args, threads=1))
    with raises("not_a_count", said):
        tokenize_to_disk(source, args, tmp_path / "out", threads=1)
    assert not (tmp_path / "out" / "anndata" / "state.json").exists()
    assert any(said in problem for problem in check(source, args, threads=1).problems)
    without = [row for row in range(MANY) if row != LATE]
    source.obs["good"] = np.arange(MANY) != LATE
    steps = {"normalize_total": 1e4, "max_seq_len": 8, "position_of_column": np.array([*range(10), -1, -1])}
    wanted = oracle.tokenize_matrix(source.to_df().to_numpy()[without], cells.GENE_TOKENS, **steps)
    assert cells.sequences(source, args | {"cell_filter": "good"}) == wanted


def test_engines_refuse_it_too(tmp_path: Path):
    path = cells.save(late(0.5, 3), tmp_path / "late.h5ad")
    args = cells.make_args(tmp_path, layer="auto", normalize_total=1e4)
    said = f"cell 'cell-{LATE}' (row {LATE} of late.h5ad, layer 'X') has the value 0.5 for gene '{cells.GENES[3]}'"
    with ThreadPoolExecutor(1) as executor:
        (failed,) = tokenize_corpus([path], args, tmp_path / "corpus", executor=executor).failed
    assert failed.error is not None
    assert failed.error["kind"] == "not_a_count"
    assert said in failed.error["message"]
    batch = pa.table({"indices": [[0, 1]], "data": [[2.0, 1.5]]})
    with raises("not_a_count", "has the value 1.5 for gene"):
        ArrowTokenizer(args, cells.GENES)(batch)
    assert ArrowTokenizer(args | {"layer": "X"}, cells.GENES)(batch).num_rows == 1


def test_loaders_refuse_it_too(tmp_path: Path):
    pytest.importorskip("torch")
    from teddytok_rs.torch import OnTheFlyDataset

    path = cells.save(late(0.5, 3), tmp_path / "late.h5ad")
    dataset = OnTheFlyDataset(path, cells.make_args(tmp_path, layer="auto", log1p=True), shuffle=False)
    with raises("not_a_count", f"cell 'cell-{LATE}' (row {LATE} of late.h5ad, layer 'X') has the value 0.5"):
        list(dataset)


def test_negative_integers_are_no_counts(tmp_path: Path):
    counts = cells.make_counts(MANY).astype(np.int32)
    counts[LATE, 11] = -1
    source = made(x=counts)
    with raises("not_a_count", f"has the value -1 for gene '{cells.GENES[11]}'"):
        tokenize(source, cells.make_args(tmp_path, layer="auto"), threads=1)
    assert tokenize(source, cells.make_args(tmp_path, layer="X"), threads=1).num_rows == MANY


def test_a_column_beyond_the_genes_is_the_fault_of_the_matrix(tmp_path: Path):
    path = cells.save(late(0.5, 3), tmp_path / "late.h5ad")
    import h5py

    with h5py.File(path, "r+") as file:
        x = file["X"]
        x["indices"][np.flatnonzero(x["data"][:] == 0.5)[0]] = 99
    with raises("matrix_malformed", "a column index is negative or beyond the number of genes"):
        tokenize(path, cells.make_args(tmp_path, layer="auto"), threads=1)


# ---- warnings


LOGS = np.log1p(cells.make_counts(8))


def medians(tmp_path: Path) -> str:
    return cells.write_json(tmp_path / "medians.json", dict.fromkeys(cells.GENES, 2.0))


@pytest.mark.parametrize("step", ["normalize_total", "median_dict", "log1p"])
def test_each_step_warns_of_values_that_are_no_counts(step: str, tmp_path: Path):
    value = {"normalize_total": 1e4, "median_dict": medians(tmp_path), "log1p": True}[step]
    args = cells.make_args(tmp_path, layer="X", max_seq_len=12, **{step: value})
    where = "layer 'X' of AnnData holds"
    what = f"values that are not whole numbers, but {step} starts from raw counts"
    assert check(made(x=LOGS), args).warnings == [f"{where} {what}"]
    assert check(made(x=LOGS, raw=drawn(1, 14)), args).warnings == [
        f"{where} {what}. Set layer (--layer) to 'raw', which holds counts"
    ]
    assert check(made(x=LOGS, counts=drawn(2), raw=np.log1p(drawn(1, 14)), a=drawn(3)), args).warnings == [
        f"{where} {what}. Set layer (--layer) to 'counts', which holds counts"
    ]
    assert check(made(x=LOGS, counts=SCALED, umis=drawn(3)), args).warnings == [
        f"{where} {what}. Set layer (--layer) to 'umis', which holds counts"
    ]
    assert check(made(x=drawn(3)), args).warnings == []
    below = drawn(3)
    below[below == 1] = -0.0
    assert check(made(x=below), args).warnings == []
    if step != "log1p":  # which cannot be taken of them
        assert check(made(x=-drawn(3)), args).warnings == [
            f"{where} negative values, but {step} starts from raw counts"
        ]


def test_a_preset_warns_too_where_another_layer_is_set(tmp_path: Path):
    files = {"tokenizer_name_or_path": cells.write_vocabulary(tmp_path / "v"), "median_dict": medians(tmp_path)}
    source = cells.save(made(raw=drawn(1, 14), x=LOGS), tmp_path / "cells.h5ad")
    args = TokenizationArgs.preset("teddy-g", files, layer="X")
    assert check(source, args).warnings == [
        "layer 'X' of cells.h5ad holds values that are not whole numbers, but normalize_total and median_dict start "
        "from raw counts. Set layer (--layer) to 'raw', which holds counts"
    ]
    assert check(source, TokenizationArgs.preset("teddy-g", files)).warnings == []


def surprising(tmp_path: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """A file and arguments that give warnings of every part of a run, and these."""
    counts = cells.make_counts(8)
    counts[:, -1] = 100  # a gene that is not in the vocabulary
    adata = made(raw=np.hstack([drawn(2, 2), counts]), x=np.log1p(counts))
    adata.obs["disease"] = ["a", "b"] * 4
    for column in ("tissue", "cell_type", "sex"):
        adata.obs[column] = cells.LABELS[column][0]
    path = cells.save(adata, tmp_path / "cells.h5ad")
    args = cells.make_args(tmp_path, layer="X", log1p=True, gene_seed=1, bio_annotations=True, max_seq_len=12)
    x = np.log1p(counts).astype(np.float64)
    lost = x[:, 10:].sum() / x.sum()
    return (
        path,
        args,
        [
            "gene_seed = 1 changes nothing without random_genes",
            "no label of obs column 'disease' of cells.h5ad has a token: all 8 cells get the unknown token (such "
            "labels are 'a', 'b')",
            "layer 'X' of cells.h5ad holds values that are not whole numbers, but log1p starts from raw counts. Set "
            "layer (--layer) to 'raw', which holds counts",
            f"{lost:.1%} of the expression of cells.h5ad is in genes that are not in the vocabulary",
        ],
    )


def test_one_list_of_warnings_is_shown_everywhere(tmp_path: Path, caplog, capsys):
    pytest.importorskip("jinja2")
    source, args, warnings = surprising(tmp_path)
    assert check(source, args, threads=1).warnings == warnings
    assert not caplog.records, "check returns them instead"
    config = cells.write_json(tmp_path / "args.json", args)
    words = ["tokenize", str(source), "-c", config, "-o", str(tmp_path / "out"), "--threads", "1"]
    cli.main([*words, "--report"], standalone_mode=False)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == warnings
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line.removeprefix("warning").strip() for line in lines if line.startswith("warning")] == warnings
    manifest = Manifest.read(tmp_path / "out" / "cells")
    assert manifest.warnings == warnings
    assert json.loads((manifest.path / "teddytok.json").read_text(encoding="utf-8"))["warnings"] == warnings
    page = (manifest.path / "report.html").read_text(encoding="utf-8")
    shown = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert shown["warnings"] == warnings
    assert page.count("<li>gene_seed = 1 changes nothing without random_genes</li>") == 1
    cli.main([*words, "--json"], standalone_mode=False)  # of a finished dataset
    assert json.loads(capsys.readouterr().out)["sources"][0]["warnings"] == warnings
    cli.main(["check", str(source), "-c", config, "--json", "--threads", "1"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["sources"][0]["warnings"] == warnings
    caplog.clear()
    tokenize(source, args, threads=1)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == warnings


def test_the_summary_names_the_layer_that_was_chosen(tmp_path: Path, capsys):
    source = cells.save(made(raw=drawn(1, 14), x=LOGS), tmp_path / "cells.h5ad")
    config = cells.write_json(tmp_path / "args.json", cells.make_args(tmp_path, layer="auto", log1p=True))
    for words in (["check"], ["tokenize", "-o", str(tmp_path / "out")]):
        cli.main([*words, str(source), "-c", config, "--threads", "1"], standalone_mode=False)
        assert "layer      raw (chosen by layer = 'auto')" in capsys.readouterr().out.replace("layer   ", "layer   ")
        cli.main([*words, str(source), "-c", config, "--threads", "1", "--json"], standalone_mode=False)
        assert json.loads(capsys.readouterr().out)["sources"][0]["layer"] == "raw"


def test_half_of_the_expression_outside_the_vocabulary_is_no_warning_yet(tmp_path: Path):
    counts = np.zeros((2, 12), np.float32)
    counts[:, [0, 11]] = 5
    args = cells.make_args(tmp_path, layer="X", bins=3)
    assert check(made(x=counts), args).warnings == []
    counts[0, 10] = 1
    share = "52.4% of the expression of AnnData is in genes that are not in the vocabulary"
    assert check(made(x=counts), args).warnings == [share]
    assert tokenize_to_disk(made(x=counts), args, tmp_path / "out").warnings == [share]


def test_an_annotation_with_one_known_label_is_no_warning(tmp_path: Path):
    adata = cells.make_cells(disease=["normal", "a", "b", "c", "d", "e"])
    args = cells.make_args(tmp_path, bio_annotations=True)
    assert check(adata, args).warnings == []
    adata.obs["disease"] = "unheard of"
    assert len(check(adata, args).warnings) == 1


def test_a_manifest_of_0_1_0_has_no_warnings_and_is_read(tmp_path: Path):
    folders = [path.parent for path in (GOLDEN / "0.1.0").rglob("teddytok.json")]
    assert folders
    assert all("warnings" not in json.loads((path / "teddytok.json").read_text("utf-8")) for path in folders)
    assert all(Manifest.read(path).warnings == [] for path in folders)
    document = json.loads((folders[0] / "teddytok.json").read_text("utf-8"))
    for wrong in ("text", [1], None):
        cells.write_json(tmp_path / "teddytok.json", document | {"warnings": wrong})
        with raises("output_unreadable", "warnings"):
            Manifest.read(tmp_path)


# ---- one scan


def truncated_by_hand(x: NDArray[Any], positions: NDArray[Any], args: dict[str, Any]) -> int:
    """Count the cells with more nonzero genes to select from than a sequence holds, gene by gene."""
    n_genes = positions.max() + 1
    n_selected = args["max_seq_len"] - args.get("add_cls", False)
    n_truncated = 0
    for row, columns in enumerate(x):
        genes = np.zeros(n_genes)
        np.add.at(genes, positions[positions >= 0], columns[positions >= 0])
        candidates = list(range(n_genes))
        if args.get("random_genes"):
            count = min(args.get("random_genes_count") or n_selected, n_genes)
            candidates = oracle.draw_genes(args["gene_seed"], row // args["batch_size"], n_genes, count)
        n_truncated += np.count_nonzero(genes[candidates]) > n_selected
    return int(n_truncated)


SCANS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sum": {"duplicate_genes": "sum"},
    "keep": {"duplicate_genes": "keep"},
    "bins": {"duplicate_genes": "sum", "bins": 5, "add_cls": True, "cls_token_id": 2},
    "zeros": {"include_zero_genes": True},
    "ranks": {"continuous_rank": True, "normalize_total": 1e4, "log1p": True},
    "random": {"random_genes": True, "random_genes_count": 9, "gene_seed": 3, "batch_size": 7},
    "random-all": {"random_genes": True, "gene_seed": 3, "batch_size": 7},
    "random-sum": {
        "duplicate_genes": "sum",
        "random_genes": True,
        "random_genes_count": 6,
        "gene_seed": 3,
        "batch_size": 9,
    },
}


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("name", SCANS)
def test_check_its_document_and_the_report_count_the_same_truncated_cells(name, dense, tmp_path: Path, capsys):
    pytest.importorskip("jinja2")
    args = {"max_seq_len": 4, "layer": "X", "max_shard_samples": 30, **SCANS[name]}
    twice = "duplicate_genes" in args
    ids = [f"g{i // 2 if twice else i}" for i in range(12)]  # six genes of two columns each
    vocabulary = cells.write_vocabulary(tmp_path / "v", ["<pad>", "<unk>", "<cls>", *dict.fromkeys(ids[:10])])
    args |= {"tokenizer_name_or_path": vocabulary, "gene_id_column": "gene"}
    counts = cells.make_counts(77, seed=8)
    counts[5] = 0
    adata = ad.AnnData(
        counts if dense else sparse.csr_matrix(counts), var=pd.DataFrame({"gene": ids}, index=cells.GENES)
    )
    adata.obs_names = [f"c{i}" for i in range(77)]
    positions = np.array([*(i // 2 if args.get("duplicate_genes") == "sum" else i for i in range(10)), -1, -1])
    by_hand = truncated_by_hand(counts, positions, args)
    assert (0 < by_hand < 77) != (name == "random-all")
    found = check(adata, args, threads=2)
    manifest = tokenize_to_disk(adata, args, tmp_path / "out", threads=2, report=True)
    page = (manifest.path / "report.html").read_text(encoding="utf-8")
    reported = json.loads(page.split('id="data">')[1].split("</script>")[0])["source"]
    path, config = cells.save(adata, tmp_path / "c.h5ad"), cells.write_json(tmp_path / "args.json", args)
    cli.main(["check", str(path), "-c", config, "--json", "--threads", "1"], standalone_mode=False)
    document = json.loads(capsys.readouterr().out)["sources"][0]
    assert (found.n_truncated, document["cells_truncated"], reported["truncated"]) == (by_hand,) * 3
    lengths = [len(ids) for ids in tokenize(adata, args, threads=1)["gene_ids"].to_pylist()]
    assert found.n_tokens == document["tokens"] == manifest.n_tokens == sum(lengths)
    assert found.n_empty == sum(length == bool(args.get("add_cls")) for length in lengths)
    assert found.n_empty > 0 or args.get("include_zero_genes")
    lost = counts[:, 10:].sum(dtype=float) / counts.sum(dtype=float)
    assert found.expression_lost == pytest.approx(lost)
    assert manifest.expression_lost == pytest.approx(lost)
    assert [share for _, share in found.lost_genes] == pytest.approx([gene["share"] for gene in reported["lost_genes"]])


def test_a_cell_that_cannot_be_tokenized_is_a_problem_and_all_else_is_counted(tmp_path: Path):
    counts = cells.make_counts(2500)
    counts[1500, 2] = np.inf
    counts[7, 11] = np.nan  # of a dropped gene
    found = check(made(x=counts), cells.make_args(tmp_path, layer="X", max_seq_len=4), threads=1)
    (problem,) = found.problems
    assert "1 cell has NaN or infinity in kept genes: 'cell-1500'" in problem
    n_genes = (counts[:, :10] != 0).sum(axis=1)[[*range(1000), *range(2000, 2500)]]  # not those of its record batch
    assert found.n_truncated == (n_genes > 4).sum()


def test_a_report_cannot_be_changed_by_accident(tmp_path: Path):
    found = check(made(x=drawn(1)), cells.make_args(tmp_path, layer="X"))
    with pytest.raises(AttributeError):
        found.n_cells = 3  # type: ignore[misc]


# ---- many sources


def test_check_of_many_sources_refuses_what_tokenize_does(tmp_path: Path, monkeypatch, capsys):
    """Two sources of one stem, and labels that are classes in one and numbers in the other."""
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        cells.save(cells.make_cells(), tmp_path / folder / "same.h5ad")
    adata = cells.make_cells()
    cells.save(adata[adata.obs["cell_type"] != "B cell"].copy(), tmp_path / "fewer.h5ad")
    cells.save(cells.make_cells(cell_type=range(6)), tmp_path / "numbers.h5ad")
    config = cells.write_json(tmp_path / "args.json", cells.make_args(tmp_path, label_column="cell_type"))
    for command in (["check"], ["tokenize", "-o", "out"]):
        with raises("config_conflict", "would be written to one place"):
            cli.main([*command, "a/same.h5ad", "b/same.h5ad", "-c", config], standalone_mode=False)
        capsys.readouterr()
        assert cli.main([*command, "a/same.h5ad", "fewer.h5ad", "-c", config], standalone_mode=False) == 0
        words = [*command, "a/same.h5ad", "numbers.h5ad", "-c", config, "--json"]
        assert cli.main(words, standalone_mode=False) in {1, 2}
        assert "obs column 'cell_type' of numbers.h5ad holds numbers (int64)" in capsys.readouterr().out
    assert cli.main(["check", "a/same.h5ad", "-c", config], standalone_mode=False) == 0
