"""Write the report of a dataset or corpus: a single HTML file that loads nothing from a network.

::

    teddytok.json, genes.csv --------------------+
    shards ------------------> numbers.py -------+--> contents.py --> a dict --> page.py --> report.html
    report.json, if the run wrote one -----------+       |
                                                         figures.py, template.html

Needs ``pip install 'teddytok-rs[report]'``.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.files import DocumentError, read_text, refuse_url
from ..corpus.manifest import CorpusManifest
from ..errors import TeddytokError
from ..errors.build import error
from ..output.layout import CORPUS, PAGE
from ..output.manifest import Manifest
from ..output.record import Record
from ..output.storage import write_file, writing
from .contents import contents_of, contents_of_corpus

if TYPE_CHECKING:
    import os

    from ..output.run import Run

#: The element in which a page stores its contents as JSON, for programs; it identifies a page of ours.
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def need_extra() -> None:
    """Check that the libraries of the extra are installed, before a run starts or a figure is drawn.

    Raises
    ------
    ConfigError
        If jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as missing:
        raise error("report_extra", module=missing.name) from None


def write_report(folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Path:
    """Write a report of a dataset or corpus as one HTML page with its numbers, figures and checksums.

    The page loads nothing from a network.

    Parameters
    ----------
    folder
        The folder of a finished dataset, or of a corpus.
    path
        The file to write; by default ``report.html`` in the folder.

    Returns
    -------
    The path of the page.

    Raises
    ------
    ConfigError
        If jinja2 or matplotlib is not installed, or ``path`` is a URL.
    OutputError
        If the folder is not a finished dataset or corpus, one of its files cannot be read, or the page cannot be
        written. An existing file at ``path`` is replaced only if it is an earlier report.

    Notes
    -----
    Only the run knows which dropped genes held most expression, how many cells were truncated, and how long each stage
    took. `tokenize_to_disk` with ``report=True`` stores these in ``report.json`` in the folder, from which they are
    read.
    """
    need_extra()
    from .page import render

    folder = Path(folder)
    if path is not None:
        refuse_url(path)
        _check_replaceable(Path(path))
    try:
        if (folder / CORPUS).exists():
            text = render(contents_of_corpus(CorpusManifest.read(folder)), links=path is None)
        else:
            manifest = Manifest.read(folder)
            text = render(contents_of(manifest, Record.read(manifest)))
    except TeddytokError:
        raise
    except Exception as exc:  # damaged files may raise anything
        reason = f"{type(exc).__name__}: {' '.join(str(exc).split())}; 'teddytok verify' lists what is damaged"
        raise error("output_unreadable", path=str(folder), reason=reason) from None
    return _write(text, folder / PAGE if path is None else Path(path))


def write_page(manifest: Manifest, run: Run) -> Path:
    """Write the page of a finished run into its folder.

    The source is read again for the counts that are not stored in the folder.
    """
    from ..pipeline.scan import count_source
    from .page import render

    record = Record.read(manifest)
    counted, measured = count_source(run.plan, run.resources), run.throughput.timings()
    record = replace(record, source=counted, throughput=measured or record.throughput)
    with writing(manifest.path):
        record.write(manifest.path)
    return _write(render(contents_of(manifest, record)), manifest.path / PAGE)


def _check_replaceable(path: Path) -> None:
    """Check that ``path`` does not exist or is an earlier page, so that a mistyped path does not replace a file."""
    if not path.exists():
        return
    found = None
    if path.is_file():  # reading a device may never end
        with suppress(DocumentError):
            found = DATA.search(read_text(path))
    if not found:
        raise error("report_exists", path=str(path), what="a folder" if path.is_dir() else "not a report")


def _write(text: str, path: Path) -> Path:
    with writing(path.parent):
        write_file(path, text)
    return path
