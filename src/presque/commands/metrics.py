"""The figures of this server for a monitoring system, read when it asks: what each process counts, and the
history that the store keeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from presque.commands import exposition
from presque.commands.call import Call, Reply
from presque.commands.exposition import Figures, OfDisk, OfQueue, OfStore
from presque.engine.engine import Engine
from presque.errors import NotPermitted, PresqueError

LABELLED_MOST = 100  # queues with figures of their own
MEASURED_MOST = 1000  # queues that are looked at, to find out which are the busiest
STORE_S = 5.0  # within which a store answers that is there


async def run_metrics(call: Call) -> Reply:
    """What this server, its store and its queues are doing, in the format that `Accept` asks for."""
    if call.who.namespace is not None:
        raise NotPermitted("a token of a namespace cannot see the figures of the server")
    found = Figures(call.service.about().get("version", ""), call.service.processes())
    found.disk = await _of_disk(call.engine)
    if call.engine.store.connected:
        try:
            async with asyncio.timeout(STORE_S):
                found.store = await _of_store(call.engine)
                await _add_queues(call.engine, found)
        except (PresqueError, TimeoutError):
            found.store = None  # that it is away is a figure, too: `store_connected` of each process
    # In a thread: thousands of lines take longer than other requests should wait.
    text, kind = await asyncio.to_thread(exposition.text, found, call.get("accept", ""))
    return Reply(text, kind=kind)


async def _of_disk(engine: Engine) -> OfDisk | None:
    disk = engine.disk
    if disk.directory is None:
        return None
    return OfDisk(disk.free, disk.least, disk.full, await disk.fsync_seconds())


async def _of_store(engine: Engine) -> OfStore:
    began = time.perf_counter()
    raw = await engine.store.call("", "INFO", "memory")
    took = time.perf_counter() - began
    memory = _info(raw)
    persistence = _info(await engine.store.call("", "INFO", "persistence"))
    return OfStore(
        round_trip=took,
        memory=int(memory.get("used_memory", 0)),
        memory_limit=int(memory.get("maxmemory", 0)),
        delayed_fsyncs=int(persistence.get("aof_delayed_fsync", 0)),
        writes_fail=persistence.get("aof_last_write_status", "ok") != "ok",
    )


def _info(raw: bytes) -> Mapping[str, str]:
    lines = (line.partition(":") for line in raw.decode("utf-8", "replace").splitlines())
    return {name: value for name, _, value in lines}


async def _add_queues(engine: Engine, found: Figures) -> None:
    index = engine.queues.index
    found.total, found.now = await engine.histories.totals()
    found.queues = await index.count()
    found.workers = await engine.workers.heard_since(found.now - 60_000)
    of = index.names if found.queues <= MEASURED_MOST else index.busy
    names, _ = await index.select(of, None, "", MEASURED_MOST)
    measured = await engine.histories.measured(names) if names else {}
    busiest = sorted(measured, key=lambda name: (-measured[name][0].count("pushed"), name))
    for name in busiest[:LABELLED_MOST]:
        happened, oldest = measured[name]
        found.by_queue[name] = OfQueue(happened, oldest)
    found.oldest_of_others = min(
        (oldest for name in busiest[LABELLED_MOST:] if (oldest := measured[name][1])), default=0
    )
