"""From the head of a request to its plan: routes, methods and fields come from the rows of verbs.py.

A route is matched on the raw path: split at `/`, and each part decoded once, so `%2F` is part of a name (and
refused there) and never a second route to the same queue. The fields that the head holds are read here, once
for each head; those of a body when it is there. Hot verbs have plans of their own (plans.py).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from presque import codec, names
from presque.commands import feed, messages
from presque.commands.call import ANYBODY, Reply, Service
from presque.commands.carrying import admit, carry_out
from presque.commands.messages import Asker
from presque.errors import CallerError, PresqueError
from presque.fields import check_together, read_texts
from presque.http import head as heads
from presque.http import plans, streams
from presque.http.answers import Answer
from presque.http.connection import Connection, Plan, Upgraded
from presque.http.gate import Gate
from presque.http.head import Head
from presque.http.problems import MethodNotAllowed, NoName, NoRoute
from presque.http.request import Request
from presque.openapi import document
from presque.verbs import VERBS, WAIT_MOST, Verb

WORKER = "x-presque-workerid"
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?\Z").match
NAMELESS = ("/q", "/qb", "/j", "/control")

Upgrade = Callable[[str, str | None, Mapping[str, str], Mapping[str, str]], tuple[dict[str, str], Upgraded]]
"""Checks a handshake: from its method, queue list, headers and fields to the headers of the answer, and the
protocol that the connection speaks from then on. Raises `CallerError`."""


Found = tuple[Verb, tuple[str, ...]]
"""A verb, and what the parts of the path that are not fixed are called."""


class _Node:
    """One step of a path: what may follow it, and the verbs of each method."""

    __slots__ = ("fixed", "methods", "named")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.named: _Node | None = None
        self.methods: dict[str, list[Found]] = {}


def _tree() -> _Node:
    root = _Node()
    for verb in VERBS.values():
        for route in filter(None, (verb.route, *verb.also)):
            method, path = route.split(" ")
            for spelling in {path, path.rstrip("/")}:
                node, called = root, []
                for part in spelling.split("/")[1:]:
                    if part.startswith("{"):
                        called.append(part[1:-1])
                        node.named = node = node.named or _Node()
                    else:
                        node = node.fixed.setdefault(part, _Node())
                for one in (method, "HEAD") if verb.reads else (method,):
                    # One that a parameter chooses stands before the one that needs none.
                    others = node.methods.setdefault(one, [])
                    others.insert(0 if verb.when else len(others), (verb, tuple(called)))
    return root


_ROOT = _tree()


Handler = Callable[[Request, bytes], Awaitable[Answer]]


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


class Planner:
    """Works out what the head of a request asks for. What all requests of one server share."""

    def __init__(
        self,
        service: Service,
        gate: Gate,
        pages: Mapping[str, Page],
        max_body: int,
        upgrade: Upgrade | None = None,
    ) -> None:
        self._service = service
        self._feed = feed.Feed(service.engine)
        self._gate = gate
        self._pages = pages
        self._max_body = max_body
        self._upgrade = upgrade
        self._openapi = codec.encode(document()) + b"\n"

    def __call__(self, head: Head) -> Plan:
        """The plan of a request. Raises `PresqueError` for one that is wrong."""
        self._gate.check(head.method, head.path, head.headers)
        page = self._pages.get(head.path)
        if page is not None:
            return _of_page(page, head)
        raw = head.path.split("/")
        if raw[1:2] == ["ws"] and self._upgrade is not None and len(raw) <= 3:
            if not head.upgrade:
                raise CallerError("this needs a WebSocket: does the proxy pass Upgrade?")
            name = heads.segment(raw[2]) if raw[2:] and raw[2] else None
            return Switch(functools.partial(self._upgrade, head.method, name, head.headers), head.query)
        query = heads.fields(head.query)
        verb, path = _find(head, raw, query)
        if verb.takes and head.headers.get("sec-fetch-mode") == "navigate":
            html = "text/html" in head.headers.get("accept", "")
            return plans.Browsed(_shown_at(next(iter(path.values()))), html)
        fields = _fields_of_head(verb, path, query, head.headers)
        worker = head.headers.get(WORKER)
        request = Request(self._service, verb, ANYBODY, fields, names.worker(worker) if worker else None)
        if verb.name == "push_many" and _kind_of(head) == streams.LINES:
            return plans.PushLines(request, self._max_body)
        hot = _HOT.get(verb.name)
        if hot is not None:
            return hot(request, head)
        if verb.body != "fields" and verb.body != "raw":
            check_together(verb.fields, fields)
        special: dict[str, Handler] = {
            "commands": _commands,
            "stream": self._stream,
            "events": self._events,
            "openapi": self._describe,
        }
        return Slow(request, special.get(verb.name, _carry))

    async def _stream(self, request: Request, _body: bytes) -> Answer:
        """GET /c/{queues}"""
        admit(request.service, request.verb, request.who, request.fields)
        wait = request.fields.get("wait")
        life = None if wait is None else wait / 1000
        engine = request.service.engine
        return streams.lines(feed.lines(engine, request.fields["queues"], life, request.worker))

    async def _events(self, request: Request, _body: bytes) -> Answer:
        """GET /events"""
        admit(request.service, request.verb, request.who, request.fields)
        wanted, jobs = request.fields.get("queues"), request.fields.get("jobs", False)
        return await streams.events(self._feed.events(wanted, request.fields.get("last_event_id"), jobs=jobs))

    async def _describe(self, _request: Request, _body: bytes) -> Answer:
        """GET /openapi.json"""
        return Answer(self._openapi)


def _find(head: Head, raw: list[str], query: Mapping[str, str]) -> tuple[Verb, dict[str, str]]:
    """The verb that a request asks for, and what its path says, decoded."""
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
        if (head.method, *raw[1:2]) == ("PUT", "qb"):
            raise CallerError("PUT is not supported in batch mode")  # as in 2010
        raise MethodNotAllowed(head.method, node.methods)
    candidates = node.methods[head.method]
    verb, called = next(one for one in candidates if one[0].when is None or one[0].when in query)
    return verb, {name: heads.segment(part) for name, part in zip(called, found, strict=True)}


def _fields_of_head(
    verb: Verb, path: Mapping[str, str], query: Mapping[str, str], headers: Mapping[str, str]
) -> dict[str, Any]:
    """All fields that the head holds, typed."""
    fields = {name: verb.fields[name].read_text(text) for name, text in path.items() if name in verb.fields}
    fields |= read_texts(verb.parameters, query)
    for name, field in verb.headers.items():
        if name in headers:
            if field.name in fields:
                raise CallerError(f"`{field.name}` is given twice: give it in {field.header} or in the query")
            fields[field.name] = field.read_text(headers[name])
    return fields


# --- what is not hot


@dataclass(frozen=True, slots=True)
class Slow:
    """The plan of every verb that is not hot: a task carries it out."""

    request: Request
    handler: Handler

    @property
    def common(self) -> bool:
        return "id" not in self.request.fields

    def serve(self, connection: Connection, body: bytes) -> None:
        if body and self.request.verb.takes:
            raise CallerError(plans.GET_TAKES)
        connection.spawn(self.answer(connection, body), functools.partial(_waits, self.request, body))

    async def answer(self, connection: Connection, body: bytes) -> None:
        answer = await self.handler(self.request, body)
        if isinstance(answer.body, bytes):
            connection.answer(answer)
        else:
            await connection.stream(answer)


async def _carry(request: Request, body: bytes) -> Answer:
    return answer_of(request.verb, await carry_out(request.call(body)))


async def _commands(request: Request, body: bytes) -> Answer:
    """POST /queue"""
    request.service.counts[request.verb.name] += 1
    answers = await messages.run_all(Asker(request.service, request.who, request.worker), body)
    return Answer(answers + b"\n")


def answer_of(verb: Verb, reply: Reply) -> Answer:
    """A reply as HTTP says it."""
    status = reply.status or verb.status
    if verb.answers == "nothing" or status == 204:
        return Answer(status=status, headers=reply.headers)
    body = reply.body if reply.classic is None else reply.classic
    return Answer(body + b"\n", status, reply.headers)


class _Wait(codec.Struct):
    wait: Any = 0


def _waits(request: Request, body: bytes) -> bool:
    """Whether the request may wait: a client that closes its sending side meanwhile has left."""
    if request.verb.name != "commands":
        return bool(request.fields.get("wait"))
    kind: Any = list[_Wait] if body.lstrip().startswith(b"[") else _Wait
    try:
        found = codec.decode_request(body, kind)
    except PresqueError:
        return False
    return any(one.wait for one in (found if isinstance(found, list) else [found]))


@dataclass(frozen=True, slots=True)
class Switch:
    """The plan of a handshake: from then on the connection speaks WebSocket."""

    upgrade: Callable[[Mapping[str, str]], tuple[dict[str, str], Upgraded]]
    query: str
    common: bool = False

    def serve(self, connection: Connection, _body: bytes) -> None:
        headers, protocol = self.upgrade(heads.fields(self.query))
        connection.upgrade(headers, protocol)


@dataclass(frozen=True, slots=True)
class OfPage:
    """The plan of a file for browsers."""

    page: Page
    known: bool
    common: bool = True

    def serve(self, connection: Connection, _body: bytes) -> None:
        page = self.page
        if self.known:
            connection.answer(Answer(status=304, headers=page.headers))
        else:
            connection.answer(Answer(page.content, headers=page.headers, kind=page.kind))


def _of_page(page: Page, head: Head) -> Plan:
    if head.method not in ("GET", "HEAD"):
        raise MethodNotAllowed(head.method, ("GET", "HEAD"))
    read_texts({}, heads.fields(head.query))  # a page takes no parameters
    return OfPage(page, head.headers.get("if-none-match") == page.tag)


def _kind_of(head: Head) -> str:
    """The media type of a body, without its parameters."""
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def _shown_at(queues: str) -> str:
    """Where a person sees the jobs of a queue, or of all queues if several are meant, without taking any."""
    single = names.queue_list(queues).single
    return "/" if single is None else f"/status/{single}?with_desc=1"


# --- what is hot


def _push(request: Request, _head: Head) -> Plan:
    check_together(request.verb.fields, request.fields)
    return plans.Push.of(request)


def _fetch(request: Request, head: Head) -> Plan:
    return plans.Fetch.of(request, preferred_wait(head.headers.get("prefer")))


def _lease(request: Request, _head: Head) -> Plan:
    return plans.Lease(request)


def _settle_one(request: Request, _head: Head) -> Plan:
    return plans.SettleOne(request)


_HOT: dict[str, Callable[[Request, Head], Plan]] = {
    "push": _push,
    "fetch": _fetch,
    "lease": _lease,
    "ack": _settle_one,
    "fail": _settle_one,
    "release": _settle_one,
    "extend": _settle_one,
}
"""What clients do thousands of times a second, and what makes its plan."""


def preferred_wait(prefer: str | None) -> float | None:
    """For how many seconds a `Prefer` header asks to wait; None if it does not.

    A preference is a wish (RFC 7240), so one beyond the bound is cut down and an unreadable one ignored.
    """
    for part in (prefer or "").split(","):
        name, _, text = part.partition("=")
        seconds = text.strip().strip('"')
        if name.strip().lower() == "wait" and _NUMBER(seconds):
            return min(float(seconds), WAIT_MOST)
    return None
