"""Verbs on queues: what there is, start, stop, purge."""

from __future__ import annotations

import logging
from typing import Any

from presque import codec
from presque.commands.call import Call, Reply
from presque.errors import CallerError
from presque.job import QueueStats
from presque.names import QueueList, queue_list
from presque.verbs.bounds import PEEK, PEEK_MOST, QUEUES_PAGE

log = logging.getLogger("presque.commands")

EVERYTHING = queue_list("*")


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
    """A page of the names of all queues."""
    names, size, cursor = await _page(call)
    return Reply.of({"queues": names, "size": size} | cursor)


async def _page(call: Call) -> tuple[list[str], int, dict[str, str]]:
    """The names that are asked for, how many queues there are, and where to go on, if anywhere."""
    wanted: QueueList | None = call.get("queues")
    index, busy = call.engine.queues.index, call.get("busy", False)
    of, sees_all = index.busy if busy else index.names, call.who.sees_all
    if not sees_all:
        wanted = call.who.within("read", wanted or EVERYTHING)
    after = call.who.opened(call.get("cursor", ""))
    names, cursor = await index.select(of, wanted, after, call.get("limit", QUEUES_PAGE))
    whole = cursor is None and not call.fields.keys() & {"queues", "cursor", "busy"}
    size = len(names) if whole or not sees_all else await index.count()
    return names, size, {} if cursor is None else {"cursor": call.who.sealed(cursor)}


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
    word = asked["status"] if isinstance(asked, dict) and asked.keys() == {"status"} else None
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
    return Reply.of({"queue": call.queue} | as_json(found))


async def run_all_stats(call: Call) -> Reply:
    """Everything there is to know about this server, and about a page of the queues."""
    names, size, cursor = await _page(call)
    found = await call.engine.stats(names)
    by_queue = {one.queue: as_json(one) for one in found}
    about = call.service.about()
    if call.service.namespace is not None:
        about["namespace"] = call.service.namespace.name
    if not call.who.sees_all or call.service.namespace is not None:
        del about["found_at_start"]  # it counts the jobs of others
    return Reply.of(about | {"size": size, "queues": list(by_queue), "by_queue": by_queue} | cursor)


def as_json(stats: QueueStats) -> dict[str, Any]:
    """What is shown of one queue."""
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
