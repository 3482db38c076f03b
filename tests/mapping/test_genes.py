"""Which genes are kept, what is said about the others, and what is refused because it would lose too many."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import cells
import oracle
from raises import raises
from teddytok_rs import check, load_vocabulary, tokenize, tokenize_to_disk
from teddytok_rs.mapping.genes import strip_version

if TYPE_CHECKING:
    from pathlib import Path

    import anndata as ad

VERSIONED = [f"{gene}.{number}" for number, gene in enumerate(cells.GENES, start=1)]
MICE = [f"ENSMUSG{number:011d}" for number in range(12)]


def dense(made: ad.AnnData) -> np.ndarray:
    return made.layers["processed"].toarray()


def tokens_of(table: Any) -> set[int]:
    return {token for ids in table["gene_ids"].to_pylist() for token in ids}


def run(made: Any, folder: Path, **keys: Any) -> list[tuple[list[int], list[float]]]:
    return cells.sequences(made, cells.make_args(folder, **keys))


# ---- kept and dropped


def test_genes_outside_the_vocabulary_are_dropped(tmp_path: Path):
    made = cells.make_cells()
    assert run(made, tmp_path) == oracle.tokenize_matrix(dense(made)[:, :10], cells.GENE_TOKENS, max_seq_len=8)


def test_kept_genes_keep_the_order_of_var_not_of_the_vocabulary(tmp_path: Path):
    made = cells.make_cells()[:, ::-1].copy()
    expected = oracle.tokenize_matrix(dense(made)[:, 2:], cells.GENE_TOKENS[::-1], max_seq_len=8)
    assert run(made, tmp_path) == expected


def test_the_report_counts_kept_and_dropped_genes(tmp_path: Path):
    found = check(cells.make_cells(), cells.make_args(tmp_path))
    report = found.genes
    assert (report.n_var, report.kept, report.dropped) == (12, 10, 2)
    assert (report.n_kept, report.n_dropped) == (10, 2)  # names of 0.1.0
    assert found.dropped_genes == cells.GENES[10:]
    assert report.duplicates == {}


def test_the_manifest_says_how_much_expression_the_dropped_genes_held(tmp_path: Path):
    made = cells.make_cells()
    manifest = tokenize_to_disk(made, cells.make_args(tmp_path), tmp_path / "out")
    values = dense(made).astype(np.float64)
    lost = values[:, 10:].sum() / values.sum()
    assert dict(manifest.genes) == {"n_var": 12, "kept": 10, "dropped": 2, "duplicates": {}} | dict.fromkeys(
        ("mapped", "ambiguous", "filtered"), 0
    )
    assert manifest.expression_lost == pytest.approx(lost, abs=1e-9)
    totals = json.loads((manifest.path / "teddytok.json").read_text())["totals"]
    assert totals == {"cells": 6, "tokens": manifest.n_tokens, "expression_lost": round(manifest.expression_lost, 6)}


def test_check_names_the_dropped_genes_that_held_most(tmp_path: Path):
    made = cells.make_cells()
    report = check(made, cells.make_args(tmp_path))
    totals = dense(made).astype(np.float64).sum(axis=0)
    lost = {cells.SYMBOLS[column]: totals[column] / totals.sum() for column in (10, 11)}
    assert dict(report.lost_genes) == pytest.approx(lost)
    assert [gene for gene, _ in report.lost_genes] == sorted(lost, key=lost.get, reverse=True)
    assert report.expression_lost == pytest.approx(sum(lost.values()))


def test_a_gene_id_column_of_var_is_matched(tmp_path: Path):
    made = cells.make_cells()
    vocabulary = cells.write_vocabulary(tmp_path, cells.SYMBOLS[:10])
    args = {"tokenizer_name_or_path": vocabulary, "gene_id_column": "symbol", "max_seq_len": 8}
    assert cells.sequences(made, args) == oracle.tokenize_matrix(dense(made)[:, :10], range(10), max_seq_len=8)


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical(cells.SYMBOLS),
        pd.array(cells.SYMBOLS, dtype="string"),
        np.array(cells.SYMBOLS, dtype=object),
        [symbol.encode() for symbol in cells.SYMBOLS],
    ],
    ids=["categorical", "string", "object", "bytes"],
)
def test_gene_ids_are_read_from_columns_of_any_kind_of_text(column: Any, tmp_path: Path):
    made = cells.make_cells()
    made.var["name"] = column
    args = {"tokenizer_name_or_path": cells.write_vocabulary(tmp_path, cells.SYMBOLS), "gene_id_column": "name"}
    assert tokens_of(tokenize(made, args)) <= set(range(12))


def test_gene_ids_that_are_numbers_match_their_digits(tmp_path: Path):
    made = cells.make_cells()
    made.var["entrez"] = range(7000, 7012)
    args = {"tokenizer_name_or_path": cells.write_vocabulary(tmp_path, [str(n) for n in range(7000, 7012)])}
    assert tokenize(made, {**args, "gene_id_column": "entrez", "min_gene_overlap": 1}).num_rows == 6


def test_gene_ids_match_exactly(tmp_path: Path):
    made = cells.make_cells()
    made.var_names = [gene.lower() for gene in cells.GENES[:6]] + [f" {gene}" for gene in cells.GENES[6:]]
    with raises("no_genes_match", "none of the 12 genes"):
        run(made, tmp_path)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, ""], ids=repr)
def test_a_missing_gene_id_is_a_dropped_gene(missing: Any, tmp_path: Path):
    made = cells.make_cells()
    made.var["id"] = pd.Series([missing, *cells.GENES[1:]], index=made.var_names, dtype=object)
    vocabulary = cells.write_vocabulary(tmp_path, [*cells.TOKENS, "nan", "None", "<NA>", ""])
    args = {"tokenizer_name_or_path": vocabulary, "gene_id_column": "id"}
    assert check(made, args).dropped_genes == ["(missing)", *cells.GENES[10:]]


def test_a_missing_gene_column_is_refused_with_the_columns_that_would_match(tmp_path: Path):
    made = cells.make_cells()
    made.var["copy"] = [*cells.GENES[:6], *cells.SYMBOLS[6:]]
    with raises("gene_column_missing", "'gene_ids'", "'index' (10 genes)", "'copy' (6 genes)") as caught:
        run(made, tmp_path, gene_id_column="gene_ids")
    assert str(caught.value).index("'index'") < str(caught.value).index("'copy'")


def test_a_missing_gene_column_is_refused_with_those_that_there_are_where_none_matches(tmp_path: Path):
    vocabulary = cells.write_vocabulary(tmp_path, MICE)
    with raises("gene_column_missing", "it has 'symbol'"):
        tokenize(cells.make_cells(), {"tokenizer_name_or_path": vocabulary, "gene_id_column": "x"})


# ---- too little overlap


def test_no_gene_in_the_vocabulary_is_refused_with_examples_of_both_sides(tmp_path: Path):
    args = {"tokenizer_name_or_path": cells.write_vocabulary(tmp_path, MICE), "min_gene_overlap": 0}
    with raises("no_genes_match", "none of the 12 genes of AnnData", *cells.GENES[:5], *MICE[-5:]) as caught:
        tokenize(cells.make_cells(), args)
    assert cells.GENES[5] not in str(caught.value)
    assert MICE[-6] not in str(caught.value)


def test_too_few_genes_are_refused_with_their_share_and_five_examples_of_each_side(tmp_path: Path):
    vocabulary = cells.write_vocabulary(tmp_path, [*MICE, cells.GENES[0]])
    facts = ["only 1 of the 12 genes", "8.3%", "min_gene_overlap = 0.1", *cells.GENES[1:6], *MICE[-4:]]
    with raises("few_genes_match", *facts) as caught:
        tokenize(cells.make_cells(), {"tokenizer_name_or_path": vocabulary})
    assert cells.GENES[6] not in str(caught.value)


@pytest.mark.parametrize(("n_var", "n_kept", "least"), [(10, 1, 0.1), (3, 3, 1), (25, 7, 0.28), (100, 7, 0.07)])
def test_exactly_the_least_share_is_enough(n_var: int, n_kept: int, least: float, tmp_path: Path):
    genes = [f"gene-{number}" for number in range(n_var)]
    made = cells.with_layer(np.ones((1, n_var), dtype=np.float32), genes)
    vocabulary = cells.write_vocabulary(tmp_path, genes[:n_kept])
    args = {"tokenizer_name_or_path": vocabulary, "min_gene_overlap": least}
    assert len(tokenize(made, args)["gene_ids"][0]) == n_kept
    short = cells.write_vocabulary(tmp_path / "short", [*genes[: n_kept - 1], "other"])
    with raises("no_genes_match" if n_kept == 1 else "few_genes_match"):
        tokenize(made, {**args, "tokenizer_name_or_path": short})


def hints(message: str) -> list[tuple[dict[str, Any], int]]:
    """Read the hints that a message promises: arguments, and how many genes they would match."""
    found = re.findall(r"gene_id_column = '(.+?)'( with strip_gene_version = true)? would match ([\d,]+)", message)
    return [({"gene_id_column": c, "strip_gene_version": bool(s)}, int(n.replace(",", ""))) for c, s, n in found]


def var_with_versions(var: pd.DataFrame) -> None:
    var.index = VERSIONED


def var_with_symbols(var: pd.DataFrame) -> None:
    var["ensembl"], var.index = cells.GENES, cells.SYMBOLS


def var_with_versions_in_a_column(var: pd.DataFrame) -> None:
    var["ensembl_version"], var["half"], var.index = VERSIONED, [*cells.GENES[:5], *MICE[5:]], cells.SYMBOLS


@pytest.mark.parametrize(
    ("change", "best"),
    [
        (var_with_versions, {"gene_id_column": "index", "strip_gene_version": True}),
        (var_with_symbols, {"gene_id_column": "ensembl", "strip_gene_version": False}),
        (var_with_versions_in_a_column, {"gene_id_column": "ensembl_version", "strip_gene_version": True}),
    ],
)
def test_a_hint_works_as_it_says(change: Any, best: dict[str, Any], tmp_path: Path):
    made = cells.make_cells()
    change(made.var)
    args = cells.make_args(tmp_path)
    with raises("no_genes_match") as caught:
        tokenize(made, args)
    promised = hints(str(caught.value))
    assert promised[0] == (best, 10)
    for keys, n_genes in promised:
        assert check(made, {**args, **keys}).genes.n_kept == n_genes


def test_symbols_without_any_ensembl_column_are_recognised(tmp_path: Path):
    made = cells.with_layer(np.ones((2, 12), dtype=np.float32), cells.SYMBOLS)
    with raises("no_genes_match", "The vocabulary holds Ensembl ids, the source other names", "gene_id_column"):
        tokenize(made, {"tokenizer_name_or_path": cells.write_vocabulary(tmp_path, cells.GENES)})


def test_ensembl_ids_against_a_vocabulary_of_symbols_are_recognised(tmp_path: Path):
    made = cells.with_layer(np.ones((2, 12), dtype=np.float32))
    with raises("no_genes_match", "The vocabulary holds other names, the source Ensembl ids"):
        tokenize(made, {"tokenizer_name_or_path": cells.write_vocabulary(tmp_path, cells.SYMBOLS)})


def test_another_species_gets_no_hint_that_would_not_help(tmp_path: Path):
    with raises("no_genes_match", "one species") as caught:
        tokenize(cells.make_cells(), {"tokenizer_name_or_path": cells.write_vocabulary(tmp_path, MICE)})
    assert hints(str(caught.value)) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (str.lower, "only in case"),
        (" {} ".format, "only in blanks around them"),
        ("GRCh38_{}".format, "only in a genome prefix"),
        ("hg19___{}".format, "only in a genome prefix"),
    ],
    ids=["lower case", "blanks", "GRCh38_", "hg19___"],
)
def test_ids_that_differ_in_spelling_alone_are_recognised(change: Any, what: str, tmp_path: Path):
    made = cells.with_layer(np.ones((2, 12), dtype=np.float32), [change(gene) for gene in cells.GENES])
    with raises("no_genes_match", "12 ids differ from the vocabulary's", what):
        tokenize(made, {"tokenizer_name_or_path": cells.write_vocabulary(tmp_path, cells.GENES)})


def test_transcript_ids_are_not_called_gene_ids(tmp_path: Path):
    transcripts = [gene.replace("ENSG", "ENST") for gene in cells.GENES]
    made = cells.with_layer(np.ones((2, 12), dtype=np.float32), transcripts)
    with raises("no_genes_match", "The vocabulary holds Ensembl ids, the source other names"):
        tokenize(made, {"tokenizer_name_or_path": cells.write_vocabulary(tmp_path, cells.GENES)})


def test_genes_that_match_in_part_are_not_called_names_of_another_kind(tmp_path: Path):
    with raises("few_genes_match", "only 10 of the 12 genes", "83.3%") as caught:
        run(cells.make_cells(), tmp_path, min_gene_overlap=0.9)
    assert "other names" not in str(caught.value)


# ---- versions


@pytest.mark.parametrize(
    ("given", "stripped"),
    [
        ("ENSG00000141510.18", "ENSG00000141510"),
        ("ENSMUSG00000059552.15", "ENSMUSG00000059552"),
        ("ENSG00000141510", "ENSG00000141510"),
        ("AL928768.3", "AL928768.3"),
        ("RP11-34P13.7", "RP11-34P13.7"),
        ("ENSG00000141510.18.2", "ENSG00000141510.18.2"),
        ("ENSG00000141510.", "ENSG00000141510."),
        ("ENSG00000141510.x", "ENSG00000141510.x"),
        ("ENSG00000182378.15_PAR_Y", "ENSG00000182378.15_PAR_Y"),
        ("ENSG141510.18", "ENSG141510.18"),
        ("ensg00000141510.18", "ensg00000141510.18"),
        (" ENSG00000141510.18", " ENSG00000141510.18"),
        ("ENSG00000141510.18\n", "ENSG00000141510.18\n"),
        ("", ""),
    ],
    ids=ascii,
)
def test_only_the_version_of_an_ensembl_id_is_stripped(given: str, stripped: str):
    assert strip_version(given) == stripped


def test_versions_are_stripped_only_if_asked_for(tmp_path: Path):
    made = cells.make_cells()
    made.var_names = VERSIONED
    with raises("no_genes_match"):
        run(made, tmp_path)
    assert run(made, tmp_path, strip_gene_version=True) == run(cells.make_cells(), tmp_path)


def test_the_vocabulary_is_not_stripped(tmp_path: Path):
    vocabulary = cells.write_vocabulary(tmp_path, VERSIONED)
    with raises("no_genes_match"):
        tokenize(cells.make_cells(), {"tokenizer_name_or_path": vocabulary, "strip_gene_version": True})


def test_two_versions_of_one_gene_are_duplicates(tmp_path: Path):
    made = cells.make_cells()
    made.var_names = [f"{cells.GENES[0]}.1", f"{cells.GENES[0]}.2", *cells.GENES[2:]]
    with raises("duplicate_genes", "1 token", cells.GENES[0]):
        run(made, tmp_path, strip_gene_version=True)


# ---- duplicates


def twins() -> ad.AnnData:
    """Cells of which columns 0 and 7, and 3, 4 and 5, have one symbol."""
    made = cells.make_cells()
    symbols = list(cells.SYMBOLS)
    symbols[7], symbols[4], symbols[5] = symbols[0], symbols[3], symbols[3]
    made.var["symbol"] = symbols
    return made


def twin_args(folder: Path, **keys: Any) -> dict[str, Any]:
    vocabulary = cells.write_vocabulary(folder, cells.SYMBOLS)
    return {"tokenizer_name_or_path": vocabulary, "gene_id_column": "symbol", "max_seq_len": 6, **keys}


def test_several_genes_of_one_token_are_refused_and_named(tmp_path: Path):
    with raises("duplicate_genes", "2 tokens", "TP53, TP53", "MS4A1, MS4A1, MS4A1", "'sum'", "'keep'"):
        tokenize(twins(), twin_args(tmp_path))


def test_genes_with_different_names_may_share_a_token(tmp_path: Path):
    vocabulary = cells.write_json(tmp_path / "vocab.json", dict.fromkeys(cells.GENES[:2], 5) | {cells.GENES[2]: 6})
    with raises("duplicate_genes", "1 token", f"5: {cells.GENES[0]}, {cells.GENES[1]}"):
        tokenize(cells.make_cells(), {"tokenizer_name_or_path": vocabulary})


@pytest.mark.parametrize(
    "keys", [{}, {"include_zero_genes": True}, {"bins": 4}, {"normalize_total": 1e4, "log1p": True}]
)
def test_genes_of_one_token_are_summed(keys: dict[str, Any], tmp_path: Path):
    positions = np.array([0, 1, 2, 3, 3, 3, 4, 0, 5, 6, 7, 8])
    expected = oracle.tokenize_matrix(
        dense(twins()), [0, 1, 2, 3, 6, 8, 9, 10, 11], max_seq_len=6, position_of_column=positions, **keys
    )
    assert cells.sequences(twins(), twin_args(tmp_path, duplicate_genes="sum", **keys)) == expected


def test_genes_of_one_token_are_kept_apart(tmp_path: Path):
    tokens = [0, 1, 2, 3, 3, 3, 6, 0, 8, 9, 10, 11]
    expected = oracle.tokenize_matrix(dense(twins()), tokens, max_seq_len=6)
    assert cells.sequences(twins(), twin_args(tmp_path, duplicate_genes="keep")) == expected


@pytest.mark.parametrize("how", ["sum", "keep"])
def test_duplicates_are_reported(how: str, tmp_path: Path):
    manifest = tokenize_to_disk(twins(), twin_args(tmp_path, duplicate_genes=how), tmp_path / "out")
    assert manifest.genes.duplicates == {0: ["TP53", "TP53"], 3: ["MS4A1", "MS4A1", "MS4A1"]}
    assert (manifest.genes["kept"], manifest.genes["dropped"]) == (12, 0)


def test_dropped_genes_may_be_duplicates(tmp_path: Path):
    made = cells.make_cells()
    made.var["id"] = [*cells.GENES[:10], "x", "x"]
    assert check(made, cells.make_args(tmp_path, gene_id_column="id")).genes.duplicates == {}


def test_a_sum_of_integers_that_overflows_is_refused(tmp_path: Path):
    made = cells.with_layer(np.array([[1, 2, 3], [100, 2, 100]], dtype=np.int8))
    made.var["name"] = ["a", "b", "a"]
    vocabulary = cells.write_vocabulary(tmp_path, ["a", "b"])
    args = {"tokenizer_name_or_path": vocabulary, "gene_id_column": "name", "duplicate_genes": "sum"}
    with raises("gene_sum_overflow", "cell 'cell-1' (row 1 of AnnData, layer 'processed')", "gene 'a'", "int8"):
        tokenize(made, args)


# ---- medians


def median_args(folder: Path, medians: Any, **keys: Any) -> dict[str, Any]:
    return cells.make_args(folder, median_dict=cells.write_json(folder / "medians.json", medians), **keys)


def test_values_are_divided_by_the_median_of_their_gene(tmp_path: Path):
    made = cells.make_cells()
    medians = {cells.GENES[0]: 2.5, cells.GENES[4]: 7, "unknown gene": 3, cells.GENES[11]: 0.5}
    inverse = 1 / np.array([2.5, 1, 1, 1, 7, 1, 1, 1, 1, 1])
    expected = oracle.tokenize_matrix(dense(made)[:, :10], cells.GENE_TOKENS, max_seq_len=8, inverse_medians=inverse)
    assert cells.sequences(made, median_args(tmp_path, medians)) == expected
    assert expected != run(made, tmp_path)


def test_medians_are_looked_up_by_the_id_as_it_was_matched(tmp_path: Path):
    made = cells.make_cells()
    expected = cells.sequences(made, median_args(tmp_path, {cells.GENES[0]: 2.5}))
    made.var_names = VERSIONED
    assert cells.sequences(made, median_args(tmp_path, {cells.GENES[0]: 2.5}, strip_gene_version=True)) == expected


def test_genes_that_are_summed_have_one_median(tmp_path: Path):
    medians = cells.write_json(tmp_path / "medians.json", {"TP53": 2.0, "MS4A1": 4.0})
    positions = np.array([0, 1, 2, 3, 3, 3, 4, 0, 5, 6, 7, 8])
    inverse = np.array([0.5, 1, 1, 0.25, 0.25, 0.25, 1, 0.5, 1, 1, 1, 1])
    expected = oracle.tokenize_matrix(
        dense(twins()), [0, 1, 2, 3, 6, 8, 9, 10, 11], max_seq_len=6, position_of_column=positions,
        inverse_medians=inverse,
    )  # fmt: skip
    args = twin_args(tmp_path, duplicate_genes="sum", median_dict=medians)
    assert cells.sequences(twins(), args) == expected


@pytest.mark.parametrize("median", [0, 0.0, -1, "2", None, True, [2], 10**400], ids=lambda median: repr(median)[:9])
def test_a_median_that_is_no_number_above_0_is_refused(median: Any, tmp_path: Path):
    with raises("median_file", f"gene {cells.GENES[3]!r} has median", "a finite number above 0"):
        tokenize(cells.make_cells(), median_args(tmp_path, {cells.GENES[0]: 1, cells.GENES[3]: median}))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1e999}', "'a' has median inf"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1, "a": 2}', "key 'a' occurs more than once"),
        ("[1, 2]", "list"),
        ("{", "not JSON"),
    ],
    ids=["too large", "NaN", "key twice", "list", "cut off"],
)
def test_a_malformed_median_file_is_refused(text: str, reason: str, tmp_path: Path):
    (tmp_path / "medians.json").write_text(text, encoding="utf-8")
    with raises("median_file", "medians.json", reason):
        run(cells.make_cells(), tmp_path, median_dict=tmp_path / "medians.json")


def test_a_median_whose_inverse_is_not_finite_is_refused(tmp_path: Path):
    with raises("median_file", "5e-324"):
        tokenize(cells.make_cells(), median_args(tmp_path, {cells.GENES[0]: 5e-324}))


def test_a_missing_median_file_is_refused(tmp_path: Path):
    with raises("median_file", "nowhere.json", "no such file"):
        run(cells.make_cells(), tmp_path, median_dict=tmp_path / "nowhere.json")


def test_medians_of_other_ids_are_refused_with_examples_of_both_sides(tmp_path: Path):
    medians = dict.fromkeys(cells.SYMBOLS, 1.5)
    with raises("medians_match_nothing", "none of the 10 kept genes", cells.GENES[0], "'TP53'", "'index'"):
        tokenize(cells.make_cells(), median_args(tmp_path, medians))


# ---- the layer raw


def test_raw_has_genes_of_its_own(tmp_path: Path):
    made = cells.make_cells()
    vocabulary = cells.write_vocabulary(tmp_path, [cells.RAW_GENES[1], *cells.GENES[:4]])
    args = {"tokenizer_name_or_path": vocabulary, "layer": "raw", "max_seq_len": 4}
    x = made.raw.X.toarray()[:, 1:6]
    assert cells.sequences(made, args) == oracle.tokenize_matrix(x, range(5), max_seq_len=4)


def test_a_gene_column_of_raw_is_one_of_its_own_var(tmp_path: Path):
    with raises("gene_column_missing", "'symbol'"):
        run(cells.make_cells(), tmp_path, layer="raw", gene_id_column="symbol")


def test_raw_counts_become_what_the_processed_layer_would_be(tmp_path: Path):
    made = cells.make_cells()
    keys = {"normalize_total": 1e4, "log1p": True}
    x = made.X.toarray()
    expected = oracle.tokenize_matrix(
        x, [*cells.GENE_TOKENS], max_seq_len=8, position_of_column=np.array([*range(10), -1, -1]), **keys
    )
    assert run(made, tmp_path, layer="X", **keys) == expected


def test_the_vocabulary_of_the_tests_has_the_ids_that_they_assume(tmp_path: Path):
    assert load_vocabulary(cells.write_vocabulary(tmp_path)).ids == cells.TOKEN
