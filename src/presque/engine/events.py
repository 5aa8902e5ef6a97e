"""Hears what happens to jobs, for as long as somebody wants to know.

The functions in the store publish it on a channel for each queue, and only while that has a listener: see
lua/events.lua. So it costs nothing while nobody watches, and is heard whichever server did it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

from presque.engine import library
from presque.engine.keys import Keys
from presque.errors import PresqueError
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

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._hearer: Hearer | None = None
        self._wanted: Callable[[str], bool] = bool
        self._queues: set[str] = set()  # that we listen to
        self._marked: set[str] = set()  # whose functions know that

    def watch(self, hearer: Hearer, wanted: Callable[[str], bool], known: set[str], named: set[str]) -> None:
        """Tell `hearer` from now on of all queues that are `wanted`: of those of the `known` ones, of those
        that are `named` and need not be there yet, and of new ones."""
        self._hearer, self._wanted = hearer, wanted
        known = {queue for queue in known if wanted(queue)}
        now = known | named
        self._store.unsubscribe(map(self._keys.events, self._queues - now))
        self._store.subscribe(map(self._keys.events, now - self._queues))
        self._queues = now
        self._marked &= known
        self._mark(known - self._marked)

    def rest(self) -> None:
        """Tell nobody any more."""
        self._hearer = None
        self._store.unsubscribe(map(self._keys.events, self._queues))
        self._queues, self._marked = set(), set()

    def new_queue(self, queue: str) -> None:
        """A queue that may be new. Its first jobs may have been pushed before anybody could listen."""
        if self._hearer is None or queue in self._marked or not self._wanted(queue):
            return
        self._store.subscribe([self._keys.events(queue)])
        self._queues.add(queue)
        self._marked.add(queue)
        meta = self._keys.of(queue)[0]
        self._store.send(library.call("watch", (meta,), 1), functools.partial(self._first, queue))

    def _first(self, queue: str, reply: Any) -> None:
        if isinstance(reply, PresqueError) or self._hearer is None:
            return
        at, count = reply
        ids = [str(number) for number in range(1, min(count, NAMED) + 1)]
        if count:
            self._hearer.heard(queue, int(at), "pushed", count, ids)

    def connected(self) -> None:
        """The connection to the store has come back."""
        if self._hearer is not None:
            self._mark(self._marked)
            self._hearer.missed()

    def _mark(self, queues: set[str]) -> None:
        names = sorted(queues)
        for first in range(0, len(names), library.QUEUES_A_CALL):
            metas = tuple(self._keys.of(queue)[0] for queue in names[first : first + library.QUEUES_A_CALL])
            self._store.send(library.call("watch", metas, 0), _ignore)
        self._marked |= queues

    def heard(self, channel: str, payload: bytes) -> None:
        """A message of an `events` channel, as lua/events.lua writes it."""
        if self._hearer is None:
            return
        queue = self._keys.queue_of_channel(channel)
        at, *parts = payload.decode().split(" ")
        for first in range(0, len(parts), 3):
            what, count, ids = parts[first : first + 3]
            self._hearer.heard(queue, int(at), what, int(count), ids.split(",") if ids else [])


def _ignore(_reply: Any) -> None:
    pass
