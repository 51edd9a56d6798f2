"""The cells of replays: what is kept, what belongs to somebody else, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.replay.audit import ReplayAudit
from airflow_provider_offsets.core.replay.claim import ShardClaim, ShardProgress
from airflow_provider_offsets.core.replay.model import Interval, ReplayPlan, Shard
from airflow_provider_offsets.core.replay.shard import CancelShard, ClaimShard, LaunchShard, ShardPhase, TryEnded
from airflow_provider_offsets.errors import Fenced, InputRefused, StateChanged, StoreDataError
from airflow_provider_offsets.stores.memory import MemoryStore
from tests.unit.operations.shards import DRIVER

RUN = "backfill__p/day#v#1"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def control(store: MemoryStore) -> ReplayControl:
    return ReplayControl(store, "p")


def plan(number: int, *, operation: str = "backfill__p/day", shards: int = 2) -> ReplayPlan:
    return ReplayPlan(
        pipeline="p",
        operation=operation,
        run_id=f"{operation}#v#{number}",
        attempt=number,
        attempt_key=str(number),
        interval=Interval(0, 10),
        begin=Position(),
        end=Position(),
        shards=tuple(Shard(each, ()) for each in range(shards)),
        application="job.py",
        application_version="v",
    )


def launch(tag: str = "a", ranges: str = "r", version: str = "v") -> LaunchShard:
    return LaunchShard(tag, ranges, version, "/logs/a.log")


def test_plans_are_found_under_all_names_of_their_run(control: ReplayControl) -> None:
    assert control.newest_plan("backfill__p/day") is None
    control.record_plan("backfill__p/day@2", plan(1))

    assert control.newest_plan("backfill__p/day") == control.newest_plan("backfill__p/day@7") == plan(1)


def test_replays_are_distinguished_by_their_names(control: ReplayControl) -> None:
    for operation in ("backfill__p/day", "backfill__p_2/day", "backfill__p/day#rollback"):
        control.record_plan(operation, plan(1, operation=operation))
        control.change_shard(f"{operation}#v#1", 0, launch())

    assert [name for name, _ in control.replays("backfill__p/")] == ["backfill__p/day", "backfill__p/day#rollback"]
    assert [run_id for run_id, *_ in control.shards_of("backfill__p/day")] == [RUN]


def test_a_new_attempt_fences_all_shards_that_are_not_finished(control: ReplayControl) -> None:
    control.record_plan("backfill__p/day", plan(1, shards=3))
    control.change_shard(RUN, 1, launch())
    control.record_plan("backfill__p/day", plan(2))
    control.supersede_earlier("backfill__p/day", at_ms=5)

    assert {number: each.phase for number, each in control.shards(RUN).items()} == dict.fromkeys(
        range(3), ShardPhase.SUPERSEDED
    )
    assert control.shards(plan(2).run_id) == {}


@pytest.mark.parametrize(
    ("event", "error", "words"),
    [
        (launch(ranges="s"), InputRefused, "the shard has other ranges"),
        (launch("b", version="w"), StateChanged, "another version of the program"),
        (ClaimShard("b", DRIVER), Fenced, "the try is over; try 1 ended, cancelled"),
    ],
    ids=["other ranges", "another version", "a launch that was never made"],
)
def test_what_is_refused_names_the_shard(
    control: ReplayControl, event: LaunchShard | ClaimShard, error: type[Exception], words: str
) -> None:
    control.change_shard(RUN, 0, launch())
    control.change_shard(RUN, 0, CancelShard("a", TryEnded(EndedHow.CANCELLED, 1)))

    with pytest.raises(error, match=f"Shard 0 of '{RUN}': {words}"):
        control.change_shard(RUN, 0, event)


def test_progress_is_of_one_try(control: ReplayControl) -> None:
    claim = ShardClaim(RUN, Shard(0, ()), 1, "a", "backfill__p/day", "/logs/a.log")
    for beat in (1, 2):
        control.note_progress(claim, ShardProgress(beat, 5 * beat, 1_000))

    assert control.progress(RUN, 0, 1) == ShardProgress(2, 10, 1_000)
    assert control.progress(RUN, 0, 2) is None


def test_a_clean_audit_is_kept(control: ReplayControl) -> None:
    """A task that audited earlier and was slow writes last."""
    unfinished = ReplayAudit(RUN, Interval(0, 10), 2, 1, 20, 10, findings=("shard 1: no driver",))
    control.keep_audit(unfinished)
    assert control.audit(RUN) == unfinished
    clean = replace(unfinished, shards_done=2, records_read=20, findings=())
    control.keep_audit(clean)
    control.keep_audit(unfinished)

    assert control.audit(RUN) == clean


@pytest.mark.parametrize("name", ["replay/backfill__p/day", f"replay-shard/{RUN}/00000000"])
def test_what_somebody_else_wrote_there_is_refused_by_name(
    store: MemoryStore, control: ReplayControl, name: str
) -> None:
    control.record_plan("backfill__p/day", plan(1))
    control.change_shard(RUN, 0, launch())
    assert store.check_and_put("p", name, store.get("p", name), "[]")

    with pytest.raises(StoreDataError, match=f"Control cell '{name}'"):
        list(control.replays()), list(control.shards_of("backfill__p/day"))
