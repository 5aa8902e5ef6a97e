"""What happens, as it happens: jobs one after the other, and the counts of queues as they change.

While somebody listens, counts of queues are read a few times a second, for all listeners together, and what
changed becomes an event. So an event says what is, not what was done: a reader that missed some needs only
the last of each queue. While nobody listens nothing is read.

Up to READ_AT_ONCE queues are read each time. Where there are more, those that the store told of since the
last time come first, then the busy ones in turn (`_Reading`): what holds no jobs and is not touched does not
change.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from typing import Any

import msgspec

from presque import codec
from presque.commands import jobs, queues
from presque.commands.call import awaited
from presque.commands.job_events import JobEvents
from presque.engine.engine import Engine
from presque.errors import PresqueError
from presque.job import Fetched, QueueStats
from presque.names import QueueList

EVERY_S = 0.4
SHARE = 10  # the reading takes at most a tenth of the time
COMMENT_S = 15.0
HISTORY = 1000
WAIT_S = 3600.0
BEHIND_MOST = 8 * 1024 * 1024
STOPPING_S = 0.5  # how soon a listener notices that the server stops
READ_AT_ONCE = 1000  # queues
TOLD_AT_ONCE = READ_AT_ONCE // 2  # of those touched, and as many busy ones, where there are more queues
TOUCHED_MOST = 100_000  # names of queues that are to be read
COUNTS_MOST = 10_000  # queues whose counts are remembered
GROWING = ("processed", "failed", "expired", "dead")


async def lines(
    engine: Engine, wanted: QueueList, life: float | None, worker: str | None, sending: list[Fetched]
) -> AsyncIterator[bytes]:
    """Jobs taken for good, each as a line of JSON, as they come: for `life` seconds, or until it is over.

    A job is taken when the one before has been sent. Until then that is in `sending`, to be put back if the
    client leaves. It ends when the server stops or has no store.
    """
    loop = asyncio.get_running_loop()
    ends = None if life is None else loop.time() + life
    box = _Box()
    try:
        listener = None if wanted.single is None else await engine.listener(wanted.single, box.take)
    except PresqueError:
        return
    if listener is not None:
        box.cut = functools.partial(engine.deliveries.leave, listener)
        try:
            async for job in box.jobs(engine, ends):
                yield _line(job)
        finally:
            engine.deliveries.leave(listener)
        return
    while not engine.stopping:
        wait = WAIT_S if ends is None else min(WAIT_S, ends - loop.time())
        if wait <= 0:
            return
        try:
            found = await awaited(engine, functools.partial(jobs.fetch, engine, wanted, wait, worker))
        except PresqueError:
            return
        if found is not None:
            sending.append(found)
            yield _line(found)
            sending.clear()


class _Box:
    """Jobs on their way to one listener. They do not wait for it: one that is too far behind is cut off at
    once, though it may notice only when it reads again."""

    def __init__(self) -> None:
        self.cut: Callable[[], object] = list
        self._full = False
        self._jobs: deque[Fetched] = deque()
        self._size = 0
        self._arrived = asyncio.Event()

    def take(self, job: Fetched) -> None:
        """A job has come."""
        if self._full:
            return
        self._jobs.append(job)
        self._size += len(job.body)
        if self._size > BEHIND_MOST:
            self._full = True
            self._jobs.clear()
            self.cut()
        self._arrived.set()

    async def jobs(self, engine: Engine, ends: float | None) -> AsyncIterator[Fetched]:
        """The jobs as they come, until the loop's time `ends`, or the listener is too far behind."""
        while not engine.stopping and not self._full:
            if self._jobs:
                job = self._jobs.popleft()
                self._size -= len(job.body)
                yield job
                continue
            left = STOPPING_S if ends is None else ends - asyncio.get_running_loop().time()
            if left <= 0:
                return
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), min(left, STOPPING_S))


def _line(job: Fetched) -> bytes:
    """A job as one line: outside a text a line break is only space."""
    return jobs.fetched_answer(job).replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"


class Feed:
    """The events of one server. The last of them are kept for clients that reconnect."""

    def __init__(self, engine: Engine) -> None:
        self.engine = self._engine = engine
        self._name = secrets.token_hex(4)  # so that nobody takes another server's events for ours
        self._counts: dict[str, dict[str, Any]] = {}
        self._history: deque[tuple[int, str, bytes]] = deque(maxlen=HISTORY)
        self._numbers = itertools.count(1)
        self._last = 0
        self._knew_all = False
        self._jobs = JobEvents(engine, self._wake)
        self._listeners = 0
        self._read_once = asyncio.Event()
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def events(
        self, wanted: QueueList | None, after: str | None, *, jobs: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events from behind the one called `after`, or else first how everything is now; with
        `jobs` also what happens to jobs. The first piece is empty: nothing is missed from then on."""
        self._listeners += 1
        if self._reading is None:
            self._read_once.clear()
            self._reading = asyncio.create_task(self._read())
        joined = False
        try:
            joined = jobs and await self._join(wanted)
            at, at_job = (None, self._jobs.last) if after is None else self._numbers_of(after)
            yield b""
            await self._read_once.wait()
            while not self._engine.stopping:
                changed = self._changed
                found = [b"event: queue\ndata: %b\n" % text for text in self._behind(at, wanted)]
                at = self._last
                if joined:
                    found += self._jobs.behind(at_job, wanted)
                    at_job = self._jobs.last
                if found:
                    name = f"{self._name}-{at}-{at_job}" if joined else f"{self._name}-{at}"
                    yield b"%bid: %b\n\n" % (b"\n".join(found), name.encode())
                try:
                    await asyncio.wait_for(changed.wait(), COMMENT_S)
                except TimeoutError:
                    yield b":\n\n"
        finally:
            if joined:
                self._jobs.leave(wanted)
            self._listeners -= 1
            if self._listeners == 0 and self._reading is not None:
                self._reading.cancel()
                self._reading = None

    async def _join(self, wanted: QueueList | None) -> bool:
        """Hear of jobs from now on, as soon as there is a store. False if the server stops before."""
        while not self._engine.stopping:
            with contextlib.suppress(PresqueError):
                await self._jobs.join(wanted)
                return True
            await asyncio.sleep(STOPPING_S)
        return False

    def _behind(self, at: int | None, wanted: QueueList | None) -> list[bytes]:
        """The events of queues after number `at`; the state of all queues, if that is too far back."""
        if at is None or (self._history and self._history[0][0] > at + 1):
            latest = itertools.islice(reversed(self._counts.items()), READ_AT_ONCE)
            texts = [(queue, _text(queue, counts, {})) for queue, counts in sorted(latest)]
        else:
            new = itertools.takewhile(lambda one: one[0] > at, reversed(self._history))
            texts = [(queue, text) for _, queue, text in new][::-1]
        return [text for queue, text in texts if wanted is None or wanted.matches(queue)]

    def _numbers_of(self, after: str) -> tuple[int | None, int | None]:
        """How far somebody came who has seen the event called `after`: the numbers of the last events of
        queues and of jobs. None for what this server does not know."""
        name, *parts = after.split("-")
        numbers = [int(part) if part.isdecimal() and len(part) <= 15 else None for part in parts]
        at, at_job = (*numbers, None, None)[:2]
        if name != self._name or at is None or at > self._last:
            return None, None
        return at, at_job

    def _wake(self) -> None:
        """Let everybody see that something has changed."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        reading = _Reading(self._engine)
        try:
            while True:
                started = loop.time()
                with contextlib.suppress(PresqueError):  # without a store nothing changes
                    self._note(await reading.read())
                    self._read_once.set()
                self._wake()
                if self._engine.stopping:
                    self._read_once.set()
                    return
                await asyncio.sleep(max(EVERY_S, SHARE * (loop.time() - started)))
        finally:
            reading.end()
            self._counts.clear()

    def _note(self, read: _Read) -> None:
        """Make events of what was read and has changed."""
        seen = {one.queue for one in read.stats}
        for queue in self._counts.keys() - seen if read.all else self._counts.keys() & read.gone:
            del self._counts[queue]
            self._add(queue, codec.encode({"queue": queue, "forgotten": True}))
        for one in read.stats:
            found = queues.as_json(one)
            counts = {name: found[name] for name in found if name not in ("oldest_seconds", "last_minute")}
            before = self._counts.pop(one.queue, None)
            self._counts[one.queue] = counts  # behind all others
            if counts == before or (before is None and one.queue in read.untold):
                continue
            if before is None:  # what is new is known only where all that there was is known
                before = {} if self._knew_all else counts
            grown = {
                name: counts[name] - before.get(name, 0)
                for name in GROWING
                if counts[name] > before.get(name, 0)
            }
            self._add(one.queue, _text(one.queue, counts, grown))
        self._knew_all = read.all
        while len(self._counts) > COUNTS_MOST:
            del self._counts[next(iter(self._counts))]

    def _add(self, queue: str, text: bytes) -> None:
        self._last = next(self._numbers)
        self._history.append((self._last, queue, text))


class _Read(msgspec.Struct, frozen=True):
    """What was read at one time."""

    stats: Sequence[QueueStats]
    gone: Collection[str]
    """Queues that no longer exist."""
    untold: Collection[str]
    """Queues that no message named: they have changed only if their counts have."""
    all: bool
    """Whether these are all queues there are."""


class _Reading:
    """Reads the counts of queues, a bounded number each time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._touched: dict[str, None] = {}
        self._gone: set[str] = set()
        self._after = ""
        self._begun = False
        self._hearing = engine.channels.hear(engine.keys.wake_any(), self._heard)
        engine.queues.on_forgotten.append(self._forgotten)

    def end(self) -> None:
        """Stop listening."""
        self._hearing.end()
        self._engine.queues.on_forgotten.remove(self._forgotten)

    def _heard(self, payload: bytes) -> None:
        self._touch(payload.partition(b" ")[0].decode())

    def _touch(self, queue: str) -> None:
        if len(self._touched) < TOUCHED_MOST:
            self._touched[queue] = None

    def _forgotten(self, queue: str) -> None:
        self._touched.pop(queue, None)
        if len(self._gone) < TOUCHED_MOST:
            self._gone.add(queue)

    async def read(self) -> _Read:
        """Read counts. Raises `PresqueError`."""
        index = self._engine.queues.index
        gone, self._gone = self._gone, set()
        first, self._begun = not self._begun, True
        names: list[str] = []
        few = await index.count() <= READ_AT_ONCE
        if few or first:
            names, cursor = await index.select(index.names, None, "", READ_AT_ONCE)
            few = cursor is None
        if few:
            self._touched.clear()
            return _Read(await self._engine.stats(names), gone, frozenset(), all=True)
        touched = list(self._touched)[:TOLD_AT_ONCE]
        for queue in touched:
            del self._touched[queue]
        busy = await index.page(index.busy, self._after, limit=TOLD_AT_ONCE)
        self._after = busy[-1] if len(busy) == TOLD_AT_ONCE else ""
        untold = frozenset(busy + names[: READ_AT_ONCE - len(busy)]).difference(touched)
        return _Read(await self._engine.stats([*touched, *sorted(untold)]), gone, untold, all=False)


def _text(queue: str, counts: dict[str, Any], grown: dict[str, int]) -> bytes:
    return codec.encode({"queue": queue, **counts, "new": grown})
