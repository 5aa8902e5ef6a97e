"""Moments up to the end of the year 9999 are stored, shown and listed; later ones are refused."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests.rig import Answer, Door

LAST = "9999-12-31T23:59:59.999Z"

# What was asked for, and the moment that it is.
MOMENTS: dict[str, str] = {
    "9999999999": "2286-11-20T17:46:39.000Z",
    "10000000000": "2286-11-20T17:46:40.000Z",
    "4102444800.001": "2100-01-01T00:00:00.001Z",
    "253402300799": "9999-12-31T23:59:59.000Z",
    "253402300799.999": LAST,
    "9999-12-31T23:59:59Z": "9999-12-31T23:59:59.000Z",
    "9999-12-31T23:59:59.999Z": LAST,
    "9999-12-31T23:59:59.999+14:00": "9999-12-31T09:59:59.999Z",
    "9999-12-31T09:00:00-12:00": "9999-12-31T21:00:00.000Z",
    "2038-01-19T03:14:08+05:45": "2038-01-18T21:29:08.000Z",
}
TOO_LATE = (
    *("253402300799.9991", "253402300800", "1e30", "9" * 40, "10000-01-01T00:00:00Z"),
    *("9999-12-31T23:59:59-10:00", "9999-12-31T23:59:59.9991Z"),
)


def looked_at(door: Door, queue: str, id: str, moment: str) -> None:
    """Look at a scheduled job in every way, and see that it is due then."""
    found = door.ask("GET", f"/j/{queue}/{id}")
    assert (found.status, found.json["state"], found.json["run_at"]) == (200, "scheduled", moment)
    explained = door.ask("GET", f"/j/{queue}/{id}/explain")
    assert explained.status == 200
    assert explained.json["reasons"][0]["text"] == f"it is due at {moment}"
    page = door.ask("GET", f"/j/{queue}?state=scheduled")
    assert page.status == 200
    assert moment in [job["run_at"] for job in page.json["jobs"]]
    for path in (f"/stats/{queue}", f"/j/{queue}", f"/status/{queue}?with_desc=1"):
        assert door.ask("GET", path).status == 200


@pytest.mark.parametrize("asked", MOMENTS)
def test_a_moment_is_stored_shown_and_listed(door: Door, queue_name: str, asked: str) -> None:
    moment = MOMENTS[asked]
    pushed = door.ask("POST", f"/q/{queue_name}?delayed={quote(asked)}", "1")
    assert pushed.status == 201
    looked_at(door, queue_name, pushed.json["id"], moment)
    batch = door.ask("POST", f"/qb/{queue_name}?delayed={quote(asked)}", '{"jobs":[2,3]}').json["ids"]
    looked_at(door, queue_name, batch[0], moment)
    command = {"cmd": "push", "queue": queue_name, "job": 4, "delayed": number(asked)}
    looked_at(door, queue_name, door.ask("POST", "/queue", json.dumps(command)).json["id"], moment)

    waits = door.ask("POST", f"/q/{queue_name}?delay=3600", "5").json["id"]
    changed = door.ask("PATCH", f"/j/{queue_name}/{waits}", json.dumps({"delayed": number(asked)}))
    assert (changed.status, changed.json["run_at"]) == (200, moment)
    looked_at(door, queue_name, waits, moment)
    for count in (1, 2):  # pages, whose cursors hold the moment
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = door.ask("GET", f"/j/{queue_name}?state=scheduled&limit={count}&cursor={cursor}").json
            found += [job["id"] for job in page["jobs"]]
            cursor = page["cursor"]
        assert sorted(found) == ["1", "2", "3", "4", "5"]
    assert door.ask("GET", f"/q/{queue_name}").status == 404


def number(asked: str) -> Any:
    """As JSON writes it: a number where it is one."""
    return asked if "T" in asked else float(asked)


@pytest.mark.parametrize("asked", TOO_LATE)
def test_a_moment_after_the_year_9999_is_refused(door: Door, queue_name: str, asked: str) -> None:
    def refused(answer: Answer) -> None:
        assert answer.status == 400
        assert "`delayed` should be" in answer.json["error"]

    refused(door.ask("POST", f"/q/{queue_name}?delayed={quote(asked)}", "1"))
    refused(door.ask("POST", f"/qb/{queue_name}?delayed={quote(asked)}", '{"jobs":[2,3]}'))
    waits = door.ask("POST", f"/q/{queue_name}?delay=3600", "5").json["id"]
    refused(door.ask("PATCH", f"/j/{queue_name}/{waits}", json.dumps({"delayed": asked})))
    assert door.ask("GET", f"/j/{queue_name}").json["job_count"] in (0, 1)
    assert door.ask("GET", f"/j/{queue_name}?state=scheduled").status == 200


def test_a_ttl_may_end_after_the_year_9999(door: Door, queue_name: str) -> None:
    pushed = door.ask("POST", f"/q/{queue_name}?delayed={LAST}&ttl=315360000", "1")
    assert pushed.status == 400  # the ttl counts from now, and the job could never be taken
    door.ask("PATCH", f"/p/{queue_name}", '{"ttl":315360000}')
    pushed = door.ask("POST", f"/q/{queue_name}?delayed={LAST}", "1")
    assert pushed.status == 201
    looked_at(door, queue_name, pushed.json["id"], LAST)
    assert door.ask("GET", f"/j/{queue_name}/{pushed.json['id']}").json["expires_at"] == LAST


@pytest.mark.parametrize(
    "asked", ["0.001", "1", "12345.678", "1000000", "1234567", "1234567.891", "315360000"]
)
def test_a_delay_reaches_the_store_as_it_was_given(door: Door, queue_name: str, asked: str) -> None:
    waits = door.ask("POST", f"/q/{queue_name}?delay=3600", "1").json["id"]
    changed = door.ask("PATCH", f"/j/{queue_name}/{waits}", f'{{"delay":{asked}}}')
    assert changed.status == 200
    pushed = door.ask("POST", f"/q/{queue_name}?delay={asked}", "1").json["id"]
    later = door.ask("GET", f"/j/{queue_name}/{pushed}")
    if later.status == 404 or later.json["state"] == "ready":
        assert float(asked) <= 1
        return
    first, second = (datetime.fromisoformat(answer.json["run_at"]) for answer in (changed, later))
    assert timedelta(0) <= second - first < timedelta(seconds=30)
    assert first.timestamp() - time.time() <= float(asked) + 1
