"""Verbs on workers: register, unregister, who is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque import names
from presque.commands import params
from presque.commands.times import moment
from presque.engine.engine import Engine
from presque.errors import CallerError, NotFound, shown


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


async def show(engine: Engine, fields: Mapping[str, str]) -> Any:
    """All workers' ids, or one worker (`worker_id`), or those of one queue (`queue_name`)."""
    params.only(fields, ("worker_id", "queue_name"))
    if len(fields) > 1:
        raise CallerError("give `worker_id` or `queue_name`, not both")
    if "worker_id" in fields:
        return await _one(engine, names.worker(fields["worker_id"]))
    if "queue_name" in fields:
        return await _of_queue(engine, names.queue(fields["queue_name"]))
    return list(await engine.workers())


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
