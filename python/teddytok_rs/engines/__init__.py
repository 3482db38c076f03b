"""Write shards on the machines of a cluster: adapters to Dask, Ray and Spark.

::

    tokenize_corpus(..., executor=) --- run_shard, task --> engines.dask | ray | spark --> Future[Shard]

    Spark DataFrame, Ray Dataset --- Arrow batches of counts --> engines.arrow.ArrowTokenizer --> batches of tokens

Each gives a `concurrent.futures.Executor` and leaves scheduling, retries and dashboards to the engine. A shard's bytes
depend on its task alone, so one whose worker died is done again by another, to the same bytes.
"""
