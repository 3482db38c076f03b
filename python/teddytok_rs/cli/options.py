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
    if origin in {tuple, dict}:
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
        "for some of": "COLUMN=NAME",
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
    from ..config.presets import preset_names

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
            ["--preset", "preset_name"],
            type=click.Choice(list(preset_names())),
            metavar="NAME",
            help=TokenizationArgs.model_fields["preset_name"].description,
        ),
    ]
    for name, field in TokenizationArgs.model_fields.items():
        if name == "preset_name":
            continue
        kind, multiple = _click_type(field.annotation)
        flag = f"--{name.replace('_', '-')}"
        shown = "" if field.is_required() or field.default in (None, (), False, {}) else f"  [default: {field.default}]"
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
                callback=_read_names if typing.get_origin(field.annotation) is dict else None,
                help=meaning,
            )
        options.append(option)
    return options


def _read_names(_ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str] | None:
    """Read values of the form COLUMN=NAME."""
    if any("=" not in text for text in given):
        got = next(text for text in given if "=" not in text)
        raise error("config_value", where="", key=str(param.name), got=got, expected="COLUMN=NAME")
    return dict(text.split("=", 1) for text in given) or None


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

    preprocessing = options.pop("preprocessing", None)
    second = None if preprocessing is None else str(preprocessing)
    config = str(STDIN) if config == "-" else config
    given = {key: value for key, value in options.items() if value is not None and value != ()}
    return TokenizationArgs.load(config if config is not None else {}, preprocessing=second, **given)


def sources_of(named: tuple[str, ...], args: TokenizationArgs) -> list[str]:
    """List the sources that were named, else those in load_dir."""
    from ..sources.discover import find_sources

    if named:
        return find_sources(named)
    if args.load_dir is None:
        raise error("no_sources", where="")
    return find_sources(args.load_dir)
