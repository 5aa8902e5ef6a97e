"""One connection of a client: bytes in, requests out, answers in their order.

Theory of operation. Bytes are cut into requests here, one request of a connection at a time, so pipelined
ones are answered in order. What is cut off has a head and a body within bounds and came before its deadline.
What a head asks for is worked out by the planner (routes.py) as a `Plan`, and the plan serves the request. A
connection knows `Plan.serve` and no verb; a plan knows how to answer and nothing of bytes on the way in.

A client that keeps its connection sends the same head again and again. So a head that was understood once is
remembered with all that follows from it, and costs one dictionary look-up from then on instead of a parse
(bench/push_http.py). What follows from a head depends on nothing but its bytes and the settings, so the short
cut cannot differ from the long way. Most often a connection repeats the head of the request before. While
nothing but the next request can follow an answer, that head is `_usual`, and a request that has it skips what
others need. Whatever changes this sets `_usual` to None: the long way is always right.

Gone is cancelled. A request that cannot be answered at once leaves behind how to cancel it (`until_left`):
the place of a waiter, or a task. The end of the connection cancels it, whatever it is and however the
connection ends. A client that only closes its sending side still gets its answer, unless it waits: one that
waits for a job must not be given one when it may be gone, and the two cannot be told apart.

Where a connection stands is one `State`, and `NEXT` says what may follow. Two facts stand beside it: whether
the connection is kept after the current answer, and whether the client has closed its sending side.
"""

from __future__ import annotations

import abc
import asyncio
import functools
import logging
import re
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from enum import IntEnum
from ipaddress import ip_address
from time import perf_counter
from typing import Any, Protocol, cast

import msgspec

from presque.errors import OurFault, PresqueError, Refused
from presque.http import answers, problems
from presque.http import head as heads
from presque.http.answers import CLOSE, Answer
from presque.http.chunked import Framing
from presque.http.door import BODY_FREE_BYTES, Door, Upgraded
from presque.http.head import BadHead, Head
from presque.http.parts import Parts
from presque.http.problems import Stopping, TooMany
from presque.http.proxies import Client, neighbourhood, normal
from presque.http.tallies import Tally

log = logging.getLogger("presque.http")

LINGER_S = 2.0
TURNED_AWAY_MOST = 1000  # connections beyond the limit that get an answer; further ones are just closed
SLOW_S = 1.0
REQUEST_ID_MOST = 128
VISIBLE = re.compile(r"[!-~]+").fullmatch
READ_LEAST_BYTES = 64 * 1024  # what a client takes of an answer in `limits.unread`
REMEMBERED_MOST = 4096
REMEMBERED_BYTES_MOST = 2048
PIPELINED_BYTES_MOST = 64 * 1024
HEAD_METHOD, LINE_ENDS = b"HEAD ", b"\r\n"
SPARING_BYTES = 2048  # what the socket of a sparing answer holds; Linux doubles it and has a least of its own
ROOMY_BYTES = 1024 * 1024  # what it holds of a large part, all but its end; Linux has a most of its own
LARGE_PART_BYTES = 16 * 1024


class State(IntEnum):
    """Where a connection stands."""

    IDLE = 1  # nothing of the next request has come
    HEAD = 2  # a part of a head has come
    BODY = 3  # the head is understood, its body has not come whole
    STARTING = 4  # the plan is at work; it may answer before it returns
    SERVING = 5  # an answer is owed
    RECEIVING = 6  # the plan takes the body as it comes
    STREAMING = 7  # the head of an answer without a known end is written
    HELD = 8  # answered, but the client reads so slowly that the next request has to wait
    REFUSED = 9  # refused; what still comes is thrown away for a moment
    CLOSING = 10  # the last answer is on its way
    LOST = 11  # the connection has ended, or speaks another protocol


IDLE, HEAD, BODY, STARTING, SERVING, RECEIVING, STREAMING, HELD, REFUSED, CLOSING, LOST = State

NEXT: dict[State, frozenset[State]] = {
    IDLE: frozenset({HEAD, STARTING, REFUSED, CLOSING, LOST}),
    HEAD: frozenset({IDLE, BODY, STARTING, RECEIVING, REFUSED, CLOSING, LOST}),
    BODY: frozenset({STARTING, RECEIVING, REFUSED, CLOSING, LOST}),
    STARTING: frozenset({SERVING, IDLE, HEAD, HELD, CLOSING, LOST}),
    SERVING: frozenset({STREAMING, IDLE, HEAD, HELD, CLOSING, LOST}),
    RECEIVING: frozenset({SERVING, REFUSED, CLOSING, LOST}),
    STREAMING: frozenset({IDLE, HEAD, HELD, CLOSING, LOST}),
    HELD: frozenset({IDLE, HEAD, CLOSING, LOST}),
    REFUSED: frozenset({CLOSING, LOST}),
    CLOSING: frozenset({LOST}),
    LOST: frozenset(),
}

READING = (IDLE, HEAD, BODY)  # a request may be cut off
OWING = (STARTING, SERVING, RECEIVING)  # an answer is owed and not begun
UNDER_WAY = (*OWING, STREAMING)  # a request is counted


class Plan(Protocol):
    """What to do with a request, worked out from its head."""

    @property
    def common(self) -> bool:
        """Whether other requests may have the same head."""

    def serve(self, connection: Connection, body: bytes) -> None:
        """Carry the request out: answer it, or see to it that it will be answered.

        A `PresqueError` that it raises is the answer; any other exception is answered with 500.
        """


class Upload(abc.ABC):
    """A plan that takes the body of its request as it comes, whatever its length."""

    common = True
    hurried = False
    """Whether all of the body has to come within `limits.body`, instead of each part after the one before."""

    def serve(self, connection: Connection, _body: bytes) -> None:
        """Never called: a body that is taken part by part is not there whole."""
        raise NotImplementedError

    @abc.abstractmethod
    async def receive(self, connection: Connection, parts: Parts) -> None:
        """Read the parts and answer. An answer before the last part ends the connection."""


class Asking(Protocol):
    """A plan that asks the engine for something and answers when that is there."""

    def take(self, connection: Connection, found: Any) -> bool:
        """Answer with what the engine has found, or with the `PresqueError` it has. Returns False if the
        client has disconnected."""


class Namespace(Protocol):
    """Counts the connections of those who ask in it."""

    def enter(self) -> None:
        """Count one. Raises `PresqueError` if it is one too many."""

    def leave(self) -> None:
        """One has ended."""


class Planner(Protocol):
    """Works out what a head asks for."""

    def __call__(self, head: Head, client: Client, /) -> Plan:
        """The plan of a request from this client. A `PresqueError` that it raises is the answer."""

    def cors(self, head: Head) -> bytes:
        """Lines for the head of each answer to this request."""

    def namespace(self, plan: Plan) -> Namespace | None:
        """In which namespace a plan is carried out, None for the server's own."""

    def body_most(self, plan: Plan) -> int:
        """How many bytes the body of a request with this plan may have."""

    def name(self, plan: Plan) -> str:
        """What answers of this plan are counted as."""


class Understood:
    """A head, and what follows from it."""

    __slots__ = (
        "body_at", "body_most", "chunked", "classic", "client", "close", "continues", "cors", "length",
        "method", "namespace", "plan", "raw", "request_id", "route", "short_cut", "size", "tally", "upload",
        "version_1_0",
    )  # fmt: skip

    def __init__(
        self,
        raw: bytes,
        head: Head,
        plan: Plan,
        cors: bytes,
        client: Client,
        namespace: Namespace | None,
        tally: Tally,
        body_most: int,
    ) -> None:
        self.namespace = namespace
        self.body_most = body_most
        self.client = client
        self.tally = tally  # where its answers are counted
        self.request_id = request_id(head.headers)
        if self.request_id is not None:
            cors += b"X-Request-Id: %b\r\n" % self.request_id.encode()
        self.raw = raw  # the head, unchanged
        self.cors = cors  # further lines for the head of the answer
        self.body_at = len(raw)
        self.size = len(raw) + head.length  # of the whole request, unless it is chunked
        self.plan = plan
        self.method = head.method
        self.length = head.length
        self.chunked = head.chunked
        self.close = not head.keep_alive or head.upgrade
        self.continues = head.expects_continue
        self.version_1_0 = head.version == "1.0"
        self.route = "/" + head.path.split("/")[1] if head.path.startswith("/") else ""
        self.classic = problems.is_classic(head.path)  # how its errors are written
        self.upload = isinstance(plan, Upload)
        self.short_cut = False  # it is remembered, and `size` says where its request ends


class _Refusal:
    """The plan of a request that is wrong in a way that its head already shows."""

    common = True

    def __init__(self, error: PresqueError) -> None:
        self.error = error

    def serve(self, connection: Connection, _body: bytes) -> None:
        connection.answer_error(self.error)


class _RefusedBody(Upload):
    """The same where the body is large. Nothing is kept of it, so that who is refused takes no room from
    others; it is read, since a client may look for its answer only then."""

    hurried = True

    def __init__(self, error: PresqueError, most: int) -> None:
        self.error = error
        self._most = most

    async def receive(self, connection: Connection, parts: Parts) -> None:
        left = self._most
        async for part in parts:
            left -= len(part)
            del part  # while the next one is awaited
            if left < 0:
                break
        connection.answer_error(self.error)


class _Broken:
    """The plan of a request that could not even be looked at."""

    common = False

    def __init__(self, error: Exception) -> None:
        self._error = error

    def serve(self, _connection: Connection, _body: bytes) -> None:
        raise self._error


class Connection(asyncio.Protocol):
    """One connection of a client."""

    __slots__ = (
        "_awaited", "_began", "_body_at", "_buffer", "_cancel", "_counted", "_deaf", "_drained", "_ended",
        "_framing", "_holds", "_known", "_left", "_namespace", "_parts", "_proxied", "_requesting", "_served",
        "_stuck", "_unread", "_usual", "_waits", "asking", "closing", "deadline", "direct", "door", "pinned",
        "state", "transport",
    )  # fmt: skip

    def __init__(self, door: Door) -> None:
        self.door = door
        self.state = IDLE
        self.deadline = 0.0  # when to give up on what the client owes us; 0, or nothing, while we owe it
        self.transport: asyncio.Transport
        self._buffer = bytearray()  # what has come of the next request, and what was pipelined behind it
        self._usual: Understood | None = None  # of the request before, which the next one may repeat
        self._awaited: Understood | None = None  # of the request whose body is awaited
        self._served: Understood  # of the request that is being served
        self.asking: Asking  # its plan, where `take` gets what the plan has asked for
        self._began = 0.0  # when it was there whole, and those before it were answered
        self._body_at = 0
        self._framing: Framing | None = None
        self._parts: Parts | None = None  # of a body that is taken as it comes
        self._left = 0  # how many bytes of it are to come, unless it is chunked
        self.closing = b""  # the header that says so if the connection ends after the current answer
        self._ended = False  # the client has said that it sends nothing more
        self._stuck = False  # the client does not read
        self._deaf = False  # nothing is read from the client
        self._cancel: Callable[[], object] | None = None  # what the end of the connection cancels
        self._waits: Callable[[], bool] | None = None
        self._drained: asyncio.Future[None] | None = None
        self.direct: Client  # at the other end of the connection, which may be a proxy
        self._proxied = False  # it is a proxy, and what it says of its clients is believed
        self._known: dict[bytes, Understood]  # the heads that were understood before
        self._counted = ""  # the address that this connection is counted for, if for any
        self._namespace: Namespace | None = None  # in which this connection is counted
        self._requesting = ""  # the address that its request is counted for
        self._holds = 0  # bytes of its request that are counted
        self._unread = 0  # bytes that the client had not taken when we looked
        self.pinned = 0  # bytes of its answer that are counted

    # --- the connection -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.door.connections.add(self)
        peer = transport.get_extra_info("peername")
        address = normal(str(peer[0])) if isinstance(peer, tuple) else None
        self.direct = Client(address or "", transport.get_extra_info("ssl_object") is not None)
        self._proxied = self.door.proxies.trusts(self.direct.address)
        self._known = self.door.understood(proxy=self._proxy)
        local = address is None or self._proxied or ip_address(address).is_loopback
        counted = "" if local or address is None else neighbourhood(address)
        too_many = self.door.full(counted)
        self.deadline = self.door.now + self.door.limits.head
        if too_many is None:
            self._counted = counted
            self.door.enter(counted)
        else:
            self._turn_away(too_many)

    def greeted(self, names: tuple[str, ...]) -> None:
        """The client has spoken TLS, and shown a certificate with these names, if any."""
        if names:
            self.direct = msgspec.structs.replace(self.direct, names=names)
            self._known = self.door.understood(proxy=self._proxy, names=names)

    def _turn_away(self, error: TooMany) -> None:
        """Tell a client that its connection is one too many, and end it."""
        self.door.tell_turned_away(error, self.direct.address)
        most = self.door.limits.connections
        if most and len(self.door.connections) + len(self.door.upgraded) > most + TURNED_AWAY_MOST:
            self._go(CLOSING)
            self.transport.abort()
        else:
            self._refuse(error)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.state in UNDER_WAY:
            self._end_request()
        if self.state is not LOST:
            self._go(LOST)
        self._release()
        self.unpin()
        self.door.leave(self._counted)
        if self._namespace is not None:
            self._enter(None)
        self.deadline = 0.0
        self._buffer.clear()
        self._leave()
        self._wake()
        self.door.connections.discard(self)
        self.door.ended()

    def eof_received(self) -> bool:
        """The client sends nothing more. If we owe it an answer it may still be there to read it, but a
        client that waits for a job counts as gone: it must not be given one."""
        if self.state is HELD or (
            self.state in (STARTING, SERVING) and not (self._waits is not None and self._waits())
        ):
            self._ended = True
            self._usual = None
            return True
        if self.state in UNDER_WAY:
            self._end_request()
        if self.state is not CLOSING:
            self._go(CLOSING)
        self._buffer.clear()
        self._leave()
        return False

    def shutdown(self) -> None:
        """The server is stopping: close once the current request, if any, is answered."""
        self.closing = CLOSE
        self._usual = None
        if self.state in READING or self.state is HELD:
            self._close()
        elif self.state is STREAMING:
            self._leave()
        elif self.state is RECEIVING and self._parts is not None:
            self._parts.put(b"", error=Stopping())

    def forget(self) -> None:
        """Parse the next head again. This connection may be the last to remember the old plan."""
        self._usual = None
        self._known.clear()

    def reconsider(self) -> None:
        """What was understood may be wrong by now: see `Door.reconsider`."""
        if self._awaited is not None:
            self._awaited = self._understand(self._awaited.raw)
            return
        waits = self.state is SERVING and self._waits is not None and self._waits()
        if not waits and self.state not in (RECEIVING, STREAMING):
            return
        known = self._served = self._known.get(self._served.raw) or self._understand(self._served.raw)
        error = known.plan.error if isinstance(known.plan, _Refusal | _RefusedBody) else None
        if not isinstance(error, Refused):
            return
        if self.state is RECEIVING and self._parts is not None:
            self._parts.put(b"", error=error)
        elif self.state is STREAMING:
            self.closing = CLOSE
            self._leave()
        else:
            self._leave()
            self.answer_error(error)

    def time_is_up(self) -> None:
        """The client did not send in time what it began, was silent for too long, or does not read."""
        if self.state in (STARTING, SERVING):  # the deadline was for its request, which is here
            self.deadline = 0.0
        elif self.state in (HEAD, BODY) and not self.transport.get_write_buffer_size():
            part = "head" if self.state is HEAD else "body"
            self._refuse(BadHead(f"the {part} of the request did not arrive in time", 408))
        elif self.state is RECEIVING and self._parts is not None:
            self._parts.put(b"", error=BadHead("the body of the request did not arrive in time", 408))
            self.deadline = 0.0
        elif self.state is IDLE and not self.transport.get_write_buffer_size():
            self._close()
        elif self.state in (HELD, STREAMING) and self._takes():
            self.deadline = self.door.now + self.door.limits.unread
        else:
            self.transport.abort()

    def _takes(self) -> bool:
        """Whether the client has taken enough of its answer since we looked before."""
        left = self.transport.get_write_buffer_size()
        taken, self._unread = self._unread - left, left
        return taken >= READ_LEAST_BYTES

    def unpin(self) -> None:
        """The client has taken its answer, or will not."""
        if self.door.stuck.pop(self, None) is not None:
            self.door.pinned -= self.pinned
            self.pinned = 0

    def pause_writing(self) -> None:
        self._stuck = True
        self._usual = None
        self._unread = self.transport.get_write_buffer_size()
        self.unpin()
        self.pinned = self._unread
        self.door.pin(self, self.pinned)
        if self.state is STREAMING:
            self.deadline = self.door.now + self.door.limits.unread

    def resume_writing(self) -> None:
        self._stuck = False
        self.unpin()
        if self.state is STREAMING:
            self.deadline = 0.0
        self._wake()
        if self.state is HELD:
            self._began = perf_counter()
            self._go_on()

    def _go(self, state: State) -> None:
        assert state in NEXT[self.state], f"{self.state!r} -> {state!r}"
        self.state = state

    def _close(self) -> None:
        """Close once all that was written has been sent."""
        self._go(CLOSING)
        self.deadline = self.door.idle_until
        self._buffer.clear()
        self.transport.close()

    def _leave(self) -> None:
        """The client has disconnected: cancel what it has asked for."""
        cancel, self._cancel, self._waits = self._cancel, None, None
        if cancel is not None:
            cancel()

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- from bytes to requests -----------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.state is IDLE:
            # The usual case first, as a short cut: all of one request whose head is known, and no more.
            known = self._usual
            if known is None or not data.startswith(known.raw):
                known = self._known.get(data[: data.find(b"\r\n\r\n") + 4])
            if known is not None and known.short_cut and len(data) == known.size:
                self._began = perf_counter()
                self._serve(known, data[known.body_at :])
                return
            self._go(HEAD)
            self.deadline = min(self.deadline, self.door.now + self.door.limits.head)
        elif self.state in (REFUSED, CLOSING, LOST):
            return
        self._buffer += data
        if self.state in READING:
            self._began = perf_counter()
            self._advance()
        elif self.state is RECEIVING:
            self._receive()
        elif len(self._buffer) > PIPELINED_BYTES_MOST:
            self._listen(False)

    def _advance(self) -> None:
        """Serve the requests that have arrived whole, one after the other."""
        try:
            while self._buffer and not self.transport.is_closing() and self._serve_next():
                if self.state is not HEAD:  # it is not answered yet, or nothing is left
                    break
        except (BadHead, TooMany) as error:
            self._refuse(error)
            return
        if self.state is not SERVING and self.state in READING:
            if self._ended:
                self._close()
            else:
                self._listen(True)
        elif self._deaf and len(self._buffer) <= PIPELINED_BYTES_MOST:
            self._listen(True)

    def _listen(self, wanted: bool) -> None:
        """Read from the client, or let what it sends wait in the socket."""
        if self._deaf is not wanted or self.transport.is_closing():
            return
        self._deaf = not wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _serve_next(self) -> bool:
        """Cut the next request off the buffer and serve it; False if a part of it is still to come."""
        buffer, known = self._buffer, self._usual
        # The same short cut as in `data_received`, for requests that were pipelined.
        if (
            known is not None
            and len(buffer) >= known.size
            and buffer.startswith(known.raw)
            and self._awaited is None
        ):
            body = bytes(buffer[known.body_at : known.size])
            del buffer[: known.size]
            self._serve(known, body)
            return True
        known = self._awaited or self._next_head()
        if known is None:
            return False
        start = self._body_at
        if known.upload:
            self._begin_upload(known)
            return True
        if known.chunked:
            if self._framing is None:
                self._framing = Framing(start)
            if not self._framing.advance(buffer, known.body_most):
                return self._await_body(known)
            end, body = cast(int, self._framing.end), bytes(self._framing.body)
            self._framing = None
        else:
            end = start + known.length
            if len(buffer) < end:
                return self._await_body(known)
            body = bytes(buffer[start:end])
        del buffer[:end]
        self._awaited = None
        self._serve(known, body)
        return True

    def _begin_upload(self, known: Understood) -> None:
        plan = cast(Upload, known.plan)
        del self._buffer[: self._body_at]
        self._awaited = None
        self._release()
        self._served = known
        self._go(RECEIVING)
        self.door.under_way += 1
        try:
            self._admit(known)
        except PresqueError as error:
            self.answer_error(error)
            return
        self._left = known.length
        self.deadline = 0.0
        self._framing = Framing(0) if known.chunked else None
        self._parts = Parts(self._receive_soon)
        if known.continues and not self._buffer:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.spawn(plan.receive(self, self._parts))
        self._receive()

    def _receive(self) -> None:
        """Hand what has come of a body to its plan."""
        parts, buffer = self._parts, self._buffer
        if self.state is not RECEIVING or parts is None:
            return
        if parts.cut_short:
            buffer.clear()
            return
        if parts.full:
            self.deadline = 0.0
            self._listen(False)
            return
        if self._framing is not None:
            try:
                part = self._framing.take(buffer)
            except BadHead as error:
                parts.put(b"", error=error)
                return
            ended = self._framing.end is not None
        else:
            part = bytes(buffer[: self._left])
            del buffer[: len(part)]
            self._left -= len(part)
            ended = not self._left
        if ended:
            self._go(SERVING)
            self._parts = self._framing = None
            self.deadline = 0.0
            self._listen(len(buffer) <= PIPELINED_BYTES_MOST)
        else:
            if not self.deadline or not cast(Upload, self._served.plan).hurried:
                self.deadline = self.door.now + self.door.limits.body
            self._listen(True)
        parts.put(part, ended=ended)

    def _receive_soon(self) -> None:
        """There is room for more of a body."""
        if self._deaf and self.state is RECEIVING:
            self.door.loop.call_soon(self._receive)

    def _serve(self, known: Understood, body: bytes) -> None:
        self.state = STARTING
        door = self.door
        door.under_way += 1
        try:
            if known is not self._usual or door.under_way > door.requests_most:
                self._admit(known)
            known.plan.serve(self, body)
        except PresqueError as error:
            self.answer_error(error)
        except Exception:  # noqa: BLE001  (the last resort)
            self.broken()
        if self.state is STARTING:
            self.state = SERVING

    def _admit(self, known: Understood) -> None:
        """Let a request begin that is counted already. Raises `TooMany`."""
        door = self.door
        self._served = known
        self._usual = None
        if known.close:
            self.closing = CLOSE
        if known.namespace is not self._namespace:
            self._enter(known.namespace)
        if door.under_way > door.requests_most:
            raise TooMany(
                f"this server has {door.requests_most} requests under way, the most that are allowed", 503
            )
        if self._proxied and known.client.address != self.direct.address:
            address = neighbourhood(known.client.address)
            too_many = door.crowded(address)
            if too_many is not None:
                raise too_many
            self._requesting = address
            door.enter(address)
        elif known.short_cut and not self._holds and not self._ended and not self.closing:
            self._usual = known

    def _enter(self, namespace: Namespace | None) -> None:
        """Count this connection in the namespace of its request. Raises `PresqueError` if it is one too
        many."""
        if self._namespace is not None:
            self._namespace.leave()
            self._namespace = None
        if namespace is not None:
            namespace.enter()
            self._namespace = namespace

    def _end_request(self) -> None:
        """A request that was counted is over."""
        self.door.under_way -= 1
        if self._requesting:
            self.door.leave(self._requesting)
            self._requesting = ""
        if self._holds:
            self._release()

    def _hold(self) -> None:
        """Count what has come of a body. Raises `TooMany` if there is too much of all of them."""
        size, before = len(self._buffer), self._holds
        self._holds = size
        self._usual = None
        if not self.door.hold(size, before):
            raise TooMany("this server is receiving as many bytes as it allows; try again later", 503)

    def _release(self) -> None:
        self.door.hold(0, self._holds)
        self._holds = 0

    def _next_head(self) -> Understood | None:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):
            del buffer[:2]  # RFC 9112, section 2.2
        if not buffer:
            self._go(IDLE)
            return None
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > heads.MOST_BYTES:
                raise BadHead(f"the head of the request is larger than {heads.MOST_BYTES} bytes", 431)
            if buffer.count(b"\n") != buffer.count(b"\r\n"):
                raise BadHead("the request cannot be read: its lines should end with CR LF")
            return None
        self._body_at = end + 4
        head = bytes(buffer[: end + 4])
        return self._known.get(head) or self._understand(head)

    def _await_body(self, known: Understood) -> bool:
        if self.state is HEAD:
            self._awaited = known
            self._go(BODY)
            self.deadline = self.door.now + self.door.limits.body
            if known.continues and len(self._buffer) == self._body_at:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._hold()
        return False

    def _understand(self, raw: bytes) -> Understood:
        """Parse a head and work out all that follows from it. Raises `BadHead` for one that cannot be
        trusted; any other error is the answer to the request, once its body is out of the way."""
        if len(raw) > heads.MOST_BYTES:
            raise BadHead(f"the head of the request is larger than {heads.MOST_BYTES} bytes", 431)
        head = heads.read(raw)
        plan: Plan
        client = self.direct
        try:
            if self._proxied:
                client = self.door.proxies.client(client, head.headers)
            plan = self.door.planner(head, client)
        except PresqueError as error:
            large = head.chunked or BODY_FREE_BYTES < head.length <= self.door.max_body
            plan = _RefusedBody(error, self.door.max_body) if large else _Refusal(error)
        except Exception as error:  # noqa: BLE001  (the last resort)
            plan = _Broken(error)
        planner = self.door.planner
        cors, most = planner.cors(head), planner.body_most(plan)
        if head.length > most and not isinstance(plan, Upload):
            raise BadHead(f"the body is larger than {most} bytes", 413, cors)
        tally = self.door.tallies.of(planner.name(plan))
        if self.door.traced is not None:
            tally = self.door.traced(tally, head)
        known = Understood(raw, head, plan, cors, client, planner.namespace(plan), tally, most)
        remembered = self._known
        if len(raw) <= REMEMBERED_BYTES_MOST and plan.common and not is_named(head.headers):
            if len(remembered) >= REMEMBERED_MOST:
                remembered.clear()
            remembered[raw] = known
            known.short_cut = not known.chunked and not known.close and not known.upload
        return known

    def _refuse(self, error: BadHead | TooMany) -> None:
        """Answer a request whose end cannot be known, then close. What the client still sends is read and
        thrown away for a moment, since a reset could destroy the answer on its way."""
        self._go(REFUSED)
        answer = answers.of_error(error, classic=True)
        message = answers.head(answer, self.door.date, close=True)
        if not self._buffer[: len(LINE_ENDS) + len(HEAD_METHOD)].lstrip(LINE_ENDS).startswith(HEAD_METHOD):
            message += cast(bytes, answer.body)
        self.door.unread.add(message[9:12], 0.0)
        cors = error.cors if isinstance(error, BadHead) else b""
        if self._awaited is not None:
            cors = self._awaited.cors
        self.transport.write(answers.with_lines(message, cors))
        self._linger()

    def _linger(self) -> None:
        self.closing = CLOSE
        self._buffer.clear()
        self._release()
        self._awaited = self._framing = self._parts = None
        self.deadline = self.door.now + LINGER_S
        self._listen(True)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # --- for plans ------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The address of the client that sent the request that is being served; "" if it has none.

        Clients that send the same head share what was understood of it, so that does not know the address;
        but for those of a proxy, whose heads name it.
        """
        return self._served.client.address if self._proxied else self.direct.address

    @property
    def _proxy(self) -> str:
        """The address of the proxy at the other end; "" if there is none that we believe."""
        return self.direct.address if self._proxied else ""

    @property
    def gone(self) -> bool:
        """Whether the client has disconnected, so that nothing can be given to it."""
        return self.transport.is_closing()

    def until_left(self, cancel: Callable[[], object], waits: Callable[[], bool] | None = None) -> None:
        """Call `cancel` if the client leaves before it is answered. Where `waits` says so, a client that
        closes its sending side has left."""
        self._cancel = cancel
        self._waits = waits

    def spawn(self, work: Coroutine[Any, Any, None], waits: Callable[[], bool] | None = None) -> None:
        """Run what cannot be done in one go; it gives the answer, and is cancelled when the client leaves."""
        task = self.door.loop.create_task(self._carried(work))
        self._cancel = task.cancel
        self._waits = waits

    async def _carried(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except PresqueError as error:
            if self.state in OWING:
                self.answer_error(error)
            else:
                self.broken()
        except Exception:  # noqa: BLE001  (the last resort)
            self.broken()

    def take(self, found: Any) -> bool:
        """Let the plan that asks have what the engine has found.

        The engine calls this method as it is: to make a `partial` for each request, and to call it, costs
        more (bench/before.py).
        """
        return self.asking.take(self, found)

    def answer_bytes(self, status: bytes, message: bytes) -> bool:
        """Answer with these bytes, head and all, which say this status. Returns False if the client has
        disconnected."""
        transport = self.transport
        if transport.is_closing():
            return False
        served = self._served
        took = perf_counter() - self._began
        served.tally.add(status, took)
        if took > SLOW_S:
            self._tell_slow(served, took)
        if served.cors:
            message = answers.with_lines(message, served.cors)
        transport.write(message)
        if served is self._usual and not self._buffer:
            self._cancel = self._waits = None
            self.state = IDLE
            door = self.door
            door.under_way -= 1
            self.deadline = door.idle_until
        else:
            self._began += took  # when the next one begins, if it is there
            self.finish()
        return True

    def _tell_slow(self, served: Understood, took: float) -> None:
        """Log a request that took long though it waited for nothing; thousands of them as sums."""
        if not served.upload and not (self._waits is not None and self._waits()):
            verb = served.tally.verb
            self.door.sums.tell(f"slow {verb}", functools.partial(_tell_slow, verb, took, served.request_id))

    def answer(self, answer: Answer) -> bool:
        """Answer, with a body of known length. Returns False if the client has disconnected."""
        if self.state is RECEIVING:
            self.closing = CLOSE
        head = answers.head(answer, self.door.date, close=bool(self.closing))
        message = head if self._served.method == "HEAD" else head + cast(bytes, answer.body)
        return self.answer_bytes(b"%d" % answer.status, message)

    def answer_error(self, error: PresqueError) -> bool:
        """Answer with an error, written as the route writes them. Returns False if the client has
        disconnected."""
        if isinstance(error, Refused) and self.door.refused is not None:
            self.door.refused(error, self.address)
        answer = answers.of_error(error, classic=self._served.classic)
        if isinstance(error, OurFault):
            name, served = self._served.request_id, self._served
            if name is None:  # one by which it is found in the log
                name = secrets.token_hex(8)
                answer = msgspec.structs.replace(answer, headers={**answer.headers, "X-Request-Id": name})
            problems.note(error, served.method, served.route, name)
        return self.answer(answer)

    def answer_known_error(self, error: PresqueError) -> bool:
        """The same for one error that is always the same and comes often: written once a second."""
        key = (error, self._served.classic, bool(self.closing))
        message = self.door.known_errors.get(key)
        if message is None:
            answer = answers.of_error(error, classic=self._served.classic)
            head = answers.head(answer, self.door.date, close=bool(self.closing))
            message = self.door.known_errors[key] = head + cast(bytes, answer.body)
        return self.answer_bytes(message[9:12], message)

    def broken(self) -> None:
        """An unexpected error. Call this where the error is caught, for the log.

        Nobody knows how far the request came, so nothing more is served on this connection.
        """
        log.exception("request.broken method=%s request=%s", self._served.method, self._served.request_id)
        self.closing = CLOSE
        self._usual = None
        self._cancel = self._waits = None
        if self.state in OWING:
            self.answer_error(OurFault("internal error; see the server log"))
        elif not self.transport.is_closing():
            self.transport.abort()

    async def stream(self, answer: Answer) -> None:
        """Answer with parts as they come, each sent before the next one is asked for. It ends with the
        iterator, or politely when the server stops."""
        if self.transport.is_closing():
            return
        parts = cast(AsyncIterator[bytes], answer.body)
        chunked = not self._served.version_1_0
        self.closing = self.closing if chunked else CLOSE
        self._usual = None
        self.deadline = 0.0
        self._go(STREAMING)
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        self.transport.set_write_buffer_limits(high=0)
        if answer.sparing:
            self._hold_in_socket(SPARING_BYTES)
        head = answers.head(answer, self.door.date, close=bool(self.closing), framing=framing)
        self._served.tally.add(head[9:12], perf_counter() - self._began)
        self.transport.write(answers.with_lines(head, self._served.cors))
        self._waits = _always
        try:
            async for part in parts:
                if self.transport.is_closing():
                    return
                rest = memoryview(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                if answer.sparing and len(rest) > LARGE_PART_BYTES:
                    rest = await self._send_but_the_end(rest)
                self.transport.write(rest)
                await self._sent()
        except asyncio.CancelledError:
            if not self.closing or self.transport.is_closing():
                raise
        if not self.transport.is_closing():
            self.transport.set_write_buffer_limits()
            if chunked:
                self.transport.write(b"0\r\n\r\n")
            self._began = perf_counter()
            self.finish()

    async def _send_but_the_end(self, part: memoryview) -> memoryview:
        """Send a large part of a sparing answer through a socket that holds much: no more than it holds is on
        its way at a time. Returns the end, which the socket takes only when it holds little again."""
        self._hold_in_socket(ROOMY_BYTES)
        self.transport.write(part[:-SPARING_BYTES])
        await self._sent()
        self._hold_in_socket(SPARING_BYTES)
        return part[-SPARING_BYTES:]

    def _hold_in_socket(self, most: int) -> None:
        """Let the socket hold so many bytes that the client has not taken yet."""
        taken = None if self.transport.is_closing() else self.transport.get_extra_info("socket")
        if taken is not None:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, most)

    async def _sent(self) -> None:
        """Return when what was written has left for the client."""
        while self._stuck and not self.transport.is_closing():
            self._drained = self.door.loop.create_future()
            await self._drained

    def upgrade(self, headers: Mapping[str, str], protocol: Upgraded) -> None:
        """Switch protocols: the connection is ours no more."""
        self._served.tally.add(b"101", perf_counter() - self._began)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % lines.encode())
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._listen(True)
        requesting, self._requesting = self._requesting, ""  # it lasts as long as the connection
        self._end_request()
        self.unpin()
        self._go(LOST)
        door = self.door
        door.connections.discard(self)
        door.upgraded.add(protocol)

        def lost() -> None:
            door.upgraded.discard(protocol)
            door.leave(self._counted)
            door.leave(requesting)
            hold(0)
            if self._namespace is not None:
                self._enter(None)
            door.ended()

        held = 0

        def hold(size: int) -> bool:
            nonlocal held
            before, held = held, size
            return door.hold(size, before)

        protocol.lost, protocol.hold = lost, hold
        self.transport.set_protocol(cast(asyncio.BaseProtocol, protocol))
        protocol.connection_made(self.transport)
        if rest:
            protocol.data_received(rest)

    def finish(self) -> None:
        """The current request is answered; go on with the next."""
        self._cancel = self._waits = None
        if self._requesting or self._holds:
            self._end_request()
        else:
            self.door.under_way -= 1
        if self.state is RECEIVING:  # answered before the request was there whole
            self._go(REFUSED)
            self._linger()
        elif self.closing or (self._ended and not self._buffer):
            self._close()
        elif self._stuck:
            self._go(HELD)
            self._unread = self.transport.get_write_buffer_size()
            self.deadline = self.door.now + self.door.limits.unread
        elif self._buffer:
            self._go_on()
        else:
            self.state = IDLE
            self.deadline = self.door.idle_until

    def _go_on(self) -> None:
        if not self._buffer:
            if self._ended:
                self._close()
                return
            self._go(IDLE)
            self.deadline = self.door.idle_until
            self._listen(True)
            return
        starting, self.state = self.state is STARTING, HEAD
        self.deadline = self.door.now + self.door.limits.head
        if not starting:  # otherwise `_advance` is at work
            self._advance()


def _always() -> bool:
    return True


def request_id(headers: Mapping[str, str]) -> str | None:
    """What the client calls its request, in 1 to 128 visible characters of ASCII; None otherwise."""
    found = headers.get("x-request-id", "")
    return found if 0 < len(found) <= REQUEST_ID_MOST and VISIBLE(found) else None


def is_named(headers: Mapping[str, str]) -> bool:
    """Whether a head names its own request, so that no other one will be the same."""
    return "traceparent" in headers or request_id(headers) is not None


def _tell_slow(verb: str, seconds: float, request: str | None, count: int) -> None:
    log.warning("request.slow verb=%s seconds=%.1f request=%s count=%d", verb, seconds, request, count)
