"""The command line: ``python3 -m containers password``."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from containers import base, checks, compose, settings
from stack.problem import Problem
from stack.report import say


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except Problem as problem:
        say("compose", str(problem))
        if problem.detail:
            print(problem.detail, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("compose", "interrupted")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m containers",
        description="Prepare and test docker-compose.yml; see docs/compose.md.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    making = commands.add_parser(
        "base", help=f"create the image {base.IMAGE} by debootstrap, as root, unless it exists"
    )
    making.set_defaults(run=_base)
    password = commands.add_parser("password", help="write .env with generated secrets, and print the admin's password")
    password.set_defaults(run=_password)
    up = commands.add_parser("up", help="check that the ports of .env are free, and run docker compose up -d")
    up.set_defaults(run=_up)
    test = commands.add_parser(
        "test", help="start, kill and check all containers, and remove them (needs .venv/bin/python)"
    )
    test.add_argument("--keep-images", action="store_true", help="keep the images for another run")
    test.set_defaults(run=_test)
    return parser


def _base(arguments: argparse.Namespace) -> int:
    if base.is_there():
        say("compose", f"{base.IMAGE} exists")
    else:
        base.make()
    return 0


def _password(arguments: argparse.Namespace) -> int:
    password = settings.write()
    say("compose", f"wrote {settings.ENV.name}; Airflow's user is admin, its password: {password}")
    checks.require_ports(settings.read())
    return 0


def _up(arguments: argparse.Namespace) -> NoReturn:
    argv = [*compose.program(), "-f", str(compose.FILE), "up", "-d"]
    if not compose.is_up():
        checks.require_ports(settings.read())
    os.execvp(argv[0], argv)  # noqa: S606 - what it says is for whoever typed this


def _test(arguments: argparse.Namespace) -> int:
    # These modules need clients of Kafka and Airflow, which the other commands do not need.
    import httpx

    from containers.trial import Trial
    from demo.check import CheckImpossible
    from demo.progress import DemoFailed, Progress

    progress = Progress()
    trial = Trial(progress)
    try:
        return 0 if trial.run() else 1
    except (DemoFailed, CheckImpossible, httpx.HTTPError) as error:
        progress.say(f"the test failed: {error}")
        return 1
    finally:
        trial.remove(keep_images=arguments.keep_images)


if __name__ == "__main__":
    sys.exit(main())
