"""Collect the contents of the page of a dataset or corpus as a dict for JSON."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Literal, Required, TypedDict

from ..config.args import TokenizationArgs
from ..config.files import plain_file
from ..config.kinds import ANNOTATIONS
from ..config.parts import to_document
from ..errors.build import error
from ..output.inspect import token_names
from ..output.layout import PAGE
from ..output.manifest import Manifest, RecordedArgs
from .figures import binned
from .numbers import Bins, HistogramBins, Numbers, count_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..corpus.manifest import CorpusManifest
    from ..output.record import Record

#: Maximum number of dropped genes and of unmapped labels on the page; `genes.csv` and `teddytok.json` list all.
NAMED = 1000
#: Number of genes that are listed for each rank.
MOST_FREQUENT = 10


class Lengths(Bins):
    """What the page shows of the lengths of sequences."""

    cells: int
    min: int
    max: int
    median: float
    mean: float
    max_seq_len: int
    at_limit: int
    empty: int


class Values(HistogramBins):
    """What the page shows of the values; ``kind`` is ``"bins"``, ``"ranks"`` or ``"expression"``."""

    kind: str


class SourceRow(TypedDict, total=False):
    """What the page of a corpus shows of a source; all but the first three are of its dataset, if it has one."""

    source: Required[str]
    folder: Required[str]
    error: Required[dict[str, object] | None]
    cells: int
    tokens: int
    genes_kept: int
    n_var: int
    expression_lost: float
    sha256: str | None
    page: bool


class Shared(TypedDict):
    """What the page shows of a dataset, or of all datasets of a corpus; an object is for the template alone."""

    version: str
    totals: object
    warnings: list[str]
    configuration: Mapping[str, object]
    lengths: Lengths
    values: Values | None
    ranks: object
    annotations: object
    columns: object
    labels: object
    checksums: object


class DatasetContents(Shared):
    """What the page of a dataset shows, and holds as JSON."""

    kind: Literal["dataset"]
    name: str
    origin: object
    gene_seed: int | None
    genes: object
    source: object
    throughput: object
    shards: object


class CorpusContents(Shared):
    """What the page of a corpus shows, and holds as JSON."""

    kind: Literal["corpus"]
    name: str
    sources: list[SourceRow]


def contents_of(manifest: Manifest, record: Record) -> DatasetContents:
    """Collect the contents of the page of a dataset.

    Parameters
    ----------
    manifest
        The manifest of the dataset.
    record
        The record of its run, empty if there is none.

    Returns
    -------
    The contents; all values can be written as JSON.

    Raises
    ------
    OutputError
        If a file of the dataset cannot be read.
    """
    shards = [
        {"file": shard.file, "rows": shard.rows, "tokens": shard.tokens, "bytes": shard.bytes, "sha256": shard.sha256}
        for shard in manifest.shards
    ]
    return {
        "kind": "dataset",
        "name": manifest.path.resolve().name,
        "origin": to_document(manifest.source),
        **_shared([manifest], manifest),
        "gene_seed": manifest.gene_seed,
        "genes": {
            **to_document(manifest.genes),
            "expression_lost": manifest.expression_lost,
            "expression_kept": 1 - manifest.expression_lost - manifest.expression_shares["filtered"],
            "groups": [
                {"group": group, "genes": getattr(manifest.genes, group), "share": share}
                for group, share in manifest.expression_shares.items()
            ]
            if manifest.genes.mapped or manifest.genes.ambiguous or manifest.genes.filtered
            else [],
            "dropped_genes": _dropped_genes(manifest),
        },
        "source": None if record.source is None else to_document(record.source),
        "throughput": None if record.throughput is None else to_document(record.throughput),
        "shards": shards,
    }


def contents_of_corpus(corpus: CorpusManifest) -> CorpusContents:
    """Collect the contents of the page of a corpus: the result of each source, and the counts of all datasets together.

    Raises
    ------
    OutputError
        If no dataset is finished, or a file of one cannot be read.
    """
    manifests = [Manifest.read(corpus.path / source.folder) for source in corpus.finished]
    if not manifests:
        raise error("output_unreadable", path=str(corpus.path), reason="none of its sources is finished")
    of_folder = {manifest.path.name: manifest for manifest in manifests}
    sources: list[SourceRow] = []
    for source in corpus.sources:
        row: SourceRow = {
            "source": source.source,
            "folder": source.folder,
            "error": None if source.error is None else to_document(source.error),
        }
        if (manifest := of_folder.get(source.folder)) is not None:
            row |= {
                "cells": manifest.n_cells,
                "tokens": manifest.n_tokens,
                "genes_kept": manifest.genes.kept,
                "n_var": manifest.genes.n_var,
                "expression_lost": manifest.expression_lost,
                "sha256": source.sha256,
                "page": (manifest.path / PAGE).exists(),
            }
        sources.append(row)
    shared = _shared(manifests, corpus)
    return {"kind": "corpus", "name": corpus.path.resolve().name, **shared, "sources": sources}


def _shared(manifests: list[Manifest], whole: Manifest | CorpusManifest) -> Shared:
    """Collect the contents that the pages of a dataset and of a corpus share."""
    first, args, configuration = manifests[0], whole.args, whole.configuration
    numbers = count_numbers(manifests)
    names: dict[int, str] = {}
    for manifest in manifests:
        names = token_names(manifest.path, manifest) | names
    n_cells, n_tokens = (sum(getattr(each, key) for each in manifests) for key in ("n_cells", "n_tokens"))
    expression = sum(shard.expression for each in manifests for shard in each.shards)
    lost = sum(each.expression_lost * sum(shard.expression for shard in each.shards) for each in manifests)
    return {
        "version": first.version,
        "totals": {
            "cells": n_cells,
            "cells_dropped": sum(each.source.cells_dropped for each in manifests),
            "tokens": n_tokens,
            "shards": sum(len(each.shards) for each in manifests),
            "bytes": sum(shard.bytes for each in manifests for shard in each.shards),
            "expression_lost": lost / expression if expression else 0.0,
        },
        "warnings": list(dict.fromkeys(text for each in manifests for text in each.warnings)),
        "configuration": {key: configuration[key] for key in TokenizationArgs.model_fields if key in configuration},
        "lengths": _lengths(numbers, args.max_seq_len, first.n_special),
        "values": _values(numbers, args),
        "ranks": [
            {
                "rank": rank,
                "cells": counts.total(),
                "genes": [
                    {"token": token, "gene": names.get(token, str(token)), "cells": n}
                    for token, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_FREQUENT]
                ],
            }
            for rank, counts in numbers.ranks.items()
        ],
        "annotations": _annotations(manifests),
        "columns": [{"column": column, "cells": n_cells - n} for column, n in numbers.missing.items()],
        "labels": _labels(numbers, args),
        "checksums": {
            group: dict(sorted(vars(first.checksums)[group].items()))
            for group in ("vocabulary", "mappings", "genes", "cells")
            if len(manifests) == 1 or group in {"vocabulary", "mappings"}
        },
    }


def _dropped_genes(manifest: Manifest) -> list[str]:
    """List the first `NAMED` dropped genes, in the order of ``var``."""
    named: list[str] = []
    with plain_file(manifest.path / "genes.csv").open(encoding="utf-8", newline="") as file:
        for gene in csv.DictReader(file):
            if not gene["token"] and len(named) < NAMED:
                gene_id = gene["gene_id"] or "(missing)"
                named.append(f"{gene['name']} ({gene_id})" if gene["name"] not in {"", gene_id} else gene_id)
    return named


def _lengths(numbers: Numbers, max_seq_len: int, n_special: int) -> Lengths:
    """Describe the sequence lengths. A sequence with only special tokens counts as empty."""
    lengths = numbers.lengths
    n_cells = int(lengths.sum())
    present = [length for length, n in enumerate(lengths.tolist()) if n] or [0]
    start, width, counts = binned(lengths.tolist())
    return {
        "cells": n_cells,
        "min": present[0],
        "max": present[-1],
        "median": numbers.median_length(),
        "mean": sum(length * n for length, n in enumerate(lengths.tolist())) / n_cells if n_cells else 0.0,
        "max_seq_len": max_seq_len,
        "at_limit": int(lengths[max_seq_len]) if max_seq_len < len(lengths) else 0,
        "empty": int(lengths[: n_special + 1].sum()),
        "start": start,
        "width": width,
        "counts": counts,
    }


def _values(numbers: Numbers, args: RecordedArgs) -> Values | None:
    if numbers.values is None:
        return None
    kind = "bins" if args.bins else "ranks" if args.continuous_rank else "expression"
    return {"kind": kind, **numbers.values.to_dict()}


def _annotations(manifests: list[Manifest]) -> list[dict[str, object]]:
    """Count the cells whose label has a token, for each annotation, and list the labels that have none."""
    rows = []
    for kind in (kind for kind in ANNOTATIONS if kind in manifests[0].annotations):
        reports = [manifest.annotations[kind] for manifest in manifests if kind in manifest.annotations]
        unmapped: dict[str, int] = {}
        for report in reports:
            for label, n in report.unmapped.items():
                unmapped[label] = unmapped.get(label, 0) + n
        listed = sorted(unmapped.items(), key=lambda item: (-item[1], item[0]))
        n_cells = sum(sum(report.cells.values()) for report in reports)
        rows.append(
            {
                "annotation": ANNOTATIONS[kind],
                "column": " | ".join(dict.fromkeys(report.column for report in reports)),
                "cells": n_cells,
                "with_token": n_cells - sum(unmapped.values()),
                "labels": len({label for report in reports for label in report.cells}),
                "by_part": len({label for report in reports for label in report.by_part}),
                "n_unmapped": len(unmapped),
                "unmapped": [{"label": label, "cells": n} for label, n in listed[:NAMED]],
            }
        )
    return rows


def _labels(numbers: Numbers, args: RecordedArgs) -> dict[str, object] | None:
    if numbers.labels is None and not numbers.too_many_labels:
        return None
    counts = sorted((numbers.labels or {}).items(), key=lambda item: (-item[1], item[0]))
    return {
        "column": args.disease_column if args.add_disease_annotation else args.label_column,
        "too_many": numbers.too_many_labels,
        "counts": [{"label": label, "cells": n} for label, n in counts],
    }
