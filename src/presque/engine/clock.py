"""The clock of a server for tests: it can be moved, and what depends on time follows at once.

Theory of operation: each function of the store reads its clock once, through a name that lua/clock.lua gives
another meaning. So delays, leases, backoff, ttls, kept jobs, idempotency windows and the silence of workers
need nothing more. What a server does by a timer of its own is done here after each move: the sweep of the
queues, the moments of recurring jobs, the waits of requests, the end of access tokens.

A clock that is moved forward passes the moments of recurring jobs one after the other, as if a server had
been running all the time: each is pushed at its moment. Other moments need no stop: what was due meanwhile is
ready, in its order, whenever the sweep comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from presque.engine import calls
from presque.engine.access import Access
from presque.engine.firing import Firing
from presque.engine.jobs import Jobs
from presque.engine.keys import REGISTRY
from presque.engine.sweeper import Sweeper
from presque.engine.taking import Taking
from presque.errors import CallerError, NoTestClock
from presque.schedule import LAST_MS
from presque.store.store import Store

log = logging.getLogger("presque.engine")

STOPS_MOST = 1000  # moments of recurring jobs in one move; those after them count as missed


class Time(msgspec.Struct, frozen=True):
    """What the clock shows, and by how much it is ahead of the real time: milliseconds."""

    now: int
    ahead: int


class Timed(Protocol):
    """Where time does something by a timer of this server: an engine."""

    sweeper: Sweeper
    firing: Firing
    taking: Taking
    jobs: Jobs


class Clock:
    """The clock of a store, and of all namespaces in it that this server knows. `on_move` are called after
    each move."""

    def __init__(self, store: Store, access: Access, own: Timed, *, movable: bool) -> None:
        self._store = store
        self._access = access
        self._own = own
        self._movable = movable
        self._turn = asyncio.Lock()
        self.others: Callable[[], Iterable[Timed]] = tuple
        """The namespaces beside the server's own."""
        self.on_move: list[Callable[[], None]] = []

    @property
    def ahead_s(self) -> float:
        """How many seconds the clock is ahead of the real time."""
        return self._access.ahead_ms / 1000

    async def show(self) -> Time:
        """What the clock shows. Raises `NoTestClock`."""
        return await self._ask()

    async def move(self, *, to: int | None = None, by: int = 0) -> Time:
        """Move the clock to a moment, or forward by this much (ms).

        When this returns what has become due is ready, what has ended has ended, and recurring jobs are
        pushed. Raises `NoTestClock`, and `CallerError` for a moment that no clock shows.
        """
        async with self._turn:
            before = await self._ask()
            until = before.now + by if to is None else to
            if until > LAST_MS:
                raise CallerError("the clock cannot go beyond the year 9999")
            await self._pass_moments(until)
            if to is None:
                after = await self._ask("ahead", before.ahead + by)
            else:
                after = await self._ask("to", to)
            await self._settle()
            if after.ahead < before.ahead:  # only a second look finds what was noted for a later moment
                await self._settle()
            seconds = (after.ahead - before.ahead) / 1000
            for one in self._all():
                await one.taking.moved(seconds)
                one.jobs.moved(seconds)
            for hear in self.on_move:
                hear()
            log.info("clock.moved ahead=%.3f", after.ahead / 1000)
            return await self._ask()

    def connected(self) -> None:
        """The store was reached again. If it is another process, its clock shows the real time again."""
        if self._movable and self._access.ahead_ms:
            call = calls.encode("move_clock", (), "ahead", self._access.ahead_ms)
            self._store.send(REGISTRY, call, calls.ignore)

    async def _ask(self, *args: str | int) -> Time:
        if not self._movable:
            raise NoTestClock
        now, ahead = await self._store.ask(REGISTRY, calls.encode("move_clock", (), *args))
        found = Time(int(now), int(ahead))
        self._access.ahead_ms = found.ahead
        return found

    def _all(self) -> list[Timed]:
        return [self._own, *self.others()]

    async def _pass_moments(self, until: int) -> None:
        """Stop at the moments of recurring jobs on the way, as many as there may be."""
        moment = await self._settle()
        for _ in range(STOPS_MOST):
            if moment is None or moment > until:
                return
            await self._ask("to", moment)
            moment = await self._settle()

    async def _settle(self) -> int | None:
        """Let time do its work at this moment. Returns the next moment of a recurring job."""
        moments = []
        for one in self._all():
            await one.sweeper.sweep_all()
            moments.append(await one.firing.next_moment(await one.firing.fire_due()))
        return min((moment for moment in moments if moment is not None), default=None)
