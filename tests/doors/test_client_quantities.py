"""Durations and moments as Python says them, wherever a client takes one; methods beside verbs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_type_hints

import pytest

from presque import AsyncClient
from presque.client import calls, options
from presque.verbs import VERBS
from tests import rig
from tests.clients import Connect

HOUR = timedelta(hours=1)
PARIS_OF_1890 = timezone(timedelta(minutes=9, seconds=21))  # an offset that RFC 3339 cannot say


def seconds_until(moment: str | None) -> float:
    assert moment is not None
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize("hour", [HOUR, 3600, 3600.0, "1h", "59m60s", "3600"])
def test_a_duration_may_be_said_in_any_way(
    connect: Connect, server: rig.Server, queue_name: str, hour: Any
) -> None:
    client, q = connect(server.url, timeout=timedelta(seconds=30)), queue_name
    id = client.push(q, 1, delay=hour, keep=hour)
    record = client.job(q, id, wait=timedelta(milliseconds=1))
    assert seconds_until(client.job(q, client.push(q, 0, ttl=hour))["expires_at"]) == pytest.approx(
        3600, abs=60
    )
    client.fetch(q)
    assert seconds_until(record["run_at"]) == pytest.approx(3600, abs=60)
    [other] = client.push_many(q, [1], delay=hour)
    assert seconds_until(client.job(q, other)["run_at"]) == pytest.approx(3600, abs=60)
    client.change(q, other, delay=0)
    assert client.change(q, id, delay=hour)["state"] == "scheduled"
    [job] = client.lease(q, seconds=hour, wait="100ms")
    assert seconds_until(job.lease_until) == pytest.approx(3600, abs=60)
    assert seconds_until(client.extend(job, hour)["lease_until"]) == pytest.approx(3600, abs=60)
    assert seconds_until(client.release(job, hour)["run_at"]) == pytest.approx(3600, abs=60)
    client.change(q, other, delay=0)
    [job] = client.lease(q)
    assert seconds_until(client.fail(job, "no", retry_in=hour)["run_at"]) == pytest.approx(3600, abs=60)
    client.change(q, other, delay=0)
    [job] = client.lease(q)
    held = {"queue": q, "id": job.id, "lease": job.lease}
    [told] = client.settle({"extend": [{**held, "seconds": hour}]})
    assert seconds_until(told["lease_until"]) == pytest.approx(3600, abs=60)
    [told] = client.settle_and_lease({"release": [{**held, "delay": hour}]}, q).settled
    assert seconds_until(told["run_at"]) == pytest.approx(3600, abs=60)
    assert client.fetch(q, wait=timedelta(milliseconds=20)) is None
    changed = client.change_policy(
        q, lease=hour, keep=hour, backoff={"first": hour, "most": hour}, rate={"count": 5, "seconds": hour}
    )
    assert (changed["lease"], changed["keep"], changed["backoff"]["first"]) == (3600, 3600, 3600)
    assert changed["rate"] == {"count": 5, "seconds": 3600}
    assert client.put_cron(q, q, 1, "@every 1h", ttl=hour)["ttl"] == 3600
    client.delete_cron(q)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=30)), PARIS_OF_1890])
def test_a_moment_may_be_a_datetime_with_any_time_zone(
    connect: Connect, server: rig.Server, queue_name: str, zone: timezone
) -> None:
    client, soon = connect(server.url), datetime.now(zone) + HOUR
    ids = [
        client.push(queue_name, 1, delayed=soon),
        client.push(queue_name, 1, delayed=soon.timestamp()),
        *client.push_many(queue_name, [1], delayed=soon.astimezone(UTC).isoformat()),
        client.push(queue_name, 1),
    ]
    client.change(queue_name, ids[-1], delayed=soon)
    for id in ids:
        assert seconds_until(client.job(queue_name, id)["run_at"]) == pytest.approx(3600, abs=60)


NAIVE = datetime(2031, 1, 1)  # noqa: DTZ001
HELD = {"queue": "q", "id": "1", "lease": "t"}

REFUSED: list[tuple[str, Callable[[Any], object]]] = [
    ("`delayed` should have a time zone", lambda client: client.push("q", 1, delayed=NAIVE)),
    ("`delayed` should have a time zone", lambda client: client.push_many("q", [1], delayed=NAIVE)),
    ("`delayed` should have a time zone", lambda client: client.change("q", "1", delayed=NAIVE)),
    ("`delay` should be a duration", lambda client: client.push("q", 1, delay=-1)),
    ("`delay` should be a duration", lambda client: client.push("q", 1, delay=timedelta(days=-1))),
    ("`delay` should be a duration", lambda client: client.push("q", 1, delay="soon")),
    ("`wait` should be a duration", lambda client: client.fetch("q", wait="a while")),
    ("`wait` should be a duration", lambda client: client.lease("q", wait=float("nan"))),
    ("`wait` should be a duration", lambda client: client.job("q", "1", wait=-1)),
    ("`seconds` should be a duration", lambda client: client.lease("q", seconds=timedelta(-1))),
    ("`retry_in` should be a duration", lambda client: client.fail(HELD, retry_in=timedelta(-1))),
    ("`delay` should be a d", lambda client: client.settle({"release": [{**HELD, "delay": timedelta(-1)}]})),
    ("`first` should be a duration", lambda client: client.change_policy("q", backoff={"first": -HOUR})),
]


@pytest.mark.parametrize(("text", "call"), REFUSED)
def test_what_names_no_duration_or_moment_is_refused_before_anything_is_sent(
    connect: Connect, text: str, call: Callable[[Any], object]
) -> None:
    with pytest.raises(ValueError, match=text):
        call(connect("http://127.0.0.1:1"))


def test_a_duration_in_a_job_or_a_result_is_not_json(connect: Connect) -> None:
    client = connect("http://127.0.0.1:1")
    calls: list[Callable[[], object]] = [
        lambda: client.push("q", {"for": HOUR}),
        lambda: client.ack(HELD, {"took": HOUR}),
        lambda: client.put_cron("c", "q", HOUR, "@daily"),
        lambda: client.settle({"ack": [{**HELD, "result": HOUR}]}),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="not JSON serializable"):
            call()


# --- the page of verbs

NOT_ASKED = {
    "commands": "many verbs in one request: each method is a request of its own",
    "stream": "lines for programs without a client; `consume` is better",
    "events": "for people who look",
    "openapi": "for tools",
    "livez": "for what looks after servers",
    "readyz": "for what looks after servers",
    "login": "for browsers",
    "logout": "for browsers",
    "control": "`start` and `stop`",
    "report": "a worker's own",
    "leave": "a worker's own",
    "add": "RestMQ's word for push",
    "take": "RestMQ's word for fetch",
    "get": "RestMQ's word for peek",
    "metrics": "for Prometheus",
    "export": "lines for `presque export`",
    "import": "`import_lines`",
    "del": "RestMQ's word for delete",
}
"""Verbs without a method, and why."""

MORE = {
    "dry_run",
    "import_lines",
    "push_text",
    "push_texts",
    "settle_and_lease",
    "worker_records",
    "worker_info",
    "queue_workers",
}
"""Methods beside the verbs: another form of a body, or of an answer."""

ELSEWHERE = {
    ("fetch_many", "batch_size"): "count",
    ("push_many", "jobs"): "jobs",
    ("lease", "settle"): "settle_and_lease",
    ("size", "with_desc"): "peek",
    ("peek", "count"): "the route has no count",
    ("workers", "worker_id"): "worker_info",
    ("workers", "queue_name"): "queue_workers",
    ("workers", "with_desc"): "worker_records",
    ("queues", "limit"): "all pages are read",
    ("queues", "cursor"): "all pages are read",
    ("crons", "limit"): "all pages are read",
    ("crons", "cursor"): "all pages are read",
    ("tokens", "limit"): "all pages are read",
    ("tokens", "cursor"): "all pages are read",
    ("namespaces", "limit"): "all pages are read",
    ("namespaces", "cursor"): "all pages are read",
    ("new_task", "dry_run"): "dry_run",
    **{(name, "task_id"): "id" for name in ("task", "pause_task", "resume_task", "cancel_task")},
    **{
        (name, "namespace"): "name"
        for name in ("namespace", "new_namespace", "change_namespace", "delete_namespace")
    },
    ("revoke_token", "token_id"): "id",
    ("tell_worker", "worker_id"): "worker",
}
"""Fields that are called otherwise in a method, or are another method."""


def test_every_verb_is_a_method_and_every_method_a_verb() -> None:
    methods = {name for name, _ in inspect.getmembers(AsyncClient, inspect.isfunction) if name[0] != "_"}
    assert set(VERBS) - methods == set(NOT_ASKED)
    assert methods - set(VERBS) == MORE | {"perform", "close", "consume"}


@pytest.mark.parametrize("verb", sorted(set(VERBS) - set(NOT_ASKED)))
def test_every_field_of_a_verb_is_an_argument_of_its_method_and_no_other(verb: str) -> None:
    method = getattr(AsyncClient, verb)
    arguments: set[str] = set()
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            kind = getattr(options, str(parameter.annotation).removeprefix("Unpack[").removesuffix("]"))
            arguments |= set(get_type_hints(kind))
        elif name != "self":
            arguments.add(name)
    fields = set(VERBS[verb].fields)
    if verb in ("ack", "fail", "release", "extend"):
        fields = fields - {"queue", "id", "lease"} | {"job"}
    if verb == "settle":
        fields = {"settlements"}
    left_out = {field for field in fields if (verb, field) in ELSEWHERE}
    renamed = {ELSEWHERE[verb, field] for field in left_out} & arguments
    header = {"worker"} - fields - renamed
    assert fields - left_out | renamed == arguments - header


def test_the_requests_go_where_the_rows_say() -> None:
    of_all_subjects = [one for subject in calls.__all__ for one in vars(getattr(calls, subject)).items()]
    asked = [one for name, one in of_all_subjects if inspect.isfunction(one) and name in VERBS]
    assert len(asked) > 30
    found = calls.pushing.push("q", b"1", {"idempotency_key": "k", "delay": 1})
    assert (found.method, found.path) == ("POST", "/q/q?delay=1")
    assert found.headers == {"Idempotency-Key": "k"}
    assert found.reads is VERBS["push"].reads
