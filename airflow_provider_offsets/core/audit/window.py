"""Part of a history that an audit reports on."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from airflow_provider_offsets.core.hidden import hidden_character
from airflow_provider_offsets.core.moments import moment_text, read_moment


class Measure(enum.Enum):
    """Unit of a window's bound."""

    TIME = "time"
    BATCH = "batch"
    EPOCH = "epoch"


@dataclass(frozen=True)
class Bound:
    """One end of a window, inclusive: a time in milliseconds, a batch id or an epoch."""

    measure: Measure
    value: int

    def __str__(self) -> str:
        return moment_text(self.value) if self.measure is Measure.TIME else f"{self.measure.value}:{self.value}"

    @classmethod
    def read(cls, text: str) -> Bound:
        """Return the bound of ``2026-11-01T00:00Z``, ``batch:12`` or ``epoch:3``.

        :raises ValueError: the text has another form or a hidden character, or a time has no zone.
        """
        if hidden := hidden_character(text, inside_only=True):
            raise ValueError(f"it has {hidden}")
        word, _, rest = text.strip().partition(":")
        for measure in (Measure.BATCH, Measure.EPOCH):
            if word == measure.value:
                if not (rest.isascii() and rest.isdecimal()):
                    raise ValueError(f"{rest!r} is no number")
                return cls(measure, int(rest))
        return cls(Measure.TIME, read_moment(text))


@dataclass(frozen=True)
class AuditWindow:
    """Part of a history that an audit reports: from the first row or epoch at ``since`` to the last one at ``until``.

    Earlier rows are read too: what they have read determines what is replayed in the window.
    """

    since: Bound | None = None
    until: Bound | None = None

    def holds(self, places: dict[Measure, int]) -> bool:
        """Check whether something at these places is in the window. A missing place is after every bound.

        :param places: place by measure: a time in milliseconds, a batch id or an epoch.
        """
        since, until = self.since, self.until
        is_late_enough = since is None or places.get(since.measure, since.value) >= since.value
        return is_late_enough and (until is None or places.get(until.measure, until.value + 1) <= until.value)
