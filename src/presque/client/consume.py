"""Consume queues over one WebSocket, on asyncio.

    async with consume("http://127.0.0.1:5000", "video,*", credit=10) as jobs:
        async for job in jobs:
            work(job.value)
            job.ack()

Jobs come as soon as they are there, `credit` of them at most at any time; each that is settled makes room
for another. Settling does not wait: what is settled in one turn of the loop goes out as one message. Jobs
that are not settled when the connection ends, for whatever reason, are given back by the server.

Connecting again is the caller's affair: a broken connection ends the iteration with `ServerNotReached`. So
does a server that breaks the protocol, or sends more than was granted, with a `ClientError`.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Self, cast
from urllib.parse import quote

from presque import frames
from presque.client import exchange
from presque.client.address import server, token_of
from presque.client.call import Answer, Call, seconds_of
from presque.client.errors import ClientError, ServerNotReached, one_line, refusal
from presque.client.exchange import HEAD_MOST, AnswerReader, Broken, Request
from presque.client.json_values import decoded, encoded
from presque.client.options import Duration
from presque.client.shapes import shaped
from presque.client.trust import context_for

MESSAGE_MOST = 16 * 1024 * 1024
REFUSAL_MOST = 64 * 1024
UNSENT_MOST = 16 * 1024 * 1024
CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class ConsumedJob:
    """A job that is held until it is settled, or until `lease_until` (RFC 3339).

    `saved` is what an earlier attempt has left, None if there is nothing.
    """

    queue: str
    id: str
    value: Any
    attempt: int
    max_attempts: int
    lease: str
    lease_until: str
    saved: Any
    _consumer: Consumer

    def ack(self, result: Any = None, progress: Any = None) -> None:
        """The job is done."""
        self._settle("ack", result=result, progress=progress)

    def fail(
        self,
        error: str = "",
        *,
        retry: bool = True,
        retry_in: Duration | None = None,
        progress: Any = None,
        saved: Any = None,
    ) -> None:
        """The job failed: it is retried later (after `retry_in` seconds), or dead after its last attempt."""
        wait = None if retry_in is None else seconds_of("retry_in", retry_in)
        self._settle("fail", error=error, retry=retry, retry_in=wait, progress=progress, saved=saved)

    def release(self, delay: Duration = 0, *, progress: Any = None, saved: Any = None) -> None:
        """Give the job back; this is not a failure."""
        wait = seconds_of("delay", delay) if delay else None
        self._settle("release", delay=wait, progress=progress, saved=saved)

    def extend(self, seconds: Duration | None = None, progress: Any = None, saved: Any = None) -> None:
        """Extend the lease to this many seconds from now; by default to its first length."""
        for_s = None if seconds is None else seconds_of("seconds", seconds)
        self._settle("extend", seconds=for_s, progress=progress, saved=saved)

    def _settle(self, verb: str, **fields: Any) -> None:
        given = {name: value for name, value in fields.items() if value is not None}
        self._consumer.send({"cmd": verb, "queue": self.queue, "id": self.id, "lease": self.lease, **given})


def consume(
    base_url: str | None,
    queues: str,
    *,
    credit: int = 1,
    seconds: Duration | None = None,
    worker: str | None = None,
    token: str | None = None,
    timeout: Duration = CONNECT_S,
) -> Consumer:
    """Consume a queue list. `seconds` is how long each job is held, else the queue's policy says so.

    Server and token come from the environment if they are None, as for a client. `timeout` is how long
    connecting may take.
    """
    return Consumer(base_url, queues, credit, seconds, worker, token, timeout)


class Consumer:
    """One connection: an asynchronous context manager and iterator of `ConsumedJob`s.

    `lost` holds what the server said of jobs that could not be settled, such as a lease that had ended; the
    last 1000.
    """

    def __init__(
        self,
        base_url: str | None,
        queues: str,
        credit: int,
        seconds: Duration | None,
        worker: str | None,
        token: str | None,
        timeout: Duration = CONNECT_S,
    ) -> None:
        self._address = server(base_url)
        self._timeout = seconds_of("timeout", timeout) or CONNECT_S
        self._credit = credit
        self._call: Call[None] = Call(
            "GET", f"/ws/{quote(queues, safe=',*!:@~+')}", lambda _: None,
            headers={} if worker is None else {"X-presque-workerid": worker}, reads=True,
        )  # fmt: skip
        self._context = context_for(self._address)
        self._request = Request(self._address, token_of(token))
        self._grant: dict[str, Any] = {"cmd": "lease", "queue": queues, "count": credit, "ref": "lease"}
        if seconds is not None:
            self._grant["seconds"] = seconds_of("seconds", seconds)
        self._jobs: deque[ConsumedJob] = deque()
        self._arrived = asyncio.Event()
        self._unsent: list[dict[str, Any]] = []
        self._ended: Exception | None = None
        self._protocol: _Protocol | None = None
        self.lost: deque[dict[str, Any]] = deque(maxlen=1000)

    async def __aenter__(self) -> Self:
        """Connect. Raises `ServerNotReached`, or another `ClientError` when the server refuses."""
        url, loop = self._address.url, asyncio.get_running_loop()
        protocol = _Protocol(self)
        connected = False
        try:
            async with asyncio.timeout(self._timeout):
                await loop.create_connection(
                    lambda: protocol, self._address.host, self._address.port, ssl=self._context
                )
                connected = True
                await protocol.shake_hands(self._request, self._call)
        except (OSError, Broken) as error:
            protocol.abort()
            if connected:
                raise exchange.lost(url, error, self._timeout, self._call, sent=True) from error
            raise exchange.not_connected(url, error, self._timeout) from error
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
        """A message of the server has come. Raises `ValueError` or `LookupError` if it is not one."""
        found = shaped(dict, decoded(message))
        if found.get("event") == "job":
            if len(self._jobs) >= self._credit:
                raise ValueError("there are more jobs than were granted")
            job = ConsumedJob(
                found["queue"], found["id"], found["body"], found["attempt"], found["max_attempts"],
                found["lease"], found["lease_until"], found.get("saved"), self,
            )  # fmt: skip
            shaped(list[str], [job.queue, job.id, job.lease, job.lease_until])
            shaped(list[int], [job.attempt, job.max_attempts])
            self._jobs.append(job)
            self._arrived.set()
        elif found.get("ref") == "lease" and "error" in found:
            self.end(ClientError(shaped(str, found["error"]), code=shaped(str, found.get("code", "error"))))
        elif "error" in found or found.get("cancel"):
            self.lost.append(
                {
                    name: one_line(value) if isinstance(value, str) else value
                    for name, value in found.items()
                    if isinstance(value, str | int | float | None)
                }
            )

    def end(self, error: Exception) -> None:
        """No more jobs come, and why. Those that have come are still handed out."""
        if self._ended is None:
            self._ended = error
        self._arrived.set()

    def _flush(self) -> None:
        commands, self._unsent = self._unsent, []
        if commands and self._protocol is not None and self._ended is None:
            self._protocol.send(frames.TEXT, encoded(commands).encode())


class _Protocol(asyncio.Protocol):
    """The client's side of the socket."""

    def __init__(self, consumer: Consumer) -> None:
        loop = asyncio.get_running_loop()
        self._consumer = consumer
        self._frames = frames.Reader(masked=False, most=MESSAGE_MOST)
        self._head = bytearray()
        self._refusal: AnswerReader | None = None
        self._answered: asyncio.Future[bytes | Answer] | None = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            try:
                self._answered.set_result((self._refusal or AnswerReader()).end())
            except Broken as error:
                self._answered.set_exception(error)
        self._consumer.end(
            ServerNotReached(
                "the server closed the connection; what was not settled is given back", sent=True
            )
        )
        if not self._gone.done():
            self._gone.set_result(None)

    async def shake_hands(self, request: Request, call: Call[None]) -> None:
        """Ask for the upgrade. Raises `ClientError` when the server has something else in mind."""
        key = base64.b64encode(os.urandom(16)).decode()
        headers = {
            "Upgrade": "websocket", "Connection": "Upgrade",
            "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13", **(call.headers or {}),
        }  # fmt: skip
        assert self._transport is not None
        assert self._answered is not None
        self._transport.write(request.of(replace(call, headers=headers)))
        answer = await self._answered
        if isinstance(answer, Answer):
            raise refusal(answer.status, answer.body, answer.headers)
        lines = (line.partition(":") for line in answer.decode("latin-1").split("\r\n")[1:])
        found = {name.lower(): value.strip() for name, _, value in lines}
        if found.get("sec-websocket-accept") != frames.accept(key):
            raise ClientError("the server has upgraded to something that is not this WebSocket", status=101)

    def data_received(self, data: bytes) -> None:
        if self._answered is not None:
            rest = self._read_head(data)
            if rest is None:
                return
            self._answered = None
            data = rest
        try:
            for message in self._frames.feed(data):
                self._message(message)
        except frames.FrameError as error:
            self._give_up(f"the server broke the protocol: {error}")
        except (ValueError, LookupError, TypeError, RecursionError):
            self._give_up("the server sent a message that cannot be read: is it a presque?")

    def _read_head(self, data: bytes) -> bytes | None:
        """Take in the answer to the handshake. Returns what follows a head that agrees, else None."""
        assert self._answered is not None
        if self._answered.done():
            return None
        self._head += data
        if self._refusal is None:
            if b"HTTP/1.1 101 ".startswith(bytes(self._head[:13])):
                end = self._head.find(b"\r\n\r\n")
                if end >= 0:
                    self._answered.set_result(bytes(self._head[:end]))
                    return bytes(self._head[end + 4 :])
                if len(self._head) > HEAD_MOST:
                    self._answered.set_exception(Broken(f"its head is longer than {HEAD_MOST} bytes"))
                return None
            self._refusal, data = AnswerReader(REFUSAL_MOST), bytes(self._head)
        try:
            answer = self._refusal.feed(data)
        except Broken as error:
            self._answered.set_exception(error)
        else:
            if answer is not None:
                self._answered.set_result(answer)
        return None

    def _message(self, message: frames.Message) -> None:
        if message.opcode == frames.TEXT:
            self._consumer.receive(message.payload)
        elif message.opcode == frames.PING:
            self.send(frames.PONG, message.payload)
        elif message.opcode == frames.CLOSE:
            self.send(frames.CLOSE, message.payload[:2])
            if self._transport is not None:
                self._transport.close()

    def _give_up(self, text: str) -> None:
        self._consumer.end(ClientError(text, code="unreadable-answer"))
        self.abort()

    def send(self, opcode: int, payload: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > UNSENT_MOST:
            self._give_up("the server does not read what it is sent")
            return
        self._transport.write(frames.frame(opcode, payload, os.urandom(4)))

    async def close(self) -> None:
        """Close politely, and wait a moment for the server to do so."""
        self.send(frames.CLOSE, frames.close(frames.NORMAL))
        await asyncio.wait((self._gone,), timeout=2)
        self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
