"""Every HTTP route but the two that fast.py serves itself, on Starlette.

push and fetch stand here, too, so that the whole door can be read in one table and works behind any ASGI
server; the tests run the same scenarios through both lanes.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from presque import codec, names
from presque.commands import cron as crons
from presque.commands import feed, job, jobs, leases, params, policies, queues, table, workers
from presque.engine.engine import Engine
from presque.engine.lines import Waiter
from presque.engine.replies import traceparent_of
from presque.errors import NotFound, PresqueError
from presque.http import head as heads
from presque.http import problems
from presque.job import Fetched, Leased, PushOptions, Replayed

T = TypeVar("T")

LIFE_MOST = 24 * 3600
WORKER = "x-presque-workerid"
REPLAYED = {"Idempotent-Replayed": "true"}
NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Handler = Callable[["Call"], Awaitable[Response]]
About = Callable[[], dict[str, Any]]


class Call:
    """One request and what its handlers ask of it."""

    def __init__(self, request: Request, about: About) -> None:
        self.request = request
        self.engine: Engine = request.app.state.engine
        self.about = about
        self.fields = heads.fields(request.scope["query_string"].decode("latin-1"))
        self.worker = request.headers.get(WORKER, "").strip(" \t")

    @property
    def queue(self) -> str:
        return names.queue(heads.segment(self.request.path_params["queue"]))

    @property
    def job(self) -> str:
        return names.job(heads.segment(self.request.path_params["id"]))

    @property
    def name(self) -> str:
        return names.queue(heads.segment(self.request.path_params["name"]), "recurring job")

    def push_options(self, known: tuple[str, ...]) -> PushOptions:
        headers = self.request.headers
        options = params.push_options(self.fields, known)
        return params.with_headers(options, headers.get("idempotency-key"), headers.get("traceparent"))

    def no_fields(self) -> None:
        params.only(self.fields, ())


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    body = value if isinstance(value, bytes) else codec.encode(value)
    return Response(body, status, NO_STORE | (headers or {}), "application/json")


def empty(status: int) -> Response:
    """An answer without a body."""
    return Response(None, status, NO_STORE)


async def push(call: Call) -> Response:
    """POST /q/{queue}"""
    options = call.push_options(params.PUSH)
    stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(result: int | PresqueError) -> None:
        if stored.done():  # the server stops, and nobody waits any more
            return
        if isinstance(result, int):
            stored.set_result(result)
        else:
            stored.set_exception(result)

    jobs.push(call.engine, call.queue, await call.request.body(), options, done)
    return _pushed(call.queue, await stored)


async def fetch(call: Call) -> Response:
    """GET /q/{queues}"""
    wanted = names.queue_list(heads.segment(call.request.path_params["queue"]))
    wait, preferred = params.wait(call.fields, call.request.headers.get("prefer"))
    worker = names.worker(call.worker) if call.worker else None
    found: asyncio.Future[Fetched | PresqueError | None] = asyncio.get_running_loop().create_future()

    waiter = jobs.fetch(call.engine, wanted, wait, worker, functools.partial(_take, found))
    fetched = await _unless_gone(call, found, waiter)
    if isinstance(fetched, PresqueError):
        raise fetched
    if fetched is None:
        raise NotFound("no job")
    headers = {"Presque-Queue": fetched.queue, "Presque-Job-Id": fetched.id}
    trace = traceparent_of(fetched.record)
    if trace is not None:
        headers["traceparent"] = trace
    if preferred:
        headers["Preference-Applied"] = f"wait={int(wait)}"
    return answer(fetched.body, 200, headers)


async def put_back(call: Call) -> Response:
    """PUT /q/{queue}"""
    options = call.push_options(params.PUSH)
    worker = names.worker(call.worker) if call.worker else None
    body = await call.request.body()
    return _pushed(call.queue, await jobs.put_back(call.engine, call.queue, body, options, worker))


async def purge(call: Call) -> Response:
    """DELETE /q/{queue}"""
    call.no_fields()
    await queues.purge(call.engine, call.queue)
    return empty(204)


async def fetch_many(call: Call) -> Response:
    """GET /qb/{queue}"""
    params.only(call.fields, ("batch_size",))
    count = params.whole(call.fields, "batch_size", 1, params.BATCH_MOST) or params.BATCH
    worker = names.worker(call.worker) if call.worker else None
    found = await jobs.fetch_many(call.engine, call.queue, count, worker)
    if not found:
        raise NotFound("no job")
    return answer([codec.text(job.body) for job in found])


async def push_many(call: Call) -> Response:
    """POST /qb/{queue}"""
    options = call.push_options(params.PUSH_MANY)
    ids = await jobs.push_many(call.engine, call.queue, await call.request.body(), options)
    headers = REPLAYED if ids and all(isinstance(job_id, Replayed) for job_id in ids) else None
    return answer({"ids": [str(job_id) for job_id in ids], "queue": call.queue}, 201, headers)


async def info(call: Call) -> Response:
    """GET /j/{queue}"""
    if "state" in call.fields:
        return answer(await job.page(call.engine, call.queue, call.fields))
    call.no_fields()
    return answer(await queues.info(call.engine, call.queue))


async def status(call: Call) -> Response:
    """GET /status/"""
    call.no_fields()
    return answer(await queues.status(call.engine))


async def size(call: Call) -> Response:
    """GET /status/{queue}"""
    return answer(await queues.size(call.engine, call.queue, call.fields))


async def started(call: Call) -> Response:
    """GET /control/{queue}"""
    call.no_fields()
    return answer(await queues.started(call.engine, call.queue))


async def control(call: Call) -> Response:
    """POST /control/{queue}"""
    call.no_fields()
    return answer(await queues.control(call.engine, call.queue, await call.request.body()))


async def register(call: Call) -> Response:
    """POST /w/{queue}"""
    call.no_fields()
    await workers.register(call.engine, call.queue, call.worker)
    return empty(201)


async def unregister(call: Call) -> Response:
    """DELETE /w/{queue}"""
    call.no_fields()
    await workers.unregister(call.engine, call.queue, call.worker)
    return empty(204)


async def report(call: Call) -> Response:
    """PUT /w/"""
    call.no_fields()
    return answer(await workers.report(call.engine, call.worker, await call.request.body()))


async def tell_worker(call: Call) -> Response:
    """POST /w/"""
    call.no_fields()
    return answer(await workers.tell(call.engine, await call.request.body()))


async def leave(call: Call) -> Response:
    """DELETE /w/"""
    call.no_fields()
    await workers.leave(call.engine, call.worker)
    return empty(204)


async def show_workers(call: Call) -> Response:
    """GET /w/"""
    return answer(await workers.show(call.engine, call.fields))


async def all_stats(call: Call) -> Response:
    """GET /stats/"""
    call.no_fields()
    return answer(call.about() | await queues.all_stats(call.engine))


async def stats(call: Call) -> Response:
    """GET /stats/{queue}"""
    call.no_fields()
    return answer(await queues.stats(call.engine, call.queue))


async def lease(call: Call) -> Response:
    """POST /q/{queues}/lease"""
    wanted = names.queue_list(heads.segment(call.request.path_params["queue"]))
    request = codec.decode_request(await call.request.body(), leases.LeaseRequest)
    worker = names.worker(call.worker) if call.worker else None
    ask, wait = leases.lease_ask(request, call.fields, worker)
    settled = b""
    if request.settle is not None:
        done = await leases.settle(call.engine, leases.settles(request.settle), worker)
        settled = leases.settled_part(done)
    found: asyncio.Future[list[Leased] | PresqueError | None] = asyncio.get_running_loop().create_future()
    waiter = leases.lease(call.engine, wanted, ask, wait, functools.partial(_take, found))
    jobs_found = await _unless_gone(call, found, waiter)
    if isinstance(jobs_found, PresqueError):
        raise jobs_found
    if not jobs_found and not settled:
        stopped = await call.engine.stopped(wanted)
        return Response(None, 204, NO_STORE | leases.paused(stopped))
    return answer(leases.lease_answer(jobs_found or [], settled))


async def settle(call: Call) -> Response:
    """POST /settle"""
    call.no_fields()
    request = codec.decode_request(await call.request.body(), leases.SettleRequest)
    worker = names.worker(call.worker) if call.worker else None
    return answer({"settled": await leases.settle(call.engine, leases.settles(request), worker)})


def settle_one(verb: str) -> Handler:
    """POST /j/{queue}/{id}/{verb}, with the token in a header, the query or the body."""

    async def handler(call: Call) -> Response:
        body = await call.request.body()
        token = call.request.headers.get("presque-lease")
        one = leases.single(verb, call.queue, call.job, body, call.fields, token)
        worker = names.worker(call.worker) if call.worker else None
        [told] = await leases.settle(call.engine, [one], worker)
        if told["status"] != 200:
            raise leases.refusal(told["status"])
        return answer(told)

    handler.__doc__ = f"POST /j/{{queue}}/{{id}}/{verb}"
    return handler


async def show(call: Call) -> Response:
    """GET /j/{queue}/{id}"""
    return answer(await job.show(call.engine, call.queue, call.job, call.fields))


async def patch(call: Call) -> Response:
    """PATCH /j/{queue}/{id}"""
    call.no_fields()
    return answer(await job.patch(call.engine, call.queue, call.job, await call.request.body()))


async def delete(call: Call) -> Response:
    """DELETE /j/{queue}/{id}"""
    call.no_fields()
    return empty(204 if await job.delete(call.engine, call.queue, call.job) else 202)


async def retry(call: Call) -> Response:
    """POST /j/{queue}/{id}/retry"""
    call.no_fields()
    return answer(await job.retry(call.engine, call.queue, call.job))


async def retry_all(call: Call) -> Response:
    """POST /j/{queue}/retry"""
    call.no_fields()
    return answer(await job.retry_all(call.engine, call.queue, await call.request.body()))


async def explain(call: Call) -> Response:
    """GET /j/{queue}/{id}/explain"""
    call.no_fields()
    return answer(await job.explain(call.engine, call.queue, call.job))


async def policy(call: Call) -> Response:
    """GET /p/{queue}"""
    call.no_fields()
    return answer(await policies.show(call.engine, call.queue))


async def change_policy(call: Call) -> Response:
    """PATCH /p/{queue}"""
    call.no_fields()
    return answer(await policies.change(call.engine, call.queue, await call.request.body()))


async def cron(call: Call) -> Response:
    """GET /cron/{name}"""
    call.no_fields()
    return answer(await crons.show(call.engine, call.name))


async def put_cron(call: Call) -> Response:
    """PUT /cron/{name}"""
    call.no_fields()
    found, new = await crons.put(call.engine, call.name, await call.request.body())
    return answer(found, 201 if new else 200)


async def delete_cron(call: Call) -> Response:
    """DELETE /cron/{name}"""
    call.no_fields()
    await crons.delete(call.engine, call.name)
    return empty(204)


async def all_crons(call: Call) -> Response:
    """GET /cron/"""
    call.no_fields()
    return answer(await crons.show_all(call.engine))


async def commands(call: Call) -> Response:
    """POST /queue"""
    call.no_fields()
    worker = names.worker(call.worker) if call.worker else None
    return answer(await table.run_all(call.engine, await call.request.body(), worker))


async def comet(call: Call) -> Response:
    """GET /c/{queues}"""
    params.only(call.fields, ("wait",))
    wanted = names.queue_list(heads.segment(call.request.path_params["queue"]))
    life = params.seconds(call.fields, "wait", 0, LIFE_MOST)
    worker = names.worker(call.worker) if call.worker else None
    lines = feed.lines(call.engine, wanted, life, worker)
    return StreamingResponse(lines, 200, NO_STORE, "application/x-ndjson")


async def events(call: Call) -> Response:
    """GET /events"""
    params.only(call.fields, ("queues", "jobs"))
    asked = call.fields.get("queues")
    wanted = names.queue_list(asked) if asked else None
    after = call.request.headers.get("last-event-id")
    found = call.request.app.state.feed.events(wanted, after, jobs=params.flag(call.fields, "jobs"))
    return StreamingResponse(found, 200, NO_STORE, "text/event-stream")


# path -> method -> handler. The whole classic surface on one page. problems.is_classic knows which errors
# are written how.
ROUTES: dict[str, dict[str, Handler]] = {
    "/q/{queue}": {"POST": push, "GET": fetch, "PUT": put_back, "DELETE": purge},
    "/qb/{queue}": {"POST": push_many, "GET": fetch_many},
    "/j/{queue}": {"GET": info},
    "/status/": {"GET": status},
    "/status/{queue}": {"GET": size},
    "/control/{queue}": {"GET": started, "POST": control},
    "/w/": {"GET": show_workers, "PUT": report, "POST": tell_worker, "DELETE": leave},
    "/w/{queue}": {"POST": register, "DELETE": unregister},
    "/stats/": {"GET": all_stats},
    "/stats/{queue}": {"GET": stats},
}

# The same for leases, jobs, policies and recurring jobs; their errors are RFC 9457 problems.
JOB_ROUTES: dict[str, dict[str, Handler]] = {
    "/q/{queue}/lease": {"POST": lease},
    "/settle": {"POST": settle},
    "/j/{queue}/retry": {"POST": retry_all},
    "/j/{queue}/{id}": {"GET": show, "PATCH": patch, "DELETE": delete},
    "/j/{queue}/{id}/retry": {"POST": retry},
    "/j/{queue}/{id}/explain": {"GET": explain},
    "/cron/": {"GET": all_crons},
    "/cron/{name}": {"GET": cron, "PUT": put_cron, "DELETE": delete_cron},
    "/p/{queue}": {"GET": policy, "PATCH": change_policy},
    "/j/{queue}/{id}/ack": {"POST": settle_one("ack")},
    "/j/{queue}/{id}/fail": {"POST": settle_one("fail")},
    "/j/{queue}/{id}/release": {"POST": settle_one("release")},
    "/j/{queue}/{id}/extend": {"POST": settle_one("extend")},
}

# Commands and streams; their errors are as on the classic routes.
LIVE_ROUTES: dict[str, dict[str, Handler]] = {
    "/queue": {"POST": commands},
    "/c/{queue}": {"GET": comet},
    "/events": {"GET": events},
}

# A fetch takes a job, so HEAD, which must change nothing (RFC 9110), is not to be had from it; nor from a
# stream, which has no end.
_NO_HEAD = {"/q/{queue}", "/qb/{queue}", "/c/{queue}", "/events"}


def application(engine: Engine, about: About, pages: list[BaseRoute]) -> ASGIApp:
    """The ASGI application. `about` is what /stats/ says of this server; `pages` are the dashboard's."""
    routes: list[BaseRoute] = list(pages)
    for path, methods in (ROUTES | JOB_ROUTES | LIVE_ROUTES).items():
        routes.append(_route(path, path, methods, about))
        if path.endswith("/"):
            routes.append(_route(path.rstrip("/"), path, methods, about))
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _http_error, PresqueError: _error, Exception: _crash},
    )
    app.router.redirect_slashes = False
    app.state.engine = engine
    app.state.feed = feed.Feed(engine)

    async def on_raw_path(scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette would route on the decoded path, where %2F has become a slash.
        if scope["type"] == "http":
            scope["path"] = scope["raw_path"].decode("latin-1")
        await app(scope, receive, send)

    return on_raw_path


def _route(path: str, known_as: str, methods: dict[str, Handler], about: About) -> Route:
    heads_too = "GET" in methods and known_as not in _NO_HEAD
    allowed = sorted([*methods, "HEAD"] if heads_too else methods)

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" and heads_too else request.method
        handler = methods.get(method)
        if handler is None:
            raise HTTPException(405, headers={"Allow": ", ".join(allowed)})
        return await handler(Call(request, about))

    # Starlette is told no methods: it would add HEAD to every GET.
    route = Route(path, endpoint)
    route.methods = set()
    return route


def _pushed(queue: str, job_id: int) -> Response:
    headers = {"Location": f"/j/{queue}/{job_id}"}
    if isinstance(job_id, Replayed):
        headers |= REPLAYED
    return answer({"id": str(job_id), "queue": queue}, 201, headers)


def _take(found: asyncio.Future[T], result: T) -> bool:
    """Give a waiting handler what it waits for; False if it waits no more."""
    if found.done():
        return False
    found.set_result(result)
    return True


async def _unless_gone(call: Call, found: asyncio.Future[T], waiter: Waiter | None) -> T:
    """Wait for the result as long as the client is there; a job must not be taken for one that has gone."""
    gone = asyncio.create_task(_gone(call.request))
    await asyncio.wait((found, gone), return_when=asyncio.FIRST_COMPLETED)
    if waiter is not None:
        call.engine.leave(waiter)
    if gone.done():
        if found.done():
            result = found.result()
            jobs_taken = result if isinstance(result, list) else [result]
            call.engine.give_back([one for one in jobs_taken if isinstance(one, (Fetched, Leased))])
        found.cancel()
        raise NotFound("the client has gone")  # nobody reads it
    gone.cancel()
    return found.result()


async def _gone(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        headers = NO_STORE | {"Allow": allowed}
        text = f"{request.method} is not for this route; it takes {allowed}"
    else:
        headers = NO_STORE
        text = f"there is no route {request.method} {request.scope['path'][:200]}"
    if problems.is_classic(request.scope["path"]):
        return answer({"error": text}, error.status_code, headers)
    body = problems.problem(error.status_code, "no-such-route", text)
    return Response(body, error.status_code, headers, "application/problem+json")


async def _error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PresqueError)
    problems.note(error, request.method, request.scope["path"].split("/")[1])
    classic = problems.is_classic(request.scope["path"])
    return Response(
        problems.body_of(error) if classic else problems.problem_of(error),
        problems.status_of(error),
        NO_STORE | problems.headers_of(error),
        "application/json" if classic else "application/problem+json",
    )


async def _crash(_request: Request, _error: Exception) -> Response:
    return answer({"error": "presque made a mistake; its log says more"}, 500)
