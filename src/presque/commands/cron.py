"""Verbs on recurring jobs: define, look, run now, pause, resume, forget."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from presque import codec, names, schedule
from presque.commands.call import Call, Reply
from presque.commands.jobs import check_job
from presque.commands.times import LAST_MS, moment
from presque.commands.who import Who, not_allowed
from presque.engine.recurring import Cron, Outcome, Shown, missing
from presque.errors import NotFound, NotPermitted
from presque.verbs.bounds import PAGE, PRIORITY

NEXT = 5
TOLD_AT_ONCE = 10


async def run_put_cron(call: Call) -> Reply:
    """Define a recurring job."""
    text, zone = call.fields["schedule"], call.get("timezone", "UTC")
    schedule.read(text, zone)
    job, keep = call.fields["body"], call.get("keep")
    check_job(job)
    cron = Cron(
        queue=call.queue,
        schedule=text,
        timezone=zone,
        missed=call.get("missed", "once"),
        overlap=call.get("overlap", "allow"),
        priority=call.get("priority", PRIORITY),
        ttl=call.get("ttl"),
        attempts=call.get("attempts"),
        keep=None if keep is None else -(-keep // 1000),
        group=call.get("group"),
    )
    await _allow(call, new=True)
    new = await call.engine.crons.put(call.name, cron, job)
    shown = await call.engine.crons.show(call.name)
    if not _sees(call.who, shown):
        shown = replace(shown, outcome=None)
    return Reply.of(told(shown), 201 if new else 200)


async def run_cron(call: Call) -> Reply:
    """One recurring job, with its next moments and its schedule in words."""
    await _allow(call)
    return Reply.of(told(await call.engine.crons.show(call.name)))


async def run_crons(call: Call) -> Reply:
    """Recurring jobs by name, a page of them, and a cursor when there are more."""
    after = call.who.opened(call.get("cursor", ""))
    if after:
        names.queue(after, "recurring job")
    found, more = await call.engine.crons.page(after, call.get("limit", PAGE))
    crons = []
    for number, one in enumerate(found, 1):
        if _sees(call.who, one):
            crons.append(told(one))
        if number % TOLD_AT_ONCE == 0:
            await asyncio.sleep(0)
    return Reply.of({"crons": crons, "cursor": call.who.sealed(found[-1].name) if more else None})


async def run_run_cron(call: Call) -> Reply:
    """Push the job of a recurring job now. Its moments stay as they are."""
    await _allow(call)
    queue, job = await call.engine.crons.fire(call.name)
    answer = {"id": str(job), "queue": queue, "name": call.name}
    return Reply.of(answer, headers={"Location": f"/j/{queue}/{job}"})


async def run_pause_cron(call: Call) -> Reply:
    """Pause a recurring job until it is resumed."""
    await _allow(call)
    return Reply.of(_told_to(call.who, await call.engine.crons.pause(call.name)))


async def run_resume_cron(call: Call) -> Reply:
    """Resume a recurring job, from its next moment on."""
    await _allow(call)
    return Reply.of(_told_to(call.who, await call.engine.crons.resume(call.name)))


async def run_delete_cron(call: Call) -> Reply:
    """Forget a recurring job. The jobs that it pushed stay."""
    await _allow(call)
    await call.engine.crons.remove(call.name)
    return Reply.of({"name": call.name, "deleted": True})


async def _allow(call: Call, *, new: bool = False) -> None:
    """Whether the asker may do this to the recurring job as it is: its queue counts. One that they may not
    see is as if it were not there, except that its name is taken. Raises `NotFound`, or the refusal."""
    if not call.who.layers:
        return
    try:
        found = await call.engine.crons.show(call.name)
    except NotFound:
        if new:
            return
        raise
    scope, who = call.verb.scope, call.who
    queue = None if found.cron is None else found.cron.queue
    if all(layer.allows_all(scope) for layer in who.layers) if queue is None else who.allows(scope, queue):
        return
    if not _sees(who, found):
        if new:
            raise NotPermitted(
                "a recurring job of this name is for a queue that this access token may not see"
            )
        raise missing(call.name)
    raise not_allowed(scope, queue or "*")


def _sees(who: Who, shown: Shown) -> bool:
    return who.sees_all if shown.cron is None else who.sees(shown.cron.queue)


def _told_to(who: Who, shown: Shown) -> dict[str, Any]:
    """The same for who may control it, without body and outcome if they may not read its queue."""
    return told(shown if _sees(who, shown) else replace(shown, body=b"", outcome=None))


def told(shown: Shown) -> dict[str, Any]:
    """A recurring job as the answers show it. One that is broken has null for what cannot be read."""
    cron, wanted = shown.cron, shown.schedule
    following: list[int] = []
    if shown.next_at is not None and wanted is not None:
        moments = (shown.next_at, *wanted.next(shown.next_at, NEXT - 1))
        following = [one for one in moments if one <= LAST_MS]
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
        "last_outcome": _outcome(shown.outcome),
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


def _outcome(found: Outcome | None) -> dict[str, str] | None:
    if found is None:
        return None
    told = {"outcome": found.word, "id": found.id, "at": moment(found.at)}
    return told | {"error": found.error} if found.error else told


def _seconds(milliseconds: int) -> float:
    return milliseconds / 1000 if milliseconds % 1000 else milliseconds // 1000
