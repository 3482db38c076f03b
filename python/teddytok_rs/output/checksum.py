"""Write and read JSON documents that end with a checksum of themselves, so that every changed byte is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from ..config.files import DocumentError, read_document

if TYPE_CHECKING:
    from pathlib import Path

#: The last key: sha256 of the document without it, as `_sha256_of` writes that.
KEY = "sha256"


def with_checksum(document: dict[str, Any], *, ascii_only: bool = False) -> str:
    """Write a document as JSON, the same text for the same content, with its checksum as the last key."""
    return _text(document | {KEY: _sha256_of(document)}, ascii_only=ascii_only)


def read_checked(path: Path) -> tuple[dict[str, Any], bool]:
    """Read a document that `with_checksum` wrote, and tell whether it has a checksum; version 0.1.0 wrote none.

    Raises
    ------
    DocumentError
        If the file cannot be read, or its content is not that of its checksum.
    """
    document = read_document(path)
    if not isinstance(document, dict):
        reason = f"it holds a {type(document).__name__}"
        raise DocumentError(reason)
    has_checksum = KEY in document
    recorded = document.pop(KEY, None)
    try:
        computed = _sha256_of(document)
    except ValueError:  # half of a surrogate pair, or a number that is infinite
        reason = "it holds text or numbers that no UTF-8 and JSON can hold"
        raise DocumentError(reason) from None
    if has_checksum and recorded != computed:
        reason = "it was changed since it was written (checksum mismatch)"
        raise DocumentError(reason)
    return document, has_checksum


def is_canonical(path: Path, *, ascii_only: bool = False) -> bool:
    """Tell whether a file that can be read has the very bytes that its content is written as."""
    return path.read_bytes() == _text(read_document(path), ascii_only=ascii_only).encode()


def _text(document: dict[str, Any], *, ascii_only: bool) -> str:
    checksum = document.get(KEY)
    body = {key: value for key, value in document.items() if key != KEY}
    text = json.dumps(body, indent=2, sort_keys=True, ensure_ascii=ascii_only)
    if checksum is not None:
        text = text.removesuffix("\n}") + f',\n  "{KEY}": {json.dumps(checksum)}\n}}'
    return text + "\n"


def _sha256_of(document: dict[str, Any]) -> str:
    """Compute the checksum of a document: sorted keys, no blanks, UTF-8."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
