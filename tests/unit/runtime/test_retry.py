"""A store that is unreachable for some time is asked again; a store that refuses is not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_offsets.clock import installed
from airflow_provider_offsets.errors import OffsetsError, StoreDataError, StoreUnreachable
from airflow_provider_offsets.runtime.retry import retry
from tests.unit.operations.lab import Clock

AWAY = StoreUnreachable(seen="nobody", expected="an answer", do="start it")
WRONG = StoreDataError(seen="garbage", expected="JSON", do="look")


@pytest.fixture
def clock() -> Iterator[Clock]:
    made = Clock()
    with installed(made):
        yield made


def failing(*errors: Exception) -> Callable[[], str]:
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    return call


def test_an_answer_is_given_at_once(clock: Clock) -> None:
    assert retry(failing(), retry_timeout_s=60) == "answer"
    assert clock.now == 1000.0


def test_it_is_asked_again_at_growing_intervals(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert retry(failing(*[AWAY] * 7), retry_timeout_s=60) == "answer"

    assert clock.now - 1000.0 == pytest.approx(0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 5.0 + 5.0)
    assert caplog.messages[0] == f"Retrying in 0.2 s: {AWAY}"


@pytest.mark.parametrize("retry_timeout_s", [0, 0.1, 3, 60])
def test_the_retry_timeout_ends(retry_timeout_s: float, clock: Clock) -> None:
    with pytest.raises(StoreUnreachable):
        retry(failing(*[AWAY] * 100), retry_timeout_s=retry_timeout_s)

    assert clock.now - 1000.0 <= retry_timeout_s


@pytest.mark.parametrize("error", [WRONG, OSError("disk"), KeyError("bug")])
def test_an_error_that_is_not_retriable_is_not_retried(error: Exception, clock: Clock) -> None:
    with pytest.raises(type(error)):
        retry(failing(error), retry_timeout_s=60)

    assert clock.now == 1000.0


def test_only_our_own_errors_say_that_they_may_pass() -> None:
    assert OffsetsError.retriable is False
