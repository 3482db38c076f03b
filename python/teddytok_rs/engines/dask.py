"""Run tasks on a Dask cluster, as an executor. Needs ``pip install 'teddytok-rs[dask]'``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors.build import error

try:
    from distributed import Client
except ModuleNotFoundError:
    raise error("engine_extra", engine="Dask", extra="dask") from None

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

__all__ = ["executor"]


@contextmanager
def executor(address: Any = None, *, retries: int = 3, **options: Any) -> Iterator[Executor]:
    """Connect to a Dask cluster for as long as the block lasts.

    Parameters
    ----------
    address
        Of the scheduler, or a cluster object such as those of ``dask-jobqueue``; a ``LocalCluster`` of this machine's
        cores if not given.
    retries
        How often a task that fails is tried again. Whether a worker dies more often than it may is for the scheduler's
        ``allowed-failures`` to say.
    options
        For `distributed.Client`, and where no address is given for its ``LocalCluster``.

    Yields
    ------
    What `distributed.Client.get_executor` gives. Workers must have teddytok-rs installed, and see the sources, the
    vocabulary and the folder under the same paths.

    Raises
    ------
    ConfigError
        If the cluster cannot be reached.
    """
    try:
        connected = Client(address, **options)
    except (OSError, ValueError) as bad:
        raise error("engine_unreachable", engine="Dask", address=address, reason=bad) from bad
    with (
        connected as client,
        # Not pure: a shard that was lost is written again, whatever Dask remembers of its task.
        client.get_executor(pure=False, retries=retries) as pool,
    ):
        yield pool
