"""The README does what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def teddytok(*words: str, cwd: Path) -> str:
    command = [sys.executable, "-m", "teddytok_rs", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def run(code: list[str]) -> dict[str, object]:
    names: dict[str, object] = {}
    for block in code:
        exec(compile(block, "README.md", "exec"), names)
    return names


def test_the_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run([block for block in blocks("python") if "import torch" not in block])
    assert names["cells"].num_rows == 700
    assert (tmp_path / "tokens" / "cells" / "state.json").exists()


@pytest.mark.filterwarnings("ignore")  # what PyTorch says of few cores, and Python of forking
def test_the_training_block_runs_after_them(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed; it is an extra of several GB")
    monkeypatch.chdir(tmp_path)
    assert "train" in run(blocks("python"))


def test_the_demo_prints_what_the_readme_shows(tmp_path):
    shown = blocks("text")[0].splitlines()
    printed = teddytok("demo", cwd=tmp_path).splitlines()
    assert [line for line in shown if line] == [line for line in printed if line in shown and line]


def test_every_command_line_of_the_readme_runs(tmp_path):
    import anndata
    import numpy as np

    from teddytok_rs import demo

    cells = demo.cells()
    cells.obs["disease"] = cells.obs["disease"].astype(str)
    for name in ("brain", "blood"):
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    counts = anndata.AnnData(X=cells.layers["processed"].astype(np.int32), obs=cells.obs, var=cells.var)
    counts.write_h5ad(tmp_path / "counts.h5ad")
    (tmp_path / "atlas" / "lung").mkdir(parents=True)
    counts.write_h5ad(tmp_path / "atlas" / "lung" / "lung.h5ad")
    (tmp_path / "vocabulary").symlink_to(ROOT / "python" / "teddytok_rs" / "demo" / "vocabulary")
    (tmp_path / "args.json").write_text(blocks("json")[0], encoding="utf-8")

    ran = []
    for block in blocks("bash"):
        for line in block.splitlines():
            if line.startswith("teddytok "):
                words = shlex.split(line, comments=True)[1:]
                if words[0] == "vocab":
                    words[words.index("--out") + 1] = "own-vocabulary"
                teddytok(*words, cwd=tmp_path)
                ran.append(words[0])
    assert ran == ["check", "tokenize", "inspect", "verify", "tokenize", "vocab", "tokenize", "verify"]


def test_the_test_command_of_the_readme_is_the_one_that_ci_runs():
    commands = [block.strip() for block in blocks("bash")]
    assert ".ci/test" in commands
    assert '\nVENV="$work/test" .ci/test\n' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
