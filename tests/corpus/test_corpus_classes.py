"""The classes of many sources are numbered together, and keep their numbers when the corpus grows."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import anndata
import pandas as pd
import pytest

import cells
import teddytok_rs
from folders import contents
from raises import raises
from teddytok_rs import CorpusManifest, Manifest, tokenize_corpus, tokenize_to_disk

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, name: str, labels: Any) -> Path:
    """Write a source with these labels, as categories where it is an h5ad file and as text in a zarr store."""
    folder.mkdir(exist_ok=True)
    return cells.save(cells.make_cells(len(labels), site=labels), folder / name)


def read(corpus: Path) -> dict[str, list[str]]:
    """Read the label of each cell of every dataset by its name."""
    datasets = pytest.importorskip("datasets")
    found = {}
    for folder in sorted(path.parent for path in corpus.glob("*/state.json")):
        dataset = datasets.load_from_disk(str(folder))
        found[folder.name] = dataset.features["labels"].int2str(dataset["labels"][:])
    return found


def names_of(corpus: Path) -> dict[str, list[str]]:
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))["features"]["labels"]["names"]
        for path in sorted(corpus.glob("*/dataset_info.json"))
    }


def shards(folder: Path) -> dict[str, str]:
    return {name: sha256 for name, sha256 in contents(folder).items() if name.endswith(".arrow")}


@pytest.fixture
def args(tmp_path: Path) -> dict[str, Any]:
    return cells.make_args(tmp_path, label_column="site", layer="X", max_shard_samples=2)


LABELS = {"a.h5ad": ["y", "x", "y"], "b.zarr": ["z", "x", "a"], "c.h5ad": ["b"]}


@pytest.mark.parametrize("workers", [0, 2])
def test_the_union_of_all_sources_is_numbered(tmp_path: Path, args: dict[str, Any], workers: int):
    for name, labels in LABELS.items():
        write(tmp_path / "in", name, labels)
    (tmp_path / "in" / "broken.h5ad").write_bytes(b"no")
    if workers:
        with ProcessPoolExecutor(workers, get_context("spawn")) as executor:
            corpus = tokenize_corpus(tmp_path / "in", args, tmp_path / "out", executor=executor)
    else:
        corpus = tokenize_corpus(tmp_path / "in", args, tmp_path / "out")
    assert [source.folder for source in corpus.failed] == ["broken"]
    assert read(tmp_path / "out") == {name.partition(".")[0]: labels for name, labels in LABELS.items()}
    assert names_of(tmp_path / "out") == {name: ["a", "b", "x", "y", "z"] for name in "abc"}
    assert CorpusManifest.read(tmp_path / "out").configuration["label_names"] == ["a", "b", "x", "y", "z"]
    alone = {**args, "label_names": ["a", "b", "x", "y", "z"]}
    for name in LABELS:
        tokenize_to_disk(tmp_path / "in" / name, alone, tmp_path / "alone")
    assert shards(tmp_path / "alone") == shards(tmp_path / "out")


def test_a_grown_corpus_appends_new_names_and_leaves_what_is_there(tmp_path: Path, args: dict[str, Any]):
    out = tmp_path / "out"
    first = [write(tmp_path / "in", name, LABELS[name]) for name in ("b.zarr", "c.h5ad")]
    tokenize_corpus(first, args, out)
    before = contents(out, without="corpus.json")
    corpus = tokenize_corpus([*first, write(tmp_path / "in", "0.h5ad", ["0", "q", "z"])], args, out)
    assert corpus.failed == []
    assert before.items() <= contents(out, without="corpus.json").items()
    names = ["a", "b", "x", "z"]
    assert names_of(out) == {"0": [*names, "0", "q"], "b": names, "c": names}
    assert teddytok_rs.verify(out).problems == []
    # Again, with nothing new: the names stay recorded, and so are those of a third call.
    assert tokenize_corpus(first, args, out) == corpus
    write(tmp_path / "in", "1.h5ad", ["r", "0"])
    assert tokenize_corpus(tmp_path / "in" / "1.h5ad", args, out).failed == []
    assert names_of(out)["1"] == [*names, "0", "q", "r"]
    assert read(out)["1"] == ["r", "0"]
    assert teddytok_rs.verify(out).problems == []


def test_a_touched_source_of_a_grown_corpus_keeps_its_shards(tmp_path: Path, args: dict[str, Any]):
    out, a = tmp_path / "out", write(tmp_path / "in", "a.h5ad", LABELS["a.h5ad"])
    tokenize_corpus(a, args, out)
    tokenize_corpus(write(tmp_path / "in", "c.h5ad", ["b"]), args, out)
    before = contents(out / "a")
    a.touch()
    assert tokenize_corpus([a, write(tmp_path / "in", "d.h5ad", ["d"])], args, out).failed == []
    assert {name: content for name, content in contents(out / "a").items() if "data" in name} == {
        name: content for name, content in before.items() if "data" in name
    }
    # With a label that it did not have, it is another source.
    write(tmp_path / "in", "a.h5ad", ["y", "x", "new"])
    (failed,) = tokenize_corpus(a, args, out).failed
    assert failed.error["kind"] == "output_differs"
    assert tokenize_corpus(a, args, out, overwrite=True).failed == []
    assert read(out)["a"] == ["y", "x", "new"]
    assert teddytok_rs.verify(out).problems == []


def test_an_unfinished_dataset_keeps_the_names_it_was_begun_with(
    tmp_path: Path, args: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    from teddytok_rs.corpus import state

    out, a = tmp_path / "out", write(tmp_path / "in", "a.h5ad", LABELS["a.h5ad"])
    with monkeypatch.context() as patched:

        def stop(run: Any, advance: Any) -> None:
            raise KeyboardInterrupt

        patched.setattr(state, "write_shards", stop)
        with pytest.raises(KeyboardInterrupt):
            tokenize_corpus([a], args, out)
    assert CorpusManifest.read(out).configuration["label_names"] == ["x", "y"]
    assert (out / "a" / "teddytok.journal").exists()
    corpus = tokenize_corpus([a, write(tmp_path / "in", "c.h5ad", ["b"])], args, out)
    assert corpus.failed == []
    assert (names_of(out)["a"], names_of(out)["c"]) in [
        (["x", "y"], ["x", "y", "b"]),
        (["x", "y", "b"], ["x", "y", "b"]),
    ]


def test_datasets_made_one_by_one_are_taken_over(tmp_path: Path, args: dict[str, Any]):
    """As earlier versions made them: no names are recorded but those of each dataset."""
    out = tmp_path / "out"
    sources = [write(tmp_path / "in", f"{name}.h5ad", ["x", "y"]) for name in "ab"]
    tokenize_corpus(sources, args, out)
    for manifest in ("a/teddytok.json", "b/teddytok.json", "corpus.json"):
        document = json.loads((out / manifest).read_text(encoding="utf-8"))
        del document["configuration"]["label_names"], document["sha256"]
        if "source" in document:
            del document["source"]["stamp"]
        (out / manifest).write_text(json.dumps(document), encoding="utf-8")
    before = {name: content for name, content in contents(out).items() if "teddytok" not in name}
    del before["corpus.json"]
    outcomes: list[Any] = []
    sources.append(write(tmp_path / "in", "c.h5ad", ["a", "x"]))
    assert tokenize_corpus(sources, args, out, on_source=outcomes.append).failed == []
    assert [outcome.manifest.n_kept for outcome in outcomes] == [1, 1, 0]
    assert before.items() <= contents(out).items()
    assert names_of(out)["c"] == ["x", "y", "a"]


def test_a_former_corpus_of_another_label_column_is_not_mixed_with(tmp_path: Path, args: dict[str, Any]):
    out = tmp_path / "out"
    tokenize_corpus(write(tmp_path / "in", "a.h5ad", ["x", "y"]), args, out)
    before = contents(out)
    corpus = tokenize_corpus(write(tmp_path / "in", "b.h5ad", ["x", "y"]), {**args, "label_column": "tissue"}, out)
    (failed,) = corpus.failed
    assert failed.error["kind"] == "datasets_differ"
    assert "labels are of 'site' in the first and of 'tissue' in the second" in failed.error["message"]
    assert contents(out / "a").items() <= {name.partition("/")[2]: content for name, content in before.items()}.items()


def test_label_names_are_taken_instead_of_the_union(tmp_path: Path, args: dict[str, Any]):
    out = tmp_path / "out"
    a, b = (write(tmp_path / "in", name, LABELS[name]) for name in ("a.h5ad", "b.zarr"))
    args["label_names"] = cells.write_json(tmp_path / "names.json", ["z", "y", "x"])
    corpus = tokenize_corpus([a, b], args, out)
    (failed,) = corpus.failed
    assert (failed.folder, failed.error["kind"]) == ("b", "label_unknown")
    assert names_of(out) == {"a": ["z", "y", "x"]}
    cells.write_json(tmp_path / "names.json", ["z", "y", "x", "a"])
    assert tokenize_corpus([a, b], args, out).failed == []
    assert names_of(out) == {"a": ["z", "y", "x"], "b": ["z", "y", "x", "a"]}
    assert teddytok_rs.verify(out).problems == []


def test_ordered_categories_keep_their_order_in_a_corpus(tmp_path: Path, args: dict[str, Any]):
    grades = ["low", "mid", "high"]
    for name, some in {"a": ["low", "high"], "b": ["mid", "high"]}.items():
        write(tmp_path / "in", f"{name}.h5ad", pd.Categorical(some, categories=some, ordered=True))
    tokenize_corpus(tmp_path / "in", args, tmp_path / "out")
    names = names_of(tmp_path / "out")["a"]
    assert names.index("high") == 2
    write(tmp_path / "in", "c.h5ad", pd.Categorical(grades, categories=grades, ordered=True))
    tokenize_corpus(tmp_path / "in", args, tmp_path / "again")
    assert names_of(tmp_path / "again") == dict.fromkeys("abc", grades)
    write(tmp_path / "in", "d.h5ad", pd.Categorical(grades, categories=grades[::-1], ordered=True))
    with raises("config_conflict", "obs column 'site'", "label_names"):
        tokenize_corpus(tmp_path / "in", args, tmp_path / "third")


def test_remote_sources_are_numbered_with_the_others(tmp_path: Path, args: dict[str, Any]):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/classes/r.h5ad", write(tmp_path, "r.h5ad", ["q", "x"]).read_bytes())
    try:
        sources = [write(tmp_path / "in", "a.h5ad", ["x", "y"]), "memory://classes/r.h5ad"]
        corpus = tokenize_corpus(sources, args, tmp_path / "out")
    finally:
        memory.rm("/classes", recursive=True)
    assert corpus.failed == []
    assert names_of(tmp_path / "out") == {name: ["q", "x", "y"] for name in "ar"}
    assert not list((tmp_path / "out").glob(".teddytok*"))


# ---- joining


def test_a_list_of_names_and_its_prefix_can_be_joined_and_others_cannot(tmp_path: Path, args: dict[str, Any]):
    from teddytok_rs.output.compatibility import Joined, meaning

    made = cells.make_cells(2, site=["x", "y"])
    means = {}
    for name, names in {"xy": "xy", "xyz": "xyz", "xyw": "xyw", "yx": "yx"}.items():
        manifest = tokenize_to_disk(made, {**args, "label_names": list(names)}, tmp_path / "out", name=name)
        means[name] = meaning(Manifest.read(manifest.path))
    joined = Joined()
    for name in ("xy", "xyz", "xy", "xyz"):
        joined.add(name, means[name])
    assert joined.label_names == ("x", "y", "z")
    with raises("datasets_differ", "'xyz' and 'xyw'", "'z' only in the first; 'w' only in the second", "label_names"):
        joined.add("xyw", means["xyw"])
    with raises("datasets_differ", "they have another order"):
        joined.add("yx", means["yx"])


def test_folders_whose_names_are_prefixes_are_one_dataset_for_training(tmp_path: Path, args: dict[str, Any]):
    pytest.importorskip("torch", reason="PyTorch is not installed; it is an extra of several GB")
    from teddytok_rs.torch import OnTheFlyDataset, WrittenDataset

    a = write(tmp_path / "in", "a.h5ad", ["x", "y"])
    tokenize_corpus(a, args, tmp_path / "out")
    b = write(tmp_path / "in", "b.h5ad", ["a", "x"])
    tokenize_corpus(b, args, tmp_path / "out")
    dataset = WrittenDataset(tmp_path / "out")
    assert dataset.label_names == ("x", "y", "a")
    assert [cell["labels"] for cell in dataset] == [0, 1, 2, 0]
    on_the_fly = OnTheFlyDataset([a, b], args, shuffle=False)
    assert [cell["labels"] for cell in on_the_fly] == [1, 2, 0, 1]
    assert on_the_fly.args.label_names == ("a", "x", "y")


def test_a_copy_of_a_corpus_can_grow_elsewhere(tmp_path: Path, args: dict[str, Any]):
    a = write(tmp_path / "in", "a.h5ad", ["x", "y"])
    tokenize_corpus([a], args, tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    b = write(tmp_path / "in", "b.h5ad", ["a"])
    assert tokenize_corpus([a, b], args, tmp_path / "copy").failed == []
    assert names_of(tmp_path / "copy") == {"a": ["x", "y"], "b": ["x", "y", "a"]}


def test_labels_that_are_text_in_a_store_are_the_same_classes(tmp_path: Path, args: dict[str, Any]):
    """A store whose column was not turned into categories."""
    made = cells.make_cells(3)
    made.obs["site"] = pd.Series(["z", "x", "a"], index=made.obs_names, dtype=object)
    with anndata.settings.override(zarr_write_format=3):
        path = cells.save(made, tmp_path / "text.zarr", convert_strings_to_categoricals=False)
    tokenize_corpus([path, write(tmp_path / "in", "b.h5ad", ["y"])], args, tmp_path / "out")
    assert names_of(tmp_path / "out") == {name: ["a", "x", "y", "z"] for name in ("b", "text")}
    assert read(tmp_path / "out")["text"] == ["z", "x", "a"]
