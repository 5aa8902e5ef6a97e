"""What is known of the workers: who is there, what each does and should do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from presque.engine import calls, replies
from presque.engine.keys import WORKERS, Keys
from presque.job import WorkerRecord, WorkerStats
from presque.store.store import Store


class Workers:
    """The workers of one namespace."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys.workers()
        self._loop = asyncio.get_running_loop()
        self._counts: dict[str, list[int]] = {}

    async def register(self, worker: str, queue: str) -> None:
        """The worker takes jobs of this queue from now on."""
        await self._call("worker_register", worker, queue)

    async def unregister(self, worker: str, queue: str) -> None:
        """The worker takes no more jobs of this queue. After its last queue it is forgotten."""
        await self._call("worker_unregister", worker, queue)

    async def all(self) -> dict[str, list[str]]:
        """The registered workers and the queues each of them takes jobs of."""
        return replies.registered(await self._call("worker_list"))

    async def show(self, worker: str) -> WorkerStats | None:
        """What is known of one worker; None for one never heard of."""
        return replies.worker(await self._call("worker_show", worker), worker)

    async def report(self, worker: str, report: bytes, queues: Iterable[str]) -> str:
        """Keep what a worker says of itself, register it for `queues`, and return what it is asked to be."""
        reply = await self._call("worker_report", worker, report, *queues)
        return str(reply.decode())

    async def leave(self, worker: str) -> None:
        """Forget a worker that has ended."""
        await self._call("worker_leave", worker)

    async def tell(self, worker: str, status: str) -> bool:
        """Ask a worker to be `start`, `quiet` or `stop` when it reports next; False if it does not report."""
        return bool(await self._call("worker_tell", worker, status))

    async def records(self, most: int) -> list[WorkerRecord]:
        """The registered workers, those heard of last first, `most` of them."""
        return replies.worker_records(await self._call("worker_records", most))

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
            self._store.send(WORKERS, call, _ignore)

    async def _call(self, name: str, *args: str | bytes | int) -> Any:
        return await self._store.ask(WORKERS, calls.encode(name, self._keys, *args))


def _ignore(_reply: Any) -> None:
    pass
