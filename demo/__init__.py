"""The demo: a real Spark job loses nothing through two real maintenances, and an independent check proves it.

``make demo`` runs it on real servers with 336,776 real flights. :mod:`demo.story` is what happens, in order;
:mod:`demo.check` is the proof, which shares no code with the package that it judges.
"""

TOPIC = "flights"
PIPELINE = "delay_alerts"
PIPELINES = (PIPELINE, "archive_flights")
"""All of ``dags/pipelines.yaml``; the second one is not started by the demo, and reads the same topic."""
DAG_ID = f"maintenance__{PIPELINE}"
PARTITIONS_BEFORE = 3
PARTITIONS_AFTER = 5
