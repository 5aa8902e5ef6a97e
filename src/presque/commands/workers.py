"""Verbs on workers: register, report, unregister; who is there, and what each should do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque import codec, names
from presque.commands import params
from presque.commands.times import moment
from presque.engine.engine import Engine
from presque.errors import CallerError, NotFound, shown
from presque.job import WorkerRecord

REPORT_MOST = 16 * 1024
QUEUES_MOST = 256
RECORDS_MOST = 1000


def require(worker: str | None) -> str:
    """The worker's id out of the header that names it."""
    if not worker:
        raise CallerError("worker_id is missing")
    return names.worker(worker)


async def register(engine: Engine, queue: str, worker: str | None) -> None:
    """The worker takes jobs of this queue from now on."""
    await engine.register_worker(require(worker), queue)


async def unregister(engine: Engine, queue: str, worker: str | None) -> None:
    """The worker takes no more jobs of this queue."""
    await engine.unregister_worker(require(worker), queue)


class _Report(codec.Struct):
    """The part of a report that presque reads. The rest is for people who look."""

    queues: list[str] = []  # noqa: RUF012  (msgspec copies it)


class _Order(codec.Struct, forbid_unknown_fields=True):
    """What a worker should do."""

    worker_id: str
    status: str


async def report(engine: Engine, worker: str | None, body: bytes) -> dict[str, str]:
    """Keep what the worker says of itself, and tell it what it is asked to be."""
    id = require(worker)
    if len(body) > REPORT_MOST:
        raise CallerError(f"a report should be at most {REPORT_MOST} bytes, not {len(body)}")
    if body:
        codec.check(body)
    said = codec.decode_request(body, _Report)
    if len(said.queues) > QUEUES_MOST:
        raise CallerError(f"a report should name at most {QUEUES_MOST} queues, not {len(said.queues)}")
    queues = [names.queue(name) for name in said.queues]
    return {"worker_id": id, "status": await engine.report_worker(id, body or b"{}", queues)}


async def leave(engine: Engine, worker: str | None) -> None:
    """The worker has ended."""
    await engine.leave_worker(require(worker))


async def tell(engine: Engine, body: bytes) -> dict[str, str]:
    """Ask a worker to be quiet, to stop, or to start again."""
    order = codec.decode_request(body, _Order)
    if order.status not in ("start", "quiet", "stop"):
        raise CallerError("`status` should be `start`, `quiet` or `stop`")
    if not await engine.tell_worker(names.worker(order.worker_id), order.status):
        raise NotFound(f"no worker that reports is called `{shown(order.worker_id)}`")
    return {"worker_id": order.worker_id, "response": "updated"}


async def show(engine: Engine, fields: Mapping[str, str]) -> Any:
    """All workers' ids, or one worker (`worker_id`), or those of one queue (`queue_name`)."""
    params.only(fields, ("worker_id", "queue_name", "with_desc"))
    if len(fields) > 1:
        one, other = sorted(fields, reverse=True)[:2]
        raise CallerError(f"give `{one}` or `{other}`, not both")
    if params.flag(fields, "with_desc"):
        return {"workers": [_record(one) for one in await engine.worker_records(RECORDS_MOST)]}
    if "worker_id" in fields:
        return await _one(engine, names.worker(fields["worker_id"]))
    if "queue_name" in fields:
        return await _of_queue(engine, names.queue(fields["queue_name"]))
    return list(await engine.workers())


def _record(found: WorkerRecord) -> dict[str, Any]:
    return {
        "worker_id": found.worker,
        "queues": found.queues,
        "started_at": moment(found.started_at),
        "seen_at": moment(found.seen_at),
        "silent_seconds": found.silent_ms / 1000,
        "processed": found.processed,
        "failed": found.failed,
        "status": found.asked,
        "report": codec.Raw(found.report) if found.report else None,
    }


async def _one(engine: Engine, worker: str) -> dict[str, Any]:
    found = await engine.worker(worker)
    if found is None:
        raise NotFound(f"no worker is called `{shown(worker)}`")
    return {
        "worker_id": worker,
        "started_at": moment(found.started_at),
        "processed": found.processed,
        "failed": found.failed,
    }


async def _of_queue(engine: Engine, queue: str) -> dict[str, Any]:
    workers = await engine.workers()
    [stats] = await engine.stats([queue])
    return {
        "queue_name": queue,
        "workers_list": [worker for worker, queues in workers.items() if queue in queues],
        "processed": stats.processed,
        "failed": stats.failed,
    }
