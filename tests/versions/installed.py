"""Versions of Spark as parameters of a test, and their installations."""

from __future__ import annotations

import os
from typing import Any

import pytest

from stack import maven
from stack.sparks import SPARKS, Installation
from tests.versions.matrix import NEWEST


def with_marks(*pairs: tuple[str, str]) -> list[Any]:
    """Return versions of Spark and Python as parameters, with the mark of those that need an installation."""
    return [pytest.param(*pair, marks=[pytest.mark.installation] if pair != NEWEST else []) for pair in pairs]


def require(spark: str, python: str) -> Installation:
    """Return the installation of another Spark than that of .venv; skip the test without it, and fail in CI.

    :param spark: key of ``SPARKS``.
    :param python: version of the driver's Python.
    """
    installed = Installation(spark, python)
    if not (installed.is_current and maven.is_current(SPARKS[spark].jars)):
        words = f"missing or outdated: python3 -m stack spark {spark} --python {python}"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    return installed
