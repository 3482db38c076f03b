"""A `soma://` URL in, the query of a SOMA experiment that it spells out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from ..errors.build import error

SCHEME = "soma://"
#: What may stand behind the question mark.
KEYS = ("measurement_name", "obs_value_filter", "timestamp")


def is_soma(name: str) -> bool:
    """Tell the URL of a SOMA query from a path or another URL."""
    return name.startswith(SCHEME)


@dataclass(frozen=True)
class SomaUrl:
    """A query of a SOMA experiment.

    Spelt ``soma://URI?measurement_name=NAME&obs_value_filter=FILTER&timestamp=MS``, the last two if wanted. In all
    parts ``%XX`` stands for a character, as ``%25`` for a percent sign, ``%26`` for ``&``, and ``%3F`` for a question
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
        """Take a URL apart.

        Raises
        ------
        ConfigError
            If it is not spelt as above.
        """
        if bad := re.search(r"%(?![0-9A-Fa-f]{2}).{0,2}", url):
            raise _bad(url, f"{bad[0]!r} stands for no character")
        uri, _, query = url.removeprefix(SCHEME).partition("?")
        found: dict[str, str] = {}
        for part in query.split("&") if query else ():
            key, equals, value = part.partition("=")
            if key not in KEYS or not equals or not value:
                raise _bad(url, f"{part!r} is none of {', '.join(f'{known}=...' for known in KEYS)}")
            if key in found:
                raise _bad(url, f"{key} is there twice")
            found[key] = value
        if not uri.strip("/"):
            raise _bad(url, "it has no URI of an experiment")
        if "measurement_name" not in found:
            raise _bad(url, "it has no measurement_name")
        timestamp = found.get("timestamp")
        if timestamp is not None and not re.fullmatch("[1-9][0-9]{0,17}", timestamp):
            raise _bad(url, f"timestamp = {timestamp!r} is no number of milliseconds above 0")
        milliseconds = None if timestamp is None else int(timestamp)
        try:
            uri, name = (unquote(text, errors="strict") for text in (uri, found["measurement_name"]))
            obs_value_filter = unquote(found.get("obs_value_filter", ""), errors="strict") or None
        except UnicodeDecodeError:
            raise _bad(url, "its percent signs spell what is no UTF-8") from None
        return cls(uri, name, obs_value_filter, milliseconds)

    @property
    def name(self) -> str:
        """What messages and the folder of its tokens call it: the last part of the URI, without ``.soma``."""
        return Path(self.uri).name.removesuffix(".soma")

    @property
    def local(self) -> Path | None:
        """Its path, where it lies in this machine's file system."""
        path = self.uri.removeprefix("file://")
        return None if "://" in path else Path(path)

    @property
    def place(self) -> str:
        """The URI, or the absolute path: a worker may stand in another folder, and TileDB in that of an hour ago."""
        return self.uri if self.local is None else str(self.local.absolute())

    def __str__(self) -> str:
        """Spell it as a URL."""
        values = {key: value for key in KEYS if (value := getattr(self, key)) is not None}
        query = "&".join(f"{key}={_quoted(str(value), '%&')}" for key, value in values.items())
        return f"{SCHEME}{_quoted(self.place, '%?')}?{query}"


def _quoted(text: str, signs: str) -> str:
    return "".join(f"%{ord(c):02X}" if c in signs else c for c in text)


def _bad(url: str, reason: str) -> Exception:
    return error("soma_url", url=url, reason=reason)
