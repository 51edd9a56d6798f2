"""A hand-written program that reads a range once more: ``by_hand.py <bootstrap> <topic> <starts> <ends>``."""

import json
import sys

from bench_work import work
from pyspark.sql import SparkSession

bootstrap, topic, starts, ends = sys.argv[1:]
spark = SparkSession.builder.getOrCreate()
partitions = sorted(map(int, json.loads(starts)[topic]))
records = (
    spark.read.format("kafka")
    .option("kafka.bootstrap.servers", bootstrap)
    .option("assign", json.dumps({topic: partitions}))
    .option("startingOffsets", starts)
    .option("endingOffsets", ends)
    .load()
)
work(records).write.format("noop").mode("overwrite").save()
spark.stop()
