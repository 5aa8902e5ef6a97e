"""Verbs on recurring jobs: define, look, forget."""

from __future__ import annotations

from typing import Any

from presque import codec, names
from presque.commands import params
from presque.commands.jobs import check_job
from presque.commands.times import moment
from presque.engine.cron import Cron, Shown
from presque.engine.engine import Engine
from presque.errors import CallerError
from presque.job import PRIORITY
from presque.schedule import Schedule

NEXT = 5
MISSED = ("skip", "once", "all")
OVERLAP = ("allow", "skip")


class Definition(codec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The body of a PUT. The fields after `overlap` are those of a push."""

    queue: str
    schedule: str
    body: codec.Raw = codec.NOTHING
    timezone: str = "UTC"
    missed: str = "once"
    overlap: str = "allow"
    priority: int | None = None
    ttl: float | None = None
    attempts: int | None = None
    keep: int | None = None
    group: str | None = None


async def put(engine: Engine, name: str, body: bytes) -> tuple[dict[str, Any], bool]:
    """Define a recurring job. Returns it, and whether it is new."""
    asked = codec.decode_request(body, Definition)
    names.queue(asked.queue)
    Schedule(asked.schedule, asked.timezone)
    _one_of("missed", asked.missed, MISSED)
    _one_of("overlap", asked.overlap, OVERLAP)
    job = bytes(asked.body)
    if not job:
        raise CallerError("`body` is missing: it is the job that is pushed each time")
    check_job(job)
    fields = {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for name in ("priority", "ttl", "attempts", "keep", "group")
        if (value := getattr(asked, name)) is not None
    }
    params.push_options(fields)  # for its bounds and its errors
    cron = Cron(
        queue=asked.queue,
        body=codec.text(job),
        schedule=asked.schedule,
        timezone=asked.timezone,
        missed=asked.missed,
        overlap=asked.overlap,
        priority=asked.priority or PRIORITY,
        ttl=asked.ttl,
        attempts=asked.attempts,
        keep=asked.keep,
        group=asked.group,
    )
    new = await engine.crons.put(name, cron)
    return told(await engine.crons.show(name)), new


async def show(engine: Engine, name: str) -> dict[str, Any]:
    """One recurring job, with its next moments and its schedule in words."""
    return told(await engine.crons.show(name))


async def show_all(engine: Engine) -> dict[str, Any]:
    """All recurring jobs, by name."""
    return {"crons": [told(one) for one in await engine.crons.all()]}


async def delete(engine: Engine, name: str) -> None:
    """Forget a recurring job. The jobs that it pushed stay."""
    await engine.crons.remove(name)


def told(shown: Shown) -> dict[str, Any]:
    """A recurring job as the answers show it."""
    cron = shown.cron
    schedule = Schedule(cron.schedule, cron.timezone)
    following = [] if shown.next_at is None else [shown.next_at, *schedule.next(shown.next_at, NEXT - 1)]
    answer: dict[str, Any] = {
        "name": shown.name,
        "queue": cron.queue,
        "body": codec.Raw(cron.body.encode()),
        "schedule": cron.schedule,
        "words": schedule.words(),
        "timezone": cron.timezone,
        "missed": cron.missed,
        "overlap": cron.overlap,
        "next": [schedule.written(one) for one in following],
        "last_fired": None if shown.fired_at is None else moment(shown.fired_at),
    }
    some = {name: getattr(cron, name) for name in ("ttl", "attempts", "keep", "group")}
    if cron.priority != PRIORITY:
        some["priority"] = cron.priority
    return answer | {name: value for name, value in some.items() if value is not None}


def _one_of(name: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise CallerError(f"`{name}` should be {' or '.join(f'`{word}`' for word in words)}")
