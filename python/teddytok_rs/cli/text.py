"""Format results as text for a terminal."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from shutil import get_terminal_size, which
from textwrap import wrap
from typing import TYPE_CHECKING

from ..errors.text import count, printable

if TYPE_CHECKING:
    from ..corpus.manifest import CorpusManifest
    from ..corpus.state import Outcome
    from ..errors.text import Rows
    from ..mapping.build_gene_map import WrittenGeneMap
    from ..mapping.vocabulary import Vocabulary
    from ..output.inspect import Inspection
    from ..output.manifest import Manifest
    from ..output.medians import Medians
    from ..pipeline.check import CheckReport


def _lines(rows: Rows) -> str:
    """Set a name and a text on a line each, each after a line feed."""
    width = max((len(name) for name, _ in rows), default=0)
    return "".join(f"\n{_wrapped(printable(text), f'  {printable(name):<{width}}  ')}" for name, text in rows)


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


def summary(manifest: Manifest, seconds: float, *, report: bool = False) -> str:
    """Format the result of a run and its time in seconds."""
    from ..output.layout import PAGE  # needs NumPy, for which --help need not wait
    from ..output.manifest import manifest_rows, manifest_title

    rows = manifest_rows(manifest)
    if report:
        rows.append(("report", str(manifest.path / PAGE)))
    speed = "" if manifest.n_kept else f", {manifest.n_cells / seconds:,.0f} cells/s"
    rows.append(("time", f"{seconds:.2f} s{speed}"))
    return f"{printable(manifest_title(manifest))}{_lines(rows)}"


def demo_text(folder: Path) -> str:
    """Format commands to use the demo's dataset, which work with this Python without changes."""
    found = which("teddytok")
    ours = found is not None and Path(found).parent == Path(sys.executable).parent
    program = "teddytok" if ours else f"{shlex.quote(sys.executable)} -m teddytok_rs"
    path = printable(shlex.quote(str(folder)))
    return (
        f"\nGo on:\n  {program} inspect {path} --cells 10\n"
        f"  {program} report {path}  # needs: pip install 'teddytok-rs[report]'\n"
        f"In Python (needs: pip install datasets):\n  datasets.load_from_disk({str(folder)!r})"
    )


def corpus_text(corpus: CorpusManifest, outcomes: list[Outcome]) -> str:
    """Format one line about a corpus, after a run over some of its sources."""
    from ..corpus.manifest import corpus_title

    failed = sum(outcome.exception is not None for outcome in outcomes)
    return printable(corpus_title(corpus)) + (
        f", {count(failed, 'source')} of {len(outcomes):,} failed" if failed else ""
    )


def presets_text() -> str:
    """List the presets: each setting with its source, the files on the Hub, and what a user must give."""
    from ..config.presets import PRESETS

    parts = []
    for name, preset in PRESETS.items():
        rows = [(key, f"{setting.value!r}  ({setting.source})") for key, setting in preset.settings.items()]
        rows += [(key, f"{file.value!r}  ({file.source})") for key, file in preset.files_of("").items()]
        rows += [
            (key, "required: give the path of the model's own")
            for key in ("tokenizer_name_or_path", *preset.needs)
            if key not in preset.files
        ]
        if preset.sizes:
            sizes = [f"{name}:{size}" for size in preset.sizes]
            rows.insert(0, ("sizes", f"{', '.join(sizes)}; {name} alone means {sizes[-1]}"))
        parts.append(f"{name}: {preset.model}{_lines([*rows, ('differs', preset.differs)])}")
    return "\n\n".join(parts)


def check_text(source: str, report: CheckReport) -> str:
    """Format the result of a check."""
    from ..pipeline.check import check_rows, check_title

    return f"{printable(check_title(source, report))}{_lines(check_rows(report))}"


def medians_text(medians: Medians) -> str:
    """Format what medians come from."""
    from ..output.medians import medians_rows, medians_title

    return f"{printable(medians_title(medians))}{_lines(medians_rows(medians))}"


def gene_map_text(written: WrittenGeneMap) -> str:
    """Format the result of writing a gene map."""
    names, ids = written.names_column, written.ids_column
    text = f"{written.path}: {count(written.n_mapped, 'name')} of var {names!r} mapped to ids of {ids!r}"
    return printable(f"{text}; {written.n_ambiguous:,} with several ids are ambiguous" if written.n_ambiguous else text)


def _arguments(configuration: dict[str, object]) -> Rows:
    """List the arguments that are not at their defaults."""
    from ..config.args import TokenizationArgs

    fields = TokenizationArgs.model_fields
    of_default = {key: list(field.default) if key == "obs_columns" else field.default for key, field in fields.items()}
    return [(key, repr(value)) for key, value in configuration.items() if value != of_default.get(key)]


def vocabulary_text(vocabulary: Vocabulary, n_tokens: int) -> str:
    """Format what a vocabulary holds, with so many of its first tokens."""
    from ..mapping.vocabulary import first_tokens

    rows = [("tokens", f"{len(vocabulary):,}"), ("largest id", f"{vocabulary.largest_id:,}")]
    for role, token in vocabulary.special.items():
        token_id = vocabulary.get(token)
        rows.append((role, f"{token!r}, {'no id' if token_id is None else f'id {token_id:,}'}"))
    rows += [(f"id {token_id}", repr(token)) for token, token_id in first_tokens(vocabulary, n_tokens)]
    rows += [("...", f"{len(vocabulary) - n_tokens:,} more")] if len(vocabulary) > n_tokens else []
    rows += [("warning", text) for text in vocabulary.warnings]
    return f"{printable(vocabulary.path)}{_lines(rows)}"


def inspection_text(seen: Inspection, n_tokens: int) -> str:
    """Show what a dataset holds, with so many tokens of each sequence."""
    from ..output.inspect import (
        annotations_text,
        column_types,
        inspection_rows,
        inspection_title,
        shard_rows,
        tokens_text,
    )

    manifest = seen.manifest
    head, rows = inspection_title(manifest), inspection_rows(manifest)
    text = f"{printable(head)}{_lines(rows)}\n\narguments, where not at their defaults"
    text += f"{_lines(_arguments(manifest.configuration))}\n\ncolumns and shards"
    text += _lines([*column_types(seen.schema).items(), *shard_rows(manifest)])
    for sequence in seen.sequences:
        row = f"row {sequence.row}  "
        line = printable(tokens_text(sequence, n_tokens), keep="\xa0")
        text += f"\n\n{_wrapped(printable(annotations_text(sequence)), row)}\n{_wrapped(line, '  ')}".replace(
            "\xa0", " "
        )
    return text
