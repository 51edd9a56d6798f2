"""The labs of the end-to-end tests, for tests on other versions of Spark."""

from tests.e2e.conftest import make_lab

__all__ = ["make_lab"]
