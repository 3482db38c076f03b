"""Run the command line: in this process, where starting Python would take most of the time, or as a user does."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

from teddytok_rs.cli import main

if TYPE_CHECKING:
    from pathlib import Path

MODULE = [sys.executable, "-m", "teddytok_rs"]
#: Python shows none of these in a separate process.
HIDDEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


def teddytok(*words: Any, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Call `cli.main` with words as of a shell; the result is as that of `subprocess.run`."""
    command = ["teddytok", *map(str, words)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as resources:
        if cwd is not None:
            resources.enter_context(contextlib.chdir(cwd))
        resources.enter_context(mock.patch.object(sys, "argv", command))
        resources.enter_context(mock.patch.dict(os.environ, {"COLUMNS": "80"}))
        resources.enter_context(contextlib.redirect_stdout(out))
        resources.enter_context(contextlib.redirect_stderr(err))
        caught = resources.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("default")
        for hidden in HIDDEN:
            warnings.simplefilter("ignore", hidden)
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except Exception:  # as --debug asks for
            traceback.print_exc()
            code = 1
    shown = [warnings.formatwarning(it.message, it.category, it.filename, it.lineno) for it in caught]
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue() + "".join(shown))


def teddytok_process(*words: Any, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a separate process."""
    command = [*MODULE, *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
