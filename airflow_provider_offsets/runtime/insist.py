"""Ask a store again for a while before giving up."""

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


def insist(call: Callable[[], T], *, patience_s: float) -> T:
    """Give what ``call`` gives; while it fails with a retriable error, try again for at most ``patience_s``.

    Our own ten lines, because the driver's Python has no retry library that we could count on. The call must be safe
    to repeat.
    """
    deadline, wait_s = clock.monotonic_s() + patience_s, FIRST_WAIT_S
    while True:
        try:
            return call()
        except OffsetsError as error:
            if not error.retriable or clock.monotonic_s() + wait_s > deadline:
                raise
            log.warning("Trying again in %.1f s: %s", wait_s, error)
            clock.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
