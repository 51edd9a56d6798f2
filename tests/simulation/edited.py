"""Histories of edited pipelines: between operations, a person changes the pipeline's entry in ``pipelines.yaml``.

A seed draws the program of the first start, and one to three rounds of up to four acts. In a round, something happens
to the job: records, a partition, or the death of a driver at some effect. Somebody stops the job, prunes, or gives up
a restart. The pipeline's entry gets another program (``tracked``, ``offsets_in``) or other ``topics``, and the job is
restarted or rewound. The actors do not race: they do so in the other kinds of histories. The draws of an act do not
depend on the acts before it, so a failing history can be shrunk to the acts that it needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from airflow_provider_offsets.checkpoint.positions import CheckpointPositions
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.pruning import KeepPolicy
from airflow_provider_offsets.core.transfer import plan_transfer
from airflow_provider_offsets.operations.pruning import find_prunable, remove
from airflow_provider_offsets.operations.transferring import finish_interrupted, stopped_pipeline
from tests.simulation import actors, checker, product
from tests.simulation.actors import Run
from tests.simulation.chance import Happened
from tests.simulation.history import Outcome
from tests.simulation.scheduler import Point, Side, Violated
from tests.simulation.script import Stage, at

EDITED = "edited"
"""The name of this kind of histories."""
TOPICS = ("orders", "returns")
MOST_PARTITIONS = 4


def _program(mode: str, position_store: str = "", *, writes_beside: bool = False) -> dict[str, Any]:
    """Return the keys of a pipeline's entry that change with its program."""
    return {"mode": mode, "position_store": position_store, "writes_beside": writes_beside}


PROGRAMS = (
    (_program("process"), _program("sink"), _program("untracked"), _program("untracked")),
    (
        *(_program("process", writes_beside=True), _program("process"), _program("sink")),
        *(_program("dstream", "zookeeper"), _program("dstream", "zookeeper")),
    ),
)
"""The programs of a history: some keep their offsets in the checkpoint while they are untracked, some in ZooKeeper."""
ROUND = (
    ("append", "partitions", "kill driver", "kill driver", "kill in submit"),
    ("snapshot", "stop", "prune", "give up", "give up", "command", ""),
    ("program", "program", "topics", "topics"),
    ("restart", "restart", "rewind", "", ""),
)
"""The acts of a round, one of each line, all equally likely; empty: none."""
DEATHS = (
    ("sink", "", Side.BEFORE),
    ("sink", "", Side.AFTER),
    ("sink", "", Side.AFTER),
    ("store", "", Side.AFTER),
    ("checkpoint", "create offsets/", Side.AFTER),
    ("checkpoint", "create commits/", Side.BEFORE),
    ("checkpoint", "create commits/", Side.AFTER),
)
"""The effects at which a driver is killed; the first four for one without a checkpoint."""
CUTS = (
    ("machine", "spawn", Side.BEFORE),
    ("machine", "spawn", Side.AFTER),
    ("checkpoint", "move to", Side.AFTER),
    ("store", "zk write", Side.BEFORE),
    ("store", "zk write", Side.AFTER),
)
"""The effects at which a restart is given up."""


class EditedPipeline(Stage):
    """A pipeline that a person edits between its operations.

    :param seed: what happens.
    :param only: the acts that happen, by their numbers; None: all. Used to shrink a history.
    """

    def __init__(self, seed: int, only: frozenset[int] | None = None) -> None:
        self.seed, self.only = seed, only
        draw = self._draw("kind")
        self.programs = draw.choice(PROGRAMS)
        super().__init__(
            **draw.choice(self.programs),
            topics=TOPICS,
            partitions=draw.choice((1, 2)),
            limit=draw.choice((3, 4, 8)),
            runs_again=draw.random() < 0.3,
            kill_timeout_s=10,
        )
        self.append(4, "returns")
        self.rounds = draw.choice((1, 2, 2, 3))
        self.happened: list[Happened] = []
        self._runs = 0
        self.acts: dict[str, Callable[[Random], str]] = {
            "append": self._append,
            "partitions": self._add_partition,
            "kill driver": self._kill,
            "kill in submit": self._kill_in_submit,
            "snapshot": self._take_snapshot,
            "stop": self._stop_by_hand,
            "prune": self._prune,
            "give up": self._give_up,
            "command": self._command,
            "program": self._edit_program,
            "topics": self._edit_topics,
            "restart": self._restart,
            "rewind": self._rewind,
        }

    def outcome(self) -> Outcome:
        """Run the history, and return what came of it."""
        failure = detail = ""
        try:
            with self:
                self._play()
                failure, detail = self.judge()
        except (Violated, AssertionError) as violated:  # the assertions of a stage: a run does not come to its end
            failure, detail = getattr(violated, "what", "wedged"), str(violated)
        counts = Counter(each.what for each in self.happened)
        steps, passed = self.sim.step, self.sim.passed
        return Outcome(self.seed, EDITED, steps, counts, failure, detail, passed, self.happened, self.notes)

    def _play(self) -> None:
        started = self._restart(self._draw("first"))
        if "refused" in started:
            raise Violated("wedged", started)
        self.run(for_s=30.0)
        for number, names in enumerate(ROUND * self.rounds, start=1):
            draw = self._draw(f"act {number}")
            name = draw.choice(names)
            if not name or (self.only is not None and number not in self.only):
                continue
            if done := self.acts[name](draw):
                self.happened.append(Happened(number, name))
                self._note(f"{number}: {name}: {done}")
            self.run(for_s=draw.choice((1.0, 20.0)))
        self._edit(topics=TOPICS)
        self.heal()

    def expected(self) -> checker.Expected | None:
        """Return what the product has stored, with an end that it does not decide: all that is in Kafka was read."""
        found = super().expected()
        if found is not None:
            found.end |= self.world.kafka.ends(list(TOPICS))
        return found

    def _draw(self, what: str) -> Random:
        return Random(f"edited {self.seed} {what}")

    def _note(self, done: str) -> None:
        """Add what a person did to the trace."""
        self.sim.passed.append((self.sim.step, self.sim.now_s, "a person", "acts", None, "", done))

    def _run_named(self, letter: str) -> str:
        self._runs += 1
        return f"{letter}{self._runs}"

    def _partitions(self, topic: str) -> int:
        return len(self.world.kafka.cluster.live_topics([topic]).topics[0].partitions)

    def _feed(self, draw: Random, least: int) -> None:
        for topic in self.world.kind.topics:
            self.append(draw.randint(least, 4), topic)

    def _edit(self, **changes: Any) -> None:
        self.world.kind = replace(self.world.kind, **changes)

    def _done(self, run: Run) -> str:
        return f"{run.name} refused: {run.failure[:300]}" if run.failure else run.name

    # The acts: each returns what was done; empty: nothing.

    def _append(self, draw: Random) -> str:
        topic, count = draw.choice(self.world.kind.topics), draw.randint(1, 6)
        partition = draw.randrange(self._partitions(topic))
        self.append(count, topic, partition)
        return f"{count} records to {topic}[{partition}]"

    def _restart(self, draw: Random, start: str = "committed") -> str:
        return self._done(self.to_end(self.restart(self._run_named("R"), start, take_over=True)))

    def _rewind(self, draw: Random) -> str:
        start = f"shift:-{draw.choice((2, 3, 5))}"
        return f"{start}, {self._restart(draw, start)}"

    def _stop_by_hand(self, draw: Random) -> str:
        def act(run: Run) -> None:
            actors.take_over_and_stop(run)
            run.task("when_stopped", lambda: product.task_snapshot(self.world, run.name, "stopped"))

        return self._done(self.to_end(self.start(self._run_named("P"), act)))

    def _kill(self, draw: Random) -> str:
        deaths = DEATHS[:4] if self.world.kind.position_store else DEATHS
        (kind, detail, side), number = draw.choice(deaths), draw.choice((1, 1, 2))
        drivers = [each.name for each in self.sim.actors if each.is_driver and not each.is_gone]
        if not drivers:
            return ""
        self._feed(draw, 1)
        self.run(drivers[-1], until=at(kind, detail, side, by=drivers[-1], number=number), for_s=60.0)
        if self.actor(drivers[-1]).is_gone:
            return ""
        self.kill(drivers[-1])
        return f"{drivers[-1]} {side.value} {kind} {detail}".rstrip()

    def _kill_in_submit(self, draw: Random) -> str:
        """Kill the driver that a restart has launched, after its first output."""
        self._feed(draw, 1)
        run = self.restart(self._run_named("R"), take_over=True)

        def has_written(point: Point) -> bool:
            is_output = point.kind == "sink" and point.side is Side.AFTER
            return is_output and any(each.name.startswith(f"{run.name}.submit") for each in self.sim.actors)

        self.run(until=has_written, for_s=200.0)
        drivers = [each.name for each in self.sim.actors if each.is_driver and not each.is_gone]
        if drivers:
            self.kill(drivers[-1])
        return f"{' '.join(drivers[-1:])}, {self._done(self.to_end(run))}"

    def _give_up(self, draw: Random) -> str:
        """Start a restart from another position, and end it before the job reads from there."""
        start, (kind, detail, side) = draw.choice(("shift:-3", "shift:+2", "shift:+4")), draw.choice(CUTS)
        self._feed(draw, 1)
        run = self.restart(self._run_named("R"), start, accept_skipped=1000, take_over=True)
        self.run(until=at(kind, detail, side), for_s=200.0)
        self.give_up(run)
        return f"{run.name}, {start}, {side.value} {kind} {detail}"

    def _command(self, draw: Random) -> str:
        """Stop the job, and move its position in its own store, as a person does at the command line."""
        by, stopped = draw.choice((-3, -2, 2)), self._stop_by_hand(draw)
        self._feed(draw, 2)
        return f"{stopped}, {by:+}, {self._done(self.to_end(self.start(self._run_named('C'), self._importing(by))))}"

    def _importing(self, by: int) -> Callable[[Run], None]:
        world = self.world

        def write(operation: str) -> None:
            own = world.positions if world.kind.position_store else CheckpointPositions(world.checkpoint)
            stream, live = world.pipeline.stream, world.kafka.live_topics(world.kind.topics)
            with stopped_pipeline(world.session(operation), take_over=True) as carry_out:
                finish_interrupted(own)
                now = own.position(stream) or Position()
                ends = {key: live.end[key] for key in now if key in live.end}
                to = now.updated({key: min(max(0, now[key] + by), end) for key, end in ends.items()})
                accepted = dict.fromkeys(world.kind.topics, 1000)
                if now:
                    carry_out(own, stream, plan_transfer(world.group_id, to, now, accept_skipped=accepted, live=live))

        return lambda run: run.task("write", lambda: write(run.name))

    def _edit_program(self, draw: Random) -> str:
        program = draw.choice(self.programs)
        self._edit(**program)
        return " ".join(f"{name}={value}" for name, value in program.items() if value)

    def _edit_topics(self, draw: Random) -> str:
        topics = draw.choice((TOPICS, TOPICS[:1], TOPICS[1:]))
        self._edit(topics=topics)
        return ", ".join(topics)

    def _add_partition(self, draw: Random) -> str:
        topic, records = draw.choice(TOPICS), draw.randint(0, 4)
        count = self._partitions(topic) + 1
        if count > MOST_PARTITIONS:
            return ""
        self.world.kafka.cluster.add_partitions(topic, count)
        self.append(records, topic, count - 1)
        return f"{topic} has {count}, and {records} records in the new one"

    def _take_snapshot(self, draw: Random) -> str:
        return self._done(self.to_end(self.start(self._run_named("S"), actors.snapshot_only)))

    def _prune(self, draw: Random) -> str:
        """Remove what a policy that keeps as little as possible does not retain."""
        keeping = replace(self.world.pipeline, keep=KeepPolicy(snapshots=1, checkpoints=2))
        control = Control(self.world.inner, self.world.name)
        with self.sim.quietly():
            found = find_prunable(control, keeping, at_ms=self.sim.now_ms())
            remove(control, keeping, found)
        return f"snapshots {', '.join(found.snapshots)}; checkpoints {', '.join(map(str, found.checkpoints))}"


def run_edited(seed: int, only: frozenset[int] | None = None) -> Outcome:
    """Run the history of a seed."""
    return EditedPipeline(seed, only).outcome()
