"""What Kafka, HBase and Airflow have in common: start, wait until it answers, stop."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stack import process, state
from stack.places import log_of, shown
from stack.problem import Problem
from stack.report import Ticker, say

LIMIT = 300.0
"""Seconds that a server may take until it answers. A quiet machine needs a tenth; a busy one is no failure."""
PATIENCE = 30.0
"""Seconds that a server may take to end by itself before it is killed."""


def launch(
    server: str,
    argv: Sequence[str],
    entry: state.Entry,
    *,
    name: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Start one process of a server and record it at once, so that ``down`` knows it whatever happens next."""
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
    """Wait until the process ``name`` (the server's own if not given) answers; ``part`` is how a person calls it.

    ``answers`` gives the empty string when all is well, otherwise what is still missing. If the process dies, or
    the limit passes, the server is stopped and the end of its log is shown.
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
            seen = f"did not answer within {limit:.0f} s: {missing}" if alive else "died while starting"
            raise Problem(f"{part} {seen}".strip(), do=f"read {shown(log)}", detail=detail)
        say(server, f"{part} answers after {ticker.seconds:.1f} s".strip())


def stop(server: str, entry: state.Entry, *, quiet: bool = False) -> None:
    """End a server's processes, last started first, and take it off the record."""
    begin = time.monotonic()
    for running in reversed(state.processes(entry).values()):
        process.stop(running, patience=PATIENCE)
    state.record(server, None)
    if not quiet:
        say(server, f"stopped in {time.monotonic() - begin:.1f} s")
