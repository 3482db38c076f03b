"""What tests of several folders share, and what only a whole run of the tests can show."""

from __future__ import annotations

import itertools
import os
import tempfile
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from raises import RAISED
from teddytok_rs.errors.catalogue import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
#: Folders of tools, in which anything may appear while tests run.
TOOLS = {".git", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", "__pycache__", "target"}
FILES_BEFORE, WRONG = pytest.StashKey[set[str]](), pytest.StashKey[list[str]]()


@pytest.fixture
def interrupt_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Give a context manager in which a run must be interrupted after so many shards."""
    from teddytok_rs.output import run

    @contextmanager
    def interrupting(n_shards: int) -> Iterator[None]:
        write, shards = run.write_shard, itertools.count()

        def interrupt(*args: Any, **kwargs: Any) -> Any:
            if next(shards) >= n_shards:
                raise KeyboardInterrupt
            return write(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(run, "write_shard", interrupt)
            with pytest.raises(KeyboardInterrupt):
                yield

    return interrupting


# ---- a whole run: every kind of error was raised, and nothing was written next to the tests


def is_whole(config: pytest.Config) -> bool:
    """Return whether all tests run, slow ones included."""
    return (
        config.args_source is not config.ArgsSource.ARGS
        and config.getoption("markexpr") in {"", "not slow"}
        and not any(config.getoption(name, None) for name in ("keyword", "deselect", "ignore", "ignore_glob", "lf"))
    )


def files_of_the_project() -> set[str]:
    """List the files below the project's folder, those of tools left out."""
    found: set[str] = set()
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in TOOLS]
        found.update(f"{folder}/{file}" for file in files)
    return found


def pytest_configure(config: pytest.Config) -> None:
    """Begin to note what only a whole run shows; processes that pytest-xdist starts inherit the file's name."""
    if is_whole(config) and not hasattr(config, "workerinput"):
        handle, os.environ[RAISED] = tempfile.mkstemp()
        os.close(handle)
        config.stash[FILES_BEFORE] = files_of_the_project()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a whole run that left something out, or something behind."""
    config = session.config
    if FILES_BEFORE not in config.stash:
        return
    file = Path(os.environ.pop(RAISED))
    raised = set(file.read_text(encoding="utf-8").splitlines())
    file.unlink()
    if exitstatus != pytest.ExitCode.OK:
        return
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = {report.nodeid.partition("::")[0] for report in reporter.stats.get("skipped", [])}
    excused = "".join((ROOT / name).read_text(encoding="utf-8") for name in skipped)
    missing = [kind for kind in KINDS if kind not in raised and f'"{kind}"' not in excused]
    left = sorted(files_of_the_project() - config.stash[FILES_BEFORE])
    wrong = config.stash[WRONG] = []
    wrong += [f"no test raised the error {kind!r}" for kind in missing]
    wrong += [f"a test wrote {name}, which is not in tmp_path" for name in left]
    if wrong:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what a whole run left out or behind."""
    if wrong := config.stash.get(WRONG, []):
        terminalreporter.section("the run as a whole")
        terminalreporter.write("".join(f"{line}\n" for line in wrong), red=True)
