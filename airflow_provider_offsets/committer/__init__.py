"""The output committer of tracked jobs, in Java. ``make committer`` builds ``committer.jar`` from the source beside it.

With it, two Spark applications that append to one folder do not touch each other's open files: see ``core.committer``.
"""

from __future__ import annotations

from pathlib import Path

SOURCE = Path(__file__).with_name("PrivateScratchCommitter.java")
JAR = Path(__file__).with_name("committer.jar")
