"""Validate a source and its arguments into a `Plan`, or list every problem."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from ..config.args import TokenizationArgs
from ..errors.build import error, noting
from ..mapping.annotations import Annotations, read_annotations
from ..mapping.cells import Cells, filter_cells
from ..mapping.genes import GeneIndex, match_genes
from ..mapping.inputs import fetch_inputs
from ..mapping.medians import MedianFactors, median_ids, read_medians
from ..mapping.vocabulary import Vocabulary, load_vocabulary
from ..sources.files import closed_on_error
from ..sources.open import open_source
from .schema import arrow_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import pyarrow as pa

    from ..config.args import ArgsLike
    from ..errors import TeddytokError
    from ..sources.protocol import Source, SourceLike
logger = logging.getLogger("teddytok_rs")


@dataclass(frozen=True)
class GenePlan:
    """What turns counts of these genes into tokens, checked: a plan without its cells.

    Attributes
    ----------
    cls_token, eos_token
        Ids that start and end each sequence; None where none does.
    seed
        Seed of the random subsets; None where none are drawn.
    counting_kernel
        Gives each cell all its nonzero genes, where `kernel` gives those that fit into a sequence: for `scan`.
    medians
        Those of ``median_dict``; None where it is not set.
    """

    args: TokenizationArgs
    vocabulary: Vocabulary
    genes: GeneIndex
    kernel: _core.Kernel
    counting_kernel: _core.Kernel
    cls_token: int | None
    eos_token: int | None
    seed: int | None
    medians: MedianFactors | None


@dataclass(frozen=True)
class Plan(GenePlan):
    """All that a run needs, checked; what the walk over the source needs."""

    source: Source
    cells: Cells
    annotations: Annotations
    schema: pa.Schema


def build_plan(source: SourceLike, args: ArgsLike, *, seed: int | None = None) -> Plan:
    """Check everything that can be checked without reading the matrix, and build the kernel.

    ``seed`` is the one to use where random subsets are drawn and ``gene_seed`` is not set. The caller closes the plan's
    source.
    """
    args = fetch_inputs(TokenizationArgs.load(args))
    problems: list[TeddytokError] = []
    vocabulary = load_vocabulary(args.tokenizer_name_or_path)
    opened = open_source(source, args.layer)
    with closed_on_error(opened):
        plan = build_incomplete_plan(opened, vocabulary, args, problems, seed=seed)
        if plan is None or problems:
            raise problems[0]
    return plan


def plan_genes(
    var: pd.DataFrame, vocabulary: Vocabulary, args: TokenizationArgs, *, name: str, seed: int | None = None
) -> GenePlan:
    """Check what needs the genes alone, and build the kernel; ``name`` is what messages call the source.

    Raises
    ------
    ConfigError, VocabularyError, DataError
        The first problem.
    """
    problems: list[TeddytokError] = []
    plan = _plan_genes_as_far(var, vocabulary, args, problems, name=name, unreadable={}, seed=seed)
    if plan is None or problems:
        raise problems[0]
    return plan


def build_incomplete_plan(
    source: Source,
    vocabulary: Vocabulary,
    args: TokenizationArgs,
    problems: list[TeddytokError],
    *,
    seed: int | None = None,
) -> Plan | None:
    """Plan as far as it goes, and put every problem into ``problems``.

    None where no gene or no cell is left. Where there is a plan in spite of problems, its values can be looked at, but
    its medians and columns may be lacking.
    """
    plan = _plan_genes_as_far(
        source.var, vocabulary, args, problems, name=source.name, unreadable=source.unreadable, seed=seed
    )
    cells = None
    with noting(problems):
        cells = filter_cells(source, args.cell_filter)
    annotations = Annotations()
    if cells is not None:
        annotations = read_annotations(cells, vocabulary, args, problems)
    if plan is None or cells is None:
        return None
    schema = arrow_schema(args, annotations.columns)
    logger.info(
        "%s: %s cells, %s genes, %s in layer %r; %s genes are in the vocabulary",
        source.name, f"{len(cells):,}", f"{source.n_var:,}", source.dtype, source.layer,
        f"{plan.genes.report.kept:,}",
    )  # fmt: skip
    return Plan(**vars(plan), source=source, cells=cells, annotations=annotations, schema=schema)


def _plan_genes_as_far(
    var: pd.DataFrame,
    vocabulary: Vocabulary,
    args: TokenizationArgs,
    problems: list[TeddytokError],
    *,
    name: str,
    unreadable: Mapping[str, str],
    seed: int | None,
) -> GenePlan | None:
    """Plan what needs the genes alone; None where no gene is left."""
    genes: GeneIndex | None = None
    medians: MedianFactors | None = None
    cls_token = eos_token = None
    token_dtype = args.token_dtype
    with noting(problems):
        genes = match_genes(var, vocabulary, args, name, unreadable)
        with noting(problems):
            medians = read_medians(genes, median_ids(genes, var, args, name, unreadable), args)
    with noting(problems):
        cls_token = _special_token("cls", vocabulary, given=args.cls_token_id) if args.add_cls else None
    with noting(problems):
        eos_token = _special_token("eos", vocabulary, given=args.eos_token_id) if args.add_eos else None
    written = max(0 if genes is None else int(genes.token_of_position.max()), cls_token or 0, eos_token or 0)
    if token_dtype == "uint16" and written > np.iinfo(np.uint16).max:
        problems.append(error("token_dtype", largest=written))
        token_dtype = "int32"
    if genes is None:
        return None
    if args.gene_seed is not None or not args.random_genes:
        seed = args.gene_seed if args.random_genes else None
    elif seed is None:
        seed = secrets.randbits(64)
    build_kernel = partial(
        _core.Kernel,
        genes.position_of_column,
        genes.token_of_position,
        n_bins=args.n_bins,
        gene_seed=seed,
        block_rows=args.batch_size,
        block_genes=args.random_genes_count or args.n_selected,
        target_sum=args.normalize_total,
        inverse_medians=None if medians is None else medians.inverse,
        log1p=args.log1p,
        token_dtype=token_dtype,
    )
    kernel = build_kernel(
        max_seq_len=args.max_seq_len,
        cls_token=cls_token,
        eos_token=eos_token,
        include_zero_genes=args.include_zero_genes,
        values=_value_mode(args),
    )
    counting_kernel = build_kernel(
        max_seq_len=genes.n_genes, cls_token=None, eos_token=None, include_zero_genes=False, values="none"
    )
    return GenePlan(args, vocabulary, genes, kernel, counting_kernel, cls_token, eos_token, seed, medians)


def _special_token(role: str, vocabulary: Vocabulary, *, given: int | None) -> int:
    """Return the id of CLS or EOS: the given one, or the vocabulary's."""
    if given is not None:
        return given
    advice = f"Set {role}_token_id, or name {'a' if role == 'cls' else 'an'} {role}_token in special_tokens_map.json"
    return vocabulary.special_id(role, needs=f"add_{role}", advice=advice)


def _value_mode(args: TokenizationArgs) -> str:
    if not args.write_values:
        return "none"
    if args.n_bins:
        return "bins"
    return "ranks" if args.continuous_rank else "expression"
