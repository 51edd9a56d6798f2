"""What the submit tells its driver.

It comes in a file with mode 0600 that the driver removes once it has read it; only the file's name and what people
like to see stand in the ``spark.offsets.*`` conf. Spark shows its conf to everybody who can open its Environment page,
and the values of ``--properties-file`` too (it redacts by name only); an argument list is seen by every user of the
machine, and ends at 128 KiB an argument, which a topic with ten thousand partitions would not fit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import Claim
from airflow_provider_offsets.core.pipeline import Subscription
from airflow_provider_offsets.core.replaying import ShardClaim
from airflow_provider_offsets.errors import InputRefused, ModeUnsupported

PREFIX = "spark.offsets."
FILE_KEY = f"{PREFIX}settings.file"
RUN_ID_KEY = f"{PREFIX}run_id"
"""Only in the conf of a replay."""


@dataclass(frozen=True)
class Secrets:
    """What must not be seen: never logged, never in a conf."""

    store_url: str
    kafka_options: dict[str, str] = field(default_factory=dict)
    """Options of Spark's Kafka source, ``kafka.bootstrap.servers`` among them."""

    def __repr__(self) -> str:
        return "Secrets(…)"


@dataclass(frozen=True)
class Settings:
    """What a driver needs to know of its pipeline, beside the claim of its launch."""

    pipeline: str
    subscription: Subscription
    claim: Claim
    secrets: Secrets
    heartbeat_interval_s: float = 2.0
    poll_interval_s: float = 0.5
    """How soon an idle query sees a stop request."""
    store_patience_s: float = 30.0
    """How long a store that does not answer is asked again before the query ends."""

    def conf(self, file: Path) -> dict[str, str]:
        """Return the Spark conf that leads to these settings in ``file``; nothing in it is secret."""
        return {
            FILE_KEY: str(file),
            f"{PREFIX}pipeline": self.pipeline,
            f"{PREFIX}epoch": str(self.claim.number),
            f"{PREFIX}operation": self.claim.operation,
        }

    def write(self, file: Path) -> None:
        """Write these settings to a new file that only this user can read."""
        _write(file, self)


@dataclass(frozen=True)
class ReplaySettings:
    """What a driver needs to know to replay one shard."""

    pipeline: str
    claim: ShardClaim
    secrets: Secrets
    heartbeat_interval_s: float = 2.0
    """How often it says how far it is, and looks whether it still has the word."""
    store_patience_s: float = 30.0

    def conf(self, file: Path) -> dict[str, str]:
        """Return the Spark conf that leads to these settings in ``file``; nothing in it is secret."""
        return {
            FILE_KEY: str(file),
            f"{PREFIX}pipeline": self.pipeline,
            f"{PREFIX}operation": self.claim.operation,
            RUN_ID_KEY: self.claim.run_id,
            f"{PREFIX}shard": str(self.claim.shard.number),
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
    """Return the settings that the conf of a classic Spark session leads to, and remove their file.

    :raises ModeUnsupported: the session is a Spark Connect client.
    :raises InputRefused: the driver was not started by a submit of this provider, or is started a second time.
    """
    if "connect" in type(spark).__module__.split("."):
        raise ModeUnsupported(
            seen="a Spark Connect session",
            expected="a classic session: the stop between batches and the offset log need the driver's own process",
            do="submit the program with spark-submit (no 'sc://' master, spark.api.mode=classic)",
        )
    conf = spark.sparkContext.getConf()
    file = conf.get(FILE_KEY)
    if file is None:
        raise InputRefused(
            seen=f"no {FILE_KEY} in the Spark conf",
            expected="the settings that a submit passes, with the epoch to claim",
            do="start the job with SubmitStreamingJobOperator; a tracked job started by hand could run twice",
        )
    if conf.get(RUN_ID_KEY) is None:
        return take_settings(Path(file), Settings)
    return take_settings(Path(file), ReplaySettings)


def take_settings(file: Path, kind: type[S]) -> S:
    """Return the settings of a file, and remove it.

    :raises InputRefused: it is not there.
    """
    try:
        text = file.read_text()
    except FileNotFoundError as error:
        raise InputRefused(
            seen=f"{file} is not there",
            expected="the file that the submit wrote for this launch; a driver removes it once it has read it",
            do="submit the job again; one submit starts one driver",
        ) from error
    file.unlink()
    return codec.loads(kind, text)
