"""The worked examples of the semantics, through the kernel and through the oracle."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import kernel_calls
import oracle
from teddytok_rs import _core

SPEC = json.loads((Path(__file__).parent / "examples.json").read_text(encoding="utf-8"))
EXAMPLES = pytest.mark.parametrize("example", SPEC["examples"], ids=lambda example: example["name"])
SUBSETS = pytest.mark.parametrize("subset", SPEC["subsets"], ids=lambda subset: f"block {subset['block']}")
DRAWN = pytest.mark.parametrize(
    "example", [example for example in SPEC["examples"] if "subset" in example], ids=lambda example: example["name"]
)


def tokens(example):
    return range(100, 100 + len(example["x"]))


def expected(example):
    values = example["values"]
    if not example["args"].get("bins"):
        values = np.array(values, dtype=np.float32).tolist()
    return [(example["gene_ids"], values)]


@EXAMPLES
@pytest.mark.parametrize("dtype", ["int8", "int64", "float32", "float64"])
@pytest.mark.parametrize("stored", [np.asarray, csr_matrix], ids=["dense", "csr"])
def test_the_kernel_gives_the_worked_example(example, dtype, stored):
    matrix = stored(np.array([example["x"]], dtype=dtype))
    kernel_calls.assert_same(kernel_calls.tokenize(matrix, tokens(example), **example["args"]), expected(example))


@EXAMPLES
def test_the_oracle_gives_the_worked_example(example):
    x = np.array([example["x"]], dtype=np.float64)
    [(gene_ids, values)] = oracle.tokenize_matrix(x, tokens(example), **example["args"])
    assert (gene_ids, np.float32(values).tolist()) == (example["gene_ids"], np.float32(example["values"]).tolist())


@DRAWN
def test_the_seed_of_an_example_draws_its_subset(example):
    args = example["args"]
    arguments = args["gene_seed"], 0, len(example["x"]), args["random_genes_count"]
    assert _core.draw_genes(*arguments).tolist() == oracle.draw_genes(*arguments) == example["subset"]


@SUBSETS
@pytest.mark.parametrize("draw_genes", [_core.draw_genes, oracle.draw_genes], ids=["kernel", "oracle"])
def test_the_golden_subset_is_drawn(subset, draw_genes):
    drawn = draw_genes(subset["gene_seed"], subset["block"], subset["n_genes"], subset["count"])
    assert list(drawn) == subset["positions"]


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "digits of pi"],
)
def test_the_oracles_generator_gives_the_published_vectors(counter, key, words):
    assert oracle.philox4x32_10(counter, key) == words
