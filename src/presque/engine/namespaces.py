"""The namespaces that were made in that of the server: an engine for each that is used, and the passing of
time in those that nobody uses here.

A namespace is a prefix of keys, so two of them never meet, and its queues are an `Engine` like any other. It
is made on demand, shares the connections of the server's own, and is put away when nobody has used it for a
while. A namespace that nobody uses is a record in memory, and costs nothing else.

Time has to do its work in those where something is to be done, on whatever server is there, also when no
server was for a while: the store knows which these are (lua/access.lua). Each server looks after all of them
in turn, SWEPT_MOST a second at most, so with more than ROUND_S times as many a round takes longer. Recurring
jobs are looked after each second, in as many.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import secrets
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec

from presque.engine import calls
from presque.engine.engine import Engine
from presque.engine.keys import ACCESS, CRONS, REGISTRY, TASKS
from presque.engine.meters import Meter
from presque.engine.quotas import NamespaceRecord, full
from presque.errors import NoNamespace, PresqueError
from presque.store.channels import Hearing

log = logging.getLogger("presque.namespaces")

TURN_S = 1.0
ROUND_S = 5  # in which all that have something to do have had their turn, unless there are too many for that
SWEPT_LEAST, SWEPT_MOST = 20, 200  # in a turn
AT_ONCE = 20
USED_S = 10.0  # how often a namespace in use is marked as used in the store
REST_MS = 60_000  # a namespace with nothing to do rests once it was unused for this long
IDLE_S = 60.0  # and its engine is put away
COUNTED_S = (
    5  # turns in which a server says how many connections it has in a namespace that may have any number
)
END_S = 5.0  # by then every server knows that a namespace is deleted
SCANNED = 1000


class Usage(msgspec.Struct, frozen=True):
    """What there is in a namespace."""

    queues: int
    jobs: int
    bytes: int
    connections: int


class Namespace:
    """One namespace, as this server uses it."""

    def __init__(self, namespaces: Namespaces, record: NamespaceRecord) -> None:
        self.name = record.name
        self.record = record
        self.gone = False
        self.connections = 0
        """How many this server has in it."""
        self.elsewhere = 0
        """How many other servers have."""
        self.kept: object = None
        """What those above keep as long as this lives."""
        self._namespaces = namespaces
        self._engine: Engine | None = None
        self._hearing: Hearing | None = None
        self._told_at = self._asked_at = -math.inf
        self._meter: Meter | None = None
        self.update(record)

    def update(self, record: NamespaceRecord) -> None:
        """This is known of it now."""
        bound, self.record = self.record.quotas, record
        most = record.quotas.requests
        if most is None:
            self._meter = None
        else:
            self._meter = self._namespaces.meter(self.name, most)
        if self._engine is not None and record.quotas != bound:
            self._bind(self._engine)

    @property
    def engine(self) -> Engine:
        """Its queues, about to be used. Raises `NoNamespace` once it is gone."""
        now = self._namespaces.now()
        engine = self._engine
        if engine is None or now - self._told_at >= USED_S:
            engine = self._use(now)
        return engine

    @property
    def sleeping(self) -> Engine:
        """Its queues, to look after them: that does not count as use."""
        if self.gone:
            raise NoNamespace(self.name)
        if self._engine is None:
            self._engine = self._namespaces.make(self.name)
            self._engine.crons.on_defined.append(self._namespaces.look_after(self.name))
            self._bind(self._engine)
            self._namespaces.awake[self.name] = self
        return self._engine

    def _use(self, now: float) -> Engine:
        engine = self.sleeping
        self._told_at = now
        self._namespaces.tell_used(self.name)
        if self._hearing is None:
            self._hearing = engine.queues.listen()
        return engine

    def _bind(self, engine: Engine) -> None:
        """Let the functions know how much there may be."""
        quotas = self.record.quotas
        args = ("" if most is None else most for most in (quotas.queues, quotas.jobs, quotas.bytes))
        engine.store.send(REGISTRY, calls.encode("quota", engine.keys.usage(), *args), calls.ignore)

    def bind(self) -> None:
        """Let the functions know how much there may be, before what is asked next."""
        self._bind(self.sleeping)

    def spend(self) -> None:
        """Count one request. Raises `NamespaceFull` if there are too many."""
        if self._meter is not None:
            self._meter.spend()

    def enter(self) -> None:
        """Count a connection. Raises `NamespaceFull` if there are too many, and then it is not counted."""
        self._asked_at = self._namespaces.now()
        most = self.record.quotas.connections
        if most is not None:
            if self._engine is None:
                self._namespaces.count_soon(self)
            there = self.connections + self.elsewhere
            if there >= most:
                raise full("connections", there, most)
        self.connections += 1

    def leave(self) -> None:
        """A connection that was counted has ended."""
        self.connections -= 1

    def connected(self) -> None:
        """The store can be called again. It may have lost its data."""
        self._told_at = -math.inf
        self.bind()
        self.sleeping.again()

    def idle(self, now: float) -> bool:
        """Whether nobody uses it here."""
        return not self.connections and now - max(self._told_at, self._asked_at) >= IDLE_S

    async def usage(self) -> Usage:
        """What there is in it. Tells the store how many connections this server has. Raises
        `PresqueError`."""
        engine = self.sleeping
        server = self._namespaces.server
        call = calls.encode("usage", engine.keys.usage(), server, self.connections)
        found = Usage(*await engine.store.ask(REGISTRY, call))
        self.elsewhere = max(0, found.connections - self.connections)
        return found

    def put_away(self) -> None:
        """Let the engine go, until it is wanted again."""
        if self._hearing is not None:
            self._hearing.end()
            self._hearing = None
        if self._engine is not None:
            self._engine.stop_waiting()
            self._engine = None
        self._told_at = -math.inf
        self._namespaces.awake.pop(self.name, None)

    def end(self) -> None:
        """It is deleted. Waiters in it are answered with nothing."""
        self.gone = True
        self.put_away()


class Namespaces:
    """The namespaces of one server."""

    def __init__(self, engine: Engine) -> None:
        self.server = secrets.token_hex(8)
        self.awake: dict[str, Namespace] = {}
        """Those with an engine."""
        self._engine = engine
        self._access = engine.access
        self._keys = engine.keys.access()
        self.now = asyncio.get_running_loop().time
        # One object for each, as long as somebody has it: a remembered plan, a connection, or `awake`.
        self._known: weakref.WeakValueDictionary[str, Namespace] = weakref.WeakValueDictionary()
        self._version = b""
        self._active: tuple[str, ...] = ()
        self._with_crons: dict[str, None] = {}
        self._swept = self._fired = self._beside = 0  # where the turns have got to
        self._turns = itertools.count()
        self._ending: set[str] = set()
        self._access.on_change.insert(0, self._changed)  # before what looks at who may go on
        engine.connected.append(self._connected)

    def get(self, name: str) -> Namespace:
        """A namespace. Raises `NoNamespace`."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = Namespace(self, self._access.namespace(name))
        elif found.gone:
            raise NoNamespace(name)
        return found

    def make(self, name: str) -> Engine:
        """An engine for a namespace."""
        return Engine(self._engine.store.address, name, beside=self._engine)

    def all(self) -> list[Engine]:
        """The engines of all namespaces, for what is done in all at once: a test moves the clock."""
        records = self._access.namespaces
        return [self.get(name).sleeping for name, record in records.items() if not record.ending]

    def meter(self, name: str, most: int) -> Meter:
        """How many requests a second may be made in a namespace."""

        def refusal(retry_after: float) -> PresqueError:
            bound = self._access.namespaces.get(name)
            count = most if bound is None else bound.quotas.requests or most
            return full("requests", count, count, retry_after)

        return self._access.meters.of(f":{name}", (most, 1000), refusal)

    def look_after(self, name: str) -> Callable[[], None]:
        """To be called when a namespace gets a recurring job: it is looked after from the next turn on."""
        return lambda: self._with_crons.setdefault(name)

    def tell_used(self, name: str) -> None:
        """A namespace is about to be used: the store learns of that before it gets the call."""
        self._engine.store.send(ACCESS, calls.encode("namespace_use", self._keys, name), calls.ignore)

    def count_soon(self, one: Namespace) -> None:
        """Learn how many connections other servers have in a namespace, and go on to learn it each turn."""
        self._engine.spawn(_calmly(one.usage))

    def running(self) -> list[Engine]:
        """The engines of the namespaces that are used."""
        return [one.sleeping for one in self.awake.values()]

    def stop_waiting(self) -> None:
        """Answer all waiters with "nothing"."""
        for engine in self.running():
            engine.stop_waiting()

    def _changed(self) -> None:
        for name, one in list(self._known.items()):
            record = self._access.namespaces.get(name)
            if record is None or record.ending or record.id != one.record.id:
                del self._known[name]
                one.end()
            elif record != one.record:
                one.update(record)

    def _connected(self) -> None:
        """The store can be called again. It may have lost its data."""
        self._version = b""
        for one in list(self.awake.values()):
            one.connected()

    # --- what time does -------------------------------------------------------------------------

    async def run(self) -> None:
        """Look after the namespaces, until cancelled."""
        while True:
            await asyncio.sleep(TURN_S)
            try:
                await self._turn()
            except PresqueError:
                pass  # it is logged where the connection is kept
            except Exception:
                log.exception("namespace.turn_failed")

    async def _turn(self) -> None:
        turn, now = next(self._turns), self.now()
        version, *names = await self._ask("namespaces_active", self._version)
        if version != self._version:
            self._version, self._active = version, tuple(name.decode() for name in names)
        active = set(self._active)
        for one in list(self.awake.values()):
            if one.name not in active and one.idle(now):
                one.put_away()
        counted = [
            one
            for one in self.awake.values()
            if one.record.quotas.connections is not None or (one.connections and not turn % COUNTED_S)
        ]
        await _all(one.usage for one in counted)
        share = min(max(SWEPT_LEAST, math.ceil(len(self._active) / ROUND_S)), SWEPT_MOST)
        some, self._swept = _share(self._active, self._swept, share)
        await _all(_with(self._sweep, name) for name in some)
        due, self._fired = _share(tuple(self._with_crons), self._fired, SWEPT_MOST)
        await _all(_with(self._fire, name) for name in due)
        others = tuple(self._access.namespaces)
        some, self._beside = _share(others, self._beside, 1)
        for name in some:  # which mends what is lost of the active ones
            if name not in active and any(await self._work(name)):
                self.tell_used(name)
        for record in self._access.namespaces.values():
            if record.ending and record.name not in self._ending:
                self._ending.add(record.name)
                self._engine.spawn(self._delete(record))

    async def _work(self, name: str) -> tuple[int, int, int]:
        """How many queues of a namespace are busy, how many recurring jobs there are, and bulk tasks that go
        on."""
        keys, store = self._engine.keys.inside(name), self._engine.store
        busy, crons, tasks = await asyncio.gather(
            store.call(REGISTRY, "ZCARD", keys.busy()),
            store.call(CRONS, "HLEN", keys.crons()[0]),
            store.call(TASKS, "ZCARD", keys.tasks()[4]),
        )
        return int(busy), int(crons), int(tasks)

    async def _sweep(self, name: str) -> None:
        """Let time do its work in one namespace."""
        began = self.now()
        try:
            one = self.get(name)
        except NoNamespace:
            await self._ask("namespace_rest", name, 0)
            return
        await one.sleeping.histories.close()
        busy, crons, tasks = await self._work(name)
        if crons:
            self._with_crons[name] = None
        else:
            self._with_crons.pop(name, None)
        if tasks:
            await one.sleeping.bulk.look()
        if busy or crons or tasks:
            await one.sleeping.sweeper.turn()
        elif self.now() - began < USED_S:
            await self._ask("namespace_rest", name, REST_MS)

    async def _fire(self, name: str) -> None:
        """Push what recurring jobs of one namespace are due."""
        try:
            one = self.get(name)
        except NoNamespace:
            self._with_crons.pop(name, None)
            return
        await one.sleeping.firing.fire_due()

    async def _delete(self, record: NamespaceRecord) -> None:
        """Delete the data of a namespace, then what is known of it. Any server may, and goes on where another
        has stopped."""
        try:
            await self._delete_keys(record.name)
            await asyncio.sleep(END_S)
            await self._delete_keys(record.name)  # what was under way when it began
            await self._access.remove_namespace(record)
            log.info("namespace.deleted name=%s", record.name)
        except PresqueError as error:
            log.warning("namespace.not_deleted name=%s reason=%r", record.name, str(error))
        finally:
            self._ending.discard(record.name)

    async def _delete_keys(self, name: str) -> None:
        store, pattern = self._engine.store, f"{self._engine.keys.inside(name).namespace}:*"
        cursor: Any = b"0"
        while True:
            cursor, keys = await store.call("", "SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED)
            if keys:
                await store.call("", "UNLINK", *keys)
            if cursor == b"0":
                return

    async def _ask(self, name: str, *args: str | bytes | int) -> Any:
        return await self._engine.store.ask(ACCESS, calls.encode(name, self._keys, *args))


def _share(names: Sequence[str], after: int, count: int) -> tuple[list[str], int]:
    """The next `count` of these, in turn, and how far that is."""
    if not names:
        return [], 0
    first = after if after < len(names) else 0
    some = list(names[first : first + count])
    return some, first + len(some)


def _with(act: Callable[[str], Awaitable[object]], name: str) -> Callable[[], Awaitable[object]]:
    return lambda: act(name)


async def _all(acts: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Do all of this, AT_ONCE at a time. What fails in one harms no other."""
    pending = iter(acts)
    while some := list(itertools.islice(pending, AT_ONCE)):
        await asyncio.gather(*(_calmly(act) for act in some))


async def _calmly(act: Callable[[], Awaitable[object]]) -> None:
    with contextlib.suppress(PresqueError):  # the next turn tries again
        await act()
