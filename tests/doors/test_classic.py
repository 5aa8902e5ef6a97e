"""The classic routes, one scenario for both lanes: what a client of 2010 sees, to the byte."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests import rig
from tests.rig import Answer, Door, eventually

ROUTES = {
    "/q/{}": ["DELETE", "GET", "POST", "PUT"],
    "/qb/{}": ["GET", "POST"],
    "/j/{}": ["GET", "HEAD"],
    "/status/": ["GET", "HEAD"],
    "/status/{}": ["GET", "HEAD"],
    "/control/{}": ["GET", "HEAD", "POST"],
    "/w/": ["DELETE", "GET", "HEAD", "POST", "PUT"],
    "/w/{}": ["DELETE", "GET", "HEAD", "POST"],
    "/stats/": ["GET", "HEAD"],
    "/stats/{}": ["GET", "HEAD"],
}
OF_A_QUEUE = [
    (method, path)
    for path, methods in ROUTES.items()
    if "{}" in path
    for method in methods
    if (method, path) not in (("GET", "/w/{}"), ("HEAD", "/w/{}"))  # answered under any name
]
BODY_OF = {"/q/{}": b"1", "/qb/{}": b'{"jobs":[1]}', "/control/{}": b'{"status":"stop"}'}
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]


def push(door: Door, queue: str, *jobs: Any, query: str = "") -> list[str]:
    """Push each of `jobs` in turn. Returns their ids."""
    ids = []
    for job in jobs:
        answer = door.ask("POST", f"/q/{queue}{query}", job if isinstance(job, bytes) else json.dumps(job))
        assert answer.status == 201, answer
        ids.append(answer.json["id"])
    return ids


def drain(door: Door, queues: str) -> list[Any]:
    """Fetch until there is no job. Returns the jobs, decoded."""
    found = []
    while (answer := door.ask("GET", f"/q/{queues}")).status == 200:
        found.append(answer.json)
    assert (answer.status, answer.json) == (404, {"error": "no job"})
    return found


def size(door: Door, queue: str) -> int:
    answer = door.ask("GET", f"/status/{queue}")
    assert list(answer.json) == ["queue", "size"]
    return int(answer.json["size"])


def stats(door: Door, queue: str) -> dict[str, Any]:
    return dict(door.ask("GET", f"/stats/{queue}").json)


def control(door: Door, queue: str, word: str) -> None:
    answer = door.ask("POST", f"/control/{queue}", json.dumps({"status": word}))
    assert (answer.status, answer.json) == (200, {"queue": queue, "response": "updated"})


def refused(answer: Answer, status: int, text: str) -> None:
    assert (answer.status, answer.json) == (status, {"error": text})
    as_json(answer)


def as_json(answer: Answer) -> None:
    assert answer.headers["content-type"] == "application/json"
    if answer.status != 201:  # which no cache keeps anyway
        assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-length"] == str(len(answer.body))


def without_body(answer: Answer, status: int) -> None:
    assert (answer.status, answer.body) == (status, b"")
    assert "content-type" not in answer.headers


# --- push and fetch ---------------------------------------------------------------------------------


def test_a_push_answers_where_the_job_is(door: Door, queue_name: str) -> None:
    answer = door.ask("POST", f"/q/{queue_name}", b'{"a":1}')

    assert answer.status == 201
    assert answer.body == b'{"id":"1","queue":"%b"}\n' % queue_name.encode()
    assert answer.headers["location"] == f"/j/{queue_name}/1"
    as_json(answer)


def test_a_fetch_answers_the_job_and_what_it_is(door: Door, queue_name: str) -> None:
    push(door, queue_name, "first", "second")

    for id, body in ("1", b'"first"'), ("2", b'"second"'):
        answer = door.ask("GET", f"/q/{queue_name}")
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["presque-queue"] == queue_name
        assert answer.headers["presque-job-id"] == id
        as_json(answer)
    refused(door.ask("GET", f"/q/{queue_name}"), 404, "no job")


def test_a_fetch_of_a_queue_never_seen_finds_no_job(door: Door, queue_name: str) -> None:
    refused(door.ask("GET", f"/q/{queue_name}"), 404, "no job")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json", "text/plain", ""])
def test_the_content_type_of_a_push_does_not_matter(door: Door, queue_name: str, kind: str) -> None:
    assert door.ask("POST", f"/q/{queue_name}", b'{"a":"b"}', Content_Type=kind).status == 201
    assert door.ask("GET", f"/q/{queue_name}").body == b'{"a":"b"}'


BODIES = [
    b'{"a":1}', b'{ "b" : [ 1 , 2 ] ,\t"a":null }', b"[]", b"{}", b"0", b"-0.0", b"1E400", b"1e-0999", b'""',
    b"null", b"true", b"123456789012345678901234567890", b"-9223372036854775809",
    b"1.00000000000000000000000000000000001", '"Grüße, 世界 \U0001f42a"'.encode(),
    b'"\\u00e9\\ud83d\\ude00 \\/ \\" \\\\ \\b\\f\\n\\r\\t"', b'"\\u0000"', b'{"a":1,"a":2}', b'{"a":1}\n',
    b" \t\r\n[1] \r\n", '"\u2028\u2029\ufeff\x7f"'.encode(), b'"$9\\r\\n"', b"[" * 500 + b"]" * 500,
    b'"%b"' % (b"x" * 200_000), b"9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:24]))
def test_a_body_comes_out_byte_for_byte(door: Door, queue_name: str, body: bytes) -> None:
    push(door, queue_name, body, query="?priority=9&ttl=60&uniq=k&attempts=3&keep=5")
    push(door, queue_name, body)

    assert door.ask("GET", f"/status/{queue_name}?with_desc=1").json["jobs"] == [body.decode()] * 2
    assert door.ask("GET", f"/q/{queue_name}").body == body
    assert door.ask("GET", f"/qb/{queue_name}").json == [body.decode()]


NOT_JSON = [
    b"{", b"nope", b"{'a':1}", b'{"a":1,}', b"[1,]", b"1 2", b"NaN", b"[Infinity]", b"-", b"01", b"1.", b".5",
    b"1e", b"+1", b'"\n"', b'"\x00"', b'"\\x"', b'"\\u12g4"', b'"\\u"', b"\xef\xbb\xbf1", b"tru", b'"abc',
    b"\x00", b"{}{}", b"[1}", b'{"a"}', b"{1:2}", b"[" * 100_000, b"// c\n1", b"0x10", b'{"a":1}\x00',
]  # fmt: skip


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:12]))
def test_what_is_not_json_is_refused_and_not_stored(door: Door, queue_name: str, body: bytes) -> None:
    for method, path in ("POST", "q"), ("PUT", "q"), ("POST", "qb"):
        answer = door.ask(method, f"/{path}/{queue_name}", body)
        assert answer.status == 400
        assert answer.json["error"].startswith("the body is ")
    assert push(door, queue_name, 1) == ["1"]


@pytest.mark.parametrize("body", [b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'{"\xe9":1}', b'["\xf5"]'])
def test_what_is_not_utf_8_is_refused_and_not_stored(door: Door, queue_name: str, body: bytes) -> None:
    for method in "POST", "PUT":
        answer = door.ask(method, f"/q/{queue_name}", body)
        assert answer.status == 400
        assert answer.json["error"].startswith("the body is not UTF-8: byte ")
    assert size(door, queue_name) == 0


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("body", [None, b"", b" \r\n\t"])
def test_a_push_without_a_body_is_refused(
    door: Door, queue_name: str, method: str, body: bytes | None
) -> None:
    refused(door.ask(method, f"/q/{queue_name}", body), 400, "job is missing")
    assert size(door, queue_name) == 0


def test_a_head_request_takes_no_job(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1)
    for path, allowed in ("q", "DELETE, GET, POST, PUT"), ("qb", "GET, POST"):
        answer = door.ask("HEAD", f"/{path}/{queue_name}")
        assert (answer.status, answer.body, answer.headers["allow"]) == (405, b"", allowed)
    assert size(door, queue_name) == 1


# --- the parameters of a push -----------------------------------------------------------------------

TAKEN = [
    "priority=1", "priority=9", "priority=05", "delay=0", "delay=0.001", "delay=315360000", "delayed=0",
    "delayed=9999999999", "delayed=1700000000.123", "delayed=2031-05-07T09:30:00Z",
    "delayed=2031-05-07t09:30:00.123456z", "delayed=2031-05-07T09:30:00%2B02:00",
    "delayed=2031-05-07T09:30:00+02:00", "delayed=2031-05-07%2009:30:00-11:30",
    "delayed=1969-12-31T23:59:59Z", "delayed=0001-01-01T00:00:00Z", "delayed=9999-12-31T23:59:59Z",
    "ttl=0.001", "ttl=315360000", "attempts=1", "attempts=1000", "keep=0", "keep=31536000", "uniq=k",
    "uniq=" + "k" * 255, "uniq=" + "%C3%A9" * 127, "uniq=a%7Cb%0A%00%24", "uniq=k&uniq_until=fetch",
    "uniq=k&uniq_until=done", "&priority=3&&", "",
]  # fmt: skip


@pytest.mark.parametrize("query", TAKEN, ids=lambda query: query[:40])
def test_a_parameter_within_its_bounds_is_taken(door: Door, queue_name: str, query: str) -> None:
    assert push(door, queue_name, 1, query=f"?{query}") == ["1"]
    assert door.ask("PUT", f"/q/{queue_name}2?{query}", b"1").json == {"id": "1", "queue": f"{queue_name}2"}


PRIORITY = "`priority` should be a whole number from 1 to 9, not `{}`"
SECONDS = "`{}` should be seconds from {} to {}, or a duration such as 90s or 1h30m, not `{}`"
DELAY = SECONDS.format("delay", 0, 315360000, "{}")
DELAYED = "`delayed` should be epoch seconds or a time such as 2031-05-07T09:30:00Z, not `{}`"
TTL = SECONDS.format("ttl", 0.001, 315360000, "{}")
ATTEMPTS = "`attempts` should be a whole number from 1 to 1000, not `{}`"
KEEP = SECONDS.format("keep", 0, 31536000, "{}")
UNIQ = "`uniq` should be at most 255 bytes, not 256"
UNIQ_UNTIL = "`uniq_until` should be `fetch` or `done`, not `{}`"
KNOWN = (
    "expected one of `attempts`, `delay`, `delayed`, `group`, `keep`, `priority`, `ttl`, `uniq`, `uniq_until`"
)
TOO_FAR = "`delayed` should be before the year 10000, not `{}`"
NO_ZONE = "`delayed` should end with Z or with an offset such as +02:00"

REFUSED = [
    *[(f"priority={v}", PRIORITY.format(v)) for v in ("0", "10", "x", "5.0", "-1", "٣", "9" * 30)],
    ("priority=", PRIORITY.replace("`{}`", "empty")),
    *[(f"delay={v}", DELAY.format(v)) for v in ("-1", "315360000.001", "5x", "1e3", "inf", "nan", ".5")],
    *[(f"delayed={v}", DELAYED.format(v)) for v in ("tomorrow", "2031-13-07T09:30:00Z", "-1", "2031-05-07")],
    ("delayed=2031-05-07T09:30:00", NO_ZONE),
    ("delayed=2031-05-07T24:30:00Z", DELAYED.format("2031-05-07T24:30:00Z")),
    ("delayed=253402300800", TOO_FAR.format("253402300800")),
    ("delayed=9999-12-31T23:59:59-10:00", TOO_FAR.format("9999-12-31T23:59:59-10:00")),
    *[(f"ttl={v}", TTL.format(v)) for v in ("0", "315360001", "x")],
    *[(f"attempts={v}", ATTEMPTS.format(v)) for v in ("0", "1001", "many")],
    *[(f"keep={v}", KEEP.format(v)) for v in ("-1", "31536001", "soon")],
    ("group=", "`group` should not be empty"),
    ("uniq=" + "k" * 256, UNIQ),
    ("uniq=" + "é" * 128, UNIQ),
    *[(f"uniq=k&uniq_until={v}", UNIQ_UNTIL.format(v)) for v in ("lease", "Done")],
    ("uniq_until=done", "`uniq_until` goes with `uniq`: give `uniq` too"),
    ("delay=1&delayed=1", "give `delay` or `delayed`, not both"),
    ("ttl=5&delay=5", "`ttl` ends before the job is due: nobody could ever take it"),
    ("priority=5&priority=5", "`priority` is given twice"),
    ("priority=5&%70riority=6", "`priority` is given twice"),
    ("priorty=5", "unknown parameter `priorty`, did you mean `priority`?"),
    ("Priority=5", "unknown parameter `Priority`, did you mean `priority`?"),
    ("wait=5", f"unknown parameter `wait`, {KNOWN}"),
    ("a%0d%0ab=5", f"unknown parameter `a??b`, {KNOWN}"),
    ("uniq=%ff", "the query is not UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "text"), REFUSED, ids=[query[:40] for query, _ in REFUSED])
def test_a_parameter_out_of_bounds_is_refused_and_nothing_is_stored(
    door: Door, queue_name: str, query: str, text: str
) -> None:
    for method in "POST", "PUT":
        answer = door.ask(method, f"/q/{queue_name}?{quote(query, safe='=&%+:-.')}", b"1")
        refused(answer, 400, text)
    assert stats(door, queue_name)["failed"] == 0
    assert push(door, queue_name, 1) == ["1"]


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
def test_parameters_of_many_jobs_go_together_as_those_of_one_do(
    door: Door, queue_name: str, kind: str
) -> None:
    body = b"1\n" if kind.endswith("ndjson") else b'{"jobs":[1]}'
    answer = door.ask("POST", f"/qb/{queue_name}?delay=1&delayed=1", body, Content_Type=kind)
    refused(answer, 400, "give `delay` or `delayed`, not both")
    assert push(door, queue_name, 1) == ["1"]


def test_jobs_come_by_priority_and_in_order_inside_one(door: Door, queue_name: str) -> None:
    for number, priority in enumerate([5, 1, 9, 5, 2, 9, 1, 7]):
        push(door, queue_name, [priority, number], query=f"?priority={priority}")
    push(door, queue_name, [5, 8])

    assert drain(door, queue_name) == [
        [9, 2], [9, 5], [7, 7], [5, 0], [5, 3], [5, 8], [2, 4], [1, 1], [1, 6]
    ]  # fmt: skip


def test_a_uniq_job_is_refused_while_its_like_waits(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1, query="?uniq=k")
    push(door, queue_name, 2, query="?uniq=other")

    for method in "POST", "PUT":
        refused(door.ask(method, f"/q/{queue_name}?uniq=k", b"3"), 400, "job already exists")

    assert stats(door, queue_name)["failed"] == 0
    assert drain(door, queue_name) == [1, 2]
    assert push(door, queue_name, 4, query="?uniq=k") == ["3"]


def test_a_uniq_key_is_free_once_the_job_was_fetched_though_it_says_until_done(
    door: Door, queue_name: str
) -> None:
    push(door, queue_name, 1, query="?uniq=k&uniq_until=done")
    refused(door.ask("POST", f"/q/{queue_name}?uniq=k", b"2"), 400, "job already exists")
    assert door.ask("GET", f"/q/{queue_name}").status == 200  # fetched for good, so it is finished, too
    push(door, queue_name, 3, query="?uniq=k")


def test_a_uniq_key_belongs_to_its_queue(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1, query="?uniq=k")
    push(door, f"{queue_name}2", 1, query="?uniq=k")


def test_a_scheduled_job_holds_its_uniq_key(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1, query="?uniq=k&delay=3600")
    refused(door.ask("POST", f"/q/{queue_name}?uniq=k", b"2"), 400, "job already exists")


def test_an_expired_job_frees_its_uniq_key(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1, query="?uniq=k&ttl=0.01")
    eventually(lambda: door.ask("POST", f"/q/{queue_name}?uniq=k", b"2").status == 201)


def test_a_job_whose_ttl_has_run_out_is_never_handed_out_and_counts_as_expired(
    door: Door, queue_name: str
) -> None:
    push(door, queue_name, "short", query="?ttl=0.02")
    push(door, queue_name, "long", query="?ttl=60")
    eventually(lambda: stats(door, queue_name)["expired"] == 1)

    assert drain(door, queue_name) == ["long"]
    found = stats(door, queue_name)
    assert (found["expired"], found["processed"], found["ready"]) == (1, 1, 0)


# --- delayed jobs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["delayed", "rfc 3339", "delay"])
def test_a_delayed_job_is_never_early_and_at_most_a_second_late(
    door: Door, queue_name: str, how: str
) -> None:
    def query(seconds: float) -> str:
        due = time.time() + seconds
        written = datetime.fromtimestamp(due, UTC).isoformat()
        return {
            "delayed": f"delayed={due:.6f}",
            "rfc 3339": f"delayed={written}",
            "delay": f"delay={seconds}",
        }[how]

    push(door, queue_name, "far away", query=f"?{query(3600)}")
    assert (stats(door, queue_name)["scheduled"], size(door, queue_name)) == (1, 0)
    refused(door.ask("GET", f"/q/{queue_name}"), 404, "no job")

    due = time.time() + 0.4
    push(door, queue_name, "soon", query=f"?{query(0.4)}")
    answer = door.ask("GET", f"/q/{queue_name}?wait=20")

    assert (answer.status, answer.json) == (200, "soon")
    assert 0 <= time.time() - due < rig.PATIENCE


def test_a_job_scheduled_while_somebody_waits_arrives_in_time(door: Door, queue_name: str) -> None:
    sent = door.send("GET", f"/q/{queue_name}?wait=10")
    door.catch_up()
    push(door, queue_name, "later", query="?delay=90")
    due = time.time() + 0.3
    push(door, queue_name, "soon", query=f"?delayed={due:.6f}")

    assert sent.answer().json == "soon"
    assert 0 <= time.time() - due < rig.PATIENCE


def test_a_time_with_an_offset_means_the_same_moment(door: Door, queue_name: str) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=0.2)
    for offset in "%2B05:30", "+05:30", "-03:00", "z":
        hours = {"%2B05:30": 5.5, "+05:30": 5.5, "-03:00": -3, "z": 0}[offset]
        local = (moment + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S.%f")
        push(door, queue_name, 1, query=f"?delayed={local}{offset}")
    for _ in range(4):
        assert door.ask("GET", f"/q/{queue_name}?wait=20").status == 200
        assert 0 <= time.time() - moment.timestamp() < rig.PATIENCE


def test_a_delay_that_has_passed_is_none(door: Door, queue_name: str) -> None:
    for moment in "0", "1.5", "1969-07-20T20:17:40Z", "2001-01-01T00:00:00Z":
        push(door, queue_name, moment, query=f"?delayed={moment}")
    assert drain(door, queue_name) == ["0", "1.5", "1969-07-20T20:17:40Z", "2001-01-01T00:00:00Z"]


# --- waiting ----------------------------------------------------------------------------------------


def test_a_waiting_fetch_gets_the_job_that_arrives(door: Door, queue_name: str) -> None:
    sent = door.send("GET", f"/q/{queue_name}?wait=60")
    door.catch_up()

    began = time.monotonic()
    push(door, queue_name, {"a": 1})

    answer = sent.answer()
    assert (answer.status, answer.json) == (200, {"a": 1})
    assert answer.headers["presque-queue"] == queue_name
    assert time.monotonic() - began < rig.PATIENCE


def test_those_who_wait_are_served_in_the_order_they_came(door: Door, queue_name: str) -> None:
    waiting = []
    for _ in range(5):
        waiting.append(door.send("GET", f"/q/{queue_name}?wait=60"))
        door.catch_up()
    push(door, queue_name, 0, 1, 2)
    assert [sent.answer().json for sent in waiting[:3]] == [0, 1, 2]
    push(door, queue_name, 3, 4)
    assert [sent.answer().json for sent in waiting[3:]] == [3, 4]


def test_a_waiting_fetch_that_finds_nothing_says_so_when_its_time_is_up(door: Door, queue_name: str) -> None:
    began = time.monotonic()
    refused(door.ask("GET", f"/q/{queue_name}?wait=0.3"), 404, "no job")
    assert 0.3 <= time.monotonic() - began < rig.PATIENCE


@pytest.mark.parametrize("prefer", ["wait=0.3", "Wait=0.3", 'respond-async, wait="0.3"', "wait=0.3,foo"])
def test_a_prefer_header_asks_to_wait(door: Door, queue_name: str, prefer: str) -> None:
    began = time.monotonic()
    refused(door.ask("GET", f"/q/{queue_name}", Prefer=prefer), 404, "no job")
    assert 0.3 <= time.monotonic() - began < rig.PATIENCE


def test_a_preference_that_was_followed_is_named_in_the_answer(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1, 2)
    assert door.ask("GET", f"/q/{queue_name}", Prefer="wait=90").headers["preference-applied"] == "wait=60"
    assert "preference-applied" not in door.ask("GET", f"/q/{queue_name}?wait=5").headers


@pytest.mark.parametrize(
    "prefer", ["wait=soon", "wait", "return=minimal", "", "wait=-1", "wait=nan", "wait=inf"]
)
def test_a_preference_that_makes_no_sense_is_ignored(door: Door, queue_name: str, prefer: str) -> None:
    began = time.monotonic()
    refused(door.ask("GET", f"/q/{queue_name}", Prefer=prefer), 404, "no job")
    assert time.monotonic() - began < rig.PATIENCE


def test_the_parameter_counts_more_than_the_preference(door: Door, queue_name: str) -> None:
    began = time.monotonic()
    refused(door.ask("GET", f"/q/{queue_name}?wait=0", Prefer="wait=60"), 404, "no job")
    assert time.monotonic() - began < rig.PATIENCE


WAIT = SECONDS.format("wait", 0, 60, "{}").replace("90s or 1h30m", "500ms or 20s")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        *[(f"wait={v}", WAIT.format(v)) for v in ("61", "60.001", "-1", "x", "1e1")],
        ("wait=", WAIT.replace("`{}`", "empty")),
        ("wait=1&wait=1", "`wait` is given twice"),
        ("wiat=1", "unknown parameter `wiat`, did you mean `wait`?"),
        ("batch_size=1", "unknown parameter `batch_size`, expected one of `wait`"),
    ],
)
def test_a_fetch_with_a_wrong_parameter_takes_nothing(
    door: Door, queue_name: str, query: str, text: str
) -> None:
    push(door, queue_name, 1)
    refused(door.ask("GET", f"/q/{queue_name}?{query}"), 400, text)
    assert size(door, queue_name) == 1


def test_a_fetch_that_may_wait_takes_what_is_there_at_once(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1)
    assert door.ask("GET", f"/q/{queue_name}?wait=60").json == 1


def test_a_waiting_fetch_of_a_stopped_queue_is_told_so_at_the_end(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1)
    control(door, queue_name, "stop")
    began = time.monotonic()
    refused(door.ask("GET", f"/q/{queue_name}?wait=0.3"), 404, "queue is closed")
    assert 0.3 <= time.monotonic() - began < rig.PATIENCE
    assert size(door, queue_name) == 1


def test_a_waiting_fetch_gets_its_job_when_the_queue_is_started(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1)
    control(door, queue_name, "stop")
    sent = door.send("GET", f"/q/{queue_name}?wait=60")
    door.catch_up()
    control(door, queue_name, "start")
    assert sent.answer().json == 1


def test_a_waiting_fetch_gets_nothing_from_a_queue_stopped_meanwhile(door: Door, queue_name: str) -> None:
    sent = door.send("GET", f"/q/{queue_name}?wait=0.5")
    door.catch_up()
    control(door, queue_name, "stop")
    push(door, queue_name, 1)
    assert sent.answer().status == 404
    assert size(door, queue_name) == 1


def test_one_who_waits_and_leaves_takes_no_job(door: Door, queue_name: str) -> None:
    for _ in range(20):
        sent = door.send("GET", f"/q/{queue_name}?wait=60")
        door.catch_up()
        sent.leave()
    stays = door.send("GET", f"/q/{queue_name}?wait=60")
    door.catch_up()

    push(door, queue_name, 1, 2)

    assert stays.answer().json == 1
    assert drain(door, queue_name) == [2]


# --- queue lists ------------------------------------------------------------------------------------


def test_a_queue_list_is_asked_in_its_order(door: Door, queue_name: str) -> None:
    a, b = f"{queue_name}.a", f"{queue_name}.b"
    push(door, a, "a")
    push(door, b, "b1", "b2")
    answer = door.ask("GET", f"/q/{b},{a}")
    assert (answer.json, answer.headers["presque-queue"]) == ("b1", b)
    assert drain(door, f"{a},{b}") == ["a", "b2"]


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        ("{0}.*", "abcd"),
        ("{0}.c,{0}.*", "cabd"),
        ("{0}.*,!{0}.b", "acd"),
        ("!{0}.b,{0}.*", "acd"),
        ("{0}.*,!{0}.%3F", ""),
        ("{0}.b,{0}.*,!{0}.b", "bacd"),
        ("{0}.%3F,!*.a", "bcd"),
        ("{0}.a,{0}.a", "a"),
        ("*.d,!*.d,{0}.a", "a"),
        ("{0}.x,{0}.d", "d"),
        ("{0}.b%2C{0}.a", "ba"),
        ("{0}%2E%2A", "abcd"),
    ],
)
def test_globs_and_exclusions(door: Door, queue_name: str, wanted: str, order: str) -> None:
    for name in "dbca":
        push(door, f"{queue_name}.{name}", name)
    assert "".join(drain(door, wanted.format(queue_name))) == order


@pytest.mark.parametrize("wanted", ["{0}.*", "{0}.x,{0}.n%3Fw,!{0}.x*", "{0}.*,!{0}.old"])
def test_a_glob_waits_for_queues_that_do_not_exist_yet(door: Door, queue_name: str, wanted: str) -> None:
    sent = door.send("GET", f"/q/{wanted.format(queue_name)}?wait=60")
    door.catch_up()
    push(door, f"{queue_name}.new", "here")
    answer = sent.answer()
    assert (answer.json, answer.headers["presque-queue"]) == ("here", f"{queue_name}.new")


def test_a_stopped_queue_in_a_list_is_passed_over(door: Door, queue_name: str) -> None:
    push(door, f"{queue_name}.a", "a")
    push(door, f"{queue_name}.b", "b")
    control(door, f"{queue_name}.a", "stop")
    assert drain(door, f"{queue_name}.a,{queue_name}.b") == ["b"]
    assert drain(door, f"{queue_name}.*") == []
    assert size(door, f"{queue_name}.a") == 1


@pytest.mark.parametrize(
    "wanted", ["!a", "!*", ",", "a,", ",a", "a,,b", "a%20b", "!!a", "[ab]", "a/b", "*.,{}"]
)
def test_a_queue_list_that_breaks_the_rule_is_refused(door: Door, wanted: str) -> None:
    answer = door.ask("GET", f"/q/{wanted}")
    assert answer.status == (404 if wanted == "a/b" else 400)
    as_json(answer)


def test_a_queue_list_has_64_parts_at_most(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1)
    many = [f"{queue_name}.{n}" for n in range(64)]
    refused(
        door.ask("GET", f"/q/{','.join([*many, queue_name])}"),
        400,
        "a queue list has at most 64 parts, this one has 65",
    )
    assert door.ask("GET", f"/q/{','.join([*many[1:], queue_name])}").json == 1


@pytest.mark.parametrize("name", ["a,b", "a*", "a%3Fb", "!a"])
def test_only_a_fetch_takes_a_queue_list(door: Door, name: str) -> None:
    for method, path in OF_A_QUEUE:
        if (method, path) != ("GET", "/q/{}") and method != "HEAD":
            answer = door.ask(method, path.format(name), BODY_OF.get(path), X_Presque_Workerid="w")
            assert answer.status == 400, (method, path)


# --- PUT --------------------------------------------------------------------------------------------


def test_a_put_stores_the_job_and_counts_a_failure(door: Door, queue_name: str) -> None:
    worker = f"w-{queue_name}"
    push(door, queue_name, 1)
    assert door.ask("GET", f"/q/{queue_name}", X_Presque_Workerid=worker).json == 1

    answer = door.ask("PUT", f"/q/{queue_name}", b'{"again":true}', X_presque_workerid=worker)

    assert (answer.status, answer.json) == (201, {"id": "2", "queue": queue_name})
    assert answer.headers["location"] == f"/j/{queue_name}/2"
    as_json(answer)
    assert door.ask("GET", f"/j/{queue_name}").json == {
        "queue_name": queue_name, "job_count": 1, "job_processed": 1, "job_failed": 1
    }  # fmt: skip
    eventually(lambda: door.ask("GET", f"/w/?worker_id={worker}").json["failed"] == 1)
    assert door.ask("GET", f"/w/?worker_id={worker}").json["processed"] == 1
    assert door.ask("GET", f"/q/{queue_name}").body == b'{"again":true}'


def test_a_put_without_a_worker_counts_for_the_queue(door: Door, queue_name: str) -> None:
    door.ask("PUT", f"/q/{queue_name}", b"1")
    assert stats(door, queue_name)["failed"] == 1


def test_a_put_takes_the_parameters_of_a_push(door: Door, queue_name: str) -> None:
    door.ask("PUT", f"/q/{queue_name}", b'"low"')
    door.ask("PUT", f"/q/{queue_name}?priority=9", b'"high"')
    door.ask("PUT", f"/q/{queue_name}?delay=60", b'"later"')
    assert drain(door, queue_name) == ["high", "low"]


# --- purge ------------------------------------------------------------------------------------------


def test_a_purge_deletes_jobs_counters_and_keys_but_not_the_sequence(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1, 2, query="?priority=7")
    push(door, queue_name, 3, query="?delay=60&uniq=k")
    push(door, queue_name, 4, query="?ttl=60")
    door.ask("PUT", f"/q/{queue_name}", b"5")
    door.ask("GET", f"/q/{queue_name}")

    answer = door.ask("DELETE", f"/q/{queue_name}")

    without_body(answer, 204)
    found = stats(door, queue_name)
    assert {found[k] for k in ("ready", "scheduled", "processed", "failed", "expired")} == {0}
    assert found["last_minute"]["processed"] == found["last_minute"]["failed"] == 0
    assert drain(door, queue_name) == []
    assert push(door, queue_name, 6, query="?uniq=k") == ["6"]
    assert drain(door, queue_name) == [6]


@pytest.mark.parametrize("word", ["stop", "start"])
def test_a_purge_leaves_the_queue_stopped_or_started_as_it_was(
    door: Door, queue_name: str, word: str
) -> None:
    control(door, queue_name, "stop")
    control(door, queue_name, word)
    without_body(door.ask("DELETE", f"/q/{queue_name}"), 204)
    assert door.ask("GET", f"/control/{queue_name}").json["status"] == (word == "start")
    assert queue_name not in door.ask("GET", "/w/").json


def test_a_purge_of_a_queue_never_seen_is_fine(door: Door, queue_name: str) -> None:
    without_body(door.ask("DELETE", f"/q/{queue_name}"), 204)


# --- batches ----------------------------------------------------------------------------------------


def test_a_batch_push_answers_all_ids_in_order(door: Door, queue_name: str) -> None:
    push(door, queue_name, 0)
    answer = door.ask("POST", f"/qb/{queue_name}", b'{"jobs":[1,"two",{"three":3}]}')
    assert answer.status == 201
    assert answer.body == b'{"ids":["2","3","4"],"queue":"%b"}\n' % queue_name.encode()
    as_json(answer)
    assert drain(door, queue_name) == [0, 1, "two", {"three": 3}]


def test_a_batch_fetch_answers_the_texts_of_the_jobs(door: Door, queue_name: str) -> None:
    bodies = [b'{ "a" : 1 }', b"12345678901234567890", b"[]", '"ü"'.encode(), b'"\\u00fc"']
    jobs = b" , ".join(bodies)
    assert door.ask("POST", f"/qb/{queue_name}", b'{"jobs" : [ %b ] }' % jobs).status == 201
    answer = door.ask("GET", f"/qb/{queue_name}")
    assert (answer.status, answer.json) == (200, [body.decode() for body in bodies])
    as_json(answer)
    refused(door.ask("GET", f"/qb/{queue_name}"), 404, "no job")


def test_a_batch_fetch_takes_ten_unless_told(door: Door, queue_name: str) -> None:
    jobs = json.dumps({"jobs": list(range(25))})
    assert len(door.ask("POST", f"/qb/{queue_name}", jobs).json["ids"]) == 25
    assert door.ask("GET", f"/qb/{queue_name}").json == [str(n) for n in range(10)]
    assert door.ask("GET", f"/qb/{queue_name}?batch_size=1").json == ["10"]
    assert door.ask("GET", f"/qb/{queue_name}?batch_size=1000").json == [str(n) for n in range(11, 25)]
    assert stats(door, queue_name)["processed"] == 25


SIZE = "`batch_size` should be a whole number from 1 to 1000, not `{}`"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        *[(f"batch_size={v}", SIZE.format(v)) for v in ("0", "1001", "x", "-1", "1.5")],
        ("batch_size=1&batch_size=1", "`batch_size` is given twice"),
        ("batchsize=3", "unknown parameter `batchsize`, did you mean `batch_size`?"),
    ],
)
def test_a_batch_fetch_with_a_wrong_parameter_takes_nothing(
    door: Door, queue_name: str, query: str, text: str
) -> None:
    push(door, queue_name, 1)
    refused(door.ask("GET", f"/qb/{queue_name}?{query}"), 400, text)
    assert size(door, queue_name) == 1


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"jobs":{}}', b'{"jobs":null}', b'{"jobs":"a"}', b"1", b'{"job":[1]}', b'"jobs"']
)
def test_a_batch_that_is_no_list_is_refused(door: Door, queue_name: str, body: bytes) -> None:
    refused(door.ask("POST", f"/qb/{queue_name}", body), 400, "jobs should be an array of job")
    assert push(door, queue_name, 1) == ["1"]


@pytest.mark.parametrize("body", [None, b"", b" "])
def test_a_batch_without_a_body_is_refused(door: Door, queue_name: str, body: bytes | None) -> None:
    refused(door.ask("POST", f"/qb/{queue_name}", body), 400, "job is missing")


def test_an_empty_batch_stores_nothing(door: Door, queue_name: str) -> None:
    answer = door.ask("POST", f"/qb/{queue_name}", b'{"jobs":[]}')
    assert (answer.status, answer.json) == (201, {"ids": [], "queue": queue_name})
    assert size(door, queue_name) == 0


def test_a_batch_has_a_thousand_jobs_at_most(door: Door, queue_name: str) -> None:
    refused(
        door.ask("POST", f"/qb/{queue_name}", json.dumps({"jobs": [0] * 1001})),
        400,
        "jobs should be at most 1000 at once, not 1001",
    )
    assert size(door, queue_name) == 0
    assert len(door.ask("POST", f"/qb/{queue_name}", json.dumps({"jobs": [0] * 1000})).json["ids"]) == 1000


@pytest.mark.parametrize(
    "body",
    [b'{"jobs":[1,2,nope]}', b'{"jobs":[1,2', b'{"jobs":[1,"\xff"]}', b'{"jobs":[1,01]}', b'{"jobs":[1]}}'],
)
def test_a_batch_with_one_bad_job_stores_none(door: Door, queue_name: str, body: bytes) -> None:
    assert door.ask("POST", f"/qb/{queue_name}", body).status == 400
    assert push(door, queue_name, 1) == ["1"]


def test_a_batch_takes_the_parameters_of_a_push_but_uniq(door: Door, queue_name: str) -> None:
    batch = b'{"jobs":["x","y"]}'
    push(door, queue_name, "plain")
    for query in "priority=9", "delay=60", "delayed=2099-01-01T00:00:00Z", "ttl=60", "attempts=2", "keep=3":
        assert door.ask("POST", f"/qb/{queue_name}?{query}", batch).status == 201, query
    assert stats(door, queue_name)["scheduled"] == 4
    assert drain(door, queue_name) == ["x", "y", "plain", "x", "y", "x", "y", "x", "y"]
    known = "expected one of `attempts`, `delay`, `delayed`, `group`, `keep`, `priority`, `ttl`"
    for name in "uniq", "uniq_until":
        answer = door.ask("POST", f"/qb/{queue_name}?{name}=k", batch)
        assert answer.status == 400
        assert answer.json["error"].startswith(f"unknown parameter `{name}`")
        assert known in answer.json["error"] or "did you mean" in answer.json["error"]
    refused(
        door.ask("POST", f"/qb/{queue_name}?ttl=1&delay=2", batch),
        400,
        "`ttl` ends before the job is due: nobody could ever take it",
    )
    assert size(door, queue_name) == 0


def test_a_batch_wakes_as_many_as_wait(door: Door, queue_name: str) -> None:
    waiting = [door.send("GET", f"/q/{queue_name}?wait=60") for _ in range(3)]
    door.catch_up()
    door.ask("POST", f"/qb/{queue_name}", b'{"jobs":[1,2,3,4]}')
    assert sorted(sent.answer().json for sent in waiting) == [1, 2, 3]
    assert drain(door, queue_name) == [4]


# --- what there is to see ---------------------------------------------------------------------------


def test_info_has_exactly_its_fields(door: Door, queue_name: str) -> None:
    zeros = {"queue_name": queue_name, "job_count": 0, "job_processed": 0, "job_failed": 0}
    answer = door.ask("GET", f"/j/{queue_name}")
    assert (answer.status, answer.json) == (200, zeros)
    as_json(answer)
    push(door, queue_name, 1, 2)
    door.ask("GET", f"/q/{queue_name}")
    door.ask("PUT", f"/q/{queue_name}", b"3")
    assert door.ask("GET", f"/j/{queue_name}").json == zeros | {
        "job_count": 2, "job_processed": 1, "job_failed": 1
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/status/", "/status"])
def test_status_names_all_queues(door: Door, queue_name: str, path: str) -> None:
    assert queue_name not in door.ask("GET", path).json["queues"]
    push(door, queue_name, 1)
    answer = door.ask("GET", path)
    assert answer.status == 200
    assert list(answer.json) == ["queues", "size"]
    assert queue_name in answer.json["queues"]
    assert answer.json["queues"] == sorted(answer.json["queues"])
    assert answer.json["size"] == len(answer.json["queues"])
    as_json(answer)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("stat=dead", "unknown parameter `stat`, did you mean `state`?"),
        ("x=1", "unknown parameter `x`, expected one of `cursor`, `limit`, `state`"),
        ("limit=5", "`limit` goes with `state`: give `state` too"),
        ("cursor=a", "`cursor` goes with `state`: give `state` too"),
    ],
)
def test_the_size_of_a_queue_says_what_a_list_of_its_jobs_takes(
    door: Door, queue_name: str, query: str, text: str
) -> None:
    refused(door.ask("GET", f"/j/{queue_name}?{query}"), 400, text)


def test_the_status_of_a_queue_is_its_size(door: Door, queue_name: str) -> None:
    assert door.ask("GET", f"/status/{queue_name}").json == {"queue": queue_name, "size": 0}
    push(door, queue_name, 1, b'{ "b":2}')
    push(door, queue_name, 3, query="?delay=60")
    push(door, queue_name, 4, query="?priority=9")
    for query in "", "?with_desc=0":
        assert door.ask("GET", f"/status/{queue_name}{query}").json == {"queue": queue_name, "size": 3}
    answer = door.ask("GET", f"/status/{queue_name}?with_desc=1")
    assert answer.json == {"queue": queue_name, "size": 3, "jobs": ["4", "1", '{ "b":2}']}
    as_json(answer)
    assert drain(door, queue_name) == [4, 1, {"b": 2}]  # looking took nothing


def test_a_description_shows_a_thousand_jobs_at_most(door: Door, queue_name: str) -> None:
    for first in 0, 600:
        jobs = json.dumps({"jobs": list(range(first, first + 600))})
        assert door.ask("POST", f"/qb/{queue_name}", jobs).status == 201
    found = door.ask("GET", f"/status/{queue_name}?with_desc=1").json
    assert found["size"] == 1200
    assert found["jobs"] == [str(n) for n in range(1000)]


@pytest.mark.parametrize("value", ["2", "maybe"])
def test_with_desc_is_true_or_false(door: Door, queue_name: str, value: str) -> None:
    refused(
        door.ask("GET", f"/status/{queue_name}?with_desc={value}"),
        400,
        f"`with_desc` should be true or false, not `{value}`",
    )


@pytest.mark.parametrize(
    "target",
    ["/status/{}?with_desc=", "/q/{}?wait=0&", "/qb/{}?batch_size=", "/w/?worker_id=", "/w/?queue_name="],
)
def test_a_parameter_of_2010_that_is_empty_is_as_if_it_were_not_given(
    door: Door, queue_name: str, target: str
) -> None:
    push(door, queue_name, 1, query="?delayed=&uniq=")
    assert door.ask("GET", target.format(queue_name)).status == 200


@pytest.mark.parametrize("path", ["/stats/", "/stats"])
def test_stats_show_every_queue_and_the_store(door: Door, queue_name: str, path: str) -> None:
    push(door, queue_name, 1)
    answer = door.ask("GET", path)
    assert answer.status == 200
    as_json(answer)
    found = answer.json
    assert isinstance(found["redis"], str)
    assert queue_name in found["queues"]
    assert found["size"] == len(found["queues"]) == len(found["by_queue"])
    assert {"queue": queue_name} | found["by_queue"][queue_name] | {"oldest_seconds": 0} == stats(
        door, queue_name
    ) | {"oldest_seconds": 0}


def test_the_stats_of_a_queue_count_by_state(door: Door, queue_name: str) -> None:
    nothing = {
        "queue": queue_name, "ready": 0, "scheduled": 0, "leased": 0, "done": 0, "dead": 0, "processed": 0,
        "failed": 0, "expired": 0, "oldest_seconds": None, "status": 1,
        "last_minute": {"pushed": 0, "processed": 0, "failed": 0},
    }  # fmt: skip
    answer = door.ask("GET", f"/stats/{queue_name}")
    assert (answer.status, answer.json) == (200, nothing)
    as_json(answer)

    push(door, queue_name, 1, 2, 3)
    push(door, queue_name, 4, query="?delay=60")
    door.ask("GET", f"/q/{queue_name}")
    door.ask("PUT", f"/q/{queue_name}", b"1")
    control(door, queue_name, "stop")

    found = stats(door, queue_name)
    oldest = found.pop("oldest_seconds")
    assert found == {
        key: value for key, value in nothing.items() if key != "oldest_seconds"
    } | {
        "ready": 3, "scheduled": 1, "processed": 1, "failed": 1, "status": 0,
        "last_minute": {"pushed": 5, "processed": 1, "failed": 1},
    }  # fmt: skip
    assert 0 <= oldest < rig.PATIENCE


# --- control ----------------------------------------------------------------------------------------


def test_a_queue_never_seen_is_started(door: Door, queue_name: str) -> None:
    answer = door.ask("GET", f"/control/{queue_name}")
    assert (answer.status, answer.json) == (200, {"queue": queue_name, "status": 1})
    as_json(answer)


def test_a_stopped_queue_takes_pushes_and_hands_out_nothing(door: Door, queue_name: str) -> None:
    control(door, queue_name, "stop")
    control(door, queue_name, "stop")
    assert door.ask("GET", f"/control/{queue_name}").json == {"queue": queue_name, "status": 0}
    push(door, queue_name, 1)
    refused(door.ask("GET", f"/q/{queue_name}"), 404, "queue is closed")
    refused(door.ask("GET", f"/qb/{queue_name}"), 404, "queue is closed")
    control(door, queue_name, "start")
    assert door.ask("GET", f"/control/{queue_name}").json == {"queue": queue_name, "status": 1}
    assert drain(door, queue_name) == [1]


@pytest.mark.parametrize(
    "body",
    [
        b"{}", b'{"status":"pause"}', b'{"status":1}', b'"stop"', b"[]", b'{"Status":"stop"}',
        b'{"status":"stop","statsu":"start"}',
    ],
)  # fmt: skip
def test_control_takes_start_and_stop_only(door: Door, queue_name: str, body: bytes | None) -> None:
    refused(
        door.ask("POST", f"/control/{queue_name}", body),
        400,
        'the body should be {"status": "start"} or {"status": "stop"}',
    )
    assert door.ask("GET", f"/control/{queue_name}").json["status"] == 1


@pytest.mark.parametrize("body", [b"stop", b'{"status":"stop"', b'{"status":"st\xffop"}', b"[" * 100_000])
def test_a_control_body_that_is_not_json_is_refused(door: Door, queue_name: str, body: bytes) -> None:
    answer = door.ask("POST", f"/control/{queue_name}", body)
    assert answer.status == 400
    assert answer.json["error"].startswith("the body is ")


# --- workers ----------------------------------------------------------------------------------------


def test_a_worker_registers_and_unregisters(door: Door, queue_name: str) -> None:
    worker = f"host.example:{queue_name}"
    before = datetime.now(UTC) - timedelta(milliseconds=2)

    without_body(door.ask("POST", f"/w/{queue_name}", X_presque_workerid=worker), 201)

    for path in "/w/", "/w":
        answer = door.ask("GET", path)
        assert answer.status == 200
        assert worker in answer.json
        as_json(answer)
    answer = door.ask("GET", f"/w/?worker_id={worker}")
    started = datetime.fromisoformat(answer.json["started_at"])
    assert before <= started <= datetime.now(UTC)
    assert answer.json == {
        "worker_id": worker, "started_at": answer.json["started_at"], "processed": 0, "failed": 0
    }  # fmt: skip
    assert door.ask("GET", f"/w/?queue_name={queue_name}").json == {
        "queue_name": queue_name, "workers_list": [worker], "processed": 0, "failed": 0
    }  # fmt: skip

    for _ in range(2):
        without_body(door.ask("DELETE", f"/w/{queue_name}", X_presque_workerid=worker), 204)

    assert worker not in door.ask("GET", "/w/").json
    assert door.ask("GET", f"/w/?queue_name={queue_name}").json["workers_list"] == []
    refused(door.ask("GET", f"/w/?worker_id={worker}"), 404, f"no worker is called `{worker}`")


def test_what_a_worker_fetches_is_counted(door: Door, queue_name: str) -> None:
    worker = f"w-{queue_name}"
    door.ask("POST", f"/w/{queue_name}", X_presque_workerid=worker)
    sent = door.send("GET", f"/q/{queue_name}?wait=60", X_presque_workerid=worker)
    door.catch_up()
    push(door, queue_name, 1, 2, 3, 4)
    sent.answer()
    door.ask("GET", f"/q/{queue_name}", X_presque_workerid=worker)
    door.ask("GET", f"/qb/{queue_name}", X_presque_workerid=worker)
    door.ask("GET", f"/q/{queue_name}", X_presque_workerid=worker)  # finds nothing

    eventually(lambda: door.ask("GET", f"/w/?worker_id={worker}").json["processed"] == 4)
    assert door.ask("GET", f"/w/?queue_name={queue_name}").json == {
        "queue_name": queue_name, "workers_list": [worker], "processed": 4, "failed": 0
    }  # fmt: skip


def test_a_worker_may_take_jobs_of_many_queues(door: Door, queue_name: str) -> None:
    worker = f"w-{queue_name}"
    other = f"{queue_name}2"
    for queue in queue_name, other, other:
        door.ask("POST", f"/w/{queue}", X_presque_workerid=worker)
    door.ask("DELETE", f"/w/{queue_name}", X_presque_workerid=worker)
    assert door.ask("GET", f"/w/?queue_name={queue_name}").json["workers_list"] == []
    assert door.ask("GET", f"/w/?queue_name={other}").json["workers_list"] == [worker]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_worker_without_an_id_is_refused(door: Door, queue_name: str, method: str) -> None:
    refused(door.ask(method, f"/w/{queue_name}"), 400, "worker_id is missing")
    refused(door.ask(method, f"/w/{queue_name}", X_presque_workerid=""), 400, "worker_id is missing")


@pytest.mark.parametrize("worker", ["a b", "w\xe9", "x" * 257, "a\tb"])
def test_a_worker_id_that_breaks_the_rule_is_refused(door: Door, queue_name: str, worker: str) -> None:
    push(door, queue_name, 1)
    rule = "is not a valid worker id: use 1 to 256 visible ASCII characters"
    for method, path in ("POST", "w"), ("DELETE", "w"), ("GET", "q"), ("PUT", "q"), ("GET", "qb"):
        answer = door.ask(
            method, f"/{path}/{queue_name}", b"1" if method == "PUT" else None, X_presque_workerid=worker
        )
        assert answer.status == 400
        assert answer.json["error"].endswith(rule)
    assert (size(door, queue_name), stats(door, queue_name)["failed"]) == (1, 0)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("worker_id=a&queue_name=b", "give `queue_name` or `worker_id`, not both"),
        ("worker=a", "unknown parameter `worker`, did you mean `worker_id`?"),
        ("queue=a", "unknown parameter `queue`, did you mean `queue_name`?"),
        ("worker_id=a&worker_id=b", "`worker_id` is given twice"),
    ],
)
def test_a_question_about_workers_must_make_sense(door: Door, query: str, text: str) -> None:
    refused(door.ask("GET", f"/w/?{query}"), 400, text)


def test_a_question_about_a_queue_that_breaks_the_rule_is_refused(door: Door) -> None:
    assert door.ask("GET", "/w/?queue_name=%7Bx%7D").status == 400


# --- names and routes -------------------------------------------------------------------------------

RULE = "use 1 to 128 letters, digits and . _ : @ ~ + -, beginning with a letter or digit"
IN_PATTERNS = "* and ? stand for others, ! leaves one out, commas go between"
BAD_NAMES = {
    "%2F": "/", "a%2Fb": "a/b", "%00": "?", "a%00": "a?", "a%0d%0aX-Evil:1": "a??X-Evil:1", "%7Bx%7D": "{x}",
    "{x}": "{x}", "a%20b": "a b", "-a": "-a", ".": ".", "..": "..", "%2e%2e": "..", "_a": "_a", "%": "%",
    "a%zz": "a%zz", "%C3%A9": "é", "%EF%BC%A1": "\uff21", "a%E2%80%8B": "a?", "a;b": "a;b", "a=b": "a=b",
    "a$": "a$", "x" * 129: "x" * 64 + "…", "%2561": "%61", "a%0A": "a?", "a'": "a'", "<script>": "<script>",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: name[:20])
def test_a_name_that_breaks_the_rule_is_refused_everywhere(door: Door, name: str) -> None:
    before = door.ask("GET", "/status/").json
    for method, path in OF_A_QUEUE:
        answer = door.ask(method, path.format(name), BODY_OF.get(path), X_presque_workerid="w")
        if method == "HEAD":
            assert answer.status == 400
        elif (method, path) == ("GET", "/q/{}"):
            shown = BAD_NAMES[name]
            refused(answer, 400, f"`{shown}` is not a queue name or pattern: {RULE}; {IN_PATTERNS}")
        else:
            refused(answer, 400, f"`{BAD_NAMES[name]}` is not a valid queue name: {RULE}")
        assert "x-evil" not in answer.headers
    assert door.ask("GET", "/status/").json == before


@pytest.mark.parametrize("name", ["%ff", "a%C3", "%C0%AF", "%ED%A0%80"])
def test_a_path_that_is_not_utf_8_is_refused_everywhere(door: Door, name: str) -> None:
    for method, path in OF_A_QUEUE:
        answer = door.ask(method, path.format(name), BODY_OF.get(path), X_presque_workerid="w")
        assert answer.status == 400, (method, path)
        if method != "HEAD":
            refused(answer, 400, "the path is not UTF-8")


@pytest.mark.parametrize("end", ["Z9._:@~+-", "x" * 90, "++", "%41%2b", "@%7e"])
def test_a_name_within_the_rule_is_taken_however_it_is_encoded(door: Door, queue_name: str, end: str) -> None:
    name = f"{queue_name}{end}"
    plain = f"{queue_name}{end.replace('%41', 'A').replace('%2b', '+').replace('%7e', '~')}"
    answer = door.ask("POST", f"/q/{name}", b"1")
    assert (answer.status, answer.json["queue"]) == (201, plain)
    assert answer.headers["location"] == f"/j/{plain}/1"
    assert door.ask("GET", f"/q/{plain}").json == 1


def test_names_differ_by_case(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1)
    assert drain(door, queue_name.upper()) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [(m, p) for p, taken in ROUTES.items() for m in METHODS if m not in taken and m + p != "PUT/qb/{}"],
)
def test_a_method_that_a_route_does_not_take_is_405(
    door: Door, queue_name: str, method: str, path: str
) -> None:
    allowed = ROUTES[path]
    answer = door.ask(method, path.format(queue_name), b"1" if method in ("PUT", "PATCH") else None)
    assert answer.status == 405
    assert answer.headers["allow"] == ", ".join(allowed)
    if method != "HEAD":
        refused(answer, 405, f"{method} is not allowed on this route; it takes {', '.join(allowed)}")


@pytest.mark.parametrize("path", [path for path, methods in ROUTES.items() if "HEAD" in methods])
def test_head_answers_the_headers_of_get(door: Door, queue_name: str, path: str) -> None:
    answer = door.ask("HEAD", path.format(queue_name))
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    ["/nope", "/nope/", "//", "/q/a/b", "/ws/a/b", "/static/../q/a", "/%71/a", "/" + "x" * 300],
)
def test_what_is_no_route_is_404(door: Door, path: str) -> None:
    for method in "GET", "POST":
        refused(door.ask(method, path), 404, f"there is no route {method} {path[:200]}")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/stat", "/stats"),
        ("/Q/a", "/q/a"),
        ("/qq/a", "/q/a"),
        ("/Status/a", "/status/a"),
        ("/contorl/a", "/control/a"),
        ("/event", "/events"),
        ("/openapi", "/openapi.json"),
        ("/q/a/leases", "/q/a/lease"),
        ("/j/a/1/akc", "/j/a/1/ack"),
        ("/j/a/1/explane", "/j/a/1/explain"),
        ("/cron/a/runs", "/cron/a/run"),
        ("/q/a/", "/q/a"),
        ("//q/a", "/q/a"),
        ("/q//a//lease/", "/q/a/lease"),
        ("/status//", "/status"),
        ("/queue/", "/queue"),
    ],
)
def test_a_route_that_is_nearly_right_names_the_one_that_was_meant(door: Door, path: str, meant: str) -> None:
    for method in "GET", "POST":
        answer = door.ask(method, path)
        assert answer.status == 404
        assert answer.json["error"] == f"there is no route {method} {path}, did you mean `{meant}`?"


@pytest.mark.parametrize(
    ("method", "path"), [(m, p) for p, ms in ROUTES.items() for m in ms if m != "HEAD" and p != "/w/"]
)
def test_every_route_refuses_a_parameter_it_does_not_know(
    door: Door, queue_name: str, method: str, path: str
) -> None:
    target = path.format(queue_name)
    body = None if (method, path) == ("GET", "/qb/{}") else BODY_OF.get(path)
    answer = door.ask(method, f"{target}?zzz=1", body, X_presque_workerid="w")
    assert answer.status == 400
    assert answer.json["error"].startswith("unknown parameter `zzz`, ")
    if "expected one of" not in answer.json["error"]:
        assert answer.json["error"] == "unknown parameter `zzz`, this route takes none"
    assert queue_name not in door.ask("GET", "/status/").json["queues"]
    assert "w" not in door.ask("GET", "/w/").json


def test_the_first_page_takes_get_and_head(door: Door) -> None:
    for method in "POST", "PUT", "DELETE":
        refused(door.ask(method, "/"), 405, f"{method} is not allowed on this route; it takes GET, HEAD")


def test_the_first_page_is_html(door: Door) -> None:
    answer = door.ask("GET", "/")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
