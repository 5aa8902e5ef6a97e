"""What the store holds but nobody pushed: bodies that were changed in it, data of another layout."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from presque import names
from presque.engine import library
from presque.engine.engine import Engine
from presque.errors import NotFound, SetupError
from presque.job import PLAIN, Ask, Fetched, JobState, Leased
from presque.store.address import Address
from tests import rig
from tests.asking import Fetching, soon


async def damage(engine: Engine, queue: str, job: str) -> None:
    """Flip a bit of the stored body."""
    jobs = engine.keys.of(queue)[1]
    record = await engine.store.call(queue, "HGET", jobs, job)
    await engine.store.call(queue, "HSET", jobs, job, record[:-1] + bytes([record[-1] ^ 4]))


async def is_dead(engine: Engine, queue: str, job: str) -> None:
    """Wait until the job is dead, and see why."""

    deadline = asyncio.get_running_loop().time() + rig.PATIENCE
    while asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(NotFound):  # it is on its way back
            if (await engine.jobs.show(queue, job)).state is JobState.DEAD:
                break
        await asyncio.sleep(0.005)
    found = await engine.jobs.show(queue, job)
    assert (found.state, found.reason, found.body) == (JobState.DEAD, "damaged", b"null")


async def fetched(engine: Engine, queue: str) -> list[bytes]:
    return [job.body for job in await engine.fetch_many(queue, 10)]


async def fetched_alone(engine: Engine, queue: str) -> list[bytes]:
    body = await Fetching(engine, queue).body()
    return [] if body is None else [body]


async def fetched_from_a_list(engine: Engine, queue: str) -> list[bytes]:
    body = await Fetching(engine, f"{queue},{queue}-other").body()
    return [] if body is None else [body]


async def leased(engine: Engine, queue: str) -> list[bytes]:
    result: asyncio.Future[list[Leased] | None] = asyncio.get_running_loop().create_future()

    def take(found: list[Leased] | None) -> bool:
        result.set_result(found)
        return True

    engine.lease(names.queue_list(queue), Ask(10, 60_000), 0, take)
    return [job.body for job in await asyncio.wait_for(result, rig.PATIENCE) or ()]


Way = Callable[[Engine, str], Awaitable[list[bytes]]]


@pytest.mark.parametrize("take", [fetched, fetched_alone, fetched_from_a_list, leased])
async def test_a_damaged_job_is_dead_and_its_taker_gets_the_next(
    engine: Engine, queue_name: str, take: Way
) -> None:
    await engine.push_many(queue_name, [b'"one"', b'"two"'], PLAIN)
    await damage(engine, queue_name, "1")

    assert await take(engine, queue_name) == [b'"two"']

    await is_dead(engine, queue_name, "1")


@pytest.mark.parametrize("take", [fetched, fetched_alone, fetched_from_a_list, leased])
async def test_a_damaged_job_that_is_alone_is_nothing(engine: Engine, queue_name: str, take: Way) -> None:
    await engine.push_many(queue_name, [b'"one"'], PLAIN)
    await damage(engine, queue_name, "1")

    assert await take(engine, queue_name) == []

    await is_dead(engine, queue_name, "1")
    await engine.jobs.retry(queue_name, "1")
    assert await take(engine, queue_name) == []
    await is_dead(engine, queue_name, "1")


async def test_looking_shows_no_damaged_body(engine: Engine, queue_name: str) -> None:
    await engine.push_many(queue_name, [b'"one"', b'"two"'], PLAIN)
    await damage(engine, queue_name, "1")

    assert await engine.peek(queue_name, 10) == (2, [("2", b'"two"')])
    page, _ = await engine.jobs.page(queue_name, JobState.READY, 10, "")
    assert [job.body for job in page] == [b"null", b'"two"']


async def test_a_damaged_job_is_delivered_to_nobody(engine: Engine, queue_name: str) -> None:
    await engine.push_many(queue_name, [b'"one"', b'"two"'], PLAIN)
    await damage(engine, queue_name, "1")
    await engine.jobs.policy(queue_name, {"delivery": "broadcast"})
    got: list[Fetched] = []

    listener = await engine.listener(queue_name, got.append)
    assert listener is not None
    await soon(lambda: got)

    assert [job.body for job in got] == [b'"two"']
    engine.deliveries.leave(listener)
    await is_dead(engine, queue_name, "1")


async def test_data_of_another_layout_is_refused_with_a_sentence(engine: Engine, store: rig.Store) -> None:
    await engine.push_many("q", [b"1"], PLAIN)
    layout = engine.keys.registry()[2]
    for number in (None, "1", "99"):
        if number is None:
            await engine.store.call("x", "DEL", layout)
        else:
            await engine.store.call("x", "SET", layout, number)
        other = Engine(Address(unix=store.socket), engine.keys.namespace)
        with pytest.raises(SetupError, match=f"has layout {number or 1}, and this presque reads layout"):
            await other.start()
    await engine.store.call("x", "SET", layout, library.LAYOUT)
    assert await engine.fetch_many("q", 1)
