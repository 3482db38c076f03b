"""Run work in threads and give the results in order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    window: int,
    room: Callable[[Result | None], int] | None = None,
) -> Generator[Result]:
    """Do a piece of work for each item; give the results in the order of the items.

    An error is raised where its result would stand, so the first one is the same for any number of threads. However
    the iteration ends, work that has not begun is cancelled, and no thread outlives it.

    Parameters
    ----------
    work
        What is done, by several threads at once.
    items
        Asked for in the caller's thread, no sooner than there is room for their results.
    threads
        Threads in addition to the caller's. With 0 there are none (so that a process may fork meanwhile), and all
        work is done in the caller's, when its result is asked for.
    window
        Items that are worked on, or whose results wait to be asked for, at most.
    room
        How many results there may be in the window, but for its bound, going by the last one (None before the first).
    """
    if not threads:
        yield from map(work, items)
        return

    def fitting(last: Result | None) -> int:
        return window if room is None else min(window, max(room(last), 1))

    waiting: deque[Future[Result]] = deque()
    most = fitting(None)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="teddytok")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            while len(waiting) >= most:
                result = waiting.popleft().result()
                most = fitting(result)
                yield result
                del result  # or it would be in memory next to the next one
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
