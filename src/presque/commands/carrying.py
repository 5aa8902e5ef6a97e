"""The one place that every request of every door passes: it admits, counts and carries out, and notes slow
requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from presque.commands import (
    bulk,
    clock,
    cron,
    exporting,
    finding,
    health,
    history,
    job,
    jobs,
    leases,
    metrics,
    namespaces,
    policies,
    queues,
    restmq,
    tokens,
    workers,
)
from presque.commands.call import Call, Reply, Service
from presque.commands.who import Who
from presque.errors import OurFault, PresqueError, Refused
from presque.names import QueueList
from presque.traces import tracing
from presque.verbs.verb import Verb

log = logging.getLogger("presque.commands")

SLOW_S = 1.0
STEERING = ("control", "admin")
OF_TOKENS = ("new_token", "revoke_token", "new_namespace", "change_namespace", "delete_namespace")

BROKEN = OurFault("internal error")
Ended = Callable[[PresqueError | None], None]
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
    "search": finding.run_search,
    "failures": finding.run_failures,
    "import": exporting.run_import,
    "new_task": bulk.run_new_task,
    "tasks": bulk.run_tasks,
    "task": bulk.run_task,
    "pause_task": bulk.run_steer_task,
    "resume_task": bulk.run_steer_task,
    "cancel_task": bulk.run_steer_task,
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
    "history": history.run_history,
    "metrics": metrics.run_metrics,
    "livez": health.run_livez,
    "readyz": health.run_readyz,
    "server": health.run_server,
    "clock": clock.run_clock,
    "move_clock": clock.run_move_clock,
    "new_token": tokens.run_new_token,
    "tokens": tokens.run_tokens,
    "revoke_token": tokens.run_revoke_token,
    "audit": tokens.run_audit,
    "new_namespace": namespaces.run_new_namespace,
    "namespaces": namespaces.run_namespaces,
    "namespace": namespaces.run_namespace,
    "change_namespace": namespaces.run_change_namespace,
    "delete_namespace": namespaces.run_delete_namespace,
    "link": tokens.run_link,
    "whoami": tokens.run_whoami,
    "add": restmq.run_add,
    "take": restmq.run_take,
    "get": restmq.run_get,
    "del": restmq.run_del,
}
"""Each verb's function. `commands`, `stream`, `events`, `export` and `openapi` are not here: they hold other
verbs, or the door writes them as they come."""


def decide(verb: Verb, who: Who, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whether somebody may ask this. Returns the fields with which it is carried out: in a queue list
    patterns stand only for queues that they may take from. Raises the refusal."""
    if verb.open:
        return fields
    queues = fields.get("queue") or fields.get("queues")
    try:
        who.may(verb.scope, queues, verb.over)
        who.may_by_link(verb.name, fields)
    except Refused as error:
        raise told_of(error, verb, who, fields) from None
    if isinstance(queues, QueueList) and "queues" in fields:
        within = who.within(verb.scope, queues)
        if within is not queues:
            return {**fields, "queues": within}
    return fields


def admit(service: Service, verb: Verb, who: Who, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let a request in and count it, or raise the refusal. Returns the fields with which it is carried out.
    Short cuts of the doors call this alone."""
    found = decide(verb, who, fields)
    if who.meter is not None:
        who.meter.spend()
    service.counts[verb.name] += 1
    return found


async def carry_out(call: Call) -> Reply:
    """Carry out one verb. Raises `PresqueError`. If cancelled while it waits for a job, it takes none."""
    if call.timed or (end := begun(call)) is None:
        return await _admitted(call)
    try:
        reply = await _admitted(call)
    except PresqueError as error:
        end(error)
        raise
    except Exception:
        end(BROKEN)
        raise
    except asyncio.CancelledError:
        end(None)
        raise
    end(None)
    return reply


def untraced(_error: PresqueError | None) -> None:
    """Ends the span of what has none."""


def begun(call: Call) -> Ended | None:
    """Begin the span of a command whose `traceparent` is sampled. What is returned ends the span, with the
    error if there was one. Doors that do not carry out a command by `carry_out` call this themselves."""
    fields, given = call.fields, call.trace
    if given is None and "traceparent" in fields:
        given = fields["traceparent"], fields.get("tracestate")
    if given is None or (traced := tracing()) is None:
        return None
    queue = fields.get("queue") or fields.get("queues")
    text = queue.text if isinstance(queue, QueueList) else queue
    return cast("Ended | None", traced.command(call.verb.name, text, *given))


async def _admitted(call: Call) -> Reply:
    """Let it in and carry it out."""
    verb = call.verb
    call.fields = admit(call.service, verb, call.who, call.fields)
    if verb.waits:
        return await _run(call)
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        return await (_run(call) if verb.scope not in STEERING or verb.reads else _steer(call))
    finally:
        took = loop.time() - started
        if took > SLOW_S and not call.timed:
            log.warning("request.slow verb=%s seconds=%.1f request=%s count=%d", verb.name, took, None, 1)


async def _run(call: Call) -> Reply:
    try:
        return await RUN[call.verb.name](call)
    except Refused as error:
        raise told_of(error, call.verb, call.who, call.fields) from None


async def _steer(call: Call) -> Reply:
    """Carry out what the audit keeps, and note it before it is answered: whoever has the answer finds the
    note, whatever happens to this server, and after those of all that was answered before. Where no tokens
    are used, only acts on tokens are noted: callers cannot be told apart."""
    if not call.who.id and call.verb.name not in OF_TOKENS:
        return await _run(call)
    audit = call.service.audit
    act = call.verb.name, call.who, about(call.fields), call.source
    try:
        reply = await _run(call)
    except Refused:
        raise  # the door tells of it
    except PresqueError as error:
        await audit.acted(*act, error.code)
        raise
    except BaseException:  # nobody is answered
        audit.began(*act)
        raise
    await audit.acted(*act, "done")
    return reply


def about(fields: Mapping[str, Any]) -> str | None:
    """What something was done to, for the audit: the queue, and the job if it is one; or a name."""
    queue = fields.get("queue") or fields.get("queues")
    if queue is None:
        return (
            fields.get("name")
            or fields.get("token_id")
            or fields.get("task_id")
            or fields.get("namespace")
            or fields.get("worker_id")
        )
    text = queue if isinstance(queue, str) else queue.text
    return f"{text}/{fields['id']}" if "id" in fields else text


def told_of(error: Refused, verb: Verb, who: Who, fields: Mapping[str, Any]) -> Refused:
    """The refusal, which knows now what was asked."""
    error.verb, error.who, error.queue = verb.name, who.id, about(fields)
    return error
