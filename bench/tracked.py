"""The same work by a program that runs live, and that a replay gives the range to."""

from bench_work import work
from pyspark.sql import SparkSession

from airflow_provider_offsets.runtime import TrackedStream

spark = SparkSession.builder.getOrCreate()
with TrackedStream(spark) as stream:
    stream.run(
        work(stream.read_kafka()),
        process=lambda batch, batch_id: batch.write.format("noop").mode("overwrite").save(),
    )
spark.stop()
