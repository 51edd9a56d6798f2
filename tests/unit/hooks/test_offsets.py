"""The connection type ``offsets``: a URL, and a password that Airflow masks."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from airflow.models import Connection

from airflow_provider_offsets.errors import InputRefused, StoreUnreachable
from airflow_provider_offsets.hooks.offsets import OffsetsHook
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.stores.memory import MemoryStore
from airflow_provider_offsets.stores.zookeeper.layout import parse_url
from airflow_provider_offsets.stores.zookeeper.store import ZooKeeperStore
from tests.unit.airflow_versions import no_object
from tests.unit.conftest import Connect

PASSWORD = "p@ss/w:rd #1"


@pytest.mark.parametrize(
    ("why", "fields", "url"),
    [
        (
            "a password is put in, quoted",
            {"extra": {"url": "postgresql://me@db:5432/offsets"}, "password": PASSWORD},
            "postgresql://me:p%40ss%2Fw%3Ard%20%231@db:5432/offsets",
        ),
        (
            "one that stands in the URL already stays",
            {"extra": {"url": "postgresql://me:inside@db/offsets"}, "password": PASSWORD},
            "postgresql://me:inside@db/offsets",
        ),
        ("none is needed", {"extra": {"url": "postgresql://me@db/offsets"}}, "postgresql://me@db/offsets"),
        (
            "a login is the user without a password too: otherwise that of the operating system logs in",
            {"extra": {"url": "postgresql://db/offsets"}, "login": "j@ne"},
            "postgresql://j%40ne@db/offsets",
        ),
        ("a file has none", {"extra": {"url": "sqlite:////tmp/offsets.db"}}, "sqlite:////tmp/offsets.db"),
        ("HBase has none", {"extra": {"url": "hbase://thrift:9090/offsets"}}, "hbase://thrift:9090/offsets"),
        (
            "options of the URL stay",
            {"extra": {"url": "postgresql://me@db/offsets?sslmode=require"}, "password": "x-secret"},
            "postgresql://me:x-secret@db/offsets?sslmode=require",
        ),
        (
            "the login is the user where the URL names none",
            {"extra": {"url": "zookeeper://h1:2181,h2:2182/kafka"}, "login": "j@ne", "password": PASSWORD},
            "zookeeper://j%40ne:p%40ss%2Fw%3Ard%20%231@h1:2181,h2:2182/kafka",
        ),
        (
            "the user of the URL stays",
            {"extra": {"url": "zookeeper://me@h1/kafka"}, "login": "jane", "password": "x-secret"},
            "zookeeper://me:x-secret@h1/kafka",
        ),
        (
            "an IPv6 address stays",
            {"extra": {"url": "postgresql://me@[::1]:5432/offsets"}, "password": "x-secret"},
            "postgresql://me:x-secret@[::1]:5432/offsets",
        ),
    ],
)
def test_the_url_of_a_connection(why: str, fields: dict[str, Any], url: str, connect: Connect) -> None:
    connect("offsets_default", "offsets", **fields)

    assert OffsetsHook().url == url


@pytest.mark.parametrize("extra", [{}, {"url": ""}, {"url": 7}, {"URL": "sqlite:////tmp/offsets.db"}])
def test_a_connection_without_a_url_is_refused_without_its_password(extra: dict[str, Any], connect: Connect) -> None:
    connect("offsets_default", "offsets", extra=extra, password=PASSWORD)

    with pytest.raises(InputRefused, match=r"'offsets_default' has no 'url'.*Fill in 'Store URL'") as refused:
        assert OffsetsHook().url
    assert PASSWORD not in str(refused.value)


class TestTheButton:
    def test_a_store_that_is_there(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        connect("offsets_default", "offsets", extra={"url": "sqlite:////tmp/offsets.db"})
        store, closed = MemoryStore(), []
        monkeypatch.setattr("airflow_provider_offsets.hooks.offsets.open_store", lambda url: store)
        monkeypatch.setattr(store, "close", lambda: closed.append(True))

        assert OffsetsHook().test_connection() == (True, "The store responds, and its tables exist.")
        assert closed == [True]

    def test_a_store_that_does_not_answer(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        connect("offsets_default", "offsets", extra={"url": "sqlite:////tmp/offsets.db"})
        store, closed = MemoryStore(), []

        def away(*arguments: Any) -> Any:
            raise StoreUnreachable(seen="nobody", expected="an answer", do="start it")

        monkeypatch.setattr("airflow_provider_offsets.hooks.offsets.open_store", lambda url: store)
        monkeypatch.setattr(store, "scan", away)
        monkeypatch.setattr(store, "close", lambda: closed.append(True))

        assert OffsetsHook().test_connection() == (False, "Nobody. Expected an answer. Start it.")
        assert closed == [True]

    @pytest.mark.parametrize("url", ["mysql://me:hunter2-hunter2@db/x", "hbase://me:hunter2-hunter2@thrift/x"])
    def test_an_unreachable_url_is_reported_without_its_password(self, url: str, connect: Connect) -> None:
        connect("offsets_default", "offsets", extra={"url": url})

        works, words = OffsetsHook().test_connection()

        assert works is False
        assert "Correct the URL" in words
        assert "hunter2" not in words

    def test_a_zookeeper_that_does_not_answer(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        connect(
            "offsets_default", "offsets", extra={"url": "zookeeper://127.0.0.1:1/kafka"}, login="me", password=PASSWORD
        )
        monkeypatch.setattr(
            "airflow_provider_offsets.hooks.offsets.open_positions",
            lambda url: ZooKeeperStore(parse_url(url), timeout_s=0.2),
        )

        works, words = OffsetsHook().test_connection()

        assert works is False
        assert "zookeeper://127.0.0.1:1/kafka does not answer" in words
        assert PASSWORD not in words

    def test_a_file_that_is_not_there_is_not_made(self, connect: Connect, tmp_path: Path) -> None:
        connect("offsets_default", "offsets", extra={"url": f"sqlite:///{tmp_path}/none.db"})

        assert OffsetsHook().test_connection()[0] is False
        assert list(tmp_path.iterdir()) == []


class TestAsAirflowDoesIt:
    @pytest.mark.filterwarnings("ignore:ProvidersManager")  # Airflow's own command warns of itself
    def test_airflow_makes_the_hook_by_the_name_of_its_attribute(self, connect: Connect, tmp_path: Path) -> None:
        """``airflow connections test``, and the button of the form."""
        url = f"sqlite:///{tmp_path}/offsets.db"
        with closing(open_store(url)) as store:
            store.create()
        connect("offsets_eu", "offsets", extra={"url": url})

        connection = Connection.get_connection_from_secrets("offsets_eu")

        assert connection.test_connection() == (True, "The store responds, and its tables exist.")

    def test_what_no_error_of_ours_tells_is_told(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(url: str) -> Any:
            raise RuntimeError("out of memory")

        connect("offsets_default", "offsets", extra={"url": "sqlite:////tmp/offsets.db"})
        monkeypatch.setattr("airflow_provider_offsets.hooks.offsets.open_store", broken)

        works, words = OffsetsHook().test_connection()

        assert works is False
        assert "'offsets_default' was opened, and failed: RuntimeError: out of memory" in words


class TestExtra:
    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            ({"url": "sqlite:////o.db", "urll": "x"}, "has 'urll'. Expected only 'url'"),
            ('{"url": "sqlite:////a.db", "url": "sqlite:////b.db"}', "'url' appears twice"),
            ({"url": "sqlite:////o.db "}, "'url' has a space (U+0020) at its end"),
            ({"url": "postgresql://me:hunter2@db\u200b/x"}, "'url' has a zero width space (U+200B)"),
            ({"url ": "sqlite:////o.db"}, "'url ' has a space"),
            ("[1]", no_object("it is a list")),
            ("{", no_object("cannot be read")),
            ({"url": ["sqlite:////o.db"]}, "has no 'url'"),
            ({"url": "sqlite:///data/x.db"}, "names a relative path"),
            ({"url": "sqlite:///./x.db"}, "names a relative path"),
            ({"url": "hbase://[::1:9090/t"}, "URL of connection 'offsets_default' cannot be read: Invalid IPv6"),
            ({"url": "hbase://h:0/t"}, "port unreadable"),
            ({"url": "sqlite:///../x.db"}, "names a relative path"),
        ],
    )
    def test_one_that_is_wrong_is_refused(self, extra: Any, words: str, connect: Connect) -> None:
        connect("offsets_default", "offsets", extra=extra)

        works, said = OffsetsHook().test_connection()

        assert (works, words in said) == (False, True), said
        assert "hunter2" not in said

    @pytest.mark.parametrize("conn_id", ["nowhere", "No Where"])
    def test_a_missing_connection(self, conn_id: str) -> None:
        with pytest.raises(InputRefused, match=f"Connection '{conn_id}' does not exist.*airflow connections list"):
            OffsetsHook(conn_id).get_conn()
