"""Tokenize many sources into a folder of one dataset each and `corpus.json`; here, or through any executor.

::

    sources --- find_sources --> one after the other: open_run --> run_shard tasks --+
                                                                                     |  a bounded number at a time
    corpus.json <-- Run.commit <-- Run.note <-- Future[Shard] <-- executor.submit <--+
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..config.args import TokenizationArgs
from ..errors.build import error
from ..mapping.classes import read_label_names
from ..mapping.inputs import fetch_inputs
from ..mapping.vocabulary import load_vocabulary
from ..output.formats import check_format
from ..output.resume import holds_corpus
from ..output.storage import locked, writing
from ..pipeline.resources import Resources
from ..sources.discover import find_sources
from ..sources.remote import is_remote
from .executor import run_on_executor
from .state import CorpusRun, Outcome, corpus_folder, run_locally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from ..config.args import ArgsLike
    from ..output.manifest import Manifest
    from ..output.run import Run
    from .manifest import CorpusManifest


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
    corpus_of_one: bool = True,
    on_source: Callable[[Outcome], None] | None = None,
    on_dataset: Callable[[Manifest, Run | None], None] | None = None,
) -> CorpusManifest:
    """Tokenize many sources; parameters and errors are those of `api.tokenize_corpus`.

    ``on_dataset`` is called with each finished dataset, and with its run where there was one to do.
    """
    args = fetch_inputs(TokenizationArgs.load(args))
    check_format(args.format)
    resources = Resources.resolve(1 if executor is not None and threads is None else threads, chunk_bytes)
    if executor is not None and threads is not None:
        problem = "threads are given, and an executor, each of whose workers uses one"
        raise error("config_conflict", where="", problem=problem, advice="Give the executor more workers instead")
    found = find_sources(sources)
    folder = corpus_folder(found, save_dir or args.save_dir)
    args = args.replace(label_names=read_label_names(args.label_names))
    vocabulary = load_vocabulary(args.tokenizer_name_or_path)  # before anything is made
    is_corpus = corpus_of_one or executor is not None or not _is_single(sources, found) or holds_corpus(folder)
    with ExitStack() as held:
        if is_corpus:
            with writing(folder):
                held.enter_context(locked(folder.resolve()))
        with CorpusRun(
            folder,
            args,
            vocabulary,
            resources=resources,
            overwrite=overwrite,
            progress=progress,
            is_corpus=is_corpus,
            on_source=on_source,
            on_dataset=on_dataset,
        ) as corpus_run:
            corpus_run.keep_finished(found)
            pending = [source for source in found if not corpus_run.is_finished(source)]
            corpus_run.fix_classes(pending)
            if executor is None:
                run_locally(corpus_run, pending, fail_fast=fail_fast)
            else:
                run_on_executor(executor, corpus_run, pending, fail_fast=fail_fast)
            return corpus_run.manifest()


def _is_single(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], found: list[str]) -> bool:
    """Return whether the source is one local file, store or query, and not a folder or glob."""
    named = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    return len(named) == len(found) == 1 and os.fspath(named[0]) == found[0] and not is_remote(found[0])
