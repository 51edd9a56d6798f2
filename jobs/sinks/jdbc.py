"""Write the records of a topic to PostgreSQL: one transaction per batch, which also names the batch in ``batches``.

Spark's own JDBC writer cannot do that. It commits one transaction for each task, so a batch can be in the table in
part, a task that is tried again can add its rows twice, and no row of another table can be part of the transaction.
Here the driver copies the rows over one connection. A batch that is too large for one connection goes to a staging
table by Spark's writer, and from there to ``records`` in the same kind of transaction.

With ``--upsert``, a record that is in the table already replaces its row: topic, partition and offset are the key.
"""

import argparse

import psycopg
from pyspark.sql import DataFrame, SparkSession

from airflow_provider_offsets import TrackedStream

TABLES = """
CREATE TABLE IF NOT EXISTS records (topic text, partition integer, "offset" bigint, value text);
CREATE TABLE IF NOT EXISTS batches (batch_key text PRIMARY KEY, rows bigint NOT NULL);
"""
KEY = 'CREATE UNIQUE INDEX IF NOT EXISTS records_key ON records (topic, partition, "offset")'


def append(batch: DataFrame, batch_key: str, url: str) -> None:
    """Add the rows of one batch, unless the table has the batch already."""
    with psycopg.connect(url) as connection:
        new = "INSERT INTO batches VALUES (%s, 0) ON CONFLICT DO NOTHING"
        # A second writer of the same batch waits here until the first one has committed.
        if connection.execute(new, [batch_key]).rowcount == 0:
            return
        rows = copy(batch, "records", connection)
        connection.execute("UPDATE batches SET rows = %s WHERE batch_key = %s", [rows, batch_key])


def upsert(batch: DataFrame, batch_key: str, url: str) -> None:
    """Insert the rows of one batch, or replace those of the same records."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TEMPORARY TABLE part (LIKE records) ON COMMIT DROP")
        rows = copy(batch, "part", connection)
        connection.execute(
            "INSERT INTO records SELECT * FROM part ORDER BY 1, 2, 3"  # one order for all writers: no deadlock
            ' ON CONFLICT (topic, partition, "offset") DO UPDATE SET value = EXCLUDED.value'
        )
        noted = "INSERT INTO batches VALUES (%s, %s) ON CONFLICT (batch_key) DO UPDATE SET rows = EXCLUDED.rows"
        connection.execute(noted, [batch_key, rows])


def copy(batch: DataFrame, table: str, connection: psycopg.Connection) -> int:
    """Copy the rows of a batch to a table, and return their number."""
    with connection.cursor() as cursor:
        with cursor.copy(f'COPY {table} (topic, partition, "offset", value) FROM STDIN') as copied:
            for row in batch.toLocalIterator():
                copied.write_row(tuple(row))
        return cursor.rowcount


def main() -> None:
    """Run live until asked to stop, or replay a shard."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--url", required=True, help="without the password: libpq reads it from PGPASSWORD or ~/.pgpass"
    )
    options.add_argument("--upsert", action="store_true", help="replace the rows of records that are read again")
    chosen = options.parse_args()
    with psycopg.connect(chosen.url) as connection:
        connection.execute(TABLES)
        if chosen.upsert:
            connection.execute(KEY)

    spark = SparkSession.builder.getOrCreate()
    write = upsert if chosen.upsert else append
    with TrackedStream(spark) as stream:
        records = stream.read_kafka(maxOffsetsPerTrigger="20000")
        rows = records.selectExpr("topic", "partition", "offset", "CAST(value AS STRING) AS value")
        stream.run(
            rows,
            process=lambda batch, _: write(batch, stream.batch_key, chosen.url),
            processingTime="1 second",
        )
    spark.stop()


if __name__ == "__main__":
    main()
