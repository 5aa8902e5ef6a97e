"""Which queues share a limit in a worker, and how their jobs run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from presque.tasks.errors import WrongTask
from presque.tasks.options import OF_A_WORKER
from presque.tasks.task import Task

Kind = Literal["threads", "async", "mixed", "fork"]


@dataclass(frozen=True, slots=True)
class Lane:
    """Queues that share one limit, in order of preference. `settings` are what their tasks say of workers."""

    queues: tuple[str, ...]
    kind: Kind
    settings: Mapping[str, Any]
    forks: bool = False
    """Whether some of its tasks fork, where others do not."""


def lanes_of(tasks: Iterable[Task[Any, Any]], queues: Sequence[str]) -> list[Lane]:
    """The lanes for these queues. Those that say nothing about limits share one for each way to run.

    Raises `WrongTask` when tasks of one queue contradict one another.
    """
    by_queue: dict[str, list[Task[Any, Any]]] = {}
    for task in tasks:
        by_queue.setdefault(task.queue, []).append(task)
    own: list[Lane] = []
    shared: dict[Kind, list[str]] = {}
    for queue in queues:
        if queue not in by_queue:
            continue
        settings = _settings(queue, by_queue[queue])
        kind = _kind(by_queue[queue], forks=bool(settings.get("fork")))
        if kind == "mixed" or set(settings) - {"fork"}:
            some = kind == "mixed" and any(task.said.get("fork") for task in by_queue[queue])
            own.append(Lane((queue,), kind, settings, some))
        else:
            shared.setdefault(kind, []).append(queue)
    common = [
        Lane(tuple(names), kind, {"fork": True} if kind == "fork" else {}) for kind, names in shared.items()
    ]
    return [*common, *own]


def _kind(tasks: Sequence[Task[Any, Any]], *, forks: bool) -> Kind:
    if forks:
        return "fork"
    kinds = {task.definition.is_async for task in tasks}
    if len(kinds) == 2 or any(task.said.get("fork") for task in tasks):
        return "mixed"
    return "async" if kinds.pop() else "threads"


def _settings(queue: str, tasks: Sequence[Task[Any, Any]]) -> dict[str, Any]:
    """What the tasks of a queue say of workers, together."""
    found: dict[str, Any] = {}
    for name in OF_A_WORKER:
        said = {task.said[name]: task for task in tasks if task.said.get(name) is not None}
        if name == "fork":
            if all(task.said.get("fork") for task in tasks):
                found["fork"] = True
            continue
        if len(said) > 1:
            (first, one), (second, other), *_ = said.items()
            raise WrongTask(
                f"`{name}` of the queue `{queue}` is {first} for `{one.name}` and {second} for"
                f" `{other.name}`: it holds for the whole queue"
            )
        for value in said:
            found[name] = value
    mixed = any(task.said.get("fork") for task in tasks) and "fork" not in found
    if mixed and {"timeout", "max_memory"} & set(found):
        raise WrongTask(
            f"`timeout` and `max_memory` hold for the whole queue `{queue}`, of which some tasks fork and"
            " others do not: give them queues of their own"
        )
    return found
