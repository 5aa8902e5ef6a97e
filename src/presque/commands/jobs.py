"""Verbs on jobs: push, put back, fetch, and both in batches."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

from presque import codec
from presque.commands import params
from presque.engine.engine import Engine, Pushed
from presque.engine.lines import Taker, Waiter
from presque.errors import CallerError, JobMissing, NotJson, PresqueError
from presque.job import Fetched, PushOptions
from presque.names import QueueList


def push(engine: Engine, queue: str, body: bytes, options: PushOptions, done: Pushed) -> None:
    """Store one job. `done` gets its id once the store has it; a body that is no JSON raises at once."""
    check_job(body)
    if options.idempotency is not None:
        options = with_fingerprint(options, body)
    engine.push(queue, body, options, done)


async def put_back(engine: Engine, queue: str, body: bytes, options: PushOptions, worker: str | None) -> int:
    """Store a job that failed again, and count one failure for its queue and its worker."""
    check_job(body)
    [job_id] = await engine.push_many(queue, [body], options, failures=1)
    if worker is not None:
        engine.count_worker(worker, processed=0, failed=1)
    return job_id


async def push_many(engine: Engine, queue: str, body: bytes, options: PushOptions) -> list[int]:
    """Store every job of `{"jobs": [...]}`, or none. Returns their ids in that order."""
    if not body.strip():
        raise JobMissing
    jobs = codec.decode_batch(body)
    if len(jobs) > params.BATCH_MOST:
        raise CallerError(f"jobs should be at most {params.BATCH_MOST} at once, not {len(jobs)}")
    if options.idempotency is not None:
        options = with_fingerprint(options, body)
    return await engine.push_many(queue, jobs, options) if jobs else []


def fetch(engine: Engine, queues: QueueList, wait: float, worker: str | None, take: Taker) -> Waiter | None:
    """Take one job for good, waiting up to `wait` seconds for it. See `Engine.fetch` for the promises."""
    return engine.fetch(queues, wait, take if worker is None else _counted(engine, worker, take))


async def fetch_many(engine: Engine, queue: str, count: int, worker: str | None) -> list[Fetched]:
    """Take up to `count` jobs of one queue for good."""
    jobs = await engine.fetch_many(queue, count)
    if worker is not None and jobs:
        engine.count_worker(worker, processed=len(jobs), failed=0)
    return jobs


def with_fingerprint(options: PushOptions, body: bytes) -> PushOptions:
    """The options of a push with an Idempotency-Key, with what tells this request from any other."""
    asked = repr(dataclasses.replace(options, idempotency=None, traceparent=None)).encode()
    return dataclasses.replace(options, fingerprint=hashlib.sha256(asked + b"\0" + body).hexdigest()[:32])


def check_job(body: bytes) -> None:
    """Raise unless `body` can be a job: one JSON document."""
    try:
        codec.check(body)
    except NotJson:
        if not body.strip():
            raise JobMissing from None
        raise


def _counted(engine: Engine, worker: str, take: Taker) -> Callable[[Fetched | PresqueError | None], bool]:
    def count_and_take(found: Fetched | PresqueError | None) -> bool:
        taken = take(found)
        if taken and isinstance(found, Fetched):
            engine.count_worker(worker, processed=1, failed=0)
        return taken

    return count_and_take
