"""Runs pushes at once, without a server: `with app.inline() as ran:`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from presque.client.errors import NotFound
from presque.client.json_values import decoded, encoded
from presque.client.leased import LeasedJob
from presque.tasks.calling import Handlers
from presque.tasks.task import Task
from presque.worker import execution
from presque.worker.alone import Turns, check_bodies, done, done_async
from presque.worker.job import Job
from presque.worker.settings import read
from presque.worker.work import Work

if TYPE_CHECKING:
    from presque.client.answers import JobFailure, JobRecord


@dataclass(frozen=True, slots=True)
class Ran:
    """How an attempt at a task went that was pushed: its name, its arguments as JSON has them, what became of
    it. One that `failed` or was `released` is followed by the next."""

    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    queue: str
    id: str
    state: Literal["done", "failed", "dead", "released"]
    result: Any = None
    error: str | None = None
    retry_in: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1


class Inline:
    """Runs each job as it is pushed, in the same thread or task. `outcomes` tells how each attempt went.

    A job that fails is retried at once, until its attempts are used up, and one that is snoozed comes
    again at once. Nothing waits, and options such as `delay` were checked and change nothing. `result()` of a
    push has the result; it raises `TaskFailed` for a job that is dead.
    """

    def __init__(self, tasks: Iterable[Task[Any, Any]], active: list[Inline]) -> None:
        self.outcomes: list[Ran] = []
        self._tasks, self._active = tasks, active
        self._ids = itertools.count(1)
        self._progress: dict[str, Any] = {}

    def __enter__(self) -> Self:
        handlers = Handlers(self._tasks)
        settings = read({"queues": "inline"}, {}, {})
        self._work = Work(settings, handlers.call, asks=handlers.is_async)
        self._active.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._active.remove(self)

    # --- what the App asks for

    def send(self, queue: str, values: Iterable[Mapping[str, Any]], options: Mapping[str, Any]) -> list[str]:
        """Run jobs, one after the other. Async tasks run in a loop of their own.

        Raises, before any runs, the `ClientError` of a server that refuses them.
        """
        ids = []
        for value in _taken(values):
            for job, went in self._turns(queue, value, options):
                went.append(done(self._work, job))
            ids.append(job.id)
        return ids

    async def asend(
        self, queue: str, values: Iterable[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> list[str]:
        """The same in the loop that runs."""
        ids = []
        for value in _taken(values):
            for job, went in self._turns(queue, value, options):
                went.append(await done_async(self._work, job))
            ids.append(job.id)
        return ids

    def look(self, queue: str, id: str) -> JobRecord:
        """The job, as a server would show it."""
        ran = [one for one in self.outcomes if (one.queue, one.id) == (queue, id)]
        if ran:
            failed: list[JobFailure] = [
                {"at": "", "worker": None, "error": one.error or "", "backtrace": None}
                for one in ran if one.state in ("failed", "dead")
            ]  # fmt: skip
            found: JobRecord = {
                "queue": queue, "id": id, "state": "done" if ran[-1].state == "done" else "dead",
                "attempt": ran[-1].attempt, "result": ran[-1].result, "kept_until": "", "errors": failed,
                "progress": self._progress.get(id),
            }  # fmt: skip
            return found
        raise NotFound(f"there is no job {id} of `{queue}`", status=404)

    # --- one job

    def _turns(
        self, queue: str, value: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Iterator[tuple[Job, list[execution.Outcome]]]:
        """A job as often as it is to be done, each time with a list for how it went."""
        turns, text, id, saved = Turns(options.get("attempts")), encoded(value), str(next(self._ids)), None
        while True:
            leased = LeasedJob(
                queue, id, decoded(text), turns.attempt, turns.most, 5, "", "lease", "",
                text=text, saved=saved,
            )  # fmt: skip
            job = Job(leased, self._heard)
            went: list[execution.Outcome] = []
            yield job, went
            ran = self._note(job, value, went[0], options)
            saved = job.saved
            if not turns.again(ran.state, f"`{ran.task}`"):
                return

    def _note(
        self, job: Job, value: Mapping[str, Any], outcome: execution.Outcome, options: Mapping[str, Any]
    ) -> Ran:
        state: Literal["done", "failed", "dead", "released"] = "done"
        if outcome.verb == "release":
            state = "released"
        elif outcome.verb == "fail":
            last = outcome.fields.get("retry") is False or job.attempt >= job.max_attempts
            state = "dead" if last else "failed"
        later = "delay" if outcome.verb == "release" else "retry_in"
        ran = Ran(
            task=value["task"], args=value["args"], kwargs=value["kwargs"], queue=job.queue, id=job.id,
            state=state, result=outcome.fields.get("result"), error=outcome.error or None,
            retry_in=outcome.fields.get(later), options=options, attempt=job.attempt,
        )  # fmt: skip
        self.outcomes.append(ran)
        return ran

    def _heard(self, job: Job, wish: Mapping[str, Any]) -> None:
        """Without a server: what a job shows is seen, and what it saves counts as stored."""
        if "progress" in wish:
            self._progress[job.id] = wish["progress"]
        job.stored.count = wish.get("save", job.stored.count)


def _taken(values: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found = list(values)
    check_bodies([encoded(value) for value in found], many=len(found) != 1)
    return found
