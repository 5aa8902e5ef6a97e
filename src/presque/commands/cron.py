"""Verbs on recurring jobs: define, look, run now, pause, resume, forget."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from presque import codec, names, schedule
from presque.commands import params
from presque.commands.jobs import check_job
from presque.commands.times import moment
from presque.engine.crons import MISSED, OVERLAP, Cron, Shown
from presque.engine.engine import Engine
from presque.errors import CallerError
from presque.job import PRIORITY

NEXT = 5
LIMIT = 100
LIMIT_MOST = 500
TOLD_AT_ONCE = 10


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
    schedule.read(asked.schedule, asked.timezone)
    _one_of("missed", asked.missed, MISSED)
    _one_of("overlap", asked.overlap, OVERLAP)
    job = bytes(asked.body)
    if not job:
        raise CallerError("`body` is missing: it is the job that is pushed each time")
    check_job(job)
    fields = {
        name: str(value)
        for name in ("priority", "ttl", "attempts", "keep", "group")
        if (value := getattr(asked, name)) is not None
    }
    options = params.push_options(fields)
    cron = Cron(
        queue=asked.queue,
        schedule=asked.schedule,
        timezone=asked.timezone,
        missed=asked.missed,
        overlap=asked.overlap,
        priority=options.priority,
        ttl=options.ttl,
        attempts=options.attempts,
        keep=options.keep,
        group=options.group,
    )
    new = await engine.crons.put(name, cron, job)
    return told(await engine.crons.show(name)), new


async def show(engine: Engine, name: str) -> dict[str, Any]:
    """One recurring job, with its next moments and its schedule in words."""
    return told(await engine.crons.show(name))


async def page(engine: Engine, fields: Mapping[str, str]) -> dict[str, Any]:
    """Recurring jobs by name, a page of them, and a cursor when there are more."""
    params.only(fields, ("limit", "cursor"))
    limit = params.whole(fields, "limit", 1, LIMIT_MOST) or LIMIT
    after = fields.get("cursor", "")
    found, more = await engine.crons.page(names.queue(after, "recurring job") if after else "", limit)
    crons = []
    for number, one in enumerate(found, 1):
        crons.append(told(one))
        if number % TOLD_AT_ONCE == 0:
            await asyncio.sleep(0)
    return {"crons": crons, "cursor": found[-1].name if more else None}


async def run(engine: Engine, name: str) -> dict[str, Any]:
    """Push the job of a recurring job now. Its moments stay as they are."""
    queue, job = await engine.crons.fire(name)
    return {"id": str(job), "queue": queue, "name": name}


async def pause(engine: Engine, name: str) -> dict[str, Any]:
    """Push no more of a recurring job until it is resumed. Returns it as it is then."""
    return told(await engine.crons.pause(name))


async def resume(engine: Engine, name: str) -> dict[str, Any]:
    """Go on with a recurring job, from its next moment on. Returns it as it is then."""
    return told(await engine.crons.resume(name))


async def delete(engine: Engine, name: str) -> None:
    """Forget a recurring job. The jobs that it pushed stay."""
    await engine.crons.remove(name)


def told(shown: Shown) -> dict[str, Any]:
    """A recurring job as the answers show it. One that is broken has null for what cannot be read."""
    cron, wanted = shown.cron, shown.schedule
    following: list[int] = []
    if shown.next_at is not None and wanted is not None:
        following = [shown.next_at, *wanted.next(shown.next_at, NEXT - 1)]
    answer: dict[str, Any] = {
        "name": shown.name,
        "queue": cron and cron.queue,
        "body": codec.Raw(shown.body) if shown.body else None,
        "schedule": cron and cron.schedule,
        "words": wanted and wanted.words(),
        "timezone": cron and cron.timezone,
        "missed": cron and cron.missed,
        "overlap": cron and cron.overlap,
        "next": [wanted.written(one) for one in following] if wanted is not None else [],
        "last_fired": None if shown.fired_at is None else moment(shown.fired_at),
        "paused": shown.paused_at is not None,
        "broken": shown.broken,
    }
    if cron is None:
        return answer
    some = {
        "priority": None if cron.priority == PRIORITY else cron.priority,
        "ttl": None if cron.ttl is None else _seconds(cron.ttl),
        "attempts": cron.attempts,
        "keep": cron.keep,
        "group": cron.group,
    }
    return answer | {name: value for name, value in some.items() if value is not None}


def _seconds(milliseconds: int) -> float:
    return milliseconds / 1000 if milliseconds % 1000 else milliseconds // 1000


def _one_of(name: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise CallerError(f"`{name}` should be {' or '.join(f'`{word}`' for word in words)}")
