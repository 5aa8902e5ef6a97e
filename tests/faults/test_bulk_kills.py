"""Bulk tasks while the servers that work on them are killed."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator

import pytest

from presque import Client
from tests import rig

JOBS = 2000
RATE = 1000
KILLS = int(os.environ.get("TEST_KILLS", "1"))


@pytest.fixture(scope="module")
def store() -> Iterator[rig.Store]:
    with rig.store("valkey") as found:
        yield found


def done(server: rig.Server, task: str) -> int:
    """To how many jobs it was done, as this server says."""
    with Client(server.url) as client:
        return client.task(task)["done"]


def found_in(client: Client, queue: str, state: str) -> Counter[int]:
    """The jobs of a queue in one state."""
    found: Counter[int] = Counter()
    cursor = None
    while True:
        page = client.search(queue, state=state, limit=500, cursor=cursor)  # type: ignore[arg-type]
        found.update(one["body"] for one in page["jobs"])
        cursor = page["cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize("act", ["move", "retry"])
def test_a_task_goes_on_on_another_server_when_one_is_killed(
    store: rig.Store, queue_name: str, act: str
) -> None:
    """Whoever has the task is killed in the middle of it; the other takes it over, and a new one comes."""
    with contextlib.ExitStack() as stack:
        flags = ("--redis", store.url, "--namespace", queue_name)
        running = [stack.enter_context(rig.server(*flags)) for _ in range(2)]
        with Client(running[0].url) as client:
            for first in range(0, JOBS, 1000):
                client.push_many("here", list(range(first, first + 1000)), attempts=1)
            if act == "retry":
                while held := client.lease("here", 1000, seconds=600):
                    leases = [{"queue": "here", "id": one.id, "lease": one.lease} for one in held]
                    client.settle({"fail": leases})
            state = "dead" if act == "retry" else "ready"
            to = "there" if act == "move" else None
            task = client.new_task(act, "here", state=state, to=to, rate=RATE)  # type: ignore[arg-type]
        for kill in range(KILLS):
            before = done(running[-1], task["id"])
            rig.eventually(lambda: done(running[-1], task["id"]) > before + 100)  # noqa: B023
            victim = running.pop(0)
            victim.process.kill()
            victim.process.wait()
            if kill < KILLS - 1:
                running.append(stack.enter_context(rig.server(*flags)))
        with Client(running[-1].url) as client:
            rig.eventually(lambda: client.task(task["id"])["ended_at"], within=2 * rig.PATIENCE)
            found = client.task(task["id"])
            assert (found["status"], found["done"]) == ("done", JOBS)
            once = Counter(range(JOBS))
            assert found_in(client, "there", "ready") == (once if act == "move" else Counter())
            assert found_in(client, "here", "ready") == (once if act == "retry" else Counter())
            assert found_in(client, "here", "dead") == Counter()
