"""Installations of other versions of Spark, each with the Python of its driver, for ``tests/versions``.

An installation is a virtual environment with pyspark and the client of the SQLite store. The provider is not installed
in it: a job gets the provider's runtime with ``--py-files``, as on a cluster.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from stack import needs, venv
from stack.places import STATE


@dataclass(frozen=True)
class Spark:
    """A version of Spark, and the Kafka connector that its jobs are given.

    :ivar version: version of pyspark. :ivar connector: version of the connector. :ivar scala: version of Scala that
        pyspark has.
    """

    version: str
    connector: str
    scala: str = "2.13"

    @property
    def jars(self) -> str:
        """Name of the connector's jars in ``stack.maven``."""
        return f"spark-{self.version[:3]}"


SPARKS = {
    "3.5": Spark("3.5.7", "3.5.7", "2.12"),
    "4.0": Spark("4.0.1", "4.0.0"),
    "4.1": Spark("4.1.1", "4.1.1"),
    "4.2": Spark("4.2.0", "4.2.0"),
    "4.3": Spark("4.3.0", "4.2.0"),
}
OUR_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CLIENT = "SQLAlchemy>=2.0.40,<3"


@dataclass(frozen=True)
class Installation:
    """One version of Spark on one version of Python.

    :ivar spark: key of ``SPARKS``. :ivar python: version of Python, such as ``3.9``.
    """

    spark: str
    python: str = OUR_PYTHON

    @property
    def home(self) -> Path:
        """Folder of the virtual environment."""
        return STATE / f"spark-{self.spark}-python-{self.python}"

    @property
    def bin(self) -> Path:
        """Folder of ``spark-submit``, and of the Python that runs the driver."""
        return self.home / "bin"

    @property
    def is_current(self) -> bool:
        """Whether the virtual environment exists and was made from the current inputs."""
        return venv.is_made(self.home, self._inputs)

    def install(self) -> None:
        """Create the virtual environment; do nothing if its inputs are unchanged."""
        what = f"pyspark {SPARKS[self.spark].version} on Python {self.python}"
        venv.other(self.home, needs.python(self.python), self._inputs, self._commands, what)

    def _commands(self, python: Path) -> list[list[str]]:
        """Return the commands of the installation, without constraints.txt: its versions are of another Spark."""
        pip = [str(python), "-m", "pip", "install", "--progress-bar", "off"]
        return [[*pip, f"pyspark=={SPARKS[self.spark].version}", CLIENT]]

    @property
    def _inputs(self) -> str:
        return f"{SPARKS[self.spark].version} {self.python} {CLIENT}"
