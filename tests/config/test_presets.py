"""A published model's tokens, worked out here in plain NumPy from its description, and what a preset gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import cells
from command_line import teddytok
from raises import raises
from teddytok_rs import TokenizationArgs, tokenize, tokenize_corpus, tokenize_to_disk
from teddytok_rs.config.presets import PRESETS

if TYPE_CHECKING:
    from pathlib import Path

N_CELLS, N_GENES = 40, 300
SPECIAL = ["<pad>", "<cls>", "<mask>", "<unk>", "<eos>"]


class Model:
    """Counts, a vocabulary of five genes in six and medians, in memory and as files."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(5)
        self.genes = np.array([f"ENSG{i:011}" for i in range(N_GENES)])
        self.counts = rng.negative_binomial(0.4, 0.1, size=(N_CELLS, N_GENES)).astype(np.float32)
        self.counts[3] = 0
        self.known = np.arange(N_GENES) % 6 != 5
        self.vocabulary = SPECIAL + list(self.genes[self.known])
        self.medians = dict(zip(self.genes[self.known], rng.uniform(0.5, 20, size=self.known.sum()), strict=True))
        self.files = {"tokenizer_name_or_path": str(folder / "vocab.txt"), "median_dict": str(folder / "medians.json")}
        (folder / "vocab.txt").write_text("\n".join(self.vocabulary) + "\n", encoding="utf-8")
        (folder / "medians.json").write_text(json.dumps(self.medians), encoding="utf-8")
        self.source = anndata.AnnData(
            sparse.csr_matrix(self.counts),
            obs=pd.DataFrame(index=[f"cell {i}" for i in range(N_CELLS)]),
            var=pd.DataFrame(index=self.genes),
        )
        self.tokens = np.array([self.vocabulary.index(gene) for gene in self.genes[self.known]])

    def scaled(self) -> np.ndarray:
        """Scale counts as Geneformer and TEDDY say: counts of the cell to 10,000, each gene by its median."""
        totals = self.counts.astype(np.float64).sum(axis=1, keepdims=True)
        share = np.divide(self.counts, totals, out=np.zeros((N_CELLS, N_GENES)), where=totals > 0)
        factors = np.array([self.medians[gene] for gene in self.genes[self.known]])
        return share[:, self.known] * 10_000 / factors


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path)


def ranked(row: np.ndarray, tokens: np.ndarray, most: int) -> np.ndarray:
    """Geneformer's tokenize_cell and rank_genes, and the cut to the model's input size."""
    nonzero = np.nonzero(row)[0]
    return tokens[nonzero][np.argsort(-row[nonzero])][:most]


def clear(row: np.ndarray) -> bool:
    """Return whether the order of a row is certain in float32."""
    values = np.sort(row[row > 0])
    return bool((np.diff(values) > 1e-6 * values[1:]).all())


@pytest.mark.parametrize("most", [2048, 20])
@pytest.mark.parametrize("name", ["geneformer-v1", "teddy-g"])
def test_ranks_are_those_of_geneformers_own_functions(name: str, most: int, model: Model):
    args = TokenizationArgs.preset(name, model.files, max_seq_len=most)
    assert TokenizationArgs.preset(name, model.files).max_seq_len == 2048
    table = tokenize(model.source, args)
    judged = [i for i, row in enumerate(model.scaled()) if clear(row)]
    assert len(judged) > 0.9 * N_CELLS
    for i in judged:
        assert table[0][i].as_py() == list(ranked(model.scaled()[i], model.tokens, most))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_a_cellxgene_file_gives_the_tokens_of_its_counts(name: str, suffix: str, model: Model, tmp_path: Path):
    """X holds ln(1 + counts per 10,000), raw.X the counts: TEDDY's preprocessing takes raw.X first."""
    counts = model.source.X
    totals = np.maximum(model.counts.sum(axis=1, keepdims=True), 1)
    file = anndata.AnnData(
        sparse.csr_matrix(np.log1p(model.counts / totals * 10_000)), obs=model.source.obs, var=model.source.var
    )
    file.raw = anndata.AnnData(counts, obs=model.source.obs, var=model.source.var)
    path = cells.save(file, tmp_path / f"cellxgene.{suffix}")
    files = model.files if name != "scgpt" else {"tokenizer_name_or_path": model.files["tokenizer_name_or_path"]}
    args = TokenizationArgs.preset(name, files)
    table = tokenize(path, args)
    assert table.equals(tokenize(model.source, TokenizationArgs.load(args, layer="X")))
    if "normalize_total" in PRESETS[name].settings and name != "teddy-x":
        judged = [i for i, row in enumerate(model.scaled()) if clear(row)]
        assert len(judged) > 0.9 * N_CELLS
        for i in judged:
            own = ranked(model.scaled()[i], model.tokens, 2048).tolist()
            assert table[0][i].as_py() == (
                [SPECIAL.index("<cls>"), *own, SPECIAL.index("<eos>")] if args.add_eos else own
            )


def test_the_values_of_teddy_g_are_even_steps_from_one_to_minus_one(model: Model):
    table = tokenize(model.source, TokenizationArgs.preset("teddy-g", model.files))
    for values in table["values"].to_pylist():
        assert np.allclose(values, np.linspace(1, -1, len(values)) if len(values) != 1 else [1], atol=1e-7)
    assert table["gene_ids"][3].as_py() == []


@pytest.mark.parametrize("name", ["geneformer-v1", "geneformer-v2"])
def test_geneformer_has_input_ids_and_their_length(name: str, model: Model):
    table = tokenize(model.source, TokenizationArgs.preset(name, model.files))
    assert table.column_names == ["input_ids", "length"]
    assert table["length"].to_pylist() == [len(ids) for ids in table["input_ids"].to_pylist()]


@pytest.mark.parametrize("size", [4096, 22])
def test_geneformer_v2_puts_genes_between_cls_and_eos(size: int, model: Model):
    cls, eos = SPECIAL.index("<cls>"), SPECIAL.index("<eos>")
    assert TokenizationArgs.preset("geneformer-v2", model.files).max_seq_len == 4096
    table = tokenize(model.source, TokenizationArgs.preset("geneformer-v2", model.files, max_seq_len=size))
    for i, row in enumerate(model.scaled()):
        if clear(row):
            assert table["input_ids"][i].as_py() == [cls, *ranked(row, model.tokens, size - 2), eos]
    assert table["input_ids"][3].as_py() == [cls, eos]


def test_geneformer_without_a_version_names_both():
    with raises("config_value", "= 'geneformer' is not valid", "'geneformer-v1', 'geneformer-v2'"):
        TokenizationArgs.preset("geneformer", tokenizer_name_or_path="vocabulary")


def binned(row: np.ndarray, n_bins: int) -> np.ndarray:
    """scGPT's binning with side="one": no draw among the bins of equal edges."""
    result = np.zeros(row.shape, dtype=int)
    if row.max() > 0:
        nonzero = row.nonzero()
        edges = np.quantile(row[nonzero], np.linspace(0, 1, n_bins - 1))
        result[nonzero] = np.digitize(row[nonzero], edges)
    return result


@pytest.mark.parametrize(("name", "first"), [("scgpt", {1: 1}), ("teddy-x", {})])
def test_bins_are_those_of_scgpts_own_function(name: str, first: dict[int, int], model: Model):
    files = model.files if name != "scgpt" else {"tokenizer_name_or_path": model.files["tokenizer_name_or_path"]}
    table = tokenize(model.source, TokenizationArgs.preset(name, files))
    rows = model.counts[:, model.known].astype(np.float64) if name == "scgpt" else model.scaled().astype(np.float32)
    judged = 0
    for i, row in enumerate(rows):
        if name == "scgpt" or clear(row):
            bins = binned(row, 51)
            own = {int(token): int(bin_) for token, bin_ in zip(model.tokens, bins, strict=True) if bin_}
            written = dict(zip(table["gene_ids"][i].as_py(), table["values"][i].as_py(), strict=True))
            near = [token for token in own if own[token] != written.get(token)]
            # a value that is itself an edge falls to either side of it as float32 rounds
            assert len(near) <= (0 if name == "scgpt" else 0.02 * len(own)), i
            assert set(written) == set(own) | set(first)
            judged += 1
    assert judged > 0.9 * N_CELLS


def test_scgpt_holds_cls_and_1199_genes():
    args = TokenizationArgs.preset("scgpt", tokenizer_name_or_path="vocabulary")
    assert (args.max_seq_len, args.n_selected, args.n_bins, args.layer) == (1200, 1199, 51, "auto")
    assert (args.normalize_total, args.log1p) == (None, False)


# ---- the list, and files on the Hub


def test_the_command_lists_every_preset_with_its_sources():
    text, listed = teddytok("presets").stdout, json.loads(teddytok("presets", "--json").stdout)["presets"]
    assert [preset["name"] for preset in listed] == list(PRESETS)
    for preset in listed:
        assert f"{preset['name']}: {preset['model']}\n" in text
        for key, setting in {**preset["settings"], **preset["files"]}.items():
            assert f"{key} " in text
            assert f"{setting['value']!r}  ({setting['source']})\n" in text


@pytest.mark.parametrize("size", ["70M", "160M", "400M"])
def test_teddy_g_completes_itself_for_each_size(size: str):
    args = TokenizationArgs.preset(f"teddy-g:{size}")
    assert args.preset_name == f"teddy-g:{size}"
    assert args.tokenizer_name_or_path == f"Merck/TEDDY/teddy/models/teddy_g/{size}"
    assert args.median_dict.endswith("/medians/data/teddy_gene_medians.json")
    assert args.disease_mapping is None


def test_the_largest_size_is_taken_where_none_is_named():
    of_size = TokenizationArgs.preset("teddy-g:400M").model_dump()
    assert TokenizationArgs.preset("teddy-g").model_dump() == of_size | {"preset_name": "teddy-g"}


def test_a_configuration_may_name_its_preset(tmp_path: Path, model: Model):
    (tmp_path / "args.json").write_text(json.dumps({"preset_name": "teddy-g", "max_seq_len": 64}), encoding="utf-8")
    args = TokenizationArgs.load(tmp_path / "args.json", **model.files)
    assert args == TokenizationArgs.preset("teddy-g", model.files, max_seq_len=64)
    assert TokenizationArgs.load(args.model_dump()) == args
    assert args.replace(max_seq_len=32, pad_length=32).preset_name == "teddy-g"


@pytest.mark.parametrize("named", [{"preset_name": "teddy-g"}, {}], ids=["with its name", "without"])
def test_the_name_of_a_preset_is_recorded_and_makes_no_other_run(named: dict[str, str], model: Model, tmp_path: Path):
    args = TokenizationArgs.preset("teddy-g", model.files)
    assert tokenize_to_disk(model.source, args, tmp_path).configuration["preset_name"] == "teddy-g"
    again = {key: value for key, value in args.model_dump().items() if key != "preset_name"} | named
    assert tokenize_to_disk(model.source, again, tmp_path).n_kept == 1
    model.source.write_h5ad(tmp_path / "cells.h5ad")
    tokenize_corpus(tmp_path / "cells.h5ad", args, tmp_path / "corpus")
    assert tokenize_corpus(tmp_path / "cells.h5ad", again, tmp_path / "corpus").failed == []


# ---- what overrides what


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_of_a_preset_is_an_argument_with_a_source(name: str):
    given = {"tokenizer_name_or_path": "vocabulary", "median_dict": None}
    args = TokenizationArgs.preset(name, given)
    for key, setting in PRESETS[name].settings.items():
        assert setting.source
        assert getattr(args, key) == setting.value
    assert PRESETS[name].differs.endswith(".")


def test_a_file_overrides_the_preset_and_keywords_override_both(tmp_path: Path, model: Model):
    file = tmp_path / "args.json"
    file.write_text(json.dumps({**model.files, "max_seq_len": 100, "pad_length": 100}), encoding="utf-8")
    args = TokenizationArgs.preset("teddy-g", file, max_seq_len=50)
    assert (args.max_seq_len, args.pad_length, args.continuous_rank) == (50, 100, True)
    assert args.median_dict == model.files["median_dict"]


def test_the_command_line_takes_them_in_the_same_order(tmp_path: Path, model: Model):
    model.source.write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "args.json").write_text(json.dumps({**model.files, "max_seq_len": 9}), encoding="utf-8")
    words = [
        "tokenize",
        "cells.h5ad",
        "--preset",
        "teddy-g",
        "-c",
        "args.json",
        "--pad-length",
        "11",
        "--out",
        "tokens",
    ]
    assert teddytok(*words, cwd=tmp_path).returncode == 0
    written = json.loads((tmp_path / "tokens" / "cells" / "teddytok.json").read_text(encoding="utf-8"))
    assert [written["configuration"][key] for key in ("max_seq_len", "pad_length", "continuous_rank")] == [9, 11, True]


def test_null_takes_a_step_of_the_preset_away(model: Model):
    none = {"layer": "processed", "normalize_total": None, "median_dict": None}
    args = TokenizationArgs.preset("teddy-g", {**model.files, **none})
    assert (args.layer, args.normalize_total, args.median_dict) == ("processed", None, None)


def test_a_preset_that_does_not_exist_is_refused_with_the_names_of_those_that_do():
    with raises("config_value", "preset_name = 'teddy'", "'teddy-g:400M', 'teddy-x', 'geneformer-v1'"):
        TokenizationArgs.preset("teddy", tokenizer_name_or_path="vocabulary")


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].needs])
def test_medians_that_the_model_needs_are_asked_for(name: str, tmp_path: Path):
    with raises("config_key_missing", f"preset {name!r}: median_dict is missing"):
        TokenizationArgs.preset(name, tokenizer_name_or_path="vocabulary")
    (tmp_path / "args.json").write_text("{}", encoding="utf-8")
    with raises("config_key_missing", f"preset {name!r}: median_dict is missing"):
        TokenizationArgs.preset(name, tmp_path / "args.json", tokenizer_name_or_path="vocabulary")


def test_values_that_are_normalised_already_are_not_normalised_again(model: Model):
    with raises("config_conflict", "preset 'teddy-g': it starts from raw counts"):
        TokenizationArgs.preset("teddy-g", model.files, layer="processed")


def test_a_wrong_key_in_a_file_names_the_file_and_not_the_preset(tmp_path: Path):
    (tmp_path / "args.json").write_text('{"median_dict": null, "max_seq_length": 3}', encoding="utf-8")
    with raises("config_key_unknown", "args.json: ", "did you mean 'max_seq_len'?"):
        TokenizationArgs.preset("teddy-g", tmp_path / "args.json")


def test_the_padding_of_a_preset_follows_max_seq_len(model: Model):
    assert TokenizationArgs.preset("teddy-g", model.files, max_seq_len=4096).pad_length == 4096
    assert TokenizationArgs.preset("teddy-g", model.files, max_seq_len=64).pad_length == 64


def test_a_preset_is_applied_to_arguments_that_exist_and_stays_complete():
    own = TokenizationArgs(tokenizer_name_or_path="vocabulary", max_seq_len=100)
    args = TokenizationArgs.load(own, preset_name="teddy-g")
    assert args == TokenizationArgs.preset("teddy-g", tokenizer_name_or_path="vocabulary", max_seq_len=100)
    assert args.replace(max_seq_len=4096).pad_length == 4096
    whole = TokenizationArgs.preset("teddy-g", bio_annotations=True)
    assert TokenizationArgs.preset("teddy-g").replace(bio_annotations=True) == whole
    off = TokenizationArgs.preset("teddy-g", median_dict=None)
    assert off.replace(max_seq_len=10).median_dict is None
    own_length = TokenizationArgs.preset("scgpt", tokenizer_name_or_path="vocabulary", pad_length=1200)
    assert own_length.replace(bins=20).pad_length == 1200
    raw_labels = TokenizationArgs.preset("teddy-g", bio_annotations=True, disease_mapping=None)
    assert raw_labels.replace(max_seq_len=10).disease_mapping is None
    with raises("config_conflict", "'scgpt'", "'teddy-g'"):
        args.replace(preset_name="scgpt")
    with raises("config_conflict", "preprocessing"):
        TokenizationArgs.load(args, preprocessing={"normalized_total": 10_000})
