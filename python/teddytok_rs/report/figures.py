"""Draw histograms as inline SVG, with real text, and with colours as CSS variables for the dark theme."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Maximum number of bars of a histogram of lengths.
BARS = 64
#: Width and height in points. The page scales a figure to a column of about this width, or to a phone.
SIZE = (360, 200)
#: Placeholders of the page's colours, as matplotlib does not accept CSS variables.
INK, BAR, LIMIT = "#010203", "#010204", "#010205"
VARIABLES = {INK: "var(--muted)", BAR: "var(--bar)", LIMIT: "var(--mark)"}


def binned(counts: Sequence[int]) -> tuple[int, int, list[int]]:
    """Group neighbouring whole numbers into at most `BARS` bins.

    Parameters
    ----------
    counts
        The count of each whole number, from 0.

    Returns
    -------
    The first number of the first bin, the number of whole numbers per bin, and the count of each bin.
    """
    array = np.asarray(counts, dtype=np.int64)
    present = np.flatnonzero(array)
    if not present.size:
        return 0, 1, []
    first, last = int(present[0]), int(present[-1])
    width = -(-(last + 1 - first) // BARS)
    room = -(last + 1 - first) % width
    before = min(room, first)  # the last bin ends with the largest number, which may be a limit
    padded = np.pad(array[first : last + 1], (before, room - before))
    return first - before, width, padded.reshape(-1, width).sum(axis=1).tolist()


def histogram(
    start: float, width: float, counts: Sequence[int], *, label: str, x: str, y: str, limit: float | None = None
) -> str:
    """Draw a histogram with bins of equal width.

    Parameters
    ----------
    start, width, counts
        Left edge of the first bin, width of every bin, and the count of each bin.
    label
        Text for screen readers.
    x, y
        Labels of the axes.
    limit
        Position of a dashed line on the x axis; no line if None.

    Returns
    -------
    The histogram as an ``<svg>`` element.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    edges = start + width * np.arange(len(counts))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label, "font.size": 10.5}):
        figure = Figure(figsize=(SIZE[0] / 72, SIZE[1] / 72), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        axes.bar(edges, counts, width=width * 0.94, align="edge", color=BAR, linewidth=0)
        if limit is not None:
            axes.axvline(limit, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlabel(x, color=INK)
        axes.set_ylabel(y, color=INK)
        axes.tick_params(colors=INK, length=3, width=0.6)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(INK)
            spine.set_linewidth(0.6)
        axes.grid(axis="y", color=INK, alpha=0.22, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.margins(x=0.01)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=width >= 1))
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(drawn.getvalue(), label)


def _inline(drawn: str, label: str) -> str:
    """Convert an SVG file to an element with the page's colours and font, and the size of its container."""
    svg = drawn[drawn.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # it would apply to the whole page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # an id must be unique on a page
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {view[0] if view else ""} role="img" aria-label="{escape(label)}">'
    return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1).strip()
