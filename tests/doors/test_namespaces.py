"""Several tenants on one server, as they see it: nothing of each other.

Every verb is tried at every door with a token of another namespace, made from the rows in verbs/ as in
test_token_matrix.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from presque.client import ClientError, NotAllowed, NotFound, narrow
from presque.verbs import COMMANDS, LIVE_COMMANDS, VERBS
from presque.verbs.verb import Verb
from tests import rig
from tests.clients import Connect
from tests.doors.scenarios import request_of
from tests.doors.sockets import heard, silent, speaking
from tests.doors.test_openapi import check, response_of
from tests.doors.test_token_matrix import command_of, fields_of
from tests.doors.tokens import Guarded, first_token, guarded

CANARY = "canary-of-another"
Q = "q"


@dataclass
class Tenants:
    """A server with two namespaces, and a token that may do everything in each."""

    guarded: Guarded
    acme: str
    other: str

    def ask(self, token: str | None, method: str, path: str, body: Any = None, **headers: str) -> rig.Answer:
        return self.guarded.ask(token, method, path, body, **headers)


def namespace(guarded: Guarded, name: str, **quotas: Any) -> str:
    """Make a namespace, and a token that may do everything in it."""
    body = {"namespace": name, "quotas": quotas}
    answer = guarded.ask(guarded.admin, "POST", "/namespaces", body)
    assert answer.status == 201, answer
    return guarded.make("*:*", namespace=name)


def new_name() -> str:
    return f"n{uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    with guarded(tmp_path_factory.mktemp("namespaces")) as found:
        yield Tenants(found, namespace(found, "acme"), namespace(found, "other"))


def settle_in(tenants: Tenants, token: str) -> None:
    """Let there be something of each kind, with a canary in it."""
    headers = {"X_presque_workerid": f"w-{CANARY}"}
    for answer in (
        tenants.ask(token, "DELETE", f"/q/{Q}?forget=true"),
        tenants.ask(token, "POST", f"/q/{Q}", json.dumps(CANARY)),
        tenants.ask(token, "POST", f"/q/{Q}", json.dumps(CANARY)),
        tenants.ask(token, "POST", f"/q/{CANARY}", json.dumps(CANARY)),
        tenants.ask(token, "PATCH", f"/p/{Q}", {"max_attempts": 77}),
        tenants.ask(token, "PUT", "/cron/c", {"queue": Q, "schedule": "@yearly", "body": CANARY}),
        tenants.ask(token, "PUT", "/w/", {"queues": [Q, CANARY], "doing": CANARY}, **headers),
    ):
        assert answer.status < 300, answer


def seen_by(tenants: Tenants, token: str) -> dict[str, Any]:
    """All that somebody can see, but for what passes by itself."""
    found: dict[str, Any] = {}
    for path in (
        "/status/",
        f"/status/{Q}?with_desc=1",
        f"/p/{Q}",
        "/w/",
        f"/j/{Q}/1",
        f"/j/{Q}",
        f"/control/{Q}",
    ):
        answer = tenants.ask(token, "GET", path)
        assert answer.status == 200, answer
        found[path] = answer.json
    crons = tenants.ask(token, "GET", "/cron/").json["crons"]
    found["crons"] = [
        (one["name"], one["queue"], one["body"], one["paused"], one["last_fired"]) for one in crons
    ]
    found["tokens"] = tenants.ask(token, "GET", "/tokens").json["tokens"]
    return found


def everywhere(tenants: Tenants) -> list[dict[str, Any]]:
    """What there is in the namespace acme and in the server's own."""
    own = seen_by(tenants, tenants.guarded.admin)
    own["tokens"] = [one for one in own["tokens"] if one["namespace"] != "other"]
    return [seen_by(tenants, tenants.acme), own]


@pytest.fixture
def untouched(tenants: Tenants) -> Iterator[None]:
    """Whatever a test does in the namespace `other`, nothing changes elsewhere."""
    for token in (tenants.acme, tenants.guarded.admin):
        settle_in(tenants, token)
    before = everywhere(tenants)
    yield
    assert everywhere(tenants) == before


ROUTED = [verb for verb in VERBS.values() if verb.route is not None and not verb.open]


@pytest.mark.usefixtures("untouched")
def test_no_route_shows_or_changes_anything_of_another_namespace(tenants: Tenants) -> None:
    for verb in ROUTED:
        method, target, body, headers = request_of(verb, fields_of_one(verb))
        headers["X-presque-workerid"] = f"w-{CANARY}"
        if verb.streams:
            said = first_bytes(tenants, target)
        else:
            answer = tenants.ask(tenants.other, method, target, body, **headers)
            assert answer.status < 500, (verb.name, answer)
            said = answer.body.decode() + json.dumps(dict(answer.headers))
        assert CANARY not in said.replace(f"w-{CANARY}", ""), (verb.name, said)


def fields_of_one(verb: Verb) -> dict[str, Any]:
    """What the verb is asked; it names what there is elsewhere."""
    return (
        {}
        if verb.scope == "any"
        else fields_of(verb) | ({"namespace": "acme"} if "namespace" in verb.fields else {})
    )


def first_bytes(tenants: Tenants, target: str) -> str:
    """What a stream begins with."""
    line = f"Authorization: Bearer {tenants.other}\r\n"
    with socket.create_connection(("127.0.0.1", tenants.guarded.server.port), rig.PATIENCE) as on:
        on.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n".encode())
        said = on.recv(65536).decode()
        assert " 200 " in said
        on.settimeout(0.6)
        with contextlib.suppress(TimeoutError):
            while more := on.recv(65536):
                said += more.decode()
    return said


@pytest.mark.usefixtures("untouched")
def test_no_command_shows_or_changes_anything_of_another_namespace(tenants: Tenants) -> None:
    commands = [command_of(verb) for verb in COMMANDS.values()]
    for sent in (*commands, commands):
        answer = tenants.ask(tenants.other, "POST", "/queue", sent, X_presque_workerid=f"w-{CANARY}")
        assert CANARY not in answer.body.decode().replace(f"w-{CANARY}", ""), sent


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("way", ["header", "subprotocol", "hello"])
async def test_no_message_of_a_socket_shows_or_changes_anything_of_another_namespace(
    tenants: Tenants, way: str
) -> None:
    async with speaking_as(tenants.guarded.server, tenants.other, way) as on:
        for verb in LIVE_COMMANDS.values():
            if verb.name == "hello":
                continue
            await on.send(json.dumps(command_of(verb) | {"ref": verb.name}))
            while (said := await heard(on)).get("ref") != verb.name:
                assert CANARY not in json.dumps(said)
            assert CANARY not in json.dumps(said), said


@contextlib.asynccontextmanager
async def speaking_as(server: rig.Server, token: str, way: str = "header", path: str = "/ws") -> Any:
    options: dict[str, Any] = {}
    if way == "header":
        options["additional_headers"] = {"Authorization": f"Bearer {token}"}
    if way == "subprotocol":
        options["subprotocols"] = ["presque", f"presque.token.{token}"]
    async with speaking(server, path, **options) as on:
        if way == "hello":
            await on.send(json.dumps({"cmd": "hello", "token": token}))
            assert "hello" in await heard(on)
        yield on


async def test_who_waits_in_one_namespace_is_not_woken_by_another(tenants: Tenants) -> None:
    queue = new_name()
    async with speaking_as(tenants.guarded.server, tenants.other) as on:
        await on.send(json.dumps({"cmd": "lease", "queue": f"{queue},*", "count": 5, "ref": 1}))
        await heard(on)
        fetch = tenants.guarded.send(tenants.other, "GET", f"/q/{queue}?wait=1")
        for token in (tenants.acme, tenants.guarded.admin):
            assert tenants.ask(token, "POST", f"/q/{queue}", 1).status == 201
        assert (await asyncio.to_thread(fetch.answer)).status == 404
        assert await silent(on, 0.1)
        assert tenants.ask(tenants.other, "POST", f"/q/{queue}", 2).status == 201
        assert (await heard(on))["body"] == 2


# --- who is where


def test_equal_names_in_two_namespaces_have_nothing_to_do_with_each_other(tenants: Tenants) -> None:
    queue = new_name()
    for number, token in enumerate((tenants.acme, tenants.other, tenants.guarded.admin)):
        pushed = tenants.ask(token, "POST", f"/q/{queue}?uniq=one", number, Idempotency_Key="key")
        assert (pushed.status, pushed.json["id"]) == (201, "1")
    leased = tenants.ask(tenants.acme, "POST", f"/q/{queue}/lease").json["jobs"][0]
    assert leased["body"] == 0
    for token in (tenants.other, tenants.guarded.admin):
        lost = tenants.ask(token, "POST", f"/j/{queue}/1/ack?lease={leased['lease']}")
        assert lost.status in (404, 409)
    assert tenants.ask(tenants.acme, "POST", f"/j/{queue}/1/ack?lease={leased['lease']}").status == 200


def test_statistics_name_the_namespace_and_count_nothing_else(tenants: Tenants) -> None:
    tenants.ask(tenants.guarded.admin, "POST", "/q/own", 1)
    tenants.ask(tenants.other, "POST", "/q/theirs", 1)
    found = tenants.ask(tenants.other, "GET", "/stats/").json
    assert found["namespace"] == "other"
    assert "own" not in found["queues"]
    assert "theirs" in found["queues"]
    assert "found_at_start" not in found
    assert "namespace" not in tenants.ask(tenants.guarded.admin, "GET", "/stats/").json


def test_an_operator_looks_into_a_namespace_by_header_token_cookie_and_link(tenants: Tenants) -> None:
    queue, server = new_name(), tenants.guarded.server
    tenants.ask(tenants.acme, "POST", f"/q/{queue}", 1)
    admin = tenants.guarded.admin
    assert tenants.ask(admin, "GET", f"/j/{queue}/1").status == 404
    assert tenants.ask(admin, "GET", f"/j/{queue}/1", Presque_Namespace="acme").status == 200
    inside = narrow(admin, allow=["read:*"], namespace="acme")
    assert tenants.ask(inside, "GET", f"/j/{queue}/1").status == 200
    assert tenants.ask(inside, "GET", f"/q/{queue}").status == 403
    login = tenants.ask(None, "POST", "/login", {"token": admin, "namespace": "acme"})
    assert login.json["namespace"] == "acme"
    cookie = login.headers["set-cookie"].split(";")[0]
    assert server.ask("GET", f"/j/{queue}/1", Cookie=cookie).status == 200
    for token, headers in ((admin, {"Presque_Namespace": "acme"}), (tenants.acme, {})):
        link = tenants.ask(token, "POST", f"/j/{queue}/1/link", {"allow": "read"}, **headers)
        assert server.ask("GET", link.json["url"]).status == 200


def test_nobody_leaves_a_namespace(tenants: Tenants) -> None:
    queue, admin = new_name(), tenants.guarded.admin
    tenants.ask(tenants.acme, "POST", f"/q/{queue}", 1)
    for name in ("acme", "nothere", "*", "../acme"):
        refused = tenants.ask(tenants.other, "GET", "/status/", Presque_Namespace=name)
        assert (refused.status, refused.headers["presque-error"]) == (404, "no-namespace")
        assert (
            tenants.ask(
                narrow(tenants.other, deny=["push:x"]), "GET", "/status/", Presque_Namespace=name
            ).status
            == 404
        )
    assert tenants.ask(tenants.other, "GET", "/status/", Presque_Namespace="other").status == 200
    assert tenants.ask(narrow(tenants.other, namespace="acme"), "GET", "/status/").status == 401
    assert tenants.ask(narrow(tenants.other, namespace="other"), "GET", "/status/").status == 200
    # Only who could do everything may choose; not one whose token was made narrower before.
    service = tenants.guarded.make("*:*", deny=["admin:*"])
    for token in (
        narrow(service, namespace="acme"),
        narrow(narrow(admin, allow=["read:*"]), namespace="acme"),
        narrow(narrow(admin, namespace="other"), namespace="acme"),
    ):
        assert tenants.ask(token, "GET", f"/j/{queue}/1").status == 401
    refused = tenants.ask(service, "GET", f"/j/{queue}/1", Presque_Namespace="acme")
    assert (refused.status, refused.json["error"]) == (403, "this access token does not allow `admin:*`")


@pytest.mark.parametrize("name", ["acme", "nothere", "a b"])
async def test_who_has_not_said_who_it_is_chooses_no_namespace(tenants: Tenants, name: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with speaking(tenants.guarded.server, additional_headers={"Presque-Namespace": name}):
            pass
    assert refused.value.response.status_code == 401
    for path in ("/status/", "/q/a", "/namespaces", "/c/a", "/events"):
        assert tenants.ask(None, "GET", path, Presque_Namespace=name).status == 401
        assert tenants.ask("wrong", "GET", path, Presque_Namespace=name).status == 401


async def test_an_operator_consumes_in_a_namespace_over_a_socket(tenants: Tenants) -> None:
    queue, admin = new_name(), tenants.guarded.admin
    tenants.ask(tenants.acme, "POST", f"/q/{queue}", 7)
    headers = {"Authorization": f"Bearer {admin}", "Presque-Namespace": "acme"}
    async with speaking(tenants.guarded.server, additional_headers=headers) as on:
        await on.send(json.dumps({"cmd": "lease", "queue": queue, "count": 1}))
        await heard(on)
        assert (await heard(on))["body"] == 7
    hello = narrow(admin, namespace="acme")
    async with speaking_as(tenants.guarded.server, hello, "hello") as on:
        await on.send(json.dumps({"cmd": "stats", "queue": queue}))
        assert (await heard(on))["failed"] + 1  # it is there


def test_a_tenant_makes_and_sees_tokens_and_notes_of_its_own_alone(tenants: Tenants) -> None:
    made = tenants.ask(tenants.other, "POST", "/tokens", {"name": "more", "allow": ["read:*"]})
    assert made.json["namespace"] == "other"
    assert tenants.ask(made.json["token"], "GET", "/stats/").json["namespace"] == "other"
    assert (
        tenants.ask(
            tenants.other, "POST", "/tokens", {"name": "x", "allow": ["read:*"], "namespace": "acme"}
        ).status
        == 404
    )
    own = {one["id"] for one in tenants.ask(tenants.other, "GET", "/tokens").json["tokens"]}
    every = tenants.ask(tenants.guarded.admin, "GET", "/tokens").json["tokens"]
    assert own == {one["id"] for one in every if one["namespace"] == "other"}
    for one in every:
        if one["namespace"] != "other":
            assert tenants.ask(tenants.other, "DELETE", f"/tokens/{one['id']}").status == 404

    def noted() -> bool:
        """Of refusals a few a second are noted."""
        assert tenants.ask(made.json["token"], "GET", "/audit").status == 403
        notes = tenants.ask(tenants.other, "GET", "/audit").json["audit"]
        assert {one.get("token") for one in notes} <= own | {None}
        return any(one.get("verb") == "audit" and one["outcome"] == "not-allowed" for one in notes)

    rig.eventually(noted)
    assert (
        not {one.get("token") for one in tenants.ask(tenants.guarded.admin, "GET", "/audit").json["audit"]}
        & own
    )


def test_a_tenant_sees_its_own_namespace_and_changes_none(tenants: Tenants) -> None:
    assert [
        one["namespace"] for one in tenants.ask(tenants.other, "GET", "/namespaces").json["namespaces"]
    ] == ["other"]
    assert tenants.ask(tenants.other, "GET", "/namespaces/other").json["usage"]["connections"] >= 1
    assert tenants.ask(tenants.other, "GET", "/namespaces/acme").status == 404
    for method, path, body in (
        ("POST", "/namespaces", {"namespace": "mine"}),
        ("PATCH", "/namespaces/other", {"quotas": {"jobs": None}}),
        ("PATCH", "/namespaces/acme", {"quotas": {"jobs": 0}}),
        ("DELETE", "/namespaces/acme", None),
        ("DELETE", "/namespaces/other", None),
    ):
        assert tenants.ask(tenants.other, method, path, body).status == 404


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "{a}", "a b", "ä", "x" * 65, "-a", None, 7])
def test_what_is_no_name_makes_no_namespace(tenants: Tenants, name: Any) -> None:
    assert tenants.ask(tenants.guarded.admin, "POST", "/namespaces", {"namespace": name}).status == 400


@pytest.mark.parametrize(
    "quotas", [{"jobs": -1}, {"jobs": "many"}, {"requests": 0}, {"hats": 1}, [], {"jobs": 1.5}]
)
def test_what_is_no_quota_changes_nothing(tenants: Tenants, quotas: Any) -> None:
    before = tenants.ask(tenants.guarded.admin, "GET", "/namespaces/acme").json["quotas"]
    refused = tenants.ask(tenants.guarded.admin, "PATCH", "/namespaces/acme", {"quotas": quotas})
    assert refused.status == 400
    assert tenants.ask(tenants.guarded.admin, "GET", "/namespaces/acme").json["quotas"] == before


def test_making_a_namespace_asks_nobody_for_a_token(tmp_path: Path) -> None:
    """Only a token does that."""
    with rig.server("--data", str(tmp_path / "data")) as server:
        body = json.dumps({"namespace": "acme"})
        assert server.ask("POST", "/namespaces", body).status == 201
        assert server.ask("POST", "/q/mail", "1", Presque_Namespace="acme").status == 201
        assert server.ask("GET", "/status/").json == {"queues": [], "size": 0}


# --- quotas


QUOTAS: list[tuple[str, dict[str, int], str]] = [
    ("jobs", {"jobs": 1}, "the namespace holds 1 job, and its quota `jobs` is 1"),
    (
        "bytes",
        {"bytes": 30},
        "the namespace holds jobs of 13 bytes and this would add 61, and its quota `bytes` is 30",
    ),
    ("queues", {"queues": 1}, "the namespace has 1 queue, and its quota `queues` is 1"),
]


@pytest.mark.parametrize(("kind", "quotas", "says"), QUOTAS, ids=[one[0] for one in QUOTAS])
async def test_a_quota_of_what_is_held_is_told_at_every_door_and_what_frees_goes_on(
    tenants: Tenants, kind: str, quotas: dict[str, int], says: str
) -> None:
    name = new_name()
    mine = namespace(tenants.guarded, name, **quotas)
    assert tenants.ask(mine, "POST", "/q/a", 1).status == 201
    queue, body = ("b" if kind == "queues" else "a"), "x" * 47
    refused = tenants.ask(mine, "POST", f"/q/{queue}", json.dumps(body))
    assert (refused.status, refused.headers["presque-error"]) == (507, f"quota-{kind}")
    assert refused.json["error"].startswith(says)
    assert refused.headers["retry-after"] == "1"
    for method, path, sent in (
        ("POST", f"/qb/{queue}", {"jobs": [body, body]}),
        ("PUT", f"/q/{queue}", body),
        ("POST", "/queue", {"cmd": "push", "queue": queue, "job": body}),
        ("POST", "/queue", {"cmd": "add", "queue": queue, "value": body}),
    ):
        answer = tenants.ask(mine, method, path, json.dumps(sent))
        assert answer.headers["presque-error"] == f"quota-{kind}", (path, answer)
    lines = tenants.ask(
        mine, "POST", f"/qb/{queue}", f"{json.dumps(body)}\n", Content_Type="application/x-ndjson"
    )
    assert lines.headers["presque-error"] == f"quota-{kind}"
    async with speaking_as(tenants.guarded.server, mine) as on:
        await on.send(json.dumps({"cmd": "push", "queue": queue, "job": body}))
        assert (await heard(on))["code"] == f"quota-{kind}"
    if kind == "queues":
        assert tenants.ask(mine, "PATCH", "/p/b", {"lease": 5}).status == 507
        assert tenants.ask(mine, "POST", "/q/a", 1).status == 201
        assert tenants.ask(mine, "DELETE", "/q/a?forget=true").status == 204
    else:
        assert tenants.ask(mine, "GET", "/q/a").status == 200
    assert (
        tenants.ask(mine, "POST", f"/q/{queue}", "1" if kind == "bytes" else json.dumps(body)).status == 201
    )
    used = tenants.ask(mine, "GET", f"/namespaces/{name}").json["usage"]
    assert (used["queues"], used["jobs"]) == (1, 1)


def test_what_others_hold_does_not_count(tenants: Tenants) -> None:
    mine = namespace(tenants.guarded, new_name(), jobs=1)
    for token in (tenants.acme, tenants.guarded.admin):
        for _ in range(3):
            assert tenants.ask(token, "POST", "/q/a", 1).status == 201
    assert tenants.ask(mine, "POST", "/q/a", 1).status == 201


def test_requests_beyond_a_quota_are_told_when_to_come_again(tenants: Tenants) -> None:
    name = new_name()
    mine = namespace(tenants.guarded, name, requests=2)
    commands = [{"cmd": "size", "queue": "a"}] * 20

    def one_too_many() -> rig.Answer | None:
        """Right behind twenty others, as there is room for another one each half second."""
        answers = tenants.ask(mine, "POST", "/queue", commands)
        assert answers.status == 429 or sum("code" in one for one in answers.json) >= 10
        found = tenants.ask(mine, "POST", "/q/a", 1)
        return found if found.status != 201 else None

    refused: rig.Answer = rig.eventually(one_too_many)
    assert (refused.status, refused.headers["presque-error"]) == (429, "quota-requests")
    assert refused.headers["retry-after"] == "1"
    assert "its quota `requests` is 2" in refused.json["error"]
    assert tenants.ask(tenants.acme, "POST", "/q/a", 1).status == 201
    changed = {"quotas": {"requests": None}}
    assert tenants.ask(tenants.guarded.admin, "PATCH", f"/namespaces/{name}", changed).status == 200
    assert [tenants.ask(mine, "GET", "/status/a").status for _ in range(8)] == [200] * 8


async def test_connections_beyond_a_quota_are_refused_until_one_ends(tenants: Tenants) -> None:
    mine = namespace(tenants.guarded, new_name(), connections=1)
    server = tenants.guarded.server
    async with speaking_as(server, mine, "hello") as on:
        refused = tenants.ask(mine, "GET", "/status/")
        assert (refused.status, refused.headers["presque-error"]) == (429, "quota-connections")
        assert refused.json["error"].startswith("the namespace has 1 open connection, and its quota")
        with pytest.raises(InvalidStatus):
            async with speaking_as(server, mine, "header"):
                pass
        async with speaking(server) as other:
            await other.send(json.dumps({"cmd": "hello", "token": mine}))
            assert (await heard(other))["code"] == "quota-connections"
        await on.send('{"cmd":"size","queue":"a"}')
        assert (await heard(on))["size"] == 0
        assert tenants.ask(tenants.acme, "GET", "/status/").status == 200
    await asyncio.to_thread(rig.eventually, lambda: tenants.ask(mine, "GET", "/status/").status == 200)


# --- the clients


def test_the_methods_of_the_clients(tenants: Tenants, connect: Connect) -> None:
    name = new_name()
    url = tenants.guarded.server.url
    with connect(url, tenants.guarded.admin) as client:
        made = client.new_namespace(name, {"jobs": 5})
        assert made["quotas"] == {
            "queues": None,
            "jobs": 5,
            "bytes": None,
            "connections": None,
            "requests": None,
        }
        with pytest.raises(ClientError, match="already"):
            client.new_namespace(name)
        changed = client.change_namespace(name, {"jobs": None, "bytes": 100})
        assert (changed["quotas"]["jobs"], changed["quotas"]["bytes"]) == (None, 100)
        assert name in [one["namespace"] for one in client.namespaces()]
        token = client.new_token("t", allow=["*:*"], namespace=name)
        with connect(url, token["token"]) as inside:
            inside.push("a", 1)
            assert inside.namespace(name)["usage"]["jobs"] == 1
            with pytest.raises(NotFound):
                inside.namespace("acme")
            client.delete_namespace(name)
            with pytest.raises(NotAllowed):
                inside.push("a", 1)


def test_the_clients_work_in_a_namespace(tenants: Tenants, connect: Connect) -> None:
    queue = new_name()
    with connect(tenants.guarded.server.url, tenants.other) as client:
        client.push(queue, 1)
        assert client.all_stats()["namespace"] == "other"
        assert client.whoami()["namespace"] == "other"
        [job] = client.lease(queue)
        client.ack(job)
    with connect(tenants.guarded.server.url, tenants.guarded.make(f"read:{queue}")) as client:
        assert "found_at_start" not in client.all_stats()


def test_real_answers_are_as_the_document_says(tenants: Tenants) -> None:
    name = new_name()
    for verb, method, path, body, status in (
        ("new_namespace", "POST", "/namespaces", {"namespace": name, "quotas": {"jobs": 1}}, 201),
        ("new_namespace", "POST", "/namespaces", {"namespace": name}, 409),
        ("namespaces", "GET", "/namespaces?limit=2", None, 200),
        ("namespace", "GET", f"/namespaces/{name}", None, 200),
        ("namespace", "GET", "/namespaces/none", None, 404),
        ("change_namespace", "PATCH", f"/namespaces/{name}", {"quotas": {"jobs": None}}, 200),
        ("change_namespace", "PATCH", "/namespaces/none", {"quotas": {"jobs": None}}, 404),
        ("delete_namespace", "DELETE", f"/namespaces/{name}", None, 202),
        ("delete_namespace", "DELETE", "/namespaces/none", None, 404),
    ):
        answer = tenants.ask(tenants.guarded.admin, method, path, body)
        assert answer.status == status, answer
        kind = "application/problem+json" if status >= 400 else "application/json"
        check(response_of(verb, status)["content"][kind]["schema"], answer.json)


def test_pages_of_namespaces_follow_each_other(tenants: Tenants) -> None:
    for _ in range(3):
        namespace(tenants.guarded, new_name())
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = tenants.ask(tenants.guarded.admin, "GET", f"/namespaces?limit=2&cursor={cursor}").json
        seen += [one["namespace"] for one in page["namespaces"]]
        cursor = page["cursor"]
    assert seen == sorted(set(seen))
    assert {"acme", "other"} <= set(seen)


# --- several servers, and time


@contextlib.contextmanager
def two_servers(store: rig.Store, own: str) -> Iterator[tuple[Guarded, Guarded]]:
    """Two servers on one store, with keys that begin with `own`, and an admin."""
    flags = ("--redis", store.url, "--namespace", own)
    admin = first_token("--redis", store.url, "--store-namespace", own)
    with rig.server(*flags) as one, rig.server(*flags) as other:
        yield Guarded(one, admin), Guarded(other, admin)


async def test_what_is_changed_on_one_server_holds_on_another_within_a_second(store: rig.Store) -> None:
    """For requests, waits, streams and sockets. How long it took is not judged: the machine may be slow."""
    own = new_name()
    with two_servers(store, own) as (one, other):
        mine = namespace(one, "acme", jobs=1)
        rig.eventually(lambda: other.ask(mine, "POST", "/q/a", 1).status == 201)
        assert one.ask(mine, "POST", "/q/a", 1).headers["presque-error"] == "quota-jobs"  # counted for both
        async with speaking_as(other.server, mine) as on:

            async def pushed(code: str | None) -> bool:
                await on.send(json.dumps({"cmd": "push", "queue": "a", "job": 1}))
                found: Any = (await heard(on)).get("code")
                return bool(found == code)

            assert await pushed("quota-jobs")
            assert one.ask(one.admin, "PATCH", "/namespaces/acme", {"quotas": {"jobs": 2}}).status == 200
            assert await pushed(None)
            quotas = {"quotas": {"jobs": None, "requests": 1}}
            assert one.ask(one.admin, "PATCH", "/namespaces/acme", quotas).status == 200
            await until(lambda: pushed("quota-requests"))
            quotas = {"quotas": {"requests": None, "connections": 1}}
            assert one.ask(one.admin, "PATCH", "/namespaces/acme", quotas).status == 200
            await asyncio.to_thread(
                rig.eventually,
                lambda: one.ask(mine, "GET", "/status/").headers.get("presque-error") == "quota-connections",
            )
            assert (
                one.ask(one.admin, "PATCH", "/namespaces/acme", {"quotas": {"connections": None}}).status
                == 200
            )
            waits = await asyncio.to_thread(waiting, one, other, mine)
            assert one.ask(one.admin, "DELETE", "/namespaces/acme").status == 202
            answer = await asyncio.to_thread(waits.answer)
            assert answer.status in (401, 404)
            await closed(on)
        await asyncio.to_thread(
            rig.eventually, lambda: other.ask(one.admin, "GET", "/namespaces/acme").status == 404, 30
        )
        with store.client() as client:
            assert list(client.scan_iter(f"{own}:acme:*")) == []
        again = namespace(one, "acme")
        rig.eventually(lambda: other.ask(again, "POST", "/q/a", 1).status == 201)
        assert other.ask(mine, "GET", "/status/").status == 401  # its namespace was another one of that name


async def closed(on: ClientConnection) -> None:
    """The server ends a socket."""
    with contextlib.suppress(ConnectionClosed):
        while await asyncio.wait_for(on.recv(), rig.PATIENCE):
            pass


def refused(server: Guarded, token: str) -> bool:
    """Whether a request is one too many."""
    return server.ask(token, "GET", "/status/").status == 429


def waiting(one: Guarded, other: Guarded, token: str) -> rig.Sent:
    """A fetch that waits at the other server."""
    rig.eventually(lambda: one.ask(token, "GET", "/status/").status == 200)
    return other.send(token, "GET", "/q/empty?wait=30")


async def until(true: Callable[[], Any]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + rig.PATIENCE
    while not await true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def test_the_requests_of_all_servers_count_together(store: rig.Store) -> None:
    """Both have let a bucket pass when they know of each other, and then no more than one would: ten a second
    if each of them were alone."""
    with two_servers(store, new_name()) as (one, other):
        namespace(one, "acme", requests=5)
        slow = one.make("read:*", rate={"count": 3, "seconds": 3600})
        inside = one.make("read:*", namespace="acme")
        rig.eventually(lambda: other.ask(inside, "GET", "/status/").status == 200)
        for token in (slow, inside):
            for server in (one, other):
                rig.eventually(functools.partial(refused, server, token))
        began = time.monotonic()
        passed = 0
        while (took := time.monotonic() - began) < 4:
            for server in (one, other):
                passed += server.ask(inside, "GET", "/status/").status == 200
                assert server.ask(slow, "GET", "/status/").status == 429
        # A bucket each, and two more for moments in which they do not hear of each other.
        assert passed <= 5 * took + 20


@pytest.mark.parametrize("most", [{"bytes": 40 * (12 + 102)}, {"jobs": 40}], ids=["bytes", "jobs"])
def test_a_quota_of_what_is_held_is_exact_whoever_pushes_at_once(
    store: rig.Store, most: dict[str, int]
) -> None:
    body = json.dumps("x" * 100)
    with two_servers(store, new_name()) as servers:
        mine = namespace(servers[0], "acme", **most)
        rig.eventually(lambda: servers[1].ask(mine, "GET", "/status/").status == 200)

        def push(number: int) -> int:
            return servers[number % 2].ask(mine, "POST", f"/q/q{number % 3}", body).status

        with ThreadPoolExecutor(64) as pool:
            assert Counter(pool.map(push, range(64))) == {201: 40, 507: 24}
        used = servers[0].ask(mine, "GET", "/namespaces/acme").json["usage"]
        assert (used["jobs"], used["bytes"]) == (40, 40 * (12 + 102))


def test_time_does_its_work_in_a_namespace_that_nobody_asks(tmp_path: Path) -> None:
    """Also after a restart: a recurring job is pushed, a lease ends, a due job becomes ready."""
    data = str(tmp_path / "presque")
    admin = first_token("--data", data)
    with rig.server("--data", data) as server:
        found = Guarded(server, admin)
        mine = namespace(found, "acme")
        for name in ("idle", "busy"):
            namespace(found, name)
        assert found.ask(mine, "POST", "/q/late?delay=1", 1).status == 201
        found.ask(mine, "POST", "/q/held", 1)
        assert found.ask(mine, "POST", "/q/held/lease?seconds=1").status == 200
        body = {"queue": "again", "schedule": "@every 1s", "body": 1}
        assert found.ask(mine, "PUT", "/cron/c", body).status == 201
        assert server.stop() == 0
    with rig.server("--data", data) as server:
        found = Guarded(server, admin)

        def jobs() -> Any:
            return found.ask(admin, "GET", "/namespaces/acme").json["usage"]["jobs"]

        rig.eventually(lambda: jobs() >= 4)  # who asks so, asks nothing of its queues
        rig.eventually(lambda: found.ask(mine, "GET", "/stats/held").json["failed"] == 1)
        rig.eventually(lambda: found.ask(mine, "GET", "/stats/late").json["ready"] == 1)
        rig.eventually(lambda: found.ask(mine, "GET", "/stats/again").json["ready"] >= 2)
