"""Those who wait for a job: who gets it, how soon, and what becomes of those who leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from presque.engine.engine import Engine
from presque.errors import QueueClosed
from presque.job import PushOptions
from presque.store.address import Address
from tests import rig
from tests.asking import Fetching, at_rest, fetch, in_line, push, pushing, soon


@pytest.fixture
async def other(engine: Engine, store: rig.Store) -> AsyncIterator[Engine]:
    """A second engine on the same queues, as another server has it."""
    found = Engine(Address(unix=store.socket), engine.keys.namespace)
    await found.start()
    yield found
    await found.stop()


async def waiting(engine: Engine, queues: str, count: int = 1, seconds: float = 60) -> list[Fetching]:
    """So many who stand in line for these queues."""
    fetches = [Fetching(engine, queues, seconds) for _ in range(count)]
    await in_line(engine, fetches)
    return fetches


async def quick(engine: Engine, round_of_it: Callable[[], Awaitable[None]], seconds: float = 0) -> None:
    """One of ten rounds takes no longer than these seconds and twenty rounds that wait for nothing, which are
    made right after it: a machine that is busy delays both."""
    took: list[tuple[float, float]] = []
    while len(took) < 10:
        began = time.monotonic()
        await round_of_it()
        ended = time.monotonic()
        for _ in range(20):
            await push(engine, "plain", "1")
            assert await fetch(engine, "plain") == b"1"
        took.append((ended - began, seconds + 0.2 + time.monotonic() - ended))
        if took[-1][0] < took[-1][1]:
            return
    pytest.fail(f"(seconds, and how many they should be): {took}")


async def ready(engine: Engine, queue: str) -> int:
    [found] = await engine.stats([queue])
    return found.ready


# --- who gets it --------------------------------------------------------------------------------


async def test_a_job_that_is_there_is_had_without_waiting(engine: Engine) -> None:
    await push(engine, "q", "1")

    assert await asyncio.wait_for(fetch(engine, "q", wait=60), rig.PATIENCE) == b"1"


async def test_a_push_wakes_the_one_who_waits(engine: Engine) -> None:
    async def pushed() -> None:
        [waiter] = await waiting(engine, "q")
        await push(engine, "q", "1")
        assert await waiter.body() == b"1"

    await quick(engine, pushed)


async def test_who_waits_in_vain_gets_nothing_when_the_time_is_up(engine: Engine) -> None:
    began = time.monotonic()

    found = await asyncio.gather(*(fetch(engine, queues, wait=0.2) for queues in ("q", "a,*")))

    assert found == [None, None]

    assert 0.19 <= time.monotonic() - began < rig.PATIENCE
    await push(engine, "q")
    assert await ready(engine, "q") == 1, "the job is for somebody else"


async def test_those_who_wait_are_served_in_the_order_they_came(engine: Engine) -> None:
    waiters = [waiter for _ in range(10) for waiter in await waiting(engine, "q")]

    for number in range(10):
        await push(engine, "q", str(number))

    assert [await waiter.body() for waiter in waiters] == [b"%d" % number for number in range(10)]


async def test_the_order_holds_between_lists_that_share_a_queue(engine: Engine) -> None:
    lists = ("q", "a,q", "*", "q", "*,!a", "a,q")
    waiters = [waiter for queues in lists for waiter in await waiting(engine, queues)]

    for number in range(len(lists)):
        await push(engine, "q", str(number))

    assert [await waiter.body() for waiter in waiters] == [b"%d" % number for number in range(len(lists))]


async def test_one_job_has_one_winner_among_many(engine: Engine) -> None:
    waiters = await waiting(engine, "q", 100)

    await push(engine, "q", "1")

    assert await waiters[0].body() == b"1"
    await push(engine, "p")  # a round trip
    assert sum(waiter.found.done() for waiter in waiters) == 1


async def test_1000_who_wait_get_1000_jobs(engine: Engine) -> None:
    waiters = await waiting(engine, "q", 1000)

    await asyncio.gather(*(pushing(engine, "q", str(number)) for number in range(1000)))

    assert [await waiter.body() for waiter in waiters] == [b"%d" % number for number in range(1000)]


async def test_1000_large_jobs_pushed_at_once_are_all_dealt_out(engine: Engine) -> None:
    """More than one answer of the store can hold, with one wake-up for all."""
    waiters = await waiting(engine, "q", 100)

    await engine.push_many("q", [b'"%d%b"' % (n, b"x" * 300_000) for n in range(100)], PushOptions())

    assert len({await waiter.body() for waiter in waiters}) == 100


async def test_who_waits_for_a_glob_gets_a_job_of_a_queue_that_did_not_exist(engine: Engine) -> None:
    [star, excluding, named] = [
        waiter for queues in ("new*", "*,!new*", "later") for waiter in await waiting(engine, queues)
    ]

    await push(engine, "newly-made", "1")
    assert await star.body() == b"1"
    await push(engine, "other", "2")
    assert await excluding.body() == b"2"
    await push(engine, "later", "3")
    assert await named.body() == b"3"


async def test_a_waiter_of_a_list_takes_what_comes_first_in_any_of_its_queues(engine: Engine) -> None:
    for queue in ("c", "b", "a"):
        [waiter] = await waiting(engine, "a,b,c")
        await push(engine, queue, f'"{queue}"')
        assert await waiter.body() == f'"{queue}"'.encode()


# --- who leaves ---------------------------------------------------------------------------------


async def test_who_has_left_gets_no_job(engine: Engine) -> None:
    first, second = await waiting(engine, "q", 2)
    first.leave()

    await push(engine, "q", "1")

    assert await second.body() == b"1"
    assert first.offered == 0


async def test_when_all_have_left_the_job_stays(engine: Engine) -> None:
    for queues in ("q", "q,r", "*"):
        for waiter in await waiting(engine, queues, 3):
            waiter.leave()
            waiter.leave()

    await push(engine, "q")

    assert await ready(engine, "q") == 1
    assert engine.taking.waiting() == []


async def test_who_leaves_while_the_first_look_is_under_way_takes_no_job(engine: Engine) -> None:
    await push(engine, "q", "1")
    await push(engine, "q", "2")

    for queues in ("q", "q,r"):
        leaver = Fetching(engine, queues, wait=30)
        leaver.leave()
        await soon(lambda: at_rest(engine))
        assert leaver.offered == 0

    assert await engine.peek("q", 10) == (2, [("1", b"1"), ("2", b"2")])


async def test_a_waiter_found_dead_passes_its_job_on(engine: Engine) -> None:
    dead = Fetching(engine, "q", 30, here=False)
    await in_line(engine, [dead])
    [living] = await waiting(engine, "q")

    await push(engine, "q", "1")

    assert await living.body() == b"1"
    assert dead.offered == 1


async def test_with_only_dead_waiters_the_job_goes_back(engine: Engine) -> None:
    dead = Fetching(engine, "q", 30, here=False)
    await in_line(engine, [dead])

    await push(engine, "q", "1")
    await soon(lambda: dead.offered == 1 and at_rest(engine))

    assert await fetch(engine, "q", wait=5) == b"1"


async def test_stopping_answers_all_who_wait_with_nothing_and_lets_nobody_wait(engine: Engine) -> None:
    waiters = await waiting(engine, "q", 3) + await waiting(engine, "*", 3)

    engine.stop_waiting()

    assert [await waiter.body() for waiter in waiters] == [None] * 6
    async with asyncio.timeout(rig.PATIENCE):
        assert await fetch(engine, "q", wait=60) is None
        assert await fetch(engine, "*", wait=60) is None
        await push(engine, "q", "1")
        assert await fetch(engine, "q", wait=60) == b"1", "what is there can still be had"


# --- stopped queues -----------------------------------------------------------------------------


async def test_who_waits_for_a_stopped_queue_is_served_once_it_is_started(engine: Engine) -> None:
    await engine.stop_queue("q")
    await push(engine, "q", "1")
    [waiter] = await waiting(engine, "q")

    await engine.start_queue("q")

    assert await waiter.body() == b"1"


async def test_who_waits_in_vain_for_a_stopped_queue_is_told_so(engine: Engine) -> None:
    await engine.stop_queue("q")
    await push(engine, "q", "1")

    with pytest.raises(QueueClosed):
        await fetch(engine, "q", wait=0.1)


# --- several servers ----------------------------------------------------------------------------


@pytest.mark.parametrize("queues", ["q", "q,r", "*"])
async def test_a_push_through_one_server_wakes_who_waits_at_another(
    engine: Engine, other: Engine, queues: str
) -> None:
    async def pushed() -> None:
        [waiter] = await waiting(other, queues)
        await push(engine, "q", "1")
        assert await waiter.body() == b"1"

    await quick(engine, pushed)


async def test_waiters_of_two_servers_share_the_jobs_and_none_is_lost(engine: Engine, other: Engine) -> None:
    waiters = await waiting(engine, "q", 100) + await waiting(other, "*", 100)

    await asyncio.gather(*(pushing((engine, other)[n % 2], "q", str(n)) for n in range(200)))

    assert {await waiter.body() for waiter in waiters} == {b"%d" % number for number in range(200)}
    assert await ready(engine, "q") == 0


@pytest.mark.parametrize("lost", [("calls",), ("messages",), ("calls", "messages")])
async def test_who_waits_is_served_after_a_connection_was_lost_and_came_back(
    engine: Engine, other: Engine, lost: tuple[str, ...]
) -> None:
    waiters = await waiting(engine, "q") + await waiting(engine, "new*")

    for link in (engine.store, engine.channels):
        if link.carries in lost:
            assert link._wire is not None
            link._wire.abort("cut by a test")
    await push(other, "q", "1")  # nobody listens at this moment
    await push(other, "new", "2")

    assert [await waiter.body() for waiter in waiters] == [b"1", b"2"]


# --- scheduled jobs -----------------------------------------------------------------------------


@pytest.mark.parametrize("queues", ["q", "q,r", "*"])
async def test_a_scheduled_job_reaches_who_waits_within_50_ms_of_its_time_and_never_early(
    engine: Engine, queues: str
) -> None:
    """Beyond what a job that is not scheduled takes here: a slow machine is slow with both."""
    late: list[float] = []
    plain: list[float] = []
    for order in ("push first", "wait first") * 5:
        due = int(time.time() * 1000) + 250
        if order == "push first":
            await push(engine, "q", delayed=due)
        [waiter] = await waiting(engine, queues)
        if order == "wait first":
            await push(engine, "q", delayed=due)

        assert await waiter.body() == b"1"
        late.append(time.time() * 1000 - due)
        [waiter] = await waiting(engine, queues)
        began = time.monotonic()
        await push(engine, "q")
        assert await waiter.body() == b"1"
        plain.append((time.monotonic() - began) * 1000)
        if len(late) > 1 and min(late) < 50 + 10 * min(plain):  # a busy machine delays some of them, not all
            break

    assert 0 <= min(late) < 50 + 10 * min(plain)


async def test_an_earlier_scheduled_job_is_not_held_up_by_a_later_one(engine: Engine) -> None:
    waiters = await waiting(engine, "q", 2)
    began = time.monotonic()

    await push(engine, "q", '"later"', delay=5000)
    await push(engine, "q", '"sooner"', delay=150)

    assert await waiters[0].body() == b'"sooner"'
    assert 0.149 <= time.monotonic() - began < 4.999
    assert await waiters[1].body() == b'"later"'
    assert time.monotonic() - began >= 4.999


async def test_a_job_scheduled_through_one_server_reaches_who_waits_at_another(
    engine: Engine, other: Engine
) -> None:
    async def pushed() -> None:
        [waiter] = await waiting(other, "*")
        began = time.monotonic()
        await push(engine, "q", delay=150)
        assert await waiter.body() == b"1"
        assert time.monotonic() - began >= 0.149

    await quick(engine, pushed, 0.15)


async def test_scheduled_jobs_due_at_once_all_reach_those_who_wait(engine: Engine) -> None:
    """More than one call of the store moves because of the time."""
    due = int(time.time() * 1000) + 3000  # time enough to stand in line before, on a busy machine too
    await engine.push_many("q", [b"%d" % number for number in range(1000)], PushOptions(delayed=due))
    await engine.push_many("q", [b"%d" % number for number in range(1000, 1200)], PushOptions(delayed=due))
    waiters = await waiting(engine, "q", 1200)

    assert len({await waiter.body() for waiter in waiters}) == 1200
    assert time.time() * 1000 >= due


# --- what it costs ------------------------------------------------------------------------------


async def test_waiting_costs_the_store_no_calls(engine: Engine, store: rig.Store) -> None:
    await waiting(engine, "q", 100)
    await waiting(engine, "a,*", 100)

    with store.client() as client:

        def fetches() -> int:
            return int(client.info("commandstats").get("cmdstat_fcall", {}).get("calls", 0))

        before = fetches()
        await asyncio.sleep(0.8)
        # The sweeper of this engine looks now and then; each of the two hundred would cost a call.
        assert fetches() - before < 50


async def test_a_delivery_costs_the_store_at_most_3_calls(engine: Engine, store: rig.Store) -> None:
    waiters = await waiting(engine, "q", 300)

    with store.client() as client:
        before = client.info("commandstats")["cmdstat_fcall"]["calls"]
        for number in range(300):
            await push(engine, "q", str(number))
            await waiters[number].body()
        calls = client.info("commandstats")["cmdstat_fcall"]["calls"] - before

    assert calls <= 3 * 300 + 100  # of the sweeper, however long it takes


async def test_the_channels_of_queues_nobody_waits_for_are_given_up(
    engine: Engine, store: rig.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presque.store.channels.LINGER_S", 0.05)
    await fetch(engine, "gone", wait=0.01)
    [waiter] = await waiting(engine, "kept")
    namespace = engine.keys.namespace

    with store.client() as client:

        def heard() -> set[str]:
            names = client.execute_command("PUBSUB", "SHARDCHANNELS", f"{namespace}:*")
            return {name.decode().removeprefix(f"{namespace}:") for name in names}

        await soon(lambda: heard() == {"{:queues}:new", "{kept}:wake"})

    await push(engine, "kept", "1")
    assert await waiter.body() == b"1"
    [waiter] = await waiting(engine, "gone")
    await push(engine, "gone", "2")
    assert await waiter.body() == b"2"
