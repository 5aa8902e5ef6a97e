"""What happens to jobs, for those who watch one server: reported one by one, and counted where there is too
much.

What is heard is gathered for a moment. Then it becomes events, JOBS_A_TICK at most, dealt out among the
queues where something happened so that a busy one does not drown the others; what is beyond that is only
counted, in an event of its own. So neither the server nor a reader has more to do than that, whatever happens
in the store.

The last HISTORY events are kept, for readers that are behind and for those who come back.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from presque import codec
from presque.commands.times import moment
from presque.engine.engine import Engine
from presque.names import QueueList, queue_list

HISTORY = 1000
GATHERED_MOST = 10_000
TICK_S = 0.1
JOBS_A_TICK = 100
QUEUES_A_TICK = 50
LINGER_S = 30.0  # a client that comes back within this time has missed nothing
EVERYTHING = queue_list("*")


class Event(NamedTuple):
    """One event. It tells of so many of the things that happened, the last of which has the number `last`."""

    last: int
    things: int
    queue: str | None  # None if it is for everybody
    text: bytes


class _Heard:
    """What was heard of one queue since it was last reported."""

    __slots__ = ("jobs", "left_out")

    def __init__(self) -> None:
        self.jobs: list[tuple[int, str, str]] = []
        self.left_out: Counter[str] = Counter()


class JobEvents:
    """The events of jobs of one server. `changed` is called when there are new ones."""

    def __init__(self, engine: Engine, changed: Callable[[], None]) -> None:
        self._engine = engine
        self._changed = changed
        self._wanted: Counter[QueueList] = Counter()
        self._heard: dict[str, _Heard] = {}
        self._gathered = 0
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._known_from = 0  # what happened before it is unknown
        self._ticking = False
        self.last = 0

    # --- readers --------------------------------------------------------------------------------

    async def join(self, wanted: QueueList | None) -> None:
        """Somebody reads, until `leave`. Raises `PresqueError`, and then they need not leave."""
        self._wanted[wanted or EVERYTHING] += 1
        try:
            await self._engine.watch(self, list(self._wanted))
        except BaseException:
            self._drop(wanted)
            raise

    def leave(self, wanted: QueueList | None) -> None:
        """They have gone, and may come back."""
        asyncio.get_running_loop().call_later(LINGER_S, self._drop, wanted)

    def _drop(self, wanted: QueueList | None) -> None:
        self._wanted[wanted or EVERYTHING] -= 1
        self._wanted += Counter()  # forgets those that are zero
        if not self._wanted:
            self._engine.events.rest()
            self._heard.clear()
            self._history.clear()
            self._gathered = 0
            self.last += 1
            self._known_from = self.last

    def behind(self, at: int | None, wanted: QueueList | None) -> list[bytes]:
        """The events behind number `at`, those of the `wanted` queues. None is for who was elsewhere."""
        if at is None or at > self.last:
            return [_left_out(None, None, None)]
        found = []
        for event in reversed(self._history):
            if event.last <= at:
                break
            if event.queue is None or wanted is None or wanted.matches(event.queue):
                found.append(event.text)
        if at < self._known_from:
            found.append(_left_out(None, None, None))
        elif self._history and (missing := self._history[0].last - self._history[0].things - at) > 0:
            found.append(_left_out(None, missing, None))
        return found[::-1]

    # --- what is heard --------------------------------------------------------------------------

    def heard(self, queue: str, at: int, what: str, count: int, ids: list[str]) -> None:
        """Something happened to `count` jobs: see `engine.events`."""
        heard = self._heard.get(queue)
        if heard is None:
            heard = self._heard[queue] = _Heard()
        room = max(0, min(count, len(ids), JOBS_A_TICK - len(heard.jobs), GATHERED_MOST - self._gathered))
        heard.jobs += [(at, what, job) for job in ids[:room]]
        self._gathered += room
        if count > room:
            heard.left_out[what] += count - room
        self._tick_soon()

    def missed(self) -> None:
        """The store was away."""
        self._tell_all()
        self._add(1, None, _left_out(None, None, None))
        self._changed()

    def _tick_soon(self) -> None:
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        self._tell(QUEUES_A_TICK)
        if self._heard:
            self._tick_soon()
        self._changed()

    def _tell_all(self) -> None:
        while self._heard:
            self._tell(len(self._heard))

    def _tell(self, most: int) -> None:
        """Make events of what was heard of the first queues, each with an equal share."""
        queues = list(self._heard)[:most]
        share = max(1, JOBS_A_TICK // max(1, len(queues)))
        for queue in queues:
            heard = self._heard.pop(queue)
            self._gathered -= len(heard.jobs)
            for number, (at, what, job) in enumerate(heard.jobs):
                if number < share:
                    told = {"queue": queue, "id": job, "what": what, "at": moment(at)}
                    self._add(1, queue, b"event: job\ndata: %b\n" % codec.encode(told))
                else:
                    heard.left_out[what] += 1
            if heard.left_out:
                count = heard.left_out.total()
                self._add(count, queue, _left_out(queue, count, dict(heard.left_out)))

    def _add(self, things: int, queue: str | None, text: bytes) -> None:
        self.last += things
        self._history.append(Event(self.last, things, queue, text))


def _left_out(queue: str | None, count: int | None, by: dict[str, Any] | None) -> bytes:
    return b"event: left_out\ndata: %b\n" % codec.encode({"queue": queue, "count": count, "by": by})
