"""Check that golden files load, and that today's code writes those of the newest version again, byte for byte."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

import oracle
import teddytok_rs

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
VERSIONS = sorted(
    (path for path in GOLDEN.iterdir() if (path / "datasets.json").is_file()),
    key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)],
)
NEWEST = VERSIONS[-1]
MADE_WITH = json.loads((NEWEST / "made.json").read_text(encoding="utf-8"))["libraries"]
PYARROW = importlib.metadata.version("pyarrow")


def datasets_of(version: Path) -> dict[str, dict[str, Any]]:
    document: dict[str, dict[str, Any]] = json.loads((version / "datasets.json").read_text(encoding="utf-8"))
    return document


def parts_of(version: Path) -> list[Any]:
    """List each dataset, those of a corpus too: its folder, its source and its arguments."""
    parts = []
    for name, dataset in datasets_of(version).items():
        source, folder = dataset["source"], version / "datasets" / name
        parts += (
            [(folder / Path(one).stem, one, dataset["args"]) for one in source]
            if isinstance(source, list)
            else [(folder, source, dataset["args"])]
        )
    return [pytest.param(*part, id=part[0].relative_to(version / "datasets").as_posix()) for part in parts]


EVERY_DATASET = pytest.mark.parametrize(
    "folder",
    [
        pytest.param(version / "datasets" / name, id=f"{version.name}-{name}")
        for version in VERSIONS
        for name in datasets_of(version)
    ],
)
EVERY_PART = pytest.mark.parametrize(("folder", "source", "args"), parts_of(NEWEST))


def manifest_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "teddytok.json").read_text(encoding="utf-8"))
    return document


# ---- every version


@EVERY_DATASET
def test_a_golden_dataset_verifies(folder: Path):
    assert teddytok_rs.verify(folder, progress=False).problems == []


@EVERY_DATASET
def test_a_golden_dataset_loads(folder: Path):
    for path in [folder] if (folder / "teddytok.json").exists() else sorted(folder.glob("*/")):
        shards = manifest_of(path)["shards"]
        rows = read_rows(path)
        assert {len(column) for column in rows.values()} == {sum(shard["rows"] for shard in shards)}
        assert sum(map(len, rows["gene_ids"])) == sum(shard["tokens"] for shard in shards)


def read_rows(folder: Path) -> dict[str, list[Any]]:
    """Read all columns with the libraries that users read them with."""
    if (folder / "state.json").exists():
        datasets = pytest.importorskip("datasets")
        columns: dict[str, list[Any]] = datasets.load_from_disk(str(folder)).with_format("arrow")[:].to_pydict()
        return columns
    if shards := sorted(folder.glob("*.parquet")):
        return dict(pa.concat_tables([pq.ParquetFile(shard).read() for shard in shards]).to_pydict())
    samples: dict[str, dict[str, Any]] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                content = tar.extractfile(member).read()
                samples.setdefault(key, {}).update(decoded(name, content))
    assert list(samples) == [f"{row:09d}" for row in range(len(samples))]
    return {name: [sample[name] for sample in samples.values()] for name in samples["000000000"]}


def decoded(name: str, content: bytes) -> dict[str, Any]:
    column, _, kind = name.partition(".")
    if kind == "npy":
        return {column: np.load(io.BytesIO(content)).tolist()}
    return json.loads(content) if name == "obs.json" else {column: int(content)}


# ---- the newest version: today's code


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the inputs to where the paths of the configurations are right."""
    folder = tmp_path_factory.mktemp("golden")
    shutil.copytree(NEWEST / "inputs", folder / "inputs")
    return folder


@pytest.mark.parametrize(("name", "dataset"), datasets_of(NEWEST).items(), ids=datasets_of(NEWEST))
def test_tokenizing_again_gives_every_file_again(
    name: str, dataset: dict[str, Any], inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if dataset["args"].get("format") == "webdataset":
        pytest.importorskip("webdataset")
    monkeypatch.chdir(inputs)
    source, args = dataset["source"], dataset["args"]
    if isinstance(source, list):
        teddytok_rs.tokenize_corpus(source, args, tmp_path / name, progress=False)
    else:
        teddytok_rs.tokenize_to_disk(source, args, tmp_path, name=name, progress=False)
    golden = NEWEST / "datasets" / name
    same_bytes = args.get("format") != "parquet" or MADE_WITH["pyarrow"] == PYARROW
    for path in sorted(path for path in golden.rglob("*") if path.is_file()):
        again = tmp_path / name / path.relative_to(golden)
        if path.name in COMPARED:
            compared = COMPARED[path.name]
            assert compared(again, same_bytes=same_bytes) == compared(path, same_bytes=same_bytes)
        elif path.suffix == ".parquet" and not same_bytes:
            assert_same_parquet(again, path)
        else:
            assert again.read_bytes() == path.read_bytes(), again.name
    assert {path.name for path in (tmp_path / name).rglob("data-*")} == {path.name for path in golden.rglob("data-*")}


@pytest.mark.parametrize(("name", "dataset"), datasets_of(NEWEST).items(), ids=datasets_of(NEWEST))
def test_a_golden_dataset_is_complete_when_its_run_is_repeated(
    name: str, dataset: dict[str, Any], inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if dataset["args"].get("format") == "webdataset":
        pytest.importorskip("webdataset")
    if dataset["args"].get("format") == "parquet" and MADE_WITH["pyarrow"] != PYARROW:
        pytest.skip("another pyarrow writes other bytes of Parquet")
    monkeypatch.chdir(inputs)
    golden = NEWEST / "datasets" / name
    shutil.copytree(golden, tmp_path / name)
    source, args = dataset["source"], dataset["args"]
    if isinstance(source, list):
        manifest = teddytok_rs.tokenize_corpus(source, args, tmp_path / name, progress=False)
        assert manifest.failed == []
    else:
        manifest = teddytok_rs.tokenize_to_disk(source, args, tmp_path, name=name, progress=False)
        assert manifest.n_kept == len(manifest.shards)
    for path in golden.rglob("data-*"):
        assert (tmp_path / name / path.relative_to(golden)).read_bytes() == path.read_bytes()


def manifest_facts(path: Path, *, same_bytes: bool) -> dict[str, Any]:
    """Pick what a manifest says of the tokens."""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    facts = ["file", "rows", "tokens", *(["bytes", "sha256"] if same_bytes else [])]
    reports = ["column", "tokens", "cells", "by_part", "unmapped"]
    return {
        "shards": [{fact: shard[fact] for fact in facts} for shard in manifest["shards"]],
        "genes": {key: manifest["genes"][key] for key in ("n_var", "kept", "dropped", "duplicates")},
        "annotations": {kind: {key: one[key] for key in reports} for kind, one in manifest["annotations"].items()},
        "cls_token": manifest["cls_token"],
        "gene_seed": manifest["gene_seed"],
    }


def corpus_facts(path: Path, *, same_bytes: bool) -> list[dict[str, Any]]:
    """Pick what a corpus says of its sources."""
    facts = ["source", "folder", "cells", "tokens", "shards", "error", *(["sha256"] if same_bytes else [])]
    return [{fact: one[fact] for fact in facts} for one in json.loads(path.read_text(encoding="utf-8"))["sources"]]


def assert_same_parquet(path: Path, golden: Path) -> None:
    """Compare schemas, row groups and rows."""
    with pq.ParquetFile(path) as mine, pq.ParquetFile(golden) as theirs:
        assert mine.schema_arrow.equals(theirs.schema_arrow, check_metadata=True)
        groups = [[file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] for file in (mine, theirs)]
        assert groups[0] == groups[1]
        assert mine.read().to_pydict() == theirs.read().to_pydict()


COMPARED = {"teddytok.json": manifest_facts, "corpus.json": corpus_facts}


# ---- the newest version: the semantics


class Source:
    """A stored source as anndata reads it, and its genes as the vocabulary names them."""

    def __init__(self, path: Path, args: dict[str, Any]) -> None:
        cells = ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)
        layer = args.get("layer", "processed")
        where = {"X": cells, "raw": cells.raw}.get(layer)
        matrix = cells.layers[layer] if where is None else where.X
        self.x = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
        self.obs: pd.DataFrame = cells.obs
        var = cells.raw.var if layer == "raw" else cells.var
        column = args.get("gene_id_column", "index")
        genes = [str(gene) for gene in (var.index if column == "index" else var[column])]
        self.genes = [re.sub(r"\.\d+$", "", gene) if args.get("strip_gene_version") else gene for gene in genes]
        cell_filter = args.get("cell_filter")
        self.kept = np.ones(len(self.obs), dtype=bool)
        if cell_filter:
            self.kept = np.asarray(self.obs[cell_filter] if cell_filter in self.obs else self.obs.eval(cell_filter))


def vocabulary_of(path: Path) -> dict[str, int]:
    if path.suffix == ".json":
        ids: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
        return ids
    return {token: number for number, token in enumerate((path / "vocab.txt").read_text(encoding="utf-8").splitlines())}


@EVERY_PART
def test_golden_tokens_are_those_of_the_oracle(folder: Path, source: str, args: dict[str, Any]):
    ids = vocabulary_of(NEWEST / args["tokenizer_name_or_path"])
    read = Source(NEWEST / source, args)
    tokens: list[int] = []
    positions = np.full(len(read.genes), -1)
    for column, gene in enumerate(read.genes):
        token = ids.get(gene)
        if token is None:
            continue
        if token in tokens and args.get("duplicate_genes") == "sum":
            positions[column] = tokens.index(token)
        else:
            positions[column] = len(tokens)
            tokens.append(token)
    names = ["max_seq_len", "add_cls", "include_zero_genes", "bins", "continuous_rank", "random_genes"]
    names += ["random_genes_count", "gene_seed", "batch_size", "normalize_total", "log1p"]
    arguments = {name: args[name] for name in names if name in args}
    if "median_dict" in args:
        medians = json.loads((NEWEST / args["median_dict"]).read_text(encoding="utf-8"))
        arguments["inverse_medians"] = 1 / np.array([medians.get(gene, 1.0) for gene in read.genes])
    cls = args.get("cls_token_id", ids["<cls>"])
    sequences = oracle.tokenize_matrix(read.x, tokens, position_of_column=positions, cls_token_id=cls, **arguments)
    expected = [sequence for sequence, kept in zip(sequences, read.kept, strict=True) if kept]
    rows = read_rows(folder)
    assert rows["gene_ids"] == [gene_ids for gene_ids, _ in expected]
    if args.get("write_values", True):
        assert rows["values"] == [values for _, values in expected]
    else:
        assert "values" not in rows


@EVERY_PART
def test_golden_annotations_are_those_of_obs(folder: Path, source: str, args: dict[str, Any]):
    ids = vocabulary_of(NEWEST / args["tokenizer_name_or_path"])
    read = Source(NEWEST / source, args)
    obs, rows = read.obs[read.kept], read_rows(folder)
    expected: dict[str, list[Any]] = {}

    def tokens_of(kind: str) -> list[int]:
        path = args.get(f"{kind}_mapping")
        mapping = json.loads((NEWEST / path).read_text(encoding="utf-8")) if path else ids
        mapped = {label: ids[token] if isinstance(token, str) else token for label, token in mapping.items()}
        labels = [str(label) for label in obs["cell_type" if kind == "cell" else kind]]
        looked_up = [[mapped[part] for part in (label, *label.split(" || ")) if part in mapped] for label in labels]
        return [found[0] if found else ids["<unk>"] for found in looked_up]

    if args.get("bio_annotations"):
        four = [tokens_of(kind) for kind in ("disease", "tissue", "cell", "sex")]
        expected["bio_annotations"] = [list(cell) for cell in zip(*four, strict=True)]
    if args.get("add_disease_annotation"):
        expected["labels"] = tokens_of("disease")
    elif "label_column" in args:
        labels = obs[args["label_column"]]
        expected["labels"] = labels.tolist()
        if not pd.api.types.is_numeric_dtype(labels):  # booleans are numeric here
            names = sorted(set(labels.cat.categories if hasattr(labels, "cat") else labels))
            expected["labels"] = [names.index(label) for label in labels]
    for name in args.get("obs_columns", []):
        column = obs.index if name == "index" else obs[name]
        expected["cell_id" if name == "index" else name] = [None if pd.isna(one) else one for one in column.tolist()]
    assert {name: column for name, column in rows.items() if name not in {"gene_ids", "values"}} == expected


# ---- the guard


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy what the guard reads: itself, the golden files, the changelog."""
    shutil.copytree(GOLDEN, tmp_path / "tests" / "golden", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "golden", tmp_path / ".ci")
    shutil.copy(ROOT / "CHANGELOG.md", tmp_path)
    return tmp_path


def guard(root: Path) -> str:
    """Run the guard; give what it says, nothing where all is well."""
    command = [sys.executable, "-X", "utf8", str(root / ".ci" / "golden")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == bool(done.stdout), done.stderr
    assert done.stderr == ""
    return done.stdout


def commit(root: Path) -> None:
    """Commit everything below a folder, whatever git's configuration is here."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "--force", "."], [*who, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *words], cwd=root, capture_output=True, check=True)


def checksum_again(version: Path) -> None:
    """Write the checksums of files as they are now: what no honest change does."""
    sums = (version / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    files = [line.partition("  ")[2] for line in sums]
    made = [f"{sha256_of(version / file)}  {file}\n" for file in files]
    (version / "SHA256SUMS").write_text("".join(made), encoding="utf-8", newline="")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_guard_agrees_with_the_golden_files():
    assert guard(ROOT) == ""


def test_the_guard_needs_no_history(copy: Path):
    assert guard(copy) == ""


@pytest.mark.parametrize(
    "file", ["datasets/arrow-expression/data-00000-of-00003.arrow", "inputs/csr.h5ad", "made.json"]
)
def test_the_guard_fails_where_a_golden_file_is_altered(copy: Path, file: str):
    flip_a_bit(copy / "tests" / "golden" / NEWEST.name / file)
    assert f"{NEWEST.name}/{file} has changed\n" in guard(copy)


def test_the_guard_fails_where_a_golden_file_is_missing_or_added(copy: Path):
    version = copy / "tests" / "golden" / NEWEST.name
    (version / "made.json").rename(version / "made2.json")
    said = guard(copy)
    assert f"{NEWEST.name}/made.json is missing\n" in said
    assert f"{NEWEST.name}/made2.json is not in SHA256SUMS\n" in said


def test_the_guard_fails_where_checksums_are_made_to_fit_an_altered_file(copy: Path):
    commit(copy)
    assert guard(copy) == ""
    version = copy / "tests" / "golden" / NEWEST.name
    flip_a_bit(version / "inputs" / "csr.h5ad")
    checksum_again(version)
    said = guard(copy)
    assert f"tests/golden/{NEWEST.name}/inputs/csr.h5ad is not as commit " in said
    commit(copy)
    assert guard(copy) == said, "a later commit changes nothing of it"


def test_the_guard_fails_where_a_version_is_removed(copy: Path):
    commit(copy)
    shutil.copytree(copy / "tests" / "golden" / NEWEST.name, copy / "tests" / "golden" / "99.0.0")
    shutil.rmtree(copy / "tests" / "golden" / NEWEST.name)
    assert f"tests/golden/{NEWEST.name}/made.json is not as commit " in guard(copy)


@pytest.mark.parametrize(
    ("entry", "fails"),
    [
        ("### Added\n\n- Golden files of 99.0.0.", True),
        ("### Changes tokens\n\n- Of 99.0.01 and 199.0.0: all.", True),
        ("### Changes tokens\n\n- 99.0.0: bins.\n\n### Fixed\n\n- One.", False),
        ("### Changes tokens\n\n- Bins, from\n  version 99.0.0.", False),
    ],
    ids=["elsewhere", "another version", "named", "named in a second line"],
)
def test_a_new_version_needs_an_entry_that_names_it(copy: Path, entry: str, *, fails: bool):
    shutil.copytree(copy / "tests" / "golden" / NEWEST.name, copy / "tests" / "golden" / "99.0.0")
    changelog = copy / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    changelog.write_text(text.replace("## Unreleased\n", f"## Unreleased\n\n{entry}\n", 1), encoding="utf-8")
    missing = '99.0.0 has no entry under "Changes tokens" in CHANGELOG.md that names it\n'
    assert (missing in guard(copy)) is fails


def test_an_existing_version_is_not_made_again(copy: Path):
    folder = copy / "tests" / "golden" / teddytok_rs.__version__
    folder.mkdir(exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")}
    make = runpy.run_path(str(folder.parent / "make.py"))
    with pytest.raises(SystemExit, match="golden files never change"):
        make["main"]()
    assert {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")} == before
