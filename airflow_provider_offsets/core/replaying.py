"""What the drivers of one shard and its task agree on: frozen values, one control cell each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from airflow_provider_offsets.core.epoch import EndedHow, ProcessIdentity
from airflow_provider_offsets.core.replay import Shard

DIGEST_BITS = 62


@dataclass(frozen=True)
class ShardClaim:
    """What the launch of a shard asks its driver to claim.

    The driver claims try ``number`` of its shard by creating the cell of that number, which succeeds once: of two
    drivers that a killed and retried task has launched one ends before it has read anything.
    """

    run_id: str
    shard: Shard
    number: int
    """From 1; one more than the newest try that was there at the launch."""
    operation: str
    launch: str
    log: str
    """The path of the driver's log."""
    application_version: str = ""


@dataclass(frozen=True)
class ShardTry:
    """A claimed try: the claim, and who holds it."""

    claim: ShardClaim
    holder: ProcessIdentity
    """The leader of the driver's session: spark-submit, its JVM and its Python program are all in there."""
    claimed_at_ms: int


@dataclass(frozen=True)
class ShardProgress:
    """How far a try is, as its driver says it. For people: nothing is decided by it."""

    beat: int
    records_read: int
    """At most what the shard has. Executors report every ten seconds, by Spark's defaults."""
    elapsed_ms: int


@dataclass(frozen=True)
class ShardEnded:
    """The end of a try. Its cell is created once, by the driver or by whoever ended it or saw it gone; a driver that
    finds it there records nothing."""

    how: EndedHow
    at_ms: int
    message: str = ""
    retriable: bool = True
    """Whether the same program may succeed the next time: False for what the runtime refused."""


def replay_batch_id(run_id: str, shard: int) -> int:
    """Give the batch id of a shard: the same for every try, another one for another run or shard, and below 0, where
    no live batch has its id."""
    digest = hashlib.sha256(f"{run_id}#{shard}".encode()).digest()
    return -1 - (int.from_bytes(digest[:8], "big") >> (64 - DIGEST_BITS))


def progress_text(done: int, total: int, elapsed_ms: int) -> str:
    """Say how many records are done, at which rate, and how long the rest takes at that rate."""
    rate = done * 1000 / elapsed_ms if elapsed_ms else 0.0
    left = f", {(total - done) / rate:,.0f} s left" if rate else ""
    return f"{done:,} of {total:,} records, {rate:,.0f} a second{left}"
