"""Restarts from a chosen start on real Spark: the final content of the sink against what the plans announced."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_offsets.backends.process import is_alive
from airflow_provider_offsets.core.restart.model import RestartPolicy
from airflow_provider_offsets.operations import submitting
from tests.e2e.lab import DEADLINE_S, Lab, wait_for


def test_back_and_forward_into_a_sink_that_knows_batches_by_their_id(make_lab: Callable[..., Lab]) -> None:
    """Such a sink skips a batch id that it has seen, so a restart that reused an id would silently lose a batch."""
    lab = make_lab(arguments=("batch-ids",))
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_read()
    lab.wait_until_idle()

    # Back by 5, over a growth.
    back = lab.maintain("shift:-5", when_stopped=lambda: (lab.grow(4), lab.produce(10, 3)))
    assert (back["plan"]["form"], back["plan"]["replay"]) == ("reposition", 3 * 5)
    lab.wait_until_read()
    wait_for(lambda: lab.read_again == 3 * 5, "what the plan announced to be there twice")
    lab.wait_until_idle()

    # Interrupted after its rows were written, and then rewound: its batch id is not used again.
    lab.fault("kill", "after")
    lab.produce(4, 0, 1, 2, 3)
    lab.wait_until_gone()
    cut_off = lab.started_batch.record_count
    again = lab.maintain("shift:-1")
    assert (again["plan"]["form"], again["plan"]["replay"]) == ("reposition", 4)
    assert again["plan"]["replay_at_most"] == cut_off > 0
    lab.produce(1, 0, 1, 2, 3)
    lab.wait_until_read()
    lab.wait_until_idle()
    assert lab.lost == set()
    assert lab.read_again == 3 * 5 + 4 + cut_off

    # Forward by 2, exactly the accepted count, over another growth.
    stood = lab.observe().stored
    assert stood is not None
    lab.stop(lab.operation())
    lab.produce(6, 0, 1, 2, 3)
    with pytest.raises(AirflowFailException, match=f"skip: 8 offsets of '{lab.topic}' would be skipped"):
        lab.plan(lab.operation(), "shift:+2")
    lab.policy = RestartPolicy(accept_skipped={lab.topic: 8})
    forward = lab.maintain("shift:+2", when_stopped=lambda: (lab.grow(5), lab.produce(10, 4)))
    assert (forward["plan"]["skipped"], forward["plan"]["lost"]) == (8, 0)
    left_out = {(each.partition, offset + more) for each, offset in stood.items() for more in (0, 1)}
    wait_for(lambda: lab.lost <= left_out, "all but the skipped records to be read")
    lab.wait_until_idle()

    assert lab.lost == left_out
    assert lab.read_again == 3 * 5 + 4 + cut_off
    audit = lab.audit()
    assert (audit["lost"], audit["skipped"], audit["unexplained"]) == (0, 8, 0)
    assert (audit["replayed"], audit["replayed_at_most"]) == (3 * 5 + 4, cut_off)


def test_a_stateful_job_is_resumed_and_not_moved(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(arguments=("stateful",))
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_read()
    lab.wait_until_idle()
    state = (lab.home / "checkpoint" / "state").rglob("*")
    assert any(file.is_file() for file in state), "the test of the test"
    with pytest.raises(AirflowFailException, match=r"stateful query asked to reposition: .* holds state"):
        lab.plan(lab.operation(), "shift:-5")
    assert is_alive(lab.epoch.holder)

    resumed = lab.maintain()

    assert resumed["plan"]["form"] == "resume"
    lab.produce(10, 0, 1, 2)
    lab.wait_until_read()
    lab.wait_until_idle()
    assert lab.lost == set()
    assert lab.read_again == 0
    assert lab.audit()["unexplained"] == 0


def test_killed_before_and_after_the_note(lab: Lab) -> None:
    """Steps that ``test_crash.py`` omits: a batch is planned but not in the record; in the record but not run."""
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_idle()

    lab.fault("kill", "planned")
    lab.produce(10, 0, 1, 2)
    lab.wait_until_gone()
    operation = lab.operation()
    lab.stop(operation)
    plan = lab.plan(operation)
    assert (plan["form"], plan["replay_at_most"]) == ("resume", 0), "planned, and never noted"
    lab.apply(operation)
    lab.faults({"epoch": 2, "batch": 1, "at": "before", "do": "kill"})
    with pytest.raises(AirflowFailException, match="DriverDied: Epoch 2 died"):
        lab.submit(operation)

    [cut] = lab.epoch.cuts
    noted = sum(each.count for each in cut.ranges)
    restarted = lab.maintain()

    assert restarted["plan"]["replay_at_most"] == noted > 0
    lab.wait_until_read()
    lab.wait_until_idle()
    audit = lab.audit()
    assert lab.lost == set()
    assert lab.read_again == 0, "it died before its function ran"
    assert (audit["lost"], audit["replayed"], audit["replayed_at_most"], audit["unexplained"]) == (0, 0, noted, 0)


def test_partitions_that_come_during_the_start_and_drivers_by_hand(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new partition appears after the submit has reconciled: Spark dies if a start omits one."""
    launch, coming = submitting.launch, iter([4])

    def grow_first(*arguments: Any, **settings: Any) -> Any:
        for total in coming:
            lab.grow(total)
            lab.produce(10, total - 1)
        return launch(*arguments, **settings)

    lab.produce(20, 0, 1, 2)
    operation = lab.prepare()
    monkeypatch.setattr(submitting, "launch", grow_first)

    started = lab.submit(operation)

    assert started["start"] == {lab.topic: {str(number): 0 for number in range(4)}}
    lab.wait_until_read()
    lab.wait_until_idle()
    assert lab.lost == set()
    assert lab.read_again == 0
    logs = [file.read_text() for file in sorted((lab.home / "checkpoint.logs").glob("*.log"))]
    assert sum("startingOffsets contains specific offsets" in text for text in logs) == 1, "the test of the test"
    assert len(logs) == 2

    # Started by hand, with the deployed and with the launched command: without an epoch neither reads a record.
    running = lab.processes("java")
    [java] = running
    launched = Path(f"/proc/{java}/cmdline").read_text().rstrip("\0").split("\0")
    confs = [word for flag, word in itertools.pairwise(launched) if flag == "--conf"]
    assert any(conf.startswith("spark.offsets.") for conf in confs)
    standing = lab.standing()
    for words, shown in (
        ([], "spark.offsets.settings.file is not in the Spark conf"),
        (confs, "settings.json does not exist"),
    ):
        by_hand = ["spark-submit", "--master", "local[1]", "--jars", lab.jars]
        by_hand += [part for conf in words for part in ("--conf", conf)]
        ended = subprocess.run(
            [*by_hand, lab.application, str(lab.home)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert ended.returncode != 0
        assert shown in ended.stdout + ended.stderr
    assert lab.standing() == standing
    assert lab.processes("java") == running
    assert lab.read_again == 0
    assert lab.audit()["unexplained"] == 0
