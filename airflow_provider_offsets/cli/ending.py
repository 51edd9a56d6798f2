"""Output and exit codes of the commands."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from airflow_provider_offsets.errors import InputRefused, OffsetsError
from airflow_provider_offsets.reports import TEXT

REFUSED, USAGE, INTERRUPTED = 1, 2, 130
_OPTIONS = {"source": "from", "target": "to", "groups": "group", "snapshots": "snapshot"}
"""Options whose values have another name."""
_CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"


@contextmanager
def command(args: Namespace) -> Iterator[None]:
    """Run a command for a person: an error of this provider becomes a message on standard error and an exit code.

    Airflow's own commands set the same variable. Without it, a connection in Airflow's database is not found.

    :param args: the parsed arguments. An empty one would count as one that was not given.
    """
    before = os.environ.get(_CONTEXT)
    os.environ[_CONTEXT] = "server"
    try:
        _require_filled(args)
        yield
    except InputRefused as error:
        end(USAGE, str(error))
    except OffsetsError as error:
        end(REFUSED, f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        end(INTERRUPTED, "interrupted; each write is stored completely or not at all, so you can run the command again")
    finally:
        if before is None:
            os.environ.pop(_CONTEXT, None)
        else:
            os.environ[_CONTEXT] = before


def _require_filled(args: Namespace) -> None:
    for name, value in vars(args).items():
        if name != "reason" and (value == "" or (isinstance(value, list) and "" in value)):
            option = name if name in ("input", "old") else f"--{_OPTIONS.get(name, name).replace('_', '-')}"
            raise InputRefused(
                seen=f"{option} is empty",
                expected="a value; an empty variable of the shell leaves none",
                do="add the value, or omit the option",
            )


def end(code: int, message: str) -> NoReturn:
    """End the command with this exit code and message.

    :param code: exit code of the process.
    :param message: text for the standard error.
    :raises SystemExit: always.
    """
    print(message, file=sys.stderr)
    raise SystemExit(code)


def note(message: str) -> None:
    """Print the progress of a long command to the standard error."""
    print(message, file=sys.stderr, flush=True)


def show(output: str, data: Any, report: str) -> None:
    """Print the data for a program, or the report for a person.

    :param output: value of ``--output``: ``json`` and ``yaml`` print the data.
    :param data: what JSON and YAML can hold.
    :param report: text for any other value of ``--output``.
    """
    if output == "json":
        print(json.dumps(data))
    elif output == "yaml":
        import yaml

        print(yaml.safe_dump(data, sort_keys=False), end="")
    else:
        print(report)


def style_of(output: str) -> str:
    """Return the table style for a value of ``--output``."""
    return "plain" if output == "plain" else TEXT
