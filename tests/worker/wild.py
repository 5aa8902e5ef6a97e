"""Workers whose jobs misbehave, for the tests: `presque worker tests.worker.wild:Wild`.

A job is the name of a function below, or `{"do": name, …}`. `Wild` calls it, `WildAsync` does so in a
coroutine, and awaits what it returns.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

from presque import Dead, Retry, Worker
from presque.worker import Job
from tests.worker.jobs import note

JOBS: dict[str, Callable[[Any], Any]] = {}


def job(function: Callable[..., Any]) -> Callable[..., Any]:
    """Something that a job may do."""
    JOBS[function.__name__] = function
    return function


class Wild(Worker):
    """Does what the job says, whatever it is."""

    def work(self, job: Any) -> Any:
        name = job["do"] if isinstance(job, dict) else job
        note("began", id=self.job.id, do=name)
        result = JOBS[name](job)
        note("ended", id=self.job.id, do=name)
        return result

    def fail(self, job: Any, error: BaseException) -> None:
        note("failed", id=self.job.id, kind=type(error).__name__)
        name = job["do"] if isinstance(job, dict) else job
        if name == "fail_exits":
            sys.exit(3)
        if name == "fail_interrupts":
            raise KeyboardInterrupt


class WildAsync(Wild):
    """The same in a coroutine."""

    async def work(self, job: Any) -> Any:
        name = job["do"] if isinstance(job, dict) else job
        note("began", id=self.job.id, do=name)
        result = JOBS[name](job)
        if issubclass(type(result), types.CoroutineType):
            result = await result
        await asyncio.sleep(0)
        note("ended", id=self.job.id, do=name)
        return result


# --- exceptions that are hard to print


@job
def fine(job: Any) -> Any:
    return job.get("return") if isinstance(job, dict) else None


def raising(name: str, make: Callable[[], BaseException]) -> None:
    def run(_job: Any) -> None:
        raise make()

    JOBS[name] = run


def kind(**members: Any) -> BaseException:
    return type("Odd", (Exception,), members)("odd")  # type: ignore[no-any-return]


def explode(*_: Any) -> Any:
    raise RuntimeError("from inside of the exception")


raising("str_none", lambda: kind(__str__=lambda _: None))
raising("str_int", lambda: kind(__str__=lambda _: 404))
raising("str_raises", lambda: kind(__str__=explode, __repr__=explode))
raising("str_exits", lambda: kind(__str__=lambda _: sys.exit(9)))
raising("class_raises", lambda: kind(__class__=property(explode)))
raising("module_none", lambda: kind(__module__=None))
raising("notes_odd", lambda: kind(__notes__=property(explode)))
raising("traceback_odd", lambda: kind(__traceback__=property(explode), __cause__=property(explode)))
raising("huge", lambda: ValueError("é" * 1_400_000))
raising("surrogate", lambda: ValueError("half \ud800"))
raising("exits", lambda: SystemExit(3))
raising("exits_odd", lambda: SystemExit(kind(__str__=explode)))
raising("interrupts", lambda: KeyboardInterrupt())
raising("generator_exit", lambda: GeneratorExit())
raising("stop_iteration", lambda: StopIteration(1))
raising("cancelled", lambda: asyncio.CancelledError())
raising("recursion", lambda: deep())
raising("memory", lambda: MemoryError())
raising("base", lambda: type("Base", (BaseException,), {})("bare"))
raising("fail_exits", lambda: ValueError("then fail exits"))
raising("fail_interrupts", lambda: ValueError("then fail is interrupted"))
raising("dead_huge", lambda: Dead("x" * 1_400_000))
raising("retry_huge", lambda: Retry("x" * 1_400_000, in_=3600))
raising("dead_in_a_group", lambda: ExceptionGroup("several", [Dead("no such user")]))
raising(
    "dead_deep_in_groups",
    lambda: BaseExceptionGroup("several", [ExceptionGroup("inner", [Dead("no such user")]), SystemExit(1)]),
)
raising("retry_in_a_group", lambda: ExceptionGroup("several", [Retry("busy", in_=3600)]))
raising("group", lambda: ExceptionGroup("several", [ValueError("the first"), KeyError("the second")]))


class Careless(Retry):
    """Forgot to call what it overrides."""

    def __init__(self) -> None:
        self.args = ("careless",)


raising("retry_careless", Careless)


def deep() -> BaseException:
    try:
        return deep()
    except RecursionError as error:
        return error


# --- results that are odd


class Items(dict[str, Any]):
    """A dictionary that cannot be gone through."""

    def items(self) -> Any:
        raise RuntimeError("no items")


class Exits(dict[str, Any]):
    """Worse."""

    def items(self) -> Any:
        sys.exit(4)


JOBS["result_items"] = lambda _: Items(a=1)
JOBS["result_exits"] = lambda _: Exits(a=1)
JOBS["result_set"] = lambda _: {1, 2}
JOBS["result_huge"] = lambda _: "x" * 200_000
JOBS["result_surrogate"] = lambda _: "\ud800"
JOBS["result_nan"] = lambda _: float("nan")
JOBS["result_class_raises"] = lambda _: type("Odd", (), {"__class__": property(explode)})()


# --- what has not run


async def later() -> None:
    note("ran")


JOBS["returns_a_coroutine"] = lambda _: later()
JOBS["returns_a_generator"] = lambda _: (note(what) for what in ["ran"])  # type: ignore[func-returns-value]
JOBS["returns_a_map"] = lambda _: map(note, ["ran"])


def undecorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that forgot `functools.wraps`."""

    def run(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return run


class Decorated(Worker):
    @undecorated
    async def work(self, job: Any) -> None:
        note("ran")


class Forgotten(Worker):
    async def work(self, job: Any) -> Any:
        return later()


class CallableObject:
    async def __call__(self, job: Any) -> None:
        note("ran")


class OfAnObject(Worker):
    work = CallableObject()


class OfAPartial(Worker):
    work = functools.partial(CallableObject().__call__)


class HookedAsync(Worker):
    async def before_work(self, job: Job) -> None:
        note("before_work")

    async def after_work(self, job: Job, result: Any) -> None:
        note("after_work", result=result)

    async def work(self, job: Any) -> Any:
        if job == "raise":
            raise ValueError("no")
        return job

    async def fail(self, job: Any, error: BaseException) -> None:
        await asyncio.sleep(0)
        note("failed", kind=type(error).__name__)


async def around(_job: Job, call_next: Callable[[], Any]) -> Any:
    return call_next()


class Yields(Worker):
    def work(self, job: Any) -> Any:
        yield job


class AsyncYields(Worker):
    async def work(self, job: Any) -> Any:
        yield job


class SyncWithAsyncHook(Worker):
    async def before_work(self, job: Job) -> None: ...

    def work(self, job: Any) -> None: ...


class SyncWithAsyncFail(Worker):
    def work(self, job: Any) -> None: ...

    async def fail(self, job: Any, error: BaseException) -> None: ...


class SyncWithAsyncMiddleware(Worker):
    middleware = (around,)

    def work(self, job: Any) -> None: ...
