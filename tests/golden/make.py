"""Make ``tests/golden/<version>/`` with the installed version of the package: inputs, datasets, checksums.

Run once for a version whose bytes differ from those before; a folder that exists is never changed. See README.md here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import teddytok_rs

HERE = Path(__file__).resolve().parent
#: Their versions are recorded; those of `test_golden.py` decide what can be compared byte by byte.
LIBRARIES = ["anndata", "h5py", "numpy", "pandas", "pyarrow", "webdataset", "zarr"]
N_CELLS = 14

GENES = [f"ENSG{number:011d}" for number in range(101, 125)]
RAW_GENES = ["ENSG00000000901", *GENES, "ENSG00000000902"]
LABELS = {
    "disease": ["normal", "melanoma", "asthma", "melanoma || asthma"],
    "tissue": ["blood", "lung", "skin of body"],
    "cell_type": ["T cell", "B cell", "monocyte", "natural killer cell"],
    "sex": ["female", "male", "unknown"],
}
SITES = ["Zürich", "Aachen", "Łódź"]


# ---- inputs


def symbols() -> list[str]:
    """Name the genes; two pairs share a symbol."""
    names = [f"GENE{number}" for number in range(len(GENES))]
    names[9], names[15] = names[4], names[2]
    return names


def versioned() -> list[str]:
    """Add a version to the gene ids; without it, two pairs are equal."""
    ids = [f"{gene}.{1 + number % 3}" for number, gene in enumerate(GENES)]
    ids[7], ids[18] = f"{GENES[3]}.2", f"{GENES[12]}.9"
    return ids


def write_vocabularies() -> None:
    """Write one as a folder with ``vocab.txt``, one as ``vocab.json`` with gaps and ids beyond 65,535.

    Both know 20 of the 24 genes, in another order than ``var``.
    """
    rng = np.random.default_rng(11)
    known = [gene for number, gene in enumerate(GENES) if number not in {1, 6, 13, 20}]
    genes = [*rng.permutation([*known, RAW_GENES[-1]]).tolist(), *rng.permutation(sorted(set(symbols()))[:18]).tolist()]
    labels = ["normal", "melanoma", "blood", "lung", "T cell", "B cell", "monocyte", "female", "male"]
    tokens = ["<pad>", "<unk>", "<cls>", "<mask>", *labels, *genes]
    Path("inputs/vocabulary").mkdir()
    write_text("inputs/vocabulary/vocab.txt", "".join(f"{token}\n" for token in tokens))
    ids = {token: 70_000 + 7 * number for number, token in enumerate(reversed(tokens))}
    write_json("inputs/vocab.json", ids | {"<pad>": 0, "<unk>": 1, "<cls>": 2, "<mask>": 3})


def write_mappings() -> None:
    """Write mappings to token ids and to tokens, some labels missing, and medians of some genes."""
    write_json("inputs/disease.json", {"normal": "normal", "melanoma": 5, "asthma": "<mask>"})
    write_json("inputs/tissue.json", {"blood": 6, "skin of body": "lung"})
    write_json("inputs/cell.json", {"T cell": "T cell", "B cell": "B cell", "natural killer cell": 10})
    write_json("inputs/sex.json", {"female": 11, "male": "male"})
    medians = np.random.default_rng(12).gamma(2, 1.5, len(GENES)).round(3).tolist()
    write_json("inputs/medians.json", {gene: medians[number] for number, gene in enumerate(GENES) if number % 5})


def counts(rng: np.random.Generator, n_cells: int, n_genes: int) -> Any:
    """Draw counts with many ties, about half of them 0."""
    return rng.binomial(6, 0.15, size=(n_cells, n_genes)) * rng.choice([1, 1, 1, 3], size=(n_cells, 1))


def log_normalized(matrix: Any) -> Any:
    """Scale each cell to 10,000 and take the logarithm, where the cell has counts."""
    totals = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return np.log1p(matrix / totals * 1e4)


def make_cells(seed: int, obs: list[str] | None = None) -> tuple[ad.AnnData, Any]:
    """Make cells that hold no matrix yet, and counts for them; cell 6 has none at all."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        name: pd.Categorical(rng.choice(labels, N_CELLS).tolist(), categories=sorted(labels))
        for name, labels in LABELS.items()
    }
    columns["tissue"][3] = np.nan
    columns["site"] = rng.choice(SITES, N_CELLS).tolist()
    columns["age"] = rng.integers(20, 90, N_CELLS)
    columns["batch"] = rng.integers(-3, 3, N_CELLS).astype(np.int8)
    columns["score"] = np.where(np.arange(N_CELLS) % 5 == 2, np.nan, rng.normal(size=N_CELLS))
    columns["depth"] = rng.normal(size=N_CELLS).astype(np.float32)
    columns["healthy"] = rng.random(N_CELLS) < 0.6
    columns = {name: column for name, column in columns.items() if obs is None or name in obs}
    index = [f"cell-{row}" if row != 5 else "Zelle-ü" for row in range(N_CELLS)]
    var = pd.DataFrame({"symbol": symbols(), "versioned": versioned()}, index=GENES)
    drawn = counts(rng, N_CELLS, len(GENES))
    drawn[6] = 0
    return ad.AnnData(obs=pd.DataFrame(columns, index=index), var=var), drawn


def write_sources() -> None:
    """Write small sources: CSR, CSC and dense, h5ad and zarr, several number types."""
    csr, drawn = make_cells(1)
    csr.X = sparse.csr_matrix(drawn.astype(np.float32))
    csr.layers["processed"] = sparse.csr_matrix(log_normalized(drawn).astype(np.float32))
    more = np.random.default_rng(2).poisson(1.0, size=(N_CELLS, 2))
    raw = np.hstack([more[:, :1], drawn, more[:, 1:]]).astype(np.float32)
    csr.raw = ad.AnnData(sparse.csr_matrix(raw), obs=csr.obs[[]], var=pd.DataFrame(index=RAW_GENES))
    write(csr, "inputs/csr.h5ad")

    csc, drawn = make_cells(3)
    csc.X = sparse.csc_matrix(drawn.astype(np.int32))
    csc.layers["processed"] = sparse.csc_matrix(log_normalized(drawn))  # float64
    write(csc, "inputs/csc.h5ad")

    dense, drawn = make_cells(4)
    scaled = log_normalized(drawn)
    dense.X = ((scaled - scaled.mean(axis=0)).round(1) * (drawn % 5 != 1)).astype(np.float32)  # zeros, negatives, ties
    dense.layers["counts"] = drawn.astype(np.uint16)
    write(dense, "inputs/dense.h5ad")

    store, drawn = make_cells(5, ["disease", "cell_type", "age"])
    store.X = sparse.csr_matrix(drawn.astype(np.int64))
    write(store, "inputs/store.zarr")

    # More cells than a record batch holds.
    drawn = counts(np.random.default_rng(6), 1050, 6).astype(np.float32)
    index = [str(row) for row in range(len(drawn))]
    many = ad.AnnData(sparse.csr_matrix(drawn), obs=pd.DataFrame(index=index), var=pd.DataFrame(index=GENES[:6]))
    write(many, "inputs/many.h5ad", compression="gzip")


def write(cells: ad.AnnData, path: str, **options: Any) -> None:
    """Write a source in encodings that the oldest anndata that is supported reads."""
    with warnings.catch_warnings(), ad.settings.override(zarr_write_format=3):
        warnings.simplefilter("ignore")
        method = cells.write_zarr if path.endswith(".zarr") else cells.write_h5ad
        method(path, convert_strings_to_categoricals=False, **options)


def write_text(path: str, text: str) -> None:
    """Write a text file, the same bytes on any system."""
    Path(path).write_text(text, encoding="utf-8", newline="")


def write_json(path: str, document: Any) -> None:
    """Write a JSON file, the same bytes on any system."""
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


# ---- datasets

MAPPINGS = {f"{kind}_mapping": f"inputs/{kind}.json" for kind in ("disease", "tissue", "cell", "sex")}
EVERY_COLUMN = ["index", "site", "age", "batch", "score", "depth", "healthy", "tissue"]
NORMALIZED = {"layer": "X", "normalize_total": 10000.0, "median_dict": "inputs/medians.json", "log1p": True}

#: Name -> source and arguments; a name that begins with "corpus" has several sources.
DATASETS: dict[str, dict[str, Any]] = {
    "arrow-expression": {
        "source": "inputs/csr.h5ad",
        "args": {"max_seq_len": 9, "max_shard_samples": 5, "label_column": "site"},
    },
    "arrow-raw-cls": {
        "source": "inputs/csr.h5ad",
        "args": {"layer": "raw", "max_seq_len": 6, "add_cls": True, "obs_columns": ["index"], "label_column": "age"},
    },
    "arrow-zeros-scaled": {
        "source": "inputs/dense.h5ad",
        "args": {"layer": "X", "max_seq_len": 16, "include_zero_genes": True, "label_column": "depth"},
    },
    "arrow-negatives-scaled": {
        "source": "inputs/dense.h5ad",
        "args": {"layer": "X", "max_seq_len": 18, "add_cls": True, "cls_token_id": 3, "label_column": "healthy"},
    },
    "arrow-bins-int64": {
        "source": "inputs/csc.h5ad",
        "args": {"tokenizer_name_or_path": "inputs/vocab.json", "max_seq_len": 12, "bins": 7, "token_dtype": "int64"},
    },
    "arrow-bins-zeros-cls": {
        "source": "inputs/dense.h5ad",
        "args": {
            "layer": "counts", "max_seq_len": 21, "bins": 51, "add_cls": True, "include_zero_genes": True,
            "normalize_total": 500.0,
        },
    },
    "arrow-ranks": {
        "source": "inputs/csc.h5ad",
        "args": {"max_seq_len": 10, "continuous_rank": True, "add_cls": True, "max_shard_samples": 7},
    },
    "arrow-tokens-alone-uint16": {
        "source": "inputs/csr.h5ad",
        "args": {"max_seq_len": 12, "write_values": False, "token_dtype": "uint16", "obs_columns": EVERY_COLUMN},
    },
    "arrow-normalized": {
        "source": "inputs/csr.h5ad",
        "args": {**NORMALIZED, "max_seq_len": 10, "max_shard_samples": 4},
    },
    "arrow-random": {
        "source": "inputs/store.zarr",
        "args": {
            "layer": "X", "max_seq_len": 8, "random_genes": True, "gene_seed": 2**40 + 3, "batch_size": 4,
            "random_genes_count": 11, "max_shard_samples": 5, "label_column": "cell_type",
        },
    },
    "arrow-random-bins-filtered": {
        "source": "inputs/csc.h5ad",
        "args": {
            **NORMALIZED, "max_seq_len": 9, "random_genes": True, "gene_seed": 7, "batch_size": 5, "bins": 5,
            "include_zero_genes": True, "add_cls": True, "cell_filter": "age > 30 and disease != 'asthma'",
            "max_shard_samples": 4, "obs_columns": ["index", "age"],
        },
    },
    "arrow-duplicates-summed": {
        "source": "inputs/csr.h5ad",
        "args": {
            **NORMALIZED, "gene_id_column": "versioned", "strip_gene_version": True, "duplicate_genes": "sum",
            "max_seq_len": 14,
        },
    },
    "arrow-duplicates-kept": {
        "source": "inputs/csc.h5ad",
        "args": {
            "gene_id_column": "symbol", "duplicate_genes": "keep", "max_seq_len": 14, "cell_filter": "healthy",
            "obs_columns": ["index"],
        },
    },
    "arrow-annotations": {
        "source": "inputs/csr.h5ad",
        "args": {
            **MAPPINGS, "bio_annotations": True, "label_column": "cell_type", "obs_columns": ["index", "disease"],
            "max_seq_len": 7, "max_shard_samples": 6,
        },
    },
    "arrow-disease-label": {
        "source": "inputs/store.zarr",
        "args": {
            "layer": "X", "add_disease_annotation": True, "label_column": "cell_type", "log1p": True, "max_seq_len": 7,
        },
    },
    "arrow-many": {"source": "inputs/many.h5ad", "args": {"layer": "X", "max_seq_len": 3}},
    "parquet-many": {
        "source": "inputs/many.h5ad",
        "args": {"format": "parquet", "layer": "X", "max_seq_len": 3, "bins": 3, "token_dtype": "uint16"},
    },
    "parquet-annotations": {
        "source": "inputs/csr.h5ad",
        "args": {
            **NORMALIZED, **MAPPINGS, "format": "parquet", "bio_annotations": True, "label_column": "cell_type",
            "obs_columns": EVERY_COLUMN, "add_cls": True, "max_seq_len": 9, "max_shard_samples": 5,
        },
    },
    "webdataset-annotations": {
        "source": "inputs/csr.h5ad",
        "args": {
            **NORMALIZED, **MAPPINGS, "format": "webdataset", "bio_annotations": True, "label_column": "cell_type",
            "obs_columns": EVERY_COLUMN, "add_cls": True, "max_seq_len": 9, "max_shard_samples": 5,
        },
    },
    "webdataset-bins-int64": {
        "source": "inputs/csc.h5ad",
        "args": {"format": "webdataset", "max_seq_len": 9, "bins": 4, "token_dtype": "int64"},
    },
    "arrow-eos-names": {
        "source": "inputs/csr.h5ad",
        "args": {
            "max_seq_len": 9, "add_cls": True, "add_eos": True, "eos_token_id": 3, "write_length": True,
            "output_names": {"gene_ids": "input_ids"},
        },
    },
    "parquet-eos-ranks": {
        "source": "inputs/csc.h5ad",
        "args": {
            "format": "parquet", "max_seq_len": 7, "continuous_rank": True, "add_eos": True, "eos_token_id": 3,
        },
    },
    "webdataset-eos-bins-names": {
        "source": "inputs/csr.h5ad",
        "args": {
            **MAPPINGS, "format": "webdataset", "max_seq_len": 9, "bins": 5, "add_eos": True, "eos_token_id": 3,
            "write_length": True, "bio_annotations": True, "label_column": "cell_type",
            "output_names": {"gene_ids": "tokens", "values": "bins", "bio_annotations": "four", "labels": "y"},
        },
    },
    "corpus-arrow": {
        "source": ["inputs/csr.h5ad", "inputs/csc.h5ad", "inputs/store.zarr"],
        "args": {
            "layer": "X", "normalize_total": 10000.0, "log1p": True, "max_seq_len": 9, "max_shard_samples": 8,
            "label_column": "cell_type", "obs_columns": ["index", "age"],
        },
    },
}  # fmt: skip


def tokenize(name: str, dataset: dict[str, Any], folder: str = "datasets") -> Path:
    """Write one dataset or corpus below a folder; paths are relative to the version's folder."""
    if isinstance(dataset["source"], list):
        made = teddytok_rs.tokenize_corpus(dataset["source"], dataset["args"], f"{folder}/{name}", progress=False)
        assert not made.failed
        return Path(made.path)
    source, args = dataset["source"], dataset["args"]
    return teddytok_rs.tokenize_to_disk(source, args, folder, name=name, progress=False).path


# ---- the folder


def git(*words: str) -> str:
    """Run git in this folder's repository."""
    command = ["git", "-C", str(HERE), *words]
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout.strip()


def commit() -> str:
    """Name the commit that the package is of; refuse code that no commit holds."""
    if changed := git("status", "--porcelain", "--", *(f":/{part}" for part in ("python", "rust", "Cargo.toml"))):
        raise SystemExit(f"Commit the code first; these files differ from HEAD:\n{changed}")
    return git("rev-parse", "HEAD")


def main() -> None:
    """Make the folder of the installed version; leave nothing behind if that fails."""
    version = teddytok_rs.__version__
    folder = HERE / version
    try:
        folder.mkdir()
    except FileExistsError:
        raise SystemExit(f"{folder} exists, and golden files never change. Make those of a new version.") from None
    try:
        made_by = commit()
        os.chdir(folder)
        Path("inputs").mkdir()
        write_vocabularies()
        write_mappings()
        write_sources()
        for name, dataset in DATASETS.items():
            dataset["args"] = {"tokenizer_name_or_path": "inputs/vocabulary", **dataset["args"]}
            path = tokenize(name, dataset)
            assert not teddytok_rs.verify(path).problems
        write_json("datasets.json", DATASETS)
        versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
        versions["python"] = platform.python_version()
        write_json("made.json", {"teddytok-rs": version, "commit": made_by, "libraries": versions})
        files = sorted(path.as_posix() for path in Path().rglob("*") if path.is_file())
        sums = [f"{hashlib.sha256(Path(file).read_bytes()).hexdigest()}  {file}\n" for file in files]
        write_text("SHA256SUMS", "".join(sums))
    except BaseException:
        os.chdir(HERE)
        shutil.rmtree(folder)
        raise
    print(f"{folder}: {len(DATASETS)} datasets, {len(files)} files")  # noqa: T201


if __name__ == "__main__":
    main()
