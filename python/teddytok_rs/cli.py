"""Words on a command line in, calls of the package and their results as text out. No logic of its own.

Exit codes: 0 fine, 1 the data's fault, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

import click

from . import __version__
from .cli_options import argument_options, debug_option, load_args, sources_of, threads_option
from .cli_text import check_text, corpus_text, inspection_text, outcome_text, sound_text, summary
from .errors import ConfigError, DataError, SourceError, TeddytokError
from .messages import error

if TYPE_CHECKING:
    from .args import TokenizationArgs
    from .corpus_work import Outcome

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


# ---- commands


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="teddytok")
def cli() -> None:
    """Turn single-cell gene expression into token sequences for TEDDY models."""


@cli.command()
@click.argument("sources", nargs=-1)
@argument_options
@threads_option
@click.option(
    "--chunk-bytes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Bytes to hold in memory at a time.  [default: 128 MiB for each thread]",
)
@click.option("--overwrite", is_flag=True, help="Start again in a folder that holds another run.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first of many sources that fails.")
@click.option(
    "--engine",
    type=click.Choice(["dask", "ray"]),
    help="Have a cluster's workers do the shards; needs the extra of that name.",
)
@click.option(
    "--address", metavar="TEXT", help="Of the engine's cluster.  [default: one of this machine's cores, for the run]"
)
@click.option("--report", is_flag=True, help="Write report.html too, a page that tells all of it.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@debug_option
def tokenize(
    sources: tuple[str, ...],
    config: str | None,
    threads: int | None,
    chunk_bytes: int | None,
    *,
    overwrite: bool,
    fail_fast: bool,
    engine: str | None,
    address: str | None,
    report: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Tokenize SOURCES, each to a folder OUT/<its stem> that datasets.load_from_disk opens (see --format).

    SOURCES are .h5ad files, .zarr stores, folders of these, quoted globs of these, and URLs of any of
    these; without them, load_dir is taken. One that fails does not stop the others. OUT/corpus.json tells what became
    of each, unless a single file or store was named without an engine.
    """
    from .folder import output_folder, shards_of
    from .run import tokenize_to_disk
    from .sources.remote import is_remote

    args = load_args(config, options)
    chosen = sources_of(sources, args)
    show = not quiet and sys.stderr.isatty()
    if address is not None and engine is None:
        raise error("config_conflict", where="", problem="address is set without engine", advice="Name the engine")
    if len(chosen) > 1 or chosen != list(sources) or is_remote(chosen[0]) or engine is not None:
        how = {"chunk_bytes": chunk_bytes, "overwrite": overwrite, "fail_fast": fail_fast, "progress": show}
        how["pages"] = report
        if engine is None:
            return _tokenize_corpus(chosen, args, quiet=quiet, threads=threads, **how)
        module = importlib.import_module(f".engines.{engine}", __package__)
        with module.executor(address) as executor:
            return _tokenize_corpus(chosen, args, quiet=quiet, threads=threads, executor=executor, **how)
    began = time.perf_counter()
    before = shards_of(output_folder(chosen[0], args.save_dir))
    manifest = tokenize_to_disk(
        chosen[0], args, threads=threads, chunk_bytes=chunk_bytes, overwrite=overwrite, progress=show, report=report
    )
    if not quiet:
        kept = 0 if overwrite else len(before & {shard.file for shard in manifest.shards})
        click.echo(summary(manifest, time.perf_counter() - began, kept=kept, report=report))
    return 0


def _tokenize_corpus(sources: list[str], args: TokenizationArgs, *, quiet: bool, **options: Any) -> int:
    """Tokenize many sources; here an ``executor`` may be among the options."""
    from .corpus import run_corpus

    def report(outcome: Outcome) -> None:
        if (failure := outcome.source.error) is not None:
            _report_failure(outcome.source.source, failure["message"])
        elif not quiet:
            click.echo(outcome_text(outcome))

    corpus = run_corpus(sources, args, report=report, **options)
    if not quiet:
        click.echo(corpus_text(corpus, len(sources)))
    return int(bool(corpus.failed))


def _report_failure(source: str, message: str) -> None:
    """Say on standard error what is wrong with one of several sources."""
    named = message if source in message else f"{source}: {message}"
    click.echo(f"teddytok: {named}", err=True)


@cli.command()
@click.argument("sources", nargs=-1)
@argument_options
@threads_option
@debug_option
def check(sources: tuple[str, ...], config: str | None, threads: int | None, **options: Any) -> int:
    """Check SOURCES without writing anything: genes, layer, values, annotations, size of the output."""
    from .preflight import check as check_source

    args = load_args(config, options)
    failed = False
    chosen = sources_of(sources, args)
    for source in chosen:
        try:
            report = check_source(source, args, threads=threads)
        except (SourceError, DataError) as bad:
            if len(chosen) == 1:
                raise
            _report_failure(source, str(bad))
            failed = True
            continue
        click.echo(check_text(source, report, args))
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
@debug_option
def inspect(folder: str, cells: int, tokens: int) -> None:
    """Show what a dataset FOLDER holds: schema, shards, and the first sequences as gene names and values."""
    from .dataset import inspect as inspect_dataset

    click.echo(inspection_text(inspect_dataset(folder, cells=cells), tokens))


@cli.command()
@click.argument("folder")
@debug_option
def verify(folder: str) -> int:
    """Check every byte of a FOLDER, of one dataset or many: checksums, counts, and that each shard can be read."""
    from .dataset import verify as verify_dataset

    found = verify_dataset(folder)
    for problem in found.problems:
        click.echo(f"{folder}: {problem}")
    if not found.problems:
        click.echo(f"{folder}: {sound_text(found.manifest)}")
    return int(bool(found.problems))


@cli.command("report")
@click.argument("folder")
@click.option("--out", "-o", metavar="FILE", help="The file to write.  [default: FOLDER/report.html]")
@debug_option
def report_command(folder: str, out: str | None) -> None:
    """Write what a FOLDER holds, of one dataset or many, as one HTML page that loads nothing from a network."""
    from .report import write_report

    click.echo(write_report(folder, out))


@cli.command()
@click.option("--out", "-o", default="teddytok-demo", show_default=True, metavar="DIR", help="Folder to write to.")
@click.option("--overwrite", is_flag=True, help="Start again in a folder that holds another run.")
@debug_option
def demo(out: str, *, overwrite: bool) -> None:
    """Tokenize 700 human blood cells that come with the package, and show the result."""
    from . import demo as data
    from .dataset import inspect as inspect_dataset
    from .run import tokenize_to_disk

    began = time.perf_counter()
    show = sys.stderr.isatty()
    manifest = tokenize_to_disk(data.CELLS, data.args(), out, name="pbmc", overwrite=overwrite, progress=show)
    click.echo(summary(manifest, time.perf_counter() - began))
    click.echo()
    click.echo(inspection_text(inspect_dataset(manifest.path), SHOWN_TOKENS))
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
@debug_option
def vocab_build(sources: tuple[str, ...], out: str, **options: Any) -> None:
    """Make a vocabulary of all genes in SOURCES (.h5ad files, .zarr stores), for those who train their own model.

    Ids follow the sorted tokens, not the order of SOURCES: special tokens, then labels, then genes.
    """
    from .vocabulary import build_vocabulary

    tokens = build_vocabulary(sources, out, **options)
    click.echo(f"{out}: {len(tokens):,} tokens")
