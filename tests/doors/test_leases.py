"""Leases, single jobs and policies over HTTP, one scenario for both lanes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests import rig
from tests.rig import Answer, Door, eventually


def push(door: Door, queue: str, body: Any = 1, query: str = "", **headers: str) -> str:
    answer = door.ask("POST", f"/q/{queue}{query}", json.dumps(body), 30, **headers)
    assert answer.status == 201, answer
    return str(answer.json["id"])


def lease(door: Door, queues: str, query: str = "", body: Any = None, **headers: str) -> list[dict[str, Any]]:
    """Lease jobs. Returns them, or nothing for a 204."""
    answer = door.ask(
        "POST", f"/q/{queues}/lease{query}", None if body is None else json.dumps(body), 30, **headers
    )
    if answer.status == 204:
        assert answer.body == b""
        return []
    assert answer.status == 200, answer
    return list(answer.json["jobs"])


def settle(door: Door, verb: str, job: dict[str, Any], **fields: Any) -> Answer:
    path = f"/j/{job['queue']}/{job['id']}/{verb}"
    return door.ask("POST", path, json.dumps(fields), Presque_Lease=job["lease"])


def policy(door: Door, queue: str, **fields: Any) -> dict[str, Any]:
    answer = door.ask("PATCH", f"/p/{queue}", json.dumps(fields))
    assert answer.status == 200, answer
    return dict(answer.json)


def job_of(door: Door, queue: str, job: str = "1") -> dict[str, Any]:
    return dict(door.ask("GET", f"/j/{queue}/{job}").json)


def counts(door: Door, queue: str) -> dict[str, int]:
    found = door.ask("GET", f"/stats/{queue}").json
    return {name: found[name] for name in ("ready", "scheduled", "leased", "done", "dead") if found[name]}


def problem(answer: Answer) -> tuple[int, str]:
    """Status and code of an RFC 9457 problem, whose parts must agree."""
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json
    assert found["status"] == answer.status
    assert found["detail"] == found["error"]
    assert found["type"] == f"urn:presque:problem:{found['code']}"
    return answer.status, found["code"]


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/j/q/1"), ("GET", "/settle"), ("POST", "/p/q"), ("GET", "/q/q/lease"), ("PUT", "/j/q/1/ack")],
)
def test_a_method_that_a_route_does_not_take_is_a_problem_too(door: Door, method: str, path: str) -> None:
    answer = door.ask(method, path)
    assert problem(answer) == (405, "method-not-allowed")
    assert answer.headers["allow"]


# --- lease ------------------------------------------------------------------------------------------


def test_a_leased_job_is_handed_out_with_its_bytes_and_a_token(door: Door, queue_name: str) -> None:
    door.ask("POST", f"/q/{queue_name}?priority=7", b'{ "n": 1.00 }')
    answer = door.ask("POST", f"/q/{queue_name}/lease", X_presque_workerid="w1")
    assert answer.headers["content-type"] == "application/json"
    assert b'"body":{ "n": 1.00 }' in answer.body
    [job] = answer.json["jobs"]
    assert list(job) == [
        "queue", "id", "body", "attempt", "max_attempts", "priority", "pushed_at", "lease", "lease_until",
    ]  # fmt: skip
    assert (job["queue"], job["id"], job["attempt"], job["max_attempts"]) == (queue_name, "1", 1, 5)
    assert job["priority"] == 7
    assert counts(door, queue_name) == {"leased": 1}
    shown = job_of(door, queue_name)
    assert (shown["state"], shown["worker"], shown["lease_until"]) == ("leased", "w1", job["lease_until"])


@pytest.mark.parametrize("where", ["query", "body"])
def test_count_and_seconds_are_parameters_or_fields(door: Door, queue_name: str, where: str) -> None:
    for number in range(3):
        push(door, queue_name, number)
    if where == "query":
        jobs = lease(door, queue_name, "?count=2&seconds=43200")
    else:
        jobs = lease(door, queue_name, body={"count": 2, "seconds": 43200})
    assert [job["body"] for job in jobs] == [0, 1]
    assert jobs[0]["lease_until"] > jobs[0]["pushed_at"]


def test_nothing_to_lease_is_204_and_names_the_stopped_queues(door: Door, queue_name: str) -> None:
    push(door, f"{queue_name}-a")
    push(door, f"{queue_name}-b")
    for name in "ab":
        for job in lease(door, f"{queue_name}-{name}"):
            assert settle(door, "ack", job).status == 200
    door.ask("POST", f"/control/{queue_name}-b", b'{"status":"stop"}')
    answer = door.ask("POST", f"/q/{queue_name}-a,{queue_name}-b/lease")
    assert (answer.status, answer.headers["presque-paused"]) == (204, f"{queue_name}-b")
    assert "presque-paused" not in door.ask("POST", f"/q/{queue_name}-a/lease").headers


SECONDS = "`{}` should be seconds from {} to {}, or a duration such as 90s or 1h30m, not `{}`"


@pytest.mark.parametrize(
    ("query", "body", "text"),
    [
        ("?count=0", None, "`count` should be a whole number from 1 to 1000, not `0`"),
        ("?count=1001", None, "`count` should be a whole number from 1 to 1000, not `1001`"),
        ("", {"count": 1001}, "`count` should be a whole number from 1 to 1000, not `1001`"),
        ("?seconds=0.5", None, SECONDS.format("seconds", 1, 43200, "0.5")),
        ("", {"wait": 61}, SECONDS.format("wait", 0, 60, 61).replace("90s or 1h30m", "500ms or 20s")),
        ("?count=1", {"count": 1}, "`count` is given twice: give it once, in the body or outside of it"),
        ("?cuont=1", None, "unknown parameter `cuont`, did you mean `count`?"),
        ("", {"cuont": 1}, "unknown field `cuont`, did you mean `count`?"),
        ("", {"attempt_id": "x" * 129}, "`attempt_id` should be at most 128 bytes, not 129"),
        ("", [1], "the body should be an object, not a list"),
    ],
)
def test_a_lease_that_is_not_right_says_so_and_takes_nothing(
    door: Door, queue_name: str, query: str, body: Any, text: str
) -> None:
    push(door, queue_name)
    answer = door.ask("POST", f"/q/{queue_name}/lease{query}", None if body is None else json.dumps(body))
    assert problem(answer)[0] == 400
    assert answer.json["error"] == text
    assert counts(door, queue_name) == {"ready": 1}


def test_the_same_attempt_id_gets_the_same_jobs_and_no_new_ones(door: Door, queue_name: str) -> None:
    for number in range(4):
        push(door, queue_name, number)
    first = lease(door, queue_name, "?count=2&attempt_id=a1")
    again = lease(door, queue_name, "?count=2&attempt_id=a1")
    other = lease(door, queue_name, "?count=2&attempt_id=a2")
    assert sorted(again, key=lambda job: job["id"]) == first
    assert [job["body"] for job in other] == [2, 3]
    assert settle(door, "ack", first[0]).status == 200
    assert [job["id"] for job in lease(door, queue_name, "?count=2&attempt_id=a1")] == ["2"]


def test_a_lease_settles_first(door: Door, queue_name: str) -> None:
    push(door, queue_name, 1)
    push(door, queue_name, 2)
    [one] = lease(door, queue_name)
    ack = {"queue": queue_name, "id": one["id"], "lease": one["lease"]}
    answer = door.ask("POST", f"/q/{queue_name}/lease", json.dumps({"settle": {"ack": [ack]}}))
    assert [job["body"] for job in answer.json["jobs"]] == [2]
    assert answer.json["settled"] == [{"queue": queue_name, "id": "1", "status": 200, "state": "done"}]
    answer = door.ask("POST", f"/q/{queue_name}/lease", json.dumps({"settle": {"ack": [ack]}}))
    assert (answer.status, answer.json["jobs"], len(answer.json["settled"])) == (200, [], 1)


def test_a_lease_takes_what_its_own_settles_make_room_for(door: Door, queue_name: str) -> None:
    policy(door, queue_name, max_leased=1)
    for body in (1, 2, 3):
        push(door, queue_name, body)
    [held] = lease(door, queue_name)
    ack = {name: held[name] for name in ("queue", "id", "lease")}

    for wait, expected in ((0, 2), (20, 3)):
        asked = {"wait": wait, "settle": {"ack": [ack]}}
        answer = door.ask("POST", f"/q/{queue_name}/lease", json.dumps(asked))
        assert [one["state"] for one in answer.json["settled"]] == ["done"]
        [job] = answer.json["jobs"]
        assert job["body"] == expected
        ack = {name: job[name] for name in ("queue", "id", "lease")}


def test_a_lease_that_settles_and_waits_has_both_in_its_answer(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    [held] = lease(door, queue_name)
    ack = {name: held[name] for name in ("queue", "id", "lease")}
    waiting = door.send("POST", f"/q/{queue_name}/lease", json.dumps({"wait": 20, "settle": {"ack": [ack]}}))
    eventually(lambda: waits(door, queue_name))
    assert "leased" not in counts(door, queue_name), "what is settled does not wait"

    push(door, queue_name, "late")

    answer = waiting.answer().json
    assert [job["body"] for job in answer["jobs"]] == ["late"]
    assert [one["state"] for one in answer["settled"]] == ["done"]


def test_one_who_settles_and_waits_and_leaves_takes_no_lease(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    [held] = lease(door, queue_name)
    ack = {name: held[name] for name in ("queue", "id", "lease")}
    waiting = door.send("POST", f"/q/{queue_name}/lease", json.dumps({"wait": 20, "settle": {"ack": [ack]}}))
    eventually(lambda: counts(door, queue_name) == {})
    waiting.leave()
    assert counts(door, queue_name) == {}  # an answer: the server has come to what was sent before
    push(door, queue_name)
    eventually(lambda: counts(door, queue_name) == {"ready": 1})
    assert [job["attempt"] for job in lease(door, queue_name)] == [1]


@pytest.mark.parametrize("pushed", ["together", "with options", "leased before", "on two queues"])
def test_each_of_many_leased_jobs_is_told_as_it_is_alone(door: Door, queue_name: str, pushed: str) -> None:
    """Jobs that are alike are written in one go; what is told of each must not depend on its neighbours."""
    bodies = ['"\u00e9"', "[1, 2]", '{"n": 12345678901234567890}', '"é"', "null"]
    door.ask("POST", f"/qb/{queue_name}", '{"jobs":[' + ",".join(bodies) + "]}")
    names = queue_name
    if pushed == "with options":
        push(door, queue_name, "trace", "?attempts=2", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
        push(door, queue_name, "first", "?priority=9")
    elif pushed == "leased before":
        for job in lease(door, queue_name, "?count=2"):
            settle(door, "fail", job, retry_in=0)
    elif pushed == "on two queues":
        names = f"{queue_name},{queue_name}-b"
        push(door, f"{queue_name}-b", "other")
    together = [job for _ in range(2) for job in lease(door, names, "?count=20")]

    for job in together:
        settle(door, "release", job)
    alone = [job for _ in together for job in lease(door, names, "?count=1")]

    ours = ("lease", "lease_until")
    told = [[{k: v for k, v in job.items() if k not in ours} for job in jobs] for jobs in (together, alone)]
    by_id = [sorted(jobs, key=lambda job: (job["queue"], int(job["id"]))) for jobs in told]
    assert by_id[0] == by_id[1]
    assert len(together) == len({(job["queue"], job["id"]) for job in together})


def test_a_job_that_is_pushed_reaches_the_lease_that_waits(door: Door, queue_name: str) -> None:
    waiting = door.send("POST", f"/q/{queue_name},{queue_name}-*/lease?wait=60")
    eventually(lambda: waits(door, queue_name))
    push(door, f"{queue_name}-late", "found")
    assert [job["body"] for job in waiting.answer().json["jobs"]] == ["found"]


def waits(door: Door, queue: str) -> bool:
    """Whether somebody waits here, as `explain` tells of a job that is not due."""
    job = push(door, queue, 1, "?delay=3600")
    reasons = door.ask("GET", f"/j/{queue}/{job}/explain").json["reasons"]
    return not {"no-worker", "busy"} & {reason["code"] for reason in reasons}


def test_a_lease_that_ends_reaches_the_one_who_waits(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    began = time.monotonic()
    [job] = lease(door, queue_name, "?seconds=1")
    waiting = door.send("POST", f"/q/{queue_name}/lease?wait=60")
    [again] = waiting.answer().json["jobs"]
    assert 0.9 < time.monotonic() - began < rig.PATIENCE
    assert (again["attempt"], again["id"]) == (2, job["id"])
    assert problem(settle(door, "ack", job)) == (409, "lease-lost")
    assert job_of(door, queue_name)["errors"][0]["error"] == "lease expired"


def test_one_who_waited_before_the_lease_was_given_gets_the_job_when_it_ends(
    door: Door, queue_name: str
) -> None:
    first = door.send("POST", f"/q/{queue_name}/lease?wait=60&seconds=1")
    door.catch_up()
    second = door.send("POST", f"/q/{queue_name}/lease?wait=60")
    door.catch_up()
    pushed = push(door, queue_name)
    assert [job["attempt"] for job in first.answer().json["jobs"]] == [1]
    began = time.monotonic()
    [job] = second.answer().json["jobs"]
    assert (job["id"], job["attempt"]) == (pushed, 2)
    assert time.monotonic() - began < rig.PATIENCE


def test_a_waiter_that_leaves_takes_no_lease(door: Door, queue_name: str) -> None:
    for _ in range(5):
        waiting = door.send("POST", f"/q/{queue_name}/lease?wait=60")
        waiting.leave()
    assert counts(door, queue_name) == {}  # an answer: the server has come to what was sent before
    push(door, queue_name)
    eventually(lambda: counts(door, queue_name) == {"ready": 1})
    [job] = lease(door, queue_name)
    assert job["attempt"] == 1


# --- settle -----------------------------------------------------------------------------------------


def test_an_acked_job_is_gone_and_the_ack_can_be_repeated(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    [job] = lease(door, queue_name)
    first, again = settle(door, "ack", job), settle(door, "ack", job)
    assert first.status == again.status == 200
    assert first.json == again.json == {"queue": queue_name, "id": "1", "status": 200, "state": "done"}
    assert counts(door, queue_name) == {}
    assert door.ask("GET", f"/stats/{queue_name}").json["processed"] == 1
    assert problem(settle(door, "ack", {**job, "lease": "1-other"})) == (410, "job-gone")
    assert problem(door.ask("GET", f"/j/{queue_name}/1")) == (404, "not-found")


def test_jobs_of_one_lease_are_settled_by_one_entry(door: Door, queue_name: str) -> None:
    for number in range(6):
        push(door, queue_name, number)
    [token] = {job["lease"] for job in lease(door, queue_name, "?count=6")}
    entry = {"queue": queue_name, "lease": token}
    body = {
        "ack": [{**entry, "ids": ["1", "2", "99", "3"]}, {**entry, "id": "4"}],
        "fail": [{**entry, "ids": ["5"], "error": "no", "retry": False}, {**entry, "ids": []}],
        "release": [{**entry, "ids": ["6"]}],
    }
    answer = door.ask("POST", "/settle", json.dumps(body))
    assert [one | {"error": "", "code": ""} for one in answer.json["settled"]] == [
        {"queue": queue_name, "error": "", "code": "", **one}
        for one in (
            {"ids": ["1", "2"], "status": 200, "state": "done"},
            {"ids": ["99"], "status": 404},
            {"ids": ["3"], "status": 200, "state": "done"},
            {"id": "4", "status": 200, "state": "done"},
            {"ids": ["5"], "status": 200, "state": "dead"},
            {"ids": ["6"], "status": 200, "state": "ready"},
        )
    ]
    assert counts(door, queue_name) == {"ready": 1, "dead": 1}
    assert [error["error"] for error in job_of(door, queue_name, "5")["errors"]] == ["no"]


def test_each_job_of_an_entry_gets_what_the_entry_says(door: Door, queue_name: str) -> None:
    policy(door, queue_name, keep=60)
    for number in range(2):
        push(door, queue_name, number)
    [token] = {job["lease"] for job in lease(door, queue_name, "?count=2")}
    ack = {"queue": queue_name, "lease": token, "ids": ["1", "2"], "result": {"sum": 3}}
    answer = door.ask("POST", f"/q/{queue_name}/lease", json.dumps({"settle": {"ack": [ack]}}))
    done = {"queue": queue_name, "ids": ["1", "2"], "status": 200, "state": "done"}
    assert answer.json == {"jobs": [], "settled": [done]}
    assert [job_of(door, queue_name, id)["result"] for id in ("1", "2")] == [{"sum": 3}] * 2


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({}, "`id` is missing: name a job, or several as `ids`"),
        ({"id": "1", "ids": ["1"]}, "give `ids` or `id`, not both"),
        ({"ids": "1"}, "should be a list"),
        ({"ids": [1]}, "should be a text"),
        ({"ids": ["1", "one"]}, "`one` is not a job id"),
        ({"ids": ["1 2"]}, "`1 2` is not a job id"),
        ({"id": "1 2"}, "`1 2` is not a job id"),
        ({"ids": [str(number) for number in range(1, 1002)]}, "at most 1000 leases"),
    ],
    ids=["neither", "both", "no list", "no texts", "no id", "two in one", "two in one, alone", "too many"],
)
def test_what_names_no_jobs_settles_nothing(
    door: Door, queue_name: str, named: dict[str, Any], says: str
) -> None:
    push(door, queue_name)
    [job] = lease(door, queue_name)
    entry = {"queue": queue_name, "lease": job["lease"], **named}
    for verb in ("ack", "fail", "release", "extend"):
        answer = door.ask("POST", "/settle", json.dumps({verb: [entry]}))
        assert problem(answer)[0] == 400, verb
        assert says in answer.json["error"], verb
    assert counts(door, queue_name) == {"leased": 1}


def test_a_failed_job_waits_and_is_dead_after_its_attempts(door: Door, queue_name: str) -> None:
    policy(door, queue_name, max_attempts=2, backoff={"first": 0, "jitter": 0})
    push(door, queue_name)
    [job] = lease(door, queue_name)
    assert settle(door, "fail", job, error="first", backtrace="line 1").json["state"] == "ready"
    [job] = lease(door, queue_name, X_presque_workerid="w2")
    assert job["attempt"] == 2
    assert settle(door, "fail", job, error="second").json["state"] == "dead"
    shown = job_of(door, queue_name)
    assert (shown["state"], shown["reason"], shown["attempt"]) == ("dead", "attempts used up", 2)
    assert [(one["error"], one["worker"]) for one in shown["errors"]] == [("first", None), ("second", "w2")]
    assert lease(door, queue_name) == []
    assert door.ask("POST", f"/j/{queue_name}/1/retry").json["state"] == "ready"
    [job] = lease(door, queue_name)
    assert (job["attempt"], job["id"]) == (1, "1")
    assert len(job_of(door, queue_name)["errors"]) == 2


def test_a_failed_job_is_scheduled_by_the_backoff_or_as_it_asks(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    [job] = lease(door, queue_name)
    told = settle(door, "fail", job, retry_in=100).json
    assert told["state"] == "scheduled"
    assert job_of(door, queue_name)["run_at"] == told["run_at"]


@pytest.mark.parametrize("how", ["release", "fail", "the lease ends"])
@pytest.mark.parametrize("group", [None, "acme"])
def test_jobs_that_go_back_together_keep_their_order(
    door: Door, queue_name: str, how: str, group: str | None
) -> None:
    for number in range(5):
        push(door, queue_name, number, f"?group={group}" if group else "")
    jobs = lease(door, queue_name, "?count=4" + ("&seconds=1" if how == "the lease ends" else ""))
    each = [{"queue": queue_name, "id": job["id"], "lease": job["lease"]} for job in jobs]
    if how == "fail":
        each = [one | {"retry_in": 0} for one in each]
    if how != "the lease ends":
        settled = door.ask("POST", "/settle", json.dumps({how: each})).json["settled"]
        assert [one["state"] for one in settled] == ["ready"] * 4
    eventually(lambda: counts(door, queue_name) == {"ready": 5})
    assert [job["body"] for job in lease(door, queue_name, "?count=5")] == list(range(5))


def test_a_release_is_no_failure(door: Door, queue_name: str) -> None:
    push(door, queue_name, "a")
    push(door, queue_name, "b")
    [job] = lease(door, queue_name)
    assert settle(door, "release", job).json["state"] == "ready"
    [again] = lease(door, queue_name)
    assert (again["body"], again["attempt"]) == ("a", 1)
    assert settle(door, "release", again, delay=60).json["state"] == "scheduled"
    assert door.ask("GET", f"/stats/{queue_name}").json["failed"] == 0


def test_extending_makes_the_lease_longer_and_keeps_the_progress(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    [job] = lease(door, queue_name, "?seconds=40")
    told = settle(door, "extend", job, seconds=100, progress={"percent": 40}).json
    assert told["lease_until"] > job["lease_until"]
    assert "cancel" not in told
    shown = job_of(door, queue_name)
    assert (shown["progress"], shown["lease_until"]) == ({"percent": 40}, told["lease_until"])


SAVED = [{"line": 7}, [], 0, False, "", "ü", {"deep": [1.5, None]}]


@pytest.mark.parametrize("saved", SAVED, ids=repr)
def test_what_a_job_saves_is_there_for_its_next_attempt_until_it_is_done(
    door: Door, queue_name: str, saved: Any
) -> None:
    policy(door, queue_name, backoff={"first": 0, "jitter": 0}, max_attempts=3, keep=60)
    push(door, queue_name)
    [job] = lease(door, queue_name)
    assert "saved" not in job
    settle(door, "extend", job, saved="before")
    assert settle(door, "extend", job, saved=saved).status == 200
    assert job_of(door, queue_name)["saved"] == saved
    settle(door, "release", job)
    [job] = lease(door, queue_name)
    assert job["saved"] == saved
    settle(door, "fail", job)
    [job] = lease(door, queue_name, "?attempt_id=a")
    [same] = lease(door, queue_name, "?attempt_id=a")
    assert job["saved"] == same["saved"] == saved
    settle(door, "fail", job, retry=False)
    assert job_of(door, queue_name)["saved"] == saved
    assert door.ask("POST", f"/j/{queue_name}/1/retry").status == 200
    [job] = lease(door, queue_name)
    assert job["saved"] == saved
    settle(door, "ack", job, progress="whole")
    shown = job_of(door, queue_name)
    assert (shown["state"], shown["progress"]) == ("done", "whole")
    assert "saved" not in shown


def test_what_ends_a_lease_can_bring_what_was_saved_and_the_last_progress(
    door: Door, queue_name: str
) -> None:
    policy(door, queue_name, backoff={"first": 0, "jitter": 0})
    push(door, queue_name)
    for number, verb in enumerate(("release", "fail", "release"), 1):
        [job] = lease(door, queue_name)
        assert job.get("saved") == (number - 1 or None)
        settle(door, verb, job, saved=number, progress=[number])
        assert job_of(door, queue_name)["progress"] == [number]
    [job] = lease(door, queue_name)
    settle(door, "extend", job, saved=None)
    assert "saved" not in job_of(door, queue_name)
    settle(door, "release", job, saved=1)
    door.ask("PATCH", f"/j/{queue_name}/1", '{"priority": 7}')
    assert job_of(door, queue_name)["saved"] == 1
    door.ask("PATCH", f"/j/{queue_name}/1", '{"body": 2}')
    assert "saved" not in job_of(door, queue_name)


def test_jobs_that_saved_and_others_are_leased_together(door: Door, queue_name: str) -> None:
    for number in range(6):
        push(door, queue_name, number)
    jobs = lease(door, queue_name, "?count=6")
    body = {
        "release": [{**slim(job), **({"saved": job["id"]} if int(job["id"]) % 2 else {})} for job in jobs]
    }
    assert door.ask("POST", "/settle", json.dumps(body)).status == 200
    again = lease(door, queue_name, "?count=6")
    assert {job["id"]: job.get("saved") for job in again} == {
        "1": "1", "2": None, "3": "3", "4": None, "5": "5", "6": None,
    }  # fmt: skip


def slim(job: dict[str, Any]) -> dict[str, Any]:
    """What names a lease."""
    return {name: job[name] for name in ("queue", "id", "lease")}


def test_what_is_saved_is_bounded(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    [job] = lease(door, queue_name)
    for verb in ("extend", "fail", "release"):
        answer = settle(door, verb, job, saved="x" * 65_535)
        assert answer.status == 400
        assert "`saved` should be at most 65536 bytes" in answer.json["error"]
    assert settle(door, "extend", job, saved="x" * 65_534).status == 200


def test_deleting_a_leased_job_is_told_to_its_holder(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    [job] = lease(door, queue_name)
    assert door.ask("DELETE", f"/j/{queue_name}/1").status == 202
    assert settle(door, "extend", job).json["cancel"] is True
    assert job_of(door, queue_name)["cancel"] is True
    assert settle(door, "fail", job).json["state"] == "deleted"
    assert counts(door, queue_name) == {}


@pytest.mark.parametrize("where", ["header", "query", "body"])
def test_the_token_comes_in_the_header_the_query_or_the_body(door: Door, queue_name: str, where: str) -> None:
    push(door, queue_name)
    [job] = lease(door, queue_name)
    path, token = f"/j/{queue_name}/1/ack", job["lease"]
    if where == "header":
        answer = door.ask("POST", path, Presque_Lease=token)
    elif where == "query":
        answer = door.ask("POST", f"{path}?lease={token}")
    else:
        answer = door.ask("POST", path, json.dumps({"lease": token}))
    assert answer.status == 200


def test_a_settle_without_a_token_or_with_two_is_refused(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    [job] = lease(door, queue_name)
    path = f"/j/{queue_name}/1/ack"
    assert problem(door.ask("POST", path)) == (400, "invalid-request")
    twice = door.ask("POST", f"{path}?lease={job['lease']}", Presque_Lease=job["lease"])
    assert problem(twice) == (400, "invalid-request")
    assert problem(settle(door, "ack", job, reslut=1)) == (400, "unknown-parameter")
    assert counts(door, queue_name) == {"leased": 1}


def test_an_unknown_job_is_404_and_one_that_cannot_be_an_id_400(door: Door, queue_name: str) -> None:
    token = {"queue": queue_name, "id": "99", "lease": "1-x"}
    assert problem(settle(door, "ack", token)) == (404, "not-found")
    assert problem(settle(door, "ack", {**token, "id": "x"})) == (400, "invalid-name")
    assert problem(door.ask("GET", f"/j/{queue_name}/99")) == (404, "not-found")


def test_many_leases_are_settled_at_once_each_on_its_own(door: Door, queue_name: str) -> None:
    for number in range(4):
        push(door, queue_name, number)
    jobs = lease(door, queue_name, "?count=4")
    tokens = [{name: job[name] for name in ("queue", "id", "lease")} for job in jobs]
    body = {
        "extend": [tokens[0] | {"seconds": 90}],
        "release": [tokens[1]],
        "fail": [tokens[2] | {"retry": False}],
        "ack": [tokens[3] | {"result": [1]}, tokens[3] | {"lease": "4-wrong"}, tokens[3] | {"id": "77"}],
    }
    answer = door.ask("POST", "/settle", json.dumps(body))
    told = [(one["id"], one["status"], one.get("state")) for one in answer.json["settled"]]
    assert told == [
        ("4", 200, "done"), ("4", 410, None), ("77", 404, None), ("3", 200, "dead"), ("2", 200, "ready"),
        ("1", 200, "leased"),
    ]  # fmt: skip
    assert counts(door, queue_name) == {"leased": 1, "ready": 1, "dead": 1}


def test_what_is_wrong_with_one_settle_leaves_all_unsettled(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    [job] = lease(door, queue_name)
    good = {name: job[name] for name in ("queue", "id", "lease")}
    for wrong in ({"id": "x"}, {"queue": "no/slash"}, {"lease": 5}, {"result": {}, "extra": 1}):
        answer = door.ask("POST", "/settle", json.dumps({"ack": [good, good | wrong]}))
        assert answer.status == 400, wrong
    too_many = door.ask("POST", "/settle", json.dumps({"ack": [good] * 1001}))
    assert too_many.json["error"] == "at most 1000 leases can be settled at once, not 1001"
    assert counts(door, queue_name) == {"leased": 1}


def test_workers_are_counted_for_what_they_settle(door: Door, queue_name: str) -> None:
    worker = f"w-{queue_name}"
    for _ in range(2):
        push(door, queue_name)
    first, second = lease(door, queue_name, "?count=2")
    for verb, job in (("ack", first), ("fail", second)):
        path = f"/j/{queue_name}/{job['id']}/{verb}"
        door.ask("POST", path, Presque_Lease=job["lease"], X_presque_workerid=worker)
    eventually(
        lambda: (
            {"processed": 1, "failed": 1}.items() <= door.ask("GET", f"/w/?worker_id={worker}").json.items()
        ),
    )


# --- one job ----------------------------------------------------------------------------------------


def test_a_kept_job_shows_its_result(door: Door, queue_name: str) -> None:
    push(door, queue_name, {"n": 1}, "?keep=60")
    [job] = lease(door, queue_name)
    assert settle(door, "ack", job, result={"frames": [1, 2]}).json["state"] == "done"
    shown = job_of(door, queue_name)
    assert (shown["state"], shown["result"], shown["body"]) == ("done", {"frames": [1, 2]}, {"n": 1})
    assert shown["kept_until"] > shown["finished_at"] >= shown["pushed_at"]
    assert problem(settle(door, "ack", job | {"lease": "1-x"})) == (410, "job-gone")


def test_somebody_can_wait_for_the_end_of_a_job(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    [job] = lease(door, queue_name)
    waiting = door.send("GET", f"/j/{queue_name}/1?wait=60")
    began = time.monotonic()
    assert door.ask("GET", f"/j/{queue_name}/1?wait=0.2").json["state"] == "leased"
    settle(door, "ack", job)
    answer = waiting.answer()
    assert (answer.status, answer.json["state"]) == (200, "done")
    assert time.monotonic() - began < rig.PATIENCE


def test_a_waiting_job_can_be_changed(door: Door, queue_name: str) -> None:
    for name in "abc":
        push(door, queue_name, name)
    assert door.ask("PATCH", f"/j/{queue_name}/3", b'{"priority":9}').json["priority"] == 9
    assert door.ask("PATCH", f"/j/{queue_name}/1", b'{"delay":60}').json["state"] == "scheduled"
    changed = door.ask("PATCH", f"/j/{queue_name}/2", b'{"body":{"b": 2.0}}')
    assert b'"body":{"b": 2.0}' in changed.body
    assert [job["body"] for job in lease(door, queue_name, "?count=5")] == ["c", {"b": 2.0}]
    assert door.ask("PATCH", f"/j/{queue_name}/1", b'{"delay":0}').json["state"] == "ready"
    assert [job["body"] for job in lease(door, queue_name, "?count=5")] == ["a"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{}", 400, "invalid-request"),
        (b'{"priority":10}', 400, "invalid-request"),
        (b'{"delay":1,"delayed":5}', 400, "invalid-request"),
        (b'{"prio":1}', 400, "unknown-parameter"),
        (b'{"priority":9}', 409, "wrong-state"),
    ],
)
def test_a_change_that_is_not_right_is_refused(
    door: Door, queue_name: str, body: bytes, status: int, code: str
) -> None:
    push(door, queue_name)
    lease(door, queue_name)
    assert problem(door.ask("PATCH", f"/j/{queue_name}/1", body)) == (status, code)


def test_a_job_can_be_deleted_in_any_state(door: Door, queue_name: str) -> None:
    push(door, queue_name, "ready")
    push(door, queue_name, "scheduled", "?delay=60")
    push(door, queue_name, "dead", "?priority=9")
    [job] = lease(door, queue_name)
    settle(door, "fail", job, retry=False)
    for number in "123":
        answer = door.ask("DELETE", f"/j/{queue_name}/{number}")
        assert (answer.status, answer.body) == (204, b"")
        assert problem(door.ask("DELETE", f"/j/{queue_name}/{number}")) == (404, "not-found")
    assert counts(door, queue_name) == {}


def test_jobs_are_listed_by_state_in_pages(door: Door, queue_name: str) -> None:
    for number in range(7):
        push(door, queue_name, number)
    for job in lease(door, queue_name, "?count=5"):
        settle(door, "fail", job, retry=False)
    assert pages(door, queue_name, "dead") == [["5", "4"], ["3", "2"], ["1"]]
    assert [job for page in pages(door, queue_name, "ready") for job in page] == ["6", "7"]
    assert pages(door, queue_name, "done") == [[]]
    assert door.ask("POST", f"/j/{queue_name}/retry", b'{"limit":2}').json["retried"] == 2
    assert counts(door, queue_name) == {"ready": 4, "dead": 3}


def pages(door: Door, queue: str, state: str) -> list[list[str]]:
    """The ids of all pages of two."""
    found, cursor = [], ""
    while True:
        answer = door.ask(
            "GET", f"/j/{queue}?state={state}&limit=2" + (f"&cursor={cursor}" if cursor else "")
        )
        assert answer.status == 200, answer
        found.append([job["id"] for job in answer.json["jobs"]])
        cursor = answer.json["cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize("query", ["state=gone", "state=dead&limit=0", "state=dead&cursor=x"])
def test_a_listing_that_is_not_right_is_refused(door: Door, queue_name: str, query: str) -> None:
    assert door.ask("GET", f"/j/{queue_name}?{query}").status == 400


def test_dead_jobs_can_be_tried_again_at_a_rate(door: Door, queue_name: str) -> None:
    for number in range(3):
        push(door, queue_name, number)
    for job in lease(door, queue_name, "?count=3"):
        settle(door, "fail", job, retry=False)
    assert door.ask("POST", f"/j/{queue_name}/retry", b'{"rate":0.001}').json["retried"] == 3
    assert counts(door, queue_name) == {"ready": 1, "scheduled": 2}


# --- policies and options ---------------------------------------------------------------------------


def test_a_policy_can_be_changed_in_part_and_goes_back_to_the_default(door: Door, queue_name: str) -> None:
    before = door.ask("GET", f"/p/{queue_name}").json
    after = policy(
        door, queue_name, lease=2.5, backoff={"most": 10}, rate={"count": 3, "seconds": 0.5}, ttl=9
    )
    assert (after["lease"], after["rate"], after["ttl"]) == (2.5, {"count": 3, "seconds": 0.5}, 9)
    assert after["backoff"] == {"first": 15, "factor": 2, "most": 10, "jitter": 0.1}
    assert door.ask("GET", f"/p/{queue_name}").json == after
    assert policy(door, queue_name, lease=None, backoff=None, rate=None, ttl=None) == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"lease":0}', b'{"max_attempts":1.5}', b'{"rate":{"count":1}}', b'{"backoff":{"jitter":2}}',
        b'{"overflow":"drop"}', b'{"leese":1}', b"[]", b"{", b'{"max_length":0}',
    ],
)  # fmt: skip
def test_a_policy_that_is_not_right_is_refused_and_changes_nothing(
    door: Door, queue_name: str, body: bytes
) -> None:
    before = door.ask("GET", f"/p/{queue_name}").json
    assert problem(door.ask("PATCH", f"/p/{queue_name}", body))[0] == 400
    assert door.ask("GET", f"/p/{queue_name}").json == before


def test_a_queue_at_its_limit_does_not_block_the_others(door: Door, queue_name: str) -> None:
    full, other = f"{queue_name}-full", f"{queue_name}-other"
    policy(door, full, max_leased=1)
    for queue in (full, full, other):
        push(door, queue)
    [held] = lease(door, f"{full},{other}")
    assert held["queue"] == full
    assert [job["queue"] for job in lease(door, f"{full},{other}", "?count=5")] == [other]
    waiting = door.send("POST", f"/q/{full}/lease?wait=60")
    eventually(lambda: waits(door, full))
    settle(door, "ack", held)
    assert [job["id"] for job in waiting.answer().json["jobs"]] == ["2"]


def test_the_rate_of_a_queue_holds_for_leases_and_fetches(door: Door, queue_name: str) -> None:
    policy(door, queue_name, rate={"count": 3, "seconds": 3600})
    for number in range(6):
        push(door, queue_name, number)
    assert len(lease(door, queue_name, "?count=2")) == 2
    assert door.ask("GET", f"/q/{queue_name}").status == 200
    assert lease(door, queue_name, "?count=2") == []
    assert door.ask("GET", f"/q/{queue_name}").status == 404
    reasons = door.ask("GET", f"/j/{queue_name}/4/explain").json["reasons"]
    assert "rate" in [reason["code"] for reason in reasons]


def test_one_who_waits_gets_a_job_as_soon_as_the_rate_of_its_queue_allows(
    door: Door, queue_name: str
) -> None:
    policy(door, queue_name, rate={"count": 1, "seconds": 1.5})
    for number in range(2):
        push(door, queue_name, number)
    began = time.monotonic()
    assert len(lease(door, queue_name, "?count=2")) == 1
    assert door.ask("GET", f"/q/{queue_name}?wait=60").status == 200
    assert 1.4 < time.monotonic() - began < rig.PATIENCE


def test_the_failures_of_a_job_stay_small_together_and_the_last_one_whole(
    door: Door, queue_name: str
) -> None:
    push(door, queue_name, 1, "?attempts=100")
    for number in range(12):
        [job] = lease(door, queue_name)
        text: dict[str, Any] = {
            "error": f"{number} " + "é" * 20_000,
            "backtrace": "b" * 60_000,
            "retry_in": 0,
        }
        assert settle(door, "fail", job, **text).status == 200
    *old, last = job_of(door, queue_name)["errors"]
    assert (last["error"], last["backtrace"]) == ("11 " + "é" * 20_000, "b" * 60_000)
    assert [one["error"][:2].strip() for one in old[-2:]] == ["9", "10"]
    assert all(one["error"].endswith(("é", "…")) for one in old)
    assert sum(len((one["error"] + (one["backtrace"] or "")).encode()) for one in old) < 66_000
    assert len(old) == 9


def test_a_queue_that_is_full_refuses_a_push_until_a_job_is_taken(door: Door, queue_name: str) -> None:
    policy(door, queue_name, max_length=2)
    push(door, queue_name)
    batch = door.ask("POST", f"/qb/{queue_name}", b'{"jobs":[1,2]}')
    assert (batch.status, batch.headers["retry-after"]) == (429, "1")
    push(door, queue_name)
    refused = door.ask("POST", f"/q/{queue_name}", b"1")
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert counts(door, queue_name) == {"ready": 2}
    lease(door, queue_name)
    push(door, queue_name)


def test_the_policy_gives_jobs_a_ttl(door: Door, queue_name: str) -> None:
    policy(door, queue_name, ttl=0.05)
    push(door, queue_name)
    push(door, queue_name, 2, "?ttl=60")
    eventually(lambda: counts(door, queue_name) == {"ready": 1})


def test_groups_are_served_in_turn_and_up_to_their_limit(door: Door, queue_name: str) -> None:
    for body, group in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b")):
        push(door, queue_name, body, f"?group={group}")
    push(door, queue_name, "none")
    policy(door, queue_name, group_leased=1)
    jobs = lease(door, queue_name, "?count=10")
    assert [job["body"] for job in jobs] == ["a1", "b1", "none"]
    [why] = [
        reason["code"]
        for reason in door.ask("GET", f"/j/{queue_name}/2/explain").json["reasons"]
        if reason["code"] not in ("no-worker", "busy")
    ]
    assert why == "group-leased"
    settle(door, "ack", jobs[0])
    assert [job["body"] for job in lease(door, queue_name, "?count=10")] == ["a2"]
    policy(door, queue_name, group_leased=None)
    assert {job["body"] for job in lease(door, queue_name, "?count=10")} == {"b2", "a3"}


def test_an_idempotency_key_stores_a_job_once(door: Door, queue_name: str) -> None:
    def ask(query: str, body: bytes, key: str = "order 17") -> Answer:
        return door.ask("POST", f"/q/{queue_name}{query}", body, Idempotency_Key=key)

    first, again = ask("?priority=3", b"1"), ask("?priority=3", b"1")
    assert first.status == again.status == 201
    assert first.json == again.json
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert ask("?priority=3", b"2").status == 422
    assert ask("", b"1").status == 422
    assert ask("", b"1", "k" * 256).status == 400
    for _ in range(2):
        batch = door.ask("POST", f"/qb/{queue_name}", b'{"jobs":[1,2]}', Idempotency_Key='"quoted"')
        assert batch.json["ids"] == ["2", "3"]
    assert batch.headers["idempotent-replayed"] == "true"
    assert counts(door, queue_name) == {"ready": 3}


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = 'rojo=00f067aa0ba902b7, congo@x="t61"\\x, a/b=c d'
LONG = ",".join(f"k{number}=v" for number in range(33))


@pytest.mark.parametrize("state", [STATE, "a=1", f"a={'b' * 256}"])
def test_a_tracestate_travels_with_its_traceparent(door: Door, queue_name: str, state: str) -> None:
    trace = {"traceparent": TRACE, "tracestate": state}
    push(door, queue_name, 1, **trace)
    push(door, queue_name, 2, **trace)
    [first] = lease(door, queue_name)
    found = [first, job_of(door, queue_name), door.ask("GET", f"/q/{queue_name}").headers]
    assert [one["tracestate"] for one in found] == [state] * 3
    command = {"cmd": "push", "queue": queue_name, "job": 3, **trace}
    door.ask("POST", "/queue", json.dumps(command))
    assert lease(door, queue_name)[0]["tracestate"] == state


@pytest.mark.parametrize(
    "state", [LONG, "a", "A=1", "a=1\x7f", "a=b=c", "é=1", f"a={'b' * 257}", f"a={'b' * 600}"]
)
def test_a_tracestate_that_cannot_be_read_is_left_out(door: Door, queue_name: str, state: str) -> None:
    command = {"cmd": "push", "queue": queue_name, "job": 1, "traceparent": TRACE, "tracestate": state}
    door.ask("POST", "/queue", json.dumps([command, {**command, "traceparent": "no", "tracestate": "a=1"}]))
    [first, second] = lease(door, queue_name, "?count=2")
    assert (first["traceparent"], "tracestate" in first, "tracestate" in second) == (TRACE, False, False)


def test_a_traceparent_travels_with_the_job(door: Door, queue_name: str) -> None:
    trace = TRACE
    push(door, queue_name, 1, traceparent=trace)
    push(door, queue_name, 2, traceparent="nonsense")
    push(door, queue_name, 3, traceparent=trace)
    [first, second] = lease(door, queue_name, "?count=2")
    assert first["traceparent"] == trace
    assert "traceparent" not in second
    assert job_of(door, queue_name)["traceparent"] == trace
    assert door.ask("GET", f"/q/{queue_name}").headers["traceparent"] == trace


def test_a_uniq_key_is_held_until_the_job_is_done_or_only_until_it_is_leased(
    door: Door, queue_name: str
) -> None:
    push(door, queue_name, 1, "?uniq=short")
    push(door, queue_name, 2, "?uniq=long&uniq_until=done")
    first, second = lease(door, queue_name, "?count=2")
    push(door, queue_name, 3, "?uniq=short")
    assert door.ask("POST", f"/q/{queue_name}?uniq=long", b"4").json == {"error": "job already exists"}
    settle(door, "ack", second)
    push(door, queue_name, 4, "?uniq=long")
    settle(door, "release", first)
    assert counts(door, queue_name) == {"ready": 3}


def test_a_stopped_queue_leases_nothing_and_settles_all(door: Door, queue_name: str) -> None:
    push(door, queue_name)
    push(door, queue_name)
    [job] = lease(door, queue_name)
    door.ask("POST", f"/control/{queue_name}", b'{"status":"stop"}')
    assert lease(door, queue_name) == []
    reasons = door.ask("GET", f"/j/{queue_name}/2/explain").json["reasons"]
    assert reasons[0]["code"] == "stopped"
    assert settle(door, "ack", job).status == 200
    door.ask("POST", f"/control/{queue_name}", b'{"status":"start"}')
    assert len(lease(door, queue_name)) == 1
