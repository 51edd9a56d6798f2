"""`airflow offsets import -p PIPELINE --apply` is cut off, or wakes up after another operation has started the job."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_offsets.checkpoint.positions import CheckpointPositions
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.transfer import plan_transfer
from airflow_provider_offsets.operations.transferring import finish_interrupted, stopped_pipeline
from airflow_provider_offsets.stores.protocols import PositionStore
from tests.simulation.actors import Run
from tests.simulation.script import Side, Stage, at, stage

SPAWNED = ("machine", "spawn", Side.AFTER)


def importing(s: Stage, offset: int, into: PositionStore | None = None, topic: str = "orders") -> Callable[[Run], None]:
    """Write an offset to a store, by default to the one that the job starts from, and accept what that skips."""
    world = s.world

    def task(run: Run) -> None:
        own = world.positions if world.kind.position_store else CheckpointPositions(world.checkpoint)
        target = own if into is None else into
        stream = world.pipeline.stream
        with stopped_pipeline(world.session(run.name), take_over=True) as write:
            finish_interrupted(target)
            stored = target.position(stream)
            transfer = plan_transfer(
                world.group_id,
                (stored or Position()).updated({TopicPartition(topic, 0): offset}),
                stored,
                accept_skipped={topic: 100},
                live=world.kafka.live_topics(world.kind.topics),
            )
            write(target, stream, transfer)

    def act(run: Run) -> None:
        actor = world.sim.spawn(f"{run.name}.write", lambda: task(run), host="worker-1", is_task=True)
        world.sim.wait_for(lambda: actor.is_gone)
        run.failure = "" if actor.error is None else f"{type(actor.error).__name__}: {actor.error}"

    return act


def wake(s: Stage, name: str) -> None:
    s.hang(name, 0.0)
    s.run(name, for_s=5.0)


def written(s: Stage) -> list[int]:
    return [each.record.offset for each in s.world.sink.writes]


def test_a_late_write_to_the_jobs_own_store_is_named_by_the_next_plan() -> None:
    """B's job reads its start after the write of the command, which expects what B's plan saw."""
    with stage("dstream", position_store="zookeeper", records=6) as s:
        s.first_start()
        s.first_stop()
        s.append(30)
        s.start("cli", importing(s, 30))
        assert s.run("cli", until=at("store", "zk write", Side.BEFORE, by="cli"))
        s.hang("cli.write", 500.0)
        b = s.restart("B", take_over=True)
        assert s.run("B", until=at(*SPAWNED))
        assert s.run("driver-2", until=at("store", "zk position", Side.BEFORE, by="driver-2"))
        s.hang("driver-2", 10.0)
        wake(s, "cli.write")
        s.to_end(b)
        s.run(for_s=60.0)
        c = s.to_end(s.restart("C", take_over=True))
        assert "written late" in c.failure
        s.verdict()  # the records that the job passed over are then read after later ones
        assert set(written(s)) == set(range(36))


@pytest.mark.parametrize(
    "effect",
    [
        pytest.param(("store", "swap pipeline", 2), id="intent"),
        pytest.param(("checkpoint", "create offsets/", 1), id="seed"),
        pytest.param(("checkpoint", "create metadata", 1), id="end of the seed"),
        pytest.param(("checkpoint", "create offsets/", 3), id="close"),
        pytest.param(("checkpoint", "move to", 1), id="move aside"),
        pytest.param(("checkpoint", "move to", 2), id="move in place"),
    ],
)
def test_a_late_swap_does_not_move_a_job_that_another_operation_has_started(effect: tuple[str, str, int]) -> None:
    """The command hangs before this effect, and wakes up before B's driver has opened its checkpoint."""
    kind, name, number = effect
    with stage("untracked", records=6) as s:
        s.first_start()
        s.first_stop()
        s.append(24)
        s.start("cli", importing(s, 30))
        assert s.run("cli", until=at(kind, name, Side.BEFORE, by="cli", number=number))
        s.hang("cli.write", 900.0)
        b = s.restart("B", take_over=True)
        assert s.run("B", until=at(*SPAWNED))
        assert s.run("driver-2", until=at("checkpoint", "text metadata", Side.BEFORE, by="driver-2"))
        s.hang("driver-2", 10.0)
        wake(s, "cli.write")
        s.to_end(b)
        s.run(for_s=60.0)
        s.to_end(s.restart("C", take_over=True))
        s.append(3)
        s.run(for_s=60.0)
        assert s.verdict() == ""
        assert sorted(written(s)) == list(range(33))


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("then", ["command", "maintenance"])
def test_a_swap_that_was_killed_at_a_move_is_no_dead_end(number: int, then: str) -> None:
    with stage("untracked", records=6) as s:
        s.first_start()
        s.first_stop()
        s.append(6)
        s.start("cli", importing(s, 9))
        assert s.run("cli", until=at("checkpoint", "move to", Side.AFTER, by="cli", number=number))
        s.kill("cli.write")
        s.run("cli", for_s=1.0)
        if then == "command":
            assert s.to_end(s.start("again", importing(s, 9))).failure == ""
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        expected = [*range(6), *range(9 if then == "command" else 6, 12)]
        assert written(s) == expected


def test_an_import_where_the_checkpoint_is_gone_continues_the_batch_ids() -> None:
    """A file sink drops the records of a batch id that it knows."""
    with stage("untracked", records=12, file_sink=True) as s:
        s.first_start()
        s.run(for_s=60.0)
        s.first_stop()
        s.append(6)
        s.remove_checkpoints()
        assert s.to_end(s.start("cli", importing(s, 12))).failure == ""
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert s.verdict() == ""
        assert sorted(written(s)) == list(range(18))


def test_an_import_is_where_the_next_start_continues() -> None:
    """What a person has moved the position to, the next plan does not move back."""
    with stage("untracked", records=6) as s:
        s.first_start()
        s.first_stop()
        assert s.to_end(s.start("cli", importing(s, 3))).failure == ""
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert written(s) == [*range(6), *range(3, 6)]


@pytest.mark.parametrize("offset", [3, 9])
@pytest.mark.parametrize("store", ["history", "checkpoint"])
@pytest.mark.parametrize("mode", ["process", "sink"])
def test_an_import_into_what_a_tracked_job_has_recorded_is_refused(mode: str, store: str, offset: int) -> None:
    """The record decides where the job starts. A row that no batch wrote would stay in the audit for ever."""
    with stage(mode, records=6) as s:
        s.first_start()
        s.first_stop()
        s.append(6)
        into = s.world.inner if store == "history" else CheckpointPositions(s.world.checkpoint)
        cli = s.to_end(s.start("cli", importing(s, offset, into)))
        assert "InputRefused" in cli.failure
        assert "reprocess__orders" in cli.failure
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert written(s) == [*range(12)]
        assert s.verdict() == ""
