"""A query that writes to one of Spark's own sinks: consecutive runs of one batch each, on one checkpoint and session.

A query without ``foreachBatch`` has no point between two batches where it could be fenced, stopped or recorded. So each
run is one batch: started, waited for, stopped, and only then recorded from the checkpoint log.

A trigger whose next time never comes limits a run to one batch. Spark runs the first trigger at once, with the limits
of the source, and then waits. The other two bounded triggers take the same time (measured on Spark 4.2.0) but do not
fit. ``availableNow`` runs *all* batches up to the end offsets at its start, unfenced and unrecorded. ``once`` runs one
batch but ignores ``maxOffsetsPerTrigger``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from airflow_provider_offsets import clock
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.errors import Fenced, InputRefused, OffsetsError, StateChanged, StopRequested
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.runtime.write_count import Rows

log = logging.getLogger(__name__)

ONE_TRIGGER = "1000000 days"
"""Spark aligns trigger intervals to multiples of their length since 1970: the second trigger is in the year 4707."""

TRIGGER_IS_OVER = "Waiting for next trigger"
POLL_S = 0.02
"""Seconds between two checks of a running batch."""
LONGEST_PAUSE_S = 5.0
"""Longest pause between two runs that found nothing to read, in seconds."""

SinkOf = Callable[[Any], Any]

DECIDED_HERE = {
    "trigger": "give processingTime= to run()",
    "queryName": "the query has the pipeline's name",
    "foreachBatch": "give the function to run() as process=",
    "start": "return the writer; the runtime starts it",
    "toTable": "return writer.format(...).option(...); the runtime starts it",
}
CHECKPOINT_OPTION = "checkpointlocation"


class SinkWriter:
    """A ``DataStreamWriter`` as passed to the ``sink`` function, without the methods and options that the runtime sets.

    :raises InputRefused: the runtime sets this method or option; the message names it.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        if name in DECIDED_HERE:
            raise _refused(f"{name}()", DECIDED_HERE[name])
        found = getattr(self._writer, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **settings: Any) -> Any:
            named = [*settings, *arguments[:1]] if name in ("option", "options") else list(settings)
            if any(str(each).lower() == CHECKPOINT_OPTION for each in named):
                raise _refused("option('checkpointLocation')", "name the checkpoint in the pipeline, as job.checkpoint")
            if "queryName" in settings:
                raise _refused("queryName", DECIDED_HERE["queryName"])
            given = found(*arguments, **settings)
            return SinkWriter(given) if type(given) is type(self._writer) else given

        return call


def _refused(what: str, way: str) -> InputRefused:
    return InputRefused(
        seen=f"the sink function calls {what}",
        expected="only format, options, partitioning and output mode, because the runtime does the rest",
        do=way,
    )


def writer_of(sink: SinkOf, frame: Any) -> Any:
    """Return the writer of ``frame`` as the user's ``sink`` function configured it.

    :param sink: the user's function, which configures a writer and returns it.
    :param frame: the streaming frame to write.
    :raises InputRefused: the function sets what the runtime sets, or does not return the writer.
    """
    made = sink(SinkWriter(frame.writeStream))
    if not isinstance(made, SinkWriter):
        raise InputRefused(
            seen=f"the sink function returned {made!r}",
            expected="the writer that it received, with format and options",
            do="return the writer: sink=lambda writer: writer.format(...).option(...)",
        )
    return made._writer


def pause_of(trigger: dict[str, Any], interval_ms: Callable[[str], int]) -> float | None:
    """Return the requested seconds between the starts of two batches, or None if no trigger was passed.

    :param trigger: trigger arguments of ``run``.
    :param interval_ms: converts Spark's text of an interval to milliseconds.
    :raises InputRefused: a trigger other than ``processingTime``.
    """
    if refused := [f"{name}={value!r}" for name, value in trigger.items() if name != "processingTime"]:
        raise InputRefused(
            seen=f"run(sink=...) was given {', '.join(refused)}",
            expected="processingTime or no trigger, because each batch under a native sink is a run of its own",
            do="omit the trigger, and stop the job with StopStreamingJobOperator",
        )
    return interval_ms(trigger["processingTime"]) / 1000 if trigger else None


def _reported_rows(query: Any) -> dict[int, Rows]:
    """Return the rows that the sink says it wrote in the last batch, by the id of that batch.

    Spark's file sinks report -1: they do not count.
    """
    try:
        progress = query.lastProgress
        rows = -1 if progress is None else progress["sink"]["numOutputRows"]
        return {} if rows < 0 else {progress["batchId"]: Rows(rows, saw_none=not rows)}
    except Exception as error:  # a count never breaks a batch
        log.warning("The rows that the sink wrote are not counted: %s", error)
        return {}


class NativeSinkQuery:
    """A sequence of one-batch runs that lasts until the job is asked to stop, is fenced, or fails.

    :param epoch: the claimed epoch under which the batches run.
    :param interval_s: seconds from the start of one batch to the start of the next. None: the next run starts at once
        while there is something to read. Otherwise it starts after a pause that grows from ``poll_interval_s`` to 5 s.
        The pause saves log space: even an empty run leaves a hundred log lines of Spark and Kafka.
    """

    def __init__(self, epoch: HeldEpoch, interval_s: float | None = None) -> None:
        self._epoch = epoch
        self._interval_s = interval_s
        self._next_id = 0
        self._may_be_planned = True
        self._is_at_filler = False
        self._idle_runs = 0
        self._next_beat = 0.0
        self._rows: dict[int, Rows] = {}

    def run(self, writer: Any) -> None:
        """Run batches until the job ends, or until the program itself stops the query.

        The program may do so in the middle of a batch. That batch stays started in the record, and counts as cut off
        unless Spark has committed it.

        :param writer: has its sink and its checkpoint configured.
        :raises Fenced: this driver no longer holds the epoch, or the checkpoint was closed.
        :raises StateChanged: another job writes to the checkpoint.
        """
        self._find_next()
        is_stopped = False
        try:
            while not is_stopped:
                began_s = clock.monotonic_s()
                self._begin_next()
                was_stopped_by_program = self._run_once(writer.trigger(processingTime=ONE_TRIGGER))
                has_committed = self._record_committed()
                if was_stopped_by_program:
                    return
                if has_committed:
                    self._idle_runs = 0
                else:
                    self._idle_runs += 1
                    self._epoch.idle()
                is_stopped = self._pause(self._pause_s(clock.monotonic_s() - began_s))
        except StopRequested:
            is_stopped = True
        self._epoch.ending = EndedHow.STOPPED

    def _find_next(self) -> None:
        state = read_state(self._epoch.log.files)
        if state is not None:
            planned = state.planned_batch_id
            self._next_id = state.committed_batch_id + 1 if planned is None else planned
        batch = self._planned()
        if batch is not None and not self._is_filler(batch) and self._epoch.is_finished(batch):
            raise InputRefused(
                seen=f"batch {batch.batch_id} is recorded by process= and not committed by Spark, which would write it"
                " to the sink again",
                expected="a job that was stopped, not killed, before it changes from process= to sink=",
                do="start and stop the job once more with process=, which skips that batch",
            )

    def _planned(self) -> Batch | None:
        return self._epoch.log.batch(self._next_id, epoch=self._epoch.number, after=self._epoch.last)

    def _is_filler(self, planned: Batch) -> bool:
        return self._epoch.last is None and self._epoch.log.is_filler(planned)

    def _begin_next(self) -> None:
        """Start the next batch in the record before Spark can start it, with its offsets if Spark has planned it.

        Only the first run may find a planned batch, one that was interrupted. A planned batch in a later run is another
        job's. A checkpoint without the last batch was removed or replaced.
        """
        planned = self._planned()
        if planned is None and (closer := self._epoch.log.closed_by(self._next_id)) is not None:
            raise Fenced(
                seen=f"{self._epoch.log.files.location} was closed by {closer!r}",
                expected="an open checkpoint",
                do="No action needed: the job continues from another checkpoint, under a newer epoch.",
            )
        if planned is None and not self._may_be_planned:
            self._epoch.require_own_log()
        elif planned is not None and not self._may_be_planned:
            raise StateChanged(
                seen=f"{self._epoch.log.files.location}/offsets/{self._next_id} exists, and this driver did not plan"
                " that batch",
                expected="a checkpoint that only this job writes",
                do="find out which other job runs on this checkpoint, and stop it; then plan again",
            )
        self._may_be_planned = False
        self._is_at_filler = planned is not None and self._is_filler(planned)
        if self._is_at_filler:
            # Spark runs the batch after it instead, if a superseded driver commits the filler before Spark looks.
            self._epoch.begin_unplanned(self._next_id + 1)
        elif planned is None:
            self._epoch.begin_unplanned(self._next_id)
        else:
            self._epoch.begin(planned)

    def _run_once(self, writer: Any) -> bool:
        """Run one trigger, and return whether the query ended before this method stopped it: the program stopped it.

        The query is stopped only after the trigger, even on a failure: no batch is interrupted.
        """
        query = writer.start()
        failure: OffsetsError | None = None
        has_ended = False
        try:
            while not (has_ended := bool(query.awaitTermination(POLL_S))) and not self._is_trigger_over(query):
                try:
                    self._beat()
                except OffsetsError as error:
                    failure = failure or error
        finally:
            query.stop()
        self._rows = _reported_rows(query)
        if failure is not None:
            raise failure
        return has_ended

    @staticmethod
    def _is_trigger_over(query: Any) -> bool:
        return bool(query.status["message"] == TRIGGER_IS_OVER)

    def _record_committed(self) -> bool:
        """Record the batch that the run committed; return whether the run committed one.

        The run of a filler may have committed the batch after the filler as well.
        """
        if not self._epoch.log.is_committed(self._next_id):
            return False
        batch = self._planned()
        assert batch is not None, "Spark plans a batch before it commits it"
        if self._is_at_filler:
            self._epoch.last = batch
            self._next_id += 1
            self._is_at_filler = False
            self._record_committed()
            return True
        last = self._epoch.record_committed(batch, self._rows)
        self._next_id = (last.batch_id or 0) + 1
        return True

    def _pause_s(self, took_s: float) -> float:
        if self._interval_s is not None:
            return self._interval_s - took_s
        idle_s = self._epoch.settings.poll_interval_s * 2 ** min(self._idle_runs - 1, 10)
        return min(idle_s, LONGEST_PAUSE_S) if self._idle_runs else 0.0

    def _pause(self, pause_s: float) -> bool:
        """Wait, and return whether the job was asked to stop meanwhile."""
        self._beat()
        until = clock.monotonic_s() + pause_s
        while (left_s := until - clock.monotonic_s()) > 0:
            clock.sleep(min(left_s, self._epoch.settings.poll_interval_s))
            if self._epoch.is_stop_requested():
                return True
            self._beat()
        return False

    def _beat(self) -> None:
        """Send a heartbeat if one is due."""
        if clock.monotonic_s() >= self._next_beat:
            self._epoch.beat()
            self._next_beat = clock.monotonic_s() + self._epoch.settings.heartbeat_interval_s
