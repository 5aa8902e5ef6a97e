"""A Consumer against WebSocket servers that answer wrongly, endlessly, drop by drop or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from presque import AsyncClient, ClientError, frames
from presque.client import NotAllowed, NotFound, ServerNotReached
from presque.client.consume import consume
from tests.faults.test_wrong_servers import is_clean

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Behaviour], Awaitable[str]]

JOB = {
    "event": "job", "queue": "q", "id": "1", "body": 1, "attempt": 1, "max_attempts": 5, "lease": "t",
    "lease_until": "u",
}  # fmt: skip


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server that does one thing with every connection."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def start(behaviour: Behaviour) -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await behaviour(reader, writer)
            writer.close()

        found = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(found)
        return f"http://127.0.0.1:{found.sockets[0].getsockname()[1]}"

    yield start
    for found in servers:
        found.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


def upgraded(then: Behaviour) -> Behaviour:
    """Do the handshake as it should be, then something else."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line[19:] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key: "))
        writer.write(
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % str(frames.accept(key)).encode()
        )
        await reader.read(1)  # the grant
        await then(reader, writer)

    return behave


def sends(*messages: Any) -> Behaviour:
    """After the handshake send these: bytes as they are, anything else as a JSON message. Then wait."""

    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for one in messages:
            data = one if isinstance(one, bytes) else frames.frame(frames.TEXT, json.dumps(one).encode())
            writer.write(data)
        await reader.read()

    return upgraded(then)


def answers(data: bytes) -> Behaviour:
    """Answer the handshake with this and close."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return behave


async def first_of(url: str, **options: Any) -> Any:
    async with asyncio.timeout(30), consume(url, "q", **options) as jobs:
        return await anext(jobs)


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (b'HTTP/1.1 401 X\r\nContent-Length: 21\r\n\r\n{"error":"no \\u001b"}', NotAllowed, "no ?"),
        (b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", NotFound, "the server answered 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", ClientError, "the server answered 200"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", ClientError, "the server answered 200"),
        (b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: x\r\n\r\n", ClientError, "has upgraded to something"),
        (b"HTTP/1.1 101 X\r\n\r\n", ClientError, "has upgraded to something"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ServerNotReached, "does not begin as HTTP does"),
        (b"HTTP/1.1 101 X", ServerNotReached, "closed the connection before answering"),
        (b"", ServerNotReached, "closed the connection before answering"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", ServerNotReached, "larger than"),
        (b"HTTP/1.1 101 X\r\nA: " + b"x" * (1 << 21), ServerNotReached, "head is longer than"),
    ],
)
async def test_a_handshake_that_fails_is_an_error_of_the_client(
    serve: Serve, data: bytes, kind: type[ClientError], text: str
) -> None:
    with pytest.raises(ClientError) as caught:
        await first_of(await serve(answers(data)))
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert is_clean(caught.value)


async def test_connecting_has_a_time_limit(serve: Serve) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 101 X\r\n" if not writer.transport.is_closing() else b"")
            await asyncio.sleep(0.01)
            if writer.transport.is_closing():
                return

    with pytest.raises(ServerNotReached, match=r"did not answer within 2 s"):
        await first_of(await serve(drip), timeout=2)


@pytest.mark.parametrize(
    "messages",
    [
        (b"\xff\xff\xff\xff",),
        (b"\x81\xff",),
        (b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",),
        (frames.frame(frames.TEXT, b"not JSON"),),
        (frames.frame(frames.TEXT, b"[1]"),),
        ({"event": "job"},),
        (JOB | {"id": {}},),
        (JOB | {"attempt": "1"},),
        (JOB, JOB),
        ({"ref": "lease", "error": {}},),
    ],
)
async def test_what_is_not_the_protocol_ends_it_with_an_error(
    serve: Serve, messages: tuple[Any, ...]
) -> None:
    url = await serve(sends(*messages))

    async def take_all() -> None:
        async with asyncio.timeout(30), consume(url, "q") as jobs:
            async for _ in jobs:
                await asyncio.sleep(0.05)

    with pytest.raises(ClientError) as caught:
        await take_all()
    assert not isinstance(caught.value, ServerNotReached)
    assert is_clean(caught.value)


async def test_the_refusal_of_a_grant_is_an_error_of_one_line(serve: Serve) -> None:
    url = await serve(sends({"ref": "lease", "error": "no\n\x1b[2J", "code": "queue-closed"}))
    with pytest.raises(ClientError, match=r"^no \?\[2J$") as caught:
        await first_of(url)
    assert caught.value.code == "queue-closed"


async def test_what_could_not_be_settled_is_kept_in_short(serve: Serve) -> None:
    lost = {"error": "x" * 100_000, "code": "lease-lost", "more": [1] * 100_000, "id": "1"}
    async with asyncio.timeout(30), consume(await serve(sends(lost, JOB)), "q") as jobs:
        await anext(jobs)
        assert list(jobs.lost) == [{"error": "x" * 1000 + "…", "code": "lease-lost", "id": "1"}]


async def test_a_long_integer_is_read(serve: Serve) -> None:
    body = json.dumps(JOB).replace('"body": 1', '"body": ' + "9" * 5000).encode()
    job = await first_of(await serve(sends(frames.frame(frames.TEXT, body))))
    assert job.value == 10**5000 - 1


async def test_a_server_that_asks_for_pongs_and_reads_none_is_given_up(serve: Serve) -> None:
    async def then(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        pings = frames.frame(frames.PING, b"x" * 125) * 1000
        while not writer.transport.is_closing():
            writer.write(pings)
            await asyncio.sleep(0)

    with pytest.raises(ClientError, match="does not read what it is sent"):
        await first_of(await serve(upgraded(then)))


async def test_the_environment_says_where_and_who(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n")

    monkeypatch.setenv("PRESQUE_URL", await serve(refuse))
    monkeypatch.setenv("PRESQUE_TOKEN", "tok")
    with pytest.raises(NotAllowed):
        async with consume(None, "q"):
            pass
    with pytest.raises(NotAllowed):
        async with AsyncClient().consume("q"):
            pass
    assert [b"\r\nAuthorization: Bearer tok\r\n" in head for head in heads] == [True, True]
