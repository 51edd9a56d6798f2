"""``.stack/stack.json``: the running servers, their addresses and their processes."""

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

from stack.places import STATE
from stack.process import Process
from stack.report import say

FILE = STATE / "stack.json"
Entry = dict[str, Any]
_writing = threading.Lock()


def endpoints() -> dict[str, Entry]:
    """Return the addresses of each server whose processes run, for the demo and the tests.

    For example ``endpoints()["kafka"]["bootstrap_servers"]``, ``endpoints()["hbase"]["thrift"]``,
    ``endpoints()["airflow"]["url"]``. A missing server was not started, or has died.
    """
    return {name: entry for name, entry in recorded().items() if runs(entry)}


def recorded() -> dict[str, Entry]:
    """Return every entry of the file, whether its processes still run or not."""
    try:
        return dict(json.loads(FILE.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def processes(entry: Entry) -> dict[str, Process]:
    """Return the processes of a server by the name of their log, in the order of their start."""
    return {name: Process(**fields) for name, fields in entry["processes"].items()}


def runs(entry: Entry) -> bool:
    """Return whether every process of the server runs."""
    found = processes(entry)
    return bool(found) and all(process.alive for process in found.values())


def record(name: str, entry: Entry | None) -> None:
    """Write or remove one server's entry. Readers never see a partly written file.

    :param entry: None removes the entry.
    """
    with _writing:
        entries = recorded()
        entries.pop(name, None)
        if entry is not None:
            entries[name] = entry
        STATE.mkdir(exist_ok=True)
        draft = FILE.with_suffix(".new")
        draft.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(draft, FILE)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the lock for ``stack`` commands that change something; wait, with a message, until it is free."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("stack", "waiting for another stack command in this checkout")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
