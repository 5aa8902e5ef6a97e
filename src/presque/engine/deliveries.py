"""Sends jobs to those who are connected: to all of them, or to each in turn (policy `delivery`).

A job is taken off its queue and published in one step, by whichever server is first: see lua/deliver.lua.
From then on it is on its way and in no queue: at most once. A job that comes while nobody listens stays in
its queue, and goes out when somebody does.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import secrets
from collections.abc import Callable
from typing import Any

from presque.engine import calls
from presque.engine.keys import Keys
from presque.engine.records import body_of
from presque.errors import PresqueError
from presque.job import Fetched
from presque.store.channels import Channels, Hearing
from presque.store.store import Store

log = logging.getLogger("presque.engine")

JOBS_A_CALL = 100
BYTES_A_CALL = 1024 * 1024


class Listener:
    """A connected client that gets jobs of one queue through `take`, which must not wait."""

    __slots__ = ("number", "queue", "take", "turns")

    def __init__(self, queue: str, number: str, take: Callable[[Fetched], None], *, turns: bool) -> None:
        self.queue = queue
        self.number = number
        self.take = take
        self.turns = turns


class _Here:
    """The listeners of one queue, and what is heard for them."""

    __slots__ = ("hearings", "listeners")

    def __init__(self) -> None:
        self.listeners: dict[str, Listener] = {}
        self.hearings: list[Hearing] = []

    @property
    def on(self) -> bool:
        """Whether what is sent to the listeners reaches this server."""
        return all(hearing.on for hearing in self.hearings)


class Deliveries:
    """The listeners of one server."""

    def __init__(self, store: Store, channels: Channels, keys: Keys) -> None:
        self._store = store
        self._channels = channels
        self._keys = keys
        self._loop = asyncio.get_running_loop()
        self._server = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._here: dict[str, _Here] = {}
        self._calling: dict[str, bool] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def listen(self, queue: str, take: Callable[[Fetched], None], *, turns: bool) -> Listener:
        """Let `take` have every job of the queue from now on, or with `turns` those dealt to it.

        Raises `StoreError` if the store refuses to let us hear, and `StoreUnavailable` if it is away.
        """
        listener = Listener(queue, str(next(self._numbers)), take, turns=turns)
        here = self._here.get(queue)
        if here is None:
            here = self._here[queue] = _Here()
            here.hearings = self._hear(queue)
        here.listeners[listener.number] = listener
        try:
            # Nothing is sent out before it would be heard: nobody else may be there to take it.
            for hearing in here.hearings:
                await hearing.begun()
        except BaseException:
            self.leave(listener)
            raise
        if turns:
            self._join([listener])
        self.serve(queue)
        return listener

    def leave(self, listener: Listener) -> None:
        """The listener has disconnected. What is on its way to it is lost. Harmless when repeated."""
        here = self._here.get(listener.queue)
        if here is None or here.listeners.pop(listener.number, None) is None:
            return
        if listener.turns:
            call = calls.encode("unlisten", (self._keys.turns(listener.queue),), self._member(listener))
            self._store.send(listener.queue, call, calls.ignore)
        if not here.listeners:
            del self._here[listener.queue]
            for hearing in here.hearings:
                hearing.end()
            timer = self._timers.pop(listener.queue, None)
            if timer is not None:
                timer.cancel()

    def connected(self) -> None:
        """The store can be called again: take our turns again, and look for what came meanwhile."""
        for queue in list(self._here):
            self._catch_up(queue)

    def _catch_up(self, queue: str) -> None:
        here = self._here.get(queue)
        if here is not None and here.on:
            self._join([one for one in here.listeners.values() if one.turns])
            self.serve(queue)

    def _hear(self, queue: str) -> list[Hearing]:
        cast = self._keys.cast(queue)
        missed = functools.partial(self._catch_up, queue)
        return [
            self._channels.hear(cast, functools.partial(self._cast, queue), missed),
            self._channels.hear(f"{cast}:{self._server}", functools.partial(self._dealt, queue), missed),
            self._channels.hear(self._keys.wake(queue), lambda _: self.serve(queue), missed),
        ]

    def _cast(self, queue: str, payload: bytes) -> None:
        """A job for every listener of a queue."""
        here = self._here.get(queue)
        if here is not None:
            self._give(queue, [one for one in here.listeners.values() if not one.turns], payload)

    def _dealt(self, queue: str, payload: bytes) -> None:
        """A job for one of our listeners, whose turn it was."""
        number, _, job = payload.partition(b" ")
        here = self._here.get(queue)
        one = None if here is None else here.listeners.get(number.decode())
        if one is not None:
            self._give(queue, [one], job)

    def _give(self, queue: str, listeners: list[Listener], payload: bytes) -> None:
        job_id, _, record = payload.partition(b" ")
        job = Fetched(queue, job_id.decode(), body_of(record), record)
        if not job.body:
            log.error("job.damaged queue=%s id=%s", queue, job.id)
            call = calls.encode("unfetch", self._keys.of(queue), job.id, record, "damaged")
            self._store.send(queue, call, calls.ignore)
            return
        for listener in listeners:
            listener.take(job)

    def serve(self, queue: str) -> None:
        """Send out what is ready, if somebody listens here. One call at a time for each queue."""
        here = self._here.get(queue)
        if here is None or not here.on:
            return
        if queue in self._calling:
            self._calling[queue] = True
            return
        self._calling[queue] = False
        turns = "1" if next(iter(here.listeners.values())).turns else "0"
        keys = (*self._keys.of(queue), self._keys.cast(queue), self._keys.turns(queue))
        call = calls.encode("deliver", keys, JOBS_A_CALL, BYTES_A_CALL, turns)
        self._store.send(queue, call, lambda reply: self._served(queue, reply))

    def _served(self, queue: str, reply: Any) -> None:
        again = self._calling.pop(queue)
        if isinstance(reply, PresqueError):
            return  # when the connection is back, `connected` looks again
        sent, more, due = reply
        if due >= 0 and queue in self._here:
            timer = self._timers.get(queue)
            if timer is not None:
                timer.cancel()
            self._timers[queue] = self._loop.call_later((due + 1) / 1000, self.serve, queue)
        if again or more or sent == JOBS_A_CALL:
            self.serve(queue)

    def _join(self, listeners: list[Listener]) -> None:
        if listeners:
            queue = listeners[0].queue
            call = calls.encode("listen", (self._keys.turns(queue),), *map(self._member, listeners))
            self._store.send(queue, call, calls.ignore)

    def _member(self, listener: Listener) -> str:
        return f"{self._server}/{listener.number}"
