"""One job's life, as a list of steps: look at it, let it work, say how it went.

Whatever a job, a hook, a middleware, `fail` or a failure back-end raises ends here, as the outcome of
that job.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from presque.client.json_values import decoded
from presque.traces import tracing
from presque.worker import reasons
from presque.worker.errors import (
    Dead,
    Interrupted,
    JobCancelled,
    JobKilled,
    JobStopped,
    NotDone,
    Retry,
    Snooze,
)
from presque.worker.interrupts import is_theirs, theirs
from presque.worker.job import Job, current, unkept
from presque.worker.logger import log
from presque.worker.results import awaited, inside, ran
from presque.worker.work import Work


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job went: the verb that settles it, the fields that go with it, and a sentence for the log.

    `decided` is true when the job itself said what is to become of it, by `Retry`, `Snooze` or `Dead`,
    `out_of_memory` when it raised a `MemoryError`, its own or that of a library. `raised` is the
    class of what it raised, for traces.
    """

    verb: Literal["ack", "fail", "release"]
    fields: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    decided: bool = False
    out_of_memory: bool = False
    raised: str = ""


DONE = Outcome("ack")


def perform(work: Work, job: Job) -> Outcome:
    """Let `work` do the job. Never raises: whatever happens is the outcome."""
    token = current.set(job)
    if job.span is not None:
        enter(job)
    try:
        try:
            result = ran(theirs(work.call, job), "work")
            return DONE if result is None else done(result, job)
        except BaseException as error:  # noqa: BLE001  (a job may raise anything, SystemExit too)
            return failed(work, job, error)
    finally:
        current.reset(token)


async def perform_async(work: Work, job: Job) -> Outcome:
    """The same for a `work` that is `async def`. Raises nothing but what cancels the task."""
    token = current.set(job)
    if job.span is not None:
        enter(job)
    try:
        try:
            result = await awaited(work.call(job), "work")
            return DONE if result is None else done(result, job)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # whoever cancelled it knows why
            return await failed_async(work, job, error)
        except BaseException as error:  # noqa: BLE001  (as above)
            return await failed_async(work, job, error)
    finally:
        current.reset(token)


is_theirs(perform_async)


def enter(job: Job) -> None:
    """What the job traces belongs to this attempt. Its thread or task has a context of its own."""
    if (traced := tracing()) is not None:
        traced.enter(job.span, job.tracestate)


def done(result: Any, job: Job) -> Outcome:
    """The job is done, and its result is kept with it.

    A result that cannot be sent is dropped with a warning: the work is done, so doing it again does not help.
    """
    try:
        text = theirs(_encoded, result)
    except (Interrupted, NotDone):
        raise
    except BaseException as error:  # noqa: BLE001  (`items()` of a result may raise anything)
        reason = f"it is not JSON: {reasons.named(error)}"
    else:
        trouble = unkept(text)
        if trouble is None:
            return Outcome("ack", {"result": decoded(text)})  # a copy: the job's own may change later
        reason = trouble
    log.warning("job.result_dropped queue=%s id=%s reason=%s", job.queue, job.id, reason)
    return DONE


def _encoded(result: Any) -> str:
    text = json.dumps(result, ensure_ascii=False, allow_nan=False, default=inside)
    text.encode()  # half of a surrogate pair is not text
    return text


def failed(work: Work, job: Job, error: BaseException) -> Outcome:
    """Tell the worker's `fail` and its failure back-ends, and make the outcome of what was raised."""
    if _was_told(job, error):
        return given_back(error)
    outcome = outcome_of(error)
    if outcome.verb == "fail":
        tell_failure(work, job, error)
    return outcome


async def failed_async(work: Work, job: Job, error: BaseException) -> Outcome:
    """The same in an async worker, where `fail` and the back-ends may be `async def`."""
    if _was_told(job, error):
        return given_back(error)
    outcome = outcome_of(error)
    if outcome.verb == "fail":
        await tell_failure_async(work, job, error)
    await _delivered()
    return outcome


async def _delivered() -> None:
    """A cancel that `fail` has asked for its own task comes here, and not in place of the outcome."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


def _was_told(job: Job, error: BaseException) -> bool:
    """Whether a job stops because it was asked to. One that only claims so would be run again forever."""
    told_of = reasons.is_a(error, JobStopped) or reasons.is_a(error, JobCancelled)
    return told_of and job.cancelled


def given_back(reason: BaseException) -> Outcome:
    """The job goes back to its queue, and this attempt does not count."""
    said = reasons.said(reason)
    return Outcome("release", {}, "stopped" if said in ("", reasons.UNPRINTABLE) else said)


def outcome_of(error: BaseException) -> Outcome:
    """What becomes of a job whose `work` raised this. Never raises."""
    told = reasons.find(error, Dead) or reasons.find(error, Retry)
    if told is None and (later := reasons.find(error, Snooze)) is not None:
        return put_off(later)
    speaks = told if told is not None else error
    said = reasons.said(speaks)
    ours = issubclass(type(speaks), Retry | Dead | JobKilled | NotDone)
    plain = ours and said not in ("", reasons.UNPRINTABLE)
    text = reasons.sendable(said if plain else reasons.named(speaks))
    fields: dict[str, Any] = {"error": text}
    if told is None:
        if not issubclass(type(error), NotDone) and (trace := reasons.trace(error)):
            fields["backtrace"] = reasons.sendable(trace)
    elif issubclass(type(told), Dead):
        fields["retry"] = False
    elif (seconds := _seconds_of(told)) is not None:
        fields["retry_in"] = seconds
    memory = reasons.find(error, MemoryError) is not None
    kind = reasons.sendable(reasons.kind(speaks))
    return Outcome("fail", fields, text, decided=told is not None, out_of_memory=memory, raised=kind)


def put_off(later: BaseException) -> Outcome:
    """The job is to be done at another time, and this attempt does not count."""
    seconds, said = _seconds_of(later) or 0.0, reasons.said(later)
    why = "" if said in ("", reasons.UNPRINTABLE) else f": {said}"
    return Outcome(
        "release", {"delay": seconds} if seconds else {}, f"snoozed for {seconds:g} s{why}", decided=True
    )


def _seconds_of(told: BaseException) -> float | None:
    """What a `Retry` or a `Snooze` says, unless a class of the job's own has left it out or made something
    else of it."""
    try:
        seconds = float(told.in_)  # type: ignore[attr-defined]
    except BaseException:  # noqa: BLE001  (a class of the job's own)
        return None
    return seconds if 0 <= seconds <= Retry.MOST_S else None


def overruled(outcome: Outcome, reason: Interrupted) -> Outcome | None:
    """What counts for a job that was made to stop, and had this outcome. None: it has failed for the reason.

    A job may swallow what was raised in it and return as if it were done; nobody knows whether it is.
    """
    if outcome.decided:
        return outcome
    if isinstance(reason, JobStopped | JobCancelled):
        return given_back(reason)
    if outcome.verb != "fail":
        return None
    text = str(reason)
    return Outcome("fail", {**outcome.fields, "error": text}, text, raised=reasons.kind(reason))


def tell_failure(work: Work, job: Job, error: BaseException) -> None:
    """Call `fail` and the failure back-ends. What they raise is logged, and changes nothing."""
    token = current.set(job)
    try:
        for listener in work.listeners:
            try:
                ran(theirs(listener, job, error), "fail")
            except BaseException as raised:  # noqa: BLE001  (a hook may raise anything)
                _fail_raised(job, raised)
    finally:
        current.reset(token)


async def tell_failure_async(work: Work, job: Job, error: BaseException) -> None:
    """The same in an async worker."""
    token = current.set(job)
    try:
        for listener in work.listeners:
            try:
                await awaited(listener(job, error), "fail")
            except BaseException as raised:  # noqa: BLE001  (a hook may raise anything)
                _fail_raised(job, raised)
    finally:
        current.reset(token)


is_theirs(tell_failure_async)


def _fail_raised(job: Job, error: BaseException) -> None:
    log.warning(
        "job.fail_raised queue=%s id=%s error=%s", job.queue, job.id, reasons.named(error),
        extra={"trace": reasons.trace(error)},
    )  # fmt: skip
