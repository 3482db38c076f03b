"""Sweep the points of small runs; `sweep.py` starts this with the injector loaded.

A point is a call of a run (the third write, the first rename ...) and what happens to it: an error of the system, half
of the bytes, or the end of the process. After each the same command runs again, undisturbed, and must give the bytes of
a run that was never disturbed. Calls on files below the output folder count, for opening and reading also those below
the folder of the sources. What a power loss takes that was not yet synced is not lost here.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from sweep import LIBRARY

import cells
from command_line import teddytok
from folders import contents
from raises import check_message
from teddytok_rs import verify
from teddytok_rs.output.layout import last_file
from teddytok_rs.output.overwrite import is_replacement_interrupted

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

CALLS = ["write", "fsync", "rename", "open", "read", "unlink", "mkdir", "rmdir", "ftruncate"]
COUNT, FAIL, FAIL_FROM_HERE, KILL, SHORT, TORN = range(6)
#: What may happen to each call.
FAULTS = {
    "write": ["EIO", "ENOSPC", "ENOSPC from here", "short", "torn", "kill"],
    "fsync": ["EIO", "ENOSPC", "kill"],
    "rename": ["EIO", "ENOSPC", "EACCES", "kill"],
    "open": ["EIO", "EACCES", "EMFILE", "EMFILE from here", "kill"],
    "read": ["EIO", "EIO from here", "short", "kill"],
    "unlink": ["EIO", "EACCES", "EACCES from here", "kill"],
    "mkdir": ["EIO", "ENOSPC", "EACCES", "kill"],
    "rmdir": ["EIO", "EACCES", "kill"],
    "ftruncate": ["EIO", "kill"],
}
#: Seconds after which a run hangs.
HANGS = 60


class Plan(ctypes.Structure):
    """The ``struct plan`` of ``inject.c``."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("armed", "call", "action", "error")),
        ("at", ctypes.c_long),
        ("seen", ctypes.c_long * len(CALLS)),
        ("fired", ctypes.c_int),
        ("output", ctypes.c_char * 256),
        ("input", ctypes.c_char * 256),
        ("path", ctypes.c_char * 1024),
    )


@dataclass(frozen=True)
class Point:
    """A call of a run, counted from 0 among those of its kind, and what happens to it."""

    call: str
    number: int
    fault: str

    def __str__(self) -> str:
        return f"{self.call} {self.number}: {self.fault}"

    def arm(self, plan: Plan) -> None:
        what, _, from_here = self.fault.partition(" ")
        plan.call, plan.at, plan.error = CALLS.index(self.call), self.number, getattr(errno, what, 0)
        simple = {"short": SHORT, "torn": TORN, "kill": KILL}
        plan.action = simple.get(what, FAIL_FROM_HERE if from_here else FAIL)


@dataclass(frozen=True)
class Run:
    """A command, and what its folder holds before."""

    name: str
    words: list[str]
    prepare: Callable[[Path], None] = lambda out: None
    replaces: bool = False  # a complete dataset


@dataclass
class Result:
    """How the points of a run ended."""

    n_points: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Sweep:
    """The sources, the runs, and a process for each point of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.out, self.sources = root, root / "out", root / "in"
        self.sources.mkdir()
        self._memory = mmap.mmap(-1, ctypes.sizeof(Plan))  # shared with the children
        self.plan = Plan.from_buffer(self._memory)
        self.plan.output, self.plan.input = os.fsencode(self.out), os.fsencode(self.sources)
        ctypes.CDLL(os.environ[LIBRARY]).faults_use(ctypes.byref(self.plan))
        forms = {"a": sparse.csr_matrix, "b": sparse.csc_matrix, "c": np.asarray}
        for seed, (name, form) in enumerate(forms.items()):
            matrix = form(np.log1p(cells.make_counts(30, seed=seed)))
            cells.save(cells.with_layer(matrix, site=["left", "right"] * 15), self.sources / f"{name}.h5ad")
        self.runs = list(self._make_runs())

    def _config(self, name: str, **keys: object) -> str:
        mapping = cells.write_json(self.sources / "tissues.json", {"left": "blood", "right": "lung"})
        medians = cells.write_json(self.sources / "medians.json", dict.fromkeys(cells.GENES, 2.0))
        keys = {
            "max_shard_samples": 12,
            "label_column": "site",
            "bio_annotations": True,
            "median_dict": medians,
            **keys,
        }
        keys |= {"tissue_mapping": mapping, "tissue_column": "site", "add_cls": True}
        keys |= {f"{kind}_column": "site" for kind in ("disease", "cell", "sex")}
        return cells.write_json(self.sources / f"{name}.json", cells.make_args(self.sources, **keys))

    def _make_runs(self) -> Iterator[Run]:
        a = str(self.sources / "a.h5ad")
        common = ["-o", str(self.out), "--threads", "1", "--quiet"]
        for format_ in ("arrow", "parquet", "webdataset"):
            yield Run(format_, ["tokenize", a, "-c", self._config(format_, format=format_), *common])
        arrow = ["tokenize", a, "-c", self._config("arrow"), *common]
        yield Run("corpus", ["tokenize", str(self.sources), "-c", self._config("arrow"), *common])
        for format_ in ("arrow", "parquet"):
            old = ["tokenize", a, "-c", self._config(f"old-{format_}", max_seq_len=5, format=format_), *common]
            words = ["tokenize", a, "-c", self._config(format_, format=format_), *common, "--overwrite"]
            yield Run(f"overwrite, {format_}", words, self._after(old), replaces=True)
        yield Run("repair", arrow, self._after(arrow, self._damage))
        yield Run("resume", arrow, self._after(arrow, point=Point("rename", 2, "kill")))
        corpus = ["tokenize", str(self.sources), "-c", self._config("arrow"), *common]
        yield Run("resume of a corpus", corpus, self._after(corpus, point=Point("rename", 9, "kill")))

    def _after(
        self, words: list[str], then: Callable[[], None] = lambda: None, point: Point | None = None
    ) -> Callable[[Path], None]:
        """Return a function that fills a folder with what a command leaves; the second time, with a copy of that."""
        made = self.root / f"before {len(list(self.root.iterdir()))}"
        made.mkdir()

        def prepare(out: Path) -> None:
            kept = made / "out"
            if not kept.exists():
                self.child(lambda: teddytok(*words), point)
                then()
                out.rename(kept)
            shutil.copytree(kept, out)

        return prepare

    def _damage(self) -> None:
        for name in ("data-00001-of-00003.arrow", "genes.csv"):
            path = self.out / "a" / name
            path.write_bytes(path.read_bytes()[:-8])

    # ---- processes

    def child(self, work: Callable[[], object], point: Point | None = None) -> tuple[int, str]:
        """Do some work in a forked process; its exit status, negative for a signal, and what it printed."""
        self.plan.armed = self.plan.fired = 0
        ctypes.memset(self.plan.seen, 0, ctypes.sizeof(self.plan.seen))
        self.plan.action = COUNT
        if point is not None:
            point.arm(self.plan)
        log = self.root / "log"
        sys.stdout.flush()
        if (process := os.fork()) == 0:
            code = 70
            try:
                signal.alarm(HANGS)
                target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(target, 1)
                os.dup2(target, 2)
                self.plan.armed = 1
                work()
                code = 0
            except BaseException:  # whatever it is, the parent gets it
                import traceback

                self.plan.armed = 0
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        self.plan.armed = 0
        return status, log.read_text(encoding="utf-8", errors="replace")

    # ---- points

    def reset(self, run: Run) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        run.prepare(self.out)

    def undisturbed(self, run: Run) -> tuple[dict[str, str], dict[str, str], list[Point]]:
        """What the folder holds before and after a run, and all its points."""
        self.reset(run)
        before = everything(self.out)
        status, log = self.child(lambda: check_end(teddytok(*run.words), None, self.root))
        assert status == 0, log
        counts = dict(zip(CALLS, self.plan.seen, strict=True))
        points = [Point(call, i, fault) for call in CALLS for fault in FAULTS[call] for i in range(counts[call])]
        return before, everything(self.out), points

    def sweep(self, run: Run, most: int | None) -> Result:
        """Sweep the points of a run, or so many of them."""
        self.reset(run)
        assert teddytok(*run.words).returncode == 0  # it imports what a run needs, once for all children
        before, after, points = self.undisturbed(run)
        result = Result()
        if most is not None:
            points = random.Random(most).sample(points, min(most, len(points)))  # the same ones each time
        for point in points:
            result.n_points[point.call] += 1
            self.reset(run)
            outcome, problem = self._try(run, point, before, after)
            result.outcomes[outcome] += 1
            if problem:
                path = os.fsdecode(self.plan.path).removeprefix(f"{self.root}/")
                result.problems.append(f"{run.name}, {point} ({path}): {problem}")
                sys.stderr.write(f"{result.problems[-1]}\n")  # a sweep of all points takes long
        return result

    def _try(self, run: Run, point: Point, before: dict[str, str], after: dict[str, str]) -> tuple[str, str]:
        is_killed = point.fault in {"kill", "torn"}
        outcome = "killed"

        def again() -> None:
            self.plan.armed = 0
            self.check_between(run, before, after)
            check_end(teddytok(*run.words), None, self.root)
            wrong = different(everything(self.out), after)
            assert not wrong, f"after the rerun: {wrong}"
            checked = verify(self.out if "corpus" in run.name else self.out / "a")
            assert (checked.problems, checked.notes) == ([], []), f"verify: {checked.problems} {checked.notes}"

        def once() -> None:
            first = teddytok(*run.words)
            self.plan.armed = 0
            print("refused" if first.returncode else "absorbed")  # noqa: T201 -- to the log
            check_end(first, point, self.root)
            if first.returncode == 0:
                wrong = different(everything(self.out), after)
                assert not wrong, f"it ended well: {wrong}"
            again()  # in the same process, as a notebook does

        status, log = self.child(once, point)
        if not self.plan.fired:
            return "not reached", "the call was not made again: the run is not deterministic"
        if is_killed:
            if status != -signal.SIGKILL:
                return outcome, f"survived a kill: {last_line(log)}"
            status, log = self.child(again)
        else:
            outcome = log.partition("\n")[0]
        if status < 0:
            return "signal", f"ended by {signal.Signals(-status).name}"
        return outcome, last_line(log) if status else ""

    def check_between(self, run: Run, before: dict[str, str], after: dict[str, str]) -> None:
        """Check that of an overwritten dataset the old or the new one is complete, after whatever happened."""
        if not run.replaces:
            return
        folder = self.out / "a"
        now = {name: sha for name, sha in everything(self.out).items() if "/.teddytok" not in name}
        now = {name: sha for name, sha in now.items() if not name.endswith(".part")}
        if not different(now, before) or not different(now, after):
            if not is_replacement_interrupted(folder):
                assert verify(folder).problems == [], "neither the old nor the new dataset can be read"
            return
        assert is_replacement_interrupted(folder), f"neither old nor new: {different(now, after)}"
        moved = {sha for name, sha in everything(self.out).items() if not name.endswith(".part")}
        lost = [name for name, sha in after.items() if sha not in moved and sha]
        assert not lost, f"of the new dataset {lost} are lost"
        last = last_file("parquet" if "parquet" in run.name else "arrow")
        assert f"a/{last}" not in now, "a mixture is taken for a dataset"


def everything(folder: Path) -> dict[str, str]:
    """Map each file below a folder to its checksum, and each folder to nothing."""
    folders = {f"{path.relative_to(folder).as_posix()}/": "" for path in folder.rglob("*") if path.is_dir()}
    return contents(folder) | folders


def different(there: dict[str, str], wanted: dict[str, str]) -> str:
    """List the names of what differs."""
    names = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
    return ", ".join(
        f"{name} {'lacks' if name not in there else 'left' if name not in wanted else 'differs'}" for name in names
    )


def check_end(process: subprocess.CompletedProcess[str], point: Point | None, root: Path) -> None:
    """Check how a command ended: well, or with one error of ours that names a file and what the system said."""
    if process.returncode == 0:
        return
    assert point is not None, f"the undisturbed run ended with {process.returncode}: {process.stderr}"
    lines = process.stderr.splitlines()
    assert process.returncode in {1, 2}, f"exit code {process.returncode}: {lines}"
    assert "Traceback" not in process.stderr, lines
    reason = os.strerror(getattr(errno, point.fault.split()[0], 0)).lower()
    error = [line for line in lines if line.startswith("teddytok: ") and reason in line.lower() and str(root) in line]
    assert error, f"no error says {reason!r} and where: {lines}"
    check_message(error[-1])


def tally(n_points: Counter[str]) -> str:
    return f"{n_points.total()} points ({', '.join(f'{call} {n}' for call, n in n_points.items())})"


def last_line(log: str) -> str:
    return (log.strip().splitlines() or ["nothing was printed"])[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="sweep all points")
    parser.add_argument("--most", type=int, default=20, help="points of each run, without --all")
    parser.add_argument("--runs", nargs="*", help="names of runs, of all if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="teddytok-faults-") as folder:
        root = Path(folder).resolve()
        sweep = Sweep(root)
        n_problems = 0
        totals: Counter[str] = Counter()
        for run in sweep.runs:
            if options.runs and run.name not in options.runs:
                continue
            result = sweep.sweep(run, None if options.all else options.most)
            n_problems += len(result.problems)
            totals += result.n_points
            ends = ", ".join(f"{n} {outcome}" for outcome, n in result.outcomes.items())
            lines = [f"{run.name}: {tally(result.n_points)}; {ends}; {len(result.problems)} problems", *result.problems]
            sys.stdout.write("\n  ".join(lines) + "\n")
            sys.stdout.flush()
        sys.stdout.write(f"in all: {tally(totals)}; {n_problems} problems\n")
    return 1 if n_problems else 0


if __name__ == "__main__":
    sys.exit(main())
