"""Consuming over a connection that stays open, for every door that has such connections.

A client grants credits: up to `count` jobs of a queue list are leased to it at any time and handed to it as
soon as they are there; each job that is settled makes room for another. So a client that does not read, or
does not settle, gets no more than it has asked for. From a queue whose policy `delivery` is for those who are
connected it hears jobs as a listener instead, and there is nothing to settle.

What a client holds when it disconnects is given back at once.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Callable, Collection
from typing import Any

from presque.commands import leases
from presque.engine.deliveries import Listener
from presque.engine.engine import Engine
from presque.engine.lines import Waiter
from presque.errors import CallerError, PresqueError
from presque.job import Ask, Fetched, Leased, Settle, Settled
from presque.names import QueueList

CONSUMERS_MOST = 16
BEHIND_MOST = 8 * 1024 * 1024
WAIT_S = 3600.0
AGAIN_S = 1.0


class Grant:
    """Credits for one queue list: how many, and how many of them are in use."""

    __slots__ = ("asking", "attempt", "count", "held", "idle", "ms", "queues", "waiter")

    def __init__(self, queues: QueueList) -> None:
        self.queues = queues
        self.count = 0
        self.ms: int | None = None
        self.held = 0
        self.asking = False
        self.attempt = ""  # the last look, if what it brought is unknown: asked again, it brings the same
        self.idle = False  # the last look brought nothing, so the next one waits
        self.waiter: Waiter | None = None


class Consumer:
    """One client's grants and what it holds.

    `deliver` gets each job, and must not wait. `cut` is called when a listener is too far behind.
    """

    def __init__(
        self,
        engine: Engine,
        worker: str | None,
        deliver: Callable[[Leased | Fetched], None],
        cut: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._deliver = deliver
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._grants: dict[QueueList, Grant] = {}
        self._held: dict[tuple[str, str, str], Grant] = {}
        self._ending: set[tuple[str, str, str]] = set()  # of those, whose end is on its way to the store
        self._hungry: set[Grant] = set()
        self._listeners: dict[str, Listener] = {}
        self._behind = 0  # bytes that were sent to it as a listener since it stopped reading
        self._paused = False
        self.ended = False

    @property
    def held(self) -> Collection[tuple[str, str, str]]:
        """Queue, id and token of each job that the client holds, in the order in which they came."""
        return self._held.keys()

    def pause(self) -> None:
        """The client does not read: ask for no more jobs."""
        self._paused = True

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        self._behind = 0
        for grant in list(self._grants.values()):
            self._feed(grant)

    def end(self, *, lost: bool) -> None:
        """The client disconnected, or has to go: give back what it holds, and deliver nothing more.

        If it was `lost` without a goodbye, each job counts as a failed attempt, so that a job which kills its
        consumers cannot live forever.
        """
        if self.ended:
            return
        self.ended = True
        for grant in self._grants.values():
            self._leave(grant)
        for listener in self._listeners.values():
            self._engine.deliveries.leave(listener)
        back = [leases.given_back(*held, lost=lost) for held in self._held if held not in self._ending]
        self._engine.settling.give_back(back)
        self._held.clear()

    # --- settling -------------------------------------------------------------------------------

    def settle(self, lease: Settle, done: Callable[[Settled | PresqueError], None]) -> None:
        """End or extend a lease, whether it came from here or not; one that ends gives its credit back."""
        if lease.verb != "extend":
            self._ending.add((lease.queue, lease.id, lease.token))
        self._engine.settle(lease, functools.partial(self._settled, lease, done))

    def _settled(
        self, lease: Settle, done: Callable[[Settled | PresqueError], None], result: Settled | PresqueError
    ) -> None:
        held = (lease.queue, lease.id, lease.token)
        self._ending.discard(held)
        if self.ended:
            return
        if isinstance(result, Settled):
            if self._worker is not None:
                leases.count(self._engine, self._worker, [lease], [result])
            if lease.verb != "extend" or result.status != 200:
                grant = self._held.pop(held, None)
                if grant is not None:
                    grant.held -= 1
                    self._feed_soon(grant)
        done(result)

    # --- broadcast and round robin ----------------------------------------------------------------

    async def listen_or_grant(self, queues: QueueList, count: int, ms: int | None) -> dict[str, Any]:
        """Take jobs of this list: as a listener, if it is one queue whose policy `delivery` is for those who
        are connected; else with `count` credits. Returns what to answer. Raises `PresqueError`."""
        queue = queues.single
        if queue is None:
            return self.grant(queues, count, ms)
        listener = self._listeners.pop(queue, None)
        if listener is not None:
            self._engine.deliveries.leave(listener)
        if count and await self._listen(queue):
            delivery = "roundrobin" if self._listeners[queue].turns else "broadcast"
            return {"queue": queue, "delivery": delivery}
        return self.grant(queues, count, ms)

    async def _listen(self, queue: str) -> bool:
        if len(self._listeners) >= CONSUMERS_MOST:
            raise CallerError(f"one connection listens to at most {CONSUMERS_MOST} queues")
        listener = await self._engine.listener(queue, self._hear)
        if listener is None:
            return False
        if self.ended:
            self._engine.deliveries.leave(listener)
        self._listeners[queue] = listener
        return True

    def _hear(self, job: Fetched) -> None:
        if self._paused:
            self._behind += len(job.body)
            if self._behind > BEHIND_MOST:
                self._loop.call_soon(self._cut)
                return
        self._deliver(job)

    # --- leases ---------------------------------------------------------------------------------

    def grant(self, queues: QueueList, count: int, ms: int | None) -> dict[str, Any]:
        """Let up to `count` jobs of this list be leased to the client at any time, for `ms` each; 0 ends it,
        and the client keeps what it holds. Returns what to answer. Raises `CallerError`."""
        grant = self._grants.get(queues)
        if grant is None:
            if len(self._grants) >= CONSUMERS_MOST:
                raise CallerError(f"one connection leases from at most {CONSUMERS_MOST} queue lists")
            grant = self._grants[queues] = Grant(queues)
        changed = (count, ms) != (grant.count, grant.ms)
        grant.count, grant.ms = count, ms
        if changed:
            self._leave(grant)
        if not grant.count and not grant.held:
            del self._grants[queues]
        self._feed_soon(grant)
        return {"queue": queues.text, "count": count}

    def _leave(self, grant: Grant) -> None:
        """Take back what a grant waits for. A look that is under way may still bring something."""
        if grant.waiter is not None:
            self._engine.leave(grant.waiter)
            grant.waiter = None
            grant.asking = False

    def _feed_soon(self, grant: Grant) -> None:
        """Ask for more at the end of this turn, so that what is settled in one turn is asked for in one."""
        if not self._hungry:
            self._loop.call_soon(self._feed_hungry)
        self._hungry.add(grant)

    def _feed_hungry(self) -> None:
        hungry, self._hungry = self._hungry, set()
        for grant in hungry:
            self._feed(grant)

    def _feed(self, grant: Grant) -> None:
        """Ask for as many jobs as there are credits left, unless that is under way."""
        free = grant.count - grant.held
        if free <= 0 or grant.asking or self._paused or self.ended or self._engine.stopping:
            return
        grant.asking = True
        attempt = grant.attempt = grant.attempt or secrets.token_hex(8)
        ask = Ask(free, grant.ms, self._worker or "", attempt)
        if grant.idle:
            # Each waiter has a place of its own: one that has left may not bring jobs any more.
            took = functools.partial(self._take_waited, grant)
            grant.waiter = self._engine.lease(grant.queues, ask, WAIT_S, took)
        else:
            self._engine.lease(grant.queues, ask, 0, functools.partial(self._take, grant))

    def _take_waited(self, grant: Grant, found: list[Leased] | PresqueError | None) -> bool:
        grant.waiter = None
        return self._take(grant, found)

    def _take(self, grant: Grant, found: list[Leased] | PresqueError | None) -> bool:
        grant.asking = False
        if self.ended:
            return False
        if isinstance(found, PresqueError):
            self._loop.call_later(AGAIN_S, self._feed, grant)
            return True
        grant.attempt = ""
        if not found:
            if grant.idle:
                self._loop.call_later(AGAIN_S, self._feed, grant)
            else:
                grant.idle = True
                self._feed(grant)
            return True
        grant.idle = False
        if grant.held + len(found) > grant.count:
            self._feed_soon(grant)
            return False
        for job in found:
            self._held[job.queue, job.id, job.token] = grant
            self._deliver(job)
        grant.held += len(found)
        self._feed_soon(grant)
        return True
