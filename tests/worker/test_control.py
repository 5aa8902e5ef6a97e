"""Who works on what, and workers told over HTTP; settings, files and the command line of workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import presque
from presque import Client
from presque.client.answers import WorkerRecord
from tests import rig
from tests.worker.conftest import Process, Work, counts


def record(client: Client, worker: Process) -> WorkerRecord | None:
    """What the server knows of a worker."""
    for found in client.worker_records():
        if (found["report"] or {}).get("pid") == worker.pid:
            return found
    return None


def known(client: Client, worker: Process) -> WorkerRecord:
    found: WorkerRecord = rig.eventually(lambda: record(client, worker))
    return found


def test_a_worker_says_what_it_does_and_is_forgotten_when_it_ends(
    work: Work, client: Client, queue_name: str
) -> None:
    client.push(queue_name, {"sleep": 600})
    worker = work("Plain", "--worker-id", f"me-{queue_name}")
    worker.noted("began")
    assert known(client, worker)["worker_id"] == f"me-{queue_name}"
    assert f"me-{queue_name}" in client.workers()

    def report() -> dict[str, Any]:
        return known(client, worker)["report"] or {}

    rig.eventually(lambda: report()["state"] == "working")
    [job] = report()["jobs"]
    assert (job["queue"], job["id"]) == (queue_name, "1")
    assert report()["host"] == socket.gethostname()
    assert report()["version"] == presque.__version__
    assert 2**20 < report()["memory"] < 2**40
    assert known(client, worker)["queues"] == [queue_name]
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert record(client, worker) is None
    assert f"me-{queue_name}" not in client.workers()


def test_a_worker_is_told_over_http_to_be_quiet_to_go_on_and_to_stop(
    work: Work, client: Client, queue_name: str
) -> None:
    worker = work("Plain")
    id = known(client, worker)["worker_id"]
    client.tell_worker(id, "quiet")
    worker.says("worker.asked what=quiet")
    client.push(queue_name, {})
    time.sleep(0.3)
    assert counts(client, queue_name)["ready"] == 1
    client.tell_worker(id, "start")
    worker.noted("ended")
    client.push(queue_name, {"sleep": 7})
    worker.noted("began", 2)
    client.tell_worker(id, "stop")
    assert worker.wait() == 0
    assert len(worker.notes("ended")) == 2


def test_the_command_line_shows_and_tells_workers(
    work: Work, client: Client, queue_name: str, server: rig.Server
) -> None:
    client.push(queue_name, {"sleep": 600})
    worker = work("Plain", "--worker-id", f"w-{queue_name}")
    worker.noted("began")
    known(client, worker)
    line = rig.eventually(
        lambda: next(
            (one for one in shown(server) if f"w-{queue_name}" in one and f"{queue_name}/1" in one), None
        )
    )
    assert line.split()[:4] == [f"w-{queue_name}", "working", queue_name, f"{queue_name}/1"]
    assert shown(server, "--quiet", f"w-{queue_name}") == [f"w-{queue_name} is asked to be quiet"]
    worker.says("worker.asked what=quiet")
    found = subprocess.run(
        [sys.executable, "-m", "presque", "workers", "--stop", "nobody", "--url", server.url],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (5, "presque: no worker that reports is called `nobody`\n")


def shown(server: rig.Server, *flags: str) -> list[str]:
    found = subprocess.run(
        [sys.executable, "-m", "presque", "workers", *flags, "--url", server.url],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return found.stdout.splitlines()


def test_a_pid_file_is_there_as_long_as_the_worker(work: Work, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    worker = work("Plain", PIDFILE=str(file))
    worker.says("worker.started")
    assert file.read_text() == f"{worker.pid}\n"
    worker.signal(signal.SIGQUIT)
    assert worker.wait() == 0
    assert not file.exists()


def test_settings_come_from_the_environment(work: Work, client: Client, queue_name: str) -> None:
    client.push_many(queue_name, [{}] * 3)
    worker = work(
        "Plain", PRESQUE_WORKER_BURST="1", PRESQUE_WORKER_FORK="yes", PRESQUE_WORKER_CONCURRENCY="3"
    )
    assert worker.wait() == 0
    assert "mode=fork concurrency=3" in worker.said()


@pytest.mark.parametrize(
    ("target", "flags", "said"),
    [
        ("NoWork", (), "`NoWork` has no `work`: a worker needs a method `def work(self, job)`"),
        ("Plan", (), "module `tests.worker.jobs` has no `Plan`, did you mean `Plain`?"),
        ("Plain", ("--interval", "90"), "`interval` should be 0.1 to 60, not 90"),
        (
            "Plain",
            ("--interval", "soon"),
            "`interval` should be a duration such as 20, 0.5, 500ms, 90s, 5m, 1h30m or 2d, not `soon`",
        ),
        ("Plain", ("--concurrency", "2", "--timeout", "5"), "a thread cannot be stopped, so `timeout` needs"),
        ("Plain", ("--max-memory", "1G"), "`max_memory` is for the process of a job: it needs `fork`"),
        ("Plain", ("--queues", "a b"), "`a b` is not a queue name or pattern"),
        ("Plain", ("--token", "a b"), "a token is visible ASCII characters without a space"),
        ("Plain", ("--pidfile", "/no/such/dir/pid"), "cannot write the pid file /no/such/dir/pid: No such"),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_what_to_do(
    server: rig.Server, target: str, flags: tuple[str, ...], said: str
) -> None:
    queues = () if "--queues" in flags else ("--queues", "q")
    found = subprocess.run(
        [
            sys.executable, "-m", "presque", "worker", f"tests.worker.jobs:{target}", *queues, *flags,
            "--url", server.url,
        ],
        capture_output=True, text=True, check=False, env={**os.environ, "DIARY": "/dev/null"}, timeout=60,
    )  # fmt: skip
    assert found.returncode == 2
    assert said in found.stderr
    assert found.stderr.count("\n") == 1, found.stderr


def test_an_address_that_is_none_and_a_command_that_is_empty_are_told_in_one_line() -> None:
    worker = ("worker", "tests.worker.jobs:Quick", "--queues", "q", "--url", "ftp://x")
    for arguments, said in (
        (worker, "`ftp://x` is not a server URL: use http://host:port"),
        (("work", "q", "--exec", " "), "`--exec` has no command"),
    ):
        found = subprocess.run(
            [sys.executable, "-m", "presque", *arguments],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (found.returncode, found.stderr.count("\n")) == (2, 1), found.stderr
        assert said in found.stderr


def test_reports_of_other_workers_are_shown_whatever_they_hold(server: rig.Server, queue_name: str) -> None:
    for number, report in enumerate(
        ('{"jobs": 3, "state": [1], "running": "many"}', '{"jobs": ["a", {"id": 5}]}')
    ):
        answer = server.ask("PUT", "/w/", report, X_presque_workerid=f"{number}-{queue_name}")
        assert answer.status == 200
    lines = shown(server)
    assert any(line.split()[:2] == [f"0-{queue_name}", "[1]"] for line in lines)
    assert any(line.startswith(f"1-{queue_name}") and "-/5" in line for line in lines)
    listed = [f"0-{queue_name}", f"1-{queue_name}"]
    assert [id for id in server.ask("GET", "/w/").json if id in listed] == listed, "though it names no queue"
    for id in listed:
        assert server.ask("DELETE", "/w/", X_presque_workerid=id).status == 204
    assert not any(line.startswith(tuple(listed)) for line in shown(server))


def test_a_worker_that_the_server_refuses_from_the_start_says_so_and_ends(tmp_path: Path) -> None:
    with rig.server("--memory") as server:
        elsewhere = server.url.replace("127.0.0.1", "localhost") + "/no-such-prefix"
        found = subprocess.run(
            [sys.executable, "-m", "presque", "worker", "tests.worker.jobs:Quick", "--queues", "q",
             "--url", elsewhere, "--log-level", "error"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert found.returncode == 5
    assert found.stderr.count("\n") == 1, found.stderr


def test_a_fair_worker_does_not_finish_the_first_queue_first(
    work: Work, client: Client, queue_name: str
) -> None:
    for part in ("a", "b"):
        client.push_many(f"{queue_name}-{part}", [{"sleep": 0.01}] * 20)
    worker = work("Plain", "--queues", f"{queue_name}-*", "--fair", "--prefetch", "0", "--burst")
    assert worker.wait() == 0
    log = [line for line in worker.said().splitlines() if "job.started" in line]
    first_half = [f"queue={queue_name}-a" in line for line in log[:20]]
    assert 8 <= sum(first_half) <= 12


def test_without_fair_the_first_queue_comes_first(work: Work, client: Client, queue_name: str) -> None:
    for part in ("b", "a"):
        client.push_many(f"{queue_name}-{part}", [{}] * 20)
    worker = work("Plain", "--queues", f"{queue_name}-b,{queue_name}-*", "--prefetch", "0", "--burst")
    assert worker.wait() == 0
    log = [line for line in worker.said().splitlines() if "job.started" in line]
    assert all(f"queue={queue_name}-b" in line for line in log[:20])


def test_python_m_presque_worker_is_the_same_command(
    server: rig.Server, client: Client, queue_name: str, tmp_path: Path
) -> None:
    client.push(queue_name, {"n": 5})
    found = subprocess.run(
        [sys.executable, "-m", "presque.worker", "tests.worker.jobs:function", "--queues", queue_name,
         "--burst", "--url", server.url],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "DIARY": str(tmp_path / "diary")},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert '"id": 5' in (tmp_path / "diary").read_text()
