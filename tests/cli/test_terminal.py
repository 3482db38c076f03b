"""What files hold reaches the terminal as text: no sequence that it would obey, in no command."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import cells
from command_line import teddytok, teddytok_process
from teddytok_rs import inspect, load_vocabulary, tokenize_corpus, tokenize_to_disk, verify
from teddytok_rs.errors.text import printable, printable_json

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")

#: Sets the title of a window; C1 codes; text that runs backwards; lines that other programs could have written.
EVIL = [
    "\x1b]0;x\x07", "\x9b31mred", "\x85next", "\x7fdelete", "\u202eevil", "\u2066isolate", "\u061cmark", "\u200fmark",
    "\u2028line", "two\nlines", "back\b\b", "carriage\rreturn", "tab\ttab",
]  # fmt: skip


def obeyed(output: bytes) -> list[str]:
    """List what a terminal would obey: controls but line feeds and tabs, and changes of direction."""
    text = output.decode()
    directions = {0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
    return [
        repr(character)
        for character in text
        if (code := ord(character)) in directions or 0x7F <= code <= 0x9F or (code < 0x20 and character not in "\n\t")
    ]


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command; nothing that a terminal would obey comes out of it."""
    done = teddytok(*words, cwd=folder)
    assert obeyed((done.stdout + done.stderr).encode()) == [], words
    assert done.stdout or done.stderr
    return done


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """Cells whose names, genes, labels and columns are hostile, their arguments, and a dataset of them."""
    labels = [EVIL[row % len(EVIL)] for row in range(26)]
    made = cells.make_cells(26, disease=pd.Categorical(labels), note=labels)
    made.obs["evil\x1b[2Jcolumn"] = labels
    made.obs_names = [f"{label}{row}" for row, label in enumerate(labels)]
    made.var_names = [*made.var_names[:3], *(f"{name}{EVIL[k]}" for k, name in enumerate(made.var_names[3:]))]
    made.raw = None
    made.layers["processed"] = made.layers["processed"].astype(np.float64)
    cells.save(made, tmp_path / "cells\x1b[31m.h5ad")
    on_a_line = [name for name in made.var_names if not {"\n", "\r"} & set(name)]
    vocabulary = cells.write_vocabulary(tmp_path / "vocabulary\u202e", [*cells.TOKENS, *on_a_line])
    args = {
        "tokenizer_name_or_path": vocabulary, "max_seq_len": 8, "bio_annotations": True,
        "label_column": "note", "obs_columns": ["evil\x1b[2Jcolumn", "index"],
    }  # fmt: skip
    cells.write_json(tmp_path / "args.json", args)
    return tmp_path


@pytest.mark.parametrize("form", [[], ["--json"], ["-v"], ["--debug"]], ids=lambda form: "".join(form) or "text")
def test_no_command_prints_what_a_terminal_would_obey(evil: Path, form: list[str]):
    source = "cells\x1b[31m.h5ad"
    out = evil / "out\x9b"
    given = ["-c", "args.json", *form]
    assert run(evil, "check", source, *given).returncode == 0
    assert run(evil, "tokenize", source, *given, "-o", out).returncode == 0
    (dataset,) = out.iterdir()
    (dataset / "foreign\x1b[0m\u202e").touch()
    for command in ("inspect", "verify", "report"):
        process = run(evil, command, dataset, *form)
        assert process.returncode == 0, process.stderr
        if form == ["--json"]:
            assert json.loads(process.stdout)["command"] == command
    # errors and warnings
    shard = next(dataset.glob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-9])
    assert run(evil, "verify", dataset, *form).returncode == 1
    assert run(evil, "tokenize", source, *given, "-o", out).returncode == 0  # it is written again, with a warning
    assert run(evil, "tokenize", source, "missing\x9b.h5ad", *given, "-o", evil / "corpus").returncode == 1
    assert run(evil, "verify", evil / "corpus", *form).returncode in {0, 1}
    for words in (
        ["check", source, *given, "--layer", "\x1b[5m"],
        ["check", source, *given, "--cell-filter", "note == '\x1b[5m'"],
        ["check", source, *given, "--cell-filter", "\x1b[5m"],
        ["check", source, *given, "--unmapped-annotations", "error"],
        ["check", source, *given, "--label-column", "\x9b"],
        ["check", "missing\x1b[31m.h5ad", *given],
        ["check", source, "-c", "args\x9b.json", *form],
        ["check", source, "--\x1b[31m"],
        ["inspect", "no\u202edataset", *form],
        ["vocab", "build", source, "--out", "vocabulary\x07", "--obs-columns", "note", *form],
    ):
        assert run(evil, *words).returncode in {1, 2}
    (evil / "args.json").write_text(json.dumps({"\x1b[31m key": 1, "max_seq_len": "\x9b"}), encoding="utf-8")
    assert run(evil, "check", source, *given).returncode == 2


def test_a_process_prints_nothing_that_a_terminal_would_obey(evil: Path):
    done = teddytok_process("check", "cells\x1b[31m.h5ad", "-c", "args.json", "-v", cwd=evil)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert obeyed((done.stdout + done.stderr).encode()) == []


def test_reprs_and_reports_show_escapes(evil: Path):
    pytest.importorskip("matplotlib", reason="the report's extra is not installed")
    from teddytok_rs import write_report

    source, args = evil / "cells\x1b[31m.h5ad", evil / "args.json"
    made = tokenize_to_disk(source, args, evil / "out")
    corpus = tokenize_corpus([source], args, evil / "corpus")
    vocabulary = load_vocabulary(str(evil / "vocabulary\u202e"))
    for shown in (made, corpus, vocabulary, inspect(made.path), verify(made.path)):
        html = getattr(shown, "_repr_html_", lambda: "")()
        assert obeyed((repr(shown) + html).encode()) == []
    for folder in (made.path, corpus.path):
        assert obeyed(write_report(folder).read_bytes()) == []


@pytest.mark.parametrize("text", [*EVIL, "\ud800", "\0", "é 細胞 🧬"])
def test_escapes_can_be_read(text: str):
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode("latin-1", "backslashreplace").decode("unicode_escape") == text
    assert json.loads(printable_json(json.dumps(text, ensure_ascii=False))) == text
    assert printable("plain é") == "plain é"
