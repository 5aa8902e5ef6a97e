"""The hot verbs as plans: push, fetch, lease and settle, worked out from the head of a request.

What a client does thousands of times a second does not pay for a task of its own. A plan is made once for a
head (routes.py makes it) and serves each request that has it: it calls the verb with a function that writes
the answer. Only what needs several steps starts a task. Plans see a `Connection`, and no bytes that come in.

What the engine calls with a result must harm nobody else, whatever happens in it. So each of those functions
has its last resort.
"""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from presque import codec
from presque.commands import jobs, leases, lines
from presque.engine.engine import Engine
from presque.engine.replies import traceparent_of
from presque.errors import CallerError, NoJob, PresqueError
from presque.http.answers import Answer
from presque.http.connection import Connection, Parts, Upload
from presque.job import Fetched, LeaseAsk, Leased, PushOptions, Settle, Settled
from presque.names import QueueList

REPLAYED = b"Idempotent-Replayed: true\r\n"
NO_JOB = NoJob()
PAUSED_MOST = 32  # names of up to 128 bytes: 4 KiB of a head, where many clients end at 8
GET_TAKES = "a GET takes a job; push with POST"


@dataclass(frozen=True, slots=True)
class Push:
    """POST /q/{queue}"""

    engine: Engine
    queue: str
    options: PushOptions
    name: bytes
    common: bool

    def serve(self, connection: Connection, body: bytes) -> None:
        jobs.push(self.engine, self.queue, body, self.options, functools.partial(self.pushed, connection))

    def pushed(self, connection: Connection, result: int | PresqueError) -> None:
        try:
            if isinstance(result, PresqueError):
                connection.answer_error(result)
                return
            name, job_id = self.name, b"%d" % result
            start = b"%b%b%b" % (
                connection.door.created, connection.closing, b"" if type(result) is int else REPLAYED
            )  # fmt: skip
            connection.answer_bytes(
                b'%bLocation: /j/%b/%b\r\nContent-Length: %d\r\n\r\n{"id":"%b","queue":"%b"}\n'
                % (start, name, job_id, len(name) + len(job_id) + 21, job_id, name)
            )
        except Exception:  # noqa: BLE001  (the last resort)
            connection.broken()


@dataclass(frozen=True)
class PushLines(Upload):
    """POST /qb/{queue} with lines of JSON (NDJSON), any number of them."""

    engine: Engine
    queue: str
    options: PushOptions
    line_most: int

    async def receive(self, connection: Connection, parts: Parts) -> None:
        done = await lines.push(self.engine, self.queue, aiter(parts), self.options, self.line_most)
        told = {"pushed": done.pushed, "first": done.first, "last": done.last, "queue": self.queue}
        connection.answer(Answer(codec.encode(told) + b"\n", 201))


@dataclass(frozen=True, slots=True)
class Fetch:
    """GET /q/{queues}"""

    engine: Engine
    queues: QueueList
    wait: float
    worker: str | None
    extra: bytes
    common: bool = True

    def serve(self, connection: Connection, body: bytes) -> None:
        if body:
            raise CallerError(GET_TAKES)
        take = functools.partial(self.take, connection)
        waiter = jobs.fetch(self.engine, self.queues, self.wait, self.worker, take)
        if waiter is not None and not waiter.gone:
            connection.until_left(functools.partial(self.engine.leave, waiter), _always)

    def take(self, connection: Connection, found: Fetched | PresqueError | None) -> bool:
        if connection.gone:
            return False
        try:
            if not isinstance(found, Fetched):
                connection.answer_error(found or NO_JOB)
                return True
            queue, job_id, body, record = found
            extra = self.extra
            if trace := traceparent_of(record):
                extra = b"%btraceparent: %b\r\n" % (extra, trace.encode())
            named = b"Presque-Queue: %b\r\nPresque-Job-Id: %b\r\n" % (queue.encode(), job_id.encode())
            connection.answer_bytes(
                b"%b%b%b%bContent-Length: %d\r\n\r\n%b"
                % (connection.door.ok, connection.closing, extra, named, len(body), body)
            )
        except Exception:  # noqa: BLE001  (the last resort)
            connection.broken()
            return False
        return True


@dataclass(frozen=True, slots=True)
class Browsed:
    """What a browser gets that opens an address where a GET takes a job: a link, restored or typed, is not
    meant to take one. `look` is the address that shows the same without taking."""

    look: str
    html: bool
    common: bool = True

    def serve(self, connection: Connection, _body: bytes) -> None:
        headers = {"Presque-Error": "forbidden", "Link": f'<{self.look}>; rel="alternate"'}
        if not self.html:
            text = f"a browser that opens this address would take a job; {self.look} shows without taking"
            connection.answer(Answer(codec.encode({"error": text}) + b"\n", 403, headers))
            return
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>presque</title>'
            "<p>Nothing was taken. A program that asks for this address takes a job off the queue for good, "
            f'so a browser does not get it. <a href="{html.escape(self.look)}">Look without taking.</a>\n'
        )
        headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
        connection.answer(Answer(page.encode(), 403, headers, "text/html; charset=utf-8"))


@dataclass(frozen=True, slots=True)
class Lease:
    """POST /q/{queues}/lease"""

    engine: Engine
    queues: QueueList
    fields: Mapping[str, str]
    worker: str | None
    common: bool = True

    def serve(self, connection: Connection, body: bytes) -> None:
        request = codec.decode_request(body, leases.LeaseRequest)
        ask, wait = leases.lease_ask(request, self.fields, self.worker)
        if request.settle is None:
            self.lease(connection, ask, wait, b"")
            return
        first = leases.settles(request.settle)
        connection.spawn(self.settle_and_lease(connection, first, ask, wait), lambda: wait > 0)

    async def settle_and_lease(
        self, connection: Connection, first: Sequence[Settle], ask: LeaseAsk, wait: float
    ) -> None:
        settled = await leases.settle(self.engine, first, self.worker)
        self.lease(connection, ask, wait, leases.settled_part(settled))

    def lease(self, connection: Connection, ask: LeaseAsk, wait: float, settled: bytes) -> None:
        take = functools.partial(self.take, connection, settled)
        waiter = leases.lease(self.engine, self.queues, ask, wait, take)
        if waiter is not None and not waiter.gone:
            connection.until_left(functools.partial(self.engine.leave, waiter), _always)

    def take(
        self, connection: Connection, settled: bytes, found: Sequence[Leased] | PresqueError | None
    ) -> bool:
        if connection.gone:
            return False
        try:
            if isinstance(found, PresqueError):
                connection.answer_error(found)
            elif found or settled:
                answer_json(connection, leases.lease_answer(found or (), settled))
            else:
                connection.spawn(self.answer_nothing(connection))
        except Exception:  # noqa: BLE001  (the last resort)
            connection.broken()
            return False
        return True

    async def answer_nothing(self, connection: Connection) -> None:
        stopped = await self.engine.stopped(self.queues)
        connection.answer(Answer(status=204, headers=paused(stopped)))


@dataclass(frozen=True, slots=True)
class SettleOne:
    """POST /j/{queue}/{id}/ack, /fail, /release, /extend"""

    engine: Engine
    verb: str
    queue: str
    job: str
    token: str | None
    fields: Mapping[str, str]
    worker: str | None
    common: bool = False  # each job has a path of its own

    def serve(self, connection: Connection, body: bytes) -> None:
        one = leases.single(self.verb, self.queue, self.job, body, self.fields, self.token)
        self.engine.settle(one, functools.partial(self.settled, connection, one))

    def settled(self, connection: Connection, one: Settle, result: Settled | PresqueError) -> None:
        try:
            if isinstance(result, PresqueError):
                connection.answer_error(result)
                return
            if self.worker is not None:
                leases.count(self.engine, self.worker, [one], [result])
            if result.status != 200:
                connection.answer_error(leases.refusal(result.status))
                return
            answer_json(connection, codec.encode(leases.told(one, result)))
        except Exception:  # noqa: BLE001  (the last resort)
            connection.broken()


@dataclass(frozen=True, slots=True)
class SettleMany:
    """POST /settle"""

    engine: Engine
    worker: str | None
    common: bool = True

    def serve(self, connection: Connection, body: bytes) -> None:
        request = codec.decode_request(body, leases.SettleRequest)
        connection.spawn(self.settle(connection, leases.settles(request)))

    async def settle(self, connection: Connection, asked: Sequence[Settle]) -> None:
        settled = await leases.settle(self.engine, asked, self.worker)
        answer_json(connection, codec.encode({"settled": settled}))


def paused(stopped: Sequence[str]) -> dict[str, str]:
    """The headers of an answer without jobs: which of the queues are stopped, as many as a head bears."""
    if not stopped:
        return {}
    headers = {"Presque-Paused": ",".join(stopped[:PAUSED_MOST])}
    if len(stopped) > PAUSED_MOST:
        headers["Presque-Paused-More"] = str(len(stopped) - PAUSED_MOST)
    return headers


def answer_json(connection: Connection, body: bytes) -> None:
    """Answer 200 with a JSON document."""
    connection.answer_bytes(
        b"%b%bContent-Length: %d\r\n\r\n%b\n" % (connection.door.ok, connection.closing, len(body) + 1, body)
    )


def _always() -> bool:
    return True
