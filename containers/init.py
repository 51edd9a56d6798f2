"""Create what Airflow needs before its start, unless it exists: Airflow's tables, the store's tables, the topic."""

import os
import subprocess
import sys

from confluent_kafka.admin import AdminClient

from demo import TOPIC
from demo.fresh import make_topic


def main() -> int:
    """Create what is missing and return the exit code."""
    store = [sys.executable, "-m", "airflow_provider_offsets.stores", "create", os.environ["OFFSETS_STORE_URL"]]
    for argv in (["airflow", "db", "migrate"], store):
        ended = subprocess.run(argv, check=False)
        if ended.returncode != 0:
            print(
                f"init: {argv[0]} ended with code {ended.returncode}. Expected code 0. Read its output above.",
                flush=True,
            )
            return 1
    admin = AdminClient({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]})
    if TOPIC not in admin.list_topics(timeout=60).topics:
        make_topic(admin)
        print(f"init: created topic {TOPIC}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
