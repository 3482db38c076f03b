"""Run the commands of the command line: call the package, print the results. No logic of its own.

Exit codes: 0 fine, 1 the data's fault, 2 usage, 130 interrupted (143 by SIGTERM, 129 by SIGHUP).
"""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, NoReturn

import click

from .. import __version__
from ..errors import ConfigError, TeddytokError
from ..errors.build import describe_error, error
from ..errors.text import printable
from .console import Console, as_json, console_options, write, write_traceback
from .help import Group
from .options import ArgumentsCommand, load_args, sources_of, threads_option
from .signals import Ended, ended_by_signals, importing
from .text import (
    check_text,
    corpus_text,
    demo_text,
    gene_map_text,
    inspection_text,
    medians_text,
    summary,
    vocabulary_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..corpus.state import Outcome

#: Default number of tokens of a sequence that `inspect` shows, and number of those that `vocab show` does.
SHOWN_TOKENS = 8
#: Commands that go on where they were interrupted.
CONTINUED = {"tokenize", "demo", "medians"}


def main() -> NoReturn:
    """Run the command line; every error is one line on standard error, and with --json a document too."""
    args = sys.argv[1:]  # here alone; click passes no options on where it refuses some
    with ended_by_signals():
        try:
            result = cli.main(args, prog_name="teddytok", standalone_mode=False)
            code = result if isinstance(result, int) else 0
        except click.exceptions.NoArgsIsHelpError as exc:
            exc.show()
            code = exc.exit_code
        except click.ClickException as exc:
            code = _fail(args, "usage", _one_line(exc), exc.exit_code)
        except (KeyboardInterrupt, click.Abort) as exc:
            hint = " The same command again continues an unfinished run." if CONTINUED & set(args[:1]) else ""
            ended = exc.__cause__ if isinstance(exc, click.Abort) else exc  # which click makes of any KeyboardInterrupt
            by, code = (f" by {ended.name}", ended.exit_code) if isinstance(ended, Ended) else ("", 130)
            with suppress(OSError):  # a terminal that is gone
                _fail(args, "interrupted", f"interrupted{by}.{hint}", code)
        except Exception as exc:
            code = _fail(args, *describe_error(exc), _exit_code(exc), getattr(exc, "context", None))
    sys.exit(code)


def _fail(args: list[str], kind: str, message: str, code: int, context: Mapping[str, object] | None = None) -> int:
    """Print the error that ended a command, and return the exit code."""
    exc = sys.exception()
    if "--debug" in args and isinstance(exc, Exception) and kind != "usage":
        write_traceback(exc)
    if "--json" in args:
        from .json import error_document

        write(as_json({"error": error_document(kind, message, context), "exit_code": code}))
    write(f"teddytok: {message}", err=True)
    return code


def _exit_code(exc: Exception) -> int:
    """Choose the code: whether the arguments are at fault, or the data."""
    return 2 if isinstance(exc, ConfigError) else 1


def _import_dependencies() -> None:
    """Import what a run needs."""
    with importing() as raise_if_interrupted:
        for module in ("pandas", "h5py", "pyarrow.ipc"):
            importlib.import_module(module)
            raise_if_interrupted()


def _one_line(exc: click.ClickException) -> str:
    """Format a usage error of the command line, with the command that shows the help."""
    context = getattr(exc, "ctx", None)
    command = context.command_path if context else "teddytok"
    text = " ".join(exc.format_message().split())
    text = text.replace("'. (Did", "' (did")
    stop = "" if text.endswith((".", "?", "!")) else "."
    return f"{text}{stop} '{command} --help' lists what there is."


# ---- commands


def _examples(*lines: str) -> str:
    """Write an epilog; its lines are kept as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


TOP = _examples("teddytok demo", "teddytok check brain.h5ad --config args.json", "teddytok tokenize --help")
TOKENIZE = _examples(
    "teddytok tokenize brain.h5ad --config args.json --out tokens",
    "teddytok tokenize atlas/ --config args.json --out corpus",
    "teddytok tokenize counts.h5ad -c args.json --layer X --log1p --out tokens",
)
CHECK = _examples(
    "teddytok check brain.h5ad --config args.json",
    "teddytok check atlas/ --config args.json --json > report.json",
)
INSPECT = _examples("teddytok inspect tokens/brain --cells 5 --tokens 20")
VERIFY = _examples("teddytok verify tokens/brain", "teddytok verify corpus")
VOCAB = _examples(
    "teddytok vocab build brain.h5ad --obs-columns cell_type --out vocabulary",
    "teddytok vocab build atlas/ --config args.json --out vocabulary",
)
VOCAB_SHOW = _examples("teddytok vocab show vocabulary")
MEDIANS = _examples(
    "teddytok medians build brain.h5ad blood.h5ad --normalize-total 10000 --out medians.json",
    "teddytok medians build atlas/ --normalize-total 10000 --min-cells 50 --out medians.json",
)
GENES = _examples(
    "teddytok genes map-from cellxgene.h5ad --out map.json",
    "teddytok tokenize symbols.h5ad --config args.json --gene-map map.json --out tokens",
)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=TOP)
@click.version_option(__version__, prog_name="teddytok")
def cli() -> None:
    """Turn single-cell gene expression into token sequences for TEDDY models."""


@cli.command(cls=ArgumentsCommand, epilog=TOKENIZE)
@click.argument("sources", nargs=-1)
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
    "--address",
    metavar="TEXT",
    help="Address of the cluster.  [default: a temporary one that uses this machine's cores]",
)
@click.option("--report", is_flag=True, help="Write report.html too, an HTML page about the dataset.")
@console_options()
def tokenize(
    sources: tuple[str, ...],
    config: str | None,
    threads: int | None,
    chunk_bytes: int | None,
    *,
    console: Console,
    overwrite: bool,
    fail_fast: bool,
    engine: str | None,
    address: str | None,
    report: bool,
    **options: object,
) -> int:
    """Tokenize SOURCES, each to a dataset OUT/<name of the file without its ending>.

    datasets.load_from_disk opens it (see --format). SOURCES are .h5ad files, .zarr stores, folders of these, quoted
    globs of these, URLs of any of these, and soma:// URLs of SOMA queries; without them, load_dir is taken. One
    that fails does not stop the others. With several sources, or an engine, OUT/corpus.json lists the result of each.

    Switches such as --log1p have an opposite, --no-log1p, for what the configuration turns on.
    """
    _import_dependencies()
    from ..api import tokenize_corpus
    from .json import document, outcome_document, totals

    args = load_args(config, options)
    if not sources and args.load_dir is None:
        raise error("no_sources", where="")
    if address is not None and engine is None:
        raise error("config_conflict", where="", problem="address is set without engine", advice="Name the engine")
    outcomes: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if outcome.manifest is not None:
            console.print_text(summary(outcome.manifest, outcome.seconds, report=report))
        elif console.debug and outcome.exception is not None:  # the message was logged
            write_traceback(outcome.exception)

    module = None if engine is None else importlib.import_module(f"..engines.{engine}", __package__)
    with nullcontext() if module is None else module.executor(address) as executor:
        corpus = tokenize_corpus(
            sources or str(args.load_dir),
            args,
            executor=executor,
            threads=threads,
            chunk_bytes=chunk_bytes,
            fail_fast=fail_fast,
            overwrite=overwrite,
            progress=console.progress,
            report=report,
            corpus_of_one=False,
            on_source=note,
        )
    if len(outcomes) > 1:
        console.print_text(corpus_text(corpus, outcomes))
    documents = [outcome_document(outcome, corpus.path) for outcome in outcomes] if console.as_json else []
    counted = totals([outcome.source for outcome in outcomes])
    console.print_json(document("tokenize", out=str(corpus.path), sources=documents, totals=counted))
    return min((_exit_code(outcome.exception) for outcome in outcomes if outcome.exception is not None), default=0)


@cli.command(cls=ArgumentsCommand, epilog=CHECK)
@click.argument("sources", nargs=-1)
@threads_option
@console_options()
def check(
    sources: tuple[str, ...], config: str | None, threads: int | None, *, console: Console, **options: object
) -> int:
    """Check SOURCES for problems without writing anything.

    That is genes, layer, values, annotations and the size of the output. It goes on after a problem, and reports all.
    Exit code 1 if there is any.
    """
    from ..corpus.check import check_sources
    from .json import check_document, document, error_document

    args = load_args(config, options)
    failed = False
    chosen = sources_of(sources, args)
    documents: list[dict[str, object]] = []
    for source, report in check_sources(chosen, args, threads=threads, progress=console.progress):
        if isinstance(report, TeddytokError):
            if len(chosen) == 1:
                raise report
            message = str(report) if source in str(report) else f"{source}: {report}"
            write(f"teddytok: {message}", err=True)
            documents.append(
                {"source": source, "ready": False, "error": error_document(report.kind, str(report), report.context)}
            )
            failed = True
            continue
        console.print_text(check_text(source, report))
        for problem in report.problems:
            console.warn(problem if source in problem else f"{source}: {problem}")
        documents.append(check_document(source, report))
        failed |= bool(report.problems)
    console.print_json(document("check", ready=not failed, sources=documents))
    return int(failed)


@cli.command(epilog=INSPECT)
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
@console_options()
def inspect(folder: str, cells: int, tokens: int, *, console: Console) -> None:
    """Show what the dataset in FOLDER holds.

    That is its configuration, columns, shards, and the first sequences as gene names and values.
    """
    from ..api import inspect as inspect_dataset
    from .json import inspection_document

    seen = inspect_dataset(folder, cells=cells)
    console.print_text(inspection_text(seen, tokens))
    console.print_json(inspection_document(seen, tokens))


@cli.command(epilog=VERIFY)
@click.argument("folder")
@console_options()
def verify(folder: str, *, console: Console) -> int:
    """Check every byte of the dataset, or datasets, in FOLDER.

    That is checksums, counts, and that each shard can be read.
    """
    from ..api import verify as verify_dataset
    from ..output.verify import verdict
    from .json import verification_document

    found = verify_dataset(folder, progress=console.progress)
    for problem in found.problems:
        console.print_text(printable(f"{folder}: {problem}"))
        console.warn(f"{folder}: {problem}")
    for note in found.notes:
        console.print_text(printable(f"{folder}: note: {note}"))
    if not found.problems:
        console.print_text(printable(f"{folder}: {verdict(found)}"))
    console.print_json(verification_document(folder, found))
    return int(bool(found.problems))


@cli.command("report")
@click.argument("folder")
@click.option("--out", "-o", metavar="FILE", help="The file to write.  [default: FOLDER/report.html]")
@console_options()
def report_command(folder: str, out: str | None, *, console: Console) -> None:
    """Write what the datasets in FOLDER hold as an HTML page.

    It is one file, for one dataset or many, that loads nothing from a network.
    """
    from ..api import write_report
    from .json import document

    page = write_report(folder, out)
    console.print_text(printable(str(page)))
    console.print_json(document("report", path=page))


@cli.command()
@click.option("--out", "-o", default="teddytok-demo", show_default=True, metavar="DIR", help="Folder to write to.")
@click.option("--overwrite", is_flag=True, help="Start again in a folder that holds another run.")
@console_options(json_option=False)
def demo(out: str, *, overwrite: bool, console: Console) -> None:
    """Tokenize 700 human blood cells that come with the package."""
    from .. import demo as data
    from ..api import inspect as inspect_dataset
    from ..api import tokenize_to_disk

    started = time.perf_counter()
    manifest = tokenize_to_disk(
        data.CELLS, data.args(), out, name="pbmc", overwrite=overwrite, progress=console.progress
    )
    console.print_text(summary(manifest, time.perf_counter() - started))
    console.print_text()
    console.print_text(inspection_text(inspect_dataset(manifest.path), SHOWN_TOKENS))
    console.print_text(demo_text(manifest.path))


@cli.command()
@console_options()
def presets(*, console: Console) -> None:
    """List the presets, with the source of each setting.

    A preset holds the arguments of a model. The files of TEDDY's presets are downloaded from the Hugging Face Hub when
    they are first used.
    """
    from .json import document, preset_documents
    from .text import presets_text

    console.print_text(presets_text())
    console.print_json(document("presets", presets=preset_documents()))


@cli.group()
def genes() -> None:
    """Make maps of gene names to Ensembl ids."""


@genes.command("map-from", epilog=GENES)
@click.argument("source")
@click.option("--out", "-o", required=True, metavar="FILE", help="JSON file to write, for --gene-map.")
@console_options()
def genes_map_from(source: str, out: str, *, console: Console) -> None:
    """Write a map of gene names to Ensembl ids from SOURCE.

    SOURCE is an .h5ad file or .zarr store that has both: ids in var_names and names in feature_name, as in files of
    CELLxGENE, or names in var_names and ids in gene_ids, as in files of 10x Genomics.
    """
    from ..mapping.build_gene_map import build_gene_map
    from .json import document

    written = build_gene_map(source, out)
    console.print_text(gene_map_text(written))
    mapped = {"mapped": written.n_mapped, "ambiguous": written.n_ambiguous}
    columns = {"names_column": written.names_column, "ids_column": written.ids_column}
    console.print_json(document("genes map-from", path=written.path, **columns, **mapped))


@cli.group()
def vocab() -> None:
    """Make vocabularies, and show them."""


@vocab.command("build", epilog=VOCAB)
@click.argument("sources", nargs=-1)
@click.option("--out", "-o", required=True, metavar="DIR", help="Folder to write the vocabulary to.")
@click.option(
    "--config",
    "-c",
    metavar="FILE",
    help="JSON or YAML file of the arguments that SOURCES will be tokenized with, or - for standard input.",
)
@click.option(
    "--layer", metavar="TEXT", help="Layer that will be tokenized, where its genes are not those of var, as in 'raw'."
)
@click.option("--gene-id-column", metavar="TEXT", help="var column of the gene ids, or 'index'.  [default: index]")
@click.option("--strip-gene-version", is_flag=True, default=None, help="Remove a trailing .N of Ensembl ids.")
@click.option(
    "--obs-columns", multiple=True, metavar="TEXT", help="obs column whose labels get tokens too; may be repeated."
)
@console_options()
def vocab_build(
    sources: tuple[str, ...],
    out: str,
    config: str | None,
    *,
    layer: str | None,
    gene_id_column: str | None,
    obs_columns: tuple[str, ...],
    strip_gene_version: bool | None,
    console: Console,
) -> None:
    """Make a vocabulary of all genes in SOURCES, to train a model of your own.

    SOURCES are those of 'teddytok tokenize'. Ids follow the sorted tokens, not the order of SOURCES: special tokens,
    then labels, then genes. With a configuration, these are the labels of the annotations that it writes.
    """
    from ..mapping.build_vocabulary import build_vocabulary
    from .json import document

    args = load_args(config, {"tokenizer_name_or_path": out})
    tokens = build_vocabulary(
        sources_of(sources, args),
        out,
        args,
        layer=layer,
        gene_id_column=gene_id_column,
        strip_gene_version=strip_gene_version,
        obs_columns=obs_columns,
    )
    console.print_text(printable(f"{out}: {len(tokens):,} tokens"))
    console.print_json(document("vocab build", path=out, tokens=len(tokens)))


@vocab.command("show", epilog=VOCAB_SHOW)
@click.argument("folder")
@console_options()
def vocab_show(folder: str, *, console: Console) -> None:
    """Show the vocabulary in FOLDER: its size, special tokens and first ids.

    FOLDER is whatever --tokenizer-name-or-path takes, or the folder of a dataset or corpus.
    """
    from ..api import load_vocabulary
    from .json import vocabulary_document

    vocabulary = load_vocabulary(folder)
    for warning in vocabulary.warnings:
        console.warn(warning)
    console.print_text(vocabulary_text(vocabulary, SHOWN_TOKENS))
    console.print_json(vocabulary_document(vocabulary, SHOWN_TOKENS))


@cli.group()
def medians() -> None:
    """Compute medians of genes."""


@medians.command("build", epilog=MEDIANS)
@click.argument("sources", nargs=-1, required=True)
@click.option("--out", "-o", required=True, metavar="FILE", help="JSON file to write, as --median-dict takes it.")
@click.option(
    "--layer", default="auto", show_default=True, metavar="LAYER", help="Layer of the values; 'auto' takes counts."
)
@click.option(
    "--normalize-total",
    type=float,
    metavar="X",
    help="Divide each cell by its sum and multiply by this first (TEDDY and Geneformer: 10000).",
)
@click.option(
    "--gene-id-column",
    default="index",
    show_default=True,
    metavar="TEXT",
    help="var column of the gene ids, or 'index'.",
)
@click.option("--strip-gene-version", is_flag=True, help="Remove a trailing .N of Ensembl ids.")
@click.option(
    "--duplicate-genes",
    type=click.Choice(["error", "sum", "keep"]),
    default="error",
    show_default=True,
    help="What to do with several columns of one gene.",
)
@click.option(
    "--min-cells",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Leave out genes with fewer nonzero values.",
)
@threads_option
@console_options()
def medians_build(
    *,
    sources: tuple[str, ...],
    out: str,
    layer: str,
    normalize_total: float | None,
    gene_id_column: str,
    strip_gene_version: bool,
    duplicate_genes: str,
    min_cells: int,
    threads: int | None,
    console: Console,
) -> None:
    """Compute the exact median of each gene's nonzero values in SOURCES.

    SOURCES are .h5ad files, .zarr stores, folders of these, quoted globs of these, and soma:// URLs of SOMA queries.
    Genes are joined by their id. OUT is for --median-dict; a report with the number of cells and nonzero values of
    each gene is written next to it. The medians do not depend on the order of SOURCES or on the number of threads.
    """
    _import_dependencies()
    from ..api import build_medians
    from .json import document, medians_results

    built = build_medians(
        sources,
        out,
        layer=layer,
        normalize_total=normalize_total,
        gene_id_column=gene_id_column,
        strip_gene_version=strip_gene_version,
        duplicate_genes=duplicate_genes,
        min_cells=min_cells,
        threads=threads,
        progress=console.progress,
    )
    console.print_text(medians_text(built))
    console.print_json(document("medians build", **medians_results(built)))
