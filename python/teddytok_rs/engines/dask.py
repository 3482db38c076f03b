"""Run tasks on a Dask cluster, as an executor. Needs ``pip install 'teddytok-rs[dask]'``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors.build import error

try:
    from distributed import Client
except ModuleNotFoundError:
    raise error("engine_extra", engine="Dask", extra="dask") from None

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from distributed.deploy import Cluster

__all__ = ["executor"]


@contextmanager
def executor(address: str | Cluster | None = None, *, retries: int = 3, **options: object) -> Iterator[Executor]:
    """Connect to a Dask cluster for the ``with`` block.

    Parameters
    ----------
    address
        Address of the scheduler, or a cluster object such as those of ``dask-jobqueue``. By default, a ``LocalCluster``
        with the cores of this machine.
    retries
        Number of times that a failed task is retried. The scheduler's ``allowed-failures`` limits how often a task's
        worker may die.
    options
        Passed to `distributed.Client`, and by it to its ``LocalCluster`` if ``address`` is None.

    Yields
    ------
    The executor of `distributed.Client.get_executor`. Workers must have teddytok-rs installed, and see the sources, the
    vocabulary and the output folder under the same paths.

    Raises
    ------
    ConfigError
        If the cluster cannot be reached.
    """
    try:
        connected = Client(address, **options)
    except (OSError, ValueError) as exc:
        raise error("engine_unreachable", engine="Dask", address=address, reason=exc) from None
    with (
        connected as client,
        # Not pure: a lost shard is written again, even if Dask still has the result of its task.
        client.get_executor(pure=False, retries=retries) as pool,
    ):
        yield pool
