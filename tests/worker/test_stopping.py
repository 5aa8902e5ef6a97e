"""Workers that are told to stop: every job has its grace, and none runs on that somebody else does again."""

from __future__ import annotations

import functools
import signal

import pytest

from presque import Client
from tests import rig
from tests.worker.conftest import Process, Work, alive, counts

CLEANS = {
    "inline": ("Wild",),
    "threads": ("Wild", "--concurrency", "2"),
    "async": ("CleansUpAsync", "--concurrency", "2"),
    "fork": ("Wild", "--fork", "--concurrency", "2"),
    "fork and async": ("CleansUpAsync", "--fork", "--concurrency", "2"),
}
DEAF = {**CLEANS, "async": ("DeafAsync", "--concurrency", "2"), "fork and async": ("DeafAsync", "--fork")}
SWALLOWS = {
    "inline": ("Wild",),
    "async": ("SwallowsAsync",),
    "fork": ("Wild", "--fork"),
    "fork and async": ("SwallowsAsync", "--fork"),
}


@pytest.mark.parametrize("mode", CLEANS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_job_may_clean_up_within_the_grace(
    work: Work, client: Client, queue_name: str, mode: str, number: int
) -> None:
    client.push(queue_name, {"do": "cleans_up", "clean": 1})
    worker = work(*CLEANS[mode], "--grace", "60", module="wild")
    worker.noted("working")
    worker.signal(number)
    assert worker.wait() == 0
    assert len(worker.notes("cleaned")) == 1
    job = client.job(queue_name, "1")
    assert (job["state"], job["attempt"]) == ("ready", 0), "given back"


@pytest.mark.parametrize("mode", DEAF)
def test_a_job_that_will_not_stop_runs_no_more_when_somebody_else_gets_it(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, lease=600)
    client.push(queue_name, "deaf")
    first = work(*DEAF[mode], "--grace", "1", module="wild")
    [working] = first.noted("working")
    second = work("Plain")  # says which attempt it is
    first.signal(signal.SIGTERM)
    rig.eventually(lambda: [one for one in second.notes("began") if "attempt" in one])
    began = next(one for one in second.notes("began") if "attempt" in one)
    assert began["attempt"] == 1, "the attempt does not count"
    assert first.wait() == (0 if "fork" in mode else 1)
    beats = [one["at"] for one in first.notes("beat") if one["pid"] == working["pid"]]
    assert max(beats) < began["at"]
    rig.eventually(lambda: not alive(working["pid"]))


@pytest.mark.parametrize("mode", DEAF)
def test_a_second_term_ends_a_worker_at_once(work: Work, client: Client, queue_name: str, mode: str) -> None:
    client.push(queue_name, "deaf")
    worker = work(*DEAF[mode], "--grace", "60", module="wild")
    [working] = worker.noted("working")
    worker.signal(signal.SIGTERM)
    worker.says("worker.asked what=stop")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 128 + signal.SIGTERM
    rig.eventually(lambda: not alive(working["pid"]))


@pytest.mark.parametrize("mode", CLEANS)
def test_term_may_mean_to_finish(work: Work, client: Client, queue_name: str, mode: str) -> None:
    kind = "Async" if "async" in mode else "Plain"
    client.push(queue_name, {"sleep": 2})
    worker = work(kind, *CLEANS[mode][1:], "--term", "finish")
    worker.noted("began")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert counts(client, queue_name)["processed"] == 1
    assert "worker.asked what=finish" in worker.said()


def test_term_after_term_stops_when_term_means_to_finish(work: Work, client: Client, queue_name: str) -> None:
    client.push(queue_name, {"sleep": 600})
    worker = work("Plain", PRESQUE_WORKER_TERM="finish")
    worker.noted("began")
    worker.signal(signal.SIGTERM)
    worker.says("what=finish")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert client.job(queue_name, "1")["state"] == "ready"


@pytest.mark.parametrize("mode", SWALLOWS)
def test_a_job_that_swallows_its_time_limit_has_failed(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, "swallows")
    work(*SWALLOWS[mode], "--timeout", "0.5", module="wild")
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert (job["state"], job["result"]) == ("dead", None)
    assert job["errors"][0]["error"] == "took longer than its time limit of 0.5 s"


def test_a_hang_up_is_ignored_where_it_was_ignored_before(
    work: Work, client: Client, queue_name: str
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; a child inherits it
    try:
        worker = work("Plain")
    finally:
        signal.signal(signal.SIGHUP, before)
    worker.says("worker.started")
    worker.signal(signal.SIGHUP)
    client.push(queue_name, {})
    worker.noted("ended")


def ids(client: Client, worker: Process) -> list[str]:
    return [
        one["worker_id"] for one in client.worker_records() if (one["report"] or {}).get("pid") == worker.pid
    ]


def is_there(client: Client, worker: Process, name: str) -> bool:
    return ids(client, worker) == [name]


def test_what_was_asked_of_a_dead_namesake_is_forgotten(work: Work, client: Client, queue_name: str) -> None:
    name = f"me-{queue_name}"
    for order in ("quiet", "stop"):
        first = work("Plain", "--worker-id", name)
        rig.eventually(functools.partial(is_there, client, first, name))
        first.signal(signal.SIGKILL)
        first.wait()
        client.tell_worker(name, order)
        second = work("Plain", "--worker-id", name)
        rig.eventually(functools.partial(is_there, client, second, name))
        count = len(second.notes("ended"))
        client.push(queue_name, {})
        second.noted("ended", count + 1)
        second.signal(signal.SIGTERM)
        assert second.wait() == 0


def test_workers_on_one_host_have_different_ids(work: Work, client: Client) -> None:
    first, second = work("Plain"), work("Plain")
    rig.eventually(lambda: ids(client, first) and ids(client, second))
    [one], [other] = ids(client, first), ids(client, second)
    assert one.rpartition(":")[2] != other.rpartition(":")[2]
    assert str(first.pid) in one
