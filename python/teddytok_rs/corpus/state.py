"""Keep the state of a corpus while it is made: which sources are finished, open or failed; write `corpus.json`."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

from ..config.args import MAY_DIFFER, NOTES, PATHS, TABLES, recorded
from ..config.files import DocumentError
from ..errors import ConfigError, OutputError
from ..errors.build import describe_error, error
from ..errors.text import count, some
from ..mapping.gene_map import gene_map_checksum
from ..mapping.hub import read_argument_table
from ..mapping.vocabulary_files import is_same_vocabulary
from ..output.compatibility import Joined, class_names, meaning
from ..output.journal import read_journal
from ..output.layout import CORPUS, CORPUS_FILES, PAGE, output_folder
from ..output.manifest import Manifest
from ..output.nesting import refuse_nesting
from ..output.run import Run, open_run, write_shards
from ..output.storage import refuse_others, remove_temporary_files, write_file, writing
from ..output.temporary import record_files, remove_stale, temporary_folder
from ..output.verify import find_damage
from ..output.vocabulary import copies_of, write_shared_copy
from ..pipeline.warnings import log_warnings
from ..progress import progress_bar
from ..sources.discover import stem_of
from ..sources.identity import stamp, stamp_of_path
from ..sources.remote import copy_source, is_remote, remote_stamp
from .classes import fix_classes
from .manifest import CorpusManifest, CorpusSource, Failure, sha256_of_shards

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ..config.args import TokenizationArgs
    from ..config.tables import TableChecksum
    from ..mapping.classes import Classes
    from ..mapping.vocabulary import Vocabulary
    from ..pipeline.resources import Resources

logger = logging.getLogger("teddytok_rs")

#: Purpose of the temporary folders with copies of remote sources. They are in the corpus folder, so that workers on
#: other machines can read them and a later run finds what a killed process left.
COPY = "copy of a source"
#: Least seconds between two writes of `corpus.json`, which has megabytes for ten thousand sources.
SAVE_SECONDS = 10


@dataclass(frozen=True)
class Outcome:
    """Describe the result of one source; `tokenize_corpus` reports it as soon as it is known.

    Attributes
    ----------
    manifest
        Of the dataset; None where the source failed.
    seconds
        Time taken, in seconds, without that of a report.
    exception
        Why the source failed; None where it is finished.
    """

    source: CorpusSource
    manifest: Manifest | None = None
    seconds: float = 0.0
    exception: Exception | None = None


def corpus_folder(found: list[str], save_dir: str | os.PathLike[str] | None) -> Path:
    """Name the folder of a corpus.

    Raises
    ------
    ConfigError
        If two sources would be written to one place in it, or a source contains a dataset or the reverse.
    """
    folders = [output_folder(source, save_dir) for source in found]
    folder = folders[0].parent
    if twice := [path for path, n in Counter(folders).items() if n > 1]:
        named = [source for source, path in zip(found, folders, strict=True) if path in twice]
        problem = f"sources {some(named)} would be written to one place, {some(map(str, twice))}"
        raise error("config_conflict", where="", problem=problem, advice="Tokenize them into different folders")
    refuse_nesting(zip(found, folders, strict=True))
    return folder


@dataclass(eq=False)
class OpenRun:
    """A source whose run is open.

    Attributes
    ----------
    n_pending, all_submitted
        Tasks pending in an executor; whether all were submitted.
    error
        Why it failed, if it did.
    """

    source: str
    run: Run
    stamp: str
    started: float
    resources: ExitStack
    n_pending: int = 0
    all_submitted: bool = False
    error: Exception | None = None


class CorpusRun:
    """Collect the results of all sources, and hold the open runs."""

    def __init__(
        self,
        folder: Path,
        args: TokenizationArgs,
        vocabulary: Vocabulary,
        *,
        resources: Resources,
        overwrite: bool,
        progress: bool | None,
        is_corpus: bool = True,
        on_source: Callable[[Outcome], None] | None = None,
        on_dataset: Callable[[Manifest, Run | None], None] | None = None,
    ) -> None:
        self.folder, self.bar = folder, Bar(show=progress)
        self.any_failed = False
        self._is_taken_over = False  # before that, `corpus.json` is not written
        self._is_corpus = is_corpus  # else the dataset's folder is all that is written
        self._args, self._resources, self._overwrite = args, resources, overwrite
        self._on_source, self._on_dataset = on_source, on_dataset
        self._known: tuple[str, ...] = ()  # names of classes that have their numbers already
        self._classes: dict[str, Classes] = {}
        self._vocabulary, self._tables = vocabulary, _checksums(args)
        self._sources: dict[str, CorpusSource] = {}
        self._former: dict[str, CorpusSource] = {}
        self._open: list[OpenRun] = []
        self._joined = Joined()
        self._saved = time.monotonic()
        self._logged: set[str] = set()  # warnings

    def __enter__(self) -> Self:
        if not self._is_corpus:
            return self
        with writing(self.folder):
            refuse_others(self.folder, CORPUS_FILES)
            remove_temporary_files(self.folder)
            remove_stale(self.folder, COPY)  # by a process that was killed
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        for opened in self._open:
            opened.resources.close()
        self.save()

    def keep_finished(self, found: list[str]) -> None:
        """Take over what an earlier call finished: it is kept, and sources of other calls stay listed."""
        self.bar.n_sources = len(found)
        if self._is_corpus:
            if (self.folder / CORPUS).exists():
                self._take_over(found)
            self._is_taken_over = True

    def _take_over(self, found: list[str]) -> None:
        try:
            corpus = CorpusManifest.read(self.folder)
        except OutputError:
            if not self._overwrite:
                raise
            return
        names, any_known = {stem_of(source) for source in found}, False
        if not self._overwrite:
            self._know(corpus.configuration, corpus.configuration.get("label_names"))
        for source in corpus.finished:
            self._former[source.folder] = source
            if source.folder in names and self._overwrite:
                continue
            try:
                manifest = Manifest.read(self.folder / source.folder)
                known = meaning(manifest)
            except (OSError, ValueError):  # removed or damaged since; made again if it is part of this call
                continue
            if differences := self._differences(manifest):
                if self._overwrite:
                    continue
                raise error("output_differs", path=str(self.folder), differences="; ".join(differences))
            if not any_known and all(shard.is_undamaged(manifest.path) for shard in manifest.shards[:1]):
                self._joined.add(manifest.path, known)  # which is read from its first shard
                any_known = True
            self._know(manifest.configuration, class_names(manifest))
            if source.folder not in names:
                self._sources[source.folder] = source

    def _know(self, configuration: Mapping[str, object], label_names: object) -> None:
        """Take over the numbers of classes of the same obs column."""
        if configuration.get("label_column") == self._args.label_column and isinstance(label_names, list | tuple):
            self._known = max(self._known, tuple(map(str, label_names)), key=len)

    def fix_classes(self, pending: list[str]) -> None:
        """Fix the numbers of classes for the sources that are to be tokenized; those that others have stay."""
        if self._is_corpus:
            self._args, self._classes = fix_classes(pending, self._args, self._known, self._fetched)
            if self._args.label_names:  # before any dataset has them, so that they stay what they are
                self.save()

    @contextmanager
    def _fetched(self, source: str) -> Iterator[str]:
        """Open a ``with`` block that gives the path of a source, or of a copy of a remote one."""
        if not is_remote(source):
            yield source
            return
        with temporary_folder(self.folder, COPY) as copies:
            yield str(copy_source(source, copies, partial(record_files, copies)))

    def _args_of(self, source: str) -> TokenizationArgs:
        """Return the arguments for a source. Its dataset keeps its earlier class names if they still fit."""
        folder, names = self.folder / stem_of(source), self._args.label_names
        if self._overwrite or source not in self._classes or names is None:
            return self._args
        try:
            manifest = read_journal(folder) or Manifest.read(folder)
        except OSError:  # there is none, or it is reported where the source is opened
            return self._args
        earlier = manifest.configuration.get("label_names")
        earlier = tuple(earlier if isinstance(earlier, list) else class_names(manifest))
        if earlier and earlier == names[: len(earlier)] and set(self._classes[source].names) <= set(earlier):
            return self._args.replace(label_names=earlier)
        return self._args

    def _differences(self, manifest: Manifest) -> list[str]:
        """List what makes a dataset's sequences differ in meaning from those asked for."""
        there = manifest.configuration
        differences = [
            f"{key} ({there.get(key)!r} there, {value!r} now)"
            for key, value in sorted(self._configuration().items())
            if key not in MAY_DIFFER and (there.get(key) or None) != (value or None)
        ]
        if not is_same_vocabulary(manifest.checksums.vocabulary, self._vocabulary.sha256):
            differences.append("the vocabulary")
        return differences

    def is_finished(self, source: str) -> bool:
        """Return whether an earlier call finished a source, without opening it."""
        former, started = self._former.get(stem_of(source)), time.perf_counter()
        if self._overwrite or former is None or former.source != source:
            return False
        try:
            manifest = Manifest.read(self.folder / former.folder)
            finished = (
                self._is_same_run(manifest)
                and former.sha256 == sha256_of_shards(manifest)
                and former.stamp == self._stamp(source)
                and not find_damage(manifest)
            )
            if finished and self._on_dataset is not None and not (manifest.path / PAGE).exists():
                self._on_dataset(manifest, None)
        except OSError:  # reported where the source is opened
            return False
        if finished:
            logger.info("%s is finished already and left as it is", manifest.path)
            manifest = replace(manifest, n_kept=former.shards)
            self._finish(Outcome(former, manifest, time.perf_counter() - started))
        return finished

    def _stamp(self, source: str) -> str:
        return remote_stamp(source) if is_remote(source) else stamp_of_path(source, self._args.layer)

    def _is_same_run(self, manifest: Manifest) -> bool:
        from .. import __version__

        there, now = (
            {
                **configuration,
                **{key: configuration.get(key) is None for key in PATHS},
                **dict.fromkeys([*NOTES, "label_names"]),
            }
            for configuration in (manifest.configuration, self._configuration())
        )
        names, known = class_names(manifest), self._args.label_names or self._known
        return (
            manifest.version == __version__
            and there == now
            and names == known[: len(names)]
            and is_same_vocabulary(manifest.checksums.vocabulary, self._vocabulary.sha256)
            and all(self._tables.get(key) == checksum for key, checksum in manifest.checksums.tables.items())
        )

    def open(self, source: str) -> OpenRun | None:
        """Open the run of a source; None where that failed."""
        started = time.perf_counter()
        try:
            with ExitStack() as resources:
                seen = remote_stamp(source) if is_remote(source) else None
                path = resources.enter_context(self._fetched(source))
                run = resources.enter_context(
                    open_run(
                        path,
                        self._args_of(source),
                        self.folder,
                        name=stem_of(source),
                        resources=self._resources,
                        overwrite=self._overwrite,
                        copy_vocabulary=not self._is_corpus,
                    )
                )
                log_warnings(run.manifest.warnings, self._logged)
                self._joined.add(run.manifest.path, meaning(run.manifest, run.plan.schema))
                seen = seen or stamp(run.plan.source)
                n_cells, done = len(run.plan.cells), sum(shard.rows for shard in run.shards.values())
                self.bar.expect(n_cells, done if run.tasks else n_cells)
                opened = OpenRun(source, run, seen, started, resources.pop_all())
        except Exception as exc:
            self._fail(source, exc)
            return None
        self._open.append(opened)
        return opened

    def close(self, opened: OpenRun) -> None:
        """End the run of a source: commit it, or report why it failed."""
        self._open.remove(opened)
        with opened.resources:
            if opened.error is None:
                try:
                    with writing(opened.run.manifest.path):
                        manifest = opened.run.commit()
                    seconds = time.perf_counter() - opened.started
                    if self._on_dataset is not None:
                        self._on_dataset(manifest, opened.run)
                except Exception as exc:
                    opened.error = exc
        if opened.error is not None:
            self._fail(opened.source, opened.error)
            return
        log_warnings(manifest.warnings, self._logged)
        finished = CorpusSource.finished(opened.source, manifest, opened.stamp)
        self._finish(Outcome(finished, manifest, seconds))

    def _fail(self, source: str, exc: Exception) -> None:
        """Note that a source failed."""
        kind, message = describe_error(exc)
        self.any_failed = True
        self.bar.close()
        logger.error("%s", message if source in message else f"{source}: {message}")
        failed = CorpusSource(source, stem_of(source), error=Failure(kind, message))
        self._finish(Outcome(failed, exception=exc))

    def _finish(self, outcome: Outcome) -> None:
        self._sources[outcome.source.folder] = outcome.source
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()
        self.bar.close()
        self.bar.n_finished += 1
        if self._on_source is not None:
            self._on_source(outcome)

    def manifest(self) -> CorpusManifest:
        """Describe the corpus as it is now."""
        from .. import __version__

        in_order = [self._sources[folder] for folder in sorted(self._sources)]
        any_finished = any(source.error is None for source in in_order)
        copies = copies_of(self._vocabulary.sha256) if any_finished else {}
        return CorpusManifest(self.folder, __version__, self._configuration(), in_order, copies)

    def _configuration(self) -> dict[str, object]:
        return recorded(self._args)

    def save(self) -> None:
        """Write `corpus.json`."""
        if (self._sources or self._args.label_names) and self._is_taken_over:
            with writing(self.folder):
                manifest = self.manifest()
                if manifest.vocabulary:
                    write_shared_copy(self.folder, self._vocabulary)
                write_file(self.folder / CORPUS, manifest.to_json())
        self._saved = time.monotonic()


def _checksums(args: TokenizationArgs) -> dict[str, TableChecksum]:
    """Compute the checksums of mappings, medians and gene map; what is wrong with one is reported for each source."""
    checksums = {}
    for key in sorted(TABLES):
        if (given := getattr(args, key)) is not None:
            with suppress(DocumentError):
                _, checksums[key] = read_argument_table(key, given)
    if args.gene_map is not None:
        with suppress(ConfigError):
            checksums["gene_map"] = gene_map_checksum(args.gene_map)
    return checksums


def run_locally(corpus_run: CorpusRun, sources: list[str], *, fail_fast: bool) -> None:
    """Tokenize the sources one after the other, with threads."""
    for source in sources:
        if corpus_run.any_failed and fail_fast:
            return
        if (opened := corpus_run.open(source)) is None:
            continue
        try:
            with writing(opened.run.manifest.path):
                if opened.run.tasks:
                    write_shards(opened.run, corpus_run.bar.advance)
        except Exception as exc:
            opened.error = exc
        corpus_run.close(opened)


class Bar:
    """Show progress over the cells of all sources opened so far."""

    def __init__(self, *, show: bool | None) -> None:
        self._show = show
        self._n_cells = self._done = 0
        self.n_sources = self.n_finished = 0
        self._shown = ExitStack()
        self._advance: Callable[[int], None] | None = None

    def expect(self, n_cells: int, done: int) -> None:
        """Count the cells of a source, some of which were finished before."""
        self.close()
        self._n_cells += n_cells
        self._done += done

    def advance(self, cells: int) -> None:
        """Count cells that are done."""
        if self._advance is None:
            doing = "tokenizing"
            if self.n_sources > 1:
                doing = f"{self.n_finished:,} of {count(self.n_sources, 'source')} done"
            self._advance = self._shown.enter_context(
                progress_bar(self._n_cells, done=self._done, show=self._show, doing=doing)
            )
        self._done += cells
        self._advance(cells)

    def close(self) -> None:
        """Hide it, so that other lines can be printed; the next cells show it again."""
        self._shown.close()
        self._advance = None
