"""Backfills in a history: several intervals at once, their shards in parallel, beside the live job; and their check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulation import product
from tests.simulation.actors import Run, TaskFailed
from tests.simulation.platform import Write
from tests.simulation.product import World
from tests.simulation.scheduler import EPOCH_START_MS

INTERVAL_S = 600
Place = tuple[str, int, int]
"""Topic, partition and offset."""


@dataclass(frozen=True)
class Interval:
    """One data interval, by its number."""

    number: int

    @property
    def start_ms(self) -> int:
        """The first instant of the interval."""
        return EPOCH_START_MS + self.number * INTERVAL_S * 1000

    @property
    def end_ms(self) -> int:
        """The first instant after the interval."""
        return self.start_ms + INTERVAL_S * 1000


@dataclass
class Truth:
    """Which records belong to which interval, by their times."""

    of_interval: dict[int, set[Place]]


def feed(world: World, draw: Random, intervals: int) -> Truth:
    """Append records of each interval in the order of their times, advance the time, and return the records."""
    cluster, places = world.kafka.cluster, {}
    for number in range(intervals):
        mine = places.setdefault(number, set())
        for topic in world.kind.topics:
            for partition, there in enumerate(cluster.live_topics([topic]).topics[0].partitions):
                count = draw.choice((0, 3, 6, 10))
                at_ms = Interval(number).start_ms + draw.randrange(INTERVAL_S * 1000)
                if count:
                    cluster.append(topic, partition, count, timestamp_ms=at_ms)
                mine |= {(topic, partition, offset) for offset in range(there.end, there.end + count)}
    world.sim.now_s = intervals * INTERVAL_S + 60.0
    return Truth(places)


def backfill(interval: Interval, *, attempts: int = 1, pause_s: float = 0.0) -> Callable[[Run], None]:
    """Return the tasks of one backfill run: plan, the shards in parallel, audit.

    :param attempts: how often the run is cleared and run again, plus one.
    """

    def act(run: Run) -> None:
        for attempt in range(1, attempts + 1):
            try:
                _attempt(run, interval, str(attempt))
            except TaskFailed as failed:
                run.failure = str(failed)
            run.world.sim.wait_for(lambda: False, at_most_s=pause_s)

    return act


def _attempt(run: Run, interval: Interval, key: str) -> None:
    world = run.world
    plan = run.task(
        "plan", lambda: product.task_plan_backfill(world, run.name, interval.start_ms, interval.end_ms, key)
    )
    mapped = [
        Run(world, f"{run.name}[{number}]", run.hosts, Random(f"{run.name} {number}")).start(
            _shard(run.name, plan, number)
        )
        for number in range(len(plan.shards))
    ]
    world.sim.wait_for(lambda: all(each.is_over for each in mapped))
    for each in mapped:
        if each.failed is not None:
            raise TaskFailed(each.name, each.failed)
    run.stopped = run.task("audit", lambda: product.task_audit_backfill(world, run.name))


def _shard(operation: str, plan: Any, number: int) -> Callable[[Run], None]:
    def act(run: Run) -> None:
        run.task("replay", lambda: product.task_replay_shard(run.world, operation, plan, number))

    return act


def judge(world: World, truth: Truth, runs: dict[str, Interval]) -> tuple[str, str]:
    """Compare what the replays wrote with the records of their intervals; return what is wrong, or nothing.

    Only the newest attempt of each interval counts. It must have each retained record of its interval, and none of
    another interval. An attempt without interrupted batches in its audit has each record once.
    """
    taken: dict[Place, str] = {}
    for name, interval in sorted(runs.items()):
        audit = product.audit_of_backfill(world, name)
        if audit is None:
            continue
        written = Counter(_place(each) for each in world.sink.writes if each.run == audit["run_id"])
        found = _of_one(name, audit, written, truth.of_interval[interval.number] - product.deleted_places(world))
        foreign = sorted(place for place in written if place in _others(truth, interval.number))
        if foreign:
            found = "duplicated", f"{name} replays {foreign[:4]}, which are of another interval"
        twice = sorted(place for place in written if place in taken)
        if twice:
            found = "duplicated", f"{twice[:4]} are replayed by {name} and by {taken[twice[0]]}"
        if found[0]:
            return found
        taken |= dict.fromkeys(written, name)
    return "", ""


def _of_one(name: str, audit: dict[str, Any], written: Counter[Place], expected: set[Place]) -> tuple[str, str]:
    """Compare one attempt with its audit. A batch that no driver recorded as finished may be written nevertheless."""
    missing = sorted(expected - set(written))
    if audit["is_clean"] and missing:
        return "lost", f"{name}: its audit is clean, and {missing[:4]} of {len(missing)} were not replayed"
    if not audit["is_clean"] and not missing and audit["shards_done"] == audit["shards"]:
        return "false_alarms", f"{name}: nothing is missing, and its audit says {audit['findings']}"
    again = sorted(place for place, count in written.items() if count > 1)
    if again and not audit["cut_off"]:
        return "unexplained", f"{name} wrote {again[:4]} again, and its audit tells of no cut"
    return "", ""


def _others(truth: Truth, number: int) -> set[Place]:
    return {place for each, places in truth.of_interval.items() if each != number for place in places}


def _place(write: Write) -> Place:
    return write.record.topic, write.record.partition, write.record.offset
