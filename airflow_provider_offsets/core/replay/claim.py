"""Claim of one shard's driver, and its progress for people."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from airflow_provider_offsets.core.replay.model import Shard

DIGEST_BITS = 62


@dataclass(frozen=True)
class ShardClaim:
    """Claim that the launch of a shard passes to its driver.

    The driver claims the launch of ``tag``, which the record of the shard names. If a task was killed and retried, it
    may have launched two drivers: one of them is refused before it reads anything.
    """

    run_id: str
    shard: Shard
    number: int
    """Number of the attempt, from 1."""
    tag: str
    """Random: identifies this launch."""
    operation: str
    log: str
    """Path of the driver's log."""
    application_version: str = ""
    scratch: str = ""
    """Name of this try as an owner of scratch folders, see ``core.committer``; empty if the job's conf chooses another
    committer."""


@dataclass(frozen=True)
class ShardProgress:
    """Progress of an attempt, as its driver reported it. For people: no decision depends on it."""

    beat: int
    records_read: int
    """At most the number of records in the shard. Executors report every ten seconds, by Spark's defaults."""
    elapsed_ms: int


def replay_batch_id(run_id: str, shard: int) -> int:
    """Return the batch id of a shard: equal for every attempt, different for other runs and shards.

    The id is below 0, so it never equals the id of a live batch.

    :param run_id: id of the attempt.
    :param shard: number of the shard, from 0 up.
    """
    digest = hashlib.sha256(f"{run_id}#{shard}".encode()).digest()
    return -1 - (int.from_bytes(digest[:8], "big") >> (64 - DIGEST_BITS))


def progress_text(done: int, total: int, elapsed_ms: int) -> str:
    """Return a text with the number of finished records, the rate, and the remaining time at that rate.

    :param done: number of finished records.
    :param total: number of all records.
    :param elapsed_ms: time since the start.
    """
    rate = done * 1000 / elapsed_ms if elapsed_ms else 0.0
    left = f", {(total - done) / rate:,.0f} s left" if rate else ""
    return f"{done:,} of {total:,} records, {rate:,.0f} a second{left}"
