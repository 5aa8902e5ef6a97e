"""Recurring jobs: what is defined, and firing it once, whatever number of servers run.

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
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from presque import codec, names, schedule
from presque.engine import calls
from presque.engine.keys import CRONS, Keys
from presque.engine.slices import Slice
from presque.errors import (
    CallerError,
    JobExists,
    NotFound,
    PresqueError,
    StoreError,
    StoreUnavailable,
    WrongState,
    shown,
)
from presque.job import PushOptions
from presque.schedule import LAST_MS, Schedule
from presque.store.disk import Disk
from presque.store.store import Store
from presque.verbs.bounds import OUTCOMES, PRIORITY_MOST

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
LIST_BYTES = 2 * 1024 * 1024
LATE_MS = 60_000
SET_BACK_MS = 60_000  # a clock that was set back by less brings no moment again
LEAP_MS = 2_000
ATTEMPTS_MOST = 1000
KEY_MOST = 255
LOST_BODY = "its body is lost"
MISSED = ("skip", "once", "all")
OVERLAP = ("allow", "skip")

Push = Callable[[str, bytes, PushOptions, Callable[[int | PresqueError], None]], None]


class Cron(codec.Struct, frozen=True, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """A recurring job, as it is stored beside its body. Times are seconds, `ttl` milliseconds.

    `missed` says what becomes of moments at which no server ran, `overlap` whether a job is pushed while the
    one before is not finished.
    """

    queue: str
    schedule: str
    timezone: str = "UTC"
    missed: str = "once"
    overlap: str = "allow"
    priority: int = 5
    ttl: int | None = None
    attempts: int | None = None
    keep: int | None = None
    group: str | None = None


class Broken(Exception):
    """A recurring job cannot be read; the text says why. `cron` is what could be read."""

    def __init__(self, reason: str, cron: Cron | None = None) -> None:
        super().__init__(reason)
        self.cron = cron


class Record(msgspec.Struct, frozen=True):
    """A recurring job as the store holds it. Moments are milliseconds.

    `score` is the next moment as the store writes it, b"" for none; `kind` the clock that it is of.
    """

    name: str
    packed: bytes
    score: bytes
    kind: str
    era: str
    fired_at: int | None
    paused_at: int | None

    @property
    def next_at(self) -> int | None:
        """The next moment; None if there is none, or none that can be."""
        if not self.score:
            return None
        score = float(self.score)
        return int(score) if -LAST_MS <= score <= 2 * LAST_MS else None


class Outcome(msgspec.Struct, frozen=True):
    """How a job ended that a recurring job pushed: a word of `OUTCOMES`, when (ms), and why it is dead."""

    word: str
    at: int
    id: str
    error: str


class Shown(msgspec.Struct, frozen=True):
    """A recurring job for those who look. Moments are milliseconds since the epoch; `now` is the store's.

    `cron` and `schedule` are None where they cannot be read, and `broken` says why; `body` is empty if it is
    lost. `outcome` is how its job ended that ended last.
    """

    name: str
    cron: Cron | None
    schedule: Schedule | None
    broken: str | None
    body: bytes
    next_at: int | None
    fired_at: int | None
    paused_at: int | None
    now: int
    outcome: Outcome | None = None


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


class Crons:
    """The recurring jobs of one namespace."""

    def __init__(self, store: Store, keys: Keys, push: Push, disk: Disk) -> None:
        self._disk = disk
        self._store = store
        self._keys, self._all_keys = keys.crons(), keys
        self._push = push
        self._loop = asyncio.get_running_loop()
        self._ours = self._loop.time
        self._seen = 0  # how far the steady clock went, as far as we know
        self._looked: Look | None = None  # the last one whose jobs were all pushed
        self._turn = asyncio.Lock()
        self._cursor = b"0"
        self._examine = EXAMINED_A_LOOK
        self._told: dict[str, str] = {}  # what was said of broken ones
        self.told: list[Callable[[], None]] = []
        """Called when one was defined."""
        self._oldest: dict[str, tuple[bytes, int]] = {}  # where those that catch up began

    # --- what callers ask for

    async def put(self, name: str, cron: Cron, body: bytes) -> bool:
        """Define a recurring job. True if it is new. The same schedule keeps its next moment."""
        wanted = schedule.read(cron.schedule, cron.timezone)
        if self._disk.full:
            raise self._disk.refusal()
        reply = await self._call("cron_show", name)
        now, steady = _clocks(reply)
        following = wanted.next(steady if wanted.steady else now)
        if not following:
            raise CallerError("`schedule` has no moment in the future")
        same = False
        if len(reply) > 2:
            try:
                before = _decode(_record(reply[2:7]).packed)
                same = (before.schedule, before.timezone) == (cron.schedule, cron.timezone)
            except Broken:
                pass
        else:  # what jobs of a namesake came to is not for this one
            await self._store.call(cron.queue, "HDEL", self._all_keys.recurred(cron.queue), name)
        answer = await self._call(
            "cron_put", name, codec.encode(cron), body, _kind(wanted), following[0], int(same)
        )
        if answer == b"full":
            raise CallerError("there are 1000 recurring jobs already, the maximum; delete some")
        for told in self.told:
            told()
        return bool(answer)

    async def remove(self, name: str) -> None:
        """Forget a recurring job. Raises `NotFound`."""
        if not await self._call("cron_remove", name):
            raise missing(name)

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
        record, body = _record(reply[2:7]), bytes(reply[7])
        try:
            cron, _ = _understand(record.packed)
        except Broken as broken:
            if broken.cron is None or not body:
                raise _broken(name, broken) from None
            cron = broken.cron
        result = await self._send(cron.queue, body, _options(name, cron))
        if isinstance(result, PresqueError):
            raise result
        return cron.queue, result

    async def pause(self, name: str) -> Shown:
        """Push nothing more of a recurring job until it is resumed. Raises `NotFound`."""
        if not await self._call("cron_pause", name):
            raise missing(name)
        return await self.show(name)

    async def resume(self, name: str) -> Shown:
        """Go on with a recurring job from its next moment on. Raises `NotFound`, and `WrongState` for one
        that cannot be read."""
        reply = await self._read(name)
        now, steady = _clocks(reply)
        try:
            _, wanted = _understand(_record(reply[2:7]).packed)
        except Broken as broken:
            raise _broken(name, broken) from None
        following = wanted.next(steady if wanted.steady else now)
        await self._call("cron_pause", name, _kind(wanted), following[0] if following else "")
        return await self.show(name)

    async def _with_outcomes(self, shown: list[Shown]) -> list[Shown]:
        """The same, each with its outcome: they lie beside the jobs, so each queue is asked for its own."""
        by_queue: dict[str, list[str]] = {}
        for one in shown:
            if one.cron is not None:
                by_queue.setdefault(one.cron.queue, []).append(one.name)
        replies = await asyncio.gather(
            *(
                self._store.call(queue, "HMGET", self._all_keys.recurred(queue), *some)
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
            found.update(zip(some, map(_outcome, reply), strict=True))
        return [msgspec.structs.replace(one, outcome=found.get(one.name)) for one in shown]

    async def _read(self, name: str) -> Sequence[Any]:
        reply: Sequence[Any] = await self._call("cron_show", name)
        if len(reply) == 2:
            raise missing(name)
        return reply

    def _show(self, reply: Sequence[Any]) -> Shown:
        """What `cron_show` replied, with the next moment as it will be corrected."""
        now, steady = _clocks(reply)
        look = Look(now, steady, 0, [], [])
        record, body = _record(reply[2:7]), bytes(reply[7])
        cron, wanted, why = None, None, None
        try:
            cron, wanted = _understand(record.packed)
            if not body:
                why = LOST_BODY
        except Broken as broken:
            cron, why = broken.cron, str(broken)
        next_at = None
        if wanted is not None and record.paused_at is None:
            if _is_right(record, wanted, look):
                next_at = record.next_at
            else:
                next_at = next(iter(wanted.next(look.time(wanted.steady))), None)
            if next_at is not None and wanted.steady:
                next_at -= steady - now
        return Shown(record.name, cron, wanted, why, body, next_at, record.fired_at, record.paused_at, now)

    # --- firing

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
        now, steady = _clocks(reply)
        self._seen, self._cursor = steady, reply[2]
        records = [_record(reply[at : at + 5]) for at in range(4, len(reply), 5)]
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
            if _is_right(record, wanted, look):
                continue
            following = wanted.next(look.time(wanted.steady))
            told = following[0] if following else ""
            # Moments do not grow if one was pushed too early, or if the schedule goes by another clock.
            anticipated = record.kind != _kind(wanted) or (
                record.fired_at is not None and record.fired_at > look.now
            )
            wrong += (record.name, record.score, _kind(wanted), told, "era" if anticipated else "")
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
        kind, now, first = _kind(wanted), look.time(wanted.steady), record.next_at
        following = next(iter(wanted.next(now)), None)
        if first is None or first < 0 or kind != record.kind:  # nobody of us wrote that
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
            options = _options(due.record.name, due.cron, _stamp(due.record.era, moment), ahead)
            found.append(await self._send(due.cron.queue, body, options))
            if isinstance(found[-1], StoreUnavailable):
                break
        return found

    def _send(self, queue: str, body: bytes, options: PushOptions) -> asyncio.Future[int | PresqueError]:
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
            found = _understand(record.packed)
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

    async def _call(self, name: str, *args: str | bytes | int) -> Any:
        return await self._store.ask(CRONS, calls.encode(name, self._keys, *args))


def _stamp(era: str, moment: int) -> str:
    """A text that grows with the era and, within it, with the moment."""
    return f"{int(era) if era.isdecimal() else 0:015d}:{moment:015d}"


def _options(name: str, cron: Cron, stamp: str | None = None, ahead: int | None = None) -> PushOptions:
    """How the job is pushed, for a moment or at once."""
    skip = cron.overlap == "skip"
    return PushOptions(
        priority=cron.priority,
        ttl=cron.ttl,
        attempts=cron.attempts,
        keep=cron.keep,
        uniq=f"cron:{name}" if skip else None,
        uniq_until="done" if skip else "fetch",
        group=cron.group,
        cron=name,
        stamp=stamp,
        ahead=ahead,
    )


def _kind(wanted: Schedule) -> str:
    return "steady" if wanted.steady else "due"


def _is_right(record: Record, wanted: Schedule, look: Look) -> bool:
    """Whether the next moment of a recurring job can be, as the clocks go now."""
    now = look.time(wanted.steady)
    following = next(iter(wanted.next(now)), None)
    if not record.score:
        return following is None
    if record.kind != _kind(wanted) or record.next_at is None or following is None:
        return False
    if record.next_at <= following:
        return True
    # A clock that was set back by a moment: what was pushed just now does not come again.
    return record.kind == "due" and record.fired_at is not None and 0 < record.fired_at - now <= SET_BACK_MS


@lru_cache(maxsize=4096)
def _understand(packed: bytes) -> tuple[Cron, Schedule]:
    """What a definition means. Raises `Broken`."""
    cron = _decode(packed)
    try:
        return cron, schedule.read(cron.schedule, cron.timezone)
    except CallerError as error:
        raise Broken(f"{error}: this server does not know it", cron) from None


def _decode(packed: bytes) -> Cron:
    """A definition as it was stored, its values checked: another version may have written it."""
    try:
        cron = codec.decode_stored(packed, Cron)
        names.queue(cron.queue)
    except (ValueError, CallerError) as error:
        raise Broken(f"its definition is damaged or of a later version of presque: {error}") from None
    for name, word, words in (("missed", cron.missed, MISSED), ("overlap", cron.overlap, OVERLAP)):
        if word not in words:
            raise Broken(f"its `{name}` is `{shown(word)}`: a later version of presque may know that", cron)
    if not (
        1 <= cron.priority <= PRIORITY_MOST
        and 0 < (cron.ttl or 1) <= LAST_MS
        and 0 < (cron.attempts or 1) <= ATTEMPTS_MOST
        and 0 <= (cron.keep or 0) <= LAST_MS
        and 0 < len((cron.group or "-").encode()) <= KEY_MOST
    ):
        raise Broken("its definition is damaged: a number is out of bounds", None)
    return cron


def _clocks(reply: Sequence[Any]) -> tuple[int, int]:
    return int(reply[0]), int(reply[1])


def _outcome(said: bytes | None) -> Outcome | None:
    """What the functions noted of a job that ended; None where nothing of the kind is there."""
    word, at, job, error = (*(said or b"").split(b" ", 3), b"", b"", b"", b"")[:4]
    if word.decode("ascii", "replace") not in OUTCOMES or not at.isdigit():
        return None
    return Outcome(word.decode(), int(at), job.decode(), error.decode("utf-8", "ignore"))


def _record(parts: Sequence[Any]) -> Record:
    name, packed, score, kind, note = parts
    era, fired, paused = (*note.split(b" "), b"", b"", b"")[:3]
    return Record(
        name.decode("utf-8", "backslashreplace"),
        packed,
        score,
        kind.decode(),
        era.decode("utf-8", "backslashreplace"),
        _moment(fired),
        _moment(paused),
    )


def _moment(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) < 18 else None


def missing(name: str) -> NotFound:
    """There is none."""
    return NotFound(f"there is no recurring job `{name}`")


def _broken(name: str, broken: Broken) -> WrongState:
    return WrongState(f"the recurring job `{name}` is broken: {broken}; define it again or delete it")
