"""Verbs on one job that is in the store: show, list, patch, delete, retry, explain."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from presque import codec
from presque.commands import params
from presque.commands.jobs import check_job
from presque.commands.times import moment
from presque.engine.engine import Engine
from presque.errors import CallerError, shown
from presque.job import Explained, Job, JobState

LIMIT = 100
LIMIT_MOST = 500
RETRY_MOST = 1_000_000
RATE_MOST = 1_000_000
STATES = tuple(state.value for state in JobState if state is not JobState.DELETED)


class Patch(codec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of a PATCH: what is to change."""

    priority: int | None = None
    delay: float | None = None
    delayed: str | float | None = None
    body: codec.Raw = codec.NOTHING


class Retry(codec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of a retry of all dead jobs."""

    limit: int | None = None
    rate: float | None = None


async def show(engine: Engine, queue: str, job: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """What there is to know of a job; with `wait`, once it is done or dead, or after so many seconds."""
    params.only(fields, ("wait",))
    wait = params.seconds(fields, "wait", 0, params.WAIT_MOST)
    return told(await engine.jobs.end(queue, job, wait) if wait else await engine.jobs.show(queue, job))


async def page(engine: Engine, queue: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """Jobs of one state, newest first, and a cursor when there are more."""
    params.only(fields, ("state", "limit", "cursor"))
    state = JobState(params.one_of(fields, "state", STATES, ""))
    limit = params.whole(fields, "limit", 1, LIMIT_MOST) or LIMIT
    cursor = fields.get("cursor", "")
    if not cursor.replace(":", "", 1).isdigit() and cursor:
        raise CallerError(f"`cursor` should be what the page before answered, not `{shown(cursor)}`")
    jobs, following = await engine.jobs.page(queue, state, limit, cursor)
    return {"jobs": [told(job) for job in jobs], "cursor": following or None}


async def patch(engine: Engine, queue: str, job: str, body: bytes) -> dict[str, Any]:
    """Change the priority, the time or the body of a job that waits. Returns it as it is then."""
    asked = codec.decode_request(body, Patch)
    if asked == Patch():
        raise CallerError("nothing to change: give `priority`, `delay`, `delayed` or `body`")
    if asked.delay is not None and asked.delayed is not None:
        raise CallerError("give `delay` or `delayed`, not both")
    fields = {
        name: f"{Decimal(repr(value)):f}" if isinstance(value, float) else str(value)
        for name, value in (("priority", asked.priority), ("delay", asked.delay), ("delayed", asked.delayed))
        if value is not None
    }
    options = params.push_options(fields, ("priority", "delay", "delayed"))
    new_body = bytes(asked.body) or None
    if new_body is not None:
        check_job(new_body)
    await engine.jobs.patch(
        queue,
        job,
        priority=asked.priority and options.priority,
        delayed=options.delayed,
        delay=options.delay,
        body=new_body,
    )
    return told(await engine.jobs.show(queue, job))


async def delete(engine: Engine, queue: str, job: str) -> bool:
    """Take a job away. False if it is leased: then its holder is told, and it is not tried again."""
    return await engine.jobs.remove(queue, job)


async def retry(engine: Engine, queue: str, job: str) -> dict[str, Any]:
    """Let a dead job be tried again, its attempts anew. Returns it as it is then."""
    await engine.jobs.retry(queue, job)
    return told(await engine.jobs.show(queue, job))


async def retry_all(engine: Engine, queue: str, body: bytes) -> dict[str, Any]:
    """Let dead jobs be tried again, those that died first: `limit` at most, `rate` a second."""
    asked = codec.decode_request(body, Retry)
    if asked.limit is not None and not 1 <= asked.limit <= RETRY_MOST:
        raise CallerError(f"`limit` should be from 1 to {RETRY_MOST}, not {asked.limit}")
    if asked.rate is not None and not 0.001 <= asked.rate <= RATE_MOST:
        rate = params.figure(asked.rate)
        raise CallerError(f"`rate` should be jobs a second from 0.001 to {RATE_MOST}, not {rate}")
    return {"queue": queue, "retried": await engine.jobs.retry_all(queue, asked.limit, asked.rate)}


async def explain(engine: Engine, queue: str, job: str) -> dict[str, Any]:
    """Why a job is not running: reasons in their order, each a code and a sentence."""
    found = await engine.jobs.show(queue, job)
    why = await engine.jobs.explain(queue, job)
    return {
        "queue": queue,
        "id": job,
        "state": why.state.value,
        "reasons": [{"code": code, "text": text} for code, text in _reasons(found, why)],
    }


def told(job: Job) -> dict[str, Any]:
    """A job as the answers show it: the fields that each job has, then those that only some have."""
    answer: dict[str, Any] = {
        "queue": job.queue,
        "id": job.id,
        "state": job.state.value,
        "body": codec.Raw(job.body),
        "priority": job.priority,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "pushed_at": moment(job.pushed_at),
        "run_at": _moment(job.run_at),
        "lease_until": _moment(job.lease_until),
        "worker": job.worker,
        "progress": _raw(job.progress),
        "result": _raw(job.result),
        "errors": [
            {
                "at": moment(one.at),
                "worker": one.worker or None,
                "error": one.error,
                "backtrace": one.backtrace,
            }
            for one in job.errors
        ],
        "finished_at": _moment(job.finished_at),
    }
    some = {
        "group": job.group,
        "uniq": job.uniq,
        "traceparent": job.traceparent,
        "expires_at": _moment(job.expires_at),
        "kept_until": _moment(job.kept_until),
        "reason": job.reason,
        "cancel": job.cancelled or None,
    }
    return answer | {name: value for name, value in some.items() if value is not None}


def _reasons(job: Job, why: Explained) -> list[tuple[str, str]]:
    if why.state is JobState.DONE:
        return [("done", f"it is done since {_moment(job.finished_at)}")]
    if why.state is JobState.DEAD:
        again = f"POST /j/{job.queue}/{job.id}/retry tries it again"
        return [("dead", f"it is dead since {_moment(job.finished_at)}: {job.reason}; {again}")]
    if why.state is JobState.LEASED:
        holder = job.worker or "a worker that gave no name"
        text = (
            f"{holder} holds it until {_moment(job.lease_until)}, attempt {why.attempt} of {why.max_attempts}"
        )
        return [("leased", text)]
    found: list[tuple[str, str]] = []
    if why.state is JobState.SCHEDULED:
        found.append(("scheduled", f"it is due at {_moment(why.moment)}"))
    if why.stopped_at is not None:
        found.append(("stopped", f"the queue is stopped since {_moment(why.stopped_at)}"))
    if why.max_leased and why.leased >= why.max_leased:
        text = f"{why.leased} jobs of the queue are leased, as many as `max_leased` allows"
        found.append(("max-leased", text))
    if why.group is not None and why.group_leased and why.group_held >= why.group_leased:
        text = f"group {why.group} has {why.group_held} jobs leased, as many as `group_leased` allows"
        found.append(("group-leased", text))
    if why.free_in_ms is not None:
        rate = f"{why.rate_count} jobs in {why.rate_ms / 1000:g} s"
        found.append(
            ("rate", f"the rate of the queue, {rate}, allows the next in {why.free_in_ms / 1000:g} s")
        )
    if why.state is JobState.READY and why.ahead != 0:
        ahead = "too many jobs to count are" if why.ahead is None else _jobs(why.ahead)
        found.append(("ahead", f"{ahead} ahead of it"))
    if not why.listeners:
        found.append(("no-worker", "nobody waits for a job of this queue at the moment"))
    return found or [("next", "nothing holds it back: it is handed out next")]


def _jobs(count: int) -> str:
    return "1 job is" if count == 1 else f"{count} jobs are"


def _moment(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else moment(milliseconds)


def _raw(text: bytes | None) -> codec.Raw | None:
    return None if text is None else codec.Raw(text)
