"""A program with a mistake that people make: each write to its Delta table has the same application id."""

import sys

from pyspark.sql import SparkSession

from airflow_provider_offsets import TrackedStream


def main() -> None:
    """Run until asked to stop. A replay is not written, because Delta refuses its batch id, which is below 0."""
    spark = SparkSession.builder.getOrCreate()
    with TrackedStream(spark) as stream:

        def write(batch, batch_id):
            options = {"txnAppId": "orders", "txnVersion": str(batch_id)}
            if not stream.is_replay:
                batch.write.format("delta").options(**options).mode("append").save(sys.argv[1])

        rows = stream.read_kafka().selectExpr("topic", "partition", "offset", "CAST(value AS STRING) AS value")
        stream.run(rows, process=write)
    spark.stop()
