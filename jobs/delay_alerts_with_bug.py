"""``delay_alerts`` as somebody shipped it by mistake, for ``make demo-backfill``: who left early counts as late.

It classifies by how far a departure is from its schedule, whichever way.
"""

import delay_alerts
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

classify = delay_alerts.classify


def classify_wrongly(records: DataFrame) -> DataFrame:
    """Give what ``classify`` gives, with the bug."""
    off = f.abs("delay_minutes")
    verdict = f.when(off.isNull(), "cancelled").when(off < 15, "on time").when(off < 60, "late").otherwise("very late")
    return classify(records).withColumn("verdict", verdict)


if __name__ == "__main__":
    delay_alerts.classify = classify_wrongly
    delay_alerts.main()
