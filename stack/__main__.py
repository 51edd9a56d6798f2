"""The command line: ``python3 -m stack up kafka hbase airflow``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from stack import (
    airflow,
    airflows,
    committer,
    dstream,
    hbase,
    hdfs,
    kafka,
    maven,
    needs,
    server,
    sparks,
    state,
    venv,
    yarn,
)
from stack.places import log_of, shown
from stack.problem import Problem
from stack.report import say

SERVERS = {"kafka": kafka, "hbase": hbase, "hdfs": hdfs, "yarn": yarn, "airflow": airflow}
"""Servers in the order of their start. Airflow is last because its connections refer to the others."""

_EPILOG = """\
examples:
  python3 -m stack up kafka hbase            two servers; the first time, Maven downloads their jars
  python3 -m stack up airflow --store hbase  Airflow with .venv, restarted if it is up with another store
  python3 -m stack status                    which servers are up, with their addresses
  python3 -m stack down                      stop all; data stays (make clean removes it)

All state is below .stack: stack.json has the endpoints, logs/<server>.log the output of each server.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        needs.linux()
        command: Callable[[argparse.Namespace], int] = arguments.run
        return command(arguments)
    except Problem as problem:
        say(problem.server, str(problem))
        if problem.detail:
            print(problem.detail, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("stack", "interrupted; 'python3 -m stack down' stops what was started")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m stack",
        description="Real servers on this machine for the demo and the tests: Kafka, HBase, Airflow.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    up = commands.add_parser("up", help="start servers, and wait until each answers")
    up.add_argument("servers", nargs="+", choices=SERVERS, metavar="server", help="kafka, hbase, hdfs, yarn, airflow")
    up.add_argument(
        "--store",
        choices=airflow.STORES,
        default="sqlite",
        help="the store of Airflow's connection offsets_default (default: sqlite)",
    )
    up.set_defaults(run=_up)

    down = commands.add_parser("down", help="stop servers; their data stays")
    down.add_argument("servers", nargs="*", choices=[*SERVERS, []], metavar="server", help="which (default: all)")
    down.set_defaults(run=_down)

    status = commands.add_parser("status", help="show which servers are up, with their addresses")
    status.set_defaults(run=_status)

    making = commands.add_parser("venv", help="create or update .venv")
    making.set_defaults(run=_venv)

    jars = commands.add_parser("jars", help="download jars, and start no server")
    jars.add_argument("names", nargs="+", choices=maven.NAMES, metavar="name", help=", ".join(maven.NAMES))
    jars.set_defaults(run=_jars)

    spark = commands.add_parser("spark", help="install a version of Spark for tests/versions, and its connector's jars")
    spark.add_argument("version", choices=sparks.SPARKS, help=", ".join(sparks.SPARKS))
    spark.add_argument("--python", default=sparks.OUR_PYTHON, metavar="3.9", help="the Python of the driver")
    spark.set_defaults(run=_spark)

    of_airflow = commands.add_parser("airflow", help="install a version of Airflow for tests/versions")
    of_airflow.add_argument("version", choices=airflows.AIRFLOWS, help=", ".join(airflows.AIRFLOWS))
    of_airflow.add_argument("--python", default=sparks.OUR_PYTHON, metavar="3.12", help="the Python of Airflow")
    of_airflow.add_argument("--lowest", action="store_true", help="the lowest versions that setup.cfg allows")
    of_airflow.set_defaults(run=_other_airflow)

    building = commands.add_parser("committer", help="build the jar of the package's output committer")
    building.set_defaults(run=_committer)
    return parser


def _up(arguments: argparse.Namespace) -> int:
    asked = [name for name in SERVERS if name in arguments.servers]
    with state.alone():
        missing = [name for name in asked if name != "airflow" and not _answers(name)]
        wants_airflow = "airflow" in asked and not _answers("airflow")
        to_start = [*missing, *(["airflow"] if wants_airflow else [])]
        needs.memory({name: SERVERS[name].MEMORY for name in to_start})
        _all_of([_on(name, SERVERS[name].prepare) for name in to_start])
        _all_of([_on(name, SERVERS[name].start) for name in missing])
        if "airflow" in asked:
            _on("airflow", lambda: _airflow(store=arguments.store))()
    return 0


def _answers(name: str) -> bool:
    """Return whether a server is running and responds, and print that; stop a server that does not respond."""
    entry = state.recorded().get(name)
    if entry is None:
        return False
    trouble = SERVERS[name].answers(entry) if state.runs(entry) else "it died"
    if not trouble:
        say(name, f"is up: {_where(entry)}")
        return True
    say(name, f"was started earlier, but {trouble}; restarting it")
    server.stop(name, entry, quiet=True)
    return False


def _airflow(*, store: str) -> None:
    entry = state.endpoints().get("airflow")
    if entry is not None:
        if airflow.fits(entry, store=store):
            return
        say("airflow", "is up with other connections; restarting it")
        server.stop("airflow", entry)
    airflow.start(store=store)


def _on(name: str, step: Callable[[], None]) -> Callable[[], None]:
    """Return a step that sets the server's name on its problems."""

    def run() -> None:
        try:
            step()
        except Problem as problem:
            problem.server = name
            raise

    return run


def _all_of(steps: Sequence[Callable[[], None]]) -> None:
    """Run steps in parallel. If a step fails, wait for the others, then raise the first problem."""
    if steps:
        with ThreadPoolExecutor(max_workers=len(steps)) as pool:
            running = [pool.submit(step) for step in steps]
        for step in running:
            step.result()


def _down(arguments: argparse.Namespace) -> int:
    with state.alone():
        entries = state.recorded()
        asked = [name for name in reversed(SERVERS) if name in entries and name in (arguments.servers or SERVERS)]
        for name in asked:
            server.stop(name, entries[name])
    if not asked:
        say("stack", "nothing to stop")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    entries = state.recorded()
    for name, module in SERVERS.items():
        entry = entries.get(name)
        if entry is None:
            say(name, "not started")
        elif not state.runs(entry):
            say(name, f"died; read {shown(log_of(name))}")
        else:
            pids = ", ".join(str(running.pid) for running in state.processes(entry).values())
            say(name, f"{module.answers(entry) or 'up'}; {_where(entry)}; pid {pids}; {shown(log_of(name))}")
    return 0


def _where(entry: state.Entry) -> str:
    shown_keys = ("bootstrap_servers", "thrift", "zookeeper", "webhdfs", "web", "url", "store")
    return ", ".join(f"{key} {entry[key]}" for key in shown_keys if key in entry)


def _venv(arguments: argparse.Namespace) -> int:
    with state.alone():
        _on("venv", venv.ready)()
    return 0


def _committer(arguments: argparse.Namespace) -> int:
    committer.build()
    return 0


def _jars(arguments: argparse.Namespace) -> int:
    with state.alone():
        for name in arguments.names:
            _on(name, lambda name=name: _fetched(name))()  # type: ignore[misc]
    return 0


def _spark(arguments: argparse.Namespace) -> int:
    installation = sparks.Installation(arguments.version, arguments.python)
    with state.alone():
        _on(installation.home.name, lambda: _fetched(sparks.SPARKS[installation.spark].jars))()
        _on(installation.home.name, installation.install)()
    return 0


def _other_airflow(arguments: argparse.Namespace) -> int:
    installation = airflows.Installation(arguments.version, arguments.python, arguments.lowest)
    with state.alone():
        _on(installation.home.name, installation.install)()
    return 0


def _fetched(name: str) -> None:
    folder = maven.fetch(name)
    if name == dstream.NAME:
        dstream.install()
    say(name, f"{len(maven.jars(name))} jars in {shown(folder)}")


if __name__ == "__main__":
    sys.exit(main())
