"""Recurring jobs are fired once, whatever number of servers run and whenever one dies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from presque.engine.cron import Cron
from presque.engine.engine import Engine
from presque.job import PushOptions
from presque.store.address import Address
from tests import rig

HOUR_MS = 3600 * 1000


async def overdue(engine: Engine, hours: int, **fields: Any) -> int:
    """Define an hourly job and put its next moment so many hours back. Returns that moment."""
    await engine.crons.put("c", Cron(queue="q", body="1", schedule="@hourly", **fields))
    shown = await engine.crons.show("c")
    assert shown.next_at is not None
    moment = shown.next_at - hours * HOUR_MS
    await engine.store.call("ZADD", engine.keys.crons()[1], str(moment), "c")
    return moment


async def pushed(engine: Engine) -> int:
    [stats] = await engine.stats(["q"])
    return stats.ready


@pytest.mark.parametrize(
    ("missed", "hours", "expected"),
    [("once", 3, 1), ("all", 3, 3), ("once", 1, 1), ("all", 1, 1)],
)
async def test_what_was_missed_is_fired_as_it_is_asked_for(
    engine: Engine, missed: str, hours: int, expected: int
) -> None:
    await overdue(engine, hours, missed=missed)
    await engine.crons.fire_due()
    await engine.crons.fire_due()
    assert await pushed(engine) == expected
    shown = await engine.crons.show("c")
    assert shown.next_at is not None
    assert shown.next_at > shown.now


async def test_what_was_missed_for_more_than_a_minute_can_be_left_out(engine: Engine) -> None:
    await engine.crons.put("c", Cron(queue="q", body="1", schedule="@every 1d", missed="skip"))
    now = (await engine.crons.show("c")).now
    for late, expected in ((120_000, 0), (1_000, 1)):
        await engine.store.call("ZADD", engine.keys.crons()[1], str(now - late), "c")
        await engine.crons.fire_due()
        assert await pushed(engine) == expected


async def test_many_servers_fire_once(engine: Engine, store: rig.Store) -> None:
    others = [Engine(Address(unix=store.socket), engine.keys.namespace) for _ in range(4)]
    for other in others:
        await other.start()
    try:
        for _ in range(10):
            await overdue(engine, 2, missed="all")
            await asyncio.gather(*(one.crons.fire_due() for one in [engine, *others]))
        assert await pushed(engine) == 2, "ten times the same two moments"
    finally:
        for other in others:
            await other.stop()


class Killed(Exception):
    """In place of a server that dies."""


async def test_a_server_that_dies_before_it_noted_the_moment_leaves_no_second_job(engine: Engine) -> None:
    await overdue(engine, 1)
    await die_between(engine)
    await engine.crons.fire_due()
    assert await pushed(engine) == 1


async def test_without_the_key_of_the_moment_it_would(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presque.engine.cron._options", lambda *_: PushOptions())
    await overdue(engine, 1)
    await die_between(engine)
    await engine.crons.fire_due()
    assert await pushed(engine) == 2


async def die_between(engine: Engine) -> None:
    """Fire, but die between the push and the note that it was done."""
    call = engine.crons._call

    async def dies(name: str, *args: str | bytes | int) -> Any:
        if name == "cron_advance":
            raise Killed
        return await call(name, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.crons, "_call", dies)
        with pytest.raises(Killed):
            await engine.crons.fire_due()
