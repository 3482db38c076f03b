"""Words on a command line in, calls of the package and their results as text out. No logic of its own.

Exit codes: 0 fine, 1 the data's fault, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import sys
import time
import types
import typing
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from . import __version__
from .args import TokenizationArgs
from .errors import ConfigError, TeddytokError, count, error, some, tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from .dataset import Inspection
    from .manifest import Manifest
    from .preflight import CheckReport

#: Tokens of a sequence that `inspect` shows, unless told otherwise.
SHOWN_TOKENS = 8


def main() -> NoReturn:
    """Run the command line; every error is one line on standard error."""
    debug = "--debug" in sys.argv
    try:
        result = cli.main(standalone_mode=False, prog_name="teddytok")
        code = result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as bad:
        bad.show()
        code = bad.exit_code
    except click.ClickException as bad:
        click.echo(f"teddytok: {_one_line(bad)}", err=True)
        code = bad.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("teddytok: interrupted. The same command again continues an unfinished run.", err=True)
        code = 130
    except TeddytokError as bad:
        if debug:
            raise
        click.echo(f"teddytok: {bad}", err=True)
        code = 2 if isinstance(bad, ConfigError) else 1
    except Exception as bad:
        if debug:
            raise
        said = f"{type(bad).__name__}: {bad}"
        click.echo(f"teddytok: unexpected error: {said}. Run again with --debug, and please report it.", err=True)
        code = 1
    sys.exit(code)


def _one_line(bad: click.ClickException) -> str:
    """Say what is wrong with the words on the command line, and where the right ones stand."""
    context = getattr(bad, "ctx", None)
    command = context.command_path if context else "teddytok"
    said = " ".join(bad.format_message().split())
    stop = "" if said.endswith((".", "?", "!")) else "."
    return f"{said}{stop} '{command} --help' lists what there is."


# ---- options


def _click_type(annotation: Any) -> tuple[Any, bool]:
    """Find what click calls a field's type, and whether the option may be given more than once."""
    origin = typing.get_origin(annotation)
    if origin in {typing.Union, types.UnionType}:
        return _click_type(next(part for part in typing.get_args(annotation) if part is not type(None)))
    if origin is typing.Annotated:
        return _click_type(typing.get_args(annotation)[0])
    if origin is Literal:
        return click.Choice(list(typing.get_args(annotation))), False
    if origin is tuple:
        return str, True
    return annotation, False


def _argument_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for every field of `TokenizationArgs`, and --config."""
    for name, field in reversed(TokenizationArgs.model_fields.items()):
        kind, multiple = _click_type(field.annotation)
        flag = f"--{name.replace('_', '-')}"
        shown = "" if field.is_required() or field.default in {None, (), False} else f"  [default: {field.default}]"
        meaning = f"{field.description}{shown}"
        if kind is bool:
            option = click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=meaning)
        else:
            names = [flag, "--out", "-o"] if name == "save_dir" else [flag]
            metavar = None if isinstance(kind, click.Choice) else {int: "N", float: "X"}.get(kind, "TEXT")
            option = click.option(
                *names, name, type=kind, multiple=multiple, default=None, metavar=metavar, help=meaning
            )
        command = option(command)
    config = click.option("--config", "-c", metavar="FILE", help="JSON or YAML file of arguments; options override it.")
    return config(command)


def _threads_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--threads", type=click.IntRange(min=1), metavar="N", help="Threads to use.  [default: all cores]"
    )(command)


def _debug_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")(command)


def _load_args(config: str | None, options: dict[str, Any]) -> TokenizationArgs:
    given = {key: value for key, value in options.items() if value is not None and value != ()}
    return TokenizationArgs.load(config if config is not None else {}, **given)


def _sources(named: tuple[str, ...], args: TokenizationArgs) -> list[str]:
    if named:
        return list(named)
    if args.load_dir is None:
        raise error("no_sources", where="")
    found = sorted(str(path) for path in Path(args.load_dir).glob("*") if path.suffix in {".h5ad", ".zarr"})
    if not found:
        raise error("no_sources", where=f", and load_dir = {args.load_dir!r} holds no .h5ad or .zarr")
    return found


# ---- commands


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="teddytok")
def cli() -> None:
    """Turn single-cell gene expression into token sequences for TEDDY models."""


@cli.command()
@click.argument("sources", nargs=-1)
@_argument_options
@_threads_option
@click.option(
    "--chunk-bytes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Bytes to hold in memory at a time.  [default: 128 MiB for each thread]",
)
@click.option("--overwrite", is_flag=True, help="Start again in a folder that holds another run.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@_debug_option
def tokenize(
    sources: tuple[str, ...],
    config: str | None,
    threads: int | None,
    chunk_bytes: int | None,
    *,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Tokenize SOURCES (.h5ad files, .zarr stores), each to a folder OUT/<its stem>.

    datasets.load_from_disk opens the folder. Without SOURCES, those in load_dir are taken.
    """
    from .folder import output_folder, shards_of
    from .run import tokenize_to_disk

    args = _load_args(config, options)
    chosen = _sources(sources, args)
    folders = Counter(output_folder(source, args.save_dir) for source in chosen)
    if twice := [str(folder) for folder, n in folders.items() if n > 1]:
        problem = f"several sources would be written to {some(twice)}"
        raise error("config_conflict", where="", problem=problem, advice="Tokenize them into different folders")
    for source in chosen:
        began = time.perf_counter()
        before = shards_of(output_folder(source, args.save_dir))
        show = not quiet and sys.stderr.isatty()
        manifest = tokenize_to_disk(
            source, args, threads=threads, chunk_bytes=chunk_bytes, overwrite=overwrite, progress=show
        )
        if not quiet:
            kept = 0 if overwrite else len(before & {shard.file for shard in manifest.shards})
            click.echo(_summary(manifest, time.perf_counter() - began, kept=kept))


@cli.command()
@click.argument("sources", nargs=-1)
@_argument_options
@_threads_option
@_debug_option
def check(sources: tuple[str, ...], config: str | None, threads: int | None, **options: Any) -> int:
    """Check SOURCES without writing anything: genes, layer, values, annotations, size of the output."""
    from .preflight import check as check_source

    args = _load_args(config, options)
    failed = False
    for source in _sources(sources, args):
        report = check_source(source, args, threads=threads)
        click.echo(_check_text(source, report, args))
        failed |= bool(report.problems)
    return int(failed)


@cli.command()
@click.argument("folder")
@click.option(
    "--cells", type=click.IntRange(min=0), default=3, show_default=True, metavar="N", help="Sequences to show."
)
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    default=SHOWN_TOKENS,
    show_default=True,
    metavar="N",
    help="Tokens of each to show.",
)
@_debug_option
def inspect(folder: str, cells: int, tokens: int) -> None:
    """Show what a dataset FOLDER holds: schema, shards, and the first sequences as gene names and values."""
    from .dataset import inspect as inspect_dataset

    click.echo(_inspection_text(inspect_dataset(folder, cells=cells), tokens))


@cli.command()
@click.argument("folder")
@_debug_option
def verify(folder: str) -> int:
    """Check every byte of a dataset FOLDER: checksums, counts, and that Arrow's buffers are sound."""
    from .dataset import verify as verify_dataset

    found = verify_dataset(folder)
    for problem in found.problems:
        click.echo(f"{folder}: {problem}")
    manifest = found.manifest
    if not found.problems:
        click.echo(f"{folder}: {count(manifest.n_cells, 'cell')} in {count(len(manifest.shards), 'shard')}, all sound")
    return int(bool(found.problems))


@cli.command()
@click.option("--out", "-o", default="teddytok-demo", show_default=True, metavar="DIR", help="Folder to write to.")
@click.option("--overwrite", is_flag=True, help="Start again in a folder that holds another run.")
@_debug_option
def demo(out: str, *, overwrite: bool) -> None:
    """Tokenize 700 human blood cells that come with the package, and show the result."""
    from . import demo as data
    from .dataset import inspect as inspect_dataset
    from .run import tokenize_to_disk

    began = time.perf_counter()
    show = sys.stderr.isatty()
    manifest = tokenize_to_disk(data.CELLS, data.args(), out, name="pbmc", overwrite=overwrite, progress=show)
    click.echo(_summary(manifest, time.perf_counter() - began))
    click.echo()
    click.echo(_inspection_text(inspect_dataset(manifest.path), SHOWN_TOKENS))
    click.echo(f"\nOpen it:  python -c \"import datasets; print(datasets.load_from_disk('{manifest.path}'))\"")


@cli.group()
def vocab() -> None:
    """Make vocabularies."""


@vocab.command("build")
@click.argument("sources", nargs=-1, required=True)
@click.option(
    "--out", "-o", required=True, metavar="DIR", help="Folder to write vocab.txt and special_tokens_map.json to."
)
@click.option("--layer", default="processed", show_default=True, metavar="TEXT", help="Layer that will be tokenized.")
@click.option(
    "--gene-id-column",
    default="index",
    show_default=True,
    metavar="TEXT",
    help="var column of the gene ids, or 'index'.",
)
@click.option("--strip-gene-version", is_flag=True, help="Remove a trailing .N of Ensembl ids.")
@click.option(
    "--obs-columns", multiple=True, metavar="TEXT", help="obs column whose labels get tokens too; may be repeated."
)
@_debug_option
def vocab_build(sources: tuple[str, ...], out: str, **options: Any) -> None:
    """Make a vocabulary of all genes in SOURCES (.h5ad files, .zarr stores), for those who train their own model.

    Ids follow the sorted tokens, not the order of SOURCES: special tokens, then labels, then genes.
    """
    from .vocabulary import build_vocabulary

    tokens = build_vocabulary(sources, out, **options)
    click.echo(f"{out}: {len(tokens):,} tokens")


# ---- text


def _lines(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows)


def _size(n_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _gene_text(kept: int, n_var: int, lost: float) -> str:
    return f"{kept:,} of {n_var:,} in the vocabulary; the {n_var - kept:,} others held {lost:.2%} of the expression"


def _summary(manifest: Manifest, seconds: float, kept: int = 0) -> str:
    genes, n_cells = manifest.genes, manifest.n_cells
    mean = manifest.n_tokens / n_cells if n_cells else 0.0
    written = sum(shard.bytes for shard in manifest.shards)
    rows = [("genes", _gene_text(genes["kept"], genes["n_var"], manifest.expression_lost))]
    if manifest.source["cells_dropped"]:
        rows.insert(0, ("cells", f"{manifest.source['cells_dropped']:,} dropped by cell_filter"))
    if genes["duplicates"]:
        rows.append(("duplicates", f"{count(len(genes['duplicates']), 'token')} with more than one gene"))
    rows.append(("sequences", f"{manifest.n_tokens:,} tokens, {mean:,.1f} a cell"))
    for kind, report in manifest.annotations.items():
        rows += _unmapped_rows(kind, report["column"], report["unmapped"])
    if manifest.gene_seed is not None:
        rows.append(("gene seed", str(manifest.gene_seed)))
    rows.append(("written", f"{manifest.path} ({count(len(manifest.shards), 'shard')}, {_size(written)})"))
    if kept:
        what = "all of it" if kept == len(manifest.shards) else count(kept, "shard")
        rows.append(("kept", f"{what}, finished by an earlier run"))
        rows.append(("time", f"{seconds:.2f} s"))
    else:
        rows.append(("time", f"{seconds:.2f} s, {n_cells / seconds:,.0f} cells/s"))
    return f"{manifest.source['name']}: {count(n_cells, 'cell')}\n{_lines(rows)}"


def _unmapped_rows(kind: str, column: str, unmapped: dict[str, int]) -> list[tuple[str, str]]:
    if not unmapped:
        return []
    return [("no token", f"{kind} (obs {column!r}): {tally(unmapped)}; written as the unknown token")]


def _check_text(source: str, report: CheckReport, args: TokenizationArgs) -> str:
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
        rows.append(("output", f"{count(report.n_shards, 'shard')}, about {_size(report.n_bytes)}"))
    if report.n_empty:
        rows.append(("empty", f"{count(report.n_empty, 'cell')} with no gene to write"))
    rows += [("warning", text) for text in report.warnings]
    rows += [("PROBLEM", text) for text in report.problems]
    verdict = f"{count(len(report.problems), 'problem')}" if report.problems else "ready to tokenize"
    return f"{source}: {count(report.n_cells, 'cell')}, {verdict}\n{_lines(rows)}"


def _inspection_text(seen: Inspection, n_tokens: int) -> str:
    manifest = seen.manifest
    head = f"{manifest.path}: {count(manifest.n_cells, 'cell')} of {manifest.source['name']}"
    rows = [(field.name, str(field.type).replace("item: ", "")) for field in seen.schema]
    rows += [
        (shard.file, f"{count(shard.rows, 'row')}, {_size(shard.bytes)}, sha256 {shard.sha256[:12]}")
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
