"""The rules that the package keeps with itself."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import teddytok_rs
from teddytok_rs import _core
from teddytok_rs.errors import TeddytokError
from teddytok_rs.errors.build import error
from teddytok_rs.errors.catalogue import KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PACKAGE = Path(teddytok_rs.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
RUST = sorted((ROOT / "rust").rglob("*.rs"))
SHORTEST, LONGEST = 50, 600
#: Tables with a row for each error or argument.
TABLES = {"errors/catalogue.py", "config/args.py"}
#: One concept each, and no more to say about it.
TINY = {
    "config/kinds.py",
    "corpus/check.py",
    "errors/text.py",
    "mapping/inputs.py",
    "output/arrow.py",
    "output/dataset_info.py",
    "pipeline/resources.py",
    "teddytok_rs/sharing.py",
    "sources/layers.py",
    "src/guard.rs",
}
HEAVY = [
    "anndata", "click", "datasets", "h5py", "jinja2", "matplotlib", "pandas", "pyarrow", "pydantic", "scipy",
    "torch", "tqdm", "zarr",
]  # fmt: skip


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    """Name the modules that a file imports, at any depth, by their first part."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).partition(".")[0])
    return names


# ---- imports


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, json, teddytok_rs; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    process = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(process.stdout) == []


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys, json; from teddytok_rs.cli import cli; cli.main(['--help'], standalone_mode=False);"
        "heavy = ('anndata', 'h5py', 'numpy', 'pandas', 'pyarrow', 'pydantic', 'tqdm');"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(process.stdout.splitlines()[-1]) == []


def test_tokenizing_a_path_imports_no_library_that_it_does_not_use(tmp_path: Path):
    code = (
        "import sys, json; from teddytok_rs import demo; from teddytok_rs.cli.main import cli;"
        "json.dump({'tokenizer_name_or_path': demo.args().tokenizer_name_or_path}, open('args.json', 'w'));"
        "cli.main(['tokenize', str(demo.CELLS), '-c', 'args.json', '-o', 'out', '-q'], standalone_mode=False);"
        "heavy = ('anndata', 'scipy', 'dask', 'zarr', 'torch', 'transformers', 'datasets', 'matplotlib', 'yaml');"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(process.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_imports_what_it_must_not(path: Path):
    never = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "transformers"}
    assert not imported(path) & (never if path.parent.name == "torch" else never | {"torch"})


def test_the_dependencies_name_neither_torch_nor_transformers():
    required = importlib.metadata.requires("teddytok-rs")
    plain = [line for line in required if "extra ==" not in line]
    assert plain
    assert not [line for line in plain if re.match(r"(torch|transformers|datasets|zarr|huggingface)", line)]


# ---- names


def test_the_version_has_one_home():
    version = importlib.metadata.version("teddytok-rs")
    assert teddytok_rs.__version__ == _core.build_info["version"] == version
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert manifest["package"]["version"] == str(citation["version"]) == version


def test_a_star_imports_the_public_names_and_dir_lists_them():
    names: dict[str, object] = {}
    exec("from teddytok_rs import *", names)
    assert names.keys() - {"__builtins__"} == set(teddytok_rs.__all__)
    assert {*teddytok_rs.__all__, "__version__", "__doc__"} <= set(dir(teddytok_rs))
    with pytest.raises(AttributeError, match="nothing"):
        _ = teddytok_rs.nothing


@pytest.mark.parametrize("name", teddytok_rs.__all__)
def test_every_public_name_is_there_and_documented(name: str):
    thing = getattr(teddytok_rs, name)
    assert thing.__name__ == name
    assert inspect.getdoc(thing)
    assert name in dir(teddytok_rs)
    if inspect.isclass(thing):
        assert thing.__doc__, "a class has its own words, not its parent's"


def test_public_names_are_sorted_and_unique():
    assert teddytok_rs.__all__ == sorted(set(teddytok_rs.__all__))


def test_all_public_names_can_be_imported_at_once():
    namespace: dict[str, object] = {}
    exec("from teddytok_rs import *", namespace)
    assert set(teddytok_rs.__all__) <= set(namespace)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No teddytok_rs attribute tokenise"):
        _ = teddytok_rs.tokenise


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_core.pyi").exists()


# ---- files


@pytest.mark.parametrize("path", [*SOURCES, *RUST], ids=lambda path: "/".join(path.parts[-2:]))
def test_a_file_is_as_long_as_one_concept_needs(path: Path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST or "/".join(path.parts[-2:]) in TABLES
    assert lines >= SHORTEST or path.name in {"__init__.py", "__main__.py"} or "/".join(path.parts[-2:]) in TINY


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_begins_with_what_it_is_for(path: Path):
    first = (ast.get_docstring(tree(path)) or "").splitlines()[0]
    assert first.endswith(".")


# ---- rules


def test_only_numbers_cross_between_python_and_rust():
    """Arrays, numbers and the names of choices; no gene, no label, no path."""
    numbers = {
        "Any", "Kernel", "Literal", "MedianCounter", "NDArray", "_Arrays", "bool", "float", "int", "list", "np",
        "tuple",
    }  # fmt: skip
    stub = ast.parse((PACKAGE / "_core.pyi").read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(stub) if isinstance(node, ast.FunctionDef)]
    assert {"tokenize_csr", "tokenize_dense"} <= {function.name for function in functions}
    for function in functions:
        parameters = [*function.args.args, *function.args.kwonlyargs]
        annotations = {it.arg: it.annotation for it in parameters if it.annotation} | {"return": function.returns}
        for name, annotation in annotations.items():
            named = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
            assert named <= numbers | ({"str"} if name == "values" else set()), f"{function.name}: {name}"


def test_the_oracle_imports_nothing_from_the_package():
    assert "teddytok_rs" not in imported(TESTS / "oracle.py")
    assert imported(TESTS / "oracle.py") <= {"__future__", "collections", "hashlib", "math", "numpy", "typing"}


def is_clock(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in {"perf_counter", "monotonic", "process_time", "time_ns"}


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.stem)
def test_no_test_asserts_a_time(path: Path):
    for function in ast.walk(tree(path)):
        if not isinstance(function, ast.FunctionDef) or not function.name.startswith("test_"):
            continue
        times: set[str] = set()
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and any(is_clock(leaf) for leaf in ast.walk(node.value)):
                times |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        for node in ast.walk(function):
            if isinstance(node, ast.Assert):
                for leaf in ast.walk(node.test):
                    assert not is_clock(leaf), f"{function.name}, line {node.lineno}"
                    assert not isinstance(leaf, ast.Name) or leaf.id not in times, f"{function.name}, {node.lineno}"


# ---- errors


@functools.cache
def raised_in_the_package() -> set[str]:
    """Collect the kinds that calls with one as the first argument name, and all that the kernel may name."""
    slugs = set()
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            makes_one = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args
            if makes_one and node.func.id in {"error", "system_error"}:
                slugs |= {leaf.value for leaf in ast.walk(node.args[0]) if isinstance(leaf, ast.Constant)}
    return slugs


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_is_raised_by_the_package(kind: str):
    kernel = "".join(path.read_text(encoding="utf-8") for path in RUST)
    assert kind in raised_in_the_package() or f'"{kind}"' in kernel


@pytest.mark.parametrize(("kind", "row"), KINDS.items(), ids=KINDS)
def test_every_kind_of_error_says_what_happened_and_what_to_do(kind: str, row: Kind):
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", kind)
    assert issubclass(row.raises, TeddytokError)
    assert row.what.endswith(".")
    assert row.hint.endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_also_of_the_kind_that_python_has_for_it(kind: str):
    row = KINDS[kind]
    fields = set(re.findall(r"\{(\w+)", row.what + row.hint))
    numbers = set(re.findall(r"\{(\w+):[^}]*[,g%]", row.what + row.hint))
    made = error(kind, **{field: 1 if field in numbers else "x" for field in fields})
    assert isinstance(made, ValueError | OSError | RuntimeError)
    assert made.kind == kind
    assert set(made.context) == fields


def raised_in_handlers(tree: ast.AST) -> Iterator[ast.Raise]:
    """List what is raised new where another exception is handled: not that exception again, nor one kept in a name."""
    for handler in ast.walk(tree):
        if isinstance(handler, ast.ExceptHandler):
            for node in ast.walk(handler):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    yield node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_error_is_shown_below_the_exception_that_it_words(path: Path):
    """An error says all that a user needs; the exception of a library stays its `__context__`, which --debug shows."""
    for node in raised_in_handlers(tree(path)):
        assert isinstance(node.cause, ast.Constant), f"line {node.lineno}: not 'from None'"
        assert node.cause.value is None
    raised = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Raise)]
    assert not [node.lineno for node in raised if isinstance(node.cause, ast.Name)]


def test_every_class_of_error_is_public():
    public = {row.raises.__name__ for row in KINDS.values()}
    assert public <= set(teddytok_rs.__all__)
