"""A Spark program that writes by one of Spark's own sinks, and in a replay to a place of its own."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.readwriter import DataStreamWriter

from airflow_provider_offsets import OffsetRange, TrackedStream


def to_parquet(writer: DataStreamWriter) -> DataStreamWriter:
    return writer.format("parquet").option("path", "/data/orders")


def folder_of(run_id: str, ranges: tuple[OffsetRange, ...]) -> str:
    return f"/data/replays/{run_id}/" + "-".join(f"{each.partition}.{each.start}" for each in ranges)


def main() -> None:
    spark = SparkSession.builder.appName("orders").getOrCreate()
    with TrackedStream(spark) as stream:

        def write_replay(shard: DataFrame, batch_id: int) -> None:
            shard.write.mode("overwrite").parquet(folder_of(stream.run_id, stream.ranges))

        stream.run(stream.read_kafka(), sink=to_parquet, replay_sink=write_replay, processingTime="10 seconds")


if __name__ == "__main__":
    main()
