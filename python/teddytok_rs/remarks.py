"""Arguments and some values in; what stops nothing but may not be meant, a sentence each, out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from .sources import DenseChunk

if TYPE_CHECKING:
    from .args import TokenizationArgs
    from .plan import Plan

logger = logging.getLogger("teddytok_rs")

#: What no count reaches.
MOST = 2**31
#: Rows, and bytes of them, that are looked at to tell raw counts from other values.
SAMPLE_ROWS, SAMPLE_BYTES = 64, 2**24


def unused_arguments(args: TokenizationArgs) -> list[str]:
    """Name the arguments that were set but change nothing, and what they wait for.

    One that has its default's value says nothing: TEDDY's own configuration files spell many of these out.
    """
    annotated = args.bio_annotations or args.add_disease_annotation
    waits = {
        "gene_seed": ("random_genes", args.random_genes),
        "random_genes_count": ("random_genes", args.random_genes),
        "batch_size": ("random_genes", args.random_genes),
        "cls_token_id": ("add_cls", args.add_cls),
        "bins": ("write_values", args.write_values),
        "continuous_rank": ("write_values", args.write_values),
        "disease_mapping": ("bio_annotations or add_disease_annotation", annotated),
        "disease_column": ("bio_annotations or add_disease_annotation", annotated),
        "unmapped_annotations": ("bio_annotations or add_disease_annotation", annotated),
    }
    for kind in ("tissue", "cell", "sex"):
        waits |= {f"{kind}_{what}": ("bio_annotations", args.bio_annotations) for what in ("mapping", "column")}
    fields = type(args).model_fields
    remarks = [
        f"{key} = {getattr(args, key)!r} changes nothing without {needs}"
        for key, (needs, is_set) in waits.items()
        if not is_set and getattr(args, key) != fields[key].default
    ]
    if args.label_column is not None and args.add_disease_annotation:
        remarks.append(f"label_column = {args.label_column!r} is not written: add_disease_annotation takes its place")
    return remarks


def is_normalized(args: TokenizationArgs) -> bool:
    """Tell whether anything is done to the values."""
    return bool(args.normalize_total or args.median_dict or args.log1p)


def raw_counts(layer: str, source: str, largest: float) -> str:
    """Remark on whole numbers that nothing normalises."""
    return (
        f"layer {layer!r} of {source} holds whole numbers up to {largest:,.0f}, as raw counts do, and no "
        "normalisation is set (normalize_total, median_dict, log1p)"
    )


def log_remarks(ready: Plan, said: set[str] | None = None) -> None:
    """Log as warnings what may not be meant of a run, but for what was said before; looks at a few rows."""
    said = set() if said is None else said
    for remark in [*ready.remarks, *_sampled_counts(ready)]:
        if remark not in said:
            said.add(remark)
            logger.warning("%s", remark)


def _sampled_counts(ready: Plan) -> list[str]:
    source = ready.source
    n_rows = min(source.n_cells, SAMPLE_ROWS, max(source.rows_within(0, SAMPLE_BYTES, 0), 1)) if source.n_cells else 0
    if is_normalized(ready.args) or not n_rows:
        return []
    chunk = source.read(0, n_rows)
    values = chunk.x if isinstance(chunk, DenseChunk) else chunk.data
    values = values[np.isfinite(values)]
    largest = float(values.max(initial=0))
    if not 1 < largest < MOST or (values != np.floor(values)).any():
        return []
    return [raw_counts(source.layer, source.name, largest)]
