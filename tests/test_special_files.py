"""Pipes, sockets and devices where a file is expected are refused, and never waited for."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import cells
from teddytok_rs import tokenize_corpus, tokenize_to_disk

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes and devices among files")

#: Calls the package in a process of its own, so that a wait ends the test, not all tests. Prints how each call ended.
TRY = """
import importlib, json, sys, warnings
import teddytok_rs
from teddytok_rs import TeddytokError
warnings.simplefilter("ignore")
kinds = {}
for name, call, words in json.loads(sys.stdin.read()):
    module, _, function = call.rpartition(".")
    try:
        made = getattr(importlib.import_module(f"teddytok_rs{module and '.'}{module}"), function)(*words)
        kinds[name] = f"listed: {getattr(made, 'problems', []) or getattr(made, 'failed', [])}"
    except TeddytokError as bad:
        kinds[name] = f"{bad.kind}: {bad}"
    except BaseException as bad:
        kinds[name] = f"{type(bad).__name__}: {bad}"
print(json.dumps(kinds))
"""


READERS = ["report.write_report"] + ["torch.WrittenDataset"] * (importlib.util.find_spec("torch") is not None)


def make_special(path: Path, kind: str) -> Path:
    """Put a pipe, a socket or (a link to) an endless device at a path."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            previous = Path.cwd()
            os.chdir(path.parent)  # the names of sockets must be short
            end.bind(path.name)
            os.chdir(previous)
    else:
        path.symlink_to("/dev/zero")
    assert not stat.S_ISREG(path.stat().st_mode)
    return path


def outcomes(calls: list[tuple[str, str, list[object]]]) -> dict[str, str]:
    """Call functions of the package in a child; map the name of each call to the error that it ended in."""
    process = subprocess.run(
        [sys.executable, "-c", TRY], input=json.dumps(calls), capture_output=True, text=True, check=False, timeout=300
    )
    assert process.returncode == 0, process.stderr
    found: dict[str, str] = json.loads(process.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_not_a_file_is_refused_wherever_a_file_is_read(tmp_path: Path, kind: str):
    special = make_special(tmp_path / "special", kind)
    h5ad = make_special(tmp_path / "special.h5ad", kind)
    source, args = cells.save(cells.make_cells(), tmp_path / "cells.h5ad"), cells.make_args(tmp_path)
    store = cells.save(cells.make_cells(), tmp_path / "cells.zarr")
    chunk = next(path for path in sorted(store.rglob("*")) if path.is_file() and "processed" in path.parts)
    make_special(chunk, kind)
    folder = Path(shutil.copytree(args["tokenizer_name_or_path"], tmp_path / "other vocabulary"))
    make_special(folder / "special_tokens_map.json", kind)
    mapped = args | {"bio_annotations": True, "disease_mapping": str(special)}
    medians = args | {"median_dict": str(special)}
    out = str(tmp_path / "out")
    calls: list[tuple[str, str, list[object]]] = [
        ("source", "tokenize", [str(h5ad), args]),
        ("source without an ending", "tokenize", [str(special), args]),
        ("source of check", "check", [str(h5ad), args]),
        ("source of many", "tokenize_corpus", [[str(h5ad)], args, out]),
        ("source of a vocabulary", "mapping.build_vocabulary.build_vocabulary", [[str(h5ad)], out]),
        ("chunk of a store", "tokenize", [str(store), args]),
        ("configuration", "tokenize", [str(source), str(special)]),
        ("vocabulary", "tokenize", [str(source), args | {"tokenizer_name_or_path": str(special)}]),
        ("file of a vocabulary", "tokenize", [str(source), args | {"tokenizer_name_or_path": str(folder)}]),
        ("mapping", "tokenize", [str(source), mapped]),
        ("medians", "tokenize", [str(source), medians]),
    ]
    for name in ("teddytok.json", "genes.csv", "dataset_info.json", "state.json", "data-00000-of-00001.arrow"):
        made = tokenize_to_disk(source, args, tmp_path / name.partition(".")[0]).path
        make_special(made / name, kind)
        calls += [(f"{name} of {function}", function, [str(made)]) for function in ("verify", "inspect", *READERS)]
        calls.append((f"{name} of a rerun", "tokenize_to_disk", [str(source), args, str(made.parent)]))
    corpus = tokenize_corpus([source], args, tmp_path / "corpus").path
    make_special(corpus / "corpus.json", kind)
    calls += [(f"corpus.json of {function}", function, [str(corpus)]) for function in ("verify", *READERS)]
    calls.append(("corpus.json of a rerun", "tokenize_corpus", [[str(source)], args, str(corpus)]))

    found = outcomes(calls)
    assert len(found) == len(calls)
    for name, said in found.items():
        assert re.match(r"[a-z_]+: ", said), f"{name}: {said}"  # an error of the package, or a list of problems
    unread = {f"{file} of {reader}" for file in ("dataset_info.json", "state.json") for reader in ("inspect", *READERS)}
    assert {name for name, said in found.items() if said == "listed: []"} <= unread
    assert not unread & {name for name, said in found.items() if "a file" in said}
