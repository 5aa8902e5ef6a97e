"""Every method of both clients against a server: it asks for what it says and understands the answer."""

from __future__ import annotations

import inspect
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from presque import AsyncClient, Client
from presque.client import Conflict, Gone, NotFound, QueueClosed
from tests import rig
from tests.clients import Connect

OF_TOKENS = {"new_token", "tokens", "revoke_token", "audit", "link"}  # see test_tokens.py
OF_NAMESPACES = {
    "new_namespace", "namespaces", "namespace", "change_namespace", "delete_namespace",
}  # fmt: skip  # see test_namespaces.py
OF_A_TEST_CLOCK = {"clock", "move_clock"}  # see test_clock.py
NO_VERBS = {"close", "perform", "consume", *OF_TOKENS, *OF_NAMESPACES, *OF_A_TEST_CLOCK}
VERBS = {name for name in dir(AsyncClient) if not name.startswith("_")} - NO_VERBS


class Recording:
    """A client that remembers which of its methods were used."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.used: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.used.add(name)
        return getattr(self._client, name)


def test_every_method_does_what_it_says(connect: Connect, server: rig.Server, queue_name: str) -> None:
    with connect(server.url, worker=f"w-{queue_name}") as plain:
        client, q = Recording(plain), queue_name
        push_and_fetch(client, q)
        hold_and_settle(client, q)
        look_after_jobs(client, q)
        look_at_many(client, q)
        steer(client, q)
        repeat(client, q)
        know_workers(client, q)
        assert client.history(q, over="5m")["queue"] == q
        assert client.server()["store"]["memory"]["used"] > 0
        assert client.whoami() == {
            "tokens": False,
            "name": None,
            "namespace": None,
            "expires": None,
            "rules": [],
        }
    assert client.used == VERBS


def push_and_fetch(client: Any, q: str) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert client.push(q, {"n": 1}, priority=9, ttl=60, idempotency_key="a") == "1"
    assert client.push(q, {"n": 1}, priority=9, ttl=60, idempotency_key="a") == "1"
    assert client.push_text(q, b"1.0", delayed=soon) == "2"
    assert client.push_many(q, [None, "x"]) == ["3", "4"]
    assert client.push_texts(q, ["[ ]"]) == ["5"]
    with pytest.raises(Conflict):
        [client.push(q, "only one", uniq="key", delay=60) for _ in range(2)]
    assert client.peek(q) == ['{"n":1}', "null", '"x"', "[ ]"]
    fetched = client.fetch(f"none-{q},{q}", wait=1)
    assert (fetched.queue, fetched.id, fetched.value) == (q, "1", {"n": 1})
    assert client.fetch_many(q, 2) == ["null", '"x"']
    assert client.put_back(q, "x") == "7"
    assert client.info(q) == {"queue_name": q, "job_count": 2, "job_processed": 3, "job_failed": 1}
    client.purge(q)
    assert client.fetch(q) is None


def hold_and_settle(client: Any, q: str) -> None:
    client.push_many(q, ["a", "b", "c", "d"])
    jobs = client.lease(q, 2, seconds=30, attempt_id="one")
    assert [job.value for job in jobs] == ["a", "b"]
    assert [job.lease for job in client.lease(q, 2, attempt_id="one")] == [job.lease for job in jobs]
    first, second = jobs
    assert client.extend(first, 100, progress=0.5)["state"] == "leased"
    assert client.ack(first, {"ok": True})["state"] == "done"
    assert client.fail(second, "no", backtrace="at 1", retry=False)["state"] == "dead"
    [told] = client.settle({"ack": [{"queue": q, "id": first.id, "lease": first.lease}]})
    assert (told["status"], told["state"]) == (200, "done")
    [third] = client.lease(q, wait=1)
    assert client.release(third, delay=0)["state"] == "ready"
    assert client.ack(third)["state"] == "ready"  # it is settled, and stays so
    found = client.settle_and_lease({"release": []}, q, 5)
    assert ([job.value for job in found.jobs], found.settled) == (["c", "d"], [])
    client.settle({"ack": [{"queue": q, "id": job.id, "lease": job.lease} for job in found.jobs]})
    with pytest.raises(Gone):
        client.ack({"queue": q, "id": found.jobs[0].id, "lease": "another"})


def look_after_jobs(client: Any, q: str) -> None:
    [dead] = client.jobs(q, "dead", limit=5)["jobs"]
    assert (dead["body"], dead["errors"][0]["error"]) == ("b", "no")
    assert client.retry(q, dead["id"])["state"] == "ready"
    assert client.change(q, dead["id"], delay=60, body="changed")["state"] == "scheduled"
    assert [one["code"] for one in client.explain(q, dead["id"])] == ["scheduled", "no-worker"]
    assert client.delete(q, dead["id"]) is True
    id = client.push(q, "bad", attempts=1)
    [job] = client.lease(q)
    client.fail(job, "no")
    assert client.job(q, id, wait=1)["state"] == "dead"
    assert client.retry_all(q, limit=10) == 1
    [job] = client.lease(q)
    assert client.delete(q, id) is False
    assert client.extend(job).get("cancel") is True
    client.ack(job)
    with pytest.raises(NotFound):
        client.job(q, "999")


def look_at_many(client: Any, q: str) -> None:
    client.push_many(q, ["ana", "ben"], attempts=1)
    for job in client.lease(q, 5):
        client.fail(job, f"no reply within {len(job.value)} s")
    [found] = client.search(q, state="dead", find="ana", newer=timedelta(hours=1))["jobs"]
    assert found["body"] == "ana"
    [kind] = client.failures(q)["failures"]
    assert (kind["like"], kind["count"]) == ("no reply within # s", 2)
    assert client.dry_run("retry", q, like=kind["like"])["matched"] == 2
    client.push(q, "ana again", attempts=1)
    client.fail(client.lease(q)[0], "no")
    task = client.new_task("retry", q, text="ana", rate=0.001)  # it has done one and waits for the other
    assert client.pause_task(task["id"])["status"] == "paused"
    assert client.resume_task(task["id"])["status"] == "running"
    assert client.task(task["id"])["filter"] == {"text": "ana"}
    assert task["id"] in [one["id"] for one in client.tasks(limit=5)[0]]
    line = b'{"queue":"%b","body":1,"state":"dead"}\n' % q.encode()
    assert [client.import_lines(line, q, 1) for _ in range(2)] == [1, 0]
    client.cancel_task(task["id"])
    rig.eventually(lambda: client.task(task["id"])["ended_at"])
    client.purge(q)


def steer(client: Any, q: str) -> None:
    client.push(q, 1)
    client.stop(q)
    assert client.started(q) is False
    with pytest.raises(QueueClosed):
        client.fetch(q)
    client.start(q)
    assert client.started(q) is True
    assert client.size(q) == 1
    assert q in client.queues()
    assert client.stats(q)["ready"] == 1
    assert client.all_stats()["by_queue"][q]["ready"] == 1
    assert client.change_policy(q, lease=30, max_attempts=None)["lease"] == 30
    assert client.policy(q)["lease"] == 30
    client.purge(q, forget=True)
    assert q not in client.queues()


def test_all_recurring_jobs_come_though_they_fill_several_pages(
    connect: Connect, server: rig.Server, queue_name: str
) -> None:
    names = [f"{queue_name}-{number}" for number in range(6)]
    with connect(server.url) as client:
        try:
            for name in names:
                client.put_cron(name, queue_name, "x" * 1_000_000, "@yearly")
            assert [one["name"] for one in client.crons() if one["name"] in names] == names
        finally:
            for name in names:
                client.delete_cron(name)


def repeat(client: Any, q: str) -> None:
    put = client.put_cron(q, q, {"n": 1}, "@every 1h", timezone="UTC")
    assert put["next"] == client.cron(q)["next"]
    assert q in [one["name"] for one in client.crons()]
    assert client.job(q, client.run_cron(q))["body"] == {"n": 1}
    assert client.pause_cron(q)["paused"]
    assert client.resume_cron(q)["paused"] is False
    client.delete_cron(q)
    with pytest.raises(NotFound):
        client.cron(q)


def know_workers(client: Any, q: str) -> None:
    me = f"w-{q}"
    client.register(q)
    assert me in client.workers()
    assert client.worker_info(me)["worker_id"] == me
    assert client.queue_workers(q)["workers_list"] == [me]
    assert [one["queues"] for one in client.worker_records() if one["worker_id"] == me] == [[q]]
    with pytest.raises(NotFound, match="no worker that reports"):
        client.tell_worker(me, "quiet")
    client.unregister(q)
    assert me not in client.workers()


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def signatures(kind: type) -> dict[str, str]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: str(inspect.signature(method)).split(" -> ")[0]
            for name, method in methods
            if not name.startswith("_") and name != "consume"
        }

    assert signatures(Client) == signatures(AsyncClient)


def test_one_odd_job_spoils_no_page(connect: Connect, server: rig.Server, queue_name: str) -> None:
    """JSON allows integers and depths that Python does not read by itself."""
    client, q, number = connect(server.url), queue_name, 10**5000 + 1
    deep = "[" * 200 + "]" * 200
    ids = [client.push(q, number, delay=60), client.push_text(q, deep, delay=60), client.push(q, 1, delay=60)]
    found = {job["id"]: job["body"] for job in client.jobs(q, "scheduled")["jobs"]}
    assert (found[ids[0]], found[ids[2]]) == (number, 1)
    assert client.job(q, ids[0])["body"] == number
    for id in ids:
        client.change(q, id, delay=0)
    jobs = client.lease(q, 3)
    assert [jobs[0].value, jobs[2].value] == [number, 1]
    assert jobs[1].value == client.job(q, ids[1])["body"]
    for job in jobs:
        client.release(job)
    values = [client.fetch(q).value for _ in ids]
    assert number in values
    assert client.put_back(q, number)
    assert client.peek(q) == [f"1{'0' * 4999}1"]


def recurse(depth: int, call: Any) -> Any:
    return call() if depth == 0 else recurse(depth - 1, call)


def test_a_job_is_read_however_deep_in_its_stack_the_caller_is(server: rig.Server, queue_name: str) -> None:
    with Client(server.url) as client:
        client.push_text(queue_name, "[" * 300 + "]" * 300)
        room = sys.getrecursionlimit() - len(inspect.stack()) - 150
        job = recurse(room, lambda: client.lease(queue_name)[0])
    assert isinstance(job.value, list)
