"""Who acts in a history: Airflow's runs with their retries, recoveries, and people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from tests.simulation import product
from tests.simulation.product import World
from tests.simulation.scheduler import Actor

RETRIES = 3
RETRY_DELAY_S = 10.0
LOST_AFTER_S = 300.0
"""After this time Airflow calls a task without heartbeat lost, and retries it while it may still run."""


class TaskFailed(Exception):
    """A task failed, and no retry can help."""

    def __init__(self, task: str, error: BaseException) -> None:
        self.task, self.error = task, error
        super().__init__(f"{task}: {type(error).__name__}: {error}")


def _is_gone(actor: Actor) -> bool:
    return actor.is_gone


@dataclass
class Run:
    """One DAG run: tasks one after the other, each tried again as Airflow does."""

    world: World
    name: str
    hosts: Sequence[str] = ("worker-1",)
    draw: Random = field(default_factory=lambda: Random(0))
    is_over: bool = False
    failure: str = ""
    failed: BaseException | None = None
    stopped: str = ""
    """How the job stopped, by the result of its stop task."""
    actor: Actor | None = None

    def start(self, act: Callable[[Run], None]) -> Run:
        """Register the run as an actor that does ``act``."""

        def body() -> None:
            try:
                act(self)
            except TaskFailed as failed:
                self.failure, self.failed = str(failed), failed.error
            finally:
                self.is_over = True

        self.actor = self.world.sim.spawn(self.name, body, host="scheduler")
        return self

    def task(self, name: str, act: Callable[[], Any]) -> Any:
        """Run a task until one try of it succeeds, and return its result.

        :raises TaskFailed: it failed for good.
        """
        sim, error = self.world.sim, None
        for number in range(1, RETRIES + 1):
            host = self.draw.choice(self.hosts)
            attempt = sim.spawn(f"{self.name}.{name}~{number}", act, host=host, is_task=True)
            sim.wait_for(partial(_is_gone, attempt), at_most_s=LOST_AFTER_S)
            if not attempt.is_gone:
                attempt.is_lost = True
                continue
            if attempt.is_over and not attempt.is_dead and attempt.error is None:
                return attempt.result
            error = attempt.error
            if error is not None and not product.is_retriable(error):
                break
            sim.wait_for(lambda: False, at_most_s=RETRY_DELAY_S)
        raise TaskFailed(name, error or RuntimeError("killed or lost each time"))


def restart(
    start: str = "committed",
    accept_skipped: int = 0,
    accept_lost: int = 0,
    take_over: bool = False,
    attempt: str = "1",
    on_conflict: str = "refuse",
) -> Callable[[Run], None]:
    """Return the tasks of a maintenance or, with another ``start``, a reprocess.

    :param attempt: another one when the run is cleared from its stop task.
    """

    def act(run: Run) -> None:
        world, operation = run.world, run.name
        policy = product.policy_of(accept_skipped, accept_lost, world.kind.topics, on_conflict)
        run.task("before", lambda: product.task_snapshot(world, operation, "before"))
        run.task("plan", lambda: product.task_plan(world, operation, start, policy))
        run.stopped = run.task("stop", lambda: product.task_stop(world, operation, take_over, attempt))
        run.task("when_stopped", lambda: product.task_snapshot(world, operation, "stopped"))
        run.task("replan", lambda: product.task_plan(world, operation, start, policy))
        run.task("apply", lambda: product.task_apply(world, operation))
        run.task("submit", lambda: product.task_submit(world, operation))

    return act


def cleared(act_of: Callable[[str], Callable[[Run], None]], after_s: float) -> Callable[[Run], None]:
    """Return a run that is cleared and run again, whatever came of it the first time.

    :param act_of: given the attempt, returns its tasks.
    """

    def act(run: Run) -> None:
        try:
            act_of("1")(run)
        except TaskFailed as failed:
            run.failure = str(failed)
        run.world.sim.wait_for(lambda: False, at_most_s=after_s)
        act_of("2")(run)

    return act


def paused(act: Callable[[Run], None], pause_s: float) -> Callable[[Run], None]:
    """Return a run that begins after a pause."""

    def late(run: Run) -> None:
        run.world.sim.wait_for(lambda: False, at_most_s=pause_s)
        act(run)

    return late


def undone(act: Callable[[Run], None]) -> Callable[[Run], None]:
    """Return a restart that a person rolls back, whatever its outcome."""

    def both(run: Run) -> None:
        try:
            act(run)
        except TaskFailed as failed:
            run.failure = str(failed)
        run.task("roll_back", lambda: product.task_roll_back(run.world, run.name))

    return both


def submit_only(run: Run) -> None:
    """Run the submit task of an operation again, as a person does who clears it."""
    run.task("submit", lambda: product.task_submit(run.world, run.name))


def recover(looks: int = 30, every_s: float = 8.0) -> Callable[[Run], None]:
    """Return the tasks of a recovery: look for a death, and start the job again."""

    def act(run: Run) -> None:
        world, sim = run.world, run.world.sim
        tries = 0
        for _ in range(looks):
            sim.wait_for(lambda: False, at_most_s=every_s)
            try:
                epoch = run.task("await_death", lambda: product.look_for_death(world))
            except TaskFailed:
                continue
            if epoch is None:
                continue
            tries += 1
            try:
                _recover_from(run, epoch, f"{run.name}-{tries}")
            except TaskFailed as failed:
                run.failure = str(failed)

    return act


def _recover_from(run: Run, epoch: int, number: str) -> None:
    """Start the job again after the death of an epoch."""
    world, operation = run.world, product.recovery_operation(epoch)
    run.task("begin", lambda: product.task_begin_recovery(world, operation, epoch, number))
    run.task("when_stopped", lambda: product.task_snapshot(world, operation, "stopped"))
    run.task("replan", lambda: product.task_plan(world, operation, "committed", product.policy_of()))
    run.task("apply", lambda: product.task_apply(world, operation))
    run.task("submit", lambda: product.task_submit(world, operation))


def stop_only(run: Run) -> None:
    """Stop the job, as a person does who plans to start it later."""
    run.stopped = run.task("stop", lambda: product.task_stop(run.world, run.name))


def take_over_and_stop(run: Run) -> None:
    """Stop the job although another operation acted recently."""
    run.stopped = run.task("stop", lambda: product.task_stop(run.world, run.name, take_over=True))


def snapshot_only(run: Run) -> None:
    """Take a snapshot, as the schedule of snapshots does."""
    run.task("snapshot", lambda: product.task_snapshot(run.world, run.name, "snapshot"))


def stop_and_look(run: Run) -> None:
    """Stop the job, and take a snapshot of the stopped job."""
    stop_only(run)
    run.task("when_stopped", lambda: product.task_snapshot(run.world, run.name, "stopped"))


def rename_from(former: str) -> Callable[[Run], None]:
    """Return what a person does at the CLI after renaming a pipeline."""
    return lambda run: run.task("rename", lambda: product.rename_pipeline(run.world, run.name, former))


def state_dead(epoch: int) -> Callable[[Run], None]:
    """Return what a person does at the CLI who states that the driver of an epoch does not run."""
    return lambda run: run.task("end", lambda: product.state_dead(run.world, run.name, epoch))


def plan_only(run: Run) -> None:
    """Make a plan without applying it, as a person at the CLI does."""
    run.task("plan", lambda: product.task_plan(run.world, run.name, "committed", product.policy_of()))


def audit_only(run: Run) -> None:
    """Audit, while others act."""
    run.task("audit", lambda: product.audit_of(run.world))


def write_position(run: Run) -> None:
    """Write to a position store of the stopped job, as a person at the CLI does: this takes the lease for a moment."""
    run.task("copy", lambda: product.hold_stopped(run.world, f"{run.name}-copy"))


def stop_and_write(run: Run) -> None:
    """Stop the job, and write to one of its position stores."""
    take_over_and_stop(run)
    write_position(run)
