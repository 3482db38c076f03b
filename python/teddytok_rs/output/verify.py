"""Verify a dataset: every checksum and count of its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..progress import progress_bar
from .formats import open_shard
from .layout import FILE_NAME, JOURNAL, STATE
from .manifest import Manifest, Shard
from .storage import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..corpus.manifest import CorpusManifest


@dataclass(frozen=True)
class Verification:
    """What is wrong with the folder of a dataset or corpus; ``problems`` is empty where nothing is."""

    manifest: Manifest | CorpusManifest
    problems: list[str]


def verify_dataset(folder: Path, *, progress: bool | None = None) -> Verification:
    """Check every byte of one dataset.

    Raises
    ------
    OutputError
        If the folder is not that of a finished dataset.
    """
    manifest = Manifest.read(folder)
    with progress_bar(manifest.n_cells, show=progress, doing="verifying") as advance:
        return Verification(manifest, problems_of(manifest, advance))


def problems_of(manifest: Manifest, advance: Callable[[int], None]) -> list[str]:
    """List what is wrong with a dataset, see `verify`; ``advance`` takes the cells of each shard that was looked at."""
    folder = manifest.path
    problems: list[str] = []
    for name, sha256 in (manifest.checksums["genes"] | manifest.checksums["columns"]).items():
        if not (folder / name).is_file() or sha256_of(folder / name) != sha256:
            problems.append(f"{name} is not as it was written")
    for shard in manifest.shards:
        problems += _verify_shard(folder, shard)
        advance(shard.rows)
    if manifest.configuration["format"] == "arrow":
        problems += _verify_state(manifest)
    known = {shard.file for shard in manifest.shards}
    problems += [f"{file.name} belongs to no run" for file in sorted(folder.glob("data-*")) if file.name not in known]
    if (folder / JOURNAL).exists():
        problems.append(f"{JOURNAL} tells of an unfinished run; run it again to finish it")
    return problems


def _verify_state(manifest: Manifest) -> list[str]:
    try:
        state = json.loads((manifest.path / STATE).read_text(encoding="utf-8"))
        listed = [file["filename"] for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as bad:
        return [f"{STATE} cannot be read: {' '.join(str(bad).split())}"]
    same = listed == [shard.file for shard in manifest.shards]
    return [] if same else [f"{STATE} lists other shards than {FILE_NAME}"]


def _verify_shard(folder: Path, shard: Shard) -> list[str]:
    if not (folder / shard.file).is_file():
        return [f"{shard.file} is missing"]
    size = (folder / shard.file).stat().st_size
    if size != shard.bytes:
        return [f"{shard.file} has {size:,} bytes instead of {shard.bytes:,}"]
    if not shard.is_whole(folder):
        return [f"{shard.file} has other bytes than were written (sha256)"]
    rows = tokens = 0
    try:
        with open_shard(folder / shard.file) as (_, batches):
            for batch in batches:
                batch.validate(full=True)
                rows += batch.num_rows
                tokens += len(batch.column("gene_ids").flatten())
    except (OSError, ValueError, KeyError) as bad:
        return [f"{shard.file} cannot be read: {' '.join(str(bad).split())}"]
    if (rows, tokens) != (shard.rows, shard.tokens):
        return [
            f"{shard.file} holds {rows:,} rows and {tokens:,} tokens instead of {shard.rows:,} and {shard.tokens:,}"
        ]
    return []
