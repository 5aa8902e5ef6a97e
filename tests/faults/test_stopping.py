"""Stopping: those who wait are answered, what was promised is kept, and everything goes."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import rig
from tests.doors.sockets import speaking
from tests.faults.load import Load, store_of


def waiting(server: rig.Server, count: int) -> list[socket.socket]:
    """Connections that each wait for a job."""
    connections = []
    for number in range(count):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=rig.PATIENCE)
        path = "/q/idle" if number % 2 else "/q/idle,other*"
        connection.sendall(f"GET {path}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        connections.append(connection)
    return connections


def everything(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    with connection:
        while part := connection.recv(65536):
            received += part
    return received


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_answers_those_who_wait_and_loses_nothing(new_data: Callable[[], str], workers: str) -> None:
    data = new_data()
    with rig.server("--data", data, "--workers", workers) as server:
        idle = waiting(server, 200)
        with Load(server, writers=4, fetchers=2) as load:
            load.more_acknowledged(300)
            server.process.send_signal(signal.SIGTERM)
            answers = [everything(connection) for connection in idle]
            assert server.process.wait(rig.PATIENCE) == 0
            load._over.set()

    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 404 "), answer
        assert answer.endswith(b'{"error":"no job"}\n')
    assert set(load.statuses) <= {200, 201, 404}, "no client was told of our troubles"
    with rig.server("--data", data) as again:
        load.server = again
        load.check()


WAITING = {
    "fetch": (b"GET /q/q?wait=60", b"", b"404"),
    "fetch from a list": (b"GET /q/q,b*?wait=60", b"", b"404"),
    "lease": (b"POST /q/q/lease?wait=60", b"", b"204"),
    "look": (b"GET /j/kept/1?wait=60", b"", b"200"),
    "command": (b"POST /queue", b'{"cmd":"fetch","queue":"q","wait":60}', b"404"),
    "commands": (b"POST /queue", b'[{"cmd":"fetch","queue":"q","wait":60},{"cmd":"stats"}]', b"200"),
    "lines": (b"GET /c/q", b"", b"200"),
    "events": (b"GET /events?jobs=1", b"", b"200"),
}


def test_a_stop_while_a_server_process_dies_is_a_stop_as_any_other() -> None:
    for _ in range(3):
        with rig.server("--memory", "--workers", "2") as server:
            rig.eventually(lambda: len(children(server)) == 3)
            parent = server.process
            parent.send_signal(signal.SIGSTOP)  # so that it hears of everything at once
            for pid in children(server):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            parent.send_signal(signal.SIGTERM)
            parent.send_signal(signal.SIGCONT)
            assert parent.wait(rig.PATIENCE) == 0, server.everything
            assert "Traceback" not in "".join(server.everything)


def children(server: rig.Server) -> list[int]:
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_every_waiting_request_is_answered_within_a_second_of_sigterm(new_data: Callable[[], str]) -> None:
    with rig.server("--data", new_data()) as server:
        assert server.ask("POST", "/q/kept", "1").status == 201
        asked = {}
        for name, (line, body, _) in WAITING.items():
            for version in b"1.1", b"1.0":
                one = socket.create_connection(("127.0.0.1", server.port), timeout=rig.PATIENCE)
                head = b"%b HTTP/%b\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                one.sendall(head % (line, version, len(body)) + body)
                asked[name, version] = one
        for _ in range(3):  # the last of them comes after the others were read
            assert server.ask("GET", "/status/").status == 200
        server.process.send_signal(signal.SIGTERM)
        answers = {key: everything(one) for key, one in asked.items()}
        assert server.process.wait(rig.PATIENCE) == 0
    for (name, version), answer in answers.items():
        assert answer.startswith(b"HTTP/1.1 " + WAITING[name][2]), (name, answer)
        if name in ("lines", "events"):
            chunked = b"Transfer-Encoding: chunked" in answer
            assert (chunked, answer.endswith(b"\r\n0\r\n\r\n")) == (version == b"1.1",) * 2, answer


def test_a_hup_is_a_polite_stop_however_often_it_comes_and_nohup_keeps_it_away() -> None:
    with rig.server("--memory") as server:
        waits = server.send("GET", "/q/idle?wait=30")
        server.catch_up()
        server.process.send_signal(signal.SIGHUP)
        server.process.send_signal(signal.SIGHUP)
        assert waits.answer().status == 404
        assert server.process.wait(rig.PATIENCE) == 0
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; a child inherits it
    try:
        with rig.server("--memory") as server:
            server.process.send_signal(signal.SIGHUP)
            assert server.ask("POST", "/q/a", "1").status == 201
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_idle_server_stops_at_once(new_data: Callable[[], str]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with rig.server("--data", new_data()) as server:
            kept_alive = http.client.HTTPConnection("127.0.0.1", server.port)
            kept_alive.request("GET", "/stats/")
            kept_alive.getresponse().read()

            assert server.stop(number, within=6) == 0, "it waits 8 s for those whose request is under way"

            kept_alive.close()


def test_a_second_signal_ends_it_at_once_and_the_store_goes_too(new_data: Callable[[], str]) -> None:
    with rig.server("--data", new_data()) as server:
        assert server.ask("POST", "/q/q", "1").status == 201
        store = store_of(server)
        os.kill(store, signal.SIGSTOP)  # so that a request cannot be answered, and stopping takes long
        try:
            pending = server.send("POST", "/q/q", "2")
            server.process.send_signal(signal.SIGTERM)
            rig.eventually(lambda: not _listens(server))
            assert server.stop(signal.SIGTERM, within=6) == 128 + signal.SIGTERM
            pending.leave()
        finally:
            os.kill(store, signal.SIGCONT)
        rig.eventually(lambda: not Path(f"/proc/{store}").exists())


def _listens(server: rig.Server) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=rig.PATIENCE).close()
        return True
    return False


LARGE = b'"%b"' % (b"x" * 12_000_000)  # more than the sockets of a connection hold if the client's is small
TAKING = {
    "fetch": (b"GET /q/{q}", b""),
    "fetch that waits": (b"GET /q/{q}?wait=5", b""),
    "fetch from a list": (b"GET /q/{q},other-*", b""),
    "many": (b"GET /qb/{q}", b""),
    "lease": (b"POST /q/{q}/lease", b""),
    "command": (b"POST /queue", b'{"cmd":"fetch","queue":"{q}"}'),
    "commands": (b"POST /queue", b'[{"cmd":"stats"},{"cmd":"lease","queue":"{q}"}]'),
    "lines": (b"GET /c/{q}", b""),
    "lines of 1.0": (b"GET /c/{q}", b""),
}
QUEUES = {name: name.replace(" ", "-") for name in TAKING}


def asking(server: rig.Server, name: str) -> Any:
    """A connection with a small socket that asks for the large job of the queue called so, and has begun to
    read it."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    plain.settimeout(rig.PATIENCE)
    plain.connect(("127.0.0.1", server.port))
    one = plain if server.context is None else rig.Encrypted(plain, server.context)
    line, body = (part.replace(b"{q}", QUEUES[name].encode()) for part in TAKING[name])
    version = b"1.0" if name.endswith("1.0") else b"1.1"
    one.sendall(
        b"%b HTTP/%b\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (line, version, len(body)) + body
    )
    assert b" 200 " in one.recv(100)
    return one


def none_is_ready(server: rig.Server, queues: list[str]) -> bool:
    return not any(server.ask("GET", f"/stats/{queue}").json["ready"] for queue in queues)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_a_client_has_not_taken_when_the_server_stops_is_there_afterwards(
    new_data: Callable[[], str], pem: Path, scheme: str
) -> None:
    flags = ("--data", new_data(), "--max-body", "16MiB")
    queues = [*QUEUES.values(), "socket"]
    with rig.server(*flags) if scheme == "http" else rig.tls_server(pem, *flags) as server:
        for queue in queues[:-1]:
            assert server.ask("POST", f"/q/{queue}", LARGE).status == 201
        stuck = [asking(server, name) for name in TAKING]
        rig.eventually(lambda: none_is_ready(server, queues[:-1]))
        assert server.stop() == 0
        for one in stuck:
            one.close()
    with rig.server(*flags) as server:
        stats = {queue: server.ask("GET", f"/stats/{queue}").json for queue in queues[:-1]}
        found = {
            queue: (one["ready"], one["leased"], one["processed"], one["failed"])
            for queue, one in stats.items()
        }
        assert found == dict.fromkeys(queues[:-1], (1, 0, 0, 0))


def test_what_a_client_reads_on_while_the_server_stops_is_its_own(new_data: Callable[[], str]) -> None:
    flags = ("--data", new_data(), "--max-body", "16MiB")
    reading = {name: QUEUES[name] for name in ("fetch", "lines", "lines of 1.0")}
    with rig.server(*flags) as server:
        for queue in reading.values():
            assert server.ask("POST", f"/q/{queue}", LARGE).status == 201
        slow = {name: asking(server, name) for name in reading}
        rig.eventually(lambda: none_is_ready(server, list(reading.values())))
        server.process.send_signal(signal.SIGTERM)
        rig.eventually(lambda: not _listens(server))
        for one in slow.values():
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # it has to be done within 8 s
        answers = {name: everything(one) for name, one in slow.items()}
        assert server.process.wait(rig.PATIENCE) == 0
    for name, answer in answers.items():
        assert LARGE in answer, name
    assert answers["lines"].endswith(b"}\n\r\n0\r\n\r\n")
    with rig.server(*flags) as server:
        for queue in reading.values():
            stats = server.ask("GET", f"/stats/{queue}").json
            assert (stats["ready"], stats["processed"]) == (0, 1), queue


async def test_what_a_socket_has_not_taken_when_the_server_stops_is_there_afterwards(
    new_data: Callable[[], str],
) -> None:
    flags = ("--data", new_data(), "--max-body", "16MiB")
    with rig.server(*flags) as server:
        for queue, body in (("large", LARGE), ("small", b"1"), ("held", LARGE)):
            assert (await asyncio.to_thread(server.ask, "POST", f"/q/{queue}", body)).status == 201
        async with speaking(server, max_size=None, max_queue=1) as on:
            on.transport.pause_reading()
            await on.send(json.dumps([{"cmd": "fetch", "queue": queue} for queue in ("large", "small")]))
            await on.send(json.dumps({"cmd": "lease", "queue": "held"}))
            await asyncio.to_thread(rig.eventually, lambda: none_is_ready(server, ["large", "small"]))
            assert await asyncio.to_thread(server.stop) == 0
            on.transport.abort()
    with rig.server(*flags) as server:
        for queue in ("large", "small", "held"):
            stats = (await asyncio.to_thread(server.ask, "GET", f"/stats/{queue}")).json
            assert (stats["ready"], stats["leased"], stats["processed"]) == (1, 0, 0), queue
