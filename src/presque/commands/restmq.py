"""RestMQ's words: `add`, `take`, `get` and `del`. A key is the queue and the id of a job."""

from __future__ import annotations

import functools

from presque import codec, names
from presque.commands import job, jobs
from presque.commands.call import Call, Reply
from presque.errors import CallerError, NoJob
from presque.job import PLAIN
from presque.quantities import quoted


async def run_add(call: Call) -> Reply:
    """Push `value`."""
    value = call.fields["value"]
    job_id = await jobs.stored(call.engine, call.queue, value, PLAIN)
    return Reply(_told(call.queue, str(job_id), value))


async def run_take(call: Call) -> Reply:
    """Fetch the next job."""
    wanted = names.queue_list(call.queue)
    found = await jobs.fetched(call.engine, wanted, 0, call.worker)
    undo = functools.partial(call.engine.give_back, (found,))
    return Reply(_told(found.queue, found.id, found.body), undo=undo)


async def run_get(call: Call) -> Reply:
    """Look at the next job without taking it."""
    _, found = await call.engine.peek(call.queue, 1)
    if not found:
        raise NoJob
    [(job_id, body)] = found
    return Reply(_told(call.queue, job_id, body))


async def run_del(call: Call) -> Reply:
    """Delete the job that `key` names."""
    queue, _, job_id = call.fields["key"].rpartition(":")
    if queue not in ("", call.queue):
        raise CallerError(
            f"`key` should be a job of this queue, such as `{call.queue}:1`, not {quoted(call.fields['key'])}"
        )
    await job.delete(call.engine, call.queue, names.job(job_id))
    return Reply(codec.encode({"queue": call.queue, "key": call.fields["key"], "deleted": True}))


def _told(queue: str, job_id: str, value: bytes) -> bytes:
    name = queue.encode()
    return b'{"queue":"%b","key":"%b:%b","value":%b}' % (name, name, job_id.encode(), value)
