"""From the head of a request to its plan: the caller, the verb, the fields.

The fields that the head holds are read here, once for each head; those of a body when it is there. Hot verbs
have plans of their own (plans.py), all others one that a task carries out (slow.py).
"""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Callable, Mapping
from typing import Any, cast

from presque import codec, names
from presque.commands import exporting, feed
from presque.commands.call import Service
from presque.commands.carrying import admit
from presque.commands.messages import Handshake
from presque.commands.times import moment
from presque.commands.tokens import end_session, session
from presque.commands.who import ANYBODY, NOBODY, OF_LINKS, Who
from presque.errors import CallerError, Refused
from presque.fields import check_together, read_texts
from presque.http import credentials, plans, streams
from presque.http import head as heads
from presque.http.answers import Answer
from presque.http.files import OfPage, Page, of_page
from presque.http.gate import Gate
from presque.http.head import Head
from presque.http.paths import OPEN, find
from presque.http.plan import Namespace, Plan
from presque.http.proxies import Client
from presque.http.request import Request
from presque.http.slow import (
    Allowed,
    Handler,
    OfOneAddress,
    Slow,
    Switch,
    Upgrade,
    carry,
    commands,
    of_one_address,
)
from presque.job import Fetched
from presque.verbs.bounds import WAIT_MOST
from presque.verbs.verb import Verb

WORKER = "x-presque-workerid"
NAMESPACE = "presque-namespace"
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?\Z").match
OF_ANYBODY_BYTES = 16 * 1024


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
        if head.path not in OPEN:
            self._gate.check(head.method, head.path, head.headers, client)
        allowed = self._gate.preflight(head.method, head.headers)
        if allowed is not None:
            return Allowed(allowed)
        if head.path == "/" or head.path.startswith("/static/"):
            page = self._pages().get(head.path)
            if page is not None:
                return of_page(page.under(client.prefix), head)
        raw = head.path.split("/")
        query: Mapping[str, str] = heads.fields(head.query)
        credentials.refuse_in_query(query)
        if raw[1:2] == ["ws"] and self._upgrade is not None and len(raw) <= 3:
            return self._switch(self._upgrade, head, raw, query, client)
        verb, path = find(head, raw, query)
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
        return of_one_address(plan) if who.bound_to_networks else plan

    def _plan(self, request: Request, head: Head, client: Client) -> Plan:
        verb = request.verb
        if verb.body == "raw":  # what must be given stands in the body, which is read later
            given = request.fields
            check_together(
                {name: one for name, one in verb.fields.items() if name in given or not one.required}, given
            )
        if verb.name == "push_many" and _kind_of(head) == streams.LINES:
            return plans.PushLines(request, self._max_body)
        hot = _HOT.get(verb.name)
        if hot is not None:
            return hot(request, head)
        if verb.body != "fields" and verb.body != "raw":
            check_together(verb.fields, request.fields)
        special: dict[str, Handler] = {
            "commands": commands,
            "stream": self._stream,
            "events": self._events,
            "export": self._export,
            "openapi": self._describe,
            "login": functools.partial(self._login, client),
            "logout": functools.partial(self._logout, client, credentials.cookie_of(head.headers, client)),
        }
        return Slow(request, special.get(verb.name, carry))

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
