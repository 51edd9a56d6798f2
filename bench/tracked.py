"""The same work in a tracked program, whose range comes from a replay."""

from bench_work import work
from pyspark.sql import SparkSession

from airflow_provider_offsets import TrackedStream

spark = SparkSession.builder.getOrCreate()
with TrackedStream(spark) as stream:
    stream.run(
        work(stream.read_kafka()),
        process=lambda batch, batch_id: batch.write.format("noop").mode("overwrite").save(),
    )
spark.stop()
