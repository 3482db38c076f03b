"""Show a page in headless Chromium: take a screenshot, and return what a script measures there."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Runs after the page and reports what it sees, with everything unfolded.
MEASURE = """<script>
for (const one of document.querySelectorAll("details")) one.open = true;
const light = (text) => {
  const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map((v) => v / 255).map(
    (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (color !== "rgba(0, 0, 0, 0)") return color;
  }
  return "rgb(255, 255, 255)";
};
const contrasts = [];
for (const element of document.querySelectorAll("body *:not(script, style)")) {
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
  const style = getComputedStyle(element);
  const ink = element instanceof SVGElement ? style.fill : style.color;
  const [a, b] = [light(ink), light(ground(element))].sort((x, y) => y - x);
  contrasts.push([(a + 0.05) / (b + 0.05), element.textContent.trim().slice(0, 40)]);
}
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
parent.postMessage(JSON.stringify({
  width: innerWidth,
  scrollWidth: document.documentElement.scrollWidth,
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  contrast: contrasts.sort((a, b) => a[0] - b[0])[0],
  smallestText: Math.min(...[...document.querySelectorAll("svg text")].map(
    (text) => parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b))),
  repeatedIds: ids.filter((id, place) => ids.indexOf(id) !== place),
  scripts: document.scripts.length,
  images: document.images.length,
  loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
  title: document.title,
  headings: [...document.querySelectorAll("h1, h2, h3")].map((heading) => heading.tagName + " " + heading.textContent),
  unnamedFigures: document.querySelectorAll("svg:not([aria-label])").length,
  figures: document.querySelectorAll("svg").length,
  shown: Object.fromEntries([...document.querySelectorAll("[data-key]")].map((it) => [it.dataset.key, it.textContent])),
  data: JSON.parse(document.getElementById("data").textContent),
}), "*");
</script>
"""
#: Holds the page in a frame, which unlike a window may be as narrow as a phone, and writes down what it measured.
FRAME = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><body style="margin: 0">
<script>addEventListener("message", (told) => { document.documentElement.dataset.measured = told.data; });</script>
<iframe src="measured.html" style="width: %dpx; height: %dpx; border: 0"></iframe></body>
"""


def find_browser() -> str:
    """Find Chromium, or skip the test."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium); .ci/run installs it")
    return found


def _run(folder: Path, page: Path, size: tuple[int, int], *options: str, dark: bool) -> str:
    command = [
        find_browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout


def measure(folder: Path, page: Path, size: tuple[int, int] = (1200, 900), *, dark: bool = False) -> dict[str, Any]:
    """Open a copy of the page that also measures itself. See `MEASURE` for what is measured."""
    text = page.read_text(encoding="utf-8").replace("</body>", f"{MEASURE}</body>")
    (folder / "measured.html").write_text(text, encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME % size, encoding="utf-8")
    dom = _run(folder, frame, (1300, 1000), "--dump-dom", "--virtual-time-budget=5000", dark=dark)
    return json.loads(html.unescape(re.search(r'data-measured="([^"]*)"', dom)[1]))


def screenshot(folder: Path, page: Path, size: tuple[int, int] = (1200, 900), *, dark: bool = False) -> Any:
    """Take a picture of the page; shape (height, width, 3), from 0 to 1."""
    from matplotlib.image import imread

    _run(folder, page, size, f"--screenshot={folder / 'shot.png'}", dark=dark)
    return imread(folder / "shot.png")[..., :3]
