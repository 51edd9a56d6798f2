"""Copy the records of a topic to another topic, with headers that name the source record and the batch.

Spark's Kafka writer has no transactions. So the output has a record twice after a batch that is tried again, and part
of a batch that was cut off. A consumer of the output removes duplicates by the headers: the position in the source is
the key.
"""

import argparse
import os

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as f

from airflow_provider_offsets import TrackedStream


def header(name: str, value: Column) -> Column:
    """Return one header, whose value is text."""
    return f.struct(f.lit(name).alias("key"), value.cast("string").cast("binary").alias("value"))


def write(batch: DataFrame, batch_key: str, bootstrap_servers: str, topic: str) -> None:
    """Write one batch to the output topic."""
    source = [header(f"source.{name}", f.col(name)) for name in ("topic", "partition", "offset")]
    headers = f.array(*source, header("offsets.batch", f.lit(batch_key)))
    records = batch.select("key", "value", headers.alias("headers"))
    writer = records.write.format("kafka").option("kafka.bootstrap.servers", bootstrap_servers)
    writer.option("topic", topic).save()


def main() -> None:
    """Run live until asked to stop, or replay a shard."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bootstrap-servers", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    options.add_argument("--output-topic", required=True)
    chosen = options.parse_args()

    spark = SparkSession.builder.getOrCreate()
    with TrackedStream(spark) as stream:
        records = stream.read_kafka(maxOffsetsPerTrigger="20000")
        stream.run(
            records,
            process=lambda batch, _: write(batch, stream.batch_key, chosen.bootstrap_servers, chosen.output_topic),
            processingTime="1 second",
        )
    spark.stop()


if __name__ == "__main__":
    main()
