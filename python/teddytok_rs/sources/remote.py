"""Copy remote sources for as long as they are read."""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ..errors import TeddytokError
from ..errors.build import error
from ..errors.text import reason_of
from .soma_url import is_soma

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fsspec import AbstractFileSystem

logger = logging.getLogger("teddytok_rs")

#: What tells one version of a remote file from another, the best first. Their other facts may depend on how one asks.
MARKS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")


def is_remote(name: str) -> bool:
    """Return whether a source is a URL that is copied before it is read."""
    return "://" in name and not is_soma(name)


def remote_name(url: str) -> str:
    """Find what the file or store at a URL is called."""
    return PurePosixPath(url.partition("?")[0].partition("#")[0]).name


def list_remote(url: str, endings: tuple[str, ...]) -> list[str]:
    """List the sources that a URL means: itself, those in a folder, or the matches of a glob."""
    is_glob = any(sign in url for sign in "*[")
    if not is_glob and remote_name(url).endswith(endings):
        return [url]
    with _remote_errors(url):
        files, path = _file_system(url)
        if is_glob:
            found = files.glob(path)
        elif files.isdir(path):
            found = files.ls(path, detail=False)
        else:
            return [url]
        return sorted(files.unstrip_protocol(file) for file in found if file.rstrip("/").endswith(endings))


def remote_stamp(url: str) -> str:
    """Compute what changes whenever the source at a URL is changed, without reading it."""
    with _remote_errors(url):
        files, path = _file_system(url)
        return _stamp(_facts(files, path))


def copy_source(url: str, folder: Path, record: Callable[[list[str]], None]) -> Path:
    """Copy a source into a folder that the caller made and removes.

    The copy has a time of its own for each version of the source, so that a run goes on where it was interrupted.

    Parameters
    ----------
    record
        Called with the relative paths of all files of the copy, before any is written.

    Returns
    -------
    The path of the copy.
    """
    with _remote_errors(url):
        place = _copy(url, folder, record)
    logger.info("%s is copied to %s for as long as it is worked on", url, place)
    return place


def _copy(url: str, folder: Path, record: Callable[[list[str]], None]) -> Path:
    files, path = _file_system(url)
    to = folder / remote_name(url)
    facts = _facts(files, path)
    places = {remote: to / name if name else to for remote, (name, _) in facts.items()}
    for place in places.values():
        if ".." in place.relative_to(folder).parts:
            reason = f"a file in it is called {str(place.relative_to(folder))!r}"
            raise ValueError(reason)
    record([place.relative_to(folder).as_posix() for place in places.values()])
    for place in places.values():
        place.parent.mkdir(parents=True, exist_ok=True)
    files.get(list(places), [str(place) for place in places.values()])
    stamp = _stamp(facts)
    for remote, place in places.items():
        size = facts[remote][1].get("size")
        if size is not None and place.stat().st_size != size:
            reason = f"{place.stat().st_size:,} of the {size:,} bytes of {remote!r} came"
            raise ValueError(reason)
        os.utime(place, ns=(0, int(stamp[:15], 16)))
    if remote_stamp(url) != stamp:
        raise error("source_changed", path=url)
    return to


def _facts(files: AbstractFileSystem, path: str) -> dict[str, tuple[str, dict[str, object]]]:
    """List the files of a source, each with its name below it and what is known of it."""
    files.invalidate_cache()
    # Not requested from the server: some send a whole file to show that it is not a folder.
    if not path.rstrip("/").endswith(".zarr"):
        return {path: ("", files.info(path))}
    root = path.rstrip("/")
    found = files.find(root, detail=True)
    if not found:
        raise FileNotFoundError(path)
    return {file: (file[len(root) :].lstrip("/"), found[file]) for file in sorted(found)}


def _stamp(facts: dict[str, tuple[str, dict[str, object]]]) -> str:
    digest = hashlib.sha256()
    for name, known in facts.values():
        mark = next((str(known[key]) for key in MARKS if known.get(key) is not None), "")
        digest.update(f"{name} {known.get('size')} {mark}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _file_system(url: str) -> tuple[AbstractFileSystem, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise error("cloud_extra", path=url) from None
    # A URL may be a chain of several. What a reference file holds are templates, which fsspec renders without a sandbox
    # in versions that are in use.
    if any(part.partition("://")[0].lower() == "reference" for part in url.split("::")):
        reason = "reference files could run any code"
        raise error("source_remote", path=url, reason=reason)
    files, path = url_to_fs(url)
    return files, path


@contextmanager
def _remote_errors(url: str) -> Iterator[None]:
    """Turn what a remote store, of whatever kind, says into one error."""
    try:
        yield
    except FileNotFoundError:
        raise error("source_not_found", path=url) from None
    except TeddytokError:
        raise
    except Exception as exc:  # each kind of store has a family of its own
        raise error("source_remote", path=url, reason=reason_of(exc)) from None
