"""Hold equal objects once, such as the gene tables of many sources."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Item = TypeVar("Item")


class SharedPool(Generic[Item]):
    """Gives one of equal objects, for as long as somebody holds it.

    Parameters
    ----------
    are_equal
        Compares two objects of one key.
    """

    def __init__(self, are_equal: Callable[[Item, Item], bool]) -> None:
        self._are_equal = are_equal
        self._kept: weakref.WeakValueDictionary[Hashable, Item] = weakref.WeakValueDictionary()

    def share(self, key: Hashable, item: Item) -> Item:
        """Get the object that is equal to this one, or keep this one; equal objects have equal keys."""
        kept = self._kept.get(key)
        if kept is not None and self._are_equal(kept, item):
            return kept
        self._kept[key] = item
        return item
