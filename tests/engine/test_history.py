"""What happened, asked of engines: exact over many of them, for one queue, some, and all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from presque.commands.history import as_json
from presque.engine.engine import Engine
from presque.job import Ask, PushOptions, Settle
from presque.names import queue_list
from tests import rig


@pytest.fixture
async def other(engine: Engine) -> AsyncIterator[Engine]:
    """Another server on the same queues."""
    found = Engine(engine.store.address, engine.keys.namespace)
    await found.start()
    yield found
    await found.stop()


async def test_it_is_exact_however_many_servers_change_and_close_at_once(
    engine: Engine, other: Engine
) -> None:
    queues = [f"q{number}" for number in range(5)]

    async def work(on: Engine) -> None:
        for _ in range(20):
            for queue in queues:
                await on.push_many(queue, [b"1"], PushOptions())
            for queue in queues:
                await on.fetch_many(queue, 1)
            await on.histories.close()

    await asyncio.gather(work(engine), work(other))

    for of in (engine, other):
        for found in (await of.histories.of_all("5m"), await of.histories.of_some(queues, "5m")):
            total = as_json(found)["total"]
            assert (total["pushed"], total["fetched"]) == (200, 200)
            assert total["depth"] == {"ready": 0, "leased": 0, "scheduled": 0, "dead": 0}
        one = as_json(await of.histories.of("q3", "1h"))["total"]
        assert (one["pushed"], one["fetched"]) == (40, 40)


async def test_the_sum_of_many_queues_at_once_is_whole(engine: Engine) -> None:
    for number in range(450):
        await engine.push_many(f"q{number}", [b"1"], PushOptions())

    total = as_json(await engine.histories.of_all("5m"))["total"]

    assert (total["pushed"], total["depth"]["ready"]) == (450, 450)


async def test_the_sum_is_exact_at_once_with_more_busy_queues_than_any_call_could_read(
    engine: Engine, other: Engine
) -> None:
    for first in range(0, 5200, 400):
        names = (f"q{number}" for number in range(first, first + 400))
        await asyncio.gather(*(engine.push_many(name, [b"1"], PushOptions()) for name in names))
    total = as_json(await other.histories.of_all("5m"))["total"]
    await other.push_many("q7", [b"1"], PushOptions())
    after, _ = await engine.histories.totals()

    assert (total["pushed"], total["depth"]["ready"]) == (5200, 5200)
    assert (after.count("pushed"), after.depth[0]) == (5201, 5201)


async def test_a_store_that_takes_no_writes_tells_what_it_can(engine: Engine, store: rig.Store) -> None:
    for number in range(450):
        await engine.push_many(f"q{number}", [b"1"], PushOptions())
    await engine.histories.of_all("5m")
    await engine.push_many("q1", [b"1"], PushOptions())
    with store.client() as client:
        client.config_set("min-replicas-to-write", 1)
        try:
            total = as_json(await engine.histories.of_all("5m"))["total"]
        finally:
            client.config_set("min-replicas-to-write", 0)

    assert total["pushed"] in (450, 451)
    assert as_json(await engine.histories.of_all("5m"))["total"]["pushed"] == 451


async def test_a_queue_never_seen_has_an_empty_history(engine: Engine) -> None:
    for found in (await engine.histories.of("no", "7d"), await engine.histories.of_some([], "7d")):
        told = as_json(found)
        assert len(told["buckets"]) == 84
        assert told["total"]["pushed"] == 0
        assert told["total"]["wait"] is None


async def test_it_survives_the_servers(engine: Engine, store: rig.Store) -> None:
    await engine.push_many("q", [b"1"], PushOptions())
    await engine.stop()
    after = Engine(engine.store.address, engine.keys.namespace)
    await after.start()

    try:
        assert as_json(await after.histories.of("q", "5m"))["total"]["pushed"] == 1
        assert as_json(await after.histories.of_all("5m"))["total"]["pushed"] == 1
    finally:
        await after.stop()


async def test_a_forgotten_queue_leaves_none(engine: Engine, store: rig.Store) -> None:
    await engine.push_many("q", [b"1"], PushOptions())
    await engine.queues.forget("q")

    assert as_json(await engine.histories.of("q", "5m"))["total"]["pushed"] == 0
    assert as_json(await engine.histories.of_all("5m"))["total"]["pushed"] == 1
    with store.client() as client:
        assert not list(client.scan_iter(f"{engine.keys.namespace}:{{q}}:*"))


async def test_a_spoilt_queue_is_left_out_of_the_sum(engine: Engine, store: rig.Store) -> None:
    await engine.push_many("good", [b"1"], PushOptions())
    with store.client() as client:
        client.set(engine.keys.of("bad")[0], "spoilt")

        assert as_json(await engine.histories.of_some(["bad", "good"], "5m"))["total"]["pushed"] == 1
        client.delete(engine.keys.of("bad")[0])


async def test_acks_and_runs_are_told(engine: Engine) -> None:
    await engine.push_many("q", [b"1"], PushOptions())
    leased: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def take(jobs: Any) -> bool:
        leased.set_result(jobs)
        return True

    engine.lease(queue_list("q"), Ask(ms=60_000), 0, take)
    [job] = await leased
    await engine.settle_many([Settle("ack", "q", job.id, job.token)])

    total = as_json(await engine.histories.of("q", "5m"))["total"]

    assert (total["done"], total["fetched"]) == (1, 0)
    assert total["run"] is not None
    assert total["wait"] is not None
