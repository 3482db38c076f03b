"""A JSON or YAML file in, plain Python data out; what is ambiguous or not what it claims to be is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path


class DocumentError(ValueError):
    """The reason a document cannot be read, as half a sentence."""


def read_document(path: Path) -> Any:
    """Read a JSON file, or a YAML one by its ending.

    Raises
    ------
    DocumentError
        If the file is unreadable, not UTF-8, not well-formed, nested too deeply, or repeats a key.
    """
    text = read_text(path)
    try:
        if path.suffix.lower() in {".yaml", ".yml"}:
            return _read_yaml(text)
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        reason = "it is nested too deeply"
    except json.JSONDecodeError as bad:
        reason = f"not JSON: {bad.msg} at line {bad.lineno}, column {bad.colno}"
    except DocumentError:
        raise
    except ValueError as bad:
        reason = str(bad)
    raise DocumentError(reason) from None


def read_text(path: Path) -> str:
    """Read a UTF-8 file; a byte order mark is dropped, line ends are kept as they are.

    Raises
    ------
    DocumentError
        If the file is unreadable or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        reason = f"not UTF-8 at byte {bad.start:,}"
    except OSError as bad:
        reason = (bad.strerror or str(bad)).lower()
    raise DocumentError(reason) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise DocumentError(_repeats(repeated))
    return mapping


def _repeats(key: object) -> str:
    return f"key {key!r} stands in it more than once"


def _refuse_constant(name: str) -> Any:
    reason = f"{name} is not JSON"
    raise DocumentError(reason)


def _read_yaml(text: str) -> Any:
    import yaml

    class UniqueKeys(yaml.SafeLoader):
        """Refuses repeated keys, which YAML forbids and PyYAML lets pass."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for place, key in enumerate(keys):
                if key in keys[:place]:
                    raise DocumentError(_repeats(key))
            return super().construct_mapping(node, deep=deep)

    try:
        return yaml.load(text, UniqueKeys)  # noqa: S506 -- a SafeLoader
    except yaml.YAMLError as bad:
        reason = f"not YAML: {' '.join(str(bad).split())}"
    raise DocumentError(reason)
