"""Record the finished shards of a run, so that a killed run can be resumed.

::

    teddytok.journal    <sha256 of the rest of the line> <the manifest without shards, as JSON>
                        <sha256 of the rest of the line> <a finished shard, as JSON>
                        ...

Each line is on the disk before the next shard is recorded. After a power loss, a line may be torn or full of zeros: its
shard counts as unfinished. If the first line is damaged, nothing is known about the run.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..config.files import MAX_BYTES, plain_file, read_at_most
from ..config.parts import parse_part, to_document
from .layout import JOURNAL
from .manifest import Manifest, Shard
from .storage import write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def read_head(folder: Path) -> Manifest | None:
    """Read the first line of a journal: the manifest of its run, without shards.

    Returns
    -------
    None if there is no journal, or the line is damaged.

    Raises
    ------
    OSError
        If the system does not let it be read now: nothing is known then of what it holds.
    """
    try:
        with plain_file(folder / JOURNAL).open("rb") as file:
            return _manifest(file.readline(MAX_BYTES).rstrip(b"\n"), folder)
    except FileNotFoundError:
        return None


def read_journal(folder: Path) -> Manifest | None:
    """Read a journal: the manifest of its run with the finished shards. Returns and raises as `read_head` does."""
    try:
        with plain_file(folder / JOURNAL).open("rb") as file:
            head, *lines = read_at_most(file, MAX_BYTES).split(b"\n")
    except FileNotFoundError:
        return None
    if (manifest := _manifest(head, folder)) is None:
        return None
    shards = {}
    for line in lines:
        try:
            shard = parse_part(Shard, _document(line))
        except (ValueError, RecursionError):
            continue
        shards[shard.file] = shard
    return manifest.with_shards(list(shards.values()))  # in the order they were finished, by several threads


def _manifest(line: bytes, folder: Path) -> Manifest | None:
    try:
        return parse_part(Manifest, _document(line), path=folder)
    except (ValueError, RecursionError):
        return None


@contextmanager
def open_journal(folder: Path, manifest: Manifest) -> Iterator[Callable[[Shard], None]]:
    """Create the journal of a run with the finished shards of its manifest.

    Yields
    ------
    A function that appends a finished shard to the journal and syncs it to the disk.
    """
    head = _line(to_document(manifest.with_shards([])))
    write_file(folder / JOURNAL, head + "".join(_line(to_document(shard)) for shard in manifest.shards))
    with open(folder / JOURNAL, "a", encoding="utf-8", newline="", opener=_open_no_link) as file:

        def note(shard: Shard) -> None:
            file.write(_line(to_document(shard)))
            file.flush()
            os.fsync(file.fileno())

        yield note


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _line(document: dict[str, object]) -> str:
    text = json.dumps(document)
    return f"{hashlib.sha256(text.encode()).hexdigest()} {text}\n"


def _document(line: bytes) -> object:
    """Parse a line; None if its checksum differs."""
    checksum, _, text = line.partition(b" ")
    return json.loads(text) if hashlib.sha256(text).hexdigest().encode() == checksum else None
