"""A request for a verb, whichever door it came through, and what it is answered with.

A door makes a `Call` of what it was sent; `carrying.carry_out` carries it out; the door writes the `Reply` as
its protocol wants it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

import msgspec

from presque import codec
from presque.commands.audit import Audit
from presque.commands.who import ANYBODY, Guard, Who
from presque.engine.engine import Engine
from presque.engine.lines import (
    Taker as Taker,
)  # for the doors
from presque.engine.lines import (
    Waiter as Waiter,
)
from presque.engine.namespaces import Namespace
from presque.errors import PresqueError
from presque.job import Fetched
from presque.names import QueueList
from presque.verbs import VERBS
from presque.verbs.verb import Verb

T = TypeVar("T")


Facts = Callable[[], Awaitable[dict[str, Any]]]
"""Asks for what `GET /server` says."""


class Service:
    """What verbs are carried out on: the engine, who may ask it, what the server says of itself and
    counts."""

    namespace: Namespace | None = None
    """In which namespace, None for the server's own."""

    def __init__(
        self,
        engine: Engine,
        guard: Guard,
        about: Callable[[], dict[str, Any]],
        facts: Facts,
        processes: Callable[[], Mapping[int, Mapping[str, Any]]] = dict,
    ) -> None:
        self.processes = processes
        """What each process of this server counts, by its number."""
        self.engine = engine
        """The queues. Where they are those of a namespace that is gone, looking raises `NoNamespace`."""
        self.guard = guard
        self.audit = Audit(engine.access, lambda: self.engine.notes, self._audit_of)
        self.about = about
        self.facts = facts
        self.counts = dict.fromkeys(VERBS, 0)
        """How often each verb was asked for since this process started."""

    def of(self, who: Who) -> Service:
        """What is carried out for somebody: in their namespace."""
        return self if who.namespace is self.namespace else self._in(who.namespace)

    def _in(self, namespace: Namespace | None) -> Service:
        if namespace is None:
            return self
        if namespace.kept is None:
            namespace.kept = Inside(self, namespace)
        return cast(Service, namespace.kept)

    def _audit_of(self, namespace: str) -> Audit:
        """The audit of a namespace. Raises `NoNamespace`."""
        return self._in(self.guard.namespaces.get(namespace)).audit


class Inside(Service):
    """The same server in one namespace: its queues are made ready when they are asked for."""

    def __init__(self, server: Service, namespace: Namespace) -> None:
        self.namespace = namespace
        self.guard = server.guard
        self.audit = Audit(server.guard.access, lambda: self.engine.notes, namespace=namespace.name)
        self.about = server.about
        self.facts = server.facts
        self.counts = server.counts
        self._server = server

    @property
    def engine(self) -> Engine:  # type: ignore[override]  # an attribute costs each request of the others less
        """The queues. Raises `NoNamespace` if it is gone."""
        assert self.namespace is not None
        return self.namespace.engine

    def of(self, who: Who) -> Service:
        """What is carried out for somebody: in their namespace."""
        return self._server.of(who)


class Call(msgspec.Struct):
    """One request: the verb, the caller, and the fields as verbs/ types them."""

    service: Service
    verb: Verb
    fields: Mapping[str, Any] = msgspec.field(default_factory=dict)
    body: bytes = b""
    """What the verb reads itself, where its row says `raw`."""
    worker: str | None = None
    who: Who = ANYBODY
    source: str = ""
    """The client's address, for the audit."""
    prefix: str = ""
    """What links in the answer begin with, as a proxy has taken it off the path."""
    trace: tuple[str, str | None] | None = None
    """The `traceparent` and `tracestate` of a command."""
    timed: bool = False
    """Whether its door notices when it takes long."""

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


Undo = Callable[[], object]


class Reply(msgspec.Struct, frozen=True):
    """The answer: a JSON object as bytes.

    Over HTTP the status is that of the verb's row unless `status` says otherwise, and `headers` go with it. A
    classic route answers some lists as they are: then `body` is the list, and `within` the object that has it
    behind the other doors, up to where the list begins.
    """

    body: bytes = b"{}"
    status: int | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    within: bytes = b""
    kind: str = ""
    """The media type of a body that is not JSON."""
    undo: Undo | None = None
    """Puts back the jobs that the answer hands out: for a client that leaves before it has the answer."""

    @property
    def object(self) -> bytes:
        """The answer as an object, as all doors but the classic routes give it."""
        return b"%b%b}" % (self.within, self.body) if self.within else self.body

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
