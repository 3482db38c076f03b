"""Build a vocabulary from the genes and labels of sources."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.files import refuse_url
from ..errors.build import error, system_error
from ..errors.text import some
from .vocabulary import FILES

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from ..sources.protocol import SourceLike

logger = logging.getLogger("teddytok_rs")


def build_vocabulary(
    sources: Sequence[SourceLike],
    folder: str | os.PathLike[str],
    *,
    layer: str = "processed",
    gene_id_column: str = "index",
    strip_gene_version: bool = False,
    obs_columns: Sequence[str] = (),
) -> list[str]:
    """Write the vocabulary of all genes, and of the labels of some obs columns, of some sources.

    Parameters
    ----------
    sources
        AnnData objects, paths of ``.h5ad`` files and ``.zarr`` stores, or ``soma://`` URLs.
    folder
        Where ``vocab.txt`` and ``special_tokens_map.json`` are written.
    layer
        The layer that will be tokenized; ``"raw"`` has genes of its own.
    gene_id_column, strip_gene_version
        As in `TokenizationArgs`.
    obs_columns
        Columns whose labels get a token too.

    Returns
    -------
    The tokens in the order of their ids: special tokens, then labels, then genes, each sorted, so that the order of
    the sources does not matter.

    Raises
    ------
    SourceError, DataError
        If a source cannot be read or lacks a column.
    ConfigError
        If a gene id or label cannot be written on a line.
    OutputError
        If the folder holds a vocabulary already or cannot be written.
    """
    from ..sources.open import open_source
    from .cells import Cells, check_column
    from .genes import gene_ids

    refuse_url(folder)
    genes: set[str] = set()
    labels: set[str] = set()
    for source in sources:
        with closing(open_source(source, layer)) as opened:
            ids = gene_ids(
                opened.var,
                gene_id_column,
                strip=strip_gene_version,
                source=opened.name,
                unreadable=opened.unreadable,
            )
            genes.update(gene_id for gene_id in ids if gene_id is not None)
            for column in obs_columns:
                check_column(opened, column, "obs_columns")
                cells = Cells(opened)
                for span in cells.spans():
                    labels.update(map(str, cells.read(column, *span).dropna().unique()))
    special = {"pad": "<pad>", "unk": "<unk>", "cls": "<cls>", "mask": "<mask>"}
    tokens: dict[str, None] = dict.fromkeys(special.values())
    for group in (labels, genes):
        tokens.update(dict.fromkeys(sorted(group)))
    _check_lines(list(tokens))
    folder = Path(folder)
    vocab, names = folder / "vocab.txt", folder / "special_tokens_map.json"
    if any((folder / name).exists() or (folder / name).is_symlink() for name in FILES):
        raise error("vocabulary_exists", path=str(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        vocab.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8", newline="\n")
        text = json.dumps({f"{role}_token": token for role, token in special.items()}, indent=2)
        names.write_text(f"{text}\n", encoding="utf-8", newline="\n")
    except OSError as exc:
        raise system_error("output_failed", exc, path=str(folder)) from None
    return list(tokens)


def _check_lines(tokens: Sequence[str]) -> None:
    bad = [token for token in tokens if not token or "\n" in token or token.endswith("\r")]
    if bad:
        problem = f"{len(bad)} gene ids or labels cannot be written on a line of vocab.txt: {some(bad)}"
        raise error("config_conflict", where="", problem=problem, advice="Rename them or leave the column out")
