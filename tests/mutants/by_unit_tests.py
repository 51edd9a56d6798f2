"""Mistakes that would lose or duplicate records, each of which a named unit test has to find.

``docs/guarantees.md`` has the list.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
from dataclasses import dataclass

import pytest

from tests.mutants.planting import PACKAGE, ROOT, Change, in_fork, plant, with_changes

DEADLINE_S = 300


@dataclass(frozen=True)
class Mistake:
    """One change of the source, and the test that detects it."""

    what: str
    file: str
    right: str
    wrong: str
    caught_by: str
    """A file below ``tests/unit``, and a test in it."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is changed."""
        return (Change(self.file, self.right, self.wrong),)


MISTAKES = [
    Mistake(
        "a start below the earliest retained offset is moved there, and the records between are not counted as lost",
        "core/restart/planner.py",
        "unreplayable=0 if want is None else max(0, min(unread, live.begin) - want),",
        "unreplayable=0,",
        "core/test_planner.py::test_plan[a rewind further than retention left: what is there is replayed,"
        " the rest is counted and refused]",
    ),
    Mistake(
        "a batch that Spark committed and the driver did not record counts as cut off",
        "operations/lease.py",
        "if batch is not None and is_same_query and log.is_committed(started.batch_id):",
        "if False:",
        "operations/test_submitting.py::TestDied::test_a_batch_that_spark_committed_is_recorded_and_the_plan_is_done",
    ),
    Mistake(
        "the rows of the history are ordered by the driver's clock, and not by the order of recording",
        "core/batch.py",
        "return batch_time_ms if newest_row_time_ms is None else max(batch_time_ms, newest_row_time_ms + 1)",
        "return batch_time_ms",
        "stores/test_sqlite.py::TestSqlite::test_a_clock_that_goes_back_changes_no_answer",
    ),
    Mistake(
        "a batch is recorded before its function has finished",
        "runtime/foreach_batch.py",
        "                    self._process(frame, batch_id)\n",
        "                    self._epoch.record(batch)\n                    self._process(frame, batch_id)\n",
        "runtime/test_foreach_batch.py::test_what_the_function_did_not_finish_is_neither_recorded_nor_committed",
    ),
    Mistake(
        "a batch is recorded although the JVM was killed and `collect()` returned only a part of it",
        "runtime/foreach_batch.py",
        "                require_jvm(frame.sparkSession)\n",
        "",
        "runtime/test_foreach_batch.py::test_a_batch_whose_jvm_was_killed_under_it_is_not_recorded",
    ),
    Mistake(
        "a batch begins without an entry in the pipeline's record",
        "runtime/foreach_batch.py",
        "                self._epoch.begin(batch)\n",
        "",
        "runtime/test_foreach_batch.py::test_each_batch_begins_before_it_runs_and_is_recorded_after_it",
    ),
    Mistake(
        "the function runs again for a batch that is already recorded",
        "runtime/foreach_batch.py",
        "if self._epoch.is_finished(batch):",
        "if False:",
        "runtime/test_foreach_batch.py::test_a_batch_that_was_recorded_before_is_not_run_again",
    ),
    Mistake(
        "a driver whose epoch has ended records its batch",
        "core/record/transition.py",
        "        if record.phase is Phase.RUNNING:\n            return rule(record, event)\n",
        "        return rule(record, event)\n",
        "runtime/test_held_epoch.py::TestBatch::test_a_fenced_driver_changes_nothing",
    ),
    Mistake(
        "a second driver claims an epoch that a driver holds",
        "core/record/transition.py",
        "    if record.phase is not Phase.LAUNCHING:\n        if record.holder == event.holder",
        "    if False:\n        if record.holder == event.holder",
        "runtime/test_held_epoch.py::TestClaim::test_a_launch_that_is_not_free_is_not_claimed_and_nothing_is_written",
    ),
    Mistake(
        "a batch that an earlier run in the same process may have written is not counted",
        "runtime/held_epoch.py",
        "self._may_have_run = started is None or planned is not None",
        "self._may_have_run = False",
        "runtime/test_held_epoch.py::TestRuns::test_what_the_earlier_run_began_is_accounted_for",
    ),
    Mistake(
        "a driver continues a checkpoint in which another job has planned batches",
        "runtime/held_epoch.py",
        "if newest_id != planned_id:",
        "if False:",
        "runtime/test_held_epoch.py::TestCheckpoint::test_one_that_another_job_writes_is_not_run_on",
    ),
    Mistake(
        "a new partition starts at offset 1",
        "core/restart/planner.py",
        "start, reason = 0, StartReason.NEW_PARTITION",
        "start, reason = 1, StartReason.NEW_PARTITION",
        "core/test_planner.py::test_plan[more partitions: the new ones are read from 0, whatever was written before"
        " anybody looked]",
    ),
    Mistake(
        "a partition that appears after the plan begins at its end",
        "core/restart/planner.py",
        "new = {partition: there.begin for",
        "new = {partition: there.end for",
        "operations/test_submitting.py::TestPartitions::test_partitions_that_were_added_since_the_plan_start_at_0",
    ),
    Mistake(
        "a plan is applied although the state has changed since",
        "operations/applying.py",
        "if changes := plan.seen.changes(",
        "if (changes := {}) and plan.seen.changes(",
        "operations/test_applying.py::test_what_changed_since_the_plan_is_named_and_nothing_is_written",
    ),
    Mistake(
        "a restart does not close the checkpoint that it leaves, so a job from before the provider continues there",
        "operations/applying.py",
        "if applied.checkpoint != plan.seen.checkpoint:",
        "if applied.checkpoint != applied.checkpoint:",
        "operations/test_applying.py::TestForms::test_reposition_seeds_a_folder_of_its_plan_and_closes_the_old_one",
    ),
    Mistake(
        "a checkpoint is closed by a valid entry, so a query that is started by hand runs it and continues",
        "checkpoint/log.py",
        'version = CLOSED if self.closed_by is not None else "v1" if self.names is None else "v2"',
        'version = "v1" if self.names is None else "v2"',
        "checkpoint/test_seed.py::TestClose::test_no_query_can_start_on_it",
    ),
    Mistake(
        "after the loss of the control store, a job resumes on a checkpoint that it left earlier",
        "operations/lease.py",
        "if closer is None and (not beside or _newest_open((location, *beside)) == location):",
        "if closer is None or beside:",
        "operations/test_lease.py::TestRecordIsGone::test_nor_if_a_restart_has_moved_its_job_whatever_became_of_the_store",
    ),
    Mistake(
        "the offsets of a deleted topic are used for the topic of the same name",
        "core/known.py",
        "return {} if is_other_cluster(seen.identities, seen.live) else _recreated(seen.identities, seen.live)",
        "return {}",
        "core/test_planner.py::test_plan[the topic was deleted and recreated: offsets of the old one mean nothing]",
    ),
    Mistake(
        "a snapshot taken after a topic was recreated decides which topic the stored offsets belong to",
        "core/known.py",
        "    for snapshot in sorted(snapshots, key=_order):",
        "    for snapshot in sorted(snapshots, key=_order, reverse=True):",
        "core/test_known.py::test_what_is_known_is_not_replaced[a snapshot after the topic was created again has the"
        " new id beside the old offset, and settles nothing]",
    ),
    Mistake(
        "a fallback replaces a position that a snapshot knows",
        "core/known.py",
        "if partition in starts and partition not in named and not goes_on(partition, known)",
        "if False",
        "core/test_known.py::test_what_is_known_is_not_replaced[a fallback is for what nobody has read: it passes over"
        " the rest]",
    ),
    Mistake(
        "a start at named offsets is not compared with the known position",
        "core/restart/planner.py",
        "stood = stored if known is None else known.position[partition]",
        "stood = stored",
        "core/test_known.py::test_what_is_known_is_not_replaced[unread records are skipped by name, and not accepted]",
    ),
    Mistake(
        "accept_skipped is compared by topic, and not by number of records",
        "core/restart/checks.py",
        "if sum(skipped.values()) > policy.accept_skipped.get(topic, 0):",
        "if skipped and topic not in policy.accept_skipped:",
        "core/test_planner.py::test_plan[skipping one more than is accepted is refused]",
    ),
    Mistake(
        "a batch that is in the offset log but not in the commit log counts as processed",
        "checkpoint/log.py",
        "if newest_id in committed_ids:",
        "if newest_id in planned_ids:",
        "checkpoint/test_seed.py::TestState::test_the_position_is_that_of_the_greatest_batch_in_both_logs",
    ),
    Mistake(
        "an older state of a job's own store is used as its position",
        "core/known.py",
        "best.update({**_ahead(seen, records), ",
        "best.update({",
        "operations/test_untracked.py::test_a_position_that_was_moved_back_by_hand_is_not_taken",
    ),
    Mistake(
        "a backfill may end in the future, and later intervals are then without records",
        "operations/backfilling.py",
        "interval.end_ms > now_ms + CLOCKS_DIFFER_MS",
        "False",
        "operations/test_backfilling.py::test_an_end_in_the_future_is_not_frozen_at_the_end_of_the_log",
    ),
    Mistake(
        "batch ids begin again at 0, so a sink that compares batch ids drops new records",
        "core/restart/planner.py",
        "        last_batch_id=UNSTARTED if completed_id is None else completed_id,\n",
        "",
        "core/test_planner.py::test_plan[the checkpoint is gone and the history has batch ids: seeded,"
        " so that they go on]",
    ),
    Mistake(
        "the plan does not warn if batch ids begin again at 0",
        "core/restart/planner.py",
        "    elif any(row.key in named and row.start > row.begin for row in rows):\n",
        "    elif False:\n",
        "core/test_planner.py::test_a_plan_warns_if_batch_ids_begin_again[a new store and a new checkpoint: only the"
        " named offsets show that the job has run----the start names offsets]",
    ),
    Mistake(
        "the audit does not report a gap between two batches",
        "core/audit/walk.py",
        "        if each.start != cursor.position:\n",
        "        if False:\n",
        "core/test_audit.py::TestWhatItDetects::test_a_missing_batch",
    ),
    Mistake(
        "a plan uses the newest row of the history, whichever driver wrote it",
        "operations/session.py",
        "return newest or self._newest_row(",
        "return self._newest_row(",
        "operations/test_session.py::TestZombies::test_the_newest_batch_is_not_theirs",
    ),
    Mistake(
        "the record is replaced without a comparison",
        "stores/memory.py",
        "            if self._control.get(key) != expected:\n                return False\n            if facts",
        "            if facts",
        "operations/test_lease.py::TestTakenOver::test_between_its_read_and_its_swap",
    ),
    Mistake(
        "the process is started before the record names its launch",
        "operations/submitting.py",
        "    session.cell.change(\n        LaunchEpoch(",
        "    _spawn(session, claim, launcher)\n    session.cell.change(\n        LaunchEpoch(",
        "operations/test_submitting.py::TestLaunch::test_a_process_that_is_there_finds_its_launch",
    ),
    Mistake(
        "a driver that was launched by another plan of the same operation is adopted",
        "operations/submitting.py",
        "(launch.operation, launch.plan) == (session.operation, applied.plan.fingerprint)",
        "launch.operation == session.operation",
        "operations/test_submitting.py::TestAnotherPlan::test_a_launch_of_another_plan_is_not_adopted",
    ),
    Mistake(
        "a launch announces the rewind of the launch before it again, which had no batch",
        "operations/submitting.py",
        "announced=plan.announced_from(left_at) if before is None else (),",
        "announced=plan.announced_from(left_at),",
        "operations/test_submitting.py::TestDied::test_the_next_launch_announces_nothing_new_and_counts_nothing_twice",
    ),
    Mistake(
        "the result of an epoch is stored before the epoch has ended",
        "operations/submitting.py",
        "if record.launch is not None and record.phase is Phase.STOPPED:",
        "if record.launch is not None:",
        "operations/test_submitting.py::TestAnotherPlan::test_after_a_cancel_the_summary_of_the_launch_says_so",
    ),
    Mistake(
        "a stop does not cancel a launch that no driver has claimed",
        "operations/lease.py",
        "                session.cell.change(CancelLaunch(session.operation, clock.now_ms(), record.epoch))\n",
        "                return record\n",
        "operations/test_stopping.py::TestLaunching::test_a_launch_that_nobody_claimed_is_cancelled_for_ever",
    ),
    Mistake(
        "a batch begins although the record has a stop request",
        "core/record/transition.py",
        "    if record.stop is not None:\n        return Refused(Refusal.STOP_REQUESTED",
        "    if False:\n        return Refused(Refusal.STOP_REQUESTED",
        "operations/test_stopping.py::test_the_batch_that_comes_after_the_request_does_not_begin",
    ),
    Mistake(
        "a batch that began and was not recorded is not counted as cut off",
        "operations/lease.py",
        'return None, CutOff(started.batch_id, batch.query_id or "", batch.row_time_ms, started.count), batch',
        "return None, None, None",
        "operations/test_lease.py::TestProcess::test_a_batch_that_was_not_recorded_is_cut_off",
    ),
    Mistake(
        "a batch whose checkpoint is gone counts as never planned",
        "operations/lease.py",
        "    return _unknown_batch(session, record, started, epoch, state)\n",
        "    return None, None, None\n",
        "operations/test_lease.py::TestSink::test_what_becomes_of_the_started_batch",
    ),
    Mistake(
        "the missing row of a recorded batch is not added to the history",
        "operations/lease.py",
        "    complete_history(session, record, epoch)\n",
        "",
        "operations/test_lease.py::TestProcess::test_a_row_that_the_driver_had_no_time_to_write_is_written",
    ),
    Mistake(
        "an operation that was taken over while it waited continues",
        "core/record/transition.py",
        "return Already() if record.lease is None else _by_lease_holder(_renewed)(record, event)",
        "return Next(replace(record, lease=Lease(event.operation, event.at_ms)))",
        "operations/test_lease.py::TestKeep::test_one_that_was_taken_over_in_this_very_moment_is_not_taken_back",
    ),
    Mistake(
        "an observation combines the positions of one epoch with the record of another",
        "operations/session.py",
        "if _generation(before) == seen.generation == _generation(self.control.record()):",
        "if seen:",
        "operations/test_session.py::TestObserve::test_a_job_that_is_stopped_meanwhile_is_observed_again",
    ),
    Mistake(
        "submit does not compare the topic ids again once the job runs",
        "operations/submitting.py",
        "            _require_same_topics(session, claim)\n",
        "",
        "operations/test_submitting.py::TestPartitions::test_one_that_is_recreated_before_the_driver_reads_it_is_reported",
    ),
    Mistake(
        "`airflow offsets end` accepts an epoch whose driver still sends heartbeats",
        "operations/ending.py",
        "if found.state is JobState.UNKNOWN and record.launch is not None and record.launch.tracked:",
        "if False:",
        "operations/test_ending.py::test_a_heartbeat_shows_life_on_any_machine",
    ),
    Mistake(
        "a late stop task takes the lease from an operation that it has not seen",
        "core/record/transition.py",
        "(event.holder is None or lease is None or lease.operation == event.holder)",
        "True",
        "core/test_record.py::test_refused[b takes over c and not a]",
    ),
    Mistake(
        "a query that its program stops in the middle of a batch counts as idle",
        "runtime/native_sink.py",
        "if was_stopped_by_program:",
        "if False:",
        "runtime/test_native_sink.py::TestEnds::test_a_query_that_its_program_stops_is_not_run_again",
    ),
    Mistake(
        "all shards of a replay are one application of Delta, which then skips all but one of them",
        "core/sink/output.py",
        '"txnAppId": f"{key.query_id}/{key.batch_id}" if self.is_replay else key.query_id,',
        '"txnAppId": key.query_id,',
        "core/test_sink_output.py::test_delta_never_takes_one_output_for_another",
    ),
    Mistake(
        "a batch has the same key whatever it reads",
        "core/sink/output.py",
        'batch.query_id or "", batch.batch_id or 0, digest_of(batch))',
        'batch.query_id or "", batch.batch_id or 0, "0" * 16)',
        "core/test_sink_output.py::test_only_the_same_batch_with_the_same_offsets_has_the_same_key",
    ),
    Mistake(
        "a batch that read records and wrote nothing is not counted as empty",
        "runtime/held_epoch.py",
        "is_empty = rows.saw_none and batch.record_count > 0",
        "is_empty = False",
        "runtime/test_foreach_batch.py::test_what_spark_says_a_batch_wrote_is_recorded",
    ),
    Mistake(
        "a launch goes on with the rows that the epoch before has written",
        "core/record/transition.py",
        "        written=RowsWritten(),\n",
        "",
        "core/test_record.py::TestRowsWritten::test_the_next_launch_counts_from_0",
    ),
    Mistake(
        "an error of Spark's listener ends the batch",
        "runtime/write_count.py",
        "        except Exception as error:\n            self._fails(error)\n        return self\n",
        "        except KeyError as error:\n            self._fails(error)\n        return self\n",
        "runtime/test_write_count.py::test_a_session_without_a_listener_breaks_no_batch",
    ),
]


def find(mistake: Mistake) -> tuple[bool, str]:
    """Return whether the named test fails with the mistake, and what is printed about it."""
    said = in_fork(_run, with_changes(mistake.changes), mistake.caught_by)
    test = mistake.caught_by.partition("[")[0]
    # 1 is a failed test. A missing test, or a failed import, returns another code and other words.
    if said.startswith("1\n") and f"FAILED tests/unit/{test}" in said:
        return True, f"found by {test}"
    return False, f"NOT FOUND by {mistake.caught_by}; pytest ended with {said[-1500:]}"


def find_nothing() -> tuple[bool, str]:
    """Return whether all named tests pass with planted sources that have no mistake, and what is printed about it."""
    files = {mistake.file for mistake in MISTAKES}
    sources = {file: (ROOT / PACKAGE / file).read_text() for file in files}
    said = in_fork(_run, sources, *(mistake.caught_by for mistake in MISTAKES))
    if said.startswith("0\n"):
        return True, "all named tests pass"
    return False, f"A TEST FAILS; pytest ended with {said[-1500:]}"


def _run(sources: dict[str, str], *tests: str) -> str:
    """Return pytest's exit code for tests on changed sources, and on the next lines what pytest printed."""
    faulthandler.dump_traceback_later(DEADLINE_S, exit=True)
    plant(sources)
    # Hypothesis is imported already: its own assertions are not rewritten, which is no matter.
    known = "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", known]
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        code = pytest.main([*(f"tests/unit/{test}" for test in tests), *options])
    return f"{int(code)}\n{shown.getvalue()}"
