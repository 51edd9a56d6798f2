"""The scheduler: actors that run one at a time, and one seeded generator that decides what happens at each effect.

An actor is a green thread (``greenlet``): it runs until an *effect point*, and only there may another one continue, or
a fault or an external event happen. A switch costs less than a microsecond, so a history of a thousand points takes
milliseconds. Time is virtual: it advances when no actor can do anything before it does.

Ties are broken by registration order. Each effect point draws one number for *what happens* and one for *whether it
fails*, whatever the outcome. So the removal of one event does not move the others, and a failing history can be
shrunk.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")

EPOCH_START_MS = 1_790_000_000_000
"""Wall clock time of the first step."""
NEVER = float("inf")


class Killed(BaseException):
    """SIGKILL: only a ``finally`` runs after it, and no effect of the actor happens any more."""


class Violated(BaseException):
    """An invariant does not hold after a step. No program under test catches it."""

    def __init__(self, what: str, message: str) -> None:
        self.what = what
        super().__init__(f"{what}: {message}")


class Side(enum.Enum):
    """Before or after an effect."""

    BEFORE = "before"
    AFTER = "after"


@dataclass
class Host:
    """A machine with a wall clock of its own."""

    name: str
    boot_id: str
    offset_ms: int = 0
    """Deviation of its wall clock."""
    pid_namespace: str = ""
    """PID namespace of a container that shares a machine's network and host name; empty: the machine's own."""
    machine_id: str = ""
    """Id that survives a reboot of the machine; empty if unknown."""


@dataclass
class Actor:
    """One green thread of one process.

    :ivar process: number of the process; actors of one process die together.
    """

    name: str
    host: Host
    process: int
    run: Callable[[], Any]
    wake_s: float = 0.0
    """Virtual time before which the actor does nothing."""
    ready: Callable[[], bool] | None = None
    """Condition for which it waits besides the time; None: nothing."""
    is_task: bool = False
    """Whether it is one try of a task, which Airflow retries when it was killed."""
    is_lost: bool = False
    """Whether Airflow has given up this try, so that nobody hears what it returns."""
    is_driver: bool = False
    is_dead: bool = False
    is_over: bool = False
    raises: BaseException | None = None
    """Error that a script sets for the effect at which the actor waits."""
    deadline_s: float = NEVER
    """When it stops waiting for ``ready``."""
    error: BaseException | None = None
    result: Any = None
    thread: greenlet | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the actor will not do anything any more."""
        return self.is_dead or self.is_over


class Step(NamedTuple):
    """One line of the trace. It is made on request: most histories succeed, and nobody reads them."""

    number: int
    now_s: float
    actor: str
    kind: str
    side: Side | None
    detail: str
    decision: str

    def __str__(self) -> str:
        effect = self.kind if self.side is None else f"{self.kind} {self.side.value} {self.detail}"
        decided = f"   <- {self.decision}" if self.decision else ""
        return f"{self.number:5d} {self.now_s:8.1f}s {self.actor:<24} {effect}{decided}"


@dataclass(slots=True)
class Point:
    """An effect point as a chooser sees it."""

    step: int
    actor: Actor
    side: Side
    kind: str
    """``store``, ``kafka``, ``checkpoint``, ``machine``, ``sink`` or ``file``."""
    detail: str


class Chooser:
    """Decides at each effect point. This one decides nothing: every actor continues until it waits."""

    def event(self, sim: Simulation, point: Point) -> str:
        """Make something happen, and return what it was; raise what the effect raises. Empty: nothing."""
        return ""

    def next_actor(self, sim: Simulation, actor: Actor) -> Actor:
        """Return who continues: ``actor``, or another one that is ready."""
        return actor

    def idle_pick(self, ready: list[Actor]) -> Actor:
        """Return who continues where the previous actor cannot."""
        return ready[0]


@dataclass
class Simulation:
    """The actors, the time and the trace of one history."""

    chooser: Chooser = field(default_factory=Chooser)
    step_limit: int = 4000
    now_s: float = 0.0
    step: int = 0
    actors: list[Actor] = field(default_factory=list)
    """All actors of the history, in registration order."""
    passed: list[tuple[Any, ...]] = field(default_factory=list)
    """The fields of a :class:`Step` for each effect point so far."""
    hosts: dict[str, Host] = field(default_factory=dict)
    after_effect: Callable[[str, str], None] | None = None
    """Checks invariants; called with the kind and the detail of each executed effect."""
    on_death: Callable[[int], None] | None = None
    random: Random = field(default_factory=lambda: Random(0))
    """For identifiers that the product draws (UUIDs)."""
    is_quiet: bool = False
    """Whether effect points are skipped during an external event."""
    violation: BaseException | None = None
    allowed: Callable[[Actor], bool] | None = None
    """Which actors a script allows to continue; None: all."""
    _living: list[Actor] = field(default_factory=list)
    """The actors that were not gone at the last look."""
    _current: Actor | None = None
    _hub: greenlet | None = None
    _until: Callable[[Point], bool] | None = None
    _stops: Callable[[], bool] | None = None
    _processes: int = 99
    _pending: Actor | None = None
    """Who continues next, if that was decided."""
    _left: bool = False

    @property
    def current(self) -> Actor:
        """The actor that runs."""
        assert self._current is not None, "no actor runs"
        return self._current

    @property
    def is_inside(self) -> bool:
        """Whether an actor runs, rather than the test around the simulation."""
        return self._current is not None

    def host(self, name: str) -> Host:
        """Return the host of that name, which is created at its first use."""
        return self.hosts.setdefault(name, Host(name, f"boot-{name}", machine_id=f"machine-{name}"))

    def new_process(self) -> int:
        """Return a process number that nobody has."""
        self._processes += 1
        return self._processes

    def spawn(
        self, name: str, run: Callable[[], Any], *, host: str = "worker-1", process: int = 0, **marks: Any
    ) -> Actor:
        """Register an actor. It runs when the scheduler selects it."""
        actor = Actor(name, self.host(host), process or self.new_process(), run, **marks)
        actor.thread = greenlet(lambda: self._main(actor))
        self.actors.append(actor)
        self._living.append(actor)
        return actor

    def now_ms(self) -> int:
        """Return the wall clock of the current actor's host."""
        offset_ms = 0 if self._current is None else self._current.host.offset_ms
        return EPOCH_START_MS + int(self.now_s * 1000) + offset_ms

    def sleep(self, seconds: float) -> None:
        """Suspend the current actor. Outside of actors only the time advances."""
        if self._current is None:
            self.now_s += seconds
            return
        self._current.wake_s = self.now_s + max(0.0, seconds)
        self._yield(self._current)

    def wait_for(self, ready: Callable[[], bool], *, at_most_s: float = NEVER) -> bool:
        """Suspend the current actor until ``ready``, or for ``at_most_s``; return whether it is ready."""
        actor, until_s = self.current, self.now_s + at_most_s
        while not ready() and self.now_s < until_s:
            actor.ready, actor.deadline_s = ready, until_s
            try:
                self._yield(actor)
            finally:
                actor.ready, actor.deadline_s = None, NEVER
        return ready()

    def effect(self, kind: str, detail: str, act: Callable[[], T]) -> T:
        """Do ``act`` between two effect points, and return what it returns."""
        actor = self._current
        if actor is None:
            return act()
        if actor.is_dead:
            raise Killed
        if self.is_quiet:
            return act()
        self.point(Side.BEFORE, kind, detail)
        result = act()
        if self.after_effect is not None:
            self.after_effect(kind, detail)
        self.point(Side.AFTER, kind, detail)
        return result

    def point(self, side: Side, kind: str, detail: str) -> None:
        """Pass an effect point, where anything may happen.

        :raises Killed: the actor was killed.
        """
        actor = self._current
        if actor is None:
            return
        if actor.is_dead:
            raise Killed
        if self.is_quiet:
            return
        self.step += 1
        point = Point(self.step, actor, side, kind, detail)
        self._decide(point)
        if actor.is_dead:
            raise Killed
        if self.step >= self.step_limit or (self._until is not None and self._until(point)):
            self._left = True
            self._to_hub(actor)
        if actor.wake_s > self.now_s:  # it hangs
            self._yield(actor)
            return
        other = self.chooser.next_actor(self, actor)
        if other is not actor:
            self._pending = other
            self._to_hub(actor)

    def _decide(self, point: Point) -> None:
        """Ask the chooser what happens at a point, and record it in the trace."""
        decision = ""
        try:
            decision = self.chooser.event(self, point)
        except BaseException as error:
            decision = getattr(error, "decision", "") or type(error).__name__
            raise
        finally:
            self.passed.append(
                (point.step, self.now_s, point.actor.name, point.kind, point.side, point.detail, decision)
            )

    def violate(self, what: str, message: str) -> None:
        """End the history, because an invariant does not hold.

        :raises Violated: always.
        """
        if self.violation is None:
            self.violation = Violated(what, message)
            actor = "" if self._current is None else self._current.name
            self.passed.append((self.step, self.now_s, actor, "invariant", None, "", str(self.violation)))
        raise self.violation

    def ready_actors(self) -> list[Actor]:
        """Return the actors that could continue now, in registration order."""
        now = self.now_s
        self._living = [each for each in self._living if not (each.is_dead or each.is_over)]
        return [
            each
            for each in self._living
            if each.wake_s <= now
            and (self.allowed is None or self.allowed(each))
            and (each.ready is None or each.deadline_s <= now or each.ready())
        ]

    def kill_process(self, process: int) -> None:
        """Kill all actors of a process, as SIGKILL does. If the current actor is among them, its effect raises."""
        victims = [each for each in self.actors if each.process == process and not each.is_gone]
        for actor in victims:
            actor.is_dead = True
        if victims and self.on_death is not None:
            self.on_death(process)
        for actor in victims:
            self._unwind(actor)

    def is_alive(self, process: int) -> bool:
        """Return whether a process is alive."""
        return any(each.process == process and not each.is_gone for each in self.actors)

    def run(self, *, until: Callable[[Point], bool] | None = None, stops: Callable[[], bool] | None = None) -> bool:
        """Run the actors until none can continue, ``stops`` returns true, or ``until`` holds at an effect point.

        The actor at that point continues from there in the next run.

        :returns: whether ``until`` was met.
        :raises Violated: an invariant does not hold.
        """
        self._hub, self._until, self._left, self._pending = getcurrent(), until, False, None
        try:
            while self.step < self.step_limit and not (stops is not None and stops()):
                pending, self._pending = self._pending, None
                ready = [pending] if pending is not None and not pending.is_gone else self._advance()
                if not ready:
                    break
                actor = ready[0] if len(ready) == 1 else self.chooser.idle_pick(ready)
                assert actor.thread is not None
                self._current, actor.thread.parent = actor, self._hub
                actor.thread.switch()
                self._current = None
                if self.violation is not None:
                    raise self.violation
                if self._left:
                    return self.step < self.step_limit
        finally:
            self._current, self._until = None, None
        return False

    def end(self) -> None:
        """Unwind every remaining actor. None of their effects counts any more."""
        for actor in self.actors:
            if not actor.is_gone:
                actor.is_dead = True
                self._unwind(actor)

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Pass no effect point inside this context."""
        before, self.is_quiet = self.is_quiet, True
        try:
            yield
        finally:
            self.is_quiet = before

    def _main(self, actor: Actor) -> None:
        try:
            actor.result = actor.run()
        except Killed:
            actor.is_dead = True
        except Violated as error:
            self.violation = self.violation or error
        except KeyboardInterrupt:
            raise  # it is meant for the program that runs the simulation
        except BaseException as error:
            actor.error = error
        finally:
            actor.is_over = True
            if self.on_death is not None and not actor.is_dead and not self.is_alive(actor.process):
                self.on_death(actor.process)

    def _unwind(self, actor: Actor) -> None:
        thread = actor.thread
        assert thread is not None
        if thread is getcurrent() or thread.dead:
            return
        if not thread:  # it never began
            return
        before, self._current = self._current, actor
        thread.parent = getcurrent()
        try:
            thread.throw(Killed)
        finally:
            self._current = before

    def _yield(self, actor: Actor) -> None:
        """Switch to other actors; return when it is this actor's turn again."""
        if actor.is_dead:
            raise Killed
        self._to_hub(actor)

    def _to_hub(self, actor: Actor) -> None:
        assert self._hub is not None
        self._hub.switch()
        if actor.is_dead:
            raise Killed
        if actor.raises is not None:
            error, actor.raises = actor.raises, None
            raise error

    def _advance(self) -> list[Actor]:
        """Return who is ready, after advancing the time if nobody was; empty if nobody ever will be."""
        ready = self.ready_actors()
        while not ready:
            coming = [
                time_s
                for each in self._living
                if not each.is_gone
                and (self.allowed is None or self.allowed(each))
                and self.now_s < (time_s := each.wake_s if each.ready is None else each.deadline_s) < NEVER
            ]
            if not coming:
                return []
            self.now_s = min(coming)
            ready = self.ready_actors()
        return ready
