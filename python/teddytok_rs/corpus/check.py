"""Check many sources by the rules that `tokenize_corpus` applies to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import DataError, OutputError, SourceError
from ..mapping.inputs import fetch_inputs
from ..output.compatibility import Columns, Joined
from ..pipeline.check import check
from .classes import fix_classes
from .state import corpus_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..config.args import TokenizationArgs
    from ..errors import TeddytokError
    from ..pipeline.check import CheckReport


def check_sources(
    sources: list[str], args: TokenizationArgs, *, threads: int | None = None, progress: bool | None = None
) -> Iterator[tuple[str, CheckReport | TeddytokError]]:
    """Check sources one after the other; yield each with its report, or with the error that kept it from being opened.

    Raises
    ------
    ConfigError
        If several sources would be written to one place, as `fix_classes` does, or as `check` does.
    """
    args = fetch_inputs(args)
    if len(sources) > 1:
        corpus_folder(sources, args.save_dir or ".")
        args, _ = fix_classes(sources, args)
    joined = Joined()
    for source in sources:
        try:
            report = check(source, args, threads=threads, progress=progress)
        except (SourceError, DataError) as exc:
            yield source, exc
            continue
        if report.schema is not None:
            try:
                joined.add(source, {"columns": Columns.of(report.schema, args.label_column)})
            except OutputError as exc:
                report = replace(report, problems=[*report.problems, str(exc)])
        yield source, report
