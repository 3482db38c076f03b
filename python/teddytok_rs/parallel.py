"""Run a function in threads and yield the results in order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    window: int,
    capacity: Callable[[Result | None], int] | None = None,
) -> Generator[Result]:
    """Call a function for each item in threads, and yield the results in the order of the items.

    An error is raised in place of its result, so the first error is the same for any number of threads. When the
    iteration ends, for whatever reason, calls that have not started are cancelled and all threads are joined.

    Parameters
    ----------
    work
        Function of one item. Several threads call it at the same time.
    items
        Iterated in the caller's thread, only when there is room for another result.
    threads
        Number of threads in addition to the caller's. With 0, each call runs in the caller's thread when its result is
        requested, so that the process can be forked.
    window
        Maximum number of items that are submitted and whose results have not been yielded.
    capacity
        Function that returns how many results may be held, given the last result (None before the first). ``window``
        remains the upper limit.

    Yields
    ------
    The results, in the order of ``items``.
    """
    if not threads:
        yield from map(function, items)
        return

    def max_pending(last: Result | None) -> int:
        return window if capacity is None else min(window, max(capacity(last), 1))

    waiting: deque[Future[Result]] = deque()
    limit = max_pending(None)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="teddytok")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            while len(waiting) >= limit:
                result = waiting.popleft().result()
                limit = max_pending(result)
                yield result
                del result  # frees its memory before the next result is requested
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
