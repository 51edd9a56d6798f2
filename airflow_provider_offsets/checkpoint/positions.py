"""Checkpoint as a position store, so that it can be compared with others, copied from, and seeded."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_query_id
from airflow_provider_offsets.checkpoint.seed import seed
from airflow_provider_offsets.checkpoint.swap import (
    check_swap,
    cut_off_swap,
    discard_swap,
    finish_swap,
    read_in_place,
    swap_in,
)
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import UNSTARTED, CheckpointState
from airflow_provider_offsets.errors import CheckpointError, StateChanged
from airflow_provider_offsets.stores import rules


@dataclass(frozen=True)
class Swap:
    """Swap of a pipeline's checkpoint under the lease of an operation."""

    tag: str
    """Name of this swap alone."""
    require_lease: Callable[[], None]
    """Raises if the operation was superseded."""
    completed: Callable[[], tuple[str, int]]
    """Returns query id and greatest batch id to continue after if there is no checkpoint. A sink may drop records under
    a batch id that it knows."""


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

    def finish_swap(self) -> None:
        """Finish a swap that was interrupted between its two renames. The job must be stopped."""
        tag = cut_off_swap(self.location)
        if tag is not None:
            finish_swap(self.location, tag)

    def write(self, stream: Stream, position: Position, *, expected: Position | None, swap: Swap | None = None) -> None:
        """Seed a checkpoint that continues at ``position``.

        If there is no checkpoint, the seeded one gets a new query id, unless ``swap`` knows the old one. This works for
        a query with one Kafka source and no other. An existing checkpoint is replaced by one with the same query id and
        later batch ids. Its other topics and sources keep their offsets, and the old checkpoint is kept as
        ``<location>-before-<tag>``.

        The job must be stopped, which this method cannot check: see ``swap_in`` for what a running driver would do.

        :param stream: group and topics of the position.
        :param position: the offsets to write.
        :param expected: the position that must be stored now; None for no checkpoint.
        :param swap: for the checkpoint of a pipeline whose lease is held; None for one that no pipeline uses.
        :raises CheckpointError: the existing checkpoint holds state or is in an object store. Also if an interrupted
            write had another position.
        """
        stream = rules.check_stream(stream)
        rules.check_position(stream, position)
        tag = uuid.uuid4().hex[:12] if swap is None else swap.tag
        if swap is None:
            self.finish_swap()
        if read_query_id(self._folder) is None:
            if not rules.is_to_be_written(None, position, expected):
                return
            if swap is None:
                seed(self._folder, query_id=str(uuid.uuid4()), last_batch_id=UNSTARTED, start=position, like=None)
                return
            query_id, last_batch_id = swap.completed()
            start = position
        else:
            state = self._to_exchange(stream, position, expected)
            if state is None:
                return
            # The ids of an asynchronous checkpoint have gaps: a sink may know all of them up to the planned one.
            query_id, last_batch_id = state.query_id, max(state.committed_batch_id, state.last_batch_id - 1)
            start = state.committed.updated(position)
        try:
            swap_in(
                self.location,
                tag=tag,
                query_id=query_id,
                last_batch_id=last_batch_id,
                start=start,
                require_lease=_no_lease if swap is None else swap.require_lease,
            )
        except StateChanged:
            self._discard(tag, swap)
            raise

    def check_write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Raise what ``write`` would raise now. Nothing is written.

        :raises CheckpointError: as ``write``.
        """
        if read_query_id(self._folder) is None:
            return
        state = self._to_exchange(stream, position, expected)
        if state is not None:
            check_swap(self.location, state.committed.updated(position))

    def _to_exchange(self, stream: Stream, position: Position, expected: Position | None) -> CheckpointState | None:
        """Return the state of the checkpoint that is exchanged for a seeded one; None if it has the position.

        :raises CheckpointError: its query has not started.
        """
        state = read_in_place(self.location)
        if not rules.is_to_be_written(_within(state, stream), position, expected):
            return None
        if state is None:
            raise CheckpointError(
                seen=f"{self.location} belongs to a query that has not started",
                expected="the checkpoint of a query that has started, or no checkpoint",
                do="start the query once, or remove the folder",
            )
        return state

    def _discard(self, tag: str, swap: Swap | None) -> None:
        """Remove what a refused write has seeded, unless a later try of the same swap finishes it."""
        if swap is None and self._folder.moves:
            discard_swap(self.location, tag)


def _no_lease() -> None:
    """Require nothing: no pipeline uses the checkpoint, so it has no lease."""


def _within(state: CheckpointState | None, stream: Stream) -> Position | None:
    if state is None:
        return None
    found = Position((each, offset) for each, offset in state.committed.items() if each.topic in stream.topics)
    return found or None
