"""Jobs go out as lines with all that is known of them, and come in again as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from presque import Client
from presque.client import ClientError
from tests import rig

FULL: dict[str, Any] = {"priority": 9, "ttl": 900, "attempts": 7, "keep": 600, "group": "g", "uniq": "u"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACED: dict[str, Any] = {"traceparent": TRACE, "tracestate": 'shop=a"b\\'}


@pytest.fixture
def client(server: rig.Server) -> Iterator[Client]:
    with Client(server.url) as found:
        yield found


def exported(server: rig.Server, queues: str, **only: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The jobs of an export, and its last line."""
    query = "&".join(f"{name}={value}" for name, value in only.items())
    answer = server.ask("GET", f"/export?queues={queues}&{query}")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    lines = [json.loads(line) for line in answer.body.splitlines()]
    return [line for line in lines if "body" in line], lines[-1]


def fill(client: Client, queue: str) -> None:
    """Jobs of every state, with everything that a job can have."""
    client.push_text(queue, '{ "n":\n [1.50, 12345678901234567890, "é\\u0007"] }', **FULL, **TRACED)
    client.push(queue, "until done", uniq="d", uniq_until="done", delay=600)
    client.push(queue, "again")
    client.push(queue, "kept", keep=600)
    client.push(queue, "dies", attempts=1)
    client.push(queue, "held")
    held = {
        job.value if isinstance(job.value, str) else "": job for job in client.lease(queue, 10, seconds=600)
    }
    client.release(held[""])
    client.extend(held["kept"], progress={"half": 1})
    client.ack(held["kept"], {"sent": True})
    client.fail(held["again"], "no", backtrace="at 3", retry_in=600, saved=[1])
    client.fail(held["dies"], "no such codec")
    client.push(queue, "ready")
    client.put_cron(queue, queue, "recurs", "@yearly")
    client.run_cron(queue)
    client.delete_cron(queue)


def plain(job: dict[str, Any]) -> dict[str, Any]:
    """A job without what differs from queue to queue."""
    return {name: value for name, value in job.items() if name not in ("queue", "id", "lease_until")}


def test_an_import_of_an_export_is_the_same_again(
    client: Client, server: rig.Server, queue_name: str
) -> None:
    fill(client, queue_name)
    jobs, end = exported(server, queue_name)
    assert end == {"cursor": None, "exported": 8, "spoilt": []}
    other = f"{queue_name}-other"
    lines = "".join(json.dumps({**job, "queue": other}) + "\n" for job in jobs)

    assert client.import_lines(lines.encode(), queue_name, 1) == 8

    again, _ = exported(server, other)
    by_body = {json.dumps(job["body"]): job for job in again}
    for job in jobs:
        found = by_body[json.dumps(job["body"])]
        if job["state"] == "leased":
            assert (found["state"], found["attempt"]) == ("ready", 1)
        else:
            wanted = plain(job)
            if job["state"] == "scheduled" and "run_at" not in job:
                found = {name: value for name, value in found.items() if name != "run_at"}
            assert plain(found) == wanted
    with pytest.raises(ClientError, match="job already exists"):
        client.push(other, 1, uniq="d")
    taken = client.lease(other, 10)
    assert {str(job.value) for job in taken} >= {"ready", "held"}
    [first] = [job for job in taken if isinstance(job.value, dict)]
    assert (first.priority, first.max_attempts) == (9, 7)
    assert (first.traceparent, first.tracestate) == tuple(TRACED.values())


def test_an_import_keeps_no_trace_that_cannot_be_read(
    client: Client, server: rig.Server, queue_name: str
) -> None:
    """Those who take the job get it in the head of an answer and within JSON."""
    wrong = ('a"b\\', "a\r\nX-Evil: 1", f"{TRACE}\n", "é")
    traces = [{"traceparent": one} for one in wrong]
    traces += [{"traceparent": TRACE, "tracestate": f"a={one}"} for one in ("1\r\nX-Evil: 1", "é")]
    lines = "".join(json.dumps({"queue": queue_name, "body": 1, **trace}) + "\n" for trace in traces)
    assert server.ask("POST", "/import", lines).json["imported"] == len(traces)
    taken = [server.ask("GET", f"/q/{queue_name}").headers for _ in wrong[:2]]
    assert not any({"traceparent", "x-evil"} & set(one) for one in taken)
    jobs = client.lease(queue_name, 10)
    assert [one.traceparent for one in jobs] == [None, None, TRACE, TRACE]
    assert [one.tracestate for one in jobs] == [None] * 4


def test_a_body_goes_out_and_comes_in_with_its_own_bytes(
    client: Client, server: rig.Server, queue_name: str
) -> None:
    client.push_text(queue_name, '{ "n":\n [1.50, 12345678901234567890] }')
    body = server.ask("GET", f"/export?queues={queue_name}").body
    assert b'"body":{ "n":  [1.50, 12345678901234567890] }' in body
    client.purge(queue_name)
    client.import_lines(body)
    assert client.peek(queue_name) == ['{ "n":  [1.50, 12345678901234567890] }']


def test_an_export_goes_on_behind_a_cursor(client: Client, server: rig.Server, queue_name: str) -> None:
    client.push_many(queue_name, list(range(600)))
    lines = server.ask("GET", f"/export?queues={queue_name}&state=ready").body.splitlines()
    ends = [at for at, line in enumerate(lines) if line.startswith(b'{"cursor":')]
    assert len(ends) > 2
    first = [json.loads(line)["body"] for line in lines[: ends[0]]]
    rest, end = exported(server, queue_name, state="ready", cursor=json.loads(lines[ends[0]])["cursor"])
    assert first + [job["body"] for job in rest] == list(range(600))
    assert end["exported"] == len(rest)


def test_only_what_matches_is_exported(client: Client, server: rig.Server, queue_name: str) -> None:
    client.push_many(queue_name, ["ana", "ben"])
    jobs, _ = exported(server, queue_name, find="ben")
    assert [job["body"] for job in jobs] == ["ben"]


def test_a_batch_of_an_import_is_stored_once_in_each_queue(client: Client, queue_name: str) -> None:
    other = f"{queue_name}-other"
    one, two = (f'{{"queue":"{queue}","body":1}}\n'.encode() for queue in (queue_name, other))
    assert client.import_lines(one, queue_name, 1) == 1
    assert client.import_lines(one + two, queue_name, 1) == 1  # as if it had been cut off in between
    assert client.import_lines(one + two, queue_name, 2) == 2
    assert client.import_lines(one + two, queue_name, 1) == 0
    client.purge(other)
    assert client.import_lines(two, queue_name, 2) == 1  # what was purged can be imported again


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"body":1}', "line 1: `queue` is missing"),
        ('{"queue":"x"}', "line 1: `body` is missing"),
        ('{"queue":"x","body":1,"statte":"dead"}', "line 1: unknown field `statte`, did you mean `state`?"),
        ('{"queue":"x","body":1}\n{"queue":"x","body":}', "line 2: the body is not JSON"),
        ('{"queue":"x","body":1,"errors":[{"error":"no"}]}', "line 1: errors[0]: `at` is missing"),
        ("[1]", "line 1: "),
    ],
)
def test_a_line_that_is_wrong_is_named_and_nothing_is_stored(
    client: Client, server: rig.Server, line: str, says: str
) -> None:
    before = client.stats("x")["ready"]
    answer = server.ask("POST", "/import", line)
    assert answer.status == 400
    assert answer.json["error"].startswith(says), answer.json
    assert client.stats("x")["ready"] == before
