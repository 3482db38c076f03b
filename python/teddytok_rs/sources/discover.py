"""Find the sources that paths, globs, folders and URLs mean, and the name of the dataset of each."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors.build import error
from .remote import is_remote, list_remote, remote_name
from .soma_url import SomaUrl, is_soma

#: What files and stores of cells are called.
ENDINGS = (".h5ad", ".zarr")
#: Files of which a zarr store without the ending has one.
STORE = (".zgroup", "zarr.json")


def find_sources(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """List sources, in the order given; a ``soma://`` URL is one.

    Parameters
    ----------
    sources
        One or many of: a path or URL; a folder, for every ``.h5ad`` and ``.zarr`` in it, by name, not in folders below;
        a glob (``**`` reaches into folders below), for every match with these endings, by name.

    Raises
    ------
    ConfigError
        If there is none, or a folder or glob matches none.
    SourceError
        If something else than a path or URL is given, or a folder or glob cannot be listed.
    """
    if isinstance(sources, str | os.PathLike) or not isinstance(sources, Iterable):
        sources = [sources]
    found: list[str] = []
    for given in sources:
        if not isinstance(given, str | os.PathLike) or isinstance(name := os.fspath(given), bytes):
            raise error("source_type", got=f"a {type(given).__name__}")
        name = name.removeprefix("file://")
        listed = list_remote(name, ENDINGS) if is_remote(name) else _list_local(name)
        if not listed:
            folder = not is_remote(name) and os.path.isdir(name)  # noqa: PTH112
            held = "is a folder without .h5ad or .zarr right in it" if folder else "matches no .h5ad or .zarr"
            raise error("no_sources", where=f", as {name!r} {held}")
        found += listed
    if not found:
        raise error("no_sources", where="")
    return found


def stem_of(source: str) -> str:
    """Name the dataset of a source: the last part of its path or URL without its ending."""
    if is_soma(source):
        return SomaUrl.parse(source).name
    return Path(remote_name(source) if is_remote(source) else source).stem


def _list_local(name: str) -> list[str]:
    if is_soma(name):
        return [name]
    path = Path(name)
    try:
        if path.is_dir():
            is_store = path.suffix == ".zarr" or any((path / file).exists() for file in STORE)
            return [name] if is_store else sorted(str(inside) for inside in path.iterdir() if inside.suffix in ENDINGS)
        if path.exists() or not glob.has_magic(name):
            return [name]
    except (OSError, ValueError):  # too long a name, a folder that may not be read: opening it says so
        return [name]
    return sorted(match for match in glob.glob(name, recursive=True) if match.endswith(ENDINGS))  # noqa: PTH207
