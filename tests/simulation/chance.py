"""What a seed decides: which actor continues, what fails, and which external events happen meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.simulation.scheduler import Actor, Chooser, Killed, Point, Side, Simulation

FAULTS = ("error", "lost answer", "hang", "kill", "kill driver", "clock jump", "down", "lie")
STEPS = ("append", "partitions", "retention", "recreate", "truncate", "checkpoint gone", "commits gone")

CAN_FAIL = {"store", "kafka", "checkpoint", "machine", "sink", "file"}


WRITES = ("swap", "check_and_put", "append", "create", "move", "remove", "write", "spawn", "put", "take settings")
WEIGHT_OF_WRITES = 6.0
DEATH_RATE = 0.3
"""How often a driver dies before one of the effects of ``Rates.deaths``."""


def _weight(point: Point) -> float:
    """Return how much likelier a fault is here than at a read: a fault at a write leaves something half done."""
    return WEIGHT_OF_WRITES if point.kind == "sink" or point.detail.startswith(WRITES) else 1.0


@dataclass(frozen=True)
class Rates:
    """How often faults and events happen, by effect point.

    Each history draws its own rates: some have few, some many.
    """

    switch: float = 0.3
    """How often another actor continues at a point."""
    fault: float = 0.01
    step: float = 0.02
    faults: tuple[str, ...] = ("error", "lost answer", "hang", "kill", "kill driver", "clock jump", "down")
    steps: tuple[str, ...] = ("append",)
    hangs: tuple[float, ...] = (5.0, 30.0, 120.0, 400.0)
    """How long a process hangs, in seconds."""
    deaths: tuple[str, ...] = ()
    """Effects before which drivers die often, by the beginnings of their details. Only mutants set it."""


@dataclass
class Happened:
    """A fault, or an external event, that happened."""

    step: int
    what: str


@dataclass
class SeededChooser(Chooser):
    """A chooser that draws from a seed.

    :param only: the effect points where something may happen; None: all. Used to shrink a history.
    """

    seed: int
    rates: Rates
    world_step: Callable[[str, Random], str] = lambda name, draw: ""
    error: Callable[[str], Exception] = lambda kind: OSError(kind)
    only: frozenset[int] | None = None
    happened: list[Happened] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    is_healed: bool = False
    lies: set[int] = field(default_factory=set)
    """Living processes that the machine reports as dead."""
    on_lie: Callable[[], None] = lambda: None
    down_until_s: dict[str, float] = field(default_factory=dict)
    kills_left: int = 6

    def __post_init__(self) -> None:
        self._what = Random(f"what {self.seed}")
        self._fails = Random(f"fails {self.seed}")

    def event(self, sim: Simulation, point: Point) -> str:
        """Make something happen at a point, or nothing."""
        happens, fails = self._what.random(), self._fails.random()
        if self.is_healed:
            return ""
        if (until_s := self.down_until_s.get(point.kind, 0.0)) > sim.now_s and point.side is Side.BEFORE:
            raise self._failing(self.error(point.kind), "down")
        if self.only is not None and point.step not in self.only:
            return ""
        if self.rates.deaths and self._is_deadly(point):
            return self._kill(sim, point, self._what, "kill")
        if happens < self.rates.step and self.rates.steps:
            return self._step(point)
        if fails < self.rates.fault * WEIGHT_OF_WRITES and fails < self.rates.fault * _weight(point):
            return self._fault(sim, point, until_s)
        return ""

    def next_actor(self, sim: Simulation, actor: Actor) -> Actor:
        """Return the actor that continues."""
        drawn = self._what.random()
        if drawn >= self.rates.switch:
            return actor
        ready = sim.ready_actors()
        return ready[int(drawn / self.rates.switch * len(ready))] if ready else actor

    def idle_pick(self, ready: list[Actor]) -> Actor:
        """Return the actor that continues where the previous one cannot."""
        return ready[int(self._what.random() * len(ready))]

    def _is_deadly(self, point: Point) -> bool:
        """Return whether a driver dies before this effect.

        It is a separate draw, so the other draws stay as they are.
        """
        if not (point.actor.is_driver and point.side is Side.BEFORE and point.detail.startswith(self.rates.deaths)):
            return False
        return Random(f"death {self.seed} {point.step}").random() < DEATH_RATE

    def _step(self, point: Point) -> str:
        draw = Random(f"step {self.seed} {point.step}")
        name = self.rates.steps[int(draw.random() * len(self.rates.steps))]
        did = self.world_step(name, draw)
        if did:
            self._note(point, name)
        return did

    def _fault(self, sim: Simulation, point: Point, down_until_s: float) -> str:
        draw = Random(f"fault {self.seed} {point.step}")
        name = self.rates.faults[int(draw.random() * len(self.rates.faults))]
        actor = point.actor
        if name in ("error", "lost answer"):
            if point.kind not in CAN_FAIL or (name == "lost answer") != (point.side is Side.AFTER):
                return ""
            self._note(point, name)
            raise self._failing(self.error(point.kind), name)
        if name == "hang":
            seconds = draw.choice(self.rates.hangs)
            actor.wake_s = sim.now_s + seconds
            self._note(point, name)
            return f"hang {seconds:.0f} s"
        if name == "clock jump":
            host = draw.choice(sorted(sim.hosts))
            sim.hosts[host].offset_ms = draw.randint(-300_000, 300_000)
            self._note(point, name)
            return f"clock of {host} off by {sim.hosts[host].offset_ms} ms"
        if name == "down":
            kind = draw.choice(("store", "kafka", "checkpoint"))
            self.down_until_s[kind] = sim.now_s + draw.choice((3.0, 15.0, 60.0))
            self._note(point, name)
            return f"{kind} down until {self.down_until_s[kind]:.1f} s"
        return self._kill(sim, point, draw, name)

    def _kill(self, sim: Simulation, point: Point, draw: Random, name: str) -> str:
        if not self.kills_left:
            return ""
        actor = point.actor
        drivers = sorted({each.process for each in sim.actors if each.is_driver and not each.is_gone})
        if name == "lie" and drivers:
            self.lies.add(draw.choice(drivers))
            self.on_lie()
            self._note(point, name)
            return f"process {sorted(self.lies)} called gone"
        if name == "kill" and (actor.is_task or actor.is_driver):
            victim = actor.process
        elif name == "kill driver" and drivers:
            victim = draw.choice(drivers)
        else:
            return ""
        self.kills_left -= 1
        self._note(point, name)
        if victim == actor.process:
            sim.kill_process(victim)
            error = Killed()
            error.decision = f"killed process {victim}"  # type: ignore[attr-defined]
            raise error
        sim.kill_process(victim)
        return f"killed process {victim}"

    def _note(self, point: Point, name: str) -> None:
        self.happened.append(Happened(point.step, name))
        self.counts[name] += 1

    def _failing(self, error: Exception, name: str) -> Exception:
        error.decision = name  # type: ignore[attr-defined]
        return error
