"""`cell_filter`: the cells that `pandas.DataFrame.eval` gives, one error for all else, and never any code run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import cells
import teddytok_rs
from raises import raises
from teddytok_rs import demo
from teddytok_rs.mapping.cells import filter_cells
from teddytok_rs.mapping.filter.cell_filter import CellFilter
from teddytok_rs.mapping.filter.grammar import DEPTH, LENGTH, METHODS, OPERATIONS, quote
from teddytok_rs.mapping.filter.patterns import LabelPattern, PatternError
from teddytok_rs.mapping.filter.tokens import ALLOWED, FilterError

HERE = Path(__file__).parent
#: Two labels that only other letters than those of ASCII tell apart, missing values, infinities, and ties.
FRAME = pd.DataFrame(
    {
        "text": pd.Series(["blood", "lung", None, "Blood", "αβ T", "lung"], dtype=object),
        "other": pd.Series(["lung", "lung", "x", "Blood", "αβ T", "blood"], dtype=object),
        "cat": pd.Categorical(["T cell", "B cell", None, "T cell", "NK", "B cell"]),
        "stage": pd.Categorical(["lo", "mid", "hi", "lo", None, "hi"], categories=["lo", "mid", "hi"], ordered=True),
        "batch": pd.Categorical([1, 2, 3, 1, 2, 3]),
        "n": np.arange(6),
        "m": np.arange(6, dtype=np.int32)[::-1] - 2,
        "x": [0.5, np.nan, 2.0, 3.0, -1.0, np.inf],
        "x4": np.array([0.1, 0.2, np.nan, 3, 4, 5], dtype=np.float32),
        "flag": [True, False, True, True, False, False],
        "is_b": [False, False, True, True, True, False],
        "maybe": pd.array([True, None, False, True, False, None], dtype="boolean"),
        "mixed": pd.Series([True, False, None, True, False, True], dtype=object),
        "count": pd.array([1, None, 3, 4, 5, 6], dtype="Int64"),
        "string": pd.array(["blood", None, "b", "B", "c", "lung"], dtype="string"),
        "words": pd.Series(["blood", None, "b", "B", "c", "lung"]),  # of a type of its own from pandas 3 on
        "day": pd.to_datetime(["2020-01-01", "2021-05-01", None, "2019-01-01", "2020-01-01", "2022-01-01"]),
        "until": pd.to_datetime(["2020-02-01", "2021-05-01", None, "2019-01-09", "2020-01-01", "2022-01-01"]),
        "utc": pd.to_datetime(["2020-01-01", "2021-05-01", None, "2019-01-01", "2020-01-01", "2022-01-01"], utc=True),
        "my col": range(6),
        "index": range(6, 0, -1),
    }
)


def kept(expression: str, frame: pd.DataFrame = FRAME) -> list[bool]:
    return CellFilter.parse(expression, list(frame)).evaluate(frame.__getitem__).tolist()


def kept_by_pandas(expression: str, frame: pd.DataFrame = FRAME) -> list[bool] | int:
    """What pandas' own evaluation keeps, or the number of cells for which it has no value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas deprecates some of what it still does
        result = frame.eval(expression, engine="python", local_dict={}, global_dict={})
    assert isinstance(result, pd.Series), expression
    assert pd.api.types.is_bool_dtype(result), expression
    return int(result.isna().sum()) or result.tolist()


class Source:
    """As much of a source as a filter needs, which notes what was read of it."""

    name, n_cells, obs_columns = "cells.h5ad", len(FRAME), list(FRAME)

    def __init__(self) -> None:
        self.read: list[str] = []

    def obs_column(self, column: str, start: int = 0, stop: int | None = None) -> pd.Series:
        self.read.append(column)
        return FRAME[column].iloc[start:stop]


# ---- the same cells as pandas


@pytest.mark.parametrize(
    "expression",
    [
        # text and categories, also missing ones
        "text == 'blood'", "text != 'blood'", "'blood' == text", "'blood' in text", "text in 'blood'",
        "text in other", "text not in other", "text == other", "text < 'c'", "text < other", "text >= \"lung\"",
        "text + other == 'lunglung'", "text.str.upper() + other == 'LUNGlung'", "text == 1", "text in ['blood', 3]",
        "words == 'blood'", "words != 'blood'", "words < 'c'", "words == other", "words.str.contains('b') and n < 9",
        "words.str.contains('b', na=True)", "words.str.contains('(b|l)') or n > 4", "words in ['b', None]",
        "string == 'blood'", "string != 'blood'", "string == ['blood', 'b']", "string < 'c'", "string == string",
        "cat == 'T cell'", "cat != 'T cell'", "cat == 'absent'", "cat in ['NK', 'absent']", "cat == cat", "cat == text",
        "stage < 'hi'", "stage >= 'mid'", "'lo' < stage", "stage == 'lo'", "stage.between('lo', 'mid')",
        "stage > stage",
        "batch == 1", "batch in [1, 9]", "batch != 9", "text in [None, 'lung']", "text.isin([None])",
        # lists and tuples
        "n == [1, 2]", "n != (1, 2)", "[1, 2] == n", "[1, -2] in m", "n in ()", "n in []", "n in [1, 2,]", "n in (1,)",
        "n % 3 in [0, 1]", "n not in [0]", "n in [True]", "n in [1.0, +2, -3]", "count in [1, 3]", "n == 'a'",
        "n != 'a'",
        # numbers
        "n // 2 == 1", "n / 0 > 1", "n % 0 == 0", "-n < -2", "- - n > 2", "+n > 2", "n - m * 2 > 0", "(n - m) * 2 > 0",
        "n < inf", "x == Inf", "x > -inf", "x == x", "x != x", "x4 == 0.1", "x4 > 0.1", "x4 < 1e300", "x4 * 2 > 0.3",
        "n == 0x1", "n == 0b10", "n == 0o3", "n == 1_0", "n == 1.", "n == .5e1", "n > 5E-1", "n == -1", "n == True",
        "n + True == 2", "flag + flag == 2", "flag * 2 == 2", "-flag == 1", "n == 99999999999999999999999999",
        "count > 3", "count + n > 4", "x / n > 1", "count == [1, 3]", "count != 1",
        # chains and precedence
        "1 < n < 4", "1 < n < 4 > m", "n == m in [2, 3]", "0 < n <= m < 4", "n > 1 & m > 1", "n > 1 | m > 1 & flag",
        "n > 1 or m > 1 and flag", "~flag & n > 1", "~flag == 1", "not flag", "not n > 2", "not flag & n > 1",
        "not not flag", "not ~flag", "flag and True", "flag or False", "n > 1 and 1 == 1", "1 == 1 and n > 1",
        "n < m and not text == 'blood' or flag", "(n < 3 or flag) and (is_b)", "n + 1 < m - -1 == True",
        # booleans with missing values
        "maybe", "maybe and n > 2", "n > 2 and maybe", "not maybe", "maybe == True", "maybe or flag",
        "maybe.notna() and maybe", "maybe.isna() or maybe", "mixed and n > 0", "n > 0 and mixed", "mixed or n > 4",
        "mixed == True", "count > 3 and count.notna()",
        # methods
        "n.between(1, 3)", "n.between(1, 3, inclusive='left')", "n.between(1, 3, 'neither')", "n.between(m, 4)",
        "n.between(right=4, left=m)", "text.between('b', 'lung', inclusive = 'right')", "n.isin(m)", "text.isin(other)",
        "n.isin(values=[1, 2])", "x.isna()", "x.notna() & x > 1", "text.isna() or cat.isna()",
        "text.str.contains('lu') and n > 0", "n > 0 and text.str.contains('lu')", "text.str.contains('lu') or n > 4",
        "not text.str.contains('lu', na=False)", "text.str.contains('lu', na=True)", "cat.str.contains('T', na=False)",
        "cat.str.contains('t', case=False, na=False)", "cat.str.contains('t', False, 0, False)",
        "cat.str.contains('t', flags=2, na=False)", "cat.str.contains('.', regex=False, na=False)",
        "cat.str.contains('T|N') and n < 9", "cat.str.contains('^[^T ]+ ', na=False)", "string.str.contains('b')",
        "cat.str.contains('(?i)t cell', na=False)", "cat.str.contains('CELL', case=False, regex=False, na=False)",
        "string.str.contains('b', na=False)", "string.str.contains('b') and n > 1",
        "text.str.contains(r'\\w T', na=False)",
        "cat.str.startswith('T', False)", "cat.str.endswith('cell', na=False)", "string.str.startswith('b')",
        "text.str.startswith('b') and n < 9", "cat.str.lower() == 't cell'", "cat.str.lower().isin(['nk'])",
        "text.str.upper().str.contains('LU', na=False)", "text.str[0] == 'b'", "cat.str[-1] == 'l'",
        # dates
        "day > '2020-01-01'", "'2020-01-01' < day", "day == 2020", "day > 2020", "day == until", "day < until",
        "utc > '2020-01-01T00:00+01:00'", "utc >= '2020-01-01T01:00+01:00'", "until - day < '5 days'",
        "day.between('2019-06-01', '2021-01-01')",
        # names and text as they may be written
        "`my col` > 2", "`n` > 2", "`my col`+n>4", "index > 3", "text == \"blood\"  # as in the paper",
        "text == r'lung'",
        "text == u'lung'", "text == '\\x6cung'", "text == '''lung'''", "text == \"\"\"lung\"\"\"", "text == '\\154ung'",
        "text == '\\u03b1\\u03b2 T'", "text == '\\N{GREEK SMALL LETTER ALPHA}β T'",
        "  n>1\tand\tm  > 1 ", "(((n)))>1", "((text))=='lung'",
    ],
)  # fmt: skip
def test_an_expression_keeps_the_cells_that_pandas_keeps(expression):
    expected = kept_by_pandas(expression)
    if isinstance(expected, int):
        with pytest.raises(FilterError, match=f"^{expected} of 6 cells have no value$"):
            kept(expression)
    else:
        assert kept(expression) == expected


SIGNS = st.sampled_from(["", "", "", "-"])
NUMBERS = st.builds(str.__add__, SIGNS, st.sampled_from(["0", "1", "2", "3.5", "1e1", "0x2", "100"]))
TEXTS = st.sampled_from(["'blood'", '"lung"', "'B'", "'b'", "''", "'T cell'", "'NK'", "'no such'"])
FEW = st.integers(0, 3)


def lists(of: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    items = st.lists(of, max_size=4).map(", ".join)
    return st.builds("[{}]".format, items) | st.builds("({},)".format, st.lists(of, min_size=1).map(", ".join))


def joined(*parts: st.SearchStrategy[str] | str) -> st.SearchStrategy[str]:
    return st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts)).map("".join)


NUMERIC = st.recursive(
    st.sampled_from(["n", "m", "x", "x4", "count", "`my col`", "index", "flag"]) | NUMBERS,
    lambda inner: (
        joined("(", inner, st.sampled_from([" + ", " - ", "*", " / ", " // ", " % "]), inner, ")") | joined("-", inner)
    ),
    max_leaves=4,
)
TEXTUAL = st.sampled_from(
    ["text", "other", "cat", "string", "words", "text.str.lower()", "cat.str.upper()", "string.str.lower()"]
)
EQUALS = st.sampled_from([" == ", " != ", " in ", " not in "])
ORDERS = st.sampled_from([" == ", " != ", " < ", " <= ", ">", ">="])
INCLUSIVE = st.sampled_from(["", ", 'left'", ", inclusive='right'", ", inclusive = 'neither'"])
NA = st.sampled_from([", na=False", ", na=True", ""])
NAMED_NUMBERS = st.sampled_from(["n", "m", "x", "x4", "count"])
SIMPLE = st.one_of(
    st.sampled_from(["flag", "is_b", "maybe", "mixed"]),
    joined(NAMED_NUMBERS, ORDERS, NUMERIC),
    joined(NUMBERS, ORDERS, NAMED_NUMBERS, ORDERS, NUMERIC),
    joined(NAMED_NUMBERS, EQUALS, lists(NUMBERS)),
    joined(TEXTUAL, EQUALS, TEXTS),
    joined(TEXTS, EQUALS, TEXTUAL),
    joined(TEXTUAL, EQUALS, lists(TEXTS)),
    joined(st.sampled_from(["text", "other"]), ORDERS, TEXTS | st.sampled_from(["text", "other"])),
    joined("string", ORDERS, TEXTS),
    joined("stage", ORDERS, st.sampled_from(["'lo'", "'mid'", "'hi'", "stage"])),
    joined("batch", st.sampled_from([" == ", " != "]), NUMBERS),
    joined(NAMED_NUMBERS, ".between(", NUMERIC, ", ", NUMERIC, INCLUSIVE, ")"),
    joined(NAMED_NUMBERS | TEXTUAL, st.sampled_from([".isna()", ".notna()"])),
    joined(TEXTUAL, ".isin(", lists(TEXTS), ")"),
    joined(TEXTUAL, st.sampled_from([".str.startswith(", ".str.endswith(", ".str.contains("]), TEXTS, NA, ")"),
    joined(TEXTUAL, ".str.contains(", TEXTS, st.sampled_from([", case=False", ", regex=False", ", False"]), NA, ")"),
    joined("day", ORDERS, st.sampled_from(["2020", "2021", "until"])),
    joined("day", st.sampled_from([" < ", ">="]), st.sampled_from(["'2020-01-01'", "'2021'"])),
)
WHOLE = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        joined("(", inner, ")"),
        joined(inner, st.sampled_from([" and ", " or ", " & ", " | "]), inner),
        joined("not ", inner),
        joined("~(", inner, ")"),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=int(os.environ.get("TEDDYTOK_FILTER_EXAMPLES", "200")))
@given(WHOLE, st.permutations(range(6)))
def test_any_harmless_expression_keeps_the_cells_that_pandas_keeps(expression, rows):
    # Before version 2.2, pandas divided constants as NumPy does, and integers that may be missing as floats.
    assume("/" not in expression or tuple(map(int, pd.__version__.split(".")[:2])) >= (2, 2))
    frame = FRAME.iloc[rows].reset_index(drop=True)
    try:
        expected = kept_by_pandas(expression, frame)
    except Exception:  # what pandas cannot compute may be an error here too, but no other one
        with contextlib.suppress(FilterError):
            kept(expression, frame)
        return
    if isinstance(expected, int):
        with pytest.raises(FilterError, match=f"^{expected} of 6 cells have no value$"):
            kept(expression, frame)
    else:
        assert kept(expression, frame) == expected


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("day == '2020-01-01'", [0, 4]),
        ("day != '2020-01-01'", [1, 2, 3, 5]),
        ("day in ['2020-01-01', '2022-01-01']", [0, 4, 5]),
        ("day.isin(['2020-01-01'])", [0, 4]),
        ("until - day == '8 days'", [3]),
        ("until - day not in ['0 days', '31 days']", [2, 3]),
    ],
)
def test_dates_may_be_written_as_text(expression, rows):
    """As with pandas 2; from version 3 on it keeps none of these."""
    assert np.flatnonzero(kept(expression)).tolist() == rows


@pytest.mark.parametrize("date", ["now", "today", "10:30", "10:30:15 +02:00"])
def test_a_date_that_depends_on_the_clock_is_refused(date: str):
    for expression in (f"day < '{date}'", f"day.isin(['{date}'])", f"day.between('2020-01-01', '{date}')"):
        with pytest.raises(FilterError, match="another day each day"):
            kept(expression)


def test_all_of_the_grammar_is_documented():
    page = (HERE.parents[1] / "docs" / "cells.md").read_text(encoding="utf-8")
    for method in METHODS:
        assert f".{method}(" in page
        assert re.search(rf"\b{re.escape(method)}\b", ALLOWED)
    for limit in (LENGTH, OPERATIONS, DEPTH):
        assert f"{limit:,}" in page


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_filtered_cells_of_a_file_are_those_of_the_frame(tmp_path, suffix):
    made = cells.make_cells(6)
    for column in FRAME.columns.difference(["day", "until", "utc", "mixed", "string", "words", "index"]):
        made.obs[column] = FRAME[column].array
    path = cells.save(made, tmp_path / f"cells{suffix}")
    for expression in (
        "maybe.notna() and maybe",
        "stage < 'hi'",
        "n in [1, 4]",
        "text in ['lung', 'αβ T'] or count > 5 & flag",
    ):
        expected = np.flatnonzero(kept_by_pandas(expression))
        args = cells.make_args(tmp_path, cell_filter=expression, obs_columns=["index"])
        for source in (made, path):
            assert teddytok_rs.tokenize(source, args)["cell_id"].to_pylist() == made.obs_names[expected].to_list()
    for expression in ("maybe", "maybe and n > 2"):
        with raises("cell_filter", "of 6 cells have no value", "maybe.notna()"):
            teddytok_rs.tokenize(path, args | {"cell_filter": expression})


# ---- all else is one error


@pytest.mark.parametrize(
    ("expression", "piece", "advice"),
    [
        ("n = 1", "'=' at position 3 sets a column; == compares", "Allowed are"),
        ("n == @m", "'@' at position 6 names a Python variable", "Allowed are"),
        ("n ** 2 > 1", "'**' at position 3 is not allowed here", "+ - * / // %"),
        ("n << 2 > 1", "'<<' at position 3 is not allowed here", "Allowed are"),
        ("n > 1;", "';' at position 6", "Allowed are"),
        ("n > 1 if flag else m", "'if' at position 7", "Allowed are"),
        ("lambda: n", "'lambda' at position 1 is not an obs column", "Name a boolean obs column"),
        ("[c for c in n]", "'c' at position 2 is not an obs column", "Name a boolean"),
        ("open('x') == n", "'open' at position 1 is a function, and none can be called", "Allowed are"),
        ("n.isin(open('x'))", "'open' at position 8 is a function", "Allowed are"),
        ("n.to_csv('x') == 1", "'to_csv' at position 3 is not an allowed method", "str.contains"),
        ("n.__class__ == 1", "'__class__' at position 3 is not an allowed method", "Allowed are"),
        ("text.str.cat(other) == 'x'", "'cat' at position 10 is not an allowed method", "Allowed are"),
        ("n.isin.__globals__ == 0", "'.' at position 7 is in the place of parentheses after .isin", "Write .isin(...)"),
        ("text.str", "it ends too early", "Allowed are"),
        ("n >", "it ends too early", "Allowed are"),
        ("n > 1)", "')' at position 6", "Allowed are"),
        ("(n > 1", "it ends too early", "Allowed are"),
        ("n n", "'n' at position 3 is not allowed here", "Allowed are"),
        ("my col > 2", "'my' at position 1 is not an obs column", "Write obs column 'my col' in backticks: `my col`"),
        ("n > 2 and my col > 2", "'my' at position 11", "`my col`"),
        ("text == blood", "'blood' at position 9 is not an obs column", "tissue == 'blood'"),
        ("txet == 'blood'", "'txet' at position 1 is not an obs column (did you mean 'text'?); there are 'text'",
         "Name"),
        ("`no such` > 1", "'`no such`' at position 1 is not an obs column", "Name"),
        ("text == 'blood", '"\'" at position 9 is not closed', "Allowed are"),
        ("`my col > 1", "'`' at position 1 is not closed", "Allowed are"),
        ("`` > 1", "'`' at position 1 is not closed", "Allowed are"),
        ("n\u00a0> 1", "'\\xa0' at position 2 is not allowed", "Allowed are"),
        ("n > 1\x00", "'\\x00' at position 6 is not allowed", "Allowed are"),
        ("n > 007", "'007' at position 5 is not a valid number", "Allowed are"),
        ("n > 1__0", "'1__0' at position 5 is not a valid number", "Allowed are"),
        ("n == 1j", "'j' at position 7", "Allowed are"),
        ("n > " + "9" * 101, "is not a valid number", "Allowed are"),
        ("text == b'lung'", "'b' at position 9 is not an obs column", "Name"),
        ("text == f'n'", "'f' at position 9 is not an obs column", "Name"),
        ("text in ['lung' 'blood']", "\"'blood'\" at position 17 is not allowed here", "Allowed are"),
        ("text == '\\U99999999'", "holds an escape of no character", "backslash"),
        ("text == 'l\\ung'", "holds an escape of no character", "backslash"),
        ("n == {1}", "'{' at position 6", "Allowed are"),
        ("n[0] == 1", "'[' at position 2", "Allowed are"),
        ("text.str[n] == 'l'", "'n' at position 10 should be a whole number", "Allowed are"),
        ("text.str[0:2] == 'l'", "':' at position 11", "Allowed are"),
        ("n in [m]", "'m' at position 7 should be a number, text in quotes, True or False", "lists of these"),
        ("n in [[1]]", "'[' at position 7 should be", "Allowed are"),
        ("(n > 1, m > 1)", "'(' at position 1 should be", "Allowed are"),
        ("n > 1, m > 1", "',' at position 6", "Allowed are"),
        ("text == None", "'None' at position 9 is allowed in lists alone", "by .isna()"),
        ("True", "it names no obs column; there are 'text'", "Name a boolean obs column"),
        ("1 < 2", "it names no obs column", "Name a boolean obs column"),
        ("not", "it ends too early", "Allowed are"),
        ("n == not flag", "'not' at position 6 is not allowed here", "Allowed are"),
        ("n.between(1)", "')' at position 12 comes too early: .between needs right", "Allowed are"),
        ("n.between(1, 2, 'all')", "\"'all'\" at position 17 is not one of 'both', 'neither', 'left', 'right'",
         "Choose"),
        ("n.between(1, left=2)", "'left' at position 14 is not an argument",
         "The arguments of .between are (left, right, inclusive)"),
        ("n.between(1, 2, 'left', 4)", "'4' at position 25 is not an argument", "The arguments of .between"),
        ("n.between(left=1, 2)", "'2' at position 19 is not an argument", "The arguments of .between"),
        ("n.isna(1)", "'1' at position 8 is not an argument of .isna", "Write .isna()"),
        ("text.str.contains(other)", "'other' at position 19 should be text in quotes", "Allowed are"),
        ("text.str.contains('a', na=0)", "'0' at position 27 should be True or False", "Allowed are"),
        ("text.str.contains('a', na=None)", "'None' at position 27 should be True or False", "Allowed are"),
        ("text.str.contains('a', flags=True)", "'True' at position 30 should be a whole number", "Allowed are"),
        ("text.str.contains('(')", "pattern '(' cannot be searched for", "regex=False takes it as text"),
        ("text.str.contains('(?=a)')", "pattern '(?=a)' cannot be searched for", "Look-around"),
        ("text.str.contains(r'(a)\\1')", "backreferences such as \\1 are not supported", "Look-around"),
        ("text.str.contains('a', flags=64)", "flags = 64 holds others than 2", "regex=False"),
        ("(" * 200 + "n" + ")" * 200 + " > 1", "is nested more than 100 levels deep", "Allowed are"),
        ("not " * 200 + "flag", "is nested more than 100 levels deep", "Allowed are"),
        ("n > 1 or " * 1000 + "flag", "it has more than 1,000 operators", "Test for many values with .isin([...])"),
        ("n > 1 or " * 200_000 + "flag", "it is longer than 1,048,576 characters", "Make a boolean obs column"),
        # types that do not fit
        ("text < 1", "'<' at position 6 cannot be used on obs column 'text' of type object and the number 1",
         "labels with text"),
        ("n < 'a'", "'<' at position 3 cannot be used on obs column 'n' of type int64 and the text 'a'",
         "labels with text"),
        ("n < [1, 2]", "the list [1, 2]", "Use numbers"),
        ("cat < 'T cell'", "only ==, != and in compare categories without an order", "Use numbers"),
        ("stage < 'absent'", "'<' at position 7 cannot be used on obs column 'stage'", "Use numbers"),
        ("batch + 1 == 2", "'+' at position 7 cannot be used on obs column 'batch' of type category", "Use numbers"),
        ("text * 1000000000 == 'a'", "'*' at position 6 cannot be used on", "Use numbers"),
        ("'a' * 1000000000 == text", "'*' at position 5 cannot be used on the text 'a'", "Use numbers"),
        ("text" + " + text" * 11 + " == 'a'", "more than 10 columns of text are joined", "Use numbers"),
        ("-text == 'a'", "'-' at position 1 cannot be used on", "Use numbers"),
        ("flag - flag == 0", "'-' at position 6 cannot be used on obs column 'flag'", "Use numbers"),
        ("1 / 0 < n", "'/' at position 3 cannot be used on the number 1 and the number 0 (ZeroDivisionError", "Use"),
        ("day > 'soon'", "'>' at position 5 cannot be used on obs column 'day'", "Use numbers"),
        ("'a' == 'a' and flag", "one side must be a column", "Use numbers"),
        ("n and flag", "'and' at position 3 cannot be used on obs column 'n' of type int64",
         "comparisons or boolean columns"),
        ("flag & 1", "it takes true or false on both sides", "comparisons or boolean columns"),
        ("not n", "'not' at position 1 cannot be used on obs column 'n'", "comparisons or boolean columns"),
        ("~n == 1", "'~' at position 1 cannot be used on", "comparisons or boolean columns"),
        ("3 in n", "'in' at position 3", "in ['blood', 'lung']"),
        ("n in 3", "it takes a column and a list", "in ['blood', 'lung']"),
        ("n.isin(3)", "'isin' at position 3", "in ['blood', 'lung']"),
        ("text.isin('lung')", "it takes a list", "in ['blood', 'lung']"),
        ("'a'.isna() and flag", "methods are for columns", "Name an obs column"),
        ("n.str.contains('1')", "str is for columns of text", "Compare the column"),
        ("text.str.contains(r'\\bT')", "cannot be used on labels with letters other than a to z", "another way"),
        ("not text.str.contains('a')", "1 of 6 cells have no value", "na=False"),
        # results that are not true or false
        ("n", "it gives values of type int64, not true or false", 'Compare it, as in "n == 0"'),
        ("cat", "it gives values of type category, not true or false", "Compare it, as in \"cat == 'T cell'\""),
        ("my col", "it gives values of type int64", 'Compare it, as in "`my col` == 0"'),
        ("n + 1", "it gives values of type int64", "Name a boolean obs column"),
        ("maybe", "2 of 6 cells have no value", 'Fill the values, or write "maybe.notna() and ..."'),
        ("count > n", "1 of 6 cells have no value", '"count.notna() and n.notna() and ..."'),
        ("text.str.contains('lu')", "1 of 6 cells have no value", '"text.notna() and ..."'),
        ("mixed", "1 of 6 cells have no value", '"mixed.notna() and ..."'),
    ],
    ids=lambda value: value[:30],
)  # fmt: skip
def test_all_else_is_an_error_that_says_what_and_where(expression, piece, advice):
    with pytest.raises(FilterError) as caught:
        kept(expression)
    assert piece in caught.value.reason
    assert advice in caught.value.hint
    source = Source()
    with raises("cell_filter", "cannot be used on cells.h5ad: "):
        filter_cells(source, expression)


def test_labels_that_keep_no_cell_are_listed():
    with raises("no_cells_kept", "obs column 'cat' holds 'T cell', 'B cell', 'NK'"):
        filter_cells(Source(), "cat == 'absent' and n > 1")


def test_nothing_is_read_unless_all_is_allowed_and_then_what_is_named():
    source = Source()
    for expression in ("n > 1 and m.sum() > 1", "n > 1 and", "n > 1 and nowhere > 1", "text.str.contains('(')"):
        with raises("cell_filter"):
            filter_cells(source, expression)
    assert source.read == []
    # `text` and `flag` are parts of names and of labels here, and columns nonetheless
    kept = filter_cells(source, "n > 1 and `my col` < 5 and n < 9 and cat != 'text flag'")
    assert source.read == ["n", "my col", "cat"]
    assert [kept.source_row(cell) for cell in range(len(kept))] == [2, 3, 4]


def test_a_name_may_be_any():
    names = [
        "a b",
        "x`y",
        "``",
        "and",
        "True",
        "inf",
        "in",
        "1st",
        "#",
        "a.b",
        "π",
        "'",
        "__class__",
        "\n",
        "it's",
        "n",
    ]
    frame = pd.DataFrame({name: [number < 3, number >= 3] for number, name in enumerate(names)})
    for number, name in enumerate(names):
        assert kept(f"{quote(name)} == True", frame) == [number < 3, number >= 3]
        assert kept(name, frame) == [number < 3, number >= 3]


# ---- patterns


LABELS = ["", "a", "ab", "B cell", "T-cell 3", "CD8+ T", "_x", "a.b", "aaaa", "line\nbreak", "x\ty", "(a)", "[b]", "0"]
MORE_LABELS = [*LABELS, "αβ T", "naïve", "٣", "x²", "é", "ü B", "\u2003", "\x1f", "日本", "É"]
ATOMS = st.sampled_from(
    ["a", "b", "B", "é", "T", " ", "3", r"\.", r"\+", r"\(", r"\-", ".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S",
     "[ab]", "[^a-c]", r"[\w-]", r"[\d.]", r"[^\s]", "[]a]", "[^]a]", "[[]", "[[:alpha:]]", r"[\]b]", "^", "$", r"\A",
     r"\Z", r"\t", r"\x61", r"\é", r"[\D]", r"[\b]", r"\0"]
)  # fmt: skip
REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{,2}", "{1,}", "{,}", "*?", "+?", "{a}", "{,a}"])
PATTERNS = st.recursive(
    st.tuples(ATOMS, REPEATS).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(st.sampled_from(["(", "(?:", "(?P<n>", "(?i:"]), inner, st.just(")"), REPEATS).map("".join),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=int(os.environ.get("TEDDYTOK_FILTER_EXAMPLES", "200")))
@given(PATTERNS, st.sampled_from([0, 2, 8, 16, 26]), st.booleans())
def test_a_pattern_finds_what_python_finds(pattern, flags, has_more_labels):
    labels = MORE_LABELS if has_more_labels else LABELS
    pattern = pattern if has_more_labels else pattern + r"\b"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sets that may one day be nested
        try:
            compiled = re.compile(pattern, flags)
        except re.error:
            return
    try:
        found = LabelPattern.parse(pattern, flags).search(labels)
    except PatternError:
        assert re.search(r"\[.*\\[SDW]|\{.*\{|[*+?}][*+?{]", pattern), "only few patterns are refused"
        return
    assert found.tolist() == [compiled.search(label) is not None for label in labels]


def test_a_pattern_that_would_find_other_labels_is_refused():
    with pytest.raises(PatternError, match="other than a to z"):
        LabelPattern.parse(r"\bT").search(["\u03b1T"])
    with pytest.raises(PatternError, match="line break"):
        LabelPattern.parse("a$").search(["a\n"])
    assert LabelPattern.parse(r"\\b").search(["\u03b1\\b"]).tolist() == [True]
    assert LabelPattern.parse("t CELL", ignore_case=True).search(["T cell", "B"]).tolist() == [True, False]


def test_no_pattern_takes_long():
    """Each of these takes Python's `re` longer than a run of all tests."""
    labels = ["a" * 5000, "a" * 50 + "!", "ab" * 3000]
    for pattern in ("(a+)+$", "(a|aa)+$", "(a*)*b$", "(.*a){20}$", "(a|a?)+c", r"(\w+\s*)+:"):
        assert not LabelPattern.parse(f"^{pattern}c").search(labels).any()


# ---- never any code


TAIL = ".map.__globals__['sys'].modules['os'].system('touch {}')"
ATTACKS = [
    f"x = cell_type{TAIL}", f"`my col`{TAIL} == 0", f"cell_type{TAIL} == @y", f"cell_type{TAIL} == 0",
    f"x = cell_type{TAIL}", "x = cell_type.to_csv('{}')", "cell_type == cell_type.to_csv('{}') and @q",
    "cell_type.isin.__globals__ == 0", "cell_type.str.contains.__func__.__globals__['os'].system('touch {}')",
    "@pd.eval('open({!r})')", "`cell_type`.str.to_pickle('{}')", "cell_type == `cell_type{}`.__class__",
    "__import__('os').system('touch {}')", "(lambda: open('{}', 'w'))()", "[open('{}', 'w') for _ in cell_type]",
    "cell_type.apply(open('{}', 'w'))", "cell_type.str.cat(open('{}', 'w'))", "cell_type in {{open('{}', 'w')}}",
    "cell_type == f'{{open(\"{}\", \"w\")}}'",
]  # fmt: skip


def test_a_strangers_configuration_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = demo.cells()
    made.obs["my col"] = made.obs["cell_type"].astype(str)
    before = {"args.json"}
    for number, attack in enumerate(ATTACKS):
        document = demo.args().model_dump(mode="json") | {"cell_filter": attack.format(f"touched-{number}")}
        Path("args.json").write_text(json.dumps(document), encoding="utf-8")
        with raises("cell_filter"):
            teddytok_rs.tokenize(made, "args.json")
        report = teddytok_rs.check(made, "args.json")
        assert all(problem.startswith("cell_filter = ") for problem in report.problems)
        assert len(report.problems) == 1
        assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.timeout(3600)
def test_no_expression_runs_code_or_ends_in_another_error(tmp_path):
    """A child tries them, which notes whatever is opened, imported, compiled or started.

    ``TEDDYTOK_FUZZED_FILTERS=1000000`` tries so many of them.
    """
    count = int(os.environ.get("TEDDYTOK_FUZZED_FILTERS", "3000"))
    command = [sys.executable, str(HERE / "fuzz_cell_filter.py"), str(count), "1"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    result = json.loads(process.stdout)
    assert result["expressions"] == count
    assert result["events"] == []
    assert min(result["masks"], result["none_kept"], result["refused"]) > count // 200
    assert list(tmp_path.iterdir()) == []
