"""Write a `gene_map` from a source that has names and ids of its genes."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.files import refuse_url
from ..errors.build import error, system_error
from ..errors.text import some
from ..sources.open import open_without_layer
from .genes import column_text, find_id_column, find_name_column, strip_version

if TYPE_CHECKING:
    import os

    from ..sources.protocol import SourceLike


@dataclass(frozen=True)
class WrittenGeneMap:
    """A gene map that was written.

    Attributes
    ----------
    path
        The file.
    names_column, ids_column
        The columns of ``var`` that hold names and ids; ``"index"`` for ``var_names``.
    n_mapped, n_ambiguous
        Number of names with one id, and with several.
    """

    path: Path
    names_column: str
    ids_column: str
    n_mapped: int
    n_ambiguous: int


def build_gene_map(source: SourceLike, path: str | os.PathLike[str]) -> WrittenGeneMap:
    """Write a JSON file for ``gene_map``, from the names to the Ensembl ids of the genes of a source.

    Parameters
    ----------
    source
        An AnnData, the path of an ``.h5ad`` file or a ``.zarr`` store, or a ``soma://`` URL. Names and ids are in
        columns of its ``var`` or in ``var_names``, as in files of CELLxGENE (``feature_name`` and ``var_names``) and of
        10x Genomics (``var_names`` and ``gene_ids``).
    path
        The file to write. A name with one id is mapped to this id, one with several to a list, which is ambiguous.
        Versions of ids are removed.

    Raises
    ------
    SourceError
        If the source cannot be read.
    DataError
        If it has no column of names, or none of Ensembl ids.
    ConfigError
        If ``path`` is a URL.
    OutputError
        If the file exists or cannot be written.
    """
    refuse_url(path)
    with closing(open_without_layer(source)) as opened:
        var, name = opened.var, opened.name
    ids_column = find_id_column(var)
    names_column = None if ids_column is None else find_name_column(var, ids_column)
    if ids_column is None or names_column is None:
        columns = ["index", *map(str, var.columns)]
        lacks = "Ensembl ids" if ids_column is None else "names"
        raise error("gene_map_source", source=name, lacks=lacks, columns=some(columns))
    ids_of_name: dict[str, dict[str, None]] = {}
    for gene, gene_id in zip(column_text(var, names_column), column_text(var, ids_column), strict=True):
        if gene and gene_id and gene != gene_id:
            ids_of_name.setdefault(gene, {})[strip_version(gene_id)] = None
    document = {gene: next(iter(ids)) if len(ids) == 1 else list(ids) for gene, ids in sorted(ids_of_name.items())}
    try:
        with Path(path).open("x", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(document, indent=0, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise error("gene_map_exists", path=str(path)) from None
    except OSError as exc:
        raise system_error("output_failed", exc, path=str(path)) from None
    n_ambiguous = sum(isinstance(ids, list) for ids in document.values())
    return WrittenGeneMap(Path(path), names_column, ids_column, len(document) - n_ambiguous, n_ambiguous)
