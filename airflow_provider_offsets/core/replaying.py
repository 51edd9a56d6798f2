"""What the driver of one shard is told, and what people are told of its progress."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from airflow_provider_offsets.core.replay import Shard

DIGEST_BITS = 62


@dataclass(frozen=True)
class ShardClaim:
    """What the launch of a shard asks its driver to claim.

    The driver claims the launch of ``tag``, which the record of the shard names. Of two drivers that a killed and
    retried task has launched, one is refused before it has read anything.
    """

    run_id: str
    shard: Shard
    number: int
    """Of the try, from 1."""
    tag: str
    """Random: tells this launch from every other one."""
    operation: str
    log: str
    """Path of the driver's log."""
    application_version: str = ""


@dataclass(frozen=True)
class ShardProgress:
    """How far a try is, by its driver's word. For people: nothing is decided by it."""

    beat: int
    records_read: int
    """At most what the shard has. Executors report every ten seconds, by Spark's defaults."""
    elapsed_ms: int


def replay_batch_id(run_id: str, shard: int) -> int:
    """Return the batch id of a shard: the same for every try, another one for another run or shard, and below 0, where
    no live batch has its id."""
    digest = hashlib.sha256(f"{run_id}#{shard}".encode()).digest()
    return -1 - (int.from_bytes(digest[:8], "big") >> (64 - DIGEST_BITS))


def progress_text(done: int, total: int, elapsed_ms: int) -> str:
    """Return how many records are done, at which rate, and how long the rest takes at that rate."""
    rate = done * 1000 / elapsed_ms if elapsed_ms else 0.0
    left = f", {(total - done) / rate:,.0f} s left" if rate else ""
    return f"{done:,} of {total:,} records, {rate:,.0f} a second{left}"
