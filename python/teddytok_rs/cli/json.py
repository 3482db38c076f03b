"""Make the documents that `--json` prints. docs/cli.md lists every key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..corpus.manifest import CorpusSource
    from ..corpus.state import Outcome
    from ..mapping.reports import AnnotationReport, GeneReport
    from ..mapping.vocabulary import Vocabulary
    from ..output.inspect import Inspection
    from ..output.medians import Medians
    from ..output.verify import Verification
    from ..pipeline.check import CheckReport


def document(command: str, **results: object) -> dict[str, object]:
    """Make the document of a command."""
    return {"command": command, "version": __version__, **results}


def error_document(kind: str, message: str, context: Mapping[str, object] | None = None) -> dict[str, object]:
    """Describe an error."""
    return {"kind": kind, "message": message, "context": context or {}}


def outcome_document(outcome: Outcome, folder: Path) -> dict[str, object]:
    """Describe the result of a source."""
    source, manifest, exc = outcome.source, outcome.manifest, outcome.exception
    if manifest is None:
        context = getattr(exc, "context", None)
        error = None if source.error is None else error_document(source.error.kind, source.error.message, context)
        return {"source": source.source, "path": str(folder / source.folder), "error": error}
    return {
        "source": source.source,
        "path": str(manifest.path),
        "cells": manifest.n_cells,
        "cells_dropped": manifest.source.cells_dropped,
        "layer": manifest.source.layer,
        "warnings": manifest.warnings,
        "genes": manifest.genes.n_var,
        "genes_kept": manifest.genes.kept,
        "gene_groups": _groups(manifest.genes, manifest.expression_shares),
        "expression_lost": manifest.expression_lost,
        "tokens": manifest.n_tokens,
        "unmapped": _unmapped(manifest.annotations),
        "gene_seed": manifest.gene_seed,
        "shards": len(manifest.shards),
        "shards_kept": manifest.n_kept,
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "seconds": round(outcome.seconds, 3),
        "error": None,
    }


def _groups(genes: GeneReport, shares: Mapping[str, float]) -> dict[str, dict[str, float | None]]:
    """Count the genes that ``gene_map`` and ``gene_filter`` put into groups, and the share of expression of each."""
    groups = ("mapped", "ambiguous", "unmapped", "filtered")
    return {group: {"genes": getattr(genes, group), "share": shares.get(group)} for group in groups}


def _unmapped(annotations: Mapping[str, AnnotationReport]) -> dict[str, dict[str, int]]:
    """List the labels without a token, of the annotations that have any."""
    return {kind: report.unmapped for kind, report in annotations.items() if report.unmapped}


def totals(sources: list[CorpusSource]) -> dict[str, int]:
    """Count what the datasets of some sources hold."""
    failed = sum(source.error is not None for source in sources)
    return {
        "datasets": len(sources) - failed,
        "failed": failed,
        "cells": sum(source.cells for source in sources),
        "tokens": sum(source.tokens for source in sources),
        "shards": sum(source.shards for source in sources),
    }


def preset_documents() -> list[dict[str, object]]:
    """Describe the presets."""
    from ..config.presets import PRESETS

    return [
        {
            "name": name,
            "model": preset.model,
            "sizes": list(preset.sizes),
            "settings": {key: {"value": it.value, "source": it.source} for key, it in preset.settings.items()},
            "files": {key: {"value": it.value, "source": it.source} for key, it in preset.files_of("").items()},
            "needs": list(preset.needs),
            "differs": preset.differs,
        }
        for name, preset in PRESETS.items()
    ]


def check_document(source: str, report: CheckReport) -> dict[str, object]:
    """Describe what a check found."""
    genes = report.genes
    return {
        "source": source,
        "ready": not report.problems,
        "problems": report.problems,
        "warnings": report.warnings,
        "cells": report.n_cells,
        "cells_dropped": report.source.cells_dropped,
        "cells_empty": report.n_empty,
        "cells_truncated": report.n_truncated,
        "layer": report.source.layer,
        "genes": None if genes is None else genes.n_var,
        "genes_kept": None if genes is None else genes.kept,
        "gene_groups": None if genes is None else _groups(genes, report.expression_shares),
        "genes_lost_most": dict(report.lost_genes),
        "expression_lost": report.expression_lost,
        "unmapped": _unmapped(report.annotations),
        "tokens": report.n_tokens,
        "shards": report.n_shards,
        "bytes": report.n_bytes,
        "error": None,
    }


def inspection_document(seen: Inspection, n_tokens: int) -> dict[str, object]:
    """Describe what a dataset holds, with so many tokens of each sequence."""
    from ..output.inspect import column_types

    manifest = seen.manifest
    return document(
        "inspect",
        path=str(manifest.path),
        written_by=manifest.version,
        source=manifest.source.name,
        cells=manifest.n_cells,
        tokens=manifest.n_tokens,
        gene_seed=manifest.gene_seed,
        configuration=manifest.configuration,
        columns=column_types(seen.schema),
        shards=[{key: getattr(shard, key) for key in ("file", "rows", "bytes", "sha256")} for shard in manifest.shards],
        sequences=[
            {
                "row": sequence.row,
                "annotations": sequence.annotations,
                "length": len(sequence.genes),
                "genes": sequence.genes[:n_tokens],
                "values": None if sequence.values is None else sequence.values[:n_tokens],
            }
            for sequence in seen.sequences
        ],
    )


def vocabulary_document(vocabulary: Vocabulary, n_tokens: int) -> dict[str, object]:
    """Describe a vocabulary, with so many of its first tokens."""
    from ..mapping.vocabulary import first_tokens

    return document(
        "vocab show",
        path=vocabulary.path,
        tokens=len(vocabulary),
        largest_id=vocabulary.largest_id,
        special={role: {"token": token, "id": vocabulary.get(token)} for role, token in vocabulary.special.items()},
        first=dict(first_tokens(vocabulary, n_tokens)),
        warnings=list(vocabulary.warnings),
    )


def verification_document(folder: str, found: Verification) -> dict[str, object]:
    """Describe whether a folder is complete and undamaged."""
    from ..corpus.manifest import CorpusManifest, CorpusSource

    manifest = found.manifest
    if isinstance(manifest, CorpusManifest):
        sources = manifest.sources
    else:
        sources = [CorpusSource.finished(folder, manifest, "")]
    return document(
        "verify",
        path=folder,
        sound=not found.problems,
        problems=found.problems,
        notes=found.notes,
        totals=totals(sources),
    )


def medians_results(medians: Medians) -> dict[str, object]:
    """Describe medians that were written."""
    from ..output.layout import medians_report

    path = medians.path
    n_medians = len(medians.medians)
    return {
        "path": str(path),
        "report": None if path is None else str(medians_report(path)),
        "cells": medians.n_cells,
        "genes": n_medians,
        "genes_left_out": len(medians.genes) - n_medians,
        "sources": [
            {"source": source.name, "cells": source.n_cells, "layer": source.layer} for source in medians.sources
        ],
    }
