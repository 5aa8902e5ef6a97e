"""Access tokens: what they show and hide, how soon they end, sessions, links, the audit."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from presque.client import NotAllowed, NotFound, narrow
from tests import rig
from tests.clients import Connect
from tests.doors.sockets import heard, speaking
from tests.doors.test_openapi import check, response_of
from tests.doors.test_raw_requests import wire
from tests.doors.tokens import Guarded, first_token, guarded, id_of


@pytest.fixture(scope="module")
def wanting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("tokens")) as found:
        yield found


def refusal(answer: rig.Answer) -> tuple[int, str]:
    return answer.status, answer.headers["presque-error"]


# --- what is shown and what is taken


def test_a_pattern_stands_only_for_queues_that_the_token_may_take_from(wanting: Guarded) -> None:
    for queue in ("pat1", "pat2", "pat3"):
        wanting.ask(wanting.admin, "POST", f"/q/{queue}", {"on": queue})
    token = wanting.make("fetch:pat2", "lease:pat3", "fetch:late*")
    assert wanting.ask(token, "GET", "/q/*").json == {"on": "pat2"}
    assert wanting.ask(token, "GET", "/q/pat*,*").status == 404
    [job] = wanting.ask(token, "POST", "/q/*/lease", {"count": 10}).json["jobs"]
    assert job["queue"] == "pat3"
    assert wanting.ask(wanting.admin, "GET", "/q/pat*").json == {"on": "pat1"}
    assert refusal(wanting.ask(token, "GET", "/q/pat2,pat1")) == (403, "not-allowed")
    assert refusal(wanting.ask(wanting.make("read:*"), "GET", "/q/*")) == (403, "not-allowed")


@pytest.mark.parametrize("path", ["/q/*?wait=30", "/q/*/lease", "/c/*?wait=30"])
def test_who_waits_for_a_pattern_gets_nothing_of_other_queues(wanting: Guarded, path: str) -> None:
    token = wanting.make("fetch:mine-*", "lease:mine-*")
    body = {"wait": 30} if path.endswith("lease") else None
    sent = wanting.send(token, "POST" if body else "GET", path, body)
    other = wanting.send(wanting.admin, "GET", "/q/theirs-1?wait=30")
    wanting.catch_up()
    wanting.ask(wanting.admin, "POST", "/q/theirs-1", 1)
    assert other.answer().json == 1
    wanting.ask(wanting.admin, "POST", "/q/theirs-2", 2)
    wanting.ask(wanting.admin, "POST", "/q/mine-1", 3)
    if path.startswith("/c/"):
        sent.leave()
    else:
        found = sent.answer().json
        assert found == 3 or [job["queue"] for job in found["jobs"]] == ["mine-1"]
    assert wanting.ask(wanting.admin, "GET", "/q/theirs-2").json == 2


async def test_a_consumer_gets_nothing_of_other_queues(wanting: Guarded) -> None:
    token = wanting.make("lease:own-*")
    async with speaking(wanting.server, additional_headers={"Authorization": f"Bearer {token}"}) as on:
        await on.send(json.dumps({"cmd": "lease", "queue": "*", "count": 5}))
        assert (await heard(on))["count"] == 5
        for queue in ("foreign-1", "own-1"):
            wanting.ask(wanting.admin, "POST", f"/q/{queue}", 1)
        assert (await heard(on))["queue"] == "own-1"
    assert wanting.ask(wanting.admin, "GET", "/q/foreign-1").status == 200


def test_lists_show_only_what_the_token_may_read(wanting: Guarded) -> None:
    for queue in ("seen-a", "hidden-a"):
        wanting.ask(wanting.admin, "POST", f"/q/{queue}", 1)
        body = {"queue": queue, "schedule": "@yearly", "body": 1}
        wanting.ask(wanting.admin, "PUT", f"/cron/of-{queue}", body)
        wanting.ask(
            wanting.admin, "PUT", "/w/", {"queues": [queue], "doing": "x"}, X_presque_workerid=f"w-{queue}"
        )
    both = {"queues": ["seen-a", "hidden-a"], "doing": "hidden-a"}
    wanting.ask(wanting.admin, "PUT", "/w/", both, X_presque_workerid="w-both")
    token = wanting.make("read:seen*", "control:*")

    def ask(path: str) -> rig.Answer:
        return wanting.ask(token, "GET", path)

    assert ask("/status/").json == {"queues": ["seen-a"], "size": 1}
    stats = ask("/stats/").json
    assert (stats["queues"], list(stats["by_queue"])) == (["seen-a"], ["seen-a"])
    assert "found_at_start" not in stats
    assert ask("/history").json["total"]["pushed"] == 1
    assert ask("/history?queue=seen-a").json["total"]["pushed"] == 1
    assert refusal(ask("/history?queue=hidden-a")) == (403, "not-allowed")
    assert [one["name"] for one in ask("/cron/").json["crons"]] == ["of-seen-a"]
    assert refusal(ask("/cron/of-hidden-a")) == (404, "not-found")
    assert ask("/w/").json == ["w-seen-a", "w-both"] or ask("/w/").json == ["w-both", "w-seen-a"]
    records = {one["worker_id"]: one for one in ask("/w/?with_desc=1").json["workers"]}
    assert set(records) == {"w-seen-a", "w-both"}
    assert (records["w-both"]["queues"], records["w-both"]["report"]) == (["seen-a"], None)
    assert refusal(ask("/w/?worker_id=w-hidden-a")) == (404, "not-found")
    assert refusal(ask("/w/?queue_name=hidden-a")) == (403, "not-allowed")
    assert "hidden-a" not in ask("/openapi.json").body.decode()
    told = [
        wanting.ask(token, "POST", "/w/", {"worker_id": w, "status": "quiet"}) for w in ("w-seen-a", "none")
    ]
    assert [answer.status for answer in told] == [200, 404]


@pytest.mark.parametrize("path", ["/cron/", "/status/", "/stats/"])
def test_the_pages_of_a_list_name_nothing_that_the_token_may_not_read(wanting: Guarded, path: str) -> None:
    for queue in ("page-a", "page-b", "veiled", "veiled-too", "veiled-three", "zz-the-last"):
        wanting.ask(wanting.admin, "POST", f"/q/{queue}", 1)
        body = {"queue": queue, "schedule": "@yearly", "body": 1}
        wanting.ask(wanting.admin, "PUT", f"/cron/of-{queue}", body)
    token = wanting.make("read:page*", "read:zz-the-last")
    found: list[str] = []
    cursor, pages = "", 0
    while True:
        answer = wanting.ask(token, "GET", f"{path}?limit=1" + (f"&cursor={cursor}" if cursor else ""))
        assert answer.status == 200, answer
        assert b"veiled" not in answer.body
        found += [one["queue"] for one in answer.json.get("crons", ())] or answer.json.get("queues", [])
        cursor, pages = answer.json.get("cursor"), pages + 1
        if not cursor:
            break
        assert all(name not in cursor for name in ("page-", "veiled", "zz-the-last"))  # nor by chance
        assert pages < 100
    assert found == ["page-a", "page-b", "zz-the-last"]
    assert wanting.ask(token, "GET", f"{path}?cursor=page-a!").status == 400


@pytest.mark.parametrize("path", ["/cron/", "/status/", "/stats/", "/search"])
def test_a_cursor_tells_nothing_to_whoever_changes_it(wanting: Guarded, path: str) -> None:
    """The answer to a changed one would say between which names it lies now, and so, letter by letter, which
    name it hides."""
    for queue in ("cut-a", "cut-b", "cut-c"):
        wanting.ask(wanting.admin, "POST", f"/q/{queue}", 1)
        body = {"queue": queue, "schedule": "@yearly", "body": 1}
        wanting.ask(wanting.admin, "PUT", f"/cron/of-{queue}", body)
    token = wanting.make("read:cut-a", "read:cut-c")
    cursor = wanting.ask(token, "GET", f"{path}?limit=1").json["cursor"]
    packed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for at in range(len(packed)):
        changed = bytes(byte ^ (at == place) for place, byte in enumerate(packed))
        text = base64.urlsafe_b64encode(changed).decode().rstrip("=")
        assert wanting.ask(token, "GET", f"{path}?limit=1&cursor={text}").status == 400
    other = wanting.make("read:cut-a", "read:cut-c")
    assert wanting.ask(other, "GET", f"{path}?limit=1&cursor={cursor}").status == 400


def test_the_holder_of_a_token_cannot_open_its_cursors(wanting: Guarded) -> None:
    """What seals them must not follow from the token: they hide names from its holder."""
    wanting.ask(wanting.admin, "POST", "/q/kept-a", 1)
    wanting.ask(wanting.admin, "POST", "/q/kept-b", 1)
    token = wanting.make("read:kept*")
    cursor = wanting.ask(token, "GET", "/status/?limit=1").json["cursor"]
    packed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    secret = token.split("_", 2)[2].encode()
    for key in (hashlib.sha256(secret).digest(), secret, token.encode()):
        for size in (8, 16):
            nonce, text = packed[:size], packed[size:]
            for label in (b"cursor%b0" % nonce, b"text%b0" % nonce, nonce):
                opened = bytes(a ^ b for a, b in zip(text, hmac.digest(key, label, "sha256"), strict=False))
                assert b"kept" not in opened


def test_events_tell_only_what_the_token_may_read(wanting: Guarded) -> None:
    token = wanting.make("read:told*")
    for queue in ("told-1", "untold-1"):
        wanting.ask(wanting.admin, "POST", f"/q/{queue}", 1)
    with socket.create_connection(("127.0.0.1", wanting.server.port), rig.PATIENCE) as on:
        head = f"GET /events?jobs=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        on.sendall(head.encode())
        said = b""
        while b"told-1" not in said:
            said += on.recv(65536)
        for queue in ("untold-1", "told-1"):
            wanting.ask(wanting.admin, "POST", f"/q/{queue}", 1)
        while b"event: job" not in said or b'"ready":2' not in said:
            said += on.recv(65536)
    assert b"untold" not in said


# --- how soon it ends


def waits(wanting: Guarded, token: str, path: str, method: str = "GET", body: Any = None) -> rig.Sent:
    sent = wanting.send(token, method, path, body)
    wanting.catch_up()
    return sent


@pytest.mark.parametrize("end", ["revoked", "expired", "the one it was made of is revoked"])
def test_what_waits_in_the_name_of_a_token_ends_with_it(wanting: Guarded, end: str) -> None:
    token = wanting.ending("*:*", seconds=2) if end == "expired" else wanting.make("*:*")
    mine = narrow(token, deny=["push:none"]) if end.startswith("the one") else token
    job = wanting.ask(wanting.admin, "POST", "/q/ending?delay=1h", 1).json["id"]
    command = {"cmd": "fetch", "queue": "ending", "wait": 60}
    sent = [
        waits(wanting, mine, "/q/ending?wait=60"),
        waits(wanting, mine, "/q/ending,x*?wait=60"),
        waits(wanting, mine, "/q/ending/lease", "POST", {"wait": 60}),
        waits(wanting, mine, "/queue", "POST", command),
        waits(wanting, mine, "/queue", "POST", [command]),
        waits(wanting, mine, f"/j/ending/{job}?wait=60"),
    ]
    if end != "expired":
        wanting.revoke(token)
    code = "token-expired" if end == "expired" else "token-unknown"
    for one in sent:
        assert refusal(one.answer()) == (401, code)
    assert refusal(wanting.ask(mine, "GET", "/q/ending")) == (401, code)


def test_what_was_made_of_a_token_waits_no_longer_than_it(wanting: Guarded) -> None:
    token = wanting.make("*:*")
    job = wanting.ask(token, "POST", "/q/made?delay=1h", 1).json["id"]
    path, cookie = f"/j/made/{job}", {"Cookie": login(wanting, token)}
    link = wanting.ask(token, "POST", f"{path}/link", {"allow": "read"}).json["url"]
    waits = [
        wanting.send(None, "GET", f"{path}?wait=60", **cookie),
        wanting.send(None, "GET", f"{link}&wait=60"),
    ]
    streams = [wanting.send(None, "GET", path, **cookie) for path in ("/events", "/events?jobs=1")]
    wanting.catch_up()
    wanting.revoke(token)
    assert [refusal(one.answer()) for one in waits] == [(401, "token-unknown")] * 2
    assert [one.answer().status for one in streams] == [200] * 2


def test_an_export_that_ends_with_its_token_does_not_look_whole(wanting: Guarded) -> None:
    for _ in range(16):
        assert wanting.ask(wanting.admin, "POST", "/q/exported", [0] * 300_000).status == 201
    token = wanting.make("read:exported")
    with socket.socket() as on:
        on.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        on.settimeout(rig.PATIENCE)
        on.connect(("127.0.0.1", wanting.server.port))
        head = f"GET /export HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        on.sendall(head.encode())
        said = on.recv(65536)
        wanting.revoke(token)
        while part := on.recv(65536):  # it also closes the connection
            said += part
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b'"cursor":null' not in said
    assert wanting.ask(wanting.admin, "DELETE", "/q/exported").status == 204


@pytest.mark.parametrize("path", ["/c/streamed", "/c/stre*", "/events", "/events?jobs=1"])
def test_a_stream_ends_with_its_token(wanting: Guarded, path: str) -> None:
    token = wanting.make("*:*")
    sent = waits(wanting, token, path)
    wanting.revoke(token)
    assert sent.answer().status == 200  # it has a proper end


@pytest.mark.parametrize("way", ["header", "hello"])
async def test_a_socket_ends_with_its_token(wanting: Guarded, way: str) -> None:
    token = wanting.make("*:*")
    options: dict[str, Any] = {}
    if way == "header":
        options["additional_headers"] = {"Authorization": f"Bearer {token}"}
    async with speaking(wanting.server, **options) as on:
        if way == "hello":
            await on.send(json.dumps({"cmd": "hello", "token": token}))
            assert await heard(on) == {"hello": "test"}
        await on.send(json.dumps({"cmd": "push", "queue": "sock", "job": 1}))
        assert "id" in await heard(on)
        await on.send(json.dumps({"cmd": "lease", "queue": "sock", "count": 1, "seconds": 600}))
        job = [await heard(on), await heard(on)][1]
        await asyncio.to_thread(wanting.revoke, token)
        with pytest.raises(ConnectionClosed) as closed:
            await heard(on)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "this access token is not valid")
    [again] = wanting.ask(wanting.admin, "POST", "/q/sock/lease", {"wait": 20}).json["jobs"]
    assert (again["id"], again["attempt"]) == (job["id"], 1)  # it was given back


async def test_a_socket_ends_with_the_token_of_its_session(wanting: Guarded) -> None:
    token, own = wanting.make("*:*"), f"http://127.0.0.1:{wanting.server.port}"
    headers = {"Cookie": login(wanting, token)}
    async with speaking(wanting.server, additional_headers=headers, origin=own) as on:
        await on.send('{"cmd":"queues"}')
        assert "queues" in await heard(on)
        await asyncio.to_thread(wanting.revoke, token)
        with pytest.raises(ConnectionClosed) as closed:
            await heard(on)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


async def test_a_socket_that_says_not_who_it_is_may_nothing(wanting: Guarded) -> None:
    async with speaking(wanting.server) as on:
        for command in (
            {"cmd": "push", "queue": "q", "job": 1},
            {"cmd": "lease", "queue": "q"},
            {"cmd": "queues"},
        ):
            await on.send(json.dumps(command))
            assert (await heard(on))["code"] == "token-missing"
        await on.send(json.dumps({"cmd": "hello", "token": wanting.admin, "ref": 1}))
        assert await heard(on) == {"ref": 1, "hello": "admin"}
        await on.send(json.dumps({"cmd": "hello", "token": wanting.admin}))
        assert (await heard(on))["code"] == "invalid-request"


def test_a_connection_that_is_kept_is_asked_anew(wanting: Guarded) -> None:
    """Its head is remembered by the server, and by the connection itself."""
    token = wanting.make("push:*")
    with socket.create_connection(("127.0.0.1", wanting.server.port), rig.PATIENCE) as on:
        line = f"Authorization: Bearer {token}\r\n"
        request = f"POST /q/kept HTTP/1.1\r\nHost: localhost\r\n{line}Content-Length: 1\r\n\r\n"
        for _ in range(3):
            on.sendall(request.encode() + b"1")
            assert b" 201 " in on.recv(65536)
        on.sendall(request.encode())  # the body is to come
        wanting.catch_up()
        wanting.revoke(token)
        on.sendall(b"1")
        assert b" 401 " in on.recv(65536)
        on.sendall(request.encode() + b"1")
        assert b" 401 " in on.recv(65536)


def test_an_upload_ends_with_its_token(wanting: Guarded) -> None:
    token = wanting.make("push:*")
    with socket.create_connection(("127.0.0.1", wanting.server.port), rig.PATIENCE) as on:
        head = (
            f"POST /qb/upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/x-ndjson\r\nContent-Length: 100\r\n\r\n1\n2\n"
        )
        on.sendall(head.encode())
        wanting.catch_up()
        wanting.revoke(token)
        said = on.recv(65536)
        assert b" 401 " in said
        assert b"token-unknown" in said


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_has_come_in_part_is_refused_with_its_token(wanting: Guarded, framing: str) -> None:
    token, body = wanting.make("push:half"), b"1" * 900_000
    head = b"POST /q/half HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n" % token.encode()
    if framing == "length":
        sent = head + b"Content-Length: 900000\r\n\r\n" + body
    else:
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n493e0\r\n%b\r\n927c0\r\n%b\r\n0\r\n\r\n" % (
            body[:300_000], body[300_000:]
        )  # fmt: skip
    with wire(wanting.server) as connection:
        connection.send(sent[:500_000])
        wanting.revoke(token)
        rig.eventually(lambda: wanting.ask(token, "GET", "/openapi.json").status == 401)
        connection.send(sent[500_000:])
        assert connection.reply().status == 401
        connection.send(head + b"Content-Length: 1\r\n\r\n1")
        assert connection.reply().status == 401
    assert wanting.ask(wanting.admin, "GET", "/status/half").json["size"] == 0


def test_the_first_token_ends_what_waits_without_one(tmp_path: Path) -> None:
    with rig.server("--memory") as server:
        sent = server.send("GET", "/q/open?wait=60")
        stream = server.send("GET", "/c/open")
        server.catch_up()
        made = server.ask("POST", "/tokens", json.dumps({"name": "first", "allow": ["*:*"]}))
        assert made.status == 201
        assert refusal(sent.answer()) == (401, "token-missing")
        assert stream.answer().status == 200
        assert refusal(server.ask("POST", "/q/open", "1")) == (401, "token-missing")
        token = made.json["token"]
        assert server.ask("DELETE", f"/tokens/{id_of(token)}", Authorization=f"Bearer {token}").status == 204
        assert refusal(server.ask("POST", "/q/open", "1")) == (401, "token-missing")  # closed for ever


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_server_on_the_store_knows_within_a_second(
    store: rig.Store, queue_name: str, workers: str
) -> None:
    flags = ("--redis", store.url, "--namespace", queue_name)
    with rig.server(*flags, "--workers", workers) as one, rig.server(*flags) as other:
        made = one.ask("POST", "/tokens", json.dumps({"name": "first", "allow": ["*:*"]})).json
        bearer = f"Bearer {made['token']}"
        rig.eventually(lambda: other.ask("GET", "/status/").status == 401)
        rig.eventually(lambda: other.ask("GET", "/status/", Authorization=bearer).status == 200)
        for _ in range(8):  # whichever process answers
            assert one.ask("GET", "/status/", Authorization=bearer).status in (200, 401)
        waiting = other.send("GET", "/q/q?wait=60", Authorization=bearer)
        other.catch_up(Authorization=bearer)
        path = f"/tokens/{made['id']}"
        rig.eventually(lambda: one.ask("DELETE", path, Authorization=bearer).status == 204)
        assert refusal(waiting.answer()) == (401, "token-unknown")
        rig.eventually(
            lambda: {one.ask("GET", "/status/", Authorization=bearer).status for _ in range(8)} == {401}
        )
    with store.client() as client:
        client.delete(*client.scan_iter(f"{queue_name}:*"))


def test_a_store_that_lost_its_tokens_opens_no_door(store: rig.Store, queue_name: str) -> None:
    with rig.server("--redis", store.url, "--namespace", queue_name) as server:
        server.ask("POST", "/tokens", json.dumps({"name": "first", "allow": ["*:*"]}))
        with store.client() as client:
            client.delete(*client.scan_iter(f"{queue_name}:*"))
        for _ in range(3):
            time.sleep(0.5)
            assert refusal(server.ask("GET", "/status/")) == (401, "token-missing")


def test_a_damaged_token_lets_nobody_in(store: rig.Store, queue_name: str) -> None:
    with rig.server("--redis", store.url, "--namespace", queue_name) as server:
        made = server.ask("POST", "/tokens", json.dumps({"name": "first", "allow": ["*:*"]})).json
        bearer = f"Bearer {made['token']}"
        assert server.ask("GET", "/status/", Authorization=bearer).status == 200
        keys = f"{queue_name}:{{:access}}"
        with store.client() as client:
            for damaged in (b"", b"\x80", b"\xff\x00", b"\x81\xa4name\x01"):
                client.hset(f"{keys}:tokens", made["id"], damaged)
                client.hincrby(f"{keys}:meta", "version", 1)
                rig.eventually(lambda: server.ask("GET", "/status/", Authorization=bearer).status == 401)
            client.delete(*client.scan_iter(f"{queue_name}:*"))


# --- sessions of browsers


def login(wanting: Guarded, token: str) -> str:
    answer = wanting.ask(None, "POST", "/login", {"token": token})
    assert answer.status == 200, answer
    check(response_of("login", 200)["content"]["application/json"]["schema"], answer.json)
    cookie = answer.headers["set-cookie"]
    flags = "Path=/; Max-Age=([0-9]+); HttpOnly; SameSite=Strict"
    found = re.fullmatch(rf"presque_session=prq_[^;]+; {flags}", cookie)
    assert found is not None
    assert 43200 - rig.PATIENCE < int(found[1]) <= 43200
    assert token not in cookie
    return cookie.partition(";")[0]


def test_a_session_reads_and_steers_from_our_own_page_and_takes_no_job(wanting: Guarded) -> None:
    wanting.ask(wanting.admin, "POST", "/q/session", 1)
    cookie = login(wanting, wanting.admin)
    own = {"Origin": f"http://127.0.0.1:{wanting.server.port}"}

    def ask(method: str, path: str, body: Any = None, **more: str) -> rig.Answer:
        return wanting.ask(None, method, path, body, Cookie=f"a=b; {cookie}; c=d", **more)

    assert ask("GET", "/status/session").json == {"queue": "session", "size": 1}
    assert refusal(ask("POST", "/control/session", {"status": "stop"})) == (403, "forbidden")
    assert ask("POST", "/control/session", {"status": "start"}, **own).status == 200
    assert ask("POST", "/control/session", {"status": "start"}, Sec_Fetch_Site="same-origin").status == 200
    for method, path in ("GET", "/q/session"), ("GET", "/qb/session"), ("GET", "/c/session"), ("GET", "/q/*"):
        assert refusal(ask(method, path, **own)) == (403, "not-allowed")
    assert refusal(ask("POST", "/q/session/lease", {}, **own)) == (403, "not-allowed")
    assert refusal(ask("POST", "/queue", {"cmd": "fetch", "queue": "session"}, **own)) == (403, "not-allowed")
    assert refusal(ask("POST", "/tokens", {"name": "more", "allow": ["*:*"]}, **own)) == (403, "not-allowed")
    assert refusal(ask("POST", "/j/session/1/link", {"allow": "read"}, **own)) == (403, "not-allowed")
    assert refusal(ask("POST", "/q/session", 1, Origin="http://evil.example")) == (403, "forbidden")
    value = cookie.partition("=")[2]
    assert refusal(wanting.ask(value, "GET", "/status/")) == (
        403,
        "not-allowed",
    )  # it is good as a cookie alone
    assert refusal(wanting.ask(None, "GET", "/status/", Cookie=f"presque_session={wanting.admin}"))[0] == 401
    assert ask("POST", "/logout").headers["set-cookie"].startswith("presque_session=; Path=/; Max-Age=0;")


def test_no_copy_of_a_cookie_is_good_after_its_session_was_ended(store: rig.Store, queue_name: str) -> None:
    space = f"sessions-{queue_name}"
    flags = "--redis", store.url, "--namespace", space
    admin = first_token("--redis", store.url, "--store-namespace", space)
    with rig.server(*flags) as here, rig.server(*flags) as there:
        guarded = Guarded(here, admin)
        cookie, other = login(guarded, admin), login(guarded, admin)
        name, _, value = cookie.partition("=")
        longer = f"{name}={narrow(value, expires=time.time() + 100)}"

        def status(server: rig.Server, cookie: str) -> int:
            return server.ask("GET", "/login", Cookie=cookie).status

        for server in here, there:
            assert [status(server, one) for one in (cookie, longer, other)] == [200, 200, 200]
        with contextlib.closing(here.connect()) as stream:
            stream.sendall(f"GET /events HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode())
            assert stream.recv(65536).startswith(b"HTTP/1.1 200")
            ended = here.ask("POST", "/logout", Cookie=cookie)
            assert (ended.status, ended.headers["set-cookie"][:17]) == (204, "presque_session=;")
            assert [status(here, one) for one in (cookie, longer, other)] == [401, 401, 200]
            while stream.recv(65536):
                pass
        rig.eventually(lambda: status(there, cookie) == 401)
        assert [status(there, one) for one in (longer, other)] == [401, 200]
        for wrong in "presque_session=x", f"presque_session={admin}", cookie:
            assert here.ask("POST", "/logout", Cookie=wrong).status == 204
        assert status(here, other) == guarded.ask(admin, "GET", "/login").status == 200
    with rig.server(*flags) as later:
        assert [status(later, one) for one in (cookie, other)] == [401, 200]


PLAIN, AT_THE_ROOT, UNDER_A_PATH = (
    "presque_session", "__Host-presque_session", "__Secure-presque_session"
)  # fmt: skip
WAYS = {
    "plain": ({}, PLAIN, "/"),
    "plain, under a path": ({"X_Forwarded_Prefix": "/presque"}, PLAIN, "/presque"),
    "TLS": ({"X_Forwarded_Proto": "https"}, AT_THE_ROOT, "/"),
    "TLS of a socket": ({"X_Forwarded_Proto": "wss"}, AT_THE_ROOT, "/"),
    "TLS, said by Forwarded": ({"Forwarded": "for=203.0.113.9;proto=https"}, AT_THE_ROOT, "/"),
    "TLS, under a path": (
        {"X_Forwarded_Proto": "https", "X_Forwarded_Prefix": "/presque"}, UNDER_A_PATH, "/presque"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server that believes the proxies of this machine."""
    with guarded(tmp_path_factory.mktemp("behind"), PRESQUE_PROXIES="127.0.0.1") as found:
        yield found


@pytest.mark.parametrize("way", WAYS)
def test_the_cookie_of_a_session_has_one_name_for_each_way_to_the_server(behind: Guarded, way: str) -> None:
    headers, name, path = WAYS[way]

    def ask(method: str, where: str, body: Any = None, **more: str) -> rig.Answer:
        return behind.ask(None, method, where, body, **headers, **more)

    cookie = ask("POST", "/login", {"token": behind.admin}).headers["set-cookie"]
    value = cookie.partition(";")[0].partition("=")[2]
    secure = "" if name == PLAIN else "; Secure"
    flags = "HttpOnly; SameSite=Strict"
    assert re.fullmatch(rf"{name}=prq_[^;]+; Path={path}; Max-Age=43(199|200); {flags}{secure}", cookie)
    assert ask("POST", "/logout").headers["set-cookie"] == f"{name}=; Path={path}; Max-Age=0; {flags}{secure}"
    for one in PLAIN, AT_THE_ROOT, UNDER_A_PATH:
        status = 200 if one == name else 401
        assert ask("GET", "/status/", Cookie=f"{one}={value}").status == status, one
        assert ask("GET", "/status/", Cookie=f"{one}=planted; {name}={value}").status == (
            401 if one == name else 200
        )


def test_a_client_of_tls_keeps_the_cookie_that_nobody_else_can_plant(tmp_path: Path, pem: Path) -> None:
    data, jar = str(tmp_path / "data"), tmp_path / "jar"
    admin = first_token("--data", data)

    def curl(path: str, *more: str) -> str:
        # It keeps a cookie whose name begins with __Host- only as a browser would.
        words = [rig.require("curl"), "-s", "--cacert", str(pem), "-b", str(jar), "-c", str(jar), *more]
        words.append(f"https://localhost:{server.port}{path}")
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout

    with rig.tls_server(pem, "--data", data) as server:
        curl("/login", "-d", json.dumps({"token": admin}))
        assert "__Host-presque_session" in jar.read_text()
        assert json.loads(curl("/status/"))["size"] == 0
        jar.write_text(jar.read_text().replace("__Host-presque_session", "presque_session"))
        assert "token" in json.loads(curl("/status/"))["error"]


async def test_a_socket_takes_the_cookie_from_our_own_page_alone(wanting: Guarded) -> None:
    cookie = login(wanting, wanting.admin)
    own = f"http://127.0.0.1:{wanting.server.port}"
    async with speaking(wanting.server, additional_headers={"Cookie": cookie}, origin=own) as on:
        await on.send('{"cmd":"queues"}')
        assert "queues" in await heard(on)
        await on.send('{"cmd":"lease","queue":"*"}')
        assert (await heard(on))["code"] == "not-allowed"
    with pytest.raises(Exception, match="403"):
        async with speaking(wanting.server, additional_headers={"Cookie": cookie}):
            pass


def test_a_session_ends_with_its_token_and_is_no_more_than_it(wanting: Guarded) -> None:
    token = wanting.make("read:some*")
    cookie = login(wanting, narrow(token, allow=["read:something"]))
    assert wanting.ask(None, "GET", "/status/something", Cookie=cookie).status == 200
    assert refusal(wanting.ask(None, "GET", "/status/somewhat", Cookie=cookie)) == (403, "not-allowed")
    wanting.revoke(token)
    assert refusal(wanting.ask(None, "GET", "/status/something", Cookie=cookie)) == (401, "token-unknown")
    assert refusal(wanting.ask(None, "POST", "/login", {"token": token})) == (401, "token-unknown")


@pytest.mark.parametrize("path", ["/q/x?token=", "/stats/?access_token=", "/ws?token=", "/login?token="])
def test_a_token_in_a_url_is_refused(wanting: Guarded, path: str) -> None:
    answer = wanting.ask(None, "POST" if "login" in path else "GET", path + wanting.admin)
    assert answer.status == 400
    assert "in a URL is refused" in answer.json["error"]
    assert wanting.admin not in answer.body.decode()


# --- what control shows without read


def test_who_may_control_a_queue_but_not_read_it_learns_nothing_of_what_is_in_its_jobs(
    wanting: Guarded,
) -> None:
    queue, mine = "unread", "unread-mine"
    wanting.ask(wanting.admin, "POST", f"/q/{queue}?group=canary-group", {"pin": "canary-body"})
    wanting.ask(wanting.admin, "POST", f"/q/{queue}?attempts=1", {"pin": "canary-body"})
    [leased] = wanting.ask(wanting.admin, "POST", f"/q/{queue}/lease", {"count": 1}).json["jobs"]
    failed = {"lease": leased["lease"], "error": "canary-error", "retry": False}
    assert wanting.ask(wanting.admin, "POST", f"/j/{queue}/{leased['id']}/fail", failed).status == 200
    wanting.ask(
        wanting.admin, "PUT", "/cron/unread", {"queue": queue, "schedule": "@yearly", "body": "canary-cron"}
    )
    token = wanting.make(f"control:{queue}*", f"push:{mine}", f"read:{mine}")
    found = {"act": "delete", "queues": queue, "state": "any"}
    answers = [
        wanting.ask(token, "PATCH", f"/j/{queue}/2", {"priority": 7}),
        wanting.ask(token, "POST", f"/j/{queue}/{leased['id']}/retry"),
        wanting.ask(token, "POST", "/cron/unread/pause"),
        wanting.ask(token, "POST", "/cron/unread/resume"),
        wanting.ask(token, "POST", "/tasks", {**found, "dry_run": True}),
        wanting.ask(token, "POST", "/queue", [{"cmd": "change", "queue": queue, "id": "2", "priority": 5}]),
    ]
    assert [answer.status for answer in answers] == [200] * 6
    assert [answer for answer in answers if "canary" in answer.body.decode()] == []
    for more in (
        *({name: "c"} for name in ("find", "text", "error", "like", "group", "worker")),
        {"act": "move", "to": mine},
    ):
        for queues in (queue, f"{queue}*"):
            refused = wanting.ask(
                token, "POST", "/tasks", {**found, "queues": queues, **more, "dry_run": True}
            )
            if queues == queue:
                assert refusal(refused) == (403, "not-allowed")
                assert "read:unread" in refused.json["error"]
            else:
                assert (refused.json["matched"], refused.json["looked"]["jobs"]) == (0, 0)
    moved = {"act": "move", "to": mine, "queues": f"{queue}*", "state": "any"}
    task = wanting.ask(token, "POST", "/tasks", moved).json
    rig.eventually(lambda: wanting.ask(token, "GET", f"/tasks/{task['id']}").json["status"] == "done")
    assert wanting.ask(wanting.admin, "GET", f"/status/{queue}").json["size"] == 2


def test_who_may_set_a_policy_is_shown_it(wanting: Guarded) -> None:
    token = wanting.make("control:ruled")
    assert refusal(wanting.ask(token, "GET", "/p/ruled"))[0] == 403
    policy = wanting.ask(token, "PATCH", "/p/ruled", {"max_attempts": 3})
    assert policy.json == wanting.ask(wanting.admin, "GET", "/p/ruled").json


def test_who_may_define_a_recurring_job_but_not_read_its_queue_learns_not_how_its_jobs_end(
    wanting: Guarded,
) -> None:
    definer, cron = wanting.make("admin:defined"), {"queue": "defined", "schedule": "@yearly", "body": 1}
    assert wanting.ask(definer, "PUT", "/cron/defined", cron).json["last_outcome"] is None
    assert wanting.ask(wanting.admin, "POST", "/cron/defined/run").status == 201
    [leased] = wanting.ask(wanting.admin, "POST", "/q/defined/lease", {"count": 1}).json["jobs"]
    settle = {"lease": leased["lease"], "error": "x", "retry": False}
    assert wanting.ask(wanting.admin, "POST", f"/j/defined/{leased['id']}/fail", settle).status == 200
    seen = wanting.ask(wanting.admin, "GET", "/cron/defined").json
    assert seen["last_outcome"] is not None
    told = wanting.ask(definer, "PUT", "/cron/defined", cron).json
    assert told == seen | {"last_outcome": None}


# --- links


def test_a_link_is_good_for_one_act_on_one_job_until_a_moment(wanting: Guarded) -> None:
    first = wanting.ask(wanting.admin, "POST", "/q/linked", {"n": 1}).json["id"]
    second = wanting.ask(wanting.admin, "POST", "/q/linked", {"n": 2}).json["id"]
    maker = wanting.make("read:linked", "control:linked")

    def link(token: str, allow: str, **more: Any) -> rig.Answer:
        return wanting.ask(token, "POST", f"/j/linked/{first}/link", {"allow": allow, **more})

    found = link(maker, "read")
    assert found.status == 200
    check(response_of("link", 200)["content"]["application/json"]["schema"], found.json)
    read, cancel = found.json["url"], link(maker, "cancel").json
    proof = read.partition("=")[2]
    assert wanting.ask(None, "GET", read).json["body"] == {"n": 1}
    assert wanting.ask(None, "GET", read + "x").status == 401
    assert refusal(wanting.ask(None, "DELETE", read)) == (403, "not-allowed")
    for path in f"/j/linked/{second}", f"/j/other/{first}":
        assert refusal(wanting.ask(None, "GET", f"{path}?link={proof}")) == (403, "not-allowed")
    assert wanting.ask(None, "GET", f"/status/linked?link={proof}").status in (400, 401)
    for method, path in ("GET", "/status/linked"), ("GET", f"/j/linked/{second}"), ("DELETE", "/q/linked"):
        assert refusal(wanting.ask(proof, method, path)) == (403, "not-allowed")
    assert refusal(wanting.ask(None, "GET", f"/j/linked/{first}?link={wanting.admin}")) == (
        401,
        "token-unknown",
    )
    assert cancel["method"] == "DELETE"
    assert refusal(wanting.ask(None, "GET", cancel["url"])) == (403, "not-allowed")
    assert wanting.ask(None, "DELETE", cancel["url"]).status == 204

    def ending() -> Any:
        fields = {"allow": "read", "expires": time.time() + 1}
        return wanting.ask(maker, "POST", f"/j/linked/{second}/link", fields).json.get("url")

    short = rig.eventually(ending)  # the moment may be over before the server hears of it
    rig.eventually(lambda: wanting.ask(None, "GET", short).headers.get("presque-error") == "token-expired")
    assert link(maker, "read", expires=1).status == 400
    assert refusal(link(wanting.make("read:linked"), "cancel")) == (403, "not-allowed")
    wanting.revoke(maker)
    assert refusal(wanting.ask(None, "GET", read)) == (401, "token-unknown")


@pytest.mark.parametrize("act", ["read", "cancel"])
def test_a_link_is_not_good_for_another_job_that_gets_the_id_later(wanting: Guarded, act: str) -> None:
    """Ids begin again in a queue that was forgotten."""
    queue = f"again-{act}"
    wanting.ask(wanting.admin, "POST", f"/q/{queue}", {"of": "old"})
    url = wanting.ask(wanting.admin, "POST", f"/j/{queue}/1/link", {"allow": act}).json["url"]
    assert wanting.ask(wanting.admin, "DELETE", f"/q/{queue}?forget=true").status == 204
    again = wanting.ask(wanting.admin, "POST", f"/q/{queue}", {"of": "new"})
    assert again.json["id"] == "1"

    method = "GET" if act == "read" else "DELETE"
    for path in (url, f"{url}&wait=1") if act == "read" else (url,):
        answer = wanting.ask(None, method, path)
        assert refusal(answer) == (404, "not-found")
        assert b"new" not in answer.body
    assert wanting.ask(wanting.admin, "GET", f"/j/{queue}/1").json["body"] == {"of": "new"}


def test_a_link_is_made_for_a_job_that_is_there(wanting: Guarded) -> None:
    wanting.ask(wanting.admin, "POST", "/q/there", 1)
    assert refusal(wanting.ask(wanting.admin, "POST", "/j/there/77/link", {"allow": "read"})) == (
        404,
        "not-found",
    )


# --- rates, denials, the audit


def test_a_token_makes_as_many_requests_as_it_may(wanting: Guarded) -> None:
    token = wanting.make("*:*", rate={"count": 5, "seconds": 3600})
    paths = [("POST", "/q/rated", 1), ("GET", "/q/rated", None), ("GET", "/status/rated", None)]
    answers = [wanting.ask(token, *paths[n % 3]) for n in range(6)]
    assert [answer.status for answer in answers] == [201, 200, 200, 201, 200, 429]
    assert answers[-1].headers["presque-error"] == "rate-exceeded"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 720
    assert wanting.ask(narrow(token, deny=["push:x"]), "GET", "/status/rated").status == 429
    told = wanting.ask(token, "POST", "/queue", [{"cmd": "push", "queue": "rated", "job": 1}] * 2).json
    assert [one["code"] for one in told] == ["rate-exceeded"] * 2
    assert wanting.ask(wanting.admin, "GET", "/status/rated").status == 200


def test_what_is_denied_to_the_maker_is_denied_to_what_it_makes(wanting: Guarded) -> None:
    maker = wanting.make("*:*", deny=["*:secret*"])
    assert refusal(wanting.ask(maker, "POST", "/tokens", {"name": "x", "allow": ["*:*"]})) == (
        403,
        "not-allowed",
    )
    maker = wanting.make("*:*", deny=["fetch:secret*"])
    made = wanting.ask(maker, "POST", "/tokens", {"name": "x", "allow": ["*:*"], "deny": ["push:a"]}).json
    assert made["deny"] == ["fetch:secret*", "push:a"]
    assert made["made_by"] == id_of(maker)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"allow": []}, "must allow something"),
        ({"allow": ["push"]}, "`push` is not a rule"),
        ({"allow": ["write:x"]}, "`write:x` is not a rule"),
        ({"allow": ["push:"]}, "`push:` is not a rule"),
        ({"allow": ["push:!x"]}, "`push:!x` is not a rule"),
        ({"allow": ["push:a,b"]}, "is not a rule"),
        ({"allow": ["push:x"], "deny": ["nothing"]}, "is not a rule"),
        ({"allow": ["push:x"], "sources": ["here"]}, "`here` is not a network"),
        ({"allow": ["push:x"], "expires": 5}, "`expires` should be a moment in the future"),
        ({"allow": ["push:x"], "rate": {"count": 0}}, "`count`"),
        ({"allow": ["push:x"], "name": "no name"}, "not a valid access token name"),
        ({"allow": ["push:x"] * 65}, "at most 64"),
    ],
)
def test_what_makes_no_token_is_refused_with_what_to_mend(
    wanting: Guarded, fields: dict[str, Any], says: str
) -> None:
    answer = wanting.ask(wanting.admin, "POST", "/tokens", {"name": "x", **fields})
    assert answer.status == 400
    assert says in answer.json["error"]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Guarded]:
    """A server of its own, which has refused nobody yet: it notes so many refusals a second."""
    with guarded(tmp_path) as found:
        yield found


def test_a_holder_hears_what_all_conditions_of_a_token_allow(fresh: Guarded) -> None:
    token = narrow(fresh.make("read:*", "push:a", deny=["push:b"], name="me"), allow=["push:*"])
    told = fresh.ask(token, "GET", "/login").json
    assert (told["tokens"], told["name"], told["expires"]) == (True, "me", None)
    assert told["rules"] == [
        {"allow": ["read:*", "push:a"], "deny": ["push:b"]}, {"allow": ["push:*"], "deny": []},
    ]  # fmt: skip
    assert fresh.ask(None, "GET", "/login").status == 401


def test_the_audit_says_who_did_what_and_who_was_refused(fresh: Guarded) -> None:
    wanting = fresh
    token = wanting.make("control:audited", name="auditor")
    me = {"token": id_of(token), "name": "auditor", "from": "127.0.0.1"}
    wanting.ask(token, "DELETE", "/q/audited")
    wanting.ask(token, "POST", "/control/audited", {"status": "stop"})
    wanting.ask(token, "POST", "/queue", [{"cmd": "delete", "queue": "audited", "id": "7"}])
    wanting.ask(token, "GET", "/q/audited")
    wanting.ask(token, "POST", "/queue", [{"cmd": "push", "queue": "audited", "job": "secret-body"}])
    expected = [
        {"kind": "refused", "outcome": "not-allowed", "verb": "push", "about": "audited", **me},
        {"kind": "refused", "outcome": "not-allowed", "verb": "fetch", "about": "audited", **me},
        {"kind": "act", "outcome": "not-found", "verb": "delete", "about": "audited/7", **me},
        {"kind": "act", "outcome": "done", "verb": "control", "about": "audited", **me},
        {"kind": "act", "outcome": "done", "verb": "purge", "about": "audited", **me},
    ]

    def audit() -> list[dict[str, Any]]:
        answer = wanting.ask(wanting.admin, "GET", "/audit?limit=500")
        check(response_of("audit", 200)["content"]["application/json"]["schema"], answer.json)
        return [
            {k: v for k, v in one.items() if k != "at"}
            for one in answer.json["audit"]
            if one.get("token") == me["token"]
        ]

    rig.eventually(lambda: audit() == expected)
    first = wanting.ask(wanting.admin, "GET", "/audit?limit=2").json
    second = wanting.ask(wanting.admin, "GET", f"/audit?limit=500&cursor={first['cursor']}").json
    everything = wanting.ask(wanting.admin, "GET", "/audit?limit=500").json["audit"]
    assert (first["audit"] + second["audit"])[:20] == everything[:20]
    assert wanting.ask(wanting.admin, "GET", "/audit?cursor=x").status == 400
    assert "secret-body" not in json.dumps(everything)


def test_a_page_of_tokens_with_many_rules_is_short_and_the_next_goes_on(fresh: Guarded) -> None:
    rules = [f"push:{'a*' * 60}{number:02}" for number in range(64)]
    made = {fresh.made(*rules, deny=rules)["id"] for _ in range(50)}
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = fresh.ask(fresh.admin, "GET", f"/tokens?limit=500&cursor={cursor}")
        assert len(answer.body) < 1024 * 1024
        found += [one["id"] for one in answer.json["tokens"]]
        cursor = answer.json["cursor"]
    assert len(found) == len(set(found)) == 51
    assert made < set(found)


def test_the_audit_cuts_what_a_long_queue_list_says(fresh: Guarded) -> None:
    queues = ",".join(f"{'q' * 120}{number}" for number in range(60))
    token = fresh.make("push:*", name="me")
    assert fresh.ask(token, "GET", f"/q/{queues}").status == 403

    def noted() -> list[str]:
        notes = fresh.ask(fresh.admin, "GET", "/audit?limit=20").json["audit"]
        return [one["about"] for one in notes if one.get("verb") == "fetch"]

    rig.eventually(noted)
    assert [(len(text), text[-1]) for text in noted()] == [(200, "…")]


def test_to_ask_without_a_token_who_one_is_leaves_no_line(fresh: Guarded) -> None:
    wanting = fresh
    assert wanting.ask(None, "GET", "/login").status == 401
    assert wanting.ask("prq_wrong", "GET", "/login").status == 401
    wanting.ask(None, "GET", "/cron/of-login")

    def noted() -> list[tuple[str, str]]:
        notes = wanting.ask(wanting.admin, "GET", "/audit?limit=20").json["audit"]
        refused = [
            one for one in notes if one["kind"] == "refused" and "verb" in one
        ]  # not how many more there were
        return [(one["verb"], one["outcome"]) for one in refused]

    rig.eventually(lambda: noted()[:2] == [("cron", "token-missing"), ("whoami", "token-unknown")])


def test_refusals_of_strangers_do_not_hide_that_of_a_token(fresh: Guarded) -> None:
    token = fresh.make("read:mine", name="insider")
    # Some know what a token is called, which is no secret, and not its secret.
    strangers = ("", f"Authorization: Bearer prq_{id_of(token)}_{'x' * 43}\r\n")
    flood = "".join(f"GET /status/ HTTP/1.1\r\nHost: localhost\r\n{one}\r\n" * 40 for one in strangers)
    own = f"Authorization: Bearer {token}\r\nConnection: close\r\n"
    fresh.server.raw(f"{flood}GET /q/theirs HTTP/1.1\r\nHost: localhost\r\n{own}\r\n".encode())

    def told() -> list[Any]:
        notes = fresh.ask(fresh.admin, "GET", "/audit").json["audit"]
        return [one for one in notes if one.get("outcome") == "not-allowed"]

    assert [one["name"] for one in rig.eventually(told)] == ["insider"]


def test_a_flood_of_refusals_is_summed_up(wanting: Guarded) -> None:
    request = b"GET /status/ HTTP/1.1\r\nHost: localhost\r\n"
    flood = (request + b"\r\n") * 99 + request + b"Connection: close\r\n\r\n"
    assert wanting.server.raw(flood).count(b"HTTP/1.1 401 ") == 100  # at once: each second has room for some

    def summed() -> bool:
        notes = wanting.ask(wanting.admin, "GET", "/audit?limit=200").json["audit"]
        return any(one.get("count") for one in notes)

    rig.eventually(summed)


# --- the clients, and nothing secret anywhere


def test_a_link_begins_with_the_path_that_a_proxy_has_taken_off(tmp_path: Path) -> None:
    with guarded(tmp_path, PRESQUE_PROXIES="127.0.0.1") as behind:
        behind.ask(behind.admin, "POST", "/q/a", 1)
        for prefix in "/presque", "":
            asked = behind.ask(
                behind.admin, "POST", "/j/a/1/link", {"allow": "read"}, X_Forwarded_Prefix=prefix
            )
            assert asked.json["url"].startswith(f"{prefix}/j/a/1?link=prq_")
            assert behind.server.ask("GET", asked.json["url"].removeprefix(prefix)).status == 200


def test_the_audit_tells_proxies_apart_that_name_no_client(tmp_path: Path) -> None:
    """Though they send the same bytes."""
    with guarded(tmp_path, PRESQUE_PROXIES="127.0.0.0/8") as behind:
        for source in "127.0.0.2", "127.0.0.3", "127.0.0.2":
            place = ("127.0.0.1", behind.server.port)
            with socket.create_connection(place, rig.PATIENCE, source_address=(source, 0)) as from_there:
                from_there.sendall(b"GET /status/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert b" 401 " in from_there.recv(65536)
        notes = rig.eventually(
            lambda: len(found := behind.ask(behind.admin, "GET", "/audit").json["audit"]) >= 3 and found
        )
        assert [one["from"] for one in notes[:3]] == ["127.0.0.2", "127.0.0.3", "127.0.0.2"]


def test_the_methods_of_the_clients(wanting: Guarded, connect: Connect) -> None:
    with connect(wanting.server.url, wanting.admin) as client:
        made = client.new_token(
            "made", allow=["push:m*"], deny=["push:mx"], expires=time.time() + 60, sources=["127.0.0.1"],
            rate={"count": 9, "seconds": 2},
        )  # fmt: skip
        assert (made["sources"], made["rate"]) == (["127.0.0.1/32"], {"count": 9, "seconds": 2.0})
        found = {one["id"]: one for one in client.tokens()}[made["id"]]
        assert found == {key: value for key, value in made.items() if key != "token"}
        with connect(wanting.server.url, made["token"]) as other:
            other.push("m1", 1)
            with pytest.raises(NotAllowed, match="push:mx"):
                other.push("mx", 1)
        client.revoke_token(made["id"])
        with pytest.raises(NotFound):
            client.revoke_token(made["id"])
        notes, _ = client.audit(limit=500)
        assert any(one.get("verb") == "revoke_token" and one["about"] == made["id"] for one in notes)
        job = client.push("m1", 2)
        assert client.link("m1", job, "read")["url"].startswith(f"/j/m1/{job}?link=prq_")


def test_real_answers_are_as_the_document_says(wanting: Guarded) -> None:
    for verb, method, path, body, status in (
        ("new_token", "POST", "/tokens", {"name": "x", "allow": ["read:x"], "rate": {"count": 1}}, 201),
        ("tokens", "GET", "/tokens", None, 200),
        ("audit", "GET", "/audit", None, 200),
        ("whoami", "GET", "/login", None, 200),
    ):
        answer = wanting.ask(wanting.admin, method, path, body)
        assert answer.status == status
        check(response_of(verb, status)["content"]["application/json"]["schema"], answer.json)
    assert refusal(wanting.ask(wanting.admin, "DELETE", "/tokens/none")) == (404, "not-found")


@pytest.mark.parametrize("form", ["plain", "json"])
def test_no_secret_is_in_the_log_or_in_an_answer(tmp_path: Path, form: str) -> None:
    with guarded(tmp_path, "--log-format", form, "--log-level", "debug") as wanting:
        mine = wanting.make("read:x")
        tokens = [wanting.admin, mine, narrow(mine, deny=["read:y"]), f"prq_aaaaaaaaaa_{'B' * 43}", "B" * 50]
        said = ""
        for token in tokens:
            for answer in (
                wanting.ask(token, "GET", "/stats/"),
                wanting.ask(token, "GET", "/q/x"),
                wanting.ask(token, "POST", "/queue", [{"cmd": "push", "queue": "x", "job": 1}]),
                wanting.ask(None, "GET", f"/q/x?token={token}"),
                wanting.ask(None, "GET", f"/j/x/1?link={token}"),
                wanting.ask(None, "POST", "/login", {"token": token + "x"}),
                wanting.ask(None, "GET", "/q/x", Cookie=f"presque_session={token}"),
                wanting.ask(None, "GET", "/q/x", Authorization=f"Basic {token}"),
            ):
                said += answer.body.decode()
        for token in tokens[:-1]:  # which somebody took for a name
            for method, path, body in (
                ("GET", f"/{token}", None),
                ("DELETE", f"/tokens/{token}", None),
                ("POST", "/tokens", {"name": "n", "allow": ["*:*"], "namespace": token}),
                ("PUT", f"/cron/{token}", {"queue": "q/q"}),
            ):
                said += wanting.ask(wanting.admin, method, path, body).body.decode()
            for method in "GET", "DELETE":  # `mine` is refused
                wanting.ask(mine, method, f"/q/{token}")
            wanting.ask(wanting.admin, "POST", f"/control/{token}", {"status": "stop"})
        said += wanting.ask(wanting.admin, "GET", "/tokens").body.decode()
        said += wanting.ask(wanting.admin, "GET", "/audit?limit=500").body.decode()
        assert wanting.server.stop() == 0
    said += "".join(wanting.server.everything)
    for token in tokens:
        assert token[-43:] not in said
    assert "Traceback" not in said


# --- certificates of clients


def test_a_certificate_stands_for_a_token(
    tmp_path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = rig.certificate(tmp_path, "server", "DNS:localhost", "IP:127.0.0.1")
    authority = rig.certificate(tmp_path, "authority")
    data = str(tmp_path / "presque")
    mailer, other = first_token("--data", data), first_token("--data", data)
    names = json.dumps({"CN=mailer": id_of(mailer), "CN=gone": "nosuchid"})
    monkeypatch.setenv("PRESQUE_CA", str(pem))

    def client(name: str, token: str | None = None) -> Any:
        found = rig.certificate(tmp_path, name, by=authority)
        monkeypatch.setenv("PRESQUE_CERT", f"{found}.cert")
        monkeypatch.setenv("PRESQUE_KEY", f"{found}.key")
        return connect(f"https://localhost:{server.port}", token, timeout=20)

    with rig.tls_server(
        pem, "--data", data, PRESQUE_TLS__CLIENT_CA=str(authority), PRESQUE_TLS__CLIENTS=names
    ) as server:
        mine = client("mailer")
        assert mine.push("q", 1) == "1"
        for name, code in ("stranger", "token-missing"), ("gone", "token-unknown"):
            with pytest.raises(NotAllowed) as refused:
                client(name).push("q", 1)
            assert refused.value.code == code
        assert client("stranger", other).push("q", 2) == "2"  # a token counts more than a certificate
        operator = client("stranger", other)
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(client("mailer").fetch, "empty", wait=60)
            for _ in range(2):  # see rig.Door.catch_up
                operator.started("anything")
            operator.revoke_token(mailer)  # of which the id alone is sent
            with pytest.raises(NotAllowed) as refused:
                waits.result()
        assert refused.value.code == "token-unknown"
        with pytest.raises(NotAllowed) as refused:
            mine.push("q", 3)  # on the same connection
        assert refused.value.code == "token-unknown"
