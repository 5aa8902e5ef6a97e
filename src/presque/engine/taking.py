"""Takes jobs off queues, for good or for a while: looks, stands in line, is dealt, and gives back.

Fetch and lease are one act with two endings (lua/take.lua); an `Ask` says which. Theory of operation of the
wait:

The store tells of jobs that became ready on a channel for each queue, and this server hears the channels of
the queues that somebody waits for here. Whoever looks and then waits must hear before the look. A message
names a queue; then as many jobs of it are taken as there are waiters, in one call, and dealt out in the order
in which the waiters came. A scheduled job needs no message: every call learns when the next one is due, and a
timer looks again then. So a wait costs nothing per second.

A fetch of one queue looks first, in a call that is gathered with those of others, and stands in line when it
found nothing. All others stand in line first: a job may arrive in a queue that was looked at already.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from presque.engine import calls, replies
from presque.engine.background import Background
from presque.engine.batching import Batch, Batches, deal, offer
from presque.engine.keys import Keys
from presque.engine.lines import Lines, Taker, Waiter
from presque.engine.queues import Queues
from presque.engine.replies import Taken
from presque.engine.settling import Settling
from presque.engine.sizes import ANSWER_BYTES, Sizes
from presque.errors import PresqueError, QueueClosed, StoreError, StoreUnavailable
from presque.job import Ask, Fetched, Leased, Settle
from presque.names import QueueList
from presque.store.channels import Channels, Hearing
from presque.store.store import Store

log = logging.getLogger("presque.engine")

FETCH_MOST = 1000
SERVE_MOST = 500
TIMER_MOST_S = 3600.0

DAMAGED = "the body in the store is not what was pushed: its checksum is wrong"

ONE_FOR_GOOD = Ask(for_good=True)


class Taking:
    """The fetches and leases of one namespace."""

    def __init__(
        self,
        store: Store,
        channels: Channels,
        keys: Keys,
        queues: Queues,
        settling: Settling,
        background: Background,
    ) -> None:
        self._store = store
        self._channels = channels
        self._keys = keys
        self._queues = queues
        self._settling = settling
        self._background = background
        self._loop = asyncio.get_running_loop()
        self._fetches = Batches(self._send_fetches, self._deliver_fetches)
        self._lines = Lines(self._hear, self._rest)
        self._hearings: dict[str, Hearing] = {}
        self._serving: dict[tuple[str, bool], bool] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._sizes = Sizes()
        self._under_way = 0
        self._stopping = False

    # --- the verbs ------------------------------------------------------------------------------

    def fetch(self, queues: QueueList, wait: float, take: Taker) -> Waiter | None:
        """Take one job off the first of `queues` that has one, for good; wait up to `wait` seconds for it.

        `take` gets the job, None when there is nothing, or a `PresqueError` (`QueueClosed` when the one
        queue named is stopped). If it answers False nobody was there any more: the job goes to the next
        who waits, or back to the head of its queue. Who leaves before passes the returned waiter to
        `leave`.
        """
        single = queues.single
        if single is None:
            return self.lease(queues, ONE_FOR_GOOD, wait, take)
        if wait <= 0:
            self._fetches.add(single, take)
            return None
        waiter = Waiter(queues, take, ONE_FOR_GOOD)
        hearing = self._channels.hear(self._keys.wake(single), _ignore)
        hearing.then(functools.partial(self._look_first, single, waiter, wait, hearing))
        return waiter

    def lease(self, queues: QueueList, ask: Ask, wait: float, take: Taker) -> Waiter | None:
        """Take jobs off the first of `queues` that have any; wait up to `wait` seconds for the first.

        `take` gets a list of `Leased` jobs, None when there is nothing, or a `PresqueError`. If it answers
        False nobody was there any more, and the jobs are released at once.
        """
        if wait <= 0:
            self._spawn(self._look, queues, ask, take)
            return None
        waiter = Waiter(queues, take, ask)
        self._wait(waiter, wait)
        if not waiter.gone:
            self._spawn(self._look_in_line, waiter)
        return waiter

    async def fetch_many(self, queue: str, count: int) -> list[Fetched]:
        """Take up to `count` jobs (1000 at most) off one queue for good. Raises `QueueClosed` if stopped.

        Returns fewer than there are when their bodies are large: 8 MiB in one answer is the most.
        """
        ask = Ask(min(count, FETCH_MOST), for_good=True)
        while True:
            taken = await self._call((queue,), ask)
            if taken.stopped:
                raise QueueClosed
            if taken.jobs or not taken.more:
                return taken.jobs

    def leave(self, waiter: Waiter) -> None:
        """The one who waits has disconnected."""
        self._lines.leave(waiter)

    def give_back(self, jobs: Iterable[Fetched | Leased]) -> None:
        """Put jobs whose taker has disconnected back at the head of their queues.

        A lease that a repeated request has got, too, stays: that one's answer may have been read.
        """
        for job in jobs:
            if isinstance(job, Leased):
                self._settling.settle(Settle("give_back", job.queue, job.id, job.token), _ignore)
            else:
                self._spawn(self._unfetch, job)

    def stop(self) -> None:
        """Answer everybody with "nothing", and let nobody wait from now on."""
        self._stopping = True
        for timer in self._timers.values():
            timer.cancel()
        for waiter in self._lines.everybody():
            self._deal(waiter, None)

    def waiting(self) -> list[Waiter]:
        """All who stand in line."""
        return self._lines.everybody()

    @property
    def at_rest(self) -> bool:
        """Whether no look is under way, and no job on its way back."""
        return not self._under_way and not self._fetches.busy

    def _spawn(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        self._under_way += 1
        self._background.spawn(self._counted(work, *args))

    async def _counted(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        try:
            await work(*args)
        finally:
            self._under_way -= 1

    # --- calls ----------------------------------------------------------------------------------

    def _command(self, queues: Sequence[str], ask: Ask) -> bytes:
        names = self._keys.of_all(queues)
        if ask.for_good:
            return calls.encode("fetch", names, ask.count, ANSWER_BYTES)
        ms, nonce = "" if ask.ms is None else str(ask.ms), secrets.token_hex(8)
        return calls.encode("lease", names, ask.count, ANSWER_BYTES, ms, ask.worker, nonce, ask.attempt_id)

    def _send(self, queue: str, ask: Ask, receive: Callable[[Any], None]) -> None:
        size = self._sizes.of(queue, ask.count)
        self._store.send(queue, self._command((queue,), ask), receive, size)

    def _taken(self, reply: Any, queues: Sequence[str], ask: Ask) -> Taken[Any]:
        """What a call took. Damaged jobs are put where nobody gets them, and due moments are noted."""
        taken: Taken[Any] = (replies.fetched if ask.for_good else replies.leased)(reply, queues)
        self._sizes.saw(taken.jobs)
        for job in taken.damaged:
            log.error("job.damaged queue=%s id=%s", job.queue, job.id)
            if isinstance(job, Leased):
                fields = {"error": DAMAGED, "retry": False, "reason": "damaged"}
                self._settling.settle(Settle("fail", job.queue, job.id, job.token, fields), _ignore)
            else:
                self._spawn(self._unfetch, job, "damaged")
        return taken

    async def _call(self, queues: Sequence[str], ask: Ask) -> Taken[Any]:
        size = self._sizes.of(queues[0], ask.count)
        taken = self._taken(await self._store.ask(queues[0], self._command(queues, ask), size), queues, ask)
        self._note_due(taken)
        return taken

    async def _unfetch(self, job: Fetched, *reason: str) -> None:
        call = calls.encode("unfetch", self._keys.of(job.queue), job.id, job.record, *reason)
        while True:
            try:
                await self._store.ask(job.queue, call)
            except PresqueError as error:
                # Unsent, it is tried again; with its outcome unknown it must not be.
                if self._stopping or not isinstance(error, StoreUnavailable) or error.sent:
                    log.error("job.not_put_back id=%s reason=%s", job.id, error)
                    return
            else:
                return

    # --- looks ----------------------------------------------------------------------------------

    def _send_fetches(self, queue: str, batch: Batch, receive: Callable[[Any], None]) -> None:
        self._send(queue, Ask(len(batch.callers), for_good=True), receive)

    def _deliver_fetches(self, queue: str, batch: Batch, reply: Any) -> None:
        """Deal out what one call fetched, in the order in which the takers asked."""
        if isinstance(reply, PresqueError):
            deal(batch.callers, [reply] * len(batch.callers))
            return
        taken = self._taken(reply, (queue,), ONE_FOR_GOOD)
        nothing = QueueClosed() if taken.stopped else None
        dealt = 0
        for take in batch.callers:
            if dealt == len(taken.jobs):
                if taken.more:
                    self._fetches.add(queue, take)  # the call has stopped at its bounds
                else:
                    offer(take, nothing)
            elif offer(take, taken.jobs[dealt]):
                dealt += 1
        self.give_back(taken.jobs[dealt:])
        self._note_due(taken)

    def _look_first(
        self, queue: str, waiter: Waiter, wait: float, hearing: Hearing, unheard: PresqueError | None
    ) -> None:
        """Look at the one queue of a waiter, now that it is heard, or cannot be."""
        if waiter.gone:
            hearing.end()
            return
        found = functools.partial(self._looked_first, queue, waiter, wait, hearing, hearing.count, unheard)
        self._fetches.add(queue, found)

    def _looked_first(
        self,
        queue: str,
        waiter: Waiter,
        wait: float,
        hearing: Hearing,
        count: int,
        unheard: PresqueError | None,
        found: Fetched | PresqueError | None,
    ) -> bool:
        """What a waiter's first look at its one queue brought: take it, or stand in line for more."""
        try:
            if waiter.gone:
                return False
            if found is None or isinstance(found, QueueClosed):
                if isinstance(unheard, StoreError):
                    found = unheard
                else:
                    self._wait(waiter, wait, found)
                    if hearing.count != count:  # messages come over a connection of their own
                        self._serve(queue)
                    return True
            waiter.gone = True
            return waiter.take(found)
        finally:
            hearing.end()

    async def _look_in_line(self, waiter: Waiter) -> None:
        """Look for one that stands in line already, once its queues are heard, or cannot be."""
        unheard = await self._heard(waiter)

        def take(found: Any) -> bool:
            if found is None and isinstance(unheard, StoreError):
                found = unheard
            return True if found is None else self._deal(waiter, found)

        if not waiter.gone:
            await self._look(waiter.queues, waiter.ask, take)

    async def _look(self, queues: QueueList, ask: Ask, take: Taker) -> None:
        """Look at all queues of a list, many in one call, until there are as many jobs as are asked for."""
        names = queues.expand(self._queues.known)
        found: list[Any] = []
        try:
            for some in calls.split(names):
                while len(found) < ask.count:
                    part = ask if not found else replace(ask, count=ask.count - len(found))
                    taken = await self._call(some, part)
                    found += taken.jobs
                    if taken.jobs or not taken.more:
                        break
        except PresqueError as error:
            if not found:
                take(error)
                return
        if not take(_handed(ask, found)):
            self.give_back(found)

    # --- the wait -------------------------------------------------------------------------------

    def _wait(self, waiter: Waiter, seconds: float, otherwise: QueueClosed | None = None) -> None:
        """Let `waiter` stand in line for so long, then answer it with `otherwise`."""
        if self._stopping:
            waiter.gone = True
            waiter.take(otherwise)
            return
        self._lines.join(waiter, self._queues.known)
        waiter.timer = self._loop.call_later(seconds, self._deal, waiter, otherwise)

    def _deal(self, waiter: Waiter, found: Any) -> bool:
        """Give a waiter its answer and take it out of the line. False if it has disconnected."""
        if waiter.gone:
            return False
        self._lines.leave(waiter)
        return waiter.take(found)

    def _hear(self, queue: str) -> None:
        """Somebody begins to wait for a queue."""
        woken, missed = functools.partial(self._woken, queue), functools.partial(self._serve, queue)
        self._hearings[queue] = self._channels.hear(self._keys.wake(queue), woken, missed)

    def _rest(self, queue: str) -> None:
        """Nobody waits for a queue any more."""
        self._hearings.pop(queue).end()

    async def _heard(self, waiter: Waiter) -> PresqueError | None:
        """Return when all is heard of that this waiter, who stands in line, would take; if the store refuses
        that or is away, with the reason."""
        reason: PresqueError | None = None
        for queue in list(self._lines.queues_of(waiter)):
            try:
                await self._hearings[queue].begun()
            except PresqueError as error:
                reason = error
            except KeyError:
                return None  # the waiter has disconnected meanwhile
        return reason

    def _woken(self, queue: str, payload: bytes) -> None:
        """Jobs of a queue became ready, or will be due."""
        ready, _, due = payload.partition(b" ")
        if ready != b"0":
            self._serve(queue)
        if due:
            self._due_in(queue, int(due))

    def connected(self) -> None:
        """Messages may have been missed: look again wherever somebody waits."""
        for queue in self._lines.queues():
            self._serve(queue)

    def forget(self, queue: str) -> None:
        """A queue is no more: nobody waits for it by a pattern. A waiter that names it goes on waiting."""
        self._lines.forget(queue)

    def new_queue(self, queue: str) -> None:
        """Let those whose globs match a queue that may not have been known before have its jobs."""
        if self._lines.new_queue(queue):
            self._hearings[queue].then(lambda _: self._serve(queue))

    def _note_due(self, taken: Taken[Any]) -> None:
        for queue, due in taken.due_ms.items():
            self._due_in(queue, due)

    def _due_in(self, queue: str, milliseconds: int) -> None:
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
        self._serve(queue)

    def _serve(self, queue: str) -> None:
        """Take jobs for those who wait."""
        self._serve_one(queue, for_good=True)
        self._serve_one(queue, for_good=False)

    def _serve_one(self, queue: str, *, for_good: bool) -> None:
        """Fetch as many jobs as there are waiters, or lease what the first in line asks for: one call of a
        kind at a time for each queue."""
        waiter = self._lines.next(queue, for_good=for_good)
        if waiter is None or self._stopping:
            return
        if (queue, for_good) in self._serving:
            self._serving[queue, for_good] = True
            return
        self._serving[queue, for_good] = False
        ask = waiter.ask
        if for_good:
            ask = Ask(min(self._lines.waiting(queue), SERVE_MOST), for_good=True)
        receive = functools.partial(self._served, queue, ask, waiter)
        self._send(queue, ask, receive)

    def _served(self, queue: str, ask: Ask, waiter: Waiter, reply: Any) -> None:
        """Deal out what a call of `_serve_one` took: each job to the next in line, or all to the one that it
        was made for."""
        again = self._serving.pop((queue, ask.for_good))
        if isinstance(reply, PresqueError):
            if isinstance(reply, StoreUnavailable) and reply.sent:
                # Jobs may have been taken for these waiters, so they are told.
                self._tell(queue, ask, waiter, reply)
            return
        taken = self._taken(reply, (queue,), ask)
        if ask.for_good:
            for position, job in enumerate(taken.jobs):
                while (first := self._lines.next(queue, for_good=True)) is not None:
                    if self._deal(first, job):
                        break
                else:
                    self.give_back(taken.jobs[position:])
                    return
        elif taken.jobs and not self._deal(waiter, taken.jobs):
            self.give_back(taken.jobs)
        self._note_due(taken)
        enough = ask.count if ask.for_good else 1
        if again or taken.more or len(taken.jobs) >= enough:
            self._serve_one(queue, for_good=ask.for_good)

    def _tell(self, queue: str, ask: Ask, waiter: Waiter, error: PresqueError) -> None:
        if not ask.for_good:
            self._deal(waiter, error)
            return
        for _ in range(ask.count):
            first = self._lines.next(queue, for_good=True)
            if first is not None:
                self._deal(first, error)


def _handed(ask: Ask, jobs: list[Any]) -> Any:
    """What a taker gets: one job, or a list of leased ones."""
    if not jobs:
        return None
    return jobs[0] if ask.for_good else jobs


def _ignore(_payload: Any) -> None:
    pass
