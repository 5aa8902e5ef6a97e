"""What users need to test their own jobs: run a worker on a value, without a server.

    def test_a_letter_without_an_address_is_dead():
        outcome = perform(Mailer, {"text": "hello"})
        assert outcome.state == "dead"

and a client whose pushes are done at once, in the same thread:

    client = InlineClient({"mail": Mailer})
    client.push("mail", {"to": "ana"})
    assert client.outcomes[-1].state == "done"
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from presque.client.answers import LeasedJob
from presque.client.calls import encoded
from presque.worker import execution
from presque.worker.job import Job
from presque.worker.worker import Worker


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job went. `failed` jobs would be tried again, after `retry_in` seconds if the job said so.

    `progress` holds what the job showed, `extended` for how many seconds it asked each time.
    """

    state: Literal["done", "failed", "dead"]
    result: Any = None
    error: str | None = None
    retry_in: float | None = None
    progress: list[Any] = field(default_factory=list)
    extended: list[float | None] = field(default_factory=list)


def perform(
    worker: Worker | type[Worker],
    value: Any,
    *,
    queue: str = "test",
    id: str = "1",
    attempt: int = 1,
    max_attempts: int = 5,
    cancelled: bool = False,
) -> Outcome:
    """Let a worker do one job as it would for real: hooks, middleware, `fail`, back-ends.

    The job goes through JSON, as it does on its way through a server. Never raises what `work` raises: it is
    in the outcome. A job on its last attempt that fails is dead.
    """
    found = worker(queue=queue) if isinstance(worker, type) else worker
    work = found.as_work()
    progress: list[Any] = []
    extended: list[float | None] = []

    def tell(_job: Job, wish: Mapping[str, Any]) -> None:
        if "progress" in wish:
            progress.append(wish["progress"])
        else:
            extended.append(wish.get("seconds"))

    text = encoded(value)
    leased = LeasedJob(queue, id, json.loads(text), attempt, max_attempts, 5, "", "lease", "", text=text)
    job = Job(leased, tell)
    job.cancelled = cancelled
    if work.is_async:
        outcome = asyncio.run(execution.perform_async(work, job))
    else:
        outcome = execution.perform(work, job)
    if outcome.verb == "ack":
        return Outcome("done", outcome.fields.get("result"), progress=progress, extended=extended)
    last = outcome.fields.get("retry") is False or attempt >= max_attempts
    return Outcome(
        "dead" if last else "failed",
        error=outcome.error,
        retry_in=outcome.fields.get("retry_in"),
        progress=progress,
        extended=extended,
    )


class InlineClient:
    """Stands in for a `Client` where code pushes jobs: each is done at once, `outcomes` tells how."""

    def __init__(self, workers: Mapping[str, Worker | type[Worker]]) -> None:
        self.workers = workers
        self.outcomes: list[Outcome] = []
        self._ids = itertools.count(1)

    def push(self, queue: str, job: Any, **_options: Any) -> str:
        """Do the job and return an id. Raises `KeyError` when no worker is there for the queue."""
        id = str(next(self._ids))
        self.outcomes.append(perform(self.workers[queue], job, queue=queue, id=id))
        return id

    def push_many(self, queue: str, jobs: Iterable[Any], **options: Any) -> list[str]:
        """Do the jobs in their order and return their ids."""
        return [self.push(queue, job, **options) for job in jobs]
