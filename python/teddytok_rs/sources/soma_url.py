"""Parse a `soma://` URL into a query of a SOMA experiment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, unquote

from ..errors.build import error

SCHEME = "soma://"
#: What may follow the question mark.
KEYS = ("measurement_name", "obs_value_filter", "timestamp")


def is_soma(name: str) -> bool:
    """Return whether a text is the URL of a SOMA query."""
    return name.startswith(SCHEME)


@dataclass(frozen=True)
class SomaUrl:
    """A query of a SOMA experiment.

    Written ``soma://URI?measurement_name=NAME&obs_value_filter=FILTER&timestamp=MS``, the last two if wanted. In all
    parts ``%XX`` encodes a character, as ``%25`` for a percent sign, ``%26`` for ``&``, and ``%3F`` for a question
    mark in the URI; everything else for itself, ``+`` and spaces too.

    Attributes
    ----------
    uri
        Of the experiment, as TileDB takes it: a path, ``s3://...``, ``tiledb://...``.
    measurement_name
        The measurement whose ``X`` and ``var`` are read.
    obs_value_filter
        TileDB's filter of ``obs``; None for all cells.
    timestamp
        Milliseconds since 1970: what was written later is not seen. None for now.
    """

    uri: str
    measurement_name: str
    obs_value_filter: str | None = None
    timestamp: int | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse a URL.

        Raises
        ------
        ConfigError
            If it is not written as above.
        """
        if bad := re.search(r"%(?![0-9A-Fa-f]{2}).{0,2}", url):
            raise _bad(url, f"{bad[0]!r} is not a percent sign and two hexadecimal digits")
        # Not urlsplit: it drops tabs and line ends, and refuses brackets in what it takes for the name of a host.
        uri, _, query = url.removeprefix(SCHEME).partition("?")
        try:
            uri = unquote(uri, errors="strict")
            pairs = parse_qsl(
                query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=bool(query), errors="strict"
            )
        except UnicodeDecodeError:
            raise _bad(url, "what its percent signs encode is not valid UTF-8") from None
        except ValueError as bad_field:
            raise _bad(url, str(bad_field)) from None
        found = dict(pairs)
        for key, value in pairs:
            if key not in KEYS or not value:
                expected = ", ".join(f"{known}=..." for known in KEYS)
                raise _bad(url, f"expected {expected}, got {f'{key}={value}'!r}")
        if len(found) < len(pairs):
            raise _bad(url, "a key is there twice")
        if not uri.strip("/"):
            raise _bad(url, "it has no URI of an experiment")
        if "measurement_name" not in found:
            raise _bad(url, "it has no measurement_name")
        timestamp = found.get("timestamp")
        if timestamp is not None and not re.fullmatch("[1-9][0-9]{0,17}", timestamp):
            raise _bad(url, f"timestamp = {timestamp!r} is not a number of milliseconds above 0")
        milliseconds = None if timestamp is None else int(timestamp)
        return cls(uri, found["measurement_name"], found.get("obs_value_filter"), milliseconds)

    @property
    def name(self) -> str:
        """What messages and the folder of its tokens call it: the last part of the URI, without ``.soma``."""
        return Path(self.uri).name.removesuffix(".soma")

    @property
    def local(self) -> Path | None:
        """Its path, where it is in this machine's file system."""
        path = self.uri.removeprefix("file://")
        return None if "://" in path else Path(path)

    @property
    def place(self) -> str:
        """The URI, or the absolute path: the current directory of a worker, and of TileDB, may be another one."""
        return self.uri if self.local is None else str(self.local.absolute())

    def __str__(self) -> str:
        """Write it as a URL."""
        values = {key: value for key in KEYS if (value := getattr(self, key)) is not None}
        query = "&".join(f"{key}={_quoted(str(value), '%&')}" for key, value in values.items())
        return f"{SCHEME}{_quoted(self.place, '%?')}?{query}"


def _quoted(text: str, signs: str) -> str:
    return "".join(f"%{ord(c):02X}" if c in signs else c for c in text)


def _bad(url: str, reason: str) -> Exception:
    return error("soma_url", url=url, reason=reason)
