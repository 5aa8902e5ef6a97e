"""What only an open connection can do: sockets, lines, events, listeners."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import select
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from presque import frames
from presque.client.consume import consume
from presque.client.errors import ClientError, ServerNotReached
from tests import rig
from tests.asking import soon
from tests.doors.reading import Events
from tests.doors.sockets import heard, silent, speaking

Say = Callable[..., Awaitable[Any]]


def push(server: rig.Server, queue: str, body: Any = 1) -> str:
    return str(server.ask("POST", f"/q/{queue}", json.dumps(body)).json["id"])


def counts(server: rig.Server, queue: str) -> tuple[int, int]:
    """How many jobs are ready and how many leased."""
    stats = server.ask("GET", f"/stats/{queue}").json
    return stats["ready"], stats["leased"]


# --- credits


async def test_jobs_come_as_they_are_pushed_and_never_more_than_the_credits(
    server: rig.Server, queue_name: str
) -> None:
    async with speaking(server, f"/ws/{queue_name}") as on:
        await on.send('{"cmd":"lease","count":2,"seconds":30}')
        assert await heard(on) == {"queue": queue_name, "count": 2}
        for number in range(4):
            push(server, queue_name, number)
        first, second = await heard(on), await heard(on)
        assert [first["body"], second["body"]] == [0, 1]
        assert await silent(on)
        await on.send(json.dumps({"cmd": "ack", "id": first["id"], "lease": first["lease"]}))
        assert (await heard(on))["body"] == 2
        assert counts(server, queue_name) == (1, 2)


async def test_a_job_settled_elsewhere_gives_its_credit_back_when_it_is_settled_here(
    server: rig.Server, queue_name: str
) -> None:
    async with speaking(server) as on:
        await on.send(json.dumps({"cmd": "lease", "queue": queue_name, "count": 1}))
        await heard(on)
        push(server, queue_name, "first")
        first = await heard(on)
        key = {"queue": queue_name, "id": first["id"], "lease": first["lease"]}
        assert server.ask("POST", "/settle", json.dumps({"ack": [key]})).json["settled"][0]["status"] == 200
        push(server, queue_name, "second")
        assert await silent(on)
        await on.send(json.dumps({"cmd": "fail", **key}))
        assert (await heard(on))["body"] == "second"


async def test_count_0_ends_the_jobs_and_keeps_those_that_are_held(
    server: rig.Server, queue_name: str
) -> None:
    async with speaking(server, f"/ws/{queue_name}") as on:
        await on.send('{"cmd":"lease","count":1}')
        push(server, queue_name)
        await heard(on)
        job = await heard(on)
        await on.send('{"cmd":"lease","count":0,"ref":"end"}')
        assert (await heard(on))["ref"] == "end"
        push(server, queue_name)
        assert await silent(on)
        await on.send(json.dumps({"cmd": "ack", "id": job["id"], "lease": job["lease"], "ref": 2}))
        assert (await heard(on))["state"] == "done"
        assert await silent(on)


@pytest.mark.parametrize("end", ["goodbye", "broken", "killed"])
async def test_what_a_socket_held_is_released_at_once_in_its_order(
    server: rig.Server, queue_name: str, end: str
) -> None:
    for number in range(5):
        push(server, queue_name, number)
    async with speaking(server, f"/ws/{queue_name}") as on:
        await on.send('{"cmd":"lease","count":3,"seconds":3600}')
        assert [(await heard(on)).get("body") for _ in range(4)] == [None, 0, 1, 2]
        if end == "broken":
            await on.send(b"\xff\xfe", text=True)
        elif end == "killed":
            on.transport.abort()
        else:
            await on.close()
        await soon(lambda: counts(server, queue_name) == (5, 0))
    first = server.ask("POST", f"/q/{queue_name}/lease").json["jobs"][0]
    assert (first["body"], first["attempt"]) == (0, 2 if end == "killed" else 1)


async def test_a_client_that_does_not_read_gets_no_more_than_its_credits_and_costs_no_memory(
    server: rig.Server, queue_name: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    writer.write(handshake(f"/ws/{queue_name}"))
    await reader.readuntil(b"\r\n\r\n")
    big = json.dumps("x" * 200_000)
    for _ in range(40):
        server.ask("POST", f"/q/{queue_name}", big)
    writer.write(text('{"cmd":"lease","count":10,"seconds":60}'))
    await soon(lambda: counts(server, queue_name)[1] == 10)
    # A flood of commands whose answers nobody reads: the server stops reading, too.
    flood = text(json.dumps({"cmd": "peek", "count": 10})) * 200
    before = rss(server)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while True:
                writer.write(flood)
                await writer.drain()
    assert rss(server) - before < 150 * 1024 * 1024
    assert counts(server, queue_name) == (30, 10)
    writer.transport.abort()
    await soon(lambda: counts(server, queue_name) == (40, 0))


def rss(server: rig.Server) -> int:
    with open(f"/proc/{server.process.pid}/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


# --- frames


def handshake(path: str, **headers: str) -> bytes:
    lines = {
        "Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13",
    } | {name.replace("_", "-"): value for name, value in headers.items()}  # fmt: skip
    return (
        f"GET {path} HTTP/1.1\r\n".encode()
        + "".join(f"{n}: {v}\r\n" for n, v in lines.items()).encode()
        + b"\r\n"
    )


def text(message: str) -> bytes:
    return frames.frame(frames.TEXT, message.encode(), b"abcd")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frames.frame(frames.TEXT, b"{}"), 1002),  # not masked
        (b"\xc1\x80abcd", 1002),  # a reserved bit
        (b"\x83\x80abcd", 1002),  # an opcode that is none
        (b"\x80\x80abcd", 1002),  # continues nothing
        (b"\x09\x80abcd", 1002),  # a ping in pieces
        (b"\x89\xfe\x00\x80abcd", 1002),  # a long ping
        (frames.frame(frames.CLOSE, b"\x03", b"abcd"), 1002),
        (frames.frame(frames.CLOSE, b"\x03\xed", b"abcd"), 1002),  # 1005 is never sent
        (frames.frame(frames.TEXT, b"\xff", b"abcd"), 1007),
        (b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"abcd", 1009),
    ],
)
def test_a_broken_frame_closes_the_socket_with_its_code(server: rig.Server, sent: bytes, code: int) -> None:
    answer = server.raw(handshake("/ws") + sent)
    assert answer.startswith(b"HTTP/1.1 101 ")
    [message] = frames.Reader(masked=False, most=1000).feed(answer.partition(b"\r\n\r\n")[2])
    assert (message.opcode, frames.close_code(message.payload)) == (frames.CLOSE, code)


async def test_a_message_in_pieces_with_a_ping_between_them_is_one_message(server: rig.Server) -> None:
    async with speaking(server) as on:

        async def pieces() -> AsyncIterator[str]:
            yield '{"cmd":"zz",'
            await (await on.ping())
            yield '"ref":"ä"}'

        await on.send(pieces())
        assert (await heard(on))["ref"] == "ä"


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"Sec_WebSocket_Version": "8"}, "version of WebSocket"),
        ({"Sec_WebSocket_Key": "short"}, "16 bytes in base64"),
        ({"Upgrade": "h2c"}, "speaks WebSocket"),
    ],
)
def test_a_handshake_that_is_none_is_refused(server: rig.Server, headers: dict[str, str], says: str) -> None:
    answer = server.raw(handshake("/ws", **headers))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert says.encode() in answer


async def test_compression_that_a_client_offers_is_not_taken_up(server: rig.Server, queue_name: str) -> None:
    async with connect(f"ws://127.0.0.1:{server.port}/ws/{queue_name}", compression="deflate") as found:
        assert found.request is not None
        assert "permessage-deflate" in found.request.headers["Sec-WebSocket-Extensions"]
        assert found.response is not None
        assert "Sec-WebSocket-Extensions" not in found.response.headers
        await found.send('{"cmd": "push", "job": 1}')
        assert (await heard(found))["id"] == "1"


async def test_a_page_of_another_site_may_not_connect(server: rig.Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with speaking(server, origin="http://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    async with speaking(server, origin=f"http://127.0.0.1:{server.port}"):
        pass


async def test_a_name_that_is_none_is_refused_at_the_handshake(server: rig.Server) -> None:
    with pytest.raises(InvalidStatus):
        async with speaking(server, "/ws/-x"):
            pass


async def test_a_stopping_server_gives_back_what_is_held_and_says_goodbye(
    new_data: Callable[[], str],
) -> None:
    data = new_data()
    with rig.server("--data", data) as server:
        push(server, "held")
        async with speaking(server) as on:
            await on.send('{"cmd":"lease","queue":"held","seconds":3600}')
            await heard(on)
            assert (await heard(on))["event"] == "job"
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                await heard(on)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        assert await asyncio.to_thread(server.process.wait, rig.PATIENCE) == 0
    with rig.server("--data", data) as server:
        assert counts(server, "held") == (1, 0)


async def test_a_flood_of_commands_is_answered_whole(server: rig.Server, queue_name: str) -> None:
    async with speaking(server, f"/ws/{queue_name}") as on:
        for first in range(0, 3000, 500):
            batch = [{"cmd": "push", "job": n, "ref": n} for n in range(first, first + 500)]
            await on.send(json.dumps(batch))
        refs = {(await heard(on))["ref"] for _ in range(3000)}
    assert refs == set(range(3000))
    assert counts(server, queue_name) == (3000, 0)


# --- the client in Python


async def test_consume_receives_each_job_once_and_acks_it(server: rig.Server, queue_name: str) -> None:
    for number in range(500):
        push(server, queue_name, number)
    found = []
    async with consume(server.url, queue_name, credit=20, seconds=60, worker="w-1") as jobs:
        async for job in jobs:
            found.append(job.value)
            job.ack()
            if len(found) == 500:
                break
    assert found == list(range(500))
    await soon(lambda: server.ask("GET", f"/stats/{queue_name}").json["processed"] == 500)
    assert counts(server, queue_name) == (0, 0)


async def test_consume_gives_back_what_was_not_settled(server: rig.Server, queue_name: str) -> None:
    for number in range(4):
        push(server, queue_name, number)
    async with consume(server.url, queue_name, credit=3) as jobs:
        done = await anext(jobs)
        done.ack()
        await anext(jobs)
    await soon(lambda: counts(server, queue_name) == (3, 0))


async def test_a_consumed_job_brings_what_was_saved(server: rig.Server, queue_name: str) -> None:
    push(server, queue_name)
    async with consume(server.url, queue_name) as jobs:
        job = await anext(jobs)
        assert job.saved is None
        job.extend(60, progress="half", saved={"n": 1})
        job.release()
        job = await anext(jobs)
        assert job.saved == {"n": 1}
        job.release(saved=2, progress="more")
        job = await anext(jobs)
        assert job.saved == 2
        job.fail("no", retry_in=0, saved=[])
        job = await anext(jobs)
        assert job.saved == []
        job.ack(progress="whole")
    assert not jobs.lost


async def test_consume_says_when_the_server_is_gone_or_refuses(server: rig.Server) -> None:
    with pytest.raises(ClientError, match="`-x` is no"):
        async with consume(server.url, "-x"):
            pass
    with pytest.raises(ClientError, match="`count` should be"):
        async with consume(server.url, "x", credit=5000) as jobs:
            await anext(jobs)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(ServerNotReached):
        async with consume(f"http://127.0.0.1:{port}", "x"):
            pass


# --- heartbeats -------------------------------------------------------------------------------------

FAST_HEART = (
    "import presque.ws.endpoint as endpoint, presque.commands.feed as feed; endpoint.HEARTBEAT_S = 2; "
    "feed.COMMENT_S = 0.2; from presque.cli.main import main; main()"
)


@pytest.fixture
def quick() -> Iterator[rig.Server]:
    """A server whose heart beats ten times as fast, and its events a hundred times."""
    with rig.server("--memory", program=("-c", FAST_HEART)) as found:
        yield found


async def test_a_socket_that_answers_pings_stays(quick: rig.Server) -> None:
    push(quick, "q")
    reader, writer = await asyncio.open_connection("127.0.0.1", quick.port)
    writer.write(handshake("/ws/q") + text('{"cmd":"lease","count":1,"seconds":3600}'))
    await reader.readuntil(b"\r\n\r\n")
    messages, pings = frames.Reader(masked=False, most=1000), 0
    while pings < 4:
        for message in messages.feed(await asyncio.wait_for(reader.read(1000), rig.PATIENCE)):
            if message.opcode == frames.PING:
                pings += 1
                writer.write(frames.frame(frames.PONG, message.payload, b"abcd"))
    assert counts(quick, "q") == (0, 1)
    writer.close()


async def test_what_a_half_open_socket_holds_is_given_back_after_two_beats(quick: rig.Server) -> None:
    push(quick, "q")
    reader, writer = await asyncio.open_connection("127.0.0.1", quick.port)
    writer.write(handshake("/ws/q") + text('{"cmd":"lease","count":1,"seconds":3600}'))
    # It is there and silent, as one whose cable was pulled.
    errors: Any = await soon(lambda: quick.ask("GET", "/j/q/1").json.get("errors"))
    assert errors[0]["error"] == "the connection was lost"
    assert counts(quick, "q") == (1, 0)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await reader.read()


def test_events_say_a_comment_now_and_then(quick: rig.Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", quick.port, timeout=rig.PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/events")
        response = connection.getresponse()
        lines = [response.readline() for _ in range(6)]
    assert sum(line.startswith(b":") for line in lines) >= 2


# --- one line a job, and events


def test_jobs_come_one_a_line_as_they_are_pushed(server: rig.Server, queue_name: str) -> None:
    server.ask("POST", f"/q/{queue_name}", '{"n":\n 1}')
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=rig.PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", f"/c/{queue_name},other-{queue_name}?wait=60")
        answer = connection.getresponse()
        first = json.loads(answer.readline())
        assert (first["queue"], first["body"]) == (queue_name, {"n": 1})
        push(server, f"other-{queue_name}", 2)
        second = json.loads(answer.readline())
        assert (second["queue"], second["body"]) == (f"other-{queue_name}", 2)


def test_lines_end_when_their_time_is_over(server: rig.Server, queue_name: str) -> None:
    server.ask("POST", f"/q/{queue_name}", "1")
    answer = server.ask("GET", f"/c/{queue_name}?wait=0.5")
    assert [json.loads(line)["body"] for line in answer.body.splitlines()] == [1]
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert server.ask("HEAD", f"/c/{queue_name}").status == 405


def test_a_reader_of_lines_that_has_left_takes_no_job(server: rig.Server, queue_name: str) -> None:
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=rig.PATIENCE)
        connection.request("GET", f"/c/{queue_name}")
        connection.getresponse()
        connection.close()
    gone = server.ask("GET", f"/q/nothing-{queue_name}?wait=0.2")  # the server has seen that they left
    assert gone.status == 404
    push(server, queue_name)
    assert counts(server, queue_name) == (1, 0)


def test_events_tell_how_a_queue_is_and_what_changes(server: rig.Server, queue_name: str) -> None:
    push(server, queue_name)
    events = Events(server, f"?queues={queue_name}")
    first = events.next()
    assert (first["queue"], first["ready"]) == (queue_name, 1)
    server.ask("GET", f"/q/{queue_name}")
    second = events.next()
    assert (second["ready"], second["new"]) == (0, {"processed": 1})
    events.close()


def test_events_resume_behind_the_last_one_that_was_seen(server: rig.Server, queue_name: str) -> None:
    push(server, queue_name)
    other = Events(server)  # keeps the server reading
    events = Events(server, f"?queues={queue_name}")
    assert events.next()["ready"] == 1
    events.close()
    push(server, queue_name)
    again = Events(server, f"?queues={queue_name}", Last_Event_ID=events.last)
    assert again.next()["ready"] == 2
    again.close()
    lost = Events(server, f"?queues={queue_name}", Last_Event_ID="elsewhere-7")
    assert lost.next()["ready"] == 2
    lost.close()
    other.close()


def test_a_stopping_server_ends_lines_and_events() -> None:
    with rig.server("--memory") as server:
        push(server, "a")
        lines = server.send("GET", "/c/b")
        events = Events(server)
        assert events.next()["queue"] == "a"
        assert server.stop() == 0
        assert lines.answer().body == b""
        assert events.response.read() == b""
        events.close()


# --- broadcast and round robin


@pytest.fixture(scope="module")
def fleet() -> Any:
    """Two servers on one store."""
    with (
        rig.store("valkey") as store,
        rig.server("--redis", store.url) as one,
        rig.server("--redis", store.url) as other,
    ):
        yield one, other


@contextlib.asynccontextmanager
async def listening(server: rig.Server, queue: str, delivery: str) -> AsyncIterator[ClientConnection]:
    server.ask("PATCH", f"/p/{queue}", json.dumps({"delivery": delivery}))
    async with speaking(server, f"/ws/{queue}") as on:
        await on.send('{"cmd":"lease"}')
        assert (await heard(on))["delivery"] == delivery
        yield on


async def test_a_broadcast_job_reaches_every_listener_of_every_server_in_its_order(
    fleet: tuple[rig.Server, rig.Server], queue_name: str
) -> None:
    one, other = fleet
    async with (
        listening(one, queue_name, "broadcast") as a,
        listening(one, queue_name, "broadcast") as b,
        listening(other, queue_name, "broadcast") as c,
    ):
        for number in range(50):
            push((one, other)[number % 2], queue_name, number)
        for on in (a, b, c):
            assert [(await heard(on))["body"] for _ in range(50)] == list(range(50))
            assert await silent(on)
    stats = one.ask("GET", f"/stats/{queue_name}").json
    assert (stats["ready"], stats["processed"]) == (0, 50)


async def test_round_robin_deals_to_the_listeners_of_all_servers_in_turn(
    fleet: tuple[rig.Server, rig.Server], queue_name: str
) -> None:
    one, other = fleet
    async with (
        listening(one, queue_name, "roundrobin") as a,
        listening(other, queue_name, "roundrobin") as b,
        listening(one, queue_name, "roundrobin") as c,
    ):
        for number in range(30):
            push((one, other)[number % 2], queue_name, number)
        got = [[(await heard(on))["body"] for _ in range(10)] for on in (a, b, c)]
        assert got == [list(range(first, 30, 3)) for first in range(3)]
        await b.close()
        for number in range(30, 34):
            push(one, queue_name, number)
        assert [(await heard(on))["body"] for on in (a, c, a, c)] == [30, 31, 32, 33]


@pytest.mark.parametrize("delivery", ["broadcast", "roundrobin"])
async def test_jobs_wait_in_their_queue_while_nobody_listens(
    fleet: tuple[rig.Server, rig.Server], queue_name: str, delivery: str
) -> None:
    one, _ = fleet
    one.ask("PATCH", f"/p/{queue_name}", json.dumps({"delivery": delivery}))
    for number in range(3):
        push(one, queue_name, number)
    assert counts(one, queue_name) == (3, 0)
    one.ask("POST", f"/q/{queue_name}?delay=0.3", '"later"')
    async with listening(one, queue_name, delivery) as on:
        assert [(await heard(on))["body"] for _ in range(4)] == [0, 1, 2, "later"]
    await soon(lambda: one.ask("GET", f"/stats/{queue_name}").json["processed"] == 4)
    push(one, queue_name, "kept")
    assert counts(one, queue_name) == (1, 0)


async def test_a_listener_that_does_not_read_is_cut_off_and_holds_nobody_up(
    fleet: tuple[rig.Server, rig.Server], queue_name: str
) -> None:
    one, _ = fleet
    body = json.dumps("x" * 500_000)
    async with listening(one, queue_name, "broadcast") as quick:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port, limit=1024)
        writer.write(handshake(f"/ws/{queue_name}") + text('{"cmd":"lease"}'))
        await reader.readuntil(b'"broadcast"}')
        for _ in range(60):
            one.ask("POST", f"/q/{queue_name}", body)
            assert len((await heard(quick))["body"]) == 500_000
        rest = bytearray()
        with contextlib.suppress(ConnectionError):  # it was given time to hear why, which may be over by now
            while part := await asyncio.wait_for(reader.read(1 << 20), rig.PATIENCE):
                rest += part
                if rest[-200:].find(b"too slow") >= 0:
                    break
        writer.transport.abort()
        assert len(rest) < 60 * 500_000


async def test_listeners_of_a_killed_server_get_no_turns(queue_name: str) -> None:
    with (
        rig.store("valkey") as store,
        rig.server("--redis", store.url) as one,
        rig.server("--redis", store.url) as other,
    ):
        async with listening(one, queue_name, "roundrobin") as a, listening(other, queue_name, "roundrobin"):
            os.killpg(other.process.pid, signal.SIGKILL)
            other.process.wait()
            for number in range(4):
                push(one, queue_name, number)
            assert [(await heard(a))["body"] for _ in range(4)] == [0, 1, 2, 3]


def test_a_reader_of_lines_is_a_listener_too(fleet: tuple[rig.Server, rig.Server], queue_name: str) -> None:
    one, other = fleet
    one.ask("PATCH", f"/p/{queue_name}", '{"delivery": "broadcast"}')
    push(one, queue_name, "first")
    readers = []
    for server in (one, other):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=rig.PATIENCE)
        connection.request("GET", f"/c/{queue_name}?wait=60")
        readers.append((connection, connection.getresponse()))
        if server is one:
            assert json.loads(readers[0][1].readline())["body"] == "first"
    # The second is known to listen once it gets what the first gets.
    rig.eventually(lambda: push(one, queue_name, "again") and heard_line(readers[1]))
    push(other, queue_name, "all")
    for reader in readers:
        while json.loads(reader[1].readline())["body"] != "all":
            pass
    for connection, response in readers:
        response.close()
        connection.close()


def heard_line(reader: tuple[http.client.HTTPConnection, http.client.HTTPResponse]) -> bool:
    """Whether a line comes within a moment."""
    return bool(select.select([reader[0].sock], [], [], 0.1)[0])


# --- streams and slow readers


@pytest.mark.parametrize(("size", "most"), [(1000, 63), (100_000, 1)])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_lines_that_nobody_reads_take_few_jobs(
    server: rig.Server, queue_name: str, version: str, size: int, most: int
) -> None:
    many = json.dumps({"jobs": ["x" * size] * min(900, 900_000 // size)})
    for _ in range(2):
        assert server.ask("POST", f"/qb/{queue_name}", many).status == 201
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        reader.settimeout(rig.PATIENCE)
        reader.connect(("127.0.0.1", server.port))
        reader.sendall(f"GET /c/{queue_name} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())

        def taken() -> int:
            return int(server.ask("GET", f"/j/{queue_name}").json["job_processed"])

        rig.eventually(lambda: taken() > 0)
        before, looks = -1, 0
        while taken() != before:  # until no more is taken for as long as a look takes, ten times over
            before, looks = taken(), looks + 1
            for _ in range(10):
                server.ask("GET", "/status/")
            assert looks < 100
        assert taken() <= most
        received = b""
        while received.count(b"\n{") < 3 * most:
            received += reader.recv(65536)
    assert b"X-Accel-Buffering: no\r\n" in received


def test_streams_have_no_chunks_in_http_1_0(server: rig.Server, queue_name: str) -> None:
    push(server, queue_name, {"n": 1})
    asked = f"GET /c/{queue_name}?wait=0.3 HTTP/1.0\r\nHost: localhost\r\n\r\n"
    head, _, lines = server.raw(asked.encode()).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert b"Connection: close" in head
    assert json.loads(lines) == {"queue": queue_name, "id": "1", "body": {"n": 1}}
    assert lines.endswith(b"}\n")
