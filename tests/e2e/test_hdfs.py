"""Jobs whose checkpoint is on HDFS, which Airflow reaches over WebHDFS: stopped, moved and started like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.core.pipeline import StopPolicy
from tests.e2e.lab import DEADLINE_S, Lab, wait_for
from tests.e2e.untracked_lab import UntrackedLab


def test_a_job_that_nobody_rewrote_is_moved_on_hdfs(
    make_lab: Callable[..., Lab], hdfs: str, hdfs_endpoint: dict[str, str], tmp_path: Path
) -> None:
    """Its program uses ``hdfs://`` and the pipeline ``webhdfs://``, on a machine without a native Hadoop client."""
    stop_policy = StopPolicy(graceful_timeout_s=DEADLINE_S, signal_timeout_s=DEADLINE_S, marker=str(tmp_path / "stop"))
    place = f"{hdfs.removeprefix(hdfs_endpoint['webhdfs'])}/checkpoint"
    archive = make_lab(
        kind=UntrackedLab,
        stop_policy=stop_policy,
        checkpoint=f"webhdfs://{hdfs}/checkpoint",
        checkpoint_of_job=f"hdfs://{hdfs_endpoint['hdfs']}{place}",
    )
    assert isinstance(archive, UntrackedLab)
    archive.produce(100, 0, 1, 2)
    first = archive.maintain()
    archive.wait_until_read()
    archive.wait_until_idle()

    rewound = archive.maintain("shift:-30", when_stopped=lambda: (archive.grow(4), archive.produce(40, 3)))
    archive.wait_until_read()
    wait_for(lambda: archive.read_again >= rewound["plan"]["replay"], "the announced replay to happen")

    assert [run["plan"]["form"] for run in (first, rewound)] == ["fresh", "reposition"]
    assert rewound["plan"]["replay"] == 3 * 30
    assert (archive.lost, archive.read_again) == (set(), 3 * 30)
    audit = archive.audit()
    assert (audit["lost"], audit["unexplained"], audit["replayed"]) == (0, 0, 3 * 30)
    left = read_state(open_checkpoint(f"{archive.checkpoint}-before-{rewound['plan']['fingerprint']}"))
    assert left is not None
    assert left.closed_by == rewound["plan"]["fingerprint"]
