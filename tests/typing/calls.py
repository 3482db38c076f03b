"""Calls as users write them, for mypy --strict: the documented ones pass, wrong ones are errors that are expected here.

Nothing here is run. mypy reports an expected error that does not occur (``warn_unused_ignores``).
"""

from __future__ import annotations

import pathlib
from typing import assert_type

import anndata
import pyarrow as pa

import teddytok_rs

path = pathlib.Path("brain.h5ad")
adata = anndata.AnnData()

assert_type(teddytok_rs.tokenize("brain.h5ad", "args.json"), pa.Table)
assert_type(teddytok_rs.tokenize(adata, {"tokenizer_name_or_path": "vocabulary"}), pa.Table)
assert_type(teddytok_rs.check(path, "args.json"), teddytok_rs.CheckReport)
assert_type(teddytok_rs.tokenize_to_disk("brain.h5ad", path, "tokens"), teddytok_rs.Manifest)
assert_type(teddytok_rs.tokenize_corpus(["a.h5ad", path], "args.json", "out"), teddytok_rs.CorpusManifest)
assert_type(
    teddytok_rs.tokenize_corpus("atlas/", teddytok_rs.TokenizationArgs.load("args.json")), teddytok_rs.CorpusManifest
)
teddytok_rs.TokenizationArgs(tokenizer_name_or_path="v", sex_mapping={"male": 7}, median_dict={"ENSG00000141510": 1.5})
teddytok_rs.TokenizationArgs(tokenizer_name_or_path="v", sex_mapping="sex.json").replace(median_dict="medians.json")
assert_type(teddytok_rs.verify("tokens/brain"), teddytok_rs.Verification)
assert_type(teddytok_rs.inspect(path), teddytok_rs.Inspection)
assert_type(teddytok_rs.tokenize_to_disk("brain.h5ad", path).genes.kept, int)
assert_type(teddytok_rs.check(path, "args.json").source.cells_dropped, int)
assert_type(teddytok_rs.inspect(path).schema, pa.Schema)
for batch in teddytok_rs.iter_batches("brain.h5ad", "args.json"):
    assert_type(batch, pa.RecordBatch)

teddytok_rs.tokenize(42, {})  # type: ignore[arg-type]
teddytok_rs.tokenize("brain.h5ad", 42)  # type: ignore[arg-type]
teddytok_rs.tokenize_corpus([42], "args.json")  # type: ignore[list-item]
teddytok_rs.tokenize_to_disk("brain.h5ad", "args.json", overwrite="yes")  # type: ignore[arg-type]
teddytok_rs.check("brain.h5ad", "args.json", threads="all")  # type: ignore[arg-type]
teddytok_rs.TokenizationArgs(tokenizer_name_or_path="v", sex_mapping={7: "male"})  # type: ignore[dict-item]
teddytok_rs.verify(42)  # type: ignore[arg-type]
teddytok_rs.tokenize("brain.h5ad", "args.json").columns_of()  # type: ignore[attr-defined]
