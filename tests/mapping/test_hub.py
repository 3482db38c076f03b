"""Names on the Hugging Face Hub: which texts are such names, what is fetched, and what is recorded.

The Hub is a server on this machine, and what asks it is huggingface_hub itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

import cells
import teddytok_rs
from command_line import MODULE, teddytok
from hub_server import MAPPINGS, MEDIANS, MODELS, TEDDY, HubServer, serving, teddy_files, use_hub
from raises import raises
from teddytok_rs import TokenizationArgs, load_vocabulary, tokenize, tokenize_corpus, tokenize_to_disk, verify
from teddytok_rs.engines.arrow import ArrowTokenizer
from teddytok_rs.mapping.hub import HubName, hub_name
from teddytok_rs.output.run import open_run

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCABULARY = f"{TEDDY}/{MODELS}/160M"
KINDS = ("disease", "tissue", "cell", "sex")
ON_HUB = {
    "tokenizer_name_or_path": VOCABULARY,
    "median_dict": f"{TEDDY}/{MEDIANS}",
    **{f"{kind}_mapping": f"{TEDDY}/{MAPPINGS.format(kind)}" for kind in KINDS},
}
ARGS = {**ON_HUB, "bio_annotations": True, "layer": "raw", "normalize_total": 1e4, "max_seq_len": 8}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """Serve TEDDY's repository to a huggingface_hub with an empty cache; the current folder is empty."""
    pytest.importorskip("huggingface_hub")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with serving() as server:
        server.push(teddy_files())
        use_hub(monkeypatch, server.url, tmp_path / "home")
        yield server


@pytest.fixture
def go_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function after which there is no network: as the variable says, or as nothing answers."""

    def cut(how: str) -> None:
        use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "home", offline=how == "HF_HUB_OFFLINE")

    return cut


def local_args(folder: Path) -> dict[str, Any]:
    """Write TEDDY's files to a folder, and name them there."""
    for name, content in teddy_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return {key: str(folder / ON_HUB[key].removeprefix(f"{TEDDY}/")) if key in ON_HUB else ARGS[key] for key in ARGS}


# ---- which texts are names


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        ("owner/name", ("owner/name", "", "main")),
        ("owner/name@v1.0", ("owner/name", "", "v1.0")),
        ("owner/name/sub/folder", ("owner/name", "sub/folder", "main")),
        ("owner/name/sub/folder@refs/pr/1", ("owner/name", "sub/folder", "refs/pr/1")),
        ("Merck/TEDDY/a b/medians.json@main", ("Merck/TEDDY", "a b/medians.json", "main")),
        (f"o-1/n_2.x/vocab.txt@{'0' * 40}", ("o-1/n_2.x", "vocab.txt", "0" * 40)),
    ],
)
def test_a_name_has_an_owner_a_repository_a_path_and_a_revision(place: str, parts: tuple[str, str, str]):
    assert hub_name(place) == HubName(*parts)
    assert hub_name(str(hub_name(place))) == HubName(*parts)


@pytest.mark.parametrize(
    "place",
    [
        "vocabulary", "medians.json", "data/medians.json", "data/vocab.txt", "", "/", "a/", "/a/b", "a//b", "a/b/",
        "./a/b", "../a/b", "a/..", "a/b/..", "a/b/../c", "a/b/./c", "a/b/.", "~/a/b", "~a/b", "C:/a/b", "C:\\a\\b",
        "a\\b", "a/b\\c", "https://huggingface.co/a/b", "s3://a/b", "a b/c", "a/b@", "a/b@..", "a/b@x/../y",
        "a/b@x//y", "a/b@/x", "a/b@x/", "a/b@x y", "a/b/c@d@e", "a--b/c", "a..b/c", "-a/b", "a/.b", "ä/b",
        "a/b/c\n", "a/b/\0", "a/b/\ud800", "a/" + "b" * 97, "x" * 5000,
    ],
)  # fmt: skip
def test_what_has_another_form_is_a_path(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert hub_name(place) is None


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_what_exists_is_never_a_name(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    if kind == "folder":
        Path("a/b").mkdir()
    elif kind == "file":
        Path("a/b").touch()
    else:
        Path("a/b").symlink_to("nowhere")
    assert hub_name("a/b") is None
    assert hub_name("a/c") == HubName("a/c", "")


def test_the_hub_is_not_asked_for_what_exists_or_has_another_form(hub: HubServer, tmp_path: Path):
    Path("owner").mkdir()
    cells.write_vocabulary(Path("owner/name"))
    assert load_vocabulary("owner/name").ids == {token: i for i, token in enumerate(cells.TOKENS)}
    args = cells.make_args(tmp_path)
    for place in ("vocabulary", "./owner/other", "owner/name/../other", "data/vocab.txt"):
        with raises("vocabulary_not_found", repr(place), "no such file or folder", "owner/name/folder"):
            load_vocabulary(place)
    # Of a pickle the Hub is not asked either: medians and mappings are JSON.
    for place in ("medians.json", "data/medians.json", f"{TEDDY}/medians.pkl", TEDDY):
        with raises("median_file", repr(place), "no such file"):
            tokenize(cells.make_cells(), args | {"median_dict": place})
        with raises("mapping_file", repr(place), "no such file"):
            tokenize(cells.make_cells(), args | {"bio_annotations": True, "sex_mapping": place})
    assert hub.asked == []


# ---- what is fetched


def test_a_vocabulary_in_a_subfolder_is_fetched_and_nothing_else(hub: HubServer, tmp_path: Path):
    vocabulary = load_vocabulary(VOCABULARY)
    local = load_vocabulary(local_args(tmp_path / "local")["tokenizer_name_or_path"])
    assert (vocabulary.ids, vocabulary.special, vocabulary.sha256) == (local.ids, local.special, local.sha256)
    assert (vocabulary.path, vocabulary.ids["<eos>"]) == (VOCABULARY, 101)
    names = {"vocab.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"}
    assert hub.asked_files() == {f"{MODELS}/160M/{name}" for name in names}


def test_one_file_and_the_folder_of_a_repository_are_vocabularies(hub: HubServer):
    hub.push({"vocab.json": b'{"a": 0, "b": 7}', "special_tokens_map.json": b'{"cls_token": "b"}'}, "owner/name")
    assert load_vocabulary("owner/name").cls_token_id == 7
    alone = load_vocabulary("owner/name/vocab.json")
    assert (alone.ids, alone.cls_token_id) == ({"a": 0, "b": 7}, None)


def test_tokens_are_those_of_the_same_files_in_a_folder(hub: HubServer, tmp_path: Path):
    ours, local = tokenize(cells.make_cells(), ARGS), tokenize(cells.make_cells(), local_args(tmp_path / "local"))
    assert ours.equals(local)
    assert len(set(map(tuple, ours["bio_annotations"].to_pylist()))) > 1
    assert not [file for file in hub.asked_files() if file.endswith((".pkl", ".safetensors", ".md"))]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: HubServer):
    first = hub.push(teddy_files(), ref="v1")
    hub.push(teddy_files([*cells.TOKENS, "new"]))
    hub.push(teddy_files([*cells.TOKENS, "newer"]), ref="refs/pr/1")
    assert "new" in load_vocabulary(VOCABULARY).ids
    assert "newer" in load_vocabulary(f"{VOCABULARY}@refs/pr/1").ids
    for revision in ("v1", first):
        assert len(load_vocabulary(f"{VOCABULARY}@{revision}")) == len(cells.TOKENS) + 1


# ---- what is recorded


def test_the_manifest_records_commit_and_checksums(hub: HubServer):
    commit = hub.push(teddy_files(), ref="v1")
    manifest = tokenize_to_disk(cells.make_cells(), ARGS | {"median_dict": f"{TEDDY}/{MEDIANS}@v1"}, "tokens")
    files = teddy_files()
    for key, place in ON_HUB.items():
        assert manifest.configuration[key] == f"{place}@{commit}"
        if key != "tokenizer_name_or_path":
            digest = hashlib.sha256(files[place.removeprefix(f"{TEDDY}/")]).hexdigest()
            assert manifest.checksums.mappings[key] == digest
    assert manifest.checksums.vocabulary["vocab.txt"] == hashlib.sha256(files[f"{MODELS}/160M/vocab.txt"]).hexdigest()


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "nothing answers"])
def test_a_run_is_continued_and_repeated_from_the_cache(
    how: str, hub: HubServer, go_offline: Any, interrupt_after: Any
):
    args = ARGS | {"max_shard_samples": 2}
    with interrupt_after(1):
        tokenize_to_disk(cells.make_cells(), args, "tokens", threads=1)
    go_offline(how)
    assert tokenize_to_disk(cells.make_cells(), args, "tokens").n_kept == 1
    assert tokenize_to_disk(cells.make_cells(), args, "tokens").n_kept == 3
    assert verify("tokens/anndata").problems == []
    assert load_vocabulary("tokens/anndata").ids == load_vocabulary(VOCABULARY).ids


def test_a_branch_that_moved_on_is_another_vocabulary(hub: HubServer):
    first = hub.push(teddy_files())
    written = tokenize_to_disk(cells.make_cells(), ARGS, "tokens")
    hub.push({**teddy_files(), "README.md": b"new"})  # the same vocabulary, in a new commit
    assert tokenize_to_disk(cells.make_cells(), ARGS, "tokens").n_kept == 1
    hub.push(teddy_files([*cells.TOKENS, "new"]))
    with raises("output_differs", "sha256 of vocabulary vocab.txt", written.checksums.vocabulary["vocab.txt"][:12]):
        tokenize_to_disk(cells.make_cells(), ARGS, "tokens")
    assert verify("tokens/anndata").problems == []
    recorded = TokenizationArgs.load(written.configuration)
    assert recorded.tokenizer_name_or_path == f"{VOCABULARY}@{first}"
    assert tokenize_to_disk(cells.make_cells(), recorded, "tokens").n_kept == 1


def write_sources(folder: Path, n: int) -> list[Path]:
    return [cells.save(cells.make_cells(), folder / f"source-{i}.h5ad") for i in range(n)]


def test_a_corpus_asks_for_the_revision_once_and_refuses_another_one(hub: HubServer, tmp_path: Path):
    sources = write_sources(tmp_path, 3)
    corpus = tokenize_corpus(sources[:2], ARGS, "corpus")
    assert not corpus.failed
    asked = [path for method, path in hub.asked if "/resolve/main/" in path and method == "HEAD"]
    assert len(asked) <= 2
    assert len(set(asked)) == 1
    hub.push({**teddy_files(), "README.md": b"new"})
    hub.asked.clear()
    assert len(tokenize_corpus(sources, ARGS, "corpus").finished) == 3
    hub.push(teddy_files([*cells.TOKENS, "new"]))
    with raises("output_differs", "the vocabulary"):
        tokenize_corpus(sources, ARGS, "corpus")
    assert verify("corpus").problems == []


def test_processes_read_the_commit_that_the_run_began_with(hub: HubServer, tmp_path: Path):
    (source,) = write_sources(tmp_path, 1)
    first = hub.push(teddy_files())
    with open_run(source, ARGS, "tokens") as run:
        assert {getattr(run.tasks[0].args, key) for key in ON_HUB} == {f"{place}@{first}" for place in ON_HUB.values()}
    tokenizer = ArrowTokenizer({"tokenizer_name_or_path": VOCABULARY}, cells.GENES)
    copy = pickle.dumps(tokenizer)
    hub.push(teddy_files(cells.TOKENS[::-1]))
    batch = {"indices": [[0, 2]], "data": [[1.0, 3.0]]}
    assert pickle.loads(copy)(pa.table(batch)).equals(tokenizer(pa.table(batch)))


# ---- what cannot be fetched


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("owner/nothing", "there is no repository 'owner/nothing'"),
        (f"{VOCABULARY}@v9", f"repository {TEDDY!r} has no revision 'v9'"),
        (f"{TEDDY}/teddy/models/teddy_x", "has no teddy/models/teddy_x/vocab.txt, teddy/models/teddy_x/vocab.json"),
        (f"{TEDDY}/no/vocab.txt", "has no no/vocab.txt in revision 'main'"),
        ("gated/name", "access to 'gated/name' must be requested"),
    ],
)
def test_what_the_hub_does_not_have_is_said_on_one_line(place: str, said: str, hub: HubServer):
    hub.push({}, "gated/name")
    hub.gated.add("gated/name")
    with raises("hub_file", "tokenizer_name_or_path: there is no path", repr(place), "Hugging Face Hub failed", said):
        load_vocabulary(place)


def test_medians_that_the_hub_does_not_have_name_their_argument(hub: HubServer):
    place = f"{TEDDY}/teddy/medians.json"
    with raises("hub_file", f"median_dict: there is no path {place!r}", "has no teddy/medians.json"):
        tokenize(cells.make_cells(), ARGS | {"median_dict": place})


def test_a_vocabulary_is_built_with_mappings_from_the_hub(hub: HubServer, tmp_path: Path):
    args = {key: place for key, place in ON_HUB.items() if key.endswith("_mapping")}
    built = teddytok_rs.build_vocabulary([cells.make_cells()], tmp_path / "v", {**args, "bio_annotations": True})
    local = {key: json.loads(teddy_files()[place.removeprefix(f"{TEDDY}/")]) for key, place in args.items()}
    expected = teddytok_rs.build_vocabulary([cells.make_cells()], tmp_path / "w", {**local, "bio_annotations": True})
    assert built == expected


def test_a_name_needs_huggingface_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", None)
    with raises("hub_file", "'owner/name'", "not installed", "pip install 'teddytok-rs[hub]'"):
        load_vocabulary("owner/name")


def test_offline_one_message_lists_all_that_is_missing(hub: HubServer, go_offline: Any):
    go_offline("HF_HUB_OFFLINE")
    page = f"http://127.0.0.1:9/{TEDDY}/tree/main"
    told = ["tokenizer_name_or_path, median_dict, disease_mapping", *ON_HUB.values(), "HF_HUB_OFFLINE is set", page]
    with raises("hub_file", *told, "vocab.txt, vocab.json, added_tokens.json", "copy it to the same path here"):
        tokenize(cells.make_cells(), ARGS)
    assert hub.asked == []


def test_files_put_where_the_message_says_are_read(hub: HubServer, go_offline: Any, tmp_path: Path):
    expected = tokenize(cells.make_cells(), ARGS)
    shutil.rmtree(tmp_path / "home")
    go_offline("HF_HUB_OFFLINE")
    local_args(Path(TEDDY))
    assert tokenize(cells.make_cells(), ARGS).equals(expected)


def test_a_part_of_a_vocabulary_in_the_cache_is_not_taken_for_all_of_it(hub: HubServer, go_offline: Any):
    import huggingface_hub

    huggingface_hub.hf_hub_download(TEDDY, f"{MODELS}/160M/vocab.txt")  # as another program may do
    go_offline("HF_HUB_OFFLINE")
    with raises("hub_file", "HF_HUB_OFFLINE is set"):
        load_vocabulary(VOCABULARY)


def test_the_command_ends_with_one_line(hub: HubServer, tmp_path: Path):
    (source,) = write_sources(tmp_path, 1)
    command = [*MODULE, "tokenize", str(source), "--preset", "teddy-g", "--out", "tokens"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("teddytok: tokenizer_name_or_path, median_dict: ")
    assert ended.stderr.count("\n") == 1
    assert not Path("tokens").exists()


# ---- the presets of TEDDY


@pytest.mark.parametrize(("preset", "place"), [("teddy-g", f"{MODELS}/400M"), ("teddy-g:70M", f"{MODELS}/70M")])
def test_one_command_tokenizes_a_cellxgene_file(preset: str, place: str, hub: HubServer, tmp_path: Path):
    """X holds logarithms, raw.X counts, and a cell may have several diseases."""
    made = cells.make_cells(disease=["normal || asthma", "melanoma"] * 3)
    made.X = made.layers.pop("processed")
    cells.save(made, tmp_path / "cellxgene.h5ad")
    commit = hub.refs[TEDDY]["main"]
    ended = teddytok("tokenize", tmp_path / "cellxgene.h5ad", "--preset", preset, "-o", "tokens", "--json")
    assert ended.returncode == 0
    assert not [line for line in ended.stderr.splitlines() if not line.startswith("teddytok: warning: ")]
    (written,) = json.loads(ended.stdout)["sources"]
    manifest = json.loads(Path(written["path"], "teddytok.json").read_text(encoding="utf-8"))
    assert manifest["configuration"]["preset_name"] == preset
    assert manifest["configuration"]["tokenizer_name_or_path"] == f"{TEDDY}/{place}@{commit}"
    assert manifest["configuration"]["disease_mapping"] is None
    local = local_args(tmp_path / "local")
    files = {"tokenizer_name_or_path": str(tmp_path / "local" / place), "median_dict": local["median_dict"]}
    expected = tokenize(made, TokenizationArgs.preset("teddy-g", files))
    assert written["tokens"] == sum(map(len, expected["gene_ids"].to_pylist()))
    read = teddytok_rs.inspect(written["path"], cells=6)
    assert [list(sequence.genes) for sequence in read.sequences] == [
        load_vocabulary(files["tokenizer_name_or_path"]).decode(ids) for ids in expected["gene_ids"].to_pylist()
    ]


def test_bio_annotations_bring_their_mappings(hub: HubServer, tmp_path: Path):
    args = TokenizationArgs.preset("teddy-x", bio_annotations=True)
    assert {key: getattr(args, key) for key in ON_HUB if key != "tokenizer_name_or_path"} == {
        key: place for key, place in ON_HUB.items() if key != "tokenizer_name_or_path"
    }
    table = tokenize(cells.make_cells(), args)
    tokens = [[cells.TOKEN[labels[row % len(labels)]] for labels in cells.LABELS.values()] for row in range(6)]
    assert table["bio_annotations"].to_pylist() == tokens
    one = TokenizationArgs.preset("teddy-g", add_disease_annotation=True)
    assert (one.disease_mapping, one.sex_mapping) == (ON_HUB["disease_mapping"], None)
