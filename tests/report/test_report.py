"""The report shows what the folder holds, in one page that works anywhere: a browser reads the numbers back."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import cells
from raises import raises

pytest.importorskip("matplotlib", reason="the report's extra is not installed")
pytest.importorskip("jinja2", reason="the report's extra is not installed")

import browser
from command_line import teddytok
from folders import contents
from teddytok_rs import demo, tokenize_corpus, tokenize_to_disk, verify, write_report
from teddytok_rs.cli import cli
from teddytok_rs.pipeline import batches as batches_module
from teddytok_rs.pipeline import scan as source_module
from teddytok_rs.report import DATA
from teddytok_rs.report.figures import binned
from teddytok_rs.report.numbers import BINS, Histogram

N_CELLS, N_GENES, N_KEPT, LONGEST = 1234, 300, 260, 101
#: What would run if it were not escaped.
HOSTILE = (
    "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">&amp;{{ 7 * 7 }}"
)
PHONE = (390, 844)


def data_of(page: Path) -> dict[str, Any]:
    return json.loads(DATA.search(page.read_text(encoding="utf-8"))[1])


class Home:
    """A dataset with its report: 1,234 cells of which some are cut, and names and labels that would run as code."""

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(5)
        rates = random.gamma(0.6, 1.2, N_GENES) * 0.8
        self.x = random.poisson(rates * random.gamma(4, 0.4, (N_CELLS, 1))).astype(np.float32)
        self.x[7] = 0  # a cell without a gene
        self.genes = [f"G{number:03}" for number in range(N_GENES)]
        self.kept = np.ones(N_GENES, dtype=bool)
        self.kept[random.choice(N_GENES, N_GENES - N_KEPT, replace=False)] = False
        self.names = [f"name-{number}" for number in range(N_GENES)]
        self.names[int(np.argmax(self.x.sum(axis=0) * ~self.kept))] = HOSTILE
        self.labels = random.choice(["B cell", "T cell", HOSTILE], N_CELLS, p=[0.2, 0.5, 0.3])
        self.diseases = random.choice(["normal", "asthma", HOSTILE], N_CELLS, p=[0.6, 0.3, 0.1])
        self.notes = [None if row % 5 == 0 else f"note {row}" for row in range(N_CELLS)]
        obs = pd.DataFrame(
            {
                "cell_type": pd.Categorical(self.labels),
                "disease": self.diseases,
                "tissue": "blood",
                "sex": "female",
                "note": pd.array(self.notes, dtype="string"),
            },
            index=[f"cell-{row}" for row in range(N_CELLS)],
        )
        var = pd.DataFrame({"feature_name": self.names}, index=self.genes)
        made = anndata.AnnData(obs=obs, var=var)
        made.layers["processed"] = sparse.csr_matrix(np.log1p(self.x))
        self.source = cells.save(made, folder / "cells.h5ad")
        tokens = ["<pad>", "<unk>", "<cls>", "normal", "asthma", "blood", "female", "B cell", "T cell"]
        tokens += [gene for gene, kept in zip(self.genes, self.kept, strict=True) if kept]
        self.args = {
            "tokenizer_name_or_path": cells.write_vocabulary(folder / "vocabulary", tokens),
            "max_seq_len": LONGEST,
            "add_cls": True,
            "max_shard_samples": 500,
            "bio_annotations": True,
            "label_column": "cell_type",
            "obs_columns": ["note"],
        }
        self.manifest = tokenize_to_disk(self.source, self.args, folder / "out", threads=2, report=True)
        self.path = self.manifest.path
        self.page = self.path / "report.html"
        self.text = self.page.read_text(encoding="utf-8")
        self.data = data_of(self.page)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def rows(home: Home) -> list[dict[str, Any]]:
    """The cells as another reader reads them."""
    datasets = pytest.importorskip("datasets")
    return datasets.load_from_disk(str(home.path)).to_list()


# ---- the numbers are right


def test_the_totals_and_lengths_are_those_that_datasets_reads(home, rows):
    lengths = [len(row["gene_ids"]) for row in rows]
    told = home.data["lengths"]
    assert home.data["totals"]["cells"] == told["cells"] == len(rows) == N_CELLS
    assert home.data["totals"]["tokens"] == sum(lengths)
    assert (told["min"], told["max"], told["median"]) == (min(lengths), max(lengths), np.median(lengths))
    assert told["mean"] == pytest.approx(np.mean(lengths))
    assert (told["at_limit"], told["empty"]) == (lengths.count(LONGEST), lengths.count(1))
    assert told["at_limit"] > 0
    assert told["empty"] > 0
    edges = told["start"] + told["width"] * np.arange(len(told["counts"]) + 1)
    assert told["counts"] == np.histogram(lengths, edges)[0].tolist()
    assert sum(told["counts"]) == N_CELLS


def test_the_histogram_of_values_is_numpys(home, rows):
    values = np.concatenate([row["values"][1:] for row in rows])
    told = home.data["values"]
    assert (told["kind"], told["n"]) == ("expression", len(values))
    assert (told["min"], told["max"]) == (values.min(), values.max())
    assert told["mean"] == pytest.approx(values.mean())
    edges = told["start"] + told["width"] * np.arange(len(told["counts"]) + 1)
    assert told["counts"] == np.histogram(values, edges)[0].tolist()
    assert BINS / 2 - 1 < len(told["counts"]) <= BINS


def test_the_most_frequent_genes_are_those_at_their_rank(home, rows):
    tokens = dict(enumerate(Path(home.args["tokenizer_name_or_path"], "vocab.txt").read_text().splitlines()))
    named = dict(zip(home.genes, home.names, strict=True))
    assert [row["rank"] for row in home.data["ranks"]] == [1, 10, 100]
    for told in home.data["ranks"]:
        there = Counter(row["gene_ids"][told["rank"]] for row in rows if len(row["gene_ids"]) > told["rank"])
        assert told["cells"] == there.total() > 0
        assert len(told["genes"]) == 10
        for gene in told["genes"]:
            assert gene["gene"] == named[tokens[gene["token"]]]
            assert gene["cells"] == there[gene["token"]]
        counts = [gene["cells"] for gene in told["genes"]]
        assert counts == sorted(there.values(), reverse=True)[:10]


def test_the_genes_and_what_was_lost_with_them_are_those_of_the_source(home):
    x = np.log1p(home.x).astype(np.float64)
    share = x.sum(axis=0) / x.sum()
    genes, source = home.data["genes"], home.data["source"]
    assert (genes["n_var"], genes["kept"], genes["dropped"]) == (N_GENES, N_KEPT, N_GENES - N_KEPT)
    assert genes["expression_lost"] == pytest.approx(share[~home.kept].sum(), rel=1e-6)
    worst = sorted(np.flatnonzero(~home.kept), key=lambda column: -share[column])[:20]
    assert [gene["gene_id"] for gene in source["lost_genes"]] == [home.genes[column] for column in worst]
    assert [gene["share"] for gene in source["lost_genes"]] == pytest.approx(share[worst], rel=1e-6)
    assert source["lost_genes"][0]["name"] == HOSTILE
    dropped = [f"{home.names[column]} ({home.genes[column]})" for column in np.flatnonzero(~home.kept)]
    assert genes["dropped_genes"] == dropped


def test_the_cells_that_were_cut_are_those_with_more_genes_than_fit(home):
    n_genes = (home.x[:, home.kept] != 0).sum(axis=1)
    source = home.data["source"]
    assert source["cells"] == source["of_cells"] == N_CELLS
    assert source["truncated"] == (n_genes > LONGEST - 1).sum()
    assert 0 < source["truncated"] < home.data["lengths"]["at_limit"], "some are exactly as long"


def test_columns_of_one_gene_count_as_one(tmp_path):
    genes = ["A", "B", "C"]
    source = cells.with_layer(np.array([[1.0, 2, 3], [1, 0, 3]], np.float32), [*genes[:2], "C"])
    source.var["id"] = ["A", "A", "B"]
    args = {
        "tokenizer_name_or_path": cells.write_vocabulary(tmp_path / "v", ["A", "B"]),
        "gene_id_column": "id",
        "max_seq_len": 2,
    }
    for how, truncated in (("sum", 0), ("keep", 1)):
        manifest = tokenize_to_disk(source, {**args, "duplicate_genes": how}, tmp_path, name=how, report=True)
        assert data_of(manifest.path / "report.html")["source"]["truncated"] == truncated


def test_cells_whose_negatives_were_cut_are_counted_and_reported(tmp_path):
    source = cells.with_layer(np.array([[-1, -2, 0, -3, 5], [0, 1, 1, 0, 0]], np.float32), cells.KEPT[:5])
    args = cells.make_args(tmp_path, max_seq_len=3)
    page = tokenize_to_disk(source, args, tmp_path, name="out", report=True).path / "report.html"
    told = data_of(page)
    assert (told["source"]["truncated"], told["lengths"]["at_limit"]) == (1, 0)
    text = page.read_text(encoding="utf-8")
    assert '<b data-key="truncated">50.00%</b> of cells were cut' in text
    assert '<b data-key="at_limit">0.00%</b> of sequences (0) are at max_seq_len, 3.' in text


def test_of_a_large_source_a_sample_is_read_and_said_to_be_one(home, tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "BATCHES", 2)
    args = {**home.args, "max_shard_samples": 100}
    page = tokenize_to_disk(home.source, args, tmp_path, report=True).path / "report.html"
    source = data_of(page)["source"]
    assert (source["cells"], source["of_cells"]) == (134, N_CELLS), "the first record batch and the last"
    n_genes = (home.x[:, home.kept] != 0).sum(axis=1)
    assert source["truncated"] == (n_genes[[*range(100), *range(1200, 1234)]] > LONGEST - 1).sum()
    assert "Estimated from 134 of the 1,234 cells" in page.read_text(encoding="utf-8")


def test_the_labels_and_annotations_are_counted(home, rows):
    counts = Counter(map(str, home.labels))
    assert home.data["labels"]["column"] == "cell_type"
    assert {row["label"]: row["cells"] for row in home.data["labels"]["counts"]} == counts
    told = {row["annotation"]: row for row in home.data["annotations"]}
    assert list(told) == ["disease", "tissue", "cell type", "sex"]
    with_token = [sum(row["bio_annotations"][kind] != 1 for row in rows) for kind in range(4)]
    assert [row["with_token"] for row in told.values()] == with_token
    assert 0 < with_token[0] < N_CELLS
    n_hostile = int((home.diseases == HOSTILE).sum())
    assert told["disease"]["unmapped"] == [{"label": HOSTILE, "cells": n_hostile}]
    assert home.data["columns"] == [{"column": "note", "cells": sum(note is not None for note in home.notes)}]


def test_the_configuration_and_checksums_are_all_there(home):
    assert home.data["configuration"] == home.manifest.configuration
    for key, value in home.args.items():
        assert home.data["configuration"][key] == value
    for shard in home.data["shards"]:
        assert shard["sha256"] == hashlib.sha256((home.path / shard["file"]).read_bytes()).hexdigest()
        assert shard["sha256"] in home.text
    vocabulary = Path(home.args["tokenizer_name_or_path"], "vocab.txt").read_bytes()
    assert home.data["checksums"]["vocabulary"] == {"vocab.txt": hashlib.sha256(vocabulary).hexdigest()}
    assert home.manifest.source["fingerprint"] in home.text


def test_the_stages_of_the_run_are_measured(home, tmp_path, monkeypatch):
    told = home.data["throughput"]
    assert (told["cells"], told["threads"]) == (N_CELLS, 2)
    assert set(told) == {"reading", "tokenizing", "writing", "seconds", "cells", "threads"}
    ticks = iter(range(10**6))  # a clock that goes on by one whenever it is looked at
    monkeypatch.setattr(batches_module, "perf_counter", lambda: next(ticks))
    page = tokenize_to_disk(home.source, home.args, tmp_path, threads=1, report=True).path / "report.html"
    told = data_of(page)["throughput"]
    assert (told["reading"], told["tokenizing"]) == (3, 3), "once for each record batch"
    assert told["writing"] > 0


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"bins": 11}, "bins"),
        ({"continuous_rank": True}, "ranks"),
        ({"write_values": False}, None),
        ({"random_genes": True, "gene_seed": 3}, "expression"),
        ({"include_zero_genes": True, "add_cls": False}, "expression"),
        ({"add_disease_annotation": True, "bio_annotations": False, "label_column": None}, "expression"),
        ({"label_column": None, "bio_annotations": False, "obs_columns": []}, "expression"),
        ({"max_seq_len": 1}, "expression"),
        ({"add_eos": True, "eos_token_id": 0}, "expression"),
        ({"add_eos": True, "eos_token_id": 0, "add_cls": False, "bins": 4}, "bins"),
        ({"output_names": {"gene_ids": "input_ids", "values": "x", "labels": "y"}, "write_length": True}, "expression"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_every_kind_of_run_has_its_page(home, tmp_path, keys, kind):
    datasets = pytest.importorskip("datasets")
    manifest = tokenize_to_disk(home.source, {**home.args, **keys}, tmp_path, report=True)
    told = data_of(manifest.path / "report.html")
    read = datasets.load_from_disk(str(manifest.path)).to_list()
    names = keys.get("output_names", {})
    read = [{own: row[names.get(own, own)] for own in ("gene_ids", *(["values"] if kind else []))} for row in read]
    assert told["lengths"]["at_limit"] == sum(len(row["gene_ids"]) == told["lengths"]["max_seq_len"] for row in read)
    if kind is None:
        assert told["values"] is None
    else:
        cls = {**home.args, **keys}["add_cls"]
        eos = "add_eos" in keys
        values = np.concatenate([row["values"][cls : len(row["values"]) - eos] for row in read])
        assert (told["values"]["kind"], told["values"]["n"]) == (kind, len(values))
        if len(values):
            edges = told["values"]["start"] + told["values"]["width"] * np.arange(len(told["values"]["counts"]) + 1)
            assert told["values"]["counts"] == np.histogram(values, edges)[0].tolist()
    firsts = Counter(
        row["gene_ids"][home.args["add_cls"]] for row in read if len(row["gene_ids"]) > 1 + ("add_eos" in keys)
    )
    if keys.get("add_cls", True):
        assert told["ranks"][0]["cells"] == firsts.total()
    if names:
        counts = Counter(map(str, home.labels))
        assert {row["label"]: row["cells"] for row in told["labels"]["counts"]} == counts
        assert [row["column"] for row in told["columns"]] == ["note"]
    if "random_genes" in keys:
        assert told["source"]["truncated"] >= 0  # test_counts.py counts them
        assert told["gene_seed"] == 3
    if "add_disease_annotation" in keys:
        counts = {row["label"]: row["cells"] for row in told["labels"]["counts"]}
        diseases = Counter(map(str, home.diseases))
        assert counts == {
            "normal": diseases["normal"],
            "asthma": diseases["asthma"],
            "unmapped (token 1)": diseases[HOSTILE],
        }
    elif keys.get("label_column", "") is None:
        assert told["labels"] is None
        assert told["annotations"] == []


def test_a_source_without_a_cell_has_a_page(tmp_path):
    source = cells.with_layer(np.zeros((0, 12), np.float32))
    manifest = tokenize_to_disk(source, cells.make_args(tmp_path, add_cls=True), tmp_path, report=True)
    told = data_of(manifest.path / "report.html")
    assert (told["totals"]["cells"], told["lengths"]["counts"], told["values"]) == (0, [], None)


def test_more_labels_than_can_be_listed_are_said_to_be(home, tmp_path, monkeypatch):
    monkeypatch.setattr("teddytok_rs.report.numbers.LABELS", 2)
    page = write_report(home.path, tmp_path / "page.html")
    assert data_of(page)["labels"] == {"column": "cell_type", "too_many": True, "counts": []}
    assert "There are too many to list." in page.read_text(encoding="utf-8")


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=20), max_size=6), st.randoms())
def test_any_numbers_in_any_parts_are_counted_in_few_bins(parts, random):
    together = Histogram(2.0**-20)
    for part in parts:
        together.add(np.array(part, np.float32))
    told = together.to_dict()
    numbers = np.array([number for part in parts for number in part], np.float32)
    assert len(told["counts"]) <= BINS
    assert sum(told["counts"]) == told["n"] == len(numbers)
    if len(numbers):
        places = np.floor(numbers.astype(np.float64) / told["width"]).astype(int) - int(told["start"] / told["width"])
        assert told["counts"] == np.bincount(places).tolist()
    random.shuffle(parts)
    again = Histogram(2.0**-20)
    for part in parts:
        again.add(np.array(part, np.float32))
    assert {**again.to_dict(), "mean": None} == {**told, "mean": None}


@given(st.lists(st.integers(0, 3), max_size=300))
def test_neighbouring_lengths_are_joined_and_the_longest_ends_a_bin(counts):
    start, width, joined = binned(counts)
    assert len(joined) <= 64
    assert start >= 0
    assert sum(joined) == sum(counts)
    numbers = np.repeat(np.arange(len(counts)), counts)
    edges = start + width * np.arange(len(joined) + 1)
    if len(numbers):
        assert joined == np.bincount((numbers - start) // width, minlength=len(joined)).tolist()
        assert edges[-1] - 1 - numbers.max() in ({0} if start else set(range(width)))


# ---- the folder stays what it is


def test_a_dataset_with_a_report_has_the_same_bytes(home, tmp_path):
    plain = tokenize_to_disk(home.source, home.args, tmp_path, threads=1)
    plain_files, files = contents(plain.path), contents(home.path)
    assert plain_files.items() <= files.items()
    assert files.keys() - plain_files.keys() == {"report.html", "report.json"}
    assert not (plain.path / "report.html").exists()
    assert verify(home.path).problems == []


def test_the_page_is_the_same_when_it_is_written_again(home, tmp_path):
    first = write_report(home.path, tmp_path / "1.html").read_bytes()
    assert write_report(home.path, tmp_path / "2.html").read_bytes() == first
    assert first == home.page.read_bytes(), "and tells what only the run knew"


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"<html></html>"], ids=str)
def test_a_file_that_is_not_a_page_is_not_written_over(content, home, tmp_path):
    path = tmp_path / "typo.h5ad"
    path.write_bytes(content)
    with raises("report_exists", "typo.h5ad': it is not a report"):
        write_report(home.path, path)
    assert [(found, found.read_bytes()) for found in tmp_path.iterdir()] == [(path, content)]
    with raises("report_exists", f"{str(tmp_path)!r}: it is a folder."):
        write_report(home.path, tmp_path)
    assert write_report(home.path, tmp_path / "page.html") == write_report(home.path, tmp_path / "page.html")


def test_a_page_of_a_folder_alone_says_what_was_not_recorded(home, tmp_path):
    plain = tokenize_to_disk(home.source, home.args, tmp_path)
    page = write_report(plain.path)
    assert page == plain.path / "report.html"
    told = data_of(page)
    assert (told["source"], told["throughput"]) == (None, None)
    assert page.read_text(encoding="utf-8").count("Not recorded") == 2
    assert {**told, "source": 0, "throughput": 0} == {**home.data, "source": 0, "throughput": 0}


def test_a_record_of_another_dataset_is_not_believed(home, tmp_path):
    other = tokenize_to_disk(home.source, {**home.args, "max_seq_len": 50}, tmp_path)
    record = (home.path / "report.json").read_text(encoding="utf-8")
    for left_there in (record, "no record", "[]", record[:100], "\udcff"):
        (other.path / "report.json").write_text(left_there, encoding="utf-8", errors="surrogateescape")
        told = data_of(write_report(other.path))
        assert (told["source"], told["throughput"]) == (None, None)
        assert told["configuration"]["max_seq_len"] == 50


def test_a_page_is_written_again_from_the_record_whatever_became_of_it(home, tmp_path):
    shutil.copytree(home.path, tmp_path / "cells")
    page = tmp_path / "cells" / "report.html"
    for spoilt in ("no page", home.text.replace('"truncated":', '"cut":')):
        page.write_text(spoilt, encoding="utf-8")
        write_report(tmp_path / "cells")
        assert page.read_bytes() == home.page.read_bytes()


def test_a_finished_run_gets_its_page_and_a_new_one_removes_it(home, tmp_path):
    page = tokenize_to_disk(home.source, home.args, tmp_path).path / "report.html"
    tokenize_to_disk(home.source, home.args, tmp_path, report=True)
    told = data_of(page)
    assert told["source"] == home.data["source"]
    assert told["throughput"] is None, "nothing was tokenized"
    tokenize_to_disk(home.source, home.args, tmp_path, overwrite=True)
    assert not page.exists()


def test_a_run_that_is_continued_reports_what_this_call_did(home, tmp_path, interrupt_after):
    with interrupt_after(1):
        tokenize_to_disk(home.source, home.args, tmp_path, report=True)
    page = tmp_path / "cells" / "report.html"
    assert not page.exists()
    tokenize_to_disk(home.source, home.args, tmp_path, report=True)
    assert data_of(page)["throughput"]["cells"] == 734
    assert "The other 500 cells were finished by an earlier run." in page.read_text(encoding="utf-8")
    assert {**data_of(page), "throughput": 0} == {**home.data, "throughput": 0}


# ---- a corpus


def test_what_workers_took_is_not_recorded_and_what_was_cut_is(home, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        tokenize_corpus(home.source, home.args, tmp_path, executor=executor, report=True)
    told = data_of(tmp_path / "cells" / "report.html")
    assert told["throughput"] is None
    del told["configuration"]["label_names"]  # a corpus fixes them
    expected = {**home.data, "throughput": 0, "configuration": {**home.data["configuration"]}}
    del expected["configuration"]["label_names"]
    assert {**told, "throughput": 0} == expected


def test_a_corpus_has_a_page_of_all_and_one_of_each(home, tmp_path):
    sources = tmp_path / "in"
    sources.mkdir()
    for name in ("a", "b"):
        (sources / f"{name}.h5ad").write_bytes(home.source.read_bytes())
    (sources / "<b>bad.h5ad").write_bytes(b"no file")
    corpus = tokenize_corpus(sources, home.args, tmp_path / "out", report=True)
    assert len(corpus.failed) == 1
    told = data_of(corpus.path / "report.html")
    for name in ("a", "b"):
        alone = data_of(corpus.path / name / "report.html")
        differing = dict.fromkeys(("throughput", "origin", "name", "configuration"), 0)  # a corpus fixes label_names
        assert {**alone, **differing} == {**home.data, **differing}
        assert f'href="./{name}/report.html"' in (corpus.path / "report.html").read_text(encoding="utf-8")
    assert told["totals"]["tokens"] == 2 * home.data["totals"]["tokens"]
    assert told["lengths"]["counts"] == [2 * n for n in home.data["lengths"]["counts"]]
    assert told["values"]["counts"] == [2 * n for n in home.data["values"]["counts"]]
    assert [row["cells"] for row in told["labels"]["counts"]] == [
        2 * row["cells"] for row in home.data["labels"]["counts"]
    ]
    outcome = {row["folder"]: row["error"] for row in told["sources"]}
    assert (outcome["a"], outcome["b"]) == (None, None)
    assert outcome["<b>bad"]["kind"] == "source_unreadable"
    assert "<b>bad" not in (corpus.path / "report.html").read_text(encoding="utf-8")
    (corpus.path / "a" / "report.html").unlink()
    tokenize_corpus(sources / "a.h5ad", home.args, tmp_path / "out", report=True)
    assert (corpus.path / "a" / "report.html").exists(), "of a dataset that was finished before"


# ---- errors


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_without_the_extra_nothing_is_begun(module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with raises("report_extra", module, "pip install 'teddytok-rs[report]'"):
        tokenize_to_disk(demo.CELLS, demo.args(), tmp_path / "out", report=True)
    with raises("report_extra", module):
        tokenize_corpus([demo.CELLS], demo.args(), tmp_path / "out", report=True)
    with raises("report_extra", module):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_package_can_be_imported_whole_without_the_extra():
    code = "import sys; sys.modules.update(jinja2=None, matplotlib=None); from teddytok_rs import *"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_that_is_damaged_has_no_page(home, tmp_path):
    with raises("output_unreadable"):
        write_report(tmp_path)
    for name, spoil in (
        ("data-00000-of-00003.arrow", lambda content: content[:5000]),
        ("genes.csv", lambda content: content[5:]),
    ):
        manifest = tokenize_to_disk(home.source, home.args, tmp_path, name=name[:4])
        path = manifest.path / name
        path.write_bytes(spoil(path.read_bytes()))
        with raises("output_unreadable"):
            write_report(manifest.path)
        assert not (manifest.path / "report.html").exists()


@pytest.mark.parametrize(
    ("part", "spoilt"),
    [
        ("genes", {}),
        ("genes", {"n_var": "many", "kept": 1, "dropped": 1, "duplicates": {}}),
        ("annotations", {"disease": 7}),
        ("annotations", {"disease": {"column": 3, "cells": {"a": "b"}, "unmapped": {}, "by_part": []}}),
        ("configuration", {}),
        ("checksums", {"genes": {"genes.csv": "0"}}),
        ("source", {"name": "cells"}),
    ],
)
def test_a_manifest_that_strangers_changed_is_refused(home, tmp_path, part, spoilt):
    shutil.copytree(home.path, tmp_path / "copy")
    manifest = json.loads((home.path / "teddytok.json").read_text(encoding="utf-8"))
    cells.write_json(tmp_path / "copy" / "teddytok.json", {**manifest, part: spoilt})
    with raises("output_unreadable"):
        write_report(tmp_path / "copy")


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        *(("throughput", "seconds", value) for value in (0, -1, None, "x", float("nan"))),
        ("throughput", "threads", 0),
        ("source", "truncated", "many"),
        ("source", "cut", 1),
        ("source", "lost_genes", [{"gene_id": "a", "name": "a", "share": -1}]),
    ],
)
def test_a_record_that_was_changed_is_not_believed(home, tmp_path, part, key, value):
    shutil.copytree(home.path, tmp_path / "copy")
    record = json.loads((home.path / "report.json").read_text(encoding="utf-8"))
    record[part][key] = value
    (tmp_path / "copy" / "report.json").write_text(json.dumps(record), encoding="utf-8")
    told = data_of(write_report(tmp_path / "copy"))
    assert (told["source"], told["throughput"]) == (None, None)


def test_a_page_that_cannot_be_written_is_an_error(home, tmp_path):
    with raises("output_failed"):
        write_report(home.path, tmp_path / "no folder" / "page.html")


def test_a_corpus_of_nothing_has_no_page(tmp_path):
    bad = tmp_path / "bad.h5ad"
    bad.write_bytes(b"no file")
    corpus = tokenize_corpus([bad], demo.args(), tmp_path / "out", report=True)
    assert len(corpus.failed) == 1
    assert not (corpus.path / "report.html").exists()
    with raises("output_unreadable", "none of its sources is finished"):
        write_report(corpus.path)


def test_the_command_line_writes_pages(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = cells.write_json(tmp_path / "args.json", home.args)
    words = ["tokenize", home.source, "--config", config, "--out", "out", "--report"]
    said = teddytok(*words)
    assert (said.returncode, said.stderr) == (0, "")
    page = tmp_path / "out" / "cells" / "report.html"
    assert "report     out/cells/report.html" in said.stdout
    assert data_of(page)["source"] == home.data["source"]
    cli.main(["report", "out/cells", "--out", "page.html"], standalone_mode=False)
    assert (tmp_path / "page.html").read_bytes() == page.read_bytes()
    page.unlink()
    cli.main(["report", "out/cells"], standalone_mode=False)
    assert page.exists()
    folder = str(home.source.parent)
    cli.main(["tokenize", folder, "-c", config, "--out", "many", "--report", "-q"], standalone_mode=False)
    assert {path.parent.name for path in (tmp_path / "many").rglob("report.html")} == {"many", "cells"}
    assert capsys.readouterr().out == "page.html\nout/cells/report.html\n"


# ---- the page


def test_nothing_is_loaded_from_anywhere(home):
    tags: list[tuple[str, dict[str, str | None]]] = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    reader.feed(home.text)
    assert not {tag for tag, _ in tags} & {"link", "iframe", "object", "embed", "base", "form", "img", "image"}
    links = [value for _, given in tags for name, value in given.items() if name.endswith("href")]
    assert len(links) > 9
    assert all(link.startswith("#") for link in links)
    assert not [given for _, given in tags if {"src", "srcset", "srcdoc", "data", "poster", "action"} & set(given)]
    assert not [name for _, given in tags for name in given if name.startswith("on")]
    assert not re.search(r"@import|url\((?!#)", DATA.sub("", home.text))


def test_nothing_that_strangers_wrote_is_markup(home):
    assert HOSTILE not in home.text
    assert home.text.count("<script") == 1
    assert "<img" not in home.text
    assert "{{" not in DATA.sub("", home.text).replace("{{ 7 * 7 }}", "")


@pytest.fixture(scope="module")
def measured(home: Home, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("browser")
    return {
        "desktop": browser.measure(folder, home.page),
        "dark": browser.measure(folder, home.page, dark=True),
        "phone": browser.measure(folder, home.page, PHONE),
        "dark phone": browser.measure(folder, home.page, PHONE, dark=True),
    }


VIEWS = pytest.mark.parametrize("view", ["desktop", "dark", "phone", "dark phone"])


@VIEWS
def test_a_browser_reads_the_numbers_back(home, measured, view):
    seen = measured[view]
    assert seen["data"] == home.data
    shown, totals, source = seen["shown"], home.data["totals"], home.data["source"]
    assert shown["cells"] == f"{N_CELLS:,}"
    assert shown["tokens"] == f"{totals['tokens']:,}"
    assert shown["mean_length"] == f"{totals['tokens'] / N_CELLS:,.1f}"
    assert shown["genes_kept"] == f"{N_KEPT}"
    assert shown["expression_lost"] == f"{home.manifest.expression_lost:.2%}"
    assert shown["truncated"] == f"{source['truncated'] / N_CELLS:.2%}"
    assert shown["n_values"] == f"{totals['tokens'] - N_CELLS:,}"


@VIEWS
def test_a_browser_runs_and_loads_nothing(home, measured, view):
    seen = measured[view]
    assert seen["title"] == "cells: teddytok report"
    assert (seen["scripts"], seen["images"], seen["loaded"]) == (2, 0, []), "the data, and the script that looks"


@VIEWS
def test_the_page_fits_and_can_be_read(measured, view):
    seen = measured[view]
    assert seen["dark"] == ("dark" in view)
    assert seen["width"] == (390 if "phone" in view else 1200)
    assert seen["scrollWidth"] <= seen["width"], "with all that unfolds unfolded"
    assert seen["contrast"][0] >= 4.5, seen["contrast"]
    assert seen["smallestText"] >= 9
    assert seen["repeatedIds"] == []


@VIEWS
def test_the_page_has_its_sections_in_order(measured, view):
    seen = measured[view]
    sections = [heading[3:] for heading in seen["headings"] if heading.startswith("H2")]
    assert sections == [
        "Configuration", "Gene match", "Sequence lengths", "Values", "Most frequent genes", "Annotation coverage",
        "Cells per label", "Throughput", "Checksums",
    ]  # fmt: skip
    assert seen["headings"][0] == "H1 cells"
    assert all(int(after[1]) <= int(before[1]) + 1 for before, after in pairwise(seen["headings"]))
    assert (seen["figures"], seen["unnamedFigures"]) == (2, 0)


@pytest.mark.parametrize("size", [(1200, 900), PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_screenshot_shows_a_page_in_its_colours(home, tmp_path, size, dark):
    picture = browser.screenshot(tmp_path, home.page, size, dark=dark)
    assert picture.shape == (size[1], size[0], 3)
    brightness = picture.mean(axis=2)
    paper = np.median(brightness)
    assert paper < 0.2 if dark else paper > 0.9
    assert (abs(brightness - paper) > 0.4).mean() > 0.005, "there is something on it"


def test_a_corpus_fits_a_phone(home, tmp_path):
    for name in ("a-source-with-a-long-name-that-could-push-the-table-over-the-edge", "b"):
        (tmp_path / f"{name}.h5ad").write_bytes(home.source.read_bytes() if name == "b" else b"no file")
    corpus = tokenize_corpus(tmp_path, home.args, tmp_path / "out", report=True)
    seen = browser.measure(tmp_path, corpus.path / "report.html", PHONE)
    assert seen["scrollWidth"] <= seen["width"] == 390
    assert seen["shown"]["sources_finished"] == "1"
    assert seen["contrast"][0] >= 4.5, seen["contrast"]
