"""Lets a waiting fetch sleep until a job arrives, at no cost per second.

The store tells of jobs that became ready on a channel for each queue, and this server hears the channels of
the queues that somebody waits for here. Whoever looks and then waits must hear before the look. A message
names a queue; then as many jobs of it are taken as there are waiters, in one call, and dealt out in the
order in which the waiters came. A scheduled job needs no message: every fetch learns when the next one is
due, and a timer looks again then.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from presque.engine import replies
from presque.engine.keys import Keys
from presque.engine.lines import Lines, Waiter
from presque.errors import PresqueError, QueueClosed, StoreUnavailable
from presque.job import Fetched, LeaseAsk, Leased
from presque.store.channels import Channels, Hearing

J = TypeVar("J", Fetched, Leased)

SERVE_MOST = 500
TIMER_MOST_S = 3600.0


class Source(Protocol):
    """What serving the lines needs of the engine."""

    def take_jobs(self, queue: str, count: int, receive: Callable[[Any], None]) -> None:
        """Fetch up to `count` jobs; `receive` gets the reply of `fetch` or a `PresqueError`."""

    def lease_jobs(self, queue: str, ask: LeaseAsk, receive: Callable[[Any], None]) -> None:
        """Lease jobs; `receive` gets the reply of `lease` or a `PresqueError`."""

    def sound(self, taken: replies.Taken[J]) -> replies.Taken[J]:
        """The same answer, while the damaged jobs in it are put where nobody gets them."""

    def give_back(self, jobs: Iterable[Fetched | Leased]) -> None:
        """Put fetched or leased jobs back at the head of their queues."""


class Wakeups:
    """Serves those who wait."""

    def __init__(self, source: Source, channels: Channels, keys: Keys) -> None:
        self._source = source
        self._channels = channels
        self._keys = keys
        self._loop = asyncio.get_running_loop()
        self._lines = Lines(self._hear, self._rest)
        self._hearings: dict[str, Hearing] = {}
        self._leasing: dict[str, bool] = {}
        self._serving: dict[str, bool] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._stopping = False

    def wait(
        self, waiter: Waiter, seconds: float, known: Iterable[str], otherwise: QueueClosed | None = None
    ) -> None:
        """Let `waiter` stand in line for so long, then answer it with `otherwise`."""
        if self._stopping:
            waiter.gone = True
            waiter.take(otherwise)
            return
        self._lines.join(waiter, known)
        waiter.timer = self._loop.call_later(seconds, self.deal, waiter, otherwise)

    def hear(self, queue: str) -> Hearing:
        """Hear of jobs in a queue, so as to look there and then wait; `count` shows if some came since."""
        return self._channels.hear(self._keys.wake(queue), _ignore)

    async def heard(self, waiter: Waiter) -> PresqueError | None:
        """Return when all is heard of that this waiter, who stands in line, would take; if the store refuses
        that or is away, with the reason."""
        reason: PresqueError | None = None
        for queue in list(self._lines.queues_of(waiter)):
            try:
                await self._hearings[queue].begun()
            except PresqueError as error:
                reason = error
            except KeyError:
                return None  # the waiter has gone meanwhile
        return reason

    def _hear(self, queue: str) -> None:
        """Somebody begins to wait for a queue."""
        woken, missed = functools.partial(self._woken, queue), functools.partial(self.serve, queue)
        self._hearings[queue] = self._channels.hear(self._keys.wake(queue), woken, missed)

    def _rest(self, queue: str) -> None:
        """Nobody waits for a queue any more."""
        self._hearings.pop(queue).end()

    def _woken(self, queue: str, payload: bytes) -> None:
        """Jobs of a queue became ready, or will be due."""
        ready, _, due = payload.partition(b" ")
        if ready != b"0":
            self.serve(queue)
        if due:
            self.due_in(queue, int(due))

    def leave(self, waiter: Waiter) -> None:
        """The one who waits has gone."""
        self._lines.leave(waiter)

    def deal(self, waiter: Waiter, found: Any) -> bool:
        """Give a waiter its answer and take it out of the line. False if it has gone."""
        if waiter.gone:
            return False
        self._lines.leave(waiter)
        return waiter.take(found)

    def stop(self) -> None:
        """Answer everybody with "nothing", and let nobody wait from now on."""
        self._stopping = True
        for timer in self._timers.values():
            timer.cancel()
        for waiter in self._lines.everybody():
            self.deal(waiter, None)

    def serve(self, queue: str) -> None:
        """Take jobs for those who wait."""
        self._serve_fetches(queue)
        self._serve_lease(queue)

    def _serve_fetches(self, queue: str) -> None:
        """Fetch as many jobs as there are waiters. One call at a time for each queue."""
        waiting = min(self._lines.waiting(queue), SERVE_MOST)
        if waiting == 0 or self._stopping:
            return
        if queue in self._serving:
            self._serving[queue] = True
            return
        self._serving[queue] = False
        self._source.take_jobs(queue, waiting, functools.partial(self._served, queue, waiting))

    def _serve_lease(self, queue: str) -> None:
        """Lease what the first in line asks for. One call at a time for each queue."""
        waiter = self._lines.next(queue, leasing=True)
        if waiter is None or waiter.ask is None or self._stopping:
            return
        if queue in self._leasing:
            self._leasing[queue] = True
            return
        self._leasing[queue] = False
        self._source.lease_jobs(queue, waiter.ask, functools.partial(self._leased, queue, waiter))

    def serve_all(self) -> None:
        """Messages may have been missed: look again wherever somebody waits."""
        for queue in self._lines.queues():
            self.serve(queue)

    def new_queue(self, queue: str) -> None:
        """Let those whose globs match a queue that may not have been known before have its jobs."""
        if self._lines.new_queue(queue):
            self._hearings[queue].then(lambda _: self.serve(queue))

    def due_in(self, queue: str, milliseconds: int) -> None:
        """Look again when the next scheduled job is due, if somebody waits."""
        if not self._lines.anybody(queue):
            return
        # A millisecond more, so that the store's clock has surely got there.
        when = self._loop.time() + min((milliseconds + 1) / 1000, TIMER_MOST_S)
        timer = self._timers.get(queue)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[queue] = self._loop.call_at(when, self._due, queue)

    def _due(self, queue: str) -> None:
        del self._timers[queue]
        self.serve(queue)

    def _served(self, queue: str, asked: int, reply: Any) -> None:
        again = self._serving.pop(queue)
        if isinstance(reply, StoreUnavailable) and reply.sent:
            # Jobs may have been taken for these waiters, so they are told.
            for _ in range(asked):
                waiter = self._lines.next(queue, leasing=False)
                if waiter is not None:
                    self.deal(waiter, reply)
            return
        if isinstance(reply, PresqueError):
            return
        answer = self._source.sound(replies.fetched(reply, (queue,)))
        for position, job in enumerate(answer.jobs):
            while (waiter := self._lines.next(queue, leasing=False)) is not None:
                if self.deal(waiter, job):
                    break
            else:
                self._source.give_back(answer.jobs[position:])
                return
        for due in answer.due_ms.values():
            self.due_in(queue, due)
        if again or answer.more or len(answer.jobs) == asked:
            self._serve_fetches(queue)

    def _leased(self, queue: str, waiter: Waiter, reply: Any) -> None:
        again = self._leasing.pop(queue)
        if isinstance(reply, PresqueError):
            if isinstance(reply, StoreUnavailable) and reply.sent:
                self.deal(waiter, reply)
            return
        answer = self._source.sound(replies.leased(reply, (queue,)))
        if answer.jobs and not self.deal(waiter, answer.jobs):
            self._source.give_back(answer.jobs)
        for due in answer.due_ms.values():
            self.due_in(queue, due)
        if again or answer.more or answer.jobs:
            self._serve_lease(queue)


def _ignore(_payload: bytes) -> None:
    pass
