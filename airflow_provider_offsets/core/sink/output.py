"""Output of the program, of one batch or one replayed shard: its key, and the options of Spark's writer that carry it.

Tried on Spark 4.1.1 with Delta 4.1.0 and Iceberg 1.11.0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from airflow_provider_offsets.core.batch import Batch, digest_of
from airflow_provider_offsets.core.replay.model import Shard
from airflow_provider_offsets.core.replay.shard import digest_of_ranges
from airflow_provider_offsets.core.sink.key import BatchKey
from airflow_provider_offsets.core.sink.ledger import KEY_PROPERTY
from airflow_provider_offsets.errors import InputRefused


@dataclass(frozen=True)
class Output:
    """Output of one batch of the live job, or of one shard of a replay."""

    key: BatchKey
    is_replay: bool = False

    def write_options(self, format_name: str) -> dict[str, str]:
        """Return the options of Spark's writer that put the key into the metadata of a table.

        Delta skips a write whose ``txnVersion`` is not above the last one that the table has of that ``txnAppId``. So
        the application is the query, whose batch ids only increase, also after the pipeline was renamed. Each shard of
        a replay is an application of its own with one version, because the shards are written in any order.

        :param format_name: format of the table, as Spark's ``DataFrameWriter.format`` has it, in any case.
        :raises InputRefused: the format has no such options.
        """
        key = self.key
        if format_name.lower() == "delta":
            return {
                "txnAppId": f"{key.query_id}/{key.batch_id}" if self.is_replay else key.query_id,
                "txnVersion": "0" if self.is_replay else str(key.batch_id),
                "userMetadata": json.dumps({KEY_PROPERTY: str(key)}),
            }
        if format_name.lower() == "iceberg":
            return {f"snapshot-property.{KEY_PROPERTY}": str(key)}
        raise InputRefused(
            seen=f"write_options was asked for the format {format_name!r}",
            expected="'delta' or 'iceberg', whose metadata can name a batch",
            do="write stream.batch_key with the rows into a table of your own, or write rows by topic, partition and"
            " offset",
        )


def output_of_batch(pipeline: str, batch: Batch) -> Output:
    """Return the output of a batch of the live job.

    :param pipeline: name of the pipeline.
    :param batch: the batch, as the checkpoint's log has it.
    """
    return Output(BatchKey(pipeline, batch.query_id or "", batch.batch_id or 0, digest_of(batch)))


def output_of_shard(pipeline: str, run_id: str, shard: Shard) -> Output:
    """Return the output of a shard of a replay. It stays the same when the shard is retried.

    :param pipeline: name of the pipeline.
    :param run_id: id of the attempt that the shard belongs to.
    :param shard: the shard.
    """
    return Output(BatchKey(pipeline, run_id, shard.number, digest_of_ranges(shard.ranges)), is_replay=True)


def no_output(instead: str) -> InputRefused:
    """Return the error of a program that asks for the key of its batch while no batch runs.

    :param instead: what to do, for people.
    """
    return InputRefused(
        seen="batch_key or write_options was used while no function of the program runs for a batch",
        expected="a call inside the function that run() was given",
        do=instead,
    )
