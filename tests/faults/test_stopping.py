"""Stopping: those who wait are answered, what was promised is kept, and everything goes."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import rig
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
