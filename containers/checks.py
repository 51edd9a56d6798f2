"""Checks before containers are created; a failed one is reported in one line."""

import re
import socket
from collections.abc import Iterable, Mapping

from containers.settings import port
from stack.problem import Problem

PORTS = ("AIRFLOW_PORT", "KAFKA_PORT", "HBASE_THRIFT_PORT", "SPARK_UI_PORT")
HOST = "127.0.0.1"


def require_ports(settings: Mapping[str, str], names: Iterable[str] = PORTS) -> None:
    """Raise if a port is in use or set twice.

    :param settings: values of ``.env``.
    :param names: names of the settings with ports.
    :raises Problem: a port is not available.
    """
    wanted: dict[int, str] = {}
    for name in names:
        number = port(settings, name)
        if number in wanted:
            raise Problem(
                f"{name} and {wanted[number]} are both {number}",
                expected="a port for each",
                do="change one of them in .env",
            )
        wanted[number] = name
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: allows TIME_WAIT
            try:
                candidate.bind((HOST, number))
            except OSError as error:
                raise Problem(
                    f"port {number} of {HOST} is in use",
                    expected=f"a free port for {name}",
                    do=f"set {name} in .env to another port",
                ) from error


def require_available(meminfo: str, wanted_gib: float) -> None:
    """Raise if less memory is available than the containers' limits allow them to use.

    :param meminfo: content of ``/proc/meminfo``.
    :param wanted_gib: required memory.
    :raises Problem: less memory is available.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    gib = int(found[1]) / 2**20 if found else 0.0
    if gib < wanted_gib:
        raise Problem(
            f"the machine has {gib:.1f} GiB of memory available",
            expected=f"{wanted_gib:.1f} GiB",
            do="stop other programs, and try again",
        )
