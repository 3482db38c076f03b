"""The README and the pages of docs/ do what they say."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import command_line
from teddytok_rs.errors.catalogue import KINDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
#: Blocks that convert files of Geneformer, that need PyTorch, ... are found by what they hold.
TORCH = "import torch"


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def teddytok(*words: str, cwd: Path) -> str:
    done = command_line.teddytok(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(code: list[str], page: Path) -> dict[str, object]:
    names: dict[str, object] = {}
    for block in code:
        exec(compile(block, page.name, "exec"), names)
    return names


def command_lines(page: Path) -> list[list[str]]:
    lines = "\n".join(blocks("bash", page)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("teddytok ")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages speak of."""
    import anndata
    import numpy as np

    from teddytok_rs import demo

    home = tmp_path_factory.mktemp("home")
    cells = demo.cells()
    cells.obs["disease"] = cells.obs["disease"].astype(str)
    cells.obs["n_genes"] = np.diff(cells.layers["processed"].indptr)
    cells.obs["is_doublet"] = np.arange(cells.n_obs) % 9 == 0
    for name in ("brain", "blood"):
        cells.write_h5ad(home / f"{name}.h5ad")
    counts = anndata.AnnData(X=cells.layers["processed"].astype(np.int32), obs=cells.obs, var=cells.var)
    counts.write_h5ad(home / "counts.h5ad")
    (home / "atlas" / "lung").mkdir(parents=True)
    counts.write_h5ad(home / "atlas" / "lung" / "lung.h5ad")
    shutil.copytree(ROOT / "python" / "teddytok_rs" / "demo" / "vocabulary", home / "vocabulary")
    args = {"tokenizer_name_or_path": "vocabulary/", "max_seq_len": 2048, "add_cls": True}
    (home / "args.json").write_text(json.dumps(args), encoding="utf-8")
    medians = dict.fromkeys(cells.var_names, 2.0)
    (home / "medians.json").write_text(json.dumps(medians), encoding="utf-8")
    (home / "gene_median_dictionary.pkl").write_bytes(pickle.dumps(medians))
    (home / "token_dictionary.pkl").write_bytes(pickle.dumps({gene: i for i, gene in enumerate(medians)}))
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(language, page)]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset closes none that it read
@pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("page", pages_with("python"), ids=lambda page: page.name)
def test_the_python_blocks_run_in_order(page: Path, home: Path):
    code = [block for block in blocks("python", page) if TORCH not in block]
    names = run(code, page)
    if page == README:
        assert names["cells"].num_rows == 700
        assert (home / "tokens" / "cells" / "state.json").exists()


@pytest.mark.filterwarnings("ignore")  # what PyTorch says of few cores, and Python of forking
@pytest.mark.parametrize("page", [README, DOCS / "training.md"], ids=lambda page: page.name)
def test_the_training_blocks_run_after_them(page: Path, home: Path):
    pytest.importorskip("torch", reason="PyTorch is not installed; it is an extra of several GB")
    if page != README:
        teddytok("tokenize", "brain.h5ad", "-c", "args.json", "--out", "tokens", "-q", cwd=home)
    assert "DataLoader" in run(blocks("python", page), page)


def test_the_demo_prints_what_the_readme_shows(tmp_path):
    shown = blocks("text")[0].splitlines()
    printed = teddytok("demo", cwd=tmp_path).splitlines()
    assert [line for line in shown if line] == [line for line in printed if line in shown and line]


def test_every_command_line_of_the_readme_runs(home: Path):
    (home / "args.json").write_text(blocks("json")[0], encoding="utf-8")
    ran = []
    for words in command_lines(README):
        if words[0] == "vocab":
            words[words.index("--out") + 1] = "own-vocabulary"
        teddytok(*words, cwd=home)
        ran.append(words[0])
    assert ran == ["vocab", "check", "tokenize", "inspect", "verify", "report", "tokenize"]


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if command_lines(page)], ids=lambda page: page.name)
def test_every_command_line_of_a_page_runs(page: Path, home: Path):
    for words in command_lines(page):
        teddytok(*words, cwd=home)


@pytest.mark.parametrize("page", pages_with("json"), ids=lambda page: page.name)
def test_every_configuration_that_is_shown_is_valid(page: Path):
    from teddytok_rs import TokenizationArgs

    for block in blocks("json", page):
        TokenizationArgs.load({"tokenizer_name_or_path": "vocabulary", **json.loads(block)})


def test_the_test_command_of_the_readme_is_the_one_that_ci_runs():
    commands = [block.strip() for block in blocks("bash")]
    assert ".ci/test" in commands
    assert '\nVENV="$work/test" .ci/test\n' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


# ---- the web site


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # what Jupyter's own packages say of each other
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs(path: Path, home: Path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are made when the site is built"
    nbclient.NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": home}}
    ).execute()


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_its_usual_cause(kind: str):
    assert KINDS[kind].cause.endswith(".")


def test_every_file_that_a_promise_names_is_there():
    promised = re.findall(r"`((?:tests|rust)/[\w/]+\.\w+)`", (DOCS / "guarantees.md").read_text(encoding="utf-8"))
    assert len(promised) > 12
    assert [name for name in promised if not (ROOT / name).exists()] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_site_is_built_without_a_warning(tmp_path: Path):
    for module in ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx_click", "sphinx_copybutton", "sphinx_design"):
        pytest.importorskip(module, reason="what builds the documentation is not installed; .ci/run builds it")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", DOCS, tmp_path / "site"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "index.html").exists()
