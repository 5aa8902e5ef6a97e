"""Worker: write `work`, and start it.

    class Mailer(Worker):
        def work(self, job):                # the JSON of the job, decoded
            deliver(job["to"], job["text"])

    Mailer(base_uri="http://localhost:5000", queue="mail").start()

A job is done when `work` returns and has failed when it raises; it is then retried as its queue's policy
says. Jobs are held on leases, which are renewed as long as `work` runs: when the worker dies, somebody else
gets the job, so `work` should bear to see the same job twice.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, ClassVar, Self, Unpack

from presque.worker import results, settings
from presque.worker.crew import Crew
from presque.worker.failures import Backend
from presque.worker.job import Job, current
from presque.worker.settings import NoWork, Options, Settings, WrongSetting
from presque.worker.starting import end_command, run_within, start
from presque.worker.work import Work

Middleware = Callable[[Job, Callable[[], Any]], Any]


class Worker:
    """Takes jobs of queues and lets `work` do them.

    Every argument may also be set in the environment (`PRESQUE_URL`, `PRESQUE_TOKEN`, `PRESQUE_WORKER_…`) or
    as an attribute of the class; the argument is the strongest. Raises `TypeError` when the class has no
    `work` or an argument is unknown, and `WrongSetting` (a `ValueError`) when a setting is missing or wrong.

    `queue` and `queues` say whose jobs it takes: names and patterns in order of preference, as text or as a
    list. `concurrency` jobs run at once: as tasks when `work` is `async def`, as processes with `fork`, else
    in threads. `interval` is how long one request waits for a job, `lease` how long a lease lasts (as the
    queue's policy says unless given; it is renewed in time), `timeout` how long a job may take: seconds, or
    a text such as "5m". A forked job may use `max_memory` bytes. After `max_jobs` jobs the worker ends. With
    `burst` it ends when the queues are empty; with `fair` it does not always begin with the first queue.
    `middleware` is called around each job, the first outermost: `def m(job, call_next): return call_next()`.
    """

    queues: ClassVar[str | Sequence[str] | None] = None
    middleware: Sequence[Middleware] = ()
    failure_backends: Sequence[Backend] = ()

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        if not callable(getattr(cls, "work", None)):
            raise NoWork(f"`{cls.__name__}` has no `work`: a worker needs a method `def work(self, job)`")
        return super().__new__(cls)

    def __init__(
        self,
        base_uri: str | None = None,
        *,
        queue: str | None = None,
        queues: str | Sequence[str] | None = None,
        middleware: Sequence[Middleware] | None = None,
        failure_backends: Sequence[Backend] | None = None,
        **options: Unpack[Options],
    ) -> None:
        if queue is not None and queues is not None:
            raise WrongSetting("give `queue` or `queues`, not both")
        for name in options:
            if name not in settings.OPTIONS and name != "token":
                raise TypeError(f"unknown setting `{name}`, {settings.known(name)}")
        kind = type(self)
        given = {**options, "base_uri": base_uri, "queues": _listed(queues if queue is None else queue)}
        of_class = {name: getattr(kind, name, None) for name in ("base_uri", "token", *settings.OPTIONS)}
        of_class["queues"] = _listed(kind.queues or getattr(kind, "queue", None))
        self.settings: Settings = settings.read(given, of_class)
        self.middleware = list(self.middleware if middleware is None else middleware)
        self.failure_backends = list(self.failure_backends if failure_backends is None else failure_backends)
        self.log = _JobLog(logging.getLogger(f"presque.worker.{kind.__name__}"), {})
        self._crew: Crew | None = None
        self.is_async = results.is_async(self._work)
        _check(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.settings.queues}>"

    # --- what a worker may define, besides `work`

    def before_work(self, job: Job) -> Awaitable[None] | None:
        """Called before each job, where it works. What it raises fails the job. May be async as `work` is."""

    def after_work(self, job: Job, result: Any) -> Awaitable[None] | None:
        """Called after `work` has returned. What it raises fails the job. May be async as `work` is."""

    def before_fork(self, job: Job) -> None:
        """Called in the worker before it forks for a job. What it raises fails the job."""

    def after_fork(self, job: Job) -> None:
        """Called in the forked child before the job: connect again to databases here."""

    # `work(self, job)` does a job: its decoded JSON. `fail(self, job, error)`, if there is one, is called
    # when `work` raised; with `fork` also when the child was killed. Both are looked up by name, since a
    # worker without `work` must not be constructed.

    # --- what `work` may use

    @property
    def job(self) -> Job:
        """The job that is being worked: its id, queue and attempt, `extend()` and `progress()`."""
        job = current.get()
        if job is None:
            raise RuntimeError("there is no job: `self.job` is for use inside of `work`")
        return job

    # --- running

    def start(self, *, handle_signals: bool = True) -> None:
        """Work until told to stop: by a signal, over HTTP, by `stop()`, or by what the settings say.

        In the main thread signals are obeyed, unless `handle_signals` is false: QUIT finishes the jobs and
        ends; TERM, INT and HUP stop them, give them back and end; USR1 stops them, and they have failed; USR2
        takes no further jobs; CONT goes on. Jobs that have not stopped when the grace is over are ended, with
        this process if they run in it.

        Raises a `ClientError` when the server refuses from the start; one that is away is waited for.
        """
        start([self.as_work()], self._started, handle_signals=handle_signals)

    async def run(self, *, handle_signals: bool = False) -> None:
        """Work in the event loop that runs, beside whatever else does, until told to stop.

        An `async def work` runs in this loop, another one in threads; leases are held in a thread of their
        own, so that a loop which is busy loses none. Signals are left to the program, unless
        `handle_signals` says otherwise. If what awaits this is cancelled, the jobs are stopped and given back
        within the grace. Jobs that will not stop are not given back: their leases run out.

        Raises `WrongSetting` for a worker with `fork`, which needs a process of its own, and a `ClientError`
        when the server refuses from the start.
        """
        await run_within([self.as_work()], self._started, handle_signals=handle_signals)

    def stop(self) -> None:
        """Finish the jobs that run, then end: `start()` and `run()` return. May be called from any thread."""
        if self._crew is not None:
            self._crew.ask("finish")

    def _started(self, crew: Crew) -> None:
        self._crew = crew

    # --- how a job is called

    def as_work(self) -> Work:
        """What the executors need to know of this worker."""
        kind = type(self)
        return Work(
            settings=self.settings,
            call=self._call(),
            is_async=self.is_async,
            listeners=self._listeners(),
            before_fork=None if kind.before_fork is Worker.before_fork else self.before_fork,
            after_fork=None if kind.after_fork is Worker.after_fork else self.after_fork,
        )

    @property
    def _work(self) -> Callable[[Any], Any]:
        work: Callable[[Any], Any] = getattr(self, "work")  # noqa: B009  (mypy knows no `work`)
        return work

    def _call(self) -> Callable[[Job], Any]:
        """Hooks and middleware around `work`, or `work` alone if there are none."""
        kind = type(self)
        work = self._work
        hooks = (kind.before_work is not Worker.before_work, kind.after_work is not Worker.after_work)
        if not self.middleware and not any(hooks):
            return lambda job: work(job.value)
        before, after = self.before_work, self.after_work  # a job may do anything to `self`

        def hooked(job: Job) -> Any:
            results.ran(before(job), "before_work")
            result = results.ran(work(job.value), "work")
            results.ran(after(job, result), "after_work")
            return result

        async def hooked_async(job: Job) -> Any:
            await results.awaited(before(job), "before_work")
            result = await results.awaited(work(job.value), "work")
            await results.awaited(after(job, result), "after_work")
            return result

        inner, middleware = hooked_async if self.is_async else hooked, tuple(self.middleware)

        def call(job: Job) -> Any:
            steps: Callable[[], Any] = functools.partial(inner, job)
            for one in reversed(middleware):
                steps = functools.partial(one, job, steps)
            return steps()

        return call

    def _listeners(self) -> list[Backend]:
        """Who hears of a failure: `fail` if there is one, and the back-ends."""
        fail = getattr(self, "fail", None)
        own: list[Backend] = [] if fail is None else [lambda job, error: fail(job.value, error)]
        return [*own, *self.failure_backends]


class _JobLog(logging.LoggerAdapter[logging.Logger]):
    """Adds to each line which job it is about."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        job = current.get()
        if job is not None:
            about = {"queue": job.queue, "id": job.id, "attempt": job.attempt}
            kwargs["extra"] = {**kwargs.get("extra", {}), "fields": about}
        return msg, kwargs


class Program(Worker):
    """Runs a shell command for each job: see `presque.worker.programs`."""

    def __init__(self, command: str, base_uri: str | None = None, **options: Any) -> None:
        self.command = command
        super().__init__(base_uri, **options, fork=True)

    def as_work(self) -> Work:
        """The command, and nothing of Python."""
        return Work(settings=self.settings, call=self.work, command=self.command)

    def work(self, job: Any) -> None:
        """Never called: the command does the work."""
        raise NotImplementedError


def run(worker: Worker) -> None:
    """Start a worker as the one thing that this program does: as `start`, and nothing holds up its end.

    If it was stopped, and not told to finish, threads that jobs have left running have the grace at most.
    """
    worker.start()
    crew = getattr(worker, "_crew", None)  # a job may have removed it
    if crew is not None:
        end_command(crew)


def from_function(function: Callable[..., Any]) -> type[Worker]:
    """A worker whose `work` is a function, or anything else to call, of one argument: the decoded job."""
    return type(_name(function), (Worker,), {"work": staticmethod(function), "__doc__": function.__doc__})


def _listed(queues: str | Sequence[str] | None) -> str | None:
    return queues if queues is None or isinstance(queues, str) else ",".join(queues)


def _check(worker: Worker) -> None:
    asked = worker.settings
    if asked.timeout is not None and not asked.fork and not worker.is_async and (asked.concurrency or 1) > 1:
        raise WrongSetting(
            "a thread cannot be stopped, so `timeout` needs `fork`, `async def work` or a concurrency of 1"
        )
    if results.yields(getattr(worker, "work", None)):
        raise WrongSetting("`work` has a `yield`, so calling it does nothing: do the work without `yield`")
    hooks = {name: getattr(worker, name, None) for name in ("before_fork", "after_fork")}
    if not worker.is_async:
        around = ("before_work", "after_work", "fail")
        hooks |= {name: getattr(worker, name, None) for name in around}
        hooks |= {_name(one): one for one in (*worker.middleware, *worker.failure_backends)}
    for name, hook in hooks.items():
        if hook is not None and results.is_async(hook):
            why = "it is called before the job" if name.endswith("_fork") else "`work` is not"
            raise WrongSetting(f"`{name}` cannot be `async def`: {why}")


def _name(hook: Any) -> str:
    name = getattr(hook, "__name__", None)
    return name if isinstance(name, str) else type(hook).__name__
