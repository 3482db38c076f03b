"""Read and write JSON documents as frozen dataclasses, whose fields have the same names in Python and in the file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar, cast

import pydantic
from pydantic import ConfigDict, TypeAdapter, ValidationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = TypeVar("P", bound="Part")

Count = Annotated[int, pydantic.Field(ge=0, lt=2**63)]
#: A share, or seconds.
Share = Annotated[float, pydantic.Field(ge=0)]
Sha256 = Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")]
#: Metadata of a field that is not in the document; its type is an Annotated[..., SkipValidation].
NOT_WRITTEN = {"written": False}
#: Key of what a `DocumentWithTotals` computes.
TOTALS = "totals"


class Part:
    """A frozen dataclass that is a JSON document or a part of one; its fields are checked when it is read."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class MappedPart(Part, Mapping[str, object]):
    """A part whose fields can be looked up as those of a dict too, as in version 0.1.0."""

    def __getitem__(self, name: str) -> object:
        if name not in list(self):
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in _fields(self))

    def __len__(self) -> int:
        return len(_fields(self))


class DocumentWithTotals(Part, ABC):
    """A document that also has ``totals``, computed from its fields."""

    @property
    @abstractmethod
    def totals(self) -> Part:
        """What people and scripts want to know of all that is listed together."""


def parse_part(kind: type[P], document: object, **not_written: object) -> P:
    """Make a part from its document, and from the fields that are not in it.

    Raises
    ------
    ValueError
        If a field is missing, unknown or of another type; the message names the first one.
    """
    names = {field.name for field in _fields(kind) if _is_left_out(field)}
    if not isinstance(document, dict):
        reason = f"it holds a {type(document).__name__}"
        raise ValueError(reason)  # noqa: TRY004 -- as of any document that is not one of ours
    if foreign := sorted(names & document.keys()):
        reason = f"{foreign[0]} is unknown"
        raise ValueError(reason)
    totals: object = None
    if issubclass(kind, DocumentWithTotals):
        if TOTALS not in document:
            reason = f"{TOTALS} is missing"
            raise ValueError(reason)
        document = dict(document)
        totals = document.pop(TOTALS)
    try:
        part = cast("P", _adapter(kind).validate_json(json.dumps(document | dict.fromkeys(not_written))))
    except ValidationError as exc:
        raise ValueError(_reason(exc)) from None
    if isinstance(part, DocumentWithTotals) and totals != to_document(part.totals):
        reason = f"{TOTALS} are not those of the parts"
        raise ValueError(reason)
    return cast("P", replace(cast("DataclassInstance", part), **not_written))


def to_document(part: object) -> dict[str, object]:
    """Make the document of a part: its fields by name, keys as text."""
    document = {field.name: _plain(getattr(part, field.name)) for field in _fields(part) if not _is_left_out(field)}
    return document | {TOTALS: to_document(part.totals)} if isinstance(part, DocumentWithTotals) else document


def _plain(value: object) -> object:
    if is_dataclass(value):
        return to_document(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inside) for key, inside in value.items()}
    return [_plain(inside) for inside in value] if isinstance(value, list | tuple) else value


def _fields(part: object) -> tuple[Field[object], ...]:
    return fields(cast("DataclassInstance", part))


def _is_left_out(field: Field[object]) -> bool:
    return not field.metadata.get("written", True)


_ADAPTERS: dict[type[Part], TypeAdapter[Part]] = {}


def _adapter(kind: type[Part]) -> TypeAdapter[Part]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _reason(exc: ValidationError) -> str:
    """Name the first field that is not right, and what is wrong with it."""
    first = exc.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    known = {"missing": " is missing", "unexpected_keyword_argument": " is unknown"}
    return place + known.get(first["type"], f"{': ' * bool(place)}{first['msg'].removeprefix('Value error, ')}")
