"""Read some rows of a stored column of a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from .limits import check_backed, is_group, read_elem, text_attributes, unreadable

if TYPE_CHECKING:
    import pandas as pd

#: Encodings of which rows can be read; of a group, those of its members that have a value for each row.
MEMBERS = {"categorical": ("codes",), "nullable-integer": ("values", "mask"), "nullable-boolean": ("values", "mask")}
ARRAYS = {"array", "string-array"}


class StoredColumn:
    """A column of a stored data frame, of which only the rows that are asked for are read.

    That is so for numbers, booleans, strings and categories; a column of any other encoding is read whole and kept.

    Parameters
    ----------
    item
        The array or group, which is not kept: its file may be closed between reads.
    name, n_rows, path
        What it is called, for messages; its length; the path of the file.
    """

    def __init__(self, item: Any, name: str, n_rows: int, path: str) -> None:
        import pandas as pd

        check_backed(item, path)
        encoding = text_attributes(item).get("encoding-type")
        self._encoding = encoding if encoding in (MEMBERS if is_group(item) else ARRAYS) else None
        self._whole: Any = None
        self._categories: pd.CategoricalDtype | None = None
        if self._encoding is None:
            self._whole = read_elem(item, path)
            shapes = [getattr(self._whole, "shape", None)]
        else:
            shapes = [part.shape for part in self._parts(item)]
        if any(shape != (n_rows,) for shape in shapes):
            raise unreadable(path, f"{name} is not one value for each of its {n_rows:,} rows")
        if self._encoding == "categorical":
            categories = _read_whole(item["categories"], path)
            self._categories = pd.CategoricalDtype(categories, ordered=bool(item.attrs["ordered"]))

    def _parts(self, item: Any) -> list[Any]:
        """List the arrays that have a value for each row."""
        if self._encoding in MEMBERS:
            return [item[name] for name in MEMBERS[self._encoding]]
        return [item]

    def rows(self, item: Any, start: int, stop: int) -> pd.Series:
        """Read rows ``start`` to ``stop`` of the array or group."""
        import pandas as pd

        if self._encoding is None:
            return pd.Series(self._whole[start:stop])
        if self._encoding == "string-array" and isinstance(item, h5py.Dataset):
            return pd.Series(item.asstr()[start:stop])
        values, *mask = (part[start:stop] for part in self._parts(item))
        if self._categories is not None:
            return pd.Series(pd.Categorical.from_codes(values, dtype=self._categories))
        if not mask:
            return pd.Series(values)
        array = pd.arrays.IntegerArray if self._encoding == "nullable-integer" else pd.arrays.BooleanArray
        return pd.Series(array(np.asarray(values), mask=np.asarray(mask[0])))


def _read_whole(item: Any, path: str) -> Any:
    """Read all values of an item; plain arrays without anndata, which takes half a second to import."""
    encoding = text_attributes(item).get("encoding-type")
    if is_group(item) or encoding not in ARRAYS:
        return read_elem(item, path)
    check_backed(item, path)
    return item.asstr()[()] if encoding == "string-array" and isinstance(item, h5py.Dataset) else item[()]
