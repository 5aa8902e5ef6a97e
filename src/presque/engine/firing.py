"""Firing recurring jobs: each moment once, whatever number of servers run.

Every server looks once a second, in one call, for what is due. It pushes a job for each moment, and only then
notes the next moment, if the one that was found is still there. The queue remembers the last moment that was
pushed and takes none up to it again. So two servers push one job, and a server that dies in between leaves
the rest to the others. That takes one field of the queue for each recurring job; an Idempotency-Key for each
moment, kept for a day, would take some 300 MB for a thousand recurring jobs of one minute.

Much work at once, such as a thousand jobs of the same minute, is done in bundles: the pushes of many
recurring jobs are under way together, and one call notes all of their next moments. Long work, such as a
thousand missed moments of one job, is done in pieces, and jobs that are late wait for those on time. Between
the pieces the event loop serves its other callers; see slices.py.

Clocks. Schedules that name moments follow the store's clock. A next moment that is later than the schedule's
next moment from now on can only come from a clock that was wrong, so each look also examines some recurring
jobs that are not due, and all of them once the store's clock went back, and corrects what it finds. Fixed
intervals follow a clock that never goes back (see lua/cron.lua).

A recurring job that cannot be read, or whose time zone this server does not know, is broken here: it is left
as it is, since another server may be able to read it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import msgspec

from presque import names
from presque.engine import calls, recurring
from presque.engine.keys import CRONS, Keys
from presque.engine.recurring import LOST_BODY, Broken, Cron, Record
from presque.engine.slices import Slice
from presque.errors import CallerError, JobExists, PresqueError, StoreUnavailable
from presque.job import PushOptions
from presque.schedule import Schedule
from presque.store.store import Store

log = logging.getLogger("presque.engine")

LOOK_S = 1.0
FIRE_MOST = 1000  # moments that one recurring job catches up with
PUSHED_AT_ONCE = 200
PIECE = 20  # moments of one recurring job that are pushed at once
CATCH_UP_S = 1.0  # of a look, after which what is left waits for the next
EXAMINED_A_LOOK = 100
EXAMINED_MOST = 1000
ADVANCED_A_CALL = 200
RECENT_MOST = 60  # moments of one recurring job that a late look makes up for
BODIES_BYTES = 4 * 1024 * 1024
LATE_MS = 60_000
LEAP_MS = 2_000

Push = Callable[[str, bytes, PushOptions, Callable[[int | PresqueError], None]], None]


class Due(msgspec.Struct, frozen=True):
    """What is to be done for one recurring job: moments to push, and its next moment afterwards.

    `more` says that other missed moments come after these.
    """

    record: Record
    cron: Cron
    kind: str
    moments: list[int]
    following: int | None
    more: bool = False


class Look(msgspec.Struct, frozen=True):
    """What a look at the store found: the store's time and the steady one, and our own (seconds).

    `others` are not due, and are looked at to see whether they are right.
    """

    now: int
    steady: int
    ours: float
    due: list[Record]
    others: list[Record]

    def time(self, steady: bool) -> int:
        """The time by which a schedule goes."""
        return self.steady if steady else self.now


class Firing:
    """Pushes the recurring jobs of one namespace when their moments come."""

    def __init__(self, store: Store, keys: Keys, push: Push) -> None:
        self._store = store
        self._keys = keys.crons()
        self._call = calls.OnKeys(store, CRONS, self._keys)
        self._push = push
        self._loop = asyncio.get_running_loop()
        self._ours = self._loop.time
        self._seen = 0  # how far the steady clock went, as far as we know
        self._looked: Look | None = None  # the last one whose jobs were all pushed
        self._turn = asyncio.Lock()
        self._cursor = b"0"
        self._examine = EXAMINED_A_LOOK
        self._told: dict[str, str] = {}  # what was said of broken ones
        self._oldest: dict[str, tuple[bytes, int]] = {}  # where those that catch up began

    async def run(self) -> None:
        """Push what is due, until cancelled."""
        await asyncio.sleep(random.random() * LOOK_S)  # noqa: S311 (so that servers do not look all at once)  # nosec B311
        said = ""
        while True:
            began = self._loop.time()
            try:
                await self.fire_due()
                said = ""
            except StoreUnavailable:
                pass  # it is logged where the connection is kept, and the next second comes
            except PresqueError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("cron.failed reason=%r", said)
            await asyncio.sleep(max(0.0, began + LOOK_S - self._loop.time()))

    async def fire_due(self) -> Look:
        """Push the jobs of all moments that have come, and correct next moments that cannot be."""
        async with self._turn:
            look = await self._look()
            before = self._looked
            if before is not None and look.now < before.now:  # all are examined at the next look
                self._cursor, self._examine = b"0", EXAMINED_MOST
            await self._correct(look)
            await self._fire(look)
            self._looked = look
            return look

    async def next_moment(self, look: Look) -> int | None:
        """The next moment of any recurring job after a look, by the store's clock (ms)."""
        _, _, due, steady, *_ = self._keys
        found = []
        for key, now in ((due, look.now), (steady, look.steady)):
            after = ("ZRANGEBYSCORE", key, f"({now}", "+inf", "WITHSCORES", "LIMIT", 0, 1)
            found += [int(score) - now + look.now for _, score in await self._store.call(CRONS, *after)]
        return min(found, default=None)

    async def _look(self) -> Look:
        reply = await self._call("cron_look", self._seen, self._cursor, self._examine)
        self._examine = EXAMINED_A_LOOK
        now, steady = recurring.clocks(reply)
        self._seen, self._cursor = steady, reply[2]
        records = [recurring.read_record(reply[at : at + 5]) for at in range(4, len(reply), 5)]
        found = Look(now, steady, self._ours(), records[: reply[3]], records[reply[3] :])
        if not records:
            self._told.clear()
        return found

    async def _correct(self, look: Look) -> None:
        """Set right the next moments that only a clock that was wrong can have brought about."""
        wrong: list[str | bytes | int] = []
        names_of: list[str] = []
        clock = Slice()
        for record in look.others:
            await clock.breathe()
            understood = self._understood(record)
            if understood is None or record.paused_at is not None:
                continue
            wanted = understood[1]
            if recurring.is_right(record, wanted, look.time(wanted.steady)):
                continue
            following = wanted.next(look.time(wanted.steady))
            told = following[0] if following else ""
            # Moments do not grow if one was pushed too early, or if the schedule goes by another clock.
            anticipated = record.kind != recurring.kind(wanted) or (
                record.fired_at is not None and record.fired_at > look.now
            )
            wrong += (record.name, record.score, recurring.kind(wanted), told, "era" if anticipated else "")
            names_of.append(record.name)
        for first in range(0, len(wrong), 5 * ADVANCED_A_CALL):
            await self._call("cron_advance", *wrong[first : first + 5 * ADVANCED_A_CALL])
        if names_of:
            log.warning("cron.corrected count=%d name=%s", len(names_of), names_of[0])

    async def _fire(self, look: Look) -> None:
        """Push what is due: a piece of each, those on time first, then what is left, for a while."""
        began = self._loop.time()
        since = self._since(look)
        waiting = sorted(
            look.due, key=lambda record: -(record.next_at or 0) + look.time(record.kind == "steady")
        )
        while waiting:
            left: list[Record] = []
            bundle: list[Due] = []
            clock = Slice()
            for record in waiting:
                await clock.breathe()
                due = self._prepare(record, look, since)
                if due is not None:
                    bundle.append(due)
                if (
                    sum(len(one.moments) for one in bundle) >= PUSHED_AT_ONCE
                    or len(bundle) >= ADVANCED_A_CALL
                ):
                    left += await self._push_all(bundle, look)
                    bundle = []
            left += await self._push_all(bundle, look)
            if self._loop.time() >= began + CATCH_UP_S:
                return
            waiting = left

    def _since(self, look: Look) -> dict[bool, int] | None:
        """Up to where moments were looked for before, by each clock: those that come later were not missed,
        however late this look is. None if nobody here has looked within the last minute."""
        before = self._looked
        if before is None:
            return None
        gap = round((look.ours - before.ours) * 1000)
        if gap > LATE_MS:
            return None
        found = {}
        for steady in (False, True):
            then, now = before.time(steady), look.time(steady)
            leapt = abs(now - then - gap) > LEAP_MS
            found[steady] = now - gap if leapt else then
        return found

    def _prepare(self, record: Record, look: Look, since: dict[bool, int] | None) -> Due | None:
        """Which moments of a recurring job to push now. None for one that cannot be read."""
        understood = self._understood(record)
        if understood is None:
            return None
        cron, wanted = understood
        kind, now, first = recurring.kind(wanted), look.time(wanted.steady), record.next_at
        following = next(iter(wanted.next(now)), None)
        if first is None or first < 0 or kind != record.kind:  # no version of presque writes that
            return Due(record, cron, kind, [], following)
        if cron.missed == "all":
            packed, start = self._oldest.get(record.name, (b"", 0))
            if packed != record.packed:
                start = wanted.missed(first, now, FIRE_MOST)[0]
                self._oldest[record.name] = (record.packed, start)
            first = max(first, start)
            moments = [first, *(moment for moment in wanted.next(first, PIECE) if moment <= now)]
            if len(moments) > PIECE:
                return Due(record, cron, kind, moments[:PIECE], moments[PIECE], more=True)
            self._oldest.pop(record.name, None)
            return Due(record, cron, kind, moments, following)
        moments = wanted.missed(first, now, 1)
        if since is not None and first < moments[0] and moments[0] > since[wanted.steady]:
            late = wanted.missed(first, now, RECENT_MOST)
            moments = [moment for moment in late if moment > since[wanted.steady]]
        if cron.missed == "skip":
            moments = [moment for moment in moments if now - moment <= LATE_MS]
        return Due(record, cron, kind, moments, following)

    async def _push_all(self, bundle: list[Due], look: Look) -> list[Record]:
        """Push all of these moments, and note the next ones. Returns those of which more is to be pushed."""
        left: list[Record] = []
        while bundle:
            bodies = await self._call("cron_bodies", BODIES_BYTES, *(due.record.name for due in bundle))
            some, bundle = bundle[: len(bodies)], bundle[len(bodies) :]
            sent: list[tuple[Due, asyncio.Future[list[int | PresqueError]]]] = []
            for due, body in zip(some, bodies, strict=True):
                ahead = look.time(due.kind == "steady") - look.now
                if body is None:
                    self._tell_broken(due.record.name, LOST_BODY)
                    continue
                sent.append((due, asyncio.ensure_future(self._push_in_order(due, body, ahead))))
            trouble: StoreUnavailable | None = None
            notes: list[str | bytes | int] = []
            for due, pushed in sent:
                for result in await pushed:
                    if isinstance(result, StoreUnavailable):
                        trouble = result
                    elif isinstance(result, JobExists):
                        log.info("cron.skipped name=%s queue=%s", due.record.name, due.cron.queue)
                    elif isinstance(result, PresqueError):
                        self._tell_not_pushed(due, result)
                following = b"" if due.following is None else str(due.following).encode()
                # By the clock of the look: it may have been set back since, and these be too early.
                why = str(look.now) if due.moments else "era"
                notes += (due.record.name, due.record.score, due.kind, following, why)
                if due.more:
                    left.append(msgspec.structs.replace(due.record, score=following, kind=due.kind))
            if trouble is not None:  # the next look finds them again, and no job is pushed twice
                raise trouble
            if notes:
                await self._call("cron_advance", *notes)
        return left

    async def _push_in_order(self, due: Due, body: bytes, ahead: int) -> list[int | PresqueError]:
        """Push the moments of one recurring job one after the other: a moment that the store did not get must
        not be overtaken, since it would count as pushed."""
        found: list[int | PresqueError] = []
        for moment in due.moments:
            options = recurring.push_options(
                due.record.name, due.cron, recurring.stamp(due.record.era, moment), ahead
            )
            found.append(await self.send(due.cron.queue, body, options))
            if isinstance(found[-1], StoreUnavailable):
                break
        return found

    def send(self, queue: str, body: bytes, options: PushOptions) -> asyncio.Future[int | PresqueError]:
        sent: asyncio.Future[int | PresqueError] = self._loop.create_future()

        def done(result: int | PresqueError) -> None:
            if not sent.done():
                sent.set_result(result)

        self._push(queue, body, options, done)
        return sent

    def _tell_not_pushed(self, due: Due, error: PresqueError) -> None:
        log.warning("cron.not_pushed name=%s queue=%s reason=%r", due.record.name, due.cron.queue, str(error))

    def _understood(self, record: Record) -> tuple[Cron, Schedule] | None:
        """What a record means; None if it cannot be read, which is logged once."""
        try:
            names.queue(record.name, "recurring job")
            found = recurring.understand(record.packed)
        except (Broken, CallerError) as broken:
            self._tell_broken(record.name, str(broken))
            return None
        if record.name in self._told and self._told[record.name] != LOST_BODY:
            del self._told[record.name]
        return found

    def _tell_broken(self, name: str, why: str) -> None:
        if self._told.get(name) != why:
            self._told[name] = why
            log.warning("cron.broken name=%s reason=%r", name, why)
