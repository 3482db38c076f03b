"""Run tasks in a Spark session, as an executor, and tokenize Spark frames. Needs Java and pyspark."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pyarrow as pa

from ..errors import TeddytokError
from ..errors.build import error

try:
    import pyspark
except ModuleNotFoundError:
    raise error("engine_extra", engine="Spark", extra="spark") from None

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame, SparkSession

    from .arrow import ArrowTokenizer

__all__ = ["executor", "tokenize_frame"]

P = ParamSpec("P")
T = TypeVar("T")

#: Minimum number of concurrent jobs: a cluster that scales with its queue is small at first.
JOBS = 64
#: Arrow type of tokens and values -> Spark's name of it.
SPARK_TYPES = {"int32": "int", "int64": "bigint", "float": "float"}


def executor(session: SparkSession) -> Executor:
    """Make an executor that runs each task as a Spark job with one task.

    Spark retries a task that failed or whose worker died, as often as ``spark.task.maxFailures`` allows. Errors of the
    data are not retried. (A session of ``local[N]`` tries once, one of ``local[N, 4]`` as often as a cluster.)

    Parameters
    ----------
    session
        A session of this process; Spark Connect is not supported. The jobs inherit the caller's local properties, such
        as ``spark.scheduler.pool``.

    Returns
    -------
    The executor. Workers must have teddytok-rs installed, and see the sources, the vocabulary and the output folder
    under the same paths.
    """
    return _SparkExecutor(session)


class _SparkExecutor(ThreadPoolExecutor):
    """Submit Spark jobs from threads. Each thread waits for one job."""

    def __init__(self, session: SparkSession) -> None:
        self._context = session.sparkContext
        super().__init__(max(JOBS, 2 * self._context.defaultParallelism), thread_name_prefix="teddytok")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a call as a Spark job, see `Executor`."""
        return super().submit(pyspark.inheritable_thread_target(self._run), fn, args, kwargs)

    def _run(self, fn: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object]) -> T:
        is_local = self._context.master.startswith("local")

        def attempt(_: None) -> T | TeddytokError:
            try:
                return fn(*args, **kwargs)
            except TeddytokError as exc:
                # Return it, as Spark converts a raised error into a Java error. Raise an OSError once, as a file system
                # may recover and Spark then retries the task.
                if isinstance(exc, OSError) and not is_local and not _attempt_number():
                    raise
                return exc

        # Not mapPartitions: a task that does not read its input ends its worker, and the next one imports all again.
        results: list[T | TeddytokError] = self._context.parallelize([None], 1).map(attempt).collect()
        [result] = results
        if isinstance(result, TeddytokError):
            raise result
        return result


def _attempt_number() -> int:
    context = pyspark.TaskContext.get()
    return 0 if context is None else context.attemptNumber()


def tokenize_frame(frame: DataFrame, tokenizer: ArrowTokenizer) -> DataFrame:
    """Tokenize the rows of a frame; each row is a cell.

    Parameters
    ----------
    frame
        A frame with the columns that `ArrowTokenizer` expects.
    tokenizer
        The tokenizer to apply.

    Returns
    -------
    A frame with the columns of the tokenizer's ``schema``, and those that it keeps.

    Raises
    ------
    ConfigError
        If the tokens are ``uint16``, which is not a type of Spark.
    """
    columns = [f"{field.name} {_spark_type(field.type)}" for field in tokenizer.schema]
    columns += [f"`{name}` {frame.schema[name].dataType.simpleString()}" for name in tokenizer.keep]
    return frame.mapInArrow(tokenizer.map_in_arrow, ", ".join(columns))


def _spark_type(kind: pa.DataType) -> str:
    if isinstance(kind, pa.ListType):
        return f"array<{_spark_type(kind.value_type)}>"
    if str(kind) not in SPARK_TYPES:
        expected = "'int32' or 'int64' with Spark"
        raise error("config_value", where="", key="token_dtype", got=str(kind), expected=expected)
    return SPARK_TYPES[str(kind)]
