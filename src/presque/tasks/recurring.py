"""Recurring jobs that the code declares: `@app.cron("0 3 * * *")`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from presque import names
from presque.client.call import seconds_of
from presque.client.options import Duration
from presque.errors import InvalidName, nearest
from presque.quantities import quoted
from presque.tasks import body, options
from presque.tasks.errors import WrongTask
from presque.tasks.task import Task

OF_A_CRON = ("priority", "ttl", "attempts", "keep", "group")


class CronOptions(TypedDict, total=False):
    """Options of a recurring job: see the protocol."""

    timezone: str
    missed: Literal["once", "all", "skip"]
    overlap: Literal["allow", "skip"]


@dataclass(frozen=True, slots=True)
class Recurring:
    """A recurring job that the code declares."""

    name: str
    task: Task[Any, Any]
    schedule: str
    body: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def module(self) -> str:
        """Where it is declared."""
        module: str = self.body["cron"]
        return module


def declared(
    task: Task[Any, Any],
    schedule: str | None,
    *,
    every: Duration | None,
    name: str | None,
    kwargs: Mapping[str, Any],
    said: Mapping[str, Any],
) -> Recurring:
    """A recurring job of a task. Raises `WrongTask` with a sentence."""
    called = task.name if name is None else name
    try:
        names.queue(called, "recurring job")
    except InvalidName as error:
        raise WrongTask(f"{error}: give it a `name`") from None
    if (schedule is None) == (every is None):
        raise WrongTask(f'`{called}`: give a schedule such as "0 3 * * *", or `every` such as "5m"')
    try:
        words = _every(every) if schedule is None else _expression(schedule)
        _check_zone(said.get("timezone"))
        value = task.body(**kwargs)
    except (TypeError, ValueError) as error:
        raise WrongTask(f"`{called}`: {error}") from None
    one = task.definition
    value = body.written(one.name, one.version, value["args"], value["kwargs"], cron=one.module)
    given = {what: task.said[what] for what in OF_A_CRON if task.said.get(what) is not None}
    if callable(given.get("group")):
        raise WrongTask(f"`{called}`: the `group` of a recurring job is a text")
    options.check(called, {**given, "queue": task.queue}, options.OF_A_PUSH)
    return Recurring(called, task, words, value, {**given, **said})


def _every(every: Duration | None) -> str:
    seconds = seconds_of("every", every) or 0.0
    if seconds < 1 or seconds % 1:
        raise ValueError(f"`every` should be whole seconds, 1 or more, not {quoted(every)}")
    return f"@every {seconds:.0f}s"


def _expression(schedule: str) -> str:
    """The server reads it, with all its rules, when a worker starts. This is what one can see without."""
    if type(schedule) is not str:
        raise ValueError(f'a schedule should be a text such as "0 3 * * *", not {quoted(schedule)}')
    if not schedule.startswith("@") and len(schedule.split()) not in (5, 6):
        raise ValueError(
            "a schedule has five fields, which are minute, hour, day, month and weekday,"
            f" as in `0 3 * * *`, not {quoted(schedule)}"
        )
    return schedule


def _check_zone(name: str | None) -> None:
    """Raise `ValueError` for a time zone that is not among those that this machine knows, if it knows any."""
    if name is None:
        return
    import zoneinfo  # which a program that only pushes starts without

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        if known:
            raise ValueError(f"unknown time zone {quoted(name)}, {nearest(name, sorted(known))}") from None
