"""A Spark program that writes each batch by a function of its own."""

from pyspark.sql import DataFrame, SparkSession

from airflow_provider_offsets import Fenced, TrackedStream


def write(batch: DataFrame, batch_id: int) -> None:
    batch.write.mode("overwrite").parquet(f"/data/orders/batch={batch_id}")


def main() -> None:
    spark = SparkSession.builder.appName("orders").getOrCreate()
    try:
        with TrackedStream(spark) as stream:
            orders = stream.read_kafka(maxOffsetsPerTrigger="20000").selectExpr("CAST(value AS STRING) AS value")
            stream.run(orders, process=write, processingTime="1 second")
    except Fenced as error:
        print(f"Another driver is active: {error.seen}. {error.do}")
        raise


if __name__ == "__main__":
    main()
