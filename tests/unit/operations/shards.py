"""What tasks and drivers do with a shard, for tests of something else."""

from __future__ import annotations

from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core.epoch import ProcessIdentity
from airflow_provider_offsets.core.replay.model import Shard
from airflow_provider_offsets.core.replay.shard import (
    ClaimShard,
    LaunchShard,
    RecordShard,
    ShardRead,
    StartShard,
    digest_of_ranges,
)
from airflow_provider_offsets.runtime.write_count import UNKNOWN, Rows

DRIVER = ProcessIdentity("worker-1", "boot-1", 100, 7)


def replay_shard(
    control: ReplayControl, run_id: str, shard: Shard, read: int | None = None, rows: Rows = UNKNOWN
) -> None:
    """Make a driver replay a shard.

    :param read: how many records it has read; all of them if None.
    :param rows: the rows that Spark says it wrote.
    """
    tag = f"{run_id}/{shard.number}"
    read = shard.record_count if read is None else read
    done = ShardRead(read, rows_written=rows.count, is_empty=rows.saw_none)
    for event in (
        LaunchShard(tag, digest_of_ranges(shard.ranges), "version", "/logs/driver.log"),
        ClaimShard(tag, DRIVER),
        StartShard(tag, DRIVER, "run"),
        RecordShard(tag, DRIVER, "run", done),
    ):
        control.change_shard(run_id, shard.number, event)
