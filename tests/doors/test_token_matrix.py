"""Every verb, through every door, with every kind of token. All of it is made from the rows in verbs/: a
verb that is added is tried here, and is refused to everybody whose token does not allow its scope."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from presque.client import NotAllowed, QueueClosed, narrow
from presque.tokens import CLASSES
from presque.verbs import COMMANDS, LIVE_COMMANDS, VERBS
from presque.verbs.verb import Verb
from tests import rig
from tests.clients import Connect
from tests.doors.scenarios import request_of
from tests.doors.sockets import heard, speaking
from tests.doors.tokens import Guarded, guarded

Q = "q"
VALUES: dict[str, Any] = {
    "queue": Q, "queues": Q, "id": "1", "name": "c", "lease": "1-x", "state": "dead", "status": "start",
    "worker_id": "w", "schedule": "@daily", "body": 1, "job": 1, "jobs": [1], "value": 1, "key": "q:1",
    "priority": 9, "token_id": "none", "task_id": "0", "act": "retry", "wait": 0,
    "namespace": "none", "quotas": {"jobs": 1},
}  # fmt: skip
OF_VERB: dict[str, dict[str, Any]] = {
    "new_token": {"allow": ["read:q"]},
    "link": {"allow": "read"},
    "settle": {"ack": [{"queue": Q, "id": "1", "lease": "1-x"}]},
    "report": {"queues": [Q]},
    "events": {"queues": Q},
    "export": {"queues": Q},
    "import": {"queue": Q, "body": 1},
    "new_task": {"dry_run": True},
}
BY_THEMSELVES = [verb for verb in VERBS.values() if verb.scope == "any"]
VERBS_TO_TRY = [verb for verb in VERBS.values() if verb.scope != "any"]


def fields_of(verb: Verb) -> dict[str, Any]:
    """What the verb is asked, about the queue `q`."""
    wanted = {name for name, field in verb.fields.items() if field.required} | {"job"} & set(verb.fields)
    wanted |= {"priority"} if verb.name == "change" else set()
    own = OF_VERB.get(verb.name, {})
    found = {name: VALUES[name] for name in wanted - set(own)} | own
    if verb.fields.get("queues") is not None and verb.fields["queues"].required:
        found["queue"] = found.pop("queues")
    return found


@dataclass(frozen=True)
class Kind:
    """A kind of token. `token` makes one for a scope; `may` says whether it lets the scope be done to `q`."""

    name: str
    token: Callable[[Guarded, str], str | None]
    may: Callable[[str], bool]
    code: str = "not-allowed"


def no(_scope: str) -> bool:
    return False


def yes(_scope: str) -> bool:
    return True


def wrong_secret(guarded: Guarded, _scope: str) -> str:
    return guarded.admin[:-43] + "A" * 43


def tampered(guarded: Guarded, scope: str) -> str:
    """A narrowed token whose conditions somebody has taken away."""
    mine = narrow(guarded.admin, allow=[f"{scope}:other"])
    wide = narrow(guarded.admin, allow=[f"{scope}:*"])
    return f"{wide.rpartition('.')[0]}.{mine.rpartition('.')[2]}"


def only(one: str) -> Kind:
    """A token that allows one class alone."""
    return Kind(
        f"only {one}", lambda g, _: KEPT(g, one, lambda: g.make(f"{one}:*")), lambda scope: scope == one
    )


OTHER: dict[str, str] = {
    "push": "read",
    "read": "push",
    "fetch": "lease",
    "lease": "fetch",
    "control": "admin",
    "admin": "control",
}
UNKNOWN = "token-unknown"
REFUSALS = ("token-missing", UNKNOWN, "token-expired", "not-allowed")
KINDS = [
    Kind("none", lambda g, s: None, no, "token-missing"),
    Kind("empty", lambda g, s: "", no, UNKNOWN),
    Kind("no token", lambda g, s: "letmein", no, UNKNOWN),
    Kind("unknown id", lambda g, s: "prq_aaaaaaaaaa_" + "A" * 43, no, UNKNOWN),
    Kind("wrong secret", wrong_secret, no, UNKNOWN),
    Kind("revoked", lambda g, s: KEPT(g, "revoked", g.revoked), no, UNKNOWN),
    Kind("narrowed from a revoked one", lambda g, s: narrow(KEPT(g, "revoked", g.revoked), deny=["push:x"]),
    no,
         UNKNOWN),
    Kind("tampered", tampered, no, UNKNOWN),
    Kind("expired", lambda g, s: KEPT(g, "expired", g.expired), no, "token-expired"),
    Kind("narrowed and expired", lambda g, s: narrow(g.admin, expires=1), no, "token-expired"),
    Kind("from elsewhere", lambda g, s: KEPT(g, "far", lambda: g.make("*:*", sources=["192.0.2.0/24"])), no),
    Kind("narrowed to elsewhere", lambda g, s: narrow(g.admin, sources=["2001:db8::/32"]), no),
    Kind("denied", lambda g, s: KEPT(g, f"no {s}", lambda: g.make("*:*", deny=[f"{s}:*"])), no),
    Kind("narrowed by a denial", lambda g, s: narrow(g.admin, deny=[f"{s}:*"]), no),
    Kind("narrowed to another class", lambda g, s: narrow(g.admin, allow=[f"{OTHER[s]}:*"]), no),
    Kind("everything", lambda g, s: g.admin, yes),
    Kind("narrowed to this", lambda g, s: narrow(g.admin, allow=[f"{s}:*"]), yes),
    Kind("from here", lambda g, s: KEPT(g, "near", lambda: g.make("*:*", sources=["127.0.0.0/8"])), yes),
    *(only(one) for one in CLASSES),
]  # fmt: skip

_kept: dict[tuple[int, str], str] = {}


def KEPT(guarded: Guarded, name: str, make: Callable[[], str]) -> str:  # noqa: N802
    """A token that is made once for a server."""
    key = (guarded.server.port, name)
    if key not in _kept:
        _kept[key] = make()
    return _kept[key]


@pytest.fixture(scope="module")
def wanting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("matrix")) as found:
        yield found


def prepare(wanting: Guarded, verb: Verb) -> None:
    """What a verb needs that is asked by name alone."""
    if "cron" in verb.name:
        body = {"queue": Q, "schedule": "@yearly", "body": 1}
        assert wanting.ask(wanting.admin, "PUT", "/cron/c", body).status in (200, 201)
    if verb.name in ("tell_worker", "leave", "workers"):
        said = wanting.ask(wanting.admin, "PUT", "/w/", {"queues": [Q]}, X_presque_workerid="w")
        assert said.status == 200


def outcome(verb: Verb, status: int, code: str | None, body: Any) -> str:
    """`done`, or the code of the refusal. A verb on many leases answers for each of them."""
    if verb.name == "settle" and status == 200:
        [one] = body["settled"]
        return str(one["code"]) if one["status"] == 403 else "done"
    return str(code) if status in (401, 403) or code in REFUSALS else "done"


def by_route(wanting: Guarded, verb: Verb, token: str | None) -> str:
    method, target, body, headers = request_of(verb, fields_of(verb))
    headers["X-presque-workerid"] = "w"
    if verb.streams:
        return by_stream(wanting, target, token)
    answer = wanting.ask(token, method, target, body, **headers)
    assert answer.status < 500, answer
    if answer.status in (401, 403):
        assert answer.json["error"]
        assert ("www-authenticate" in answer.headers) == (answer.status == 401)
    said = answer.json if answer.body and answer.headers["content-type"].endswith("json") else None
    return outcome(verb, answer.status, answer.headers.get("presque-error"), said)


def by_stream(wanting: Guarded, target: str, token: str | None) -> str:
    """Only the head of an answer that goes on."""
    line = "" if token is None else f"Authorization: Bearer {token}\r\n"
    with socket.create_connection(("127.0.0.1", wanting.server.port), rig.PATIENCE) as on:
        on.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n".encode())
        head = on.recv(65536).decode()
    if " 200 " in head:
        return "done"
    return next(str(line).split(": ")[1] for line in head.split("\r\n") if line.startswith("Presque-Error"))


@pytest.mark.parametrize("verb", VERBS_TO_TRY, ids=lambda verb: verb.name)
def test_every_route_lets_in_whom_it_should_and_nobody_else(wanting: Guarded, verb: Verb) -> None:
    if verb.route is None:
        return
    for kind in KINDS:
        prepare(wanting, verb)
        found = by_route(wanting, verb, kind.token(wanting, verb.scope))
        may = kind.may(verb.scope) and not (verb.name == "new_token" and "narrowed" in kind.name)
        assert found == ("done" if may else kind.code), (verb.name, kind.name)


@pytest.mark.parametrize("verb", VERBS_TO_TRY, ids=lambda verb: verb.name)
def test_a_token_for_other_queues_does_nothing_to_this_one(wanting: Guarded, verb: Verb) -> None:
    others = KEPT(wanting, "others", lambda: wanting.make("*:other*"))
    prepare(wanting, verb)
    if verb.route is None:
        return
    method, target, body, headers = request_of(verb, fields_of(verb))
    headers["X-presque-workerid"] = "w"
    if verb.over == "seen":
        if verb.streams:
            assert by_stream(wanting, target, others) == "not-allowed"
            return
        answer = wanting.ask(others, method, target, body, **headers)
        if verb.name == "clock":
            assert answer.status == 404  # only a server for tests has one
            return
        assert answer.status == 200
        shown = answer.json
        lists = ("queues", "crons", "jobs", "failures", "tasks")
        names = shown if isinstance(shown, list) else [one for name in lists for one in shown.get(name, ())]
        assert names == []
        return
    if verb.streams:
        assert by_stream(wanting, target, others) == "not-allowed"
        return
    answer = wanting.ask(others, method, target, body, **headers)
    if verb.name == "settle":
        [one] = answer.json["settled"]
        assert (one["status"], one["error"]) == (403, "this access token does not allow `lease:q`")
    elif ("cron" in verb.name or "task_id" in verb.fields) and verb.name != "put_cron":
        assert answer.status == 404  # as if it were not there
    else:
        what = f"{verb.scope}:{'*' if verb.over == 'all' else Q}"
        assert (answer.status, answer.json["error"]) == (403, f"this access token does not allow `{what}`")


@pytest.mark.parametrize("array", [False, True], ids=["alone", "in an array"])
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_lets_in_whom_it_should_and_nobody_else(
    wanting: Guarded, name: str, array: bool
) -> None:
    verb = COMMANDS[name]
    for kind in KINDS:
        prepare(wanting, verb)
        command = command_of(verb)
        sent = [command] if array else command
        answer = wanting.ask(kind.token(wanting, verb.scope), "POST", "/queue", sent, X_presque_workerid="w")
        said = answer.json[0] if isinstance(answer.json, list) else answer.json
        code = said.get("code") or answer.headers.get("presque-error")
        found = outcome(verb, answer.status if not array or answer.status != 200 else 0, code, said)
        if verb.name == "settle" and answer.status == 200:
            found = outcome(verb, 200, code, said) if "settled" in said else found
        assert found == ("done" if kind.may(verb.scope) else kind.code), (verb.name, kind.name, said)


def command_of(verb: Verb) -> dict[str, Any]:
    return {"cmd": verb.name, **{("queue" if k == "queues" else k): v for k, v in fields_of(verb).items()}}


WAYS = ("header", "subprotocol", "hello")


@pytest.mark.parametrize("way", WAYS)
async def test_every_message_of_a_socket_lets_in_whom_it_should(wanting: Guarded, way: str) -> None:
    for kind in KINDS:
        if (way, kind.name) == ("hello", "empty"):
            continue  # that is no command
        for scope in CLASSES:
            token = kind.token(wanting, scope)
            verbs = [verb for verb in LIVE_COMMANDS.values() if verb.scope == scope]
            for verb in verbs:
                prepare(wanting, verb)
            found = await by_socket(wanting, verbs, token, way)
            for verb in verbs:
                wanted = "done" if kind.may(scope) else kind.code
                if token is None:
                    wanted = "token-missing"
                assert found.get(verb.name) == wanted, (way, kind.name, verb.name, found)


async def by_socket(wanting: Guarded, verbs: list[Verb], token: str | None, way: str) -> Mapping[str, str]:
    """What each of these is answered on one socket; the same refusal for all if the handshake is refused."""
    options: dict[str, Any] = {}
    if token is not None and way == "header":
        options["additional_headers"] = {"Authorization": f"Bearer {token}"}
    if token is not None and way == "subprotocol":
        options["subprotocols"] = ["presque", f"presque.token.{token}"]
    try:
        async with speaking(wanting.server, "/ws?worker=w", **options) as on:
            if way == "subprotocol" and token is not None:
                assert on.subprotocol == "presque"
            if way == "hello" and token is not None:
                await on.send(json.dumps({"cmd": "hello", "token": token}))
                said = await heard(on)
                if "code" in said:
                    return dict.fromkeys((verb.name for verb in verbs), said["code"])
                assert set(said) == {"hello"}
            found = {}
            for verb in verbs:
                await on.send(json.dumps(command_of(verb) | {"ref": verb.name}))
                said = await heard(on)
                while said.get("ref") != verb.name:
                    said = await heard(on)
                found[verb.name] = outcome(verb, 200 if "settled" in said else 0, said.get("code"), said)
            return found
    except InvalidStatus as error:
        code = error.response.headers["Presque-Error"]
        return dict.fromkeys((verb.name for verb in verbs), code)


CALLS: list[tuple[str, Callable[[Any], Any]]] = [
    ("push", lambda client: client.push(Q, 1)),
    ("push", lambda client: client.push_many(Q, [1])),
    ("fetch", lambda client: client.fetch(Q)),
    ("fetch", lambda client: client.fetch_many(Q)),
    ("lease", lambda client: client.lease(Q)),
    ("read", lambda client: client.stats(Q)),
    ("read", lambda client: client.history(Q)),
    ("read", lambda client: client.queues()),
    ("control", lambda client: client.start(Q)),
    ("control", lambda client: client.purge(Q)),
    ("admin", lambda client: client.tokens()),
    ("admin", lambda client: client.audit()),
    ("admin", lambda client: client.put_cron("c", Q, 1, "@yearly")),
]


def test_the_clients_let_in_whom_they_should(wanting: Guarded, connect: Connect) -> None:
    for kind in KINDS:
        for scope, call in CALLS:
            token = kind.token(wanting, scope)
            if token == "":
                continue
            with connect(wanting.server.url, token) as client:
                try:
                    call(client)
                    found = "done"
                except NotAllowed as error:
                    found = error.code
                except QueueClosed:  # another case has stopped it
                    found = "done"
            assert found == ("done" if kind.may(scope) else kind.code), (kind.name, scope)


@pytest.mark.parametrize("verb", BY_THEMSELVES, ids=lambda verb: verb.name)
def test_what_holds_other_verbs_wants_a_token_or_is_for_everybody(wanting: Guarded, verb: Verb) -> None:
    method, path = str(verb.route).split(" ")
    answer = wanting.ask(None, method, path, None if method == "GET" else {"token": "x"})
    if verb.public or verb.open:
        assert answer.headers.get("presque-error") != "token-missing"
    else:
        assert (answer.status, answer.headers["presque-error"]) == (401, "token-missing")
        assert answer.headers["www-authenticate"] == 'Bearer realm="presque"'


def test_the_answer_to_a_wrong_secret_is_that_to_an_unknown_id(wanting: Guarded) -> None:
    answers = [
        wanting.ask(token, "GET", "/stats/")
        for token in (wrong_secret(wanting, ""), "prq_aaaaaaaaaa_" + "A" * 43)
    ]
    for answer in answers:
        answer.headers.pop("date")
    assert answers[0] == answers[1]
