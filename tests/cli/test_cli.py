"""The command line as a user meets it: its exit codes and what it prints; in processes where that matters."""

from __future__ import annotations

import contextlib
import gzip
import json
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import pytest

import cells
from command_line import MODULE, teddytok
from interrupting import interruptible
from raises import check_message, raises
from teddytok_rs import Manifest, TokenizationArgs, __version__, tokenize_to_disk, verify
from teddytok_rs.cli import cli, main
from teddytok_rs.cli.console import as_json
from teddytok_rs.cli.help import GROUPS
from teddytok_rs.errors.catalogue import KINDS
from teddytok_rs.output.layout import is_vocabulary_folder


class Home:
    """A folder with cells, their vocabulary and a configuration, in which processes run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cells = cells.save(cells.make_cells(), folder / "cells.h5ad")
        self.vocabulary = cells.write_vocabulary(folder / "vocabulary")
        self.args = {"tokenizer_name_or_path": self.vocabulary, "max_seq_len": 5}
        self.config = cells.write_json(folder / "args.json", self.args)

    def run(self, *words: Any, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line in this process, or a command in one of its own."""
        if command is None:
            return teddytok(*words, cwd=self.folder)
        words = [*command, *map(str, words)]
        return subprocess.run(
            words, cwd=self.folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("place", ["-", "/dev/stdin", "/dev/fd/{}"])
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_configuration_may_come_through_a_pipe(home: Home, place: str, form: str):
    text = json.dumps(home.args) if form == "json" else "".join(f"{key}: {value}\n" for key, value in home.args.items())
    out, into = os.pipe()
    os.write(into, text.encode())
    os.close(into)
    command = [*MODULE, "check", str(home.cells), "--config", place.format(out)]
    process = subprocess.run(command, stdin=out, pass_fds=[out], capture_output=True, text=True, check=False)
    os.close(out)
    assert process.returncode == 0, process.stderr
    assert "cells.h5ad: 6 cells, ready to tokenize" in process.stdout


def test_a_mistyped_vocabulary_has_a_short_traceback(home: Home):
    script = "import teddytok_rs; teddytok_rs.tokenize('cells.h5ad', {'tokenizer_name_or_path': 'vocabluary/'})"
    process = home.run(command=[sys.executable, "-c", script])
    assert process.returncode == 1
    assert len(process.stderr.splitlines()) < 30
    assert "During handling" not in process.stderr
    assert process.stderr.splitlines()[-1].startswith("teddytok_rs.errors.VocabularyError: no vocabulary at ")


def assert_fine(process: subprocess.CompletedProcess[str]) -> str:
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def demo_shown(process: subprocess.CompletedProcess[str]) -> str:
    """What the demo prints; its cells are of unknown sex, of which it warns."""
    assert process.returncode == 0, process.stderr
    assert [line for line in process.stderr.splitlines() if "no label of obs column 'sex'" not in line] == []
    return process.stdout


def assert_refused(process: subprocess.CompletedProcess[str], code: int, *fragments: str) -> None:
    """One line on standard error, and nothing else."""
    assert process.returncode == code, process.stderr
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("teddytok: ")
    check_message(line)
    for fragment in fragments:
        assert fragment in line


# ---- help


def test_the_script_and_the_module_are_the_same(home: Home):
    script = Path(sysconfig.get_path("scripts")) / "teddytok"
    assert assert_fine(home.run("--version", command=[str(script)])) == f"teddytok, version {__version__}\n"
    assert assert_fine(home.run("--version", command=MODULE)) == f"teddytok, version {__version__}\n"


@pytest.mark.parametrize("command", ["tokenize", "check"])
def test_every_argument_is_an_option_with_its_meaning(command: str, home: Home):
    shown = assert_fine(home.run(command, "--help"))
    words = " ".join(shown.split())
    for name, field in TokenizationArgs.model_fields.items():
        assert {"preset_name": "--preset"}.get(name, f"--{name.replace('_', '-')}") in words
        assert field.description in words
    for option in ("--config", "--threads", "--debug", "--out"):
        assert option in words


@pytest.mark.parametrize(
    "words", [["-h"], ["--help"], ["vocab", "--help"], ["vocab", "build", "-h"], ["vocab", "show", "-h"]], ids=" ".join
)
def test_help_is_shown(words: list[str], home: Home):
    assert assert_fine(home.run(*words)).startswith("Usage: teddytok")


def test_every_command_has_a_line_of_help():
    groups = [command for command in cli.commands.values() if isinstance(command, click.Group)]
    commands = [*cli.commands.values(), *(command for group in groups for command in group.commands.values())]
    assert {"tokenize", "check", "inspect", "verify", "report", "demo", "vocab"} <= {it.name for it in commands}
    assert all(command.help for command in commands)


def test_no_words_at_all_show_the_help_line_by_line(home: Home):
    process = home.run()
    assert process.returncode in {0, 2}
    assert len((process.stdout + process.stderr).splitlines()) > 5


# ---- tokenize


def test_a_file_is_tokenized(home: Home, tmp_path: Path):
    shown = assert_fine(home.run("tokenize", home.cells, "--config", home.config, "--out", tmp_path))
    assert shown.startswith("cells.h5ad: 6 cells\n")
    assert "10 of 12 in the vocabulary; the 2 others held" in shown
    assert str(tmp_path / "cells") in shown
    expected = tokenize_to_disk(home.cells, home.args, tmp_path / "python")
    assert Manifest.read(tmp_path / "cells").to_json() == expected.to_json()


def test_options_override_the_configuration(home: Home, tmp_path: Path):
    options = {
        "--max-seq-len": "7",
        "--gene-id-column": "index",
        "--min-gene-overlap": "0.25",
        "--duplicate-genes": "sum",
        "--layer": "X",
        "--normalize-total": "10000",
        "--bins": "4",
        "--random-genes-count": "8",
        "--batch-size": "3",
        "--gene-seed": str(2**64 - 1),
        "--label-column": "sex",
        "--unmapped-annotations": "error",
        "--max-shard-samples": "4",
        "--token-dtype": "uint16",
    }
    flags = [
        "--random-genes",
        "--add-cls",
        "--log1p",
        "--bio-annotations",
        "--no-include-zero-genes",
        "--no-write-values",
    ]
    columns = ["--obs-columns", "tissue", "--obs-columns", "index"]
    words = [word for option in options.items() for word in option]
    assert assert_fine(
        home.run("tokenize", "cells.h5ad", "-c", home.config, "-o", tmp_path, *words, *flags, *columns, "-q")
    ) == ""  # fmt: skip
    manifest = Manifest.read(tmp_path / "cells")
    expected = TokenizationArgs.load(
        home.args, max_seq_len=7, min_gene_overlap=0.25, duplicate_genes="sum", layer="X", normalize_total=1e4, bins=4,
        random_genes_count=8, batch_size=3, gene_seed=2**64 - 1, label_column="sex", unmapped_annotations="error",
        max_shard_samples=4, token_dtype="uint16", random_genes=True, add_cls=True, log1p=True, bio_annotations=True,
        write_values=False, obs_columns=("tissue", "index"),
    )  # fmt: skip
    assert manifest.configuration == expected.model_dump(mode="json", exclude={"load_dir", "save_dir"})
    assert [shard.rows for shard in manifest.shards] == [4, 2]


def test_load_dir_and_save_dir_replace_sources_and_out(home: Home, tmp_path: Path):
    sources = tmp_path / "in"
    sources.mkdir()
    for name in ("b.h5ad", "a.h5ad"):
        cells.save(cells.make_cells(), sources / name)
    (sources / "notes.txt").write_text("", encoding="utf-8")
    config = tmp_path / "args.yaml"
    config.write_text(json.dumps({**home.args, "load_dir": str(sources), "save_dir": str(tmp_path / "out")}))
    shown = assert_fine(home.run("tokenize", "-c", config))
    *summaries, last = [line for line in shown.splitlines() if not line.startswith(" ")]
    assert summaries == ["a.h5ad: 6 cells", "b.h5ad: 6 cells"]
    assert last.startswith(f"{tmp_path / 'out'}: 2 datasets, 12 cells, ")
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if not is_vocabulary_folder(path.name))
    assert names == ["a", "b", "corpus.json"]


def test_without_sources_there_is_nothing_to_do(home: Home, tmp_path: Path):
    words = ["tokenize", "-c", home.config, "-o", str(tmp_path)]
    assert_refused(home.run(*words), 2, "no source was given", "load_dir")
    with raises("no_sources"):
        cli.main(words, standalone_mode=False)
    process = home.run("tokenize", "-c", home.config, "-o", tmp_path, "--load-dir", tmp_path)
    assert_refused(process, 2, "no source was given", str(tmp_path))


def test_a_folder_is_replaced_only_if_asked_for(home: Home, tmp_path: Path):
    words = ["tokenize", "cells.h5ad", "-c", home.config, "-o", tmp_path]
    assert_fine(home.run(*words))
    words += ["--max-seq-len", "3"]
    assert_refused(home.run(*words), 1, str(tmp_path / "cells"), "max_seq_len", "--overwrite")
    assert_fine(home.run(*words, "--overwrite"))
    assert Manifest.read(tmp_path / "cells").configuration["max_seq_len"] == 3


@pytest.mark.parametrize("flags", [[], ["--overwrite"]], ids=["plain", "overwrite"])
def test_two_sources_of_one_name_are_refused_before_either_is_written(flags: list[str], home: Home, tmp_path: Path):
    (tmp_path / "other").mkdir()
    other = cells.save(cells.make_cells(), tmp_path / "other" / "cells.h5ad")
    process = home.run("tokenize", home.cells, other, "-c", home.config, "-o", tmp_path / "out", *flags)
    assert_refused(process, 2, "cells")
    assert not (tmp_path / "out").exists()


def test_a_drawn_seed_and_unmapped_labels_are_shown(home: Home, tmp_path: Path):
    source = cells.save(cells.make_cells(disease=["flu"] * 4 + ["normal"] * 2), tmp_path / "flu.h5ad")
    shown = assert_fine(
        home.run("tokenize", source, "-c", home.config, "-o", tmp_path, "--random-genes", "--bio-annotations")
    )
    assert f" {Manifest.read(tmp_path / 'flu').gene_seed}\n" in shown.split("gene seed")[1]
    assert "'flu' (4 cells)" in shown


# ---- refusals


@pytest.mark.parametrize(
    ("words", "code", "fragment"),
    [
        (["tokenise"], 2, "'tokenise'"),
        (["tokenize", "cells.h5ad", "--max-seq", "3"], 2, "--max-seq-len"),
        (["tokenize", "cells.h5ad", "--max-seq-len", "x"], 2, "--max-seq-len"),
        (["tokenize", "cells.h5ad", "-c", "args.json", "--max-seq-len", "0", "-o", "out"], 2, "max_seq_len = 0"),
        (["tokenize", "cells.h5ad", "-c", "args.json", "--truncation-method", "min"], 2, "'min'"),
        (["tokenize", "cells.h5ad", "-c", "args.json", "--threads", "0"], 2, "--threads"),
        (["tokenize", "cells.h5ad", "-c", "nowhere.json"], 2, "nowhere.json"),
        (["tokenize", "cells.h5ad", "-o", "out"], 2, "tokenizer_name_or_path"),
        (["tokenize", "cells.h5ad", "-c", "args.json"], 2, "--out"),
        (["tokenize", "nowhere.h5ad", "-c", "args.json", "-o", "out"], 1, "no such source"),
        (["tokenize", "cells.h5ad", "-c", "args.json", "-o", "out", "--layer", "x"], 1, "no layer 'x'"),
        (["check", "cells.h5ad", "--tokenizer-name-or-path", "./nowhere"], 1, "./nowhere"),
        (["inspect"], 2, "FOLDER"),
        (["inspect", "nowhere"], 1, "nowhere"),
        (["vocab", "build", "cells.h5ad"], 2, "--out"),
        (["vocab", "build", "-o", "v"], 2, "no source was given"),
        (["vocab", "show", "./nowhere"], 1, "./nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_refusal_is_one_line_and_a_code(words: list[str], code: int, fragment: str, home: Home):
    assert_refused(home.run(*words), code, fragment)
    assert not (home.folder / "out").exists()


def test_debug_shows_the_traceback(home: Home):
    words = ["cells.h5ad", "-c", home.config, "--layer", "x", "--debug"]
    for process in (home.run("check", *words), home.run("tokenize", *words, "-o", "out")):
        assert process.returncode == 1
        assert "Traceback" in process.stderr
        assert "DataError: cells.h5ad has no layer 'x'" in process.stderr


def test_codes_follow_the_kinds_of_errors():
    usage = {kind for kind, row in KINDS.items() if row.raises.__name__ == "ConfigError"}
    assert {"config_value", "no_sources", "no_save_dir", "mapping_file"} <= usage
    assert not {"layer_missing", "output_exists", "source_not_found", "vocabulary_not_found"} & usage


# ---- check


def test_check_writes_nothing_and_says_what_a_run_would_do(home: Home):
    before = sorted(home.folder.rglob("*"))
    shown = assert_fine(home.run("check", "cells.h5ad", "-c", home.config, "--layer", "X"))
    assert "6 cells, ready to tokenize" in shown
    assert "10 of 12 in the vocabulary" in shown
    assert "whole numbers" in shown
    assert sorted(home.folder.rglob("*")) == before


def test_check_names_all_problems_and_fails(home: Home, tmp_path: Path):
    x = cells.make_counts()
    x[[1, 4], 2] = np.nan
    source = cells.save(cells.with_layer(x), tmp_path / "bad.h5ad")
    process = home.run("check", source, home.cells, "-c", home.config)
    assert (process.returncode, process.stderr) == (1, "")
    for fact in ("1 problem", "'cell-1'", "'cell-4'", cells.GENES[2], "ready to tokenize"):
        assert fact in process.stdout
    process = home.run("check", source, "-c", home.config, "--label-column", "x", "--min-gene-overlap", "1")
    assert process.returncode == 1
    for fact in ("2 problems", "min_gene_overlap = 1", "no obs column 'x'"):
        assert fact in process.stdout


def test_check_continues_after_every_problem_and_every_source(home: Home, tmp_path: Path):
    x = cells.make_counts() * 1.5
    x[3, 2] = np.inf
    source = cells.save(cells.with_layer(x, label=["a", None] * 3, disease=["flu"] * 6), tmp_path / "bad.h5ad")
    mapping = cells.write_json(tmp_path / "mapping.json", {"blood": "blod", "lung": "lnug"})
    medians = cells.write_json(tmp_path / "medians.json", {"x": 1})
    nowhere = tmp_path / "nowhere.h5ad"
    words = ["--median-dict", medians, "--bio-annotations", "--unmapped-annotations", "error", "--tissue-mapping",
             mapping, "--label-column", "label", "--obs-columns", "index", "--obs-columns", "sexx"]  # fmt: skip
    process = home.run("check", source, nowhere, home.cells, "-c", home.config, *words)
    assert process.returncode == 1
    assert [line for line in process.stderr.splitlines() if "no such source" in line and str(nowhere) in line]
    bad, good = (re.split("PROBLEM +", part)[1:] for part in process.stdout.split("cells.h5ad: "))
    assert [problem.split(". ")[0][:60] for problem in bad] == [
        f"median_dict: none of the 10 kept genes is in {medians!r}"[:60],
        "obs column 'disease' of bad.h5ad has 1 label with no token: "[:60],
        "bad.h5ad has no obs column 'tissue', which tissue_column nam",
        "bad.h5ad has no obs column 'cell_type', which cell_column na",
        "bad.h5ad has no obs column 'sex', which sex_column names; it",
        "cell 'cell-1' (row 1 of bad.h5ad) has no value in obs column",
        "bad.h5ad has no obs column 'sexx', which obs_columns names; ",
        "1 cell has NaN or infinity in kept genes: 'cell-3' (ENSG0000",
    ]
    assert "obs column 'tissue' has that label" in good[1]
    assert [problem.split(" ")[0] for problem in good] == [
        "median_dict:",
        "tissue_mapping:",
        "cells.h5ad",
        "cells.h5ad",
    ]
    assert "(did you mean 'sex'?)" in good[3]


def test_a_few_refused_chunks_are_reported_and_the_others_counted(home: Home, tmp_path: Path):
    x = np.full((9000, len(cells.GENES)), -2.5, dtype=np.float32)
    source = cells.save(cells.with_layer(x), tmp_path / "scaled.h5ad")
    process = home.run("check", source, "-c", home.config, "--log1p", "--threads", "1")
    assert process.returncode == 1
    assert process.stdout.count("gives NaN or infinity") == 5
    assert "PROBLEM    4 more chunks of cells are refused for such a reason.\n" in process.stdout


# ---- inspect, demo, vocab


def test_inspect_shows_the_arguments_that_were_set(home: Home, tmp_path: Path):
    manifest = tokenize_to_disk(home.cells, {**home.args, "obs_columns": ["sex"], "random_genes": True}, tmp_path)
    shown = assert_fine(home.run("inspect", manifest.path)).split("\n\n")[1].splitlines()
    assert [line.split() for line in shown[1:]] == [
        ["max_seq_len", "5"],
        ["obs_columns", "['sex']"],
        ["random_genes", "True"],
        ["tokenizer_name_or_path", repr(home.vocabulary)],
    ]


def test_inspect_does_not_list_shards_without_end(home: Home, tmp_path: Path):
    manifest = tokenize_to_disk(home.cells, {**home.args, "max_shard_samples": 1}, tmp_path)
    shown = assert_fine(home.run("inspect", manifest.path))
    assert shown.count(".arrow") == 5
    assert "6 shards in all" in shown


def test_inspect_shows_schema_shards_and_sequences(home: Home, tmp_path: Path):
    args = {**home.args, "add_cls": True, "label_column": "sex", "obs_columns": ["index"], "max_shard_samples": 4}
    manifest = tokenize_to_disk(home.cells, args, tmp_path)
    shown = assert_fine(home.run("inspect", manifest.path, "--cells", "2", "--tokens", "2"))
    for fact in (
        "6 cells of cells.h5ad",
        "list<int32>",
        "data-00001-of-00002.arrow",
        "row 1  ",
        "cell_id: cell-0",
        "CLS 1",
    ):
        assert fact in shown
    assert "row 2  " not in shown
    genes = shown.split("CLS 1  ")[1].split()[0]
    assert genes in cells.SYMBOLS


def test_the_demo_runs_and_may_run_again(home: Home, tmp_path: Path):
    out = tmp_path / "demo"
    shown = demo_shown(home.run("demo", "--out", out))
    for fact in ("700 cells", "700 of 765 in the vocabulary", "CD14+ Monocyte", str(out / "pbmc")):
        assert fact in shown
    assert Manifest.read(out / "pbmc").n_cells == 700
    demo_shown(home.run("demo", "--out", out))
    demo_shown(home.run("demo", "--out", out, "--overwrite"))


@pytest.mark.parametrize("on_path", [True, False])
def test_the_demo_names_commands_that_run(on_path: bool, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("matplotlib", reason="the report's extra is not installed")
    scripts = sysconfig.get_path("scripts")
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}" if on_path else str(tmp_path))
    shown = demo_shown(home.run("demo", "--out", tmp_path / "a demo"))
    lines = [shlex.split(line, comments=True) for line in shown.partition("\nGo on:\n")[2].splitlines()[:2]]
    program = ["teddytok"] if on_path else MODULE
    folder = str(tmp_path / "a demo" / "pbmc")
    assert lines == [[*program, "inspect", folder, "--cells", "10"], [*program, "report", folder]]
    for words in lines:
        assert folder in assert_fine(home.run(command=words))
    assert f"datasets.load_from_disk({folder!r})" in shown


def test_a_vocabulary_is_built_and_used(home: Home, tmp_path: Path):
    out = tmp_path / "v"
    words = ["vocab", "build", "cells.h5ad", "-o", out, "--obs-columns", "sex", "--obs-columns", "tissue"]
    assert assert_fine(home.run(*words)) == f"{out}: 20 tokens\n"
    assert_refused(home.run(*words), 1, str(out), "already holds a vocabulary")
    process = home.run("tokenize", "cells.h5ad", "--tokenizer-name-or-path", out, "-o", tmp_path / "out")
    assert "12 of 12 in the vocabulary" in assert_fine(process)


def test_a_vocabulary_is_built_from_a_configuration_and_a_glob(home: Home, tmp_path: Path):
    config = cells.write_json(tmp_path / "c.json", {"gene_id_column": "symbol", "bio_annotations": True})
    out = tmp_path / "v"
    shown = assert_fine(home.run("vocab", "build", "cel*.h5ad", "-c", config, "-o", out))
    labels = sorted(label for labels in cells.LABELS.values() for label in labels)
    assert shown == f"{out}: {4 + len(labels) + 12} tokens\n"
    tokens = (out / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert tokens[4:] == [*labels, *sorted(cells.SYMBOLS)]
    of_folder = {"load_dir": str(home.cells.parent)}
    config = cells.write_json(tmp_path / "d.json", of_folder)
    assert "16 tokens" in assert_fine(home.run("vocab", "build", "-c", config, "-o", tmp_path / "w"))


def test_a_vocabulary_is_shown(home: Home, tmp_path: Path):
    out = tmp_path / "v"
    out.mkdir()
    (out / "vocab.txt").write_text("<pad>\na\na\n\x1b[31m\n" + "".join(f"g{n}\n" for n in range(96)), encoding="utf-8")
    cells.write_json(out / "special_tokens_map.json", {"cls_token": "[C]"})
    lines = assert_fine(home.run("vocab", "show", out)).splitlines()
    assert lines[0] == str(out)
    shown = [" ".join(line.split()) for line in lines[1:-1]]
    assert shown[:4] == ["tokens 99", "largest id 99", "cls '[C]', no id", "pad '<pad>', id 0"]
    assert shown[4:8] == ["id 0 '<pad>'", "id 2 'a'", "id 3 '\\x1b[31m'", "id 4 'g0'"]
    assert shown[-1] == "... 91 more"
    assert "on several lines" in lines[-1]
    told = document(home.run("vocab", "show", out, "--json"))
    (warning,) = told.pop("warnings")
    assert "'a'" in warning
    assert told == {
        "command": "vocab show",
        "version": __version__,
        "path": str(out),
        "tokens": 99,
        "largest_id": 99,
        "special": {"cls": {"token": "[C]", "id": None}, "pad": {"token": "<pad>", "id": 0}},
        "first": {"<pad>": 0, "a": 2, "\x1b[31m": 3, **{f"g{n}": n + 4 for n in range(5)}},
    }


# ---- Ctrl-C and closed pipes


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for other processes")
def test_ctrl_c_in_the_middle_of_a_run_leaves_no_dataset(home: Home, tmp_path: Path):
    # One file per cell, each synced to the disk: seconds of work, of which the first file shows the beginning.
    source = cells.save(cells.with_layer(cells.make_counts(60_000)), tmp_path / "many.h5ad")
    words = ["tokenize", source, "-c", home.config, "-o", tmp_path / "out", "--max-shard-samples", "1", "-q"]
    folder = tmp_path / "out" / "many"
    command = [*MODULE, *map(str, words)]
    with interruptible(command, stdout=subprocess.PIPE, cwd=home.folder) as process:
        while not any(folder.glob("data-*")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.01)
            assert process.returncode is None, process.stderr.read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert err.lstrip() == "teddytok: interrupted. The same command again continues an unfinished run.\n"
    assert (process.returncode, out) == (130, "")
    assert not (folder / "state.json").exists()
    assert len(list(folder.iterdir())) < 60_000


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for other processes")
def test_no_ctrl_c_is_lost_while_it_starts(home: Home, tmp_path: Path):
    source = cells.save(cells.with_layer(cells.make_counts(60_000)), tmp_path / "many.h5ad")
    words = ["tokenize", source, "-c", home.config, "-o", tmp_path / "out", "--max-shard-samples", "1", "-q"]
    for delay in np.linspace(0.1, 1.2, 12):
        command = [*MODULE, *map(str, words)]
        with interruptible(command, stdout=subprocess.DEVNULL, cwd=home.folder) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        assert process.returncode != 0, delay


@pytest.mark.skipif(os.name == "nt", reason="Windows has other pipes")
def test_a_closed_pipe_is_no_bug_to_report(home: Home, tmp_path: Path):
    manifest = tokenize_to_disk(home.cells, home.args, tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    words = [*MODULE, "inspect", str(manifest.path)]
    process = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=home.folder)
    os.close(writer)
    assert "report" not in process.stderr
    assert "Traceback" not in process.stderr


# ---- help in groups


@pytest.mark.parametrize("command", ["tokenize", "check", "inspect", "verify", "demo", "vocab build", "vocab show"])
def test_every_option_is_in_a_group(command: str, home: Home):
    shown = assert_fine(home.run(*command.split(), "--help"))
    headings = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith((" ", "Usage"))]
    assert set(headings) <= {f"{heading}:" for heading in GROUPS} | {"Options:", "Examples:"}
    assert "Messages:" in headings
    assert ("Options:" in headings) == (command == "inspect")  # which has some of its own
    assert max(map(len, shown.splitlines())) <= 80


def test_help_groups_name_no_option_twice_and_none_that_is_not_there():
    named = [name for names in GROUPS.values() for name in names]
    assert len(named) == len(set(named))
    there = {param.name for command in cli.commands.values() for param in command.params}
    assert set(named) - there <= {"version", "help", "_click_default_help"}
    assert set(TokenizationArgs.model_fields) <= set(named)


def test_examples_of_the_help_name_options_that_are_there():
    commands = {**cli.commands, **cli.commands["vocab"].commands}
    for name, command in commands.items():
        options = {flag for param in command.params for flag in param.opts}
        assert set(re.findall(r"--[a-z0-9-]+", (command.epilog or "").replace("report.json", ""))) <= options, name


# ---- how much is said, and as what


def test_quiet_prints_errors_only(home: Home, tmp_path: Path):
    words = ["tokenize", "cells.h5ad", "-c", home.config, "-o", tmp_path, "--gene-seed", "1", "-q"]
    assert assert_fine(home.run(*words)) == ""
    assert_refused(home.run(*words, "--max-seq-len", "3"), 1, "max_seq_len")
    assert assert_fine(home.run("verify", tmp_path / "cells", "-q")) == ""
    assert assert_fine(home.run("inspect", tmp_path / "cells", "-q")) == ""


def test_quiet_still_prints_problems(home: Home, tmp_path: Path):
    x = cells.make_counts() + np.float32(0.5)
    x[2, 2] = np.nan
    source = cells.save(cells.with_layer(x), tmp_path / "nan.h5ad")
    words = ["check", source, "-c", home.config, "--label-column", "nowhere"]
    process = home.run(*words, "-q")
    assert (process.returncode, process.stdout) == (1, "")
    label, values = process.stderr.splitlines()
    assert label.startswith("teddytok: ")
    assert "'nowhere'" in label
    assert values.startswith(f"teddytok: {source}: 1 cell has NaN or infinity in kept genes: 'cell-2'")
    assert home.run(*words).stderr == "", "they are in what it prints"
    assert home.run(*words, "-q", "--json").stderr == ""

    manifest = tokenize_to_disk(home.cells, home.args, tmp_path / "out")
    with (manifest.path / manifest.shards[0].file).open("ab") as file:
        file.write(b"x")
    process = home.run("verify", manifest.path, "-q")
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr
    for line in process.stderr.splitlines():
        assert line.startswith(f"teddytok: {manifest.path}: ")


def test_more_and_more_is_logged(home: Home, tmp_path: Path):
    words = ["tokenize", "cells.h5ad", "-c", home.config, "--max-shard-samples", "4"]
    plain = home.run(*words, "-o", tmp_path / "0")
    assert plain.stderr == ""
    told = home.run(*words, "-o", tmp_path / "1", "-v")
    for fact in (
        "cells.h5ad: 6 cells, 12 genes, float32 in layer 'processed'; 10 genes are in the vocabulary",
        "data-00000-of-00002.arrow: ",
        "data-00001-of-00002.arrow: ",
        "is a dataset of 6 cells",
    ):
        assert fact in told.stderr
    assert "threads" not in told.stderr
    assert "threads" in home.run(*words, "-o", tmp_path / "2", "-vv").stderr
    assert "left as it is" in home.run(*words, "-o", tmp_path / "1", "-v").stderr


def test_what_may_not_be_meant_is_a_warning(home: Home, tmp_path: Path):
    words = ["tokenize", "cells.h5ad", "-c", home.config, "-o", tmp_path]
    process = home.run(*words, "--layer", "X", "--gene-seed", "7", "--label-column", "sex", "--add-disease-annotation")
    assert process.returncode == 0
    assert process.stderr.splitlines() == [
        "teddytok: warning: gene_seed = 7 changes nothing without random_genes",
        "teddytok: warning: label_column = 'sex' is not written: add_disease_annotation takes its place",
        "teddytok: warning: layer 'X' of cells.h5ad holds whole numbers, as raw counts are, and no normalisation is "
        "set (normalize_total, median_dict, log1p)",
    ]
    shown = assert_fine(home.run("check", "cells.h5ad", "-c", home.config, "--layer", "X", "--gene-seed", "7"))
    assert "warning    gene_seed = 7 changes nothing" in shown
    assert "holds whole numbers" in shown


def test_interrupted_says_how_to_go_on_only_where_one_can(monkeypatch: pytest.MonkeyPatch, capsys):
    def interrupt(*words: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("teddytok_rs.cli.cli.main", interrupt)
    for command, goes_on in (("tokenize", True), ("check", False), ("inspect", False)):
        monkeypatch.setattr(sys, "argv", ["teddytok", command])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 130
        assert ("continues an unfinished run" in capsys.readouterr().err) == goes_on


def test_a_bug_is_one_line_to_report(monkeypatch: pytest.MonkeyPatch, capsys):
    def fail(*words: Any, **options: Any) -> None:
        raise RuntimeError("two\nlines.")

    monkeypatch.setattr("teddytok_rs.cli.cli.main", fail)
    monkeypatch.setattr(sys, "argv", ["teddytok", "check", "--json"])
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()
    message = "unexpected error: RuntimeError: two lines. Run again with --debug, and please report it."
    assert err == f"teddytok: {message}\n"
    assert json.loads(out) == {"error": {"kind": "unexpected", "message": message, "context": {}}, "exit_code": 1}
    monkeypatch.setattr(sys, "argv", ["teddytok", "check", "--debug"])
    with pytest.raises(SystemExit):
        main()
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "inspect", "report"])
def test_a_folder_of_datasets_names_the_one_to_give(command: str, home: Home, tmp_path: Path):
    pytest.importorskip("matplotlib", reason="the report's extra is not installed")
    first = tokenize_to_disk(home.cells, home.args, tmp_path).path
    fragment = f"{str(tmp_path)!r} is not a dataset but a folder of datasets: 'cells'. Give {str(first)!r}."
    with raises("several_datasets", fragment):
        cli.main([command, str(tmp_path)], standalone_mode=False)
    tokenize_to_disk(home.cells, home.args, tmp_path, name="more")
    with raises("several_datasets", f"'cells', 'more'. Give one of them, such as {str(first)!r}."):
        cli.main([command, str(tmp_path)], standalone_mode=False)


# ---- JSON


def document(process: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    assert process.returncode == code, process.stderr
    told = json.loads(process.stdout)
    parts = [
        told,
        *told.get("sources", []),
        *told.get("shards", []),
        *told.get("sequences", []),
        told.get("totals", {}),
    ]
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    if "exit_code" not in told:
        assert {key for part in parts for key in part} <= set(re.findall(r"`(\w+)`", page))
    return told


def test_tokenize_reports_to_programs_what_it_wrote(home: Home, tmp_path: Path):
    words = ["tokenize", "cells.h5ad", "-c", home.config, "-o", tmp_path, "--bio-annotations", "--json"]
    told = document(home.run(*words))
    manifest = Manifest.read(tmp_path / "cells")
    (source,) = told["sources"]
    assert source.pop("seconds") > 0
    assert source.pop("expression_lost") == pytest.approx(manifest.expression_lost)
    assert source == {
        "source": "cells.h5ad",
        "path": str(tmp_path / "cells"),
        "cells": 6,
        "cells_dropped": 0,
        "genes": 12,
        "genes_kept": 10,
        "gene_groups": {
            "mapped": {"genes": 0, "share": 0.0},
            "ambiguous": {"genes": 0, "share": 0.0},
            "unmapped": {"genes": 2, "share": pytest.approx(manifest.expression_lost)},
            "filtered": {"genes": 0, "share": 0.0},
        },
        "tokens": manifest.n_tokens,
        "unmapped": {},
        "gene_seed": None,
        "shards": 1,
        "shards_kept": 0,
        "bytes": manifest.shards[0].bytes,
        "layer": "processed",
        "warnings": [],
        "error": None,
    }
    totals = {"datasets": 1, "failed": 0, "cells": 6, "tokens": manifest.n_tokens, "shards": 1}
    assert {key: told[key] for key in told if key != "sources"} == {
        "command": "tokenize", "version": __version__, "out": str(tmp_path), "totals": totals
    }  # fmt: skip
    again = document(home.run(*words))
    assert again["sources"][0]["shards_kept"] == 1
    assert document(home.run("verify", tmp_path / "cells", "--json")) == {
        "command": "verify",
        "version": __version__,
        "path": str(tmp_path / "cells"),
        "sound": True,
        "problems": [],
        "notes": [],
        "totals": totals,
    }


def test_many_sources_have_one_shape_whatever_became_of_them(home: Home, tmp_path: Path):
    words = ["tokenize", "cells.h5ad", "nowhere.h5ad", "-c", home.config, "-o", tmp_path, "--json"]
    first, again = document(home.run(*words), 1), document(home.run(*words), 1)
    assert first["totals"]["failed"] == again["totals"]["failed"] == 1
    for told in (first, again):
        done, failed = told["sources"]
        assert (done["source"], done["cells"], done["error"]) == ("cells.h5ad", 6, None)
        assert (failed["source"], failed["error"]["kind"]) == ("nowhere.h5ad", "source_not_found")
    assert first["sources"][0].keys() == again["sources"][0].keys()
    assert again["sources"][0]["shards_kept"] == 1
    told = document(home.run("verify", tmp_path, "--json"), 1)
    assert (told["sound"], len(told["problems"]), told["totals"]) == (False, 1, first["totals"])


def test_one_source_has_one_shape_whatever_is_in_the_folder(home: Home, tmp_path: Path):
    cells.save(cells.make_cells(), tmp_path / "a.h5ad")
    (tmp_path / "bad.h5ad").write_bytes((tmp_path / "a.h5ad").read_bytes()[:9000])
    words = ["-c", home.config, "--json", "-q"]
    assert_fine(home.run("tokenize", home.cells, tmp_path / "a.h5ad", "-o", tmp_path / "corpus", *words[:2], "-q"))

    def results(source: str, out: str, code: int) -> tuple[dict[str, Any], str]:
        process = home.run("tokenize", tmp_path / source, "-o", tmp_path / out, *words)
        told = document(process, code)
        for part in (told, *told["sources"]):
            for key in {"out", "path", "seconds"} & part.keys():
                part[key] = type(part[key])
        return told, process.stderr

    for source, code in (("bad.h5ad", 1), ("nowhere.h5ad", 1), ("a.h5ad", 0)):
        results("a.h5ad", "single", 0)  # now it is finished in both folders
        alone = results(source, "single", code)
        assert results(source, "corpus", code) == alone
        told, said = alone
        assert (len(told["sources"]), told["totals"]["failed"]) == (1, code)
        assert said == (f"teddytok: {told['sources'][0]['error']['message']}\n" if code else "")
        shown = [
            home.run("tokenize", tmp_path / source, "-o", tmp_path / out, *words[:2]) for out in ("single", "corpus")
        ]
        single, corpus = (re.sub(r"\d+\.\d+ s|single|corpus", "", process.stdout) for process in shown)
        assert single == corpus
    assert not (tmp_path / "single" / "corpus.json").exists()


def test_check_and_inspect_and_vocab_tell_programs_too(home: Home, tmp_path: Path):
    words = ["check", "cells.h5ad", "nowhere.h5ad", "-c", home.config, "--json"]
    told = document(home.run(*words, "--layer", "X", "--label-column", "x"), 1)
    bad, missing = told["sources"]
    assert (told["command"], told["ready"], bad["ready"], missing["ready"]) == ("check", False, False, False)
    assert ["no obs column 'x'" in problem for problem in bad["problems"]] == [True]
    assert ["whole numbers" in warning for warning in bad["warnings"]] == [True]
    assert missing["error"]["kind"] == "source_not_found"
    assert missing["error"]["context"] == {"path": "nowhere.h5ad"}
    good = document(home.run("check", "cells.h5ad", "-c", home.config, "--json"))["sources"][0]
    assert (good["ready"], good["cells"], good["genes"], good["genes_kept"]) == (True, 6, 12, 10)
    manifest = tokenize_to_disk(home.cells, home.args, tmp_path)
    assert (good["tokens"], good["shards"]) == (manifest.n_tokens, 1)
    told = document(home.run("inspect", manifest.path, "--cells", "1", "--tokens", "2", "--json"))
    assert told["configuration"] == manifest.configuration
    assert told["columns"] == {"gene_ids": "list<int32>", "values": "list<float>"}
    assert [shard["sha256"] for shard in told["shards"]] == [shard.sha256 for shard in manifest.shards]
    ((row, length),) = [(sequence["row"], len(sequence["genes"])) for sequence in told["sequences"]]
    assert (row, length) == (0, 2)
    told = document(home.run("vocab", "build", "cells.h5ad", "-o", tmp_path / "v", "--json"))
    assert told == {"command": "vocab build", "version": __version__, "path": str(tmp_path / "v"), "tokens": 16}


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (["tokenise"], 2, "usage"),
        (["tokenize", "cells.h5ad", "-c", "args.json"], 2, "no_save_dir"),
        (["check", "nowhere.h5ad", "-c", "args.json"], 1, "source_not_found"),
        (["inspect", "nowhere"], 1, "output_unreadable"),
        (["verify", "nowhere"], 1, "output_unreadable"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_error_is_a_document_too_and_a_line_for_people(words: list[str], code: int, kind: str, home: Home):
    process = home.run(*words, "--json")
    told = document(process, code)
    assert (told["exit_code"], told["error"]["kind"]) == (code, kind)
    assert set(told["error"]) == {"kind", "message", "context"}
    assert process.stderr == f"teddytok: {told['error']['message']}\n"


def test_json_holds_whatever_there_is():
    written = as_json({"nan": float("nan"), "path": Path("a"), 1: ("é", None, True, 2)})
    assert json.loads(written) == {"nan": None, "path": "a", "1": ["é", None, True, 2]}


# ---- files that are something else


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"hello, cells", "it is no HDF5, but starts with b'hello, c'"),
        (gzip.compress(b"x" * 100), "it is packed; unpack it first"),
    ],
    ids=["empty", "text", "gzip"],
)
def test_a_file_that_is_no_h5ad_is_called_what_it_is(content: bytes, reason: str, home: Home, tmp_path: Path):
    (tmp_path / "a.h5ad").write_bytes(content)
    assert_refused(home.run("check", tmp_path / "a.h5ad", "-c", home.config), 1, str(tmp_path / "a.h5ad"), reason)


def test_a_file_that_is_cut_off_says_how_much_is_there(home: Home, tmp_path: Path):
    content = home.cells.read_bytes()
    (tmp_path / "a.h5ad").write_bytes(content[:9000])
    process = home.run("check", tmp_path / "a.h5ad", "-c", home.config)
    assert_refused(process, 1, f"it is cut off, with 9,000 of its {len(content):,} bytes")


def test_another_kind_of_hdf5_says_what_it_holds(home: Home, tmp_path: Path):
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file["matrix/data"] = [1]
    process = home.run("check", tmp_path / "a.h5ad", "-c", home.config)
    assert_refused(process, 1, "it has no 'obs', so it is not an AnnData; it holds 'matrix'")


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="needs a user who may not look")
def test_a_folder_without_permission_is_named(tmp_path: Path, capfd):
    closed = tmp_path / "closed"
    cells.save(cells.make_cells(), tmp_path / "cells.h5ad")
    cells.write_vocabulary(tmp_path / "vocabulary")
    cells.write_vocabulary(closed / "vocabulary")
    tokenize = ["tokenize", "cells.h5ad", "--tokenizer-name-or-path"]
    unwritable, unreadable = "cannot be written: permission denied.", "is not a finished teddytok dataset: "
    attempts = [
        ([*tokenize, "vocabulary", "-o", "closed/out"], f"'closed/out/cells' {unwritable}"),
        ([*tokenize, "vocabulary", "-o", "closed"], f"'closed/cells' {unwritable}"),
        ([*tokenize, "vocabulary", "b.h5ad", "-o", "closed/out"], f"'closed/out' {unwritable}"),
        (["verify", "closed"], f"'closed' {unreadable}"),
        (["verify", "closed/x"], f"'closed/x' {unreadable}"),
        (["inspect", "closed/x"], f"'closed/x' {unreadable}"),
        ([*tokenize, "closed", "b.h5ad", "-o", "out"], "no vocabulary at 'closed': permission denied."),
        (
            [*tokenize, "closed/vocabulary", "b.h5ad", "-o", "out"],
            "no vocabulary at 'closed/vocabulary': permission denied.",
        ),
    ]

    def ask() -> None:
        os.chdir(tmp_path)  # the folders above are closed to others
        if os.geteuid() == 0:
            os.seteuid(65534)
        for words, _ in attempts:
            sys.argv = ["teddytok", *words]
            with pytest.raises(SystemExit) as end:
                main()
            assert end.value.code == 1

    # All that is imported when it is needed is imported now: Python's own files may be closed to the child.
    args = {"tokenizer_name_or_path": str(tmp_path / "vocabulary")}
    verify(tokenize_to_disk(tmp_path / "cells.h5ad", args, tmp_path / "warm").path)
    "".encode("utf-8-sig")
    capfd.readouterr()
    tmp_path.chmod(0o755)
    closed.chmod(0)
    child = multiprocessing.get_context("fork").Process(target=ask)
    child.start()
    child.join()
    closed.chmod(0o755)
    said = capfd.readouterr().err.splitlines()
    assert child.exitcode == 0, said
    lines = [line for line in said if "warning: " not in line]
    for line, (_, fragment) in zip(lines, attempts, strict=True):
        assert fragment in line
        assert "permission denied" in line.lower()
        check_message(line)


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--label-column", "celltype"], ["(did you mean 'cell_type'?)"]),
        (["--cell-filter", "sex == 'Male'"], ["obs column 'sex' holds 'female', 'male'"]),
        (["--cell-filter", "sex = 'male'"], ["sets a column; == compares"]),
    ],
    ids=["column", "label", "assignment"],
)
def test_what_was_meant_is_guessed_aloud(words: list[str], fragments: list[str], home: Home, tmp_path: Path):
    process = home.run("tokenize", "cells.h5ad", "-c", home.config, "-o", tmp_path / "out", *words)
    assert_refused(process, 2 if "sets" in fragments[0] else 1, *fragments)
