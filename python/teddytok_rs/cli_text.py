"""Results in, the lines that the command line prints out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .messages import count, tally

if TYPE_CHECKING:
    from .args import TokenizationArgs
    from .corpus_manifest import CorpusManifest
    from .corpus_work import Outcome
    from .dataset import Inspection
    from .manifest import Manifest
    from .preflight import CheckReport


def _lines(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows)


def size_text(n_bytes: float) -> str:
    """Write a number of bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _gene_text(kept: int, n_var: int, lost: float) -> str:
    return f"{kept:,} of {n_var:,} in the vocabulary; the {n_var - kept:,} others held {lost:.2%} of the expression"


def summary(manifest: Manifest, seconds: float, kept: int = 0, *, report: bool = False) -> str:
    """Say what a run wrote; ``kept`` of its shards were there before. The seconds may be those of a report too."""
    from .folder import PAGE  # needs NumPy, for which --help need not wait

    genes, n_cells = manifest.genes, manifest.n_cells
    mean = manifest.n_tokens / n_cells if n_cells else 0.0
    written = sum(shard.bytes for shard in manifest.shards)
    rows = [("genes", _gene_text(genes["kept"], genes["n_var"], manifest.expression_lost))]
    if manifest.source["cells_dropped"]:
        rows.insert(0, ("cells", f"{manifest.source['cells_dropped']:,} dropped by cell_filter"))
    if genes["duplicates"]:
        rows.append(("duplicates", f"{count(len(genes['duplicates']), 'token')} with more than one gene"))
    rows.append(("sequences", f"{manifest.n_tokens:,} tokens, {mean:,.1f} a cell"))
    for kind, labels in manifest.annotations.items():
        rows += _unmapped_rows(kind, labels["column"], labels["unmapped"])
    if manifest.gene_seed is not None:
        rows.append(("gene seed", str(manifest.gene_seed)))
    rows.append(("written", f"{manifest.path} ({count(len(manifest.shards), 'shard')}, {size_text(written)})"))
    if report:
        rows.append(("report", str(manifest.path / PAGE)))
    if kept:
        what = "all of it" if kept == len(manifest.shards) else count(kept, "shard")
        rows.append(("kept", f"{what}, finished by an earlier run"))
    if kept or report:
        rows.append(("time", f"{seconds:.2f} s{', with the report' if report else ''}"))
    else:
        rows.append(("time", f"{seconds:.2f} s, {n_cells / seconds:,.0f} cells/s"))
    return f"{manifest.source['name']}: {count(n_cells, 'cell')}\n{_lines(rows)}"


def outcome_text(outcome: Outcome) -> str:
    """Say what a run of one of many sources wrote."""
    if outcome.manifest is None:
        return f"{outcome.source.source}: {count(outcome.source.cells, 'cell')}, finished by an earlier run"
    return summary(outcome.manifest, outcome.seconds, kept=outcome.n_kept)


def corpus_text(corpus: CorpusManifest, n_asked: int) -> str:
    """Say in a line what a folder of datasets holds, after ``n_asked`` sources were to be tokenized into it."""
    parts = [
        count(len(corpus.finished), "dataset"),
        count(corpus.n_cells, "cell"),
        count(corpus.n_tokens, "token"),
        count(corpus.n_shards, "shard"),
    ]
    if corpus.failed:
        parts.append(f"{count(len(corpus.failed), 'source')} of {n_asked:,} failed")
    return f"{corpus.path}: {', '.join(parts)}"


def sound_text(manifest: Manifest | CorpusManifest) -> str:
    """Say what a folder without a problem holds."""
    from .manifest import Manifest  # needs NumPy, for which --help need not wait

    if isinstance(manifest, Manifest):
        return f"{count(manifest.n_cells, 'cell')} in {count(len(manifest.shards), 'shard')}, all sound"
    cells = f"{count(manifest.n_cells, 'cell')} in {count(manifest.n_shards, 'shard')}"
    return f"{count(len(manifest.sources), 'dataset')}, {cells}, all sound"


def _unmapped_rows(kind: str, column: str, unmapped: dict[str, int]) -> list[tuple[str, str]]:
    if not unmapped:
        return []
    return [("no token", f"{kind} (obs {column!r}): {tally(unmapped)}; written as the unknown token")]


def check_text(source: str, report: CheckReport, args: TokenizationArgs) -> str:
    """Say what a check found."""
    rows: list[tuple[str, str]] = []
    if report.n_dropped:
        rows.append(("cells", f"{report.n_dropped:,} dropped by cell_filter"))
    if report.genes is not None:
        rows.append(("genes", _gene_text(report.genes.n_kept, report.genes.n_var, report.expression_lost)))
        if report.lost_genes:
            rows.append(("most lost", ", ".join(f"{gene} {share:.2%}" for gene, share in report.lost_genes)))
    for kind, annotation in report.annotations.items():
        rows += _unmapped_rows(kind, annotation.column, annotation.unmapped)
    if report.n_tokens and not report.problems:
        rows.append(("sequences", f"{report.n_tokens:,} tokens, {report.n_tokens / report.n_cells:,.1f} a cell"))
        share = report.n_truncated / report.n_cells
        cut = f"{share:.1%} of cells have more genes than fit into max_seq_len = {args.max_seq_len:,}"
        rows.append(("cut", cut))
        packed = " before compression" if args.format == "parquet" else ""
        rows.append(("output", f"{count(report.n_shards, 'shard')}, about {size_text(report.n_bytes)}{packed}"))
    if report.n_empty:
        rows.append(("empty", f"{count(report.n_empty, 'cell')} with no gene to write"))
    rows += [("warning", text) for text in report.warnings]
    rows += [("PROBLEM", text) for text in report.problems]
    verdict = f"{count(len(report.problems), 'problem')}" if report.problems else "ready to tokenize"
    return f"{source}: {count(report.n_cells, 'cell')}, {verdict}\n{_lines(rows)}"


def inspection_text(seen: Inspection, n_tokens: int) -> str:
    """Show what a dataset holds, with so many tokens of each sequence."""
    manifest = seen.manifest
    head = f"{manifest.path}: {count(manifest.n_cells, 'cell')} of {manifest.source['name']}"
    rows = [(field.name, str(field.type).replace("item: ", "")) for field in seen.schema]
    rows += [
        (shard.file, f"{count(shard.rows, 'row')}, {size_text(shard.bytes)}, sha256 {shard.sha256[:12]}")
        for shard in manifest.shards
    ]
    text = f"{head}\n{_lines(rows)}"
    for sequence in seen.sequences:
        annotations = ", ".join(f"{name}: {value}" for name, value in sequence.annotations.items())
        tokens = sequence.genes
        if sequence.values is not None:
            tokens = [f"{gene} {value:.3g}" for gene, value in zip(sequence.genes, sequence.values, strict=True)]
        more = f"  ... {len(tokens) - n_tokens:,} more" if len(tokens) > n_tokens else ""
        text += f"\n\nrow {sequence.row}  {annotations}\n  {'  '.join(tokens[:n_tokens]) or '(empty)'}{more}"
    return text
