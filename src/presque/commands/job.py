"""Verbs on one job that is in the store: look at it, list, change, delete, retry, explain."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

from presque import codec
from presque.commands import workers as workers_of
from presque.commands.call import Call, Reply
from presque.commands.jobs import check_job
from presque.commands.times import moment
from presque.commands.who import Who
from presque.engine.engine import Engine
from presque.engine.jobs import MISSING
from presque.errors import CallerError, NotFound, wrong_cursor
from presque.job import Explained, Job, JobState, WorkerRecord
from presque.quantities import counted
from presque.verbs.bounds import PAGE

log = logging.getLogger("presque.commands")

# An id; a moment and an id; or a priority, a position and an entry of a ready list: see engine/lua/jobs.lua.
_CURSOR = re.compile(r"[0-9]{1,20}(:[0-9]{1,20}(:[0-9A-Za-z.,_-]{1,64})?)?").fullmatch


async def run_job(call: Call) -> Reply:
    """What there is to know of a job; with `wait`, once it is done or dead, or after this many seconds."""
    wait = call.get("wait", 0) / 1000
    jobs = call.engine.jobs
    if wait:
        await _check_link(call)
    found = await jobs.end(call.queue, call.job, wait) if wait else await jobs.show(call.queue, call.job)
    await _check_link(call, found)
    return Reply.of(told(found))


async def _check_link(call: Call, job: Job | None = None) -> None:
    """Raise `NotFound` for a link to a job that is gone, though another has its id by now: ids begin again in
    a queue that was forgotten."""
    wanted = call.who.linked_to
    if wanted is None:
        return
    found = job or await call.engine.jobs.show(call.queue, call.job)
    if found.pushed_at != wanted:
        raise NotFound(MISSING)


async def run_jobs(call: Call) -> Reply:
    """Jobs of one state, newest first, and a cursor when there are more."""
    state, limit, cursor = JobState(call.fields["state"]), call.get("limit", PAGE), call.get("cursor", "")
    if cursor and not _CURSOR(cursor):
        raise wrong_cursor()
    jobs, following = await call.engine.jobs.page(call.queue, state, limit, cursor)
    return Reply.of({"jobs": [told(job) for job in jobs], "cursor": following or None})


async def run_change(call: Call) -> Reply:
    """Change the priority, the time or the body of a job that waits."""
    given = {name: call.get(name) for name in ("priority", "delayed", "delay", "body")}
    if all(value is None for value in given.values()):
        raise CallerError("nothing to change: give `priority`, `delay`, `delayed` or `body`")
    if given["body"] is not None:
        check_job(given["body"])
    await call.engine.jobs.patch(call.queue, call.job, **given)
    return Reply.of(told_to(call.who, await call.engine.jobs.show(call.queue, call.job)))


async def run_delete(call: Call) -> Reply:
    """Take a job away; a leased one goes when its holder lets go."""
    await _check_link(call)
    gone = await delete(call.engine, call.queue, call.job)
    log.debug("job.deleted queue=%s id=%s leased=%s", call.queue, call.job, not gone)
    return Reply.of({"queue": call.queue, "id": call.job, "deleted": gone}, 204 if gone else 202)


async def run_retry(call: Call) -> Reply:
    """Let a dead job be tried again, with all its attempts."""
    await call.engine.jobs.retry(call.queue, call.job)
    return Reply.of(told_to(call.who, await call.engine.jobs.show(call.queue, call.job)))


async def run_retry_all(call: Call) -> Reply:
    """Let dead jobs be tried again, those that died first: `limit` at most, `rate` a second."""
    retried = await call.engine.jobs.retry_all(call.queue, call.get("limit"), call.get("rate"))
    log.info("queue.retried queue=%s jobs=%d", call.queue, retried)
    return Reply.of({"queue": call.queue, "retried": retried})


async def run_explain(call: Call) -> Reply:
    """Why a job is not running: reasons in their order, each a code and a sentence."""
    return Reply.of(await explain(call.engine, call.queue, call.job))


async def delete(engine: Engine, queue: str, job: str) -> bool:
    """Delete a job. False if it is leased: then its holder is notified, and the job is not retried."""
    return await engine.jobs.remove(queue, job)


async def explain(engine: Engine, queue: str, job: str) -> dict[str, Any]:
    """Why a job is not running: reasons in their order, each a code and a sentence."""
    found = await engine.jobs.show(queue, job)
    why = await engine.jobs.explain(queue, job)
    waits = why.state in (JobState.READY, JobState.SCHEDULED)
    workers = [] if why.listeners or not waits else await engine.worker_records(workers_of.RECORDS_MOST)
    return {
        "queue": queue,
        "id": job,
        "state": why.state.value,
        "reasons": [{"code": code, "text": text} for code, text in _reasons(found, why, workers)],
    }


def told_to(who: Who, job: Job) -> dict[str, Any]:
    """A job as the answers show it to whom may control its queue: without what was said in it, if they may
    not read it."""
    if not who.allows("read", job.queue):
        job = Job(
            queue=job.queue, id=job.id, state=job.state, body=b"null", priority=job.priority,
            attempt=job.attempt, max_attempts=job.max_attempts, pushed_at=job.pushed_at, run_at=job.run_at,
        )  # fmt: skip
    return told(job)


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
        "leased_at": _moment(job.leased_at),
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
        "tracestate": job.tracestate,
        "cron": job.cron,
        "expires_at": _moment(job.expires_at),
        "kept_until": _moment(job.kept_until),
        "reason": job.reason,
        "cancel": job.cancelled or None,
        "saved": _raw(job.saved),
    }
    return answer | {name: value for name, value in some.items() if value is not None}


def _reasons(job: Job, why: Explained, workers: Sequence[WorkerRecord]) -> list[tuple[str, str]]:
    if why.state is JobState.DONE:
        return [("done", f"it has been done since {_moment(job.finished_at)}")]
    if why.state is JobState.DEAD:
        again = f"POST /j/{job.queue}/{job.id}/retry retries it"
        return [("dead", f"it has been dead since {_moment(job.finished_at)}: {job.reason}; {again}")]
    if why.state is JobState.LEASED:
        holder = job.worker or "a worker that gave no name"
        text = (
            f"{holder} has held it since {_moment(job.leased_at)}, until {_moment(job.lease_until)}, "
            f"attempt {why.attempt} of {why.max_attempts}"
        )
        return [("leased", text)]
    found: list[tuple[str, str]] = []
    if why.state is JobState.SCHEDULED:
        found.append(("scheduled", f"it is due at {_moment(why.moment)}"))
    if why.stopped_at is not None:
        found.append(("stopped", f"the queue has been stopped since {_moment(why.stopped_at)}"))
    if why.max_leased and why.leased >= why.max_leased:
        text = f"the queue has {counted(why.leased, 'leased job')}, as many as `max_leased` allows"
        found.append(("max-leased", text))
    if why.group is not None and why.group_leased and why.group_held >= why.group_leased:
        text = (
            f"group {why.group} has {counted(why.group_held, 'leased job')}, as many as `group_leased` allows"
        )
        found.append(("group-leased", text))
    if why.free_in_ms is not None:
        rate = f"{counted(why.rate_count, 'job')} in {why.rate_ms / 1000:g} s"
        found.append(
            ("rate", f"the rate of the queue, {rate}, allows the next in {why.free_in_ms / 1000:g} s")
        )
    if why.state is JobState.READY and why.ahead != 0:
        ahead = "too many jobs to count are" if why.ahead is None else _are(why.ahead)
        found.append(("ahead", f"{ahead} ahead of it"))
    if not why.listeners:
        found.append(_nobody(why, [one for one in workers if job.queue in one.queues]))
    return found or [("next", "nothing holds it back: it is handed out next")]


def _nobody(why: Explained, workers: Sequence[WorkerRecord]) -> tuple[str, str]:
    """Why nobody waits for a job of a queue: `workers` are those that are registered for it."""
    text = "nobody waits for a job of this queue at the moment"
    silent = [one for one in workers if one.silent_ms > workers_of.SILENT_MS]
    quiet = [one for one in workers if one not in silent and one.asked != "start"]
    busy = [one for one in workers if one not in silent and one not in quiet]
    parts = [
        *([f"{_named(busy)}: busy with other jobs"] if busy else []),
        *([f"{_named(quiet)}: asked to take no more"] if quiet else []),
        *(
            [f"{_named(silent)}: not heard from for {silent[0].silent_ms // 1000} s or more"]
            if silent
            else []
        ),
    ]
    if why.leased:
        parts.insert(0, f"{why.leased} of its jobs {'is' if why.leased == 1 else 'are'} leased")
    text = "; ".join((text, *parts))
    return ("busy" if busy or why.leased else "no-worker"), text


def _named(workers: Sequence[WorkerRecord]) -> str:
    """How many workers, and who the first of them are."""
    few = ", ".join(one.worker for one in workers[:3])
    more = f" and {len(workers) - 3} more" if len(workers) > 3 else ""
    return f"{counted(len(workers), 'worker')} ({few}{more})"


def _are(jobs: int) -> str:
    return f"{counted(jobs, 'job')} {'is' if jobs == 1 else 'are'}"


def _moment(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else moment(milliseconds)


def _raw(text: bytes | None) -> codec.Raw | None:
    return None if text is None else codec.Raw(text)
