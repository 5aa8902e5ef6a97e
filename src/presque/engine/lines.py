"""Who waits for a job, in which order, and for which queues.

Who waits stands in the line of its queue list: all that ask for the same list share one line, so a
thousand workers of `critical,*` are one entry for each queue, not a thousand. This module keeps the lines
and does no I/O; taking.py serves them.
"""

from __future__ import annotations

import itertools
from asyncio import TimerHandle
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from presque.job import Ask
from presque.names import QueueList

Taker = Callable[[Any], bool]
"""Gets a `Fetched` job or a list of `Leased` ones, as it asked, an error, or None when there is nothing;
answers whether somebody was there to take it."""


class Waiter:
    """Somebody who waits for jobs of a queue list, as `ask` says."""

    __slots__ = ("arrival", "ask", "gone", "line", "queues", "take", "timer")

    def __init__(self, queues: QueueList, take: Taker, ask: Ask) -> None:
        self.queues = queues
        self.take = take
        self.ask = ask
        self.arrival = 0
        self.gone = False
        self.line: _Line | None = None  # while it stands in one
        self.timer: TimerHandle | None = None


class _Line:
    """Those who wait for one queue list, in the order they came; the gone are skipped when met."""

    __slots__ = ("for_good", "live", "queues", "waiters", "watched")

    def __init__(self, queues: QueueList, *, for_good: bool) -> None:
        self.queues = queues
        self.for_good = for_good
        self.waiters: deque[Waiter] = deque()
        self.live = 0
        self.watched: set[str] = set()

    def first(self) -> Waiter | None:
        while self.waiters and self.waiters[0].gone:
            self.waiters.popleft()
        return self.waiters[0] if self.waiters else None


class Lines:
    """The lines, found by queue list and by queue.

    `wanted(queue)` is called when somebody begins to wait for a queue, `unwanted(queue)` when nobody waits
    for it any more.
    """

    def __init__(
        self, wanted: Callable[[str], None] = lambda _: None, unwanted: Callable[[str], None] = lambda _: None
    ) -> None:
        self._wanted = wanted
        self._unwanted = unwanted
        self._lines: dict[tuple[QueueList, bool], _Line] = {}
        self._by_queue: dict[str, list[_Line]] = {}
        self._arrivals = itertools.count()

    def join(self, waiter: Waiter, known: Iterable[str]) -> None:
        """Stand in line. `known` are the queues that exist, for the globs; later ones come by `new_queue`."""
        waiter.arrival = next(self._arrivals)
        line = self._lines.get(_place(waiter))
        if line is None:
            line = self._lines[_place(waiter)] = _Line(waiter.queues, for_good=waiter.ask.for_good)
            for queue in waiter.queues.expand(known):
                self._watch(line, queue)
        line.waiters.append(waiter)
        line.live += 1
        waiter.line = line

    def leave(self, waiter: Waiter) -> None:
        """Step out of the line, served or not. Harmless when repeated, or for one that never joined."""
        if waiter.gone:
            return
        waiter.gone = True
        if waiter.timer is not None:
            waiter.timer.cancel()
        line, waiter.line = waiter.line, None
        if line is None:
            return
        line.live -= 1
        if line.live == 0:
            del self._lines[_place(waiter)]
            for queue in line.watched:
                self._unwatch(line, queue)

    def queues_of(self, waiter: Waiter) -> set[str]:
        """The queues whose jobs this waiter, who stands in line, would take."""
        return waiter.line.watched if waiter.line is not None else set()

    def new_queue(self, queue: str) -> bool:
        """A queue exists that may not have been known. Returns whether somebody begins to wait for it."""
        lines = [
            line for line in self._lines.values() if queue not in line.watched and line.queues.matches(queue)
        ]
        for line in lines:
            self._watch(line, queue)
        return bool(lines)

    def forget(self, queue: str) -> None:
        """A queue is no more: take it out of the lines that have it by a pattern."""
        for line in list(self._by_queue.get(queue, ())):
            if queue not in line.queues.items:
                line.watched.discard(queue)
                self._unwatch(line, queue)

    def anybody(self, queue: str) -> bool:
        """Whether somebody waits for jobs of this queue."""
        return queue in self._by_queue

    def waiting(self, queue: str) -> int:
        """How many wait to fetch a job of this queue."""
        return sum(line.live for line in self._by_queue.get(queue, ()) if line.for_good)

    def next(self, queue: str, *, for_good: bool = True) -> Waiter | None:
        """Who has waited longest to fetch or to lease here. The caller takes it out with `leave`."""
        firsts = [
            first
            for line in self._by_queue.get(queue, ())
            if line.for_good is for_good and (first := line.first()) is not None
        ]
        return min(firsts, key=lambda waiter: waiter.arrival, default=None)

    def queues(self) -> list[str]:
        """The queues that somebody waits for."""
        return list(self._by_queue)

    def everybody(self) -> list[Waiter]:
        """All who wait."""
        return [waiter for line in self._lines.values() for waiter in line.waiters if not waiter.gone]

    def _watch(self, line: _Line, queue: str) -> None:
        line.watched.add(queue)
        lines = self._by_queue.get(queue)
        if lines is None:
            self._by_queue[queue] = [line]
            self._wanted(queue)
        else:
            lines.append(line)

    def _unwatch(self, line: _Line, queue: str) -> None:
        lines = self._by_queue[queue]
        lines.remove(line)
        if not lines:
            del self._by_queue[queue]
            self._unwanted(queue)


def _place(waiter: Waiter) -> tuple[QueueList, bool]:
    return waiter.queues, waiter.ask.for_good
