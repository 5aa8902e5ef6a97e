"""Consume queues over one WebSocket, on asyncio.

    async with consume("http://127.0.0.1:5000", "video,*", credit=10) as jobs:
        async for job in jobs:
            work(job.value)
            job.ack()

Jobs come as soon as they are there, `credit` of them at most at any time; each that is settled makes room
for another. Settling does not wait: what is settled in one turn of the loop goes out as one message. Jobs
that are not settled when the connection ends, for whatever reason, are given back by the server.

Connecting again is the caller's affair: a broken connection ends the iteration with `ServerNotReached`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Any, Self, cast
from urllib.parse import quote, urlsplit

from presque import frames
from presque.client.errors import ClientError, NotAllowed, ServerNotReached

MESSAGE_MOST = 16 * 1024 * 1024
CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class ConsumedJob:
    """A job that is held until it is settled, or until `lease_until` (RFC 3339)."""

    queue: str
    id: str
    value: Any
    attempt: int
    max_attempts: int
    lease: str
    lease_until: str
    _consumer: Consumer

    def ack(self, result: Any = None) -> None:
        """The job is done."""
        self._settle("ack", {} if result is None else {"result": result})

    def fail(self, error: str = "", *, retry: bool = True, retry_in: float | None = None) -> None:
        """The job did not work: it is tried again later (after `retry_in` seconds), or is dead."""
        fields: dict[str, Any] = {"error": error, "retry": retry}
        self._settle("fail", fields if retry_in is None else fields | {"retry_in": retry_in})

    def release(self, delay: float = 0) -> None:
        """Give the job back; that is no failure."""
        self._settle("release", {"delay": delay} if delay else {})

    def extend(self, seconds: float | None = None) -> None:
        """Hold the job for so many seconds from now; as long as at first unless given."""
        self._settle("extend", {} if seconds is None else {"seconds": seconds})

    def _settle(self, verb: str, fields: dict[str, Any]) -> None:
        self._consumer.send({"cmd": verb, "queue": self.queue, "id": self.id, "lease": self.lease, **fields})


def consume(
    base_url: str,
    queues: str,
    *,
    credit: int = 1,
    seconds: float | None = None,
    worker: str | None = None,
    token: str | None = None,
) -> Consumer:
    """Consume a queue list. `seconds` is how long each job is held, else the queue's policy says so."""
    return Consumer(base_url, queues, credit, seconds, worker, token)


class Consumer:
    """One connection: an asynchronous context manager and iterator of `ConsumedJob`s.

    `lost` holds what the server said of jobs that could not be settled, such as a lease that had ended; the
    last 1000.
    """

    def __init__(
        self,
        base_url: str,
        queues: str,
        credit: int,
        seconds: float | None,
        worker: str | None,
        token: str | None,
    ) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("a server URL looks like http://host:port")
        self._tls = url.scheme == "https"
        self._host, self._port = url.hostname, url.port or (443 if self._tls else 80)
        self._netloc = url.netloc
        self._path = f"{url.path.rstrip('/')}/ws/{quote(queues, safe=',*!:@~+')}"
        self._grant: dict[str, Any] = {"cmd": "lease", "queue": queues, "count": credit, "ref": "lease"}
        if seconds is not None:
            self._grant["seconds"] = seconds
        self._headers = {"X-presque-workerid": worker} if worker is not None else {}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._jobs: deque[ConsumedJob] = deque()
        self._arrived = asyncio.Event()
        self._unsent: list[dict[str, Any]] = []
        self._ended: Exception | None = None
        self._protocol: _Protocol | None = None
        self.lost: deque[dict[str, Any]] = deque(maxlen=1000)

    async def __aenter__(self) -> Self:
        """Connect. Raises `ServerNotReached`, or another `ClientError` when the server refuses."""
        loop = asyncio.get_running_loop()
        context = ssl.create_default_context() if self._tls else None
        protocol = _Protocol(self)
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(lambda: protocol, self._host, self._port, ssl=context)
                await protocol.shake_hands(self._netloc, self._path, self._headers)
        except (OSError, TimeoutError) as error:
            protocol.abort()
            raise ServerNotReached(f"no server at {self._netloc}: {error}", sent=False) from error
        except BaseException:
            protocol.abort()
            raise
        self._protocol = protocol
        self.send(self._grant)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Say goodbye. The server gives back what was not settled."""
        if self._protocol is not None:
            self._flush()
            await self._protocol.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ConsumedJob:
        while not self._jobs:
            if self._ended is not None:
                raise self._ended
            self._arrived.clear()
            await self._arrived.wait()
        return self._jobs.popleft()

    def send(self, command: dict[str, Any]) -> None:
        """Send a command at the end of this turn, together with what else is to be sent."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(command)

    def receive(self, message: bytes) -> None:
        """A message of the server has come."""
        found = json.loads(message)
        if found.get("event") == "job":
            self._jobs.append(
                ConsumedJob(
                    found["queue"], found["id"], found["body"], found["attempt"], found["max_attempts"],
                    found["lease"], found["lease_until"], self,
                )
            )  # fmt: skip
            self._arrived.set()
        elif found.get("ref") == "lease" and "error" in found:
            self.end(ClientError(found["error"], code=found["code"]))
        elif "error" in found or found.get("cancel"):
            self.lost.append(found)

    def end(self, error: Exception) -> None:
        """No more jobs come, and why. Those that have come are still handed out."""
        if self._ended is None:
            self._ended = error
        self._arrived.set()

    def _flush(self) -> None:
        commands, self._unsent = self._unsent, []
        if commands and self._protocol is not None and self._ended is None:
            text = json.dumps(commands, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            self._protocol.send(frames.TEXT, text.encode())


class _Protocol(asyncio.Protocol):
    """The client's side of the socket."""

    def __init__(self, consumer: Consumer) -> None:
        loop = asyncio.get_running_loop()
        self._consumer = consumer
        self._reader = frames.Reader(masked=False, most=MESSAGE_MOST)
        self._head = bytearray()
        self._answered: asyncio.Future[bytes] | None = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        gone = ServerNotReached("the server has gone; what was not settled is given back", sent=True)
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(gone)
        self._consumer.end(gone)
        if not self._gone.done():
            self._gone.set_result(None)

    async def shake_hands(self, netloc: str, path: str, headers: dict[str, str]) -> None:
        """Ask for the upgrade. Raises `ClientError` when the server has something else in mind."""
        key = base64.b64encode(os.urandom(16)).decode()
        asked = {
            "Host": netloc, "Upgrade": "websocket", "Connection": "Upgrade",
            "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13", **headers,
        }  # fmt: skip
        lines = "".join(f"{name}: {value}\r\n" for name, value in asked.items())
        assert self._transport is not None
        assert self._answered is not None
        self._transport.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
        head = (await self._answered).decode("latin-1")
        start, *rest = head.split("\r\n")
        found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        status = int(start.split(" ")[1]) if start.startswith("HTTP/1.") else 0
        if status != 101 or found.get("sec-websocket-accept") != frames.accept(key):
            kind = NotAllowed if status in (401, 403) else ClientError
            raise kind(f"the server refused a WebSocket: {start}", status=status)

    def data_received(self, data: bytes) -> None:
        if self._answered is not None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self._answered.set_result(bytes(self._head[:end]))
            self._answered = None
            data = bytes(self._head[end + 4 :])
        try:
            for message in self._reader.feed(data):
                self._message(message)
        except frames.FrameError as error:
            self._consumer.end(ClientError(f"the server broke the protocol: {error}"))
            self.abort()

    def _message(self, message: frames.Message) -> None:
        if message.opcode == frames.TEXT:
            self._consumer.receive(message.payload)
        elif message.opcode == frames.PING:
            self.send(frames.PONG, message.payload)
        elif message.opcode == frames.CLOSE:
            self.send(frames.CLOSE, message.payload[:2])
            if self._transport is not None:
                self._transport.close()

    def send(self, opcode: int, payload: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames.frame(opcode, payload, os.urandom(4)))

    async def close(self) -> None:
        """Close politely, and wait a moment for the server to do so."""
        self.send(frames.CLOSE, frames.close(frames.NORMAL))
        await asyncio.wait((self._gone,), timeout=2)
        self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
