"""Thrift servers of the tests' own, with their own settings, before the HBase that is up."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

from stack import endpoints, hbase, needs
from stack.ports import HOST, free

DEADLINE_S = 300
PASSWORD = "changeit"


class ThriftServer:
    """One Thrift server; its files are in ``folder``."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        zookeeper, _, zookeeper_port = str(endpoints()["hbase"]["zookeeper"]).partition(":")
        self.address = HOST, free(9190)
        self._folder = folder
        self._running: subprocess.Popen[bytes] | None = None
        own: dict[str, str | int] = {
            "hbase.zookeeper.quorum": zookeeper,
            "hbase.zookeeper.property.clientPort": zookeeper_port,
            "hbase.thrift.info.port": -1,
            "hbase.thrift.ipaddress": HOST,
            "hbase.regionserver.thrift.ipaddress": HOST,
            "hbase.regionserver.thrift.port": self.address[1],
        }
        hbase.configure(folder / "conf", own | settings)

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        log = self._folder / "log"
        with log.open("ab") as out:
            command = hbase.thrift_server(self._folder / "conf")
            self._running = subprocess.Popen(command, stdout=out, stderr=out, cwd=self._folder)
        deadline = time.monotonic() + DEADLINE_S
        while not self._answers():
            log_end = log.read_text(errors="replace")[-2000:]
            assert self._running.poll() is None, log_end
            assert time.monotonic() < deadline, log_end
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the server with all of its connections."""
        if self._running is not None:
            self._running.kill()
            self._running.wait(DEADLINE_S)
            self._running = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(self.address, timeout=1):
            return True
        return False


def make_keys(folder: Path) -> tuple[Path, Path]:
    """Make a key store for a server at 127.0.0.1, and the PEM file of the authority that its clients trust."""
    keys, authority = folder / "server.p12", folder / "ca.pem"
    store = ["-alias", "thrift", "-keystore", str(keys), "-storepass", PASSWORD]
    keytool = str(Path(needs.java()).resolve().with_name("keytool"))
    _run(keytool, "-genkeypair", *store, "-keyalg", "EC", "-dname", "CN=thrift", "-ext", "san=ip:127.0.0.1")
    _run(keytool, "-exportcert", "-rfc", *store, "-file", str(authority))
    return keys, authority


def make_pem(keys: Path) -> Path:
    """Write the certificate and its key in the format that Python reads, and return the file."""
    key, certificate, _ = pkcs12.load_key_and_certificates(keys.read_bytes(), PASSWORD.encode())
    assert key is not None
    assert certificate is not None
    pem = keys.with_suffix(".pem")
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    return pem


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


class TlsProxy:
    """A proxy that terminates TLS before a server that has none."""

    def __init__(self, target: tuple[str, int], pem: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._context = context
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Accept no new connection."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(plain, server_side=True) as near,
            socket.create_connection(self._target) as far,
        ):
            answers = threading.Thread(target=_copy, args=(far.recv, near.sendall), daemon=True)
            answers.start()
            _copy(near.recv, far.sendall)
            far.shutdown(socket.SHUT_RDWR)
            answers.join()


def _copy(take: Callable[[int], bytes], give: Callable[[bytes], object]) -> None:
    with contextlib.suppress(OSError):
        while part := take(65536):
            give(part)
