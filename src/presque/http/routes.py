"""From the head of a request to its plan: routes, methods and fields come from the rows in verbs/.

A route is matched on the raw path: split at `/`, and each part decoded once, so `%2F` is part of a name (and
refused there) and never a second route to the same queue. The fields that the head holds are read here, once
for each head; those of a body when it is there. Hot verbs have plans of their own (plans.py).
"""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import msgspec

from presque import codec, names
from presque.commands import exporting, feed, messages
from presque.commands.call import Reply, Service
from presque.commands.carrying import admit, carry_out
from presque.commands.messages import Asker, Handshake
from presque.commands.times import moment
from presque.commands.tokens import end_session, session
from presque.commands.who import ANYBODY, NOBODY, OF_LINKS, Who
from presque.errors import CallerError, PresqueError, Refused, UnknownParameter
from presque.fields import check_together, read_texts
from presque.http import credentials, plans, streams
from presque.http import head as heads
from presque.http.answering import Answering
from presque.http.answers import Answer
from presque.http.door import Upgraded
from presque.http.gate import Gate
from presque.http.head import Head
from presque.http.plan import Namespace, Plan, Upload
from presque.http.problems import MethodNotAllowed, NoName, NoRoute
from presque.http.proxies import Client
from presque.http.request import Request
from presque.job import Fetched
from presque.verbs import VERBS
from presque.verbs.bounds import WAIT_MOST
from presque.verbs.verb import Verb

WORKER = "x-presque-workerid"
NAMESPACE = "presque-namespace"
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?\Z").match
OF_ANYBODY_BYTES = 16 * 1024
NAMELESS = ("/q", "/qb", "/j", "/control")

Upgrade = Callable[[Handshake], tuple[dict[str, str], Upgraded]]
"""Checks a handshake: the headers of the answer, and the protocol that the connection speaks from then on.
Raises `CallerError`."""


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
_OPEN = frozenset(verb.path for verb in VERBS.values() if verb.open)


Handler = Callable[[Request, bytes, str], Awaitable[Answer]]
"""Answers a request with this body from this address."""


class Page(Protocol):
    """A file for browsers."""

    @property
    def kind(self) -> str: ...

    @property
    def content(self) -> bytes: ...

    @property
    def packed(self) -> bytes: ...

    @property
    def tag(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def under(self, prefix: str) -> Page: ...


class Planner:
    """Works out what the head of a request asks for. What all requests of one server share."""

    def __init__(
        self,
        service: Service,
        gate: Gate,
        pages: Callable[[], Mapping[str, Page]],
        max_body: int,
        upgrade: Upgrade | None = None,
    ) -> None:
        self._service = service
        self._feeds: weakref.WeakKeyDictionary[Service, feed.Feed] = weakref.WeakKeyDictionary()
        self._gate = gate
        self._pages = pages
        self._max_body = max_body
        self._upgrade = upgrade

    def __call__(self, head: Head, client: Client) -> Plan:
        """The plan of a request from this client. Raises `PresqueError` for one that is wrong."""
        if head.path not in _OPEN:
            self._gate.check(head.method, head.path, head.headers, client)
        allowed = self._gate.preflight(head.method, head.headers)
        if allowed is not None:
            return Allowed(allowed)
        if head.path == "/" or head.path.startswith("/static/"):
            page = self._pages().get(head.path)
            if page is not None:
                return _of_page(page.under(client.prefix), head)
        raw = head.path.split("/")
        query: Mapping[str, str] = heads.fields(head.query)
        credentials.refuse_in_query(query)
        if raw[1:2] == ["ws"] and self._upgrade is not None and len(raw) <= 3:
            return self._switch(self._upgrade, head, raw, query, client)
        verb, path = _find(head, raw, query)
        if not verb.reads:
            self._gate.check_change(head.headers)
        who, query = self._who(verb, head, query, client)
        service = self._service.of(who)
        if verb.takes and head.headers.get("sec-fetch-mode") == "navigate":
            html = "text/html" in head.headers.get("accept", "")
            return plans.Browsed(client.prefix + _shown_at(next(iter(path.values()))), html)
        fields = _fields_of_head(verb, path, query, head.headers)
        worker = head.headers.get(WORKER)
        named = names.worker(worker) if worker else None
        request = Request(service, verb, who, fields, named, client.prefix)
        plan = self._plan(request, head, client)
        return _of_one_address(plan) if who.bound_to_networks else plan

    def _plan(self, request: Request, head: Head, client: Client) -> Plan:
        verb = request.verb
        if verb.name == "push_many" and _kind_of(head) == streams.LINES:
            return plans.PushLines(request, self._max_body)
        hot = _HOT.get(verb.name)
        if hot is not None:
            return hot(request, head)
        if verb.body != "fields" and verb.body != "raw":
            check_together(verb.fields, request.fields)
        special: dict[str, Handler] = {
            "commands": _commands,
            "stream": self._stream,
            "events": self._events,
            "export": self._export,
            "openapi": self._describe,
            "login": functools.partial(self._login, client),
            "logout": functools.partial(self._logout, client, credentials.cookie_of(head.headers, client)),
        }
        return Slow(request, special.get(verb.name, _carry))

    def namespace(self, plan: Plan) -> Namespace | None:
        """In which namespace a plan is carried out."""
        asked: Any = getattr(plan, "plan", plan)
        asked = getattr(asked, "request", None) or getattr(asked, "handshake", None)
        return None if asked is None else cast(Who, asked.who).namespace

    def cors(self, head: Head) -> bytes:
        """Headers for each answer to this request, refusals included."""
        return self._gate.cors(head.headers)

    def body_most(self, plan: Plan) -> int:
        """How many bytes the body of a request may have: few of those who need not say who they are."""
        request = getattr(plan, "request", None)
        anybody = isinstance(request, Request) and (request.verb.public or request.verb.open)
        return min(self._max_body, OF_ANYBODY_BYTES) if anybody else self._max_body

    def name(self, plan: Plan) -> str:
        """The verb that a plan carries out. `page` for files of the dashboard, `ws` for the handshake of a
        WebSocket, `refused` for what was refused before it was carried out."""
        plan = plan.plan if isinstance(plan, OfOneAddress) else plan
        request = getattr(plan, "request", None)
        if isinstance(request, Request):
            return request.verb.name
        return "page" if isinstance(plan, OfPage) else "ws" if isinstance(plan, Switch) else "refused"

    def _who(
        self, verb: Verb, head: Head, query: Mapping[str, str], client: Client
    ) -> tuple[Who, Mapping[str, str]]:
        """The caller, and the query without the caller's credentials. Raises `Refused`."""
        if verb.public or verb.open:
            return ANYBODY, query
        try:
            if "link" in query and verb.name in OF_LINKS.values():
                left = {name: value for name, value in query.items() if name != "link"}
                return self._service.guard.who(query["link"], client.address, "link"), left
            return self._shown(head, client), query
        except Refused as error:
            error.verb = verb.name
            raise

    def _shown(self, head: Head, client: Client, *, live: bool = False) -> Who:
        """The caller that a head names: by a token; else by the certificate of the connection, if its
        name stands for a token; else by a cookie; and in which namespace. Raises `Refused`."""
        who, inside = self._shown_by(head, client, live=live), head.headers.get(NAMESPACE)
        return who if inside is None else self._service.guard.inside(who, inside)

    def _shown_by(self, head: Head, client: Client, *, live: bool) -> Who:
        guard = self._service.guard
        shown = credentials.shown(head.method, head.headers, client, live=live)
        if shown.text is None or shown.door == "cookie":
            known = guard.of_certificate(client.names, client.address)
            if known is not None:
                return known
        if shown.text is None and live and guard.required:
            return NOBODY  # who says in the first message who it is
        return guard.who(shown.text, client.address, shown.door)

    def _switch(
        self, upgrade: Upgrade, head: Head, raw: list[str], query: Mapping[str, str], client: Client
    ) -> Plan:
        """The plan of a handshake. A client may say who it is in its first message, if it does not here."""
        if not head.upgrade:
            raise CallerError("this needs a WebSocket: does the proxy pass Upgrade?")
        name = heads.segment(raw[2]) if raw[2:] and raw[2] else None
        who = self._shown(head, client, live=True)
        spoken = credentials.subprotocol(head.headers)
        return Switch(upgrade, Handshake(head.method, name, head.headers, query, who, client.address), spoken)

    async def _stream(self, request: Request, _body: bytes, _source: str) -> Answer:
        """GET /c/{queues}"""
        fields = admit(request.service, request.verb, request.who, request.fields)
        wait = fields.get("wait")
        life = None if wait is None else wait / 1000
        engine = request.service.engine
        sending: list[Fetched] = []
        parts = feed.lines(engine, fields["queues"], life, request.worker, sending)
        return streams.lines(parts, functools.partial(engine.give_back, sending))

    def _feed_of(self, service: Service) -> feed.Feed:
        """The events of a namespace, sent to all who listen here."""
        found = self._feeds.get(service)
        if found is None or found.engine is not service.engine:
            found = self._feeds[service] = feed.Feed(service.engine)
        return found

    async def _events(self, request: Request, _body: bytes, _source: str) -> Answer:
        """GET /events"""
        fields = admit(request.service, request.verb, request.who, request.fields)
        wanted, jobs = fields.get("queues"), fields.get("jobs", False)
        if wanted is None and not request.who.sees_all:
            wanted = request.who.within("read", names.queue_list("*"))
        told = self._feed_of(request.service)
        return await streams.events(told.events(wanted, fields.get("last_event_id"), jobs=jobs))

    async def _export(self, request: Request, _body: bytes, _source: str) -> Answer:
        """GET /export"""
        fields = admit(request.service, request.verb, request.who, request.fields)
        begin = exporting.place_of(request.who, fields)
        return streams.exported(exporting.lines(request.service.engine, request.who, fields, begin))

    async def _describe(self, _request: Request, _body: bytes, _source: str) -> Answer:
        """GET /openapi.json"""
        return Answer(_openapi())

    async def _login(self, client: Client, request: Request, body: bytes, source: str) -> Answer:
        """POST /login"""
        request.count()
        asked = codec.decode_request(body, _Login)
        value, who, seconds = session(self._service.guard, asked.token, source, asked.namespace)
        record = who.record
        told = {
            "name": who.name,
            "namespace": None if who.namespace is None else who.namespace.name,
            "expires": moment(who.ends_at or 0),
            "allow": list(record.layer.allow.texts) if record is not None and record.layer.allow else [],
            "deny": list(record.layer.deny.texts) if record is not None else [],
        }
        cookie = credentials.set_cookie(value, seconds, client)
        return Answer(codec.encode(told) + b"\n", 200, {"Set-Cookie": cookie})

    async def _logout(
        self, client: Client, cookie: str | None, request: Request, _body: bytes, source: str
    ) -> Answer:
        """POST /logout"""
        request.count()
        if cookie is not None:
            await end_session(self._service.guard, cookie, source)
        return Answer(status=204, headers={"Set-Cookie": credentials.set_cookie("", 0, client)})


@functools.cache
def _openapi() -> bytes:
    from presque.openapi import document  # a start need not wait for it

    return codec.encode(document()) + b"\n"


class _Login(codec.Struct, forbid_unknown_fields=True):
    token: str
    namespace: str | None = None


def _of_one_address(plan: Plan) -> Plan:
    """The same plan, which is not remembered: a token of it is good from some addresses only."""
    if isinstance(plan, Upload):
        return cast(Plan, msgspec.structs.replace(cast(Any, plan), common=False))
    return OfOneAddress(plan)


def _find(head: Head, raw: list[str], query: Mapping[str, str]) -> tuple[Verb, dict[str, str]]:
    """The verb that a request asks for, and what its path says, decoded."""
    if head.path.rstrip("/") in NAMELESS:
        raise NoName
    node, found, at = _walk(raw)
    if not node.methods or at < len(raw):
        raise NoRoute(head.method, head.path, _meant(node, raw, at))
    if head.method not in node.methods:
        if (head.method, *raw[1:2]) == ("PUT", "qb"):
            raise CallerError("PUT is not supported in batch mode")  # as in 2010
        raise MethodNotAllowed(head.method, node.methods)
    candidates = node.methods[head.method]
    verb, called = next(one for one in candidates if one[0].when is None or one[0].when in query)
    if verb.when is None and query and len(candidates) > 1:
        _check_against(query, [one for one, _ in candidates])
    return verb, {name: heads.segment(part) for name, part in zip(called, found, strict=True)}


def _check_against(query: Mapping[str, str], verbs: Sequence[Verb]) -> None:
    """Raise for parameters that no verb of this address knows, and for those of a verb that is not meant
    without another parameter: the one that is meant then may take none, and would say so."""
    of_another = {name: verb.when for verb in verbs if verb.when is not None for name in verb.parameters}
    known = {name for verb in verbs for name in verb.parameters}
    for name in query:
        if name not in known:
            raise UnknownParameter(name, known)
        if name in of_another:
            raise CallerError(f"`{name}` goes with `{of_another[name]}`: give `{of_another[name]}` too")


def _walk(raw: list[str]) -> tuple[_Node, list[str], int]:
    """How far the parts of a path lead: the last step, what stands for names, and the first part that leads
    nowhere; as many as there are if none does."""
    node, found = _ROOT, []
    for at, part in enumerate(raw[1:], 1):
        if (fixed := node.fixed.get(part)) is not None:
            node = fixed
        elif node.named is not None and part:
            node = node.named
            found.append(part)
        else:
            return node, found, at
    return node, found, len(raw)


def _meant(node: _Node, raw: list[str], at: int) -> str | None:
    """The route that a path probably means: with the known word that looks most like its part `at`, or
    without the slashes that are too many."""
    from difflib import get_close_matches  # a start need not wait for it

    close = get_close_matches(raw[at].lower(), node.fixed, n=1) if raw[at:] else []
    spellings = [[*raw[:at], word, *raw[at + 1 :]] for word in close]
    for parts in (*spellings, ["", *filter(None, raw)]):
        step, _, end = _walk(parts)
        if step.methods and end == len(parts) and parts != [""]:
            return "/".join(parts)[:200]
    return None


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


class Slow(msgspec.Struct, frozen=True):
    """The plan of every verb that is not hot: a task carries it out."""

    request: Request
    handler: Handler

    @property
    def common(self) -> bool:
        return "id" not in self.request.fields

    def serve(self, connection: Answering, body: bytes) -> None:
        if body and self.request.verb.takes:
            raise CallerError(plans.GET_TAKES)
        connection.spawn(self.answer(connection, body), functools.partial(_waits, self.request, body))

    async def answer(self, connection: Answering, body: bytes) -> None:
        answer = await self.handler(self.request, body, connection.address)
        if isinstance(answer.body, bytes):
            connection.answer(answer)
        else:
            await connection.stream(answer)


async def _carry(request: Request, body: bytes, source: str) -> Answer:
    answer = answer_of(request.verb, await carry_out(request.call(body, source)))
    if request.prefix and "Location" in answer.headers:
        headers = {**answer.headers, "Location": request.prefix + answer.headers["Location"]}
        return msgspec.structs.replace(answer, headers=headers)
    return answer


async def _commands(request: Request, body: bytes, source: str) -> Answer:
    """POST /queue"""
    request.service.counts[request.verb.name] += 1
    asker = Asker(request.service, request.who, request.worker, source=source)
    said = await messages.run_all(asker, body)
    return Answer(said.text + b"\n", undo=said.undo)


def answer_of(verb: Verb, reply: Reply) -> Answer:
    """A reply as HTTP says it."""
    status = reply.status or verb.status
    if verb.answers == "nothing" or status == 204:
        return Answer(status=status, headers=reply.headers)
    if reply.kind:
        return Answer(reply.body, status, reply.headers, reply.kind)
    return Answer(reply.body + b"\n", status, reply.headers, undo=reply.undo)


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


class Switch(msgspec.Struct, frozen=True):
    """The plan of a handshake: from then on the connection speaks WebSocket."""

    upgrade: Upgrade
    handshake: Handshake
    spoken: str | None
    common: bool = False

    def serve(self, connection: Answering, _body: bytes) -> None:
        headers, protocol = self.upgrade(self.handshake)
        if self.spoken is not None:
            headers["Sec-WebSocket-Protocol"] = self.spoken
        connection.upgrade(headers, protocol)


class Allowed(msgspec.Struct, frozen=True):
    """The plan of a browser's question whether a page may send a request. It carries nothing out."""

    headers: Mapping[str, str]
    common: bool = True

    def serve(self, connection: Answering, _body: bytes) -> None:
        connection.answer(Answer(status=204, headers=self.headers))


class OfOneAddress(msgspec.Struct, frozen=True):
    """A plan that is good for clients at one address."""

    plan: Plan
    common: bool = False

    def serve(self, connection: Answering, body: bytes) -> None:
        self.plan.serve(connection, body)


class OfPage(msgspec.Struct, frozen=True):
    """The plan of a file for browsers."""

    page: Page
    known: bool
    packed: bool
    common: bool = True

    def serve(self, connection: Answering, _body: bytes) -> None:
        page = self.page
        if self.known:
            connection.answer(Answer(status=304, headers=page.headers))
        elif self.packed:
            # The tag is weak: it names what is inside, packed or not.
            headers = {**page.headers, "ETag": f"W/{page.tag}", "Content-Encoding": "gzip"}
            connection.answer(Answer(page.packed, headers=headers, kind=page.kind))
        else:
            connection.answer(Answer(page.content, headers=page.headers, kind=page.kind))


def _of_page(page: Page, head: Head) -> Plan:
    if head.method not in ("GET", "HEAD"):
        raise MethodNotAllowed(head.method, ("GET", "HEAD"))
    read_texts({}, heads.fields(head.query))  # a page takes no parameters
    known = head.headers.get("if-none-match", "").removeprefix("W/") == page.tag
    return OfPage(page, known, _takes_gzip(head.headers.get("accept-encoding", "")))


def _takes_gzip(accepted: str) -> bool:
    """Whether a client reads gzip: it names it, and not with the weight 0 (RFC 9110, 12.5.3)."""
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


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
