"""Verbs on jobs: push, put back, fetch, and both in batches."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from presque import codec
from presque.commands.call import Call, Reply, awaited, unless_left
from presque.commands.trace_context import trace_context
from presque.engine.engine import Engine, Pushed
from presque.engine.lines import Taker, Waiter
from presque.engine.records import PLAIN as _PLAIN
from presque.engine.records import (
    trace_of as trace_of,
)  # for the doors
from presque.errors import CallerError, JobMissing, NoJob, NotJson, PresqueError
from presque.job import PLAIN, Fetched, PushOptions, Replayed
from presque.names import QueueList
from presque.verbs.bounds import BATCH, BATCH_MOST, PRIORITY

PLAIN_RECORD = _PLAIN
"""What the record of a job begins with that has nothing of its own, so no trace."""

REPLAYED = {"Idempotent-Replayed": "true"}


async def run_push(call: Call) -> Reply:
    """Store one job."""
    job_id = await stored(call.engine, call.queue, call.get("job", b""), push_options(call.fields))
    return _pushed(call.queue, job_id)


async def run_put_back(call: Call) -> Reply:
    """Store a job that failed, and count the failure."""
    options = push_options(call.fields)
    return _pushed(
        call.queue, await put_back(call.engine, call.queue, call.get("job", b""), options, call.worker)
    )


async def run_push_many(call: Call) -> Reply:
    """Store many jobs, or none."""
    ids = await push_many(call.engine, call.queue, call.body, push_options(call.fields))
    replayed = bool(ids) and all(isinstance(job_id, Replayed) for job_id in ids)
    answer = {"ids": [str(job_id) for job_id in ids], "queue": call.queue}
    return Reply.of(answer, headers=REPLAYED if replayed else None)


async def run_fetch(call: Call) -> Reply:
    """Take one job for good."""
    found = await fetched(call.engine, call.queues, call.get("wait", 0) / 1000, call.worker)
    return Reply(fetched_answer(found), undo=functools.partial(call.engine.give_back, (found,)))


async def run_fetch_many(call: Call) -> Reply:
    """Take many jobs for good."""
    work = fetch_many(call.engine, call.queue, call.get("batch_size", BATCH), call.worker)
    found = await unless_left(work, call.engine.give_back)
    if not found:
        raise NoJob
    texts = [codec.text(job.body) for job in found]
    within = b'{"queue":"%b","jobs":' % call.queue.encode()
    return Reply(codec.encode(texts), within=within, undo=functools.partial(call.engine.give_back, found))


def push_options(fields: Mapping[str, Any]) -> PushOptions:
    """How a job is to be stored, from the fields of a push."""
    if not fields.keys() - {"queue", "job", "jobs"}:
        return PLAIN
    key, (traceparent, tracestate) = fields.get("idempotency_key"), trace_context(fields)
    if key is not None and len(key) > 2 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]  # as a structured field writes it (RFC 8941)
    keep = fields.get("keep")
    return PushOptions(
        priority=fields.get("priority", PRIORITY),
        delayed=fields.get("delayed"),
        delay=fields.get("delay"),
        ttl=fields.get("ttl"),
        attempts=fields.get("attempts"),
        keep=None if keep is None else -(-keep // 1000),
        uniq=fields.get("uniq"),
        uniq_until=fields.get("uniq_until", "fetch"),
        group=fields.get("group"),
        idempotency=key,
        traceparent=traceparent,
        tracestate=tracestate,
    )


async def stored(engine: Engine, queue: str, body: bytes, options: PushOptions) -> int:
    """Store one job and return its id once the store has it. Raises `PresqueError`."""
    result: asyncio.Future[int | PresqueError] = asyncio.get_running_loop().create_future()

    def done(found: int | PresqueError) -> None:
        if not result.done():
            result.set_result(found)

    push(engine, queue, body, options, done)
    job_id = await result
    if isinstance(job_id, PresqueError):
        raise job_id
    return job_id


async def fetched(engine: Engine, queues: QueueList, wait: float, worker: str | None) -> Fetched:
    """Take one job for good. Raises `NoJob` when there is none."""
    begin = functools.partial(fetch, engine, queues, wait, worker)
    found: Fetched | None = await awaited(engine, begin)
    if found is None:
        raise NoJob
    return found


def fetched_answer(found: Fetched) -> bytes:
    """A fetched job as the answers of commands and streams show it."""
    return b'{"queue":"%b","id":"%b","body":%b}' % (found.queue.encode(), found.id.encode(), found.body)


def _pushed(queue: str, job_id: int) -> Reply:
    headers = {"Location": f"/j/{queue}/{job_id}"}
    if isinstance(job_id, Replayed):
        headers |= REPLAYED
    return Reply.of({"id": str(job_id), "queue": queue}, headers=headers)


def push(engine: Engine, queue: str, body: bytes, options: PushOptions, done: Pushed) -> None:
    """Store one job. `done` gets its id once the store has it; a body that is not JSON raises at once."""
    check_job(body)
    if options.idempotency is not None:
        options = with_fingerprint(options, body)
    engine.push(queue, body, options, done)


async def put_back(engine: Engine, queue: str, body: bytes, options: PushOptions, worker: str | None) -> int:
    """Store a job that failed again, and count one failure for its queue and its worker."""
    check_job(body)
    if options.idempotency is not None:
        options = with_fingerprint(options, body)
    [job_id] = await engine.push_many(queue, [body], options, failures=1)
    if worker is not None and not isinstance(job_id, Replayed):
        engine.count_worker(worker, processed=0, failed=1)
    return job_id


async def push_many(engine: Engine, queue: str, body: bytes, options: PushOptions) -> list[int]:
    """Store every job of `{"jobs": [...]}`, or none. Returns their ids in that order."""
    if not body.strip():
        raise JobMissing
    jobs = codec.decode_batch(body)
    if len(jobs) > BATCH_MOST:
        raise CallerError(f"jobs should be at most {BATCH_MOST} at once, not {len(jobs)}")
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
    same = msgspec.structs.replace(options, idempotency=None, traceparent=None, tracestate=None)
    asked = repr(same).encode()
    return msgspec.structs.replace(options, fingerprint=hashlib.sha256(asked + b"\0" + body).hexdigest()[:32])


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
