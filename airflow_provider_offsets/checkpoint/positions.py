"""Checkpoint as a position store, so that it can be compared with others, copied from, and seeded."""

from __future__ import annotations

import hashlib
import uuid

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_query_id
from airflow_provider_offsets.checkpoint.seed import seed
from airflow_provider_offsets.checkpoint.swap import cut_off_swap, read_in_place, swap_in
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import CheckpointState
from airflow_provider_offsets.errors import CheckpointError
from airflow_provider_offsets.stores import rules


class CheckpointPositions:
    """Committed position of the query whose checkpoint is at ``location``.

    A checkpoint belongs to one query and has no consumer group: the stream's group is ignored.
    """

    kind = "checkpoint"

    def __init__(self, location: str) -> None:
        self.location = location
        self._folder = open_checkpoint(location)

    def position(self, stream: Stream) -> Position | None:
        """Return the query's position in the stream's topics: the end of the last committed batch.

        A planned batch after it is in flight, and is replayed when the query continues.

        :raises CheckpointError: the checkpoint cannot be read, or swapping it for another one was interrupted.
        """
        stream = rules.check_stream(stream)
        return _within(read_in_place(self.location), stream)

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Seed a checkpoint that continues at ``position``.

        If there is no checkpoint, the seeded one gets a new query id. This works for a query with one Kafka source and
        no other. An existing checkpoint is replaced by one with the same query id and later batch ids. Its other topics
        and sources keep their offsets, and the old checkpoint is kept as ``<location>-before-<tag>``.

        The job must be stopped, which this method cannot check: see ``swap_in`` for what a running driver would do.

        :param position: the offsets to write.
        :param expected: the position that must be stored now; None for no checkpoint.
        :raises CheckpointError: the existing checkpoint holds state or is in an object store. Also if an interrupted
            write had another position.
        """
        stream = rules.check_stream(stream)
        rules.check_position(stream, position)
        tag = cut_off_swap(self.location)
        if tag is not None:
            open_checkpoint(f"{self.location.rstrip('/')}-seeded-{tag}").move_to(self.location)
        if read_query_id(self._folder) is None:
            if rules.is_to_be_written(None, position, expected):
                seed(self._folder, query_id=str(uuid.uuid4()), last_batch_id=-1, start=position, like=None)
            return
        state = read_in_place(self.location)
        if not rules.is_to_be_written(_within(state, stream), position, expected):
            return
        if state is None:
            raise CheckpointError(
                seen=f"{self.location} belongs to a query that has not started",
                expected="a checkpoint that says where its query stands, or none",
                do="start the query once, or remove the folder",
            )
        start = state.committed.updated(position)
        asked = f"{state.query_id} {state.committed_batch_id} {start.to_json()}"
        swap_in(
            self.location,
            tag=hashlib.sha256(asked.encode()).hexdigest()[:12],
            query_id=state.query_id,
            last_batch_id=state.committed_batch_id,
            start=start,
        )


def _within(state: CheckpointState | None, stream: Stream) -> Position | None:
    if state is None:
        return None
    found = Position((each, offset) for each, offset in state.committed.items() if each.topic in stream.topics)
    return found or None
