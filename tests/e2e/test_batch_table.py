"""A table in PostgreSQL beside a table of its batches, and the audit of both. ``make sinks`` tests more sinks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from airflow_provider_offsets.core.sink.model import Sink, SinkFormat
from tests.e2e.lab import Lab
from tests.e2e.sink_lab import LabSink, SinkLab, in_postgres, of_program
from tests.integration.postgres_server import new_database, running_postgres


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URL of an empty database, which the program and the audit can open."""
    with running_postgres() as server:
        url = new_database(server)
        found = urlsplit(url)
        connection = {"conn_type": "postgres", "host": found.hostname, "port": found.port, "login": found.username}
        password = {"password": found.password, "schema": found.path[1:]}
        monkeypatch.setenv("AIRFLOW_CONN_SINK", json.dumps(connection | password))
        monkeypatch.setenv("PGPASSWORD", found.password or "")
        yield url


def test_each_record_is_in_the_table_once_and_a_removed_row_is_found(make_lab: Callable[..., Lab], url: str) -> None:
    lab = make_lab(sink=Sink(SinkFormat.BATCH_TABLE, conn_id="sink", batch_table="batches", table="records"))
    without_password = url.replace(f":{urlsplit(url).password}@", "@")
    sinks = {"table": LabSink(lambda: in_postgres(url))}
    tested = SinkLab(of_program(lab, "jdbc.py", "--url", without_password), sinks)
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_idle()
    tested.kill_after_the_write()
    lab.maintain()
    lab.wait_until_idle()

    tested.check("a batch that was tried again")
    assert lab.audit()["sink"]["verdict"] == "proven"

    with psycopg.connect(url) as connection:
        connection.execute('DELETE FROM records WHERE partition = 1 AND "offset" = 7')
    found = lab.audit()["sink"]
    assert (found["verdict"], found["removals"]) == ("not proven", 1)
