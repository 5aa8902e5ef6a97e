"""What holds for every way to run jobs: inline, in threads, as tasks, in forks."""

from __future__ import annotations

import functools
import signal
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from presque import Client, Worker
from tests import rig
from tests.worker.conftest import MODES, Process, Work, alive, counts, settled

every_mode = pytest.mark.parametrize("mode", MODES)
LEASE_S = 5
"""Renewed after a third of it: short enough to wait for, and long enough for a machine that stands still."""


@every_mode
def test_every_job_is_done_once(work: Work, client: Client, queue_name: str, mode: str) -> None:
    client.push_many(queue_name, [{"n": n} for n in range(60)])
    worker = work(*MODES[mode], "--burst")
    assert worker.wait() == 0
    assert sorted(int(one["id"]) for one in worker.notes("ended")) == list(range(1, 61))
    assert counts(client, queue_name) == {
        "ready": 0, "scheduled": 0, "leased": 0, "dead": 0, "processed": 60, "failed": 0,
    }  # fmt: skip


@every_mode
def test_jobs_that_come_one_by_one_are_done_once_each(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    """A worker that waits gets each job by two ways at once, as it asks and as the job comes."""
    worker = work(*MODES[mode])
    worker.says("worker.started")
    for number in range(1, 151):
        client.push(queue_name, {"n": number})
        worker.noted("ended", number)
    rig.eventually(lambda: settled(client, queue_name))
    assert [int(one["id"]) for one in worker.notes("began")] == list(range(1, 151))
    assert counts(client, queue_name)["processed"] == 150


@every_mode
def test_a_lease_is_renewed_as_long_as_work_runs(
    work: Work, client: Client, queue_name: str, mode: str, tmp_path: Path
) -> None:
    client.change_policy(queue_name, lease=LEASE_S, keep=60)
    client.push(queue_name, {"until": str(tmp_path / "over"), "return": {"n": 1}})
    worker = work(*MODES[mode], "--burst")
    worker.noted("began")
    first = client.job(queue_name, "1")["lease_until"] or ""
    rig.eventually(lambda: (client.job(queue_name, "1")["lease_until"] or "") > first)
    (tmp_path / "over").touch()
    assert worker.wait() == 0
    assert [one["attempt"] for one in worker.notes("began")] == [1]
    job = client.job(queue_name, "1")
    assert (job["state"], job["attempt"], job["result"]) == ("done", 1, {"n": 1})


@every_mode
def test_a_job_that_raises_has_failed_with_its_traceback_and_fail_is_told(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, max_attempts=2, backoff={"first": 0.1, "jitter": 0})
    client.push(queue_name, {"raise": "no such thing"})
    worker = work(*MODES[mode])
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert (job["state"], job["attempt"]) == ("dead", 2)
    [first, _] = job["errors"]
    assert first["error"] == "ValueError: no such thing"
    assert first["backtrace"] is not None
    assert first["backtrace"].startswith("Traceback")
    assert "presque/worker" not in first["backtrace"]
    assert first["worker"] is not None
    assert [one["error"] for one in worker.noted("failed", 2)] == ["no such thing"] * 2
    assert "job.failed" in worker.said()


@every_mode
def test_a_deleted_job_hears_of_it(work: Work, client: Client, queue_name: str, mode: str) -> None:
    client.change_policy(queue_name, lease=LEASE_S)
    client.push(queue_name, {"until_cancelled": 1})
    worker = work(*MODES[mode])
    worker.noted("began")
    assert client.delete(queue_name, "1") is False
    raised = {"async": "left", "fork": "cancelled"}.get(mode)
    if raised is None:
        assert worker.noted("ended")[0]["cancelled"] is True
    else:
        worker.noted(raised)
        assert worker.notes("ended") == []
    rig.eventually(lambda: settled(client, queue_name))
    assert worker.notes("failed") == []


@every_mode
def test_a_lost_lease_is_told_to_the_job(work: Work, client: Client, queue_name: str, mode: str) -> None:
    client.change_policy(queue_name, lease=LEASE_S)
    client.push(queue_name, {"until_cancelled": 1})
    worker = work(*MODES[mode])
    worker.noted("began")
    client.purge(queue_name)
    worker.noted({"async": "left", "fork": "cancelled"}.get(mode, "ended"))
    assert "lease.lost" in worker.said()


@every_mode
def test_quit_finishes_what_runs_and_gives_back_the_rest(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.push_many(queue_name, [{"sleep": 1}] * 100)
    worker = work(*MODES[mode], "--concurrency", "2") if mode in ("async", "fork") else work(*MODES[mode])
    worker.noted("began")
    worker.signal(signal.SIGQUIT)
    assert worker.wait() == 0
    found = counts(client, queue_name)
    assert found["leased"] == found["failed"] == 0
    assert found["processed"] == len(worker.notes("ended")) == len(worker.notes("began"))
    assert found["ready"] == 100 - found["processed"] > 0


@every_mode
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_term_and_int_give_the_job_back_at_once(
    work: Work, client: Client, queue_name: str, mode: str, number: int
) -> None:
    client.push(queue_name, {"sleep": 600})
    worker = work(*MODES[mode], "--grace", "1" if mode == "threads" else "600")
    [began] = worker.noted("began")
    worker.signal(number)
    assert worker.wait() == (1 if mode == "threads" else 0), "nothing stops a thread that sleeps"
    assert worker.notes("ended") == worker.notes("failed") == []
    [job] = client.lease(queue_name)
    assert job.attempt == 1, "giving back is no failure, and the attempt does not count"
    if mode == "fork":
        rig.eventually(lambda: not alive(began["pid"]))


@pytest.mark.parametrize("mode", ["inline", "async", "fork"])
def test_usr1_kills_the_job_and_not_the_worker(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, {"sleep": 600})
    worker = work(*MODES[mode])
    worker.noted("began")
    worker.signal(signal.SIGUSR1)
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert (job["state"], job["errors"][0]["error"]) == ("dead", "killed by an operator")
    client.push(queue_name, {})
    worker.noted("ended")
    assert worker.noted("failed")[0]["error"] == "killed by an operator"


@every_mode
def test_usr2_takes_no_further_jobs_until_cont(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    worker = work(*MODES[mode])
    client.push(queue_name, {})
    worker.noted("ended")
    worker.signal(signal.SIGUSR2)
    worker.says("worker.asked what=quiet")
    client.push(queue_name, {})
    with pytest.raises(AssertionError):
        worker.noted("ended", 2, within=0.5)
    assert counts(client, queue_name)["ready"] == 1
    worker.signal(signal.SIGCONT)
    worker.noted("ended", 2)


@pytest.mark.parametrize("mode", ["inline", "async", "fork"])
def test_a_job_that_takes_too_long_has_failed(work: Work, client: Client, queue_name: str, mode: str) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, {"sleep": 600})
    work(*MODES[mode], "--timeout", "500ms")
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert job["state"] == "dead"
    assert job["errors"][0]["error"] == "took longer than its time limit of 0.5 s"


@every_mode
def test_after_so_many_jobs_it_ends(work: Work, client: Client, queue_name: str, mode: str) -> None:
    client.push_many(queue_name, [{}] * 20)
    worker = work(*MODES[mode], "--max-jobs", "5")
    assert worker.wait() == 0
    assert counts(client, queue_name)["processed"] == 5
    assert counts(client, queue_name)["ready"] == 15


@pytest.mark.parametrize("mode", ["inline", "fork"])
def test_progress_and_a_longer_lease_are_told_to_the_server(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.push(queue_name, {"progress": {"done": 7}})
    work(*MODES[mode])
    job = rig.eventually(
        lambda: job if (job := client.job(queue_name, "1")).get("progress") is not None else None
    )
    assert job["progress"] == {"done": 7}
    assert job["state"] == "leased"


def test_a_second_int_ends_at_once(work: Work, client: Client, queue_name: str) -> None:
    client.push(queue_name, {"deaf": 1})
    worker = work("Async", "--grace", "600")
    worker.noted("began")
    worker.signal(signal.SIGINT)
    worker.says("worker.asked what=stop")
    assert worker.process.poll() is None
    worker.signal(signal.SIGINT)
    assert worker.wait() == 130


def test_a_worker_ends_under_jobs_that_will_not_stop_and_gives_them_back(
    work: Work, client: Client, queue_name: str, tmp_path: Path
) -> None:
    workers = []
    for number, mode in enumerate(("inline", "async"), 1):
        client.push(queue_name, {"deaf": 1})
        kind, *flags = MODES[mode]
        workers.append(work(kind, *flags, "--concurrency", "1", PIDFILE=str(tmp_path / mode)))
        workers[-1].noted("began", number)
    for worker in workers:
        worker.signal(signal.SIGTERM)
    for worker in workers:
        assert worker.wait() == 1
        assert "worker.left_running count=1" in worker.said()
    assert not any((tmp_path / mode).exists() for mode in ("inline", "async")), "the pid files"
    assert [job.attempt for job in client.lease(queue_name, count=2)] == [1, 1]


def test_quiet_and_resume_in_the_same_moment_leave_a_worker_at_work(
    server: rig.Server, client: Client, queue_name: str
) -> None:
    seen: list[Any] = []

    class Seeing(Worker):
        def work(self, job: Any) -> None:
            seen.append(job)

    worker = Seeing(server.url, queue=queue_name)
    thread = threading.Thread(target=worker.start)
    thread.start()
    client.push(queue_name, 1)
    rig.eventually(lambda: seen == [1] and settled(client, queue_name))
    crew = worker._crew
    assert crew is not None
    for number in range(2, 6):
        rig.eventually(lambda: crew.runners[0].leasing.waits)
        crew.ask("quiet")
        crew.ask("resume")
        client.push(queue_name, number)
        rig.eventually(functools.partial(seen.__contains__, number))
    worker.stop()
    thread.join(rig.PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("mode", ["inline", "fork"])
def test_a_job_is_held_for_as_long_as_it_asked_however_often_its_lease_is_renewed(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, lease=LEASE_S)
    client.push(queue_name, {"extend": 600, "sleep": 600})
    worker = work(*MODES[mode])
    worker.noted("began")
    began = time.time()

    def left() -> float:
        until = datetime.fromisoformat(client.job(queue_name, "1")["lease_until"] or "")
        return until.timestamp() - time.time()

    rig.eventually(lambda: left() > 500)
    rig.eventually(lambda: time.time() - began > LEASE_S)  # several renewals later
    assert left() > 500


def test_a_job_that_asks_for_less_than_a_lease_is_still_held(
    work: Work, client: Client, queue_name: str
) -> None:
    client.change_policy(queue_name, lease=6)
    client.push(queue_name, {"extend": 1, "sleep": 3})
    worker = work("Plain", "--burst")
    assert worker.wait() == 0
    assert counts(client, queue_name) == {
        "ready": 0, "scheduled": 0, "leased": 0, "dead": 0, "processed": 1, "failed": 0,
    }  # fmt: skip


def test_an_async_work_runs_in_forks_too(work: Work, client: Client, queue_name: str) -> None:
    client.change_policy(queue_name, lease=LEASE_S, keep=60, max_attempts=1)
    for job in ({"return": 7}, {"raise": "no"}, {"sleep": 600}, {"until_cancelled": 1}):
        client.push(queue_name, job)
    worker = work("Async", "--fork", "--concurrency", "4", "--timeout", "8")
    worker.noted("began", 4)
    client.delete(queue_name, "4")
    late = client.job(queue_name, "3", wait=rig.PATIENCE)
    assert late["errors"][0]["error"] == "took longer than its time limit of 8 s"
    assert client.job(queue_name, "1")["result"] == 7
    assert client.job(queue_name, "2")["errors"][0]["error"] == "ValueError: no"
    rig.eventually(lambda: settled(client, queue_name))
    assert sorted(one["id"] for one in worker.notes("left")) == ["2", "3", "4"]
    assert sorted(one["id"] for one in worker.notes("failed")) == ["2", "3"]


def test_a_worker_that_waits_is_not_busy(work: Work, client: Client, queue_name: str) -> None:
    workers = []
    for number, mode in enumerate(MODES.values(), 1):
        queue = f"{queue_name}-{number}"
        workers.append(work(*mode, "--queues", queue))
        client.push(queue, {})
        workers[-1].noted("ended", number)
        rig.eventually(functools.partial(settled, client, queue))
    before = [wakes(worker) for worker in workers]
    time.sleep(2)
    often = [wakes(worker) - count for worker, count in zip(workers, before, strict=True)]
    assert max(often) < 40, "it hears of jobs, and does not look for them"


def wakes(worker: Process) -> int:
    """How often its threads have waited for something so far, which is how often they have woken up."""
    texts = [status.read_text() for status in Path(f"/proc/{worker.pid}/task").glob("*/status")]
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in texts)


def test_signals_are_heard_whichever_thread_they_reach(work: Work) -> None:
    for _ in range(5):
        worker = work("Plain", "--concurrency", "4")
        worker.says("worker.started")
        worker.signal(signal.SIGINT)
        worker.signal(signal.SIGCONT)
        assert worker.wait() == 0
