"""Build the medians of genes, and write them with a report of the sources, arguments and counts that they come from.

The medians are the JSON object that ``median_dict`` takes. Until they are written, a third file holds what the finished
passes found, so that an interrupted build continues with the next pass.
"""

from __future__ import annotations

import hashlib
import json
import logging
import operator
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import SkipValidation

from ..config.args import TokenizationArgs
from ..config.files import DocumentError, refuse_url
from ..config.parts import NOT_WRITTEN, Count, Part, to_document
from ..errors.build import error
from ..errors.text import Rows, TextRepr, count, some
from ..pipeline.medians import GeneTable, compute_medians, read_genes
from ..pipeline.resources import Resources
from ..sources.discover import find_sources
from ..sources.remote import is_remote
from .checksum import read_checked, with_checksum
from .layout import medians_report, medians_state
from .manifest import RecordedSource
from .storage import remove, write_file, writing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..sources.protocol import SourceLike

logger = logging.getLogger("teddytok_rs")


@dataclass(frozen=True)
class MedianSettings(Part):
    """The arguments that medians depend on."""

    layer: str
    normalize_total: float | None
    gene_id_column: str
    strip_gene_version: bool
    duplicate_genes: str
    min_cells: Count


@dataclass(frozen=True)
class GeneMedian(Part):
    """The median of a gene.

    Attributes
    ----------
    cells
        Number of cells of the sources that have the gene.
    nonzero
        Number of its nonzero values.
    median
        Their median; None if there are fewer than ``min_cells``.
    """

    cells: Count
    nonzero: Count
    median: float | None


@dataclass(frozen=True, repr=False)
class Medians(TextRepr, Part):
    """The medians of genes, and what they come from.

    Attributes
    ----------
    version
        Version of the package that computed them.
    settings
        The arguments.
    sources
        The sources.
    genes
        Gene id -> its median and counts, of all genes, sorted.
    path
        Where the medians were written; None if they were not.
    """

    version: str
    settings: MedianSettings
    sources: list[RecordedSource]
    genes: dict[str, GeneMedian]
    path: Annotated[Path | None, SkipValidation] = field(default=None, metadata=NOT_WRITTEN)

    @property
    def medians(self) -> dict[str, float]:
        """Gene id -> median, as ``median_dict`` takes them; genes that were left out have none."""
        return {gene_id: gene.median for gene_id, gene in self.genes.items() if gene.median is not None}

    @property
    def n_cells(self) -> int:
        """Number of cells of all sources."""
        return sum(source.n_cells for source in self.sources)

    def _rows(self) -> tuple[str, Rows]:
        return medians_title(self), medians_rows(self)


def medians_title(medians: Medians) -> str:
    """Format how many genes have a median, and of how many cells."""
    n_medians = sum(gene.median is not None for gene in medians.genes.values())
    cells = f"{count(medians.n_cells, 'cell')} of {count(len(medians.sources), 'source')}"
    return f"{medians.path or 'medians'}: {count(n_medians, 'gene')}, {cells}"


def medians_rows(medians: Medians) -> Rows:
    """List what the medians come from."""
    settings = medians.settings
    layers = sorted({source.layer for source in medians.sources})
    chosen = " (chosen by layer = 'auto')" if settings.layer == "auto" else ""
    total = settings.normalize_total
    n_left_out = sum(gene.median is None for gene in medians.genes.values())
    rows = [
        ("sources", some(source.name for source in medians.sources)),
        ("layer", f"{', '.join(layers)}{chosen}"),
        ("values", "as stored, not normalised" if total is None else f"normalised to {total:,.10g} per cell"),
    ]
    if n_left_out:
        rows.append(("left out", f"{count(n_left_out, 'gene')} with fewer than {count(settings.min_cells, 'value')}"))
    return rows if medians.path is None else [*rows, ("report", str(medians_report(medians.path)))]


def build_medians(
    sources: SourceLike | Iterable[SourceLike],
    out: str | os.PathLike[str] | None = None,
    *,
    layer: str = "auto",
    normalize_total: float | None = None,
    gene_id_column: str = "index",
    strip_gene_version: bool = False,
    duplicate_genes: str = "error",
    min_cells: int = 1,
    threads: int | None = None,
    chunk_bytes: int | None = None,
    progress: bool | None = None,
) -> Medians:
    """Compute the exact median of each gene's nonzero values over any number of sources.

    Genes are joined by their id: sources may have different genes. The medians are the same for any order of the
    sources, any number of threads and any chunk size. Memory depends on the number of genes, not of cells: a table of
    at most 512 MiB in addition to ``chunk_bytes``. All values are read two or three times.

    Parameters
    ----------
    sources
        One or many of: an AnnData; the path of an ``.h5ad`` file or ``.zarr`` store; a folder or glob of these; the
        ``soma://`` URL of a SOMA query.
    out
        JSON file to write, gene id -> median, as ``median_dict`` takes it. The sources, arguments and counts of each
        gene are written next to it: for ``medians.json`` to ``medians.report.json``. A build that was interrupted is
        continued by the same call, at the start of the pass.
    layer
        As in `TokenizationArgs`; ``"auto"`` takes counts, and checks each value.
    normalize_total
        Divide each cell by its sum and multiply by this first (TEDDY and Geneformer: 10000); as stored if not given.
    gene_id_column, strip_gene_version, duplicate_genes
        As in `TokenizationArgs`. With ``duplicate_genes = "keep"`` each column has values of its own.
    min_cells
        Leave out genes with fewer nonzero values.
    threads, chunk_bytes, progress
        As for `tokenize`; a bar for each pass.

    Returns
    -------
    The medians, with the number of cells and nonzero values of each gene.

    Raises
    ------
    ConfigError
        If there is no source, one is given twice, or an argument is not valid.
    SourceError
        If a source cannot be read, or changes during the build.
    DataError
        If a source lacks the layer or ``gene_id_column``, or a value is NaN, infinite or negative.
    OutputError
        If ``out`` exists already or cannot be written.

    Examples
    --------
    >>> import teddytok_rs
    >>> from teddytok_rs import demo
    >>> built = teddytok_rs.build_medians(demo.cells(), layer="processed")
    >>> built.n_cells, len(built.genes)
    (700, 765)
    """
    from .. import __version__

    resources = Resources.resolve(threads, chunk_bytes)
    if not hasattr(min_cells, "__index__") or isinstance(min_cells, bool) or min_cells < 1:
        raise error("config_value", where="", key="min_cells", got=min_cells, expected="an integer of at least 1")
    args = TokenizationArgs.load(
        {
            "tokenizer_name_or_path": ".",  # the genes are those of the sources
            "layer": layer,
            "normalize_total": normalize_total,
            "gene_id_column": gene_id_column,
            "strip_gene_version": strip_gene_version,
            "duplicate_genes": duplicate_genes,
            "min_gene_overlap": 0.0,
        }
    )
    listed = _list_sources(sources)
    path = None if out is None else _output_path(out)
    table = read_genes(listed, args, resources)
    settings = MedianSettings(
        layer=args.layer,
        normalize_total=args.normalize_total,
        gene_id_column=args.gene_id_column,
        strip_gene_version=args.strip_gene_version,
        duplicate_genes=args.duplicate_genes,
        min_cells=operator.index(min_cells),
    )
    recorded = [
        RecordedSource(**vars(source.report), fingerprint=source.fingerprint, stamp=source.stamp)
        for source in table.sources
    ]
    medians = Medians(__version__, settings, recorded, {}, path)
    if path is None:
        return _with_genes(medians, table, *compute_medians(table, args, resources=resources, progress=progress))
    identity = _identity(medians, table)
    state = _read_state(path, identity)
    if state is not None:
        logger.info("%s: an interrupted build is continued", path)
    _refuse_existing(path, medians_report(path), may_exist=state is not None)

    def finish_pass(state: NDArray[np.uint64]) -> None:
        with writing(path):
            numbers = state.astype("<u8").tobytes().hex()  # as a list of numbers it takes seconds to write
            write_file(medians_state(path), with_checksum({"identity": identity, "state": numbers}))

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    n_values, values = compute_medians(
        table, args, resources=resources, progress=progress, state=state, finish_pass=finish_pass
    )
    medians = _with_genes(medians, table, n_values, values)
    with writing(path):
        write_file(medians_report(path), with_checksum(to_document(medians)))
        write_file(path, json.dumps(medians.medians, indent=2) + "\n")
        remove(medians_state(path))
    return medians


def _list_sources(sources: SourceLike | Iterable[SourceLike]) -> list[SourceLike]:
    """List the sources that paths, folders and globs mean, and data in memory."""
    given = [sources] if isinstance(sources, str | os.PathLike) or not isinstance(sources, Iterable) else sources
    listed: list[SourceLike] = []
    for source in given:
        listed += find_sources(source) if isinstance(source, str | os.PathLike) else [source]
    paths = [source for source in listed if isinstance(source, str)]
    places = [os.path.realpath(path) for path in paths]
    for number, source in enumerate(paths):
        if is_remote(source):
            expected = "paths of local files and stores, or soma:// URLs"
            raise error("config_value", where="", key="sources", got=source, expected=expected)
        if os.path.realpath(source) in places[:number]:
            problem = f"source {source!r} is given twice, and its cells would count twice"
            raise error("config_conflict", where="", problem=problem, advice="Give each source once")
    if not listed:
        raise error("no_sources", where="")
    return listed


def _output_path(out: str | os.PathLike[str]) -> Path:
    refuse_url(out)
    path = Path(out)
    _refuse_existing(path, may_exist=False)
    return path


def _refuse_existing(*paths: Path, may_exist: bool) -> None:
    """Refuse to replace files, unless an interrupted build may have written them."""
    for path in paths:
        if path.is_symlink() or (path.exists() and not may_exist):
            raise error("medians_exist", path=str(paths[0]), existing=str(path))


def _identity(medians: Medians, table: GeneTable) -> str:
    """Compute a checksum of all that the passes depend on."""
    document = to_document(medians) | {"genes": table.genes}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _read_state(path: Path, identity: str) -> NDArray[np.uint64] | None:
    """Read what the finished passes of an interrupted build found; None if there was none, or it was another one."""
    file = medians_state(path)
    if not file.exists() and not file.is_symlink():
        return None
    _refuse_existing(file, may_exist=True)
    try:
        document, has_checksum = read_checked(file)
    except DocumentError:
        has_checksum = False
    if not has_checksum:  # some other file: only what a build wrote is replaced
        raise error("medians_exist", path=str(path), existing=str(file))
    if document.get("identity") != identity:
        return None
    return np.frombuffer(bytes.fromhex(str(document["state"])), dtype="<u8").astype(np.uint64)


def _with_genes(
    medians: Medians, table: GeneTable, n_values: NDArray[np.uint64], values: NDArray[np.float32]
) -> Medians:
    """Add the medians and counts of all genes."""
    min_cells = medians.settings.min_cells
    numbers = zip(table.genes, table.n_cells.tolist(), n_values.tolist(), values.tolist(), strict=True)
    genes = {
        gene_id: GeneMedian(cells, nonzero, median if nonzero >= min_cells else None)
        for gene_id, cells, nonzero, median in numbers
    }
    return Medians(medians.version, medians.settings, medians.sources, genes, medians.path)
