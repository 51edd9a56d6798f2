"""Timetables whose data intervals run only by hand and by Airflow's backfills."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable

if TYPE_CHECKING:
    from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction


class _OnlyAsked:
    """Timetable without automatic runs.

    Airflow asks for automatic runs with ``catchup`` off, as the DAG has it, and for the runs of a backfill with
    ``catchup`` on (``SerializedDAG.iter_dagrun_infos_between``).
    """

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the next interval of a backfill, or None to the scheduler."""
        if not restriction.catchup:
            return None
        return super().next_dagrun_info(  # type: ignore[misc,no-any-return]  # of the timetable beside this class
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )


class AskedCronTimetable(_OnlyAsked, CronDataIntervalTimetable):
    """Data intervals of a cron expression, run by hand and by Airflow's backfills only."""


class AskedDeltaTimetable(_OnlyAsked, DeltaDataIntervalTimetable):
    """Data intervals of one length, run by hand and by Airflow's backfills only."""
