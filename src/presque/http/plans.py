"""The hot verbs as plans: push, fetch, lease and settle, worked out from the head of a request.

What a client does thousands of times a second does not pay for a task of its own. A plan is made once for a
head (routes.py makes it) and serves each request that has it: it calls the verb with a function that writes
the answer. Only what needs several steps starts a task. Plans see the `Answering` half of a
connection, and no bytes that come in.

A push or a fetch is admitted when its plan is made, since what its client may do follows from the head; each
request is counted. What the engine calls with a result must harm nobody else, whatever happens in it. So each
of those functions has its last resort.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec

from presque import codec
from presque.commands import jobs, leases, lines
from presque.commands.call import Taker, Waiter
from presque.commands.carrying import admit, decide
from presque.commands.jobs import PLAIN_RECORD
from presque.errors import CallerError, NoJob, PresqueError
from presque.http.answering import Answering, always
from presque.http.answers import Answer
from presque.http.parts import Parts
from presque.http.plan import Upload
from presque.http.request import Request
from presque.job import Ask, Fetched, Leased, PushOptions, Settle, Settled
from presque.names import QueueList

REPLAYED = b"Idempotent-Replayed: true\r\n"
NO_JOB = NoJob()
PAUSED_MOST = 32  # names of up to 128 bytes: 4 KiB of a head, where many clients end at 8
UNTAKEN_LEAST = 16 * 1024  # bytes of an answer that may wait for its client to read
GET_TAKES = "a GET takes a job; push with POST"


class Push(msgspec.Struct, frozen=True):
    """POST /q/{queue}"""

    request: Request
    options: PushOptions
    queue: str
    form: bytes
    """The answer: what it begins with, further headers, the id, the length of the body, the id."""
    length: int
    """Bytes of the body beside the id."""
    common: bool

    @classmethod
    def of(cls, request: Request) -> Push:
        """The plan of a push that says this. Raises the refusal of one that may not push."""
        options, queue = jobs.push_options(request.fields), request.fields["queue"]
        decide(request.verb, request.who, request.fields)
        once = options.idempotency is not None or options.traceparent is not None
        place, body = f"{request.prefix}/j/{queue}/".replace("%", "%%"), f'{{"id":"%b","queue":"{queue}"}}\n'
        form = f"%b%bLocation: {place}%b\r\nContent-Length: %d\r\n\r\n{body}"
        return cls(request, options, queue, form.encode(), len(body) - len("%b"), not once)

    def serve(self, connection: Answering, body: bytes) -> None:
        request = self.request
        request.count()
        connection.asking = self
        jobs.push(request.service.engine, self.queue, body, self.options, connection.take)

    def take(self, connection: Answering, found: int | PresqueError) -> bool:
        try:
            extra = connection.closing
            if type(found) is not int:
                if isinstance(found, PresqueError):
                    return connection.answer_error(found)
                extra += REPLAYED
            job_id = b"%d" % found
            length = self.length + len(job_id)
            return connection.answer_bytes(
                b"201", self.form % (connection.door.created, extra, job_id, length, job_id)
            )
        except Exception:  # noqa: BLE001  (the last resort)
            connection.broken()
            return False


class PushLines(Upload):
    """POST /qb/{queue} with lines of JSON (NDJSON), any number of them."""

    def __init__(self, request: Request, line_most: int) -> None:
        self.request = request
        self.line_most = line_most

    async def receive(self, connection: Answering, parts: Parts) -> None:
        request = self.request
        admit(request.service, request.verb, request.who, request.fields)
        engine, queue = request.service.engine, request.fields["queue"]
        options = jobs.push_options(request.fields)
        done = await lines.push(engine, queue, aiter(parts), options, self.line_most)
        told = {"pushed": done.pushed, "first": done.first, "last": done.last, "queue": queue}
        connection.answer(Answer(codec.encode(told) + b"\n", 201))


class Fetch(msgspec.Struct, frozen=True):
    """GET /q/{queues}"""

    request: Request
    queues: QueueList
    wait: float
    named: bool
    """Whether `extra` names the queue, since only one is meant."""
    extra: bytes
    common: bool = True

    @classmethod
    def of(cls, request: Request, wished: float | None) -> Fetch:
        """The plan of a fetch that says this; `wished` is how long a `Prefer` header would like to wait."""
        fields = decide(request.verb, request.who, request.fields)
        wait, extra = fields.get("wait"), b""
        if wait is None and wished is not None:
            wait, extra = int(wished * 1000), b"Preference-Applied: wait=%d\r\n" % wished
        queues = fields["queues"]
        if queues.single is not None:
            extra += _named(queues.single)
        return cls(request, queues, (wait or 0) / 1000, queues.single is not None, extra)

    def serve(self, connection: Answering, body: bytes) -> None:
        if body:
            raise CallerError(GET_TAKES)
        request = self.request
        request.count()
        connection.asking = self
        engine = request.service.engine
        waiter = jobs.fetch(engine, self.queues, self.wait, request.worker, connection.take)
        if waiter is not None and not waiter.gone:
            connection.until_left(functools.partial(engine.leave, waiter), always)

    def take(self, connection: Answering, found: Fetched | PresqueError | None) -> bool:
        try:
            if found is None:
                return connection.answer_known_error(NO_JOB)
            if isinstance(found, PresqueError):
                return not connection.gone and connection.answer_error(found)
            queue, job_id, body, record = found
            extra = self.extra if self.named else self.extra + _named(queue)
            if record[0] != PLAIN_RECORD and (trace := jobs.trace_of(record)):
                extra = b"%btraceparent: %b\r\n" % (extra, trace[0].encode())
                if trace[1]:
                    extra = b"%btracestate: %b\r\n" % (extra, trace[1].encode())
            given = connection.answer_bytes(
                b"200",
                b"%b%b%bPresque-Job-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (connection.door.ok, connection.closing, extra, job_id.encode(), len(body), body),
            )
            if given and len(body) > UNTAKEN_LEAST:
                connection.unless_taken(functools.partial(self.request.service.engine.give_back, (found,)))
            return given
        except Exception:  # noqa: BLE001  (the last resort)
            connection.broken()
            return False


class Browsed(msgspec.Struct, frozen=True):
    """What a browser gets that opens an address where a GET takes a job: a link, restored or typed, is not
    meant to take one. `look` is the address that shows the same without taking."""

    look: str
    html: bool
    common: bool = True

    def serve(self, connection: Answering, _body: bytes) -> None:
        headers = {"Presque-Error": "forbidden", "Link": f'<{self.look}>; rel="alternate"'}
        if not self.html:
            text = f"a browser that opens this address would take a job; {self.look} shows without taking"
            connection.answer(Answer(codec.encode({"error": text}) + b"\n", 403, headers))
            return
        from html import escape  # a start need not wait for it

        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>presque</title>'
            "<p>Nothing was taken. A program that asks for this address takes a job off the queue for good, "
            f'so a browser does not get it. <a href="{escape(self.look)}">Look without taking.</a>\n'
        )
        headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
        connection.answer(Answer(page.encode(), 403, headers, "text/html; charset=utf-8"))


class Lease(msgspec.Struct, frozen=True):
    """POST /q/{queues}/lease"""

    request: Request
    common: bool = True

    def serve(self, connection: Answering, body: bytes) -> None:
        call = self.request.call(body)
        call.fields = admit(call.service, call.verb, call.who, call.fields)
        ask, wait = leases.lease_ask(call.fields, call.worker), call.get("wait", 0) / 1000
        if "settle" not in call.fields:
            take = functools.partial(self.take, connection, call.queues, b"")
            self.lease(connection, call.queues, ask, wait, take)
            return
        first = leases.settles(codec.decode_request(call.fields["settle"], leases.SettleRequest, "settle"))
        both = SettleAndLease(self, connection, call.queues)
        leases.settle_all(call.engine, first, call.worker, call.who, functools.partial(both.settled, first))
        if not both.over:
            both.waiter = self.lease(connection, call.queues, ask, wait, both.take)

    def lease(
        self, connection: Answering, queues: QueueList, ask: Ask, wait: float, take: Taker
    ) -> Waiter | None:
        engine = self.request.service.engine
        waiter = leases.lease(engine, queues, ask, wait, take)
        if waiter is not None and not waiter.gone:
            connection.until_left(functools.partial(engine.leave, waiter), always)
        return waiter

    def take(
        self,
        connection: Answering,
        queues: QueueList,
        settled: bytes,
        found: Sequence[Leased] | PresqueError | None,
    ) -> bool:
        if connection.gone:
            return False
        try:
            if isinstance(found, PresqueError):
                connection.answer_error(found)
            elif found or settled:
                answer_json(connection, leases.lease_answer(found or (), settled))
                if found:
                    give_back = self.request.service.engine.give_back
                    connection.unless_taken(functools.partial(give_back, found))
            else:
                connection.spawn(self.answer_nothing(connection, queues))
        except Exception:  # noqa: BLE001  (the last resort)
            connection.broken()
            return False
        return True

    async def answer_nothing(self, connection: Answering, queues: QueueList) -> None:
        stopped = await self.request.service.engine.stopped(queues)
        connection.answer(Answer(status=204, headers=paused(stopped)))


class SettleAndLease(msgspec.Struct):
    """A lease that settles others first.

    Both calls go to the store at once, which carries them out in their order: waiting for the one before
    asking the other would be a turn more for the store and for this process (bench/lease_cpu.py). The answer
    needs both.
    """

    plan: Lease
    connection: Answering
    queues: QueueList
    waiter: Waiter | None = None
    over: bool = False
    """Whether the request is answered: nothing may be given to it any more."""
    answer: bytes | None = None
    """What became of the settles, once that is known."""
    found: tuple[Sequence[Leased] | PresqueError | None] | None = None
    """What the lease brought, if that is known before."""

    def settled(self, first: Sequence[Settle], results: list[Settled] | PresqueError) -> None:
        engine = self.plan.request.service.engine
        try:
            if isinstance(results, PresqueError):
                self.over = True
                if self.waiter is not None:
                    engine.leave(self.waiter)
                self.connection.answer_error(results)
            else:
                self.answer = leases.settled_answer(first, results)
        except Exception:  # noqa: BLE001  (the last resort)
            self.over = True
            self.connection.broken()
        if self.found is not None:
            [found] = self.found
            if not self.take(found) and found and not isinstance(found, PresqueError):
                engine.give_back(found)

    def take(self, found: Sequence[Leased] | PresqueError | None) -> bool:
        if self.over or self.connection.gone:
            return False
        if self.answer is None:
            self.found = (found,)
            return True
        self.over = True
        return self.plan.take(self.connection, self.queues, self.answer, found)


class SettleOne(msgspec.Struct, frozen=True):
    """POST /j/{queue}/{id}/ack, /fail, /release, /extend"""

    request: Request
    common: bool = False  # each job has a path of its own

    def serve(self, connection: Answering, body: bytes) -> None:
        call = self.request.call(body)
        admit(call.service, call.verb, call.who, call.fields)
        one = leases.settle_of(call.verb.name, call.fields)
        call.engine.settle(one, functools.partial(self.settled, connection, one))

    def settled(self, connection: Answering, one: Settle, result: Settled | PresqueError) -> None:
        try:
            if isinstance(result, PresqueError):
                connection.answer_error(result)
                return
            if self.request.worker is not None:
                leases.count(self.request.service.engine, self.request.worker, [one], [result])
            if result.status != 200:
                connection.answer_error(leases.refusal(result.status, one.queue))
                return
            answer_json(connection, codec.encode(leases.told(one, result)))
        except Exception:  # noqa: BLE001  (the last resort)
            connection.broken()


def _named(queue: str) -> bytes:
    return b"Presque-Queue: %b\r\n" % queue.encode()


def paused(stopped: Sequence[str]) -> dict[str, str]:
    """The headers of an answer without jobs: which of the queues are stopped, as many as a head bears."""
    if not stopped:
        return {}
    headers = {"Presque-Paused": ",".join(stopped[:PAUSED_MOST])}
    if len(stopped) > PAUSED_MOST:
        headers["Presque-Paused-More"] = str(len(stopped) - PAUSED_MOST)
    return headers


def answer_json(connection: Answering, body: bytes) -> None:
    """Answer 200 with a JSON document."""
    connection.answer_bytes(
        b"200",
        b"%b%bContent-Length: %d\r\n\r\n%b\n" % (connection.door.ok, connection.closing, len(body) + 1, body),
    )
