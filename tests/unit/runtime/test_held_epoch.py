"""A driver claims, begins, records, goes idle and ends by swaps of one record, which only its holder changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_offsets.checkpoint.seed import close, seed
from airflow_provider_offsets.clock import installed
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch, digest_of
from airflow_provider_offsets.core.epoch import EndedHow, Recorded
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record.model import RECORD, Phase
from airflow_provider_offsets.errors import (
    BatchConflict,
    Fenced,
    RecordRestored,
    StateChanged,
    StopRequested,
    StoreUnreachable,
)
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from tests.unit.core.observations import at
from tests.unit.runtime.lab import AWAY, QUERY, STREAM, Clock, Killed, Lab, SplitStore, planned, process, running_as


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def clock() -> Iterator[Clock]:
    with installed(made := Clock()):
        yield made


def once(side: str, error: BaseException, act: str = "swap") -> Callable[[str, str], None]:
    """Return a fate that strikes at the first chance."""
    left = [error]

    def strike(at_side: str, at_act: str) -> None:
        if (at_side, at_act) == (side, act) and left:
            raise left.pop()

    return strike


def away_after_a_swap(side: str, act: str) -> None:
    if (side, act) in (("after", "swap"), ("before", "get")):
        raise AWAY


def cells(lab: Lab) -> dict[str, str]:
    return dict(lab.store.scan("alerts", ""))


class TestClaim:
    def test_the_launch_is_claimed_by_this_process(self, lab: Lab) -> None:
        claim = lab.launch()
        with running_as(3):
            lab.hold(claim).claim()

        assert (lab.record.phase, lab.record.holder) == (Phase.RUNNING, process(3))
        assert lab.record.recorded == Recorded(1, claim.tag), "the pipeline stands at the start of this launch"

    @pytest.mark.parametrize(
        ("why", "meanwhile"),
        [
            ("a stop cancelled the launch", lambda lab: lab.close("maintenance")),
            ("another operation launched the next epoch", lambda lab: lab.launch()),
            ("another process of the same launch was faster", lambda lab: lab.held(pid=2)),
            ("it was claimed, and that one is over", lambda lab: (lab.held(pid=2), lab.close("maintenance"))),
        ],
    )
    def test_a_launch_that_is_not_free_is_not_claimed_and_nothing_is_written(
        self, why: str, meanwhile: Callable[[Lab], None], lab: Lab
    ) -> None:
        """The driver does not record what the previous epoch left either: that is the task of the lease holder."""
        lab.plan(0, 10, 10, commit=True)
        epoch = lab.hold(lab.launch())
        meanwhile(lab)
        before = cells(lab)

        with running_as(1), pytest.raises(Fenced):
            epoch.claim()

        assert (cells(lab), lab.recorded) == (before, [])

    def test_a_pipeline_without_a_record_is_not_claimed(self, lab: Lab) -> None:
        epoch = lab.hold(lab.launch())
        lab.store._control.clear()

        with pytest.raises(StateChanged, match="has no record"):
            epoch.claim()

    @pytest.mark.parametrize("side", ["before", "after"])
    def test_a_lost_answer_is_asked_for_again(self, side: str, lab: Lab, clock: Clock) -> None:
        epoch = lab.hold(lab.launch(), store_retry_timeout_s=1.0)
        lab.store.fate = once(side, AWAY)

        epoch.claim()

        assert lab.record.phase is Phase.RUNNING

    @pytest.mark.parametrize("side", ["before", "after"])
    def test_killed_at_its_claim_it_leaves_an_epoch_that_can_be_closed(self, side: str, lab: Lab) -> None:
        epoch = lab.hold(lab.launch())
        lab.store.fate = once(side, Killed())
        with running_as(1), pytest.raises(Killed):
            epoch.claim()

        assert lab.close("maintenance").phase is Phase.STOPPED
        with running_as(1), pytest.raises(Fenced):
            epoch.claim()


class TestBatch:
    def test_what_it_is_about_to_read_is_kept_before_it_begins_and_in_the_history_after_it(self, lab: Lab) -> None:
        epoch = lab.held()
        epoch.begin(planned(0))

        started = lab.record.started
        assert started is not None
        assert (started.batch_id, started.row_time_ms, started.digest) == (0, 1_000, digest_of(planned(0)))
        assert lab.store.prepared(STREAM, 1_000) == planned(0).at_row(1_000)
        assert lab.recorded == []

        epoch.record(planned(0))

        assert lab.record.started is None
        assert lab.record.recorded == Recorded(1, "tag-1", 0, QUERY, 1_000, digest_of(planned(0)))
        assert list(lab.store.oldest_first(STREAM)) == [planned(0).at_row(1_000)]

    @pytest.mark.parametrize(
        ("why", "times_ms", "rows_ms"),
        [
            ("time goes on", (5_000, 6_000), [5_000, 6_000]),
            ("the clock was set back", (5_000, 3_000), [5_000, 5_001]),
            ("two batches of one millisecond", (5_000, 5_000), [5_000, 5_001]),
        ],
    )
    def test_rows_are_in_the_order_of_batches(
        self, why: str, times_ms: tuple[int, int], rows_ms: list[int], lab: Lab
    ) -> None:
        epoch = lab.held()
        for batch_id, time_ms in enumerate(times_ms):
            epoch.begin(planned(batch_id, time_ms=time_ms))
            epoch.record(planned(batch_id, time_ms=time_ms))

        assert [each.row_time_ms for each in lab.store.oldest_first(STREAM)] == rows_ms

    def test_a_driver_with_a_slow_clock_goes_on_behind_the_rows_before_it(self, lab: Lab) -> None:
        """Tried with 50 s: readers that used times skipped 600 records."""
        lab.store.append(STREAM, Batch(at(0, 0), 90_000))
        epoch = lab.held()
        epoch.begin(planned(0))
        epoch.record(planned(0))

        assert [each.row_time_ms for each in lab.store.oldest_first(STREAM)] == [90_000, 90_001]

    def test_a_batch_that_was_cut_off_keeps_its_facts(self, lab: Lab) -> None:
        """The next epoch's batch has the same row time: it is the same batch."""
        lab.held().begin(planned(0))
        lab.plan(0, 10, 10)
        lab.launch()
        epoch = lab.held(pid=2)
        epoch.begin(planned(0, epoch=2))
        epoch.record(planned(0, epoch=2))

        assert lab.cuts == [(0, 1)]
        [kept] = lab.control.kept_epochs()
        assert [(each.start, each.end) for each in kept.cuts[0].ranges] == [(0, 10), (0, 10)]
        assert lab.recorded == [(0, 2, at(10, 10))]

    def test_no_batch_begins_once_a_stop_was_asked_for(self, lab: Lab) -> None:
        epoch = lab.held()
        lab.stop()

        with pytest.raises(StopRequested, match="op-2"):
            epoch.begin(planned(0))

        assert lab.record.started is None

    def test_a_started_batch_is_recorded_after_a_stop_request(self, lab: Lab) -> None:
        epoch = lab.held()
        epoch.begin(planned(0))
        lab.stop()
        epoch.record(planned(0))

        assert lab.recorded == [(0, 1, at(10, 10))]

    @pytest.mark.parametrize(
        ("why", "act"),
        [
            ("begin", lambda epoch: epoch.begin(planned(1))),
            ("begin a batch that is not planned", lambda epoch: epoch.begin_unplanned(1)),
            ("record", lambda epoch: epoch.record(planned(0))),
            ("idle", lambda epoch: epoch.idle()),
            ("look for a stop request", lambda epoch: epoch.is_stop_requested()),
            ("start another run", lambda epoch: epoch.start_run()),
        ],
    )
    @pytest.mark.parametrize(
        ("meanwhile", "how"),
        [
            ("its epoch was closed", lambda lab: lab.close("maintenance")),
            ("the next one was launched", lambda lab: lab.launch()),
            ("the next one runs", lambda lab: (lab.launch(), lab.held(pid=2))),
        ],
    )
    def test_a_fenced_driver_changes_nothing(
        self, meanwhile: str, how: Callable[[Lab], None], why: str, act: Callable[[HeldEpoch], None], lab: Lab
    ) -> None:
        epoch = lab.held()
        epoch.begin(planned(0))
        lab.plan(0, 10, 10)
        how(lab)
        lab.plan(0, 10, 10, commit=True)
        before, rows = cells(lab), lab.recorded

        with pytest.raises(Fenced):
            act(epoch)

        assert (cells(lab), lab.recorded) == (before, rows)

    def test_the_facts_of_a_later_epoch_are_kept(self, lab: Lab) -> None:
        """The fenced driver's facts reach the store before its swap is refused."""
        lab.store = SplitStore()
        fenced = lab.held()
        lab.launch()
        epoch = lab.held(pid=2)
        epoch.begin(planned(0, epoch=2))

        with pytest.raises(Fenced):
            fenced.begin(planned(0))

        assert lab.store.prepared(STREAM, 1_000) == planned(0, epoch=2).at_row(1_000)

    @pytest.mark.parametrize("side", ["before", "after"])
    @pytest.mark.parametrize("act", ["text", "row"])
    def test_a_store_that_is_away_for_a_moment_costs_nothing(self, act: str, side: str, lab: Lab, clock: Clock) -> None:
        lab.store = SplitStore()
        epoch = lab.held(store_retry_timeout_s=1.0)
        for batch_id in (0, 1):
            lab.store.fate = once(side, AWAY, act)
            epoch.begin(planned(batch_id))
            lab.store.fate = once(side, AWAY, act)
            epoch.record(planned(batch_id))

        assert lab.recorded == [(0, 1, at(10, 10)), (1, 1, at(20, 20))]
        assert lab.record.cuts == (), "a repeated call is no second run"

    def test_a_batch_costs_two_swaps_and_reads_nothing(self, lab: Lab) -> None:
        """On a store without transactions these are facts, record, record, row: four round trips."""
        lab.store = SplitStore()
        epoch = lab.held()
        acts: list[str] = []
        lab.store.fate = lambda side, act: acts.append(f"{side} {act}")
        epoch.begin(planned(0))
        epoch.record(planned(0))

        assert acts == ["before text", "after text", "before text", "after text", "after row"]

    def test_the_row_that_a_dead_driver_did_not_write_is_written_by_the_next_actor(self, lab: Lab) -> None:
        lab.store = SplitStore()
        epoch = lab.held()
        epoch.begin(planned(0))
        lab.store.fate = once("after", Killed(), "text")
        with pytest.raises(Killed):
            epoch.record(planned(0))
        assert (lab.recorded, lab.record.started) == ([], None)

        lab.launch()

        assert lab.recorded == [(0, 1, at(10, 10))]


class TestFinished:
    """Which of the batches that Spark asks for are not run again."""

    def finish(self, lab: Lab) -> None:
        epoch = lab.held()
        epoch.begin(planned(0))
        epoch.record(planned(0))

    @pytest.mark.parametrize("launches", [0, 1, 2, 3])
    def test_the_one_that_was_recorded_last_whichever_epoch_did(self, launches: int, lab: Lab) -> None:
        """Epochs that ended before their first batch come in between."""
        self.finish(lab)
        epoch = lab.hold()
        for pid in range(2, 2 + launches):
            lab.launch()
            epoch = lab.held(pid=pid)
        if not launches:
            with running_as(1):
                epoch.claim()

        assert epoch.is_finished(planned(0, epoch=9))
        assert not epoch.is_finished(planned(1)), "another batch"
        assert not epoch.is_finished(replace(planned(0), query_id="query-2")), "another query"

    def test_with_other_offsets_it_is_refused(self, lab: Lab) -> None:
        self.finish(lab)
        lab.launch()

        with pytest.raises(BatchConflict, match=r"Batch 0 of query query-1.*epoch 1 recorded"):
            lab.held(pid=2).is_finished(replace(planned(0), end=at(10, 11)))

    def test_an_older_one_is_history(self, lab: Lab) -> None:
        epoch = lab.held()
        for batch_id in (0, 1):
            epoch.begin(planned(batch_id))
            epoch.record(planned(batch_id))

        assert epoch.is_finished(planned(1))
        assert not epoch.is_finished(planned(0))


class TestRuns:
    """A program that calls ``stream.run()`` again in one process, or that the runtime starts again."""

    @pytest.mark.parametrize(
        ("why", "is_known", "log", "rows", "started"),
        [
            ("Spark committed it, and nobody recorded it", False, "committed", [0], None),
            ("the same, of a batch that was resumed", True, "committed", [0], None),
            ("it was cut off", True, "planned", [], 2),
            ("it was cut off after Spark had planned it", False, "planned", [], 2),
            ("Spark has never planned it", False, "nothing", [], 1),
        ],
    )
    def test_what_the_earlier_run_began_is_accounted_for(
        self, why: str, is_known: bool, log: str, rows: list[int], started: int | None, lab: Lab
    ) -> None:
        epoch = lab.held()
        epoch.begin(planned(0)) if is_known else epoch.begin_unplanned(0)
        if log != "nothing":
            lab.plan(0, 10, 10, commit=log == "committed")

        epoch.start_run()

        assert [each for each, *_ in lab.recorded] == rows
        if started is None:
            assert (lab.record.started, lab.record.cuts) == (None, ())
            return
        epoch.begin(planned(0))
        assert lab.record.started is not None
        assert lab.record.started.count == started
        epoch.record(planned(0))
        assert lab.cuts == ([(0, 1)] if started == 2 else []), (
            "a run that may have written is counted, any other is not"
        )

    def test_a_batch_whose_run_was_given_up_for_another_one_is_cut_off(self, lab: Lab) -> None:
        epoch = lab.held()
        epoch.begin(planned(0))
        epoch.start_run()
        epoch.begin(planned(1))

        assert lab.cuts == [(0, 1)]


class TestCheckpoint:
    @pytest.mark.parametrize(
        ("why", "planned_id", "batches", "refused"),
        [
            ("nothing ran since the plan", 1, [0, 1], False),
            ("another job planned a batch", 1, [0, 1, 2], True),
            ("the checkpoint is gone", 1, [], True),
            ("it is gone, and another job began again", 3, [0], True),
            ("planned before its first batch", -1, [], False),
            ("planned before its first batch, and another job ran one", -1, [0], True),
            ("this launch makes the checkpoint", None, [], False),
        ],
    )
    def test_one_that_another_job_writes_is_not_run_on(
        self, why: str, planned_id: int | None, batches: list[int], refused: bool, lab: Lab
    ) -> None:
        for batch_id in batches:
            lab.plan(batch_id, 10 * batch_id + 10, 10 * batch_id + 10, commit=True)
        lab.launch(last_planned_batch_id=planned_id)
        epoch = lab.hold()
        epoch.claim()

        if refused:
            with pytest.raises(
                StateChanged, match=rf"newest batch of the checkpoint .* is.*Expected batch {planned_id}"
            ):
                epoch.start_run()
        else:
            epoch.start_run()

    def test_one_that_was_closed_after_the_plan_is_not_run_on(self, lab: Lab) -> None:
        lab.plan(0, 10, 10, commit=True)
        lab.launch(last_planned_batch_id=0)
        close(lab.checkpoint(), "op-2")
        epoch = lab.hold()
        epoch.claim()

        with pytest.raises(StateChanged):
            epoch.start_run()

    def test_its_own_batches_are_its_own_in_a_later_run(self, lab: Lab) -> None:
        lab.launch(last_planned_batch_id=-1)
        epoch = lab.held()
        epoch.begin(planned(0))
        lab.plan(0, 10, 10)

        epoch.start_run()

    @pytest.mark.parametrize(
        ("why", "starts", "refused"),
        [
            ("where the plan has it", at(10, 10), False),
            ("behind it: records would be passed over", at(10, 15), True),
            ("before it: records would be read again that no plan announced", at(5, 10), True),
            ("a partition that came since the batch was planned", at(10), False),
            ("a partition that the plan does not name", at(10, 10, 3), False),
        ],
    )
    def test_the_first_batch_begins_where_the_plan_starts(
        self, why: str, starts: Position, refused: bool, lab: Lab
    ) -> None:
        """A native sink's fenced driver may commit the batch that a plan is about to run again."""
        lab.launch(start=at(10, 10))
        epoch = lab.held()
        batch = replace(planned(1), start=starts, end=at(30, 30, 30))

        if refused:
            with pytest.raises(StateChanged, match="would begin with flights"):
                epoch.begin(batch)
            assert lab.record.started is None
        else:
            epoch.begin(batch)

    def test_a_batch_that_is_not_planned_yet_begins_there_too(self, lab: Lab) -> None:
        lab.plan(0, 10, 10, commit=True)
        lab.plan(1, 20, 20, commit=True)
        lab.launch(start=at(10, 10))
        epoch = lab.held()

        with pytest.raises(StateChanged):
            epoch.begin_unplanned(2)

    def test_after_its_first_batch_an_epoch_goes_by_the_log(self, lab: Lab) -> None:
        epoch = lab.held()
        for batch_id in (0, 1):
            epoch.begin(planned(batch_id))
            epoch.record(planned(batch_id))

        assert len(lab.recorded) == 2

    def test_a_seeded_one_begins_at_its_seed(self, lab: Lab) -> None:
        seed(lab.checkpoint(), query_id=QUERY, last_batch_id=4, start=at(5, 7), like=None)
        lab.launch(start=at(5, 7))

        lab.held().begin_unplanned(6)


class TestIdle:
    def test_it_is_said_once_until_a_batch_begins(self, lab: Lab) -> None:
        epoch = lab.held()
        versions = []
        for act in (epoch.idle, epoch.idle, lambda: epoch.begin(planned(0)), lambda: epoch.record(planned(0))):
            act()
            versions.append((lab.record.version, lab.record.idle))
        epoch.idle()

        first = versions[0][0]
        assert versions == [(first, True), (first, True), (first + 1, False), (first + 2, False)]
        assert lab.record.idle

    def test_it_ends_the_lease_of_the_operation_that_launched(self, lab: Lab) -> None:
        epoch = lab.held()
        assert lab.record.lease is not None
        epoch.idle()

        assert lab.record.lease is None

    def test_a_batch_that_was_never_planned_is_not_started_any_more(self, lab: Lab) -> None:
        epoch = lab.held()
        epoch.begin_unplanned(0)
        epoch.idle()

        assert lab.record.started is None


class TestEnd:
    @pytest.mark.parametrize(
        ("why", "ending", "error", "how", "message"),
        [
            ("the program is through", None, None, EndedHow.FINISHED, ""),
            ("it was asked to stop", EndedHow.STOPPED, None, EndedHow.STOPPED, ""),
            ("the query failed", EndedHow.FAILED, ValueError("no"), EndedHow.FAILED, "ValueError: no"),
            ("the program swallowed the failure", EndedHow.FAILED, None, EndedHow.FAILED, ""),
            ("the program failed beside the query", None, KeyError("k"), EndedHow.FAILED, "KeyError: 'k'"),
        ],
    )
    def test_how(
        self, why: str, ending: EndedHow | None, error: Exception | None, how: EndedHow, message: str, lab: Lab
    ) -> None:
        epoch = lab.held()
        epoch.ending = ending
        epoch.close(error)

        ended = lab.record.ended
        assert ended is not None
        assert (lab.record.phase, ended.how, ended.message, ended.last_batch_id) == (Phase.ENDED, how, message, -1)

    def test_an_epoch_that_others_closed_keeps_their_word(self, lab: Lab) -> None:
        epoch = lab.held()
        lab.close("maintenance")
        epoch.ending = EndedHow.STOPPED
        epoch.close(None)

        assert lab.record.ended is not None
        assert lab.record.ended.how is EndedHow.DIED

    def test_a_fenced_driver_ends_nothing(self, lab: Lab) -> None:
        epoch = lab.held()
        lab.launch()
        before = cells(lab)

        epoch.close(Fenced(seen="", expected="", do=""))
        with pytest.raises(Fenced):
            epoch.close(None)

        assert cells(lab) == before

    def test_after_a_store_that_was_away_too_long_it_is_ended_all_the_same(self, lab: Lab) -> None:
        epoch = lab.held()
        epoch.begin(planned(0))
        lab.store.fate = away_after_a_swap
        with pytest.raises(StoreUnreachable):
            epoch.record(planned(0))
        lab.store.fate = lambda side, act: None

        epoch.close(AWAY)

        assert (lab.record.phase, lab.recorded) == (Phase.ENDED, [(0, 1, at(10, 10))])


@pytest.mark.parametrize(
    ("why", "restore"),
    [
        ("from a backup", lambda lab, older: lab.store._control.update({("alerts", RECORD): older})),
        ("to nothing", lambda lab, older: lab.store._control.clear()),
        (
            "and recreated",
            lambda lab, older: lab.store._control.update(
                {("alerts", RECORD): codec.dumps(replace(lab.record, incarnation="other"))}
            ),
        ),
    ],
)
@pytest.mark.parametrize("act", [lambda epoch: epoch.begin(planned(1)), lambda epoch: epoch.is_stop_requested()])
def test_a_store_that_was_restored_ends_the_driver(
    act: Callable[[HeldEpoch], None], why: str, restore: Callable[[Lab, str], None], lab: Lab
) -> None:
    epoch = lab.held()
    older = cells(lab)[RECORD]
    epoch.begin(planned(0))
    epoch.record(planned(0))
    restore(lab, older)

    with pytest.raises(RecordRestored):
        act(epoch)
    epoch.close(RecordRestored(seen="", expected="", do=""))
