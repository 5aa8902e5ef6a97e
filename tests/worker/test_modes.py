"""What holds for every way to run jobs: inline, in threads, as tasks, in forks."""

from __future__ import annotations

import signal
import time

import pytest

from presque import Client
from tests import rig
from tests.worker.conftest import MODES, Work, alive, counts, settled

every_mode = pytest.mark.parametrize("mode", MODES)


@every_mode
def test_every_job_is_done_once(work: Work, client: Client, queue_name: str, mode: str) -> None:
    client.push_many(queue_name, [{"n": n} for n in range(60)])
    worker = work(*MODES[mode], "--burst")
    assert worker.wait(20) == 0
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
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, lease=1, keep=60)
    client.push(queue_name, {"sleep": 2.5, "return": {"n": 1}})
    worker = work(*MODES[mode], "--burst")
    assert worker.wait(20) == 0
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
    job = client.job(queue_name, "1", wait=20)
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
    client.change_policy(queue_name, lease=1)
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
    client.change_policy(queue_name, lease=1)
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
    client.push_many(queue_name, [{"sleep": 1}] * 30)
    worker = work(*MODES[mode], "--concurrency", "2") if mode in ("async", "fork") else work(*MODES[mode])
    worker.noted("began")
    worker.signal(signal.SIGQUIT)
    assert worker.wait() == 0
    found = counts(client, queue_name)
    assert found["leased"] == found["failed"] == 0
    assert found["processed"] == len(worker.notes("ended")) == len(worker.notes("began"))
    assert found["ready"] == 30 - found["processed"] > 0


@every_mode
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_term_and_int_give_the_job_back_at_once(
    work: Work, client: Client, queue_name: str, mode: str, number: int
) -> None:
    client.push(queue_name, {"sleep": 30})
    worker = work(*MODES[mode])
    [began] = worker.noted("began")
    asked = time.monotonic()
    worker.signal(number)
    assert worker.wait() == 0
    assert time.monotonic() - asked < 5
    assert worker.notes("ended") == worker.notes("failed") == []
    [job] = client.lease(queue_name)
    assert job.attempt == 1, "giving back is no failure, and the attempt does not count"
    if mode == "fork":
        assert not alive(began["pid"])


@pytest.mark.parametrize("mode", ["inline", "async", "fork"])
def test_usr1_kills_the_job_and_not_the_worker(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, {"sleep": 30})
    worker = work(*MODES[mode])
    worker.noted("began")
    worker.signal(signal.SIGUSR1)
    job = client.job(queue_name, "1", wait=10)
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
    client.push(queue_name, {"sleep": 30})
    work(*MODES[mode], "--timeout", "500ms")
    job = client.job(queue_name, "1", wait=10)
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
    worker = work("Async")
    worker.noted("began")
    worker.signal(signal.SIGINT)
    worker.says("worker.asked what=stop")
    assert worker.process.poll() is None
    worker.signal(signal.SIGINT)
    assert worker.wait(2) == 130


def test_signals_are_heard_whichever_thread_they_reach(work: Work) -> None:
    for _ in range(5):
        worker = work("Plain", "--concurrency", "4")
        worker.says("worker.started")
        worker.signal(signal.SIGINT)
        worker.signal(signal.SIGCONT)
        assert worker.wait(5) == 0
