"""Recurring jobs: what is defined, and firing it once, whatever number of servers run.

Every server looks once a second, in one call, for what is due. Whoever finds it pushes the job with an
Idempotency-Key made of the name and the moment, and only then moves the next moment on, if it is still the
one that was found. So two servers push one job, and a server that dies in between leaves the rest to the
others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from presque import codec
from presque.engine import library
from presque.engine.keys import Keys
from presque.errors import CallerError, JobExists, NotFound, PresqueError, StoreUnavailable
from presque.job import PushOptions
from presque.schedule import Schedule
from presque.store.store import Store

log = logging.getLogger("presque.engine")

LOOK_S = 1.0
DUE_A_CALL = 50
FIRE_MOST = 1000
LATE_MS = 60_000

Push = Callable[[str, Sequence[bytes], PushOptions], Awaitable[Any]]


class Cron(codec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A recurring job, as it is stored. Times are seconds.

    `missed` says what becomes of moments at which no server ran, `overlap` whether a job is pushed while the
    one before is not finished.
    """

    queue: str
    body: str
    schedule: str
    timezone: str = "UTC"
    missed: str = "once"
    overlap: str = "allow"
    priority: int = 5
    ttl: float | None = None
    attempts: int | None = None
    keep: int | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A recurring job and its moments, in milliseconds since the epoch. `now` is the store's time."""

    name: str
    cron: Cron
    next_at: int | None
    fired_at: int | None
    now: int


class Crons:
    """The recurring jobs of one namespace."""

    def __init__(self, store: Store, keys: Keys, push: Push) -> None:
        self._store = store
        self._keys = keys.crons()
        self._push = push

    async def put(self, name: str, cron: Cron) -> bool:
        """Define a recurring job. True if it is new. The same schedule keeps its next moment."""
        before = await self._find(name)
        now = int((await self._call("cron_show", name))[0])
        schedule = Schedule(cron.schedule, cron.timezone)
        following = schedule.next(now)
        if not following:
            raise CallerError("`schedule` has no moment in the future")
        same = before is not None and (before.schedule, before.timezone) == (cron.schedule, cron.timezone)
        reply = await self._call("cron_put", name, codec.encode(cron), following[0], int(same))
        if reply == b"full":
            raise CallerError("there are 1000 recurring jobs already, which is the most; delete some")
        return bool(reply)

    async def remove(self, name: str) -> None:
        """Forget a recurring job. Raises `NotFound`."""
        if not await self._call("cron_remove", name):
            raise NotFound(f"there is no recurring job `{name}`")

    async def show(self, name: str) -> Shown:
        """One recurring job. Raises `NotFound`."""
        found = _shown(await self._call("cron_show", name))
        if not found:
            raise NotFound(f"there is no recurring job `{name}`")
        return found[0]

    async def all(self) -> list[Shown]:
        """All recurring jobs, by name."""
        return sorted(_shown(await self._call("cron_show")), key=lambda one: one.name)

    async def run(self) -> None:
        """Fire what is due, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.fire_due()
            except StoreUnavailable:
                pass  # it is logged where the connection is kept, and the next second comes
            except PresqueError as error:
                log.warning("cron.failed reason=%r", str(error))

    async def fire_due(self) -> None:
        """Push the jobs of all moments that have come."""
        now, *found = await self._call("cron_due", DUE_A_CALL)
        for name, packed, moment in zip(found[::3], found[1::3], found[2::3], strict=True):
            if packed:
                await self._fire(name.decode(), codec.decode_as(packed, Cron), int(float(moment)), int(now))

    async def _fire(self, name: str, cron: Cron, first: int, now: int) -> None:
        moments, following = Schedule(cron.schedule, cron.timezone).due(first, now, FIRE_MOST)
        if cron.missed != "all":
            moments = moments[-1:]
        if cron.missed == "skip":
            moments = [moment for moment in moments if now - moment <= LATE_MS]
        for moment in moments:
            try:
                await self._push(cron.queue, [cron.body.encode()], _options(name, cron, moment))
            except JobExists:
                log.info("cron.skipped name=%s queue=%s", name, cron.queue)
            except StoreUnavailable:
                raise
            except PresqueError as error:
                log.warning("cron.not_pushed name=%s queue=%s reason=%r", name, cron.queue, str(error))
        told = "" if following is None else following
        await self._call("cron_advance", name, first, told, int(bool(moments)))

    async def _find(self, name: str) -> Cron | None:
        try:
            return (await self.show(name)).cron
        except NotFound:
            return None

    async def _call(self, name: str, *args: str | bytes | int) -> Any:
        return await self._store.ask(library.call(name, self._keys, *args))


def _options(name: str, cron: Cron, moment: int) -> PushOptions:
    key = f"cron:{name}:{moment}"
    skip = cron.overlap == "skip"
    return PushOptions(
        priority=cron.priority,
        ttl=None if cron.ttl is None else int(cron.ttl * 1000),
        attempts=cron.attempts,
        keep=cron.keep,
        uniq=f"cron:{name}" if skip else None,
        uniq_until="done" if skip else "fetch",
        group=cron.group,
        idempotency=key,
        fingerprint=key,
    )


def _shown(reply: Sequence[Any]) -> list[Shown]:
    now, *flat = reply
    return [
        Shown(
            name.decode(),
            codec.decode_as(packed, Cron),
            int(float(following)) if following else None,
            int(fired) if fired else None,
            int(now),
        )
        for name, packed, following, fired in zip(*(flat[n::4] for n in range(4)), strict=True)
    ]
