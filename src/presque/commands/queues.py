"""Verbs on queues: what there is, start, stop, purge."""

from __future__ import annotations

import logging
from typing import Any

from presque import codec
from presque.commands.call import Call, Reply
from presque.engine.engine import Engine
from presque.errors import CallerError
from presque.job import QueueStats
from presque.verbs import PEEK, PEEK_MOST

log = logging.getLogger("presque.commands")


async def run_info(call: Call) -> Reply:
    """How many jobs of the queue wait, were processed, failed."""
    [stats] = await call.engine.stats([call.queue])
    return Reply.of(
        {
            "queue_name": call.queue,
            "job_count": stats.ready,
            "job_processed": stats.processed,
            "job_failed": stats.failed,
        }
    )


async def run_queues(call: Call) -> Reply:
    """The names of all queues."""
    names = await call.engine.queues.names()
    return Reply.of({"queues": names, "size": len(names)})


async def run_size(call: Call) -> Reply:
    """How many jobs of the queue are ready and, `with_desc=1`, the texts of those that come next."""
    with_jobs = call.get("with_desc", False)
    ready, found = await call.engine.peek(call.queue, PEEK_MOST if with_jobs else 0)
    answer: dict[str, Any] = {"queue": call.queue, "size": ready}
    if with_jobs:
        answer["jobs"] = [codec.text(body) for _, body in found]
    return Reply.of(answer)


async def run_peek(call: Call) -> Reply:
    """How many jobs are ready, and the next of them, which stay where they are."""
    ready, found = await call.engine.peek(call.queue, call.get("count", PEEK))
    bodies = b",".join(body for _, body in found)
    return Reply(b'{"queue":"%b","ready":%d,"jobs":[%b]}' % (call.queue.encode(), ready, bodies))


async def run_started(call: Call) -> Reply:
    """Whether the queue hands out jobs: 1 if so, also for one never seen, else 0."""
    return Reply.of({"queue": call.queue, "status": int(await call.engine.started(call.queue))})


async def run_control(call: Call) -> Reply:
    """Start or stop the queue, as `{"status": "start"}` or `{"status": "stop"}` says."""
    if not call.body.strip():
        raise CallerError("content is missing")
    asked = codec.decode(call.body)
    word = asked.get("status") if isinstance(asked, dict) else None
    if word == "start":
        await _start(call)
    elif word == "stop":
        await _stop(call)
    else:
        raise CallerError('the body should be {"status": "start"} or {"status": "stop"}')
    return Reply.of({"queue": call.queue, "response": "updated"})


async def run_start(call: Call) -> Reply:
    """Let a stopped queue hand out jobs again."""
    await _start(call)
    return Reply.of({"queue": call.queue, "status": 1})


async def run_stop(call: Call) -> Reply:
    """Let a queue hand out nothing."""
    await _stop(call)
    return Reply.of({"queue": call.queue, "status": 0})


async def run_purge(call: Call) -> Reply:
    """Delete the queue's jobs of every state, its counters and its uniq keys; with `forget` all else too."""
    forgotten = call.get("forget", False)
    purged = await (call.engine.queues.forget if forgotten else call.engine.queues.purge)(call.queue)
    log.info("queue.purged queue=%s jobs=%s forgotten=%s", call.queue, purged, forgotten)
    return Reply.of({"queue": call.queue, "purged": purged} | ({"forgotten": True} if forgotten else {}))


async def _start(call: Call) -> None:
    await call.engine.start_queue(call.queue)
    log.info("queue.started queue=%s", call.queue)


async def _stop(call: Call) -> None:
    await call.engine.stop_queue(call.queue)
    log.info("queue.stopped queue=%s", call.queue)


async def run_stats(call: Call) -> Reply:
    """Everything there is to know about one queue."""
    [found] = await call.engine.stats([call.queue])
    return Reply.of({"queue": call.queue} | _as_json(found))


async def run_all_stats(call: Call) -> Reply:
    """Everything there is to know about this server and every queue."""
    return Reply.of(call.service.about() | await all_stats(call.engine))


async def all_stats(engine: Engine) -> dict[str, Any]:
    """Everything there is to know about every queue."""
    names = await engine.queues.names()
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
