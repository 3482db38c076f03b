"""Record batches in, a folder of Arrow shards that `datasets.load_from_disk` opens out.

Every file is written beside its name, synced and renamed. Finished shards are noted in a journal, so that a run that
was killed is continued; the files that make the folder loadable come last, so a folder is a complete dataset or none.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .args import TokenizationArgs
from .errors import TeddytokError, error, some
from .manifest import FILE_NAME, JOURNAL, Manifest, Shard, sha256_of
from .schema import features
from .sources import fingerprint, stamp
from .tokenizer import Batch, Plan, plan, resources, tokenize_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

logger = logging.getLogger("teddytok_rs")

#: The two files without which `datasets` sees no dataset; written last.
STATE, INFO = "state.json", "dataset_info.json"
GENES = "genes.csv"
LOCK = ".teddytok.lock"
#: Names of the files that a run writes.
OURS = re.compile(
    r"(data-\d{5,}-of-\d{5,}\.arrow|(dataset_info|state|teddytok)\.json|genes\.csv|teddytok\.journal)(\.part)?"
)


def tokenize_to_disk(
    source: Any,
    args: TokenizationArgs | Mapping[str, Any],
    save_dir: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    threads: int | None = None,
    chunk_bytes: int | None = None,
    progress: bool = False,
    overwrite: bool = False,
) -> Manifest:
    """Tokenize a source into ``save_dir/<stem of the source>``, a dataset that `datasets.load_from_disk` opens.

    A run that was interrupted, in whatever way, is continued by calling this again: finished shards are checked and
    kept. A folder that is finished already is left as it is.

    Parameters
    ----------
    source
        An AnnData, or the path of an ``.h5ad`` file or a ``.zarr`` store.
    args
        A `TokenizationArgs` or a dict of its fields.
    save_dir
        Where the dataset's folder is made; ``args.save_dir`` if not given.
    name
        The folder's name; the stem of the source's path if not given, ``"anndata"`` for an AnnData in memory.
    threads
        Threads to use; all cores if not given. The bytes are the same for any number.
    chunk_bytes
        Bytes of matrix and tokens to hold in memory; 64 MiB if not given. The bytes written are the same for any.
    progress
        Show a progress bar on standard error.
    overwrite
        Start again in a folder that holds another run.

    Returns
    -------
    The manifest, as also written to ``teddytok.json``.

    Raises
    ------
    ConfigError, VocabularyError, SourceError, DataError
        As `tokenize` does; `SourceError` also if the source changes during the run.
    OutputError
        If the folder holds anything else than this run, is written to by another process, or cannot be written.
    """
    threads, chunk_bytes = resources(threads, chunk_bytes)
    args = TokenizationArgs.load(args)
    folder = output_folder(source, save_dir or args.save_dir, name)
    try:
        with _locked(folder):
            found = _found(folder, overwrite=overwrite)
            before = None if overwrite else _former_run(folder, found)
            ready = plan(source, args, seed=before.gene_seed if before else None)
            if overwrite:  # not before the arguments are known to be right
                for file in found:
                    _remove(folder / file)
            genes_csv = _genes_csv(ready)
            manifest = Manifest.of(ready, folder, fingerprint=fingerprint(ready.source), genes_csv=genes_csv)
            if before is not None and (differences := before.differences(manifest)):
                raise error("output_differs", path=str(folder), differences="; ".join(differences))
            begun = stamp(ready.source)
            complete = before is not None and STATE in found
            if before is not None and complete and all(shard.is_as_long(folder) for shard in before.shards):
                _remove(folder / JOURNAL)  # the last thing a run does, and what one killed then did not get to
                return before
            finished = before.shards if before else []
            if finished and Manifest.read_stamp(folder) != begun:
                # The fingerprint is of a sample. Where more than that is in doubt, nothing is kept.
                logger.warning("%s may have changed since the run began; all shards are written again", folder)
                finished = []
            batches = partial(tokenize_batches, ready, threads=threads, chunk_bytes=chunk_bytes)
            shards = _write_shards(ready, manifest, finished, batches, begun, progress=progress)
            if stamp(ready.source) != begun:
                raise error("source_changed", path=ready.source.name)
            return _commit_dataset(ready, manifest.with_shards(shards), genes_csv)
    except OSError as bad:
        if isinstance(bad, TeddytokError):
            raise
        raise error("output_failed", path=str(folder), reason=bad.strerror or bad) from bad


def output_folder(source: Any, save_dir: str | os.PathLike[str] | None, name: str | None = None) -> Path:
    """Name the folder that a source's dataset goes to.

    Raises
    ------
    ConfigError
        If there is no ``save_dir``, or the name is not a plain folder name.
    """
    if save_dir is None:
        raise error("no_save_dir")
    if name is None:
        name = Path(source).stem if isinstance(source, str | os.PathLike) else "anndata"
    if not _is_text(name) or name in {"", ".", ".."} or Path(name).name != name:
        raise error("output_name", name=name)
    if not _is_text(os.fspath(save_dir)):
        raise error("output_name", name=save_dir)
    return Path(save_dir) / name


def shards_of(folder: Path) -> set[str]:
    """List the finished shards in a folder, of whatever run."""
    return {path.name for path in folder.glob("data-*.arrow")}


def _is_text(name: object) -> bool:
    """Tell whether a name is text that files can be called by, everywhere and in a manifest."""
    return isinstance(name, str) and "\0" not in name and name == name.encode(errors="replace").decode()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other writers out of the folder. The system frees the lock of a process that dies."""
    from filelock import FileLock, Timeout

    if folder.is_symlink() or (folder / LOCK).is_symlink():
        raise error("output_symlink", path=str(folder))
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise error("output_locked", path=str(folder)) from None
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows removes no open file
            _remove(folder / LOCK)  # while it is held: whoever opened it meanwhile sees that it is gone
        lock.release()
        for path in made:  # a run that was refused leaves nothing behind
            if not any(path.iterdir()):
                path.rmdir()


def _found(folder: Path, *, overwrite: bool) -> list[str]:
    """List what an earlier run left in the folder, in the order in which it may be removed.

    What makes it loadable comes first, what tells that it is ours last. Anything else is nobody's to remove.
    """
    found = {path.name for path in folder.iterdir()} - {LOCK}
    if any((folder / name).is_symlink() for name in found):
        raise error("output_symlink", path=str(folder))
    foreign = sorted(name for name in found if not OURS.fullmatch(name) or (folder / name).is_dir())
    signed = found & {FILE_NAME, JOURNAL}
    if not signed:
        # A run signs the folder with its journal first. Shards alone may stay behind where that was removed by hand.
        foreign += sorted(
            name for name in found if not (name.endswith(".part") or (overwrite and name.startswith("data-")))
        )
    if foreign:
        raise error("output_exists", path=str(folder), files=some(foreign))
    return sorted(found, key=lambda name: (name != STATE, name in signed, name))


def _former_run(folder: Path, found: list[str]) -> Manifest | None:
    """Read what run the folder is of, finished or not; None where there is nothing to continue."""
    if FILE_NAME in found and JOURNAL not in found:
        return Manifest.read(folder)
    unfinished = Manifest.read_journal(folder)
    return unfinished if unfinished is not None and unfinished.shards else None  # no shard: nothing to continue


def _write_shards(
    ready: Plan,
    manifest: Manifest,
    finished: list[Shard],
    tokenize_between: Callable[[int, int], Iterator[Batch]],
    begun: str,
    *,
    progress: bool,
) -> list[Shard]:
    """Write the shards that are not finished yet; returns all of them, in order."""
    from .progress import progress_bar

    folder, shard_rows, n_cells = manifest.path, ready.args.max_shard_samples, len(ready.cells)
    n_shards = max(-(-n_cells // shard_rows), 1)  # no cells are one empty shard
    names = [f"data-{number:05d}-of-{n_shards:05d}.arrow" for number in range(n_shards)]
    kept = {shard.file: shard for shard in finished if shard.is_whole(folder)}
    for shard in finished:
        if shard.file not in kept:
            logger.warning("%s is not as it was written and is written again", folder / shard.file)
    shards = [kept.get(name) for name in names]

    with (
        _journal(folder, manifest.with_shards([shard for shard in shards if shard]), begun) as note,
        progress_bar(n_cells, done=sum(shard.rows for shard in kept.values()), show=progress) as advance,
    ):
        for first, last in _gaps(shards):
            start, stop = first * shard_rows, min(last * shard_rows, n_cells)
            batches = tokenize_between(start, stop)
            for number in range(first, last):
                rows = min(shard_rows, n_cells - number * shard_rows)
                shard = _write_shard(folder / names[number], ready.schema, batches, rows, advance)
                note(shard)
                shards[number] = shard
    return [shard for shard in shards if shard is not None]


def _gaps(shards: list[Shard | None]) -> Iterator[tuple[int, int]]:
    """Find the runs of shards that are missing: first one, and one past the last."""
    first = 0
    while first < len(shards):
        last = first
        while last < len(shards) and shards[last] is None:
            last += 1
        if last > first:
            yield first, last
        first = last + 1


@contextmanager
def _journal(folder: Path, manifest: Manifest, begun: str) -> Iterator[Callable[[Shard], None]]:
    """Note finished shards, so that a later run can go on from them."""
    head = manifest.with_shards([]).to_json(indent=None)
    _write_file(folder / JOURNAL, json.dumps(begun) + "\n" + head + "".join(map(_line, manifest.shards)))
    _remove(folder / STATE)  # of a dataset that is mended; not before the journal tells what it is
    with (folder / JOURNAL).open("a", encoding="utf-8", newline="") as journal:

        def note(shard: Shard) -> None:
            journal.write(_line(shard))
            journal.flush()

        yield note


def _write_shard(
    path: Path, schema: pa.Schema, batches: Iterator[Batch], rows: int, advance: Callable[[int], None]
) -> Shard:
    """Write the next ``rows`` rows as one Arrow stream; batches end where shards do."""
    beside = path.with_name(f"{path.name}.part")
    _remove(beside)
    written = tokens = 0
    expression = kept = 0.0
    with pa.OSFile(str(beside), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        while written < rows:
            batch = next(batches)
            stream.write_batch(batch.record_batch)
            written += batch.record_batch.num_rows
            tokens += batch.n_tokens
            expression += batch.expression
            kept += batch.expression_kept
            advance(batch.record_batch.num_rows)
    size, sha256 = beside.stat().st_size, sha256_of(beside)
    _commit(beside, path)
    return Shard(path.name, rows, tokens, size, sha256, _rounded(expression), _rounded(kept))


def _rounded(total: float) -> float:
    """Keep 12 digits, which another processor's way of summing cannot change, of a number that JSON can hold."""
    return float(f"{min(total, 1e308):.12g}")


def _commit_dataset(ready: Plan, manifest: Manifest, genes_csv: str) -> Manifest:
    """Write the files beside the shards, last those that make the folder loadable; remove what is left over."""
    folder = manifest.path
    wanted = {shard.file for shard in manifest.shards}
    for path in folder.glob("data-*"):
        if path.name not in wanted:
            _remove(path)
    _write_file(folder / GENES, genes_csv)
    _write_file(folder / FILE_NAME, manifest.to_json())
    described = features(ready.args, ready.annotations.columns)
    info = {"citation": "", "description": "", "features": described, "homepage": "", "license": ""}
    _write_file(folder / INFO, json.dumps(info, indent=2))
    content = "".join(shard.sha256 for shard in manifest.shards) + json.dumps(described)
    state: dict[str, Any] = {
        "_data_files": [{"filename": shard.file} for shard in manifest.shards],
        "_fingerprint": hashlib.sha256(content.encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    _write_file(folder / STATE, json.dumps(state, indent=2))
    _remove(folder / JOURNAL)
    return manifest


def _write_file(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.part")
    _remove(beside)
    beside.write_text(text, encoding="utf-8", newline="")
    _commit(beside, path)


def _commit(beside: Path, path: Path) -> None:
    """Give a finished file its name, once its bytes are on the disk; then the name too."""
    _sync(beside)
    beside.replace(path)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows syncs only what it may write
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _line(shard: Shard) -> str:
    return json.dumps(asdict(shard)) + "\n"


def _genes_csv(ready: Plan) -> str:
    """List every gene of the source: its id, its name, and its token where it was kept."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["gene_id", "name", "token"])
    names = ready.genes.names or [""] * len(ready.genes.gene_ids)
    for column, (gene_id, gene_name) in enumerate(zip(ready.genes.gene_ids, names, strict=True)):
        rows.writerow([gene_id, gene_name, ready.genes.token_of_column(column)])
    return text.getvalue()
