"""Bulk tasks, when the server that works on one is cut off after any of its calls of the store."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from presque.engine import bulk, bulk_steps, bulk_work
from presque.engine.bulk import Bulk
from presque.engine.bulk_task import Task, What
from presque.engine.engine import Engine
from presque.engine.finding import Place
from presque.errors import StoreUnavailable
from presque.names import queue_list
from presque.store.address import Address
from tests import rig
from tests.asking import push

JOBS = 7
CALLS_MOST = 60  # of the store, for a task as small as these


class CutOff:
    """Cuts a server off for good after so many calls of the store about tasks. The last one is carried out,
    and nobody hears of it."""

    def __init__(self, cut: Bulk, after: int) -> None:
        self.left = after
        self.done = asyncio.Event()
        steps = cut._steps
        self._ask = steps._finding._store.ask
        for one in (steps.on_tasks, steps.on_queue, steps._finding, steps._finding._call):
            one._store = self  # type: ignore[assignment]

    async def ask(self, tag: str, command: bytes, answer: int = 0) -> Any:
        if self.left <= 0:
            raise StoreUnavailable("cut off")
        found = await self._ask(tag, command, answer)
        if b"task_claim" not in command or found:
            self.left -= 1
        if self.left <= 0:
            self.done.set()
            raise StoreUnavailable("cut off", sent=True)
        return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small steps, each of them noted, and short claims."""
    monkeypatch.setattr(bulk, "LOOK_S", 0.02)
    monkeypatch.setattr(bulk_work, "SAVE_S", 0.0)
    for module in (bulk, bulk_steps):
        monkeypatch.setattr(module, "CLAIM_MS", 100)
    for module in (bulk_steps, bulk_work):
        monkeypatch.setattr(module, "PIECE_JOBS", 3)


async def bodies(engine: Engine, queue: str, state: str = "ready") -> list[bytes]:
    found = await engine.finding.search(queue_list(queue), (state,), {}, 100, Place())
    return [job.body for job in found.jobs]


async def ended(engine: Engine, task: Task) -> Task:
    async with asyncio.timeout(rig.PATIENCE):
        while (found := await engine.bulk.show(task.id)).ended is None:
            await asyncio.sleep(0.01)
    return found


@contextlib.asynccontextmanager
async def another(engine: Engine, store: rig.Store) -> Any:
    """Another server on the same data."""
    found = Engine(Address(unix=store.socket), engine.keys.namespace)
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


@pytest.mark.parametrize("act", ["move", "delete"])
async def test_a_task_does_everything_once_whenever_its_server_is_cut_off(
    engine: Engine, store: rig.Store, act: str
) -> None:
    """The first server is cut off after 1, 2, 3 … calls, until it comes through without."""
    wanted = [b"%d" % number for number in range(JOBS)]
    for after in range(1, CALLS_MOST):
        here, there = f"here{after}", f"there{after}"
        for body in wanted:
            await push(engine, here, body)
        await push(engine, here, '"stays"', priority=9)
        async with another(engine, store) as first:
            engine.bulk._working |= {str(number) for number in range(CALLS_MOST)}  # it leaves tasks alone
            what = What(
                act=act,
                queues=here,
                states=["ready"],
                filter={"priority": 5},
                to=there if act == "move" else None,
            )
            cut = CutOff(first.bulk, after + 1)  # the first call is that which begins the task
            task = await first.bulk.begin(what)
            async with asyncio.timeout(rig.PATIENCE):
                while not cut.done.is_set() and (await engine.bulk.show(task.id)).ended is None:
                    await asyncio.sleep(0.01)
        if not cut.done.is_set():
            assert (await engine.bulk.show(task.id)).ended is not None
            return
        async with another(engine, store) as second:
            found = await ended(second, task)
        assert (found.status, found.counts[2]) == ("done", JOBS), after
        assert await bodies(engine, here) == [b'"stays"'], after
        assert await bodies(engine, there) == (wanted if act == "move" else []), after
    pytest.fail("the task takes more calls than were tried")


async def test_a_task_that_is_cancelled_leaves_no_job_on_the_way(engine: Engine, store: rig.Store) -> None:
    for number in range(JOBS):
        await push(engine, "here", str(number))
    await push(engine, "there", '"before"')
    async with another(engine, store) as first:
        engine.bulk._working |= {str(number) for number in range(CALLS_MOST)}
        cut = CutOff(first.bulk, 100)
        ask = cut.ask

        async def until_taken(tag: str, command: bytes, answer: int = 0) -> Any:
            if b"bulk_take" in command:
                cut.left = 1
            return await ask(tag, command, answer)

        cut.ask = until_taken  # type: ignore[method-assign]
        task = await first.bulk.begin(
            What(act="move", queues="here", states=["ready"], filter={}, to="there")
        )
        async with asyncio.timeout(rig.PATIENCE):
            await cut.done.wait()
    assert len(await bodies(engine, "here") + await bodies(engine, "there")) == JOBS + 1 - 3
    await engine.bulk.steer(task.id, "cancel")
    async with another(engine, store) as second:
        found = await ended(second, task)
    assert (found.status, found.counts[2]) == ("cancelled", 3)
    assert await bodies(engine, "here") == [b"3", b"4", b"5", b"6"]
    assert await bodies(engine, "there") == [b'"before"', b"0", b"1", b"2"]
