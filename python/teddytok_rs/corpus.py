"""Many sources in, a folder of one dataset each and `corpus.json` out; here, or through any executor.

::

    sources --- find_sources --> one after the other: open_run --> run_shard tasks --+
                                                                                     |  a bounded number at a time
    corpus.json <-- Run.commit <-- Run.note <-- Future[Shard] <-- executor.submit <--+
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from .args import TokenizationArgs
from .corpus_flight import do_with
from .corpus_work import Outcome, Work, corpus_folder, do_here
from .folder import locked, writing
from .formats import check_format
from .messages import error
from .sources.listing import find_sources
from .tokenizer import resources
from .vocabulary import load_vocabulary

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from .corpus_manifest import CorpusManifest


def tokenize_corpus(
    sources: Any,
    args: TokenizationArgs | Mapping[str, Any],
    save_dir: str | os.PathLike[str] | None = None,
    *,
    executor: Executor | None = None,
    threads: int | None = None,
    chunk_bytes: int | None = None,
    fail_fast: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    report: bool = False,
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
        A `TokenizationArgs` or a dict of its fields, for all sources.
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

    The datasets of a corpus can be joined: a source whose ``labels`` would be classes of other names fails. Where no
    ``gene_seed`` is given, each source draws its own, and its manifest tells it.
    """
    return run_corpus(
        sources,
        args,
        save_dir,
        executor=executor,
        threads=threads,
        chunk_bytes=chunk_bytes,
        fail_fast=fail_fast,
        overwrite=overwrite,
        progress=progress,
        pages=report,
    )


def run_corpus(
    sources: Any,
    args: TokenizationArgs | Mapping[str, Any],
    save_dir: str | os.PathLike[str] | None = None,
    *,
    executor: Executor | None = None,
    threads: int | None = None,
    chunk_bytes: int | None = None,
    fail_fast: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    pages: bool = False,
    report: Callable[[Outcome], None] = lambda _: None,
) -> CorpusManifest:
    """Do what `tokenize_corpus` promises, and report each source when it is finished or failed."""
    if pages:
        from .report import need_extra, write_report

        need_extra()
    args = TokenizationArgs.load(args)
    check_format(args.format)
    n_threads, n_bytes = resources(threads, chunk_bytes)
    if executor is not None and threads is not None:
        problem = "threads are given, and an executor, each of whose workers uses one"
        raise error("config_conflict", where="", problem=problem, advice="Give the executor more workers instead")
    found = find_sources(sources)
    folder = corpus_folder(found, save_dir or args.save_dir)
    vocabulary = load_vocabulary(args.tokenizer_name_or_path).sha256  # before anything is made
    with ExitStack() as held:
        with writing(folder):
            held.enter_context(locked(folder.resolve()))
        options: dict[str, Any] = {
            "chunk_bytes": chunk_bytes,
            "overwrite": overwrite,
            "progress": progress,
            "pages": pages,
        }
        with Work(folder, args, vocabulary, report, threads=n_threads, **options) as work:
            work.take_over(found)
            if executor is None:
                do_here(work, found, n_threads, n_bytes, fail_fast=fail_fast)
            else:
                do_with(executor, work, found, fail_fast=fail_fast)
            corpus = work.manifest()
        if pages and corpus.finished:  # corpus.json is written now
            write_report(folder)
        return corpus
