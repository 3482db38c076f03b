"""A Spark session in; an executor whose tasks it runs, or a frame of token sequences, out. Needs Java and pyspark."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

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

#: Jobs at a time, at least: a cluster that grows with what waits is small at first.
JOBS = 64
#: What Spark calls the types of tokens and values.
SPARK_TYPES = {"int32": "int", "int64": "bigint", "float": "float"}


def executor(session: SparkSession) -> Executor:
    """Make an executor whose every task is a Spark job of one task.

    Spark tries a task again that fails, or whose worker dies, as ``spark.task.maxFailures`` says; not where the data
    are at fault. (A session of ``local[N]`` tries once, one of ``local[N, 4]`` as often as a cluster.)

    Parameters
    ----------
    session
        A session of this process; Spark Connect has no such jobs. Its jobs inherit the caller's local properties, such
        as ``spark.scheduler.pool``.

    Returns
    -------
    The executor. Workers must have teddytok-rs installed, and see the sources, the vocabulary and the folder under the
    same paths.
    """
    return _SparkExecutor(session)


class _SparkExecutor(ThreadPoolExecutor):
    """Submits jobs from threads, each of which waits for one."""

    def __init__(self, session: SparkSession) -> None:
        self._context = session.sparkContext
        super().__init__(max(JOBS, 2 * self._context.defaultParallelism), thread_name_prefix="teddytok")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor`."""
        return super().submit(pyspark.inheritable_thread_target(self._run), fn, args, kwargs)

    def _run(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        is_local = self._context.master.startswith("local")

        def attempt(_: None) -> Any:
            try:
                return fn(*args, **kwargs)
            except TeddytokError as bad:
                # Raised, it would come back as Java's words. But a file system may recover.
                if isinstance(bad, OSError) and not is_local and not _attempt_number():
                    raise
                return bad

        # Not mapPartitions: a task that leaves its input unread ends its worker, and the next one imports all again.
        [result] = self._context.parallelize([None], 1).map(attempt).collect()
        if isinstance(result, TeddytokError):
            raise result
        return result


def _attempt_number() -> int:
    context = pyspark.TaskContext.get()
    return 0 if context is None else context.attemptNumber()


def tokenize_frame(frame: DataFrame, tokenizer: ArrowTokenizer) -> DataFrame:
    """Tokenize the rows of a frame, a cell each.

    Parameters
    ----------
    frame
        Its columns are as `ArrowTokenizer` takes them.
    tokenizer
        What to do.

    Returns
    -------
    A frame of ``gene_ids``, ``values`` and the columns that the tokenizer keeps.

    Raises
    ------
    ConfigError
        If the tokens are ``uint16``, a type that Spark does not have.
    """
    types = {field.name: str(field.type.value_type) for field in tokenizer.schema}
    if unknown := [name for name in types.values() if name not in SPARK_TYPES]:
        expected = "'int32' or 'int64' with Spark"
        raise error("config_value", where="", key="token_dtype", got=unknown[0], expected=expected)
    columns = [f"{name} array<{SPARK_TYPES[of]}>" for name, of in types.items()]
    columns += [f"`{name}` {frame.schema[name].dataType.simpleString()}" for name in tokenizer.keep]
    return frame.mapInArrow(tokenizer.map_in_arrow, ", ".join(columns))
