"""What this provider adds to Airflow itself, loaded by the entry point ``airflow.plugins``."""

from airflow.plugins_manager import AirflowPlugin


class OffsetsPlugin(AirflowPlugin):
    """The place of the provider's pages and links; this release has none yet."""

    name = "offsets"
