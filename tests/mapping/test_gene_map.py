"""`gene_map` and `gene_filter`: which genes they map, drop and leave out, and what is reported of them."""

from __future__ import annotations

import dataclasses
import gzip
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import cells
import oracle
from command_line import teddytok
from raises import raises
from teddytok_rs import Manifest, TokenizationArgs, build_gene_map, check, tokenize, tokenize_to_disk
from teddytok_rs.engines.arrow import ArrowTokenizer
from teddytok_rs.output.manifest import Shard

if TYPE_CHECKING:
    import anndata as ad

IDS = dict(zip(cells.SYMBOLS, cells.GENES, strict=True))
#: Symbols of genes 0 to 9 -> their ids, of which that of gene 3 is ambiguous; those of genes 10 and 11 are not in it.
MAP = {**{symbol: [IDS[symbol]] for symbol in cells.SYMBOLS[:10]}, "MS4A1": [IDS["MS4A1"], "ENSG00000000001"]}


def with_symbols(**var: Any) -> ad.AnnData:
    """Cells that have symbols alone."""
    made = cells.make_cells()
    made.var = pd.DataFrame(var, index=cells.SYMBOLS)
    return made


def rows_of(table: list[tuple[str, str]], separator: str, head: str = "") -> str:
    return head + "".join(f"{separator.join(row)}\n" for row in table)


PAIRS = [(symbol, gene_id) for symbol, ids in MAP.items() for gene_id in ids]
TEN_X = [(gene_id, symbol, "Gene Expression") for symbol, gene_id in PAIRS]
#: Each form of a file: its name and its content.
FORMS = {
    "JSON": ("map.json", json.dumps(MAP)),
    "CSV": ("map.csv", rows_of(PAIRS, ",", "symbol,ensembl_id\n")),
    "CSV of Windows": ("map.csv", rows_of(PAIRS, ",", "symbol,ensembl_id\n").replace("\n", "\r\n")),
    "CSV in quotes": ("map.csv", rows_of([(f'"{name}"', f'"{one}"') for name, one in PAIRS], ",", '"a","b"\n')),
    "TSV": ("map.tsv", rows_of([*PAIRS, *PAIRS], "\t", "\ufeffsymbol\tid\n") + "\n"),
    "any name": ("map", rows_of(PAIRS, "\t", "symbol\tid\n")),
    "features.tsv": ("features.tsv", rows_of([*TEN_X, ("TP53", "TP53", "Antibody Capture")], "\t")),
    "features.tsv with places": ("features.tsv", rows_of([(*row, "chr1", "5", "9") for row in TEN_X], "\t")),
    "genes.tsv": ("genes.tsv", rows_of([row[:2] for row in TEN_X], "\t")),
}


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_map_gives_the_same_tokens(form: str, pack: bool, tmp_path: Path):
    name, text = FORMS[form]
    content = text.encode()
    path = tmp_path / (f"{name}.gz" if pack else name)
    path.write_bytes(gzip.compress(content) if pack else content)
    made = with_symbols()
    positions, tokens = oracle.match_genes(cells.SYMBOLS, cells.TOKEN, gene_map=MAP)
    assert (positions >= 0).tolist() == [column < 10 and column != 3 for column in range(12)]
    expected = oracle.tokenize_matrix(
        made.layers["processed"].toarray(), tokens, max_seq_len=8, position_of_column=positions
    )
    assert cells.sequences(made, cells.make_args(tmp_path, gene_map=path)) == expected


def test_a_features_file_maps_ids_to_symbols_where_the_vocabulary_has_symbols(tmp_path: Path):
    path = tmp_path / "features.tsv"
    path.write_text(rows_of(TEN_X[:3], "\t"), encoding="utf-8")
    args = {"tokenizer_name_or_path": cells.write_vocabulary(tmp_path / "v", cells.SYMBOLS), "gene_map": path}
    assert check(cells.make_cells(), args).genes.mapped == 3


GENE_IDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "g"])


@given(
    ids=st.lists(GENE_IDS | st.just(""), min_size=1, max_size=7, unique=True),
    tokens=st.lists(GENE_IDS, min_size=1, max_size=4, unique=True),
    gene_map=st.dictionaries(GENE_IDS, st.lists(GENE_IDS, min_size=1, max_size=3), min_size=1),
    keep=st.none() | st.lists(st.booleans(), min_size=7, max_size=7),
    keys=st.sampled_from([{}, {"normalize_total": 100.0}, {"bins": 3}, {"random_genes": True, "gene_seed": 3}]),
    layout=st.sampled_from(["dense", "csr"]),
)
def test_any_map_and_filter_give_the_tokens_of_the_oracle(
    ids: list[str],
    tokens: list[str],
    gene_map: dict[str, list[str]],
    keep: list[bool] | None,
    keys: dict[str, Any],
    layout: str,
):
    kept = None if keep is None else keep[: len(ids)]
    x = np.random.default_rng(len(ids)).integers(0, 4, (4, len(ids))).astype(np.float32)
    made = cells.with_layer(x if layout == "dense" else sparse.csr_matrix(x), ids)
    made.var["keep"] = True if kept is None else kept
    vocabulary = {token: number for number, token in enumerate(["<unk>", *tokens])}
    positions, expected_tokens = oracle.match_genes(
        ids, {gene: token for gene, token in vocabulary.items() if gene}, gene_map=gene_map, keep=kept
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        args = {
            "tokenizer_name_or_path": cells.write_vocabulary(folder / "v", list(vocabulary)),
            "gene_map": cells.write_json(folder / "map.json", gene_map),
            "gene_filter": None if kept is None else "keep",
            "duplicate_genes": "sum",
            "min_gene_overlap": 0,
            "max_seq_len": 3,
            **keys,
        }
        if not expected_tokens:
            with raises("gene_filter" if kept is not None and not any(kept) else "no_genes_match"):
                cells.sequences(made, args)
            return
        expected = oracle.tokenize_matrix(x, expected_tokens, max_seq_len=3, position_of_column=positions, **keys)
        assert cells.sequences(made, args) == expected
        found = check(made, args)
    n_filtered = 0 if kept is None else kept.count(False)
    report = found.genes
    assert (report.n_var, report.kept, report.filtered) == (len(ids), int((positions >= 0).sum()), n_filtered)
    others = [gene for gene, one in zip(ids, kept or [True] * len(ids), strict=True) if one and gene not in vocabulary]
    several = [gene for gene in others if len(set(gene_map.get(gene, []))) > 1]
    one = [gene for gene in others if len(set(gene_map.get(gene, []))) == 1 and gene_map[gene][0] in vocabulary]
    assert (report.ambiguous, report.mapped) == (len(several), len(one))
    assert report.unmapped == len(others) - len(several) - len(one)


# ---- what is mapped, and what is not


def test_an_id_of_the_vocabulary_is_never_mapped(tmp_path: Path):
    gene_map = cells.write_json(tmp_path / "map.json", {cells.GENES[0]: cells.GENES[1], "old": cells.GENES[9]})
    made = cells.make_cells()
    args = cells.make_args(tmp_path)
    assert cells.sequences(made, {**args, "gene_map": gene_map}) == cells.sequences(made, args)
    made.var_names = [*cells.GENES[:9], "old", *cells.GENES[10:]]
    assert check(made, {**args, "gene_map": gene_map}).genes.mapped == 1


def test_versions_are_stripped_before_ids_are_mapped(tmp_path: Path):
    made = cells.make_cells()
    made.var_names = ["ENSG00000999999.3", *cells.GENES[1:]]
    gene_map = cells.write_json(tmp_path / "map.json", {"ENSG00000999999": cells.GENES[0]})
    args = cells.make_args(tmp_path, gene_map=gene_map)
    assert check(made, {**args, "strip_gene_version": True}).genes.mapped == 1
    assert check(made, args).genes.mapped == 0


@pytest.mark.parametrize("how", ["sum", "keep"])
def test_several_ids_with_one_target_are_duplicates(how: str, tmp_path: Path):
    gene_map = cells.write_json(tmp_path / "map.json", {**IDS, "CD3E": IDS["TP53"], "LYZ": IDS["TP53"]})
    args = cells.make_args(tmp_path, gene_map=gene_map)
    with raises("duplicate_genes", "1 token", "TP53, CD3E, LYZ"):
        tokenize(with_symbols(), args)
    report = check(with_symbols(), {**args, "duplicate_genes": how}).genes
    assert list(report.duplicates.values()) == [["TP53", "CD3E", "LYZ"]]


def test_medians_are_those_of_the_ids_that_genes_are_mapped_to(tmp_path: Path):
    medians = cells.write_json(tmp_path / "medians.json", {cells.GENES[0]: 2.5, cells.GENES[4]: 7})
    keys = {"median_dict": medians, "normalize_total": 100}
    expected = cells.sequences(cells.make_cells(), cells.make_args(tmp_path, **keys))
    mapped = cells.make_args(tmp_path, gene_map=cells.write_json(tmp_path / "map.json", IDS), **keys)
    for column in (None, "index"):  # where gene ids are: what was matched
        assert cells.sequences(with_symbols(), {**mapped, "median_column": column}) == expected


def test_medians_may_be_by_the_ids_of_another_column(tmp_path: Path):
    medians = {"TP53": 2.5, "NKG7": 7, "MALAT1": 3}
    keys = {"median_dict": cells.write_json(tmp_path / "medians.json", medians), "normalize_total": 100}
    made = cells.make_cells()
    inverse = np.array([1 / medians.get(symbol, 1) for symbol in cells.SYMBOLS])
    positions, tokens = oracle.match_genes(cells.GENES, cells.TOKEN)
    expected = oracle.tokenize_matrix(
        made.layers["processed"].toarray(), tokens, max_seq_len=8, position_of_column=positions,
        inverse_medians=inverse, normalize_total=100,
    )  # fmt: skip
    assert cells.sequences(made, cells.make_args(tmp_path, median_column="symbol", **keys)) == expected
    with raises("medians_match_nothing", "gene_id_column = 'index'", "median_column"):
        tokenize(made, cells.make_args(tmp_path, **keys))
    with raises("gene_column_missing", "'names' (median_column)"):
        tokenize(made, cells.make_args(tmp_path, median_column="names", **keys))


def test_columns_whose_values_are_added_have_one_median(tmp_path: Path):
    made = with_symbols(token=[cells.GENES[0], *cells.GENES[:11]])
    keys = {"gene_id_column": "token", "normalize_total": 100, "median_column": "index"}

    def args(how: str, median: float) -> TokenizationArgs:
        medians = {cells.SYMBOLS[0]: 2.0, cells.SYMBOLS[1]: median}
        return cells.make_args(tmp_path, duplicate_genes=how, median_dict=medians, **keys)

    with raises("config_conflict", repr(cells.SYMBOLS[0]), repr(cells.SYMBOLS[1]), "'keep'"):
        tokenize(made, args("sum", 3.0))
    assert tokenize(made, args("sum", 2.0)).num_rows == tokenize(made, args("keep", 3.0)).num_rows


# ---- what is reported


def test_no_share_of_the_expression_is_negative():
    shard = Shard(
        "data", rows=1, tokens=1, bytes=1, sha256="0" * 64, expression=1.0, expression_kept=0.9,
        expression_of_group={"filtered": 0.1},
    )  # fmt: skip
    golden = Path(__file__).parents[1] / "golden" / "0.1.0" / "datasets" / "arrow-expression"
    manifest = dataclasses.replace(Manifest.read(golden), shards=[shard])
    assert 1 - 0.9 - 0.1 < 0
    assert manifest.expression_lost == manifest.expression_shares["unmapped"] == 0


def test_counts_and_expression_of_each_group_are_the_same_everywhere(tmp_path: Path):
    made = with_symbols(keep=[column != 5 for column in range(12)])
    path = cells.write_json(tmp_path / "map.json", MAP)
    args = cells.make_args(tmp_path, gene_map=path, gene_filter="keep", max_shard_samples=4)
    x = made.layers["processed"].toarray().astype(np.float64)
    shares = x.sum(axis=0) / x.sum()
    groups = {"mapped": [0, 1, 2, 4, 6, 7, 8, 9], "ambiguous": [3], "unmapped": [10, 11], "filtered": [5]}
    expected = {group: shares[columns].sum() for group, columns in groups.items()}
    found = check(made, args)
    manifest = tokenize_to_disk(made, args, tmp_path / "out", threads=2, report=True)
    assert manifest == Manifest.read(manifest.path)
    for result in (found, manifest):
        assert {group: getattr(result.genes, group) for group in groups} == {g: len(c) for g, c in groups.items()}
        assert result.expression_shares == pytest.approx(expected)
        assert result.expression_lost == pytest.approx(shares[[3, 10, 11]].sum())
    source, config = cells.save(made, tmp_path / "c.h5ad"), cells.write_json(tmp_path / "args.json", {**args})
    for command in ("check", "tokenize"):
        done = teddytok(command, source, "-c", config, "--out", tmp_path / "cli", "--json")
        (document,) = json.loads(done.stdout)["sources"]
        told = {group: (row["genes"], row["share"]) for group, row in document["gene_groups"].items()}
        assert told == {group: (len(groups[group]), pytest.approx(share)) for group, share in expected.items()}
    text = teddytok("check", source, "-c", config).stdout
    assert f"8 mapped ({expected['mapped']:.2%} of the expression), 1 ambiguous" in text
    assert "8 of 11 in the vocabulary" in text
    assert f"1 left out ({expected['filtered']:.2%}" in text
    page = (manifest.path / "report.html").read_text(encoding="utf-8")
    assert f"{expected['ambiguous']:.2%}" in page
    assert "gene_map" in repr(manifest)


def test_the_manifest_has_the_checksum_of_the_map_and_a_changed_map_is_another_run(tmp_path: Path):
    path = Path(cells.write_json(tmp_path / "map.json", MAP))
    args = cells.make_args(tmp_path, gene_map=path)
    manifest = tokenize_to_disk(with_symbols(), args, tmp_path / "out", name="x")
    assert manifest.checksums.mappings == {"gene_map": oracle_sha256(path)}
    moved = path.rename(tmp_path / "moved.json")
    assert tokenize_to_disk(with_symbols(), {**args, "gene_map": moved}, tmp_path / "out", name="x").n_kept == 1
    cells.write_json(moved, IDS)
    with raises("output_differs", "gene_map"):
        tokenize_to_disk(with_symbols(), {**args, "gene_map": moved}, tmp_path / "out", name="x")


def oracle_sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_map_that_maps_nothing_is_a_warning(tmp_path: Path):
    args = cells.make_args(tmp_path, gene_map=cells.write_json(tmp_path / "map.json", {"x": "y"}))
    (warning,) = check(cells.make_cells(), args).warnings
    assert "maps none of the 2 genes that are not in the vocabulary" in warning
    assert cells.GENES[10] in warning


def test_mapped_genes_keep_their_own_names(tmp_path: Path):
    args = cells.make_args(tmp_path, gene_map=cells.write_json(tmp_path / "map.json", IDS))
    manifest = tokenize_to_disk(with_symbols(), args, tmp_path / "out")
    first = (manifest.path / "genes.csv").read_text(encoding="utf-8").splitlines()[1]
    assert first == f"{cells.GENES[0]},TP53,{cells.GENE_TOKENS[0]}"


# ---- symbols alone, and where a map comes from


def test_the_error_for_symbols_says_which_option_and_files_help(tmp_path: Path):
    facts = ["gene_map (--gene-map)", "features.tsv.gz", "CSV", "JSON", "teddytok genes map-from"]
    with raises("no_genes_match", *facts):
        tokenize(with_symbols(), {"tokenizer_name_or_path": cells.write_vocabulary(tmp_path, cells.GENES)})


def test_the_error_for_a_map_to_other_ids_says_what_it_maps_to(tmp_path: Path):
    gene_map = cells.write_json(tmp_path / "map.json", {"TP53": "ENSMUSG00000059552", "CD3E": "ENSMUSG00000032093"})
    with raises("no_genes_match", "gene_map has 2 of these ids", "'ENSMUSG00000059552'"):
        tokenize(with_symbols(), cells.make_args(tmp_path, gene_map=gene_map))


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("kind", ["CELLxGENE", "10x"])
def test_a_map_is_written_from_a_file_that_has_both(kind: str, suffix: str, tmp_path: Path):
    made = cells.make_cells()
    names = ["XIST" if name == "MALAT1" else name for name in cells.SYMBOLS]
    made.var = (
        pd.DataFrame({"feature_name": pd.Categorical(names)}, index=[f"{gene}.2" for gene in cells.GENES])
        if kind == "CELLxGENE"
        else pd.DataFrame({"gene_ids": cells.GENES, "genome": "GRCh38"}, index=names)
    )
    made.raw = None
    if suffix == ".zarr":
        made.X = None
    source, out = cells.save(made, tmp_path / f"both{suffix}"), tmp_path / "map.json"
    done = teddytok("genes", "map-from", source, "--out", out, "--json")
    document = json.loads(done.stdout)
    columns = ("feature_name", "index") if kind == "CELLxGENE" else ("index", "gene_ids")
    assert (document["names_column"], document["ids_column"]) == columns
    assert (document["mapped"], document["ambiguous"]) == (10, 1)
    expected = {name: gene for name, gene in IDS.items() if name != "MALAT1"}
    assert json.loads(out.read_text()) == {**expected, "XIST": cells.GENES[10:]}
    words = ["--gene-map", out, "--tokenizer-name-or-path", cells.write_vocabulary(tmp_path / "v")]
    symbols = cells.save(with_symbols(), tmp_path / "symbols.h5ad")
    assert "10 of 12 in the vocabulary" in teddytok("tokenize", symbols, *words, "-o", tmp_path / "out").stdout
    with raises("gene_map_exists", "map.json"):
        build_gene_map(source, out)


def test_a_source_with_names_or_ids_alone_gives_no_map(tmp_path: Path):
    with raises("gene_map_source", "no Ensembl ids", "'index'"):
        build_gene_map(with_symbols(), tmp_path / "map.json")
    made = cells.make_cells()
    del made.var["symbol"]
    with raises("gene_map_source", "no names"):
        build_gene_map(made, tmp_path / "map.json")
    with raises("output_failed"):
        build_gene_map(cells.make_cells(), tmp_path / "no folder" / "map.json")
    assert list(tmp_path.iterdir()) == []


# ---- files that cannot be used


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 columns"),
        (b"{}", "maps no id"),
        (b"a,b\n", "maps no id"),
        (b"[1]", "it holds a list"),
        (b'{"a": 3}', "'a' is mapped to 3"),
        (b'{"a": ["b", null]}', "'a' is mapped to ['b', None]"),
        (b'{"a": "b", "a": "c"}', "key 'a' occurs more than once"),
        (b"a,b,c\n1,2,3\n", "3 columns, not two"),
        (b"a,b\n1,2\n1,2,3\n", "row 3 has 3 columns"),
        (b'a,b\n"1,2\n', "unexpected end of data"),
        (f"TP53,{cells.GENES[0]}\n".encode(), "holds a gene, not the names"),
        (b"x,CLS_NAME\ny,z\n".replace(b"CLS_NAME", next(iter(cells.TOKEN)).encode()), "holds a gene, not the names"),
        (b"\xff\xfe", "not UTF-8"),
        (gzip.compress(b"a,b\n1,2\n")[:-9], "cut off or damaged"),
        (b"\x1f\x8b garbage", "cut off or damaged"),
    ],
)
def test_a_malformed_map_is_refused(content: bytes, reason: str, tmp_path: Path):
    path = tmp_path / "map.csv"
    path.write_bytes(content)
    with raises("gene_map_file", "map.csv", reason):
        tokenize(cells.make_cells(), cells.make_args(tmp_path, gene_map=path))


def test_a_map_that_is_missing_or_endless_is_refused(tmp_path: Path):
    for path, reason in ((tmp_path / "nowhere", "no such file"), ("/dev/zero", "a device, not a file")):
        with raises("gene_map_file", reason):
            tokenize(cells.make_cells(), cells.make_args(tmp_path, gene_map=path))


def test_a_map_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("teddytok_rs.config.files.MAX_BYTES", 2**16)
    path = tmp_path / "map.json.gz"
    path.write_bytes(gzip.compress(b" " * 2**17))
    assert path.stat().st_size < 2**10
    with raises("gene_map_file", "longer than 65,536 bytes"):
        tokenize(cells.make_cells(), cells.make_args(tmp_path, gene_map=path))


# ---- gene_filter


@pytest.mark.parametrize("keys", [{}, {"normalize_total": 1e4, "log1p": True}, {"include_zero_genes": True}])
@pytest.mark.parametrize("dtype", ["bool", "boolean", "object"])
def test_only_genes_of_the_filter_are_tokenized_and_totals_are_of_all(dtype: str, keys: dict[str, Any], tmp_path: Path):
    keep = [column % 3 != 1 for column in range(12)]
    made = cells.make_cells()
    made.var["highly_variable"] = pd.Series(keep, index=made.var_names, dtype=dtype)
    positions, tokens = oracle.match_genes(cells.GENES, cells.TOKEN, keep=keep)
    expected = oracle.tokenize_matrix(made.X.toarray(), tokens, max_seq_len=8, position_of_column=positions, **keys)
    args = cells.make_args(tmp_path, gene_filter="highly_variable", layer="X", **keys)
    assert cells.sequences(made, args) == expected
    assert check(cells.save(made, tmp_path / "c.h5ad"), args).genes.filtered == 4 if dtype != "object" else True


def test_the_overlap_is_that_of_the_genes_of_the_filter(tmp_path: Path):
    made = cells.make_cells()
    made.var["keep"] = [column in {0, 10, 11} for column in range(12)]
    args = cells.make_args(tmp_path, gene_filter="keep")
    with raises("few_genes_match", "only 1 of the 3 genes", "33.3%"):
        tokenize(made, {**args, "min_gene_overlap": 0.4})
    assert check(made, {**args, "min_gene_overlap": 0.3}).genes.kept == 1


def test_expression_that_the_filter_leaves_out_is_no_reason_for_a_warning(tmp_path: Path):
    made = cells.make_cells()
    made.var["keep"] = [column < 2 for column in range(12)]
    found = check(made, cells.make_args(tmp_path, gene_filter="keep"))
    assert (found.warnings, found.expression_lost, found.lost_genes) == ([], 0.0, [])
    assert found.expression_shares["filtered"] > 0.5


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (None, "there is none; boolean columns are 'spliced'"),
        (["yes"] * 12, "not true or false"),
        ([1] * 12, "values of type int64"),
        ([True] * 11 + [None], "1 gene of 12 has no value"),
        ([False] * 12, "it keeps no gene"),
    ],
    ids=["missing", "text", "numbers", "without a value", "none kept"],
)
def test_a_filter_that_cannot_be_used_is_refused(values: list[Any] | None, reason: str, tmp_path: Path):
    made = cells.make_cells()
    made.var["spliced"] = True
    if values is not None:
        made.var["keep"] = values
    with raises("gene_filter", "var column 'keep' (gene_filter)", reason):
        tokenize(made, cells.make_args(tmp_path, gene_filter="keep"))


def test_a_filter_of_var_is_not_one_of_raw(tmp_path: Path):
    made = cells.make_cells()
    made.var["keep"] = True
    with raises("gene_filter", "there is none", "raw.var"):
        tokenize(made, cells.make_args(tmp_path, gene_filter="keep", layer="raw"))


# ---- batches without obs and var


def test_a_tokenizer_of_batches_maps_genes_and_refuses_columns_of_var(tmp_path: Path):
    import pyarrow as pa

    args = cells.make_args(tmp_path, gene_map=cells.write_json(tmp_path / "map.json", MAP))
    x = with_symbols().layers["processed"].toarray()
    batch = pa.table({"indices": [list(range(12))] * len(x), "data": x.tolist()})
    table = ArrowTokenizer(args, cells.SYMBOLS)(batch)
    assert table["gene_ids"].to_pylist() == tokenize(with_symbols(), args)["gene_ids"].to_pylist()
    for key in ("gene_filter", "median_column"):
        with raises("config_conflict", f"{key} is set", "no var"):
            ArrowTokenizer({**args, key: "keep"}, cells.SYMBOLS)
