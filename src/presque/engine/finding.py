"""Finds jobs over many queues: by a filter, by the kind of their error, or all of them, a piece at a time.

Nothing here changes anything. A piece is one call of the store, of 100 jobs or 1 MiB at most, and an answer
is made of a bounded number of pieces. Where it stopped is its cursor: a queue, a state, and a place among the
jobs of that state. Queues come in alphabetical order, and the jobs of a queue state by state.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from presque import codec, names
from presque.engine import calls, replies
from presque.engine.index import Index
from presque.engine.keys import Keys
from presque.errors import StoreError, wrong_cursor
from presque.job import Job
from presque.names import QueueList
from presque.store.store import Store
from presque.verbs.bounds import STATES

Filter = Mapping[str, Any]
"""What jobs must be like, in the words of lua/finding.lua."""

PIECE_JOBS = 100
PIECE_BYTES = 1024 * 1024
ANSWER_BYTES = 4 * 1024 * 1024  # room for a piece, its largest job and its runs
LOOKED_MOST = 10_000  # jobs that one answer looks at
PIECES_MOST = 500  # calls of the store for one answer
QUEUES_MOST = 10_000  # queues that one answer looks at
FOUND_BYTES = 3 * 1024 * 1024  # of jobs in one answer; the last piece may go beyond
QUEUES_NAMED = 20  # of those where a kind of error was found

_inner = re.compile(r"(\d{1,15}(:[0-9v-]{1,20}){0,2})?\Z").match


class Place(NamedTuple):
    """Where to go on: behind a place among the jobs of one state of a queue; behind the whole queue if
    `state` is empty."""

    queue: str = ""
    state: str = ""
    inner: str = ""

    @classmethod
    def of(cls, cursor: str) -> Place:
        """Read a cursor. Raises `CallerError`."""
        if not cursor:
            return cls()
        queue, state, inner = (*cursor.split("/", 2), "", "")[:3]
        known = cursor.count("/") == 2 and names.is_queue(queue) and state in (*STATES, "")
        if not (known and _inner(inner)):
            raise wrong_cursor()
        return cls(queue, state, inner)

    @property
    def text(self) -> str:
        """The cursor."""
        return f"{self.queue}/{self.state}/{self.inner}"


class Looked(msgspec.Struct):
    """How far was looked, and how far may be."""

    jobs: int = 0
    queues: int = 0
    pieces: int = 0
    place: Place | None = None
    """Where to go on; None at the end."""
    spoilt: list[str] = msgspec.field(default_factory=list)
    """Queues that were passed over, since they cannot be read."""
    full: bool = False
    """Whether all was found that is wanted."""
    bounded: bool = True

    @property
    def enough(self) -> bool:
        """Whether to stop here."""
        within = self.jobs < LOOKED_MOST and self.pieces < PIECES_MOST and self.queues < QUEUES_MOST
        return self.full or (self.bounded and not within)


class Found(msgspec.Struct):
    """Jobs that match, and how far was looked for them."""

    looked: Looked = msgspec.field(default_factory=Looked)
    matched: int = 0
    jobs: list[Job] = msgspec.field(default_factory=list)


class ErrorKind(msgspec.Struct):
    """Errors that are alike. Moments are milliseconds since the epoch; `sample` is queue and id of the last
    job, `error` the first line of one of them."""

    kind: str
    error: str
    count: int
    first: int
    last: int
    sample: tuple[str, str]
    queues: dict[str, int]
    more_queues: int = 0

    def add(self, other: ErrorKind) -> None:
        """Put others of the same kind to these."""
        self.count += other.count
        self.first = min(self.first, other.first)
        if other.last > self.last:
            self.last, self.sample, self.error = other.last, other.sample, other.error
        for queue, count in other.queues.items():
            if queue in self.queues or len(self.queues) < QUEUES_NAMED:
                self.queues[queue] = self.queues.get(queue, 0) + count
            else:
                self.more_queues += 1


class Piece(NamedTuple):
    """What one call found: how many it looked at, how many match, those that it lists, where to continue
    ("" at the end), and how many bytes they have."""

    looked: int
    matched: int
    jobs: list[Job]
    following: str
    size: int = 0


class Finding:
    """Finds jobs in the queues of one namespace."""

    def __init__(self, store: Store, keys: Keys, index: Index) -> None:
        self._store = store
        self._keys = keys
        self._call = calls.OnQueue(store, keys)
        self._index = index

    async def search(
        self, wanted: QueueList, states: Sequence[str], only: Filter, limit: int, begin: Place
    ) -> Found:
        """The first `limit` jobs behind a place that match, the newest of each state first, as far as one
        answer looks, and as many as fit into one."""
        found, size = Found(), 0

        async def ask(place: Place) -> Piece:
            room = limit - len(found.jobs)
            return await self.sift(place, only, room, room)

        async for piece in self._pieces(wanted, states, begin, found.looked, ask):
            found.jobs += piece.jobs
            found.matched += piece.matched
            size += piece.size
            found.looked.full = len(found.jobs) >= limit or size >= FOUND_BYTES
        return found

    async def holding(self, wanted: QueueList, id: str, most: int) -> list[str]:
        """Which queues hold a job with this id: the first `most` of them, among the first QUEUES_MOST."""
        found: list[str] = []
        after, looked = "", 0
        while looked < QUEUES_MOST and len(found) < most:
            some, following = await self._index.select(self._index.names, wanted, after, calls.QUEUES_A_CALL)
            if some:
                keys = tuple(self._keys.of(queue)[1] for queue in some)
                positions = await self._store.ask(some[0], calls.encode("holding", keys, id))
                found += [some[position - 1] for position in positions]
            if following is None:
                break
            after, looked = following, looked + len(some)
        return found[:most]

    async def count(self, wanted: QueueList, states: Sequence[str], only: Filter, sample: int) -> Found:
        """How many jobs match, and the first few of them, as far as one answer looks."""
        found = Found()

        async def ask(place: Place) -> Piece:
            return await self.sift(place, only, PIECE_JOBS, sample - len(found.jobs))

        async for piece in self._pieces(wanted, states, Place(), found.looked, ask):
            found.jobs += piece.jobs
            found.matched += piece.matched
        return found

    async def failures(self, wanted: QueueList, state: str, begin: Place) -> tuple[list[ErrorKind], Looked]:
        """The errors of the jobs of one state by their kinds, those of most jobs first, as far as one answer
        looks."""
        looked = Looked()
        found: dict[str, ErrorKind] = {}

        async def ask(place: Place) -> Piece:
            following, count, *rows = await self._call(
                "kinds", place.queue, state, place.inner, PIECE_JOBS, PIECE_BYTES
            )
            for row in rows:
                one = _kind(place.queue, row)
                known = found.setdefault(one.kind, one)
                if known is not one:
                    known.add(one)
            return Piece(count, 0, [], following.decode())

        async for _ in self._pieces(wanted, (state,), begin, looked, ask):
            pass
        return sorted(found.values(), key=lambda one: (-one.count, -one.last)), looked

    async def every(
        self, wanted: QueueList, states: Sequence[str], only: Filter, begin: Place
    ) -> AsyncIterator[tuple[list[Job], Looked]]:
        """All jobs behind a place that match, a piece at a time, and how far each piece got. Those that have
        been in their state for longest come first."""
        looked = Looked(bounded=False)

        async def ask(place: Place) -> Piece:
            return await self.sift(place, only, PIECE_JOBS, PIECE_JOBS, upward=True)

        async for piece in self._pieces(wanted, states, begin, looked, ask):
            yield piece.jobs, looked
        yield [], looked

    async def total(self, wanted: QueueList, states: Sequence[str]) -> int | None:
        """How many jobs there are in these states; None if there are too many queues to say."""
        total, after, queues = 0, "", 0
        while queues < QUEUES_MOST:
            some, following = await self._index.select(self._index.names, wanted, after, calls.QUEUES_A_CALL)
            queues += len(some)
            for state in states if some else ():
                total += sum(count for count in await self.tally(some, state) if count > 0)
            if following is None:
                return total
            after = following
        return None

    async def next_queue(self, wanted: QueueList, states: Sequence[str], after: str) -> str | None:
        """The first queue behind `after` that may hold jobs of these states."""
        async for place in self._places(wanted, states, Place(after), Looked(bounded=False)):
            return place.queue
        return None

    async def tally(self, queues: Sequence[str], state: str) -> list[int]:
        """About how many jobs of one state there are in each of these queues, 100 at most; -1 for a spoilt
        one."""
        keys = self._keys.of_all(queues)
        found: list[int] = await self._store.ask(queues[0], calls.encode("tally", keys, state))
        return found

    async def sift(
        self,
        place: Place,
        only: Filter,
        room: int,
        tell: int,
        *,
        upward: bool = False,
        top: int | None = None,
        bound: int | None = None,
    ) -> Piece:
        """The next jobs behind a place that match, `room` at most, and what there is to know of the first
        `tell`. With `top` only those with an id up to it, with `bound` only dead jobs that died until then
        (ms since the epoch)."""
        asked = {
            "state": place.state,
            "upward": upward,
            "cursor": place.inner,
            "look": PIECE_JOBS,
            "bytes": PIECE_BYTES,
            "room": room,
            "tell": tell,
            "filter": dict(only),
        }
        asked |= {name: one for name, one in (("top", top), ("bound", bound)) if one is not None}
        reply = await self._call("sift", place.queue, codec.pack(asked), answer=ANSWER_BYTES)
        following, looked, matched, *rows = reply
        size = sum(len(row[3]) + len(row[4]) for row in rows)
        return Piece(
            looked, matched, [replies.job(place.queue, row) for row in rows], following.decode(), size
        )

    async def _pieces(
        self,
        wanted: QueueList,
        states: Sequence[str],
        begin: Place,
        looked: Looked,
        ask: Callable[[Place], Awaitable[Piece]],
    ) -> AsyncIterator[Piece]:
        """What is found piece by piece, until enough was looked at. `looked` says how far each piece got."""
        async for start in self._places(wanted, states, begin, looked):
            place: Place | None = start
            while place is not None:
                try:
                    piece = await ask(place)
                except StoreError:
                    looked.spoilt.append(place.queue)
                    break
                looked.jobs += piece.looked
                looked.pieces += 1
                here = place
                place = place._replace(inner=piece.following) if piece.following else None
                looked.place = place or _behind(here, states)
                yield piece
                if looked.enough:
                    return
        if not looked.enough:
            looked.place = None

    async def _places(
        self, wanted: QueueList, states: Sequence[str], begin: Place, looked: Looked
    ) -> AsyncIterator[Place]:
        """Where jobs of these states are, from a place on, until enough was looked at."""
        after = begin.queue
        if begin.state in states and wanted.matches(begin.queue):
            for state in states[states.index(begin.state) :]:
                yield Place(begin.queue, state, begin.inner if state == begin.state else "")
        while True:
            some, following = await self._index.select(self._index.names, wanted, after, calls.QUEUES_A_CALL)
            counts = [await self.tally(some, state) for state in states] if some else []
            for number, queue in enumerate(some):
                looked.queues += 1
                for state, count in zip(states, counts, strict=True):
                    if count[number] > 0:
                        yield Place(queue, state)
            if following is None:
                return
            after = following
            if looked.enough:
                looked.place = Place(after)
                return


def _behind(place: Place, states: Sequence[str]) -> Place:
    """The next state of the same queue; behind the queue if it was the last one."""
    left = states[states.index(place.state) + 1 :]
    return Place(place.queue, left[0]) if left else Place(place.queue)


def _kind(queue: str, row: Sequence[Any]) -> ErrorKind:
    kind, count, first, last, id, error = row
    sample = (queue, id.decode())
    return ErrorKind(_text(kind), _text(error), count, int(first), int(last), sample, {queue: count})


def _text(packed: bytes) -> str:
    return packed.decode("utf-8", "replace")
