"""Verbs on bulk tasks: begin, look, pause, resume, cancel."""

from __future__ import annotations

import logging
from typing import Any

from presque.commands.call import Call, Reply
from presque.commands.finding import filter_of, how_far, states_of
from presque.commands.job import told_to as told_job
from presque.commands.times import moment
from presque.commands.who import Who, not_allowed
from presque.engine.bulk import missing
from presque.engine.bulk_task import Task, What, shows
from presque.engine.finding import Filter
from presque.errors import CallerError, wrong_cursor
from presque.names import QueueList
from presque.verbs.bounds import PAGE, STATES
from presque.verbs.vocabulary import ANY_STATE

log = logging.getLogger("presque.commands")

SAMPLE = 10
MAY_BE = {"retry": ("dead",), "delete": STATES, "move": ("scheduled", "ready", "done", "dead")}
"""In which states jobs may be to have this done to them."""


async def run_new_task(call: Call) -> Reply:
    """Begin a task, or say what it would find."""
    act, to = call.fields["act"], call.get("to")
    if (act == "move") != (to is not None):
        raise CallerError("`to` says to which queue jobs are moved: give it with `move`, and only then")
    if to is not None:
        call.who.may("push", to)
    states, only = _states(call, act), filter_of(call.fields)
    queues = call.queues
    if shows(act, only):
        call.who.may("read", queues)
        queues = call.who.within("read", queues)
    if call.get("dry_run", False):
        return await _dry_run(call, queues, states, only)
    finding, who = call.engine.finding, call.who
    what = What(
        act=act,
        queues=queues.text,
        states=list(states),
        filter=dict(only),
        to=to,
        rate=call.get("rate"),
        limit=call.get("limit"),
        total=await finding.total(queues, states),
        by=who.id or None,
        name=who.name or None,
        token=who.token is not None,
        layers=_rules(who),
    )
    task = await call.engine.bulk.begin(what)
    log.info("task.began id=%s act=%s queues=%s", task.id, act, queues.text)
    return Reply.of(told(task), headers={"Location": f"/tasks/{task.id}"})


async def _dry_run(call: Call, queues: QueueList, states: tuple[str, ...], only: Filter) -> Reply:
    found = await call.engine.finding.count(queues, states, only, SAMPLE)
    answer = {
        "act": call.fields["act"],
        "queues": call.queues.text,
        "dry_run": True,
        "matched": found.matched,
        "looked": how_far(call, found.looked)["looked"],
        "complete": found.looked.place is None,
        "sample": [told_job(call.who, job) for job in found.jobs],
    }
    return Reply.of(answer, 200)


async def run_tasks(call: Call) -> Reply:
    """A page of the tasks that the caller may see, newest first."""
    before, limit = call.get("cursor", ""), call.get("limit", PAGE)
    if before and not (before.isascii() and before.isdecimal() and len(before) <= 15):
        raise wrong_cursor()
    found = await call.engine.bulk.page(before, limit)
    cursor = found[-1].id if len(found) == limit else None
    return Reply.of({"tasks": [told(one) for one in found if _sees(call.who, one)], "cursor": cursor})


async def run_task(call: Call) -> Reply:
    """One task, and how far it has come."""
    return Reply.of(told(await _known(call)))


async def run_steer_task(call: Call) -> Reply:
    """Pause, resume or cancel a task."""
    task = await _known(call)
    if not _steers(call.who, task):
        raise not_allowed("control", "*")
    word = call.verb.name.removesuffix("_task")
    return Reply.of(told(await call.engine.bulk.steer(task.id, word)))


async def _known(call: Call) -> Task:
    """The task that is asked for. A task that the caller may not see is reported as missing."""
    task = await call.engine.bulk.show(call.fields["task_id"])
    if not _sees(call.who, task):
        raise missing(task.id)
    return task


def _sees(who: Who, task: Task) -> bool:
    """A task names queues and texts of jobs, so it is shown to its maker and to those who see all queues."""
    return who.sees_all or _made(who, task)


def _steers(who: Who, task: Task) -> bool:
    return _made(who, task) or all(layer.allows_all("control") for layer in who.layers)


def _made(who: Who, task: Task) -> bool:
    """Whether they made it: with the same token, narrowed in the same way or not at all."""
    same = bool(who.id) and task.what.by == who.id
    return same and (not who.narrowed or _rules(who) == list(task.what.layers))


def _rules(who: Who) -> list[tuple[list[str] | None, list[str]]]:
    return [
        (None if one.allow is None else list(one.allow.texts), list(one.deny.texts)) for one in who.layers
    ]


def _states(call: Call, act: str) -> tuple[str, ...]:
    """The states that are asked for, as far as this can be done to jobs in them. Raises `CallerError`."""
    may_be = MAY_BE[act]
    if "state" not in call.fields and len(may_be) > 1:
        raise CallerError(f"`state` is missing: say in which state the jobs are, or `{ANY_STATE}`")
    wanted = states_of(call.fields)
    states = tuple(state for state in wanted if state in may_be)
    if not states:
        only = " or ".join(f"`{one}`" for one in may_be)
        raise CallerError(f"`state` should be {only} to {act} jobs, not `{wanted[0]}`")
    return states


def told(task: Task) -> dict[str, Any]:
    """A task as the answers show it."""
    what, how = task.what, task.how
    looked, matched, done, refused = task.counts
    only = {
        name: value / 1000 if name in ("older", "newer") else value for name, value in what.filter.items()
    }
    return {
        "id": task.id,
        "act": what.act,
        "queues": what.queues,
        "state": what.states[0] if len(what.states) == 1 else ANY_STATE,
        "filter": only,
        "to": what.to,
        "rate": what.rate,
        "limit": what.limit,
        "status": task.status,
        "looked": looked,
        "matched": matched,
        "done": done,
        "refused": refused,
        "total": what.total,
        "queue": how.queue,
        "waits": how.waits,
        "problems": list(how.problems),
        "began_at": moment(task.began),
        "ended_at": None if task.ended is None else moment(task.ended),
        "by": what.by,
        "name": what.name,
    }
