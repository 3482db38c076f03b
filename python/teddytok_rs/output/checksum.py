"""Write and read JSON documents whose last key is their own checksum, so that every changed byte is detected."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from ..config.files import DocumentError, plain_file, read_document

if TYPE_CHECKING:
    from pathlib import Path

#: The last key: sha256 of the document without this key, as `_sha256_of` computes it.
KEY = "sha256"


def with_checksum(document: dict[str, object], *, ascii_only: bool = False) -> str:
    """Return a document as JSON text with its checksum as the last key; equal documents give equal texts."""
    return _text(document | {KEY: _sha256_of(document)}, ascii_only=ascii_only)


def read_checked(path: Path) -> tuple[dict[str, object], bool]:
    """Read a document that `with_checksum` wrote.

    Returns
    -------
    The document without its checksum, and whether it has one; version 0.1.0 wrote none.

    Raises
    ------
    DocumentError
        If the file cannot be read, or its content does not match its checksum.
    """
    document = read_document(path)
    if not isinstance(document, dict):
        reason = f"it holds a {type(document).__name__}"
        raise DocumentError(reason)
    has_checksum = KEY in document
    recorded = document.pop(KEY, None)
    try:
        computed = _sha256_of(document)
    except ValueError:  # half of a surrogate pair, or an infinite number
        reason = "it holds text or numbers that no UTF-8 and JSON can hold"
        raise DocumentError(reason) from None
    if has_checksum and recorded != computed:
        reason = "it was changed since it was written (checksum mismatch)"
        raise DocumentError(reason)
    return document, has_checksum


def is_canonical(path: Path, *, ascii_only: bool = False) -> bool:
    """Return whether the bytes of a readable file are exactly those that its content is written as."""
    document = read_document(path)
    if not isinstance(document, dict):
        return False
    return plain_file(path).read_bytes() == _text(document, ascii_only=ascii_only).encode()


def _text(document: dict[str, object], *, ascii_only: bool) -> str:
    checksum = document.get(KEY)
    body = {key: value for key, value in document.items() if key != KEY}
    text = json.dumps(body, indent=2, sort_keys=True, ensure_ascii=ascii_only)
    if checksum is not None:
        text = text.removesuffix("\n}") + f',\n  "{KEY}": {json.dumps(checksum)}\n}}'
    return text + "\n"


def _sha256_of(document: dict[str, object]) -> str:
    """Compute the sha256 of a document as JSON with sorted keys, without spaces, in UTF-8."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
