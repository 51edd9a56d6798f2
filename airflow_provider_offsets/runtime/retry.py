"""Retry calls to a store for a limited time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_offsets import clock
from airflow_provider_offsets.errors import OffsetsError

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0


def retry(call: Callable[[], T], *, retry_timeout_s: float) -> T:
    """Return the result of ``call``, retrying it while it fails with a retriable error.

    Waits 0.2 s after the first failure and doubles the wait up to 5 s. Hand-written because a Spark driver's Python has
    no retry library that we can rely on.

    :param call: must be safe to repeat.
    :param retry_timeout_s: no retry starts later than this many seconds after the first call.
    :raises OffsetsError: the last error, if it is not retriable or the time is up.
    """
    deadline, wait_s = clock.monotonic_s() + retry_timeout_s, FIRST_WAIT_S
    while True:
        try:
            return call()
        except OffsetsError as error:
            if not error.retriable or clock.monotonic_s() + wait_s > deadline:
                raise
            log.warning("Retrying in %.1f s: %s", wait_s, error)
            clock.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
