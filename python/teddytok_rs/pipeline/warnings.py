"""Arguments and some values in; what stops nothing but may not be meant, a sentence each, out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config.args import FACTS
from ..errors.text import some
from ..sources.protocol import DenseChunk

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..config.args import TokenizationArgs
    from ..mapping.annotations import Annotations
    from ..mapping.genes import GeneIndex
    from ..mapping.vocabulary import Vocabulary
    from .plan import Plan

logger = logging.getLogger("teddytok_rs")

#: What no count reaches.
MOST = 2**31
#: Rows, and bytes of them, that are looked at to tell raw counts from other values.
SAMPLE_ROWS, SAMPLE_BYTES = 64, 2**24
#: What no logarithm of a count reaches: that of 4.8e8.
LARGEST_LOG = 20


@dataclass
class Seen:
    """What values look like: all of them that are finite and not 0."""

    n_values: int = 0
    n_negative: int = 0
    whole: bool = True
    largest: float = 0.0

    @classmethod
    def of(cls, values: NDArray[Any]) -> Seen:
        """Look at values of any shape."""
        values = values[np.isfinite(values) & (values != 0)]
        whole = bool((values == np.floor(values)).all())
        return cls(values.size, int((values < 0).sum()), whole, float(values.max(initial=0)))

    def __add__(self, other: Seen) -> Seen:
        """Look at both."""
        return Seen(
            self.n_values + other.n_values,
            self.n_negative + other.n_negative,
            self.whole and other.whole,
            max(self.largest, other.largest),
        )


def unused_arguments(args: TokenizationArgs) -> list[str]:
    """Name the arguments that were set but change nothing, and what they need.

    One that has its default's value says nothing: TEDDY's own configuration files spell many of these out.
    """
    fields = type(args).model_fields
    remarks = [
        f"{key} = {getattr(args, key)!r} changes nothing without {' or '.join(facts.needs)}"
        for key, facts in FACTS.items()
        if facts.needs and not any(getattr(args, needed) for needed in facts.needs)
        if getattr(args, key) != fields[key].default
    ]
    if args.label_column is not None and args.add_disease_annotation:
        remarks.append(f"label_column = {args.label_column!r} is not written: add_disease_annotation takes its place")
    return remarks


def foreign_tokens(
    args: TokenizationArgs, vocabulary: Vocabulary, genes: GeneIndex, annotations: Annotations, cls_token: int | None
) -> list[str]:
    """Name ids that will be written but that a model of this vocabulary does not know, or knows as a gene."""
    most, remarks = vocabulary.largest_id, []
    beyond = f"above {most:,}, the largest id of vocabulary {args.tokenizer_name_or_path!r}"
    if cls_token is not None and cls_token > most:
        remarks.append(f"cls_token_id = {cls_token} is {beyond}")
    if cls_token is not None and (at := np.flatnonzero(genes.token_of_position == cls_token)).size:
        column = int(np.flatnonzero(genes.position_of_column == at[0])[0])
        remarks.append(f"the CLS token, id {cls_token}, is the token of gene {genes.gene_ids[column]!r} too")
    for kind, report in annotations.reports.items():
        if labels := [label for label, token in report.tokens.items() if token > most]:
            remarks.append(f"{kind}_mapping maps {some(labels)} to an id {beyond}")
    return remarks


def remarks_on_values(ready: Plan, seen: Seen) -> list[str]:
    """Say what the values of a layer look like, where that is at odds with what is done to them."""
    args, source = ready.args, ready.source
    where = f"layer {source.layer!r} of {source.name}"
    normalized = bool(args.normalize_total or args.median_dict or args.log1p)
    remarks = []
    if seen.whole and not seen.n_negative and 1 < seen.largest < MOST and not normalized and not args.n_bins:
        remarks.append(
            f"{where} holds whole numbers up to {seen.largest:,.0f}, as raw counts do, and no "
            "normalisation is set (normalize_total, median_dict, log1p)"
        )
    if args.log1p and not seen.whole and seen.largest < LARGEST_LOG:
        remarks.append(
            f"{where} holds numbers that are not whole, up to {seen.largest:.4g}, as after a logarithm, and log1p is "
            "set: it is for raw counts"
        )
    # A random subset that fits into a sequence is taken whole, and so are all genes where they fit.
    ranked = (args.random_genes_count or args.n_selected) if args.random_genes else ready.genes.n_genes
    if seen.n_negative and ranked > args.n_selected:
        remarks.append(
            f"{seen.n_negative:,} of {seen.n_values:,} nonzero values looked at in {where} are negative; zeros outrank "
            "them, so that most are dropped"
        )
    return remarks


def log_remarks(ready: Plan, said: set[str] | None = None) -> None:
    """Log as warnings what may not be meant of a run, but for what was said before; looks at a few rows."""
    said = set() if said is None else said
    for remark in [*ready.remarks, *_sampled(ready)]:
        if remark not in said:
            said.add(remark)
            logger.warning("%s", remark)


def _sampled(ready: Plan) -> list[str]:
    source = ready.source
    n_rows = min(source.n_cells, SAMPLE_ROWS, max(source.rows_within(0, SAMPLE_BYTES, 0), 1)) if source.n_cells else 0
    if not n_rows:
        return []
    chunk = source.read(0, n_rows)
    return remarks_on_values(ready, Seen.of(chunk.x if isinstance(chunk, DenseChunk) else chunk.data))
