"""``delay_alerts`` with a bug, for ``make demo-backfill``: flights that left early count as late.

The program classifies a flight by the distance from its schedule, early or late.
"""

import delay_alerts
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

classify = delay_alerts.classify


def classify_wrongly(records: DataFrame) -> DataFrame:
    """Return the rows of ``classify``, with the bug."""
    off = f.abs("delay_minutes")
    verdict = f.when(off.isNull(), "cancelled").when(off < 15, "on time").when(off < 60, "late").otherwise("very late")
    return classify(records).withColumn("verdict", verdict)


if __name__ == "__main__":
    delay_alerts.classify = classify_wrongly
    delay_alerts.main()
