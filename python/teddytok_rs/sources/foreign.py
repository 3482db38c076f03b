"""Recognize files and stores of other formats, and say what to do with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py

from ..errors.build import error
from ..errors.text import some
from .limits import is_group, text_attributes

if TYPE_CHECKING:
    from .limits import StoredGroup, StoredItem


def refuse_foreign(root: StoredGroup, path: str) -> None:
    """Refuse a file or store that is not a current AnnData but something else that is known.

    Raises
    ------
    SourceError
        If it is one; the message says what it is, and what to do.
    """
    if (known := _known(root, path)) is not None:
        what, advice = known
        raise error("source_format", path=path, what=what, advice=advice)


def _known(root: StoredGroup, path: str) -> tuple[str, str] | None:
    """Name a format, and what to do with a file of it."""
    names = set(root)
    encoding = text_attributes(root).get("encoding-type")
    if encoding == "MuData" or ("mod" in names and is_group(root["mod"]) and "obs" in names and "X" not in names):
        inside = [f"mod/{name}" for name in root["mod"]] if "mod" in names else []
        return "a MuData of several modalities", _inside(root, path, inside, "mudata.read_h5mu({path!r})[{name!r}]")
    if "spatialdata_attrs" in text_attributes(root) or ("tables" in names and "obs" not in names):
        tables = root["tables"] if "tables" in names else {}
        return "a SpatialData store", _inside(root, path, [f"tables/{name}" for name in tables], "")
    if "matrix" in names and {"row_attrs", "col_attrs"} <= names:
        return "a loom file", f"Convert it: anndata.io.read_loom({path!r}).write_h5ad('cells.h5ad')"
    if "obs" not in names and any(_is_10x(root[name]) for name in names):
        convert = f"scanpy.read_10x_h5({path!r}).write_h5ad('cells.h5ad')"
        return "a matrix of 10x Genomics' Cell Ranger", f"Convert it: {convert}"
    if any(_is_table(root[name]) for name in {"obs", "var"} & names):
        convert = f"anndata.read_h5ad({path!r}).write_h5ad('cells.h5ad')"
        return "an AnnData as written before anndata 0.7 (2020)", f"Convert it once: {convert}"
    return None


def _is_10x(item: StoredItem) -> bool:
    """Return whether an item is a matrix of Cell Ranger: one per file, or one per genome."""
    return is_group(item) and {"barcodes", "indptr"} <= set(item)


def _is_table(item: StoredItem) -> bool:
    """Return whether an item is one array of records, as anndata wrote data frames before 0.7."""
    return not is_group(item) and getattr(item.dtype, "names", None) is not None


def _inside(root: StoredGroup, path: str, parts: list[str], reader: str) -> str:
    """Say how to get at one of the AnnData in a container."""
    if not parts:
        return "Write one of its tables to a file of its own with AnnData.write_h5ad"
    if isinstance(root, h5py.Group):
        taken = reader.format(path=path, name=parts[0].rpartition("/")[2])
        return f"Write one of {some(parts)} to a file of its own: {taken}.write_h5ad('cells.h5ad')"
    return f"Give the path of one of the AnnData in it: {some(f'{path}/{part}' for part in parts)}"
