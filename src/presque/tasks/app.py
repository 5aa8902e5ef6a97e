"""App: declares tasks, and pushes them.

    app = App()

    @app.task(queue="mail", attempts=3)
    def send(to: str, text: str) -> None: ...

    send.push("ana@example.org", text="hi")

What only workers and event loops need is imported when it is used, so that a program that pushes starts
quickly.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, Unpack, overload

from presque.client.client import Client
from presque.client.options import Duration
from presque.errors import shown
from presque.quantities import quoted
from presque.tasks import options, recurring
from presque.tasks.errors import WrongTask
from presque.tasks.options import Options
from presque.tasks.plain import Encode
from presque.tasks.reading import Decode, Readers
from presque.tasks.recurring import CronOptions, Recurring
from presque.tasks.signature import Signature
from presque.tasks.task import AsyncTask, Definition, PlainTask, Task

if TYPE_CHECKING:
    from presque.client.answers import JobRecord
    from presque.client.async_client import AsyncClient
    from presque.tasks.inline import Inline
    from presque.tasks.worker import AppWorker
    from presque.worker.settings import Options as WorkerOptions

THREAD_GOES_ON = "a thread cannot be stopped, so `timeout` needs `fork` or `async def`"

P = ParamSpec("P")
R = TypeVar("R")
AnyTask = TypeVar("AnyTask", bound=Task[Any, Any])


class Declaring(Protocol):
    """What `app.task(…)` returns: makes a task of a function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is a function, too
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> PlainTask[P, R]: ...


class Repeating(Protocol):
    """What `app.cron(…)` returns: makes a task of a function, or takes a task, and repeats it."""

    @overload
    def __call__(self, function: AnyTask, /) -> AnyTask: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is a function, too
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> PlainTask[P, R]: ...


_ELSEWHERE = {
    **dict.fromkeys(("enqueue", "enqueue_call", "send_task", "enqueue_job"), "`f.push(…)` of a task `f`"),
    **dict.fromkeys(("enqueue_in", "enqueue_at"), '`f.options(delay="5m").push(…)` of a task `f`'),
    **dict.fromkeys(("enqueue_many", "map"), "`f.push.many(…)` of a task `f`"),
    **dict.fromkeys(("job", "actor", "shared_task"), "`@app.task`"),
    **dict.fromkeys(("periodic_task", "add_periodic_task", "schedule"), '`@app.cron("0 3 * * *")`'),
    **dict.fromkeys(("autodiscover_tasks", "worker_main", "start"), "`presque worker MODULE…` in a shell"),
    "conf": "the arguments of `App(…)`",
}
"""What RQ, Celery, Dramatiq, huey and arq have beside their tasks, and what it is here."""


class App:
    """Tasks, and the server that their jobs go to.

    Without a `base_url` the environment says where the server is (`PRESQUE_URL`), else it is the one on this
    machine; `token` is by default that of `PRESQUE_TOKEN`. Both are read when the first job is pushed. What
    else is given holds for all tasks that do not say otherwise, the queue `default` among them.

    `encode` makes what JSON can say of a value that presque does not know, or raises `TypeError`; `decode`
    gets the type of an annotation and what `encode` has made, and returns the value.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        request_timeout: Duration = 30,
        encode: Encode | None = None,
        decode: Decode | None = None,
        **said: Unpack[Options],
    ) -> None:
        options.check_declared("App", said)
        self.base_url, self.token = base_url, token
        self._request_timeout = request_timeout
        self._said: dict[str, Any] = {"queue": "default", **said}
        self._encode = encode
        self._readers = Readers(decode)
        self._tasks: dict[tuple[str, int], Task[Any, Any]] = {}
        self._recurring: dict[str, Recurring] = {}
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._async_client: AsyncClient | None = None
        self._inline: list[Inline] = []

    if not TYPE_CHECKING:  # or type checkers would take any name

        def __getattr__(self, name: str) -> Any:
            hint = _ELSEWHERE.get(name)
            raise AttributeError(f"an App has no `{name}`" + (f": here it is {hint}" if hint else ""))

    # --- declaring

    @overload
    def task(  # type: ignore[overload-overlap]  # a coroutine function is a function, too
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> PlainTask[P, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        version: int = 1,
        aliases: Sequence[str] = (),
        **said: Unpack[Options],
    ) -> Declaring: ...
    def task(  # type: ignore[misc]  # the overloads say more than it can
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        version: int = 1,
        aliases: Sequence[str] = (),
        **said: Unpack[Options],
    ) -> Any:
        """Make a task of a function: `@app.task`, or `@app.task(queue="mail", attempts=3)`.

        Its jobs call it `name`, by default the module and the name of the function. Jobs that were
        pushed under one of the `aliases` are its jobs, too. Functions of one name and several versions live
        side by side. Raises `WrongTask` for options that no server would take.
        """
        if function is None:
            return functools.partial(self._declare, name=name, version=version, aliases=aliases, said=said)
        return self._declare(function, name=name, version=version, aliases=aliases, said=said)

    def cron(
        self,
        schedule: str | None = None,
        /,
        *,
        every: Duration | None = None,
        name: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        timezone: str | None = None,
        missed: Literal["once", "all", "skip"] | None = None,
        overlap: Literal["allow", "skip"] | None = None,
        **said: Unpack[Options],
    ) -> Repeating:
        """Push a task on a schedule: `@app.cron("0 3 * * *", timezone="Europe/Paris")`, or `every="5m"`.

        Makes a task of the function, or takes one: `@app.cron(…)` above `@app.task(…)`. The recurring job is
        called as the task unless a `name` is given, and calls it with `kwargs`. Workers of this code put it
        on the server when they start.
        """
        if callable(schedule):
            raise WrongTask('say when: `@app.cron("0 3 * * *")` or `@app.cron(every="5m")`')
        found: CronOptions = {}
        for one, value in (("timezone", timezone), ("missed", missed), ("overlap", overlap)):
            if value is not None:
                found[one] = value  # type: ignore[literal-required]  # one of the names above

        def declare(function: Any) -> Any:
            task: Task[Any, Any]
            if isinstance(function, Task):
                task = function
                if said:
                    raise WrongTask(f"`{task.name}`: give the options of a task where it is declared")
            else:
                task = self._declare(function, name=None, version=1, aliases=(), said=said)
            made = recurring.declared(task, schedule, every=every, name=name, kwargs=kwargs or {}, said=found)
            before = self._recurring.get(made.name)
            if before is not None and not _is_same(before.task, made.task):
                raise WrongTask(f"two recurring jobs are called `{made.name}`: give one another `name`")
            self._recurring[made.name] = made
            return task

        return declare

    def _declare(
        self,
        function: Callable[..., Any],
        *,
        name: str | None,
        version: int,
        aliases: Sequence[str],
        said: Mapping[str, Any],
    ) -> Task[Any, Any]:
        function = _checked(function)
        module = _module(function)
        called = name or f"{module}.{_qualified(function)}"
        if _is_method(function):
            raise WrongTask(
                f"`{called}` is a method, and a worker has no object to call it on: make it a function, or"
                " put `@staticmethod` below"
            )
        if type(version) is not int or version < 1:
            raise WrongTask(f"`{called}`: `version` should be a whole number from 1 on")
        if not isinstance(called, str):
            raise WrongTask(f"`name` should be a text, not {quoted(name)}")
        if isinstance(aliases, str) or not all(isinstance(one, str) for one in aliases):
            raise WrongTask(f"`{called}`: `aliases` should be a list of names")
        options.check_declared(called, said)
        merged = {**self._said, **said}
        is_async = _is_async(function)
        if merged.get("timeout") is not None and not is_async and not merged.get("fork"):
            raise WrongTask(f"`{called}`: {THREAD_GOES_ON}")
        if merged.get("max_memory") is not None and not merged.get("fork"):
            raise WrongTask(f"`{called}`: `max_memory` is for the process of a job, so it needs `fork`")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise WrongTask(f"`{called}` has a `yield`, so calling it does nothing: remove the `yield`")
        signature = Signature(function, called, self._encode, self._readers)
        definition = Definition(
            name=called, version=version, aliases=tuple(aliases), function=function, is_async=is_async,
            module=module, signature=signature, encode=self._encode, app=self,
        )  # fmt: skip
        task: Task[Any, Any] = (AsyncTask if is_async else PlainTask)(definition, merged)
        before = self._tasks.get((called, version))
        if before is not None and not _is_same(before, task):
            raise WrongTask(f"two tasks are called `{called}`: give one of them another `name` or `version`")
        self._tasks[called, version] = task
        return task

    @property
    def tasks(self) -> list[Task[Any, Any]]:
        """The tasks that are declared so far."""
        return list(self._tasks.values())

    @property
    def recurring(self) -> list[Recurring]:
        """The recurring jobs that are declared so far."""
        return list(self._recurring.values())

    # --- the server

    @property
    def client(self) -> Client:
        """The client that pushes: made when it is first needed."""
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = Client(self.base_url, self.token, self._request_timeout)
        return self._client

    @property
    def async_client(self) -> AsyncClient:
        """The same on asyncio."""
        if self._async_client is None:
            from presque.client.async_client import AsyncClient

            with self._lock:
                if self._async_client is None:
                    self._async_client = AsyncClient(self.base_url, self.token, self._request_timeout)
        return self._async_client

    def send(self, queue: str, value: Mapping[str, Any], options: Mapping[str, Any]) -> str:
        """Push a job and return its id: what `task.push` does."""
        if self._inline:
            return self._inline[-1].send(queue, [value], options)[0]
        return self.client.push(queue, value, **options)

    async def asend(self, queue: str, value: Mapping[str, Any], options: Mapping[str, Any]) -> str:
        """The same on asyncio."""
        if self._inline:
            return (await self._inline[-1].asend(queue, [value], options))[0]
        return await self.async_client.push(queue, value, **options)

    def send_many(
        self, queue: str, values: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> list[str]:
        """Push jobs and return their ids: what `task.push.many` does."""
        if self._inline:
            return self._inline[-1].send(queue, values, options)
        return self.client.push_many(queue, values, **options)

    async def asend_many(
        self, queue: str, values: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> list[str]:
        """The same on asyncio."""
        if self._inline:
            return await self._inline[-1].asend(queue, values, options)
        return await self.async_client.push_many(queue, values, **options)

    def look(self, queue: str, id: str, wait: float | None) -> JobRecord:
        """All that is known of a job; with `wait`, as soon as it is done or dead."""
        if self._inline:
            return self._inline[-1].look(queue, id)
        return self.client.job(queue, id, wait)

    async def alook(self, queue: str, id: str, wait: float | None) -> JobRecord:
        """The same on asyncio."""
        if self._inline:
            return self._inline[-1].look(queue, id)
        return await self.async_client.job(queue, id, wait)

    # --- running

    def worker(
        self, *, only: str | None = None, except_: str | None = None, **settings: Unpack[WorkerOptions]
    ) -> AppWorker:
        """A worker that runs the tasks declared so far: `app.worker().start()`, `await app.worker().run()`.

        `only` and `except_` are queue lists: whose jobs it takes, and whose not. The settings are those of
        workers.
        """
        from presque.tasks.worker import AppWorker, found_in

        if self.token is not None:
            settings.setdefault("token", self.token)
        return AppWorker(found_in(self), self.base_url, only=only, except_=except_, **settings)

    def inline(self) -> Inline:
        """Run pushes at once, without a server, as long as it lasts: `with app.inline() as ran:`.

        For tests of code that pushes. Arguments and results go through JSON as they do on the way through a
        server. What a task raises is in `ran.outcomes`, and not raised where it was pushed.
        """
        from presque.tasks.inline import Inline

        return Inline(self.tasks, self._inline)


def _is_same(one: Task[Any, Any], other: Task[Any, Any]) -> bool:
    """Whether a task is the other one, declared again: its module was loaded again."""

    def place(task: Task[Any, Any]) -> tuple[Any, ...]:
        function = task.definition.function
        code = getattr(inspect.unwrap(function), "__code__", None)
        return _module(function), _qualified(function), getattr(code, "co_filename", None)

    return place(one) == place(other)


def _checked(function: Any) -> Callable[..., Any]:
    """What was given to be a task, if it can be one. Raises `WrongTask`."""
    if isinstance(function, Task):
        raise WrongTask(f"`{function.name}` is a task already (`@app.cron` goes above `@app.task`)")
    if isinstance(function, str):
        raise WrongTask(
            f'a task is a function, not a text: a queue is said as `@app.task(queue="{shown(function)}")`'
        )
    if isinstance(function, classmethod):
        raise WrongTask(
            "a worker has no class to call a classmethod on: make it a function or a staticmethod"
        )
    if inspect.isclass(function):
        raise WrongTask(
            f"a task is a function, not a class such as `{function.__name__}`: what derives from `Worker`"
            " needs no decorator"
        )
    if not callable(function):
        raise WrongTask(f"a task is a function, not of type `{type(function).__name__}`")
    found: Callable[..., Any] = function
    return found


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether it is declared in a class, and wants its object or its class first."""
    if not inspect.isfunction(function):  # a bound method has its object, and a staticmethod needs none
        return False
    function = inspect.unwrap(function)
    around = function.__qualname__.rpartition(".")[0]
    if not around or around.endswith("<locals>"):
        return False
    return next(iter(inspect.signature(function).parameters), "") in ("self", "cls")


def _module(function: Callable[..., Any]) -> str:
    """The module of a function, by the name under which a worker would import it."""
    inner = function.func if isinstance(function, functools.partial) else function
    name = getattr(inner, "__module__", None) or type(inner).__module__
    if name != "__main__":
        return str(name)
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"


def _qualified(function: Callable[..., Any]) -> str:
    inner = function.func if isinstance(function, functools.partial) else function
    found = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    return str(found).replace("<locals>.", "")


def _is_async(function: Callable[..., Any]) -> bool:
    inner = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    called = getattr(type(inner), "__call__", None)  # noqa: B004  (an object to call)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(called)
