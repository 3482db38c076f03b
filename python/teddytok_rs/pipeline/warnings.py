"""List what may be unintended but does not stop a run, one sentence per warning.

`collect_warnings` makes the list that `check`, the log, the command's summary, the manifest and the report show.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from ..config.args import FACTS
from ..config.kinds import OUTPUT_COLUMNS
from ..errors.text import count, some
from ..sources.counts import BLOCKS, SAMPLE_BYTES, ValueSummary, sample_spans
from ..sources.open import find_counts
from .batches import cells_within, read_cells

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..config.args import TokenizationArgs
    from .plan import Plan

logger = logging.getLogger("teddytok_rs")

#: Larger than any count.
MAX_COUNT = 2**31
#: Share of the expression in dropped genes above which there is a warning.
MAX_LOST = 0.5
#: Arguments that start from raw counts.
STEPS = ("normalize_total", "median_dict", "log1p")


def collect_warnings(plan: Plan, values: ValueSummary | None = None, expression_lost: float = 0.0) -> list[str]:
    """List all warnings of a run.

    Parameters
    ----------
    plan
        The run.
    values
        Summary of its values; computed from a sample of its cells if None. The texts do not depend on the number of
        values.
    expression_lost
        Share of the expression that is lost, if already known.
    """
    values = summarize_cells(plan) if values is None else values
    return [
        *unused_arguments(plan.args),
        *plan.vocabulary.warnings,
        *plan.source.warnings,
        *columns_called_index(plan),
        *plan.annotations.warnings,
        *unused_gene_map(plan),
        *missing_medians(plan),
        *foreign_tokens(plan),
        *unknown_annotations(plan),
        *unsuitable_values(plan, values),
        *lost_expression(plan.source.name, expression_lost),
    ]


def log_warnings(warnings: Iterable[str], logged: set[str]) -> None:
    """Log the warnings that are not in ``logged``, and add them to it."""
    for warning in warnings:
        if warning not in logged:
            logged.add(warning)
            logger.warning("%s", warning)


def summarize_cells(plan: Plan) -> ValueSummary:
    """Summarize the values of a sample of a run's cells."""
    summary = ValueSummary()
    for start, stop in sample_spans(len(plan.cells)):
        limit = max(cells_within(plan, start, SAMPLE_BYTES // BLOCKS), 1)
        chunk, _ = read_cells(plan, (start, min(stop, start + limit)))
        summary += ValueSummary.of(chunk.values)
    return summary


def unused_arguments(args: TokenizationArgs) -> list[str]:
    """List the arguments that are set but have no effect, and which argument each needs.

    Arguments with their default value are ignored: TEDDY's own configuration files write out many of them.
    """
    fields = type(args).model_fields
    warnings = [
        f"{key} = {getattr(args, key)!r} changes nothing without {' or '.join(facts.needs)}"
        for key, facts in FACTS.items()
        if facts.needs and not any(getattr(args, needed) for needed in facts.needs)
        if getattr(args, key) != fields[key].default
    ]
    warnings += [
        f"output_names[{column!r}] changes nothing without {' or '.join(needs)}"
        for column, needs in OUTPUT_COLUMNS.items()
        if column in args.output_names and needs and not any(getattr(args, needed) for needed in needs)
    ]
    if args.label_column is not None and args.add_disease_annotation:
        warnings.append(f"label_column = {args.label_column!r} is not written: add_disease_annotation takes its place")
    return warnings


def columns_called_index(plan: Plan) -> list[str]:
    """Warn about a column with the name that means the names of genes or cells."""
    args, source = plan.args, plan.source
    warnings = []
    if args.gene_id_column == "index" and "index" in source.var.columns:
        warnings.append(f"gene_id_column = 'index' means the var_names of {source.name}, not its var column 'index'")
    if "index" in args.obs_columns and "index" in source.obs_columns:
        warnings.append(f"'index' in obs_columns means the obs_names of {source.name}, not its obs column 'index'")
    return warnings


def unused_gene_map(plan: Plan) -> list[str]:
    """Warn about a gene map that has none of the genes that need it."""
    genes, gene_map = plan.genes.report, plan.args.gene_map
    if gene_map is None or genes.mapped or genes.ambiguous or not genes.unmapped:
        return []
    lost = [gene_id for gene_id, lost in zip(plan.genes.gene_ids, plan.genes.is_lost, strict=True) if lost]
    return [
        f"gene_map: {gene_map!r} maps none of the {genes.unmapped:,} genes that are not in the vocabulary: {some(lost)}"
    ]


def missing_medians(plan: Plan) -> list[str]:
    """Warn about kept genes that have no median."""
    if plan.medians is None or not (without := plan.medians.without):
        return []
    n_kept = plan.genes.report.kept
    return [
        f"median_dict: {len(without):,} of the {n_kept:,} kept genes have no median in {plan.args.median_dict!r} and "
        f"are divided by 1: {some(without)}"
    ]


def foreign_tokens(plan: Plan) -> list[str]:
    """Warn about ids that will be written but are not in the vocabulary, or are the token of a gene."""
    limit, genes = plan.vocabulary.largest_id, plan.genes
    beyond = f"above {limit:,}, the largest id of vocabulary {plan.args.tokenizer_name_or_path!r}"
    warnings = []
    for role, token in (("cls", plan.cls_token), ("eos", plan.eos_token)):
        if token is not None and token > limit:
            warnings.append(f"{role}_token_id = {token} is {beyond}")
        if token is not None and (at := np.flatnonzero(genes.token_of_position == token)).size:
            column = int(np.flatnonzero(genes.position_of_column == at[0])[0])
            warnings.append(
                f"the {role.upper()} token, id {token}, is the token of gene {genes.gene_ids[column]!r} too"
            )
    for kind, report in plan.annotations.reports.items():
        if labels := [label for label, token in report.tokens.items() if token > limit]:
            warnings.append(f"{kind}_mapping maps {some(labels)} to an id {beyond}")
    return warnings


def unknown_annotations(plan: Plan) -> list[str]:
    """Warn about annotations of which no cell has a token."""
    return [
        f"no label of obs column {report.column!r} of {plan.source.name} has a token: all "
        f"{count(sum(report.cells.values()), 'cell')} get the unknown token (such labels are {some(report.unmapped)})"
        for report in plan.annotations.reports.values()
        if report.unmapped and sum(report.unmapped.values()) == sum(report.cells.values())
    ]


def unsuitable_values(plan: Plan, values: ValueSummary) -> list[str]:
    """Warn about values of the layer that do not fit the steps applied to them."""
    args, source = plan.args, plan.source
    where = f"layer {source.layer!r} of {source.name}"
    steps = [key for key in STEPS if getattr(args, key)]
    warnings = []
    if steps and (values.n_fractional or values.n_negative):
        counts = find_counts(source)
        hint = f". Set layer (--layer) to {counts!r}, which holds counts" if counts else ""
        start = f"{' and '.join(steps)} {'start' if len(steps) > 1 else 'starts'} from raw counts"
        warnings.append(f"{where} holds {values.describe()}, but {start}{hint}")
    if not steps and not args.n_bins and values.are_counts and 1 < values.largest < MAX_COUNT:
        warnings.append(
            f"{where} holds whole numbers, as raw counts are, and no normalisation is set ({', '.join(STEPS)})"
        )
    # A random subset that fits into a sequence is taken whole, and so are all genes where they fit.
    ranked = (args.random_genes_count or args.n_selected) if args.random_genes else plan.genes.n_genes
    if values.n_negative and ranked > args.n_selected:
        warnings.append(f"{where} holds negative values; zeros outrank them, so that most are dropped")
    return warnings


def lost_expression(source: str, expression_lost: float) -> list[str]:
    """Warn if more than half of the expression is in genes that are not in the vocabulary."""
    if expression_lost <= MAX_LOST:
        return []
    return [f"{expression_lost:.1%} of the expression of {source} is in genes that are not in the vocabulary"]
