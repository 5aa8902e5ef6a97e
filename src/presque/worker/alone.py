"""Does one job at once, without a worker around it: for tests, and for pushes that are run at once.

Whoever pushes for that has no server that brings a job again, so `Turns` does, without waiting.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from contextvars import copy_context

from presque.client.errors import ClientError
from presque.client.json_values import checked, is_deeper
from presque.verbs.bounds import BATCH_MOST
from presque.worker import execution
from presque.worker.job import Job
from presque.worker.work import Work

ATTEMPTS = 5
"""How often a job is tried for which nobody says it, as with a server whose policies nobody has changed."""
RELEASES_MOST = 1000
BODY_MOST = 1024 * 1024
"""Bytes of a request that a server takes by default."""
LEVELS_MOST = 970
"""How deep a job may be nested: from about here on a server refuses it."""


def check_bodies(texts: Sequence[str], *, many: bool) -> None:
    """Raise the `ClientError` of a server that does not take these jobs in one request."""
    size = sum(len(text.encode()) for text in texts)
    if many:
        size += len('{"jobs":[]}') + max(len(texts) - 1, 0)
    if size > BODY_MOST:
        raise ClientError(f"the body is larger than {BODY_MOST} bytes", status=413, code="body-too-large")
    if len(texts) > BATCH_MOST:
        said = f"jobs should be at most {BATCH_MOST} at once, not {len(texts)}"
        raise ClientError(said, status=400, code="invalid-request")
    for text in texts:
        if not text.strip():
            raise ClientError("job is missing", status=400, code="job-missing")
        if (trouble := _not_a_job(text)) is not None:
            raise ClientError(trouble, status=400, code="not-json")


def _not_a_job(text: str) -> str | None:
    try:
        checked(text)
    except ValueError as error:
        return f"the body is not JSON: {error}"
    if is_deeper(text, LEVELS_MOST):
        return "the body is nested too deep"
    try:
        if "\\ud" in text.lower():
            json.dumps(json.loads(text, parse_int=len), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "the body is not JSON: it has half a character (a lone surrogate)"
    return None


class Turns:
    """What a server would do with a job that comes back, but at once: the attempts of one job."""

    def __init__(self, attempts: int | None) -> None:
        self.attempt, self.most = 1, attempts or ATTEMPTS
        self._released = 0

    def again(self, state: str, called: str) -> bool:
        """Whether the job comes again after a turn that ended so, as attempt `attempt`. Raises `RuntimeError`
        for a job, `called` so, that gives itself back for ever."""
        if state == "failed":
            self.attempt += 1
            return True
        if state != "released":
            return False
        self._released += 1
        if self._released >= RELEASES_MOST:
            raise RuntimeError(
                f"{called} was snoozed or given back {RELEASES_MOST} times, and nothing here waits: let the"
                " test bring about what the job waits for, or use a server whose clock you move"
            )
        return True


def done(work: Work, job: Job) -> execution.Outcome:
    """Let the job be done, whatever its work is. Never raises what that raises."""
    return _in_a_loop(work, job) if work.awaits(job) else execution.perform(work, job)


async def done_async(work: Work, job: Job) -> execution.Outcome:
    """The same in the loop that runs, in a task of its own, so that work which cancels its task cancels
    nobody else."""
    if not work.awaits(job):
        return execution.perform(work, job)
    task = asyncio.ensure_future(execution.perform_async(work, job))
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.cancelled():
        return execution.outcome_of(asyncio.CancelledError())
    error = task.exception()
    return task.result() if error is None else execution.outcome_of(error)


def _in_a_loop(work: Work, job: Job) -> execution.Outcome:
    found: list[execution.Outcome] = []

    def run() -> None:
        try:
            found.append(asyncio.run(done_async(work, job)))
        except BaseException as error:  # noqa: BLE001  (SystemExit of a task that the job made, too)
            found.append(execution.outcome_of(error))

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        run()
    else:
        thread = threading.Thread(target=copy_context().run, args=(run,))
        thread.start()
        thread.join()
    return found[0]
