"""Clients of all kinds at once, which leave as they like, while servers and stores stop, freeze and die.

Afterwards everything is counted: no job is lost, or handed out while somebody holds it; nobody who has left
holds anything; what was put back stands in its order; the counters say what was seen; and the server has kept
nothing of it all. `TEST_SEED` says which of all the runs it is, `TEST_STRANGERS` for how many seconds.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import rig
from tests.faults.load import store_of
from tests.faults.strangers import LEASED, PLAIN, Known, strangers

SEED = int(os.environ.get("TEST_SEED", "1"))
SECONDS = float(os.environ.get("TEST_STRANGERS", "4"))
CLIENTS = 8


class Running:
    """A server that can be stopped and started again at the same port."""

    def __init__(self, *flags: str) -> None:
        self.port = rig.free_port()
        self._flags = (*flags, "--port", str(self.port))
        self._stack = contextlib.ExitStack()
        self.told: list[str] = []
        self.server: rig.Server
        self.start()

    def start(self) -> None:
        self.server = self._stack.enter_context(rig.server(*self._flags))

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it as `number` does, and whatever it has started."""
        children = Path(f"/proc/{self.server.process.pid}/task/{self.server.process.pid}/children")
        store = children.read_text().split()
        self.server.process.send_signal(number)
        self.server.process.wait(2 * rig.PATIENCE)
        rig.eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in store))
        self.told += self.server.everything
        self._stack.close()

    def again(self, number: int) -> None:
        self.stop(number)
        self.start()


def freeze(pid: int, seconds: float) -> None:
    """Let a process do nothing for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def descriptors(server: rig.Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def ready(server: rig.Server) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return server.ask("GET", "/readyz").status == 200
    return False


def stats(server: rig.Server, queue: str) -> dict[str, Any]:
    found: dict[str, Any] = server.ask("GET", f"/stats/{queue}").json
    return found


def of_state(server: rig.Server, queue: str, state: str) -> Iterator[Any]:
    """All jobs of a state."""
    cursor = ""
    while True:
        page = server.ask("GET", f"/j/{queue}?state={state}&limit=500{cursor}").json
        yield from page["jobs"]
        if page.get("cursor") is None:
            return
        cursor = f"&cursor={page['cursor']}"


def check(known: Known, running: list[Running]) -> None:
    """Hold what the clients know against what the servers have."""
    server = running[0].server
    for one in running:
        rig.eventually(functools.partial(ready, one.server))
    rig.eventually(lambda: stats(server, LEASED)["leased"] == 0, say=lambda: stats(server, LEASED))
    for queue in (PLAIN, LEASED):
        ids = int(server.ask("POST", f"/q/{queue}", "-1").json["id"])
        found = stats(server, queue)
        counted = sum(found[name] for name in ("ready", "scheduled", "dead", "done", "processed"))
        assert counted == ids, f"{queue}: {ids} were pushed, {found}"
    priorities = {job["id"]: job["priority"] for job in of_state(server, PLAIN, "ready")}
    order: list[tuple[int, int]] = []
    left: list[int] = []
    while (answer := server.ask("GET", f"/q/{PLAIN}")).status == 200:
        left.append(int(answer.body))
        order.append((-priorities[answer.headers["presque-job-id"]], int(answer.headers["presque-job-id"])))
    assert order == sorted(order)
    left += [
        job["body"] for state in ("ready", "scheduled", "dead") for job in of_state(server, LEASED, state)
    ]
    assert known.problems([number for number in left if number >= 0]) == []
    told = [line for one in running for line in (*one.told, *one.server.everything)]
    assert [line for line in told if "Traceback" in line or ".broken" in line] == []


class World:
    """A server on the store that it starts, or two of them on a store of their own, which outlives a kill."""

    def __init__(self, stack: contextlib.ExitStack, *, data: str | None) -> None:
        self._store: rig.Store | None = None
        self.running: list[Running] = []
        if data is None:
            kept = ("--appendonly", "yes", "--appendfsync", "always")
            self._store = stack.enter_context(rig.store("redis-7.0", *kept))
            flags = [("--redis", self._store.url)] * 2
        else:
            flags = [("--data", data)]
        for one in flags:
            self.running.append(Running(*one))
            stack.callback(self.running[-1].stop)

    @property
    def ports(self) -> list[int]:
        return [one.port for one in self.running]

    def freeze_store(self, seconds: float) -> None:
        store = self._store
        freeze(store_of(self.running[0].server) if store is None else store.process.pid, seconds)

    def kill_store(self) -> None:
        if self._store is None:
            with contextlib.suppress(ProcessLookupError):  # it may be on its way back from the last time
                os.kill(store_of(self.running[0].server), signal.SIGKILL)
            return
        command = self._store.process.args
        self._store.process.kill()
        self._store.process.wait()
        self._store.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(params=["embedded", "own"])
def world(request: pytest.FixtureRequest, new_data: Callable[[], str]) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(stack, data=new_data() if request.param == "embedded" else None)


@pytest.mark.timeout(240 + int(2 * SECONDS))
def test_strangers_that_leave_as_they_like_lose_nothing_and_leave_nothing(world: World) -> None:
    """Nothing else breaks, so whoever leaves holds nothing a moment later, and all is in its order."""
    before = []
    for one in world.running:
        assert ready(one.server)
        before.append(descriptors(one.server))
    with strangers(world.ports, SEED, CLIENTS, seconds=600) as known:
        time.sleep(SECONDS)
        rig.eventually(lambda: len(known.taken) > 20 and len(known.acked) > 5, within=2 * rig.PATIENCE)
    for one, count in zip(world.running, before, strict=True):
        rig.eventually(lambda one=one, count=count: descriptors(one.server) <= count + 1)  # type: ignore[misc]
    check(known, world.running)


@pytest.mark.timeout(300 + int(3 * SECONDS))
def test_strangers_lose_nothing_whatever_stops_freezes_or_dies(
    world: World, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(f"{SEED} {request.node.name}")
    with strangers(world.ports, SEED, CLIENTS, seconds=2) as known:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            time.sleep(chance.uniform(0.2, 1))
            one, seconds = chance.choice(world.running), chance.choice((0.1, 1, 3.5))
            act = chance.choice(("freeze", "freeze store", "stop", "kill", "kill store"))
            if act == "freeze":
                freeze(one.server.process.pid, seconds)
            elif act == "freeze store":
                world.freeze_store(seconds)
            elif act == "kill store":
                world.kill_store()
            else:
                one.again(signal.SIGTERM if act == "stop" else signal.SIGKILL)
        for one in world.running:
            rig.eventually(functools.partial(ready, one.server))
        time.sleep(1)
    check(known, world.running)


def test_a_job_that_came_twice_would_be_noticed() -> None:
    known = Known(sent={1, 2, 3}, acknowledged={1, 2, 3}, taken=[1, 1], unclear=0)
    assert known.problems([2]) == [
        "job 1 came out 2 times", "1 jobs are lost, 0 may be: [3]",
    ]  # fmt: skip
    assert json.dumps(known.problems([2, 3])) == '["job 1 came out 2 times"]'
