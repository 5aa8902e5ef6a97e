"""A server for tests: look at what was pushed, run what is due, move the clock."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from presque import names
from presque.client import Client
from presque.client.answers import Settled
from presque.client.calls import workers
from presque.client.options import Duration
from presque.names import QueueList
from presque.tasks.app import App
from presque.tasks.calling import Handlers
from presque.tasks.task import Task
from presque.testing.trying import Works, worker_of
from presque.worker import execution
from presque.worker.alone import done, done_async
from presque.worker.job import Job
from presque.worker.settings import read
from presque.worker.work import Work

Workers = Mapping[str, Works] | App
"""What does the jobs: an App, or for each queue list a worker, its class, or anything to call with a job."""

RUNS_MOST = 1000
LEASE_S = 12 * 3600.0
PAGE = 500


@dataclass(frozen=True, slots=True)
class Pushed:
    """A job that waits: in which queue, since when, and when it is due, if that is later.

    `attempt` is how often it was leased, 0 at first. `args` and `kwargs` are those of a call of a task.
    """

    queue: str
    id: str
    value: Any
    priority: int
    attempt: int
    pushed_at: datetime
    run_at: datetime | None

    @property
    def args(self) -> list[Any]:
        """The arguments of the task."""
        return list(self.value.get("args", []))

    @property
    def kwargs(self) -> dict[str, Any]:
        """Its named arguments."""
        return dict(self.value.get("kwargs", {}))


@dataclass(frozen=True, slots=True)
class Run:
    """How a job went that was due, and what became of it: `done` and `dead` are for good, a job that is
    `scheduled` or `ready` comes again, one that was `deleted` meanwhile does not. `error` and `backtrace` are
    what it raised."""

    queue: str
    id: str
    value: Any
    attempt: int
    state: Literal["done", "dead", "scheduled", "ready", "deleted", "lost"]
    result: Any = None
    error: str | None = None
    backtrace: str | None = field(default=None, repr=False)


class Clock:
    """The clock of the server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def now(self) -> datetime:
        """The moment that it shows, in UTC."""
        return datetime.fromisoformat(self._client.clock()["now"])

    def advance(self, by: Duration) -> datetime:
        """Move it forward, by seconds, a `timedelta` or a text such as "1h30m". Returns what it shows then.

        What has become due is ready when this returns.
        """
        return datetime.fromisoformat(self._client.move_clock(by)["now"])

    def set(self, at: datetime | float) -> datetime:
        """Move it to a moment, forward or back: a `datetime` with a time zone, or seconds since the epoch."""
        return datetime.fromisoformat(self._client.move_clock(at=at)["now"])


class Presque:
    """A server that keeps nothing and has a clock that can be moved, for one test after the other.

        with Presque("http://127.0.0.1:5001") as presque: …

    At its end everything is gone from the server that was put there, and the clock shows the real time.
    Raises a `ClientError` (`no-test-clock`) for any other server, which it leaves as it is.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.client = Client(url, token)
        self.clock = Clock(self.client)

    def __enter__(self) -> Self:
        self.clean()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.clean()
        finally:
            self.client.close()

    def clean(self) -> None:
        """Take away all jobs, queues, policies, recurring jobs and workers, cancel bulk tasks, and put the
        clock right."""
        ahead = self.client.clock()["ahead"]
        for task in self.client.tasks()[0]:
            if task["ended_at"] is None:
                self.client.cancel_task(task["id"])
        for cron in self.client.crons():
            self.client.delete_cron(cron["name"])
        for queue in self.client.queues():
            self.client.purge(queue, forget=True)
        for worker in self.client.workers():
            self.client.perform(workers.leave(worker))
        if ahead:
            self.client.move_clock(at=time.time())

    # --- what was pushed

    def pushed(self, what: str | Task[Any, Any] = "*") -> list[Pushed]:
        """The jobs that wait in the queues of a queue list, or the calls of a task that wait; those that are
        due later, too. In the order in which they were pushed."""
        if isinstance(what, Task):
            return [one for one in self._waiting(what.queue) if _calls(one.value, what)]
        return self._waiting(what)

    def _waiting(self, queues: str) -> list[Pushed]:
        wanted = names.queue_list(queues)
        found: list[tuple[str, int, Pushed]] = []
        for queue in self.client.queues(queues):
            if not wanted.matches(queue):
                continue
            for state in ("ready", "scheduled"):
                for job in self._jobs(queue, state):
                    one = _pushed(job)
                    found.append((job["pushed_at"], int(one.id), one))
        return [one for _, _, one in sorted(found, key=lambda each: each[:2])]

    def _jobs(self, queue: str, state: Any) -> Iterator[Any]:
        cursor = None
        while True:
            page = self.client.jobs(queue, state, PAGE, cursor)
            yield from page["jobs"]
            cursor = page["cursor"]
            if cursor is None:
                return

    def put_crons(self, app: App) -> None:
        """Define the recurring jobs that an App declares, as its worker does when it starts."""
        for one in app.recurring:
            self.client.put_cron(one.name, one.task.queue, one.body, one.schedule, **one.options)

    # --- what is due

    def run_due(self, works: Workers, *, most: int = RUNS_MOST) -> list[Run]:
        """Do all jobs that are due, and those that they push meanwhile, one after the other: how each went.

        `works` is an App, or says what does the jobs of a queue, by its name or by a queue list with
        patterns. A job that fails waits as the policy of its queue says, so it is not due any more: move the
        clock, and run again. Async work runs in an event loop of its own. Raises `RuntimeError` after `most`
        jobs.
        """
        due = _Due(self.client, works, most)
        while (job := due.take()) is not None:
            due.settle(job, done(due.work(job), job))
        return due.runs

    async def run_due_async(self, works: Workers, *, most: int = RUNS_MOST) -> list[Run]:
        """The same in the loop that runs. Requests to the server hold it up for their time."""
        due = _Due(self.client, works, most)
        while (job := due.take()) is not None:
            due.settle(job, await done_async(due.work(job), job))
        return due.runs


class _Due:
    """Takes what is due, and tells how it went."""

    def __init__(self, client: Client, works: Workers, most: int) -> None:
        self._client = client
        self._lanes = list(_lanes(works))
        self._most = most
        self.runs: list[Run] = []

    def take(self) -> Job | None:
        """The next job, of the queues in their order."""
        for queues, _ in self._lanes:
            found = self._client.lease(queues.text, count=1, seconds=LEASE_S)
            if found:
                if len(self.runs) >= self._most:
                    self._client.release(found[0])
                    raise RuntimeError(
                        f"{self._most} jobs were done and more are due: does a job push itself again?"
                    )
                return Job(found[0], self._tell)
        return None

    def work(self, job: Job) -> Work:
        """Who does it."""
        return next(work(job.queue) for queues, work in self._lanes if queues.matches(job.queue))

    def settle(self, job: Job, outcome: execution.Outcome) -> None:
        """Tell the server, and note what became of it."""
        told = self._settle(outcome.verb, job, outcome.fields)
        self.runs.append(
            Run(
                queue=job.queue,
                id=job.id,
                value=job.value,
                attempt=job.attempt,
                state=_state(told),
                result=outcome.fields.get("result"),
                error=outcome.error or None,
                backtrace=outcome.fields.get("backtrace"),
            )
        )

    def _tell(self, job: Job, wish: Mapping[str, Any]) -> None:
        fields = {name: value for name, value in wish.items() if name != "save"}
        told = self._settle("extend", job, fields)
        if told["status"] != 200 or told.get("cancel"):
            job.cancelled = True
        elif "save" in wish:
            job.stored.count = wish["save"]

    def _settle(self, verb: str, job: Job, fields: Mapping[str, Any]) -> Settled:
        asked: Any = {verb: [{"queue": job.queue, "id": job.id, "lease": job.lease, **fields}]}
        [told] = self._client.settle(asked)
        return told


def _lanes(works: Workers) -> Iterator[tuple[QueueList, Callable[[str], Work]]]:
    """Queue lists, and who does the jobs of a queue of each."""
    if isinstance(works, App):
        handlers, queues = Handlers(works.tasks), ",".join({task.queue: None for task in works.tasks})
        work = Work(read({"queues": queues}, {}, {}), handlers.call, asks=handlers.is_async)
        yield names.queue_list(queues), lambda _: work
        return
    for named, one in works.items():
        yield names.queue_list(named), functools.partial(_work, one)


def _work(works: Works, queue: str) -> Work:
    return worker_of(works, queue).as_work()


def _calls(value: Any, task: Task[Any, Any]) -> bool:
    one = task.definition
    return (
        type(value) is dict
        and value.get("task") in (one.name, *one.aliases)
        and value.get("version", 1) == one.version
    )


def _state(told: Settled) -> Any:
    return told["state"] if told["status"] == 200 else "lost"


def _pushed(job: Mapping[str, Any]) -> Pushed:
    run_at = job.get("run_at") if job["state"] == "scheduled" else None
    return Pushed(
        queue=job["queue"],
        id=job["id"],
        value=job["body"],
        priority=job["priority"],
        attempt=job["attempt"],
        pushed_at=datetime.fromisoformat(job["pushed_at"]),
        run_at=None if run_at is None else datetime.fromisoformat(run_at),
    )
