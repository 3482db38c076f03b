"""What tests of several folders share, and what only a whole run of the tests can show."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def interrupt_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Give a context manager in which a run must be interrupted after so many shards."""
    from teddytok_rs.output import run

    @contextmanager
    def interrupting(n_shards: int) -> Iterator[None]:
        write, shards = run.write_shard, itertools.count()

        def interrupt(*args: Any, **kwargs: Any) -> Any:
            if next(shards) >= n_shards:
                raise KeyboardInterrupt
            return write(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(run, "write_shard", interrupt)
            with pytest.raises(KeyboardInterrupt):
                yield

    return interrupting
