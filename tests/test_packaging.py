"""What is published: an sdist that builds, and a wheel that holds what runs and runs where no compiler is."""

from __future__ import annotations

import email
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python" / "teddytok_rs"
MANIFEST = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
VERSION = MANIFEST["package"]["version"]
MEGABYTE = 1_000_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.which("cargo") is None, reason="Cargo is not installed"),
]


def run(*words: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# ---- the licences of what is compiled in


def test_the_notices_are_those_of_the_crates_that_are_compiled_in(tmp_path: Path):
    for name in ("Cargo.toml", "Cargo.lock"):
        shutil.copy(ROOT / name, tmp_path)
    for name in (".ci", "rust", "benches", "tests"):  # Cargo wants to see the targets that Cargo.toml lists
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    run(sys.executable, ".ci/notices.py", cwd=tmp_path)
    made = (tmp_path / "THIRD-PARTY.md").read_text(encoding="utf-8")
    assert made == (ROOT / "THIRD-PARTY.md").read_text(encoding="utf-8"), "run .ci/notices.py"
    assert set(MANIFEST["dependencies"]) <= set(re.findall(r"^\| ([\w-]+) \|", made, flags=re.MULTILINE))
    assert {"libdeflate", "Zstandard"} <= set(re.findall(r"^## (\w+)$", made, flags=re.MULTILINE))


# ---- sdist and wheel


@dataclass(frozen=True)
class Built:
    sdist: Path
    wheel: Path

    def names(self) -> list[str]:
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.namelist()

    def metadata(self) -> email.message.Message:
        with zipfile.ZipFile(self.wheel) as archive:
            return email.message_from_bytes(archive.read(f"teddytok_rs-{VERSION}.dist-info/METADATA"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the sdist, and the wheel from that sdist; what Cargo compiled of the dependencies before is used again."""
    for tool in ("build", "twine", "abi3audit"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed; .ci/run has it")
    folder = tmp_path_factory.mktemp("dist")
    environment = os.environ | {"CARGO_TARGET_DIR": os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))}
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, env=environment)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel)


def test_the_sdist_holds_what_the_manifests_name(built: Built):
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    named = [MANIFEST["lib"]["path"], MANIFEST["package"]["readme"], "LICENSE", "THIRD-PARTY.md"]
    named += [str(path.relative_to(ROOT)) for path in (ROOT / "benches").glob("*/*.rs")]
    tests = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")]
    tests += [str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "golden").glob("[0-9]*/**/*") if path.is_file()]
    assert {*named, *tests, "pyproject.toml", "Cargo.toml", "Cargo.lock", "PKG-INFO"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyd", ".pyc")) or name.startswith("target/")]


def test_one_wheel_serves_every_python_from_3_11(built: Built):
    assert built.wheel.name.startswith(f"teddytok_rs-{VERSION}-cp311-abi3-")
    run(sys.executable, "-m", "abi3audit", "--strict", built.wheel)


def test_the_wheel_holds_the_package_and_nothing_else(built: Built):
    names = set(built.names())
    files = {str(path.relative_to(PACKAGE.parent)) for path in PACKAGE.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name and not name.endswith((".so", ".pyd"))}
    compiled = {name for name in names if name.startswith("teddytok_rs/_core.") and not name.endswith(".pyi")}
    info = {name for name in names if name.startswith(f"teddytok_rs-{VERSION}.dist-info/")}
    assert len(compiled) == 1
    assert names == files | compiled | info
    licences = f"teddytok_rs-{VERSION}.dist-info/licenses/"
    assert {name.removeprefix(licences) for name in info if name.startswith(licences)} == {"LICENSE", "THIRD-PARTY.md"}


def test_the_wheel_is_small(built: Built):
    with zipfile.ZipFile(built.wheel) as archive:
        demo = sum(item.compress_size for item in archive.infolist() if item.filename.startswith("teddytok_rs/demo/"))
    assert built.wheel.stat().st_size - demo < 5 * MEGABYTE


def test_the_metadata_pass_the_checks_of_the_index(built: Built):
    run(sys.executable, "-m", "twine", "check", "--strict", built.sdist, built.wheel)
    metadata = built.metadata()
    assert metadata["Version"] == VERSION
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


# ---- installed, where nothing else is

MISSING = """
import importlib, json, sys
from teddytok_rs import TeddytokError, _core, demo, tokenize, tokenize_corpus

def told(action):
    try:
        action()
    except TeddytokError as failure:
        return str(failure)

found = {name: importlib.util.find_spec(name) is not None for name in sys.argv[1:]}
answers = {
    "torch": told(lambda: importlib.import_module("teddytok_rs.torch")),
    "huggingface_hub": told(lambda: tokenize(demo.CELLS, {"tokenizer_name_or_path": "owner/name"})),
    "fsspec": told(lambda: tokenize_corpus("https://localhost/*.h5ad", demo.args(), "corpus")),
    "distributed": told(lambda: importlib.import_module("teddytok_rs.engines.dask")),
    "ray": told(lambda: importlib.import_module("teddytok_rs.engines.ray")),
    "pyspark": told(lambda: importlib.import_module("teddytok_rs.engines.spark")),
}
print(json.dumps({"found": found, "told": answers, "rows": tokenize(demo.CELLS, demo.args()).num_rows,
                  "profile": _core.build_info["profile"]}))
"""
EXTRAS = {
    "torch": "torch", "huggingface_hub": "hub", "fsspec": "cloud",
    "distributed": "dask", "ray": "ray", "pyspark": "spark",
}  # fmt: skip


def test_the_wheel_runs_in_an_empty_environment_without_a_compiler(built: Built, tmp_path: Path):
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    folder = tmp_path / "venv" / "bin"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    options = {"cwd": tmp_path, "env": kept | {"PATH": str(folder), "HOME": str(tmp_path)}}
    assert not [tool for tool in ("cc", "gcc", "clang", "cargo", "rustc") if shutil.which(tool, path=str(folder))]
    run(
        folder / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--only-binary",
        ":all:",
        built.wheel,
        **options,
    )

    assert run(folder / "teddytok", "--version", **options) == f"teddytok, version {VERSION}\n"
    assert "163,089 tokens" in run(folder / "teddytok", "demo", **options)
    answer = json.loads(run(folder / "python", "-c", MISSING, *EXTRAS, **options))
    assert answer["rows"] == 700
    assert answer["profile"] == "release"
    assert not any(answer["found"].values()), "no extra is there"
    for library, extra in EXTRAS.items():
        assert f"pip install 'teddytok-rs[{extra}]'" in answer["told"][library]
