"""Settings that a submit passes to its driver.

The settings are in a file with mode 0600, which the driver removes after reading it. The ``spark.offsets.*`` conf holds
only the file's name and values that are useful to people:

- Everyone who can open Spark's Environment page sees the conf, including the values of ``--properties-file``. Spark
  redacts values by their key only.
- Every user of the machine sees a command line. An argument is limited to 128 KiB, which is too small for a topic with
  ten thousand partitions.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.committer import committer_conf
from airflow_provider_offsets.core.epoch import Claim
from airflow_provider_offsets.core.pipeline import Subscription
from airflow_provider_offsets.core.replay.claim import ShardClaim
from airflow_provider_offsets.errors import InputRefused, ModeUnsupported

PREFIX = "spark.offsets."
FILE_KEY = f"{PREFIX}settings.file"
RUN_ID_KEY = f"{PREFIX}run_id"
"""Set only in the conf of a replay."""


@dataclass(frozen=True)
class Secrets:
    """Values that must stay hidden: never logged, never in a conf."""

    store_url: str
    kafka_options: dict[str, str] = field(default_factory=dict)
    """Options of Spark's Kafka source, including ``kafka.bootstrap.servers``."""

    def __repr__(self) -> str:
        return "Secrets(…)"


@dataclass(frozen=True)
class Settings:
    """Settings of the driver of a live job, including the claim of its launch."""

    pipeline: str
    subscription: Subscription
    claim: Claim
    secrets: Secrets
    heartbeat_interval_s: float = 2.0
    poll_interval_s: float = 0.5
    """Seconds between two checks for a stop request while the query is idle."""
    store_retry_timeout_s: float = 30.0
    """Seconds for which an unreachable store is retried before the query ends."""

    def conf(self, file: Path) -> dict[str, str]:
        """Return the Spark conf that points to these settings in ``file``. The conf contains no secret."""
        return {
            FILE_KEY: str(file),
            f"{PREFIX}pipeline": self.pipeline,
            f"{PREFIX}epoch": str(self.claim.number),
            f"{PREFIX}operation": self.claim.operation,
            **committer_conf(self.claim.scratch),
        }

    def write(self, file: Path) -> None:
        """Write these settings to a new file that only this user can read."""
        _write(file, self)


@dataclass(frozen=True)
class ReplaySettings:
    """Settings of the driver that replays one shard."""

    pipeline: str
    claim: ShardClaim
    secrets: Secrets
    heartbeat_interval_s: float = 2.0
    """Seconds between two reports of progress; each report also checks whether the try was fenced."""
    store_retry_timeout_s: float = 30.0

    def conf(self, file: Path) -> dict[str, str]:
        """Return the Spark conf that points to these settings in ``file``. The conf contains no secret."""
        return {
            FILE_KEY: str(file),
            f"{PREFIX}pipeline": self.pipeline,
            f"{PREFIX}operation": self.claim.operation,
            RUN_ID_KEY: self.claim.run_id,
            f"{PREFIX}shard": str(self.claim.shard.number),
            **committer_conf(self.claim.scratch),
        }

    def write(self, file: Path) -> None:
        """Write these settings to a new file that only this user can read."""
        _write(file, self)


S = TypeVar("S", Settings, ReplaySettings)


def _write(file: Path, settings: Settings | ReplaySettings) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as opened:
        opened.write(codec.dumps(settings))


def read_settings(spark: Any) -> Settings | ReplaySettings:
    """Return the settings that the conf of a classic Spark session points to, and remove their file.

    :raises ModeUnsupported: the session is a Spark Connect client.
    :raises InputRefused: this provider did not submit the driver, or the driver is started a second time.
    """
    if "connect" in type(spark).__module__.split("."):
        raise ModeUnsupported(
            seen="the session is a Spark Connect session",
            expected="a classic session, because a stop between batches and the offset log need the driver's process",
            do="submit the program with spark-submit (no 'sc://' master, spark.api.mode=classic)",
        )
    conf = spark.sparkContext.getConf()
    file = conf.get(FILE_KEY)
    if file is None:
        raise InputRefused(
            seen=f"{FILE_KEY} is not in the Spark conf",
            expected="the settings that a submit passes, with the epoch to claim",
            do="start the job with SubmitStreamingJobOperator; a tracked job started by hand could run twice",
        )
    if conf.get(RUN_ID_KEY) is None:
        return take_settings(Path(file), Settings)
    return take_settings(Path(file), ReplaySettings)


def take_settings(file: Path, kind: type[S]) -> S:
    """Return the settings in a file, and remove the file.

    :param file: path of the file.
    :param kind: class of the settings.
    :raises InputRefused: the file does not exist.
    """
    try:
        text = file.read_text()
    except FileNotFoundError as error:
        raise InputRefused(
            seen=f"{file} does not exist",
            expected="the file that the submit wrote for this launch, which a driver removes after reading it",
            do="submit the job again, because one submit starts one driver",
        ) from error
    file.unlink()
    return codec.loads(kind, text)
