"""One job's life, as a list of steps: look at it, let it work, say how it went."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from presque.worker.errors import Dead, JobCancelled, JobKilled, JobStopped, Retry
from presque.worker.job import TEXT_MOST, Job, current
from presque.worker.work import Work

log = logging.getLogger("presque.worker")

ERROR_MOST = 2000
BACKTRACE_MOST = 16_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job went: the verb that settles it, the fields that go with it, and a sentence for the log."""

    verb: Literal["ack", "fail", "release"]
    fields: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


DONE = Outcome("ack")


def perform(work: Work, job: Job) -> Outcome:
    """Let `work` do the job. Never raises: whatever happens is the outcome."""
    token = current.set(job)
    try:
        if job.unreadable is not None:
            raise Dead(f"the job cannot be read: {job.unreadable}")
        result = work.call(job)
        return DONE if result is None else done(result, job)
    except BaseException as error:  # noqa: BLE001  (a job may raise anything, SystemExit too)
        return failed(work, job, error)
    finally:
        current.reset(token)


async def perform_async(work: Work, job: Job) -> Outcome:
    """The same for a `work` that is `async def`. Raises nothing but what cancels the task."""
    token = current.set(job)
    try:
        if job.unreadable is not None:
            raise Dead(f"the job cannot be read: {job.unreadable}")
        result = work.call(job)
        if inspect.isawaitable(result):
            result = await result
        return DONE if result is None else done(result, job)
    except asyncio.CancelledError:
        raise  # whoever cancelled it knows why
    except BaseException as error:  # noqa: BLE001  (a job may raise anything, SystemExit too)
        return failed(work, job, error)
    finally:
        current.reset(token)


def done(result: Any, job: Job) -> Outcome:
    """The job is done, and its result is kept with it.

    A result that cannot be sent is dropped with a warning: the work is done, so doing it again is no help.
    """
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        reason = f"it is not JSON: {error}"
    else:
        if len(text) <= TEXT_MOST:
            return Outcome("ack", {"result": json.loads(text)})  # a copy: the job's own may change later
        reason = f"it has {len(text)} bytes, {TEXT_MOST} at most are kept"
    log.warning("job.result_dropped queue=%s id=%s reason=%s", job.queue, job.id, reason)
    return DONE


def failed(work: Work, job: Job, error: BaseException) -> Outcome:
    """Tell the worker's `fail` and its failure back-ends, and make the outcome of what was raised."""
    if isinstance(error, JobStopped | JobCancelled):
        return Outcome("release", {}, str(error) or "stopped")
    tell_failure(work, job, error)
    return outcome_of(error)


def outcome_of(error: BaseException) -> Outcome:
    """What becomes of a job whose `work` raised this."""
    said = str(error)
    text = said if isinstance(error, Retry | Dead | JobKilled) and said else _named(error)
    fields: dict[str, Any] = {"error": text[:ERROR_MOST]}
    if isinstance(error, Retry):
        if error.in_ is not None:
            fields["retry_in"] = error.in_
    elif isinstance(error, Dead):
        fields["retry"] = False
    elif error.__traceback__ is not None:
        trace = "".join(traceback.format_exception(type(error), error, _of_the_job(error.__traceback__)))
        fields["backtrace"] = trace[-BACKTRACE_MOST:]
    return Outcome("fail", _sendable(fields), text)


def tell_failure(work: Work, job: Job, error: BaseException) -> None:
    """Call `fail` and the failure back-ends. What they raise is logged, and changes nothing."""
    token = current.set(job)
    try:
        for listener in work.listeners:
            try:
                listener(job, error)
            except Exception:
                log.exception("job.fail_raised queue=%s id=%s", job.queue, job.id)
    finally:
        current.reset(token)


def _of_the_job(trace: TracebackType) -> TracebackType | None:
    """The traceback from where the job's own code begins; all of it if that never ran."""
    own = trace
    while own.tb_frame.f_globals.get("__name__", "").startswith("presque.worker."):
        if own.tb_next is None:
            return trace
        own = own.tb_next
    return own


def _named(error: BaseException) -> str:
    said = str(error)
    name = type(error).__qualname__
    return f"{name}: {said}" if said else name


def _sendable(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what cannot be written as UTF-8, such as the half characters of a file name."""
    return {
        name: value.encode(errors="replace").decode() if isinstance(value, str) else value
        for name, value in fields.items()
    }
