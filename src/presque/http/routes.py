"""Every route of presque, in one table, and the planner that looks them up.

A route is matched on the raw path: split at `/`, and each part decoded once, so `%2F` is part of a name (and
refused there) and never a second route to the same queue. A handler is `async (Call) -> Answer`; the hot
verbs have plans instead (plans.py).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from presque import codec, names
from presque.commands import cron as crons
from presque.commands import feed, job, jobs, params, policies, queues, table, workers
from presque.engine.engine import Engine
from presque.errors import CallerError, NoJob, PresqueError
from presque.http import head as heads
from presque.http import plans, streams
from presque.http.answers import Answer
from presque.http.connection import Connection, Plan, Upgraded
from presque.http.gate import Gate
from presque.http.head import Head
from presque.http.problems import MethodNotAllowed, NoName, NoRoute
from presque.http.streams import LINES
from presque.job import PushOptions, Replayed
from presque.names import QueueList

T = TypeVar("T")

LIFE_MOST = 24 * 3600
WORKER = "x-presque-workerid"
REPLAYED = {"Idempotent-Replayed": "true"}

About = Callable[[], dict[str, Any]]
Upgrade = Callable[[str, str | None, Mapping[str, str], Mapping[str, str]], tuple[dict[str, str], Upgraded]]
"""Checks a handshake: from its method, queue list, headers and fields to the headers of the answer, and the
protocol that the connection speaks from then on. Raises `CallerError`."""


class Page(Protocol):
    """A file for browsers."""

    @property
    def kind(self) -> str: ...

    @property
    def content(self) -> bytes: ...

    @property
    def tag(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One request and what its handler needs. What its path names has been checked."""

    engine: Engine
    server: Planner
    headers: Mapping[str, str]
    fields: Mapping[str, str]
    worker: str | None
    path: Mapping[str, Any]
    body: bytes

    @property
    def queue(self) -> str:
        return str(self.path["queue"])

    @property
    def queues(self) -> QueueList:
        found: QueueList = self.path["queues"]
        return found

    @property
    def id(self) -> str:
        return str(self.path["id"])

    def push_options(self, known: tuple[str, ...]) -> PushOptions:
        """How a job is to be stored."""
        options = params.push_options(self.fields, known)
        return params.with_headers(
            options, self.headers.get("idempotency-key"), self.headers.get("traceparent")
        )

    def no_fields(self) -> None:
        """Raise unless the query is empty."""
        params.only(self.fields, ())

    def no_body(self) -> None:
        """Raise for a request that would take jobs and brings something: it was meant to push."""
        if self.body:
            raise CallerError(plans.GET_TAKES)


Handler = Callable[[Call], Coroutine[Any, Any, Answer]]
Maker = Callable[[Call], Plan]


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """A JSON answer."""
    text = value if isinstance(value, bytes) else codec.encode(value)
    return Answer(text + b"\n", status, headers or {})


async def put_back(call: Call) -> Answer:
    """PUT /q/{queue}"""
    options = call.push_options(params.PUSH)
    job_id = await jobs.put_back(call.engine, call.queue, call.body, options, call.worker)
    headers = {"Location": f"/j/{call.queue}/{job_id}"}
    if isinstance(job_id, Replayed):
        headers |= REPLAYED
    return answer({"id": str(job_id), "queue": call.queue}, 201, headers)


async def purge(call: Call) -> Answer:
    """DELETE /q/{queue}"""
    call.no_fields()
    await queues.purge(call.engine, call.queue)
    return Answer(status=204)


async def fetch_many(call: Call) -> Answer:
    """GET /qb/{queue}"""
    call.no_body()
    params.only(call.fields, ("batch_size",))
    count = params.whole(call.fields, "batch_size", 1, params.BATCH_MOST) or params.BATCH
    found = await _unless_left(
        jobs.fetch_many(call.engine, call.queue, count, call.worker), call.engine.give_back
    )
    if not found:
        raise NoJob
    return answer([codec.text(one.body) for one in found])


async def push_listed(call: Call) -> Answer:
    """POST /qb/{queue}"""
    options = call.push_options(params.PUSH_MANY)
    ids = await jobs.push_many(call.engine, call.queue, call.body, options)
    headers = REPLAYED if ids and all(isinstance(job_id, Replayed) for job_id in ids) else None
    return answer({"ids": [str(job_id) for job_id in ids], "queue": call.queue}, 201, headers)


async def no_put_back_of_many(_call: Call) -> Answer:
    """PUT /qb/{queue}"""
    raise CallerError("PUT is not supported in batch mode")


async def info(call: Call) -> Answer:
    """GET /j/{queue}"""
    if "state" in call.fields:
        return answer(await job.page(call.engine, call.queue, call.fields))
    call.no_fields()
    return answer(await queues.info(call.engine, call.queue))


async def status(call: Call) -> Answer:
    """GET /status/"""
    call.no_fields()
    return answer(await queues.status(call.engine))


async def size(call: Call) -> Answer:
    """GET /status/{queue}"""
    return answer(await queues.size(call.engine, call.queue, call.fields))


async def started(call: Call) -> Answer:
    """GET /control/{queue}"""
    call.no_fields()
    return answer(await queues.started(call.engine, call.queue))


async def control(call: Call) -> Answer:
    """POST /control/{queue}"""
    call.no_fields()
    if not call.body.strip():
        raise CallerError("content is missing")
    return answer(await queues.control(call.engine, call.queue, call.body))


async def register(call: Call) -> Answer:
    """POST /w/{queue}"""
    call.no_fields()
    await workers.register(call.engine, call.queue, call.worker)
    return Answer(status=201)


async def unregister(call: Call) -> Answer:
    """DELETE /w/{queue}"""
    call.no_fields()
    await workers.unregister(call.engine, call.queue, call.worker)
    return Answer(status=204)


async def report(call: Call) -> Answer:
    """PUT /w/"""
    call.no_fields()
    return answer(await workers.report(call.engine, call.worker, call.body))


async def tell_worker(call: Call) -> Answer:
    """POST /w/"""
    call.no_fields()
    return answer(await workers.tell(call.engine, call.body))


async def leave(call: Call) -> Answer:
    """DELETE /w/"""
    call.no_fields()
    await workers.leave(call.engine, call.worker)
    return Answer(status=204)


async def show_workers(call: Call) -> Answer:
    """GET /w/"""
    return answer(await workers.show(call.engine, call.fields))


async def all_stats(call: Call) -> Answer:
    """GET /stats/"""
    call.no_fields()
    return answer(call.server.about() | await queues.all_stats(call.engine))


async def stats(call: Call) -> Answer:
    """GET /stats/{queue}"""
    call.no_fields()
    return answer(await queues.stats(call.engine, call.queue))


async def show(call: Call) -> Answer:
    """GET /j/{queue}/{id}"""
    return answer(await job.show(call.engine, call.queue, call.id, call.fields))


async def patch(call: Call) -> Answer:
    """PATCH /j/{queue}/{id}"""
    call.no_fields()
    return answer(await job.patch(call.engine, call.queue, call.id, call.body))


async def delete(call: Call) -> Answer:
    """DELETE /j/{queue}/{id}"""
    call.no_fields()
    return Answer(status=204 if await job.delete(call.engine, call.queue, call.id) else 202)


async def retry(call: Call) -> Answer:
    """POST /j/{queue}/{id}/retry"""
    call.no_fields()
    return answer(await job.retry(call.engine, call.queue, call.id))


async def retry_all(call: Call) -> Answer:
    """POST /j/{queue}/retry"""
    call.no_fields()
    return answer(await job.retry_all(call.engine, call.queue, call.body))


async def explain(call: Call) -> Answer:
    """GET /j/{queue}/{id}/explain"""
    call.no_fields()
    return answer(await job.explain(call.engine, call.queue, call.id))


async def policy(call: Call) -> Answer:
    """GET /p/{queue}"""
    call.no_fields()
    return answer(await policies.show(call.engine, call.queue))


async def change_policy(call: Call) -> Answer:
    """PATCH /p/{queue}"""
    call.no_fields()
    return answer(await policies.change(call.engine, call.queue, call.body))


async def cron(call: Call) -> Answer:
    """GET /cron/{name}"""
    call.no_fields()
    return answer(await crons.show(call.engine, call.path["name"]))


async def put_cron(call: Call) -> Answer:
    """PUT /cron/{name}"""
    call.no_fields()
    found, new = await crons.put(call.engine, call.path["name"], call.body)
    return answer(found, 201 if new else 200)


async def delete_cron(call: Call) -> Answer:
    """DELETE /cron/{name}"""
    call.no_fields()
    await crons.delete(call.engine, call.path["name"])
    return Answer(status=204)


async def all_crons(call: Call) -> Answer:
    """GET /cron/"""
    return answer(await crons.page(call.engine, call.fields))


async def run_cron(call: Call) -> Answer:
    """POST /cron/{name}/run"""
    call.no_fields()
    pushed = await crons.run(call.engine, call.path["name"])
    return answer(pushed, 201, {"Location": f"/j/{pushed['queue']}/{pushed['id']}"})


async def pause_cron(call: Call) -> Answer:
    """POST /cron/{name}/pause"""
    call.no_fields()
    return answer(await crons.pause(call.engine, call.path["name"]))


async def resume_cron(call: Call) -> Answer:
    """POST /cron/{name}/resume"""
    call.no_fields()
    return answer(await crons.resume(call.engine, call.path["name"]))


async def commands(call: Call) -> Answer:
    """POST /queue"""
    call.no_fields()
    return answer(await table.run_all(call.engine, call.body, call.worker))


async def comet(call: Call) -> Answer:
    """GET /c/{queues}"""
    call.no_body()
    params.only(call.fields, ("wait",))
    life = params.seconds(call.fields, "wait", 0, LIFE_MOST)
    return streams.lines(feed.lines(call.engine, call.queues, life, call.worker))


async def events(call: Call) -> Answer:
    """GET /events"""
    params.only(call.fields, ("queues", "jobs"))
    asked = call.fields.get("queues")
    wanted = names.queue_list(asked) if asked else None
    with_jobs = params.flag(call.fields, "jobs")
    after = call.headers.get("last-event-id")
    return streams.events(call.server.feed.events(wanted, after, jobs=with_jobs))


# --- the hot verbs ----------------------------------------------------------------------------------


def push(call: Call) -> Plan:
    """POST /q/{queue}"""
    plain = params.push_options(call.fields)
    options = call.push_options(params.PUSH)
    return plans.Push(call.engine, call.queue, options, call.queue.encode(), common=options == plain)


def push_many(call: Call) -> Plan:
    """POST /qb/{queue}"""
    options = call.push_options(params.PUSH_MANY)
    kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == LINES:
        return plans.PushLines(call.engine, call.queue, options, call.server.max_body)
    return Slow(push_listed, None, call)


def fetch(call: Call) -> Plan:
    """GET /q/{queues}"""
    wait, preferred = params.wait(call.fields, call.headers.get("prefer"))
    extra = b"Preference-Applied: wait=%d\r\n" % wait if preferred else b""
    return plans.Fetch(call.engine, call.queues, wait, call.worker, extra)


def lease(call: Call) -> Plan:
    """POST /q/{queues}/lease"""
    return plans.Lease(call.engine, call.queues, call.fields, call.worker)


def settle(call: Call) -> Plan:
    """POST /settle"""
    call.no_fields()
    return plans.SettleMany(call.engine, call.worker)


def settle_one(verb: str) -> Maker:
    """POST /j/{queue}/{id}/{verb}, with the token in a header, the query or the body."""

    def maker(call: Call) -> Plan:
        token = call.headers.get("presque-lease")
        return plans.SettleOne(call.engine, verb, call.queue, call.id, token, call.fields, call.worker)

    maker.__doc__ = f"POST /j/{{queue}}/{{id}}/{verb}"
    return maker


@dataclass(frozen=True, slots=True)
class Route:
    """What one method of one path does: a handler, or for a hot verb what makes its plan."""

    handler: Handler | None = None
    maker: Maker | None = None
    waits: Callable[[Call], bool] | None = None
    """Whether a request may wait for something: its client has left when it closes its sending side."""
    takes: bool = False
    """Whether a GET takes jobs: HEAD, which must change nothing (RFC 9110), is not to be had, and a browser
    that opens the address gets none."""
    endless: bool = False
    """Whether the answer has no end, so that HEAD is not to be had."""
    refused: bool = False
    """Whether it stands here for its error alone."""


def _hot(maker: Maker, *, takes: bool = False) -> Route:
    return Route(maker=maker, takes=takes)


def _asks_to_wait(call: Call) -> bool:
    return "wait" in call.fields


class _Wait(codec.Struct):
    wait: Any = 0


def _command_waits(call: Call) -> bool:
    """Whether one of the commands asks to wait."""
    kind: Any = list[_Wait] if call.body.lstrip().startswith(b"[") else _Wait
    try:
        found = codec.decode_request(call.body, kind)
    except PresqueError:
        return False
    return any(one.wait for one in (found if isinstance(found, list) else [found]))


# path -> method -> route. The whole surface on one page. problems.is_classic knows which errors are written
# how. A GET answers HEAD, too, but where it takes jobs and where it has no end.
ROUTES: dict[str, dict[str, Route]] = {
    "/q/{queue}": {"POST": _hot(push), "PUT": Route(put_back), "DELETE": Route(purge)},
    "/q/{queues}": {"GET": _hot(fetch, takes=True)},
    "/qb/{queue}": {"POST": _hot(push_many), "GET": Route(fetch_many, takes=True)},
    "/j/{queue}": {"GET": Route(info)},
    "/status/": {"GET": Route(status)},
    "/status/{queue}": {"GET": Route(size)},
    "/control/{queue}": {"GET": Route(started), "POST": Route(control)},
    "/w/": {
        "GET": Route(show_workers),
        "PUT": Route(report),
        "POST": Route(tell_worker),
        "DELETE": Route(leave),
    },
    "/w/{queue}": {"POST": Route(register), "DELETE": Route(unregister)},
    "/stats/": {"GET": Route(all_stats)},
    "/stats/{queue}": {"GET": Route(stats)},
    "/q/{queues}/lease": {"POST": _hot(lease)},
    "/settle": {"POST": _hot(settle)},
    "/j/{queue}/retry": {"POST": Route(retry_all)},
    "/j/{queue}/{id}": {
        "GET": Route(show, waits=_asks_to_wait),
        "PATCH": Route(patch),
        "DELETE": Route(delete),
    },
    "/j/{queue}/{id}/retry": {"POST": Route(retry)},
    "/j/{queue}/{id}/explain": {"GET": Route(explain)},
    "/j/{queue}/{id}/ack": {"POST": _hot(settle_one("ack"))},
    "/j/{queue}/{id}/fail": {"POST": _hot(settle_one("fail"))},
    "/j/{queue}/{id}/release": {"POST": _hot(settle_one("release"))},
    "/j/{queue}/{id}/extend": {"POST": _hot(settle_one("extend"))},
    "/cron/": {"GET": Route(all_crons)},
    "/cron/{name}": {"GET": Route(cron), "PUT": Route(put_cron), "DELETE": Route(delete_cron)},
    "/cron/{name}/run": {"POST": Route(run_cron)},
    "/cron/{name}/pause": {"POST": Route(pause_cron)},
    "/cron/{name}/resume": {"POST": Route(resume_cron)},
    "/p/{queue}": {"GET": Route(policy), "PATCH": Route(change_policy)},
    "/queue": {"POST": Route(commands, waits=_command_waits)},
    "/c/{queues}": {"GET": Route(comet, takes=True)},
    "/events": {"GET": Route(events, endless=True)},
}

# What clients of 2010 ask for: it is answered as then, and no method for others.
OLD_ROUTES: dict[str, dict[str, Route]] = {
    "/qb/{queue}": {"PUT": Route(no_put_back_of_many, refused=True)},
    "/w/{anything}": {"GET": Route(show_workers)},
}
NAMELESS = ("/q", "/qb", "/j", "/control")

# Parameters of 2010 that were sent empty when they were not meant.
OFTEN_EMPTY = ("delayed", "uniq", "batch_size", "with_desc", "worker_id")

_READ: dict[str, Callable[[str], Any]] = {
    "queue": names.queue,
    "queues": names.queue_list,
    "id": names.job,
    "name": lambda text: names.queue(text, "recurring job"),
    "anything": str,
}


class _Node:
    """One step of a path: what may follow it."""

    __slots__ = ("fixed", "methods", "named")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.named: _Node | None = None
        self.methods: dict[str, tuple[Route, tuple[str, ...]]] = {}


def _tree() -> _Node:
    root = _Node()
    for path, methods in (*OLD_ROUTES.items(), *ROUTES.items()):
        for spelling in {path, path.rstrip("/")}:
            node, called = root, []
            for part in spelling.split("/")[1:]:
                if part.startswith("{"):
                    called.append(part[1:-1])
                    node.named = node = node.named or _Node()
                else:
                    node = node.fixed.setdefault(part, _Node())
            for method, route in methods.items():
                node.methods[method] = route, tuple(called)
                if method == "GET" and not (route.takes or route.endless):
                    node.methods["HEAD"] = route, tuple(called)
    return root


_ROOT = _tree()


class Planner:
    """Works out what the head of a request asks for. What all requests of one server share."""

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        about: About,
        pages: Mapping[str, Page],
        max_body: int,
        upgrade: Upgrade | None = None,
    ) -> None:
        self.about = about
        self.max_body = max_body
        self.feed = feed.Feed(engine)
        self._engine = engine
        self._gate = gate
        self._pages = pages
        self._upgrade = upgrade

    def __call__(self, head: Head) -> Plan:
        """The plan of a request. Raises `PresqueError` for one that is wrong."""
        self._gate.check(head.method, head.path, head.headers)
        page = self._pages.get(head.path)
        if page is not None:
            if head.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(head.method, ("GET", "HEAD"))
            return Slow(_page(page, head.headers.get("if-none-match")), None, self._call(head, {}))
        raw = head.path.split("/")
        if raw[1:2] == ["ws"] and self._upgrade is not None and len(raw) <= 3:
            if not head.upgrade:
                raise CallerError("this needs a WebSocket: does the proxy pass Upgrade?")
            name = heads.segment(raw[2]) if raw[2:] and raw[2] else None
            return Switch(functools.partial(self._upgrade, head.method, name, head.headers), head.query)
        if head.path.rstrip("/") in NAMELESS:
            raise NoName
        node, found = _ROOT, []
        for part in raw[1:]:
            if (fixed := node.fixed.get(part)) is not None:
                node = fixed
            elif node.named is not None and part:
                node = node.named
                found.append(part)
            else:
                raise NoRoute(head.method, head.path)
        if not node.methods:
            raise NoRoute(head.method, head.path)
        if head.method not in node.methods:
            taken = (method for method, (route, _) in node.methods.items() if not route.refused)
            raise MethodNotAllowed(head.method, taken)
        route, called = node.methods[head.method]
        if route.takes and head.headers.get("sec-fetch-mode") == "navigate":
            html = "text/html" in head.headers.get("accept", "")
            return plans.Browsed(_shown_at(heads.segment(found[0])), html)
        path = {name: _READ[name](heads.segment(part)) for name, part in zip(called, found, strict=True)}
        call = self._call(head, path)
        if route.maker is not None:
            return route.maker(call)
        assert route.handler is not None
        return Slow(route.handler, route.waits, call)

    def _call(self, head: Head, path: Mapping[str, Any]) -> Call:
        worker = head.headers.get(WORKER)
        fields = heads.fields(head.query)
        if "" in fields.values():
            fields = {name: text for name, text in fields.items() if text or name not in OFTEN_EMPTY}
        return Call(
            self._engine,
            self,
            head.headers,
            fields,
            names.worker(worker) if worker else None,
            path,
            b"",
        )


@dataclass(frozen=True, slots=True)
class Slow:
    """The plan of every route that is not hot: a task runs its handler."""

    handler: Handler
    waits: Callable[[Call], bool] | None
    call: Call

    @property
    def common(self) -> bool:
        return "id" not in self.call.path

    def serve(self, connection: Connection, body: bytes) -> None:
        asked = self.call
        call = Call(asked.engine, asked.server, asked.headers, asked.fields, asked.worker, asked.path, body)
        waits = None if self.waits is None else functools.partial(self.waits, call)
        connection.spawn(self.carry_out(connection, call), waits)

    async def carry_out(self, connection: Connection, call: Call) -> None:
        answer = await self.handler(call)
        if isinstance(answer.body, bytes):
            connection.answer(answer)
        else:
            await connection.stream(answer)


@dataclass(frozen=True, slots=True)
class Switch:
    """The plan of a handshake: from then on the connection speaks WebSocket."""

    upgrade: Callable[[Mapping[str, str]], tuple[dict[str, str], Upgraded]]
    query: str
    common: bool = False

    def serve(self, connection: Connection, _body: bytes) -> None:
        headers, protocol = self.upgrade(heads.fields(self.query))
        connection.upgrade(headers, protocol)


def _page(page: Page, known: str | None) -> Handler:
    async def handler(call: Call) -> Answer:
        call.no_fields()
        if known == page.tag:
            return Answer(status=304, headers=page.headers)
        return Answer(page.content, headers=page.headers, kind=page.kind)

    return handler


def _shown_at(queues: str) -> str:
    """Where a person sees the jobs of a queue, or of all queues if several are meant, without taking any."""
    single = names.queue_list(queues).single
    return "/" if single is None else f"/status/{single}?with_desc=1"


async def _unless_left(work: Awaitable[T], give_back: Callable[[T], object]) -> T:
    """What `work` brings. If the client leaves meanwhile it is given back when it comes."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            task.add_done_callback(lambda done: None if done.exception() else give_back(done.result()))
        raise
