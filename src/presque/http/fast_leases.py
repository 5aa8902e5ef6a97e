"""The hot path of leases: lease, and settle one. fast.py cuts the requests; app.py has the same routes.

An answer with jobs or with what became of a lease is written right here. Only two rare cases start a task:
a lease that settles others first, and one that finds nothing and has to say which queues are stopped.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from presque import codec, names
from presque.commands import leases
from presque.errors import PresqueError
from presque.job import LeaseAsk, Leased, Settle, Settled

if TYPE_CHECKING:
    from presque.http.fast import Plan, Protocol

VERBS = ("ack", "fail", "release", "extend")


def serve_lease(connection: Protocol, plan: Plan, body: bytes) -> None:
    """POST /q/{queues}/lease"""
    try:
        request = codec.decode_request(body, leases.LeaseRequest)
        ask, wait = leases.lease_ask(request, plan.fields, plan.worker)
        if request.settle is not None:
            first = leases.settles(request.settle)
            connection.spawn(_settle_and_lease(connection, plan, first, ask, wait))
            return
    except PresqueError as error:
        connection.answer_problem(error)
        return
    _lease(connection, plan, ask, wait, b"")


async def _settle_and_lease(
    connection: Protocol, plan: Plan, first: list[Settle], ask: LeaseAsk, wait: float
) -> None:
    try:
        settled = await leases.settle(connection.door.engine, first, plan.worker)
    except PresqueError as error:
        connection.answer_problem(error)
        return
    if connection.transport.is_closing():
        return
    _lease(connection, plan, ask, wait, leases.settled_part(settled))


def _lease(connection: Protocol, plan: Plan, ask: LeaseAsk, wait: float, settled: bytes) -> None:
    take = functools.partial(_take, connection, plan, settled)
    connection.waiter = leases.lease(connection.door.engine, plan.queues, ask, wait, take)


def _take(
    connection: Protocol, plan: Plan, settled: bytes, found: list[Leased] | PresqueError | None
) -> bool:
    connection.waiter = None
    if connection.transport.is_closing():
        return False
    if isinstance(found, PresqueError):
        connection.answer_problem(found)
    elif found or settled:
        connection.answer_json(leases.lease_answer(found or (), settled))
    else:
        connection.spawn(_answer_nothing(connection, plan))
    return True


async def _answer_nothing(connection: Protocol, plan: Plan) -> None:
    try:
        stopped = await connection.door.engine.stopped(plan.queues)
    except PresqueError as error:
        connection.answer_problem(error)
        return
    connection.answer_empty(leases.paused(stopped))


def serve_settle_one(connection: Protocol, plan: Plan, body: bytes) -> None:
    """POST /j/{queue}/{id}/ack, /fail, /release, /extend"""
    try:
        one = leases.single(plan.verb, plan.queue, plan.job, body, plan.fields, plan.token)
    except PresqueError as error:
        connection.answer_problem(error)
        return
    connection.door.engine.settle(one, functools.partial(_settled, connection, plan, one))


def _settled(connection: Protocol, plan: Plan, one: Settle, result: Settled | PresqueError) -> None:
    if isinstance(result, PresqueError):
        connection.answer_problem(result)
        return
    if plan.worker is not None:
        leases.count(connection.door.engine, plan.worker, [one], [result])
    if result.status != 200:
        connection.answer_problem(leases.refusal(result.status))
        return
    connection.answer_json(codec.encode(leases.told(one, result)))


def route(plan: Plan, method: str, parts: list[str], token: str | None) -> bool:
    """Whether this is one of the requests above; if so, what its path says is in the plan."""
    if method != "POST":
        return False
    if len(parts) == 4 and parts[1] == "q" and parts[3] == "lease":
        plan.queues = names.queue_list(parts[2])
        plan.serve = serve_lease
        return True
    if len(parts) == 5 and parts[1] == "j" and parts[4] in VERBS:
        plan.queue, plan.job, plan.verb = names.queue(parts[2]), names.job(parts[3]), parts[4]
        plan.token = token
        plan.common = False
        plan.serve = serve_settle_one
        return True
    return False
