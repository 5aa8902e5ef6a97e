"""Verbs on queues: what there is, start, stop, purge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque import codec
from presque.commands import params
from presque.engine.engine import Engine
from presque.errors import CallerError
from presque.job import QueueStats

PEEK_MOST = 1000


async def info(engine: Engine, queue: str) -> dict[str, Any]:
    """How many jobs of the queue wait, were processed, failed."""
    [stats] = await engine.stats([queue])
    return {
        "queue_name": queue,
        "job_count": stats.ready,
        "job_processed": stats.processed,
        "job_failed": stats.failed,
    }


async def status(engine: Engine) -> dict[str, Any]:
    """The names of all queues."""
    names = await engine.queues()
    return {"queues": names, "size": len(names)}


async def size(engine: Engine, queue: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """How many jobs of the queue are ready and, `with_desc=1`, the texts of those that come next."""
    params.only(fields, ("with_desc",))
    with_jobs = params.flag(fields, "with_desc")
    ready, bodies = await engine.peek(queue, PEEK_MOST if with_jobs else 0)
    answer: dict[str, Any] = {"queue": queue, "size": ready}
    if with_jobs:
        answer["jobs"] = [codec.text(body) for body in bodies]
    return answer


async def started(engine: Engine, queue: str) -> dict[str, Any]:
    """Whether the queue hands out jobs: 1 if so, also for one never seen, else 0."""
    return {"queue": queue, "status": int(await engine.started(queue))}


async def control(engine: Engine, queue: str, body: bytes) -> dict[str, Any]:
    """Start or stop the queue, as `{"status": "start"}` or `{"status": "stop"}` says."""
    asked = codec.decode(body) if body.strip() else None
    word = asked.get("status") if isinstance(asked, dict) else None
    if word == "start":
        await engine.start_queue(queue)
    elif word == "stop":
        await engine.stop_queue(queue)
    else:
        raise CallerError('the body should be {"status": "start"} or {"status": "stop"}')
    return {"queue": queue, "response": "updated"}


async def purge(engine: Engine, queue: str) -> None:
    """Delete the queue's jobs of every state, its counters and its uniq keys."""
    await engine.purge(queue)


async def stats(engine: Engine, queue: str) -> dict[str, Any]:
    """Everything there is to know about one queue."""
    [found] = await engine.stats([queue])
    return {"queue": queue} | _as_json(found)


async def all_stats(engine: Engine) -> dict[str, Any]:
    """Everything there is to know about every queue."""
    names = await engine.queues()
    found = await engine.stats(names)
    return {
        "size": len(names),
        "queues": names,
        "by_queue": {one.queue: _as_json(one) for one in found},
    }


def _as_json(stats: QueueStats) -> dict[str, Any]:
    return {
        "ready": stats.ready,
        "scheduled": stats.scheduled,
        "leased": stats.leased,
        "done": stats.done,
        "dead": stats.dead,
        "processed": stats.processed,
        "failed": stats.failed,
        "expired": stats.expired,
        "oldest_seconds": None if stats.oldest_ms is None else stats.oldest_ms / 1000,
        "status": int(stats.started),
        "last_minute": {
            "pushed": stats.pushed_last_minute,
            "processed": stats.processed_last_minute,
            "failed": stats.failed_last_minute,
        },
    }
