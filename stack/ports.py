"""Free ports of the loopback interface."""

import socket
from collections.abc import Collection

HOST = "127.0.0.1"


def free(preferred: int, *, besides: Collection[int] = ()) -> int:
    """The preferred port if nobody has it, otherwise one that the system picks."""
    return preferred if preferred not in besides and _is_free(preferred) else _picked()


def _is_free(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is not taken
        try:
            candidate.bind(("0.0.0.0", port))  # noqa: S104 - only to see that no interface has it
        except OSError:
            return False
        return True


def _picked() -> int:
    with socket.socket() as candidate:
        candidate.bind((HOST, 0))
        return int(candidate.getsockname()[1])
