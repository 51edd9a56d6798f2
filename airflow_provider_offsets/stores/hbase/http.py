"""Thrift over HTTP, as HBase's Thrift server implements it: the only mode in which that server supports TLS."""

from __future__ import annotations

import io
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection


class HttpTransport:
    """Replacement for the socket below thriftpy2: each call is one POST over a persistent connection.

    Hand-written, because thriftpy2's own transport sets the timeout of every new socket of the process and accepts any
    HTTP status. On a persistent connection it also retries a call, which a compare-and-set must not be.

    :param host: of the Thrift server.
    :param port: of the Thrift server.
    :param timeout_s: how long the server may be silent.
    :param trusted: for TLS, the trusted authorities; None for plain HTTP.
    """

    def __init__(self, host: str, port: int, *, timeout_s: float, trusted: ssl.SSLContext | None) -> None:
        if trusted is None:
            self._connection = HTTPConnection(host, port, timeout=timeout_s)
        else:
            self._connection = HTTPSConnection(host, port, timeout=timeout_s, context=trusted)
        self._call = bytearray()
        self._answer = io.BytesIO()

    def is_open(self) -> bool:
        """Check whether the connection is open."""
        return self._connection.sock is not None

    def open(self) -> None:
        """Open the connection."""
        self._connection.connect()

    def close(self) -> None:
        """Close the connection. Safe to repeat."""
        self._connection.close()

    def write(self, part: bytes) -> None:
        """Buffer a part of a call."""
        self._call += part

    def flush(self) -> None:
        """Send the call and read its answer.

        :raises OSError: no answer arrived, or the answer is not a Thrift server's.
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

        :raises EOFError: the answer has no more bytes.
        """
        part = self._answer.read(size)
        if not part:
            raise EOFError("the answer ends too early")
        return part
