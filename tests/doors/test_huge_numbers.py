"""Integers that no float can hold, and bytes that are not UTF-8, are refused with 400 wherever they stand."""

from __future__ import annotations

import json

import pytest

from tests import rig
from tests.doors.sockets import heard, speaking
from tests.rig import Server

HUGE = "HUGE"
DIGITS = [309, 400, 4300]

# method, path, body; HUGE is the integer
FIELDS: list[tuple[str, str, str]] = [
    *[("POST", "/q/{q}/lease", f'{{"{name}":HUGE}}') for name in ("count", "seconds", "wait")],
    *[("POST", f"/q/{{q}}/lease?{name}=HUGE", "") for name in ("count", "seconds", "wait")],
    *[
        ("POST", "/settle", f'{{"{verb}":[{{"queue":"{{q}}","id":"1","lease":"x","{name}":HUGE}}]}}')
        for verb, name in (("fail", "retry_in"), ("release", "delay"), ("extend", "seconds"))
    ],
    ("POST", "/j/{q}/1/fail?lease=x", '{"retry_in":HUGE}'),
    ("POST", "/j/{q}/1/release?lease=x", '{"delay":HUGE}'),
    ("POST", "/j/{q}/1/extend?lease=x", '{"seconds":HUGE}'),
    *[
        ("PATCH", "/p/{q}", f'{{"{name}":HUGE}}')
        for name in (
            "lease", "max_attempts", "ttl", "keep", "dead_most", "max_length", "max_leased", "group_leased"
        )
    ],
    *[
        ("PATCH", "/p/{q}", f'{{"backoff":{{"{name}":HUGE}}}}')
        for name in ("first", "factor", "most", "jitter")
    ],
    ("PATCH", "/p/{q}", '{"rate":{"count":HUGE,"seconds":1}}'),
    ("PATCH", "/p/{q}", '{"rate":{"count":1,"seconds":HUGE}}'),
    *[("PATCH", "/j/{q}/1", f'{{"{name}":HUGE}}') for name in ("priority", "delay", "delayed")],
    ("POST", "/j/{q}/retry", '{"limit":HUGE}'),
    ("POST", "/j/{q}/retry", '{"rate":HUGE}'),
    *[
        ("PUT", "/cron/c", f'{{"queue":"{{q}}","body":1,"schedule":"@daily","{name}":HUGE}}')
        for name in ("priority", "ttl", "attempts", "keep")
    ],
    *[
        ("POST", f"/q/{{q}}?{name}=HUGE", "1")
        for name in ("delay", "delayed", "priority", "ttl", "attempts", "keep")
    ],
    ("GET", "/q/{q}?wait=HUGE", ""),
    ("GET", "/qb/{q}?batch_size=HUGE", ""),
    ("GET", "/c/{q}?wait=HUGE", ""),
    ("GET", "/j/{q}/1?wait=HUGE", ""),
    ("GET", "/j/{q}?state=ready&limit=HUGE", ""),
    *[
        ("POST", "/queue", f'{{"cmd":"push","queue":"{{q}}","job":1,"{name}":HUGE}}')
        for name in ("delay", "delayed", "priority", "ttl", "attempts", "keep")
    ],
    ("POST", "/queue", '{"cmd":"fetch","queue":"{q}","wait":HUGE}'),
    *[
        ("POST", "/queue", f'{{"cmd":"lease","queue":"{{q}}","{name}":HUGE}}')
        for name in ("count", "seconds", "wait")
    ],
    ("POST", "/queue", '{"cmd":"peek","queue":"{q}","count":HUGE}'),
    ("POST", "/queue", '{"cmd":"retry","queue":"{q}","limit":HUGE}'),
    ("POST", "/queue", '{"cmd":"retry","queue":"{q}","rate":HUGE}'),
]  # fmt: skip


@pytest.mark.parametrize("digits", DIGITS)
def test_an_integer_that_is_too_large_is_a_mistake_of_the_caller(
    server: Server, queue_name: str, digits: int
) -> None:
    assert server.ask("POST", f"/q/{queue_name}", "1").status == 201
    for method, path, body in FIELDS:
        path, body = (part.replace("{q}", queue_name).replace(HUGE, "9" * digits) for part in (path, body))
        answer = server.ask(method, path, body or None)
        assert answer.status == 400, (method, path[:60], body[:100], answer)
    assert server.ask("GET", f"/stats/{queue_name}").json["ready"] == 1


def test_a_job_may_be_any_integer(server: Server, queue_name: str) -> None:
    for digits in DIGITS:
        assert server.ask("POST", f"/q/{queue_name}", "9" * digits).status == 201
        assert server.ask("GET", f"/q/{queue_name}").body == b"9" * digits


@pytest.mark.parametrize("digits", DIGITS)
async def test_an_integer_that_is_too_large_is_answered_on_a_socket(
    server: Server, queue_name: str, digits: int
) -> None:
    async with speaking(server) as on:
        for name in "count", "seconds":
            await on.send(f'{{"cmd":"lease","queue":"{queue_name}","{name}":{"9" * digits},"ref":"a"}}')
            said = await heard(on)
            assert (said["ref"], said["code"]) == ("a", "invalid-request")


def test_a_command_that_is_wrong_is_its_own_affair(server: Server, queue_name: str) -> None:
    push = f'{{"cmd":"push","queue":"{queue_name}","job":1}}'
    wrong = f'{{"cmd":"fetch","queue":"{queue_name}","wait":{"9" * 400}}}'
    answer = server.ask("POST", "/queue", f"[{push},{wrong},{push}]")
    assert answer.status == 200
    assert [list(one) for one in answer.json] == [["id", "queue"], ["error", "code"], ["id", "queue"]]
    assert server.ask("GET", f"/status/{queue_name}").json["size"] == 2


@pytest.mark.parametrize("field", ["result", "progress"])
def test_what_is_no_utf_8_is_refused(server: Server, queue_name: str, field: str) -> None:
    verb = "ack" if field == "result" else "extend"
    server.ask("POST", f"/q/{queue_name}", "1")
    job = server.ask("POST", f"/q/{queue_name}/lease").json["jobs"][0]
    key = json.dumps({"queue": queue_name, "id": "1", "lease": job["lease"]}).encode()[:-1]
    one = b'%b,"%b":"\xff"}' % (key, field.encode())
    settle = b'{"%b":[%b]}' % (verb.encode(), one)
    for path, body in [
        (f"/j/{queue_name}/1/{verb}?lease={job['lease']}", b'{"%b":"\xff"}' % field.encode()),
        ("/settle", settle),
        (f"/q/{queue_name}/lease", b'{"settle":%b}' % settle),
        ("/queue", b'{"cmd":"%b",%b' % (verb.encode(), one[1:])),
    ]:
        head = f"POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        said = server.raw(head.encode() + body, within=rig.PATIENCE)
        assert said.startswith(b"HTTP/1.1 400 "), (path, said)
    assert server.ask("GET", f"/stats/{queue_name}").json["leased"] == 1
