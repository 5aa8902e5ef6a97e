"""A task: a Python function whose calls can be pushed as jobs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar, Unpack

from presque.client.json_values import encoded
from presque.tasks import body, options
from presque.tasks.errors import WrongTask
from presque.tasks.options import PushOptions
from presque.tasks.plain import Encode
from presque.tasks.pushed import Asking, Pushed
from presque.tasks.signature import Signature

P = ParamSpec("P")
R = TypeVar("R")

MANY_MOST = 1000
MANY_BYTES = 512 * 1024
"""Jobs, and bytes of them, that go in one request."""


_ELSEWHERE = {
    **dict.fromkeys(("delay", "send", "enqueue", "defer", "kiq", "s", "si", "message"), "push(…)"),
    **dict.fromkeys(
        ("apply_async", "send_with_options", "schedule", "enqueue_in", "enqueue_at", "message_with_options"),
        'options(delay="5m").push(…)',
    ),
    **dict.fromkeys(("map", "starmap", "chunks"), "push.many(…)"),
}
"""What RQ, Celery, Dramatiq, huey and arq have, and how it is called here."""


class Sending(Asking, Protocol):
    """Pushes jobs: what an App offers."""

    def send(self, queue: str, value: Mapping[str, Any], options: Mapping[str, Any]) -> str:
        """Push a job and return its id."""

    async def asend(self, queue: str, value: Mapping[str, Any], options: Mapping[str, Any]) -> str:
        """The same on asyncio."""

    def send_many(
        self, queue: str, values: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> list[str]:
        """Push jobs and return their ids."""

    async def asend_many(
        self, queue: str, values: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> list[str]:
        """The same on asyncio."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a task is, whatever is said about a single push of it."""

    name: str
    version: int
    aliases: tuple[str, ...]
    function: Callable[..., Any]
    is_async: bool
    module: str
    signature: Signature
    encode: Encode | None
    app: Sending


class Arguments(Generic[P]):
    """The arguments of one call, for `push.many`: made by `task.arguments(…)`."""

    __slots__ = ("args", "kwargs")

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs


class Push(Generic[P, R]):
    """`task.push(…)` and `task.push.many(…)`."""

    __slots__ = ("_task",)

    def __init__(self, task: Task[P, R]) -> None:
        self._task = task

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Pushed[R]:
        """Push a call of the task. When this returns, the server has stored it.

        Raises `TypeError` or `ValueError` when the arguments do not fit the signature, or cannot be said in
        JSON, and a `ClientError` when the server refuses or is not reached.
        """
        task = self._task
        value, given = task.job(args, kwargs)
        return task.pushed(task.app.send(task.queue, value, given))

    def many(self, calls: Iterable[Arguments[P] | tuple[Any, ...] | Mapping[str, Any]]) -> list[Pushed[R]]:
        """Push many calls: each `task.arguments(…)`, a tuple of arguments, or a mapping of named ones.

        They go in requests of up to 1000, each of which stores all of its jobs or none. Nothing is sent if
        the arguments of one do not fit. Type checkers find a wrong one in `task.arguments(…)` alone.
        """
        task = self._task
        ids: list[str] = []
        for values, given in task.batches(calls):
            ids += task.app.send_many(task.queue, values, given)
        return [task.pushed(id) for id in ids]


class AsyncPush(Generic[P, R]):
    """`await task.apush(…)` and `await task.apush.many(…)`: the same on asyncio."""

    __slots__ = ("_task",)

    def __init__(self, task: Task[P, R]) -> None:
        self._task = task

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Pushed[R]:
        """Push a call of the task: see `push`."""
        task = self._task
        value, given = task.job(args, kwargs)
        return task.pushed(await task.app.asend(task.queue, value, given))

    async def many(
        self, calls: Iterable[Arguments[P] | tuple[Any, ...] | Mapping[str, Any]]
    ) -> list[Pushed[R]]:
        """Push many calls: see `push.many`."""
        task = self._task
        ids: list[str] = []
        for values, given in task.batches(calls):
            ids += await task.app.asend_many(task.queue, values, given)
        return [task.pushed(id) for id in ids]


class Task(Generic[P, R]):
    """A function whose calls can be pushed. `R` is what it returns, or what is awaited of it.

    `push(…)` takes the arguments of the function and pushes a job, `apush(…)` does so on asyncio,
    `options(…)` says more about a push, and a plain call calls the function.
    """

    def __init__(self, definition: Definition, said: Mapping[str, Any]) -> None:
        self.definition = definition
        self.said = said
        self.push: Push[P, R] = Push(self)
        self.apush: AsyncPush[P, R] = AsyncPush(self)
        self.__name__ = getattr(definition.function, "__name__", definition.name)
        self.__qualname__ = getattr(definition.function, "__qualname__", self.__name__)
        self.__doc__ = definition.function.__doc__
        self.__module__ = definition.module
        self.__wrapped__ = definition.function

    if not TYPE_CHECKING:  # or type checkers would take any name

        def __getattr__(self, name: str) -> Any:
            hint = _ELSEWHERE.get(name)
            said = "" if hint is None else f": here it is `{self.__dict__.get('__name__', 'task')}.{hint}`"
            raise AttributeError(f"a task has no `{name}`{said}")

    def __repr__(self) -> str:
        version = "" if self.definition.version == 1 else f", version {self.definition.version}"
        return f"<Task {self.name}{version}>"

    def __reduce__(self) -> str:
        """As a function is copied and pickled: as itself, by its name, as for a pool of processes."""
        return self.__qualname__

    @property
    def name(self) -> str:
        """The name by which its jobs call it."""
        return self.definition.name

    @property
    def queue(self) -> str:
        """The queue of its jobs."""
        queue: str = self.said["queue"]
        return queue

    @property
    def app(self) -> Sending:
        """The App that it belongs to."""
        return self.definition.app

    def options(self, **said: Unpack[PushOptions]) -> Self:
        """The same task with these options for its pushes: `send.options(delay="5m").push(…)`. They go before
        its own. Raises `WrongTask`."""
        for one in said:
            if one in options.OF_A_WORKER:
                raise WrongTask(f"`{self.name}`: `{one}` is for workers, say it in `@app.task({one}=…)`")
        options.check(self.name, {**self.said, **said}, (*options.OF_A_PUSH, *options.OF_A_WORKER))
        return type(self)(self.definition, {**self.said, **said})

    def arguments(self, /, *args: P.args, **kwargs: P.kwargs) -> Arguments[P]:
        """The arguments of one call, for `push.many`. Raises `TypeError` if they do not fit."""
        self.definition.signature.check(args, kwargs)
        return Arguments(args, kwargs)

    def body(self, /, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """The body of the job that a push with these arguments would make."""
        return self.job(args, kwargs)[0]

    # --- for pushes

    def job(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The body of a job, and the options of its push."""
        one = self.definition
        said_args, said_kwargs = one.signature.encoded(args, kwargs)
        value = body.written(one.name, one.version, said_args, said_kwargs)
        given = {name: what for name, what in self.said.items() if name not in options.OF_A_WORKER}
        return value, options.of_push(one.name, given, args, kwargs, value)

    def batches(
        self, calls: Iterable[Arguments[P] | tuple[Any, ...] | Mapping[str, Any]]
    ) -> list[tuple[list[dict[str, Any]], dict[str, Any]]]:
        """The bodies of many jobs, in portions that go in one request, each with the options of its push."""
        found: list[tuple[list[dict[str, Any]], dict[str, Any]]] = []
        size = 0
        for call in calls:
            value, given = self.job(*_arguments(call))
            if "uniq" in given:
                raise TypeError(f"`{self.name}` has unique jobs: push them one by one")
            length = len(encoded(value))
            last = found[-1] if found else None
            if last is None or last[1] != given or len(last[0]) == MANY_MOST or size + length > MANY_BYTES:
                found.append(([], given))
                size = 0
            found[-1][0].append(value)
            size += length
        return found

    def pushed(self, id: str) -> Pushed[R]:
        """What a push that got this id returns."""
        one = self.definition
        return Pushed(self.queue, id, one.app, one.signature)


class PlainTask(Task[P, R]):
    """A task that is an ordinary function."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now."""
        result: R = self.definition.function(*args, **kwargs)
        return result


class AsyncTask(Task[P, R]):
    """A task that is an `async def`."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function: a coroutine to be awaited."""
        coroutine: Coroutine[Any, Any, R] = self.definition.function(*args, **kwargs)
        return coroutine


def _arguments(
    call: Arguments[Any] | tuple[Any, ...] | Mapping[str, Any],
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if isinstance(call, Arguments):
        return call.args, call.kwargs
    if isinstance(call, tuple):
        return call, {}
    if isinstance(call, Mapping):
        return (), call
    raise TypeError(
        "a call is `task.arguments(…)`, a tuple of arguments or a mapping of named ones, not a"
        f" `{type(call).__name__}`"
    )
