"""Try random expressions as `cell_filter`, and print as JSON what came of them.

``fuzz_cell_filter.py COUNT SEED [SECONDS]`` stops after so many expressions or seconds.

An audit hook notes, and stops, whatever would open, import, compile or start anything. Each expression must end in
cells, in `no_cells_kept` or in an error of the kind `cell_filter`; any other end is a traceback.
"""

from __future__ import annotations

import builtins
import json
import os
import random
import sys
import time
import warnings

import numpy as np
import pandas as pd

from teddytok_rs import TeddytokError
from teddytok_rs.mapping.cells import filter_cells

N = 4
COLUMNS = {
    "text": pd.Series(["blood", "lung", None, "αβ T"], dtype=object),
    "cat": pd.Categorical(["T cell", "B cell", None, "T cell"]),
    "stage": pd.Categorical(["lo", "mid", "hi", None], categories=["lo", "mid", "hi"], ordered=True),
    "n": np.arange(N),
    "x": [0.5, np.nan, 2.0, np.inf],
    "flag": [True, False, True, True],
    "maybe": pd.array([True, None, False, True], dtype="boolean"),
    "count": pd.array([1, None, 3, 4], dtype="Int64"),
    "string": pd.array(["blood", None, "b", "B"], dtype="string"),
    "day": pd.to_datetime(["2020-01-01", "2021-05-01", None, "2019-01-01"]),
    "my col": [3, 2, 1, 0],
    "a`b": [3, 2, 1, 0],
    "a.b": [3, 2, 1, 0],
}
NAMES = ["text", "cat", "stage", "n", "x", "flag", "maybe", "count", "string", "day", "`my col`", "`a``b`", "`a.b`"]
VALUES = [
    "'blood'", '"T cell"', "'lo'", "'2020-01-01'", "0", "1", "2.5", "-1", "1e3", "0x10", "True", "False", "inf", "None",
    "''", "['blood', 'lung']", "[1, 2]", "(1,)", "[]", "r'\\d+'", "'\\x41'", "'''a'''", "[None]",
    "99999999999999999999999",
]  # fmt: skip
OPERATORS = [
    " == ", " != ", " < ", "<=", ">", ">= ", " in ", " not in ", " and ", " or ", "&", "|", " + ", "-", "*", "/", "//",
    "%",
]  # fmt: skip
METHODS = [
    ".isin([1, 'blood'])", ".between(0, 2)", ".isna()", ".notna()", ".str.contains('b', na=False)", ".str.lower()",
    ".str.contains('(a+)+$')", ".str.startswith('b', na=True)", ".str.upper()", ".str[0]", ".str.endswith('')",
]  # fmt: skip
HOSTILE = [
    "__import__('os').system('touch pwned')", "open('pwned', 'w')", "eval('1')", "exec('import os')", "@x", "@pd",
    "@__builtins__", ".__class__", ".__class__.__mro__[1].__subclasses__()", ".__globals__['os']",
    ".map.__globals__['sys'].modules['os']", ".to_csv('pwned')", ".to_pickle('pwned')", ".apply(print)", ".eval('1')",
    ".pipe(open)", "lambda: 0", "x = ", "x := ", " if ", " else ", " for c in ", "**", "<<", ">>", "^", "`", "``",
    "`my col", "`a`b`", "'", '"', "'''", "\\", "\0", "\n", "\r\n", "#", ";", "{", "}", "[", "]", "(", ")", ",", ".",
    "=", "@", "$", "!", "?", ":", "…", "\u202e", "\ud800", "٣", "\U0001d427", "é", "\u00a0", "b'x'", "f'{n}'", "1j",
    "1_0", "0777", "9" * 200, "...", "->", "await ", "yield ", "print", "os", "sys", "pd", "np", "__builtins__",
    "__name__", ".str", ".str.", ".isin", ".isin(", ".str.contains(", ".str.contains('(?=a)')", ".str.contains('(')",
    ".between(", "na=", "flags=2", "case=False", "regex=False", ".str.cat(text)", ".dt.year", ".values", ".index",
    "index", "columns", "list", "datetime", "Timestamp('now')", ".str.contains('[')", ".str.contains('a{1000}')",
    ".str.contains('((a{99}){99}){99}')", "'\\N{DIGIT ONE}'", "'\\ud800'", "'\\U99999999'", "'\\'", "day", "'now'",
    "'1 day'", "'2020-01-01 00:00+14:00'", "'99999-01-01'", " is ", " not ", "~",
]  # fmt: skip
STOPPED = (
    "exec", "compile", "import", "open", "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "marshal.", "pickle.",
    "code.", "pty.", "glob.", "urllib.", "tempfile.", "cpython.", "builtins.input", "sys.addaudithook", "webbrowser.",
)  # fmt: skip


class Source:
    """As much of a source as a filter needs."""

    name, n_cells, obs_columns = "cells", N, list(COLUMNS)

    def __init__(self) -> None:
        self._obs = pd.DataFrame(COLUMNS)

    def obs_column(self, column: str, start: int = 0, stop: int | None = None) -> pd.Series:
        return self._obs[column].iloc[start:stop]


def harmless(rng: random.Random, depth: int = 0) -> str:
    """Most often a valid expression, whose types seldom fit."""
    choice = rng.random()
    if depth > 3 or choice < 0.45:
        return rng.choice(NAMES) + rng.choice(OPERATORS[:8]) + rng.choice(VALUES)
    if choice < 0.6:
        return rng.choice(NAMES) + rng.choice(METHODS)
    if choice < 0.7:
        return rng.choice(["not ", "~", "-"]) + f"({harmless(rng, depth + 1)})"
    if choice < 0.8:
        return (
            rng.choice(NAMES) + rng.choice(OPERATORS) + rng.choice(NAMES) + rng.choice(OPERATORS) + rng.choice(VALUES)
        )
    return f"({harmless(rng, depth + 1)}){rng.choice([*OPERATORS[8:12], *OPERATORS])}({harmless(rng, depth + 1)})"


def changed(rng: random.Random, expression: str) -> str:
    """Insert, remove or repeat a part."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        start = rng.randrange(len(expression) + 1)
        stop = min(len(expression), start + rng.choice([0, 0, 0, 1, 3, 10]))
        new = rng.choice(
            [rng.choice(HOSTILE), rng.choice(HOSTILE), "", expression[stop:], chr(rng.randrange(0x3000)), *NAMES[:2]]
        )
        expression = expression[:start] + new + expression[stop:]
    return expression


def soup(rng: random.Random) -> str:
    pieces = [*HOSTILE, *NAMES, *VALUES, *OPERATORS, *METHODS]
    return "".join(rng.choice(pieces) for _ in range(rng.choice([1, 2, 3, 5, 8, 20])))


def huge(rng: random.Random) -> str:
    """A megabyte, or a hundred thousand levels."""
    unit = rng.choice(
        [*HOSTILE, *OPERATORS, *METHODS, *NAMES, "(", "[", "not ", "~", "-", "n > 1 and ", "n.isin([", "1,", "'a' "]
    )
    n_units = 100_000 if len(unit) < 10 else 1_000_000 // len(unit)
    return (
        rng.choice(["", "n in [", "n == ", "text == '", "("])
        + unit * n_units
        + rng.choice(["", "n", ")" * 100_000, "1]", "'"])
    )


def make(rng: random.Random) -> str:
    choice = rng.random()
    if choice < 0.3:
        return harmless(rng)
    if choice < 0.7:
        return changed(rng, harmless(rng))
    return soup(rng) if choice < 0.9995 else huge(rng)


def run(count: int, seed: int, seconds: float = float("inf")) -> dict[str, object]:
    rng = random.Random(seed)
    source = Source()
    ends = {"masks": 0, "none_kept": 0, "refused": 0}
    events: list[str] = []
    is_watching = False

    def watch(event: str, args: tuple[object, ...]) -> None:
        if is_watching and event.startswith(STOPPED):
            events.append(f"{event}: {expression!r:.300}")
            raise RuntimeError(event)

    def attempt(expression: str) -> str:
        try:
            cells = filter_cells(source, expression)
        except TeddytokError as bad:
            if bad.kind not in {"cell_filter", "no_cells_kept"}:
                raise
            return "refused" if bad.kind == "cell_filter" else "none_kept"
        rows = np.arange(N) if cells.rows is None else cells.rows
        assert rows.dtype == np.int64
        assert len(rows) > 0
        assert set(rows) <= set(range(N))
        return "masks"

    # Modules that pandas and pyarrow import when they are first needed, and the time zone database's UTC
    pairs = (left + symbol + right for left in NAMES for symbol in OPERATORS for right in [*NAMES, "1", "'a'"])
    dates = (f"day == {text}" for text in HOSTILE if text.startswith("'"))
    for expression in [*HOSTILE, *pairs, *dates, *(harmless(random.Random(number)) for number in range(1000))]:
        attempt(expression)
    sys.addaudithook(watch)
    for name in ("eval", "exec", "compile", "open"):
        setattr(builtins, name, guarded(name, getattr(builtins, name), events, lambda: is_watching))
    end_of_time = time.monotonic() + seconds
    while sum(ends.values()) < count and time.monotonic() < end_of_time:
        expression = make(rng)
        is_watching = True
        try:
            end = attempt(expression)
        finally:
            is_watching = False
        ends[end] += 1
    return {"expressions": sum(ends.values()), "seed": seed, **ends, "events": events[:20]}


def guarded(name: str, original: object, events: list[str], is_watching: object) -> object:
    def call(*args: object, **keywords: object) -> object:
        if is_watching():
            events.append(f"builtins.{name}")
            raise RuntimeError(name)
        return original(*args, **keywords)

    return call


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.stdout.write(json.dumps(run(*map(int, sys.argv[1:]))))
    sys.stdout.flush()
    os._exit(0)  # nothing at exit needs what is guarded
