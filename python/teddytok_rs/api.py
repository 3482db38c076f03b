"""Define the public functions. Each combines the stages below and has no logic of its own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from .corpus import tokenize as corpus_tokenize
from .corpus.manifest import find_datasets
from .corpus.verify import verify_corpus
from .mapping import vocabulary
from .output.inspect import inspect
from .output.layout import CORPUS, MANIFEST
from .output.manifest import Manifest
from .output.medians import build_medians
from .output.resume import holds_corpus
from .output.run import finish_run, open_run
from .output.storage import exists
from .output.verify import verify_dataset
from .output.vocabulary import dataset_vocabulary
from .pipeline.batches import record_batches, tokenize_batches
from .pipeline.check import check
from .pipeline.plan import build_plan
from .pipeline.resources import Resources
from .pipeline.warnings import collect_warnings, log_warnings, lost_expression
from .progress import progress_bar
from .report import need_extra, write_page, write_report
from .sources.files import closed_on_error

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor

    from .config.args import ArgsLike
    from .corpus.manifest import CorpusManifest
    from .corpus.state import Outcome
    from .mapping.vocabulary import Vocabulary
    from .output.run import Run
    from .output.verify import Verification
    from .pipeline.plan import Plan
    from .sources.protocol import SourceLike

__all__ = [
    "build_medians",
    "check",
    "inspect",
    "iter_batches",
    "load_vocabulary",
    "tokenize",
    "tokenize_corpus",
    "tokenize_to_disk",
    "verify",
    "write_report",
]


def tokenize(
    source: SourceLike,
    args: ArgsLike,
    *,
    threads: int | None = None,
    chunk_bytes: int | None = None,
    progress: bool | None = None,
) -> pa.Table:
    """Tokenize a source into one table in memory.

    Parameters
    ----------
    source
        An AnnData, the path of an ``.h5ad`` file or a ``.zarr`` store, or the ``soma://`` URL of a SOMA query.
    args
        A `TokenizationArgs`, a dict of its fields, or the path of a JSON or YAML file.
    threads
        Threads to use; all cores if not given. The result is the same for any number.
    chunk_bytes
        Bytes of matrix and tokens to hold in addition to the result, about; 128 MiB for each thread if not given. The
        result is the same for any.
    progress
        Show how far it is: by default as a bar where standard error is a terminal, or in a notebook, and nowhere else.
        True also writes a line to standard error every 30 seconds where there is neither; False shows nothing.

    Returns
    -------
    A table with one row per cell, in the order of the source, in chunks of at most 1,000 rows: ``gene_ids`` list<int32>
    (or ``token_dtype``), ``values`` list<float32> (list<int32> with ``bins``), then ``bio_annotations``, ``labels`` and
    ``obs_columns``, where asked for.

    Raises
    ------
    ConfigError
        If an argument, or a file it names, is not valid.
    VocabularyError
        If the vocabulary cannot be read or lacks a special token that is needed.
    SourceError
        If the source cannot be opened or read.
    DataError
        If the source's genes, cells or values cannot be tokenized as asked; `GeneMatchError` where too few genes are
        in the vocabulary.

    Examples
    --------
    >>> import teddytok_rs
    >>> from teddytok_rs import demo
    >>> table = teddytok_rs.tokenize(demo.cells(), demo.args(max_seq_len=4))
    >>> table.num_rows, table.column_names
    (700, ['gene_ids', 'values', 'bio_annotations', 'labels'])
    """
    resources = Resources.resolve(threads, chunk_bytes)
    plan = build_plan(source, args)
    with closing(plan.source), progress_bar(len(plan.cells), show=progress) as advance:
        batches = _batches_with_warnings(plan, resources, advance)
        return pa.Table.from_batches(batches, plan.schema)


def iter_batches(
    source: SourceLike,
    args: ArgsLike,
    *,
    threads: int | None = None,
    chunk_bytes: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """Tokenize a source in record batches of at most 1,000 cells, holding a bounded part of it in memory.

    Parameters and errors are those of `tokenize`; everything but the values is checked before the first batch. How far
    it is, the caller's own loop knows.
    """
    resources = Resources.resolve(threads, chunk_bytes)
    return _batches_with_warnings(build_plan(source, args), resources)


def _batches_with_warnings(
    plan: Plan, resources: Resources, advance: Callable[[int], None] = lambda _: None
) -> Iterator[pa.RecordBatch]:
    """Tokenize all of a plan, and log the warnings: now, and those that show at the end. Then its source is closed."""
    logged: set[str] = set()

    def log_lost_expression(lost: float) -> None:
        log_warnings(lost_expression(plan.source.name, lost), logged)

    def in_turn() -> Iterator[pa.RecordBatch]:
        with closing(plan.source):
            yield from record_batches(tokenize_batches(plan, resources=resources), advance, log_lost_expression)

    with closed_on_error(plan.source):
        log_warnings(collect_warnings(plan), logged)
    return in_turn()


def tokenize_to_disk(
    source: SourceLike,
    args: ArgsLike,
    save_dir: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    threads: int | None = None,
    chunk_bytes: int | None = None,
    progress: bool | None = None,
    overwrite: bool = False,
    report: bool = False,
) -> Manifest:
    """Tokenize a source into ``save_dir/<stem of the source>``, a dataset that `datasets.load_from_disk` opens.

    With ``format = "parquet"`` or ``"webdataset"``, its files are those that these libraries open.

    A run that was interrupted, in whatever way, is continued by calling this again: finished shards are checked and
    kept. A folder that is finished already is checked in the same way, and left as it is; damaged files are written
    again. If the source may have changed since, its shards are made again and compared: equal ones are kept, and
    different ones are an error that changes nothing.

    Parameters
    ----------
    source
        An AnnData, the path of an ``.h5ad`` file or a ``.zarr`` store, or the ``soma://`` URL of a SOMA query.
    args
        A `TokenizationArgs`, a dict of its fields, or the path of a JSON or YAML file.
    save_dir
        Where the dataset's folder is made; ``args.save_dir`` if not given.
    name
        The folder's name; the stem of the source's path if not given, ``"anndata"`` for an AnnData in memory.
    threads
        Threads to use; all cores if not given. The bytes are the same for any number.
    chunk_bytes
        Bytes of matrix and tokens to hold in memory, about; 128 MiB for each thread if not given. The bytes written are
        the same for any.
    progress
        As for `tokenize`.
    overwrite
        Start again in a folder that holds another run.
    report
        Write ``report.html`` into the folder too, see `write_report`; needs ``pip install 'teddytok-rs[report]'``.

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
    resources = Resources.resolve(threads, chunk_bytes)
    if report:
        need_extra()
    with open_run(source, args, save_dir, name=name, resources=resources, overwrite=overwrite) as run:
        logged: set[str] = set()
        log_warnings(run.manifest.warnings, logged)
        manifest = finish_run(run, progress=progress)
        log_warnings(manifest.warnings, logged)
        if report:
            write_page(manifest, run)
        return manifest


def tokenize_corpus(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    args: ArgsLike,
    save_dir: str | os.PathLike[str] | None = None,
    *,
    executor: Executor | None = None,
    threads: int | None = None,
    chunk_bytes: int | None = None,
    fail_fast: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    report: bool = False,
    corpus_of_one: bool = True,
    on_source: Callable[[Outcome], None] | None = None,
) -> CorpusManifest:
    """Tokenize many sources, each into ``save_dir/<its stem>``, as `tokenize_to_disk` does, to the byte.

    A source that cannot be tokenized is reported and does not stop the others. Calling this again, after whatever
    interruption, leaves what is finished as it is, continues what is not, and tries again what failed; calling it with
    other sources adds them. `teddytok_rs.torch.WrittenDataset` takes the folder as one dataset.

    Parameters
    ----------
    sources
        One or many of: the path of an ``.h5ad`` file or ``.zarr`` store; a folder, for every one in it, by name, not in
        folders below; a glob, such as ``"atlas/**/*.h5ad"``; a URL of any of these that `fsspec` knows, such as
        ``s3://`` (``pip install 'teddytok-rs[cloud]'``); or the ``soma://`` URL of a SOMA query
        (``pip install 'teddytok-rs[soma]'``).
    args
        A `TokenizationArgs`, a dict of its fields, or the path of a JSON or YAML file; for all sources.
    save_dir
        The folder of the corpus; ``args.save_dir`` if not given.
    executor
        Any `concurrent.futures.Executor`, such as a ``ProcessPoolExecutor``, whose workers see the sources and
        ``save_dir`` under the same paths. Sources are opened here and cut into shards; each worker writes a shard at a
        time, with one thread. The bytes are the same for any. Without one, the sources are done here one after the
        other.
    threads
        Threads to use where there is no executor; all cores if not given.
    chunk_bytes
        Bytes of matrix and tokens to hold in memory, about, here or in each worker; 128 MiB for each thread if not
        given.
    fail_fast
        Stop at the first source that fails.
    overwrite
        Start again in folders that hold another run.
    progress
        As for `tokenize`, over the cells of the sources opened so far.
    report
        Write ``report.html`` into the folder of each dataset and into that of the corpus, see `write_report`; needs
        ``pip install 'teddytok-rs[report]'``.
    corpus_of_one
        False, as the command line has it, leaves ``save_dir`` without ``corpus.json`` where ``sources`` is the path of
        a single file or store, or a single SOMA query, unless there is an executor or ``save_dir`` holds a corpus.
    on_source
        Called with the `Outcome` of each source as soon as it is finished or failed.

    Returns
    -------
    The manifest, as also written to ``corpus.json``; ``manifest.failed`` lists the sources that failed, and why.

    Raises
    ------
    ConfigError
        If there is no source, two have the same stem, or an argument is wrong.
    VocabularyError
        If the vocabulary cannot be read.
    SourceError
        If a URL's folder or glob cannot be listed.
    OutputError
        If the folder is written to by another process, holds a corpus that this one cannot be joined to, or cannot be
        written; or if the executor broke down. The same call with a new one continues.

    Notes
    -----
    A remote source is copied whole into ``save_dir`` before its run and removed after it: that takes its size there,
    and time in which only tasks already submitted are done. Credentials are those that `fsspec` finds.

    The datasets of a corpus can be joined: the classes of ``label_column`` are numbered over all sources, in a first
    pass over ``obs``, unless ``label_names`` is set. Sources that are added later append their names. Where no
    ``gene_seed`` is given, each source draws its own, and its manifest records it.
    """
    write_pages = None
    if report:
        need_extra()

        def write_pages(manifest: Manifest, run: Run | None) -> None:
            if run is None:
                write_report(manifest.path)
            else:
                write_page(manifest, run)

    corpus = corpus_tokenize.tokenize_corpus(
        sources,
        args,
        save_dir,
        executor=executor,
        threads=threads,
        chunk_bytes=chunk_bytes,
        fail_fast=fail_fast,
        overwrite=overwrite,
        progress=progress,
        corpus_of_one=corpus_of_one,
        on_source=on_source,
        on_dataset=write_pages,
    )
    if report and corpus.finished and holds_corpus(corpus.path):
        write_report(corpus.path)
    return corpus


def load_vocabulary(name_or_path: str | os.PathLike[str]) -> Vocabulary:
    """Read a vocabulary, or the one that a dataset or corpus was written with.

    Parameters
    ----------
    name_or_path
        A folder with ``vocab.txt`` or ``vocab.json``, one such file, or a name on the Hugging Face Hub; or the folder
        of a dataset or corpus, which may have been moved.

    Raises
    ------
    VocabularyError
        If there is none, or its files are malformed or contradict one another.
    ConfigError
        If a dataset has no copy of its vocabulary, and the configured one is another one now.
    OutputError
        If the folder is that of a dataset or corpus that cannot be read.
    """
    folder = Path(name_or_path)
    if exists(folder / MANIFEST) or exists(folder / CORPUS):
        return dataset_vocabulary(Manifest.read(find_datasets(folder)[0]))
    return vocabulary.load_vocabulary(name_or_path)


def verify(path: str | os.PathLike[str], *, progress: bool | None = None) -> Verification:
    """Check every byte of a dataset, or of each of a corpus: checksums, counts, and that each shard can be read.

    `datasets.load_from_disk` checks nothing: a shard that was cut loads fewer rows, and a bad offset is a crash.

    Parameters
    ----------
    path
        The folder of a finished dataset, or of a corpus.
    progress
        As for `tokenize`.

    Returns
    -------
    A `Verification`: ``problems`` is empty if all is complete and undamaged; ``notes`` lists files of other tools.

    Raises
    ------
    OutputError
        If the folder is not that of a finished dataset or corpus.
    """
    folder = Path(path)
    check_folder = verify_corpus if holds_corpus(folder) else verify_dataset
    return check_folder(folder, progress=progress)
