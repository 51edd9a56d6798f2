"""An untracked job goes through the maintenance DAG: nothing is lost, and replayed records are counted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_offsets.core.pipeline import StopPolicy
from tests.e2e.dag_runs import MaintenanceDag
from tests.e2e.lab import DEADLINE_S, Lab, wait_for
from tests.e2e.untracked_lab import UntrackedLab


@pytest.fixture
def archive(make_lab: Callable[..., Lab], tmp_path: Path) -> UntrackedLab:
    stop_policy = StopPolicy(graceful_timeout_s=DEADLINE_S, signal_timeout_s=DEADLINE_S, marker=str(tmp_path / "stop"))
    lab = make_lab(kind=UntrackedLab, stop_policy=stop_policy)
    assert isinstance(lab, UntrackedLab)
    return lab


def test_growth_and_a_rewind_lose_nothing_and_replay_what_was_announced(
    archive: UntrackedLab, airflow_home: Path
) -> None:
    dag = MaintenanceDag(archive, airflow_home)
    archive.produce(100, 0, 1, 2)
    first = dag.run()
    archive.wait_until_read()
    archive.produce(50, 0, 1, 2)
    archive.wait_until_read()
    grown = dag.run(when_stopped=lambda: (archive.grow(5), archive.produce(40, 3, 4)))
    archive.wait_until_read()
    archive.wait_until_idle()
    rewound = dag.run("shift:-30")
    archive.produce(10, 0, 1, 2, 3, 4)
    archive.wait_until_read()
    wait_for(lambda: archive.read_again >= rewound["replan"]["replay"], "the announced replay to happen")

    assert [run["replan"]["form"] for run in (first, grown, rewound)] == ["fresh", "resume", "reposition"]
    assert grown["stop"]["how"] == "stopped"
    assert rewound["replan"]["replay"] == 5 * 30
    assert archive.lost == set()
    assert archive.read_again == 5 * 30, "a sink that knows batches by their ids took the replay for new batches"
    audit = archive.audit()
    assert (audit["lost"], audit["unexplained"], audit["replayed"]) == (0, 0, 5 * 30)


def test_what_a_kill_in_mid_batch_replays_is_counted_before_and_after(archive: UntrackedLab) -> None:
    archive.max_offsets_per_trigger = 300
    archive.produce(100, 0, 1, 2)
    archive.maintain()
    archive.wait_until_read()
    archive.produce(20_000, 0, 1, 2)
    holder = archive.epoch.holder
    wait_for(lambda: (state := archive.observe().checkpoint) and state.planned is not None, "a batch that is planned")
    os.killpg(os.getpgid(holder.pid), signal.SIGKILL)
    archive.wait_until_gone()
    archive.max_offsets_per_trigger = 20_000

    restarted = archive.maintain()
    archive.wait_until_read()

    assert restarted["stopped"]["how"] == "already died"
    at_most = restarted["plan"]["replay_at_most"]
    assert archive.lost == set()
    assert archive.read_again == 0, "the file sink commits a batch as a whole"
    audit = archive.audit()
    assert (audit["lost"], audit["unexplained"]) == (0, 0)
    assert audit["replayed_at_most"] == at_most
