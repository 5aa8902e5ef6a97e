"""What happens, as it happens: the counts of queues as they change, and jobs one after the other.

While somebody listens, the counts of all queues are read a few times a second, for all listeners together,
and what changed becomes an event. So an event says what is, not what was done: whoever missed some needs only
the last of each queue. While nobody listens nothing is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import secrets
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from presque import codec
from presque.commands import jobs, queues, table
from presque.engine.engine import Engine
from presque.errors import PresqueError
from presque.job import Fetched
from presque.names import QueueList

EVERY_S = 0.4
SHARE = 10  # the reading takes at most a tenth of the time
COMMENT_S = 15.0
HISTORY = 1000
WAIT_S = 3600.0
BEHIND_MOST = 8 * 1024 * 1024
STOPPING_S = 0.5  # how soon a listener notices that the server stops
GROWING = ("processed", "failed", "expired", "dead")


async def lines(
    engine: Engine, wanted: QueueList, life: float | None, worker: str | None
) -> AsyncIterator[bytes]:
    """Jobs taken for good, each as a line of JSON, as they come: for `life` seconds, or until it is over.

    A job is taken when the one before has been sent. It ends when the server stops or has no store.
    """
    loop = asyncio.get_running_loop()
    ends = None if life is None else loop.time() + life
    box = _Box()
    try:
        listener = None if wanted.single is None else await engine.listener(wanted.single, box.take)
    except PresqueError:
        return
    if listener is not None:
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
            found = await table.awaited(engine, functools.partial(jobs.fetch, engine, wanted, wait, worker))
        except PresqueError:
            return
        if found is not None:
            yield _line(found)


class _Box:
    """Jobs on their way to one listener. They do not wait for it: who is too far behind is cut off."""

    def __init__(self) -> None:
        self._jobs: deque[Fetched] = deque()
        self._size = 0
        self._arrived = asyncio.Event()

    def take(self, job: Fetched) -> None:
        """A job has come."""
        self._jobs.append(job)
        self._size += len(job.body)
        self._arrived.set()

    async def jobs(self, engine: Engine, ends: float | None) -> AsyncIterator[Fetched]:
        """The jobs as they come, until the loop's time `ends`, or the listener is too far behind."""
        while not engine.stopping and self._size <= BEHIND_MOST:
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
    return table.fetched(job).replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"


class Feed:
    """The events of one server. The last HISTORY of them are kept for who comes back."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._name = secrets.token_hex(4)  # so that nobody takes another server's events for ours
        self._counts: dict[str, dict[str, Any]] = {}
        self._history: deque[tuple[int, str, bytes]] = deque(maxlen=HISTORY)
        self._numbers = itertools.count(1)
        self._last = 0
        self._listeners = 0
        self._read_once = asyncio.Event()
        self._changed = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None

    async def events(self, wanted: QueueList | None, after: str | None) -> AsyncIterator[bytes]:
        """Server-sent events from behind the one called `after`, or else first how everything is now."""
        self._listeners += 1
        if self._reading is None:
            self._read_once.clear()
            self._reading = asyncio.create_task(self._read())
        try:
            await self._read_once.wait()
            at = self._number(after)
            while not self._engine.stopping:
                if at is None or (self._history and self._history[0][0] > at + 1):
                    at = self._last
                    texts = [
                        (queue, _text(queue, counts, {})) for queue, counts in sorted(self._counts.items())
                    ]
                else:
                    new = [one for one in self._history if one[0] > at]
                    at = self._last
                    texts = [(queue, text) for _, queue, text in new]
                chosen = [text for queue, text in texts if wanted is None or wanted.matches(queue)]
                if chosen:
                    name = f"id: {self._name}-{at}\n".encode()
                    yield b"".join(b"event: queue\ndata: %b\n\n" % text for text in chosen[:-1])
                    yield name + b"event: queue\ndata: %b\n\n" % chosen[-1]
                if not await self._change_after(at):
                    yield b":\n\n"
        finally:
            self._listeners -= 1
            if self._listeners == 0 and self._reading is not None:
                self._reading.cancel()
                self._reading = None

    def _number(self, after: str | None) -> int | None:
        name, _, number = (after or "").rpartition("-")
        if name != self._name or not number.isdecimal() or len(number) > 12 or int(number) > self._last:
            return None
        return int(number)

    async def _change_after(self, at: int) -> bool:
        """Wait for an event behind `at`. False when none came for so long that a comment is due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMMENT_S), self._changed:
                await self._changed.wait_for(lambda: self._last > at or self._engine.stopping)
                return True
        return False

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            with contextlib.suppress(PresqueError):  # without a store nothing changes
                self._note(await queues.all_stats(self._engine))
                self._read_once.set()
            async with self._changed:
                self._changed.notify_all()
            if self._engine.stopping:
                self._read_once.set()
                return
            await asyncio.sleep(max(EVERY_S, SHARE * (loop.time() - started)))

    def _note(self, stats: dict[str, Any]) -> None:
        for queue, found in stats["by_queue"].items():
            counts = {name: found[name] for name in found if name not in ("oldest_seconds", "last_minute")}
            before = self._counts.get(queue)
            if counts == before:
                continue
            self._counts[queue] = counts
            grown = {
                name: counts[name] - (before or {}).get(name, 0)
                for name in GROWING
                if counts[name] > (before or {}).get(name, 0)
            }
            self._last = next(self._numbers)
            self._history.append((self._last, queue, _text(queue, counts, grown)))


def _text(queue: str, counts: dict[str, Any], grown: dict[str, int]) -> bytes:
    return codec.encode({"queue": queue, **counts, "new": grown})
