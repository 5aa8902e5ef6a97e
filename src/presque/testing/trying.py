"""Runs a worker on a value, without a server."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from presque.client.json_values import decoded, encoded
from presque.client.leased import LeasedJob
from presque.worker import execution
from presque.worker.alone import done, done_async
from presque.worker.job import Job
from presque.worker.work import Work
from presque.worker.worker import Worker, from_function

T = TypeVar("T")

Works = Worker | type[Worker] | Callable[[Any], Any]
"""What does jobs: a worker, its class, or anything to call with the value of a job."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job went.

    A `failed` job would be retried, after `retry_in` seconds if the job said so. A `released` one was
    given back, as with `JobStopped` in a job that was `cancelled`, and its attempt does not count; after
    `Snooze` it comes again after `retry_in` seconds. `progress` holds what the job showed, `saved` what it
    saved, `extended` for how many seconds it asked each time.
    """

    state: Literal["done", "failed", "dead", "released"]
    result: Any = None
    error: str | None = None
    retry_in: float | None = None
    progress: list[Any] = field(default_factory=list)
    extended: list[float | None] = field(default_factory=list)
    saved: list[Any] = field(default_factory=list)


def perform(
    worker: Works,
    value: Any,
    *,
    queue: str = "test",
    id: str = "1",
    attempt: int = 1,
    max_attempts: int = 5,
    cancelled: bool = False,
    saved: Any = None,
) -> Outcome:
    """Let a worker do one job as it would for real: hooks, middleware, `fail`, back-ends.

    The job goes through JSON, as it does on its way through a server. Whatever `work` raises is in the
    outcome, and is not raised here. A job on its last attempt that fails is dead. Async work runs in an event
    loop of its own: in another thread if one runs in this thread already, as in an async test.
    """
    trial = _Trial(worker, encoded(value), queue, id, attempt, max_attempts, cancelled, saved)
    return trial.outcome(done(trial.work, trial.job))


async def perform_async(
    worker: Works,
    value: Any,
    *,
    queue: str = "test",
    id: str = "1",
    attempt: int = 1,
    max_attempts: int = 5,
    cancelled: bool = False,
    saved: Any = None,
) -> Outcome:
    """The same in the loop that runs. Work that is not async runs in this thread, and blocks the loop."""
    trial = _Trial(worker, encoded(value), queue, id, attempt, max_attempts, cancelled, saved)
    return trial.outcome(await done_async(trial.work, trial.job))


class _Trial:
    """One job that is tried, and what it says meanwhile."""

    def __init__(
        self,
        works: Works,
        text: str,
        queue: str,
        id: str,
        attempt: int,
        max_attempts: int,
        cancelled: bool,
        saved: Any,
    ) -> None:
        self.work: Work = worker_of(works, queue).as_work()
        self._progress: list[Any] = []
        self._extended: list[float | None] = []
        self._saved: list[Any] = []
        leased = LeasedJob(
            queue, id, decoded(text), attempt, max_attempts, 5, "", "lease", "", text=text,
            saved=decoded(encoded(saved)),
        )  # fmt: skip
        self.job = Job(leased, self._tell)
        self.job.cancelled = cancelled

    def _tell(self, job: Job, wish: Mapping[str, Any]) -> None:
        if "progress" in wish:
            self._progress.append(wish["progress"])
        elif "saved" in wish:
            self._saved.append(wish["saved"])
            job.stored.count = wish["save"]
        else:
            self._extended.append(wish.get("seconds"))

    def outcome(self, found: execution.Outcome) -> Outcome:
        if found.verb == "ack":
            return Outcome(
                "done",
                found.fields.get("result"),
                progress=self._progress,
                extended=self._extended,
                saved=self._saved,
            )
        last = found.fields.get("retry") is False or self.job.attempt >= self.job.max_attempts
        return Outcome(
            "released" if found.verb == "release" else "dead" if last else "failed",
            error=found.error,
            retry_in=found.fields.get("delay" if found.verb == "release" else "retry_in"),
            progress=self._progress,
            extended=self._extended,
            saved=self._saved,
        )


def worker_of(works: Works, queue: str) -> Worker:
    """The worker that was given, or one of its class."""
    if isinstance(works, Worker):
        return works
    kind = works if inspect.isclass(works) and issubclass(works, Worker) else from_function(works)
    return kind(queue=queue)
