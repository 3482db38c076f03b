"""Number the classes of several sources together."""

from __future__ import annotations

import logging
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

from ..mapping.classes import Classes, find_classes, number_classes, read_label_names
from ..sources.open import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from ..config.args import TokenizationArgs

logger = logging.getLogger("teddytok_rs")


def fix_classes(
    sources: Iterable[str],
    args: TokenizationArgs,
    known: Sequence[str] = (),
    fetch: Callable[[str], AbstractContextManager[str]] = nullcontext,
) -> tuple[TokenizationArgs, dict[str, Classes]]:
    """Set ``label_names`` to the classes of all sources together, unless it is set or no class is written.

    Parameters
    ----------
    sources
        Paths and URLs.
    args
        The arguments for all of them.
    known
        Names that have their numbers already: others come after them.
    fetch
        Opens a ``with`` block that gives the path under which a source can be read.

    Returns
    -------
    The arguments, with names in place of the path of a file; and what was found in each source that could be read.
    One that cannot is reported when it is tokenized.

    Raises
    ------
    ConfigError
        If the file of ``label_names`` cannot be used, or ordered categoricals contradict each other.
    """
    if args.label_names is not None:
        return args.replace(label_names=read_label_names(args.label_names)), {}
    found: dict[str, Classes] = {}
    if args.label_column is None or args.add_disease_annotation:
        return args, found
    for source in sources:
        try:
            with fetch(source) as path, closing(open_source(path, args.layer)) as opened:
                classes = find_classes(opened, args.label_column)
        except Exception as exc:
            logger.debug("%s: its classes cannot be read: %s", source, exc)
            continue
        if classes is not None:
            found[source] = classes
    names = number_classes(found.values(), args.label_column, known)
    return (args.replace(label_names=names) if names else args), found
