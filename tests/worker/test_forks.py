"""Jobs in forked children: whatever they do, the worker goes on, and the failure says what happened."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from tests import rig
from tests.worker.conftest import Process, Work, alive, counts, settled

FORKS = int(os.environ.get("TEST_FORKS", "600"))


@pytest.mark.parametrize(
    ("job", "error"),
    [
        ({"signal": signal.SIGSEGV}, "its process was killed by signal 11 (SIGSEGV)"),
        ({"signal": signal.SIGKILL}, "killed by signal 9 (SIGKILL); perhaps the system was out of memory"),
        ({"exit": 0}, "its process ended with exit status 0 before the job was done"),
        ({"exit": 3}, "its process ended with exit status 3 before the job was done"),
        ({"spin": 1}, "took longer than its time limit of 5 s"),
        ({"stubborn": 1}, "took longer than its time limit of 5 s"),
        ({"bytes": 10**10}, "over its memory limit of 300 MiB (MemoryError)"),
        ({"dead": "no such user"}, "no such user"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_job_that_ends_badly_has_failed_and_says_why(
    work: Work, client: Client, queue_name: str, job: dict[str, Any], error: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    limit = "5" if "limit of 5 s" in error else "1h"
    worker = work("Plain", "--fork", "--timeout", limit, "--max-memory", "300M")
    client.push(queue_name, job)
    client.push(queue_name, {"after": "it"})
    found = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert found["state"] == "dead"
    assert error in found["errors"][0]["error"]
    worker.noted("ended")
    rig.eventually(lambda: counts(client, queue_name)["processed"] == 1)
    told = worker.noted("failed")[0]["error"]
    assert error in told or "bytes" in job, "`fail` gets the MemoryError itself, which says nothing"


def test_a_job_may_close_its_files_and_say_megabytes(work: Work, client: Client, queue_name: str) -> None:
    client.push_many(queue_name, [{"close": 1}, {"say": 5_000_000}])
    worker = work("Plain", "--fork", "--burst")
    assert worker.wait() == 0
    assert counts(client, queue_name)["processed"] == 2
    assert len(worker.said()) > 5_000_000


@pytest.mark.parametrize("more", [{}, {"reopen": 1}], ids=["closed", "opened anew"])
def test_a_job_that_closed_its_files_is_done_or_has_failed_as_it_did(
    work: Work, client: Client, queue_name: str, more: dict[str, Any]
) -> None:
    client.change_policy(queue_name, max_attempts=1, keep=60)
    client.push_many(queue_name, [{"close": 1, **more}, {"close": 1, "raise": "no", **more}])
    worker = work("Plain", "--fork", "--burst")
    assert worker.wait() == 0
    assert client.job(queue_name, "1")["state"] == "done"
    failed = client.job(queue_name, "2")
    assert failed["state"] == "dead"
    assert failed["errors"][0]["error"].startswith("the job failed and could not say why")


def test_what_a_job_started_goes_with_it(work: Work, client: Client, queue_name: str) -> None:
    client.push(queue_name, {"grandchild": 1})
    worker = work("Plain", "--fork", "--burst")
    assert worker.wait() == 0
    rig.eventually(lambda: not processes_of_group({one["pid"] for one in worker.notes("began")}))


def processes_of_group(groups: set[int]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            try:
                group = int((entry / "stat").read_text().rpartition(")")[2].split()[2])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if group in groups:
                found.append(int(entry.name))
    return found


def test_the_hooks_are_called_each_in_its_process(work: Work, client: Client, queue_name: str) -> None:
    client.push(queue_name, {})
    worker = work("Hooked", "--fork", "--burst")
    assert worker.wait() == 0
    where = {one["what"]: one["pid"] for one in worker.notes()}
    assert where["before_fork"] == worker.pid
    assert where["after_fork"] == where["began"] != worker.pid


def test_the_child_dies_with_its_worker_and_the_job_comes_again_within_its_lease(
    work: Work, client: Client, queue_name: str
) -> None:
    client.change_policy(queue_name, lease=5)
    client.push(queue_name, {"sleep": 600})
    first = work("Plain", "--fork")
    [began] = first.noted("began")
    first.signal(signal.SIGKILL)
    killed = time.time()
    rig.eventually(lambda: not alive(began["pid"]))
    second = work("Plain", "--fork")
    again = second.noted("began", 2)[1]
    assert again["at"] - killed < rig.PATIENCE, "it would have slept for longer"
    assert again["attempt"] == 2


def test_thousands_of_forks_leave_no_zombies_no_files_and_no_memory(
    work: Work, client: Client, queue_name: str
) -> None:
    worker = work("Quick", "--fork", "--concurrency", "2", "--log-level", "warning")
    samples = []
    for _ in range(3):
        before = counts(client, queue_name)["processed"]
        for _ in range(FORKS // 300):
            client.push_many(queue_name, [{}] * 100)
        reach(client, queue_name, before + FORKS // 300 * 100)
        rig.eventually(lambda: not children(worker))
        samples.append((files(worker), rss_kb(worker)))
    assert samples[-1][0] <= samples[0][0] + 2
    assert samples[-1][1] - samples[0][1] < 2048, samples


def reach(client: Client, queue: str, processed: int) -> None:
    rig.eventually(lambda: counts(client, queue)["processed"] >= processed, within=60 + FORKS / 50)


def files(worker: Process) -> int:
    return len(list(Path(f"/proc/{worker.pid}/fd").iterdir()))


def rss_kb(worker: Process) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{worker.pid}/status").read_text())
    assert found is not None
    return int(found[1])


def children(worker: Process) -> list[str]:
    return Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()


@pytest.mark.timeout(240)
def test_a_job_that_kills_its_process_is_dead_after_its_attempts_while_others_go_on(
    work: Work, client: Client, queue_name: str
) -> None:
    client.change_policy(queue_name, max_attempts=3, backoff={"first": 0.05, "factor": 1, "jitter": 0})
    work("Plain", "--fork", "--concurrency", "2", "--log-level", "error")

    def rate(poison: int) -> float:
        before = counts(client, queue_name)["processed"]
        client.push_many(queue_name, [{}] * 200)
        for _ in range(poison):
            client.push(queue_name, {"signal": 9}, priority=9)
        began = time.monotonic()
        rig.eventually(lambda: counts(client, queue_name)["processed"] >= before + 200, within=100)
        return 200 / (time.monotonic() - began)

    rate(0)
    ratios: list[float] = []
    while not ratios or (ratios[-1] < 0.5 and len(ratios) < 10):  # on an idle machine it is 1.0
        ratios.append(rate(2) / rate(0))
    rig.eventually(lambda: settled(client, queue_name))
    assert [job["attempt"] for job in client.jobs(queue_name, "dead")["jobs"]] == [3] * 2 * len(ratios)
    assert ratios[-1] >= 0.5, ratios


def test_ps_shows_what_a_worker_and_its_child_do(work: Work, client: Client, queue_name: str) -> None:
    def titles(pid: int) -> str:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()

    worker = work("Plain", "--fork")
    rig.eventually(lambda: titles(worker.pid) == f"presque worker: waits for {queue_name}")
    client.push(queue_name, {"sleep": 600})
    [began] = worker.noted("began")
    assert titles(began["pid"]) == f"presque worker: works on {queue_name}/1"
    rig.eventually(lambda: titles(worker.pid).startswith("presque worker: works on"))


def test_a_job_reaches_a_program_as_it_was_pushed(
    server: rig.Server, client: Client, queue_name: str, program: Any, tmp_path: Path
) -> None:
    text = '{ "n": 1.00,  "big": ' + "9" * 5000 + ', "s": "\\u00e9é" }'
    client.push_text(queue_name, text)
    out = tmp_path / "out"
    worker = program(
        f"cat > {out}; echo $PRESQUE_JOB_QUEUE $PRESQUE_JOB_ID $PRESQUE_JOB_ATTEMPT >> {out}", "--burst"
    )
    assert worker.wait() == 0
    assert out.read_text() == f"{text}{queue_name} 1 1\n"


@pytest.mark.parametrize(
    ("command", "state", "error"),
    [
        ("exit 0", "done", None),
        ("echo 'disk full' >&2; exit 75", "scheduled", "exit status 75: disk full"),
        ("exit 65", "dead", "exit status 65"),
        ("exit 1", "scheduled", "exit status 1"),
        ("exit 117", "scheduled", "exit status 117"),
        ("kill -9 $$", "scheduled", "its process was killed by signal 9 (SIGKILL)"),
        ("no-such-program", "scheduled", "exit status 127: /bin/sh: 1: no-such-program: not found"),
    ],
)
def test_the_exit_status_says_how_a_job_went(
    client: Client, queue_name: str, program: Any, command: str, state: str, error: str | None
) -> None:
    client.push(queue_name, {}, keep=60)
    worker = program(command, "--burst")
    assert worker.wait() == 0
    job = client.job(queue_name, "1")
    assert job["state"] == state
    if error is not None:
        assert job["errors"][0]["error"].startswith(error)


def test_a_program_is_ended_by_the_signals_that_python_ignores(
    client: Client, queue_name: str, program: Any, tmp_path: Path
) -> None:
    client.push(queue_name, {})
    worker = program(f"grep SigIgn /proc/self/status > {tmp_path}/ignored", "--burst")
    assert worker.wait() == 0
    assert int((tmp_path / "ignored").read_text().split()[1], 16) == 0


def test_a_program_that_takes_too_long_has_failed_with_all_that_it_started(
    client: Client, queue_name: str, program: Any, tmp_path: Path
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, {})
    program(f"echo $$ > {tmp_path}/group; sleep 600 & sleep 600", "--timeout", "3")
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert job["errors"][0]["error"] == "took longer than its time limit of 3 s"
    group = int((tmp_path / "group").read_text())
    rig.eventually(lambda: not processes_of_group({group}))


def test_a_program_is_given_back_when_its_worker_is_told_to_end_and_stopped_when_its_job_is_deleted(
    client: Client, queue_name: str, program: Any
) -> None:
    client.change_policy(queue_name, lease=5)
    client.push(queue_name, {})
    worker = program("sleep 60")
    worker.says("job.started")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    worker = program("sleep 60")
    worker.says("job.started")
    assert client.job(queue_name, "1")["attempt"] == 1, "what was given back does not count"
    assert client.delete(queue_name, "1") is False
    rig.eventually(lambda: settled(client, queue_name))
    worker.says("job.given_back")


def test_the_diary_is_what_it_says(work: Work, client: Client, queue_name: str) -> None:
    """The tests above read lines that other processes wrote: they come whole."""
    client.push_many(queue_name, [{}] * 50)
    worker = work("Plain", "--fork", "--concurrency", "8", "--burst")
    assert worker.wait() == 0
    assert len([json.loads(line) for line in worker.diary.read_text().splitlines()]) == 100


def test_a_job_held_ahead_goes_back_when_the_forked_one_before_it_takes_long(
    work: Work, client: Client, queue_name: str
) -> None:
    worker = work("Plain", "--fork")
    client.push_many(queue_name, [{}] * 6 + [{"sleep": 600}, {}])
    worker.noted("began", 7)
    rig.eventually(lambda: counts(client, queue_name)["leased"] == 1)
    assert counts(client, queue_name)["ready"] == 1
    another = work("Plain", "--fork")
    another.noted("ended", 7)
    assert another.notes("ended")[-1]["id"] == "8"
