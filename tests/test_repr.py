"""Public objects print on one screen, in a terminal and in a notebook."""

from __future__ import annotations

import inspect as python_inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from anndata import AnnData
from scipy import sparse

import teddytok_rs
from teddytok_rs import TokenizationArgs, demo
from teddytok_rs.corpus.manifest import CorpusManifest, CorpusSource, Failure
from teddytok_rs.engines import arrow
from teddytok_rs.errors.text import TextRepr
from teddytok_rs.mapping.reports import AnnotationReport, GeneReport
from teddytok_rs.mapping.vocabulary import Vocabulary
from teddytok_rs.output.inspect import Inspection, Sequence
from teddytok_rs.output.manifest import Checksums, Manifest, RecordedSource, Shard
from teddytok_rs.output.medians import GeneMedian, Medians, MedianSettings
from teddytok_rs.output.verify import Verification
from teddytok_rs.pipeline.check import CheckReport

if TYPE_CHECKING:
    from collections.abc import Callable

#: Lines and columns.
LINES, COLUMNS = 20, 100
#: What a label, a path or a name of a gene may hold.
HOSTILE = "<script>alert(1)</script>\n\x1b[31m" + "x" * 300
MANY = 5000


def large_manifest() -> Manifest:
    """Describe a dataset of thousands of shards, duplicates and labels, all of hostile names."""
    labels = {f"{HOSTILE} {number}": number for number in range(MANY)}
    report = AnnotationReport(HOSTILE, labels, labels, dict.fromkeys(labels, HOSTILE), labels)
    shards = [Shard(f"data-{n:05}-of-05000.arrow", 3, 10**6, 10**9, f"{n:064x}", 1.0, 0.5) for n in range(MANY)]
    return Manifest(
        path=Path(f"/{HOSTILE}"),
        version="0.1.0",
        configuration=demo.args(layer="auto").model_dump(mode="json", exclude={"load_dir", "save_dir"}),
        gene_seed=2**64 - 1,
        source=RecordedSource(HOSTILE, 10**9, 10**8, HOSTILE, "float32", "f" * 64, "s" * 64),
        checksums=Checksums({}, {}, {}, {}, {}),
        genes=GeneReport(10**6, 10**5, 9 * 10**5, {number: [HOSTILE] * 9 for number in range(MANY)}),
        annotations=dict.fromkeys(("disease", "tissue", "cell", "sex"), report),
        cls_token=0,
        shards=shards,
        warnings=[f"{HOSTILE} {number}" for number in range(MANY)],
        n_kept=17,
    )


def large_check() -> CheckReport:
    manifest = large_manifest()
    return CheckReport(
        demo.args(layer="auto"),
        manifest.source,
        problems=manifest.warnings,
        warnings=manifest.warnings,
        genes=manifest.genes,
        annotations=manifest.annotations,
        lost_genes=[(HOSTILE, 0.1)] * 5,
        dropped_genes=[HOSTILE] * MANY,
        expression_lost=0.5,
        n_cells=10**9,
    )


def large_corpus() -> CorpusManifest:
    sources = [CorpusSource(f"{HOSTILE} {number}", f"{number}", 1, 2, 3) for number in range(MANY)]
    failed = [CorpusSource(HOSTILE, f"f{number}", error=Failure("unexpected", HOSTILE)) for number in range(MANY)]
    return CorpusManifest(Path(HOSTILE), "0.1.0", {}, sources + failed)


def large_inspection() -> Inspection:
    sequence = Sequence(10**9, [HOSTILE] * MANY, [1.5] * MANY, {f"{HOSTILE} {n}": HOSTILE for n in range(MANY)})
    return Inspection(large_manifest(), pa.schema([(f"{HOSTILE}{n}", pa.int8()) for n in range(MANY)]), [sequence] * 99)


def large_medians() -> Medians:
    genes = {f"{HOSTILE} {number}": GeneMedian(10**9, number, number or None) for number in range(MANY)}
    settings = MedianSettings("auto", 1e4, HOSTILE, True, "error", 1)
    sources = [RecordedSource(f"{HOSTILE} {n}", 10**9, 0, f"{HOSTILE} {n}", "float32", "f", "s") for n in range(MANY)]
    return Medians("0.1.0", settings, sources, genes, Path(HOSTILE))


def arrow_tokenizer() -> arrow.ArrowTokenizer:
    genes = list(demo.cells().var_names) + [f"{HOSTILE} {number}" for number in range(MANY)]
    args = demo.args(bio_annotations=False, label_column=None, min_gene_overlap=0.0)
    return arrow.ArrowTokenizer(args, genes, keep=[HOSTILE] * 3)


#: A large object of each public class.
OBJECTS: dict[type, Callable[[], object]] = {
    TokenizationArgs: lambda: demo.args(
        cell_filter=HOSTILE, obs_columns=[f"{HOSTILE} {n}" for n in range(MANY)], normalize_total=1e4, log1p=True
    ),
    Vocabulary: lambda: Vocabulary(HOSTILE, {f"{HOSTILE} {n}": n for n in range(MANY)}, {HOSTILE: HOSTILE}),
    Manifest: large_manifest,
    CheckReport: large_check,
    CorpusManifest: large_corpus,
    CorpusSource: lambda: large_corpus().failed[0],
    Inspection: large_inspection,
    Medians: large_medians,
    Verification: lambda: Verification(large_corpus(), [HOSTILE] * MANY, [HOSTILE] * MANY),
    arrow.ArrowTokenizer: arrow_tokenizer,
}
#: Parts of these.
PARTS: dict[type, Callable[[], object]] = {
    GeneReport: lambda: large_manifest().genes,
    AnnotationReport: lambda: large_manifest().annotations["sex"],
    RecordedSource: lambda: large_manifest().source,
    Sequence: lambda: large_inspection().sequences[0],
}


def public_classes(module: object) -> set[type]:
    found = {getattr(module, name) for name in module.__all__}
    return {thing for thing in found if python_inspect.isclass(thing) and not issubclass(thing, Exception)}


def assert_one_screen(thing: object) -> None:
    text = repr(thing)
    lines = text.split("\n")
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert all(line.isprintable() for line in lines)
    html = thing._repr_html_()
    assert html.startswith("<table>")
    assert html.endswith("</table>")
    assert len(html) < 4 * COLUMNS * LINES * 3
    assert set(re.findall(r"</?(\w+)", html)) <= {"table", "caption", "tr", "th", "td"}
    assert str(thing) == text


def test_every_public_class_is_here():
    assert public_classes(teddytok_rs) | public_classes(arrow) == set(OBJECTS)
    for kind in OBJECTS:
        assert "_repr_html_" in dir(kind) or kind is TokenizationArgs  # whose `dir` is its fields
        assert kind.__repr__ is TextRepr.__repr__


@pytest.mark.parametrize("kind", [*OBJECTS, *PARTS], ids=lambda kind: kind.__name__)
def test_a_large_object_is_one_screen_without_markup(kind: type):
    thing = (OBJECTS | PARTS)[kind]()
    assert isinstance(thing, kind)
    assert_one_screen(thing)


def test_results_of_the_demo_say_what_the_commands_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found = teddytok_rs.check(demo.CELLS, demo.args())
    manifest = teddytok_rs.tokenize_to_disk(demo.CELLS, demo.args(), "tokens")
    seen, verified = teddytok_rs.inspect(manifest.path), teddytok_rs.verify(manifest.path)
    corpus = teddytok_rs.tokenize_corpus([demo.CELLS], demo.args(), "corpus")
    for thing in (found, manifest, seen, verified, corpus, corpus.sources[0], teddytok_rs.verify(corpus.path)):
        assert_one_screen(thing)
    assert repr(found).startswith("cells.h5ad: 700 cells, ready to tokenize\n  genes ")
    assert repr(manifest).startswith("cells.h5ad: 700 cells\n  genes ")
    assert f"{manifest.n_tokens:,} tokens" in repr(manifest)
    assert repr(verified) == f"{manifest.path}: 700 cells in 1 shard, all valid"
    assert "CLS" in repr(seen)
    assert repr(corpus) == f"corpus: 1 dataset, 700 cells, {manifest.n_tokens:,} tokens, 1 shard"


def test_training_datasets_are_one_screen(tmp_path: Path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    assert torch
    from teddytok_rs import torch as training

    manifest = teddytok_rs.tokenize_to_disk(demo.CELLS, demo.args(), tmp_path)
    made = {
        training.WrittenDataset: training.WrittenDataset(manifest.path),
        training.OnTheFlyDataset: training.OnTheFlyDataset([demo.CELLS] * 30, demo.args()),
        training.Collator: training.Collator(0),
    }
    assert public_classes(training) == set(made)
    for thing in made.values():
        assert_one_screen(thing)


# ---- what results say of the source, its genes and annotations


def test_check_manifest_and_json_name_the_same(tmp_path: Path):
    counts = AnnData(
        sparse.csr_matrix(np.eye(4, dtype=np.float32)),
        obs=pd.DataFrame({"keep": [True, True, False, True]}, index=list("abcd")),
        var=pd.DataFrame(index=[*demo.cells().var_names[:3], "unknown"]),
    )
    counts.write_h5ad(tmp_path / "counts.h5ad")
    args = demo.args(bio_annotations=False, label_column=None, cell_filter="keep", layer="X")
    found = teddytok_rs.check(tmp_path / "counts.h5ad", args)
    manifest = teddytok_rs.tokenize_to_disk(tmp_path / "counts.h5ad", args, tmp_path)
    document = json.loads((manifest.path / "teddytok.json").read_text(encoding="utf-8"))
    assert found.genes == manifest.genes == Manifest.read(manifest.path).genes
    assert found.annotations == manifest.annotations
    assert dict(manifest.genes) == document["genes"] == {
        "n_var": 4, "kept": 3, "dropped": 1, "duplicates": {}, "mapped": 0, "ambiguous": 0, "filtered": 0
    }  # fmt: skip
    assert dict(manifest.source) == document["source"]
    assert dict(manifest.checksums) == document["checksums"]
    assert dict(found.source).items() <= document["source"].items()
    assert (found.source.n_cells, found.source.cells_dropped, found.n_cells) == (4, 1, 3)
    assert vars(manifest.totals) == document["totals"]
    assert found.dropped_genes == ["unknown"]
    # names of version 0.1.0
    assert (found.layer, found.n_dropped) == ("X", 1)
    assert (manifest.genes["kept"], manifest.source["cells_dropped"], found.genes.n_kept) == (3, 1, 3)
    with pytest.raises(KeyError):
        manifest.genes["n_kept"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda document: document["genes"].pop("kept"), "genes.kept is missing"),
        (lambda document: document["source"].update(size=3), "source.size is unknown"),
        (lambda document: document.update(path="/elsewhere"), "path is unknown"),
        (lambda document: document.update(n_kept=3), "n_kept is unknown"),
        (lambda document: document.pop("totals"), "totals is missing"),
        (lambda document: document["totals"].update(cells=1), "totals are not those of the parts"),
        (lambda document: document["shards"][0].update(rows="3"), "shards.0.rows: "),
        (lambda document: document["configuration"].pop("format"), "configuration: format is missing"),
        (lambda document: document["checksums"].update(genes={"other.csv": "0" * 64}), "checksums.genes.other.csv"),
        (lambda document: document["annotations"].update(age=document["annotations"]["sex"]), "annotations.age"),
    ],
)
def test_an_error_names_the_file_and_the_part(change: Callable[[dict], object], reason: str, tmp_path: Path):
    from teddytok_rs.output.checksum import with_checksum

    path = teddytok_rs.tokenize_to_disk(demo.CELLS, demo.args(), tmp_path).path / "teddytok.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["sha256"]
    change(document)
    path.write_text(with_checksum(document), encoding="utf-8")
    with pytest.raises(
        teddytok_rs.OutputError, match=re.escape(f"teddytok.json is not one that teddytok wrote: {reason}")
    ):
        Manifest.read(path.parent)


# ---- arguments


def test_completion_shows_fields_and_our_methods_alone():
    ours = {"load", "n_bins", "n_selected", "n_special", "output_name", "preset", "replace"}
    assert set(dir(demo.args())) == set(TokenizationArgs.model_fields) | ours


def test_replace_gives_checked_arguments():
    args = demo.args()
    assert args.replace(max_seq_len=512).max_seq_len == 512
    assert args.replace() == args
    with pytest.raises(teddytok_rs.ConfigError, match="max_seq_len"):
        args.replace(max_seq_len=0)
    with pytest.raises(teddytok_rs.ConfigError, match="max_seq_length"):
        args.replace(max_seq_length=5)


def test_the_arguments_that_were_changed_are_shown():
    text = repr(TokenizationArgs(tokenizer_name_or_path=str(Path("vocabulary")), bins=7))
    assert "bins" in text
    assert "max_seq_len" not in text
