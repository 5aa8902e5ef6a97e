"""Jobs whose taker has gone."""

from __future__ import annotations

import asyncio

import pytest

from presque import names
from presque.engine.engine import Engine
from presque.errors import PresqueError
from presque.job import PLAIN, Ask, Fetched, Leased, Settle
from tests import rig
from tests.asking import Fetching, fetch, push


async def test_jobs_given_back_one_after_the_other_keep_their_order(engine: Engine, queue_name: str) -> None:
    wanted = names.queue_list(queue_name)
    await engine.push_many(queue_name, [b"1", b"2"], PLAIN)
    both = asyncio.Event()

    def gone(found: Fetched | PresqueError | None) -> bool:
        both.set()
        return False

    def gone_when_another_asks(found: Fetched | PresqueError | None) -> bool:
        engine.fetch(wanted, 0, gone)
        return False

    engine.fetch(wanted, 0, gone_when_another_asks)
    await both.wait()
    while (await engine.peek(queue_name, 0))[0] < 2:  # given back in the background
        pass

    assert [job.body for job in await engine.fetch_many(queue_name, 2)] == [b"1", b"2"]


async def test_a_lease_that_was_told_once_is_not_given_back_by_a_second_look(
    engine: Engine, queue_name: str
) -> None:
    """A waiter may be looked for twice at once: as it comes, and because a job came. With an `attempt_id`
    both looks get the same lease, and the second finds the waiter answered."""
    wanted = names.queue_list(queue_name)
    got: list[str] = []
    for number in range(200):
        answered = asyncio.get_running_loop().create_future()

        def take(found: list[Leased], answered: asyncio.Future[list[Leased]] = answered) -> bool:
            answered.set_result(found)
            return True

        engine.lease(wanted, Ask(5, 60_000, "", f"{queue_name}-{number}"), 5, take)
        await engine.push_many(queue_name, [b"1"], PLAIN)
        got += [job.id for job in await answered]
        await asyncio.sleep(0.001)  # the second look comes back

    assert got == [str(number) for number in range(1, 201)]


async def test_a_lease_that_nobody_could_be_told_is_given_back_unless_it_was_told_again(
    engine: Engine, queue_name: str
) -> None:
    wanted = names.queue_list(queue_name)
    ask = Ask(1, 60_000, "", "the same")
    await engine.push_many(queue_name, [b"1"], PLAIN)

    async def leased(*, answered: bool) -> list[Leased]:
        found = asyncio.get_running_loop().create_future()

        def take(jobs: list[Leased] | None) -> bool:
            found.set_result(jobs or [])
            return answered

        engine.lease(wanted, ask, 0, take)
        return list(await found)

    [lost] = await leased(answered=False)
    while (await engine.peek(queue_name, 0))[0] < 1:  # given back in the background
        pass
    ask = Ask(1, 60_000, "", "another")
    [told] = await leased(answered=True)
    [again] = await leased(answered=False)
    await asyncio.sleep(0.1)

    assert (told.token, again.attempt, lost.attempt) == (again.token, 1, 1)
    [settled] = await engine.settle_many([Settle("ack", queue_name, told.id, told.token)])
    assert (settled.status, settled.state) == (200, "done")


@pytest.mark.parametrize("stopping", [False, True])
async def test_more_bytes_than_may_be_on_their_way_at_once_go_back_and_hold_nobody_up(
    engine: Engine, queue_name: str, stopping: bool
) -> None:
    body = b'"%b"' % (b"x" * 9_000_000)
    for _ in range(9):
        await push(engine, queue_name, body)
    found = [await Fetching(engine, queue_name).result() for _ in range(9)]
    if stopping:
        engine.stop_waiting()

    engine.give_back([job for job in found if isinstance(job, Fetched)])

    await asyncio.wait_for(engine.put_back(rig.PATIENCE), rig.PATIENCE)
    [stats] = await engine.stats([queue_name])
    assert (stats.ready, stats.processed) == (9, 0)


async def test_a_lease_that_several_looks_brought_and_nobody_took_is_given_back(
    engine: Engine, queue_name: str
) -> None:
    """The same as above, but the waiter has gone: each look gives back what it has brought."""
    wanted = names.queue_list(queue_name)
    for number in range(200):
        engine.lease(wanted, Ask(5, 60_000, "", f"{queue_name}-{number}"), 5, lambda _found: False)
        await engine.push_many(queue_name, [b"1"], PLAIN)
        await asyncio.sleep(0.001)

    await asyncio.wait_for(engine.put_back(rig.PATIENCE), rig.PATIENCE)
    [stats] = await engine.stats([queue_name])
    assert (stats.ready, stats.leased) == (200, 0)


async def leased_of(engine: Engine, queue: str, count: int, ms: int) -> list[Leased]:
    """So many jobs, leased without a wait."""
    found: list[Leased] = []
    while len(found) < count:
        some: asyncio.Future[list[Leased]] = asyncio.get_running_loop().create_future()

        def take(jobs: list[Leased], some: asyncio.Future[list[Leased]] = some) -> bool:
            some.set_result(jobs)
            return True

        engine.lease(names.queue_list(queue), Ask(count - len(found), ms), 0, take)
        found += await some
    return found


@pytest.mark.parametrize("ends", ["by itself", "as its holder leaves"])
async def test_jobs_whose_leases_end_together_keep_their_order_however_many_they_are(
    engine: Engine, queue_name: str, ends: str
) -> None:
    """One call takes back a few hundred of them."""
    jobs = [b"%d" % number for number in range(2000)]
    for first in (0, 1000):
        await engine.push_many(queue_name, jobs[first : first + 1000], PLAIN)
    if ends == "by itself":
        await leased_of(engine, queue_name, 1500, 500)
        await asyncio.sleep(0.6)
    else:
        engine.give_back(await leased_of(engine, queue_name, 1500, 60_000))

    found = [await fetch(engine, queue_name) for _ in range(300)]
    found += [job.body for job in await engine.fetch_many(queue_name, 1000)]
    found += [job.body for job in await engine.fetch_many(queue_name, 1000)]

    assert found == jobs
