"""Takes jobs off queues, for good or for a while: looks, stands in line, is dealt, and gives back.

Fetch and lease are one act with two endings (lua/take.lua); an `Ask` says which. Theory of operation of the
wait:

The store tells of jobs that became ready on a channel for each queue, and on one for all. This server hears
the channels of the queues that somebody waits for here by their names, and that of all while somebody waits
for a pattern. A waiter must hear before it looks. A message tells of a queue; then as
many jobs of it are taken as there are waiters, in one call, and dealt out in the order in which the waiters
came. A scheduled job needs no message: every call learns when the next one is due, and a timer looks again
then. So a wait costs nothing per second, and no more with many queues than with few.

A fetch of one queue looks first, in a call that is gathered with those of others, and stands in line when it
found nothing. All others stand in line first: a job may arrive in a queue that was looked at already. What a
pattern stands for is read from the store a page at a time, of the busy queues alone (index.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

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
from presque.names import QueueList, has_glob
from presque.store.channels import Channels, Hearing
from presque.store.store import Store

log = logging.getLogger("presque.engine")

FETCH_MOST = 1000
SERVE_MOST = 500
TIMER_MOST_S = 3600.0
MOVED_S = 1.0  # how long a moved clock gives to the looks that are under way
LOOKS_AT_ONCE = 8  # for patterns: each may go through many queues
AGAIN_S = 0.05  # after which a job is put back again that could not be sent to the store
CHECKS_A_TURN = 250  # comparisons of a queue with patterns, in a turn of the event loop

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
        self._hearings: dict[str | None, Hearing] = {}
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._serving: dict[tuple[str, bool], bool] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._sizes = Sizes()
        self._under_way = 0
        self._stopping = False

    # --- the verbs ------------------------------------------------------------------------------

    def fetch(self, queues: QueueList, wait: float, take: Taker) -> Waiter | None:
        """Take one job off the first of `queues` that has one, for good; wait up to `wait` seconds for it.

        `take` gets the job, None when there is nothing, or a `PresqueError` (`QueueClosed` when the one queue
        named is stopped). If it returns False the client has gone: the job goes to the next waiter, or back
        to the head of its queue. A caller that leaves before that passes the returned waiter to `leave`.
        """
        single = queues.single
        if single is None:
            return self.lease(queues, ONE_FOR_GOOD, wait, take)
        if wait <= 0:
            self._fetches.add(single, take)
            return None
        waiter = Waiter(queues, take, ONE_FOR_GOOD)
        hearing = self._channels.hear(self._keys.wake(single), calls.ignore)
        hearing.then(functools.partial(self._look_first, single, waiter, wait, hearing))
        return waiter

    def lease(self, queues: QueueList, ask: Ask, wait: float, take: Taker) -> Waiter | None:
        """Take jobs off the first of `queues` that have any; wait up to `wait` seconds for the first.

        `take` gets a list of `Leased` jobs, None when there is nothing, or a `PresqueError`. If it answers
        False nobody was there any more, and the jobs are released at once.
        """
        if wait <= 0:
            if queues.single is None:
                self._spawn(self._look, queues, ask, take)
            else:
                self._look_once(queues.single, ask, take)
            return None
        waiter = Waiter(queues, take, ask)
        waiter.looks = True
        self._wait(waiter, wait)
        if not waiter.gone:
            self._spawn(self._look_in_line, waiter)
        return waiter

    async def fetch_many(self, queue: str, count: int) -> list[Fetched]:
        """Take up to `count` jobs (1000 at most) off one queue for good. Raises `QueueClosed` if stopped.

        Returns fewer than there are when their bodies are large: 4 MiB in one answer is the most.
        """
        ask = Ask(min(count, FETCH_MOST), for_good=True)
        while True:
            taken = await self._call((queue,), ask)
            if taken.stopped:
                raise QueueClosed
            if taken.jobs or not taken.more:
                return taken.jobs

    def leave(self, waiter: Waiter) -> None:
        """The waiter has disconnected."""
        self._lines.leave(waiter)

    def give_back(self, jobs: Iterable[Fetched | Leased]) -> None:
        """Put jobs whose taker has disconnected back at the head of their queues.

        A lease that a repeated request has also received is not given back: its answer may have been read.
        """
        leased = []
        for job in jobs:
            if isinstance(job, Leased):
                leased.append(Settle("give_back", job.queue, job.id, job.token))
            else:
                self._spawn(self._unfetch, job)
        if leased:
            self._settling.give_back(leased)

    def stop(self) -> None:
        """Answer all waiters with "nothing", and let nobody wait from now on."""
        self._stopping = True
        for timer in self._timers.values():
            timer.cancel()
        for waiter in self._lines.everybody():
            self._deal(waiter, None)

    def waits(self, queue: str) -> bool:
        """Whether somebody waits here for jobs of a queue, by its name or by a pattern."""
        return self._lines.anybody(queue)

    def waiting(self) -> list[Waiter]:
        """All waiters in line."""
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
        names = self._keys.of(queues[0]) if len(queues) == 1 else self._keys.of_all(queues)
        if ask.for_good:
            return calls.encode_args("fetch", names, 2, calls.argument(b"%d" % ask.count) + _BYTES)
        ms, nonce = "" if ask.ms is None else str(ask.ms), secrets.token_hex(8)
        return calls.encode("lease", names, ask.count, ANSWER_BYTES, ms, ask.worker, nonce, ask.attempt_id)

    def _send(self, queue: str, ask: Ask, receive: Callable[[Any], None]) -> None:
        size = self._sizes.of(queue, ask.count)
        self._store.send(queue, self._command((queue,), ask), receive, size)

    def _taken(self, reply: Any, queues: Sequence[str], ask: Ask) -> Taken[Any]:
        """What a call took. Damaged jobs are put where nobody gets them, and due moments are noted."""
        taken: Taken[Any] = (replies.fetched if ask.for_good else replies.leased)(reply, queues)
        self._sizes.saw(taken.largest)
        self._queues.spoilt(taken.spoilt)
        for job in taken.damaged:
            log.error("job.damaged queue=%s id=%s", job.queue, job.id)
            if isinstance(job, Leased):
                fields = {"error": DAMAGED, "retry": False, "reason": "damaged"}
                self._settling.settle(Settle("fail", job.queue, job.id, job.token, fields), calls.ignore)
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
                # Unsent, it is sent again; with its outcome unknown it must not be.
                unsent = isinstance(error, StoreUnavailable) and not error.sent
                if not unsent or (self._stopping and not self._store.connected):
                    log.error("job.not_put_back id=%s reason=%s", job.id, error)
                    return
                await asyncio.sleep(AGAIN_S)
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
        jobs = iter(taken.jobs)
        job = next(jobs, None)
        for take in batch.callers:
            if job is not None:
                if offer(take, job):
                    job = next(jobs, None)
            elif taken.more:
                self._fetches.add(queue, take)  # the call has stopped at its bounds
            else:
                offer(take, nothing)
        if job is not None:
            self.give_back((job, *jobs))
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
        """Look for a waiter that is in line already, once its queues are heard, or cannot be."""
        unheard = await self._heard(waiter)

        def take(found: Any) -> bool:
            if found is None and isinstance(unheard, StoreError):
                found = unheard
            return True if found is None else self._deal(waiter, found)

        if not waiter.gone:
            await self._look(waiter.queues, waiter.ask, take)
        waiter.looks = False
        if waiter.late:
            self._deal(waiter, waiter.otherwise)

    async def _look(self, queues: QueueList, ask: Ask, take: Taker) -> None:
        """Look at all queues of a list, many in one call, until there are as many jobs as are asked for."""
        found: list[Any] = []
        try:
            if queues.globs:
                async with self._looks, contextlib.aclosing(self._queues.index.pieces(queues)) as pieces:
                    async for some in pieces:
                        await self._look_at(some, ask, found)
                        if len(found) >= ask.count:
                            break
            else:
                for named in calls.split(queues.items):
                    await self._look_at(named, ask, found)
        except PresqueError as error:
            if not found:
                take(error)
                return
        if not take(_handed(ask, found)):
            self.give_back(found)

    async def _look_at(self, queues: Sequence[str], ask: Ask, found: list[Any]) -> None:
        """Add to what was found what these queues have."""
        while len(found) < ask.count:
            part = ask if not found else replace(ask, count=ask.count - len(found))
            taken = await self._call(queues, part)
            found += taken.jobs
            if taken.jobs or not taken.more:
                break

    def _look_once(self, queue: str, ask: Ask, take: Taker) -> None:
        """What `_look` does, at one queue and without a task for it: see bench/lease_cpu.py."""
        self._under_way += 1
        self._send(queue, ask, functools.partial(self._looked_once, queue, ask, take))

    def _looked_once(self, queue: str, ask: Ask, take: Taker, reply: Any) -> None:
        if isinstance(reply, PresqueError):
            self._under_way -= 1
            offer(take, reply)
            return
        taken = self._taken(reply, (queue,), ask)
        self._under_way -= 1
        self._note_due(taken)
        if taken.more and not taken.jobs:
            self._look_once(queue, ask, take)
        elif not offer(take, _handed(ask, taken.jobs)):
            self.give_back(taken.jobs)

    # --- the wait -------------------------------------------------------------------------------

    def _wait(self, waiter: Waiter, seconds: float, otherwise: QueueClosed | None = None) -> None:
        """Let `waiter` stand in line for this long, then answer it with `otherwise`."""
        if self._stopping:
            waiter.gone = True
            waiter.take(otherwise)
            return
        self._lines.join(waiter)
        waiter.otherwise = otherwise
        waiter.timer = self._loop.call_later(seconds, self._time_is_up, waiter)

    def _time_is_up(self, waiter: Waiter) -> None:
        """Answer a waiter, but not before its first look has come back: however slow the store is, a job that
        was there from the beginning is found, as without waiting."""
        waiter.late = True
        if not waiter.looks:
            self._deal(waiter, waiter.otherwise)

    def _deal(self, waiter: Waiter, found: Any) -> bool:
        """Give a waiter its answer and take it out of the line. False if it has disconnected."""
        if waiter.gone:
            return False
        self._lines.leave(waiter)
        return waiter.take(found)

    def _hear(self, queue: str | None) -> None:
        """Somebody begins to wait for a queue, or for the first pattern."""
        if queue is None:
            hearing = self._channels.hear(self._keys.wake_any(), self._woken_any, self._look_for_patterns)
        else:
            woken, missed = functools.partial(self._woken, queue), functools.partial(self._serve, queue)
            hearing = self._channels.hear(self._keys.wake(queue), woken, missed)
        self._hearings[queue] = hearing

    def _rest(self, queue: str | None) -> None:
        """Nobody waits for a queue any more, or for any pattern."""
        self._hearings.pop(queue).end()

    async def _heard(self, waiter: Waiter) -> PresqueError | None:
        """Return once every channel is heard that matters to this waiter in line; if the store refuses
        that or is away, with the reason."""
        reason: PresqueError | None = None
        for queue in dict.fromkeys(None if has_glob(item) else item for item in waiter.queues.items):
            try:
                await self._hearings[queue].begun()
            except PresqueError as error:
                reason = error
            except KeyError:
                return None  # the waiter has disconnected meanwhile
        return reason

    def _woken(self, queue: str, payload: bytes) -> None:
        """Jobs of a queue became ready, or will be due."""
        if not self._lines.find(queue, CHECKS_A_TURN):
            self._loop.call_soon(self._woken, queue, payload)
            return
        ready, _, due = payload.partition(b" ")
        if ready != b"0":
            self._serve(queue)
        if due:
            self._due_in(queue, int(due))

    def _woken_any(self, payload: bytes) -> None:
        """The same on the channel of all queues. Waiters that name a queue hear that queue's own channel."""
        name, _, said = payload.partition(b" ")
        queue = name.decode()
        own = self._hearings.get(queue)
        if own is None or not own.on:
            self._woken(queue, said)

    def connected(self) -> None:
        """Messages may have been missed: look again wherever somebody waits."""
        for queue in self._lines.queues():
            self._serve(queue)
        if self._lines.patterns:
            self._look_for_patterns()

    async def moved(self, seconds: float) -> None:
        """The store's clock was moved for a test: let those who wait have what became ready, and end the
        waits that would be over by now."""
        await self._channels.caught_up()
        self.connected()  # what was to come in an hour may come in a minute
        until = self._loop.time() + MOVED_S
        while (self._serving or not self.at_rest) and self._loop.time() < until:
            await asyncio.sleep(0.001)
        for waiter in self._lines.everybody():
            if waiter.timer is None or seconds <= 0:
                continue
            ends = waiter.timer.when() - seconds
            waiter.timer.cancel()
            if ends <= self._loop.time():
                self._time_is_up(waiter)
            else:
                waiter.timer = self._loop.call_at(ends, self._time_is_up, waiter)

    def _look_for_patterns(self) -> None:
        """Messages may have been missed: look again for all who wait for patterns."""
        self._spawn(self._serve_busy)

    async def _serve_busy(self) -> None:
        index = self._queues.index
        with contextlib.suppress(PresqueError):  # the next connection looks again
            async with self._looks, contextlib.aclosing(index.all(index.busy)) as pages:
                async for page in pages:
                    for queue in page:
                        while not self._lines.find(queue, CHECKS_A_TURN):
                            await asyncio.sleep(0)
                        self._serve(queue)
                    if not self._lines.patterns:
                        return

    def forget(self, queue: str) -> None:
        """A queue was forgotten. A waiter that names it keeps waiting."""
        self._lines.forget(queue)

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
        if not self._lines.find(queue, CHECKS_A_TURN):
            self._loop.call_soon(self._serve, queue)
            return
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
            ask = Ask(len(self._lines.first(queue, SERVE_MOST)), for_good=True)
        receive = functools.partial(self._served, queue, ask, waiter)
        self._send(queue, ask, receive)

    def _served(self, queue: str, ask: Ask, waiter: Waiter, reply: Any) -> None:
        """Deal out what a call of `_serve_one` took: each job to the next in line, or all to the one that it
        was made for."""
        again = self._serving.pop((queue, ask.for_good))
        if isinstance(reply, PresqueError):
            if isinstance(reply, StoreUnavailable) and reply.sent:
                # Jobs may have been taken for these waiters, so they get the error.
                self._tell(queue, ask, waiter, reply)
            return
        taken = self._taken(reply, (queue,), ask)
        if ask.for_good:
            dealt = self._deal_out(queue, taken.jobs)
            if dealt < len(taken.jobs):
                self.give_back(taken.jobs[dealt:])
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
        for first in self._lines.first(queue, ask.count):
            self._deal(first, error)

    def _deal_out(self, queue: str, jobs: Sequence[Any]) -> int:
        """Give each job to the next in line. Returns how many were taken: fewer if nobody is left."""
        dealt = 0
        while dealt < len(jobs) and (waiters := self._lines.first(queue, len(jobs) - dealt)):
            for waiter in waiters:
                dealt += self._deal(waiter, jobs[dealt])
        return dealt


def _handed(ask: Ask, jobs: list[Any]) -> Any:
    """What a taker gets: one job, or a list of leased ones."""
    if not jobs:
        return None
    return jobs[0] if ask.for_good else jobs


_BYTES = calls.argument(b"%d" % ANSWER_BYTES)
