"""Define what results report of a source, its genes and its annotations, with the same fields in Python and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config.parts import Count, MappedPart
from ..errors.text import Rows, TextRepr, count, some, tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..sources.protocol import Source


@dataclass(frozen=True, repr=False)
class SourceReport(TextRepr, MappedPart):
    """What was read.

    Attributes
    ----------
    name
        What messages call the source.
    n_cells
        All its cells.
    cells_dropped
        Those that ``cell_filter`` dropped.
    layer
        The layer that was read, which ``layer = "auto"`` leaves to be chosen.
    dtype
        Number type of its values.
    """

    name: str
    n_cells: Count
    cells_dropped: Count
    layer: str
    dtype: str

    def _rows(self) -> tuple[str, Rows]:
        rows = [("cells", f"{self.n_cells:,}, {self.cells_dropped:,} dropped by cell_filter")]
        return self.name, [*rows, ("layer", f"{self.layer}, {self.dtype}")]


@dataclass(frozen=True, repr=False)
class GeneReport(TextRepr, MappedPart):
    """The result of matching the genes of a source.

    Attributes
    ----------
    n_var
        Genes of the source.
    kept
        Number of those in the vocabulary.
    dropped
        Number of the others; ``genes.csv`` of a dataset and `CheckReport.dropped_genes` name them.
    duplicates
        Token -> ids of its kept genes, where more than one.
    mapped
        Number of genes that are in the vocabulary by the id that ``gene_map`` gives them.
    ambiguous
        Number of those that are dropped since ``gene_map`` has several ids for them.
    filtered
        Number of those that ``gene_filter`` leaves out, whatever their id.
    """

    n_var: Count
    kept: Count
    dropped: Count
    duplicates: dict[int, list[str]]
    mapped: Count = 0
    ambiguous: Count = 0
    filtered: Count = 0

    @property
    def n_kept(self) -> int:
        """The same as ``kept``."""
        return self.kept

    @property
    def n_dropped(self) -> int:
        """The same as ``dropped``."""
        return self.dropped

    @property
    def unmapped(self) -> int:
        """Number of genes whose id is neither in the vocabulary nor mapped to one that is."""
        return self.dropped - self.ambiguous - self.filtered

    def _rows(self) -> tuple[str, Rows]:
        rows = [(str(token), some(genes)) for token, genes in self.duplicates.items()]
        duplicates: Rows = [("duplicates", duplicates_text(self)), *rows] if rows else []
        return f"genes: {gene_text(self)}", [*group_rows(self), *duplicates]


@dataclass(frozen=True, repr=False)
class AnnotationReport(TextRepr, MappedPart):
    """How the labels of one obs column were mapped.

    Attributes
    ----------
    column
        The obs column.
    tokens
        Label -> token id, for labels that have one.
    cells
        Label -> number of cells.
    by_part
        Labels of several parts that were mapped by one of them, and that part.
    unmapped
        Label -> number of cells, for labels that have no token.
    """

    column: str
    tokens: dict[str, int]
    cells: dict[str, Count]
    by_part: dict[str, str]
    unmapped: dict[str, Count]

    def _rows(self) -> tuple[str, Rows]:
        title = f"obs {self.column!r}: {count(len(self.cells), 'label')}, {len(self.unmapped):,} without a token"
        rows = [("tokens", some(self.tokens)), ("cells", tally(self.cells)), ("by part", some(self.by_part))]
        return title, [*rows, ("no token", tally(self.unmapped) or "none")]


def describe_source(source: Source, cells_dropped: int) -> SourceReport:
    """Describe a source of which so many cells are not kept."""
    return SourceReport(source.name, source.n_cells, cells_dropped, source.layer, str(source.dtype))


# ---- texts of the command line and of the repr of results


def layer_rows(asked: object, layer: str) -> Rows:
    """Name the layer where it was left to be chosen."""
    return [("layer", f"{layer} (chosen by layer = 'auto')")] if asked == "auto" else []


def gene_text(genes: GeneReport, lost: float | None = None) -> str:
    """Format how many genes have a token, and the share of expression of the others, if known."""
    n_candidates = genes.n_var - genes.filtered
    text = f"{genes.kept:,} of {n_candidates:,} in the vocabulary"
    if lost is None or genes.kept == n_candidates:
        return text
    return f"{text}; the {n_candidates - genes.kept:,} others held {lost:.2%} of the expression"


def group_rows(genes: GeneReport, shares: Mapping[str, float] | None = None) -> Rows:
    """Name what ``gene_filter`` and ``gene_map`` did, with the shares of expression, if known."""

    def text(n: int, what: str, group: str) -> str:
        return f"{n:,} {what}" + ("" if shares is None else f" ({shares.get(group, 0.0):.2%} of the expression)")

    rows: Rows = []
    if genes.filtered:
        rows.append(("gene_filter", text(genes.filtered, "left out", "filtered")))
    if genes.mapped or genes.ambiguous:
        parts = [(genes.mapped, "mapped"), (genes.ambiguous, "ambiguous"), (genes.unmapped, "unmapped")]
        rows.append(("gene_map", ", ".join(text(n, what, what) for n, what in parts)))
    return rows


def duplicates_text(genes: GeneReport) -> str:
    """Format how many tokens have several genes."""
    return f"{count(len(genes.duplicates), 'token')} with more than one gene"


def unmapped_rows(annotations: dict[str, AnnotationReport]) -> Rows:
    """Name the labels without a token, a row for each annotation that has any."""
    return [
        ("no token", f"{kind} (obs {report.column!r}): {tally(report.unmapped)}; written as the unknown token")
        for kind, report in annotations.items()
        if report.unmapped
    ]
