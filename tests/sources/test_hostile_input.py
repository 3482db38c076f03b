"""Read hostile files and matrices: each ends in one error with a clear message, soon, and in little memory."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import teddytok_rs
from raises import check_message, raises
from teddytok_rs import TeddytokError
from teddytok_rs.sources.open import open_source

#: Bytes of address space that a child gets: far less than any absurd size, and enough for all imports.
MEMORY = 6 * 2**30
#: How long to search; set it higher for more of everything.
EFFORT = int(os.environ.get("TEDDYTOK_HOSTILE_EFFORT", "1"))
#: Damaged files to try.
FLIPS = 75 * EFFORT
CELLS, GENES = 5, 6
pytestmark = [pytest.mark.timeout(120 * EFFORT), pytest.mark.filterwarnings("ignore")]
PATHS = settings(max_examples=40 * EFFORT, deadline=None, suppress_health_check=list(HealthCheck))


def refused(source, args, *kinds: str) -> TeddytokError | None:
    """Tokenize what is hostile: expects a well-made error, of one of the kinds if any are given."""
    with pytest.raises(TeddytokError) as caught:
        teddytok_rs.tokenize(source, args, threads=1)
    checked(caught.value, kinds)
    return caught.value


def checked(problem: TeddytokError, kinds=()) -> None:
    assert len(str(problem)) < 10_000
    check_message(str(problem))
    assert problem.kind != "internal", problem
    assert not kinds or problem.kind in kinds, f"{problem.kind}: {problem}"


def harmless(source, args) -> None:
    """Tokenize what may or may not be hostile: no other exception than ours."""
    try:
        teddytok_rs.tokenize(source, args, threads=1)
    except TeddytokError as problem:
        checked(problem)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    tokens = ["<pad>", "<unk>", "<cls>", *(f"g{i}" for i in range(GENES)), "blood"]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    return folder


def cells(n_cells: int = CELLS, n_genes: int = GENES) -> anndata.AnnData:
    dense = np.arange(n_cells * n_genes, dtype=np.float32).reshape(n_cells, n_genes) % 4
    obs = pd.DataFrame(
        {"tissue": pd.Categorical(["blood", "skin"] * n_cells)[:n_cells], "n": np.arange(n_cells), "text": "a"},
        index=[f"c{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame({"symbol": [f"s{i}" for i in range(n_genes)]}, index=[f"g{i}" for i in range(n_genes)])
    return anndata.AnnData(sparse.csr_matrix(dense), obs, var, layers={"csc": sparse.csc_matrix(dense), "dense": dense})


def arguments(vocabulary: Path, **keys):
    wanted = {"tissue_column": "tissue", "label_column": "tissue", "obs_columns": ["n", "text", "index"], "layer": "X"}
    return teddytok_rs.TokenizationArgs(tokenizer_name_or_path=vocabulary, **{**wanted, **keys})


# ---- what runs in a child: may crash, hang or ask for all memory


def in_child(work, *, memory: int | None = MEMORY, seconds: int = 30):
    """Run ``work`` in a forked process; gives what was wrong with it, or None."""
    there, here = multiprocessing.get_context("fork").Pipe(duplex=False)

    def run() -> None:
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        signal.alarm(seconds)
        try:
            work()
            here.send(None)
        except BaseException:
            here.send(traceback.format_exc())

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    here.close()
    try:
        return there.recv()
    except EOFError:
        child.join()
        return f"died with {child.exitcode}"
    finally:
        child.join()


# ---- documents: vocabularies, mappings, medians, configurations

DEEP = ["[" * 100_000, '{"a":' * 100_000, "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900]
JSON_TEXTS = [
    "", "\0", "null", "[]", "1", '"x"', "NaN", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": 1e999}', '{"a": -1}',
    '{"a": 1.5}', '{"a": true}', '{"a": null}', '{"a": []}', '{"a": {}}', '{"a": "b"}', '{"\\ud800": 1}', "\ufeff{}",
    '{"a": "\\ud800"}', '{"a": 2147483648}', '{"a": %s}' % ("9" * 5000), '{"a": %s}' % ("9" * 400), '{"a": 5e-324}',
    '{"a": "%s"}' % ("9" * 5000), '{"a": "\u0663"}', '{"%s": -1}' % ("x" * 10**6), '{"a": "%s"}' % ("y" * 10**6),
    '{"a": [' + ",".join(["1"] * 10**5) + "]}",
    "{" + ",".join(f'"k{i % 70_000}": {i}' for i in range(140_000)) + "}", *DEEP,
]  # fmt: skip
YAML_TEXTS = [
    *JSON_TEXTS[:20], *DEEP[2:], "&a [*a]", "a: &a {b: *a}", "? [1, 2]\n: 3", "? {a: b}\n: 3", "!!bool x", "!!int ''",
    "!!timestamp x", "a: 2001-99-99", "a: !!float 1:1", "max_seq_len: 0x" + "f" * 10_000, "bins: " + "9" * 5000,
    "a: !!float " + "1:" * 500 + "1.5", "- " * 5000, "? " * 500, "<<: {a: 1}\na: 2", "%YAML 9.9\n---\na: 1",
    "\x07", "a: \x00",
    "a: !!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "--- 1\n--- 2", "{[]: 1}",
    "max_seq_len: !!python/object/new:os.system [touch pwned]", "tokenizer_name_or_path: !!binary aaaa", "a: 1\na: 2",
    "\ud7ff: 1", "x" * 2**21, "max_seq_len: 1e400",
]  # fmt: skip


def billion_laughs(levels: int = 40) -> str:
    lines = ["l0: &l0 [lol, lol]"]
    lines += [f"l{i}: &l{i} [*l{i - 1}, *l{i - 1}]" for i in range(1, levels)]
    return "\n".join([*lines, f"obs_columns: *l{levels - 1}", "tokenizer_name_or_path: x"])


@pytest.mark.parametrize("text", [*YAML_TEXTS, billion_laughs()], ids=lambda text: ascii(text[:20]))
@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_hostile_configuration_is_refused(tmp_path, monkeypatch, text, ending):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"args.{ending}"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TeddytokError) as caught:
        teddytok_rs.TokenizationArgs.load(path)
    checked(caught.value)
    assert not Path("pwned").exists()


def test_aliases_are_refused_and_not_unfolded(tmp_path):
    path = tmp_path / "args.yaml"
    path.write_text(billion_laughs(), encoding="utf-8")
    with pytest.raises(TeddytokError, match="it holds an alias"):
        teddytok_rs.TokenizationArgs.load(path)


VOCABULARY_FILES = ["vocab.json", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json", "vocab.txt"]


@pytest.mark.parametrize("text", JSON_TEXTS, ids=lambda text: ascii(text[:20]))
@pytest.mark.parametrize("use", [*VOCABULARY_FILES, "tissue_mapping", "median_dict"])
def test_a_hostile_file_of_names_and_numbers_is_refused_or_read(tmp_path, vocabulary, use, text):
    keys = {}
    if use in VOCABULARY_FILES:
        folder = tmp_path / "vocabulary"
        shutil.copytree(vocabulary, folder)
        path, vocabulary = folder / use, folder
    else:
        path = tmp_path / "file.json"
        keys = {use: path, "bio_annotations": False, "add_disease_annotation": False}
        if use == "tissue_mapping":
            keys |= {"bio_annotations": True, **{f"{kind}_column": "tissue" for kind in ("disease", "cell", "sex")}}
    path.write_text(text, encoding="utf-8")
    harmless(cells(), arguments(vocabulary, **keys))


@PATHS
@given(content=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass")),
       name=st.sampled_from([*VOCABULARY_FILES, "args.yaml", "args.json", "other.txt", "other.json"]))  # fmt: skip
def test_random_bytes_are_no_crash(tmp_path_factory, vocabulary, content, name):
    folder = tmp_path_factory.mktemp("bytes")
    (folder / name).write_bytes(content)
    if name.startswith("args"):
        with pytest.raises(TeddytokError) as caught:
            teddytok_rs.TokenizationArgs.load(folder / name)
        checked(caught.value)
    else:
        harmless(cells(), arguments(folder))
        harmless(cells(), arguments(folder / name))
        harmless(cells(), arguments(vocabulary, median_dict=folder / name))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@PATHS
@given(data=st.data())
def test_any_values_of_arguments_are_refused_or_taken(data):
    fields = st.sampled_from(sorted(teddytok_rs.TokenizationArgs.model_fields)) | st.text(max_size=8)
    keys = data.draw(st.dictionaries(fields, JSON, max_size=5))
    try:
        teddytok_rs.TokenizationArgs.load(keys)
    except TeddytokError as problem:
        checked(problem)


@pytest.mark.parametrize(
    "path", ["a\0b", "x" * 5000, "/" + "x" * 5000, "\ud800", "a\nb", "/dev/null", "..", "", "/dev/zero"]
)
def test_hostile_paths_are_refused(vocabulary, path):
    if path != "..":
        refused(path, arguments(vocabulary))
    with pytest.raises(TeddytokError) as caught:
        teddytok_rs.TokenizationArgs.load(Path(path))
    checked(caught.value)
    harmless(cells(), arguments(vocabulary, median_dict=path))
    if path not in {"", "x" * 5000, "\ud800"}:  # names that the Hub would be asked for
        with pytest.raises(TeddytokError) as caught:
            teddytok_rs.tokenize(cells(), arguments(path))
        checked(caught.value)


# ---- the structure of files and stores


def h5(change):
    """Make an .h5ad file and change it."""

    def make(folder: Path) -> Path:
        path = folder / "cells.h5ad"
        cells().write_h5ad(path)
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


def z(change, version: int = 2):
    """Make a zarr store and change it."""

    def make(folder: Path) -> Path:
        path = folder / f"cells{version}.zarr"
        with anndata.settings.override(zarr_write_format=version):
            cells().write_zarr(path)
        (path / ".zmetadata").unlink(missing_ok=True)
        if version == 3:
            root = json.loads((path / "zarr.json").read_text())
            root.pop("consolidated_metadata", None)
            (path / "zarr.json").write_text(json.dumps(root))
        change(zarr.open_group(path, mode="r+", use_consolidated=False))
        return path

    return make


def put(key: str, value, **how):
    def change(root) -> None:
        del root[key]
        if isinstance(root, h5py.File):
            root.create_dataset(key, data=value, **how)
        else:
            array = np.asarray(value)
            root.create_array(key, data=array) if array.dtype.kind != "O" else root.create_array(
                key, data=array.astype("T")
            )

    return change


def attribute(key: str, name: str, value):
    def change(root) -> None:
        if value is None:
            del root[key].attrs[name]
        else:
            root[key].attrs[name] = value

    return change


def remove(key: str):
    def change(root) -> None:
        del root[key]

    return change


def group(key: str):
    def change(root) -> None:
        del root[key]
        root.create_group(key)

    return change


PARTS = [
    *(f"{matrix}/{part}" for matrix in ("X", "layers/csc") for part in ("indptr", "indices", "data")), "layers/dense",
    "obs/_index", "obs/n", "obs/text", "obs/tissue/codes", "obs/tissue/categories", "var/_index", "var/symbol",
]  # fmt: skip
GROUPS = ["X", "layers", "layers/csc", "obs", "obs/tissue", "var"]
VALUES = {
    "strings": np.array(["a", "b", "c", "d", "e", "f", "g"], dtype="S1"),
    "2-D": np.zeros((3, 4), dtype=np.int64),
    "scalar": np.int64(3),
    "empty": np.zeros(0, dtype=np.int64),
    "short": np.arange(3),
    "long": np.arange(100),
    "negative": np.array([-1, 0, 1, 2, 3]),
    "falling": np.array([0, 9, 3, 20, 1, 22]),
    "overrun": np.array([0, 2**40, 2**41, 2**62, 2**62, 2**63 - 1]),
    "unsigned": np.array([0, 2**63, 2**64 - 1, 5, 6, 22], dtype=np.uint64),
    "floats": np.array([0.5, np.nan, np.inf, 1, 2, 3]),
    "complex": np.array([1j] * 6),
    "booleans": np.ones(6, dtype=bool),
}
ATTRIBUTES = [
    ("X", "shape"), ("layers/csc", "shape"), ("X", "encoding-type"), ("layers/dense", "encoding-type"),
    ("obs", "_index"), ("obs", "column-order"), ("var", "column-order"), ("var", "_index"), ("obs", "encoding-type"),
    ("obs/tissue", "encoding-type"), ("var", "encoding-version"), ("obs", "encoding-version"),
    ("X", "encoding-version"),
]  # fmt: skip
ATTRIBUTE_VALUES = [
    None, "", "nonsense", 5, -1, 1.5, [2**62, 6], [5, 2**62], [-1, 6], [5, 6, 7], [5], [5.5, 6.0], ["a", "b"],
    "/X/data", "../X", ["/X/data"], ["n", "n"], ["missing"], ["tissue/codes"], "a/../../X/data", "csc_matrix", "array",
    "dataframe", "categorical", "dict", "awkward-array", "rec-array",
]  # fmt: skip

MUTATIONS = {}
for _part in PARTS:
    for _name, _value in VALUES.items():
        MUTATIONS[f"{_part} = {_name}"] = put(_part, _value)
    MUTATIONS[f"{_part} removed"] = remove(_part)
    MUTATIONS[f"{_part} = group"] = group(_part)
for _part in GROUPS:
    MUTATIONS[f"{_part} = array"] = put(_part, np.arange(5))
    MUTATIONS[f"{_part} removed"] = remove(_part)
    MUTATIONS[f"{_part} = group"] = group(_part)
for _part, _name in ATTRIBUTES:
    for _value in ATTRIBUTE_VALUES:
        MUTATIONS[f"{_part}.{_name} = {_value}"] = attribute(_part, _name, _value)


def layers(mutation: str) -> list[str]:
    for part, layer in (("layers/csc", "csc"), ("layers/dense", "dense"), ("X", "X")):
        if mutation.startswith(part):
            return [layer]
    return ["csc"] if mutation.startswith("layers") else ["X", "dense"]


#: What an array may be without being wrong: numbers of cells, names of genes, an empty table.
SOUND = {"obs/n", "obs/text", "obs/tissue", "obs/_index", "var/symbol", "var/_index", "layers/dense", "X", "layers/csc"}


@pytest.mark.parametrize("kind", ["h5ad", "zarr2", "zarr3"])
@pytest.mark.parametrize("batch", range(2))
def test_a_malformed_file_is_refused(tmp_path, vocabulary, kind, batch):
    base = tmp_path / "base"
    base.mkdir()
    make = h5 if kind == "h5ad" else lambda change: z(change, int(kind[-1]))
    whole = make(lambda root: None)(base)
    names = list(MUTATIONS)[batch::2]
    if kind != "h5ad":
        names = names[:: max(8 // EFFORT, 1)]  # zarr is slow, and our code above it is the same
    outcomes = dict.fromkeys(["refused", "read", "not made"], 0)

    def work() -> None:
        for name in names:
            path = tmp_path / whole.name
            shutil.copytree(whole, path) if whole.is_dir() else shutil.copy(whole, path)
            try:
                if kind == "h5ad":
                    with h5py.File(path, "r+") as file:
                        MUTATIONS[name](file)
                else:
                    MUTATIONS[name](zarr.open_group(path, mode="r+", use_consolidated=False))
            except Exception:
                outcomes["not made"] += 1
            else:
                for layer in layers(name):
                    try:
                        teddytok_rs.tokenize(path, arguments(vocabulary, layer=layer), threads=1)
                        outcomes["read"] += 1
                    except TeddytokError as problem:
                        checked(problem)
                        outcomes["refused"] += 1
                    except Exception as bad:
                        raise AssertionError(f"{name}, layer {layer}") from bad
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert outcomes["refused"] > len(names) / 2, outcomes

    assert in_child(work, seconds=55 * EFFORT) is None


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (put("X/indptr", VALUES["falling"]), {"matrix_malformed"}),
        (put("X/indptr", VALUES["overrun"]), {"matrix_malformed"}),
        (put("X/indptr", VALUES["floats"]), {"matrix_malformed"}),
        (put("X/indices", np.full(22, 6)), {"matrix_malformed"}),
        (put("X/indices", np.full(22, -1)), {"matrix_malformed"}),
        (put("X/indices", np.zeros(22)), {"matrix_malformed"}),
        (put("X/data", np.full(22, b"x")), {"matrix_type"}),
        (put("X/data", np.full(22, np.nan)), {"not_finite"}),
        (put("X/data", np.ones(21)), {"matrix_malformed"}),
        (remove("X/data"), {"matrix_malformed"}),
        (group("X/indices"), {"matrix_malformed"}),
        (attribute("X", "shape", [2**62, 6]), {"matrix_malformed"}),
        (attribute("X", "shape", [4, 6]), {"matrix_malformed"}),
        (attribute("X", "encoding-type", "dict"), {"matrix_type"}),
        (put("obs/tissue/codes", np.full(5, 7, np.int8)), {"source_unreadable"}),
        (put("obs/n", np.arange(4)), {"source_unreadable"}),
        (remove("obs"), {"source_unreadable"}),
        (remove("X"), {"layer_missing"}),
        (attribute("obs", "_index", "/X/data"), {"source_unreadable"}),
        (attribute("var", "column-order", ["symbol", "symbol"]), {"source_unreadable"}),
    ],
)
@pytest.mark.parametrize("make", [h5, z], ids=["h5ad", "zarr"])
def test_the_error_says_what_is_wrong(tmp_path, vocabulary, make, change, kinds):
    refused(make(change)(tmp_path), arguments(vocabulary), *kinds)


# ---- sizes that are declared and not there


def declare(key: str, shape, dtype="<i8", **how):
    def change(file) -> None:
        del file[key]
        file.create_dataset(key, shape=shape, dtype=dtype, **how)

    return change


def late(key: str, shape, dtype="<i8"):
    """Declare a contiguous dataset that no space was ever allocated for."""

    def change(file) -> None:
        del file[key]
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, key.encode(), h5py.h5t.py_create(np.dtype(dtype)), space)

    return change


def both(*changes):
    def change(root) -> None:
        for one in changes:
            one(root)

    return change


def metadata(key: str, **fields):
    """Change the metadata of a zarr array as a file."""

    def change(root) -> None:
        folder = Path(str(root.store_path).removeprefix("file://")) / key
        folder = folder / "values" if (folder / "values").exists() else folder  # names as pandas 3 holds them
        file = next(folder / name for name in (".zarray", "zarr.json") if (folder / name).exists())
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


BIG = 2**40
WIDE = {
    **{f"{key} chunked": (h5(declare(key, (BIG,), chunks=(1024,))), "X")
       for key in ("X/indptr", "X/indices", "X/data")},
    **{f"{key} contiguous": (h5(late(key, (BIG,))), "X") for key in ("X/indptr", "X/indices", "X/data", "obs/_index")},
    "X/indptr compressed": (h5(declare("X/indptr", (BIG,), chunks=(1024,), compression="gzip")), "X"),
    "X/indptr of tiny chunks": (h5(declare("X/indptr", (2**23,), dtype="i1", chunks=(1,))), "X"),
    "matrix of 2^40 rows": (
        h5(both(declare("X/indptr", (BIG + 1,), chunks=(1024,)), attribute("X", "shape", [BIG, GENES]))), "X"),
    "all of 2^40 rows": (
        h5(both(declare("X/indptr", (BIG + 1,), chunks=(1024,)), attribute("X", "shape", [BIG, GENES]),
                declare("obs/_index", (BIG,), dtype="S8", chunks=(1024,)))), "X"),
    "csc of 2^62 rows": (h5(attribute("layers/csc", "shape", [2**62, GENES])), "csc"),
    "dense of 2^40 columns": (h5(both(declare("layers/dense", (CELLS, BIG), dtype="f4", chunks=(1, 1024)),
                                      attribute("layers/dense", "encoding-type", "array"))), "dense"),
    "dense and var of 2^40 columns": (
        h5(both(declare("layers/dense", (CELLS, BIG), dtype="f4", chunks=(1, 1024)),
                attribute("layers/dense", "encoding-type", "array"),
                declare("var/_index", (BIG,), dtype="S8", chunks=(1024,)))), "dense"),
    "obs/n": (h5(declare("obs/n", (BIG,), chunks=(1024,))), "X"),
    "obs/tissue/codes": (h5(declare("obs/tissue/codes", (BIG,), chunks=(1024,))), "X"),
    "obs/tissue/categories": (h5(declare("obs/tissue/categories", (BIG,), dtype="S8", chunks=(1024,))), "X"),
    "var/symbol": (h5(declare("var/symbol", (BIG,), dtype=h5py.string_dtype(), chunks=(1024,))), "X"),
    "var/symbol of long strings": (h5(declare("var/symbol", (GENES,), dtype=f"S{2**30}", chunks=(1,))), "X"),
    "layers an array": (h5(both(remove("layers"), lambda file: file.create_dataset(
        "layers", shape=(BIG,), dtype="i8", chunks=(1024,)))), "csc"),
    "X an array": (h5(both(declare("X", (BIG,), chunks=(1024,)), attribute("X", "encoding-type", "csr_matrix"))), "X"),
    "zarr dense and obs of 2^60 rows": (z(both(metadata("layers/dense", shape=[2**60, GENES]),
                                               metadata("obs/_index", shape=[2**60]))), "dense"),
    "zarr dense of huge chunks": (z(metadata("layers/dense", chunks=[2**40, GENES])), "dense"),
    "zarr csc of 2^62 rows": (z(attribute("layers/csc", "shape", [2**62, GENES])), "csc"),
    **{f"zarr{version} {key}": (z(metadata(key, shape=[2**60]), version), "X")
       for version in (2, 3) for key in ("X/indptr", "X/indices", "X/data", "obs/n", "obs/_index", "var/symbol",
                                         "obs/tissue/codes")},
    **{f"zarr {key} of huge chunks": (z(metadata(key, chunks=[2**50])), "X")
       for key in ("X/indptr", "X/data", "obs/n")},
    "zarr3 huge shards": (z(metadata("X/data", chunk_grid={
        "name": "regular", "configuration": {"chunk_shape": [2**50]}}), 3), "X"),
}  # fmt: skip


@pytest.mark.parametrize("size", WIDE)
def test_an_absurd_size_is_refused_before_it_is_allocated(tmp_path, vocabulary, size):
    make, layer = WIDE[size]
    path = make(tmp_path)
    kinds = {"source_unreadable", "chunks_missing", "matrix_malformed", "layer_missing", "matrix_type"}

    # A column of var that nobody asks for is left out.
    keys = {"gene_id_column": "symbol"} if "var/symbol" in size else {}

    def work() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused(path, arguments(vocabulary, layer=layer, **keys), *kinds)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 300_000, f"{grown} kB"

    assert in_child(work, seconds=20) is None


@pytest.mark.parametrize("keys", [{"bins": 2**31 - 1}, {"max_seq_len": 2**31 - 1, "include_zero_genes": True},
                                  {"max_seq_len": 2**31 - 1, "random_genes": True, "batch_size": 2**31 - 1},
                                  {"max_shard_samples": 2**31 - 1}], ids=str)  # fmt: skip
def test_an_absurd_argument_takes_no_memory(vocabulary, keys):
    def work() -> None:
        table = teddytok_rs.tokenize(cells(), arguments(vocabulary, **keys), threads=2**40)
        assert table.num_rows == CELLS

    assert in_child(work) is None


# ---- links, names, pickles


def hidden(file) -> None:
    """Hide an external link: HDF5 visits a group once, by whichever name comes first."""
    file["A"] = file["obs"]
    file["obs/n2"] = h5py.ExternalLink("/etc/passwd", "/")


def cycle(file) -> None:
    file["obs/again"] = file["obs"]


def doubled(file) -> None:
    """Nest two links to each level in the one before it: 2^30 columns in thirty groups."""
    level = file["var"]
    for _ in range(30):
        inner = level.create_group("a")
        level["b"] = inner
        level = inner


def deep(file) -> None:
    level = file["obs"]
    for _ in range(2000):
        level = level.create_group("a")


def raw_name(name: bytes):
    def change(file) -> None:
        file["obs/n"].id  # noqa: B018
        h5py.h5g.GroupID.link(file["obs"].id, b"n", name, h5py.h5g.LINK_HARD)

    return change


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (hidden, "source_link"),
        (cycle, "source_unreadable"),
        (doubled, "source_unreadable"),
        (deep, "source_unreadable"),
        (both(remove("X"), lambda file: file.update({"X": h5py.SoftLink("/X")})), "source_link"),
        (both(remove("X"), lambda file: file.update({"X": h5py.ExternalLink("cells.h5ad", "/X")})), "source_link"),
        (both(remove("X/data"), lambda file: file.update({"X/data": h5py.SoftLink("/X/data")})), "source_link"),
        (both(remove("obs"), lambda file: file.update({"obs": file["X"]})), None),
        (both(remove("X"), lambda file: file.update({"X": file["/"]})), None),
        (both(remove("layers"), lambda file: file.update({"layers": file["/"]})), None),
        (raw_name(b"\xff\xfe"), None),
    ],
)  # fmt: skip
def test_links_and_names_that_mislead_are_refused(tmp_path, vocabulary, change, kind):
    def dict_update(file) -> None:
        h5py.File.update = lambda self, items: [self.__setitem__(*item) for item in items.items()]
        change(file)

    path = h5(dict_update)(tmp_path)

    def work() -> None:
        if kind:
            refused(path, arguments(vocabulary), kind)
        else:
            harmless(path, arguments(vocabulary))
        harmless(path, arguments(vocabulary, layer="csc"))

    assert in_child(work) is None


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


@pytest.mark.parametrize("where", ["obs/text", "obs/_index", "var/symbol", "X/data", "obs/extra"])
@pytest.mark.parametrize("spelling", ["pickle", "\\u0070ickle"])
def test_pickles_are_never_read(tmp_path, vocabulary, where, spelling):
    import pickle

    sprung = tmp_path / "sprung"
    path = z(lambda root: None)(tmp_path)
    folder = path / where
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    bomb = pickle.dumps([Trap(sprung), "|O", (CELLS,)])
    (folder / "0").write_bytes(bomb)
    text = json.dumps({
        "zarr_format": 2, "shape": [CELLS], "chunks": [CELLS], "dtype": "|O", "compressor": None, "fill_value": 0,
        "filters": [{"id": "pickle", "protocol": 5}], "order": "C",
    })  # fmt: skip
    (folder / ".zarray").write_text(text.replace('"pickle"', f'"{spelling}"'))
    (folder / ".zattrs").write_text(json.dumps({"encoding-type": "string-array", "encoding-version": "0.2.0"}))
    refused(path, arguments(vocabulary), "source_unreadable")
    assert not sprung.exists()


def test_pickles_behind_a_link_or_in_another_spelling_are_never_read(tmp_path, vocabulary):
    described = json.dumps({
        "zarr_format": 2, "shape": [CELLS], "chunks": [CELLS], "dtype": "|O", "compressor": None, "fill_value": 0,
        "filters": [{"id": "pickle"}], "order": "C",
    })  # fmt: skip
    path = z(lambda root: None)(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".zarray").write_text(described)
    (path / "obs" / "extra").symlink_to(elsewhere)
    with raises("source_unreadable", "is a link to a folder outside of it"):
        teddytok_rs.tokenize(path, arguments(vocabulary))
    (path / "obs" / "extra").unlink()
    (path / "obs" / "extra").mkdir()
    (path / "obs" / "extra" / ".ZArray").write_text(described)
    with raises("source_unreadable", "it holds Python pickles"):
        teddytok_rs.tokenize(path, arguments(vocabulary))
    shutil.rmtree(path / "obs" / "extra")
    (path / "obs" / "extra").symlink_to(path / "obs" / "text")  # within the store
    (tmp_path / "link.zarr").symlink_to(path)
    teddytok_rs.tokenize(tmp_path / "link.zarr", arguments(vocabulary))


def test_a_url_of_references_is_refused(tmp_path, vocabulary):
    """What they hold are templates, which fsspec 2024.6 renders without a sandbox."""
    run = "{{ cycler.__init__.__globals__.os.mkdir('%s') }}" % (tmp_path / "sprung")
    document = {"version": 1, "gen": [{"key": "cells.h5ad", "url": run, "dimensions": {"i": [0]}}], "refs": {}}
    (tmp_path / "references.json").write_text(json.dumps(document))
    place = f"file://{tmp_path}/references.json"
    for chain in ("reference://cells.h5ad", "reference", "simplecache::reference://cells.h5ad"):
        with raises("source_remote", "reference files could run any code"):
            teddytok_rs.tokenize_corpus([f"{chain}::{place}"], arguments(vocabulary), tmp_path / "out")
    assert not (tmp_path / "sprung").exists()


def test_a_pipe_in_a_store_does_not_hang(tmp_path, vocabulary):
    path = z(lambda root: None)(tmp_path)
    (path / "X" / ".zattrs").unlink()
    os.mkfifo(path / "X" / ".zattrs")
    assert in_child(lambda: refused(path, arguments(vocabulary), "source_unreadable"), seconds=10) is None


# ---- bytes flipped at random


def flips(whole: bytes, n: int, seed: int):
    moments = random.Random(seed)
    for _ in range(n):
        spoilt = bytearray(whole)
        for _ in range(moments.choice([1, 1, 2, 8])):
            spoilt[moments.randrange(len(spoilt))] = moments.choice([0, 1, 0x7F, 0x80, 0xFF, moments.randrange(256)])
        yield bytes(spoilt)


def test_flipped_bytes_of_an_h5ad_are_no_other_error(tmp_path, vocabulary):
    path = h5(lambda file: None)(tmp_path)
    whole = path.read_bytes()
    crashes = []

    def many(spoilt: list[bytes]) -> None:
        for content in spoilt:
            path.write_bytes(content)
            for layer in ("X", "csc", "dense"):
                harmless(path, arguments(vocabulary, layer=layer))

    spoilt = list(flips(whole, FLIPS, seed=5))
    for first in range(0, len(spoilt), 50):
        batch = spoilt[first : first + 50]
        if (problem := in_child(lambda batch=batch: many(batch))) is None:
            continue
        # A child died: one file a child tells which, and whether HDF5 itself did.
        for content in batch:
            problem = in_child(lambda content=content: many([content]))
            if problem is not None and problem.startswith("died"):
                crashes.append(problem)
            else:
                assert problem is None, problem
    # HDF5 itself is not proof against every damaged file: beyond us, but it must be rare.
    sys.stderr.write(f"{FLIPS} damaged files, HDF5 itself crashed on {len(crashes)}: {sorted(set(crashes))}\n")
    assert len(crashes) <= FLIPS // 50, crashes


@pytest.mark.parametrize("version", [2, 3])
def test_flipped_bytes_of_zarr_metadata_are_no_other_error(tmp_path, vocabulary, version):
    path = z(lambda root: None, version)(tmp_path)
    files = [file for file in path.rglob("*") if file.name in {".zarray", ".zattrs", ".zgroup", "zarr.json"}]
    files += [file for file in path.rglob("*") if file.is_file() and file.name in {"0", "0.0"}]

    def work() -> None:
        for number in range(FLIPS // 3):
            file = files[number % len(files)]
            whole = file.read_bytes()
            (spoilt,) = flips(whole, 1, seed=number)
            file.write_bytes(spoilt)
            try:
                for layer in ("X", "csc", "dense"):
                    try:
                        harmless(path, arguments(vocabulary, layer=layer))
                    except Exception as bad:
                        raise AssertionError(f"{file}: {spoilt!r}") from bad
            finally:
                file.write_bytes(whole)

    assert in_child(work, seconds=55 * EFFORT) is None


# ---- matrices in memory


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array])
@pytest.mark.parametrize("part", ["indptr", "indices"])
@pytest.mark.parametrize("value", [-1, -(2**31), 2**31 - 1, 10**6])
def test_a_malformed_matrix_in_memory_is_refused(vocabulary, make, part, value):
    matrix = make(cells().layers["dense"])
    source = cells()
    source.layers["lies"] = matrix
    stored = source.layers["lies"]
    getattr(stored, part)[2] = value
    assert in_child(lambda: refused(source, arguments(vocabulary, layer="lies"), "matrix_malformed")) is None


@pytest.mark.parametrize("values", [
    [[1], [2], [3], [4], [5]], [1, "a", None, 2.5, b"x"], ["\ud800"] * CELLS,
    [10**30] * CELLS, [{}] * CELLS, [1j] * CELLS,
    pd.Categorical(["a", 1, 2, 1, "a"]), pd.to_datetime(["2020-01-01"] * CELLS), pd.interval_range(0, CELLS),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("key", ["label_column", "obs_columns", "tissue_column", "cell_filter"])
def test_obs_columns_of_anything_are_refused_or_written(vocabulary, values, key):
    source = cells()
    kind = object if isinstance(values, list) and isinstance(values[0], str) else None  # pandas 3 has a type for text
    source.obs["odd"] = pd.Series(values, dtype=kind, index=source.obs_names)
    keys = {key: ["odd"] if key == "obs_columns" else "odd"}
    if key == "tissue_column":
        keys |= {"bio_annotations": True, **{f"{kind}_column": "odd" for kind in ("disease", "cell", "sex")}}
    harmless(source, arguments(vocabulary, **keys))


def test_several_columns_of_one_name_are_refused(vocabulary):
    source = cells()
    source.obs.columns = ["tissue", "tissue", "text"]
    harmless(source, arguments(vocabulary, obs_columns=["tissue"]))
    source = cells()
    source.var["other"] = source.var["symbol"]
    source.var.columns = ["symbol", "symbol"]
    refused(source, arguments(vocabulary, gene_id_column="symbol"))


def test_names_that_are_no_text_are_refused_or_replaced(vocabulary, tmp_path):
    source = cells()
    source.obs_names = pd.Index(["\ud800", "b", "c", "d", "e"], dtype=object)
    refused(source, arguments(vocabulary), "obs_column_type")
    source = cells()
    source.var_names = pd.Index(["g0", "\udcff", "g2", "g3", "g4", "g5"], dtype=object)
    teddytok_rs.tokenize_to_disk(source, arguments(vocabulary), tmp_path)
    assert open_source(source, "X").n_var == GENES


# ---- where output goes


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/b", "a\0b", "x" * 300, "a/"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, vocabulary, name):
    inside = tmp_path / "a" / "b"
    with pytest.raises(TeddytokError) as caught:
        teddytok_rs.tokenize_to_disk(cells(), arguments(vocabulary), inside, name=name)
    checked(caught.value, {"output_name", "output_failed"})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("file", ["..h5ad", ".h5ad", "a\nb.h5ad", " .h5ad", "...h5ad", "x", "{0}.h5ad", "\udcff.h5ad"])
def test_an_odd_file_name_stays_in_its_folder(tmp_path, vocabulary, file):
    path = tmp_path / file
    cells().write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "cells.h5ad").rename(path)
    out = tmp_path / "out" / "deep"
    try:
        folder = teddytok_rs.tokenize_to_disk(path, arguments(vocabulary), out).path
        assert folder.parent == out
    except TeddytokError as problem:
        checked(problem, {"output_name"})
    assert all(out in found.parents for found in tmp_path.rglob("*") if found.is_file() and found != path)


@pytest.mark.parametrize("save_dir", ["a\0b", "x" * 5000, "/dev/null/x", "/proc/nowhere"])
def test_a_folder_that_cannot_be_is_refused(vocabulary, save_dir):
    with pytest.raises(TeddytokError) as caught:
        teddytok_rs.tokenize_to_disk(cells(), arguments(vocabulary), save_dir)
    checked(caught.value)


@PATHS
@given(content=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_a_hostile_output_folder_is_refused(tmp_path_factory, vocabulary, content):
    folder = tmp_path_factory.mktemp("out")
    made = teddytok_rs.tokenize_to_disk(cells(), arguments(vocabulary), folder).path
    for name in ("teddytok.json", "state.json", "dataset_info.json", "genes.csv", "data-00000-of-00001.arrow"):
        whole = (made / name).read_bytes()
        (made / name).write_bytes(content)
        for read in (teddytok_rs.inspect, teddytok_rs.verify):
            try:
                read(made)
            except TeddytokError as problem:
                checked(problem)
        (made / name).write_bytes(whole)
