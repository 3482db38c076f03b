"""Write shards on the machines of a cluster: adapters to Dask, Ray and Spark.

::

    tokenize_corpus(..., executor=) --- run_shard, task --> engines.dask | ray | spark --> Future[Shard]

    Spark DataFrame, Ray Dataset --- Arrow batches of counts --> engines.arrow.ArrowTokenizer --> batches of tokens

Each adapter is a `concurrent.futures.Executor`. Scheduling, retries and dashboards are those of the engine. The bytes
of a shard depend on its task only, so if a worker dies, another worker writes the same shard again.
"""
