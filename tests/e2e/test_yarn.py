"""An untracked job runs on YARN and is stopped there: the product verifies that nothing is left on the cluster."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pyspark
import pytest

import stack
from airflow_provider_offsets.core.epoch import YarnApplication
from airflow_provider_offsets.core.pipeline import StopPolicy, StreamingPipeline
from airflow_provider_offsets.operators import StopStreamingJobOperator
from tests.e2e.lab import DEADLINE_S, Lab, wait_for
from tests.e2e.untracked_lab import UntrackedLab

ROOT = Path(__file__).parents[2]
ON_YARN = {
    # The jars are there already: nothing is copied for an application.
    "spark.yarn.jars": f"local:{Path(pyspark.__file__).parent}/jars/*",
    "spark.yarn.am.memory": "256m",
    "spark.driver.memory": "512m",
    "spark.executor.memory": "512m",
    "spark.executor.instances": "1",
    "spark.executor.cores": "2",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.yarn.am.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


class YarnLab(UntrackedLab):
    """``jobs/archive_flights.py`` on YARN. The tests query the cluster directly, without the product."""

    @property
    def pipeline(self) -> StreamingPipeline:
        """The pipeline as the operators get it."""
        plain = super().pipeline
        return replace(plain, job=replace(plain.job, conf={**plain.job.conf, **ON_YARN}))

    @property
    def known(self) -> YarnApplication:
        """How the newest epoch is found."""
        assert self.epoch.claim.yarn is not None
        return self.epoch.claim.yarn

    def on_cluster(self) -> dict[str, Any]:
        """Return the application of the newest epoch, as the ResourceManager reports it."""
        url = f"{self.known.resource_manager}/ws/v1/cluster/apps"
        [found] = httpx.get(url, params={"applicationTags": self.known.tag}).json()["apps"]["app"]
        return dict(found)

    def containers(self) -> list[str]:
        """Return the command lines of its containers that run on this machine."""
        number = self.on_cluster()["id"].removeprefix("application_")
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found.append(file.read_bytes().decode(errors="replace"))
        return [line for line in found if f"container_{number}" in line]

    def close(self) -> None:
        """Kill what is left on YARN too."""
        for epoch in self.control.epochs():
            if epoch.claim.yarn is not None:
                url = f"{epoch.claim.yarn.resource_manager}/ws/v1/cluster/apps"
                found = httpx.get(url, params={"applicationTags": epoch.claim.yarn.tag}).json()["apps"].get("app", [])
                for each in found:
                    httpx.put(f"{url}/{each['id']}/state", json={"state": "KILLED"})
        super().close()


@pytest.fixture(scope="session")
def yarn() -> dict[str, str]:
    """Start YARN if it is not up, and return its endpoints. It stays up, as every server of the stack does."""
    subprocess.run([sys.executable, "-m", "stack", "up", "yarn"], cwd=ROOT, check=True)
    return dict(stack.endpoints()["yarn"])


@pytest.fixture
def make_archive(
    make_lab: Callable[..., Lab], yarn: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., YarnLab]:
    """Return a function that makes the lab of a job in a deploy mode."""

    def make(deploy_mode: str) -> YarnLab:
        lab = make_lab(kind=YarnLab, stop_policy=StopPolicy(cluster_timeout_s=DEADLINE_S))
        assert isinstance(lab, YarnLab)
        extra = {"deploy-mode": deploy_mode, "yarn_resourcemanager_webapp_address": yarn["web"]}
        connection = {"conn_type": "spark", "host": "yarn", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SPARK_DEFAULT", json.dumps(connection))
        monkeypatch.setenv("HADOOP_CONF_DIR", yarn["conf"])
        lab.max_offsets_per_trigger = 300
        lab.produce(10_000, 0, 1, 2)
        return lab

    return make


def test_client_mode_loses_nothing_and_counts_what_the_kill_cut_off(make_archive: Callable[..., YarnLab]) -> None:
    lab = make_archive("client")
    lab.maintain()
    wait_for(lambda: (state := lab.observe().checkpoint) and state.planned is not None, "a batch that is planned")
    lab.max_offsets_per_trigger = 20_000
    seen: dict[str, Any] = {}

    def look() -> None:
        seen.update(state=lab.on_cluster()["state"], containers=lab.containers(), in_flight=lab.observe().in_flight)

    restarted = lab.maintain(when_stopped=look)
    lab.wait_until_read()
    lab.wait_until_idle()

    assert restarted["stopped"]["how"] == "killed"
    assert (seen["state"], seen["containers"]) == ("KILLED", [])
    assert restarted["plan"]["replay_at_most"] == sum(each.count for each in seen["in_flight"])
    assert lab.lost == set()
    assert lab.read_again == 0, "the file sink commits a batch as a whole"
    audit = lab.audit()
    assert (audit["lost"], audit["unexplained"]) == (0, 0)
    assert audit["replayed_at_most"] == restarted["plan"]["replay_at_most"]


def test_cluster_mode_outlives_its_submit_and_a_stop_that_is_killed(make_archive: Callable[..., YarnLab]) -> None:
    lab = make_archive("cluster")
    lab.maintain()
    holder = lab.epoch.holder
    os.killpg(holder.pid, signal.SIGKILL)
    lab.wait_until_gone()
    assert lab.on_cluster()["state"] == "RUNNING"
    operation = lab.operation()

    lab.kill(lab.task(StopStreamingJobOperator, operation), "change", "after", step="NoteStopStage")
    assert lab.ended(1) is None
    assert lab.stop(operation)["how"] == "killed"

    assert lab.on_cluster()["state"] == "KILLED"
    wait_for(lambda: not lab.containers(), "the NodeManager to end the executors of the killed application")
    assert lab.stop(lab.operation())["how"] == "already killed"
