"""``open_store`` and the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import certifi
import pytest
from sqlalchemy import exc

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.errors import InputRefused, StoreClientMissing, StoreUnreachable
from airflow_provider_offsets.stores import __main__ as command
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.stores.hbase.store import HBaseStore
from airflow_provider_offsets.stores.sql.store import SqlStore
from tests.contract.store_contract import batch

STREAM = Stream("g", ("t",))


def test_the_url_names_the_store(tmp_path: Path) -> None:
    assert repr(open_store(f"sqlite:///{tmp_path}/a.db")) == f"SqlStore('sqlite:///{tmp_path}/a.db')"
    assert repr(open_store("postgresql://me:secret@h:5432/d")) == "SqlStore('postgresql://me:***@h:5432/d')"
    assert repr(open_store("hbase://h:9091/ns:offsets")) == "HBaseStore('hbase://h:9091/ns:offsets')"
    assert repr(open_store("hbase://h/offsets")) == "HBaseStore('hbase://h:9090/offsets')"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:secret@h/d",
        "memory:",
        "memory:secret",
        "",
        "offsets.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///a.db?secret=1",
        "postgresql://me:secret@h:port/d",
        "postgresql+psycopg2://me:secret@h/d",
        "hbase://h:9090",
        "hbase://h:9090/",
        "hbase://h:secret/t",
        "hbase://me:secret@h:9090/t",
        "hbase://h:9090/a/b",
        "hbase:///t",
    ],
)
def test_urls_that_name_no_store(url: str) -> None:
    with pytest.raises(InputRefused) as refused:
        open_store(url)
    assert "me:secret" not in str(refused.value)
    assert "://" in refused.value.expected or "namespace" in refused.value.expected
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("option", ["sslmod=require", "connect_timeout=x"])
def test_options_that_postgresql_s_client_refuses(option: str) -> None:
    store = open_store(f"postgresql://me:secret@127.0.0.1:1/d?{option}")

    with pytest.raises(InputRefused, match=option.partition("=")[0]) as refused:
        store.get("orders", "epoch/1")
    assert refused.value.do == "remove the option, or correct it"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("", ""),
        ("?transport=framed", "?transport=framed"),
        ("?protocol=compact&transport=framed&tls=true", "?transport=framed&protocol=compact&tls=true"),
        ("?transport=buffered&protocol=binary&tls=false", ""),
        ("?transport=http&tls=true&ca={ca}", "?transport=http&tls=true&ca={ca}"),
    ],
)
def test_options_of_the_thrift_server(query: str, kept: str) -> None:
    store = open_store(f"hbase://h:9090/t{query.format(ca=certifi.where())}")
    assert repr(store) == f"HBaseStore('hbase://h:9090/t{kept.format(ca=certifi.where())}')"


@pytest.mark.parametrize(
    ("query", "seen", "do"),
    [
        ("secret=1", "option 'secret'", "correct its name"),
        ("transport=framed&secret=hunter2", "option 'secret'", "correct its name"),
        ("Transport=framed", "option 'Transport'", "correct its name"),
        ("transport=sasl", "transport='sasl'", "correct its value"),
        ("transport=", "transport=''", "correct its value"),
        ("protocol=json", "protocol='json'", "correct its value"),
        ("tls=yes", "tls='yes'", "correct its value"),
        ("tls", "tls=''", "correct its value"),
        ("tls=true&tls=false", "option 'tls' 2 times", "write it once"),
        ("ca=/etc/ca.pem", "ca='/etc/ca.pem' without tls=true", "add tls=true"),
        ("transport=http&protocol=compact", "transport=http with protocol=compact", "omit the protocol"),
        ("tls=true&ca=", "ca=''", "correct its value"),
        ("tls=true&ca=/nowhere/ca.pem", "No such file", "PEM file"),
        (f"tls=true&ca={__file__}", f"ca={__file__!r}", "PEM file"),
    ],
)
def test_options_that_no_thrift_server_has(query: str, seen: str, do: str) -> None:
    with pytest.raises(InputRefused) as refused:
        open_store(f"hbase://h:9090/t?{query}")
    assert seen in refused.value.seen
    assert do in refused.value.do
    assert "transport=buffered|framed|http" in refused.value.expected
    assert "hunter2" not in str(refused.value)


def test_a_password_is_in_no_error() -> None:
    store = open_store("postgresql://me:se%2Fcret@127.0.0.1:1/d")
    with pytest.raises(StoreUnreachable) as unreachable:
        store.get("p", "n")
    shown = f"{unreachable.value} {unreachable.value.__cause__} {store!r}"
    assert "127.0.0.1" in shown
    assert "cret" not in shown
    store.close()


def test_a_password_that_the_database_itself_tells_is_hidden() -> None:
    store = SqlStore("postgresql://me:secret@h:5432/d")
    shown = store._problem(exc.OperationalError(None, None, Exception("no entry for me:secret@h")))
    assert "me:***@h" in str(shown)
    assert "secret" not in str(shown)


def test_the_create_command_holds_no_password() -> None:
    store = SqlStore("postgresql://me:secret@h:5432/d")
    assert store._create_command == "python -m airflow_provider_offsets.stores create postgresql://me@h:5432/d"


def test_a_missing_client_names_the_package_and_the_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "happybase", None)
    with pytest.raises(StoreClientMissing, match="happybase") as missing:
        open_store("hbase://h:9090/t")
    assert sys.executable in str(missing.value)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreClientMissing, match="psycopg"):
        open_store("postgresql://h/d")
    monkeypatch.delitem(sys.modules, "airflow_provider_offsets.stores.sql.store")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(StoreClientMissing, match="SQLAlchemy"):
        open_store("sqlite:////a.db")


def test_naming_a_store_imports_no_client() -> None:
    program = """
import sys
import airflow_provider_offsets.stores, airflow_provider_offsets.stores.memory
print({"airflow", "sqlalchemy", "happybase", "thriftpy2", "psycopg"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_unreachable_hbase() -> None:
    store = HBaseStore("127.0.0.1", 1, "t")
    with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1:1 does not answer.*Could not connect"):
        store.position(STREAM)


def test_create_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    assert command.main(["show", url, "--group-id", "g", "--topic", "t"]) == 1
    assert f"stores create {url}" in capsys.readouterr().err
    assert command.main(["create", url]) == 0
    store = open_store(url)
    for number in range(12):
        store.append(STREAM, batch(number))
    store.close()
    capsys.readouterr()
    assert command.main(["show", url, "--group-id", "g", "--topic", "t"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0] == '1760000011000  {"t":{"0":120}}  batch 11 of q, epoch 1'
