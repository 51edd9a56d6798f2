"""Free ports of the loopback interface."""

import random
import socket
import threading
from collections.abc import Collection

HOST = "127.0.0.1"
_PICKED_FROM = range(10_000, 32_768)
"""Below Linux's ephemeral ports: a connection could take one of those before the server listens."""
_given: set[int] = set()
_giving = threading.Lock()


def free(preferred: int, *, besides: Collection[int] = ()) -> int:
    """Return the preferred port if it is free, otherwise a random one; never a port that was already returned.

    :param besides: ports that must not be returned.
    """
    with _giving:
        tried = (preferred, *random.sample(_PICKED_FROM, 200))
        port = next(each for each in tried if each not in besides and each not in _given and _is_free(each))
        _given.add(port)
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: allows TIME_WAIT
        try:
            candidate.bind(("0.0.0.0", port))  # noqa: S104 - only to see that no interface has it
        except OSError:
            return False
        return True
