"""What is known of the workers: which there are, what each does and has been asked to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from presque.engine import calls, replies
from presque.engine.keys import WORKERS, Keys
from presque.errors import CallerError
from presque.job import WorkerRecord, WorkerStats
from presque.store.store import Store

LISTED = 1000  # ids in one call
RECORDS_BYTES = 1024 * 1024
QUEUES_MOST = 256  # as in lua/workers.lua


class Workers:
    """The workers of one namespace."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys.workers()
        self._call = calls.OnKeys(store, WORKERS, self._keys)
        self._loop = asyncio.get_running_loop()
        self._counts: dict[str, list[int]] = {}

    async def register(self, worker: str, queue: str) -> None:
        """The worker takes jobs of this queue from now on. Raises `CallerError` if it takes those of too
        many."""
        if await self._call("worker_register", worker, queue) < 0:
            raise _too_many()

    async def unregister(self, worker: str, queue: str) -> None:
        """The worker takes no more jobs of this queue. After its last queue it is forgotten."""
        await self._call("worker_unregister", worker, queue)

    async def all(self) -> list[str]:
        """The ids of the registered workers, in alphabetical order."""
        found: list[str] = []
        while True:
            page = [id.decode() for id in await self._call("worker_list", found[-1] if found else "", LISTED)]
            found += page
            if len(page) < LISTED:
                return found

    async def heard_since(self, moment: int) -> int:
        """How many workers were heard from since then (ms)."""
        return int(await self._store.call(WORKERS, "ZCOUNT", self._keys[4], moment, "+inf"))

    async def queues_of(self, worker: str) -> list[str]:
        """The queues that a worker takes jobs of."""
        low, high = f"[{worker} ", f"({worker}!"
        found = await self._store.call(WORKERS, "ZRANGEBYLEX", self._keys[0], low, high)
        return [pair.decode().partition(" ")[2] for pair in found]

    async def with_queues(self) -> dict[str, list[str]]:
        """The registered workers and the queues each of them takes jobs of."""
        found: dict[str, list[str]] = {}
        low = "-"
        while True:
            call = ("ZRANGEBYLEX", self._keys[0], low, "+", "LIMIT", 0, LISTED)
            pairs = [pair.decode() for pair in await self._store.call(WORKERS, *call)]
            for id, _, queue in (pair.partition(" ") for pair in pairs):
                found.setdefault(id, []).append(queue)
            if len(pairs) < LISTED:
                return found
            low = f"({pairs[-1]}"

    async def of_queue(self, queue: str) -> list[str]:
        """The workers that take jobs of this queue."""
        return [id.decode() for id in await self._call("worker_takers", queue)]

    async def show(self, worker: str) -> WorkerStats | None:
        """What is known of one worker; None for one never heard from."""
        return replies.worker(await self._call("worker_show", worker), worker)

    async def report(self, worker: str, report: bytes, queues: Iterable[str]) -> str:
        """Keep what a worker says of itself, register it for `queues`, and return what it is asked to be.

        Raises `CallerError` if it would be registered for too many.
        """
        reply = await self._call("worker_report", worker, report, *queues)
        if not reply:
            raise _too_many()
        return str(reply.decode())

    async def leave(self, worker: str) -> None:
        """Forget a worker that has ended."""
        await self._call("worker_leave", worker)

    async def tell(self, worker: str, status: str) -> bool:
        """Ask a worker to be `start`, `quiet` or `stop` when it reports next; False if it does not report."""
        return bool(await self._call("worker_tell", worker, status))

    async def records(self, most: int) -> list[WorkerRecord]:
        """The registered workers, those heard from last first, `most` of them, or 1 MiB."""
        return replies.worker_records(await self._call("worker_records", most, RECORDS_BYTES))

    def count(self, worker: str, processed: int, failed: int) -> None:
        """Add to a worker's counters, a moment later. A lost store may lose the count, never a job."""
        if not self._counts:
            self._loop.call_soon(self._send_counts)
        counts = self._counts.setdefault(worker, [0, 0])
        counts[0] += processed
        counts[1] += failed

    def _send_counts(self) -> None:
        counts, self._counts = self._counts, {}
        for worker, (processed, failed) in counts.items():
            call = calls.encode("worker_count", self._keys, worker, processed, failed)
            self._store.send(WORKERS, call, calls.ignore)


def _too_many() -> CallerError:
    return CallerError(f"a worker may register for at most {QUEUES_MOST} queues: unregister it from some")
