"""The waiters: in which order, and for which queues.

A waiter stands in one line for each part of its queue list: in that of each queue it names, and in that of
each pattern. All that wait for the same stand in the same line, and what a waiter costs does not depend on
how many queues there are. When a queue has a job, those in its own line and those in the lines of the
patterns that match it are served, the one that has waited longest first.

Which patterns match a queue is worked out once and remembered for the queues of late (`find`), in pieces:
there may be thousands of patterns. This module keeps the lines and does no I/O; taking.py serves them.
"""

from __future__ import annotations

import heapq
import itertools
from asyncio import TimerHandle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from presque.job import Ask
from presque.names import Excluding, QueueList, has_glob

MATCHES_MOST = 2000  # queues that are remembered with what matches them
LINES_MOST = 200_000  # in the memory of all of them
EMPTY_MOST = 64  # lines of patterns without a waiter that are kept: most are wanted again

Taker = Callable[[Any], bool]
"""Gets a `Fetched` job or a list of `Leased` ones, as it asked, an error, or None when there is nothing;
answers whether somebody was there to take it."""


class Waiter:
    """A client that waits for jobs of a queue list; `ask` says for which."""

    __slots__ = ("arrival", "ask", "gone", "late", "lines", "looks", "otherwise", "queues", "take", "timer")

    def __init__(self, queues: QueueList, take: Taker, ask: Ask) -> None:
        self.queues = queues
        self.take = take
        self.ask = ask
        self.arrival = 0
        self.gone = False
        self.lines: tuple[_Line, ...] = ()  # in which it stands
        self.timer: TimerHandle | None = None
        self.looks = False  # while its first look is under way
        self.late = False  # its time was up before that came back
        self.otherwise: Any = None  # what it is answered when its time is up


class _Line:
    """Those who wait for one queue by its name, or for a pattern: each kind in the order they came."""

    __slots__ = ("item", "stands_for", "to_fetch", "to_lease")

    def __init__(self, item: str, excluded: tuple[str | Excluding, ...]) -> None:
        self.item = item
        self.stands_for = QueueList((item,), excluded)
        self.to_fetch: OrderedDict[Waiter, None] = OrderedDict()
        self.to_lease: OrderedDict[Waiter, None] = OrderedDict()

    def of(self, *, for_good: bool) -> OrderedDict[Waiter, None]:
        """Those that fetch, or those that lease."""
        return self.to_fetch if for_good else self.to_lease

    @property
    def empty(self) -> bool:
        """Whether the line is empty."""
        return not self.to_fetch and not self.to_lease


class _Matching:
    """The patterns that match one queue, of the first `looked` there are."""

    __slots__ = ("lines", "looked")

    def __init__(self) -> None:
        self.lines: list[_Line] = []
        self.looked = 0


class Lines:
    """The lines of one server.

    `wanted(queue)` is called when somebody begins to wait for a queue by its name, `unwanted(queue)` when
    nobody does any more; both with None for the first and the last that waits for a pattern.
    """

    def __init__(
        self,
        wanted: Callable[[str | None], None] = lambda _: None,
        unwanted: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self._wanted = wanted
        self._unwanted = unwanted
        self._named: dict[str, _Line] = {}
        self._patterns: dict[
            tuple[str, tuple[str | Excluding, ...]], _Line
        ] = {}  # in the order in which they came
        self._in_order: list[_Line] = []  # the same
        self._empty = 0  # of them
        self._matching: OrderedDict[str, _Matching] = OrderedDict()
        self._remembered = 0
        self._here: dict[Waiter, None] = {}
        self._arrivals = itertools.count()

    def join(self, waiter: Waiter) -> None:
        """Stand in line."""
        waiter.arrival = next(self._arrivals)
        excluded = waiter.queues.excluded
        waiter.lines = tuple(
            self._pattern(item, excluded) if has_glob(item) else self._name(item)
            for item in waiter.queues.items
        )
        self._here[waiter] = None
        for line in waiter.lines:
            line.of(for_good=waiter.ask.for_good)[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        """Step out of the lines, served or not. Harmless when repeated, or for one that never joined."""
        if waiter.gone:
            return
        waiter.gone = True
        if waiter.timer is not None:
            waiter.timer.cancel()
        lines, waiter.lines = waiter.lines, ()
        self._here.pop(waiter, None)
        for line in lines:
            del line.of(for_good=waiter.ask.for_good)[waiter]
            if line.empty:
                self._emptied(line)

    def find(self, queue: str, checks: float = float("inf")) -> bool:
        """Find out which patterns match a queue, in about `checks` comparisons at most. Returns whether that
        is done: if not, another call goes on."""
        found = self._matching.get(queue)
        if found is None:
            if not self._in_order:
                return True
            found = self._matching[queue] = _Matching()
        self._matching.move_to_end(queue)
        while found.looked < len(self._in_order):
            if checks <= 0:
                return False
            line = self._in_order[found.looked]
            found.looked += 1
            checks -= 1 + line.stands_for.excluding
            if line.stands_for.picks(line.item, queue):
                found.lines.append(line)
                self._remembered += 1
        while len(self._matching) > 1 and (
            len(self._matching) > MATCHES_MOST or self._remembered > LINES_MOST
        ):
            self._forget(next(iter(self._matching)))
        return True

    def forget(self, queue: str) -> None:
        """Forget a queue that no longer exists."""
        if queue in self._matching:
            self._forget(queue)

    def anybody(self, queue: str) -> bool:
        """Whether somebody waits for jobs of this queue."""
        return any(not line.empty for line in self._lines(queue))

    def first(self, queue: str, most: int = 1, *, for_good: bool = True) -> list[Waiter]:
        """Those who have waited longest to fetch or to lease here, in their order, `most` of them. The caller
        takes them out with `leave`."""
        lines = [line.of(for_good=for_good) for line in self._lines(queue)]
        lines = [line for line in lines if line]
        if most == 1:
            heads = (next(iter(line)) for line in lines)
            found = min(heads, key=_arrival, default=None)
            return [] if found is None else [found]
        if len(lines) == 1:
            return list(itertools.islice(lines[0], most))
        merged = heapq.merge(*lines, key=_arrival)
        # A waiter in several lines comes several times in a row.
        return list(itertools.islice((one for one, _ in itertools.groupby(merged)), most))

    def next(self, queue: str, *, for_good: bool = True) -> Waiter | None:
        """The waiter that has waited longest to fetch or to lease here. The caller takes it out with
        `leave`."""
        found = self.first(queue, for_good=for_good)
        return found[0] if found else None

    def queues(self) -> list[str]:
        """The queues that somebody waits for by their names."""
        return list(self._named)

    @property
    def patterns(self) -> bool:
        """Whether somebody waits for a pattern."""
        return len(self._in_order) > self._empty

    @property
    def known_patterns(self) -> int:
        """How many patterns are compared with queues: those that somebody waits for, and some others."""
        return len(self._in_order)

    @property
    def remembers(self) -> int:
        """Of how many queues it is remembered which patterns match them."""
        return len(self._matching)

    def everybody(self) -> list[Waiter]:
        """All who wait."""
        return list(self._here)

    def _lines(self, queue: str) -> Iterator[_Line]:
        """The lines of those who wait for a queue."""
        self.find(queue)
        if (named := self._named.get(queue)) is not None:
            yield named
        if (found := self._matching.get(queue)) is not None:
            yield from found.lines

    def _name(self, queue: str) -> _Line:
        line = self._named.get(queue)
        if line is None:
            line = self._named[queue] = _Line(queue, ())
            self._wanted(queue)
        return line

    def _pattern(self, item: str, excluded: tuple[str | Excluding, ...]) -> _Line:
        line = self._patterns.get((item, excluded))
        if line is None:
            line = self._patterns[item, excluded] = _Line(item, excluded)
            self._in_order.append(line)
            self._empty += 1
        if line.empty:
            if not self.patterns:
                self._wanted(None)
            self._empty -= 1
        return line

    def _emptied(self, line: _Line) -> None:
        """The last one has left a line. That of a pattern stays for a while: most are wanted again."""
        if not has_glob(line.item):
            del self._named[line.item]
            self._unwanted(line.item)
            return
        self._empty += 1
        if self._empty > max(EMPTY_MOST, len(self._in_order) // 2):
            self._patterns = {key: one for key, one in self._patterns.items() if not one.empty}
            self._in_order = list(self._patterns.values())
            self._empty = self._remembered = 0
            self._matching.clear()
        if not self.patterns:
            self._unwanted(None)

    def _forget(self, queue: str) -> None:
        self._remembered -= len(self._matching.pop(queue).lines)


def _arrival(waiter: Waiter) -> int:
    return waiter.arrival
