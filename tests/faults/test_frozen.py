"""A server that was frozen (SIGSTOP, a suspended machine) and goes on: nobody is taken for gone, or for slow,
because presque itself did not run. What came meanwhile is read before anybody is judged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from presque import frames
from tests import chatting, rig
from tests.chatting import at, friend
from tests.doors.test_live import handshake, text

BEAT_S = 2.0
QUICK = (
    "import presque.ws.endpoint as ws, presque.xmpp.component as xmpp; "
    f"ws.HEARTBEAT_S = ws.HELLO_WITHIN_S = xmpp.HEARTBEAT_S = {BEAT_S}; "
    "from presque.cli.main import main; main()"
)
LIMITS = {f"PRESQUE_LIMITS__{name}": "2s" for name in ("HEAD", "BODY", "IDLE", "UNREAD")}
JOBS = 20


@pytest.fixture
def server() -> Iterator[rig.Server]:
    with rig.server("--memory", program=("-c", QUICK), **LIMITS) as found:
        yield found


@contextlib.contextmanager
def frozen(server: rig.Server, seconds: float = BEAT_S * 2.5) -> Iterator[None]:
    """The server does not run while inside, and for so many seconds after that."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
        time.sleep(seconds)
    finally:
        server.process.send_signal(signal.SIGCONT)


class Socket:
    """A WebSocket that answers no ping unless it is told to."""

    def __init__(self, server: rig.Server, path: str) -> None:
        self._socket = server.connect()
        self._socket.sendall(handshake(path))
        self._reader = frames.Reader(masked=False, most=2**20)
        self._head = b""
        self._messages: list[Any] = []

    def send(self, *commands: dict[str, Any]) -> None:
        self._socket.sendall(b"".join(text(json.dumps(one)) for one in commands))

    def pong(self) -> None:
        self._socket.sendall(frames.frame(frames.PONG, b"", b"abcd"))

    def heard(self, opcode: int = frames.TEXT) -> Any:
        """The next message, or the next ping."""
        while True:
            for number, message in enumerate(self._messages):
                if message.opcode == opcode:
                    del self._messages[number]
                    return json.loads(message.payload) if opcode == frames.TEXT else None
            data = self._socket.recv(65536)
            assert data, "the server has closed the connection"
            if not self._head.endswith(b"\r\n\r\n"):
                self._head, end, data = (self._head + data).partition(b"\r\n\r\n")
                self._head += end
            self._messages += self._reader.feed(data)

    def close(self) -> None:
        self._socket.close()


def test_a_socket_whose_server_was_frozen_is_answered_all_that_it_has_sent(server: rig.Server) -> None:
    server.ask("POST", "/qb/q", json.dumps({"jobs": list(range(JOBS))}))
    with contextlib.closing(Socket(server, "/ws/q")) as worker:
        worker.send({"cmd": "lease", "count": JOBS, "seconds": 600})
        jobs: list[Any] = []
        while len(jobs) < JOBS:
            jobs += [one for one in [worker.heard()] if one.get("event") == "job"]
        worker.heard(frames.PING)
        with frozen(server):
            worker.pong()
            for number, job in enumerate(jobs):
                named = {name: job[name] for name in ("queue", "id", "lease")}
                worker.send({"cmd": "ack", "ref": number, **named})
            worker.send({"cmd": "push", "queue": "other", "job": 1, "ref": "push"})
        answered = [worker.heard() for _ in range(JOBS + 1)]
    assert {one["ref"] for one in answered} == {"push", *range(JOBS)}
    assert not [one for one in answered if "error" in one]
    found = server.ask("GET", "/stats/q").json
    assert (found["ready"], found["leased"], found["processed"], found["failed"]) == (0, 0, JOBS, 0)
    assert server.ask("GET", "/q/other").body == b"1"


def test_a_socket_that_answers_no_ping_is_still_let_go(server: rig.Server) -> None:
    with contextlib.closing(Socket(server, "/ws/q")) as silent:
        silent.heard(frames.PING)
        with frozen(server, 0.0):
            pass
        with pytest.raises(AssertionError, match="the server has closed"):
            silent.heard()


@pytest.mark.parametrize("sent", ["head", "body", "idle"])
def test_a_request_that_came_while_the_server_was_frozen_is_carried_out(
    server: rig.Server, sent: str
) -> None:
    request = b"POST /q/q HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n" + b'"abcdef"'
    first = {"head": 20, "body": len(request) - 4, "idle": 0}[sent]
    with contextlib.closing(server.connect()) as connection:
        connection.sendall(b"GET /control/q HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(request[:first])
        server.catch_up()
        with frozen(server):
            connection.sendall(request[first:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 201 ")
    assert server.ask("GET", "/q/q").body == b'"abcdef"'


def test_a_reader_whose_server_was_frozen_gets_the_rest(server: rig.Server) -> None:
    body = b'"' + b"x" * 900_000 + b'"'
    for _ in range(20):
        assert server.ask("POST", "/q/q", body).status == 201
    with contextlib.closing(server.connect()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(b"GET /qb/q?batch_size=4 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = len(connection.recv(1000))
        with frozen(server):
            pass
        while part := connection.recv(65536):
            received += len(part)
    assert received > 4 * len(body)


async def test_what_was_said_over_xmpp_while_presque_was_frozen_is_done() -> None:
    with (
        chatting.prosody() as prosody,
        rig.server("--memory", program=("-c", QUICK), **chatting.settings(prosody)) as server,
    ):
        rig.eventually(lambda: "xmpp.connected" in str(server.everything))
        async with friend(prosody, "ana") as ana:
            await ana.ask(at("q"), "<ping xmlns='urn:xmpp:ping'/>")
            os.kill(prosody.process.pid, signal.SIGSTOP)  # so that presque's next ping has no answer yet
            await asyncio.sleep(BEAT_S)
            server.process.send_signal(signal.SIGSTOP)
            os.kill(prosody.process.pid, signal.SIGCONT)
            for number in range(JOBS):
                ana.command(at("q"), cmd="push", job=number, ref=number)
            await asyncio.sleep(BEAT_S * 1.5)
            server.process.send_signal(signal.SIGCONT)
            answered = [await ana.told() for _ in range(JOBS)]
        assert {one["ref"] for one in answered} == set(range(JOBS))
        assert not [one for one in answered if "error" in one]
        assert server.ask("GET", "/stats/q").json["ready"] == JOBS
        assert "xmpp.disconnected" not in str(server.everything)
