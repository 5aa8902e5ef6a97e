"""What happened over time to queues, and to all together, as the functions of the store keep it
(lua/history.lua).

The counts are exact, however many servers run and queues there are: the store measures a queue in the same
step as it changes it, and each difference between two measurements is taken once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from presque import codec
from presque.engine import calls, replies
from presque.engine.keys import REGISTRY, Keys
from presque.engine.queues import Queues
from presque.errors import PresqueError, StoreUnavailable
from presque.periods import PERIODS, Period
from presque.store.store import Store

log = logging.getLogger("presque.engine")

CLOSE_S = 5.0
CLOSED_AT_ONCE = 50  # queues in one call
CLOSED_MOST = 2000  # queues in a turn
OPENED_AT_ONCE = 100  # queues in one call whose open buckets are looked at and stay as they are

DEPTH = ("ready", "leased", "scheduled", "dead")
COUNTERS = ("pushed", "fetched", "done", "failed", "died", "expired", "waited_ms", "ran_ms")
_OLDEST, _TIMES = 1 + len(DEPTH), 2 + len(DEPTH) + len(COUNTERS)


class Happened(msgspec.Struct):
    """What happened in a stretch of time. `depth` is by how much each state grew."""

    depth: list[int] = msgspec.field(default_factory=lambda: [0] * len(DEPTH))
    counters: list[int] = msgspec.field(default_factory=lambda: [0] * len(COUNTERS))
    times: dict[str, int] = msgspec.field(default_factory=dict)

    def add(self, other: Happened) -> None:
        """And what happened besides."""
        self.depth = [one + more for one, more in zip(self.depth, other.depth, strict=True)]
        self.counters = [one + more for one, more in zip(self.counters, other.counters, strict=True)]
        for name, count in other.times.items():
            self.times[name] = self.times.get(name, 0) + count

    def count(self, counter: str) -> int:
        """What a counter grew by. A fetch that is undone in a later bucket takes that off there."""
        return max(0, self.counters[COUNTERS.index(counter)])

    def histogram(self, letter: str) -> dict[int, int]:
        """How many times of a kind (`w` waits, `r` runs) fell into each class, see periods.TIME_MOST."""
        return {int(name[1:]): n for name, n in self.times.items() if name[0] == letter and n > 0}


class History(msgspec.Struct):
    """What happened in a period, up to `now` (ms): by the number of the bucket, its beginning divided by its
    length. `now_holds` is the depth now. `oldest` is since when the oldest ready job waited (ms, 0 for
    none) at the end of each bucket; it is known of single queues alone."""

    now: int
    period: Period
    buckets: dict[int, Happened]
    now_holds: list[int]
    oldest: dict[int, int] | None = None

    @property
    def last(self) -> int:
        """The number of the open bucket."""
        return self.now // self.period.ms

    @property
    def first(self) -> int:
        """The number of the oldest bucket."""
        return self.last - self.period.count + 1

    def add(self, other: History) -> None:
        """And what happened to another queue."""
        for number, happened in other.buckets.items():
            self.buckets.setdefault(number, Happened()).add(happened)
        self.now_holds = [one + more for one, more in zip(self.now_holds, other.now_holds, strict=True)]


class _Measured(msgspec.Struct, frozen=True):
    """A queue as it was at a moment, and its counters up to then."""

    at: int
    depth: list[int]
    oldest: int
    so_far: Happened

    @classmethod
    def read(cls, packed: bytes) -> _Measured:
        at, *found = codec.unpack(packed)
        return cls(
            int(at), found[: _OLDEST - 1], int(found[_OLDEST - 1]), _happened([at, *found], [0] * len(DEPTH))
        )

    def since(self, earlier: _Measured) -> Happened:
        """What happened from an earlier measurement to this one."""
        return Happened(
            [one - other for one, other in zip(self.depth, earlier.depth, strict=True)],
            [one - other for one, other in zip(self.so_far.counters, earlier.so_far.counters, strict=True)],
            {
                name: count - earlier.so_far.times.get(name, 0)
                for name, count in self.so_far.times.items()
                if count != earlier.so_far.times.get(name, 0)
            },
        )


def _happened(found: Sequence[Any], depth: list[int]) -> Happened:
    """What a bucket, or a measurement, says."""
    counters = [int(one) for one in found[_OLDEST + 1 : _TIMES]]
    return Happened(depth, counters, found[_TIMES] or {})


class Histories:
    """The history of the queues of one namespace."""

    def __init__(self, store: Store, keys: Keys, queues: Queues) -> None:
        self._store = store
        self._keys = keys
        self._queues = queues
        self._told = ""
        self._turn = asyncio.Lock()
        self._turns = 0

    async def of(self, queue: str, over: str) -> History:
        """What happened to one queue; nothing to one never seen. Raises `PresqueError`."""
        period = PERIODS[over]
        [found] = [_of_queue(period, *one[1:]) async for one in self._ask([queue], period.name)]
        return found

    async def of_some(self, queues: Sequence[str], over: str) -> History:
        """What happened to these queues, in sum. Raises `PresqueError`."""
        period = PERIODS[over]
        added: History | None = None
        async for queue in self._ask(queues, period.name):
            one = _of_queue(period, *queue[1:])
            one.oldest = None
            if added is None:
                added = one
            else:
                added.add(one)
        return added or await self.of_none(period)

    async def of_none(self, period: Period) -> History:
        """The history of no queue."""
        reply = await self._read_all(period, 0)
        return History(int(reply[0]), period, {}, [0] * len(DEPTH))

    async def of_all(self, over: str) -> History:
        """What happened to all queues together, up to now. Raises `PresqueError`."""
        found, _ = await self._of_all(PERIODS[over])
        return found

    async def totals(self) -> tuple[Happened, int]:
        """What happened to all queues since the first of them, and the moment (ms). Raises `PresqueError`."""
        found, total = await self._of_all(Period("all", 2**53, 1))
        return total, found.now

    async def _of_all(self, period: Period) -> tuple[History, Happened]:
        """Where few queues have an open bucket, one call reads all. Else their buckets are added up in the
        store first, in many calls: so each answer holds whatever was answered before it was asked for, and
        the next one no less."""
        reply = await self._read_all(period, OPENED_AT_ONCE)
        if reply[3]:
            try:
                await self._add_up()
                reply = await self._read_all(period, 0)
            except PresqueError as error:  # a store that takes no writes can be read, one that is away cannot
                self._failed(error)
                reply = await self._read_all(period, OPENED_AT_ONCE)
        return _together(period, reply)

    async def _read_all(self, period: Period, opened: int) -> Any:
        call = calls.encode("history_of_all", self._keys.registry(), period.name, opened)
        return await self._store.ask(REGISTRY, call)

    async def _add_up(self) -> None:
        """Add what all queues did up to now to the history of all. Those who ask meanwhile share the next
        turn, which begins after they asked. Raises `PresqueError`."""
        mine = self._turns + 1
        async with self._turn:
            if self._turns >= mine:
                return
            self._turns += 1
            reply = await self._read_all(Period("all", 2**53, 1), 0)
            looked = reply[3]
            while looked:
                call = calls.encode("close", self._keys.registry(), CLOSED_AT_ONCE, reply[3])
                looked = await self._store.ask(REGISTRY, call)

    async def measured(self, queues: Sequence[str]) -> dict[str, tuple[Happened, int]]:
        """What happened to each of these queues since it was made or purged, with its depth now, and since
        when its oldest ready job waits (ms, 0 for none). Raises `PresqueError`."""
        found = {}
        async for queue, live, _, _ in self._ask(queues, "all"):
            measured = _Measured.read(live)
            measured.so_far.depth = measured.depth
            found[queue] = measured.so_far, measured.oldest
        return found

    async def _ask(
        self, queues: Sequence[str], over: str
    ) -> AsyncIterator[tuple[str, bytes, bytes, list[bytes]]]:
        async def ask(some: Sequence[str]) -> Any:
            call = calls.encode("history", self._keys.of_all(some), over)
            return await self._store.ask(some[0], call)

        async for reply, some in calls.in_pieces(queues, ask, self._queues.spoilt):
            _, spoilt, _, *flat = reply
            self._queues.spoilt(replies.spoilt(spoilt, some))
            names = [some[position - 1] for position in flat[::4]]
            for one in zip(names, flat[1::4], flat[2::4], flat[3::4], strict=True):
                yield one
            await asyncio.sleep(0)

    async def run(self) -> None:
        """Close the buckets of queues that nobody touches any more, until cancelled."""
        while True:
            await asyncio.sleep(CLOSE_S)
            with contextlib.suppress(StoreUnavailable):  # it is logged where the connection is kept
                await self.close()

    async def close(self) -> None:
        """Close the buckets of queues that nobody touches any more, once. Raises `StoreUnavailable`."""
        closed = 1
        turn = 0
        try:
            while closed > 0 and turn < CLOSED_MOST:
                call = calls.encode("close", self._keys.registry(), CLOSED_AT_ONCE, "")
                closed = await self._store.ask(REGISTRY, call)
                turn += closed
        except StoreUnavailable:
            raise
        except PresqueError as error:
            self._failed(error)

    def _failed(self, error: PresqueError) -> None:
        if self._told != str(error):
            self._told = str(error)
            log.warning("history.failed reason=%r", str(error))


def _together(period: Period, reply: Sequence[Any]) -> tuple[History, Happened]:
    """The history of all queues together, and what they did since the first of them."""
    now, packed, buckets, _, *opened = reply
    total = _of_all(codec.unpack(packed)) if packed else Happened()
    found = History(int(now), period, {}, [])
    for one in buckets:
        bucket = codec.unpack(one)
        _put(found, int(bucket[0]), _of_all(bucket))
    for live, counted in zip(opened[::2], opened[1::2], strict=True):
        before = _Measured.read(counted)
        happened = _Measured.read(live).since(before)
        total.add(happened)
        _put(found, before.at // period.ms, happened)
    found.now_holds = list(total.depth)
    return found, total


def _of_all(bucket: Sequence[Any]) -> Happened:
    return _happened(bucket, [int(one) for one in bucket[1:_OLDEST]])


def _of_queue(period: Period, live: bytes, then: bytes, packed: Sequence[bytes]) -> History:
    """The history of a queue that is `live` now and was `then` when its open bucket began."""
    measured = _Measured.read(live)
    found = History(measured.at, period, {}, measured.depth)
    began: dict[int, tuple[list[int], int]] = {}  # by number: the depth when a bucket began, and since when …
    for one in packed:
        bucket = codec.unpack(one)
        number = int(bucket[0])
        if found.first <= number <= found.last:
            began[number] = [int(count) for count in bucket[1:_OLDEST]], int(bucket[_OLDEST])
            _put(found, number, _happened(bucket, [0] * len(DEPTH)))
    if then:
        opened = _Measured.read(then)
        number = opened.at // period.ms
        happened = measured.since(opened)
        happened.depth = [0] * len(DEPTH)
        began.setdefault(number, (opened.depth, opened.oldest))
        _put(found, number, happened)
    found.oldest = {}
    later, since = measured.depth, measured.oldest
    for number in range(found.last, found.first - 1, -1):
        found.oldest[number] = since
        if number in began:
            depth, since = began[number]
            if number in found.buckets:
                found.buckets[number].depth = [one - other for one, other in zip(later, depth, strict=True)]
            later = depth
    return found


def _put(history: History, number: int, happened: Happened) -> None:
    """Add what happened in a bucket, if that is of this period."""
    if history.first <= number <= history.last:
        history.buckets.setdefault(number, Happened()).add(happened)
