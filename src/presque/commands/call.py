"""A request for a verb, whichever door it came through, and what it is answered with.

A door makes a `Call` of what it was sent; `carrying.carry_out` carries it out; the door writes the `Reply` as
its protocol wants it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from presque import codec
from presque.engine.engine import Engine
from presque.engine.lines import Waiter
from presque.errors import PresqueError
from presque.job import Fetched
from presque.names import QueueList
from presque.verbs import VERBS, Scope, Verb

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, and what they may ask for. Until there are access tokens everybody may ask for everything."""

    name: str = ""

    def may(self, scope: Scope, queues: str | QueueList | None) -> None:
        """Return if they may do this to these queues; raise the refusal otherwise."""


ANYBODY = Who()


class Service:
    """What verbs are carried out on: the engine, what the server says of itself, and what it counts."""

    def __init__(self, engine: Engine, about: Callable[[], dict[str, Any]]) -> None:
        self.engine = engine
        self.about = about
        self.counts = dict.fromkeys(VERBS, 0)
        """How often each verb was asked for since this process started."""


@dataclass(slots=True)
class Call:
    """One request: the verb, who asks, and the fields as verbs.py types them."""

    service: Service
    verb: Verb
    fields: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""
    """What the verb reads itself, where its row says `raw`."""
    worker: str | None = None
    who: Who = ANYBODY

    @property
    def engine(self) -> Engine:
        """The queues."""
        return self.service.engine

    @property
    def queue(self) -> str:
        """The queue that the path or the message names."""
        return cast(str, self.fields["queue"])

    @property
    def queues(self) -> QueueList:
        """The queue list."""
        return cast(QueueList, self.fields["queues"])

    @property
    def job(self) -> str:
        """The job's id."""
        return cast(str, self.fields["id"])

    @property
    def name(self) -> str:
        """The name of a recurring job."""
        return cast(str, self.fields["name"])

    def get(self, name: str, otherwise: Any = None) -> Any:
        """A field, or what holds when it was not given."""
        return self.fields.get(name, otherwise)


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer: a JSON object as bytes.

    Over HTTP the status is that of the verb's row unless `status` says otherwise, `headers` go with it, and a
    classic route that answers something else than an object has it in `classic`.
    """

    body: bytes = b"{}"
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    classic: bytes | None = None

    @classmethod
    def of(cls, value: Any, status: int | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """A reply that says `value`."""
        return cls(codec.encode(value), status, headers or {})


async def unless_left(work: Awaitable[T], give_back: Callable[[T], object]) -> T:
    """What `work` brings. If the caller is cancelled meanwhile, it is given back when it comes."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            task.add_done_callback(lambda done: None if done.exception() else give_back(done.result()))
        raise


async def awaited(engine: Engine, begin: Callable[[Callable[[Any], bool]], Waiter | None]) -> Any:
    """What a fetch or a lease brings. Raises `PresqueError`. If the caller is cancelled, no job is taken."""
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def take(result: Any) -> bool:
        if found.done():
            return False
        found.set_result(result)
        return True

    waiter = begin(take)
    try:
        result = await found
    except asyncio.CancelledError:
        if waiter is not None:
            engine.leave(waiter)
        if found.done() and not found.cancelled():
            brought = found.result()
            if not isinstance(brought, PresqueError):
                engine.give_back([brought] if isinstance(brought, Fetched) else brought or [])
        raise
    if isinstance(result, PresqueError):
        raise result
    return result
