"""Scripted schedules: a test says who runs until which effect, and which fault happens there.

::

    stage = Stage("sink")
    stage.first_start()
    a = stage.restart("A")
    stage.run("A", until=at("machine", "spawn", Side.AFTER))    # A has launched driver-2, which has not run yet
    stage.restart_to_end("B", "shift:-3")
    stage.kill("driver-1")
    assert stage.verdict() == ""
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from tests.simulation import actors, product
from tests.simulation.actors import Run
from tests.simulation.history import Laboratory
from tests.simulation.product import Kind
from tests.simulation.scheduler import Actor, Host, Killed, Point, Side, Simulation, Violated

STEPS = 20_000


def at(kind: str, detail: str, side: Side = Side.BEFORE, *, by: str = "", number: int = 1) -> Callable[[Point], bool]:
    """Return a condition that holds at the ``number``-th effect of a kind whose detail contains this text.

    :param by: how the name of the actor begins; empty: any actor.
    """
    seen = 0

    def is_there(point: Point) -> bool:
        nonlocal seen
        fits = point.kind == kind and point.side is side and detail in point.detail and point.actor.name.startswith(by)
        seen += fits
        return fits and seen == number

    return is_there


class Stage(Laboratory):
    """One pipeline, whose actors do what the test says."""

    def __init__(self, mode: str = "process", *, records: int = 6, **kind: Any) -> None:
        self._installed: Any = None
        options = {"partitions": 1, "limit": 3, "batch_s": 0.0, "kill_timeout_s": None, **kind}
        super().__init__(Kind(mode=mode, **options), Simulation(step_limit=STEPS))
        self.sim.random = Random(0)
        self.append(records)

    def __enter__(self) -> Stage:
        self._installed = product.installed(self.world)
        self._installed.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.sim.end()
        self.world.close()
        self._installed.__exit__(*error)

    def append(self, count: int, topic: str = "", partition: int = 0) -> None:
        """Append records."""
        topic = topic or self.kind.topics[0]
        self.world.kafka.cluster.append(topic, partition, count, timestamp_ms=self.sim.now_ms())

    def start(self, name: str, act: Callable[[Run], None], host: str = "worker-1") -> Run:
        """Register a run; it starts when the test runs it."""
        return Run(self.world, name, (host,)).start(act)

    def container(self, host: str) -> str:
        """Return the name of a container on a machine's network: its host name and boot id, but other process ids."""
        machine = self.sim.host(host)
        name = f"container on {host}"
        self.sim.hosts[name] = Host(machine.name, machine.boot_id, pid_namespace=name)
        return name

    def restart(self, name: str, start: str = "committed", **options: Any) -> Run:
        """Register a maintenance, or a reprocess from ``start``."""
        return self.start(name, actors.restart(start, **options))

    def first_stop(self) -> Run:
        """Stop the job, as a person does who starts it later, with a snapshot of the stopped job."""
        return self.to_end(self.start("pause", actors.stop_and_look))

    def run(self, *who: str, until: Callable[[Point], bool] | None = None, for_s: float | None = None) -> bool:
        """Run the named actors and nobody else; return whether ``until`` was met.

        :param who: how their names begin: the name of a run stands for its tasks; no name: all.
        :param for_s: at most this long, in virtual time.
        """
        self.sim.allowed = (lambda actor: actor.name.startswith(who)) if who else None
        self.sim.step_limit = self.sim.step + STEPS
        end_s = None if for_s is None else self.sim.now_s + for_s
        runs = [each for each in self.sim.actors if each.name in who]
        try:
            return self.sim.run(
                until=until,
                stops=lambda: (
                    (end_s is not None and self.sim.now_s >= end_s)
                    or (until is None and for_s is None and bool(runs) and all(each.is_gone for each in runs))
                ),
            )
        finally:
            self.sim.allowed = None

    def to_end(self, run: Run, *who: str) -> Run:
        """Run a run and the named actors until the run is over; without names: everybody."""
        self.sim.allowed = (lambda actor: actor.name.startswith((run.name, *who))) if who else None
        self.sim.step_limit = self.sim.step + STEPS
        try:
            self.sim.run(stops=lambda: run.is_over)
        finally:
            self.sim.allowed = None
        assert run.is_over, f"{run.name} does not come to its end"
        self.only_own_errors(run)
        return run

    def first_start(self) -> Run:
        """Start the job for the first time, and wait until it has read all records."""
        run = self.to_end(self.restart("first"))
        self.run(for_s=20.0)
        return run

    def actor(self, name: str) -> Actor:
        """Return the newest actor whose name begins with this text."""
        return [each for each in self.sim.actors if each.name.startswith(name)][-1]

    def kill(self, name: str) -> None:
        """Kill the process of an actor."""
        self.sim.kill_process(self.actor(name).process)

    def give_up(self, run: Run) -> None:
        """End a run and its tasks, as marking it failed does."""
        assert run.actor is not None
        for each in self.sim.actors:
            if each.name == run.name or each.name.startswith(f"{run.name}."):
                self.sim.kill_process(each.process)
        run.is_over = True

    def fail(self, name: str, error: Exception | None = None) -> None:
        """Make the effect fail at which an actor waits: before it, or after it (a lost answer)."""
        self.actor(name).raises = error or product.unreachable("store")

    @property
    def job_runs(self) -> bool:
        """Whether a driver is alive."""
        return any(each.is_driver and not each.is_gone for each in self.sim.actors)

    def kill_in_batch(self, driver: str = "driver-1", count: int = 3) -> None:
        """Append records, and kill the driver when their output begins."""
        self.append(count)
        assert self.run(driver, until=at("sink", "", by=driver))
        self.kill(driver)

    def forget_positions(self, topic: str) -> None:
        """Delete the positions of a topic from the job's own store."""
        stored = self.world.positions.stored or product.Position()
        self.world.positions.stored = product.Position({key: at for key, at in stored.items() if key.topic != topic})

    def has_written(self, topic: str, end: int) -> bool:
        """Return whether every offset of the topic's first partition before ``end`` was written."""
        return all(self.world.sink.has(topic, 0, offset) for offset in range(end))

    def hang(self, name: str, seconds: float) -> None:
        """Suspend an actor at its effect for this long."""
        self.actor(name).wake_s = self.sim.now_s + seconds

    def remove_checkpoints(self) -> None:
        """Remove every checkpoint folder."""
        self.world.files.remove_tree(product.CHECKPOINT)
        for location in self.world.files.checkpoints(product.CHECKPOINT):
            self.world.files.remove_tree(location)

    def verdict(self) -> str:
        """Stop everything, and return what is wrong; empty if nothing is."""
        self.heal()
        try:
            kind, detail = self.judge()
        except Violated as violated:
            return str(violated)
        return f"{kind}: {detail}" if kind else ""


@contextmanager
def stage(mode: str = "process", **kind: Any) -> Iterator[Stage]:
    """Yield a stage with the product on its platform."""
    with Stage(mode, **kind) as made:
        yield made


__all__ = ["Killed", "Side", "Stage", "at", "stage"]
