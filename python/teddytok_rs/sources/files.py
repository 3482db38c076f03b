"""Hold the files of stored sources open: a few at a time, however many sources there are."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors.build import error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import h5py
    from numpy.typing import NDArray

    from .limits import StoredGroup

#: Maximum number of open files: fewer if the system allows the process fewer than eight times as many.
MAX_OPEN, MIN_OPEN, SHARE = 128, 4, 8

_lock = threading.RLock()


class Releasable(Protocol):
    """What closes its file as soon as no read of it is in progress."""

    def release(self) -> None:
        """Close it then."""
        ...


class RecentlyUsed:
    """The items that hold a file open, least recently used first. Code that drops an item closes its file."""

    def __init__(self) -> None:
        self.items: weakref.WeakValueDictionary[int, Releasable] = weakref.WeakValueDictionary()

    def use(self, item: Releasable) -> None:
        """Note that an item is used; release those that were not for longest, where there are too many."""
        with _lock:
            self.items.pop(id(item), None)
            self.items[id(item)] = item
            if len(self.items) > max_open():
                for oldest in list(self.items.values())[: -max_open()]:
                    oldest.release()

    def drop(self, item: Releasable) -> None:
        """Note that an item is closed."""
        with _lock:
            self.items.pop(id(item), None)


#: The files of sources that are open.
OPEN = RecentlyUsed()


class Closable(Protocol):
    """What can be closed."""

    def close(self) -> None:
        """Close it."""
        ...


@contextmanager
def closed_on_error(item: Closable) -> Iterator[None]:
    """Close something if the block raises: a traceback that is kept would keep it open."""
    try:
        yield
    except BaseException:
        item.close()
        raise


class StoredFile:
    """An HDF5 file that is opened when it is read; closed, it is opened again for the next read.

    Parameters
    ----------
    path
        Its path, for messages.
    open_file
        Opens it for reading.
    is_own
        Whether it is opened and closed here; False for a file that belongs to an AnnData of the user.
    """

    def __init__(self, path: str, open_file: Callable[[], h5py.File], *, is_own: bool = True) -> None:
        self.path, self._open_file, self.is_own = path, open_file, is_own
        self._place = os.path.abspath(path)  # noqa: PTH100 -- the current folder may be another one then
        self._opened: Opened | None = None
        self._state: tuple[int, ...] | None = None

    def opened(self) -> Opened:
        """Open it, unless it is open. It stays open for as long as what this returns is held.

        Raises
        ------
        SourceError
            If it is another file than when it was opened first.
        """
        with _lock:
            opened = self._opened
            # A forked process must not read through the file that its parent opened.
            if opened is None or opened.process != os.getpid():
                if self.is_own:
                    self._check_state()
                opened = self._opened = Opened(self._open_file())
            if self.is_own:
                OPEN.use(self)
            return opened

    def _check_state(self) -> None:
        now = os.stat(self._place)  # noqa: PTH116
        state = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
        if self._state not in {None, state}:
            raise error("source_changed", path=self.path)
        self._state = state

    def release(self) -> None:
        """Close it as soon as no read of it is in progress."""
        with _lock:
            self._opened = None
            OPEN.drop(self)

    def close(self) -> None:
        """Close the file at once, even if parts of it are in use."""
        with _lock:
            opened = self._opened
            self.release()
            if opened is not None and opened.process == os.getpid():
                opened.close(whole=self.is_own)


class Store:
    """A zarr store, of which nothing stays open."""

    def __init__(self, root: StoredGroup) -> None:
        self.root = root

    def opened(self) -> Store:
        """See `StoredFile`."""
        return self

    def release(self) -> None:
        """See `StoredFile`."""

    def close(self) -> None:
        """See `StoredFile`."""


class Opened:
    """An open HDF5 file.

    Attributes
    ----------
    root
        The file as h5py has it.
    process
        The process that opened it.
    """

    def __init__(self, root: h5py.File) -> None:
        self.root, self.process = root, os.getpid()
        self._handle: int | None = None
        self._close_handle: Callable[[], object] = lambda: None

    def handle(self) -> int:
        """Get a handle of the system to read bytes from."""
        with _lock:
            if self._handle is None:
                # Our own: if the file were closed, the number of HDF5's could come to mean another file.
                self._handle = os.dup(self.root.id.get_vfd_handle())
                self._close_handle = weakref.finalize(self, os.close, self._handle)
            return self._handle

    def close(self, *, whole: bool) -> None:
        """Close the handle; and the ``whole`` file, with all that was opened in it."""
        self._close_handle()
        if whole:
            self.root.close()


class FileArray:
    """An HDF5 dataset of which slices are read, each with the file open for as long as that takes."""

    def __init__(self, file: StoredFile, dataset: h5py.Dataset) -> None:
        self._file, self._name = file, dataset.name
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype[np.generic] = dataset.dtype

    def __getitem__(self, items: slice) -> NDArray[np.generic]:
        opened = self._file.opened()
        return np.asarray(opened.root[self._name][items])


def max_open() -> int:
    """Count the files that may be open at a time."""
    try:
        import resource
    except ImportError:  # Windows
        return MAX_OPEN
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_OPEN if allowed < 0 else min(max(allowed // SHARE, MIN_OPEN), MAX_OPEN)


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 -- a thread of the parent may have held it
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
