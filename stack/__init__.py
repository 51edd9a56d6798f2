"""Real servers on this machine for the demo and the tests: Kafka, HBase, Airflow.

The package needs only a bare Python 3.11 for Linux and its standard library, because it creates the virtual
environment. ``python3 -m stack --help`` shows the commands. Programs call :func:`endpoints` for the servers' addresses,
and :func:`jars` for the jars of Spark's Kafka connector.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the one place that an older Python reaches, and it should say why
    sys.exit(
        f"stack    This is Python {sys.version.split()[0]}. Expected Python 3.11 or newer. Run it with python3.11."
    )

from stack.maven import jars
from stack.state import endpoints

__all__ = ["endpoints", "jars"]
