"""What clients can take from others has a bound, and each bound an answer."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import rig
from tests.doors.test_raw_requests import HOST, MIB, chunked, get, memory, post, wire
from tests.doors.tokens import guarded

SOCKET = get("/ws").replace(
    HOST,
    HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
)
TOO_MANY_BYTES = b"this server is receiving as many bytes as it allows; try again later"
OTHER = "127.0.0.2"  # loopback is not counted by address, so such tests come through a proxy


def running(**limits: object) -> contextlib.AbstractContextManager[rig.Server]:
    """A server with these limits."""
    proxies = {"PRESQUE_PROXIES": "127.0.0.0/8"} if limits.pop("proxied", False) else {}
    return rig.server(
        "--memory",
        **proxies,
        **{f"PRESQUE_LIMITS__{name.upper()}": str(value) for name, value in limits.items()},
    )


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_too_many_is_told_so_and_the_others_go_on(tls: bool, pem: Path) -> None:
    with (
        rig.tls_server(pem, "--memory", PRESQUE_LIMITS__CONNECTIONS="10")
        if tls
        else running(connections=10) as server,
        contextlib.ExitStack() as stack,
    ):
        good = [stack.enter_context(wire(server)) for _ in range(10)]
        for connection in good:  # greeted, and so counted
            connection.send(get("/status/"))
            assert connection.reply().status == 200
        for _ in range(3):
            with wire(server) as one_more:
                reply = one_more.reply()
                assert (reply.status, reply.headers["presque-error"]) == (503, "too-many")
                assert reply.json == {"error": "this server has 10 connections, the most that are allowed"}
                assert reply.headers["retry-after"] == "1"
                assert one_more.closed()
        for connection in good:
            connection.send(get("/status/"))
            assert connection.reply().status == 200
        good[0].close()
        rig.eventually(lambda: server.ask("GET", "/status/").status == 200)
        rig.eventually(lambda: "server.turned_away" in server.said())
        assert server.said().count("server.turned_away") < 3  # they are told together


def test_a_flood_of_connections_beyond_the_limit_leaves_the_others_alone() -> None:
    with running(connections=5) as server, wire(server) as good, contextlib.ExitStack() as stack:
        for _ in range(1500):
            flood = socket.create_connection(("127.0.0.1", server.port), rig.PATIENCE)
            stack.callback(flood.close)
        good.send(get("/status/"))
        assert good.reply().status == 200
        open_files = Path(f"/proc/{server.process.pid}/fd")
        rig.eventually(lambda: len(list(open_files.iterdir())) < 100)


def through(client: str, path: str = "/q/empty?wait=20") -> bytes:
    """A request as a proxy passes it on."""
    return get(path).replace(HOST, HOST + f"X-Forwarded-For: {client}\r\n".encode())


def test_the_requests_of_a_client_of_a_proxy_are_counted_by_its_address() -> None:
    with running(by_address=3, proxied=True) as server, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(wire(server)) for _ in range(3)]
        for connection in waiting:
            connection.send(through("203.0.113.9"))
        rig.eventually(lambda: turned_away(server, "203.0.113.9"))
        assert not turned_away(server, "198.51.100.1, 203.0.113.10")
        assert turned_away(server, "198.51.100.1, 203.0.113.9")  # what it puts in front changes nothing
        assert server.ask("GET", "/status/").status == 200
        waiting[0].close()
        rig.eventually(lambda: not turned_away(server, "203.0.113.9"))
        # The same head again on one connection, which is remembered, is counted each time.
        for _ in range(5):
            waiting[1].close()
            with wire(server) as connection:
                connection.send(through("203.0.113.9", "/q/empty") * 3)
                assert [connection.reply().status for _ in range(3)] == [404, 404, 404]
        stack.close()
        rig.eventually(lambda: not turned_away(server, "203.0.113.9"))


def test_the_sockets_of_a_client_of_a_proxy_are_counted_by_its_address() -> None:
    """As long as they are open, though their request is answered at once."""
    with running(by_address=3, proxied=True) as server, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(wire(server)) for _ in range(3)]
        for connection in opened:
            connection.send(SOCKET.replace(HOST, HOST + b"X-Forwarded-For: 2001:db8::7\r\n"))
            assert connection.reply().status == 101
        # The owner of one address of IPv6 has all of its /64.
        assert turned_away(server, "2001:db8::8")
        assert not turned_away(server, "2001:db8:0:1::7")
        assert not turned_away(server, "203.0.113.9")
        opened[0].close()
        rig.eventually(lambda: not turned_away(server, "2001:db8::9"))
        stack.close()
        rig.eventually(lambda: not turned_away(server, "2001:db8::9"))


def turned_away(server: rig.Server, client: str) -> bool:
    answer = server.ask("GET", "/status/", X_Forwarded_For=client)
    assert answer.status in (200, 429)
    if answer.status == 429:
        assert answer.headers["presque-error"] == "too-many"
        assert (
            answer.json["error"]
            == "your address has 3 connections or requests under way, the most that are allowed"
        )
    return answer.status == 429


def test_neither_limit_nor_gate_believes_a_proxy_that_was_not_named() -> None:
    limits = {"PRESQUE_LIMITS__BY_ADDRESS": "2", "PRESQUE_PROXIES": "192.0.2.1"}
    with rig.server("--memory", **limits) as server, contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(wire(server)).send(through("203.0.113.9"))
        for _ in range(5):
            assert server.ask("GET", "/status/", X_Forwarded_For="203.0.113.9").status == 200
        answer = server.ask("GET", "/status/", Host="evil.example", X_Forwarded_Host="localhost")
        assert answer.status == 421


def test_the_gate_believes_a_proxy_that_was_named() -> None:
    with rig.server(
        "--memory", "--insecure", "--allow-host", "q.example", PRESQUE_PROXIES="127.0.0.1"
    ) as server:

        def status(**headers: Any) -> int:
            return server.ask("GET", "/status/", **headers).status

        assert status(Host="backend:80", X_Forwarded_Host="q.example") == 200
        assert status(Host="localhost", X_Forwarded_Host="evil.example") == 421
        page: Any = {"Host": "backend", "X_Forwarded_Host": "q.example", "Origin": "https://q.example"}
        assert status(**page, X_Forwarded_Proto="https") == 200
        page["Origin"] = "http://q.example"
        assert status(**page, X_Forwarded_Proto="https") == 403
        assert status(**page, X_Forwarded_Proto="http") == 200
        assert status(X_Forwarded_For="1.2.3.4", Forwarded="for=1.2.3.4") == 400


def test_a_request_too_many_is_told_so_and_the_connection_goes_on() -> None:
    with running(requests=4) as server, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(wire(server)) for _ in range(4)]
        for number, connection in enumerate(waiting):
            connection.send(get(f"/q/empty-{number}?wait=20"))
        with wire(server) as one:
            for request in (get("/status/"), get("/q/x"), post("x", b"1"), get("/events"), get("/")):
                for _ in range(2):  # a head that is known the second time
                    one.send(request)
                    reply = one.reply()
                    assert (reply.status, reply.headers["presque-error"]) == (503, "too-many")
            lines = (
                b"POST /qb/x HTTP/1.1\r\n%bContent-Type: application/x-ndjson\r\nContent-Length: 2\r\n\r\n1\n"
            )
            one.send(lines % HOST)
            assert one.reply().status == 503
        waiting[0].close()
        rig.eventually(lambda: server.ask("POST", "/q/empty-1", "7").status == 201)
        assert waiting[1].reply().body == b"7"
        assert server.ask("GET", "/status/").json["queues"] == ["empty-1"]


def streaming(server: rig.Server, stack: contextlib.ExitStack) -> None:
    stack.enter_context(wire(server)).send(get("/events"))


def in_tasks(server: rig.Server, stack: contextlib.ExitStack) -> None:
    body = b'{"cmd":"fetch","queue":"empty","wait":20}'
    stack.enter_context(wire(server)).send(post("x", body).replace(b"/q/x", b"/queue"))


def uploading(server: rig.Server, stack: contextlib.ExitStack) -> None:
    head = (
        b"POST /qb/x HTTP/1.1\r\n%bContent-Type: application/x-ndjson\r\nContent-Length: 200\r\n\r\n" % HOST
    )
    stack.enter_context(wire(server)).send(head)


@pytest.mark.parametrize("kind", [streaming, in_tasks, uploading])
@pytest.mark.parametrize("way", ["close", "end"])
def test_requests_of_every_kind_are_counted_until_their_end(
    kind: Callable[[rig.Server, contextlib.ExitStack], None], way: str
) -> None:
    with running(requests=3) as server:
        for _ in range(4):
            with contextlib.ExitStack() as stack:
                for _ in range(3):
                    kind(server, stack)
                rig.eventually(lambda: server.ask("GET", "/status/").status == 503)
            rig.eventually(lambda: server.ask("GET", "/status/").status == 200)


def test_many_large_bodies_at_once_leave_memory_bounded_and_small_ones_alone() -> None:
    with running(bodies="32MiB") as server, contextlib.ExitStack() as stack:
        server.ask("GET", "/status/")
        before = memory(server)
        head = b"POST /q/large HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (HOST, MIB)
        for _ in range(200):
            connection = stack.enter_context(wire(server))
            with contextlib.suppress(ConnectionError):
                connection.send(head, b"1" * (MIB - 1))
        for _ in range(20):
            assert server.ask("POST", "/q/small", "1").status == 201
        assert memory(server) - before < 64 * MIB
        stack.close()
        rig.eventually(lambda: server.ask("POST", "/q/large", "1" * (MIB - 1)).status == 201)


def test_a_body_too_many_is_told_so() -> None:
    with running(bodies="300KiB") as server, contextlib.ExitStack() as stack:
        head = b"POST /q/large HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (HOST, 250_000)
        first = stack.enter_context(wire(server))
        first.send(head, b"1" * 240_000)
        second = stack.enter_context(wire(server))
        second.send(head, b"1" * 100_000)
        reply = second.reply()
        assert (reply.status, reply.headers["presque-error"]) == (503, "too-many")
        assert second.closed()
        first.send(b"1" * 10_000)
        assert first.reply().status == 201


# What somebody sends who has no token, and does not finish. Each is much more than is counted of nobody.
PART = b"1" * 600_000
STRANGERS: dict[str, bytes] = {
    "a push": b"POST /q/x HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (HOST, MIB, PART),
    "a chunked push": b"POST /q/x HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\nfffff\r\n%b" % (HOST, PART),
    "another host": b"POST /q/x HTTP/1.1\r\nHost: evil\r\nContent-Length: %d\r\n\r\n%b" % (MIB, PART),
    "a login": b"POST /login HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (HOST, MIB, PART),
    "a chunked login": b"POST /login HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\nfffff\r\n%b"
    % (HOST, PART),
    "a socket": SOCKET + b"\x82\xff" + MIB.to_bytes(8, "big") + bytes(4) + PART,
}


@pytest.mark.parametrize("way", STRANGERS)
def test_what_somebody_without_a_token_sends_takes_no_room_from_others(way: str, tmp_path: Path) -> None:
    with guarded(tmp_path, PRESQUE_LIMITS__BODIES="1MiB") as guarded_, contextlib.ExitStack() as stack:
        server = guarded_.server
        server.ask("GET", "/livez")
        before = memory(server)
        for _ in range(50):
            connection = stack.enter_context(wire(server))
            with contextlib.suppress(ConnectionError):
                connection.send(STRANGERS[way])
        for _ in range(3):
            assert guarded_.ask(guarded_.admin, "POST", "/q/x", '"%s"' % ("1" * 900_000)).status == 201
        assert memory(server) - before < 16 * MIB


def test_who_finishes_what_is_refused_is_told_so_and_may_go_on(tmp_path: Path) -> None:
    with guarded(tmp_path) as guarded_, wire(guarded_.server) as connection:
        for _ in range(3):
            connection.send(post("x", b"1" * 900_000))
            assert connection.reply().status == 401
            connection.send(chunked("x", b"dbba0\r\n%b\r\n0\r\n\r\n" % (b"1" * 900_000)))
            assert connection.reply().status == 401
        connection.send(post("x", b"1"))
        assert connection.reply().status == 401
        connection.send(chunked("x", b"fffff\r\n%b\r\n" % (b"1" * 0xFFFFF) * 3))
        assert connection.reply().status == 401
        assert connection.closed()
        login = guarded_.ask(None, "POST", "/login", {"token": "x" * 20_000})
        assert (login.status, login.json["error"]) == (413, "the body is larger than 16384 bytes")
        assert (login.json["code"], login.json["status"]) == ("body-too-large", 413)


@pytest.mark.parametrize(
    ("route", "classic"),
    [("/q/x", True), ("/queue", True), ("/settle", False), ("/q/x/lease", False), ("/tokens", False)],
)
def test_a_body_that_is_too_large_is_refused_as_its_route_refuses(
    server: rig.Server, route: str, classic: bool
) -> None:
    head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\n".encode()
    for rest in (b"Content-Length: 1048577\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n"):
        with wire(server) as connection:
            connection.send(head + rest + (b"" if b"Length" in rest else b"1" * 0xFFFFF + b"\r\nff\r\n"))
            answer = connection.reply()
        assert answer.status == 413
        wanted = "application/json" if classic else "application/problem+json"
        assert answer.headers["content-type"] == wanted
        assert set(answer.json) >= ({"error"} if classic else {"error", "detail", "type"})


def test_what_is_refused_has_no_more_time_than_what_is_not(tmp_path: Path) -> None:
    with guarded(tmp_path, PRESQUE_LIMITS__BODY="1s") as guarded_, wire(guarded_.server) as connection:
        connection.send(STRANGERS["a push"])
        connection.socket.settimeout(0.2)
        received = b""
        for _ in range(150):
            with contextlib.suppress(TimeoutError):
                received = connection.socket.recv(65536)
                break
            connection.send(b"1")
        assert received.startswith(b"HTTP/1.1 408 ")


def test_the_parts_of_messages_of_sockets_are_counted_with_the_bodies() -> None:
    part = b"\x82\xff" + MIB.to_bytes(8, "big") + bytes(4) + b" " * 600_000
    with running(bodies="2MiB") as server, contextlib.ExitStack() as stack:
        server.ask("GET", "/status/")
        before = memory(server)
        for _ in range(50):
            connection = stack.enter_context(wire(server))
            with contextlib.suppress(ConnectionError):
                connection.send(SOCKET + part)
        with wire(server) as one_more:
            one_more.send(SOCKET)
            assert one_more.reply().status == 101
            with contextlib.suppress(ConnectionError):
                one_more.send(part)
            assert one_more.frame() == b"\x88\x46\x03\xf5" + TOO_MANY_BYTES  # 1013: try again later
        with wire(server) as small:
            small.send(SOCKET)
            assert small.reply().status == 101
            small.send(b"\x81\xfe" + (10_000).to_bytes(2, "big") + bytes(4) + b" " * 5_000)
            small.send(b" " * 4_980 + b'{"cmd":"queues"}    ')
            assert b'"queues"' in small.frame()
        assert memory(server) - before < 32 * MIB
        stack.close()
        rig.eventually(lambda: server.ask("POST", "/q/large", "1" * (MIB - 1)).status == 201)


def frame(payload: bytes) -> bytes:
    """A text of a client, masked with zeros."""
    return b"\x81\xff" + len(payload).to_bytes(8, "big") + bytes(4) + payload


def test_the_commands_of_sockets_that_are_under_way_are_counted_with_the_bodies() -> None:
    waits = frame(b'{"cmd":"fetch","queue":"slow","wait":60}'.ljust(MIB - 1000))
    asks, little = frame(b'{"cmd":"queues"}'.ljust(20_000)), frame(b'{"cmd":"queues"}')
    with running(bodies="2MiB") as server, wire(server) as patient:
        patient.send(SOCKET + waits + waits + little)
        assert patient.reply().status == 101
        assert patient.frame().startswith(b"\x81")  # so the others have been read
        with wire(server) as one_more:
            one_more.send(SOCKET)
            assert one_more.reply().status == 101
            one_more.send(asks)
            assert one_more.frame() == b"\x88\x46\x03\xf5" + TOO_MANY_BYTES  # 1013: try again later
        with wire(server) as small:
            small.send(SOCKET + little)
            assert small.reply().status == 101
            assert b'"queues"' in small.frame()
        for _ in range(2):
            assert server.ask("POST", "/q/slow", "1").status == 201
            assert b'"body":1' in patient.frame()
        for _ in range(2):
            patient.send(asks)
            assert b'"queues"' in patient.frame()


@pytest.mark.parametrize("verb", ["ack", "fail"])
def test_what_settles_is_counted_until_it_is_done(verb: str) -> None:
    settles = {"cmd": verb, "queue": "q", "id": "1", "lease": "x", "ref": 1}
    with running(bodies="2MiB") as server, wire(server) as connection:
        connection.send(SOCKET)
        assert connection.reply().status == 101
        for _ in range(4):
            connection.send(frame(json.dumps(settles).encode().ljust(MIB - 1000)))
            assert b'"ref":1' in connection.frame()


# --- slow readers


@pytest.fixture(scope="module")
def impatient() -> Iterator[rig.Server]:
    with running(unread="2s", idle="60s") as found:
        yield found


def tiny(server: rig.Server) -> socket.socket:
    """A connection that takes in little at once."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.connect(("127.0.0.1", server.port))
    found.settimeout(rig.PATIENCE)
    return found


def connections(server: rig.Server) -> int:
    return len([file for file in Path(f"/proc/{server.process.pid}/fd").iterdir() if is_socket(file)])


def is_socket(file: Path) -> bool:
    with contextlib.suppress(OSError):
        return str(file.readlink()).startswith("socket:")
    return False


@pytest.mark.parametrize("path", ["/status/big?with_desc=1", "/c/big"])
def test_who_does_not_read_an_answer_is_cut_off(impatient: rig.Server, path: str) -> None:
    large = '"%s"' % ("x" * 900_000)
    for _ in range(12):
        assert impatient.ask("POST", "/q/big", large).status == 201
    before = connections(impatient)
    with tiny(impatient) as stuck:
        stuck.sendall(get(path))
        rig.eventually(lambda: connections(impatient) <= before, within=30)
    impatient.ask("DELETE", "/q/big")


def test_many_who_do_not_read_large_answers_leave_memory_bounded() -> None:
    with running(answers="32MiB") as server, contextlib.ExitStack() as stack:
        for _ in range(4):
            assert server.ask("POST", "/q/big", '"%s"' % ("x" * 1_000_000)).status == 201
        server.ask("GET", "/status/big?with_desc=1")
        before = memory(server)
        for _ in range(100):  # 400 MB
            stuck = stack.enter_context(tiny(server))
            stuck.sendall(get("/status/big?with_desc=1"))
            assert server.ask("POST", "/q/small", "1").status == 201
        rig.eventually(lambda: "server.slow_readers_cut" in server.said())
        assert memory(server) - before < 160 * MIB
        # Quick readers of as much are never taken for slow ones.
        for _ in range(30):
            assert len(server.ask("GET", "/status/big?with_desc=1").body) > 4_000_000


def test_who_reads_slowly_but_steadily_gets_all_of_it() -> None:
    large = '"%s"' % ("x" * 900_000)
    with running(unread="4s") as server, contextlib.ExitStack() as stack:
        for _ in range(5):
            assert server.ask("POST", "/q/slow", large).status == 201
        slow = stack.enter_context(tiny(server))
        slow.sendall(get("/status/slow?with_desc=1").replace(HOST, HOST + b"Connection: close\r\n"))
        received, began = 0, time.monotonic()
        while part := slow.recv(65536):
            received += len(part)
            # It takes longer than it may be silent, and is never silent for so long.
            time.sleep(max(0.0, 6 * received / 4_500_000 - (time.monotonic() - began)))
    assert received > 4_500_000
    assert time.monotonic() - began > 5
