"""The plans of what is not hot: a verb that a task carries out, a handshake, a preflight."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgspec

from presque import codec
from presque.commands import messages
from presque.commands.call import Reply
from presque.commands.carrying import carry_out
from presque.commands.messages import Asker, Handshake
from presque.errors import CallerError, PresqueError
from presque.http import plans
from presque.http.answering import Answering
from presque.http.answers import Answer
from presque.http.door import Upgraded
from presque.http.plan import Plan, Upload
from presque.http.request import Request
from presque.verbs.verb import Verb

Upgrade = Callable[[Handshake], tuple[dict[str, str], Upgraded]]
"""Checks a handshake: the headers of the answer, and the protocol that the connection speaks from then on.
Raises `CallerError`."""

Handler = Callable[[Request, bytes, str], Awaitable[Answer]]
"""Answers a request with this body from this address."""


class Slow(msgspec.Struct, frozen=True):
    """The plan of every verb that is not hot: a task carries it out."""

    request: Request
    handler: Handler

    @property
    def common(self) -> bool:
        return "id" not in self.request.fields

    def serve(self, connection: Answering, body: bytes) -> None:
        if body and self.request.verb.takes:
            raise CallerError(plans.GET_TAKES)
        connection.spawn(self.answer(connection, body), functools.partial(_waits, self.request, body))

    async def answer(self, connection: Answering, body: bytes) -> None:
        answer = await self.handler(self.request, body, connection.address)
        if isinstance(answer.body, bytes):
            connection.answer(answer)
        else:
            await connection.stream(answer)


async def carry(request: Request, body: bytes, source: str) -> Answer:
    answer = answer_of(request.verb, await carry_out(request.call(body, source)))
    if request.prefix and "Location" in answer.headers:
        headers = {**answer.headers, "Location": request.prefix + answer.headers["Location"]}
        return msgspec.structs.replace(answer, headers=headers)
    return answer


async def commands(request: Request, body: bytes, source: str) -> Answer:
    """POST /queue"""
    request.service.counts[request.verb.name] += 1
    asker = Asker(request.service, request.who, request.worker, source=source)
    said = await messages.run_all(asker, body)
    return Answer(said.text + b"\n", undo=said.undo)


def answer_of(verb: Verb, reply: Reply) -> Answer:
    """A reply as HTTP says it."""
    status = reply.status or verb.status
    if verb.answers == "nothing" or status == 204:
        return Answer(status=status, headers=reply.headers)
    if reply.kind:
        return Answer(reply.body, status, reply.headers, reply.kind)
    return Answer(reply.body + b"\n", status, reply.headers, undo=reply.undo)


class _Wait(codec.Struct):
    wait: Any = 0


def _waits(request: Request, body: bytes) -> bool:
    """Whether the request may wait: a client that closes its sending side meanwhile has left."""
    if request.verb.name != "commands":
        return bool(request.fields.get("wait"))
    kind: Any = list[_Wait] if body.lstrip().startswith(b"[") else _Wait
    try:
        found = codec.decode_request(body, kind)
    except PresqueError:
        return False
    return any(one.wait for one in (found if isinstance(found, list) else [found]))


class Switch(msgspec.Struct, frozen=True):
    """The plan of a handshake: from then on the connection speaks WebSocket."""

    upgrade: Upgrade
    handshake: Handshake
    spoken: str | None
    common: bool = False

    def serve(self, connection: Answering, _body: bytes) -> None:
        headers, protocol = self.upgrade(self.handshake)
        if self.spoken is not None:
            headers["Sec-WebSocket-Protocol"] = self.spoken
        connection.upgrade(headers, protocol)


class Allowed(msgspec.Struct, frozen=True):
    """The plan of a browser's question whether a page may send a request. It carries nothing out."""

    headers: Mapping[str, str]
    common: bool = True

    def serve(self, connection: Answering, _body: bytes) -> None:
        connection.answer(Answer(status=204, headers=self.headers))


class OfOneAddress(msgspec.Struct, frozen=True):
    """A plan that is good for clients at one address."""

    plan: Plan
    common: bool = False

    def serve(self, connection: Answering, body: bytes) -> None:
        self.plan.serve(connection, body)


def of_one_address(plan: Plan) -> Plan:
    """The same plan, which is not remembered: a token of it is good from some addresses only."""
    if isinstance(plan, Upload):
        return cast(Plan, msgspec.structs.replace(cast(Any, plan), common=False))
    return OfOneAddress(plan)
