"""The one place that every request of every door passes: it lets in, counts, carries out, notes slow ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from presque.commands import cron, job, jobs, leases, policies, queues, restmq, workers
from presque.commands.call import Call, Reply, Service, Who
from presque.verbs import Verb

log = logging.getLogger("presque.commands")

SLOW_S = 1.0

Run = Callable[[Call], Awaitable[Reply]]

RUN: Mapping[str, Run] = {
    "push": jobs.run_push,
    "put_back": jobs.run_put_back,
    "push_many": jobs.run_push_many,
    "fetch": jobs.run_fetch,
    "fetch_many": jobs.run_fetch_many,
    "lease": leases.run_lease,
    "settle": leases.run_settle,
    "ack": leases.run_settle_one,
    "fail": leases.run_settle_one,
    "release": leases.run_settle_one,
    "extend": leases.run_settle_one,
    "job": job.run_job,
    "jobs": job.run_jobs,
    "change": job.run_change,
    "delete": job.run_delete,
    "retry": job.run_retry,
    "retry_all": job.run_retry_all,
    "explain": job.run_explain,
    "policy": policies.run_policy,
    "change_policy": policies.run_change_policy,
    "crons": cron.run_crons,
    "cron": cron.run_cron,
    "put_cron": cron.run_put_cron,
    "run_cron": cron.run_run_cron,
    "pause_cron": cron.run_pause_cron,
    "resume_cron": cron.run_resume_cron,
    "delete_cron": cron.run_delete_cron,
    "purge": queues.run_purge,
    "info": queues.run_info,
    "queues": queues.run_queues,
    "size": queues.run_size,
    "peek": queues.run_peek,
    "started": queues.run_started,
    "control": queues.run_control,
    "start": queues.run_start,
    "stop": queues.run_stop,
    "register": workers.run_register,
    "unregister": workers.run_unregister,
    "workers": workers.run_workers,
    "report": workers.run_report,
    "tell_worker": workers.run_tell_worker,
    "leave": workers.run_leave,
    "all_stats": queues.run_all_stats,
    "stats": queues.run_stats,
    "add": restmq.run_add,
    "take": restmq.run_take,
    "get": restmq.run_get,
    "del": restmq.run_del,
}
"""Each verb's function. `commands`, `stream`, `events` and `openapi` are not here: they hold other verbs, or
the door writes them as they come."""


def admit(service: Service, verb: Verb, who: Who, fields: Mapping[str, Any]) -> None:
    """Let a request in and count it, or raise the refusal. Short cuts of the doors call this alone."""
    who.may(verb.scope, fields.get("queue") or fields.get("queues"))
    service.counts[verb.name] += 1


async def carry_out(call: Call) -> Reply:
    """Carry out one verb. Raises `PresqueError`. If cancelled while it waits for a job, it takes none."""
    admit(call.service, call.verb, call.who, call.fields)
    if call.verb.waits:
        return await RUN[call.verb.name](call)
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        return await RUN[call.verb.name](call)
    finally:
        took = loop.time() - started
        if took > SLOW_S:
            log.warning("request.slow verb=%s seconds=%.1f", call.verb.name, took)
