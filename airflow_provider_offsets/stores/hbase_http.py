"""Thrift over HTTP, as HBase's Thrift server speaks it: the only form in which it knows TLS by itself."""

from __future__ import annotations

import io
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection


class HttpTransport:
    """What thriftpy2 reads and writes through in the place of a socket: each call is one POST, over a connection that
    is kept.

    Our own, because thriftpy2's sets the timeout of every new socket of the process, takes any answer for a good one,
    and on a kept connection sends a call again by itself: a compare and set must not be.

    :param trusted: for TLS, the authorities; None for plain HTTP.
    """

    def __init__(self, host: str, port: int, *, timeout_s: float, trusted: ssl.SSLContext | None) -> None:
        if trusted is None:
            self._connection = HTTPConnection(host, port, timeout=timeout_s)
        else:
            self._connection = HTTPSConnection(host, port, timeout=timeout_s, context=trusted)
        self._call = bytearray()
        self._answer = io.BytesIO()

    def is_open(self) -> bool:
        """Return whether there is a connection."""
        return self._connection.sock is not None

    def open(self) -> None:
        """Make the connection."""
        self._connection.connect()

    def close(self) -> None:
        """Close the connection. Safe to repeat."""
        self._connection.close()

    def write(self, part: bytes) -> None:
        """Take a part of a call."""
        self._call += part

    def flush(self) -> None:
        """Send the call and take its answer.

        :raises OSError: no answer, or not one of a Thrift server.
        """
        call, self._call = bytes(self._call), bytearray()
        try:
            self._connection.request("POST", "/", call, {"Content-Type": "application/x-thrift"})
            answer = self._connection.getresponse()
            content = answer.read()
        except HTTPException as error:
            raise ConnectionError(f"no HTTP answer: {str(error) or type(error).__name__}") from error
        if answer.status != 200:
            raise ConnectionError(f"HTTP status {answer.status} {answer.reason}")
        self._answer = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        """Return the next part of the answer, at most ``size`` bytes.

        :raises EOFError: there is no more.
        """
        part = self._answer.read(size)
        if not part:
            raise EOFError("the answer ends too early")
        return part
