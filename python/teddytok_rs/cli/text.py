"""Format results as text for a terminal."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from shutil import get_terminal_size, which
from textwrap import wrap
from typing import TYPE_CHECKING

from ..errors.text import count, tally

if TYPE_CHECKING:
    from ..config.args import TokenizationArgs
    from ..corpus.manifest import CorpusManifest
    from ..corpus.state import Outcome
    from ..output.inspect import Inspection
    from ..output.manifest import Manifest
    from ..pipeline.check import CheckReport
from ..errors.text import size_text

#: Maximum number of shards that are listed.
SHOWN_SHARDS = 5


def _lines(rows: list[tuple[str, str]]) -> str:
    """Set a name and a text on a line each, each after a line feed."""
    width = max((len(name) for name, _ in rows), default=0)
    return "".join(f"\n{_wrapped(text, f'  {name:<{width}}  ')}" for name, text in rows)


def _wrapped(text: str, before: str) -> str:
    """Put a text behind another; one longer than a line of the terminal goes on under itself, elsewhere it does not."""
    if not sys.stdout.isatty():
        return before + text
    after = " " * len(before)
    width = max(get_terminal_size().columns, len(after) + 20)
    lines = wrap(
        text, width, initial_indent=before, subsequent_indent=after, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines or [before])


def _gene_text(kept: int, n_var: int, lost: float | None) -> str:
    text = f"{kept:,} of {n_var:,} in the vocabulary"
    return (
        text
        if lost is None or kept == n_var
        else f"{text}; the {n_var - kept:,} others held {lost:.2%} of the expression"
    )


def summary(manifest: Manifest, seconds: float, *, report: bool = False) -> str:
    """Format the result of a run and its time in seconds."""
    from ..output.layout import PAGE  # needs NumPy, for which --help need not wait

    genes, n_cells = manifest.genes, manifest.n_cells
    mean = manifest.n_tokens / n_cells if n_cells else 0.0
    written = sum(shard.bytes for shard in manifest.shards)
    rows = [("genes", _gene_text(genes["kept"], genes["n_var"], manifest.expression_lost))]
    rows[:0] = _layer_rows(manifest.args.layer, manifest.source["layer"])
    if manifest.source["cells_dropped"]:
        rows.insert(0, ("cells", f"{manifest.source['cells_dropped']:,} dropped by cell_filter"))
    if genes["duplicates"]:
        rows.append(("duplicates", f"{count(len(genes['duplicates']), 'token')} with more than one gene"))
    rows.append(("sequences", f"{manifest.n_tokens:,} tokens, {mean:,.1f} per cell"))
    for kind, labels in manifest.annotations.items():
        rows += _unmapped_rows(kind, labels["column"], labels["unmapped"])
    if manifest.gene_seed is not None:
        rows.append(("gene seed", str(manifest.gene_seed)))
    rows.append(("written", f"{manifest.path} ({count(len(manifest.shards), 'shard')}, {size_text(written)})"))
    if report:
        rows.append(("report", str(manifest.path / PAGE)))
    if kept := manifest.n_kept:
        what = "all of it" if kept == len(manifest.shards) else count(kept, "shard")
        rows.append(("kept", f"{what}, finished by an earlier run"))
    rows += [("warning", text) for text in manifest.warnings]
    rows.append(("time", f"{seconds:.2f} s" if kept else f"{seconds:.2f} s, {n_cells / seconds:,.0f} cells/s"))
    return f"{manifest.source['name']}: {count(n_cells, 'cell')}{_lines(rows)}"


def demo_text(folder: Path) -> str:
    """Say what to do with the demo's dataset, in lines that work as they are with this very Python."""
    found = which("teddytok")
    ours = found is not None and Path(found).parent == Path(sys.executable).parent
    program = "teddytok" if ours else f"{shlex.quote(sys.executable)} -m teddytok_rs"
    path = shlex.quote(str(folder))
    return (
        f"\nGo on:\n  {program} inspect {path} --cells 10\n"
        f"  {program} report {path}  # needs: pip install 'teddytok-rs[report]'\n"
        f"In Python (needs: pip install datasets):\n  datasets.load_from_disk({str(folder)!r})"
    )


def corpus_text(corpus: CorpusManifest, outcomes: list[Outcome]) -> str:
    """Say in a line what a folder of datasets holds, after some sources were to be tokenized into it."""
    parts = [
        count(len(corpus.finished), "dataset"),
        count(corpus.n_cells, "cell"),
        count(corpus.n_tokens, "token"),
        count(corpus.n_shards, "shard"),
    ]
    if failed := [outcome for outcome in outcomes if outcome.exception is not None]:
        parts.append(f"{count(len(failed), 'source')} of {len(outcomes):,} failed")
    return f"{corpus.path}: {', '.join(parts)}"


def sound_text(manifest: Manifest | CorpusManifest) -> str:
    """Say what a folder without a problem holds."""
    from ..output.manifest import Manifest  # needs NumPy, for which --help need not wait

    if isinstance(manifest, Manifest):
        return f"{count(manifest.n_cells, 'cell')} in {count(len(manifest.shards), 'shard')}, all valid"
    cells = f"{count(manifest.n_cells, 'cell')} in {count(manifest.n_shards, 'shard')}"
    return f"{count(len(manifest.sources), 'dataset')}, {cells}, all valid"


def _layer_rows(asked: str, layer: str) -> list[tuple[str, str]]:
    """Name the layer where it was left to be chosen."""
    return [("layer", f"{layer} (chosen by layer = 'auto')")] if asked == "auto" else []


def _unmapped_rows(kind: str, column: str, unmapped: dict[str, int]) -> list[tuple[str, str]]:
    if not unmapped:
        return []
    return [("no token", f"{kind} (obs {column!r}): {tally(unmapped)}; written as the unknown token")]


def check_text(source: str, report: CheckReport, args: TokenizationArgs) -> str:
    """Say what a check found."""
    rows: list[tuple[str, str]] = []
    rows += _layer_rows(args.layer, report.layer)
    if report.n_dropped:
        rows.append(("cells", f"{report.n_dropped:,} dropped by cell_filter"))
    if report.genes is not None:
        lost = None if report.problems and not report.expression_lost else report.expression_lost  # it was not counted
        rows.append(("genes", _gene_text(report.genes.n_kept, report.genes.n_var, lost)))
        if report.lost_genes:
            rows.append(("most lost", ", ".join(f"{gene} {share:.2%}" for gene, share in report.lost_genes)))
    for kind, annotation in report.annotations.items():
        rows += _unmapped_rows(kind, annotation.column, annotation.unmapped)
    if report.n_tokens and not report.problems:
        rows.append(("sequences", f"{report.n_tokens:,} tokens, {report.n_tokens / report.n_cells:,.1f} per cell"))
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
    return f"{source}: {count(report.n_cells, 'cell')}, {verdict}{_lines(rows)}"


def _arguments(configuration: dict[str, object]) -> list[tuple[str, str]]:
    """List the arguments that are not at their defaults."""
    from ..config.args import TokenizationArgs

    fields = TokenizationArgs.model_fields
    of_default = {key: list(field.default) if key == "obs_columns" else field.default for key, field in fields.items()}
    return [(key, repr(value)) for key, value in configuration.items() if value != of_default.get(key)]


def inspection_text(seen: Inspection, n_tokens: int) -> str:
    """Show what a dataset holds, with so many tokens of each sequence."""
    manifest = seen.manifest
    head = f"{manifest.path}: {count(manifest.n_cells, 'cell')} of {manifest.source['name']}"
    genes = manifest.genes
    rows = [("genes", _gene_text(genes["kept"], genes["n_var"], manifest.expression_lost))]
    if manifest.gene_seed is not None:
        rows.append(("gene seed", str(manifest.gene_seed)))
    rows.append(("written by", f"teddytok-rs {manifest.version}"))
    text = f"{head}{_lines(rows)}\n\narguments, where not at their defaults"
    text += f"{_lines(_arguments(manifest.configuration))}\n\ncolumns and shards"
    rows = [(field.name, str(field.type).replace("item: ", "")) for field in seen.schema]
    rows += [
        (shard.file, f"{count(shard.rows, 'row')}, {size_text(shard.bytes)}, sha256 {shard.sha256[:12]}")
        for shard in manifest.shards[:SHOWN_SHARDS]
    ]
    if len(manifest.shards) > SHOWN_SHARDS:
        rows.append(("...", f"{len(manifest.shards):,} shards in all"))
    text += _lines(rows)
    for sequence in seen.sequences:
        annotations = ", ".join(f"{name}: {value}" for name, value in sequence.annotations.items())
        tokens = sequence.genes
        if sequence.values is not None:
            tokens = [f"{gene}\xa0{value:.3g}" for gene, value in zip(sequence.genes, sequence.values, strict=True)]
        more = f"  ... {len(tokens) - n_tokens:,} more" if len(tokens) > n_tokens else ""
        line = f"{'  '.join(tokens[:n_tokens]) or '(empty)'}{more}"
        row = f"row {sequence.row}  "
        text += f"\n\n{_wrapped(annotations, row)}\n{_wrapped(line, '  ')}".replace("\xa0", " ")
    return text
