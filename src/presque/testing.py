"""What users need to test their own jobs: run a worker on a value, without a server.

    def test_a_letter_without_an_address_is_dead():
        outcome = perform(Mailer, {"text": "hello"})
        assert outcome.state == "dead"

and clients whose pushes are done at once, in the same thread or task:

    client = InlineClient({"mail": Mailer, "video_*": Transcoder})
    client.push("mail", {"to": "ana"})
    assert client.outcomes[-1].state == "done"

A worker is given as a class that derives from `Worker`, as an instance of one, or as anything to call with
the job, as for `presque worker MODULE:NAME`. Work that is async and work that is not can both be tested in an
async test and in any other: `await perform_async(…)` and `AsyncInlineClient` use the loop of the test.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeVar, Unpack

from presque import names
from presque.client import AsyncClient, Client, ClientError
from presque.client.answers import LeasedJob
from presque.client.calls import Call, parameters_of
from presque.client.json_values import checked, decoded, encoded
from presque.client.options import BatchOptions, PushOptions
from presque.errors import CallerError, PresqueError
from presque.fields import check_together, read_texts
from presque.verbs import BATCH_MOST, VERBS
from presque.worker import execution
from presque.worker.job import Job
from presque.worker.work import Work
from presque.worker.worker import Worker, from_function

T = TypeVar("T")

Works = Worker | type[Worker] | Callable[[Any], Any]
"""What does jobs: a worker, its class, or anything to call with the value of a job."""

BODY_MOST = 1024 * 1024
"""Bytes of a job that a server takes unless it was told otherwise."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job went.

    A `failed` job would be tried again, after `retry_in` seconds if the job said so. A `released` one was
    given back, as with `JobStopped`, and its attempt does not count. `progress` holds what the job showed,
    `extended` for how many seconds it asked each time.
    """

    state: Literal["done", "failed", "dead", "released"]
    result: Any = None
    error: str | None = None
    retry_in: float | None = None
    progress: list[Any] = field(default_factory=list)
    extended: list[float | None] = field(default_factory=list)


def perform(
    worker: Works,
    value: Any,
    *,
    queue: str = "test",
    id: str = "1",
    attempt: int = 1,
    max_attempts: int = 5,
    cancelled: bool = False,
) -> Outcome:
    """Let a worker do one job as it would for real: hooks, middleware, `fail`, back-ends.

    The job goes through JSON, as it does on its way through a server. Whatever `work` raises is in the
    outcome, and is not raised here. A job on its last attempt that fails is dead. Async work runs in an event
    loop of its own: in another thread if one runs in this thread already, as in an async test.
    """
    trial = _Trial(worker, encoded(value), queue, id, attempt, max_attempts, cancelled)
    return trial.outcome(
        _in_a_loop(trial) if trial.work.is_async else execution.perform(trial.work, trial.job)
    )


async def perform_async(
    worker: Works,
    value: Any,
    *,
    queue: str = "test",
    id: str = "1",
    attempt: int = 1,
    max_attempts: int = 5,
    cancelled: bool = False,
) -> Outcome:
    """The same in the loop that runs. Work that is not async runs in this thread, and blocks the loop."""
    trial = _Trial(worker, encoded(value), queue, id, attempt, max_attempts, cancelled)
    return trial.outcome(await _in_this_loop(trial))


class _Trial:
    """One job that is tried, and what it says meanwhile."""

    def __init__(
        self, works: Works, text: str, queue: str, id: str, attempt: int, max_attempts: int, cancelled: bool
    ) -> None:
        self.work: Work = _worker(works, queue).as_work()
        self._progress: list[Any] = []
        self._extended: list[float | None] = []
        leased = LeasedJob(queue, id, decoded(text), attempt, max_attempts, 5, "", "lease", "", text=text)
        self.job = Job(leased, self._tell)
        self.job.cancelled = cancelled

    def _tell(self, _job: Job, wish: Mapping[str, Any]) -> None:
        if "progress" in wish:
            self._progress.append(wish["progress"])
        else:
            self._extended.append(wish.get("seconds"))

    def outcome(self, found: execution.Outcome) -> Outcome:
        if found.verb == "ack":
            return Outcome(
                "done", found.fields.get("result"), progress=self._progress, extended=self._extended
            )
        last = found.fields.get("retry") is False or self.job.attempt >= self.job.max_attempts
        return Outcome(
            "released" if found.verb == "release" else "dead" if last else "failed",
            error=found.error,
            retry_in=found.fields.get("retry_in"),
            progress=self._progress,
            extended=self._extended,
        )


def _worker(works: Works, queue: str) -> Worker:
    if isinstance(works, Worker):
        return works
    kind = works if inspect.isclass(works) and issubclass(works, Worker) else from_function(works)
    return kind(queue=queue)


async def _in_this_loop(trial: _Trial) -> execution.Outcome:
    """In a task of its own, so that work which cancels its task cancels nobody else."""
    if not trial.work.is_async:
        return execution.perform(trial.work, trial.job)
    task = asyncio.ensure_future(execution.perform_async(trial.work, trial.job))
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.cancelled():
        return execution.outcome_of(asyncio.CancelledError())
    error = task.exception()
    return task.result() if error is None else execution.outcome_of(error)


def _in_a_loop(trial: _Trial) -> execution.Outcome:
    found: list[execution.Outcome] = []

    def run() -> None:
        try:
            found.append(asyncio.run(_in_this_loop(trial)))
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


# --- clients that do what is pushed


class _Inline:
    """What both clients share: who does which jobs, what a server would refuse, and how jobs went."""

    def __init__(self, workers: Mapping[str, Works]) -> None:
        self.workers = dict(workers)
        self.outcomes: list[Outcome] = []
        self._ids = itertools.count(1)

    def take(self, verb: str, queue: str, texts: list[str], options: Mapping[str, Any]) -> list[_Taken]:
        """The jobs of a push, each with who does it. Raises what a push to a server raises."""
        parameters, headers = parameters_of(verb, options)
        row = VERBS[verb]
        try:
            names.queue(queue)
            given = read_texts(row.parameters, parameters)
            for name, value in headers.items():
                row.headers[name.lower()].read_text(value)
            check_together(row.parameters, given)
            if len(texts) > BATCH_MOST:
                raise CallerError(f"jobs should be at most {BATCH_MOST} at once, not {len(texts)}")
        except PresqueError as error:
            raise ClientError(str(error), status=400, code=error.code) from None
        for text in texts:
            self._check(text)
        works = self._works(queue)
        return [_Taken(works, queue, decoded(text), str(next(self._ids))) for text in texts]

    def _check(self, text: str) -> None:
        if not text.strip():
            raise ClientError("job is missing", status=400, code="job-missing")
        try:
            size = len(checked(text).encode())
        except ValueError as error:
            raise ClientError(f"the body is not JSON: {error}", status=400, code="not-json") from None
        if size > BODY_MOST:
            raise ClientError(f"the body is larger than {BODY_MOST} bytes", status=413, code="body-too-large")

    def _works(self, queue: str) -> Works:
        found = self.workers.get(queue)
        if found is not None:
            return found
        for pattern, works in self.workers.items():
            if names.queue_list(pattern).matches(queue):
                return works
        raise KeyError(f"no worker is there for the queue `{queue}`")


@dataclass(frozen=True, slots=True)
class _Taken:
    works: Works
    queue: str
    value: Any
    id: str


def _no_server(call: Call[Any]) -> NoReturn:
    raise NotImplementedError(
        f"this client does what is pushed and has no server to ask for {call.method} {call.path}"
    )


def _text(body: str | bytes) -> str:
    if isinstance(body, str):
        return body
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ClientError("the body is not UTF-8", status=400, code="not-json") from None


class InlineClient(Client):
    """A `Client` for tests: each job that is pushed is done at once, `outcomes` tells how.

    `workers` says who does the jobs of a queue, by its name or by a queue list with patterns; a name counts
    before a pattern. What a server would refuse is refused with the same errors. Options such as `delay` are
    checked and then ignored. Raises `KeyError` when no worker is there for the queue. All that is not a push
    raises `NotImplementedError`, since there is no server.
    """

    def __init__(self, workers: Mapping[str, Works]) -> None:
        super().__init__("http://inline", "inline")
        self._inline = _Inline(workers)

    @property
    def outcomes(self) -> list[Outcome]:
        """How the jobs went, in the order in which they ended."""
        return self._inline.outcomes

    def perform(self, call: Call[T]) -> T:
        """Never returns."""
        _no_server(call)

    def push_text(self, queue: str, text: str | bytes, **options: Unpack[PushOptions]) -> str:
        """Do the job and return an id."""
        return self._do(self._inline.take("push", queue, [_text(text)], options))[0]

    def push_many(self, queue: str, jobs: Iterable[Any], **options: Unpack[BatchOptions]) -> list[str]:
        """Do the jobs in their order and return their ids."""
        texts = [encoded(job) for job in jobs]
        return self._do(self._inline.take("push_many", queue, texts, options))

    def push_texts(self, queue: str, texts: Iterable[str], **options: Unpack[BatchOptions]) -> list[str]:
        """Do the jobs in their order and return their ids."""
        return self._do(self._inline.take("push_many", queue, [checked(one) for one in texts], options))

    def _do(self, jobs: list[_Taken]) -> list[str]:
        for job in jobs:
            self.outcomes.append(perform(job.works, job.value, queue=job.queue, id=job.id))
        return [job.id for job in jobs]


class AsyncInlineClient(AsyncClient):
    """The same for an `AsyncClient`: async work runs in the loop of the test."""

    def __init__(self, workers: Mapping[str, Works]) -> None:
        super().__init__("http://inline", "inline")
        self._inline = _Inline(workers)

    @property
    def outcomes(self) -> list[Outcome]:
        """How the jobs went, in the order in which they ended."""
        return self._inline.outcomes

    async def perform(self, call: Call[T]) -> T:
        """Never returns."""
        _no_server(call)

    async def push_text(self, queue: str, text: str | bytes, **options: Unpack[PushOptions]) -> str:
        """Do the job and return an id."""
        return (await self._do(self._inline.take("push", queue, [_text(text)], options)))[0]

    async def push_many(self, queue: str, jobs: Iterable[Any], **options: Unpack[BatchOptions]) -> list[str]:
        """Do the jobs in their order and return their ids."""
        texts = [encoded(job) for job in jobs]
        return await self._do(self._inline.take("push_many", queue, texts, options))

    async def push_texts(
        self, queue: str, texts: Iterable[str], **options: Unpack[BatchOptions]
    ) -> list[str]:
        """Do the jobs in their order and return their ids."""
        return await self._do(self._inline.take("push_many", queue, [checked(one) for one in texts], options))

    async def _do(self, jobs: list[_Taken]) -> list[str]:
        for job in jobs:
            self.outcomes.append(await perform_async(job.works, job.value, queue=job.queue, id=job.id))
        return [job.id for job in jobs]
