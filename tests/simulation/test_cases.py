"""The histories that refuted the claim, as schedules: who runs until which effect, and who dies there.

Each was red when the mechanism was a dozen cells. ``FOUND.md`` has its message of that time, and the seeds that found
it.
"""

from __future__ import annotations

import pytest

from tests.simulation import actors, product
from tests.simulation.scheduler import Host
from tests.simulation.script import Side, at, stage

SPAWNED = ("machine", "spawn", Side.AFTER)


def test_a2_a_rewind_that_is_applied_while_the_driver_of_a_resume_starts() -> None:
    with stage("sink") as s:
        s.first_start()
        s.kill_in_batch()
        a = s.restart("A")
        assert s.run("A", until=at(*SPAWNED))
        assert s.run("driver-2", until=at("file", "take settings", Side.AFTER))
        b = s.restart("B", "shift:-3", take_over=True)
        s.run("B", until=at("machine", "spawn"))
        s.append(3)
        s.run("A", "driver-2", for_s=200.0)
        s.to_end(b)
        s.run("A", for_s=400.0)
        assert a.is_over
        assert s.verdict() == ""


def test_a3_a_resumed_batch_whose_driver_dies_between_commit_and_record() -> None:
    with stage("sink") as s:
        s.first_start()
        s.kill_in_batch()
        a = s.restart("A")
        assert s.run("A", "driver-2", until=at("checkpoint", "create commits/", Side.AFTER, by="driver-2"))
        s.kill("driver-2")
        s.to_end(a)
        assert s.verdict() == ""


def test_a4_the_losing_driver_reconciles_from_a_log_that_the_winner_writes() -> None:
    with stage("sink") as s:
        s.first_start()
        s.append(9)
        assert s.run("driver-1", until=at("checkpoint", "create offsets/", by="driver-1"))
        s.kill("driver-1")
        a, b = s.restart("A"), s.restart("B", take_over=True)
        assert s.run("A", until=at(*SPAWNED))
        s.run("B", until=at(*SPAWNED))
        s.run("driver-2", until=at("checkpoint", "create commits/", Side.AFTER, by="driver-2"))
        s.run("driver-3", for_s=60.0)
        s.to_end(a)
        s.to_end(b)
        assert s.verdict() == ""


def test_a5_a_driver_dies_between_the_facts_and_the_row() -> None:
    with stage("process", store="split") as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("store", ": facts", Side.AFTER, by="driver-1"))
        s.kill("driver-1")
        assert s.to_end(s.restart("A")).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert [w.record.offset for w in s.world.sink.writes if w.epoch == 2] == [*range(6, 12)]
        assert s.verdict() == ""


def test_a6_a_batch_is_cut_off_and_the_checkpoint_is_gone() -> None:
    with stage("sink") as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("sink", "", Side.AFTER, by="driver-1"))
        s.kill("driver-1")
        s.remove_checkpoints()
        s.to_end(s.restart("A"))
        assert s.verdict() == ""


@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a6_its_batch_with_a_new_partition_was_committed_and_only_a_snapshot_saw_that(mode: str) -> None:
    with stage(mode) as s:
        s.first_start()
        s.world.kafka.cluster.add_partitions("orders", 2)
        s.append(3, "orders", 1)
        assert s.run("driver-1", until=at("checkpoint", "create commits/", Side.AFTER, by="driver-1"))
        s.kill("driver-1")
        s.to_end(s.start("look", actors.snapshot_only))
        s.remove_checkpoints()
        s.to_end(s.restart("A", 'offsets:{"orders":{"1":3}} | committed'))
        assert s.verdict() == ""


@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a8_a_restart_forward_inside_a_rewind(mode: str) -> None:
    with stage(mode, records=20, batch_s=20.0) as s:
        s.first_start()
        s.run(for_s=200.0)
        s.to_end(s.restart("A", "shift:-20"))
        s.to_end(s.restart("B", "shift:+4", accept_skipped=100))
        assert s.verdict() == ""


def test_a8_mirrored_a_rewind_over_what_was_skipped() -> None:
    with stage("process", records=3) as s:
        s.first_start()
        s.first_stop()
        s.append(9)
        s.to_end(s.restart("A", "shift:+6", accept_skipped=100, take_over=True))
        s.run(for_s=30.0)
        s.to_end(s.restart("B", "shift:-9"))
        assert s.verdict() == ""


@pytest.mark.parametrize("start", ["committed", "shift:-3"])
@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a9_an_existing_job_that_was_killed_in_a_batch_is_tracked(mode: str, start: str) -> None:
    with stage(mode, records=12) as s:
        s.world.run_before(1)
        s.to_end(s.restart("first", start))
        s.run(for_s=60.0)
        assert s.verdict() == ""


@pytest.mark.parametrize("file_sink", [False, True], ids=["any sink", "file sink"])
def test_an_existing_job_loses_its_checkpoint_before_it_is_tracked(file_sink: bool) -> None:
    with stage("sink", records=12, file_sink=file_sink) as s:
        s.world.run_before(2)
        s.to_end(s.start("look", actors.snapshot_only))
        s.remove_checkpoints()
        s.to_end(s.restart("first", "snapshot:look#snapshot"))
        s.run(for_s=60.0)
        assert s.has_written("orders", 12)
        assert s.verdict() == ""


@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a10_a_program_runs_again_after_a_failed_query(mode: str) -> None:
    with stage(mode, runs_again=True, limit=8) as s:
        s.first_start()
        s.append(8)
        assert s.run("driver-1", until=at("sink", "", Side.AFTER, by="driver-1"))
        s.fail("driver-1", RuntimeError("the sink is away"))
        s.run(for_s=60.0)
        assert s.verdict() == ""


def test_a11_killed_between_record_and_commit_and_the_next_one_before_its_first_batch() -> None:
    with stage("process") as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("checkpoint", "create commits/", by="driver-1"))
        s.kill("driver-1")
        a = s.restart("A")
        assert s.run("A", "driver-2", until=at("checkpoint", "names offsets", by="driver-2"))
        s.kill("driver-2")
        s.to_end(a)
        assert s.verdict() == ""


def test_a12_a_native_driver_dies_unrecorded_in_submit_and_the_task_is_run_again() -> None:
    with stage("sink") as s:
        s.first_start()
        s.first_stop()
        s.append(3)
        a = s.restart("A", take_over=True)
        assert s.run("A", "driver", until=at("checkpoint", "create commits/", Side.AFTER, by="driver-2"))
        s.kill("driver-2")
        s.to_end(a)
        again = s.to_end(s.start("A", actors.submit_only))
        assert "DriverSilent" not in again.failure
        assert s.verdict() == ""


def test_a13_a_submit_adopts_the_driver_of_an_older_plan() -> None:
    with stage("process", records=20) as s:
        s.first_start()
        s.run(for_s=60.0)
        a = s.restart("A", "shift:-9")
        assert s.run("A", "driver-1", until=at(*SPAWNED))
        s.run("driver-2", until=at("file", "take settings", Side.AFTER))
        s.give_up(a)
        again = s.to_end(s.restart("A", "shift:-3", attempt="2"), "A")
        assert "has started the job from 'shift:-9' already" in again.failure
        assert not s.to_end(s.restart("B", "shift:-3", take_over=True), "B", "driver").failure
        last = [w.record.offset for w in s.world.sink.writes if w.epoch > 1]
        assert min(last) == 17
        assert s.verdict() == ""


def test_a14_a_maintenance_comes_in_the_middle_of_a_recovery() -> None:
    with stage("process") as s:
        s.first_start()
        s.kill_in_batch()
        recovery = s.start("watch", actors.recover(looks=2))
        assert s.run("watch", until=at(*SPAWNED))
        a = s.restart("A", take_over=True)
        s.run("A", until=at("machine", "spawn"))
        s.run("watch", "driver-2", for_s=100.0)
        s.to_end(a)
        s.run(for_s=200.0)
        assert recovery.is_over
        assert s.job_runs, a.failure
        assert s.verdict() == ""


def test_a15_a_run_that_is_cleared_after_another_one_is_judged_by_its_own_snapshot() -> None:
    with stage("untracked", records=6) as s:
        s.first_start()
        for operation, attempt in (("A", "1"), ("B", "1"), ("A", "2")):
            assert s.to_end(s.restart(operation, attempt=attempt)).failure == ""
            s.append(6)
            s.run(for_s=60.0)
        assert s.has_written("orders", 24)
        assert s.verdict() == ""


def test_a16_a_driver_in_another_pid_namespace_is_not_taken_for_dead() -> None:
    with stage("process") as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("sink", "", by="driver-1"))
        s.hang("driver-1", 600.0)
        a = s.to_end(s.start("A", actors.restart(), host=s.container("worker-1")))
        assert "StopTimedOut" in a.failure
        assert not s.actor("driver-1").is_gone
        assert s.verdict() == ""


@pytest.mark.parametrize("mode", ["process", "sink", "untracked"])
def test_a16_a_driver_on_another_machine_of_the_same_host_name_is_not_taken_for_dead(mode: str) -> None:
    with stage(mode, limit=12) as s:
        s.first_start()
        s.append(9)
        assert s.run("driver-1", until=at("sink", "", Side.BEFORE, by="driver-1"))
        s.hang("driver-1", 600.0)
        s.sim.hosts["twin"] = Host("worker-1", "boot-twin", machine_id="machine-twin")
        a = s.to_end(s.start("A", actors.restart(), host="twin"))
        assert "StopTimedOut" in a.failure
        assert not s.actor("driver-1").is_gone
        assert s.verdict() == ""


def test_a17_a_stop_is_answered_while_a_launch_waits_in_a_queue() -> None:
    with stage("process") as s:
        s.first_start()
        s.first_stop()
        a = s.restart("A", take_over=True)
        assert s.run("A", until=at(*SPAWNED))
        s.to_end(s.start("B", actors.take_over_and_stop), "B")
        s.append(3)
        s.run("driver-2", for_s=100.0)
        assert a.actor is not None
        assert s.verdict() == ""


def test_a17_the_plan_of_the_later_operation_wins() -> None:
    with stage("process", records=20) as s:
        s.first_start()
        s.run(for_s=60.0)
        s.restart("A", "shift:-12")
        assert s.run("A", "driver-1", until=at(*SPAWNED))
        b = s.restart("B", "shift:-3", take_over=True)
        assert s.run("B", until=at(*SPAWNED))
        s.run("driver-2", for_s=60.0)
        s.to_end(b)
        assert b.failure == ""
        assert min(w.record.offset for w in s.world.sink.writes if w.epoch > 1) == 17
        assert s.verdict() == ""


def test_a20_a_pipeline_gets_another_name() -> None:
    with stage("process", records=6) as s:
        s.first_start()
        s.append(3)
        s.to_end(s.restart("A", "shift:-3"))
        s.run(for_s=60.0)
        s.first_stop()
        s.sim.sleep(3600.0)
        former = s.world.name
        s.world.name = "alerts"
        refused = s.to_end(s.start("audit", actors.audit_only))
        assert "StateLost" in refused.failure
        assert s.to_end(s.start("rename", actors.rename_from(former))).failure == ""
        s.append(3)
        assert s.verdict() == ""


@pytest.mark.parametrize("start", ["committed", "shift:-3"])
@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a22_a_bug_of_spark_ends_the_query_that_resumes_a_batch(
    mode: str, start: str, caplog: pytest.LogCaptureFixture
) -> None:
    with stage(mode, spark_version="4.1.1") as s:
        s.first_start()
        s.kill_in_batch()
        again = s.to_end(s.restart("A", start))
        s.append(3)
        s.run(for_s=60.0)
        assert again.failure == ""
        assert s.job_runs
        assert "SPARK-55271 ended the query; restarting it under epoch 2" in caplog.text
        assert s.has_written("orders", 12)
        assert s.verdict() == ""


def test_an_apply_that_wakes_up_late_hides_no_planned_batch_of_an_untracked_job() -> None:
    with stage("untracked", limit=4) as s:
        s.first_start()
        a = s.restart("A", "shift:-3")
        assert s.run("A", "driver-1", until=at("checkpoint", "create sources/0/0", Side.AFTER, by="A.apply~1"))
        s.hang("A.apply~1", 900.0)
        s.append(12)
        assert s.run("A", "driver", until=at("checkpoint", "create offsets/", Side.AFTER, by="driver-2", number=2))
        s.kill("driver-2")
        s.to_end(a)
        s.run(for_s=1000.0)
        assert s.verdict() == ""


@pytest.mark.parametrize("start", ["committed", "committed | latest", "committed | earliest"])
def test_b1_a_known_position_that_is_gone_is_no_first_start(start: str) -> None:
    with stage("untracked", records=6) as s:
        s.first_start()
        s.first_stop()
        s.append(5)
        s.remove_checkpoints()
        refused = s.to_end(s.restart("A", start, take_over=True))
        assert "PlanRefused" in refused.failure
        s.to_end(s.restart("B", 'offsets:{"orders":{"0":6}}', take_over=True))
        s.run(for_s=60.0)
        assert s.has_written("orders", 11)
        assert len(s.world.sink.writes) == 11


def test_b2_of_two_topics_one_is_forgotten_by_the_store() -> None:
    with stage("dstream", position_store="zookeeper", topics=("orders", "returns")) as s:
        s.append(6, "returns")
        s.first_start()
        s.first_stop()
        s.forget_positions("returns")
        refused = s.to_end(s.restart("A", take_over=True))
        assert "PlanRefused" in refused.failure
        assert "returns" in refused.failure


def test_b3_a_topic_that_was_recreated_is_not_resumed_in_its_middle() -> None:
    with stage("dstream", position_store="zookeeper", records=6) as s:
        s.to_end(s.start("observer", actors.snapshot_only))
        s.first_start()
        s.first_stop()
        s.recreate("orders", 1)
        s.append(20)
        refused = s.to_end(s.restart("A", take_over=True))
        assert "PlanRefused" in refused.failure


def test_b3_nor_is_one_that_this_provider_never_started() -> None:
    with stage("dstream", position_store="zookeeper", records=6) as s:
        s.world.positions.stored = product.Position({product.TopicPartition("orders", 0): 6})
        s.to_end(s.start("observer", actors.snapshot_only))
        s.sim.sleep(3600.0)
        s.recreate("orders", 1)
        s.append(20)
        refused = s.to_end(s.restart("A"))
        assert "PlanRefused" in refused.failure
        assert "topic recreated" in refused.failure
        assert s.world.sink.writes == []


@pytest.mark.parametrize("mode", ["process", "sink", "untracked", "dstream"])
def test_a_recreated_topic_is_read_by_a_new_pipeline_from_its_start(mode: str) -> None:
    position_store = "zookeeper" if mode == "dstream" else ""
    with stage(mode, position_store=position_store, topics=("orders", "returns"), file_sink=mode == "sink") as s:
        s.append(4, "returns")
        s.first_start()
        s.first_stop()
        s.recreate("orders", 1)
        s.append(9)
        assert s.verdict() == ""
        assert "topic recreated" in s.notes[0]
        assert "for Spark's file sink with another output folder" in s.notes[0]
        new_id = s.world.kafka.topic_id("orders")
        read = [each.record for each in s.world.sink.writes if each.record.topic_id == new_id]
        assert [each.offset for each in read] == list(range(9))
        assert sum(each.record.topic == "returns" for each in s.world.sink.writes) == 4


def test_a_python_process_whose_java_process_was_killed_is_not_taken_for_gone() -> None:
    with stage("process", has_launcher=True, limit=12, batch_s=30.0) as s:
        s.first_start()
        s.run(for_s=60.0)
        s.append(9)
        assert s.run("driver-1", until=at("sink", "", by="driver-1"))
        s.kill("launcher-1")
        s.hang("driver-1", 60.0)
        a = s.to_end(s.restart("A"))
        assert "StopTimedOut" in a.failure
        assert s.verdict() == ""


def test_a_try_of_an_earlier_attempt_that_wakes_up_late_stops_nothing() -> None:
    with stage("process") as s:
        s.first_start()
        first = s.restart("A")
        assert s.run("A", "driver-1", until=at("store", "get attempt/A", Side.BEFORE, by="A.stop~1"))
        s.hang("A.stop~1", 2000.0)
        s.to_end(first)
        second = s.to_end(s.restart("A", attempt="2"))
        assert second.failure == ""
        s.run(for_s=3000.0)
        assert s.job_runs
        assert s.verdict() == ""


def test_a_task_that_dies_between_its_reconciliation_and_the_row_leaves_no_hole() -> None:
    with stage("sink", store="split") as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("checkpoint", "create commits/", Side.AFTER, by="driver-1"))
        s.kill("driver-1")
        a = s.restart("A")
        assert s.run("A", until=at("store", "append batch", by="A.stop~1"))
        s.kill("A.stop~1")
        s.to_end(a)
        assert s.verdict() == ""


def test_writes_that_hang_twice_are_not_taken_for_real_time_mode() -> None:
    with stage("untracked", limit=4) as s:
        s.first_start()
        s.append(8)
        for number in range(2):
            assert s.run("driver-1", until=at("checkpoint", "create offsets/", by="driver-1"))
            s.hang("driver-1", 68.0)
            assert s.run("driver-1", until=at("checkpoint", "create commits/", Side.AFTER, by="driver-1")), number
        s.kill("driver-1")
        again = s.to_end(s.restart("A"))
        assert again.failure == ""
        assert s.verdict() == ""


@pytest.mark.parametrize("take_over", [False, True])
@pytest.mark.parametrize("mode", ["process", "untracked"])
def test_a_late_try_of_stop_does_not_stop_the_job_of_a_later_run(mode: str, take_over: bool) -> None:
    with stage(mode) as s:
        s.first_start()
        first = s.restart("A", take_over=take_over)
        assert s.run("A", "driver-1", until=at("store", "swap pipeline", by="A.stop~1"))
        s.hang("A.stop~1", 3000.0)
        assert s.to_end(first).failure == ""
        s.run(for_s=60.0)
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=4000.0)
        assert "TakenOver" in repr(s.actor("A.stop~1").error)
        assert s.job_runs
        assert s.verdict() == ""


def test_a_retried_submit_does_not_start_a_job_that_was_stopped_since() -> None:
    with stage("process") as s:
        s.first_start()
        b = s.restart("B")
        assert s.run("B", "driver", until=at("store", "swap pipeline", Side.AFTER, by="driver-2"))
        s.kill("B.submit~1")
        s.run("driver-2", for_s=30.0)
        assert s.to_end(s.start("S", actors.take_over_and_stop), "driver-2").stopped == "stopped"
        s.to_end(s.start("copy", actors.write_position))
        s.to_end(b)
        assert "TakenOver" in b.failure
        assert "'S'" in b.failure
        assert not s.job_runs
        assert s.verdict() == ""


def test_a_late_try_of_stop_does_not_stop_the_job_of_its_own_run() -> None:
    with stage("process") as s:
        s.first_start()
        first = s.restart("A")
        assert s.run("A", "driver-1", until=at("store", "swap pipeline", by="A.stop~1"))
        s.hang("A.stop~1", 3000.0)
        assert s.to_end(first).failure == ""
        s.run(for_s=4000.0)
        assert s.actor("A.stop~1").result == "restarted by this operation"
        assert s.job_runs
        assert s.verdict() == ""


def test_a_marker_that_is_placed_late_does_not_end_the_next_job() -> None:
    with stage("untracked") as s:
        s.first_start()
        first = s.restart("A")
        assert s.run("A", "driver-1", until=at("file", "place marker", by="A.stop~1"))
        s.hang("A.stop~1", 900.0)
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=1000.0)
        assert first.failure
        assert s.job_runs
        assert s.verdict() == ""
