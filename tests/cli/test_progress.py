"""How far it is, on a terminal, in a notebook and in a log file; and what the package logs."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

import cells
from teddytok_rs import check, progress, tokenize, tokenize_corpus, tokenize_to_disk, verify
from teddytok_rs.config.args import TokenizationArgs
from teddytok_rs.errors import TeddytokError
from teddytok_rs.output.run import open_run, write_shards
from teddytok_rs.pipeline.warnings import unused_arguments

if TYPE_CHECKING:
    from pathlib import Path

ESCAPE = "\x1b"
LINE = re.compile(r"([\w ]+): +(\d+)% (\d+)/(\d+) \[[\d:]+<[\d:]+, +[\d.]+ cells/s\]")
#: A process in which every step of the progress is shown, however short it is.
OFTEN = (
    "import sys; from teddytok_rs import cli, progress; "
    "progress.LINE_SECONDS = progress.BAR_SECONDS = 0; sys.argv[0] = 'teddytok'; cli.main()"
)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    monkeypatch.setattr(progress, "BAR_SECONDS", 0)


def source(tmp_path: Path, n_cells: int = 2500) -> Path:
    return cells.save(cells.with_layer(cells.make_counts(n_cells) * np.float32(1.5)), tmp_path / "cells.h5ad")


def shown(lines: str) -> list[tuple[str, int, int]]:
    """Read lines: what is done, cells done, cells in all; the line of what has not begun left out."""
    found = [LINE.fullmatch(line) for line in lines.splitlines() if "?" not in line]
    assert all(found), lines
    return [(line[1], int(line[3]), int(line[4])) for line in found if line]


# ---- lines, where there is no terminal


@pytest.mark.usefixtures("often")
def test_each_function_reports_its_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, args = source(tmp_path), cells.make_args(tmp_path)
    tokenize(path, args, progress=True)
    assert shown(capsys.readouterr().err) == [("tokenizing", done, 2500) for done in (1000, 2000, 2500)]
    tokenize_to_disk(path, {**args, "max_shard_samples": 1000}, tmp_path / "out", progress=True)
    assert shown(capsys.readouterr().err) == [("tokenizing", done, 2500) for done in (1000, 2000, 2500)]
    verify(tmp_path / "out" / "cells", progress=True)
    assert shown(capsys.readouterr().err) == [("verifying", done, 2500) for done in (1000, 2000, 2500)]
    check(path, args, progress=True)
    assert shown(capsys.readouterr().err) == [("checking", done, 2500) for done in (1000, 2000, 2500)]
    other = cells.save(cells.with_layer(cells.make_counts(1500) * np.float32(1.5)), tmp_path / "other.h5ad")
    tokenize_corpus([path, other], args, tmp_path / "corpus", threads=1, progress=True)
    assert shown(capsys.readouterr().err) == [
        *(("0 of 2 sources done", done, 2500) for done in (1000, 2000, 2500)),
        *(("1 of 2 sources done", done, 4000) for done in (3500, 4000)),
    ]
    verify(tmp_path / "corpus", progress=True)
    assert shown(capsys.readouterr().err)[-1] == ("verifying", 4000, 4000)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("shows", [None, False])
def test_nothing_is_shown_where_nobody_looks(shows: bool | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tokenize(source(tmp_path), cells.make_args(tmp_path), progress=shows)
    assert capsys.readouterr() == ("", "")


def test_a_short_run_leaves_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tokenize(source(tmp_path), cells.make_args(tmp_path), progress=True)
    assert capsys.readouterr() == ("", "")


def test_a_line_comes_every_half_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    clock = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    with progress.progress_bar(100_000, done=10_000, show=True) as advance:
        for _ in range(9):
            clock[0] += 10
            advance(10_000)
    assert capsys.readouterr().err.splitlines() == [
        "tokenizing:  40% 40000/100000 [00:30<01:00, 1000.00 cells/s]",
        "tokenizing:  70% 70000/100000 [01:00<00:30, 1000.00 cells/s]",
        "tokenizing: 100% 100000/100000 [01:30<00:00, 1000.00 cells/s]",
    ]


def test_a_progress_leaves_no_thread(capsys: pytest.CaptureFixture[str]):
    before = set(threading.enumerate())
    with progress.progress_bar(10, show=True) as advance:
        advance(10)
        assert set(threading.enumerate()) == before


def command(tmp_path: Path, *words: str) -> list[str]:
    args = cells.make_args(tmp_path)
    config = cells.write_json(tmp_path / "args.json", args)
    file = str(source(tmp_path))
    return [sys.executable, "-c", OFTEN, "tokenize", file, "-c", config, "-o", str(tmp_path / "out"), *words]


def test_the_command_writes_lines_without_escapes_to_a_log_file(tmp_path: Path):
    env = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    process = subprocess.run(command(tmp_path), capture_output=True, text=True, check=True, env=env)
    assert [done for _, done, _ in shown(process.stderr)] == [1000, 2000, 2500]
    assert ESCAPE not in process.stdout
    quiet = subprocess.run(command(tmp_path, "-q", "--overwrite"), capture_output=True, text=True, check=True)
    assert (quiet.stdout, quiet.stderr) == ("", "")


# ---- terminals


def on_a_terminal(words: list[str], columns: int = 80, **env: str) -> str:
    """Run a command whose output, of both kinds, goes to a pseudo terminal."""
    pty = pytest.importorskip("pty", reason="Windows has no pseudo terminals")
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "NO_COLOR"}}
    environment |= {"TERM": "xterm-256color", **env}
    process = subprocess.Popen(words, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    content = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        content += part
    os.close(ours)
    assert process.wait() == 0, content
    return content.decode().replace("\r\n", "\n")


def test_a_terminal_has_a_bar_that_goes_away(tmp_path: Path):
    content = on_a_terminal(command(tmp_path))
    states = [state for state in re.split("[\r\n]+", content) if state.startswith("tokenizing: ")]
    assert "\u2588" in states[-1]  # the bar
    assert re.match(r"tokenizing: 100%\|\S+\| 2500/2500 \[00:\d\d<00:00, ", states[-1])
    assert max(map(len, states)) <= 80
    cleared, _, after = content.rpartition("\r")
    assert re.search(r"\r +$", cleared)
    assert after.startswith("cells.h5ad: 2,500 cells\n")  # in the place of the bar
    assert not re.search(r"\x1b\[[\d;]*m", content)  # no colours


def test_a_terminal_that_cannot_draw_gets_lines(tmp_path: Path):
    content = on_a_terminal(command(tmp_path), TERM="dumb")
    assert ESCAPE not in content
    assert [done for _, done, _ in shown(content.partition("cells.h5ad")[0])] == [1000, 2000, 2500]


def test_what_is_logged_is_above_the_bar(tmp_path: Path):
    content = on_a_terminal(command(tmp_path, "-v", "--max-shard-samples", "1000"), columns=200)
    for number in range(3):
        assert re.search(
            rf"(\n|\r)teddytok: [\d:]{{8}} \S+data-0000{number}-of-00003\.arrow: [\d,]+ tokens *\n", content
        )


# ---- notebooks


def test_a_notebook_has_a_bar_unless_it_is_not_wanted(tmp_path: Path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    start = "import teddytok_rs; from teddytok_rs import progress"
    call = f"_ = teddytok_rs.tokenize({str(source(tmp_path))!r}, {cells.make_args(tmp_path)!r}, progress=%s)"
    codes = [
        f"{start}; progress.BAR_SECONDS = 0; import tqdm.auto",  # which may warn that there are no widgets
        *(call % shows for shows in (False, None, True)),
        f"progress.BAR_SECONDS = 1e9; {call % True}",  # as where the run is soon over
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
    shows_bar = ["tokenizing:" in str(cell.outputs) for cell in notebook.cells]
    assert shows_bar == [False, False, True, True, False]


# ---- what is logged


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_the_package_logs_under_its_name_what_it_does(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    args = cells.make_args(tmp_path, max_shard_samples=4)
    with caplog.at_level(logging.INFO, logger="teddytok_rs"):
        with open_run(cells.make_cells(), args, tmp_path / "out") as run:
            del run.tasks[1:]  # as if it were killed after one shard
            write_shards(run, lambda _: None)
        folder = tmp_path / "out" / "anndata"
        tokenize_to_disk(cells.make_cells(), args, tmp_path / "out")
        tokenize_to_disk(cells.make_cells(), args, tmp_path / "out")
    opened = "AnnData: 6 cells, 12 genes, float32 in layer 'processed'; 10 genes are in the vocabulary"
    told = [re.sub(r"\d+ tokens", "N tokens", message) for message in messages(caplog, logging.INFO)]
    assert told == [
        opened,
        f"{folder / 'data-00000-of-00002.arrow'}: N tokens",
        opened,
        f"{folder}: 1 of its 2 shards are finished and kept",
        f"{folder / 'data-00001-of-00002.arrow'}: N tokens",
        f"{folder} is a dataset of 6 cells",
        opened,
        f"{folder} is finished already and left as it is",
    ]
    assert {record.name for record in caplog.records} == {"teddytok_rs"}


def test_a_source_that_fails_is_logged_as_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    args = cells.make_args(tmp_path)
    corpus = tokenize_corpus([source(tmp_path), tmp_path / "nowhere.h5ad"], args, tmp_path / "out", threads=1)
    assert messages(caplog, logging.ERROR) == [source.error["message"] for source in corpus.failed]
    assert len(corpus.failed) == 1


def test_a_layout_that_hdf5_alone_reads_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    args = cells.make_args(tmp_path)
    path = cells.save(cells.make_cells(), tmp_path / "plain.h5ad")
    with caplog.at_level(logging.INFO, logger="teddytok_rs"):
        tokenize(path, args)
        assert not [message for message in messages(caplog, logging.INFO) if "HDF5" in message]
        odd = cells.save(cells.make_cells(), tmp_path / "odd.h5ad")
        with h5py.File(odd, "r+") as file:
            layer = file["layers/processed"]
            for name in ("indices", "data"):
                stored = layer[name][:]
                del layer[name]
                layer.create_dataset(name, data=stored, chunks=(4,), fletcher32=True)
        tokenize(odd, args)
    assert "odd.h5ad: layer 'processed' is stored in a way that HDF5 alone reads, a thread at a time" in messages(
        caplog, logging.INFO
    )


def test_without_logging_set_up_a_warning_is_seen_and_nothing_else(tmp_path: Path):
    code = (
        "import sys, teddytok_rs; sys.path.insert(0, sys.argv[1]); import cells; from pathlib import Path;"
        "made = cells.make_cells(); args = cells.make_args(Path(sys.argv[2]), layer='X');"
        "teddytok_rs.tokenize(made, args)"
    )
    words = [sys.executable, "-c", code, os.path.dirname(cells.__file__), str(tmp_path)]  # noqa: PTH120
    process = subprocess.run(words, capture_output=True, text=True, check=True)
    (line,) = process.stderr.splitlines()
    assert line.startswith("layer 'X' of AnnData holds whole numbers, as raw counts are")


# ---- what may be unintended


@pytest.mark.parametrize(
    ("keys", "warnings"),
    [
        ({"gene_seed": 0}, ["gene_seed = 0 changes nothing without random_genes"]),
        ({"batch_size": 4}, ["batch_size = 4 changes nothing without random_genes"]),
        ({"batch_size": 512, "gene_seed": None, "disease_column": "disease"}, []),  # as they are unless set
        ({"random_genes": True, "gene_seed": 1, "batch_size": 4, "random_genes_count": 3}, []),
        ({"cls_token_id": 0}, ["cls_token_id = 0 changes nothing without add_cls"]),
        ({"cls_token_id": 0, "add_cls": True}, []),
        ({"eos_token_id": 0}, ["eos_token_id = 0 changes nothing without add_eos"]),
        ({"output_names": {"gene_ids": "input_ids", "values": "x"}}, []),
        ({"output_names": {"length": "n"}}, ["output_names['length'] changes nothing without write_length"]),
        (
            {"output_names": {"labels": "y"}},
            ["output_names['labels'] changes nothing without label_column or add_disease_annotation"],
        ),
        ({"bins": 5, "write_values": False}, ["bins = 5 changes nothing without write_values"]),
        ({"sex_column": "s"}, ["sex_column = 's' changes nothing without bio_annotations"]),
        ({"disease_mapping": "d", "add_disease_annotation": True}, []),
        (
            {"unmapped_annotations": "error"},
            ["unmapped_annotations = 'error' changes nothing without bio_annotations or add_disease_annotation"],
        ),
    ],
    ids=str,
)
def test_arguments_that_change_nothing_are_named(keys: dict[str, Any], warnings: list[str]):
    assert unused_arguments(TokenizationArgs(tokenizer_name_or_path="v", **keys)) == warnings


def warnings_of(made: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, **keys: Any) -> list[str]:
    caplog.clear()
    tokenize(made, cells.make_args(tmp_path, **keys))
    return messages(caplog, logging.WARNING)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "integers"])
def test_raw_counts_that_nothing_normalises_are_warned_of(kind: str, tmp_path: Path, caplog):
    from scipy import sparse

    counts = cells.make_counts()
    matrix = {
        "csr": sparse.csr_matrix(counts),
        "csc": sparse.csc_matrix(counts),
        "dense": counts,
        "integers": counts.astype(np.int16),
    }[kind]
    made = cells.with_layer(matrix)
    (warning,) = warnings_of(made, tmp_path, caplog)
    assert warning.startswith("layer 'processed' of AnnData holds whole numbers, as raw counts are")
    assert warnings_of(made, tmp_path, caplog, log1p=True) == []
    assert warnings_of(made, tmp_path, caplog, normalize_total=10.0) == []


def test_raw_counts_that_are_binned_are_meant(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    made = cells.with_layer(cells.make_counts())
    assert len(warnings_of(made, tmp_path, caplog)) == 1
    assert warnings_of(made, tmp_path, caplog, bins=5) == []
    assert check(made, cells.make_args(tmp_path, bins=5)).warnings == []


def test_a_logarithm_of_a_logarithm_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    made = cells.make_cells()
    keys = {"log1p": True, "normalize_total": 10.0}
    (warning,) = warnings_of(made, tmp_path, caplog, **keys)
    assert warning == (
        "layer 'processed' of AnnData holds values that are not whole numbers, but normalize_total and log1p start "
        "from raw counts. Set layer (--layer) to 'raw', which holds counts"
    )
    assert check(made, cells.make_args(tmp_path, **keys)).warnings == [warning]
    assert warnings_of(made, tmp_path, caplog, layer="X", **keys) == []
    (warning,) = warnings_of(cells.with_layer(cells.make_counts() * np.float32(7.5)), tmp_path, caplog, **keys)
    assert warning.endswith("start from raw counts"), "no layer holds these"


@pytest.mark.parametrize("dense", [True, False])
def test_negatives_that_zeros_outrank_are_warned_of(dense: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    from scipy import sparse

    x = cells.make_counts() - np.float32(1.5)
    x[:, ::2] = 0
    made = cells.with_layer(x if dense else sparse.csr_matrix(x))
    (warning,) = warnings_of(made, tmp_path, caplog)
    assert warning.startswith("layer 'processed' of AnnData holds negative values; zeros outrank them")
    assert check(made, cells.make_args(tmp_path)).warnings == [warning]
    assert warnings_of(made, tmp_path, caplog, max_seq_len=12) == [], "there is room for all"


def test_tokens_that_the_vocabulary_lacks_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    made, keys = cells.make_cells(), {"add_cls": True, "bio_annotations": True}
    most = len(cells.TOKENS) - 1
    assert warnings_of(made, tmp_path, caplog, **keys) == []
    assert warnings_of(made, tmp_path, caplog, cls_token_id=0, **keys) == []
    (warning,) = warnings_of(made, tmp_path, caplog, cls_token_id=999_999, **keys)
    assert f"cls_token_id = 999999 is above {most}, the largest id of vocabulary" in warning
    (warning,) = warnings_of(made, tmp_path, caplog, cls_token_id=cells.GENE_TOKENS[2], **keys)
    assert f"id {cells.GENE_TOKENS[2]}, is the token of gene {cells.GENES[2]!r} too" in warning
    (warning,) = warnings_of(made, tmp_path, caplog, add_eos=True, eos_token_id=999_999, **keys)
    assert f"eos_token_id = 999999 is above {most}, the largest id of vocabulary" in warning
    sexes = cells.write_json(tmp_path / "sex.json", {"male": most + 1, "female": most})
    (warning,) = warnings_of(made, tmp_path, caplog, sex_mapping=sexes, **keys)
    assert f"sex_mapping maps 'male' to an id above {most}" in warning
    assert warning in check(made, cells.make_args(tmp_path, sex_mapping=sexes, **keys)).warnings


def test_other_values_are_not_taken_for_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert warnings_of(cells.make_cells(), tmp_path, caplog) == []
    assert warnings_of(cells.with_layer((cells.make_counts() > 0).astype(np.float32)), tmp_path, caplog) == []
    assert warnings_of(cells.with_layer(cells.make_counts() + np.float32(0.5)), tmp_path, caplog) == []
    assert warnings_of(cells.with_layer(np.zeros((0, 12), np.float32)), tmp_path, caplog) == []


def test_genes_without_a_median_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    medians = cells.write_json(tmp_path / "medians.json", dict.fromkeys(cells.GENES[1:8], 2.0))
    (warning,) = warnings_of(cells.make_cells(), tmp_path, caplog, layer="X", median_dict=medians)
    assert warning.startswith(
        f"median_dict: 3 of the 10 kept genes have no median in {medians!r} and are divided by 1: "
    )
    assert check(cells.make_cells(), cells.make_args(tmp_path, layer="X", median_dict=medians)).warnings == [warning]


def test_a_corpus_repeats_no_warning_of_its_arguments(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    sources = [cells.save(cells.make_cells(), tmp_path / name) for name in ("a.h5ad", "b.h5ad")]
    tokenize_corpus(sources, cells.make_args(tmp_path, gene_seed=1), tmp_path / "out", threads=1)
    assert messages(caplog, logging.WARNING) == ["gene_seed = 1 changes nothing without random_genes"]


def test_a_progress_that_an_error_ends_goes_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    x = cells.make_counts() * np.float32(1.5)
    x[2, 2] = np.nan
    with pytest.raises(TeddytokError):
        tokenize(cells.with_layer(x), cells.make_args(tmp_path), progress=True)
    assert capsys.readouterr() == ("", "")
