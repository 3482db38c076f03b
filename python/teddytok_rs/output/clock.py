"""A run's plan in, the same plan out, with a clock on what its threads do: read, tokenize, write."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .. import _core
    from ..pipeline.plan import Plan
    from ..sources.protocol import Source

Item = TypeVar("Item")


@dataclass
class Clock:
    """Seconds that a run took. A stage has the sum over all threads: it may be more than the run took on the whole.

    Attributes
    ----------
    reading, tokenizing, writing
        Seconds in which threads read and unpacked rows, were in the kernel, and wrote and synced shards.
    seconds
        From the first record batch asked for to the last shard synced.
    cells, threads
        Cells that were tokenized meanwhile, and the threads that were used.
    """

    reading: float = 0.0
    tokenizing: float = 0.0
    writing: float = 0.0
    seconds: float = 0.0
    cells: int = 0
    threads: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, stage: str, seconds: float) -> None:
        """Add to a stage, from any thread."""
        with self._lock:
            setattr(self, stage, getattr(self, stage) + seconds)

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Give a function that does the same, and adds the time it takes to a stage."""

        def work_and_tell(*words: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*words, **named)
            finally:
                self.add(stage, time.perf_counter() - began)

        return work_and_tell

    def waited_for(self, items: Generator[Item]) -> Generator[Item]:
        """Give the same items. The time that they take is not the writer's, who waits for them."""
        try:
            while True:
                began = time.perf_counter()
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    self.add("writing", began - time.perf_counter())
                yield item
                del item  # or it would be in memory beside the next one
        finally:
            items.close()

    def watch(self, ready: Plan) -> Plan:
        """Give the same plan, whose reading and kernel add to this clock."""
        kernel = SimpleNamespace(
            tokenize_csr=self.timed("tokenizing", ready.kernel.tokenize_csr),
            tokenize_dense=self.timed("tokenizing", ready.kernel.tokenize_dense),
        )
        source = cast("Source", _Watched(ready.source, self.timed("reading", ready.source.read)))
        return replace(ready, source=source, kernel=cast("_core.Kernel", kernel))

    def to_dict(self) -> dict[str, Any]:
        """Give what was measured; nothing (an empty dict) where no cell was tokenized here."""
        measured = ("reading", "tokenizing", "writing", "seconds", "cells", "threads")
        return {name: getattr(self, name) for name in measured} if self.cells else {}


class _Watched:
    """A source, but for one method."""

    def __init__(self, source: Source, read: Callable[..., Any]) -> None:
        self._source, self.read = source, read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
