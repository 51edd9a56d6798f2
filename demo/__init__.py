"""The demo: a real Spark job loses nothing through two real maintenances, and an independent check proves it.

``make demo`` runs the demo on real servers with 336,776 real flights. :mod:`demo.story` has the steps in order.
:mod:`demo.check` is the proof, which shares no code with the package that it judges.
"""

TOPIC = "flights"
PIPELINE = "delay_alerts"
PIPELINES = (PIPELINE, "archive_flights")
"""All pipelines of ``dags/pipelines.yaml``. The demo does not start the second one, which reads the same topic."""
DAG_ID = f"maintenance__{PIPELINE}"
PARTITIONS_BEFORE = 3
PARTITIONS_AFTER = 5
