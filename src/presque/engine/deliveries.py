"""Sends jobs to those who are connected: to all of them, or to each in turn (policy `delivery`).

A job is taken off its queue and published in one step, by whichever server is first: see lua/deliver.lua.
From then on it is on its way and in no queue: at most once. A job that comes while nobody listens stays in
its queue, and goes out when somebody does.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable
from typing import Any

from presque.engine import library
from presque.engine.keys import Keys
from presque.engine.records import body_of
from presque.errors import PresqueError
from presque.job import Fetched
from presque.store.store import Store

log = logging.getLogger("presque.engine")

JOBS_A_CALL = 100
BYTES_A_CALL = 1024 * 1024


class Listener:
    """Somebody who is connected and gets jobs of one queue through `take`, which must not wait."""

    __slots__ = ("number", "queue", "take", "turns")

    def __init__(self, queue: str, number: str, take: Callable[[Fetched], None], *, turns: bool) -> None:
        self.queue = queue
        self.number = number
        self.take = take
        self.turns = turns


class Deliveries:
    """The listeners of one server."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._loop = asyncio.get_running_loop()
        self._server = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._listeners: dict[str, dict[str, Listener]] = {}
        self._calling: dict[str, bool] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def queues(self) -> set[str]:
        """The queues that somebody listens to here."""
        return set(self._listeners)

    def listen(self, queue: str, take: Callable[[Fetched], None], *, turns: bool) -> Listener:
        """Let `take` have every job of the queue from now on, or with `turns` those dealt to it.

        The caller has seen to it that the wake channel of the queue is heard.
        """
        listener = Listener(queue, str(next(self._numbers)), take, turns=turns)
        if queue not in self._listeners:
            self._store.subscribe(self._channels(queue))
        self._listeners.setdefault(queue, {})[listener.number] = listener
        if turns:
            self._join([listener])
        self.serve(queue)
        return listener

    def leave(self, listener: Listener) -> None:
        """The listener has gone. What is on its way to it is lost. Harmless when repeated."""
        here = self._listeners.get(listener.queue, {})
        if here.pop(listener.number, None) is None:
            return
        if listener.turns:
            call = library.call("unlisten", (self._turns(listener.queue),), self._member(listener))
            self._store.send(call, _ignore)
        if not here:
            del self._listeners[listener.queue]
            self._store.unsubscribe(self._channels(listener.queue))
            timer = self._timers.pop(listener.queue, None)
            if timer is not None:
                timer.cancel()

    def connected(self) -> None:
        """The connection has come back: take our turns again, and look for what came meanwhile."""
        for queue, here in self._listeners.items():
            self._join([one for one in here.values() if one.turns])
            self.serve(queue)

    def heard(self, channel: str, payload: bytes) -> bool:
        """A message of the store. False if it is none of ours."""
        _, _, tail = channel.rpartition("}:")
        if tail != "cast" and not tail.startswith("cast:"):
            return False
        queue = self._keys.queue_of_channel(channel)
        here = self._listeners.get(queue, {})
        if tail == "cast":
            taking = [one for one in here.values() if not one.turns]
        else:
            number, _, payload = payload.partition(b" ")
            one = here.get(number.decode())
            taking = [] if one is None else [one]
        job_id, _, record = payload.partition(b" ")
        job = Fetched(queue, job_id.decode(), body_of(record), record)
        if not job.body:
            log.error("job.damaged queue=%s id=%s", queue, job.id)
            call = library.call("unfetch", self._keys.of(queue), job.id, record, "damaged")
            self._store.send(call, _ignore)
            return True
        for listener in taking:
            listener.take(job)
        return True

    def serve(self, queue: str) -> None:
        """Send out what is ready, if somebody listens here. One call at a time for each queue."""
        here = self._listeners.get(queue)
        if not here:
            return
        if queue in self._calling:
            self._calling[queue] = True
            return
        self._calling[queue] = False
        turns = "1" if next(iter(here.values())).turns else "0"
        keys = (*self._keys.of(queue), self._channels(queue)[0], self._turns(queue))
        call = library.call("deliver", keys, JOBS_A_CALL, BYTES_A_CALL, turns)
        self._store.send(call, lambda reply: self._served(queue, reply))

    def _served(self, queue: str, reply: Any) -> None:
        again = self._calling.pop(queue)
        if isinstance(reply, PresqueError):
            return  # when the connection is back, `connected` looks again
        sent, more, due = reply
        if due >= 0 and queue in self._listeners:
            timer = self._timers.get(queue)
            if timer is not None:
                timer.cancel()
            self._timers[queue] = self._loop.call_later((due + 1) / 1000, self.serve, queue)
        if again or more or sent == JOBS_A_CALL:
            self.serve(queue)

    def _join(self, listeners: list[Listener]) -> None:
        if listeners:
            key = self._turns(listeners[0].queue)
            self._store.send(library.call("listen", (key,), *map(self._member, listeners)), _ignore)

    def _member(self, listener: Listener) -> str:
        return f"{self._server}/{listener.number}"

    def _channels(self, queue: str) -> tuple[str, str]:
        cast = self._keys.cast(queue)
        return cast, f"{cast}:{self._server}"

    def _turns(self, queue: str) -> str:
        return self._keys.turns(queue)


def _ignore(_reply: Any) -> None:
    pass
