"""Each verb of the engine, on a real store."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Any

import pytest

from presque.engine.engine import Engine
from presque.engine.sweeper import Sweeper
from presque.errors import CallerError, JobExists, QueueClosed, SetupError
from presque.job import PLAIN, Ask, Fetched, Leased, PushOptions, QueueStats
from presque.names import queue_list
from presque.store.address import Address
from tests import rig
from tests.asking import Fetching, at_rest, fetch, push, pushing, soon


async def counts(engine: Engine, queue: str) -> QueueStats:
    [found] = await engine.stats([queue])
    return found


async def drain(engine: Engine, queue: str) -> list[bytes]:
    """Every job of the queue, in the order they are handed out."""
    found: list[bytes] = []
    while jobs := await engine.fetch_many(queue, 1000):
        found += [job.body for job in jobs]
    return found


# --- push and fetch -----------------------------------------------------------------------------


async def test_a_job_comes_out_byte_for_byte_as_it_went_in(engine: Engine) -> None:
    bodies = [
        b'{"a": 1}',
        b' [ ]\r\n',
        b"9007199254740993",
        '"\\u0000 é 𝄞"'.encode(),
        b'{"b":1,"a":2,"b":3}',
        b'"' + b"x" * 1_000_000 + b'"',
    ]  # fmt: skip
    for body in bodies:
        await push(engine, "q", body)

    assert [await fetch(engine, "q") for _ in bodies] == bodies


async def test_an_empty_queue_has_no_job(engine: Engine) -> None:
    assert await fetch(engine, "q") is None
    assert await fetch(engine, "q,r") is None
    assert await fetch(engine, "*") is None


async def test_ids_count_up_from_1_in_each_queue(engine: Engine) -> None:
    assert [await push(engine, "a") for _ in range(3)] == [1, 2, 3]
    assert await push(engine, "b") == 1


async def test_a_fetched_job_says_where_it_comes_from(engine: Engine) -> None:
    await push(engine, "q", "1")
    await push(engine, "q", "2", priority=1, uniq="key", ttl=60_000, attempts=3, keep=10)

    found = [await Fetching(engine, "q").result() for _ in range(2)]

    assert [one[:3] for one in found if isinstance(one, Fetched)] == [("q", "1", b"1"), ("q", "2", b"2")]


async def test_jobs_come_first_in_first_out_within_a_priority_and_the_highest_first(engine: Engine) -> None:
    for priority in (5, 1, 9, 5, 9, 1, 7):
        await push(engine, "q", f'"{priority}"', priority=priority)
    await push(engine, "q", '"5 again"')

    texts = ['"9"', '"9"', '"7"', '"5"', '"5"', '"5 again"', '"1"', '"1"']
    assert await drain(engine, "q") == [text.encode() for text in texts]


async def test_a_queue_list_is_served_in_its_order(engine: Engine) -> None:
    for queue in ("a", "b", "c", "d"):
        await push(engine, queue, f'"{queue}"')

    assert await fetch(engine, "c,a") == b'"c"'
    assert await fetch(engine, "c,a") == b'"a"'
    assert await fetch(engine, "*,!b*") == b'"d"'
    assert await fetch(engine, "*,!b*") is None
    assert await fetch(engine, "x,?") == b'"b"'


async def test_a_list_of_more_queues_than_one_call_asks_for_is_searched_to_its_end(engine: Engine) -> None:
    for number in range(250):
        await push(engine, f"q{number:03}")
    for number in range(249):
        assert await fetch(engine, f"q{number:03}") == b"1"

    assert await fetch(engine, "q*") == b"1"
    assert await fetch(engine, "q*") is None


async def test_namespaces_do_not_meet(engine: Engine, store: rig.Store) -> None:
    other = Engine(Address(unix=store.socket), f"{engine.keys.namespace}-other")
    await other.start()
    try:
        await push(engine, "q", "1")
        assert await fetch(other, "q") is None
        assert await other.queues.names() == []
    finally:
        await other.stop()


# --- batches ------------------------------------------------------------------------------------


async def test_pushes_of_one_turn_get_ids_in_the_order_they_came(engine: Engine) -> None:
    results = [pushing(engine, "q", str(number)) for number in range(100)]

    assert await asyncio.gather(*results) == list(range(1, 101))
    assert await drain(engine, "q") == [str(number).encode() for number in range(100)]


async def test_each_push_of_a_batch_is_refused_or_stored_on_its_own(engine: Engine) -> None:
    results = await asyncio.gather(
        pushing(engine, "q", "1"),
        pushing(engine, "q", "2", uniq="key"),
        pushing(engine, "q", "3", uniq="key"),
        pushing(engine, "q", "4", delay=2000, ttl=1000),
        pushing(engine, "q", "5", priority=9),
    )

    assert (results[0], results[1]) == (1, 2)
    assert isinstance(results[2], JobExists)
    assert isinstance(results[3], CallerError)
    assert results[4] == 3
    assert await drain(engine, "q") == [b"5", b"1", b"2"]


async def test_3000_pushes_of_one_turn_are_all_stored_in_order(engine: Engine) -> None:
    results = [pushing(engine, "q", str(number)) for number in range(3000)]

    assert await asyncio.gather(*results) == list(range(1, 3001))
    assert await drain(engine, "q") == [str(number).encode() for number in range(3000)]


async def test_a_batch_of_large_bodies_keeps_its_order(engine: Engine) -> None:
    bodies = [b'"%03d%b"' % (number, b"x" * 300_000) for number in range(30)]
    results = await asyncio.gather(*(pushing(engine, "q", body) for body in bodies))

    assert results == list(range(1, 31))
    assert [await fetch(engine, "q") for _ in bodies] == bodies


async def test_fetches_of_one_turn_get_the_jobs_in_the_order_they_asked(engine: Engine) -> None:
    for number in range(5):
        await push(engine, "q", str(number))

    found = await asyncio.gather(*(Fetching(engine, "q").body() for _ in range(7)))

    assert found == [b"0", b"1", b"2", b"3", b"4", None, None]


async def test_fetches_of_one_turn_find_all_large_jobs(engine: Engine) -> None:
    """An answer of the store is bounded to 4 MiB: who gets nothing by that must not hear "no job"."""
    bodies = [b'"%03d%b"' % (number, b"x" * 900_000) for number in range(20)]
    await asyncio.gather(*(pushing(engine, "q", body) for body in bodies))

    found = await asyncio.gather(*(Fetching(engine, "q").body() for _ in range(20)))

    assert sorted(body[:4] for body in found if body is not None) == [body[:4] for body in bodies]


async def test_pushes_and_fetches_of_many_queues_in_one_turn_do_not_mix(engine: Engine) -> None:
    await asyncio.gather(*(pushing(engine, f"q{n % 50}", f'"{n % 50}"') for n in range(1000)))

    fetches = [(n % 50, Fetching(engine, f"q{n % 50}")) for n in range(1000)]

    for queue, one in fetches:
        assert await one.body() == f'"{queue}"'.encode()


async def test_push_many_stores_all_or_none(engine: Engine) -> None:
    assert await engine.push_many("q", [b"1", b"2", b"3"], PushOptions(priority=9)) == [1, 2, 3]
    with pytest.raises(CallerError, match="`ttl` ends before the job is due"):
        await engine.push_many("q", [b"4", b"5"], PushOptions(delay=2000, ttl=1000))

    assert await drain(engine, "q") == [b"1", b"2", b"3"]


async def test_push_many_counts_failures_in_the_same_step(engine: Engine) -> None:
    await engine.push_many("q", [b"1"], PushOptions(), failures=1)

    assert (await counts(engine, "q")).failed == 1


async def test_fetch_many_takes_as_many_as_were_asked_for(engine: Engine) -> None:
    await engine.push_many("q", [b"%d" % number for number in range(10)], PushOptions())

    assert [job.body for job in await engine.fetch_many("q", 4)] == [b"0", b"1", b"2", b"3"]
    assert len(await engine.fetch_many("q", 1000)) == 6
    assert await engine.fetch_many("q", 1000) == []


# --- takers that are gone -----------------------------------------------------------------------


async def test_the_job_of_a_taker_that_is_gone_goes_to_the_next(engine: Engine) -> None:
    await push(engine, "q", "1")

    gone, here = Fetching(engine, "q", here=False), Fetching(engine, "q")

    assert await here.body() == b"1"
    assert gone.offered == 1


async def test_with_nobody_there_the_job_goes_back_to_the_head_of_its_queue(engine: Engine) -> None:
    for number in range(3):
        await push(engine, "q", str(number))

    for queues in ("q", "q,r"):  # a single queue and a list take different ways
        gone = Fetching(engine, queues, here=False)
        await soon(functools.partial(_was_offered, gone))
        await soon(lambda: at_rest(engine))

    assert (await counts(engine, "q")).ready == 3
    assert (await counts(engine, "q")).processed == 0
    assert await drain(engine, "q") == [b"0", b"1", b"2"]


def _was_offered(one: Fetching) -> bool:
    return one.offered > 0


async def test_a_job_that_went_back_still_has_its_priority_ttl_and_uniq_key(engine: Engine) -> None:
    await push(engine, "q", "1")
    await push(engine, "q", "2", priority=9, ttl=4000, uniq="key")
    began = time.monotonic()

    gone = Fetching(engine, "q", here=False)
    await soon(lambda: gone.offered)
    await soon(lambda: at_rest(engine))

    with pytest.raises(JobExists):
        await push(engine, "q", "3", uniq="key")
    _, next_jobs = await engine.peek("q", 10)
    assert [body for _, body in next_jobs] == [b"2", b"1"]
    while (await counts(engine, "q")).expired == 0:
        assert time.monotonic() - began < rig.PATIENCE
        await asyncio.sleep(0.02)
    assert time.monotonic() - began > 3.9
    await push(engine, "q", "3", uniq="key")
    assert await drain(engine, "q") == [b"1", b"3"]


async def test_a_job_that_went_back_does_not_take_its_uniq_key_from_a_newer_one(engine: Engine) -> None:
    await push(engine, "q", '"old"', uniq="key")
    found = await Fetching(engine, "q").result()
    assert isinstance(found, Fetched)
    await push(engine, "q", '"new"', uniq="key")

    engine.give_back([found])
    await soon(lambda: at_rest(engine))

    assert await fetch(engine, "q") == b'"old"'
    with pytest.raises(JobExists):
        await push(engine, "q", uniq="key")
    assert await fetch(engine, "q") == b'"new"'


async def test_a_job_that_goes_back_after_a_purge_can_be_fetched(engine: Engine) -> None:
    await push(engine, "q", '"old"', priority=9)
    found = await Fetching(engine, "q").result()
    assert isinstance(found, Fetched)
    await engine.purge("q")

    engine.give_back([found])
    await soon(lambda: at_rest(engine))

    assert await drain(engine, "q") == [b'"old"']


# --- time ---------------------------------------------------------------------------------------


async def test_a_scheduled_job_cannot_be_had_before_its_time_and_can_be_afterwards(engine: Engine) -> None:
    began = time.time()
    await push(engine, "q", '"delay"', delay=150)
    await push(engine, "q", '"delayed"', delayed=int((began + 0.3) * 1000))
    await push(engine, "q", '"past"', delayed=1)
    found: dict[bytes, float] = {}  # in seconds; the store knows whole milliseconds

    while len(found) < 3:
        body = await fetch(engine, "q")
        if body is not None:
            found[body] = time.time() - began
        assert time.time() - began < rig.PATIENCE

    assert found.keys() == {b'"past"', b'"delay"', b'"delayed"'}
    assert found[b'"delay"'] >= 0.149
    assert found[b'"delayed"'] >= 0.299


async def test_a_job_is_dropped_and_counted_when_its_ttl_has_run_out(engine: Engine) -> None:
    await push(engine, "q", "1", ttl=1)
    await push(engine, "q", "2", ttl=60_000)
    await asyncio.sleep(0.005)

    assert (await counts(engine, "q")).ready == 1
    assert (await counts(engine, "q")).expired == 1
    assert await drain(engine, "q") == [b"2"]
    found = await counts(engine, "q")
    assert (found.ready, found.expired, found.processed) == (0, 1, 1)


async def test_a_fetch_finds_the_job_behind_thousands_that_have_expired(engine: Engine) -> None:
    for _ in range(3):
        await engine.push_many("q", [b"0"] * 1000, PushOptions(ttl=1))
    await push(engine, "q", '"alive"')
    await asyncio.sleep(0.005)

    assert await fetch(engine, "q") == b'"alive"'
    assert (await counts(engine, "q")).expired == 3000


async def test_the_sweeper_does_the_work_of_time_where_nobody_fetches(engine: Engine) -> None:
    await push(engine, "q", ttl=10)
    await push(engine, "q", delay=10)

    async def swept() -> bool:
        jobs, due = engine.keys.of("q")[1], engine.keys.of("q")[3]
        return (await engine.store.call("q", "HLEN", jobs), await engine.store.call("q", "ZCARD", due)) == (
            1,
            0,
        )

    deadline = time.monotonic() + rig.PATIENCE
    while not await swept():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_the_uniq_key_is_free_again_when_the_job_is_fetched_expired_or_purged(engine: Engine) -> None:
    await push(engine, "q", uniq="key")
    with pytest.raises(JobExists, match="job already exists"):
        await push(engine, "q", uniq="key")
    await push(engine, "q", uniq="other key")
    await push(engine, "r", uniq="key")

    await fetch(engine, "q")
    await push(engine, "q", uniq="key", ttl=1)
    await asyncio.sleep(0.005)
    await push(engine, "q", uniq="key")
    await engine.purge("q")
    await push(engine, "q", uniq="key")

    assert (await counts(engine, "q")).ready == 1


# --- queues -------------------------------------------------------------------------------------


async def test_a_queue_exists_once_a_job_was_pushed_and_stays(engine: Engine) -> None:
    assert await engine.queues.names() == []
    await push(engine, "b")
    await push(engine, "a")
    await engine.push_many("c", [b"1"], PushOptions())
    await fetch(engine, "b")
    await engine.purge("a")

    assert await engine.queues.names() == ["a", "b", "c"]


async def test_a_queue_is_known_again_after_the_store_was_emptied(engine: Engine, store: rig.Store) -> None:
    await push(engine, "q", '"before"')
    with store.client() as client:
        client.flushall()

    assert await push(engine, "q", '"after"') == 1

    async def listed() -> bool:
        return await engine.queues.names() == ["q"]

    deadline = time.monotonic() + rig.PATIENCE
    while not await listed():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert await fetch(engine, "*") == b'"after"'


async def test_the_counts_add_up(engine: Engine) -> None:
    for _ in range(3):
        await push(engine, "q")
    await push(engine, "q", delay=60_000)
    await fetch(engine, "q")

    found = await counts(engine, "q")

    assert (found.ready, found.scheduled, found.processed, found.failed, found.expired) == (2, 1, 1, 0, 0)
    assert (found.leased, found.done, found.dead, found.started) == (0, 0, 0, True)


async def test_a_queue_never_seen_has_zeros(engine: Engine) -> None:
    found = await counts(engine, "q")

    assert (found.ready, found.scheduled, found.processed, found.oldest_ms) == (0, 0, 0, None)
    assert found.started
    assert await engine.peek("q", 10) == (0, [])
    assert await engine.purge("q") == 0


async def test_stats_of_more_queues_than_one_call_asks_for_keep_their_order(engine: Engine) -> None:
    names = [f"q{number}" for number in range(250)]
    await asyncio.gather(*(pushing(engine, name) for name in names[::2]))

    found = await engine.stats(names)

    assert [one.queue for one in found] == names
    assert [one.ready for one in found] == [1, 0] * 125


async def test_the_age_of_the_oldest_job_counts_from_when_it_became_ready(engine: Engine) -> None:
    await push(engine, "later", delay=3_600_000)
    assert (await counts(engine, "later")).oldest_ms is None
    due = int(time.time() * 1000) + 500
    await push(engine, "q", delayed=due)
    await asyncio.sleep(0.6)

    oldest = (await counts(engine, "q")).oldest_ms

    assert oldest is not None
    assert 0 < oldest <= time.time() * 1000 - due + 1


async def test_the_rates_count_what_happened_in_the_last_minute(engine: Engine) -> None:
    for _ in range(5):
        await push(engine, "q")
    await engine.push_many("q", [b"1"], PushOptions(), failures=1)
    for _ in range(3):
        await fetch(engine, "q")

    found = await counts(engine, "q")

    assert found.pushed_last_minute == 6
    assert found.processed_last_minute == 3
    assert found.failed_last_minute == 1


async def test_what_happened_more_than_a_minute_ago_is_in_no_rate(engine: Engine) -> None:
    for _ in range(5):
        await push(engine, "q")
    await fetch(engine, "q")
    meta = engine.keys.of("q")[0]
    # As if the notes that the counters left had been made two minutes and half a minute ago.
    now = time.time() * 1000
    notes = f"{now - 30_000:.0f}:3:1:0 {now - 120_000:.0f}:0:0:0"
    await engine.store.call("q", "HSET", meta, "rates", notes)

    found = await counts(engine, "q")

    assert (found.pushed_last_minute, found.processed_last_minute) == (2, 0)


async def test_peek_shows_what_comes_next_and_takes_nothing(engine: Engine) -> None:
    await push(engine, "q", "1")
    await push(engine, "q", "2", priority=9)
    await push(engine, "q", "3", delay=60_000)

    assert await engine.peek("q", 10) == (2, [("2", b"2"), ("1", b"1")])
    assert await engine.peek("q", 1) == (2, [("2", b"2")])
    assert await engine.peek("q", 0) == (2, [])
    assert (await counts(engine, "q")).ready == 2


async def test_a_stopped_queue_takes_pushes_and_hands_out_nothing(engine: Engine) -> None:
    assert await engine.started("q")
    await engine.stop_queue("q")
    await push(engine, "q", "1")

    assert not await engine.started("q")
    with pytest.raises(QueueClosed, match="queue is closed"):
        await fetch(engine, "q")
    with pytest.raises(QueueClosed):
        await engine.fetch_many("q", 10)
    assert await fetch(engine, "q,r") is None
    assert not (await counts(engine, "q")).started

    await engine.start_queue("q")
    assert await fetch(engine, "q") == b"1"


async def test_a_list_passes_over_a_stopped_queue(engine: Engine) -> None:
    await push(engine, "a", '"a"')
    await push(engine, "b", '"b"')
    await engine.stop_queue("a")

    assert await fetch(engine, "a,b") == b'"b"'
    assert await fetch(engine, "*") is None


async def test_a_purge_takes_jobs_counters_and_keys_but_no_id_comes_again(engine: Engine) -> None:
    await push(engine, "q", priority=9, uniq="key")
    await push(engine, "q", delay=60_000)
    await push(engine, "q", ttl=60_000)
    await engine.push_many("q", [b"1"], PushOptions(), failures=1)
    await fetch(engine, "q")
    await engine.stop_queue("q")

    assert await engine.purge("q") == 3

    found = await counts(engine, "q")
    assert (found.ready, found.scheduled, found.processed, found.failed) == (0, 0, 0, 0)
    assert not found.started
    assert await push(engine, "q", uniq="key") == 5


# --- workers ------------------------------------------------------------------------------------


async def test_a_worker_is_listed_with_its_queues_until_it_leaves_the_last(engine: Engine) -> None:
    await engine.register_worker("w1", "a")
    await engine.register_worker("w1", "b")
    await engine.register_worker("w1", "a")
    await engine.register_worker("w2", "a")
    assert await engine.workers.all() == ["w1", "w2"]
    assert await engine.workers.of_queue("a") == ["w1", "w2"]
    assert await engine.workers.of_queue("b") == ["w1"]

    await engine.unregister_worker("w1", "a")
    await engine.unregister_worker("w1", "unknown")
    assert await engine.workers.of_queue("a") == ["w2"]
    assert await engine.workers.of_queue("b") == ["w1"]

    await engine.unregister_worker("w1", "b")
    assert await engine.workers.all() == ["w2"]
    assert await engine.workers.show("w1") is None


async def test_a_worker_is_counted_whether_it_registered_or_not(engine: Engine) -> None:
    await engine.register_worker("registered", "q")
    for name in ("registered", "stranger"):
        engine.count_worker(name, processed=2, failed=0)
        engine.count_worker(name, processed=1, failed=1)
    await engine.workers.all()  # an answer that comes after the counts were written

    for name in ("registered", "stranger"):
        found = await engine.workers.show(name)
        assert found is not None
        assert (found.processed, found.failed) == (3, 1)
        assert abs(found.started_at / 1000 - time.time()) < rig.PATIENCE
    assert await engine.workers.all() == ["registered"]
    assert await engine.workers.show("unheard of") is None


# --- several servers ----------------------------------------------------------------------------


async def test_engines_on_one_store_never_hand_out_a_job_twice(engine: Engine, store: rig.Store) -> None:
    other = Engine(Address(unix=store.socket), engine.keys.namespace)
    await other.start()
    try:
        await asyncio.gather(*(pushing((engine, other)[n % 2], "q", str(n)) for n in range(400)))

        fetches = [Fetching((engine, other)[n % 2], "q", wait=n % 3) for n in range(400)]
        found = [await one.body() for one in fetches]

        assert sorted(int(body) for body in found if body is not None) == list(range(400))
    finally:
        await other.stop()


async def test_where_no_store_is_the_engine_does_not_start() -> None:
    engine = Engine(Address(unix="/nowhere/socket"))

    with pytest.raises(SetupError, match="no store at unix:/nowhere/socket: no such file or directory"):
        await engine.start()
    await engine.stop()


async def test_among_many_queues_an_ended_lease_is_back_in_a_few_turns_though_nobody_asks(
    engine: Engine,
) -> None:
    for first in range(0, 2000, 100):
        await asyncio.gather(*(push(engine, f"q{number}") for number in range(first, first + 100)))
    await push(engine, "zlast")
    found: list[Leased] = []

    def take(jobs: list[Leased]) -> bool:
        found.extend(jobs)
        return True

    engine.lease(queue_list("zlast"), Ask(1, 1, ""), 0, take)
    await soon(lambda: found)

    sweeper, turns = Sweeper(engine.store, engine.keys, engine.queues), 0
    while (await counts(engine, "zlast")).leased:
        await sweeper.turn()
        turns += 1
        assert turns < 8  # of twenty, if each took a hundred queues


async def test_a_caller_that_raises_harms_no_other_of_its_call(engine: Engine) -> None:
    found: list[Any] = []

    def broken(_reply: Any) -> Any:
        raise KeyError("a bug")

    for number in range(20):
        engine.push("q", b"%d" % number, PLAIN, broken if number == 7 else found.append)
    await soon(lambda: len(found) == 19)
    taken: list[Any] = []

    def take(job: Any) -> bool:
        taken.append(job)
        return True

    for number in range(20):
        engine.fetch(queue_list("q"), 0, broken if number == 3 else take)
    await soon(lambda: len(taken) == 19)

    assert [one for one in found if type(one) is not int] == []
    assert len({one.body for one in taken}) == 19
    await soon(lambda: at_rest(engine))
    assert await fetch(engine, "q") is not None  # what was offered to the one that raised is still there
    assert await push(engine, "q") > 0  # and calls go on
