"""Queues: which there are, what they hold, starting, stopping and emptying them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

from presque.engine import calls, replies
from presque.engine.background import Background
from presque.engine.keys import REGISTRY, Keys
from presque.engine.records import body_of
from presque.engine.sizes import ANSWER_BYTES
from presque.errors import PresqueError, SetupError, StoreError, StoreUnavailable
from presque.job import QueueStats
from presque.names import QueueList
from presque.store.channels import Channels
from presque.store.store import Store

COUNTED_AT_ONCE = 1000


class Queues:
    """The queues of one namespace. `known` are the names of all; `told` are called with each new one, and
    `told_forgotten` with each one that was forgotten."""

    def __init__(self, store: Store, channels: Channels, keys: Keys, background: Background) -> None:
        self.known: set[str] = set()
        self.told: list[Callable[[str], None]] = []
        self.told_forgotten: list[Callable[[str], None]] = []
        self._store = store
        self._channels = channels
        self._keys = keys
        self._background = background
        self._registry = keys.registry()

    # --- which there are ------------------------------------------------------------------------

    async def hear(self) -> None:
        """Know of all queues, now and from now on. Raises `SetupError` if the store does not let us hear."""
        hearing = self._channels.hear(self._registry[1], self._heard, self.look)
        try:
            await hearing.begun()
        except StoreError as error:
            raise SetupError(
                f"the store's user may not listen to channels: {error}; "
                f"allow it with `&{self._keys.namespace}:*`"
            ) from None
        except StoreUnavailable as error:
            raise SetupError(f"no store at {self._store.address}: {error}") from None
        await self.names()

    def look(self) -> None:
        """Queues may have become known that nobody heard of."""
        self._background.spawn(self._catch_up())

    async def names(self) -> list[str]:
        """The names of all queues, in alphabetical order."""
        found = await self._store.call(REGISTRY, "SMEMBERS", self._registry[0])
        names = {name.decode() for name in found}
        # Added, not put in place of what is known: a new queue may have been heard of since the answer.
        self.known |= names
        return sorted(names)

    def register(self, queue: str) -> None:
        """Make a queue known before its first job: the next call on the connection comes after this one."""
        if queue not in self.known:
            self._send_register(queue)

    def pushed(self, queue: str, first_id: Any) -> None:
        """A push was answered. A queue that begins to count is new to the store, though we may have known it:
        the store may have been emptied meanwhile."""
        if first_id == 1:
            self._send_register(queue)

    def _send_register(self, queue: str) -> None:
        call = calls.encode("register", self._registry, queue)
        self._store.send(REGISTRY, call, functools.partial(self._registered, queue))

    def _registered(self, queue: str, reply: Any) -> None:
        if reply == 1:
            self._new(queue)  # the message that tells of it may come later than its first jobs
        elif not isinstance(reply, PresqueError):
            self.known.add(queue)

    def _heard(self, message: bytes) -> None:
        """The name of a new queue, or `!` and the name of one that was forgotten."""
        name = message.decode()
        if name.startswith("!"):
            self._forgotten(name[1:])
        else:
            self._new(name)

    def _forgotten(self, queue: str) -> None:
        self.known.discard(queue)
        for told in self.told_forgotten:
            told(queue)

    def _new(self, queue: str) -> None:
        self.known.add(queue)
        for told in self.told:
            told(queue)

    async def _catch_up(self) -> None:
        with contextlib.suppress(PresqueError):  # then the next connection catches up
            before = set(self.known)
            names = await self.names()
            for queue in before.difference(names):
                self._forgotten(queue)
            for queue in names:
                self._new(queue)

    # --- what they hold -------------------------------------------------------------------------

    async def layout(self) -> str:
        """The number of the layout of the data: see lua/queues.lua."""
        found = await self._store.ask(REGISTRY, calls.encode("layout", self._registry))
        return str(found.decode())

    async def count(self) -> tuple[int, int]:
        """How many jobs there are in how many queues, jobs of every state. Raises `PresqueError`."""
        found: list[int] = []
        for first in range(0, len(names := sorted(self.known)), COUNTED_AT_ONCE):
            some = names[first : first + COUNTED_AT_ONCE]
            found += await asyncio.gather(
                *(self._store.call(name, "HLEN", self._keys.of(name)[1]) for name in some)
            )
        return sum(found), len(found)

    async def stats(self, queues: Sequence[str]) -> list[QueueStats]:
        """The counts and counters of these queues, in their order; zeros for one never seen."""
        found: list[QueueStats] = []
        for some in calls.split(queues):
            call = calls.encode("stats", self._keys.of_all(some))
            found += replies.stats(await self._store.ask(some[0], call), some)
        return found

    async def peek(self, queue: str, count: int) -> tuple[int, list[tuple[str, bytes]]]:
        """How many jobs are ready, and id and body of those that would be fetched next (8 MiB at most)."""
        call = calls.encode("peek", self._keys.of(queue), count, ANSWER_BYTES)
        ready, *found = await self._store.ask(queue, call, ANSWER_BYTES if count else 0)
        return ready, [
            (job_id.decode(), body)
            for job_id, record in zip(found[::2], found[1::2], strict=True)
            if (body := body_of(record))
        ]

    # --- starting, stopping, emptying -----------------------------------------------------------

    async def start(self, queue: str) -> None:
        """Let a stopped queue hand out jobs again."""
        await self._call("control", queue, "start")

    async def stop(self, queue: str) -> None:
        """Hand out nothing from this queue until it is started again. Pushes go on."""
        await self._call("control", queue, "stop")

    async def started(self, queue: str) -> bool:
        """Whether the queue hands out jobs. One never seen does."""
        return bool(await self._call("control", queue, "ask"))

    async def stopped(self, queues: QueueList) -> list[str]:
        """Which of these queues are stopped."""
        stats = await self.stats(queues.expand(self.known))
        return [one.queue for one in stats if not one.started]

    async def purge(self, queue: str) -> int:
        """Delete all jobs of the queue, its counters and its uniq keys. Returns how many jobs went."""
        return int(await self._call("purge", queue))

    async def forget(self, queue: str) -> int:
        """Purge a queue, and let nothing of it stay in the store or in any server: neither its name, policy
        and counters nor its sequence of ids. Returns how many jobs went.

        A queue to which somebody pushes at the same moment lives on, with that job.
        """
        await self._store.ask(REGISTRY, calls.encode("unregister", self._registry, queue))
        self._forgotten(queue)
        purged = await self.purge(queue)
        while not (done := await self._call("forget", queue)):
            pass
        if done < 0:
            self._send_register(queue)
        return purged

    async def _call(self, name: str, queue: str, *args: str | int) -> Any:
        return await self._store.ask(queue, calls.encode(name, self._keys.of(queue), *args))
