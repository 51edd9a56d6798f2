"""``delay_alerts`` with a shadow table: the output of a replay stays hidden until its audit has succeeded.

It keeps only late flights, so a replay may write fewer rows than it replaces; see ``shadow_table``.
"""

import argparse
from pathlib import Path

import shadow_table
from delay_alerts import classify
from pyspark.sql import SparkSession

from airflow_provider_offsets import TrackedStream


def main() -> None:
    """Run live until asked to stop, or replay a shard."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", type=Path, default=Path(__file__).parents[1] / ".stack/demo/shadow.db")
    output = options.parse_args().output
    output.parent.mkdir(parents=True, exist_ok=True)
    shadow_table.create(output)

    spark = SparkSession.builder.getOrCreate()
    with TrackedStream(spark) as stream:

        def write(batch, batch_id):
            rows = [tuple(row) for row in batch.collect()]
            if stream.is_replay:
                ranges = [(each.topic, each.partition, each.start, each.end) for each in stream.ranges]
                shadow_table.write_replay(output, stream.run_id, ranges, rows)
            else:
                shadow_table.write_live(output, rows)

        late = classify(stream.read_kafka(maxOffsetsPerTrigger="20000")).where("verdict IN ('late', 'very late')")
        stream.run(late, process=write, processingTime="1 second")
    spark.stop()


if __name__ == "__main__":
    main()
