"""Where memory is limited, a run says so: no traceback, no abort, and no file or argument that is blamed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import cells

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems limit no address space")

#: Runs a command in forked children that may take so many bytes more than they have; prints how each ended.
LIMITED = """
import json, os, resource, sys, tempfile
import click, teddytok_rs
from teddytok_rs.cli import main

def call(words, more):
    with tempfile.TemporaryFile("w+") as shown:
        pid = os.fork()
        if pid == 0:
            os.dup2(shown.fileno(), 1), os.dup2(shown.fileno(), 2)
            if more is not None:
                pages = int(open("/proc/self/statm").read().split()[0])
                limit = pages * os.sysconf("SC_PAGE_SIZE") + more
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            sys.argv = ["teddytok", *words]
            main()
        status = os.waitpid(pid, 0)[1]
        shown.seek(0)
        return [os.waitstatus_to_exitcode(status), shown.read()]

words, steps = json.loads(sys.argv[1])
teddytok_rs.tokenize("cells.h5ad", "args.json", threads=1)  # all is imported before memory is short
print(json.dumps([call([*words, "-o", f"out{step}"], more) for step, more in enumerate(steps)]))
"""


@pytest.mark.parametrize("threads", ["1", "4"])
def test_a_limit_of_memory_is_named_as_such(threads: str, tmp_path: Path):
    counts = cells.make_counts(60_000)
    cells.save(cells.with_layer(counts, note=["a", "b"] * 30_000), tmp_path / "cells.h5ad")
    cells.write_json(tmp_path / "args.json", cells.make_args(tmp_path, label_column="note", obs_columns=["index"]))
    quarters = [0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024]  # of a MiB
    steps = [None, *(number * 2**18 for number in quarters)]
    words = ["tokenize", "cells.h5ad", "-c", "args.json", "-q", "--threads", threads]
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, json.dumps([words, steps])],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    ended = json.loads(process.stdout)
    assert ended[0] == [0, ""]
    for step, (code, shown) in zip(steps[1:], ended[1:], strict=True):
        if code != 0:
            assert code == 1, (step, code, shown)
            assert "not enough memory" in shown, (step, shown)
            assert "args.json" not in shown
            assert shown.startswith("teddytok: ")
            assert len(shown.splitlines()) == 1, shown
    assert ended[1][0] == 1
