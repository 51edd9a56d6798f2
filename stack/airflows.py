"""Installations of other versions of Airflow, each on a Python, for ``tests/versions``.

An installation is a virtual environment with the checkout, at the newest versions that its bounds allow or at the
lowest, and with what the unit tests need. It has no pyspark: these tests start no driver.
"""

from dataclasses import dataclass
from pathlib import Path

from stack import needs, venv
from stack.places import ROOT, STATE

AIRFLOWS = {"3.1": "3.1.8", "3.2": "3.2.2", "3.3": "3.3.2"}
CAPS = {"3.2": ("fastapi<0.137", "svcs<26")}
"""What a version of Airflow needs, and does not say. With a newer one of these, its own ``airflow dags test`` fails.

svcs 26 removes its registry when its lifespan ends, which Airflow 3.2 leaves to the garbage collector.
"""
TEST_TOOLS = (
    "greenlet>=3.1",
    "hypothesis>=6.100",
    "pyarrow>=17",
    "pytest>=8.3",
    "pytest-asyncio>=0.25",
    "pytest-randomly>=3.16",
    "pytest-xdist>=3.6",
)
EXTRAS = ("delta", "iceberg", "postgres", "s3")
"""Extras of the package that the unit tests need."""


@dataclass(frozen=True)
class Installation:
    """One version of Airflow on one version of Python.

    :ivar airflow: key of ``AIRFLOWS``. :ivar python: version of Python, such as ``3.12``. :ivar is_lowest: whether each
        dependency that setup.cfg names has the lowest version that it allows there, or else the newest.
    """

    airflow: str
    python: str
    is_lowest: bool = False

    @property
    def home(self) -> Path:
        """Folder of the virtual environment."""
        return STATE / f"airflow-{self.airflow}-python-{self.python}{'-lowest' if self.is_lowest else ''}"

    def install(self) -> None:
        """Create the virtual environment; do nothing if its inputs are unchanged."""
        inputs = "\n".join([*self._wanted, self.python, *EXTRAS, (ROOT / "setup.cfg").read_text(encoding="utf-8")])
        what = (
            f"Airflow {AIRFLOWS[self.airflow]} on Python {self.python}{', lowest versions' if self.is_lowest else ''}"
        )
        venv.other(self.home, needs.python(self.python), inputs, self._commands, what)

    def _commands(self, python: Path) -> list[list[str]]:
        """Return the commands of the installation. pip alone would look for fitting versions for many minutes."""
        uv = [str(python.with_name("uv")), "pip", "install", "--python", str(python)]
        extras = [word for extra in EXTRAS for word in ("--extra", extra)]
        lowest = ["--resolution", "lowest-direct"] if self.is_lowest else []
        return [
            [str(python), "-m", "pip", "install", "-q", "uv"],
            [*uv, *lowest, *self._wanted, "-r", str(ROOT / "setup.cfg"), *extras],
            [*uv, "--no-deps", "-e", str(ROOT)],
        ]

    @property
    def _wanted(self) -> list[str]:
        return [f"apache-airflow=={AIRFLOWS[self.airflow]}", *CAPS.get(self.airflow, ()), *TEST_TOOLS]
