"""Recurring jobs, for those who define them, look at them, and say when they run. See firing.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from presque import codec, schedule
from presque.engine import calls, recurring
from presque.engine.firing import Firing
from presque.engine.keys import CRONS, Keys
from presque.engine.recurring import LOST_BODY, Broken, Cron, Outcome, Shown
from presque.engine.slices import Slice
from presque.errors import CallerError, PresqueError, StoreError
from presque.store.disk import Disk
from presque.store.store import Store

LIST_BYTES = 2 * 1024 * 1024


class Crons:
    """The recurring jobs of one namespace."""

    def __init__(self, store: Store, keys: Keys, firing: Firing, disk: Disk) -> None:
        self._store = store
        self._keys = keys
        self._call = calls.OnKeys(store, CRONS, keys.crons())
        self._firing = firing
        self._disk = disk
        self.on_defined: list[Callable[[], None]] = []
        """Called when one was defined."""

    async def put(self, name: str, cron: Cron, body: bytes) -> bool:
        """Define a recurring job. True if it is new. The same schedule keeps its next moment."""
        wanted = schedule.read(cron.schedule, cron.timezone)
        if self._disk.full:
            raise self._disk.refusal()
        reply = await self._call("cron_show", name)
        now, steady = recurring.clocks(reply)
        following = wanted.next(steady if wanted.steady else now)
        if not following:
            raise CallerError("`schedule` has no moment in the future")
        same = False
        if len(reply) > 2:
            try:
                before = recurring.decode(recurring.read_record(reply[2:7]).packed)
                same = (before.schedule, before.timezone) == (cron.schedule, cron.timezone)
            except Broken:
                pass
        else:  # what jobs of a namesake came to is not for this one
            await self._store.call(cron.queue, "HDEL", self._keys.recurred(cron.queue), name)
        answer = await self._call(
            "cron_put", name, codec.encode(cron), body, recurring.kind(wanted), following[0], int(same)
        )
        if answer == b"full":
            raise CallerError("there are 1000 recurring jobs already, the maximum; delete some")
        for hear in self.on_defined:
            hear()
        return bool(answer)

    async def remove(self, name: str) -> None:
        """Forget a recurring job. Raises `NotFound`."""
        if not await self._call("cron_remove", name):
            raise recurring.missing(name)

    async def show(self, name: str) -> Shown:
        """One recurring job. Raises `NotFound`."""
        [shown] = await self._with_outcomes([self._show(await self._read(name))])
        return shown

    async def page(self, after: str, limit: int) -> tuple[list[Shown], bool]:
        """Some recurring jobs by name, those after the name `after`, and whether there are more.

        A page may hold fewer than `limit`: 2 MiB of bodies are the most.
        """
        reply = await self._call("cron_list", after, limit, LIST_BYTES)
        found, clock = [], Slice()
        for at in range(3, len(reply), 6):
            found.append(self._show([*reply[:2], *reply[at : at + 6]]))
            await clock.breathe()
        return await self._with_outcomes(found), reply[2] == b"1"

    async def fire(self, name: str) -> tuple[str, int]:
        """Push the job of a recurring job now, in addition to its moments. Returns the queue and the job's
        id.

        Raises `NotFound`, `WrongState` for one that cannot be read, and what a push raises.
        """
        reply = await self._read(name)
        record, body = recurring.read_record(reply[2:7]), bytes(reply[7])
        try:
            cron, _ = recurring.understand(record.packed)
        except Broken as broken:
            if broken.cron is None or not body:
                raise recurring.broken(name, broken) from None
            cron = broken.cron
        result = await self._firing.send(cron.queue, body, recurring.push_options(name, cron))
        if isinstance(result, PresqueError):
            raise result
        return cron.queue, result

    async def pause(self, name: str) -> Shown:
        """Push nothing more of a recurring job until it is resumed. Raises `NotFound`."""
        if not await self._call("cron_pause", name):
            raise recurring.missing(name)
        return await self.show(name)

    async def resume(self, name: str) -> Shown:
        """Go on with a recurring job from its next moment on. Raises `NotFound`, and `WrongState` for one
        that cannot be read."""
        reply = await self._read(name)
        now, steady = recurring.clocks(reply)
        try:
            _, wanted = recurring.understand(recurring.read_record(reply[2:7]).packed)
        except Broken as broken:
            raise recurring.broken(name, broken) from None
        following = wanted.next(steady if wanted.steady else now)
        await self._call("cron_pause", name, recurring.kind(wanted), following[0] if following else "")
        return await self.show(name)

    async def _with_outcomes(self, shown: list[Shown]) -> list[Shown]:
        """The same, each with its outcome: they lie beside the jobs, so each queue is asked for its own."""
        by_queue: dict[str, list[str]] = {}
        for one in shown:
            if one.cron is not None:
                by_queue.setdefault(one.cron.queue, []).append(one.name)
        replies = await asyncio.gather(
            *(
                self._store.call(queue, "HMGET", self._keys.recurred(queue), *some)
                for queue, some in by_queue.items()
            ),
            return_exceptions=True,
        )
        found: dict[str, Outcome | None] = {}
        for some, reply in zip(by_queue.values(), replies, strict=True):
            if isinstance(reply, StoreError):
                continue  # that key of the queue is spoilt: nobody knows
            if isinstance(reply, BaseException):
                raise reply
            found.update(zip(some, map(recurring.read_outcome, reply), strict=True))
        return [msgspec.structs.replace(one, outcome=found.get(one.name)) for one in shown]

    async def _read(self, name: str) -> Sequence[Any]:
        reply: Sequence[Any] = await self._call("cron_show", name)
        if len(reply) == 2:
            raise recurring.missing(name)
        return reply

    def _show(self, reply: Sequence[Any]) -> Shown:
        """What `cron_show` replied, with the next moment as it will be corrected."""
        now, steady = recurring.clocks(reply)
        record, body = recurring.read_record(reply[2:7]), bytes(reply[7])
        cron, wanted, why = None, None, None
        try:
            cron, wanted = recurring.understand(record.packed)
            if not body:
                why = LOST_BODY
        except Broken as broken:
            cron, why = broken.cron, str(broken)
        next_at = None
        if wanted is not None and record.paused_at is None:
            its_now = steady if wanted.steady else now
            if recurring.is_right(record, wanted, its_now):
                next_at = record.next_at
            else:
                next_at = next(iter(wanted.next(its_now)), None)
            if next_at is not None and wanted.steady:
                next_at -= steady - now
        return Shown(record.name, cron, wanted, why, body, next_at, record.fired_at, record.paused_at, now)
