"""Record batches in, a folder of Arrow shards that `datasets.load_from_disk` opens out.

Files are written beside their names and renamed; those that make the folder loadable come last, so a folder is a
complete dataset or none.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .errors import error
from .manifest import FILE_NAME, Manifest, Shard, sha256_of
from .schema import features
from .sources import fingerprint
from .tokenizer import Expression, Plan, plan, tokenize_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .args import TokenizationArgs

#: The two files without which `datasets` sees no dataset; written last.
STATE, INFO = "state.json", "dataset_info.json"


def tokenize_to_disk(
    source: Any,
    args: TokenizationArgs | Mapping[str, Any],
    save_dir: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    threads: int | None = None,
    progress: bool = False,
    overwrite: bool = False,
) -> Manifest:
    """Tokenize a source into ``save_dir/<stem of the source>``, a dataset that `datasets.load_from_disk` opens.

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
    progress
        Show a progress bar on standard error.
    overwrite
        Replace a folder that holds something already.

    Returns
    -------
    The manifest, as also written to ``teddytok.json``.

    Raises
    ------
    ConfigError, VocabularyError, SourceError, DataError
        As `tokenize` does.
    OutputError
        If the folder exists and is not empty, or cannot be written.
    """
    ready = plan(source, args)
    folder = output_folder(source, save_dir or ready.args.save_dir, name)
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise error("output_exists", path=str(folder))
        _clear(folder)
    try:
        return _write(ready, folder, threads, progress=progress)
    except OSError as bad:
        if getattr(bad, "kind", ""):  # one of ours
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
    if name in {"", ".", ".."} or Path(name).name != name or "\0" in name:
        raise error("output_name", name=name)
    return Path(save_dir) / name


def _clear(folder: Path) -> None:
    """Remove what a former run wrote; refuse to remove anything else."""
    ours = {STATE, INFO, FILE_NAME, "genes.csv"}
    for path in folder.iterdir():
        if path.name not in ours and not (path.name.startswith("data-") and ".arrow" in path.name):
            raise error("output_exists", path=str(folder))
    shutil.rmtree(folder)


def _write(ready: Plan, folder: Path, threads: int | None, *, progress: bool) -> Manifest:
    from .progress import progress_bar

    folder.mkdir(parents=True, exist_ok=True)
    shard_rows = ready.args.max_shard_samples
    n_shards = max(-(-ready.source.n_cells // shard_rows), 1)  # an empty source is one empty shard
    expression = Expression()
    shards: list[Shard] = []
    n_tokens = 0
    with progress_bar(ready.source.n_cells, show=progress) as advance:
        batches = tokenize_batches(ready, threads=threads, expression=expression)
        for number in range(n_shards):
            path = folder / f"data-{number:05d}-of-{n_shards:05d}.arrow"
            rows = min(shard_rows, ready.source.n_cells - number * shard_rows)
            n_tokens += _write_shard(path, ready.schema, batches, rows, advance)
            shards.append(Shard(path.name, rows, path.stat().st_size, sha256_of(path)))

    genes_sha256 = _write_file(folder / "genes.csv", _genes_csv(ready))
    manifest = Manifest.of(
        ready,
        folder,
        fingerprint=fingerprint(ready.source),
        expression=expression,
        genes_sha256=genes_sha256,
        n_tokens=n_tokens,
        shards=shards,
    )
    _write_file(folder / FILE_NAME, manifest.to_json())
    described = features(ready.args, ready.annotations.columns)
    info = {"citation": "", "description": "", "features": described, "homepage": "", "license": ""}
    _write_file(folder / INFO, json.dumps(info, indent=2))
    content = "".join(shard.sha256 for shard in shards) + json.dumps(described)
    state: dict[str, Any] = {
        "_data_files": [{"filename": shard.file} for shard in shards],
        "_fingerprint": hashlib.sha256(content.encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    _write_file(folder / STATE, json.dumps(state, indent=2))
    return manifest


def _write_shard(
    path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch], rows: int, advance: Callable[[int], None]
) -> int:
    """Write the next ``rows`` rows as one Arrow stream; batches end where shards do. Returns the tokens written."""
    beside = path.with_suffix(".arrow.part")
    written = n_tokens = 0
    with pa.OSFile(str(beside), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        while written < rows:
            batch = next(batches)
            stream.write_batch(batch)
            written += batch.num_rows
            n_tokens += len(batch.column("gene_ids").flatten())
            advance(batch.num_rows)
    _commit(beside, path)
    return n_tokens


def _write_file(path: Path, text: str) -> str:
    """Write a small file; returns its sha256."""
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(text, encoding="utf-8", newline="")
    _commit(beside, path)
    return hashlib.sha256(text.encode()).hexdigest()


def _commit(beside: Path, path: Path) -> None:
    """Give a finished file its name, once its bytes are on the disk."""
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)


def _genes_csv(ready: Plan) -> str:
    """List every gene of the source: its id, its name, and its token where it was kept."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["gene_id", "name", "token"])
    names = ready.genes.names or [""] * len(ready.genes.gene_ids)
    for column, (gene_id, gene_name) in enumerate(zip(ready.genes.gene_ids, names, strict=True)):
        rows.writerow([gene_id, gene_name, ready.genes.token_of_column(column)])
    return text.getvalue()
