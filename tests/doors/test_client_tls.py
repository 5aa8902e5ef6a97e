"""Both clients, and a consumer, over TLS: a proxy with a certificate stands in front of a real server."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from presque import AsyncClient
from presque.client import ServerNotReached
from tests import rig
from tests.clients import Connect


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, its key in the same file."""
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            rig.require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", str(directory / "key"), "-out", str(directory / "certificate"),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    both = directory / "both"
    both.write_text((directory / "certificate").read_text() + (directory / "key").read_text())
    return both


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


class Proxy:
    """Takes connections, speaks TLS unless told otherwise, and passes everything on."""

    def __init__(self, port: int, certificate: Path) -> None:
        self.port, self.connections = port, 0
        self.open: list[socket.socket] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://localhost:{self.listener.getsockname()[1]}"
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(plain,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        with plain, contextlib.suppress(OSError):
            plain.settimeout(30)
            with (
                self.context.wrap_socket(plain, server_side=True) as near,
                socket.create_connection(("127.0.0.1", self.port)) as far,
            ):
                self.open.append(near)
                relay(near, far)

    def cut(self) -> None:
        """Close all connections."""
        for one in self.open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


def relay(near: ssl.SSLSocket, far: socket.socket) -> None:
    """Pass everything on, both ways, in one thread: an SSL object is not for two of them."""
    while True:
        near.setblocking(False)
        if not near.pending():
            select.select([near, far], [], [], 30)
        try:
            data = near.recv(65536)
            if not data:
                return
            far.sendall(data)
        except ssl.SSLWantReadError:
            pass
        if select.select([far], [], [], 0)[0]:
            data = far.recv(65536)
            near.settimeout(30)
            if not data:
                near.shutdown(socket.SHUT_RDWR)
                return
            near.sendall(data)


@pytest.fixture
def proxy(server: rig.Server, certificate: Path) -> Iterator[Proxy]:
    found = Proxy(server.port, certificate)
    yield found
    found.stop()


@pytest.mark.usefixtures("trusted")
def test_everything_goes_over_one_encrypted_connection(
    connect: Connect, proxy: Proxy, queue_name: str
) -> None:
    client = connect(proxy.url, timeout=20)
    large = "x" * 900_000
    assert [client.push(queue_name, one) for one in (1, large)] == ["1", "2"]
    assert client.fetch(queue_name).value == 1
    [job] = client.lease(queue_name)
    assert job.value == large
    client.ack(job)
    assert proxy.connections == 1


@pytest.mark.usefixtures("trusted")
def test_a_connection_that_was_closed_while_it_was_idle_is_replaced(
    connect: Connect, proxy: Proxy, queue_name: str
) -> None:
    client = connect(proxy.url, timeout=20)
    client.push(queue_name, 1)
    proxy.cut()
    for thread in proxy.threads[1:]:
        thread.join(20)
    client.push(queue_name, 2)
    assert client.peek(queue_name) == ["1", "2"]


def test_a_certificate_that_nobody_vouches_for_is_refused(connect: Connect, proxy: Proxy) -> None:
    with pytest.raises(ServerNotReached, match="certificate verify failed") as caught:
        connect(proxy.url, timeout=20).push("q", 1)
    assert not caught.value.sent
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("trusted")
def test_a_certificate_for_another_host_is_refused(connect: Connect, proxy: Proxy) -> None:
    with pytest.raises(ServerNotReached, match=r"not valid for '127\.0\.0\.1'"):
        connect(proxy.url.replace("localhost", "127.0.0.1"), timeout=20).push("q", 1)


def test_a_server_that_speaks_no_tls_is_not_reached(connect: Connect, server: rig.Server) -> None:
    with pytest.raises(ServerNotReached) as caught:
        connect(f"https://127.0.0.1:{server.port}", timeout=20).push("q", 1)
    assert not caught.value.sent


def silent(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    connection.recv(1)


def dripping(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    for byte in b"\x16\x03\x03\x20\x00" + b"\x02" * 10_000:  # a record of a handshake that is never whole
        connection.sendall(bytes((byte,)))
        time.sleep(0.02)


@pytest.mark.parametrize("behaviour", [silent, dripping])
def test_a_handshake_that_does_not_end_is_given_up(
    connect: Connect, behaviour: Callable[[socket.socket], None]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(20)
                behaviour(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        client = connect(f"https://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5)
        began = time.monotonic()
        with pytest.raises(ServerNotReached, match=r"no connection within 0\.5 s"):
            client.push("q", 1)
        assert time.monotonic() - began < rig.PATIENCE
        thread.join(rig.PATIENCE)


@pytest.mark.usefixtures("trusted")
async def test_jobs_are_consumed_over_tls(proxy: Proxy, queue_name: str) -> None:
    async with AsyncClient(proxy.url, timeout=20) as client:
        await client.push(queue_name, 1)
        async with client.consume(queue_name) as jobs:
            job = await anext(jobs)
            job.ack()
        assert job.value == 1
