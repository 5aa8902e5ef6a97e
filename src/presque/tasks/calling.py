"""How a worker does the jobs of tasks: finds the task, reads the arguments, calls, writes the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from presque.errors import nearest, shown
from presque.tasks import body
from presque.tasks.body import NoTask
from presque.tasks.errors import WrongTask
from presque.tasks.plain import Encode, plain
from presque.tasks.task import Task
from presque.worker.errors import Dead
from presque.worker.job import Job


class Handlers:
    """The tasks of a worker, by the names and versions that jobs call them by."""

    def __init__(self, tasks: Iterable[Task[Any, Any]]) -> None:
        self._tasks: dict[tuple[str, int], Task[Any, Any]] = {}
        for task in tasks:
            one = task.definition
            one.signature.resolve()
            for name in (one.name, *one.aliases):
                before = self._tasks.setdefault((name, one.version), task)
                if before.definition is not one:
                    raise WrongTask(f"two tasks are called `{name}`: {_place(before)} and {_place(task)}")

    def is_async(self, job: Job) -> bool:
        """Whether the task of a job is async. One that is not known is not."""
        task = self._task_of(job)
        return task is not None and task.definition.is_async

    def forks(self, job: Job) -> bool:
        """Whether the task of a job forks."""
        task = self._task_of(job)
        return task is not None and bool(task.said.get("fork"))

    def _task_of(self, job: Job) -> Task[Any, Any] | None:
        value = job.value
        if type(value) is not dict:
            return None
        try:
            return self._tasks.get((value["task"], value.get("version", 1)))
        except (KeyError, TypeError):
            return None

    def call(self, job: Job) -> Any:
        """Do a job: its result, or an awaitable of it if the task is async. Raises `Dead` for no task."""
        task, args, kwargs = self._read(job.value)
        one = task.definition
        if one.is_async:
            return _awaited(one.function, args, kwargs, one.encode)
        return said(one.function(*args, **kwargs), one.encode)

    def _read(self, value: Any) -> tuple[Task[Any, Any], Any, Mapping[str, Any]]:
        try:
            call = body.read(value)
        except NoTask as error:
            raise Dead(str(error)) from None
        task = self._tasks.get((call.name, call.version))
        if task is None:
            raise Dead(self._unknown(call))
        try:
            args, kwargs = task.definition.signature.decoded(call.args, call.kwargs)
        except (TypeError, ValueError) as error:
            raise Dead(f"the job does not fit the task: {error}") from None
        return task, args, kwargs

    def _unknown(self, call: body.Call) -> str:
        versions = sorted(version for name, version in self._tasks if name == call.name)
        if versions:
            known = ", ".join(map(str, versions))
            return (
                f"this worker has no version {call.version} of the task `{call.name}`, only {known}: run one"
                " that has it, and retry the job"
            )
        names = sorted({name for name, _ in self._tasks})
        last = call.name.rpartition(".")[2]
        moved = [name for name in names if name.rpartition(".")[2] == last]
        hint = f"is it `{moved[0]}` now?" if moved else nearest(call.name, names)
        return (
            f"this worker has no task `{shown(call.name)}`, {hint}; a task that was renamed does the jobs of"
            f' its old name with `aliases=["{shown(call.name)}"]`'
        )


async def _awaited(function: Any, args: Any, kwargs: Mapping[str, Any], encode: Encode | None) -> Any:
    return said(await function(*args, **kwargs), encode)


def said(result: Any, encode: Encode | None) -> Any:
    """A result as JSON can say it. One that it cannot is left as it is, for the worker to drop."""
    if result is None:
        return None
    try:
        return plain(result, encode)
    except (TypeError, ValueError):
        return result


def _place(task: Task[Any, Any]) -> str:
    function = task.definition.function
    return f"{task.definition.module}.{getattr(function, '__qualname__', function)}"
