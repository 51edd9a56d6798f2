"""What may happen to a replay and to its shards, state by state."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import EndedHow, ProcessIdentity
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.replay.attempt import (
    AttemptRefusal,
    ReplayAttempt,
    ReplayRecord,
    add_attempt,
    next_attempt_number,
    replay_of,
)
from airflow_provider_offsets.core.replay.model import Interval, attempt_number, replay_run_id
from airflow_provider_offsets.core.replay.shard import (
    CancelShard,
    ClaimShard,
    CloseShard,
    EndShard,
    LaunchShard,
    RecordShard,
    ShardEvent,
    ShardPhase,
    ShardRead,
    ShardRecord,
    ShardRefusal,
    ShardRefused,
    StartShard,
    SupersedeShard,
    TryEnded,
    digest_of_ranges,
    shard_transition,
)

ONE, OTHER = (ProcessIdentity("worker-1", "boot", pid, 1) for pid in (1, 2))
READ = ShardRead(30)


def ended(how: EndedHow = EndedHow.DIED) -> TryEnded:
    return TryEnded(how, 5)


def launch(tag: str = "a", ranges: str = "r", version: str = "v") -> LaunchShard:
    return LaunchShard(tag, ranges, version, f"/logs/{tag}.log")


def after(*events: ShardEvent) -> ShardRecord:
    """Return the record after events that are all possible."""
    record = ShardRecord()
    for event in events:
        outcome = shard_transition(record, event)
        assert isinstance(outcome, ShardRecord), outcome
        record = outcome
    return record


CLAIM, BEGIN, RECORD = ClaimShard("a", ONE), StartShard("a", ONE, "run-1"), RecordShard("a", ONE, "run-1", READ)
SUPERSEDE = SupersedeShard("op#v#2", 9)

NEW = ShardRecord()
LAUNCHING = after(launch())
CANCELLED = after(launch(), CancelShard("a", ended(EndedHow.CANCELLED)))
RUNNING = after(launch(), CLAIM)
STARTED = after(launch(), CLAIM, BEGIN)
DEAD = after(launch(), CLAIM, BEGIN, CloseShard("a", ended()))
REPLAYED = after(launch(), CLAIM, BEGIN, RECORD)
SUPERSEDED = after(launch(), CLAIM, BEGIN, SUPERSEDE)


@pytest.mark.parametrize(
    ("record", "event", "phase", "number", "started"),
    [
        pytest.param(NEW, launch(), ShardPhase.LAUNCHING, 1, 0, id="a launch is known before its process exists"),
        pytest.param(CANCELLED, launch("b"), ShardPhase.LAUNCHING, 2, 0, id="after a cancelled launch the next one"),
        pytest.param(DEAD, launch("b"), ShardPhase.LAUNCHING, 2, 1, id="after a dead driver the next one"),
        pytest.param(LAUNCHING, CLAIM, ShardPhase.RUNNING, 1, 0, id="a driver claims its launch"),
        pytest.param(RUNNING, BEGIN, ShardPhase.RUNNING, 1, 1, id="it begins"),
        pytest.param(
            STARTED,
            StartShard("a", ONE, "run-2"),
            ShardPhase.RUNNING,
            1,
            2,
            id="the program calls run() once more: counted",
        ),
        pytest.param(STARTED, RECORD, ShardPhase.REPLAYED, 1, 1, id="it records"),
        pytest.param(STARTED, EndShard("a", ONE, ended()), ShardPhase.WAITING, 1, 1, id="it ends without a record"),
        pytest.param(STARTED, CloseShard("a", ended()), ShardPhase.WAITING, 1, 1, id="it was seen gone"),
        pytest.param(NEW, SUPERSEDE, ShardPhase.SUPERSEDED, 0, 0, id="never launched, and never will be"),
        pytest.param(LAUNCHING, SUPERSEDE, ShardPhase.SUPERSEDED, 1, 0, id="superseded before a claim"),
        pytest.param(STARTED, SUPERSEDE, ShardPhase.SUPERSEDED, 1, 1, id="superseded in its work"),
        pytest.param(DEAD, SUPERSEDE, ShardPhase.SUPERSEDED, 1, 1, id="superseded between two tries"),
    ],
)
def test_what_may_happen(record: ShardRecord, event: ShardEvent, phase: ShardPhase, number: int, started: int) -> None:
    made = shard_transition(record, event)

    assert isinstance(made, ShardRecord)
    assert (made.phase, made.newest.number if made.newest else 0, made.started) == (phase, number, started)
    assert shard_transition(made, event) == made, "an answer that was lost, and the call repeated"
    assert codec.loads(ShardRecord, codec.dumps(made)) == made


@pytest.mark.parametrize(
    ("record", "event", "why"),
    [
        pytest.param(CANCELLED, CLAIM, ShardRefusal.CANCELLED, id="a late driver of a cancelled launch"),
        pytest.param(
            after(launch(), CancelShard("a", ended(EndedHow.CANCELLED)), launch("b")),
            CLAIM,
            ShardRefusal.FENCED,
            id="and though the next launch waits for its driver",
        ),
        pytest.param(RUNNING, ClaimShard("a", OTHER), ShardRefusal.FENCED, id="another process claims the same launch"),
        pytest.param(RUNNING, StartShard("a", OTHER, "run-1"), ShardRefusal.FENCED, id="begins without a claim"),
        pytest.param(LAUNCHING, BEGIN, ShardRefusal.FENCED, id="begins before the claim"),
        pytest.param(RUNNING, RECORD, ShardRefusal.FENCED, id="records what it has not started"),
        pytest.param(
            STARTED, RecordShard("a", ONE, "run-0", READ), ShardRefusal.FENCED, id="records an earlier call of its own"
        ),
        pytest.param(DEAD, BEGIN, ShardRefusal.FENCED, id="taken for dead, begins"),
        pytest.param(DEAD, RECORD, ShardRefusal.FENCED, id="taken for dead, records"),
        pytest.param(REPLAYED, StartShard("a", ONE, "run-2"), ShardRefusal.REPLAYED, id="begins what it has recorded"),
        pytest.param(SUPERSEDED, BEGIN, ShardRefusal.SUPERSEDED, id="begins after it was superseded"),
        pytest.param(SUPERSEDED, RECORD, ShardRefusal.SUPERSEDED, id="records after it was superseded"),
        pytest.param(after(launch(), SUPERSEDE), CLAIM, ShardRefusal.SUPERSEDED, id="claims after it was superseded"),
        pytest.param(DEAD, launch("b", ranges="other"), ShardRefusal.OTHER_RANGES, id="other ranges, same number"),
        pytest.param(REPLAYED, launch("b", ranges="other"), ShardRefusal.OTHER_RANGES, id="and though it is replayed"),
        pytest.param(DEAD, launch("b", version="w"), ShardRefusal.OTHER_VERSION, id="another program, same run id"),
    ],
)
def test_what_is_refused(record: ShardRecord, event: ShardEvent, why: ShardRefusal) -> None:
    refused = shard_transition(record, event)

    assert isinstance(refused, ShardRefused)
    assert refused.why is why
    assert refused.detail


@pytest.mark.parametrize(
    ("record", "event"),
    [
        pytest.param(LAUNCHING, launch("b"), id="launch: another task was faster"),
        pytest.param(STARTED, launch("b"), id="launch: a driver is at work"),
        pytest.param(REPLAYED, launch("b"), id="launch: nothing is left to do"),
        pytest.param(SUPERSEDED, launch("b"), id="launch: a later attempt does it"),
        pytest.param(CANCELLED, launch("a"), id="launch: it was cancelled before its task heard of it"),
        pytest.param(RUNNING, CancelShard("a", ended()), id="cancel: a driver has claimed it meanwhile"),
        pytest.param(LAUNCHING, CancelShard("b", ended()), id="cancel: of a launch before"),
        pytest.param(LAUNCHING, CloseShard("a", ended()), id="close: nobody has claimed it"),
        pytest.param(STARTED, CloseShard("b", ended()), id="close: of a try before"),
        pytest.param(STARTED, EndShard("a", OTHER, ended()), id="end: by a process that is not its driver"),
        pytest.param(REPLAYED, SUPERSEDE, id="supersede: what is finished stays finished"),
        pytest.param(SUPERSEDED, SupersedeShard("op#v#3", 9), id="supersede: by the first one to do it"),
    ],
)
def test_what_changes_nothing(record: ShardRecord, event: ShardEvent) -> None:
    assert shard_transition(record, event) == record


def test_the_end_of_a_try_is_recorded_once() -> None:
    by_task = after(launch(), CLAIM, CloseShard("a", ended(EndedHow.DIED)))

    assert shard_transition(by_task, EndShard("a", ONE, ended(EndedHow.FENCED))) == by_task


def test_a_driver_that_dies_between_record_and_end_has_replayed_its_shard() -> None:
    assert REPLAYED.driver == ONE
    gone = shard_transition(REPLAYED, CloseShard("a", ended()))

    assert isinstance(gone, ShardRecord)
    assert (gone.phase, gone.read, gone.driver) == (ShardPhase.REPLAYED, READ, None)


def test_a_superseded_driver_is_known_until_its_end_is_recorded() -> None:
    assert SUPERSEDED.driver == ONE
    assert after(launch(), CLAIM, SUPERSEDE, EndShard("a", ONE, ended(EndedHow.FENCED))).driver is None
    assert after(launch(), SUPERSEDE).driver is None


tags, holders, runs = (
    st.sampled_from("abc"),
    st.sampled_from([ONE, OTHER]),
    st.sampled_from(["run-1", "run-2", "run-3"]),
)
events: st.SearchStrategy[ShardEvent] = st.one_of(
    st.builds(launch, tags, st.sampled_from(["r", "s"])),
    st.builds(CancelShard, tags, st.just(ended(EndedHow.CANCELLED))),
    st.builds(CloseShard, tags, st.just(ended())),
    st.just(SUPERSEDE),
    st.builds(ClaimShard, tags, holders),
    st.builds(StartShard, tags, holders, runs),
    st.builds(RecordShard, tags, holders, runs, st.just(READ)),
    st.builds(EndShard, tags, holders, st.just(ended(EndedHow.FAILED))),
)


@given(st.lists(events, max_size=40))
def test_laws_of_a_shard(happening: list[ShardEvent]) -> None:
    """Events come in any order, and a list of the accepted ones judges the result."""
    record, accepted = NEW, []
    for event in happening:
        outcome = shard_transition(record, event)
        if isinstance(outcome, ShardRefused) or outcome == record:
            continue
        before, record = record, outcome
        accepted.append(event)
        assert before.phase is not ShardPhase.SUPERSEDED or record.phase is ShardPhase.SUPERSEDED
        assert before.phase is not ShardPhase.REPLAYED or (record.phase, record.read) == (before.phase, before.read)
        assert shard_transition(record, event) == record, "repeating changes nothing"

    launched = [each.tag for each in accepted if isinstance(each, LaunchShard)]
    claimed = [each for each in accepted if isinstance(each, ClaimShard)]
    started = [each for each in accepted if isinstance(each, StartShard)]
    recorded = [each for each in accepted if isinstance(each, RecordShard)]
    cancelled = {each.tag for each in accepted if isinstance(each, CancelShard)}
    assert len(recorded) <= 1
    assert len(launched) == (record.newest.number if record.newest else 0)
    assert len(started) == record.started, "each call of the function that may have written is counted"
    assert not cancelled & {each.tag for each in claimed if launched.count(each.tag) == 1}, "cancelled is never claimed"
    for each in recorded:
        assert started[-1].run == each.run, "what is recorded is the call that began last"
        assert (started[-1].tag, started[-1].holder) == (each.tag, each.holder)


class TestAttempts:
    """The attempts of one run: a clear makes a new one, a retry does not."""

    DAY, OTHER_DAY = Interval(0, 10), Interval(10, 20)

    def attempt(
        self, number: int, key: str, interval: Interval = DAY, *, plan: str = "p", has_problems: bool = False
    ) -> ReplayAttempt:
        return ReplayAttempt(number, key, interval, f"op#v#{number}", plan, 2, has_problems)

    def test_numbers(self) -> None:
        record = ReplayRecord(self.attempt(1, "k"))

        assert next_attempt_number(None, "k", self.DAY) == 1
        assert next_attempt_number(record, "k", self.DAY) == 1
        assert next_attempt_number(record, "l", self.DAY) == 2
        assert next_attempt_number(record, "k", self.OTHER_DAY) == 2

    def test_the_first_plan_of_an_attempt_is_kept(self) -> None:
        record = ReplayRecord(self.attempt(1, "k"))

        assert add_attempt(record, self.attempt(1, "k", plan="q")) == record

    def test_a_plan_with_problems_is_replaced(self) -> None:
        record = ReplayRecord(self.attempt(1, "k", has_problems=True))

        assert add_attempt(record, self.attempt(1, "k", plan="q")) == ReplayRecord(self.attempt(1, "k", plan="q"))

    def test_a_plan_with_problems_replaces_none_without(self) -> None:
        record = ReplayRecord(self.attempt(1, "k"))

        assert add_attempt(record, self.attempt(1, "k", plan="q", has_problems=True)) == record

    def test_the_next_attempt_keeps_the_one_before(self) -> None:
        first, second = self.attempt(1, "k"), self.attempt(2, "l")
        record = add_attempt(ReplayRecord(first), second)

        assert record == ReplayRecord(second, (first,))
        assert add_attempt(record, second) == record
        assert codec.loads(ReplayRecord, codec.dumps(record)) == record

    def test_a_task_of_an_attempt_that_was_superseded_does_not_come_back(self) -> None:
        record = ReplayRecord(self.attempt(2, "l"), (self.attempt(1, "k"),))

        assert add_attempt(record, self.attempt(3, "k")) is AttemptRefusal.SUPERSEDED

    def test_of_two_attempts_that_are_planned_at_once_one_is_refused(self) -> None:
        record = ReplayRecord(self.attempt(2, "l"), (self.attempt(1, "k"),))

        assert add_attempt(record, self.attempt(2, "m")) is AttemptRefusal.CONCURRENT


def test_all_attempts_of_a_run_are_one_replay() -> None:
    assert replay_of("backfill/day@2") == replay_of("backfill/day") == "backfill/day"


def test_a_run_id_names_its_attempt() -> None:
    assert attempt_number(replay_run_id("backfill/day", "abc" * 9, 12)) == 12
    for text in ("backfill/day", "backfill/day#12", "backfill/day#abc#"):
        with pytest.raises(ValueError, match="no run id"):
            attempt_number(text)


def test_ranges_have_one_name() -> None:
    ranges = OffsetRange("t", 0, 1, 2), OffsetRange("t", 1, 1, 2)

    assert digest_of_ranges(ranges) == digest_of_ranges(list(ranges))
    assert digest_of_ranges(ranges) != digest_of_ranges([ranges[0], replace(ranges[1], end=3)])
