"""Connection to HBase's Thrift server: transport, protocol, TLS. Each is a setting of that server."""

from __future__ import annotations

import ssl
import urllib.parse
from dataclasses import dataclass
from typing import Any

from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.stores.hbase.http import HttpTransport

_CHOICES = {"transport": ("buffered", "framed", "http"), "protocol": ("binary", "compact"), "tls": ("false", "true")}
_EXPECTED = (
    "transport=buffered|framed|http, protocol=binary|compact, tls=true|false, and with TLS ca=/path/of/authority.pem"
)


@dataclass(frozen=True)
class Transport:
    """Settings of the Thrift server that a client needs. The defaults are those of the server."""

    transport: str = "buffered"
    """``framed`` if ``hbase.regionserver.thrift.framed`` is true, or if the server is not of the thread pool kind;
    ``http`` if ``hbase.regionserver.thrift.http`` is true."""
    protocol: str = "binary"
    """``compact`` if ``hbase.regionserver.thrift.compact`` is true."""
    tls: bool = False
    """With HTTP: whether ``hbase.thrift.ssl.enabled`` is true. HBase's server has no TLS without HTTP (seen in 2.6.1):
    then TLS is that of a proxy before the server. The certificate and its host name are always checked."""
    ca: str = ""
    """PEM file of the authorities to trust; empty for those that the system trusts."""

    def __str__(self) -> str:
        return f"thrift 1, {self.transport} transport, {self.protocol} protocol, {'with' if self.tls else 'no'} TLS"

    @property
    def query(self) -> str:
        """The URL options for these settings, with a leading ``?``; empty if all are defaults."""
        chosen = {"transport": self.transport, "protocol": self.protocol, "tls": str(self.tls).lower(), "ca": self.ca}
        special = {name: value for name, value in chosen.items() if value != _CHOICES.get(name, ("",))[0]}
        return f"?{urllib.parse.urlencode(special, safe='/')}" if special else ""

    def connect(self, host: str, port: int, *, timeout_s: float) -> Any:
        """Return an open happybase connection.

        happybase supports neither TLS nor HTTP: in these cases the socket below it is replaced.

        :param host: name or address of the Thrift server.
        :param port: port of the Thrift server.
        :param timeout_s: how long the server may be silent.
        :raises OSError: the file of the authorities cannot be read.
        """
        import happybase
        from happybase.connection import THRIFT_PROTOCOLS, THRIFT_TRANSPORTS, Hbase
        from thriftpy2.thrift import TClient

        transport = "buffered" if self.transport == "http" else self.transport
        timeout_ms = int(timeout_s * 1000)
        connection = happybase.Connection(
            host, port, timeout=timeout_ms, autoconnect=False, transport=transport, protocol=self.protocol
        )
        if self.tls or self.transport == "http":
            connection.transport = THRIFT_TRANSPORTS[transport](self._socket(host, port, timeout_s))
            protocol = THRIFT_PROTOCOLS[self.protocol](connection.transport, decode_response=False)
            connection.client = TClient(Hbase, protocol)
        connection.open()
        return connection

    def _socket(self, host: str, port: int, timeout_s: float) -> Any:
        # Not thriftpy2's own TLS settings: they do not check the host name in the certificate.
        trusted = ssl.create_default_context(cafile=self.ca or None) if self.tls else None
        if self.transport == "http":
            return HttpTransport(host, port, timeout_s=timeout_s, trusted=trusted)
        from thriftpy2.transport import TSSLSocket

        return TSSLSocket(  # type: ignore[no-untyped-call]
            host, port, socket_timeout=int(timeout_s * 1000), ssl_context=trusted
        )


PLAIN = Transport()
"""Settings of a Thrift server with its default configuration."""


def parse_options(query: str) -> Transport:
    """Return the settings in the options of a URL.

    :raises InputRefused: an option or value is unknown, an option appears twice, two options exclude each other, or the
        file of authorities cannot be read.
    """
    given = urllib.parse.parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in given]
    for name, value in given:
        # Only values of known options are shown: the value of another one may be a password.
        if name not in (*_CHOICES, "ca"):
            raise _refused(f"an HBase store URL has the option {name!r}", "correct its name, or omit it")
        if names.count(name) > 1:
            raise _refused(f"an HBase store URL has the option {name!r} {names.count(name)} times", "write it once")
        if value not in _CHOICES.get(name, (value or None,)):
            raise _refused(f"an HBase store URL has the option {name}={value!r}", "correct its value")
    options = dict(given)
    found = Transport(
        options.get("transport", "buffered"),
        options.get("protocol", "binary"),
        options.get("tls") == "true",
        options.get("ca", ""),
    )
    if (found.transport, found.protocol) == ("http", "compact"):
        raise _refused(
            "an HBase store URL has transport=http with protocol=compact",
            "omit the protocol: over HTTP it is always binary",
        )
    if found.ca:
        _check_authorities(found)
    return found


def _check_authorities(found: Transport) -> None:
    if not found.tls:
        raise _refused(f"an HBase store URL has ca={found.ca!r} without tls=true", "add tls=true, or omit ca")
    try:
        ssl.create_default_context(cafile=found.ca)
    except OSError as error:  # includes ssl.SSLError
        raise _refused(f"an HBase store URL has ca={found.ca!r}: {error}", "name a PEM file on this machine") from error


def _refused(seen: str, do: str) -> InputRefused:
    return InputRefused(seen=seen, expected=_EXPECTED, do=do)
