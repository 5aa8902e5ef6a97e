"""Queues: which there are, what they hold, starting, stopping and emptying them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from presque.engine import calls, replies
from presque.engine.index import Index
from presque.engine.keys import REGISTRY, Keys
from presque.engine.records import body_of
from presque.engine.sizes import ANSWER_BYTES
from presque.errors import PresqueError, SetupError, StoreError, StoreUnavailable
from presque.job import QueueStats
from presque.names import QueueList, has_glob
from presque.store.channels import Channels, Hearing
from presque.store.disk import Disk
from presque.store.store import Store

log = logging.getLogger("presque.engine")

KNOWN_MOST = 20_000
NAMED_MOST = 1000  # stopped queues that are listed
SPOILT_MOST = 1000


class Queues:
    """The queues of one namespace. `on_new` are called with each new one, and `on_forgotten` with each one
    that was forgotten."""

    def __init__(self, store: Store, channels: Channels, keys: Keys, disk: Disk) -> None:
        self._disk = disk
        self.index = Index(store, keys)
        self.on_new: list[Callable[[str], None]] = []
        self.on_forgotten: list[Callable[[str], None]] = []
        self._store = store
        self._channels = channels
        self._keys = keys
        self._call = calls.OnQueue(store, keys)
        self._registry = keys.registry()
        # Names that need not be registered by the next push, the latest of them last: the others are once
        # more.
        self._known: dict[str, None] = {}
        self._spoilt: dict[str, str] = {}

    # --- which there are ------------------------------------------------------------------------

    async def hear(self) -> None:
        """Hear of new and forgotten queues from now on. Raises `SetupError` if the store does not let us."""
        try:
            await self.listen().begun()
        except StoreError as error:
            raise SetupError(
                f"the store's user may not listen to channels: {error}; "
                f"allow it with `&{self._keys.namespace}:*`"
            ) from None
        except StoreUnavailable as error:
            raise SetupError(f"no store at {self._store.address}: {error}") from None

    def listen(self) -> Hearing:
        """Hear of new and forgotten queues until this is ended. What was known before it has begun may be
        wrong."""
        hearing = self._channels.hear(self._registry[1], self._heard, self.look)
        hearing.then(lambda _: self.look())
        return hearing

    def look(self) -> None:
        """Queues may have been forgotten and nobody heard of it: register each again at its next push."""
        self._known.clear()

    async def names(self) -> list[str]:
        """The names of all queues, in alphabetical order."""
        return [name async for page in self.index.all(self.index.names) for name in page]

    def register(self, queue: str) -> None:
        """Make a queue known before its first job: the next call on the connection comes after this one."""
        if queue not in self._known:
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
            self._know(queue)

    def _know(self, queue: str) -> None:
        self._known[queue] = None
        if len(self._known) > KNOWN_MOST:
            del self._known[next(iter(self._known))]

    def _heard(self, message: bytes) -> None:
        """The name of a new queue, or `!` and the name of one that was forgotten."""
        name = message.decode()
        if name.startswith("!"):
            self._forgotten(name[1:])
        else:
            self._new(name)

    def _forgotten(self, queue: str) -> None:
        self._known.pop(queue, None)
        self._spoilt.pop(queue, None)
        for hear in self.on_forgotten:
            hear(queue)

    def _new(self, queue: str) -> None:
        self._know(queue)
        for hear in self.on_new:
            hear(queue)

    # --- what they hold -------------------------------------------------------------------------

    async def layout(self) -> str:
        """The number of the layout of the data: see lua/queues.lua."""
        found = await self._store.ask(REGISTRY, calls.encode("layout", self._registry))
        return str(found.decode())

    async def count(self) -> tuple[int, int]:
        """How many jobs there are in how many queues, jobs of every state. Raises `PresqueError`."""
        jobs = queues = 0
        async for page in self.index.all(self.index.names):
            queues += len(page)
            keys = tuple(self._keys.of(name)[1] for name in page)
            jobs += int(await self._store.ask(page[0], calls.encode("held", keys))) if page else 0
        return jobs, queues

    async def stats(self, queues: Sequence[str]) -> list[QueueStats]:
        """The counts and counters of these queues, in their order; zeros for one never seen.

        Raises `StoreError` if the one that is asked for is spoilt. Among others it is left out, and logged.
        """
        found: list[QueueStats] = []

        async def ask(some: Sequence[str]) -> Any:
            return await self._store.ask(some[0], calls.encode("stats", self._keys.of_all(some)))

        async for reply, some in calls.in_pieces(queues, ask, self.spoilt):
            figures, spoilt = replies.stats(reply, some)
            found += figures
            self.spoilt(spoilt)
        return found

    def spoilt(self, found: Mapping[str, str]) -> None:
        """What is wrong with queues that were passed over. It is logged once for each."""
        for queue, reason in found.items():
            if self._spoilt.get(queue) != reason and len(self._spoilt) < SPOILT_MOST:
                self._spoilt[queue] = reason
                log.error("queue.spoilt queue=%s reason=%r", queue, reason)

    async def peek(self, queue: str, count: int) -> tuple[int, list[tuple[str, bytes]]]:
        """How many jobs are ready, and id and body of those that would be fetched next (4 MiB at most)."""
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
        await self._call("control_known", queue, "start")

    async def stop(self, queue: str) -> None:
        """Hand out nothing from this queue until it is started again. Pushes go on.

        One of which nothing is stored yet is refused like a push (`NamespaceFull`, `StoreFull`, `DiskFull`).
        """
        reply = await self._call("control_known", queue, "stop", "known")
        if reply == b"new":
            if self._disk.full:
                raise self._disk.refusal()
            reply = await self._call("control", queue, "stop")
        if reply != 0:  # the namespace may not have another queue
            raise replies.refusal(reply)

    async def started(self, queue: str) -> bool:
        """Whether the queue hands out jobs. One never seen does."""
        return bool(await self._call("control_known", queue, "ask"))

    async def stopped(self, queues: QueueList) -> list[str]:
        """Which of these queues are stopped; of those that patterns stand for, the first 1000 at most."""
        found: list[str] = []
        if queues.globs:
            found, _ = await self.index.select(self.index.stopped, queues, "", NAMED_MOST)
        if named := [item for item in queues.items if not has_glob(item)]:
            scores = await self._store.call(REGISTRY, "ZMSCORE", self.index.stopped, *named)
            found += [name for name, score in zip(named, scores, strict=True) if score is not None]
        stopped = set(found)
        return [name for name in queues.expand(stopped) if name in stopped]

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
