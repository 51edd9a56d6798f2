"""What is looked at before containers are made, each said in one line when it is wrong."""

import re
import socket
from collections.abc import Iterable, Mapping

from containers.settings import port
from stack.problem import Problem

PORTS = ("AIRFLOW_PORT", "KAFKA_PORT", "HBASE_THRIFT_PORT", "SPARK_UI_PORT")
HOST = "127.0.0.1"


def require_ports(settings: Mapping[str, str], names: Iterable[str] = PORTS) -> None:
    """Refuse ports that somebody listens on, and the same port twice.

    :raises Problem: one is taken.
    """
    wanted: dict[int, str] = {}
    for name in names:
        number = port(settings, name)
        if number in wanted:
            raise Problem(f"{name} and {wanted[number]} are both {number}", do="give one of them another port in .env")
        wanted[number] = name
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is not taken
            try:
                candidate.bind((HOST, number))
            except OSError as error:
                raise Problem(f"port {number} of {HOST} is taken", do=f"set {name} in .env to another one") from error


def require_available(meminfo: str, wanted_gib: float) -> None:
    """Refuse to start containers that would not find the memory that their limits allow them.

    :param meminfo: the text of ``/proc/meminfo``.
    :raises Problem: less is available.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    gib = int(found[1]) / 2**20 if found else 0.0
    if gib < wanted_gib:
        raise Problem(
            f"{gib:.1f} GiB of memory available", expected=f"{wanted_gib:.1f} GiB", do="stop something, then try again"
        )
