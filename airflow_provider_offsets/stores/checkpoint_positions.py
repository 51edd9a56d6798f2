"""A checkpoint as a store of positions, so that it can be compared with others, copied from, and seeded."""

from __future__ import annotations

import hashlib
import uuid

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import CheckpointState
from airflow_provider_offsets.errors import CheckpointError
from airflow_provider_offsets.stores import rules
from airflow_provider_offsets.stores.checkpoint import open_checkpoint, read_query_id, seed
from airflow_provider_offsets.stores.swap import cut_off_swap, read_in_place, swap_in


class CheckpointPositions:
    """The committed position of the query whose checkpoint is at ``location``.

    A checkpoint belongs to one query and knows no consumer group: the stream's group is not looked at.
    """

    kind = "checkpoint"

    def __init__(self, location: str) -> None:
        self.location = location
        self._folder = open_checkpoint(location)

    def position(self, stream: Stream) -> Position | None:
        """Give where the query stands in the stream's topics: the end of the last batch that is in both logs.

        What is planned after it is in flight, and is read again when the query goes on.

        :raises CheckpointError: it cannot be read, or its exchange for another one was cut off.
        """
        stream = rules.check_stream(stream)
        return _within(read_in_place(self.location), stream)

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Seed a checkpoint that goes on at ``position``.

        Where there is none it is written with a new query id: for a query that reads nothing but one Kafka source.
        Where there is one, a seeded one takes its place, with the same query id, later batch ids, and its other topics
        and sources where they are; what was there is kept as ``<location>-before-<tag>``.

        The job has to be at rest, and nothing here sees whether it is: ``swap_in`` says what a driver then does.

        :raises CheckpointError: there is one already, and it holds state or is in an object store; or a write that was
            cut off there was of something else.
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
                seen=f"{self.location} belongs to a query that has not begun",
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
