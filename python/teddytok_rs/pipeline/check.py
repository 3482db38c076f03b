"""Check a source and its arguments for everything that would fail or surprise; write nothing."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..config.args import TokenizationArgs
from ..errors import TeddytokError
from ..errors.text import Rows, TextRepr, count, size_text
from ..mapping.inputs import fetch_inputs
from ..mapping.reports import SourceReport, describe_source, gene_text, group_rows, layer_rows, unmapped_rows
from ..mapping.vocabulary import load_vocabulary
from ..progress import progress_bar
from ..sources.counts import ValueSummary
from ..sources.open import open_source
from .plan import build_incomplete_plan
from .resources import Resources
from .scan import scan
from .schema import MEMBER_BYTES, members_of
from .warnings import collect_warnings

if TYPE_CHECKING:
    import pyarrow as pa

    from ..config.args import ArgsLike
    from ..mapping.reports import AnnotationReport, GeneReport
    from ..mapping.vocabulary import Vocabulary
    from ..sources.protocol import Source, SourceLike
    from .plan import Plan
    from .scan import ScanCounts

#: Maximum number of dropped genes that are named.
NAMED_GENES = 5


@dataclass(frozen=True, repr=False)
class CheckReport(TextRepr):
    """What a run would meet.

    Attributes
    ----------
    args
        The arguments.
    source, genes, annotations
        As in the run's `Manifest`; genes are None and annotations empty where they could not be made.
    problems
        What would stop the run, a message each; empty if nothing would.
    warnings
        What would not stop it but may be unintended.
    lost_genes
        The dropped genes with most expression: (gene, share of the total).
    dropped_genes
        Ids of all dropped genes, in ``var`` order.
    expression_lost
        Share of the total expression that is in dropped genes, except those that ``gene_filter`` leaves out.
    expression_shares
        Share of the total expression that is in the genes that ``gene_map`` ``"mapped"``, in those that are
        ``"ambiguous"`` and ``"unmapped"``, and in those that ``gene_filter`` left out (``"filtered"``).
    n_cells, n_tokens, n_truncated, n_empty
        Cells to tokenize; tokens to be written; cells with more nonzero genes to select from than a sequence holds;
        cells with none.
    n_shards, n_bytes
        Files to be written, and about how many bytes; of Parquet, before compression.
    schema
        Columns to be written; None where they could not be made.
    """

    args: TokenizationArgs
    source: SourceReport
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    genes: GeneReport | None = None
    annotations: dict[str, AnnotationReport] = field(default_factory=dict)
    lost_genes: list[tuple[str, float]] = field(default_factory=list)
    dropped_genes: list[str] = field(default_factory=list)
    expression_lost: float = 0.0
    expression_shares: dict[str, float] = field(default_factory=dict)
    n_cells: int = 0
    n_tokens: int = 0
    n_truncated: int = 0
    n_empty: int = 0
    n_shards: int = 0
    n_bytes: int = 0
    schema: pa.Schema | None = field(default=None, compare=False)

    @property
    def layer(self) -> str:
        """The layer that is read, which ``layer = "auto"`` leaves to be chosen."""
        return self.source.layer

    @property
    def n_dropped(self) -> int:
        """Cells that ``cell_filter`` drops."""
        return self.source.cells_dropped

    def _rows(self) -> tuple[str, Rows]:
        return check_title(self.source.name, self), check_rows(self)


def check_title(name: str, report: CheckReport) -> str:
    """Format whether a source can be tokenized."""
    verdict = f"{count(len(report.problems), 'problem')}" if report.problems else "ready to tokenize"
    return f"{name}: {count(report.n_cells, 'cell')}, {verdict}"


def check_rows(report: CheckReport) -> Rows:
    """Format the result of a check."""
    args, source = report.args, report.source
    rows = layer_rows(args.layer, source.layer)
    if source.cells_dropped:
        rows.append(("cells", f"{source.cells_dropped:,} dropped by cell_filter"))
    if report.genes is not None:
        lost = None if report.problems and not report.expression_lost else report.expression_lost  # it was not counted
        rows.append(("genes", gene_text(report.genes, lost)))
        rows += group_rows(report.genes, report.expression_shares or None)
        if report.lost_genes:
            rows.append(("most lost", ", ".join(f"{gene} {share:.2%}" for gene, share in report.lost_genes)))
    rows += unmapped_rows(report.annotations)
    if report.n_tokens and not report.problems:
        rows.append(("sequences", f"{report.n_tokens:,} tokens, {report.n_tokens / report.n_cells:,.1f} per cell"))
        share = report.n_truncated / report.n_cells
        cut = f"{share:.1%} of cells have more genes than fit into max_seq_len = {args.max_seq_len:,}"
        rows.append(("cut", cut))
        packed = " before compression" if args.format == "parquet" else ""
        rows.append(("output", f"{count(report.n_shards, 'shard')}, about {size_text(report.n_bytes)}{packed}"))
    if report.n_empty:
        rows.append(("empty", f"{count(report.n_empty, 'cell')} with no gene to write"))
    rows += [("warning", text) for text in report.warnings]
    return rows + [("PROBLEM", text) for text in report.problems]


def check(
    source: SourceLike, args: ArgsLike, *, threads: int | None = None, progress: bool | None = None
) -> CheckReport:
    """Do everything that `tokenize_to_disk` would, but write nothing, and go on after a problem where possible.

    Parameters
    ----------
    source, args, threads, progress
        As for `tokenize`.

    Returns
    -------
    A `CheckReport`; ``problems`` is empty if `tokenize_to_disk` would succeed.

    Raises
    ------
    ConfigError, VocabularyError, SourceError, DataError
        If the arguments, the vocabulary or the source's layer cannot be read at all. Whatever is found after that is
        in the report's ``problems``.
    """
    resources = Resources.resolve(threads, None)
    args = fetch_inputs(TokenizationArgs.load(args))
    vocabulary = load_vocabulary(args.tokenizer_name_or_path)
    with closing(open_source(source, args.layer)) as opened:
        return _check_source(opened, args, vocabulary, resources, progress=progress)


def _check_source(
    opened: Source, args: TokenizationArgs, vocabulary: Vocabulary, resources: Resources, *, progress: bool | None
) -> CheckReport:
    found: list[TeddytokError] = []
    plan = build_incomplete_plan(opened, vocabulary, args, found)
    problems = [str(problem) for problem in found]
    if plan is None:
        return CheckReport(args, describe_source(opened, 0), problems, n_cells=opened.n_cells)
    n_cells = len(plan.cells)
    report = CheckReport(
        args,
        describe_source(opened, opened.n_cells - n_cells),
        problems,
        genes=plan.genes.report,
        annotations=plan.annotations.reports,
        n_cells=n_cells,
        dropped_genes=plan.genes.dropped,
        schema=None if problems else plan.schema,
    )
    try:
        with progress_bar(n_cells, show=progress, doing="checking") as advance:
            counts = scan(plan, resources=resources, advance=advance)
    except TeddytokError as problem:
        if problem.kind != "matrix_malformed":
            raise
        # The columns of its values are unknown, so nothing can be counted.
        return replace(report, problems=[*problems, str(problem)], warnings=collect_warnings(plan, ValueSummary()))
    lost = float(counts.lost_shares(plan.genes).sum())
    names = plan.genes.names or [str(gene_id) for gene_id in plan.genes.gene_ids]
    return replace(
        report,
        problems=[*problems, *_problems_of(plan, counts)],
        warnings=collect_warnings(plan, counts.values, lost),
        lost_genes=[(names[column], share) for column, share in counts.lost_genes(plan.genes, NAMED_GENES)],
        expression_lost=lost,
        expression_shares=counts.group_shares(plan.genes),
        n_tokens=counts.n_tokens,
        n_truncated=counts.n_truncated,
        n_empty=counts.n_empty,
        n_shards=max(-(-n_cells // args.max_shard_samples), 1),
        n_bytes=_bytes_of(plan, counts.n_tokens),
    )


def _problems_of(plan: Plan, counts: ScanCounts) -> list[str]:
    """Word what the kernel refuses."""
    problems = []
    if n_bad := counts.n_not_finite:
        named = []
        for row, columns in counts.not_finite:
            genes = ", ".join(str(plan.genes.gene_ids[column]) for column in columns)
            named.append(f"{plan.source.cell_name(row)!r} ({genes})")
        more = f" and {n_bad - len(named):,} more" if n_bad > len(named) else ""
        problems.append(
            f"{count(n_bad, 'cell')} {'has' if n_bad == 1 else 'have'} NaN or infinity in kept genes: "
            f"{', '.join(named)}{more}. Fill or drop these values before tokenizing."
        )
    problems += counts.refused
    if n_more_refused := counts.n_refused - len(counts.refused):
        problems.append(f"{n_more_refused:,} more chunks of cells are refused for such a reason.")
    return problems


def _bytes_of(plan: Plan, n_tokens: int) -> int:
    """Estimate the bytes that will be written."""
    args, n_cells = plan.args, len(plan.cells)
    width = np.dtype(args.token_dtype).itemsize + 4 * args.write_values
    n_bytes: int = n_tokens * width + n_cells * 4 * (1 + args.write_values + args.write_length)
    n_bytes += sum(column.n_bytes for column in plan.annotations.columns)
    if args.format == "webdataset":
        n_bytes += n_cells * members_of(plan.schema, args.output_name("labels")) * MEMBER_BYTES
    return n_bytes
