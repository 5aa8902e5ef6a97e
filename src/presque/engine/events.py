"""Hears what happens to jobs, for as long as somebody wants to know.

The functions in the store publish it on a channel for each queue and on one for all, and only while one of
them has a listener: see lua/events.lua. So it costs nothing while nobody watches, and is heard whichever
server did it.

A queue that is wanted by its name is heard on its own channel. Patterns are heard on the channel of all, and
only the busy queues are marked as listened to, a page at a time: the others look when they begin to hold
jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from presque.engine import calls
from presque.engine.background import Background
from presque.engine.index import Index
from presque.engine.keys import REGISTRY, Keys
from presque.errors import PresqueError
from presque.store.channels import Channels, Hearing
from presque.store.store import Store

NAMED = 100


class Hearer(Protocol):
    """A listener to events. Must not wait."""

    def heard(self, queue: str, at: int, what: str, count: int, ids: list[str]) -> None:
        """At the moment `at` (ms) `what` happened to `count` jobs; `ids` are those of the first of them."""

    def missed(self) -> None:
        """More may have happened that nobody heard of."""


class Events:
    """What one server hears of the jobs of one namespace."""

    def __init__(
        self, store: Store, channels: Channels, keys: Keys, index: Index, background: Background
    ) -> None:
        self._background = background
        self._index = index
        self._any: Hearing | None = None  # of the channel of all queues
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
        self, hearer: Hearer, wanted: Callable[[str], bool], named: set[str], *, patterns: bool
    ) -> None:
        """Tell `hearer` from now on of all queues that are `wanted`: those that are `named`, which need not
        be there yet, and with `patterns` any other.

        It is heard once this has returned. Raises `PresqueError`.
        """
        self._hearer, self._wanted = hearer, wanted
        if patterns:
            await self._watch_any()
            named = set()  # they are heard with the others
        elif self._any is not None:
            self._any.end()
            self._any = None
        for queue in self._hearings.keys() - named:
            self._hearings.pop(queue).end()
        for queue in named - self._hearings.keys():
            self._hear(queue)
        self._marked &= named
        for hearing in [self._hearings[queue] for queue in named]:
            await hearing.begun()
        for some in calls.split(sorted(named - self._marked)):
            _, *last_ids = await self._store.ask(some[0], self._mark(some))
            self._marked.update(queue for queue, last in zip(some, last_ids, strict=True) if last >= 0)

    async def _watch_any(self) -> None:
        """Hear the channel of all queues, and let their functions know. It may have been done before: it is
        done again by each who joins, and when the store was away."""
        if self._any is None:
            self._any = self._channels.hear(self._keys.events_any(), self._heard_any, self._missed_any)
        await self._any.begun()
        await self._store.ask(REGISTRY, calls.encode("watch_all", self._keys.registry()))
        async with contextlib.aclosing(self._index.all(self._index.busy)) as pages:
            async for page in pages:
                for some in calls.split(page):
                    await self._store.ask(some[0], self._mark(some))

    def _heard_any(self, payload: bytes) -> None:
        """A message of the channel of all queues."""
        name, _, said = payload.partition(b" ")
        queue = name.decode()
        if queue not in self._hearings and self._wanted(queue):
            self._heard(queue, said)

    def _missed_any(self) -> None:
        """What happened was not heard for a while. The store may have forgotten who listens."""
        self._background.spawn(self._watch_again())
        if self._hearer is not None:
            self._hearer.missed()

    async def _watch_again(self) -> None:
        with contextlib.suppress(PresqueError):  # then the next connection does
            if self._hearer is not None and self._any is not None:
                await self._watch_any()

    def rest(self) -> None:
        """Tell nobody any more."""
        self._hearer = None
        if self._any is not None:
            self._any.end()
            self._any = None
        for hearing in self._hearings.values():
            hearing.end()
        self._hearings.clear()
        self._marked.clear()
        self._missed.clear()
        self._held.clear()

    def new_queue(self, queue: str) -> None:
        """A queue that may be new. Its first jobs may have been pushed before anybody could listen."""
        hearing = self._hearings.get(queue)
        if self._hearer is None or queue in self._marked or hearing is None:
            return
        self._marked.add(queue)
        hearing.then(functools.partial(self._begun, queue))

    def forget(self, queue: str) -> None:
        """A queue was forgotten. If a listener names it, it is marked again when it comes back."""
        self._marked.discard(queue)
        self._missed.discard(queue)
        self._held.pop(queue, None)

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
            if count > 0:
                self._hearer.heard(queue, int(at), "pushed", count, ids)
        for payload in held:
            self._heard(queue, payload)

    def connected(self) -> None:
        """The store can be called again. It may have forgotten who listens."""
        if self._any is not None:
            self._background.spawn(self._watch_again())
        for some in calls.split(sorted(self._marked)):
            self._store.send(some[0], self._mark(some), calls.ignore)

    def _missed_some(self, queue: str) -> None:
        """What happened in a queue was not heard for a while. Many queues tell that at once."""
        if not self._missed:
            self._loop.call_soon(self._catch_up)
        self._missed.add(queue)

    def _catch_up(self) -> None:
        missed, self._missed = self._missed & self._hearings.keys(), set()
        if self._hearer is not None:
            for some in calls.split(sorted(missed & self._marked)):
                self._store.send(some[0], self._mark(some), calls.ignore)
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
