"""All programs of ``jobs/sinks`` in one driver: ``all_sinks.py <programs>``, a JSON list of ``[program, *arguments]``.

For each batch, each program runs from its beginning to its end. Its session is that of the driver, and its stream has
the batch as its records. So one story on Spark tests all of them.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

from pyspark.sql import SparkSession

from airflow_provider_offsets import TrackedStream

PROGRAMS = json.loads(sys.argv[1])
spark = SparkSession.builder.getOrCreate()


class StreamOfOneBatch:
    """What a program uses of ``TrackedStream``, for one batch of the driver's stream."""

    def __init__(self, stream, batch, batch_id):
        self._stream, self._batch, self._batch_id = stream, batch, batch_id

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def read_kafka(self, **options):
        """Return the records of the batch."""
        return self._batch

    def run(self, frame, *, process, **trigger):
        """Process the batch."""
        process(frame, self._batch_id)


class SharedSession:
    """The session of the driver, which no program stops."""

    def __getattr__(self, name):
        return getattr(spark, name)

    def stop(self):
        """Do nothing."""


def loaded(program):
    """Return the module of a program."""
    spec = importlib.util.spec_from_file_location(f"sink_{Path(program).stem}", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


modules = [loaded(program) for program, *_ in PROGRAMS]
with TrackedStream(spark) as stream:

    def process(batch, batch_id):
        """Run each program for the batch."""
        for module, argv in zip(modules, PROGRAMS, strict=True):
            sys.argv = argv
            module.SparkSession = SimpleNamespace(builder=SimpleNamespace(getOrCreate=SharedSession))
            module.TrackedStream = lambda _: StreamOfOneBatch(stream, batch, batch_id)
            module.main()

    stream.run(stream.read_kafka(maxOffsetsPerTrigger="20000"), process=process, processingTime="200 milliseconds")
spark.stop()
