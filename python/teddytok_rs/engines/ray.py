"""Run tasks on a Ray cluster, as an executor. Needs ``pip install 'teddytok-rs[ray]'``."""

from __future__ import annotations

from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors.build import error

try:
    import ray
except ModuleNotFoundError:
    raise error("engine_extra", engine="Ray", extra="ray") from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["executor"]


@contextmanager
def executor(address: str | None = None, *, retries: int = 3, **options: Any) -> Iterator[Executor]:
    """Connect to a Ray cluster for as long as the block lasts, or use the one this process is connected to.

    Parameters
    ----------
    address
        As `ray.init` takes it: ``"auto"``, ``"ray://head:10001"``; a cluster of this machine's cores if not given.
    retries
        How often a task is tried again whose worker or node died, or that could not read or write a file.
    options
        For `ray.init`.

    Yields
    ------
    An executor, each of whose tasks takes one CPU. Workers must have teddytok-rs installed, and see the sources, the
    vocabulary and the folder under the same paths.

    Raises
    ------
    ConfigError
        If the cluster cannot be reached.
    """
    begun = address is not None or not ray.is_initialized()
    if begun:
        try:
            ray.init(address, **options)
        except (ConnectionError, ValueError) as bad:
            raise error("engine_unreachable", engine="Ray", address=address, reason=bad) from bad
    try:
        with _RayExecutor(retries) as pool:
            yield pool
    finally:
        if begun:
            ray.shutdown()


class _RayExecutor(Executor):
    """Submits tasks to the cluster that this process is connected to."""

    def __init__(self, retries: int) -> None:
        # What is wrong with the data stays wrong; a file system may recover.
        self._call = ray.remote(max_retries=retries, retry_exceptions=[OSError])(_call)
        self._futures: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor`."""
        ref = self._call.options(name=getattr(fn, "__name__", "task")).remote(fn, args, kwargs)
        future: Future[Any] = Future()
        self._futures.add(future)

        def ended(future: Future[Any]) -> None:
            self._futures.discard(future)
            if future.cancelled():
                ray.cancel(ref)

        future.add_done_callback(ended)
        ref.future().add_done_callback(lambda done: _hand_over(done, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 -- as Executor has it
        """See `Executor`."""
        left = list(self._futures)
        if cancel_futures:
            for future in left:
                future.cancel()
        if wait:
            _wait(left)


_wait = wait  # `Executor.shutdown` calls an argument so


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


def _hand_over(done: Future[Any], future: Future[Any]) -> None:
    """Give what became of Ray's future to the caller's, which can be cancelled, with the error that the task raised."""
    if not future.set_running_or_notify_cancel():
        return
    bad = done.exception()
    if bad is None:
        future.set_result(done.result())
    else:
        future.set_exception(getattr(bad, "cause", None) or bad)
