"""Verbs on workers: register, report, unregister, list them, and ask them to change their state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from presque import codec, names
from presque.commands.call import Call, Reply
from presque.commands.times import moment
from presque.commands.who import Who
from presque.engine.engine import Engine
from presque.engine.workers import QUEUES_MOST
from presque.errors import CallerError, NotFound, shown
from presque.job import WorkerRecord

REPORT_MOST = 16 * 1024
RECORDS_MOST = 1000
SILENT_MS = 20_000
"""A reporting worker that has not been heard from for longer than this is taken to be gone."""


def require(call: Call) -> str:
    """The worker's id out of the header that names it."""
    if not call.worker:
        raise CallerError("worker_id is missing")
    return call.worker


async def run_register(call: Call) -> Reply:
    """The worker takes jobs of this queue from now on."""
    await call.engine.register_worker(require(call), call.queue)
    return Reply()


async def run_unregister(call: Call) -> Reply:
    """The worker takes no more jobs of this queue."""
    await call.engine.unregister_worker(require(call), call.queue)
    return Reply()


class _Report(codec.Struct):
    """The part of a report that presque reads. The rest is for people who look."""

    queues: list[str] = []  # noqa: RUF012  (msgspec copies it)


async def run_report(call: Call) -> Reply:
    """Keep what the worker says of itself, and tell it what it is asked to do."""
    id, body = require(call), call.body
    if len(body) > REPORT_MOST:
        raise CallerError(f"a report should be at most {REPORT_MOST} bytes, not {len(body)}")
    if body:
        codec.check(body)
    said = codec.decode_request(body, _Report)
    if len(said.queues) > QUEUES_MOST:
        raise CallerError(f"a report should name at most {QUEUES_MOST} queues, not {len(said.queues)}")
    queues = [names.queue(name) for name in said.queues]
    for queue in queues:
        call.who.may("lease", queue)
    return Reply.of({"worker_id": id, "status": await call.engine.report_worker(id, body or b"{}", queues)})


async def run_leave(call: Call) -> Reply:
    """The worker has ended."""
    worker = require(call)
    await _allow(call, worker)
    await call.engine.leave_worker(worker)
    return Reply()


async def run_tell_worker(call: Call) -> Reply:
    """Ask a worker to be quiet, to stop, or to start again."""
    worker = call.fields["worker_id"]
    await _allow(call, worker)
    if not await call.engine.tell_worker(worker, call.fields["status"]):
        raise NotFound(f"no worker that reports is called `{shown(worker)}`")
    return Reply.of({"worker_id": worker, "response": "updated"})


async def run_workers(call: Call) -> Reply:
    """All workers' ids, or one worker (`worker_id`), or those of one queue (`queue_name`)."""
    if call.get("with_desc"):
        for other in ("worker_id", "queue_name"):
            if other in call.fields:
                raise CallerError(f"give `with_desc` or `{other}`, not both")
        records = await call.engine.worker_records(RECORDS_MOST)
        return Reply.of(
            {"workers": [_record(one, call.who) for one in records if _seen(call.who, one.queues)]}
        )
    if "queue_name" in call.fields:
        call.who.may("read", call.fields["queue_name"])
        return Reply.of(await _of_queue(call.engine, call.fields["queue_name"]))
    workers = call.engine.workers
    if "worker_id" in call.fields:
        worker = call.fields["worker_id"]
        if call.who.layers and not _seen(call.who, await workers.queues_of(worker)):
            raise _unknown(worker)
        return Reply.of(await _one(call.engine, worker))
    if call.who.sees_all:
        found = await workers.all()
    else:
        found = [id for id, queues in (await workers.with_queues()).items() if _seen(call.who, queues)]
    return Reply(codec.encode(found), within=b'{"workers":')


async def _allow(call: Call, worker: str) -> None:
    """Whether the asker may do this to a worker: to each queue of it. Raises the refusal."""
    if not call.who.layers:
        return
    queues = await call.engine.workers.queues_of(worker)
    for queue in queues:
        call.who.may(call.verb.scope, queue)
    if not queues and call.verb.name == "tell_worker":
        call.who.may(call.verb.scope, None, "all")


def _seen(who: Who, queues: Sequence[str]) -> bool:
    """Whether the asker may see a worker: one of its queues, or everything."""
    return who.sees_all or any(who.sees(queue) for queue in queues)


def _unknown(worker: str) -> NotFound:
    return NotFound(f"no worker is called `{shown(worker)}`")


def _record(found: WorkerRecord, who: Who) -> dict[str, Any]:
    """A worker as the asker may see it: what it says of itself may name any queue of it."""
    queues = [queue for queue in found.queues if who.sees(queue)]
    all_of_it = len(queues) == len(found.queues)
    return {
        "worker_id": found.worker,
        "queues": queues,
        "started_at": moment(found.started_at),
        "seen_at": moment(found.seen_at),
        "silent_seconds": found.silent_ms / 1000,
        "processed": found.processed,
        "failed": found.failed,
        "status": found.asked,
        "report": codec.Raw(found.report) if found.report and all_of_it else None,
    }


async def _one(engine: Engine, worker: str) -> dict[str, Any]:
    found = await engine.workers.show(worker)
    if found is None:
        raise _unknown(worker)
    return {
        "worker_id": worker,
        "started_at": moment(found.started_at),
        "processed": found.processed,
        "failed": found.failed,
    }


async def _of_queue(engine: Engine, queue: str) -> dict[str, Any]:
    workers = await engine.workers.of_queue(queue)
    [stats] = await engine.stats([queue])
    return {
        "queue_name": queue,
        "workers_list": workers,
        "processed": stats.processed,
        "failed": stats.failed,
    }
