"""A running job with a checkpoint of its own becomes a tracked pipeline: docs/adopt.md, step by step."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.lab import DEADLINE_S, Lab, wait_for

PLAIN_JOB = Path(__file__).with_name("plain_job.py")


@contextmanager
def plain_job(lab: Lab) -> Iterator[subprocess.Popen[bytes]]:
    """Run the job by hand, without this provider."""
    conf = [word for name, value in lab.job.conf.items() for word in ("--conf", f"{name}={value}")]
    command = ["spark-submit", "--master", "local[2]", "--jars", lab.jars, *conf, str(PLAIN_JOB)]
    with (lab.home / "plain.log").open("ab") as log:
        running = subprocess.Popen(
            [*command, str(lab.home), lab.bootstrap, lab.topic], stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def test_a_job_that_was_killed_in_a_batch_is_adopted_maintained_and_audited(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.produce(20, 0, 1, 2)
    with plain_job(lab) as running:
        wait_for(lambda: not lab.lost, "the plain job to read the topic")
        (lab.home / "kill").touch()
        lab.produce(10, 0, 1, 2)
        running.wait(DEADLINE_S)
    assert not lab.lost, "the batch that was cut off has written its rows"

    adopted = lab.maintain()

    plan = adopted["plan"]
    assert (plan["form"], plan["lost"], plan["skipped"], plan["replay"]) == ("resume", 0, 0, 0)
    assert plan["replay_at_most"] == 30, "the batch in flight may have been written before, and counts as such"
    lab.produce(10, 0, 1, 2)
    lab.wait_until_read()
    lab.wait_until_idle()
    assert (lab.lost, lab.read_again) == (set(), 30)

    maintained = lab.maintain()

    assert (maintained["plan"]["form"], maintained["plan"]["replay_at_most"]) == ("resume", 0)
    lab.produce(10, 0, 1, 2)
    lab.wait_until_read()
    lab.wait_until_idle()
    audit = lab.audit()
    assert (audit["lost"], audit["unexplained"], audit["replayed_at_most"]) == (0, 0, 30)
    assert (lab.lost, lab.read_again) == (set(), 30)
