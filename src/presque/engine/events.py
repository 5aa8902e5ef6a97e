"""Hears what happens to jobs, for as long as somebody wants to know.

The functions in the store publish it on a channel for each queue, and only while that has a listener: see
lua/events.lua. So it costs nothing while nobody watches, and is heard whichever server did it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from presque.engine import calls
from presque.engine.keys import Keys
from presque.errors import PresqueError
from presque.store.channels import Channels, Hearing
from presque.store.store import Store

NAMED = 100


class Hearer(Protocol):
    """Somebody who is told what happens. Must not wait."""

    def heard(self, queue: str, at: int, what: str, count: int, ids: list[str]) -> None:
        """At the moment `at` (ms) `what` happened to `count` jobs; `ids` are those of the first of them."""

    def missed(self) -> None:
        """More may have happened that nobody heard of."""


class Events:
    """What one server hears of the jobs of one namespace."""

    def __init__(self, store: Store, channels: Channels, keys: Keys) -> None:
        self._store = store
        self._channels = channels
        self._keys = keys
        self._loop = asyncio.get_running_loop()
        self._hearer: Hearer | None = None
        self._wanted: Callable[[str], bool] = bool
        self._hearings: dict[str, Hearing] = {}
        self._marked: set[str] = set()  # whose functions know that somebody listens
        self._missed: set[str] = set()  # what was not heard for a while
        self._held: dict[str, list[bytes]] = {}  # messages that must wait for what came before them

    async def watch(
        self, hearer: Hearer, wanted: Callable[[str], bool], known: set[str], named: set[str]
    ) -> None:
        """Tell `hearer` from now on of all queues that are `wanted`: of those of the `known` ones, of those
        that are `named` and need not be there yet, and of new ones.

        It is heard once this has returned. Raises `PresqueError`.
        """
        self._hearer, self._wanted = hearer, wanted
        known = {queue for queue in known if wanted(queue)}
        now = known | named
        for queue in self._hearings.keys() - now:
            self._hearings.pop(queue).end()
        for queue in now - self._hearings.keys():
            self._hear(queue)
        self._marked &= known
        for hearing in [self._hearings[queue] for queue in now]:
            await hearing.begun()
        for some in calls.split(sorted((known & self._hearings.keys()) - self._marked)):
            await self._store.ask(some[0], self._mark(some))
            self._marked.update(some)

    def rest(self) -> None:
        """Tell nobody any more."""
        self._hearer = None
        for hearing in self._hearings.values():
            hearing.end()
        self._hearings.clear()
        self._marked.clear()
        self._missed.clear()
        self._held.clear()

    def new_queue(self, queue: str) -> None:
        """A queue that may be new. Its first jobs may have been pushed before anybody could listen."""
        if self._hearer is None or queue in self._marked or not self._wanted(queue):
            return
        self._marked.add(queue)
        hearing = self._hearings.get(queue) or self._hear(queue)
        hearing.then(functools.partial(self._begun, queue))

    def forget(self, queue: str) -> None:
        """A queue is no more. One that was asked for by name is heard again when it begins anew."""
        self._marked.discard(queue)
        self._missed.discard(queue)
        self._held.pop(queue, None)
        hearing = self._hearings.pop(queue, None)
        if hearing is not None:
            hearing.end()

    def _hear(self, queue: str) -> Hearing:
        hearing = self._channels.hear(
            self._keys.events(queue),
            functools.partial(self._heard, queue),
            functools.partial(self._missed_some, queue),
        )
        self._hearings[queue] = hearing
        return hearing

    def _begun(self, queue: str, error: PresqueError | None) -> None:
        """A new queue is heard from now on: let its functions know, and ask what came before."""
        if error is not None or queue not in self._hearings:
            self._marked.discard(queue)
            return
        self._held[queue] = []
        meta = self._keys.of(queue)[0]
        self._store.send(queue, calls.encode("watch", (meta,), 1), functools.partial(self._first, queue))

    def _first(self, queue: str, reply: Any) -> None:
        held = self._held.pop(queue, [])
        if self._hearer is None:
            return
        if not isinstance(reply, PresqueError):
            at, count = reply
            ids = [str(number) for number in range(1, min(count, NAMED) + 1)]
            if count:
                self._hearer.heard(queue, int(at), "pushed", count, ids)
        for payload in held:
            self._heard(queue, payload)

    def connected(self) -> None:
        """The store can be called again. It may have forgotten who listens."""
        for some in calls.split(sorted(self._marked)):
            self._store.send(some[0], self._mark(some), _ignore)

    def _missed_some(self, queue: str) -> None:
        """What happened in a queue was not heard for a while. Many queues tell that at once."""
        if not self._missed:
            self._loop.call_soon(self._catch_up)
        self._missed.add(queue)

    def _catch_up(self) -> None:
        missed, self._missed = self._missed & self._hearings.keys(), set()
        if self._hearer is not None:
            for some in calls.split(sorted(missed & self._marked)):
                self._store.send(some[0], self._mark(some), _ignore)
            self._hearer.missed()

    def _mark(self, queues: Sequence[str]) -> bytes:
        """The call that lets the functions know that somebody listens to these queues."""
        return calls.encode("watch", tuple(self._keys.of(queue)[0] for queue in queues), 0)

    def _heard(self, queue: str, payload: bytes) -> None:
        """A message of an `events` channel, as lua/events.lua writes it."""
        if self._hearer is None:
            return
        if queue in self._held:
            self._held[queue].append(payload)
            return
        at, *parts = payload.decode().split(" ")
        for first in range(0, len(parts), 3):
            what, count, ids = parts[first : first + 3]
            self._hearer.heard(queue, int(at), what, int(count), ids.split(",") if ids else [])


def _ignore(_reply: Any) -> None:
    pass
