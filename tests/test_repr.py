"""Public objects print on one screen, in a terminal and in a notebook."""

from __future__ import annotations

from pathlib import Path

import pytest

import teddytok_rs
from teddytok_rs import TokenizationArgs, demo
from teddytok_rs.mapping.vocabulary import Vocabulary

SCREEN = (40, 24 * 200)  # lines, characters

OBJECTS = {
    "args": demo.args,
    "vocabulary": lambda: teddytok_rs.load_vocabulary(demo.args().tokenizer_name_or_path),
    "large vocabulary": lambda: Vocabulary("big", {f"GENE{i}" * 50: i for i in range(60_000)}),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_repr_fits_on_a_screen(name: str):
    text = repr(OBJECTS[name]())
    assert text.count("\n") < SCREEN[0]
    assert len(text) < SCREEN[1]


@pytest.mark.parametrize("name", OBJECTS)
def test_a_notebook_shows_a_table(name: str):
    html = OBJECTS[name]()._repr_html_()
    assert html.startswith("<table>")
    assert html.endswith("</table>")
    assert len(html) < 4 * SCREEN[1]


def test_what_a_file_holds_is_no_markup():
    vocabulary = Vocabulary("<script>", {"<img src=x>": 0})
    html = vocabulary._repr_html_()
    assert "<script>" not in html
    assert "<img" not in html


def test_completion_shows_fields_and_our_methods_alone():
    ours = {"load", "n_bins", "n_selected", "preset", "replace"}
    assert set(dir(demo.args())) == set(TokenizationArgs.model_fields) | ours


def test_replace_gives_checked_arguments():
    args = demo.args()
    assert args.replace(max_seq_len=512).max_seq_len == 512
    assert args.replace() == args
    with pytest.raises(teddytok_rs.ConfigError, match="max_seq_len"):
        args.replace(max_seq_len=0)
    with pytest.raises(teddytok_rs.ConfigError, match="max_seq_length"):
        args.replace(max_seq_length=5)


def test_the_arguments_that_were_changed_are_shown():
    text = repr(TokenizationArgs(tokenizer_name_or_path=str(Path("vocabulary")), bins=7))
    assert "bins" in text
    assert "max_seq_len" not in text
