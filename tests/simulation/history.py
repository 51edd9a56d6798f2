"""One history: from a seed to a verdict."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from airflow_provider_offsets.core.sink.audit import SinkVerdict
from tests.simulation import actors, backfill, checker, product
from tests.simulation.actors import Run
from tests.simulation.backfill import Interval
from tests.simulation.chance import FAULTS, Rates, SeededChooser
from tests.simulation.platform import Record
from tests.simulation.product import Kind, World
from tests.simulation.scheduler import NEVER, Simulation, Step, Violated

MODES = ("process", "sink", "untracked", "dstream", "backfill", "late")
"""The kinds of histories. *late*: a process or untracked job, and tries that wake up long after they were lost."""
RUNS = (
    *("maintenance", "maintenance", "maintenance", "reprocess", "reprocess", "forward"),
    *("stop", "plan", "audit", "cleared", "undone"),
)
"""The kinds of runs in a history, all equally likely."""
WAYS_OUT = ("committed", "committed", "shift:-1", "")
"""The starts that a person tries until the job runs again; from the second on they accept losses. The last one is the
position of Spark's checkpoint, for a history that is behind it."""
ADVICE = re.compile(r"start from '(offsets:[^']*)'")
"""The start in the advice of a refusal, which the person follows."""
AS_A_NEW_ONE = "describe the job as a new pipeline"
"""The advice of a refusal where stored offsets have become meaningless."""
REST_OF_CHECKPOINT = re.compile(r"CheckpointError: (\S+) has .* remove what is left of it")
"""The advice of a refusal after a person removed a checkpoint to which an operation was writing."""
CONFLICT = "set on_conflict to authoritative-store"
"""The advice of a refusal to a person who knows which of two stores is right."""
LONG_HANGS = (30.0, 400.0, 900.0)
"""How long processes hang in a late history, in seconds: longer than later runs take."""
LATE_FAULTS = ("hang", "hang", "hang", "kill", "error", "lost answer")
MAIN_STEPS, MORE_STEPS = 2500, 12_000
CATCH_UP_S = 400.0


@dataclass
class Outcome:
    """The outcome of one history."""

    seed: int
    mode: str
    steps: int
    faults: Counter[str]
    failure: str = ""
    """The kind of what is wrong; empty if nothing is."""
    detail: str = ""
    passed: Sequence[tuple[Any, ...]] = ()
    """The fields of each step of the trace."""
    happened: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def trace(self) -> list[Step]:
        """Each effect point, and what happened there."""
        return [Step(*each) for each in self.passed]

    @property
    def digest(self) -> str:
        """The name of this history: two runs of one seed have the same name."""
        text = "\n".join([*map(str, self.trace), self.failure, self.detail])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Draw:
    """What a seed draws before anything happens."""

    kind: Kind
    rates: Rates
    runs: list[tuple[str, Callable[[Run], None]]]
    hosts: tuple[str, ...]
    first_is_quiet: bool
    intervals: dict[str, Interval] = field(default_factory=dict)
    """The backfills among the runs."""


def draw_history(seed: int, modes: Sequence[str]) -> Draw:
    """Draw the kind of a history, its actors and its rates."""
    draw = Random(f"history {seed}")
    drawn = draw.choice(modes)
    more = _More(Random(f"more {seed}"))
    mode = {"backfill": "process", "late": "untracked" if seed % 3 == 0 else "process"}.get(drawn, drawn)
    kind = Kind(
        mode=mode,
        topics=draw.choice((("orders",), ("orders",), ("orders", "returns"))),
        partitions=draw.choice((1, 2, 2, 3)),
        limit=draw.choice((4, 8, 16)),
        position_store="zookeeper" if mode == "dstream" else "",
        file_sink=mode == "sink" and draw.random() < 0.3,
        kill_timeout_s=draw.choice((None, 10)),
        batch_s=draw.choice((0.0, 1.0, 5.0)),
        runs_again=draw.random() < 0.15,
        adopted=mode in ("process", "sink") and draw.random() < 0.1,
        store="sql" if seed % 10 == 0 else draw.choice(("memory", "memory", "split")),
        writes_beside=mode in ("process", "untracked") and drawn != "backfill" and more.is_drawn(0.15),
        retain=more.random.choice((100, 100, 100, 4, 2)),
        has_launcher=mode in ("process", "sink") and drawn != "backfill" and more.is_drawn(0.2),
    )
    faults = tuple(each for each in FAULTS if draw.random() < (0.1 if each == "lie" else 0.6))
    if mode in ("untracked", "dstream"):  # nothing can fence a program without epochs: outside of the claim
        faults = tuple(each for each in faults if each != "lie")
    steps = (
        "append",
        "append",
        *(each for each in ("partitions", "retention", "checkpoint gone", "truncate") if draw.random() < 0.2),
        *more.steps(kind),
    )
    rates = Rates(
        switch=draw.choice((0.05, 0.2, 0.5)),
        fault=draw.choice((0.0005, 0.002, 0.005, 0.01)) if faults else 0.0,
        step=draw.choice((0.005, 0.02)),
        faults=faults,
        steps=steps,
    )
    count = draw.choice((1, 2, 2, 3))
    runs = [_draw_run(draw, number) for number in range(count)]
    if draw.random() < 0.5:
        runs.append(("watch", actors.recover()))
    intervals: dict[str, Interval] = {}
    if drawn == "backfill":
        runs = runs[:1]
        for number in range(draw.choice((1, 2, 3))):
            intervals[f"backfill/{number}"] = Interval(number)
            attempts, pause_s = draw.choice((1, 1, 2)), draw.choice((0.0, 30.0))
            runs.append((f"backfill/{number}", backfill.backfill(Interval(number), attempts=attempts, pause_s=pause_s)))
    if drawn == "late":
        rates = replace(rates, hangs=LONG_HANGS, faults=LATE_FAULTS, fault=0.01, step=0.005)
        runs = [(f"{name}/{number}", act) for number, (name, act) in enumerate(_late_runs(more.random))]
    return Draw(
        kind,
        rates,
        runs,
        draw.choice((("worker-1",), ("worker-1", "worker-1", "worker-2"))),
        draw.random() < 0.7,
        intervals,
    )


@dataclass
class _More:
    """Separate draws, so that an addition here leaves the other draws of a seed as they are."""

    random: Random

    def is_drawn(self, rate: float) -> bool:
        """Return whether an event of this rate is drawn."""
        return self.random.random() < rate

    def steps(self, kind: Kind) -> Iterator[str]:
        """Yield the rare external events of a history."""
        if self.is_drawn(0.15):
            yield "recreate"
        if kind.mode == "dstream" and self.is_drawn(0.4):
            yield "commits gone"
        if kind.has_launcher:
            yield "launcher gone"


def _draw_run(draw: Random, number: int) -> tuple[str, Callable[[Run], None]]:
    name = draw.choice(RUNS)
    back, take_over = draw.choice((3, 7, 20)), draw.random() < 0.5
    acts = {
        "maintenance": actors.restart(take_over=take_over),
        "reprocess": actors.restart(f"shift:-{back}", accept_lost=100, take_over=take_over),
        "forward": actors.restart(f"shift:+{back}", accept_skipped=100, take_over=take_over),
        "stop": actors.take_over_and_stop if take_over else actors.stop_only,
        "plan": actors.plan_only,
        "audit": actors.audit_only,
        "cleared": actors.cleared(
            lambda attempt: actors.restart(f"shift:-{back}", accept_lost=100, take_over=take_over, attempt=attempt),
            draw.choice((0.0, 30.0)),
        ),
        "undone": actors.undone(actors.restart(f"shift:-{back}", accept_lost=100, take_over=take_over)),
    }
    return f"{name}/{number}", acts[name]


def _late_runs(draw: Random) -> Iterator[tuple[str, Callable[[Run], None]]]:
    """Yield runs of which some begin while a lost try of an earlier one hangs."""
    acts = {
        "maintenance": actors.restart(take_over=True),
        "stop": actors.take_over_and_stop,
        "stop and write": actors.stop_and_write,
    }
    yield "maintenance", acts["maintenance"]
    for name in draw.choices(tuple(acts), k=draw.choice((2, 3))):
        yield name, actors.paused(acts[name], draw.choice((30.0, 60.0, 350.0)))


class Laboratory:
    """A pipeline on its platform, and its final checks once all events of the history have happened."""

    def __init__(self, kind: Kind, sim: Simulation) -> None:
        self.kind, self.sim = kind, sim
        self.world = World(sim, kind, make_store_of(kind.store))
        self.notes: list[str] = []
        self.recreated: dict[str, str] = {}
        """Topics that were recreated since the job was described: name by new id."""
        self._launched_beside: set[str] = set()
        """Runs that were starting the job when a topic was recreated, after they had checked its id."""
        self.removed: set[str] = set()
        """Checkpoints that were removed."""
        self._former = "", ""
        """What is wrong with a former pipeline."""
        self._described_at = 0
        """How many records were written before the job got its current description."""
        self._caught_up_s = NEVER
        for name in ("scheduler", "worker-1", "worker-2"):
            sim.host(name)

    def heal(self) -> None:
        """End all lasting faults."""
        self.world.table.seen_gone.clear()
        for actor in self.sim.actors:
            if actor.wake_s > self.sim.now_s + 5.0 and not actor.is_gone:
                actor.wake_s = self.sim.now_s

    def judge(self) -> tuple[str, str]:
        """Stop the pipeline without faults, and return what is wrong as a kind and a text, or nothing."""
        self.rest()
        return self._former if self._former[0] else self._verdict()

    def _verdict(self) -> tuple[str, str]:
        """Return what is wrong with what the pipeline wrote since it was described, or nothing."""
        expected = self.expected()
        if expected is None:
            return "", ""
        with self.sim.quietly():
            audit = product.audit_of(self.world)
            sink = product.sink_audit_of(self.world)
        written = [
            ((each.record.topic, each.record.partition), each.record.offset)
            for each in self.world.sink.writes[self._described_at :]
            if not each.run and self._is_there_still(each.record)
        ]
        verdict = checker.judge(written, expected, audit)
        for name, found in vars(verdict).items():
            if found:
                return name, str(verdict)
        if sink.verdict is SinkVerdict.REFUTED and len(self.world.modes) < 2:
            return "false_alarms", f"the sink has every record, and its audit says {sink}"
        return self._miscounted(audit)

    def _miscounted(self, audit: Mapping[str, Any]) -> tuple[str, str]:
        """Return what the audit says of rows that were not written. The program writes every record that it reads."""
        written, counted = sum(not each.run for each in self.world.sink.writes), audit["rows_written"] or 0
        if counted > written:
            return "miscounted", f"audit says rows_written={counted}, and the sink has {written}"
        return ("miscounted", str(audit["warnings"])) if audit["warnings"] else ("", "")

    def expected(self) -> checker.Expected | None:
        """Return what the product has stored; None before the first start."""
        return product.expected_of(self.world)

    def _is_there_still(self, record: Record) -> bool:
        """Return whether the offset of a record was not given to another one by a truncation of the log."""
        return self.world.kafka.era(record.topic_id, record.partition, record.offset) == record.era

    def rest(self) -> None:
        """Start the job once more, wait until it has read everything, and stop it. Follow the advice of refusals.

        :raises Violated: no plan is accepted, or the job cannot be started or stopped.
        """
        advised, is_in_conflict = "", False
        ways = list(WAYS_OUT)
        for number in range(2 * len(WAYS_OUT)):
            if not ways:
                raise Violated("wedged", "; ".join(self.notes[-4:]))
            named = ways.pop(0)
            start = advised or named or f"{product.checkpoint_offsets(self.world)} | committed"
            act = actors.restart(
                start,
                accept_lost=number * 1000,
                accept_skipped=0 if named else 1000,
                take_over=True,
                on_conflict="authoritative-store" if is_in_conflict else "refuse",
            )
            run = self.run_to_end(f"final/{number}", act)
            advice = ADVICE.search(run.failure)
            advised = "" if advice is None else advice[1]
            is_in_conflict = is_in_conflict or CONFLICT in run.failure
            if run.is_over and not run.failure:
                break
            self.notes.append(f"{run.name}: {run.failure or 'does not end'}")
            if (rest := REST_OF_CHECKPOINT.search(run.failure)) is not None and rest[1] in self.removed:
                self.removed.remove(rest[1])
                self.world.files.remove_tree(rest[1])
                ways = list(WAYS_OUT)
            if AS_A_NEW_ONE in run.failure and self.recreated:
                advised, ways = self._describe_as_new_pipeline(), list(WAYS_OUT)
        until_s = self.sim.now_s + CATCH_UP_S
        self.sim.step_limit = self.sim.step + MORE_STEPS
        self._caught_up_s = NEVER
        self.sim.run(stops=lambda: self.sim.now_s > until_s or self._has_caught_up())
        self._stop("end")

    def _stop(self, name: str) -> None:
        """Stop the job.

        :raises Violated: it cannot be stopped.
        """
        for number in range(2):
            run = self.run_to_end(f"{name}/{number}", actors.take_over_and_stop)
            if not run.failure:
                return
        raise Violated("wedged", f"the last stop: {run.failure}")

    def _describe_as_new_pipeline(self) -> str:
        """Leave the pipeline and describe its job as a new one, as a refusal advises; return where the new one starts.

        For an unchanged topic, the new pipeline starts at the position of the former one.

        :raises Violated: the former pipeline has read the topic that was recreated, and no run has reported that.
        """
        self._stop("former")
        is_reported = any("was recreated during the start" in each for each in self.notes)
        is_unseen = any(each.startswith(f"{run}: ") for each in self.notes for run in self._launched_beside)
        for write in self.world.sink.writes[self._described_at :]:
            if write.record.topic_id in self.recreated and not write.run and not is_reported and not is_unseen:
                raise Violated(
                    "wrong topic", f"{write.record} was read by a pipeline that has offsets of the former one"
                )
        self._former = self._verdict()
        stood = product.position_of(self.world)
        same = {key: offset for key, offset in stood.items() if key[0] not in self.recreated.values()}
        self.world.describe_as_new_pipeline()
        self._described_at = len(self.world.sink.writes)
        self.recreated, self._launched_beside = {}, set()
        return f"{product.offsets_text(same)} | committed" if same else ""

    def recreate(self, topic: str, partitions: int) -> None:
        """Delete a topic, and create it again without records."""
        self._launched_beside |= self.launching()
        self.world.kafka.cluster.recreate_topic(topic, partitions)
        self.recreated[self.world.kafka.topic_id(topic)] = topic
        for key in [each for each in self.world.sink.furthest if each[0] == topic]:
            del self.world.sink.furthest[key]

    def launching(self) -> set[str]:
        """Return the runs of which a task may have checked what is about to change, and be about to launch."""
        tasks = [each.name for each in self.sim.actors if each.is_task and not each.is_gone]
        return {each.split(".")[0] for each in tasks if ".submit~" in each or ".roll_back~" in each}

    def run_to_end(self, name: str, act: Callable[[Run], None]) -> Run:
        """Run one run to its end, with other actors beside it."""
        run = Run(self.world, name, (product.host_of_job(self.world),)).start(act)
        self.sim.step_limit = self.sim.step + MORE_STEPS
        self.sim.run(stops=lambda: run.is_over)
        self.only_own_errors(run)
        return run

    def only_own_errors(self, run: Run) -> None:
        """Check that a run that failed did so by an error of the product or of the platform.

        :raises Violated: it failed by a bare exception.
        """
        error = run.failed
        if error is not None and not product.is_product_error(error) and not isinstance(error, RuntimeError | OSError):
            raise Violated("bare error", f"{run.name}: {type(error).__name__}: {error}") from error

    def feed(self, draw: Random, count: int) -> None:
        """Append some records to each partition."""
        cluster = self.world.kafka.cluster
        for topic in self.kind.topics:
            for partition in range(len(cluster.live_topics([topic]).topics[0].partitions)):
                cluster.append(topic, partition, draw.randint(1, count), timestamp_ms=self.sim.now_ms())

    def _has_caught_up(self) -> bool:
        """Return whether everything in Kafka was written, and some time has passed since."""
        sink, ends = self.world.sink, self.world.kafka.cluster.live_topics(self.kind.topics).end
        caught_up = all(sink.furthest.get(key, 0) >= end for key, end in ends.items())
        self._caught_up_s = min(self._caught_up_s, self.sim.now_s) if caught_up else NEVER
        return self.sim.now_s > self._caught_up_s + 30.0


class History(Laboratory):
    """Runs one history."""

    def __init__(self, seed: int, modes: Sequence[str], only: frozenset[int] | None = None) -> None:
        self.seed, self.drawn = seed, draw_history(seed, modes)
        super().__init__(self.drawn.kind, Simulation(step_limit=MAIN_STEPS))
        self.sim.random = Random(f"ids {seed}")
        self.chooser = SeededChooser(seed, self.drawn.rates, self._world_step, product.unreachable, only)
        self.chooser.lies, self.chooser.on_lie = self.world.table.seen_gone, self._lied
        self.runs: list[Run] = []

    def run(self) -> Outcome:
        """Run it, and return what came of it."""
        failure = detail = ""
        try:
            with product.installed(self.world):
                self._play()
                failure, detail = self.judge()
        except Violated as violated:
            failure, detail = violated.what, str(violated)
        finally:
            self.sim.end()
            self.world.close()
        return Outcome(
            self.seed,
            "backfill" if self.drawn.intervals else self.kind.mode,
            self.sim.step,
            self.chooser.counts,
            failure,
            detail,
            self.sim.passed,
            self.chooser.happened,
            self.notes,
        )

    def _lied(self) -> None:
        self.world.has_lied = True

    def judge(self) -> tuple[str, str]:
        """Judge the live job, and the replays beside it."""
        found = super().judge()
        if found[0] or not self.drawn.intervals:
            return found
        return backfill.judge(self.world, self.truth, self.drawn.intervals)

    def _play(self) -> None:
        if self.drawn.intervals:
            self.truth = backfill.feed(self.world, Random(f"feed {self.seed}"), 3)
        else:
            self.feed(Random(f"feed {self.seed}"), 12)
        if self.kind.adopted:
            self.world.run_before(Random(f"before {self.seed}").randrange(3))
        if self.drawn.first_is_quiet:
            self.run_to_end("first", actors.restart())
        self.sim.chooser = self.chooser
        draw = Random(f"runs {self.seed}")
        for name, act in self.drawn.runs:
            self.runs.append(Run(self.world, name, self.drawn.hosts, Random(f"{name} {self.seed}")).start(act))
            self.runs[-1].actor.wake_s = draw.choice((0.0, 0.0, 5.0, 20.0, 40.0, 100.0))  # type: ignore[union-attr]
        self.sim.run(stops=lambda: all(run.is_over for run in self.runs))
        self.chooser.is_healed = True
        self.heal()
        self.sim.step_limit = self.sim.step + MORE_STEPS
        self.sim.run(stops=lambda: all(run.is_over for run in self.runs))
        for run in self.runs:
            if not run.is_over:
                raise Violated("wedged", f"{run.name} does not come to its end")
            if run.failure:
                self.notes.append(f"{run.name}: {run.failure}")
            self.only_own_errors(run)

    def _world_step(self, name: str, draw: Random) -> str:
        cluster = self.world.kafka.cluster
        topic = draw.choice(self.drawn.kind.topics)
        live = cluster.live_topics([topic]).topics[0]
        partition = draw.randrange(len(live.partitions))
        there = live.partitions[partition]
        if name == "append":
            count = draw.randint(1, 12)
            cluster.append(topic, partition, count, timestamp_ms=self.sim.now_ms())
            return f"{count} records to {topic}[{partition}]"
        if name == "partitions" and len(live.partitions) < 5:
            cluster.add_partitions(topic, len(live.partitions) + 1)
            cluster.append(topic, len(live.partitions), draw.randint(0, 5), timestamp_ms=self.sim.now_ms())
            return f"{topic} has {len(live.partitions) + 1} partitions"
        if name == "retention" and there.end > there.begin:
            until = draw.randint(there.begin, min(there.end, there.begin + 10))
            cluster.delete_records_before(topic, partition, until)
            return f"retention deletes {topic}[{partition}] before {until}"
        when_stopped = not any(each.is_driver and not each.is_gone for each in self.sim.actors)
        if name == "truncate" and when_stopped and self.kind.mode in ("process", "sink") and not self.drawn.intervals:
            expected = product.expected_of(self.world)
            # A truncation of read records is invisible once the log has grown beyond it again: outside of the claim.
            read = max(
                self.world.sink.furthest.get((topic, partition), 0),
                self.world.files.furthest_planned(topic, partition),
            )
            stands = max(there.begin, read, 0 if expected is None else expected.end.get((topic, partition), 0))
            if stands < there.end:
                end = draw.randint(stands, there.end)
                self.world.kafka.truncate(topic, partition, end)
                return f"{topic}[{partition}] is truncated to {end}"
        if name in ("checkpoint gone", "commits gone", "recreate") and when_stopped:
            return self._remove(name, topic, draw)
        if name == "launcher gone":
            return self._kill_launcher(draw)
        return ""

    def _remove(self, name: str, topic: str, draw: Random) -> str:
        """Remove something from a stopped job; return what was removed."""
        if not product.newest_epoch_number(self.world):  # nothing is known of a job that never ran
            return ""
        world, is_tracked = self.world, self.kind.mode in ("process", "sink")
        if name == "recreate":
            if self.recreated or self.drawn.intervals:
                return ""
            self.recreate(topic, draw.randint(1, 4))
            return f"{topic} is deleted and created again"
        # Nobody can see which start an untracked program has found: outside of the claim.
        if not is_tracked and self.launching():
            return ""
        if name == "commits gone" and world.positions.stored:
            left = {key: offset for key, offset in world.positions.stored.items() if key.topic != topic}
            world.positions.stored = product.Position(left) if left else None
            return f"the offsets of {topic} are gone"
        found = world.files.checkpoints(world.checkpoint)
        if name == "checkpoint gone" and not is_tracked:
            is_moving = product.record_of(world).get("intent") is not None
            found = [each for each in found if each == world.checkpoint and not is_moving]
        if name == "checkpoint gone" and found:
            gone = draw.choice(found)
            world.files.remove_tree(gone)
            self.removed.add(gone)
            return f"{gone} is gone"
        return ""

    def _kill_launcher(self, draw: Random) -> str:
        """Kill the Java process of a driver, whose Python process runs until it needs Java."""
        drivers = {each.process for each in self.sim.actors if each.is_driver and not each.is_gone}
        leaders = self.world.table.leaders
        found = sorted({leaders[each] for each in drivers if each in leaders and self.sim.is_alive(leaders[each])})
        if not found or self.chooser.kills_left <= 0:
            return ""
        self.chooser.kills_left -= 1
        victim = draw.choice(found)
        self.sim.kill_process(victim)
        return f"launcher {victim} is killed"


def make_store_of(name: str) -> Callable[[], Any]:
    """Return a function that opens the store of a history: in memory, or on a SQLite file of its own."""
    return product.new_sql_store if name == "sql" else product.new_memory_store


def run_history(seed: int, modes: Sequence[str], only: frozenset[int] | None = None) -> Outcome:
    """Run the history of a seed."""
    return History(seed, modes, only).run()
