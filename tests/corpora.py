"""A corpus of twenty sources, what each becomes alone, and how a corpus is compared with that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anndata
from scipy import sparse

import cells
from folders import contents
from raises import check_message
from teddytok_rs import CorpusManifest, Manifest, tokenize_to_disk

if TYPE_CHECKING:
    from pathlib import Path

FORMS = ["csr.h5ad", "csc.h5ad", "dense.h5ad", "v2.zarr", "v3.zarr"]
#: The one of twenty sources that is cut off.
CORRUPT = "s07-dense"


def datasets(folder: Path) -> dict[str, Any]:
    """Describe the datasets in a folder, to be compared whether they are of a corpus or each was written alone.

    Left out is where they may differ: the copy of the vocabulary, which a corpus has once, and the stamps, as a copy of
    a remote source has a time of its own.
    """
    found: dict[str, Any] = {
        name: sha256
        for name, sha256 in contents(folder, without="corpus.json").items()
        if not name.endswith("/vocab.txt")
    }
    for path in folder.glob("*/teddytok.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        del manifest["source"]["stamp"], manifest["sha256"], manifest["checksums"]["copies"]
        found[path.relative_to(folder).as_posix()] = manifest
    return found


def inodes(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_ino for path in folder.glob("*/*")}


def write_source(folder: Path, number: int, form: str) -> Path:
    made = cells.with_layer(cells.make_counts(40 + number, seed=number))
    made.obs["site"] = ["left", "right"] * (len(made) // 2) + ["left"] * (len(made) % 2)
    kind, ending = form.split(".")
    if kind != "dense":
        matrix = made.layers["processed"]
        made.layers["processed"] = (sparse.csc_matrix if kind == "csc" else sparse.csr_matrix)(matrix)
    with anndata.settings.override(zarr_write_format=2 if kind == "v2" else 3):
        return cells.save(made, folder / f"s{number:02}-{kind}.{ending}")


class Home:
    """Twenty sources of all formats, one of them corrupt, and what each becomes alone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sources = folder, folder / "in"
        self.sources.mkdir()
        for number in range(20):
            write_source(self.sources, number, FORMS[number % 5])
        corrupt = self.sources / f"{CORRUPT}.h5ad"
        corrupt.write_bytes(corrupt.read_bytes()[:-2000])
        self.args = cells.make_args(folder, max_shard_samples=10, random_genes=True, random_genes_count=6, gene_seed=5)
        self.config = cells.write_json(folder / "args.json", self.args)
        good = sorted(path for path in self.sources.iterdir() if path.stem != CORRUPT)
        for path in good:
            tokenize_to_disk(path, self.args, folder / "alone", threads=1)
        self.alone = datasets(folder / "alone")


def assert_whole(corpus: CorpusManifest, home: Home) -> None:
    """All but the corrupt source are as they are alone, and nothing else is there."""
    (failed,) = corpus.failed
    assert (failed.folder, failed.error["kind"]) == (CORRUPT, "source_unreadable")
    check_message(failed.error["message"])
    assert datasets(corpus.path) == home.alone
    assert CorpusManifest.read(corpus.path) == corpus
    assert [source.folder for source in corpus.sources] == sorted(source.folder for source in corpus.sources)
    for source in corpus.finished:
        manifest = Manifest.read(corpus.path / source.folder)
        assert (source.cells, source.tokens, source.shards) == (
            manifest.n_cells, manifest.n_tokens, len(manifest.shards),
        )  # fmt: skip
    assert not list(corpus.path.glob(".teddytok*"))
