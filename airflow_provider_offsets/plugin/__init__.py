"""The Airflow plugin of this provider, loaded through the entry point ``airflow.plugins``."""

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_offsets.timetables import AskedCronTimetable, AskedDeltaTimetable


class OffsetsPlugin(AirflowPlugin):
    """The timetables of the backfill DAGs, which Airflow's scheduler deserializes."""

    name = "offsets"
    timetables = [AskedCronTimetable, AskedDeltaTimetable]  # noqa: RUF012  # a list, as Airflow declares it
