"""A proxy before a server, which can be cut and opened again at the same port."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """A proxy that forwards ``port`` to a server until it is cut.

    :param server: ``host:port``.
    """

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._lock = threading.Lock()
        self._open: set[socket.socket] | None = None
        """None while the proxy is cut."""
        # Bound but not listening: while the proxy is cut nobody else gets the port, and connections are refused.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port: int = self._held.getsockname()[1]
        self.open()

    def open(self) -> None:
        """Listen, at the same port as before."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self._open = {listener}
        self._accepting = threading.Thread(target=self._accept, args=(listener, self._open), daemon=True)
        self._accepting.start()

    def cut(self) -> None:
        """Close every connection, and refuse new ones."""
        with self._lock:
            cut, self._open = self._open or set(), None
            for each in cut:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        # New connections are refused only once the thread has closed its listening socket.
        self._accepting.join()

    def close(self) -> None:
        """Cut the way for good."""
        self.cut()
        self._held.close()

    def _accept(self, listener: socket.socket, ours: set[socket.socket]) -> None:
        with listener, contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._serve, args=(near, ours), daemon=True).start()

    def _serve(self, near: socket.socket, ours: set[socket.socket]) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(self._server) as far:
            with self._lock:
                if self._open is not ours:
                    return
                ours |= {near, far}
            answers = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
            answers.start()
            _pass_on(near, far)
            answers.join()
            with self._lock:
                ours -= {near, far}


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
