"""Read `median_dict` as one factor for each column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from ..config.files import DocumentError
from ..errors.build import error
from ..errors.text import some
from .genes import gene_ids
from .hub import read_argument_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from ..config.args import TokenizationArgs
    from ..config.tables import TableChecksum
    from .genes import GeneIndex


@dataclass(frozen=True)
class MedianFactors:
    """What ``median_dict`` means for the genes of a source.

    Attributes
    ----------
    inverse
        1 / median of each column's gene, 1.0 where it has none; shape (n_var,), float64.
    without
        Ids of the kept genes that have no median.
    checksum
        Of the file or dict.
    """

    inverse: NDArray[np.float64]
    without: list[str]
    checksum: TableChecksum


def median_ids(
    genes: GeneIndex, var: pd.DataFrame, args: TokenizationArgs, source: str, unreadable: Mapping[str, str]
) -> list[str | None]:
    """Read the id of each gene that is looked up in ``median_dict``: as it was matched, or that of ``median_column``.

    Raises
    ------
    DataError, SourceError
        If there is no such column, or it cannot be read.
    """
    column = args.median_column
    if column in {None, args.gene_id_column} or args.median_dict is None:
        return genes.gene_ids
    return gene_ids(var, str(column), strip=False, source=source, unreadable=unreadable, key="median_column")


def read_medians(genes: GeneIndex, ids: list[str | None], args: TokenizationArgs) -> MedianFactors | None:
    """Read ``median_dict`` as one factor a column; None if it is not set.

    Parameters
    ----------
    genes
        The matched genes.
    ids
        The id of each that is looked up, see `median_ids`.
    args
        Names the file, or holds the medians.

    Raises
    ------
    ConfigError
        If the file cannot be read, holds a median that is 0, negative or not a finite number, or matches no kept gene.
    """
    if args.median_dict is None:
        return None
    try:
        entries, checksum = read_argument_table("median_dict", args.median_dict)
    except DocumentError as exc:
        raise error("median_file", file=args.median_dict, reason=exc) from None
    medians: dict[str, float] = {}
    for gene_id, median in entries.items():
        if not _is_median(median):
            raise error("median_file", file=args.median_dict, reason=f"gene {gene_id!r} has median {median!r}")
        medians[gene_id] = median
    kept = [gene_id for gene_id, position in zip(ids, genes.position_of_column, strict=True) if position >= 0]
    if not any(gene_id in medians for gene_id in kept):
        column = args.median_column
        raise error(
            "medians_match_nothing", n_kept=len(kept), file=args.median_dict,
            column=f"{'gene_id_column' if column is None else 'median_column'} = {column or args.gene_id_column!r}",
            kept=some(kept[:3]), medians=some(list(medians)[:3]),
        )  # fmt: skip
    without = [str(gene_id) for gene_id in kept if gene_id not in medians]
    of_column = [1.0 if gene_id is None else medians.get(gene_id, 1.0) for gene_id in ids]
    inverse = 1.0 / np.array(of_column, dtype=np.float64)
    if args.duplicate_genes == "sum":
        _refuse_different(genes, ids, of_column)
    return MedianFactors(inverse, without, checksum)


def _refuse_different(genes: GeneIndex, ids: list[str | None], of_column: list[float]) -> None:
    """Refuse columns whose values are added, before they are divided by one median, if theirs differ."""
    first: dict[int, int] = {}
    for column, position in enumerate(genes.position_of_column.tolist()):
        other = first.setdefault(position, column) if position >= 0 else column
        if of_column[other] != of_column[column]:
            both = f"{ids[other]!r} and {ids[column]!r}"
            problem = f"median_dict has different medians for {both}, whose values are added"
            advice = "Give them one median, or set duplicate_genes to 'keep'"
            raise error("config_conflict", where="", problem=problem, advice=advice)


def _is_median(median: object) -> TypeGuard[float]:
    """Return whether a median can be a divisor: 1 / median must also be finite."""
    if not isinstance(median, int | float) or isinstance(median, bool):
        return False
    try:
        return median > 0 and math.isfinite(float(median)) and math.isfinite(1 / median)
    except OverflowError:
        return False
