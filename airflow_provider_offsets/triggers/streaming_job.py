"""The triggers that wait for a streaming job."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_offsets import clock
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import OffsetsError
from airflow_provider_offsets.hooks.connection import await_connection
from airflow_provider_offsets.hooks.offsets import embedded_url, store_url
from airflow_provider_offsets.operations.job_state import JobObservation, JobState, behind, end_of, observe_job
from airflow_provider_offsets.operations.recovering import DeathWatch, SilenceWatch
from airflow_provider_offsets.runtime.retry import retry
from airflow_provider_offsets.stores import open_store

if TYPE_CHECKING:
    from airflow_provider_offsets.stores.protocols import OffsetStore

POLL_S = 0.5
SILENT = "silent"
"""Status of the event for a job that this triggerer cannot see and whose heartbeat is silent."""
RETRY_TIMEOUT_S = 60.0
"""Seconds for which an unreachable store is retried."""


class StoreTrigger(BaseTrigger):
    """Base class of triggers that check a store repeatedly until there is an event.

    :param store_conn_id: an ``offsets`` connection; resolved in the triggerer.
    :param pipeline: name of the pipeline.
    :param timeout_s: seconds after which an event with ``status`` *timeout* is sent. None waits as long as Airflow
        allows.
    """

    def __init__(self, *, store_conn_id: str, pipeline: str, timeout_s: float | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # no annotation there
        self.store_conn_id = store_conn_id
        self.pipeline = pipeline
        self.timeout_s = timeout_s

    poll_s = POLL_S
    """Seconds between two checks."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments from which another triggerer can recreate this trigger."""
        kind = type(self)
        return f"{kind.__module__}.{kind.__qualname__}", self.arguments()

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values."""
        return {"store_conn_id": self.store_conn_id, "pipeline": self.pipeline, "timeout_s": self.timeout_s}

    async def prepare(self) -> None:
        """Load what ``observe_job`` needs in addition to the store."""

    def observe(self, store: OffsetStore) -> dict[str, Any] | None:
        """Check once, in a thread; return the event's payload, or None to check again.

        :raises OffsetsError: the check failed. A retriable error is retried, any other ends the trigger with an *error*
            event.
        """
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Check until there is an event. An error becomes an event, so that the task fails with its message.

        The event has a ``status``: *timeout*, *error* (with ``error_type`` and ``message``), or what ``observe``
        returned.
        """
        try:
            await self.prepare()
            url = await self._url()
            store = await asyncio.to_thread(retry, lambda: open_store(url), retry_timeout_s=RETRY_TIMEOUT_S)
            try:
                payload = await self._await_payload(store)
            finally:
                store.close()
        except OffsetsError as error:
            payload = {"status": "error", "error_type": type(error).__name__, "message": str(error)}
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]  # no annotation there

    async def _url(self) -> str:
        if not self.store_conn_id:
            return embedded_url()
        return store_url(await await_connection(self.store_conn_id))

    async def _await_payload(self, store: OffsetStore) -> dict[str, Any]:
        deadline = math.inf if self.timeout_s is None else clock.monotonic_s() + self.timeout_s
        while clock.monotonic_s() < deadline:
            payload = await asyncio.to_thread(retry, lambda: self.observe(store), retry_timeout_s=RETRY_TIMEOUT_S)
            if payload is not None:
                return payload
            await asyncio.sleep(self.poll_s)
        return {"status": "timeout", "message": f"no event within {self.timeout_s} s"}


class EpochEndedTrigger(StoreTrigger):
    """Trigger that fires when an epoch or its driver process has ended. It does not close the epoch.

    :param store_conn_id: an ``offsets`` connection; resolved in the triggerer.
    :param pipeline: name of the pipeline.
    :param epoch: number of the epoch.
    :param timeout_s: seconds after which an event with ``status`` *timeout* is sent. None waits as long as Airflow
        allows.
    """

    def __init__(self, *, store_conn_id: str, pipeline: str, epoch: int, timeout_s: float | None = None) -> None:
        super().__init__(store_conn_id=store_conn_id, pipeline=pipeline, timeout_s=timeout_s)
        self.epoch = epoch

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values."""
        return {**super().arguments(), "epoch": self.epoch}

    def observe(self, store: OffsetStore) -> dict[str, Any] | None:
        """Return ``status`` *ended* and ``how`` the epoch ended, or None while it has not ended."""
        ended = end_of(Control(store, self.pipeline), self.epoch)
        return None if ended is None else {"status": "ended", "how": ended.how.value}


class JobStateTrigger(StoreTrigger):
    """Trigger that fires when the job is in the awaited state.

    :param store_conn_id: an ``offsets`` connection; resolved in the triggerer.
    :param pipeline: name of the pipeline.
    :param state: a ``JobState`` value, such as ``running`` or ``ended``.
    :param timeout_s: seconds after which an event with ``status`` *timeout* is sent. None waits as long as Airflow
        allows.
    """

    def __init__(self, *, store_conn_id: str, pipeline: str, state: str, timeout_s: float | None = None) -> None:
        super().__init__(store_conn_id=store_conn_id, pipeline=pipeline, timeout_s=timeout_s)
        self.state = state
        self._before: JobObservation | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values."""
        return {**super().arguments(), "state": self.state}

    def observe(self, store: OffsetStore) -> dict[str, Any] | None:
        """Return ``status`` *reached*, ``epoch`` and ``detail`` once the job is in the awaited state; None before.

        :raises ValueError: ``state`` is not a ``JobState`` value.
        """
        self._before = observe_job(Control(store, self.pipeline), self._before)
        if self._before.is_in(JobState(self.state)):
            return {"status": "reached", "epoch": self._before.epoch, "detail": self._before.detail}
        return None


class JobDiedTrigger(StoreTrigger):
    """Trigger that fires when a job has been dead for ``confirm_s``, or silent for as long if not visible from here.

    :param store_conn_id: an ``offsets`` connection; resolved in the triggerer.
    :param pipeline: name of the pipeline.
    :param confirm_s: seconds for which the same epoch has to be dead, by this machine's own clock.
    :param lease_timeout_s: an operation that acted on the pipeline within this many seconds is not disturbed.
    :param timeout_s: seconds after which an event with ``status`` *timeout* is sent. None waits as long as Airflow
        allows.
    """

    def __init__(
        self,
        *,
        store_conn_id: str,
        pipeline: str,
        confirm_s: float,
        lease_timeout_s: float,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(store_conn_id=store_conn_id, pipeline=pipeline, timeout_s=timeout_s)
        self.confirm_s, self.lease_timeout_s = confirm_s, lease_timeout_s
        self._seen, self._silence = DeathWatch(confirm_s, lease_timeout_s), SilenceWatch(confirm_s)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values."""
        return {**super().arguments(), "confirm_s": self.confirm_s, "lease_timeout_s": self.lease_timeout_s}

    def observe(self, store: OffsetStore) -> dict[str, Any] | None:
        """Return the dead epoch and how it died, or a *silent* event that asks for a check from another machine.

        :returns: ``status`` *reached* with ``epoch``, ``how`` and ``message``; or ``status`` *silent*; or None while
            neither holds.
        """
        control = Control(store, self.pipeline)
        death = self._seen.observe(control)
        if death is not None:
            return {"status": "reached", **asdict(death)}
        return {"status": SILENT} if self._silence.observe(control) else None


class OffsetsReachedTrigger(StoreTrigger):
    """Trigger that fires when a pipeline has processed everything up to a position.

    :param store_conn_id: an ``offsets`` connection; resolved in the triggerer.
    :param pipeline: name of the pipeline.
    :param group_id: consumer group of the pipeline.
    :param topics: topics of the pipeline.
    :param target: the position, as returned by ``Position.to_plain``.
    :param timeout_s: seconds after which an event with ``status`` *timeout* is sent. None waits as long as Airflow
        allows.
    """

    def __init__(
        self,
        *,
        store_conn_id: str,
        pipeline: str,
        group_id: str,
        topics: list[str],
        target: dict[str, Any],
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(store_conn_id=store_conn_id, pipeline=pipeline, timeout_s=timeout_s)
        self.group_id = group_id
        self.topics = topics
        self.target = target

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values."""
        own = {"group_id": self.group_id, "topics": self.topics, "target": self.target}
        return {**super().arguments(), **own}

    def observe(self, store: OffsetStore) -> dict[str, Any] | None:
        """Return ``status`` *reached* once no offset below the target is missing; None before."""
        stream = Stream(self.group_id, tuple(self.topics))
        missing = behind(Control(store, self.pipeline), store, stream, Position.from_plain(self.target))
        return None if missing else {"status": "reached"}
