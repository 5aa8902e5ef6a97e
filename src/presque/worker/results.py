"""What `work`, a hook or a middleware returned: a result, or the promise of one that nobody has kept.

A coroutine or a generator that is returned has not run yet. Such a job is not done.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import inspect
import itertools
import sys
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
)
from typing import Any, NoReturn

from presque.worker.errors import NotDone

_AWAITS_MOST = 100
_LAZY = frozenset(
    (map, filter, itertools.starmap, itertools.filterfalse, itertools.takewhile, itertools.dropwhile,
     itertools.accumulate, itertools.groupby)
)  # fmt: skip
_CALLABLE = frozenset((FunctionType, MethodType, BuiltinFunctionType, functools.partial))
_CO_ITERABLE_COROUTINE = inspect.CO_ITERABLE_COROUTINE


def ran(result: Any, what: str) -> Any:
    """Return what `what` returned. Raises `NotDone` when the work in it has not been done."""
    kind = type(result)
    if result is None or kind is dict or kind is str or kind is bool or kind is int or kind is list:
        return result
    said = _not_run(result)
    if said is None:
        return result
    if issubclass(kind, CoroutineType | GeneratorType):
        with contextlib.suppress(BaseException):
            result.close()  # it has not begun, so none of its code runs
    raise NotDone(f"`{what}` returned {said}")


async def awaited(result: Any, what: str) -> Any:
    """The same in an async worker: what can be awaited is awaited, also what that returns."""
    for _ in range(_AWAITS_MOST):
        if result is None or not _is_awaitable(result):
            break
        result = await result
    return ran(result, what)


def is_async(function: Any) -> bool:
    """Whether a callable is `async def` at any depth: a method, a partial, an object, or decorated."""
    return any(
        inspect.iscoroutinefunction(one) or _code_flags(one) & _CO_ITERABLE_COROUTINE
        for one in layers(function)
    )


def yields(function: Any) -> bool:
    """Whether calling it returns a generator, which does nothing by itself."""
    last = None
    for one in layers(function, unwrap=False):
        last = one
    if last is None or _code_flags(last) & _CO_ITERABLE_COROUTINE:
        return False
    return inspect.isgeneratorfunction(last) or inspect.isasyncgenfunction(last)


def layers(function: Any, *, unwrap: bool = True) -> list[Any]:
    """A callable and what it calls, from the outermost to the innermost."""
    found: list[Any] = []
    while function is not None and len(found) < _AWAITS_MOST:
        found.append(function)
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif unwrap and _attribute(function, "__wrapped__") is not None:
            function = _attribute(function, "__wrapped__")
        elif inspect.isroutine(function) or inspect.isclass(function):
            break
        else:
            function = _attribute(type(function), "__call__")
    return found


def _attribute(found: Any, name: str) -> Any:
    try:
        return getattr(found, name, None)
    except Exception:  # noqa: BLE001  (an object with properties of its own)
        return None


def _code_flags(function: Any) -> int:
    flags = _attribute(_attribute(function, "__code__"), "co_flags")
    return flags if isinstance(flags, int) else 0


def _is_awaitable(result: Any) -> bool:
    try:
        return inspect.isawaitable(result)
    except BaseException:  # noqa: BLE001  (its `__class__` raises)
        return False


def inside(value: Any) -> NoReturn:
    """What a result holds that is not JSON, for `json.dumps`. Raises `NotDone` for work that has not run."""
    held = list(value) if type(value) in (set, frozenset) else [value]
    for one in held:
        if (said := _not_run(one)) is not None:
            for other in held:
                if issubclass(type(other), CoroutineType | GeneratorType):
                    with contextlib.suppress(BaseException):
                        other.close()
            if issubclass(type(one), CoroutineType):
                said = "coroutines that nobody awaited: await them, with `asyncio.gather` for instance"
            raise NotDone(f"`work` returned a value with {said}")
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _not_run(result: Any) -> str | None:
    kind = type(result)  # and not `isinstance`: `__class__` may be a property that raises
    if issubclass(kind, CoroutineType):
        return "a coroutine that nobody awaited: write `async def work`"
    if issubclass(kind, GeneratorType | AsyncGeneratorType):
        return "a generator, so none of its code ran: do the work without `yield`"
    if kind in _LAZY:
        return f"a `{kind.__name__}`, so none of its calls were made: use a loop"
    if kind in _CALLABLE:
        return "a function that nobody called: call it, or look at the decorators of `work`"
    if issubclass(kind, concurrent.futures.Future):
        return "a future: wait for its `result()`"
    if issubclass(kind, contextlib._GeneratorContextManagerBase):  # noqa: SLF001  (there is no public one)
        return "a context manager that nobody entered, so none of its code ran: use `with`"
    pool = sys.modules.get("multiprocessing.pool")
    if pool is not None and issubclass(kind, pool.AsyncResult):
        return "a result that a pool has not yet: wait for it with `get()`"
    if _is_awaitable(result):
        return "something that nobody awaited: write `async def work`"
    return None
