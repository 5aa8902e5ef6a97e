"""Why a job does not run: who waits, who is busy, who has fallen silent."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.rig import Server, eventually


def reasons(server: Server, queue: str, job: str = "1") -> dict[str, str]:
    """Each code and its sentence, in their order."""
    answer = server.ask("GET", f"/j/{queue}/{job}/explain")
    assert answer.status == 200, answer
    return {reason["code"]: reason["text"] for reason in answer.json["reasons"]}


def report(server: Server, worker: str, **fields: Any) -> None:
    assert server.ask("PUT", "/w/", json.dumps(fields), X_presque_workerid=worker).status == 200


@pytest.fixture
def worker(server: Server) -> Any:
    """The id of a worker, which is forgotten afterwards."""
    name = f"w-{uuid4().hex[:8]}"
    yield name
    server.ask("DELETE", "/w/", X_presque_workerid=name)


def test_without_any_worker_nobody_waits(server: Server, queue_name: str) -> None:
    server.ask("POST", f"/q/{queue_name}", "1")
    assert reasons(server, queue_name) == {"no-worker": "nobody waits for a job of this queue at the moment"}


def test_a_worker_that_is_busy_is_named(server: Server, queue_name: str, worker: str) -> None:
    for number in range(2):
        server.ask("POST", f"/q/{queue_name}", str(number))
    report(server, worker, queues=[queue_name], state="working")
    assert reasons(server, queue_name, "2")["busy"] == (
        f"nobody waits for a job of this queue at the moment; 1 worker ({worker}): busy with other jobs"
    )
    server.ask("POST", f"/q/{queue_name}/lease", X_presque_workerid=worker)
    assert reasons(server, queue_name, "2")["busy"] == (
        "nobody waits for a job of this queue at the moment; 1 of its jobs is leased; "
        f"1 worker ({worker}): busy with other jobs"
    )
    server.ask("POST", "/w/", json.dumps({"worker_id": worker, "status": "quiet"}))
    assert f"1 worker ({worker}): asked to take no more" in reasons(server, queue_name, "2")["busy"]


def test_a_job_that_is_leased_by_no_known_worker_is_told_of(server: Server, queue_name: str) -> None:
    for number in range(3):
        server.ask("POST", f"/q/{queue_name}", str(number))
    server.ask("POST", f"/q/{queue_name}/lease?count=2")
    assert "2 of its jobs are leased" in reasons(server, queue_name, "3")["busy"]


def test_workers_of_other_queues_are_none_of_this_one(server: Server, queue_name: str, worker: str) -> None:
    server.ask("POST", f"/q/{queue_name}", "1")
    report(server, worker, queues=[f"{queue_name}-other"])
    assert list(reasons(server, queue_name)) == ["no-worker"]


def test_who_waited_and_has_left_does_not_wait(server: Server, queue_name: str) -> None:
    server.ask("POST", f"/q/{queue_name}?delay=1h", "1")
    waiting = server.send("GET", f"/q/{queue_name}?wait=30")
    eventually(lambda: list(reasons(server, queue_name)) == ["scheduled"])
    waiting.leave()
    eventually(lambda: list(reasons(server, queue_name)) == ["scheduled", "no-worker"])


def test_a_leased_job_says_since_when(server: Server, queue_name: str) -> None:
    server.ask("POST", f"/q/{queue_name}", "1")
    assert server.ask("GET", f"/j/{queue_name}/1").json["leased_at"] is None
    [leased] = server.ask("POST", f"/q/{queue_name}/lease?seconds=100").json["jobs"]
    job = server.ask("GET", f"/j/{queue_name}/1").json
    since = datetime.fromisoformat(job["leased_at"])
    assert datetime.fromisoformat(job["lease_until"]) - since == timedelta(seconds=100)
    assert abs(datetime.now(UTC) - since) < timedelta(seconds=60)
    assert (
        f"has held it since {job['leased_at']}, until {job['lease_until']}"
        in reasons(server, queue_name)["leased"]
    )

    server.ask("POST", f"/j/{queue_name}/1/extend?lease={leased['lease']}&seconds=200")
    assert server.ask("GET", f"/j/{queue_name}/1").json["leased_at"] == job["leased_at"]
    [row] = server.ask("GET", f"/j/{queue_name}?state=leased").json["jobs"]
    assert row["leased_at"] == job["leased_at"]

    server.ask("POST", f"/j/{queue_name}/1/release?lease={leased['lease']}")
    assert server.ask("GET", f"/j/{queue_name}/1").json["leased_at"] is None


def test_the_command_line_says_for_how_long_a_job_is_worked_on(
    server: Server, queue_name: str, worker: str
) -> None:
    report(
        server, worker, queues=[queue_name], state="working",
        jobs=[{"queue": queue_name, "id": "7", "seconds": 83}], running=1,
    )  # fmt: skip
    shown = subprocess.run(
        [sys.executable, "-m", "presque", "workers", "--url", server.url],
        capture_output=True, text=True, check=True, env={"COLUMNS": "300", "PATH": "/usr/bin"},
    ).stdout  # fmt: skip
    assert f"{queue_name}/7 for 1m23s" in shown
