"""What an epoch committed and did not record is recorded before the next one is claimed, once and under its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import BegunBatch
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.errors import BatchConflict
from airflow_provider_offsets.runtime.settling import settle
from airflow_provider_offsets.stores.checkpoint import close
from tests.unit.core.worlds import at
from tests.unit.runtime.lab import QUERY, STREAM, Lab

AHEAD = BegunBatch(1, QUERY, 500, ())
RANGES = (OffsetRange("flights", 0, 10, 30), OffsetRange("flights", 1, 20, 20))
TOLD = BegunBatch(1, QUERY, 1_001, RANGES)
BATCH_0 = Batch(at(10, 20), 1_000, 0, QUERY, 1, at(0, 0))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    made.plan(0, 10, 20, commit=True)
    made.store.append(STREAM, BATCH_0)
    return made


def settled(lab: Lab) -> None:
    settle(lab.control, lab.store, STREAM, 1, lab.log())


def test_an_epoch_that_began_nothing_has_nothing_to_settle(lab: Lab) -> None:
    settled(lab)

    assert lab.control.begun(1) is None
    assert len(lab.recorded) == 1


@pytest.mark.parametrize("commit", [False, True])
def test_a_batch_of_a_function_is_left_to_its_own_record(lab: Lab, commit: bool) -> None:
    """It is recorded before Spark commits it; nobody else knows whether its output is finished."""
    lab.plan(1, 30, 20, commit=commit)
    lab.control.begin(1, TOLD)

    settled(lab)

    assert len(lab.recorded) == 1


def test_one_that_was_never_planned_never_began(lab: Lab) -> None:
    lab.control.begin(1, AHEAD)

    settled(lab)

    assert lab.control.begun(1) == AHEAD
    assert len(lab.recorded) == 1


def test_an_entry_that_closes_the_log_is_no_batch(lab: Lab) -> None:
    lab.control.begin(1, AHEAD)
    close(lab.checkpoint(), "op-2")

    settled(lab)

    assert lab.control.begun(1) == AHEAD
    assert len(lab.recorded) == 1


def test_one_that_was_cut_off_gets_its_ranges_and_is_not_recorded(lab: Lab) -> None:
    lab.control.begin(1, AHEAD)
    lab.plan(1, 30, 20)

    settled(lab)

    assert lab.control.begun(1) == TOLD
    assert len(lab.recorded) == 1


def test_one_that_was_committed_is_recorded_under_the_epoch_that_ran_it(lab: Lab) -> None:
    lab.control.begin(1, AHEAD)
    lab.plan(1, 30, 20, commit=True)

    for _ in range(2):
        settled(lab)

        assert lab.control.begun(1) == TOLD
        assert lab.recorded == [(0, 1, at(10, 20)), (1, 1, at(30, 20))]


def test_the_first_batch_of_all_is_noted_before_the_query_has_an_id(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.control.begin(1, BegunBatch(0, "", 500, ()))
    lab.plan(0, 10, 20, commit=True)

    settled(lab)

    assert lab.recorded == [(0, 1, at(10, 20))]


def test_killed_between_its_two_writes_it_is_finished_by_the_next_try(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note with ranges would say that there is nothing left to settle: so it comes last."""
    lab.control.begin(1, AHEAD)
    lab.plan(1, 30, 20, commit=True)
    for first in ("append", "check_and_put"):
        with monkeypatch.context() as dying:
            dying.setattr(lab.store, first, interrupted)
            with pytest.raises(KeyboardInterrupt):
                settled(lab)
        assert lab.control.begun(1) == AHEAD

    settled(lab)

    assert lab.control.begun(1) == TOLD
    assert lab.recorded[1:] == [(1, 1, at(30, 20))]


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_what_was_recorded_otherwise_stands(lab: Lab) -> None:
    lab.control.begin(1, AHEAD)
    lab.plan(1, 30, 20, commit=True)
    lab.store.append(STREAM, Batch(at(31, 20), 1_001, 1, QUERY, 1, at(10, 20)))

    with pytest.raises(BatchConflict):
        settled(lab)

    assert lab.recorded[1:] == [(1, 1, at(31, 20))]


def test_the_next_epoch_is_claimed_after_it(lab: Lab) -> None:
    """What an older epoch says after a claim is ignored by readers, so it has to come before."""
    lab.hold(1).claim()
    lab.control.begin(1, AHEAD)
    lab.plan(1, 30, 20, commit=True)

    lab.hold(2, "seeded-beside").claim()

    after_row_time_ms = lab.control.epoch(2).after_row_time_ms  # type: ignore[union-attr]
    rows = list(lab.store.oldest_first(STREAM))
    assert [row.batch_id for row in rows if (row.row_time_ms or 0) <= (after_row_time_ms or 0)] == [0, 1]
