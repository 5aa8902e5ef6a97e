"""Recurring jobs over HTTP, one scenario for both lanes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.rig import Answer, Door, eventually


@pytest.fixture
def cron(door: Door, queue_name: str) -> Iterator[str]:
    """A name that is free again afterwards."""
    yield queue_name
    door.ask("DELETE", f"/cron/{queue_name}")


def put(door: Door, name: str, **fields: Any) -> Answer:
    whole = {"queue": name, "body": {"n": 1}, "schedule": "@daily"} | fields
    return door.ask("PUT", f"/cron/{name}", json.dumps(whole))


def test_a_recurring_job_shows_its_next_moments_and_its_schedule_in_words(door: Door, cron: str) -> None:
    made = put(door, cron, schedule="30 9 * * MON", timezone="Europe/Paris", priority=9, keep=5)
    assert made.status == 201
    shown = door.ask("GET", f"/cron/{cron}").json
    assert shown == made.json
    assert (shown["words"], shown["timezone"]) == ("At 09:30 on Monday", "Europe/Paris")
    assert len(shown["next"]) == 5
    assert all("T09:30:00+0" in moment for moment in shown["next"])
    assert (shown["body"], shown["missed"], shown["overlap"]) == ({"n": 1}, "once", "allow")
    assert (shown["priority"], shown["keep"], shown["last_fired"]) == (9, 5, None)
    assert (shown["paused"], shown["broken"], shown["last_outcome"]) == (False, None, None)
    assert shown in door.ask("GET", "/cron/?limit=500").json["crons"]


def test_one_that_is_put_again_keeps_its_next_moment_unless_its_schedule_changes(
    door: Door, cron: str
) -> None:
    first = put(door, cron, schedule="@every 1h").json
    again = put(door, cron, schedule="@every 1h", body="other")
    assert (again.status, again.json["next"], again.json["body"]) == (200, first["next"], "other")
    assert put(door, cron, schedule="@every 2h").json["next"] != first["next"]


@pytest.mark.parametrize(
    "ttl", [0.001, 0.5, 1, 999999, 1_000_000, 1_209_600, 2_592_000, 315_360_000, 1234567.8]
)
def test_a_ttl_reaches_the_store_as_it_was_given(door: Door, cron: str, ttl: float) -> None:
    assert put(door, cron, ttl=ttl).json["ttl"] == ttl
    run = door.ask("POST", f"/cron/{cron}/run").json
    job = door.ask("GET", f"/j/{cron}/{run['id']}")
    if ttl < 1:  # it may be over
        return
    lives = datetime.fromisoformat(job.json["expires_at"]) - datetime.fromisoformat(job.json["pushed_at"])
    assert lives == timedelta(seconds=ttl)


def test_one_that_is_run_now_is_pushed_beside_its_moments(door: Door, cron: str) -> None:
    before = put(door, cron, queue=f"{cron}-x", priority=7).json
    run = door.ask("POST", f"/cron/{cron}/run")
    assert (run.status, run.json) == (201, {"id": "1", "queue": f"{cron}-x", "name": cron})
    assert run.headers["location"] == f"/j/{cron}-x/1"
    job = door.ask("GET", run.headers["location"]).json
    assert (job["body"], job["priority"]) == ({"n": 1}, 7)
    assert door.ask("GET", f"/cron/{cron}").json == before
    put(door, cron, overlap="skip")
    assert door.ask("POST", f"/cron/{cron}/run").status == 201
    again = door.ask("POST", f"/cron/{cron}/run")
    assert (again.status, again.json["code"]) == (400, "job-exists")


def test_one_that_is_paused_is_shown_so_until_it_is_resumed(door: Door, cron: str) -> None:
    before = put(door, cron).json
    for verb in ("pause", "pause", "resume", "resume"):
        answer = door.ask("POST", f"/cron/{cron}/{verb}")
        assert answer.status == 200
        assert answer.json["paused"] == (verb == "pause")
        assert answer.json["next"] == ([] if verb == "pause" else before["next"])
        assert door.ask("GET", f"/cron/{cron}").json == answer.json


@pytest.mark.parametrize("verb", ["run", "pause", "resume"])
def test_one_that_is_not_there_can_be_neither_run_nor_paused(door: Door, cron: str, verb: str) -> None:
    answer = door.ask("POST", f"/cron/{cron}/{verb}")
    assert (answer.status, answer.json["code"]) == (404, "not-found")
    assert door.ask("GET", f"/cron/{cron}/{verb}").status == 405


def test_a_list_comes_in_pages(door: Door, cron: str) -> None:
    names = sorted(f"{cron}-{number}" for number in range(5))
    for name in names:
        put(door, name)
    found: list[str] = []
    cursor = cron
    while cursor is not None and cursor <= names[-1]:
        page = door.ask("GET", f"/cron/?limit=2&cursor={cursor}").json
        assert len(page["crons"]) <= 2
        found += [one["name"] for one in page["crons"] if one["name"].startswith(cron)]
        cursor = page["cursor"]
    assert found == names
    for name in names:
        door.ask("DELETE", f"/cron/{name}")
    for wrong in ("limit=0", "limit=501", "cursor=no/slash", "after=x"):
        assert door.ask("GET", f"/cron/?{wrong}").status == 400


def test_a_deleted_one_is_gone(door: Door, cron: str) -> None:
    put(door, cron)
    assert door.ask("DELETE", f"/cron/{cron}").status == 204
    for method in "GET", "DELETE":
        answer = door.ask(method, f"/cron/{cron}")
        assert (answer.status, answer.json["code"]) == (404, "not-found")


def test_a_job_is_pushed_at_each_moment(door: Door, cron: str) -> None:
    put(door, cron, schedule="@every 1s", group="acme")
    eventually(lambda: door.ask("GET", f"/status/{cron}").json["size"] >= 2)
    shown = door.ask("GET", f"/cron/{cron}").json
    assert shown["last_fired"] is not None
    assert door.ask("GET", f"/j/{cron}/1").json["group"] == "acme"


def run_and_lease(door: Door, cron: str) -> tuple[str, str]:
    """The id and the lease of a job that was pushed now."""
    made = door.ask("POST", f"/cron/{cron}/run").json["id"]
    [job] = door.ask("POST", f"/q/{cron}/lease").json["jobs"]
    assert job["id"] == made
    return made, job["lease"]


def outcome(door: Door, cron: str) -> dict[str, str] | None:
    """How its job ended that ended last, without the moment, which must be one."""
    found: dict[str, str] | None = door.ask("GET", f"/cron/{cron}").json["last_outcome"]
    if found is not None:
        datetime.fromisoformat(found.pop("at"))
    return found


def test_one_tells_how_its_job_ended_that_ended_last(door: Door, cron: str) -> None:
    put(door, cron, attempts=2)
    id, lease = run_and_lease(door, cron)
    assert outcome(door, cron) is None
    door.ask("POST", f"/j/{cron}/{id}/ack?lease={lease}")
    assert outcome(door, cron) == {"outcome": "done", "id": id}
    id, lease = run_and_lease(door, cron)
    door.ask("POST", f"/j/{cron}/{id}/fail?lease={lease}&retry_in=0", '{"error": "not yet"}')
    assert outcome(door, cron) == {"outcome": "done", "id": str(int(id) - 1)}
    [again] = door.ask("POST", f"/q/{cron}/lease").json["jobs"]
    door.ask("POST", f"/j/{cron}/{id}/fail?lease={again['lease']}", json.dumps({"error": "é" * 150}))
    assert outcome(door, cron) == {"outcome": "dead", "id": id, "error": "é" * 100}
    door.ask("POST", f"/j/{cron}/{id}/retry")
    [again] = door.ask("POST", f"/q/{cron}/lease").json["jobs"]
    door.ask("POST", "/settle", json.dumps({"ack": [{"queue": cron, "id": id, "lease": again["lease"]}]}))
    assert outcome(door, cron) == {"outcome": "done", "id": id}
    id = door.ask("POST", f"/cron/{cron}/run").json["id"]
    door.ask("GET", f"/q/{cron}")
    assert outcome(door, cron) == {"outcome": "fetched", "id": id}
    [listed] = [one for one in door.ask("GET", "/cron/?limit=500").json["crons"] if one["name"] == cron]
    assert listed == door.ask("GET", f"/cron/{cron}").json


def test_one_whose_job_nobody_took_in_time_or_whose_lease_ended_tells_so(door: Door, cron: str) -> None:
    put(door, cron, ttl=0.01)
    id = door.ask("POST", f"/cron/{cron}/run").json["id"]
    eventually(lambda: outcome(door, cron) == {"outcome": "expired", "id": id})
    put(door, cron, attempts=1)
    id = door.ask("POST", f"/cron/{cron}/run").json["id"]
    door.ask("POST", f"/q/{cron}/lease?seconds=1")
    eventually(lambda: outcome(door, cron) == {"outcome": "dead", "id": id, "error": "lease expired"})


def test_an_outcome_is_of_this_recurring_job_and_no_other(door: Door, cron: str) -> None:
    put(door, cron)
    id, lease = run_and_lease(door, cron)
    assert door.ask("GET", f"/j/{cron}/{id}").json["cron"] == cron
    door.ask("POST", f"/j/{cron}/{id}/ack?lease={lease}")
    door.ask("POST", f"/q/{cron}", "1")
    assert "cron" not in door.ask("GET", f"/j/{cron}/{int(id) + 1}").json
    door.ask("GET", f"/q/{cron}")
    assert outcome(door, cron) == {"outcome": "done", "id": id}
    door.ask("DELETE", f"/cron/{cron}")
    put(door, cron)
    assert outcome(door, cron) is None


def test_one_that_must_not_overlap_waits_for_the_job_before(door: Door, cron: str) -> None:
    put(door, cron, schedule="@every 1s", overlap="skip")
    eventually(lambda: door.ask("GET", f"/status/{cron}").json["size"] == 1)
    [job] = door.ask("POST", f"/q/{cron}/lease").json["jobs"]
    before = door.ask("GET", f"/cron/{cron}").json["next"][0]
    eventually(lambda: door.ask("GET", f"/cron/{cron}").json["next"][0] > before)
    assert door.ask("GET", f"/status/{cron}").json["size"] == 0
    door.ask("POST", f"/j/{cron}/{job['id']}/ack?lease={job['lease']}")
    eventually(lambda: door.ask("GET", f"/status/{cron}").json["size"] == 1)


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"schedule": "often"}, "`schedule` cannot be read"),
        ({"timezone": "Mars"}, "`timezone` should be a zone"),
        ({"missed": "maybe"}, "`missed` should be `skip`, `once` or `all`"),
        ({"overlap": "no"}, "`overlap` should be `allow` or `skip`"),
        ({"queue": "no/slash"}, "is not a valid queue name"),
        ({"priority": 10}, "`priority` should be"),
        ({"scedule": "@daily"}, "unknown field `scedule`"),
        ({"schedule": "1," * 200_000 + "1 * * * *"}, "`schedule` should be at most 500 bytes"),
        ({"ttl": 0}, "`ttl` should be"),
        ({"ttl": 1e9}, "`ttl` should be"),
    ],
)
def test_one_that_is_not_right_says_why(door: Door, cron: str, fields: dict[str, Any], part: str) -> None:
    answer = put(door, cron, **fields)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert part in answer.json["error"]
    assert door.ask("GET", f"/cron/{cron}").status == 404


def test_a_name_and_a_body_are_needed(door: Door) -> None:
    answer = door.ask("PUT", "/cron/no%2Fslash", b"{}")
    assert "is not a valid recurring job name" in answer.json["error"]
    answer = door.ask("PUT", "/cron/n", b'{"queue":"q","schedule":"@daily"}')
    assert "`body` is missing" in answer.json["error"]
