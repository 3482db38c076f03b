"""Render the page as HTML, with formatted numbers and escaped text."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import jinja2
from markupsafe import Markup

from ..config.args import TokenizationArgs
from ..errors.text import printable, printable_json, size_text
from ..output.layout import PAGE
from .figures import histogram

if TYPE_CHECKING:
    from .contents import CorpusContents, DatasetContents
    from .numbers import Bins

#: Number of labels that are always shown; the others are folded away.
SHOWN_LABELS = 30
#: Kind of values -> label of the x axis of their histogram.
VALUES = {"bins": "bin", "ranks": "rank", "expression": "value"}


class Figures(TypedDict):
    """The histograms, where there is anything to draw, and whether that of the lengths marks max_seq_len."""

    of_lengths: Markup | None
    of_values: Markup | None
    limit: bool


def render(contents: DatasetContents | CorpusContents, *, links: bool = False) -> str:
    """Render the page of the contents from `contents_of` or `contents_of_corpus`.

    Parameters
    ----------
    contents
        The contents of the page.
    links
        Whether to link to the pages of a corpus's datasets, which works if the page is in the folder of the corpus.

    Returns
    -------
    The page as HTML.
    """
    changed: dict[str, object] = {}
    defaults: dict[str, object] = {}
    for key, value in contents["configuration"].items():
        (defaults if _is_default(key, value) else changed)[key] = value
    sources = contents["sources"] if contents["kind"] == "corpus" else []
    text: str = _template().render(
        contents,
        cls=contents["configuration"]["add_cls"],
        special=" and ".join(role.upper() for role in ("cls", "eos") if contents["configuration"][f"add_{role}"]),
        data=Markup(_script(contents)),  # noqa: S704 -- the output of _script cannot end the element
        changed=changed,
        defaults=defaults,
        figures=_figures(contents),
        finished=[(row["folder"], row["sha256"]) for row in sources if not row["error"]],
        links=links,
        shown_labels=SHOWN_LABELS,
    )
    return printable(text, keep="\n\t")


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters |= {
        "percent": "{:.2%}".format,
        "setting": _setting,
        "size": size_text,
        "whole": "{:,}".format,
    }
    pages.globals |= {"bin_name": _bin_name, "page_name": PAGE}
    return pages.get_template("template.html")


def _script(contents: DatasetContents | CorpusContents) -> str:
    """Return the contents as JSON that is safe in a script element, whatever the labels contain."""
    text = json.dumps(contents, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return printable_json(text).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _setting(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_default(key: str, value: object) -> bool:
    field = TokenizationArgs.model_fields[key]
    return not field.is_required() and bool((tuple(value) if isinstance(value, list) else value) == field.default)


def _bin_name(bins: Bins, number: int) -> str:
    """Return the name of a bin: its left edge, or the range if it holds several whole numbers."""
    first = bins["start"] + number * bins["width"]
    if isinstance(first, int) and bins["width"] > 1:
        return f"{first:,} to {first + bins['width'] - 1:,}"
    return f"{first:,.10g}"


def _figures(contents: DatasetContents | CorpusContents) -> Figures:
    lengths, values = contents["lengths"], contents["values"]
    drawn: Figures = {"of_lengths": None, "of_values": None, "limit": False}
    if lengths["cells"]:
        drawn["limit"] = lengths["max"] >= lengths["max_seq_len"] * 0.6
        drawn["of_lengths"] = Markup(  # noqa: S704 -- matplotlib's own, of numbers alone
            histogram(
                lengths["start"] - 0.5,
                lengths["width"],
                lengths["counts"],
                label=f"Histogram of {lengths['cells']:,} lengths from {lengths['min']:,} to {lengths['max']:,}",
                x="tokens per cell",
                y="cells",
                limit=lengths["max_seq_len"] + 0.5 if drawn["limit"] else None,
            )
        )
    if values is not None and values["n"]:
        whole = values["kind"] == "bins" and values["width"] == 1
        drawn["of_values"] = Markup(  # noqa: S704 -- as above
            histogram(
                values["start"] - (0.5 if whole else 0),
                values["width"],
                values["counts"],
                label=f"Histogram of {values['n']:,} values from {values['min']:.4g} to {values['max']:.4g}",
                x=VALUES[values["kind"]],
                y="tokens",
            )
        )
    return drawn
