"""Build a vocabulary from the genes and labels of sources."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..config.files import DocumentError
from ..config.kinds import ANNOTATIONS
from ..errors.build import error
from ..errors.text import some
from .hub import read_argument_table
from .vocabulary_files import is_line, write_vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..config.args import ArgsLike, TokenizationArgs
    from ..sources.protocol import Source, SourceLike
    from .cells import Cells

    #: An obs column, the argument that names it, and the mapping of its labels, if there is one.
    LabelColumn: TypeAlias = tuple[str, str, Mapping[str, object] | None]

#: Role -> special token of a vocabulary that is built, in the order of their ids.
SPECIAL = {"pad": "<pad>", "unk": "<unk>", "cls": "<cls>", "mask": "<mask>"}


def build_vocabulary(
    sources: SourceLike | Iterable[SourceLike],
    folder: str | os.PathLike[str],
    args: ArgsLike | None = None,
    *,
    layer: str | None = None,
    gene_id_column: str | None = None,
    strip_gene_version: bool | None = None,
    obs_columns: Sequence[str] = (),
) -> list[str]:
    """Write the vocabulary of all genes, and of the labels of some obs columns, of some sources.

    This package and `transformers.AutoTokenizer` open the folder.

    Parameters
    ----------
    sources
        One or many of: an AnnData; whatever `tokenize_corpus` takes.
    folder
        Where the vocabulary is written.
    args
        The arguments that the sources will be tokenized with: their ``gene_id_column``, ``strip_gene_version``,
        ``cell_filter`` and, where they write annotations, obs columns and mappings are taken. A vocabulary that they
        name is not read.
    layer
        The layer that will be tokenized; it matters only where its genes are others, as those of ``"raw"`` may be. If
        not given, ``"raw"`` or ``"auto"`` of ``args``, otherwise the genes are those of ``var``.
    gene_id_column, strip_gene_version
        As in `TokenizationArgs`.
    obs_columns
        Further columns whose labels get a token. Of a label of several parts joined by ``" || "``, each part gets one.

    Returns
    -------
    The tokens in the order of their ids: special tokens, then labels, then genes, each sorted, so that the order of
    the sources does not matter.

    Raises
    ------
    SourceError, DataError
        If a source cannot be read or lacks a column.
    ConfigError
        If there is no source, an argument is not valid, or a gene id or label cannot be written on a line.
    OutputError
        If the folder holds a vocabulary already or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import teddytok_rs
    >>> from teddytok_rs import demo
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tokens = teddytok_rs.build_vocabulary(demo.CELLS, folder, obs_columns=["cell_type"])
    >>> tokens[:6]
    ['<pad>', '<unk>', '<cls>', '<mask>', 'CD14+ Monocyte', 'CD19+ B']
    """
    from ..config.args import TokenizationArgs
    from .cells import filter_cells
    from .genes import gene_ids

    given = {"gene_id_column": gene_id_column, "strip_gene_version": strip_gene_version}
    keys: dict[str, object] = {key: value for key, value in given.items() if value is not None}
    loaded = TokenizationArgs.load({} if args is None else args, tokenizer_name_or_path=folder)
    args = loaded.replace(**keys)
    if asked := [key for key in ("gene_map", "gene_filter") if getattr(args, key) is not None]:
        problem = f"{asked[0]} is set, but a vocabulary is built of all ids as they are in the sources"
        raise error("config_conflict", where="", problem=problem, advice="Leave it out")
    special = SPECIAL | ({"eos": "<eos>"} if args.add_eos else {})
    if layer is None and args.layer in {"raw", "auto"}:
        layer = args.layer
    columns = _label_columns(args, obs_columns)
    genes: set[str] = set()
    labels: set[str] = set()
    for source in _listed(sources):
        with _opened(source, layer) as opened:
            ids = gene_ids(
                opened.var,
                args.gene_id_column,
                strip=args.strip_gene_version,
                source=opened.name,
                unreadable=opened.unreadable,
            )
            genes.update(gene_id for gene_id in ids if gene_id is not None)
            labels |= _labels(filter_cells(opened, args.cell_filter), columns)
    tokens: dict[str, None] = dict.fromkeys(special.values())
    for group in (labels, genes):
        tokens.update(dict.fromkeys(sorted(group)))
    if bad := [token for token in tokens if not token or not is_line(token)]:
        problem = f"{len(bad)} gene ids or labels cannot be written on a line of vocab.txt: {some(bad)}"
        raise error("config_conflict", where="", problem=problem, advice="Rename them or leave the column out")
    write_vocabulary(folder, {token: number for number, token in enumerate(tokens)}, special)
    return list(tokens)


def _listed(sources: SourceLike | Iterable[SourceLike]) -> Iterator[SourceLike]:
    """List the sources: those in memory as they are, and those that paths, folders, globs and URLs mean."""
    from ..sources.discover import find_sources

    if isinstance(sources, str | os.PathLike) or not isinstance(sources, Iterable):
        sources = [sources]
    named: list[SourceLike] = list(sources)
    if not named:
        raise error("no_sources", where="")
    for source in named:
        if isinstance(source, str | os.PathLike):
            yield from find_sources(source)
        else:
            yield source


@contextmanager
def _opened(source: SourceLike, layer: str | None) -> Iterator[Source]:
    """Open a source, or a copy of a remote one, for the ``with`` block."""
    from ..sources.open import open_source, open_without_layer
    from ..sources.remote import copy_source, is_remote

    with tempfile.TemporaryDirectory() as copies:
        place = source
        if isinstance(source, str) and is_remote(source):
            place = copy_source(source, Path(copies), lambda _files: None)
        with closing(open_without_layer(place) if layer is None else open_source(place, layer)) as opened:
            yield opened


def _label_columns(args: TokenizationArgs, obs_columns: Sequence[str]) -> list[LabelColumn]:
    """List the columns whose labels get tokens: those of the annotations, and further ones."""
    kinds = ANNOTATIONS if args.bio_annotations else ["disease"] if args.add_disease_annotation else []
    columns: list[LabelColumn] = [(column, "obs_columns", None) for column in obs_columns]
    for kind in kinds:
        key = f"{kind}_mapping"
        mapping: Mapping[str, object] | None = None
        if (given := getattr(args, key)) is not None:
            try:
                mapping, _ = read_argument_table(key, given)
            except DocumentError as exc:
                raise error("mapping_file", key=key, file=given, reason=exc) from None
        columns.append((getattr(args, f"{kind}_column"), f"{kind}_column", mapping))
    return columns


def _labels(cells: Cells, columns: list[LabelColumn]) -> set[str]:
    """Collect the tokens that labels need, as tokenizing looks them up."""
    from .annotations import find_part, split_label
    from .cells import check_column

    tokens: set[str] = set()
    for column, key, mapping in columns:
        check_column(cells.source, column, key)
        found: set[str] = set()
        for span in cells.spans():
            found.update(map(str, cells.read(column, *span).dropna().unique()))
        for label in found:
            if mapping is None:
                tokens.update(split_label(label))
            elif (part := find_part(label, mapping)) is not None and isinstance(token := mapping[part], str):
                tokens.add(token)
    return tokens
