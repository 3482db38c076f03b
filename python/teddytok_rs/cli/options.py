"""Make options of the command line from the fields of `TokenizationArgs`, and arguments and sources from options."""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Literal

import click

from ..errors.build import error
from .help import Command

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config.args import TokenizationArgs


def _click_type(annotation: object) -> tuple[object, bool]:
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


def _metavar(kind: object, takes: str) -> str | None:
    """Return the placeholder of an option's value for its help; None for a choice, which click formats."""
    if isinstance(kind, click.Choice):
        return None
    words = {
        "expression": "EXPR",
        "folder or file": "PATH",
        "JSON file": "FILE",
        "path of a folder": "DIR",
        "layer": "LAYER",
        "column": "COLUMN",
    }
    word = next((word for said, word in words.items() if said in takes), "TEXT")
    return "N" if kind is int else "X" if kind is float else word


class ArgumentsCommand(Command):
    """A command with an option for every argument, made when first needed: pydantic takes long to import."""

    _params: list[click.Parameter]
    _complete: bool

    @property
    def params(self) -> list[click.Parameter]:
        """The options and arguments of the command."""
        if not self._complete:
            self._params = [*_argument_options(), *self._params]
            self._complete = True
        return self._params

    @params.setter
    def params(self, params: list[click.Parameter]) -> None:
        self._params, self._complete = params, False


def _argument_options() -> list[click.Option]:
    """Make --config, --preprocessing, --preset and an option for every field of `TokenizationArgs`."""
    from ..config.args import FACTS, TokenizationArgs
    from ..config.presets import PRESETS

    options = [
        click.Option(
            ["--config", "-c"],
            metavar="FILE",
            help="JSON or YAML file of arguments, or - for standard input; options override it.",
        ),
        click.Option(
            ["--preprocessing"],
            metavar="FILE",
            help="Configuration of TEDDY's own preprocessing, to do it in the same pass.",
        ),
        click.Option(
            ["--preset"],
            type=click.Choice(list(PRESETS)),
            help="Arguments of a published model; --config overrides them.",
        ),
    ]
    for name, field in TokenizationArgs.model_fields.items():
        kind, multiple = _click_type(field.annotation)
        flag = f"--{name.replace('_', '-')}"
        shown = "" if field.is_required() or field.default in {None, (), False} else f"  [default: {field.default}]"
        meaning = f"{field.description}{shown}"
        if kind is bool:
            option = click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=meaning)
        else:
            names = [flag, "--out", "-o"] if name == "save_dir" else [flag]
            option = click.Option(
                [*names, name],
                type=kind,
                multiple=multiple,
                default=None,
                metavar=_metavar(kind, FACTS[name].takes),
                help=meaning,
            )
        options.append(option)
    return options


def threads_option(command: Callable[..., object]) -> Callable[..., object]:
    """Add the option --threads to a command."""
    return click.option(
        "--threads", type=click.IntRange(min=1), metavar="N", help="Threads to use.  [default: all cores]"
    )(command)


def debug_option(command: Callable[..., object]) -> Callable[..., object]:
    """Add the option --debug to a command."""
    return click.option("--debug", is_flag=True, help="Show the traceback of an error.")(command)


def load_args(config: str | None, options: dict[str, object]) -> TokenizationArgs:
    """Take --preset, if any; let the file of --config override it, and the other options both."""
    from ..config.args import TokenizationArgs
    from ..config.files import STDIN

    preset, preprocessing = options.pop("preset", None), options.pop("preprocessing", None)
    config = str(STDIN) if config == "-" else config
    given = {key: value for key, value in options.items() if value is not None and value != ()}
    second = None if preprocessing is None else str(preprocessing)
    if isinstance(preset, str):
        return TokenizationArgs.preset(preset, config, preprocessing=second, **given)
    return TokenizationArgs.load(config if config is not None else {}, preprocessing=second, **given)


def sources_of(named: tuple[str, ...], args: TokenizationArgs) -> list[str]:
    """List the sources that were named, else those in load_dir."""
    from ..sources.discover import find_sources

    if named:
        return find_sources(named)
    if args.load_dir is None:
        raise error("no_sources", where="")
    return find_sources(args.load_dir)
