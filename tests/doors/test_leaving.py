"""A client that leaves while it waits takes nothing and leaves no socket, however it asked and left.

The same holds for every verb that waits, every form of a request and every way to leave. A client that does
not wait and only closes its sending side still gets its answer.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from presque import frames
from tests import rig
from tests.doors.sockets import speaking
from tests.doors.test_raw_requests import Wire, wire

HOST = "localhost"


@pytest.fixture(scope="module")
def both(pem: Path) -> Iterator[dict[str, rig.Server]]:
    """A server of each scheme that nobody else connects to, so that its connections can be counted."""
    with rig.server("--memory") as plain, rig.tls_server(pem, "--memory") as secure:
        yield {"http": plain, "https": secure}


@pytest.fixture(params=["http", "https"])
def alone(request: pytest.FixtureRequest, both: dict[str, rig.Server]) -> rig.Server:
    """One of them. It is of the function, since pytest starts what is of the module anew for each `way`."""
    return both[request.param]


# verb -> method, target, body, for the queue {q}
WAITING: dict[str, tuple[str, str, str]] = {
    "fetch": ("GET", "/q/{q}?wait=20", ""),
    "fetch from a list": ("GET", "/q/{q},other-*?wait=20", ""),
    "lease": ("POST", "/q/{q}/lease?wait=20", ""),
    "lease, said in the body": ("POST", "/q/{q}/lease", '{"wait":20,"count":5}'),
    "lease that settles first": (
        "POST", "/q/{q}/lease", '{"wait":20,"settle":{"ack":[{"queue":"{q}","id":"1","lease":"x"}]}}'
    ),
    "command fetch": ("POST", "/queue", '{"cmd":"fetch","queue":"{q}","wait":20}'),
    "command lease": ("POST", "/queue", '{"cmd":"lease","queue":"{q}","wait":20}'),
    "an array of commands": (
        "POST",
        "/queue",
        '[{"cmd":"stats"},{"cmd":"fetch","queue":"{q}","wait":20},{"cmd":"fetch","queue":"{q}"}]',
    ),
    "lines": ("GET", "/c/{q}", ""),
}  # fmt: skip


def plain(method: str, target: str, body: str) -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def absolute(method: str, target: str, body: str) -> bytes:
    return plain(method, f"http://{HOST}{target}", body)


def in_chunks(method: str, target: str, body: str) -> bytes:
    chunk = f"{len(body):x}\r\n{body}\r\n" if body else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return f"{head}{chunk}0\r\n\r\n".encode()


def pipelined(method: str, target: str, body: str) -> bytes:
    queue = target.split("/")[2].split("?")[0].split(",")[0] if target != "/queue" else json_queue(body)
    before = plain("GET", f"/status/{queue}", "")
    return before + plain(method, target, body) + plain("POST", f"/q/{queue}-smuggled", "1")


def old(method: str, target: str, body: str) -> bytes:
    return plain(method, target, body).replace(b"HTTP/1.1", b"HTTP/1.0", 1)


def json_queue(body: str) -> str:
    return body.split('"queue":"')[1].split('"')[0]


FORMS: dict[str, Callable[[str, str, str], bytes]] = {
    "origin form": plain,
    "absolute form": absolute,
    "chunked": in_chunks,
    "pipelined": pipelined,
    "HTTP/1.0": old,
}


def fin(connection: Wire) -> None:
    connection.close()


def rst(connection: Wire) -> None:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def half_close(connection: Wire) -> None:
    connection.end()


def goodbye(connection: Wire) -> None:
    connection.socket.goodbye()
    while connection.socket.recv(65536):
        pass  # until the server has said so, too
    connection.close()


def half_close_without_goodbye(connection: Wire) -> None:
    connection.socket.plain.shutdown(socket.SHUT_WR)


WAYS: dict[str, Callable[[Wire], None]] = {"FIN": fin, "RST": rst, "half-close": half_close}
WAYS_OF_TLS = {**WAYS, "goodbye": goodbye, "half-close without goodbye": half_close_without_goodbye}
BY_EVERY_WAY = pytest.mark.parametrize(
    ("alone", "way"),
    [pytest.param("http", act, id=f"http-{way}") for way, act in WAYS.items()]
    + [pytest.param("https", act, id=f"https-{way}") for way, act in WAYS_OF_TLS.items()],
    indirect=["alone"],
)


def connections(server: rig.Server) -> int:
    """How many sockets of clients the server holds, in whatever state."""
    port = f"{server.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port}") and row[3] not in ("0A", "06") for row in rows)


@BY_EVERY_WAY
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("verb", WAITING)
def test_a_waiter_that_leaves_takes_nothing_and_leaves_no_socket(
    alone: rig.Server, queue_name: str, verb: str, form: str, way: Callable[[Wire], None]
) -> None:
    method, target, body = (part.replace("{q}", queue_name) for part in WAITING[verb])
    rig.eventually(lambda: connections(alone) == 0)
    # A job that is not due yet is there to ask whether anybody waits.
    assert alone.ask("POST", f"/q/{queue_name}?delay=3600", "0").status == 201
    with wire(alone) as connection:
        connection.send(FORMS[form](method, target, body))
        if form == "pipelined":
            assert connection.reply().status == 200
        rig.eventually(lambda: connections(alone) == 1)
        rig.eventually(lambda: listened_to(alone, queue_name))
        way(connection)
        rig.eventually(lambda: connections(alone) == 0)
    for number in range(3):
        assert alone.ask("POST", f"/q/{queue_name}", str(number)).status == 201
    stats = alone.ask("GET", f"/stats/{queue_name}").json
    assert (stats["ready"], stats["leased"], stats["processed"]) == (3, 0, 0)
    assert f"{queue_name}-smuggled" not in alone.ask("GET", "/status/").json["queues"]


def listened_to(server: rig.Server, queue: str) -> bool:
    """Whether the request has come so far that the server hears of jobs in this queue."""
    reasons = server.ask("GET", f"/j/{queue}/1/explain").json["reasons"]
    return not any(one["code"] in ("no-worker", "busy") for one in reasons)


@BY_EVERY_WAY
@pytest.mark.parametrize("form", FORMS)
def test_who_waits_for_the_end_of_a_job_and_leaves_leaves_no_socket(
    alone: rig.Server, queue_name: str, form: str, way: Callable[[Wire], None]
) -> None:
    rig.eventually(lambda: connections(alone) == 0)
    assert alone.ask("POST", f"/q/{queue_name}", "0").status == 201
    with wire(alone) as connection:
        connection.send(FORMS[form]("GET", f"/j/{queue_name}/1?wait=60", ""))
        if form == "pipelined":
            assert connection.reply().status == 200
        rig.eventually(lambda: connections(alone) == 1)
        way(connection)
        rig.eventually(lambda: connections(alone) == 0)
    assert f"{queue_name}-smuggled" not in alone.ask("GET", "/status/").json["queues"]


@BY_EVERY_WAY
def test_who_reads_events_and_leaves_leaves_no_socket(alone: rig.Server, way: Callable[[Wire], None]) -> None:
    rig.eventually(lambda: connections(alone) == 0)
    with wire(alone) as connection:
        connection.send(plain("GET", "/events?jobs=1", ""))
        assert connection.reply().status == 200
        way(connection)
        rig.eventually(lambda: connections(alone) == 0)


TAKING: dict[str, str] = {
    "fetch": '{"cmd":"fetch","queue":"{q}"}',
    "fetch with a wait": '{"cmd":"fetch","queue":"{q}","wait":5}',
    "fetch many": '{"cmd":"fetch_many","queue":"{q}","batch_size":2}',
    "lease": '{"cmd":"lease","queue":"{q}","count":2}',
    "take": '{"cmd":"take","queue":"{q}"}',
    "several": '{"cmd":"fetch","queue":"{q}"},{"cmd":"take","queue":"{q}"},{"cmd":"lease","queue":"{q}"}',
}


@BY_EVERY_WAY
@pytest.mark.parametrize("taking", TAKING)
def test_what_commands_took_before_one_that_waits_goes_back_when_the_client_leaves(
    alone: rig.Server, queue_name: str, taking: str, way: Callable[[Wire], None]
) -> None:
    jobs = {str(number): number for number in range(1, 4)}
    for number in jobs.values():
        assert alone.ask("POST", f"/q/{queue_name}", str(number)).status == 201
    assert alone.ask("POST", f"/q/{queue_name}-other?delay=3600", "0").status == 201
    waits = '{"cmd":"fetch","queue":"{q}-other","wait":20}'
    body = f"[{TAKING[taking]},{waits}]".replace("{q}", queue_name)
    with wire(alone) as connection:
        connection.send(plain("POST", "/queue", body))
        rig.eventually(lambda: listened_to(alone, f"{queue_name}-other"))
        assert alone.ask("GET", f"/stats/{queue_name}").json["ready"] < 3
        way(connection)
        rig.eventually(lambda: alone.ask("GET", f"/stats/{queue_name}").json["ready"] == 3)
    found = alone.ask("GET", f"/j/{queue_name}?state=ready").json["jobs"]
    assert [(job["id"], job["body"], job["attempt"]) for job in found] == [
        (name, number, 0) for name, number in jobs.items()
    ]
    stats = alone.ask("GET", f"/stats/{queue_name}").json
    assert (stats["leased"], stats["processed"], stats["failed"]) == (0, 0, 0)


LARGE = 24 * 1024 * 1024  # more than the sockets of a connection hold
LARGE_ANSWERS: dict[str, tuple[str, str, str]] = {
    "fetch": ("GET", "/q/{q}", ""),
    "fetch that waits": ("GET", "/q/{q}?wait=20", ""),
    "fetch from a list": ("GET", "/q/{q},other-*?wait=20", ""),
    "many": ("GET", "/qb/{q}", ""),
    "lease": ("POST", "/q/{q}/lease", '{"count":5}'),
    "command fetch": ("POST", "/queue", '{"cmd":"fetch","queue":"{q}"}'),
    "command lease": ("POST", "/queue", '{"cmd":"lease","queue":"{q}"}'),
    "an array of commands": ("POST", "/queue", '[{"cmd":"stats"},{"cmd":"take","queue":"{q}"}]'),
    "lines": ("GET", "/c/{q}", ""),
}


@pytest.fixture(scope="module", params=["http", "https"])
def roomy(request: pytest.FixtureRequest, pem: Path) -> Iterator[rig.Server]:
    """A server that takes large jobs."""
    options = ("--memory", "--max-body", "32MiB")
    with rig.server(*options) if request.param == "http" else rig.tls_server(pem, *options) as found:
        yield found


@pytest.mark.parametrize("way", ["FIN", "RST"])
@pytest.mark.parametrize("verb", LARGE_ANSWERS)
def test_a_large_job_goes_back_if_its_client_leaves_in_the_midst_of_it(
    roomy: rig.Server, queue_name: str, verb: str, way: str
) -> None:
    method, target, body = (part.replace("{q}", queue_name) for part in LARGE_ANSWERS[verb])
    assert roomy.ask("POST", f"/q/{queue_name}", b'"%b"' % (b"x" * LARGE)).status == 201
    with wire(roomy) as connection:
        connection.send(plain(method, target, body))
        assert b" 200 " in connection.socket.recv(1000)
        rig.eventually(lambda: roomy.ask("GET", f"/stats/{queue_name}").json["ready"] == 0)
        WAYS[way](connection)
        rig.eventually(lambda: roomy.ask("GET", f"/stats/{queue_name}").json["ready"] == 1)
    stats = roomy.ask("GET", f"/stats/{queue_name}").json
    assert (stats["leased"], stats["processed"], stats["failed"]) == (0, 0, 0)
    # Whoever reads it all has it for good, and is served by the same connection afterwards.
    with wire(roomy) as connection:
        for size in (LARGE + 2, len("1")):
            found = connection.send(plain("GET", f"/q/{queue_name}", "")).reply()
            assert (found.status, len(found.body)) == (200, size)
            assert roomy.ask("POST", f"/q/{queue_name}", "1").status == 201
    assert roomy.ask("GET", f"/stats/{queue_name}").json["ready"] == 1


@pytest.mark.parametrize("roomy", ["http"], indirect=True)
async def test_a_large_job_goes_back_if_its_socket_ends_in_the_midst_of_it(
    roomy: rig.Server, queue_name: str
) -> None:
    assert roomy.ask("POST", f"/q/{queue_name}", b'"%b"' % (b"x" * LARGE)).status == 201
    async with speaking(roomy, max_size=None, max_queue=1) as on:
        on.transport.pause_reading()
        await on.send(json.dumps({"cmd": "fetch", "queue": queue_name}))
        await asyncio.to_thread(
            rig.eventually, lambda: roomy.ask("GET", f"/stats/{queue_name}").json["ready"] == 0
        )
        on.transport.abort()
    await asyncio.to_thread(
        rig.eventually, lambda: roomy.ask("GET", f"/stats/{queue_name}").json["ready"] == 1
    )


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize("roomy", ["http"], indirect=True)
def test_what_a_socket_has_taken_is_its_own_though_the_next_answer_goes_back(
    roomy: rig.Server, queue_name: str
) -> None:
    """Both answers leave in one turn, so that the second waits behind the first."""
    for number in (1, 2):
        assert roomy.ask("POST", f"/q/{queue_name}", b'"%d%b"' % (number, b"x" * LARGE)).status == 201
    commands = json.dumps([{"cmd": "fetch", "queue": queue_name}] * 2).encode()
    with wire(roomy) as connection:
        connection.send(HANDSHAKE, frames.frame(frames.TEXT, commands, b"1234"))
        rig.eventually(lambda: roomy.ask("GET", f"/stats/{queue_name}").json["ready"] == 0)
        received = bytearray()
        while len(received) < LARGE + 1000 or b'"}' not in received[LARGE:]:
            received += connection.socket.recv(65536)
        rst(connection)
        rig.eventually(lambda: roomy.ask("GET", f"/stats/{queue_name}").json["ready"] == 1)
    assert b'"1xxx' in received
    assert roomy.ask("GET", f"/q/{queue_name}").body.startswith(b'"2xxx')
    assert roomy.ask("GET", f"/stats/{queue_name}").json["ready"] == 0


NOT_WAITING: dict[str, tuple[str, str, str, int]] = {
    "push": ("POST", "/q/{q}", '{"wait":20}', 201),
    "fetch": ("GET", "/q/{q}", "", 404),
    "lease": ("POST", "/q/{q}/lease", "{}", 204),
    "many": ("GET", "/qb/{q}", "", 404),
    "command push": ("POST", "/queue", '{"cmd":"push","queue":"{q}","job":{"wait":20}}', 200),
    "command fetch": ("POST", "/queue", '[{"cmd":"fetch","queue":"{q}","wait":0}]', 200),
    "settle": ("POST", "/settle", "{}", 200),
    "stats": ("GET", "/stats/{q}", "", 200),
    "look": ("GET", "/j/{q}/1", "", 404),
    "page": ("GET", "/", "", 200),
}


@pytest.mark.parametrize("form", [form for form in FORMS if form != "pipelined"])
@pytest.mark.parametrize("verb", NOT_WAITING)
def test_who_does_not_wait_and_closes_its_sending_side_gets_its_answer(
    alone: rig.Server, queue_name: str, verb: str, form: str
) -> None:
    method, target, body, status = NOT_WAITING[verb]
    request = FORMS[form](method, target.replace("{q}", queue_name), body.replace("{q}", queue_name))
    with wire(alone) as connection:
        connection.send(request).end()
        assert connection.reply().status == status
        assert connection.closed()


def test_what_a_client_that_closed_its_sending_side_was_given_stays_its_own(
    alone: rig.Server, queue_name: str
) -> None:
    assert alone.ask("POST", f"/q/{queue_name}", "1").status == 201
    with wire(alone) as connection:
        connection.send(plain("POST", f"/q/{queue_name}/lease", "")).end()
        jobs = json.loads(connection.reply().body)["jobs"]
    assert len(jobs) == 1
    assert alone.ask("GET", f"/stats/{queue_name}").json["leased"] == 1
