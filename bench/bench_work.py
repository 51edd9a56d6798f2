"""The work that both programs do with each record: read its JSON and classify it."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as f


def work(records: DataFrame) -> DataFrame:
    """Return one row for each record."""
    flight = f.from_json(f.col("value").cast("string"), "flight INT, carrier STRING, dep_delay DOUBLE")
    late = records.select("topic", "partition", "offset", flight.alias("flight"))
    return late.withColumn("late", f.col("flight.dep_delay") > 15)
