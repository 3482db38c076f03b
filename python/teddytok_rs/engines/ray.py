"""Run tasks on a Ray cluster, as an executor. Needs ``pip install 'teddytok-rs[ray]'``."""

from __future__ import annotations

from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..errors.build import error

try:
    import ray
except ModuleNotFoundError:
    raise error("engine_extra", engine="Ray", extra="ray") from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["executor"]

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def executor(address: str | None = None, *, retries: int = 3, **options: object) -> Iterator[Executor]:
    """Connect to a Ray cluster for the ``with`` block, or use the one to which this process is connected.

    Parameters
    ----------
    address
        Address for `ray.init`, such as ``"auto"`` or ``"ray://head:10001"``. By default, the cluster to which this
        process is connected, otherwise a new one with the cores of this machine.
    retries
        Number of times that a task is retried if its worker or node died, or it could not read or write a file.
    options
        Passed to `ray.init`.

    Yields
    ------
    An executor whose tasks use one CPU each. Workers must have teddytok-rs installed, and see the sources, the
    vocabulary and the output folder under the same paths.

    Raises
    ------
    ConfigError
        If the cluster cannot be reached.
    """
    started_here = address is not None or not ray.is_initialized()
    if started_here:
        try:
            ray.init(address, **options)
        except (ConnectionError, ValueError) as exc:
            raise error("engine_unreachable", engine="Ray", address=address, reason=exc) from None
    try:
        with _RayExecutor(retries) as pool:
            yield pool
    finally:
        if started_here:
            ray.shutdown()


class _RayExecutor(Executor):
    """Submit tasks to the Ray cluster to which this process is connected."""

    def __init__(self, retries: int) -> None:
        # An error of the data is permanent; an error of the file system may not be.
        self._call = ray.remote(max_retries=retries, retry_exceptions=[OSError])(_call)
        self._futures: set[Future[Any]] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a call as a Ray task, see `Executor`."""
        ref = self._call.options(name=getattr(fn, "__name__", "task")).remote(fn, args, kwargs)
        future: Future[T] = Future()
        self._futures.add(future)

        def ended(future: Future[T]) -> None:
            self._futures.discard(future)
            if future.cancelled():
                ray.cancel(ref)

        future.add_done_callback(ended)
        ref.future().add_done_callback(lambda done: _copy_result(done, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 -- as Executor has it
        """Wait for the tasks or cancel them, see `Executor`."""
        left = list(self._futures)
        if cancel_futures:
            for future in left:
                future.cancel()
        if wait:
            _wait(left)


_wait = wait  # `Executor.shutdown` has an argument of this name


def _call(fn: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object]) -> T:
    return fn(*args, **kwargs)


def _copy_result(done: Future[T], future: Future[T]) -> None:
    """Copy the result of Ray's future, or the error that the task raised, to the caller's future."""
    if not future.set_running_or_notify_cancel():
        return
    exc = done.exception()
    if exc is None:
        future.set_result(done.result())
    else:
        future.set_exception(getattr(exc, "cause", None) or exc)
