"""The command line on many jobs at once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from presque import Client
from presque.cli import failures
from presque.client.answers import FailureKind
from tests import rig
from tests.stories.test_cli import on_terminal, run


@pytest.fixture
def at(server: rig.Server) -> dict[str, str]:
    """The environment in which commands find the server."""
    return {"PRESQUE_URL": server.url}


def dead(server: rig.Server, queue: str, count: int) -> None:
    """Jobs that died, each with an error of its own."""
    with Client(server.url) as client:
        client.push_many(queue, [{"n": n} for n in range(count)], attempts=1)
        for job in client.lease(queue, count, seconds=600):
            client.fail(job, f"no reply within {job.value['n']} s")


def interrupted(*arguments: str, until: str, **environ: str) -> tuple[int, str]:
    """Run presque until it has printed a text on its terminal, then press Ctrl-C: its exit code and what it
    said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "presque", *arguments],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environ},
    )  # fmt: skip
    with Client(environ["PRESQUE_URL"]) as client:
        rig.eventually(lambda: any(until == one["queues"] and one["done"] for one in client.tasks()[0]))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=rig.PATIENCE)
    return process.returncode, said


def test_dead_jobs_are_retried_by_what_they_are_like(
    server: rig.Server, at: dict[str, str], queue_name: str
) -> None:
    dead(server, queue_name, 5)
    retry = ("retry", queue_name, "--all")
    assert run(*retry, "--error", "within 3", "--dry-run", **at).stdout == "1 job would be retried\n"
    assert run(*retry, "--grep", '"n":2', **at).stdout == "1 job retried\n"
    assert run(*retry, "--like", "no reply within 9 s", "--limit", "3", **at).stdout == "3 jobs retried\n"
    assert run(*retry, "--newer", "1h", **at).stdout == "1 job retried\n"


def test_jobs_are_moved_and_the_server_is_asked_first(
    server: rig.Server, at: dict[str, str], queue_name: str
) -> None:
    dead(server, queue_name, 2)
    move = ("move", f"{queue_name}*", f"other-{queue_name}", "--state", "dead")
    assert run(*move, **at).returncode == 2  # nobody can be asked
    code, screen = on_terminal(*move, typed="y\n", **at)
    assert (code, "2 jobs moved" in screen) == (0, True)
    assert run("jobs", f"other-{queue_name}", "--grep", "reply", "--json", **at).stdout.count("\n") == 2


def test_ctrl_c_leaves_the_task_and_says_how_to_go_on(
    server: rig.Server, at: dict[str, str], queue_name: str
) -> None:
    dead(server, queue_name, 100)
    code, said = interrupted("retry", queue_name, "--all", "--rate", "0.1", until=queue_name, **at)
    assert code == 130
    found = re.search(r"and the task continues on the server: `presque tasks show (\d+)`", said)
    assert found, said
    assert run("tasks", "pause", found[1], **at).stdout.startswith(f"task {found[1]} is paused: ")
    assert run("tasks", "resume", found[1], **at).stdout.startswith(f"task {found[1]} is running: ")
    assert run("tasks", "cancel", found[1], **at).stdout.startswith(f"task {found[1]} is cancelling: ")
    watched = run("tasks", "show", found[1], "--watch", **at)
    task = json.loads(run("tasks", "show", found[1], "--json", **at).stdout)
    jobs = "1 job" if task["done"] == 1 else f"{task['done']} jobs"
    assert (watched.returncode, watched.stdout) == (1, f"{jobs} retried; the task is cancelled\n")


def test_ctrl_c_ends_the_task_if_that_is_wanted(
    server: rig.Server, at: dict[str, str], queue_name: str
) -> None:
    dead(server, queue_name, 100)
    retry = ("retry", queue_name, "--all", "--rate", "0.1", "--cancel")
    code, said = interrupted(*retry, until=queue_name, **at)
    assert (code, "cancelled: " in said) == (130, True)
    with Client(server.url) as client:
        [task] = [one for one in client.tasks()[0] if one["queues"] == queue_name]
        rig.eventually(lambda: client.task(task["id"])["status"] == "cancelled")
        assert client.stats(queue_name)["dead"] > 0


def test_a_task_is_left_to_itself(server: rig.Server, at: dict[str, str], queue_name: str) -> None:
    dead(server, queue_name, 3)
    id = run("delete", queue_name, "--state", "dead", "--yes", "--detach", **at).stdout.strip()
    assert run("tasks", "show", id, "--watch", **at).stdout == "3 jobs deleted\n"
    listed: list[Any] = json.loads(run("tasks", "list", "--json", **at).stdout)
    assert listed[0]["id"] == id
    assert run("tasks", "cancel", "0", **at).returncode == 5


def test_failures_are_shown_by_their_kind(server: rig.Server, queue_name: str, at: dict[str, str]) -> None:
    one, other = f"{queue_name}-a", f"{queue_name}-b"
    dead(server, one, 3)
    dead(server, other, 1)
    with Client(server.url) as client:
        client.push(other, 1, attempts=1)
        client.fail(client.lease(other)[0], "no such codec")
    result = run("failures", f"{queue_name}*", **at)
    assert result.returncode == 0
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["jobs", "first", "last", "kind", "queues", "sample"]
    assert first.split()[0] == "4"
    assert "no reply within # s" in first
    assert f"{one} 3, {other} 1" in first
    assert second.split()[0] == "1"
    assert "no such codec" in second
    assert second.endswith(f"{other}/2")
    found = json.loads(run("failures", f"{queue_name}*", "--json", **at).stdout)
    assert [(kind["like"], kind["count"]) for kind in found] == [
        ("no reply within # s", 4),
        ("no such codec", 1),
    ]
    retried = run("retry", f"{queue_name}*", "--all", "--like", found[0]["like"], **at)
    assert "4 jobs retried" in retried.stdout + retried.stderr
    left = run("failures", one, **at)
    assert (left.returncode, left.stdout, left.stderr) == (7, "", "presque: no failures\n")
    assert run("failures", one, "--state", "scheduled", "--json", **at).stdout == "[]\n"


def test_a_kind_of_failures_that_comes_on_two_pages_is_one() -> None:
    def kind(count: int, last: str, queues: dict[str, int]) -> FailureKind:
        return {"like": "# s", "error": last, "count": count, "first_at": last, "last_at": last,
                "queues": queues, "more_queues": 0, "sample": {"queue": "q", "id": last}}  # fmt: skip

    both = failures.together(kind(2, "2031", {"a": 1, "b": 1}), kind(3, "2030", {"b": 2, "c": 1}))
    assert both["count"] == 5
    assert (both["first_at"], both["last_at"], both["sample"]["id"]) == ("2030", "2031", "2031")
    assert both["queues"] == {"a": 1, "b": 3, "c": 1}
    assert failures.where(kind(9, "2031", {"a": 1, "b": 3, "c": 2, "d": 1})) == "b 3, c 2, a 1 and 1 other"


def test_programs_read_what_is_done_to_jobs(server: rig.Server, at: dict[str, str], queue_name: str) -> None:
    def said(*arguments: str) -> list[dict[str, Any]]:
        done = run(*arguments, "--json", **at)
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    dead(server, queue_name, 6)
    assert [one["state"] for one in said("retry", queue_name, "1", "2")] == ["ready", "ready"]
    assert said("delete", queue_name, "3")[0] == {"queue": queue_name, "id": "3", "deleted": True}
    assert said("retry", queue_name, "--all", "--dry-run")[0]["matched"] == 3
    [task] = said("retry", queue_name, "--all", "--limit", "1")
    assert (task["act"], task["status"], task["done"]) == ("retry", "done", 1)
    [task] = said("move", queue_name, f"to-{queue_name}", "--state", "dead", "--limit", "1", "--yes")
    assert (task["act"], task["done"]) == ("move", 1)
    [task] = said("delete", queue_name, "--state", "any", "--yes", "--detach")
    assert task["act"] == "delete"
    [watched] = said("tasks", "show", task["id"], "--watch")
    assert (watched["status"], watched["done"]) == ("done", 4)


def test_a_leased_job_that_is_deleted_goes_later_and_that_is_said(
    server: rig.Server, at: dict[str, str], queue_name: str
) -> None:
    with Client(server.url) as client:
        client.push_many(queue_name, [1, 2])
        [held] = client.lease(queue_name)
        assert run("delete", queue_name, "1", "2", **at).stdout == (
            "2 jobs deleted, 1 of them leased: gone when the worker lets go\n"
        )
        done = run("release", queue_name, held.id, held.lease, "--json", **at)
        assert json.loads(done.stdout)["state"] == "deleted"


def test_programs_read_what_is_done_to_recurring_jobs(at: dict[str, str], queue_name: str) -> None:
    run("cron", "set", queue_name, queue_name, "1", "@daily", **at)

    def said(command: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run("cron", command, queue_name, "--json", **at).stdout)
        return found

    assert said("run")["name"] == queue_name
    assert said("pause")["paused"] is True
    assert said("resume")["paused"] is False
    assert said("show")["schedule"] == "@daily"
    assert "schedule       @daily\n" in run("cron", "show", queue_name, **at).stdout
    run("cron", "delete", queue_name, **at)
