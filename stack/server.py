"""Start a server, wait until it responds, and stop it."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stack import process, state
from stack.places import log_of, shown
from stack.problem import Problem
from stack.report import Ticker, say

LIMIT = 300.0
"""Seconds within which a server must respond. An idle machine needs a tenth, but a busy one is not a failure."""
STOP_TIMEOUT_S = 30.0
"""How long a server may take to end by itself before it is killed."""


def launch(
    server: str,
    argv: Sequence[str],
    entry: state.Entry,
    *,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Start one process of a server and record it at once, so that ``down`` finds it whatever happens next.

    :param entry: the server's entry in ``stack.json``, which receives the process.
    :param name: name of the process and its log; the server's name by default.
    :param env: the complete environment; the caller's by default.
    :param cwd: working directory; the caller's by default.
    """
    name = name or server
    started = process.start(argv, log=log_of(name), env=env, cwd=cwd)
    entry.setdefault("processes", {})[name] = started.as_json()
    state.record(server, entry)


def wait(
    server: str,
    entry: state.Entry,
    answers: Callable[[], str],
    *,
    name: str | None = None,
    part: str = "",
    limit: float,
) -> None:
    """Wait until a process of the server responds.

    If the process dies or the time is up, the server is stopped and the end of its log is shown.

    :param answers: returns what is still missing, or an empty string.
    :param name: name of the process; the server's name by default.
    :param part: name of the part for people.
    :param limit: seconds to wait at most.
    :raises Problem: the process died or the time is up.
    """
    name = name or server
    log = log_of(name)
    running = state.processes(entry)[name]
    missing = "starting"
    with Ticker(server, lambda: missing) as ticker:
        while missing := answers():
            alive = running.alive
            if alive and ticker.seconds < limit:
                time.sleep(0.2)
                continue
            detail = process.last_lines(log)
            stop(server, entry, quiet=True)
            seen = f"did not respond within {limit:.0f} s: {missing}" if alive else "died while starting"
            raise Problem(
                f"{part or server} {seen}",
                expected="a server that responds",
                do=f"read {shown(log)}",
                detail=detail,
            )
        say(server, f"{part} responds after {ticker.seconds:.1f} s".strip())


def stop(server: str, entry: state.Entry, *, quiet: bool = False) -> None:
    """End a server's processes, last started first, and remove the server from ``stack.json``."""
    begin = time.monotonic()
    for running in reversed(state.processes(entry).values()):
        process.stop(running, timeout_s=STOP_TIMEOUT_S)
    state.record(server, None)
    if not quiet:
        say(server, f"stopped in {time.monotonic() - begin:.1f} s")
