"""Check that no output folder is inside a dataset or a source, and no source inside an output folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors.build import error
from ..sources.remote import is_remote
from ..sources.soma_url import SomaUrl, is_soma
from .layout import JOURNAL, MANIFEST
from .storage import is_plain_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..sources.protocol import SourceLike


def refuse_nesting(places: Iterable[tuple[SourceLike, Path]]) -> None:
    """Check that no source and output folder contain each other, and that no output folder is inside another dataset.

    Parameters
    ----------
    places
        Pairs of a source and the folder of its dataset.

    Raises
    ------
    ConfigError
        If one of them does.
    """
    folders: dict[Path, Path] = {}
    sources: dict[Path, str] = {}
    for source, folder in places:
        folders[folder.resolve()] = folder
        for path in _paths_of(source):
            sources[path] = str(source)
    datasets: dict[Path, bool] = {}
    for folder, given in folders.items():
        for above in (folder, *folder.parents):
            if above in sources:
                where = "the place of" if above == folder else "a folder inside"
                raise error("output_nested", path=str(given), what=f"{where} the source {sources[above]!r}")
            if above == folder:
                continue
            if above not in datasets:
                datasets[above] = any(is_plain_file(above / name) for name in (MANIFEST, JOURNAL))
            if datasets[above]:
                raise error("output_nested", path=str(given), what=f"a folder inside the dataset {str(above)!r}")
    for path, source in sources.items():
        for above in path.parents:
            if above in folders:
                raise error("output_nested", path=str(folders[above]), what=f"the folder of the source {source!r}")


def _paths_of(source: SourceLike) -> set[Path]:
    """List the local paths of a source: as given and with links resolved; none for data in memory or remote sources."""
    place: object = source
    if isinstance(source, str) and is_soma(source):
        place = SomaUrl.parse(source).local
    elif getattr(source, "isbacked", False):
        place = getattr(source, "filename", None)
    if not isinstance(place, str | os.PathLike) or is_remote(os.fspath(place)):
        return set()
    path = Path(place)
    try:
        return {path.resolve(), path.parent.resolve() / path.name}
    except (OSError, ValueError, RuntimeError):  # opening the source reports the problem
        return set()
