"""One connection of a client: bytes in, requests out, answers in their order.

Theory of operation. Bytes are cut into requests here, one request of a connection at a time, so pipelined
ones are answered in order. What is cut off has a head and a body within bounds and came before its deadline.
What a head asks for is worked out by the planner (routes.py) as a `Plan`, and the plan serves the request. A
connection knows `Plan.serve` and no verb; a plan sees the `Answering` half of a connection and nothing of
bytes on the way in.

A client that keeps its connection sends the same head again and again. So a head that was understood once is
remembered with all that follows from it (understood.py), and costs one dictionary look-up from then on
instead of a parse (bench/push_http.py). What follows from a head depends on nothing but its bytes and the
settings, so the short cut cannot differ from the long way. Most often a connection repeats the head of the
request before. While nothing but the next request can follow an answer, that head is `_usual`, and a request
that has it skips what others need. Whatever changes this sets `_usual` to None: the long way is always right.

Gone is cancelled. A request that cannot be answered at once leaves behind how to cancel it (`until_left`):
the place of a waiter, or a task. The end of the connection cancels it, whatever it is and however the
connection ends. A client that only closes its sending side still gets its answer, unless it waits: one that
waits for a job must not be given one when it may be gone, and the two cannot be told apart.

Where a connection stands is one `State` (states.py), and `NEXT` says what may follow. Two facts stand beside
it: whether the connection is kept after the current answer, and whether the client has closed its sending
side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address
from time import perf_counter
from typing import cast

import msgspec

from presque.errors import PresqueError, Refused
from presque.http import answers
from presque.http import head as heads
from presque.http.answering import Answering
from presque.http.answers import CLOSE
from presque.http.chunked import Framing
from presque.http.door import Door, Upgraded
from presque.http.head import BadHead
from presque.http.outflow import Stuck
from presque.http.parts import Incoming
from presque.http.plan import Namespace, Upload
from presque.http.problems import Stopping, TooMany
from presque.http.proxies import Client, neighbourhood, normal
from presque.http.states import (
    BODY,
    CLOSING,
    HEAD,
    HELD,
    IDLE,
    LOST,
    READING,
    RECEIVING,
    REFUSED,
    SERVING,
    STARTING,
    STREAMING,
    UNDER_WAY,
)
from presque.http.understood import Understood, understand

LINGER_S = 2.0
TURNED_AWAY_MOST = 1000  # connections beyond the limit that get an answer; further ones are just closed
PIPELINED_BYTES_MOST = 64 * 1024
HEAD_METHOD, LINE_ENDS = b"HEAD ", b"\r\n"


class Connection(Answering):
    """One connection of a client."""

    __slots__ = (
        "_awaited", "_body_at", "_counted", "_deaf", "_ended", "_framing", "_holds", "_incoming", "_known",
        "_namespace", "_requesting",
    )  # fmt: skip

    _usual: Understood | None
    _served: Understood

    def __init__(self, door: Door) -> None:
        super().__init__(door)
        self._known: dict[bytes, Understood]  # the heads that were understood before
        self._awaited: Understood | None = None  # the request whose body is awaited
        self._body_at = 0
        self._framing: Framing | None = None  # of that body, if it is chunked
        self._incoming: Incoming | None = None  # a body that is taken as it comes
        self._ended = False  # the client has said that it sends nothing more
        self._deaf = False  # nothing is read from the client
        self._counted = ""  # the address that this connection is counted for, if for any
        self._namespace: Namespace | None = None  # in which this connection is counted
        self._requesting = ""  # the address that its request is counted for
        self._holds = 0  # bytes of its request that are counted

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

    @property
    def _proxy(self) -> str:
        """The address of the proxy at the other end; "" if there is none that we believe."""
        return self.direct.address if self._proxied else ""

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
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()
        self._unstick()
        self.door.leave(self._counted)
        if self._namespace is not None:
            self._enter(None)
        self.deadline = 0.0
        self._buffer.clear()
        self._leave()
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
        elif self.state is RECEIVING and self._incoming is not None:
            self._incoming.fail(Stopping())

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
        error = known.refusal
        if not isinstance(error, Refused):
            return
        if self.state is RECEIVING and self._incoming is not None:
            self._incoming.fail(error)
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
        elif self.state is RECEIVING and self._incoming is not None:
            self._incoming.fail(BadHead("the body of the request did not arrive in time", 408))
            self.deadline = 0.0
        elif self.state is IDLE and not self.transport.get_write_buffer_size():
            self._close()
        elif self.state in (HELD, STREAMING) and self._stuck is not None and self._stuck.moves():
            self.deadline = self.door.now + self.door.limits.unread
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        self._usual = None
        self._unstick()
        self._stuck = Stuck(self.transport)
        self.door.pin(self._stuck)
        if self.state is STREAMING:
            self.deadline = self.door.now + self.door.limits.unread

    def resume_writing(self) -> None:
        self._unstick()
        if self.state is STREAMING:
            self.deadline = 0.0
        if self.state is HELD:
            self._began = perf_counter()
            self._go_on()

    def _unstick(self) -> None:
        """The client has taken what it had not, or will not."""
        stuck, self._stuck, self._undo = self._stuck, None, None
        if stuck is not None:
            self.door.unpin(stuck)
            stuck.end()

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
        self.deadline = 0.0
        self._incoming = Incoming(known.length, self._receive_soon, chunked=known.chunked)
        if known.continues and not self._buffer:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.spawn(plan.receive(self, self._incoming.parts))
        self._receive()

    def _receive(self) -> None:
        """Hand what has come of a body to its plan."""
        incoming, buffer = self._incoming, self._buffer
        if self.state is not RECEIVING or incoming is None:
            return
        if incoming.parts.cut_short:
            buffer.clear()
            return
        if incoming.parts.full:
            self.deadline = 0.0
            self._listen(False)
            return
        try:
            ended = incoming.take(buffer)
        except BadHead as error:
            incoming.fail(error)
            return
        if ended:
            self._go(SERVING)
            self._incoming = None
            self.deadline = 0.0
            self._listen(len(buffer) <= PIPELINED_BYTES_MOST)
        else:
            if not self.deadline or not cast(Upload, self._served.plan).hurried:
                self.deadline = self.door.now + self.door.limits.body
            self._listen(True)

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
        heads.check_first(buffer[0])
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
        return understand(raw, self.door, self.direct, self._known, proxied=self._proxied)

    def _refuse(self, error: BadHead | TooMany) -> None:
        """Answer a request whose end cannot be known, then close. What the client still sends is read and
        thrown away for a moment, since a reset could destroy the answer on its way."""
        self._go(REFUSED)
        classic = not isinstance(error, BadHead) or error.classic
        if self._awaited is not None:
            classic = self._awaited.classic
        answer = answers.of_error(error, classic=classic)
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
        self._awaited = self._framing = self._incoming = None
        self.deadline = self.door.now + LINGER_S
        self._listen(True)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # --- what is behind an answer ---------------------------------------------------------------

    def upgrade(self, headers: Mapping[str, str], protocol: Upgraded) -> None:
        self._served.tally.add(b"101", perf_counter() - self._began)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % lines.encode())
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._listen(True)
        requesting, self._requesting = self._requesting, ""  # it lasts as long as the connection
        self._end_request()
        self._unstick()
        self._go(LOST)

        def left() -> None:
            self.door.leave(self._counted)
            self.door.leave(requesting)
            if self._namespace is not None:
                self._enter(None)

        self.door.hand_over(self, protocol, left)
        self.transport.set_protocol(cast(asyncio.BaseProtocol, protocol))
        protocol.connection_made(self.transport)
        if rest:
            protocol.data_received(rest)

    def finish(self) -> None:
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
        elif self._stuck is not None:
            self._go(HELD)
            self._stuck.look()
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
