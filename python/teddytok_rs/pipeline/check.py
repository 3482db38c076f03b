"""A source and its arguments in, everything that would fail or surprise out; nothing is written."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config.args import TokenizationArgs
from ..errors import TeddytokError
from ..errors.text import count
from ..mapping.vocabulary import load_vocabulary
from ..progress import progress_bar
from ..sources.open import open_source
from ..sources.protocol import CsrChunk, DenseChunk
from .batches import chunks, over_batches, read_cells, tokenize_chunk
from .plan import Plan, plan_as_far
from .resources import resources
from .schema import MEMBER_BYTES, members_of
from .warnings import Seen, remarks_on_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ..config.args import ArgsLike
    from ..mapping.annotations import AnnotationReport
    from ..mapping.genes import GeneReport
    from ..sources.protocol import SourceLike

#: Cells with NaN or infinity that are named, at most.
NAMED_CELLS = 20
#: Chunks of cells that the kernel refuses for another reason that are told of, at most.
NAMED_REFUSALS = 5


@dataclass
class CheckReport:
    """What a run would meet.

    Attributes
    ----------
    problems
        What would stop the run, a message each; empty if nothing would.
    warnings
        What would not stop it but may not be meant.
    genes, annotations
        As in the run's manifest; None or empty where they could not be made.
    lost_genes
        The dropped genes with most expression: (gene, share of the total).
    expression_lost
        Share of the total expression that lies in dropped genes.
    n_cells, n_dropped, n_tokens, n_truncated, n_empty
        Cells to tokenize; those that ``cell_filter`` drops; tokens to be written; cells with more genes than a
        sequence holds; cells with none.
    n_shards, n_bytes
        Files to be written, and about how many bytes; of Parquet, before compression.
    """

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    genes: GeneReport | None = None
    annotations: dict[str, AnnotationReport] = field(default_factory=dict)
    lost_genes: list[tuple[str, float]] = field(default_factory=list)
    expression_lost: float = 0.0
    n_cells: int = 0
    n_dropped: int = 0
    n_tokens: int = 0
    n_truncated: int = 0
    n_empty: int = 0
    n_shards: int = 0
    n_bytes: int = 0


def check(
    source: SourceLike, args: ArgsLike, *, threads: int | None = None, progress: bool | None = None
) -> CheckReport:
    """Do everything that `tokenize_to_disk` would, but write nothing, and go on after a problem where possible.

    Parameters
    ----------
    source, args, threads, progress
        As for `tokenize`.

    Raises
    ------
    ConfigError, VocabularyError, SourceError, DataError
        If the arguments, the vocabulary or the source's layer cannot be read at all. Whatever is found after that is
        in the report's ``problems``.
    """
    threads, chunk_bytes = resources(threads, None)
    args = TokenizationArgs.load(args)
    vocabulary = load_vocabulary(args.tokenizer_name_or_path)
    opened = open_source(source, args.layer)
    report = CheckReport(n_cells=opened.n_cells)
    problems: list[TeddytokError] = []
    ready = plan_as_far(opened, vocabulary, args, problems)
    report.problems += map(str, problems)
    if ready is None:
        return report
    report.warnings += ready.remarks
    report.n_cells = len(ready.cells)
    report.n_dropped = opened.n_cells - report.n_cells
    report.genes, report.annotations = ready.genes.report, ready.annotations.reports
    with progress_bar(report.n_cells, show=progress, doing="checking") as advance:
        _scan(ready, report, threads, chunk_bytes, advance)
    return report


@dataclass
class _Counts:
    """What was found in a chunk.

    Attributes
    ----------
    n_cells
        Its cells.
    per_gene
        Shape (n_var,): sum of absolute values.
    seen
        What the values look like.
    bad
        Row in the source -> columns of kept genes that are NaN or infinite.
    refused
        Why the kernel refused the chunk, where that is all there is to say; then nothing below is counted.
    n_tokens, n_empty, n_truncated
        As in `CheckReport`.
    """

    n_cells: int
    per_gene: NDArray[np.float64]
    seen: Seen
    bad: dict[int, NDArray[Any]]
    refused: str | None = None
    n_tokens: int = 0
    n_empty: int = 0
    n_truncated: int = 0


def _scan(ready: Plan, report: CheckReport, threads: int, chunk_bytes: int, advance: Callable[[int], None]) -> None:
    """Read all values once: find what the kernel would refuse, and count what it would write."""
    kept = ready.genes.position_of_column >= 0
    per_gene = np.zeros(ready.source.n_var)
    bad_cells: list[str] = []
    refused: list[str] = []
    n_bad, seen = 0, Seen()

    def count_batch(batch: tuple[int, int]) -> list[_Counts]:
        return [_count(ready, kept, chunk) for chunk in chunks(ready, batch, chunk_bytes // threads)]

    try:
        with closing(over_batches(count_batch, ready, threads=threads)) as batches:
            for counts in chain.from_iterable(batches):
                advance(counts.n_cells)
                per_gene += counts.per_gene
                seen += counts.seen
                n_bad += len(counts.bad)
                for row, columns in islice(counts.bad.items(), NAMED_CELLS - len(bad_cells)):
                    genes = ", ".join(str(ready.genes.gene_ids[column]) for column in columns[:3])
                    bad_cells.append(f"{ready.source.cell_name(row)!r} ({genes})")
                if counts.refused:
                    refused.append(counts.refused)
                report.n_tokens += counts.n_tokens
                report.n_empty += counts.n_empty
                report.n_truncated += counts.n_truncated
    except TeddytokError as problem:
        if problem.kind != "matrix_malformed":
            raise
        report.problems.append(str(problem))  # its columns cannot be counted
        return
    if n_bad:
        more = f" and {n_bad - len(bad_cells):,} more" if n_bad > len(bad_cells) else ""
        report.problems.append(
            f"{count(n_bad, 'cell')} {'has' if n_bad == 1 else 'have'} NaN or infinity in kept genes: "
            f"{', '.join(bad_cells)}{more}. Fill or drop these values before tokenizing."
        )
    report.problems += refused[:NAMED_REFUSALS]
    if len(refused) > NAMED_REFUSALS:
        report.problems.append(f"{len(refused) - NAMED_REFUSALS:,} more chunks of cells are refused for such a reason.")
    total = per_gene.sum()
    if total > 0:
        lost = np.where(kept, 0.0, per_gene) / total
        report.expression_lost = float(lost.sum())
        worst = np.argsort(-lost, kind="stable")[:5]
        names = ready.genes.names or [str(gene_id) for gene_id in ready.genes.gene_ids]
        report.lost_genes = [(names[column], float(lost[column])) for column in worst if lost[column] > 0]
    report.warnings += remarks_on_values(ready, seen)
    report.n_shards = max(-(-report.n_cells // ready.args.max_shard_samples), 1)
    width = {"uint16": 2, "int32": 4, "int64": 8}[ready.args.token_dtype] + 4 * ready.args.write_values
    report.n_bytes = report.n_tokens * width + report.n_cells * 4 * (1 + ready.args.write_values)
    report.n_bytes += sum(column.values.nbytes for column in ready.annotations.columns)
    if ready.args.format == "webdataset":
        report.n_bytes += report.n_cells * members_of(ready.schema) * MEMBER_BYTES


def _count(ready: Plan, kept: NDArray[np.bool_], cells: tuple[int, int]) -> _Counts:
    chunk, places = read_cells(ready, cells)
    tokens = refused = None
    try:
        tokens = tokenize_chunk(ready, chunk, places)
    except TeddytokError as problem:
        if problem.kind == "matrix_malformed":
            raise
        refused = str(problem)
    columns, values, rows = entries(chunk)
    finite = np.isfinite(values)
    magnitudes = np.where(finite, np.abs(values.astype(np.float64)), 0.0)
    at = np.flatnonzero(~finite & kept[columns])
    counts = _Counts(
        n_cells=cells[1] - cells[0],
        per_gene=np.bincount(columns, weights=magnitudes, minlength=len(kept)).astype(np.float64),
        seen=Seen.of(values),
        bad={int(places[row]): columns[at[rows[at] == row]] for row in np.unique(rows[at])},
        refused=None if at.size else refused,
    )
    if tokens is not None:
        lengths = np.diff(tokens.offsets) - (ready.cls_token is not None)
        nonzero = np.bincount(rows[kept[columns] & (values != 0)], minlength=len(lengths))
        counts.n_tokens = int(tokens.offsets[-1])
        counts.n_empty = int((lengths == 0).sum())
        counts.n_truncated = int((nonzero > ready.args.n_selected).sum())
    return counts


def entries(chunk: CsrChunk | DenseChunk) -> tuple[Any, Any, Any]:
    """List the stored entries of a chunk: columns, values, rows (from the chunk's first)."""
    if isinstance(chunk, DenseChunk):
        rows, columns = np.nonzero(chunk.x)
        return columns, chunk.x[rows, columns], rows
    return chunk.indices, chunk.data, np.repeat(np.arange(len(chunk.indptr) - 1), np.diff(chunk.indptr))
