"""Resolve the number of threads and the memory that a run may use."""

from __future__ import annotations

import multiprocessing
import operator
import os
from dataclasses import dataclass

from ..errors.build import error

#: Default number of bytes of matrix and tokens per thread: large enough that no thread waits for another, and small
#: compared with the memory per core of usual machines.
CHUNK_BYTES = 128 * 2**20
#: Maximum number of threads per core: more only use memory.
THREADS_PER_CORE = 4


@dataclass(frozen=True)
class Resources:
    """Limits of what a run uses in one process.

    Attributes
    ----------
    threads
        Number of threads that make record batches.
    chunk_bytes
        Bytes of matrix and tokens in memory at a time, of all threads together.
    """

    threads: int
    chunk_bytes: int

    @classmethod
    def resolve(cls, threads: int | None, chunk_bytes: int | None) -> Resources:
        """Validate the number of threads and the chunk size, or choose them where they are None.

        Raises
        ------
        ConfigError
            If one of them is not an integer of at least 1.
        """
        chosen = {
            "threads": default_threads() if threads is None else threads,
            "chunk_bytes": CHUNK_BYTES if chunk_bytes is None else chunk_bytes,
        }
        for key, number in chosen.items():
            if not hasattr(number, "__index__") or isinstance(number, bool) or number < 1:
                raise error("config_value", where="", key=key, got=number, expected="an integer of at least 1")
        n_threads = min(operator.index(chosen["threads"]), THREADS_PER_CORE * (os.cpu_count() or 1))
        n_bytes = operator.index(chosen["chunk_bytes"])
        return cls(n_threads, n_bytes * n_threads if chunk_bytes is None else n_bytes)

    @property
    def bytes_per_thread(self) -> int:
        """Bytes of matrix and tokens in memory at a time per thread."""
        return self.chunk_bytes // self.threads


def default_threads() -> int:
    """Return the number of cores that this process may use; 1 in a worker process, which shares them with others."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
