"""Take mappings and medians, which are the path of a file or a dict, as one kind of object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import GetPydanticSchema
from pydantic_core import core_schema

from ..errors.text import count
from .files import DocumentError, read_with_checksum

#: What one entry of a table may be; which of these, the argument decides that the table is for.
Entry: TypeAlias = str | int | float | None


class BadEntryError(ValueError):
    """The first entry that a table cannot hold, as a dict of its own."""


class Table(Mapping[str, Entry]):
    """A table that was given as a dict: read-only, equal to any table with the same entries, printed as its size.

    Raises
    ------
    BadEntryError
        If a key is not text, or an entry not a text or number.
    """

    def __init__(self, entries: Mapping[object, object]) -> None:
        self._entries: dict[str, Entry] = {}
        for key, given in entries.items():
            entry = without_numpy(given)
            if not isinstance(key, str) or not (entry is None or isinstance(entry, str | int | float)):
                raise BadEntryError({key: given})
            self._entries[key] = entry

    def __getitem__(self, key: str) -> Entry:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __hash__(self) -> int:
        return len(self)

    def __repr__(self) -> str:
        return f"dict of {count(len(self), 'key')}"

    @property
    def recorded(self) -> str:
        """What manifests record in place of the entries. Used as an argument it is a path that does not exist."""
        return f"{self!r}, not stored; sha256 {content_checksum(self._entries)}"


#: The type of an argument that may be a dict.
TableLike = Annotated[
    Mapping[str, str | int | float],
    GetPydanticSchema(
        lambda _type, _handler: core_schema.is_instance_schema(
            Table, serialization=core_schema.plain_serializer_function_ser_schema(dict, when_used="json")
        )
    ),
]


@dataclass(frozen=True)
class TableChecksum:
    """The checksums of a table. Two compare equal if the tables hold the same.

    Attributes
    ----------
    sha256
        Of the file; of a dict the same as ``contents``.
    contents
        Of the entries, see `content_checksum`; None where it was not recorded, as in version 0.1.0.
    """

    sha256: str
    contents: str | None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TableChecksum):
            return NotImplemented
        return self.sha256 == other.sha256 or (self.contents is not None and self.contents == other.contents)

    __hash__ = None  # type: ignore[assignment]


def read_table(given: str | Mapping[str, object]) -> tuple[dict[str, object], TableChecksum]:
    """Read the entries of a table, from the path of a JSON file or from a dict; those of a file are not checked.

    Raises
    ------
    DocumentError
        If the file cannot be read or holds something else than an object.
    """
    if not isinstance(given, str):
        entries = dict(given)
        contents = content_checksum(entries)
        return entries, TableChecksum(contents, contents)
    document, sha256 = read_with_checksum(Path(given))
    if not isinstance(document, dict):
        reason = f"it holds a {type(document).__name__}"
        raise DocumentError(reason)
    return document, TableChecksum(sha256, content_checksum(document))


def without_numpy(value: object) -> object:
    """Turn a NumPy scalar, or what is like one, into Python's own; give back anything else as it is."""
    if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return value


def content_checksum(entries: Mapping[str, object]) -> str:
    """Compute the sha256 of entries as JSON with sorted keys and without spaces, in ASCII."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
