"""Recurring jobs are fired once, whatever number of servers run, whenever one dies and whatever clocks do."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import redis

from presque.engine import library
from presque.engine.engine import Engine
from presque.engine.keys import CRONS
from presque.engine.recurring import Cron, Shown
from presque.errors import CallerError, JobExists, NotFound, WrongState
from presque.job import Ask, JobState, PushOptions, Settle
from presque.names import queue_list
from presque.store.address import Address
from tests import rig
from tests.asking import push

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
START = int(datetime(2027, 3, 1, 12, 0, 30, tzinfo=UTC).timestamp() * 1000)

CLOCK = "tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)"


class Turned:
    """The store's clock, which the test turns, and that of the server, which nobody can turn back."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.now = START
        self.ours = 1000.0
        self.turn(START)

    def turn(self, now: int) -> None:
        """Set the store's clock. For the server next to no time passes."""
        self.now = now
        self.client.set("test:now", now)

    def passes(self, ms: int) -> None:
        """Let time pass for all."""
        self.ours += ms / 1000
        self.turn(self.now + ms)


@pytest.fixture
def clock(store: rig.Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Turned]:
    source = library.source()
    assert CLOCK in source
    turned = source.replace(CLOCK, "tonumber(redis.call('GET', 'test:now'))")
    monkeypatch.setattr(library, "source", lambda **_: turned)
    with store.client() as client:
        yield Turned(client)
        client.delete("test:now")


@pytest.fixture
async def timed(clock: Turned, store: rig.Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """An engine on the clock that the test turns, which looks for due jobs only when the test says so."""
    found = Engine(Address(unix=store.socket), f"t{uuid4().hex[:8]}")

    async def idle() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(found.firing, "run", idle)
    monkeypatch.setattr(found.firing, "_ours", lambda: clock.ours)
    await found.start()
    yield found
    await found.stop()
    names = list(clock.client.scan_iter(f"{found.keys.namespace}:*"))
    if names:
        clock.client.delete(*names)


async def put(engine: Engine, name: str = "c", schedule: str = "* * * * *", **fields: Any) -> Shown:
    body = fields.pop("body", b"1")
    await engine.crons.put(name, Cron(queue=fields.pop("queue", "q"), schedule=schedule, **fields), body)
    return await engine.crons.show(name)


async def pushed(engine: Engine, queue: str = "q") -> int:
    [stats] = await engine.stats([queue])
    return stats.ready


async def next_at(engine: Engine, name: str = "c") -> int:
    found = (await engine.crons.show(name)).next_at
    assert found is not None
    return found


def stored_next(engine: Engine, clock: Turned, name: str = "c", kind: str = "due") -> float | None:
    """The next moment as the store holds it."""
    return clock.client.zscore(f"{engine.keys.namespace}:{{:cron}}:{kind}", name)


async def overdue(engine: Engine, hours: int, **fields: Any) -> int:
    """Define an hourly job and put its next moment so many hours back. Returns that moment."""
    moment = (await put(engine, schedule="@hourly", **fields)).next_at
    assert moment is not None
    await engine.store.call(CRONS, "ZADD", engine.keys.crons()[2], str(moment - hours * HOUR), "c")
    return moment - hours * HOUR


# --- moments that were missed


@pytest.mark.parametrize(
    ("missed", "hours", "expected"),
    [("once", 3, 1), ("all", 3, 3), ("once", 1, 1), ("all", 1, 1), ("all", 100, 100)],
)
async def test_what_was_missed_is_fired_as_it_is_asked_for(
    engine: Engine, missed: str, hours: int, expected: int
) -> None:
    await overdue(engine, hours, missed=missed)
    await engine.firing.fire_due()
    await engine.firing.fire_due()
    assert await pushed(engine) == expected
    shown = await engine.crons.show("c")
    assert shown.next_at is not None
    assert shown.next_at > shown.now


async def test_what_was_missed_for_more_than_a_minute_can_be_left_out(timed: Engine, clock: Turned) -> None:
    for late, expected in ((120_000, 0), (1_000, 1)):
        await timed.crons.put("c", Cron(queue="q", schedule="0 13 * * *", missed="skip"), b"1")
        due = await next_at(timed)
        clock.turn(due + late)
        timed.firing._looked = None
        await timed.firing.fire_due()
        assert await pushed(timed) == expected


@pytest.mark.parametrize("away", [30 * DAY, 5 * 365 * DAY, 56 * 365 * DAY])
@pytest.mark.parametrize("schedule", ["* * * * *", "@every 1s", "*/10 * * * * *", "30 2 * * *"])
@pytest.mark.parametrize(("missed", "most"), [("skip", 0), ("once", 1), ("all", 1000)])
async def test_catching_up_after_any_absence_is_little_work(
    timed: Engine, clock: Turned, away: int, schedule: str, missed: str, most: int
) -> None:
    if away == 56 * 365 * DAY:
        clock.turn(1000)  # a board without a battery hears of the time
    await put(timed, schedule=schedule, timezone="Europe/Paris", missed=missed)
    clock.turn(clock.now + away + 30 * MINUTE)
    timed.firing._looked = None
    calls = counted(timed)

    while (due := stored_next(timed, clock, kind=kind_of(schedule))) is not None and due <= clock.now:
        await timed.firing.fire_due()

    found = await pushed(timed)
    if schedule == "30 2 * * *":
        most = min(most, away // DAY)
        assert most - 1 <= found <= most
    else:
        assert found == max(most, 1)  # the last moment is not a minute past
    assert len(calls) <= 3 + most / 5
    assert await next_at(timed) > clock.now


def kind_of(schedule: str) -> str:
    return "steady" if schedule.startswith("@every") else "due"


def counted(engine: Engine) -> list[str]:
    """The calls that recurring jobs make from now on."""
    calls: list[str] = []
    call = engine.firing._call

    async def counting(name: str, *args: str | bytes | int) -> Any:
        calls.append(name)
        return await call(name, *args)

    engine.firing._call = counting  # type: ignore[assignment]
    return calls


async def test_others_are_served_while_a_thousand_moments_are_pushed(timed: Engine, clock: Turned) -> None:
    for number in range(5):
        await put(timed, f"c{number}", missed="all")
    clock.passes(30 * DAY)
    timed.firing._looked = None
    catching_up = asyncio.create_task(timed.firing.fire_due())
    served = 0
    while not catching_up.done():
        await timed.stats(["other"])
        served += 1
    await catching_up
    assert served >= 5
    while await pushed(timed) < 5000:
        await timed.firing.fire_due()
    assert await pushed(timed) == 5000


async def test_those_on_time_do_not_wait_for_those_that_are_late(timed: Engine, clock: Turned) -> None:
    for number in range(30):
        await put(timed, f"late{number}", missed="all", queue="late")
    clock.passes(30 * DAY)
    await put(timed, "new", queue="new")
    clock.passes(MINUTE)
    timed.firing._looked = None
    order: list[str] = []
    push = timed.firing._push

    def noted(queue: str, *rest: Any) -> None:
        order.append(queue)
        push(queue, *rest)

    timed.firing._push = noted
    await timed.firing.fire_due()
    assert order[0] == "new"


# --- many at once


async def test_a_thousand_of_one_minute_go_out_in_a_few_calls(timed: Engine, clock: Turned) -> None:
    for number in range(1000):
        await timed.crons.put(f"c{number}", Cron(queue=f"q{number % 7}", schedule="* * * * *"), b"1")
    await timed.firing.fire_due()
    clock.passes(30 * SECOND)
    calls = counted(timed)
    await timed.firing.fire_due()
    assert sum([await pushed(timed, f"q{number}") for number in range(7)]) == 1000
    assert len(calls) <= 12
    await timed.firing.fire_due()
    assert sum([await pushed(timed, f"q{number}") for number in range(7)]) == 1000


async def test_three_hundred_of_each_second_lose_none_even_if_a_look_is_late(
    timed: Engine, clock: Turned
) -> None:
    for number in range(300):
        schedule = "@every 1s" if number % 2 else "* * * * * *"
        await timed.crons.put(f"c{number}", Cron(queue="q", schedule=schedule), b"1")
    await timed.firing.fire_due()
    for seconds in (1, 1, 3, 1, 7, 1):  # a look that takes long makes the next one late
        clock.passes(seconds * SECOND)
        await timed.firing.fire_due()
    assert await pushed(timed) == 300 * 14


async def test_a_look_that_the_store_cut_short_loses_no_moment(timed: Engine, clock: Turned) -> None:
    await put(timed, schedule="@every 1s")
    await timed.firing.fire_due()
    clock.passes(1 * SECOND)
    await die_between(timed)
    for _ in range(3):
        clock.passes(1 * SECOND)
        await timed.firing.fire_due()
    assert await pushed(timed) == 4


async def test_many_servers_fire_once(engine: Engine, store: rig.Store) -> None:
    others = [Engine(Address(unix=store.socket), engine.keys.namespace) for _ in range(4)]
    for other in others:
        await other.start()
    try:
        for _ in range(10):
            await overdue(engine, 2, missed="all")
            await asyncio.gather(*(one.firing.fire_due() for one in [engine, *others]))
        assert await pushed(engine) == 2, "ten times the same two moments"
    finally:
        for other in others:
            await other.stop()


async def test_what_is_remembered_of_pushed_moments_does_not_grow(timed: Engine, clock: Turned) -> None:
    await put(timed, schedule="* * * * *", missed="all")
    await put(timed, "other", schedule="@every 1m")
    clock.passes(500 * MINUTE)
    for _ in range(3):
        timed.firing._looked = None
        await timed.firing.fire_due()
    assert await pushed(timed) == 501
    prefix = f"{timed.keys.namespace}:{{q}}:"
    assert clock.client.hlen(f"{prefix}fired") == 2
    assert not clock.client.exists(f"{prefix}idem")


@pytest.mark.parametrize(("first", "second"), [("@every 1m", "* * * * *"), ("* * * * *", "@every 1m")])
async def test_another_schedule_goes_on_whatever_was_pushed_before(
    timed: Engine, clock: Turned, first: str, second: str
) -> None:
    await put(timed, schedule=first)
    await look_for(timed, clock, 61)
    clock.turn(clock.now - DAY)  # the two clocks differ by a day from now on
    await look_for(timed, clock, 61)
    before = await pushed(timed)
    await put(timed, schedule=second)
    await look_for(timed, clock, 61)
    assert await pushed(timed) == before + 1


# --- a server that dies


class Killed(Exception):
    """In place of a server that dies."""


async def test_a_server_that_dies_before_it_noted_the_moment_leaves_no_second_job(engine: Engine) -> None:
    await overdue(engine, 1)
    await die_between(engine)
    await engine.firing.fire_due()
    assert await pushed(engine) == 1


async def test_without_the_key_of_the_moment_it_would(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presque.engine.recurring.push_options", lambda *_: PushOptions())
    await overdue(engine, 1)
    await die_between(engine)
    await engine.firing.fire_due()
    assert await pushed(engine) == 2


async def die_between(engine: Engine) -> None:
    """Fire, but die between the push and the note that it was done."""
    call = engine.firing._call

    async def dies(name: str, *args: str | bytes | int) -> Any:
        if name == "cron_advance":
            raise Killed
        return await call(name, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.firing, "_call", dies)
        with pytest.raises(Killed):
            await engine.firing.fire_due()


# --- clocks that were wrong


async def look_for(engine: Engine, clock: Turned, seconds: int) -> None:
    """Let so many seconds pass, with a look in each."""
    for _ in range(seconds):
        clock.passes(SECOND)
        await engine.firing.fire_due()


@pytest.mark.parametrize(
    "ahead", [90 * SECOND, HOUR, DAY, 400 * DAY, 60 * 365 * DAY, 7900 * 365 * DAY, 99_000 * 365 * DAY]
)
@pytest.mark.parametrize("schedule", ["* * * * *", "*/5 * * * * *", "@every 5s", "1 12 * * *"])
async def test_a_clock_that_was_ahead_for_a_moment_silences_nothing(
    timed: Engine, clock: Turned, ahead: int, schedule: str
) -> None:
    await put(timed, schedule=schedule)
    await look_for(timed, clock, 10)
    for _ in range(4):
        clock.turn(clock.now + ahead)
        await look_for(timed, clock, 1)
        clock.turn(clock.now - ahead)
    before = await pushed(timed)
    await look_for(timed, clock, 40)
    gained = await pushed(timed) - before
    assert gained >= {"* * * * *": 1, "*/5 * * * * *": 7, "@every 5s": 7, "1 12 * * *": 1}[schedule]
    assert gained <= 9


async def test_a_board_that_begins_in_1970_at_each_start_serves_on(timed: Engine, clock: Turned) -> None:
    """Each time the clock is right again the steady one is 56 years further: past what six bytes hold."""
    await put(timed, schedule="@every 5s", queue="other")
    for _ in range(300):
        clock.turn(clock.now - 56 * 365 * DAY)
        await timed.firing.fire_due()
        await hold(timed, clock)
        clock.turn(clock.now + 56 * 365 * DAY)
        await timed.firing.fire_due()
        await hold(timed, clock)
    before = await pushed(timed, "other")
    await look_for(timed, clock, 40)
    assert await pushed(timed, "other") - before >= 7
    assert await next_at(timed) < clock.now + 6 * SECOND


async def hold(engine: Engine, clock: Turned) -> None:
    """Push a job, lease it, make its lease longer, and ack it when the first one would have ended."""
    await push(engine, "q", b"1")
    leased: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def take(found: Any) -> bool:
        leased.set_result(found)
        return True

    engine.lease(queue_list("q"), Ask(1, 30 * SECOND, ""), 0, take)
    [job] = await leased
    assert clock.now + 29 * SECOND < job.ends_at <= clock.now + 31 * SECOND, job
    for verb, ms in (("extend", 60 * SECOND), ("ack", None)):
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        engine.settle(Settle(verb, "q", job.id, job.token, {} if ms is None else {"ms": ms}), told.set_result)
        assert (await told).status == 200
        clock.passes(45 * SECOND)


@pytest.mark.parametrize("schedule", ["* * * * *", "@every 60s", "0 13 * * *"])
@pytest.mark.parametrize("away", [300 * DAY, DAY])
async def test_a_next_moment_that_cannot_be_is_corrected(
    timed: Engine, clock: Turned, schedule: str, away: int, caplog: pytest.LogCaptureFixture
) -> None:
    expected = (await put(timed, schedule=schedule)).next_at
    key = f"{timed.keys.namespace}:{{:cron}}:{kind_of(schedule)}"
    for wrong in (clock.now + away, "inf", "1e300", None):
        if wrong is None:
            clock.client.zrem(key, "c")
        else:
            clock.client.zadd(key, {"c": wrong})
        assert await next_at(timed) == expected
        await timed.firing.fire_due()
        assert stored_next(timed, clock, kind=kind_of(schedule)) == expected
    assert [record.getMessage().split()[0] for record in caplog.records] == ["cron.corrected"] * 4
    assert await pushed(timed) == 0


async def test_all_are_examined_within_some_looks_and_at_once_when_the_clock_went_back(
    timed: Engine, clock: Turned
) -> None:
    for number in range(1000):
        await timed.crons.put(f"c{number}", Cron(queue="q", schedule="* * * * *"), b"1")
    key = f"{timed.keys.namespace}:{{:cron}}:due"

    def spoil() -> None:
        clock.client.zadd(key, {f"c{number}": clock.now + DAY for number in range(1000)})

    def wrong() -> int:
        return int(clock.client.zcount(key, clock.now + HOUR, "inf"))

    spoil()
    looks = 0
    while wrong():
        assert looks < 20
        looks += 1
        await timed.firing.fire_due()
    assert looks > 2
    spoil()
    clock.turn(clock.now - 5 * MINUTE)
    await timed.firing.fire_due()
    await timed.firing.fire_due()
    assert wrong() == 0


async def test_a_fixed_interval_does_not_notice_that_the_clock_was_set_back(
    timed: Engine, clock: Turned
) -> None:
    await put(timed, schedule="@every 1h")
    await look_for(timed, clock, 5)
    clock.turn(clock.now - 45 * MINUTE)
    await timed.firing.fire_due()
    assert (await next_at(timed)) - clock.now == HOUR - 5 * SECOND
    clock.passes(HOUR - 6 * SECOND)
    await timed.firing.fire_due()
    assert await pushed(timed) == 0
    clock.passes(2 * SECOND)
    await timed.firing.fire_due()
    assert await pushed(timed) == 1


async def test_a_moment_comes_once_though_the_clock_was_set_back_a_little(
    timed: Engine, clock: Turned
) -> None:
    await put(timed, schedule="* * * * *")
    await look_for(timed, clock, 31)
    assert await pushed(timed) == 1
    clock.turn(clock.now - 10 * SECOND)
    await look_for(timed, clock, 60)
    assert await pushed(timed) == 1
    await look_for(timed, clock, 10)
    assert await pushed(timed) == 2


def turned_by_a_push(engine: Engine, clock: Turned, back: int) -> None:
    """Set the clock back between the next push and the note that it was done."""
    push = engine.firing._push

    def pushes(*args: Any) -> None:
        engine.firing._push = push
        push(*args)
        clock.turn(clock.now - back)

    engine.firing._push = pushes


@pytest.mark.parametrize("schedule", ["* * * * * *", "*/5 * * * * *", "@every 5s"])
@pytest.mark.parametrize("ahead", [90 * SECOND, HOUR, DAY])
async def test_a_clock_that_is_set_back_while_a_moment_is_pushed_silences_nothing(
    timed: Engine, clock: Turned, schedule: str, ahead: int
) -> None:
    await put(timed, schedule=schedule)
    await look_for(timed, clock, 10)
    clock.turn(clock.now + ahead + 10 * SECOND)
    turned_by_a_push(timed, clock, ahead)
    await timed.firing.fire_due()
    assert clock.now < START + MINUTE
    before = await pushed(timed)
    await look_for(timed, clock, 20)
    assert await pushed(timed) >= before + 3


async def test_a_moment_comes_once_though_the_clock_was_set_back_a_little_while_it_was_pushed(
    timed: Engine, clock: Turned
) -> None:
    await put(timed, schedule="*/10 * * * * *")
    await look_for(timed, clock, 59)
    assert await pushed(timed) == 5
    clock.passes(SECOND)
    turned_by_a_push(timed, clock, 30 * SECOND)
    await timed.firing.fire_due()
    await look_for(timed, clock, 39)
    assert await pushed(timed) == 6
    await look_for(timed, clock, 1)
    assert await pushed(timed) == 7


@pytest.mark.parametrize("schedule", ["* * * * *", "*/5 * * * * *", "@every 5s"])
@pytest.mark.parametrize("ahead", [90 * SECOND, 400 * DAY])
@pytest.mark.parametrize("missed", ["once", "all"])
@pytest.mark.parametrize("server", ["dies", "goes on"])
async def test_a_moment_that_a_wrong_clock_brought_and_nobody_noted_silences_nothing(
    timed: Engine, clock: Turned, schedule: str, ahead: int, missed: str, server: str
) -> None:
    await put(timed, schedule=schedule, missed=missed)
    await look_for(timed, clock, 10)
    clock.turn(clock.now + ahead + MINUTE)
    timed.firing._looked = None
    await die_between(timed)
    clock.turn(clock.now - ahead - MINUTE)
    if server == "dies":  # the next one knows nothing of what it saw
        timed.firing._seen, timed.firing._looked = 0, None
    before = await pushed(timed)
    await look_for(timed, clock, 60)
    gained = await pushed(timed) - before
    expected = 1 if schedule == "* * * * *" else 12
    # A fixed interval follows the clock that went ahead, so that its moments were missed.
    caught_up = missed == "all" and schedule.startswith("@every") and server == "goes on"
    assert expected - 1 <= gained <= (1000 if caught_up else expected) + 1


@pytest.mark.parametrize("schedule", ["* * * * *", "@every 1m"])
async def test_a_server_that_was_held_up_between_its_look_and_its_push_repeats_no_moment(
    timed: Engine, clock: Turned, schedule: str
) -> None:
    await put(timed, schedule=schedule)
    clock.turn(clock.now + DAY)  # the two clocks differ from here on
    await timed.firing.fire_due()
    clock.turn(clock.now - DAY)
    await look_for(timed, clock, 61)
    clock.passes(60 * SECOND)
    look = await timed.firing._look()
    await look_for(timed, clock, 300)
    before = await pushed(timed)
    await timed.firing._fire(look)
    assert await pushed(timed) == before


async def test_named_moments_come_again_when_the_clock_was_set_back_for_good(
    timed: Engine, clock: Turned
) -> None:
    await put(timed, schedule="* * * * *")
    await look_for(timed, clock, 31)
    clock.turn(clock.now - 10 * MINUTE)
    await look_for(timed, clock, 60)
    assert await pushed(timed) == 2


# --- what cannot be read


def tamper(engine: Engine, clock: Turned, name: str, definition: bytes | None = None, **fields: Any) -> None:
    key = f"{engine.keys.namespace}:{{:cron}}:jobs"
    if definition is None:
        definition = json.dumps(json.loads(clock.client.hget(key, name) or b"") | fields).encode()
    clock.client.hset(key, name, definition)


DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "unknown zone": ({"timezone": "Europe/Newtown"}, "Europe/Newtown"),
    "later schedule": ({"schedule": "@sometimes"}, "@sometimes"),
    "later field": ({"jitter": 5}, "jitter"),
    "later word": ({"missed": "half"}, "half"),
    "wrong type": ({"priority": "high"}, "priority"),
    "out of bounds": ({"priority": 77}, "out of bounds"),
    "wrong queue": ({"queue": "no/slash"}, "no/slash"),
    "not JSON": ({"definition": b"{"}, "damaged"),
    "not UTF-8": ({"definition": b'{"queue":"\xff"}'}, "damaged"),
    "nothing": ({"definition": b""}, "damaged"),
    "too deep": ({"definition": b"[" * 100_000}, "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("at", ["when it is due", "while it is not due"])
async def test_one_that_cannot_be_read_is_shown_told_once_and_harms_no_other(
    timed: Engine, clock: Turned, damage: str, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    fields, reason = DAMAGE[damage]
    for name in ("a", "b", "odd", "z"):
        await put(timed, name, queue=f"q{name}", schedule="@every 2s" if name == "a" else "* * * * *")
    tamper(timed, clock, "odd", **fields)
    if at == "when it is due":
        clock.passes(MINUTE)
    for _ in range(5):
        await timed.firing.fire_due()
    told = [record.getMessage() for record in caplog.records if "cron.broken" in record.getMessage()]
    assert len(told) == 1
    assert "name=odd" in told[0]
    assert reason in told[0]
    clock.passes(MINUTE)
    for _ in range(3):
        await timed.firing.fire_due()
    for name in ("a", "b", "z"):
        assert await pushed(timed, f"q{name}") > 0
    assert await pushed(timed, "qodd") == 0

    shown, more = await timed.crons.page("", 100)
    assert ([one.name for one in shown], more) == (["a", "b", "odd", "z"], False)
    assert [bool(one.broken) for one in shown] == [False, False, True, False]
    assert reason in ((await timed.crons.show("odd")).broken or "")
    with pytest.raises(WrongState, match="broken"):
        await timed.crons.resume("odd")

    await put(timed, "odd", queue="qodd")
    assert (await timed.crons.show("odd")).broken is None
    clock.passes(MINUTE)
    await timed.firing.fire_due()
    assert await pushed(timed, "qodd") == 1
    tamper(timed, clock, "odd", **fields)
    await timed.crons.remove("odd")
    with pytest.raises(NotFound):
        await timed.crons.show("odd")


async def test_what_another_server_can_read_is_left_to_it(timed: Engine, clock: Turned) -> None:
    await put(timed, schedule="* * * * *", timezone="Europe/Paris")
    due = stored_next(timed, clock)
    tamper(timed, clock, "c", timezone="Europe/Newtown")
    clock.passes(5 * MINUTE)
    await timed.firing.fire_due()
    assert stored_next(timed, clock) == due


async def test_a_body_that_is_lost_is_told(
    timed: Engine, clock: Turned, caplog: pytest.LogCaptureFixture
) -> None:
    await put(timed)
    await put(timed, "other", queue="other")
    clock.client.hdel(f"{timed.keys.namespace}:{{:cron}}:bodies", "c")
    clock.passes(MINUTE)
    for _ in range(3):
        await timed.firing.fire_due()
    assert [record.getMessage() for record in caplog.records] == [
        "cron.broken name=c reason='its body is lost'"
    ]
    assert await pushed(timed, "other") == 1
    assert (await timed.crons.show("c")).broken == "its body is lost"


async def test_a_queue_that_refuses_harms_no_other(
    timed: Engine, clock: Turned, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await timed.jobs.policy("q", {"max_length": 1})
    await put(timed)
    await put(timed, "other", queue="other", overlap="skip")
    for _ in range(2):
        clock.passes(MINUTE)
        await timed.firing.fire_due()
    assert (await pushed(timed), await pushed(timed, "other")) == (1, 1)
    told = [record.getMessage() for record in caplog.records if "cron." in record.getMessage()]
    assert sorted(line.split()[0] for line in told) == ["cron.not_pushed", "cron.skipped"]


# --- run now, pause, resume


async def test_one_that_is_run_now_keeps_its_next_moment(timed: Engine, clock: Turned) -> None:
    due = (await put(timed, schedule="@daily", priority=9)).next_at
    assert await timed.crons.fire("c") == ("q", 1)
    assert await timed.crons.fire("c") == ("q", 2)
    assert await next_at(timed) == due
    [job, _] = (await timed.jobs.page("q", JobState.READY, 10, ""))[0]
    assert (job.body, job.priority) == (b"1", 9)
    with pytest.raises(NotFound):
        await timed.crons.fire("unknown")


async def test_one_that_must_not_overlap_is_not_run_beside_the_job_before(
    timed: Engine, clock: Turned
) -> None:
    await put(timed, overlap="skip")
    await timed.crons.fire("c")
    with pytest.raises(JobExists):
        await timed.crons.fire("c")


async def test_one_whose_zone_is_unknown_can_be_run_and_one_that_is_damaged_says_why(
    timed: Engine, clock: Turned
) -> None:
    await put(timed)
    tamper(timed, clock, "c", timezone="Europe/Newtown")
    assert await timed.crons.fire("c") == ("q", 1)
    tamper(timed, clock, "c", b"{")
    with pytest.raises(WrongState, match="damaged"):
        await timed.crons.fire("c")


@pytest.mark.parametrize("schedule", ["* * * * *", "@every 60s"])
async def test_one_that_is_paused_pushes_nothing_until_it_is_resumed(
    timed: Engine, clock: Turned, schedule: str
) -> None:
    await put(timed, schedule=schedule, missed="all")
    for _ in range(2):
        paused = await timed.crons.pause("c")
        assert (paused.paused_at, paused.next_at) == (clock.now, None)
    for _ in range(5):
        clock.passes(MINUTE)
        await timed.firing.fire_due()
    assert await pushed(timed) == 0
    await put(timed, schedule=schedule, missed="all", priority=9)
    assert (await timed.crons.show("c")).paused_at is not None
    assert await timed.crons.fire("c") == ("q", 1)
    for _ in range(2):
        resumed = await timed.crons.resume("c")
        assert resumed.paused_at is None
        assert resumed.next_at is not None
        assert clock.now < resumed.next_at <= clock.now + MINUTE
    clock.passes(MINUTE)
    await timed.firing.fire_due()
    assert await pushed(timed) == 2
    for call in (timed.crons.pause, timed.crons.resume):
        with pytest.raises(NotFound):
            await call("unknown")


async def test_one_that_is_paused_while_it_is_fired_stays_so(timed: Engine, clock: Turned) -> None:
    await put(timed)
    clock.passes(MINUTE)
    push = timed.firing._push

    def pausing(*args: Any) -> None:
        clock.client.fcall(f"{library.NAME}_cron_pause", len(timed.keys.crons()), *timed.keys.crons(), "c")
        push(*args)

    timed.firing._push = pausing
    await timed.firing.fire_due()
    await timed.firing.fire_due()
    assert (await timed.crons.show("c")).paused_at is not None
    assert stored_next(timed, clock) is None


# --- lists


async def test_a_list_comes_in_pages_by_name_bounded_in_bytes(timed: Engine, clock: Turned) -> None:
    names = sorted(f"c{number}" for number in range(25))
    for name in names:
        await put(timed, name, body=b"1" * 600 * 1024 if name < "c13" else b"1")

    async def walk(limit: int) -> list[list[str]]:
        pages, after, more = [], "", True
        while more:
            shown, more = await timed.crons.page(after, limit)
            pages.append([one.name for one in shown])
            after = pages[-1][-1]
        return pages

    for limit in (1, 7, 100):
        pages = await walk(limit)
        assert [name for page in pages for name in page] == names
        assert all(len(page) <= limit for page in pages)
    assert [len(page) for page in await walk(100)] == [3, 22], "2 MiB at most"


async def test_there_are_a_thousand_at_most(timed: Engine, clock: Turned) -> None:
    for number in range(1000):
        await timed.crons.put(f"c{number}", Cron(queue="q", schedule="@daily"), b"1")
    with pytest.raises(CallerError, match="1000 recurring jobs"):
        await put(timed, "more")
    await put(timed, "c5", schedule="@hourly")
