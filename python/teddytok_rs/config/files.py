"""Read JSON and YAML files into plain Python data; refuse what is ambiguous or not what it claims to be."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import re
import stat
import sys
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from ..errors.build import error, limit_error
from ..errors.text import os_error_text

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from contextlib import AbstractContextManager


#: Endings of YAML files.
YAML = {".yaml", ".yml"}
#: Bytes that a document may have; far more than any vocabulary, and less than /dev/zero.
MAX_BYTES = 2**28
#: Levels of lists and objects in one another; ours need three, and Python cannot show a thousand.
DEPTH = 50
#: Bytes that a YAML document may have: PyYAML reads about one such a minute, and configurations are short.
MAX_YAML_BYTES = 2**20


#: How a URL begins, also one from which `Path` removed a slash or that names several schemes.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/:]")


def refuse_url(place: str | os.PathLike[str]) -> None:
    """Refuse to write to a URL, which would become a local folder of that name.

    Raises
    ------
    ConfigError
        If it is one.
    """
    if _URL.match(os.fspath(place)):
        raise error("output_url", path=os.fspath(place))


#: Standard input as a path; `--config -` is short for it.
STDIN = Path("/dev/stdin")
#: What a path may lead to that is neither a file nor a folder: reading it may wait for ever, or never end.
_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def plain_file(path: Path) -> Path:
    """Return a path that a user gave, unless it leads to a pipe, a socket or a device. All that is read passes here.

    Raises
    ------
    OSError
        If it is one of these, does not exist, or its folder cannot be read.
    """
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind in _SPECIAL:
        raise OSError(errno.EINVAL, f"it is {_SPECIAL[kind]}, not a file", str(path))
    return path


class DocumentError(ValueError):
    """The reason a document cannot be read, as half a sentence."""


def read_document(path: Path, *, stream: bool = False) -> object:
    """Read a JSON file, or a YAML one by its ending.

    With ``stream``, the path may be that of an open pipe: standard input, or ``/dev/fd/N`` as shells write ``<(...)``.
    Such a document is JSON where it begins with a brace, else YAML.

    Raises
    ------
    DocumentError
        If the file is unreadable, not UTF-8, or not as `parse_document` needs it.
    """
    is_stream = stream and (path == STDIN or path.parent == Path("/dev/fd"))
    text = _decode(_read_at_most(path, is_stream=is_stream))
    is_yaml = path.suffix.lower() in YAML or (is_stream and not text.lstrip().startswith("{"))
    return parse_document(text, is_yaml=is_yaml)


def read_with_checksum(path: Path) -> tuple[object, str]:
    """Read a JSON or YAML file once, and compute the sha256 of what was read. Errors are those of `read_document`."""
    content = read_bytes(path)
    return parse_document(_decode(content), is_yaml=path.suffix.lower() in YAML), hashlib.sha256(content).hexdigest()


def parse_document(text: str, *, is_yaml: bool = False) -> object:
    """Parse a JSON or a YAML document.

    Raises
    ------
    DocumentError
        If it is not well-formed, nested too deeply, or repeats a key.
    """
    try:
        if is_yaml:
            _check_length(text, MAX_YAML_BYTES)
            document = _read_yaml(text)
        else:
            document = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        _check_depth(document)
    except RecursionError:
        reason = "it is nested too deeply"
    except json.JSONDecodeError as exc:
        reason = f"not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}"
    except (DocumentError, MemoryError):
        raise
    except Exception as exc:  # a tag or a number that PyYAML cannot construct can raise anything
        reason = f"{type(exc).__name__}: {' '.join(str(exc).split())}"
    else:
        return document
    raise DocumentError(reason) from None


def read_text(path: Path) -> str:
    """Read a UTF-8 file; a byte order mark is dropped, line ends are kept as they are.

    Raises
    ------
    DocumentError
        If the file is unreadable, not a plain file, longer than any of its kind, or not UTF-8.
    """
    return _decode(_read_at_most(path, is_stream=False))


def read_unpacked(path: Path) -> str:
    """Read a UTF-8 file that may be packed with gzip, which is as long unpacked as any other may be.

    Raises
    ------
    DocumentError
        As `read_text` does; also if what is packed is damaged, or longer than any document.
    """
    content = _read_at_most(path, is_stream=False)
    if content.startswith(b"\x1f\x8b"):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                content = read_at_most(file, MAX_BYTES + 1)
        except (EOFError, OSError, zlib.error):
            reason = "it is packed with gzip, and cut off or damaged"
            raise DocumentError(reason) from None
        _check_length(content, MAX_BYTES)
    return _decode(content)


def read_bytes(path: Path) -> bytes:
    """Read a file that is a document, or read it for its checksum.

    Raises
    ------
    DocumentError
        If the file is unreadable, not a plain file, or longer than any of its kind.
    """
    return _read_at_most(path, is_stream=False)


def read_at_most(file: BinaryIO | gzip.GzipFile, n_bytes: int) -> bytes:
    """Read up to so many bytes, in parts: ``read`` of a number reserves that much memory, however short the file is."""
    parts: list[bytes] = []
    while n_bytes > 0 and (part := file.read(min(n_bytes, 2**20))):
        parts.append(part)
        n_bytes -= len(part)
    return b"".join(parts)


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        reason = f"not UTF-8 at byte {exc.start:,}"
    raise DocumentError(reason) from None


def _read_at_most(path: Path, *, is_stream: bool) -> bytes:
    try:
        with _open(path, is_stream=is_stream) as file:
            content = read_at_most(file, MAX_BYTES + 1)
    except DocumentError:
        raise
    except (OSError, ValueError, MemoryError) as exc:  # a path with NUL in it is a ValueError
        if (limit := limit_error(exc, path)) is not None:
            raise limit from None
        reason = os_error_text(exc) if isinstance(exc, OSError) else str(exc)
        raise DocumentError(reason) from None
    _check_length(content, MAX_BYTES)
    return content


def _open(path: Path, *, is_stream: bool) -> AbstractContextManager[BinaryIO]:
    if path == STDIN and is_stream:
        return nullcontext(sys.stdin.buffer)
    return path.open("rb") if is_stream else plain_file(path).open("rb")


def _check_length(content: str | bytes, most: int) -> None:
    if len(content) > most:
        reason = f"it is longer than {most:,} bytes"
        raise DocumentError(reason)


def _check_depth(document: object) -> None:
    level = [document]
    for _ in range(DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise RecursionError


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise DocumentError(_repeated_key_text(_first_repeated(key for key, _ in pairs)))
    return mapping


def _first_repeated(keys: Iterable[object]) -> object:
    seen = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None


def _repeated_key_text(key: object) -> str:
    return f"key {key!r} occurs more than once"


def _refuse_constant(name: str) -> NoReturn:
    reason = f"{name} is not JSON"
    raise DocumentError(reason)


def _read_yaml(text: str) -> object:
    import yaml

    class Plain(yaml.SafeLoader):
        """Refuses repeated keys, which YAML forbids and PyYAML lets pass, and aliases.

        A few nested aliases can expand to more data than there is memory, and a configuration has no use for them.
        """

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                reason = "it holds an alias (*name)"
                raise DocumentError(reason)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:  # noqa: FBT001, FBT002
            mapping = super().construct_mapping(node, deep=deep)
            if len(mapping) < len(node.value):
                keys = (self.construct_object(key, deep=True) for key, _ in node.value)
                raise DocumentError(_repeated_key_text(_first_repeated(keys)))
            return mapping

    try:
        return yaml.load(text, Plain)  # noqa: S506 -- a SafeLoader
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f" at line {mark.line + 1:,}, column {mark.column + 1:,}" if mark else ""
        reason = f"not YAML: {' '.join(str(exc.problem or exc.context).split())}{place}"
    except yaml.YAMLError as exc:
        reason = f"not YAML: {' '.join(str(exc).split())}"
    raise DocumentError(reason)
