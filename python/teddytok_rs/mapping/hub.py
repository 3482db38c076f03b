"""Read names on the Hugging Face Hub, ``owner/name/sub/folder@revision``, and fetch their files into its cache."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..config.tables import read_table
from ..errors.build import error, system_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..config.tables import TableChecksum

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
#: The form of a name. What has another form is a path, and the Hub is never asked for it.
_FORM = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(?P<inside>(?:/(?!\.{{1,2}}(?:[/@]|$))[^/\\@:]{{1,255}}){{0,30}})"
    r"(?:@(?P<revision>[A-Za-z0-9_](?:[A-Za-z0-9._/-]{0,254}[A-Za-z0-9_-])?))?"
)
_COMMIT = re.compile("[0-9a-f]{40}")
#: Endings of the files that are read. A name with another ending is that of a folder.
_FILES = {".txt", ".json"}


@dataclass(frozen=True)
class HubName:
    """What a name on the Hub says.

    Attributes
    ----------
    repository
        Owner and name.
    inside
        Path of a file or folder in the repository; empty for all of it.
    revision
        A branch, tag or commit.
    """

    repository: str
    inside: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{'/'.join(filter(None, [self.repository, self.inside]))}@{self.revision}"

    @property
    def is_file(self) -> bool:
        """Whether it names a file."""
        return PurePosixPath(self.inside).suffix in _FILES

    def files(self, in_folder: Sequence[str]) -> list[str]:
        """List the paths in the repository to look for: its own, or those of some files in the folder."""
        return [self.inside] if self.is_file else [f"{self.inside}/{name}".lstrip("/") for name in in_folder]


@dataclass(frozen=True)
class Fetched:
    """Files in the cache: those that exist, and the commit that they are of."""

    commit: str
    paths: list[Path]


def hub_name(place: str) -> HubName | None:
    """Read a name on the Hub; None where a path of this name exists, or the form is another one."""
    found = _FORM.fullmatch(place)
    if found is None or not place.isprintable() or "--" in found["repository"] or ".." in found["repository"]:
        return None
    if not found["inside"] and PurePosixPath(found["repository"]).suffix in _FILES:
        return None  # "folder/file.json"
    if found["revision"] is not None and re.search(r"\.\.|//|/\.", found["revision"]):
        return None
    try:
        os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return HubName(found["repository"], found["inside"][1:], found["revision"] or "main")
    except OSError:  # a folder that may not be read, a name longer than any
        return None
    return None


def local_file(key: str, place: str) -> Path:
    """Return the path of the file that an argument names; one on the Hub is fetched.

    Raises
    ------
    ConfigError
        If it is a name on the Hub, and the file cannot be fetched.
    """
    name = hub_name(place)
    return Path(place) if name is None or not name.is_file else fetch({key: name}, ())[key].paths[0]


def read_argument_table(key: str, given: str | Mapping[str, object]) -> tuple[dict[str, object], TableChecksum]:
    """Read the table of an argument, a path, a name on the Hub or a dict (see `read_table`)."""
    return read_table(str(local_file(key, given)) if isinstance(given, str) else given)


def fetch(names: Mapping[str, HubName], in_folder: Sequence[str]) -> dict[str, Fetched]:
    """Fetch what arguments name on the Hub, where the cache does not hold it yet.

    Names of one repository and revision are of one commit. Where the Hub cannot be reached, the revision is the one
    that was fetched last; a commit is never asked for twice.

    Parameters
    ----------
    names
        Argument -> name.
    in_folder
        The files to fetch of a folder, where they exist.

    Raises
    ------
    ConfigError
        If anything cannot be fetched; one error for all that is missing where the Hub cannot be reached.
    """
    try:
        from huggingface_hub.utils import LocalEntryNotFoundError
    except ImportError:
        advice = "Check the path, or install what fetches from the Hub: pip install 'teddytok-rs[hub]'"
        raise _hub_error(names, "huggingface_hub is not installed", advice) from None
    cache = _Cache()
    commits: dict[tuple[str, str], str] = {}
    fetched: dict[str, Fetched] = {}
    missing: dict[str, HubName] = {}
    for key, name in names.items():
        of_commit = replace(name, revision=commits.get((name.repository, name.revision), name.revision))
        try:
            with _without_bars():
                fetched[key] = cache.fetch(of_commit, of_commit.files(in_folder))
        except LocalEntryNotFoundError:
            missing[key] = name
        except Exception as exc:  # its errors have no common base class; each is reported
            if (named := _explain(exc, name)) is None:
                raise system_error("hub_file", exc, **_facts({key: name}), advice="Check the network") from None
            raise _hub_error({key: name}, named, "Check the path, or the name and its revision") from None
        else:
            commits[name.repository, name.revision] = fetched[key].commit
            if not fetched[key].paths:
                reason = f"{name.repository!r} has no {_listed(name.files(in_folder))} in revision {name.revision!r}"
                raise _hub_error({key: name}, reason, "Check the path, or the name and its revision")
    if missing:
        raise _unreachable(missing, in_folder)
    return fetched


class _Cache:
    """The files that huggingface_hub keeps, and what it can add to them."""

    def __init__(self) -> None:
        self._is_reachable: bool | None = None  # not known before something is asked for

    def fetch(self, name: HubName, files: list[str]) -> Fetched:
        revision, paths = name.revision, []
        for file in files:
            path = self._fetch_file(name.repository, file, revision)
            if path is not None:
                paths.append(path)
                revision = path.parents[file.count("/")].name  # snapshots/<commit>/<file>
        return Fetched(revision, paths)

    def _fetch_file(self, repository: str, file: str, revision: str) -> Path | None:
        """Return the path of a file in the cache; None where the repository has none."""
        from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError

        if _COMMIT.fullmatch(revision):
            cached = try_to_load_from_cache(repository, file, revision=revision)
            if cached is not None:
                return None if cached is _CACHED_NO_EXIST else Path(cached)
        if self._is_reachable is None:
            self._is_reachable = _is_reachable(repository, file, revision)
        try:
            return Path(hf_hub_download(repository, file, revision=revision, local_files_only=not self._is_reachable))
        except LocalEntryNotFoundError:
            if try_to_load_from_cache(repository, file, revision=revision) is _CACHED_NO_EXIST:
                return None
            raise
        except EntryNotFoundError:
            return None


def _is_reachable(repository: str, file: str, revision: str) -> bool:
    """Ask the Hub for a file once; ``hf_hub_download`` would try for half a minute, and log each attempt."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import HfHubHTTPError

    try:
        get_hf_file_metadata(hf_hub_url(repository, file, revision=revision))
    except HfHubHTTPError as exc:  # what it refuses, the download shows
        return int(exc.response.status_code) < 500
    except Exception:  # of whatever library of HTTP it uses
        return False
    return True


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep huggingface_hub from showing progress: the files are small, and a quiet run shows nothing."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


# ---- errors


def _explain(exc: Exception, name: HubName) -> str | None:
    """Describe what the Hub refused, in a few words; None for any other problem."""
    from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(exc, GatedRepoError):
        return f"access to {name.repository!r} must be requested on its page there"
    if isinstance(exc, RepositoryNotFoundError):
        return f"there is no repository {name.repository!r} there, or it is private and no token for it is set"
    if isinstance(exc, RevisionNotFoundError):
        return f"repository {name.repository!r} has no revision {name.revision!r}"
    return None


def _unreachable(names: Mapping[str, HubName], in_folder: Sequence[str]) -> Exception:
    """Make the error of all that is neither in the cache nor can be fetched now."""
    from huggingface_hub import constants

    hub = constants.ENDPOINT
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{hub} cannot be reached"
    sites = _listed(sorted({f"{hub}/{name.repository}/tree/{name.revision}" for name in names.values()}))
    folder = (
        ""
        if all(name.is_file for name in names.values())
        else f" (of the folder: {_listed(in_folder)}, where it exists)"
    )
    advice = (
        f"On a machine with a network, download from {sites}{folder}, and copy it to the same path here, or set "
        f"{_listed(names)} to its path"
    )
    return _hub_error(names, f"{reason}, and the cache does not hold it", advice)


def _hub_error(names: Mapping[str, HubName], reason: str, advice: str) -> Exception:
    return error("hub_file", reason=reason, advice=advice, **_facts(names))


def _facts(names: Mapping[str, HubName]) -> dict[str, str]:
    places = [str(name).removesuffix("@main") for name in names.values()]
    return {"keys": ", ".join(names), "places": " or ".join(map(repr, places))}


def _listed(words: Sequence[str] | Mapping[str, object]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
