"""Verbs that find jobs over many queues: search, failures by the kind of their error."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from presque.commands.call import Call, Reply
from presque.commands.job import told
from presque.commands.queues import EVERYTHING
from presque.commands.times import moment
from presque.commands.who import Who
from presque.engine.finding import Filter, Looked, Place
from presque.errors import NotFound, StoreError
from presque.job import Job
from presque.names import QueueList, is_queue
from presque.verbs.bounds import PAGE, STATES
from presque.verbs.vocabulary import ANY_STATE, FILTER

_ID = re.compile(r"[1-9][0-9]{0,14}\Z").match


async def run_search(call: Call) -> Reply:
    """Jobs that match, the newest of each state first, as far as one answer looks."""
    fields, limit = call.fields, call.get("limit", PAGE)
    wanted = wanted_by(call.who, fields)
    found = await call.engine.finding.search(
        wanted, states_of(fields), filter_of(fields), limit, _place(call)
    )
    jobs = found.jobs
    if "find" in fields and "cursor" not in fields:
        first = await _by_id(call, wanted, fields["find"], limit)
        known = {(job.queue, job.id) for job in first}
        jobs = [*first, *(job for job in jobs if (job.queue, job.id) not in known)]
    return Reply.of({"jobs": [told(job) for job in jobs], **how_far(call, found.looked)})


async def _by_id(call: Call, wanted: QueueList, text: str, limit: int) -> list[Job]:
    """The jobs whose id a text is, or the job that it names as `queue/id`, if the filter lets its state
    through."""
    queue, slash, id = text.rpartition("/")
    if not _ID(id) or (slash and not (is_queue(queue) and wanted.matches(queue))):
        return []
    queues = [queue] if slash else await call.engine.finding.holding(wanted, id, limit)
    found = []
    for one in queues:
        with contextlib.suppress(NotFound, StoreError):
            found.append(await call.engine.jobs.show(one, id))
    return [job for job in found if job.state in states_of(call.fields)]


async def run_failures(call: Call) -> Reply:
    """Errors by their kind, those of most jobs first, as far as one answer looks."""
    state = call.get("state", "dead")
    found, looked = await call.engine.finding.failures(wanted_by(call.who, call.fields), state, _place(call))
    failures = [
        {
            "like": one.kind,
            "error": one.error,
            "count": one.count,
            "first_at": moment(one.first),
            "last_at": moment(one.last),
            "queues": one.queues,
            "more_queues": one.more_queues,
            "sample": {"queue": one.sample[0], "id": one.sample[1]},
        }
        for one in found
    ]
    return Reply.of({"failures": failures, **how_far(call, looked)})


def states_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The states that are asked for; all by default."""
    state = fields.get("state", ANY_STATE)
    return STATES if state == ANY_STATE else (state,)


def filter_of(fields: Mapping[str, Any]) -> Filter:
    """What jobs must be like, as far as a request says it."""
    return {field.name: fields[field.name] for field in FILTER if field.name in fields}


def how_far(call: Call, looked: Looked) -> dict[str, Any]:
    """How far was looked, for an answer."""
    cursor = sealed(call.who, looked)
    about = {"jobs": looked.jobs, "queues": looked.queues}
    return {"looked": about, "spoilt": sorted(set(looked.spoilt)), "cursor": cursor}


def wanted_by(who: Who, fields: Mapping[str, Any]) -> QueueList:
    """The queues to look at: of those asked for, those that the asker may see."""
    return who.within("read", fields.get("queues") or EVERYTHING)


def sealed(who: Who, looked: Looked) -> str | None:
    """Where to go on, as a cursor. It names a queue, so it is sealed."""
    return None if looked.place is None else who.sealed(looked.place.text)


def _place(call: Call) -> Place:
    return Place.of(call.who.opened(call.get("cursor", "")))
