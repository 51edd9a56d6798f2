"""Check of what Spark reads at a start besides the position, for a job that continues on its checkpoint.

A job that leaves its checkpoint needs only the position: see ``log.read_state``. Spark 4.2 is the strictest version of
those that were tried, and decides here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_provider_offsets.checkpoint.files import CheckpointFolder, LocalCheckpoint
from airflow_provider_offsets.checkpoint.log import (
    BATCH_ID,
    SHUFFLE_PARTITIONS,
    batch_ids,
    read_entry,
)
from airflow_provider_offsets.checkpoint.spark_text import batch_id_of
from airflow_provider_offsets.errors import CheckpointError


def require_start(folder: CheckpointFolder, *, may_have_gaps: bool) -> None:
    """Check that a query can start on a checkpoint that ``read_state`` has read, or that has no batch yet.

    :param folder: the checkpoint.
    :param may_have_gaps: whether the query may track its progress asynchronously, which no tracked job does.
    :raises CheckpointError: Spark would refuse the start.
    """
    for log in ("offsets", "commits"):
        _require_plain_names(folder, log)
    planned_ids, committed_ids = batch_ids(folder, "offsets"), batch_ids(folder, "commits")
    newest_ids, is_committed = planned_ids[-2:], set(planned_ids[-1:]) <= set(committed_ids)
    if not newest_ids:
        _require_empty(folder)
    elif not is_committed:
        _require_shuffle_partitions(folder, newest_ids)
    if not newest_ids or (not is_committed and len(newest_ids) == 1):
        _require_zero_byte(folder, [f"sources/{name}/0" for name in sorted(folder.names("sources"))])
    if not may_have_gaps:
        _require_consecutive(folder, newest_ids)
    if isinstance(folder, LocalCheckpoint):
        first_id = max(planned_ids, default=-1) + is_committed
        _require_no_left_checksums(folder, first_id if newest_ids else 0)


def _require_consecutive(folder: CheckpointFolder, newest_ids: Sequence[int]) -> None:
    if newest_ids and newest_ids[-1] - newest_ids[0] > 1:
        raise CheckpointError(
            seen=f"{folder.location} has offsets/{newest_ids[0]} and offsets/{newest_ids[1]}, and none between them",
            expected="consecutive entries, because a tracked job never tracks its progress asynchronously",
            do="name the start in a reprocess: the job then continues on a new checkpoint",
        )


def _require_plain_names(folder: CheckpointFolder, log: str) -> None:
    """Check that no name counts as the newest batch for Spark and not for anyone else, such as ``+7`` and ``07``."""
    newest_id = max(batch_ids(folder, log), default=-1)
    for name in sorted(folder.names(log)):
        batch_id = None if BATCH_ID.fullmatch(name) else batch_id_of(name)
        if batch_id is not None and batch_id > newest_id:
            raise CheckpointError(
                seen=f"{folder.location}/{log} holds {name!r}, which Spark takes for batch {batch_id}",
                expected=f"{log}/{batch_id}, because Spark then looks for that name and fails",
                do="give the file another name, or move it out of the folder",
            )


def _require_empty(folder: CheckpointFolder) -> None:
    """Check that nothing lies in the logs of a query that has planned no batch."""
    for name in ("offsets", "commits", "state"):
        hidden = re.compile(r"\..*\.crc", re.DOTALL)  # Hadoop lists no checksums of local files
        is_local = isinstance(folder, LocalCheckpoint)
        there = sorted(each for each in folder.names(name) if not (is_local and hidden.fullmatch(each)))
        if there:
            raise CheckpointError(
                seen=f"{folder.location}/{name} holds {there[0]!r}, and offsets holds no batch",
                expected="empty folders offsets, commits and state before the first batch; otherwise Spark 4.2 fails"
                " with STATE_STORE_CHECKPOINT_LOCATION_NOT_EMPTY",
                do=f"remove what is left in {name}, or restore the offsets",
            )


def _require_shuffle_partitions(folder: CheckpointFolder, newest_ids: Sequence[int]) -> None:
    """Check a setting that Spark 4.2 compares between a batch in flight and the batch before it.

    If they differ, the batch is a repartition of the state that has not finished
    (``OfflineStateRepartitionUtils.isRepartitionBatch``). The first run of Spark 4.2.0 on a new log of version 2 writes
    no such setting, and the next one then fails when it resumes a batch (tried).
    """
    found: list[tuple[int, int]] = []
    for batch_id in newest_ids:
        entry = read_entry(folder, batch_id)
        confs = {} if entry is None else dict(entry.metadata.get("conf") or {})
        if SHUFFLE_PARTITIONS in confs:
            found.append((batch_id, int(confs[SHUFFLE_PARTITIONS])))
        elif any(each.startswith("spark.sql.") for each in confs):
            raise CheckpointError(
                seen=f"{folder.location}/offsets/{batch_id} lacks {SHUFFLE_PARTITIONS} in its batch metadata, and batch"
                f" {newest_ids[-1]} is to be run again",
                expected="that setting, without which Spark 4.2 fails with 'None.get'. Spark 4.2.0 does not write it"
                " in the first run of a query with a log of version 2",
                do="stop the job between two batches. If it is stopped already, remove"
                f" offsets/{newest_ids[-1]}: Spark plans that batch again from the same start. Or name the start in a"
                " reprocess",
            )
    if len({partitions for _, partitions in found}) > 1:
        (before_id, before), (newest_id, newest) = found
        raise CheckpointError(
            seen=f"{folder.location}/offsets/{newest_id} has {SHUFFLE_PARTITIONS}={newest}, offsets/{before_id} has"
            f" {before}, and batch {newest_id} is not committed: a repartition of the state that has not finished",
            expected="a finished one; otherwise Spark fails with STREAMING_UNFINISHED_REPARTITION_DETECTED",
            do="run the repartition again until it returns, and then restart the job",
        )


def _require_zero_byte(folder: CheckpointFolder, paths: Sequence[str]) -> None:
    """Check that no initial offsets lack the byte that Spark skips: it would skip the ``v`` of the version instead."""
    for path in paths:
        text = folder.text(path)
        if text == "" or re.match(r'v1\n\s*\{\s*"[^"]*"\s*:\s*\{', text or ""):
            raise CheckpointError(
                seen=f"{folder.location}/{path} {'holds offsets of Kafka' if text else 'is empty'}, and does not begin"
                " with a zero byte",
                expected="the zero byte that Spark writes",
                do="restore the file",
            )


def _require_no_left_checksums(folder: CheckpointFolder, batch_id: int) -> None:
    """Check that Hadoop keeps no checksums of a file that the first batch is to write: it would overwrite nothing."""
    for log in ("offsets", "commits"):
        names = folder.names(log)
        if f".{batch_id}.crc" in names and str(batch_id) not in names:
            raise CheckpointError(
                seen=f"{folder.location}/{log} holds .{batch_id}.crc, and no {batch_id}",
                expected="no checksums of a file that Spark is to write next; otherwise the query dies of it, as if"
                " another one used the checkpoint",
                do=f"remove {log}/.{batch_id}.crc too if you have removed {log}/{batch_id}; or restore the file",
            )
