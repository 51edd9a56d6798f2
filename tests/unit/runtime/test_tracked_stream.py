"""The arguments of ``run``, before anything is claimed or read; and what the stream offers while a batch runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.core.batch import digest_of
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.runtime import TrackedStream, live_query, tracked_stream
from tests.unit.runtime.lab import QUERY, Lab, planned, running_as
from tests.unit.runtime.test_live_query import Spark


@pytest.mark.parametrize(
    ("given", "seen"),
    [({}, "neither process= nor sink="), ({"process": print, "sink": print}, "both process= and sink=")],
)
def test_one_of_process_and_sink(
    given: dict[str, Any], seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stream_of(Lab(tmp_path), mock.MagicMock(), monkeypatch)
    with pytest.raises(InputRefused, match=f"was given {seen}"):
        stream.run(None, **given)


def stream_of(lab: Lab, spark: Any, monkeypatch: pytest.MonkeyPatch) -> TrackedStream:
    """Return what the program of the lab's next launch enters."""
    monkeypatch.setattr(live_query, "HadoopCheckpoint", lambda session, location: open_checkpoint(location))
    monkeypatch.setattr(tracked_stream, "open_store", lambda url: lab.store)
    lab.launch()
    return TrackedStream(spark, lab.hold().settings)


def test_what_identifies_a_batch_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is tried again in the next epoch has the same key and options: a sink can recognise it."""
    lab = Lab(tmp_path)
    found: list[tuple[str, str, dict[str, str]]] = []

    def run(spark: Spark, fails: bool) -> None:
        def write(frame: Any, batch_id: int) -> None:
            found.append((stream.query_id, stream.batch_key, stream.write_options("delta")))
            if fails:
                raise ValueError("the sink is down")

        with running_as(len(found) + 1), stream_of(lab, spark, monkeypatch) as stream:
            stream.run(spark, process=write)

    with pytest.raises(ValueError, match="the sink is down"):
        run(Spark(lab, [0]), fails=True)
    run(Spark(lab, [0, 1]), fails=False)

    key = f"alerts:{QUERY}:0:{digest_of(planned(0))}"
    assert found[0] == (
        QUERY,
        key,
        {"txnAppId": QUERY, "txnVersion": "0", "userMetadata": json.dumps({"offsets.batch": key})},
    )
    assert found[1] == found[0]
    assert found[2][1] == f"alerts:{QUERY}:1:{digest_of(planned(1))}"


@pytest.mark.parametrize(
    ("why", "given", "do"),
    [
        ("no batch has started", {}, "passed to run.. as process="),
        ("the function has returned", {"process": lambda frame, batch_id: None}, "passed to run.. as process="),
        ("Spark's own sink identifies its batches", {"sink": lambda writer: writer}, "Use them with process="),
    ],
)
@pytest.mark.parametrize("ask", [lambda stream: stream.batch_key, lambda stream: stream.write_options("delta")])
def test_nothing_identifies_a_batch_outside_of_one(
    why: str, given: dict[str, Any], do: str, ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path)
    spark = Spark(lab, [0])

    with running_as(1), stream_of(lab, spark, monkeypatch) as stream:
        assert stream.query_id == "", "Spark assigns it with the first batch"
        if given:
            stream.run(spark, **given)
        with pytest.raises(InputRefused, match=do):
            ask(stream)

    assert stream.query_id == (QUERY if given else "")
