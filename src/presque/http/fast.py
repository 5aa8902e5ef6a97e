"""The hot path, top to bottom: bytes in, bytes out.

Theory of operation. This is uvicorn's httptools protocol with its front replaced. Bytes are cut into
requests here, one request of a connection at a time, so pipelined ones are answered in order; what is cut
off has a head and a body within bounds, came before its deadline and has passed the gate. Then push and
fetch are served right here, and everything else is handed to uvicorn and Starlette (app.py) as it came.

A client that keeps its connection sends the same head again and again. So a head that was understood once
is remembered with all that follows from it, as a `Plan`, and costs one dictionary look-up from then on
instead of a parse (bench/push_http.py). Only whole heads that passed every check are remembered, so the
short cut cannot differ from the long way.

Both lanes call the same verbs in commands/. What stands here and nowhere else is how bytes are arranged.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from presque import names
from presque.commands import jobs, params
from presque.engine.engine import Engine
from presque.engine.lines import Waiter
from presque.engine.replies import traceparent_of
from presque.errors import NotFound, PresqueError
from presque.http import fast_leases, problems
from presque.http import head as heads
from presque.http.chunked import Framing
from presque.http.gate import Gate
from presque.http.head import BadHead, Head
from presque.job import PLAIN, Fetched
from presque.names import QueueList

HEAD_WITHIN_S = 10.0
BODY_WITHIN_S = 30.0
IDLE_S = 75.0
PLANS_MOST = 4096
PLAN_BYTES_MOST = 2048
PIPELINED_BYTES_MOST = 64 * 1024
LINGER_S = 2.0
CLOSE = b"Connection: close\r\n"
JSON = b"Content-Type: application/json\r\n"
NO_STORE = b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
REPLAYED = b"Idempotent-Replayed: true\r\n"
NO_JOB = NotFound("no job")

_SOCKET = re.compile(r"/ws(/[^/]+|/?)\Z").match

Upgrade = Callable[[str, str | None, Mapping[str, str], Mapping[str, str]], tuple[dict[str, str], Any]]
"""Checks a handshake: from its method, queue list, headers and fields to the headers of the answer, and the
protocol that the connection speaks from then on. That has a method `shutdown`, and calls its attribute `lost`
when the connection has ended. Raises `CallerError`."""

_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:[^\r]*", re.IGNORECASE).sub


class Plan:
    """What follows from one head: how to serve the request once its body is there."""

    __slots__ = (
        "chunked", "close", "common", "continues", "error", "extra", "fields", "head", "hot", "job", "length",
        "method", "name", "options", "problem", "queue", "queues", "raw", "serve", "size", "streams", "token",
        "upgrade", "verb", "wait", "worker",
    )  # fmt: skip

    def __init__(self, raw: bytes, head: Head) -> None:
        self.raw = raw  # the head as it came
        self.size = len(raw) + head.length  # of the whole request, unless it is chunked
        self.serve: Callable[[Protocol, Plan, bytes], None] = Protocol.serve_slowly
        self.head: Head | None = None  # of a request that the socket's next protocol looks at
        self.method = head.method
        self.length = head.length
        self.chunked = head.chunked
        self.close = not head.keep_alive or head.upgrade
        self.continues = head.expects_continue
        self.upgrade = head.upgrade
        self.hot = False
        self.common = True  # other requests may have the same head
        self.error: PresqueError | None = None
        self.problem = False  # errors are RFC 9457 problems
        self.fields: dict[str, str] = {}
        self.streams = head.path.startswith(("/c/", "/events"))  # the answer goes on until the client leaves
        self.queue = self.job = self.verb = ""
        self.token: str | None = None
        self.name = b""
        self.options = PLAIN
        self.queues = QueueList(())
        self.wait = 0.0
        self.worker: str | None = None
        self.extra = b""


class Door:
    """What all connections of one server share. `upgrade` checks the handshake of a WebSocket."""

    def __init__(self, engine: Engine, gate: Gate, max_body: int, upgrade: Upgrade | None = None) -> None:
        self.engine = engine
        self.upgrade = upgrade
        self.gate = gate
        self.max_body = max_body
        self.plans: dict[bytes, Plan] = {}
        self.connections: set[Protocol] = set()
        self.now = 0.0
        self.created = self.ok = b""
        self._ticker: asyncio.TimerHandle | None = None
        self.tick()

    def tick(self) -> None:
        """Once a second: the date of the answers, and the deadlines of all connections."""
        loop = asyncio.get_running_loop()
        self._ticker = loop.call_later(1, self.tick)
        self.now = loop.time()
        self.created = _start(b"201 Created")
        self.ok = _start(b"200 OK") + NO_STORE
        for connection in [c for c in self.connections if 0 < c.deadline <= self.now]:
            connection.time_is_up()

    def close(self) -> None:
        """Stop ticking."""
        if self._ticker is not None:
            self._ticker.cancel()


def _start(status: bytes, kind: bytes = JSON) -> bytes:
    """The first lines of an answer, up to what differs between answers."""
    return b"HTTP/1.1 %b\r\nDate: %b\r\n%b" % (status, formatdate(time.time(), usegmt=True).encode(), kind)


class Protocol(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(
        self,
        door: Door,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.door = door
        self.deadline = 0.0  # when to give up on what the client owes us; 0 while we owe the client
        self._buffer = bytearray()  # what has come of the next request, and what was pipelined behind it
        self._plan: Plan | None = None  # of the request whose body is awaited
        self._served: Plan  # of the request that is being served
        self._again: Plan | None = None  # remembered of the request before, which the next one may repeat
        self._head_end = 0
        self._framing: Framing | None = None
        self._busy = False  # a request is being served
        self._cutting = False  # `_advance` is at work
        self._last = False  # the connection closes after the current answer
        self._ended = False  # the client has said that it sends nothing more
        self._refused = False  # what still comes is thrown away
        self._held = False  # the next request waits until the client has read some of its answers
        self.waiter: Waiter | None = None

    # --- the connection -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self.door.connections.add(self)
        self.deadline = self.door.now + HEAD_WITHIN_S

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.connections.discard(self)
        self._leave()
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client sends nothing more. If we owe it an answer it may still be there to read it, but one
        that waits for a job is taken to have gone: it must not be given one."""
        if not self._busy or self.waiter is not None or self._served.streams:
            self._leave()
            return None
        self._ended = True
        return True

    def shutdown(self) -> None:
        """The server is stopping: close once the current request, if any, is answered."""
        self._last = True
        if not self._busy:
            self.transport.close()
        elif self._served.serve is Protocol.serve_slowly:
            super().shutdown()

    def time_is_up(self) -> None:
        """The client did not send in time what it began, was silent for too long, or does not read."""
        if self._refused or self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self._buffer or self._plan is not None:
            part = "head" if self._plan is None else "body"
            self._refuse(BadHead(f"the {part} of the request did not arrive in time", 408))
        else:
            self.transport.close()

    def resume_writing(self) -> None:
        """The client reads its answers. Called by the transport."""
        super().resume_writing()
        if self._held:
            self._finish()

    # --- from bytes to requests -----------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._busy and not self._buffer:
            # The usual case first, as a short cut: all of one request whose head is known, and no more. Most
            # often it is the head of the request before.
            plan = self._again
            if plan is None or not data.startswith(plan.raw):
                plan = self._again = self.door.plans.get(data[: data.find(b"\r\n\r\n") + 4])
            if plan is not None and plan.hot and len(data) == plan.size and not self._last:
                self._served = plan
                self._busy = True
                self.deadline = 0.0
                plan.serve(self, plan, data[plan.size - plan.length :])
                return
        if self._refused:
            return
        self._buffer += data
        if not self._busy:
            self._advance()
        elif len(self._buffer) > PIPELINED_BYTES_MOST:
            self.flow.pause_reading()

    def _advance(self) -> None:
        """Serve the requests that have arrived whole, one after the other."""
        self._cutting = True
        try:
            while self._buffer and not self._busy and not self._last and self._serve_next():
                pass
        except BadHead as error:
            self._refuse(error)
        finally:
            self._cutting = False
        if not self._busy or len(self._buffer) <= PIPELINED_BYTES_MOST:
            self.flow.resume_reading()

    def _serve_next(self) -> bool:
        """Cut the next request off the buffer and serve it; False if a part of it is still to come."""
        plan = self._plan or self._next_head()
        if plan is None:
            return False
        buffer, start = self._buffer, self._head_end
        if plan.chunked:
            if self._framing is None:
                self._framing = Framing(start)
            if not self._framing.advance(buffer, self.door.max_body):
                return self._await_body(plan)
            end, body = cast(int, self._framing.end), bytes(self._framing.body)
            self._framing = None
        else:
            end = start + plan.length
            if len(buffer) < end:
                return self._await_body(plan)
            body = bytes(buffer[start:end])
        # The slow lane parses again, so it gets the request as it came.
        sent = bytes(buffer[:end]) if plan.serve is Protocol.serve_slowly else body
        del buffer[:end]
        self._plan = None
        self._served = plan
        self._busy = True
        self.deadline = 0.0
        if plan.close:
            self._last = True
        plan.serve(self, plan, sent)
        return True

    def _next_head(self) -> Plan | None:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):
            del buffer[:2]  # RFC 9112, section 2.2
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > heads.MOST_BYTES:
                raise BadHead(f"the head of the request is larger than {heads.MOST_BYTES} bytes", 431)
            if buffer.count(b"\n") != buffer.count(b"\r\n"):
                raise BadHead("the request cannot be read: its lines should end with CR LF")
            self.deadline = min(self.deadline, self.door.now + HEAD_WITHIN_S)
            return None
        self._head_end = end + 4
        head = bytes(buffer[: end + 4])
        return self.door.plans.get(head) or self._understand(head)

    def _await_body(self, plan: Plan) -> bool:
        if self._plan is None:
            self._plan = plan
            self.deadline = self.door.now + BODY_WITHIN_S
            if plan.continues and len(self._buffer) == self._head_end:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return False

    def _understand(self, raw: bytes) -> Plan:
        """Parse a head and work out all that follows from it. Raises `BadHead` for one that cannot be
        trusted; any other error is the answer to the request, once its body is out of the way."""
        if len(raw) > heads.MOST_BYTES:
            raise BadHead(f"the head of the request is larger than {heads.MOST_BYTES} bytes", 431)
        head = heads.read(raw)
        if head.length > self.door.max_body:
            raise BadHead(f"the body is larger than {self.door.max_body} bytes", 413)
        plan = Plan(raw, head)
        plan.problem = not problems.is_classic(head.path)
        try:
            self.door.gate.check(head.method, head.path, head.headers)
            if head.upgrade and self.door.upgrade is not None and _SOCKET(head.path):
                plan.head = head
                plan.serve = Protocol.serve_upgrade
            else:
                _route(plan, head)
        except PresqueError as error:
            plan.error = error
            plan.serve = Protocol.serve_error
            return plan
        if plan.serve is Protocol.serve_upgrade:
            return plan
        plan.hot = plan.serve is not Protocol.serve_slowly and not plan.chunked and not plan.close
        plans = self.door.plans
        if len(raw) <= PLAN_BYTES_MOST and plan.common:
            if len(plans) >= PLANS_MOST:
                plans.clear()
            plans[raw] = plan
        return plan

    # --- serving --------------------------------------------------------------------------------

    def serve_push(self, plan: Plan, body: bytes) -> None:
        """POST /q/{queue}"""
        try:
            jobs.push(self.door.engine, plan.queue, body, plan.options, self._pushed)
        except PresqueError as error:
            self._answer_error(error)

    def _pushed(self, result: int | PresqueError) -> None:
        if isinstance(result, PresqueError):
            self._answer_error(result)
            return
        name, job_id = self._served.name, b"%d" % result
        close = CLOSE if self._last else b""
        replayed = b"" if type(result) is int else REPLAYED
        self.answer(
            b'%b%b%bLocation: /j/%b/%b\r\nContent-Length: %d\r\n\r\n{"id":"%b","queue":"%b"}'
            % (self.door.created, close, replayed, name, job_id, len(name) + len(job_id) + 20, job_id, name)
        )

    def serve_fetch(self, plan: Plan, _body: bytes) -> None:
        """GET /q/{queues}"""
        self.waiter = jobs.fetch(self.door.engine, plan.queues, plan.wait, plan.worker, self._take)

    def _take(self, found: Fetched | PresqueError | None) -> bool:
        self.waiter = None
        if self.transport.is_closing():
            return False
        if not isinstance(found, Fetched):
            self._answer_error(found or NO_JOB)
            return True
        queue, job_id, body, record = found
        extra = self._served.extra
        if record[0] and (trace := traceparent_of(record)):
            extra = b"%btraceparent: %b\r\n" % (extra, trace.encode())
        close = CLOSE if self._last else b""
        named = b"Presque-Queue: %b\r\nPresque-Job-Id: %b\r\n" % (queue.encode(), job_id.encode())
        self.transport.write(
            b"%b%b%b%bContent-Length: %d\r\n\r\n%b" % (self.door.ok, close, extra, named, len(body), body)
        )
        self._finish()
        return True

    def _leave(self) -> None:
        if self.waiter is not None:
            self.door.engine.leave(self.waiter)
            self.waiter = None

    def serve_slowly(self, plan: Plan, message: bytes) -> None:
        """Everything else: uvicorn parses again and runs the Starlette application."""
        if plan.upgrade:
            # None is on offer, and uvicorn would take the body for the other protocol's bytes.
            head, end, body = message.partition(b"\r\n\r\n")
            message = _UPGRADE(b"", head) + end + body
        super().data_received(message)
        if self.cycle is not None:
            self.cycle.waiting_for_100_continue = False  # the body is here already

    def serve_upgrade(self, plan: Plan, _body: bytes) -> None:
        """GET /ws and /ws/{queues}: the connection speaks WebSocket from now on, and is ours no more."""
        head, upgrade = cast(Head, plan.head), cast(Upgrade, self.door.upgrade)
        name = head.path.removeprefix("/ws").strip("/")
        queues = heads.segment(name) if name else None
        try:
            headers, protocol = upgrade(head.method, queues, head.headers, heads.fields(head.query))
        except PresqueError as error:
            self._answer_error(error)
            return
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % lines.encode())
        rest = bytes(self._buffer)
        self._buffer.clear()
        self.flow.resume_reading()
        self.door.connections.discard(self)
        # uvicorn counts this connection, closes it when the server stops, and waits for its end.
        self.connections.discard(self)
        self.connections.add(protocol)
        protocol.lost = functools.partial(self.connections.discard, protocol)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if rest:
            protocol.data_received(rest)

    def on_response_complete(self) -> None:
        """The application has answered. Called by uvicorn."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self._finish()

    def serve_error(self, plan: Plan, _body: bytes) -> None:
        """A request that is wrong in a way that its head already shows."""
        self._answer_error(cast(PresqueError, plan.error))

    # --- answers --------------------------------------------------------------------------------

    def answer(self, message: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(message)
            self._finish()

    def answer_json(self, body: bytes) -> None:
        """Answer 200 with a JSON document."""
        close = CLOSE if self._last else b""
        self.answer(b"%b%bContent-Length: %d\r\n\r\n%b" % (self.door.ok, close, len(body), body))

    def answer_empty(self, headers: dict[str, str]) -> None:
        """Answer 204."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        start = _start(b"204 No Content", b"") + NO_STORE
        self.answer(b"%b%b%b\r\n" % (start, CLOSE if self._last else b"", lines))

    def answer_problem(self, error: PresqueError) -> None:
        """Answer with an error as the routes of leases write it."""
        problems.note(error, self._served.method, "/q/")
        self.answer(_problem(error, close=self._last, classic=False))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what cannot be done in one go; it gives the answer."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _answer_error(self, error: PresqueError) -> None:
        problems.note(error, self._served.method, "/q/")
        self.answer(_problem(error, close=self._last, classic=not self._served.problem))

    def _refuse(self, error: BadHead) -> None:
        """Answer a request whose end cannot be known, then close. What the client still sends is read and
        thrown away for a moment, since a reset could destroy the answer on its way."""
        self._refused = self._last = True
        self._buffer.clear()
        self.deadline = self.door.now + LINGER_S
        self.transport.write(_problem(error, close=True))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _finish(self) -> None:
        """The current request is answered; go on with the next."""
        self._busy = self._held = self.flow.write_paused and not self._last
        if self._held:
            self.deadline = self.door.now + IDLE_S
            return
        if self._last or (self._ended and not self._buffer):
            self.transport.close()
            return
        self.deadline = self.door.now + IDLE_S
        if self._buffer and not self._cutting:
            self._advance()


def _route(plan: Plan, head: Head) -> None:
    """Find out whether the request is one of the hot verbs, and read what its head says of it."""
    parts = head.path.split("/")
    if len(parts) in (4, 5):
        decoded = [heads.segment(part) for part in parts]
        if fast_leases.route(plan, head.method, decoded, head.headers.get("presque-lease")):
            plan.fields = heads.fields(head.query)
            worker = head.headers.get("x-presque-workerid")
            plan.worker = names.worker(worker) if worker else None
        return
    if len(parts) != 3 or parts[0] or parts[1] != "q" or not parts[2]:
        return
    if head.method == "POST":
        plan.queue = names.queue(heads.segment(parts[2]))
        plan.name = plan.queue.encode()
        options = params.push_options(heads.fields(head.query))
        key, trace = head.headers.get("idempotency-key"), head.headers.get("traceparent")
        plan.options = params.with_headers(options, key, trace)
        plan.common = plan.options is options
        plan.serve = Protocol.serve_push
    elif head.method == "GET":
        plan.queues = names.queue_list(heads.segment(parts[2]))
        plan.wait, preferred = params.wait(heads.fields(head.query), head.headers.get("prefer"))
        if preferred:
            plan.extra = b"Preference-Applied: wait=%d\r\n" % plan.wait
        worker = head.headers.get("x-presque-workerid")
        plan.worker = names.worker(worker) if worker else None
        plan.serve = Protocol.serve_fetch


def _problem(error: PresqueError, *, close: bool, classic: bool = True) -> bytes:
    """A whole answer that says what is wrong."""
    status = problems.status_of(error)
    body = problems.body_of(error) if classic else problems.problem_of(error)
    kind = JSON if classic else b"Content-Type: application/problem+json\r\n"
    headers = "".join(f"{name}: {value}\r\n" for name, value in problems.headers_of(error).items())
    return b"%b%b%b%bContent-Length: %d\r\n\r\n%b" % (
        _start(b"%d %b" % (status, HTTPStatus(status).phrase.encode()), kind),
        NO_STORE,
        headers.encode(),
        CLOSE if close else b"",
        len(body),
        body,
    )
