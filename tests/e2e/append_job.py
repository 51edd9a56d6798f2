"""A Spark program that appends to a folder: ``append_job.py <home> <name> <writes>``.

Each write has two tasks of 50 rows. One ends at once. The other one opens its file, and waits for the file
``<name>-<write>.go``; it fails if ``<name>-<write>.fail`` exists. A write that has ended leaves ``<name>-<write>.ok``
or ``.failed``.
"""

import sys
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

HOME, NAME, WRITES = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
DEADLINE_S = 600


def gate(name):
    """Return a function of a row id that waits in the first row."""

    def passed(number):
        if number == 0:
            (HOME / f"{name}.open").touch()
            deadline = time.monotonic() + DEADLINE_S
            while not (HOME / f"{name}.go").exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            if (HOME / f"{name}.fail").exists():
                raise ValueError("asked to fail")
        return number

    return f.udf(passed, "long")


def main() -> None:
    """Append the rows of each write."""
    spark = SparkSession.builder.getOrCreate()
    for name in (f"{NAME}-{number}" for number in range(WRITES)):
        rows = spark.range(0, 100, 1, 2).select(gate(name)("id").alias("id"), f.lit(name).alias("write"))
        try:
            rows.write.mode("append").parquet(str(HOME / "out"))
        except Exception as error:
            print(error)
            (HOME / f"{name}.failed").touch()
        else:
            (HOME / f"{name}.ok").touch()
    spark.stop()


main()
