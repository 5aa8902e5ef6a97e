"""The access tokens and the namespaces, as the store keeps them for every server on it.

Each server holds all of them in memory, since every request asks. It reads them again when the store tells of
a change, and looks once a second whether there was one that it did not hear of. While the store is away it
keeps using those that it knows. Once a token has been made, requests need one for ever: the number of changes
stays in the store when all tokens are gone, and in this process when all of the store is.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from presque import codec, tokens
from presque.engine import calls
from presque.engine.background import Background
from presque.engine.keys import ACCESS, Keys
from presque.engine.meters import TELL_S, Meters
from presque.engine.quotas import NamespaceRecord, Quotas, name_of
from presque.engine.slices import Slice
from presque.errors import CallerError, NoNamespace, PresqueError, SetupError, WrongState
from presque.store.channels import Channels
from presque.store.store import Store
from presque.tokens import BadToken, Layer, Rules, networks

log = logging.getLogger("presque.access")

TOKENS_MOST = 10_000
TOKENS_INSIDE_MOST = 100
NAMESPACES_MOST = 10_000
LOOK_EVERY_S = 1.0
SESSIONS_MOST = 10_000  # that were ended before their time
ENDED_AT_ONCE = 500
PAGE = 100  # of tokens or namespaces that are read at once
SET_ASIDE = 500
SEAL_BYTES = 32


class _Kept:
    """Tokens and namespaces that were read, to be kept until they change.

    Each 500 are set aside from what Python looks through for garbage: with 10,000 tokens each of these looks
    would hold up the event loop for 20 to 60 ms. What is kept has no circles, so it is freed like anything
    else when nobody needs it.
    """

    def __init__(self) -> None:
        self._count = 0

    def add(self) -> None:
        self._count += 1
        if self._count % SET_ASIDE == 0:
            gc.freeze()


class Record(msgspec.Struct, frozen=True):
    """What is known of one token. `key` is the SHA-256 of its secret; `rate` is a number of requests, and for
    how many ms."""

    id: str
    name: str
    key: bytes
    layer: Layer
    namespace: str | None
    """In which it is good; None for the server's own."""
    rate: tuple[int, int] | None
    created_at: int
    made_by: str | None
    namespace_id: str | None = None
    """Of that namespace, which tells it from an earlier one of that name."""


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a new token should allow."""

    name: str
    allow: Sequence[str]
    deny: Sequence[str] = ()
    expires: int | None = None
    """Epoch milliseconds."""
    sources: Sequence[str] = ()
    namespace: str | None = None
    rate: tuple[int, int] | None = None
    made_by: str | None = None

    def packed(self, key: bytes, now: int, namespace_id: str | None) -> bytes:
        """As the store keeps it, in the namespace that has this id now. Raises `BadToken` if a rule or a
        network is not one."""
        if not self.allow:
            raise BadToken("a token must allow something: give at least one rule, such as `push:mail*`")
        Rules(self.allow), Rules(self.deny), networks(self.sources)
        return codec.pack(
            {
                "name": self.name,
                "key": key,
                "allow": list(self.allow),
                "deny": list(self.deny),
                "expires": self.expires,
                "sources": list(self.sources),
                "namespace": self.namespace,
                "namespace_id": namespace_id,
                "rate": self.rate,
                "created": now,
                "made_by": self.made_by,
            }
        )


class Access:
    """The tokens and namespaces of one store. `on_change` are called after each change."""

    def __init__(self, store: Store, channels: Channels, keys: Keys, background: Background) -> None:
        self.records: dict[str, Record] = {}
        self.namespaces: dict[str, NamespaceRecord] = {}
        self.ended: frozenset[str] = frozenset()
        """The sessions that were ended before their time."""
        self.made_once = False
        """Whether there is a token, or ever was one."""
        self.on_change: list[Callable[[], None]] = []
        self._channels = channels
        self.keys = keys.access()
        self._call = calls.OnKeys(store, ACCESS, self.keys)
        self._background = background
        self._version = b""
        self._looking = asyncio.Lock()
        self.seal = secrets.token_bytes(SEAL_BYTES)
        """A secret of all servers on the store, which no token tells."""
        self.ahead_ms = 0
        """By how much a test has moved the clock."""
        self._tokens_read: dict[bytes, tuple[bytes, Record | None]] = {}
        self._kept = _Kept()
        self.meters = Meters(store, self.keys)

    async def start(self) -> None:
        """Know all tokens, now and from now on. Raises `SetupError` if the store does not let us."""
        self._channels.hear(self.keys[3], lambda _: self.look_soon(), self.look_soon)
        try:
            await self.look()
        except PresqueError as error:
            raise SetupError(f"cannot read the access tokens: {error}") from None
        self._background.spawn(self._watch())
        self._background.spawn(self._tell_meters())

    def holds(self, id: str) -> bool:
        """Whether a token is valid, as far as is known: before the tokens were read, each is."""
        record = self.records.get(id)
        if record is None:
            return not self._version
        return record.layer.expires is None or record.layer.expires > time.time() * 1000

    def look_soon(self) -> None:
        """There may be a change."""
        self._background.spawn(self._look_calmly())

    async def look(self) -> None:
        """Read the tokens if there was a change. Raises `PresqueError`."""
        async with self._looking:
            version, seal = await self._call("access_look")
            if version == self._version:
                return
            namespaces = await self._read_namespaces()
            read = await self._read_tokens()
            self.ended = await self._read_ended()
            self._version = version
            self.made_once = self.made_once or not version.startswith(b"0.")
            self.seal = seal or self.seal
            self.namespaces, self._tokens_read = namespaces, read
            self.records = {one.id: one for _, one in read.values() if one is not None and self._there(one)}
            self.meters.keep(lambda id: id[1:] in self.namespaces if id[0] == ":" else id in self.records)
        for hear in self.on_change:
            hear()

    def now(self) -> float:
        """What time it is for tokens: milliseconds since the epoch."""
        return time.time() * 1000 + self.ahead_ms

    async def _read_namespaces(self) -> dict[str, NamespaceRecord]:
        """The namespaces by name. What has not changed is not decoded again."""
        namespaces = {}
        async for name, packed in self._all("names"):
            known = self.namespaces.get(name.decode())
            if known is None or known.packed != packed:
                known = _namespace(name.decode(), packed)
                self._kept.add()
            if known is not None:
                namespaces[known.name] = known
        return namespaces

    async def _read_tokens(self) -> dict[bytes, tuple[bytes, Record | None]]:
        """The tokens by id, each as the store has it and as it was understood."""
        read = {}
        async for id, packed in self._all("tokens"):
            known = self._tokens_read.get(id)
            if known is None or known[0] != packed:
                known = packed, _record(id.decode(), packed)
                self._kept.add()
            read[id] = known
        return read

    async def _read_ended(self) -> frozenset[str]:
        """The sessions that were ended, in pieces."""
        found: list[bytes] = []
        while more := await self._call("access_ended", len(found), ENDED_AT_ONCE):
            found += more
        return frozenset(one.decode() for one in found)

    async def _all(self, what: str) -> AsyncIterator[tuple[bytes, bytes]]:
        """Ids or names, each with what the store has of it, in pieces: there may be 200 MB of them."""
        cursor, clock = b"0", Slice()
        while True:
            cursor, *found = await self._call("access_page", what, cursor, PAGE)
            for name, packed in zip(found[::2], found[1::2], strict=True):
                yield name, packed
                await clock.breathe()
            if cursor == b"0":
                return

    def _there(self, record: Record) -> bool:
        """Whether the namespace that a token was made for is there, and is still the same."""
        if record.namespace is None:
            return True
        found = self.namespaces.get(record.namespace)
        return found is not None and not found.ending and found.id == record.namespace_id

    async def make(self, new: NewToken) -> tuple[str, Record]:
        """Make a token: its text, which nobody keeps, and what is known of it. It is valid here at once, and
        on every server in a moment. Raises `CallerError`."""
        await self.look()
        id, text, key = tokens.make()
        namespace = None if new.namespace is None else self.namespace(new.namespace)
        if namespace is not None:
            inside = sum(one.namespace == namespace.name for one in self.records.values())
            if inside >= TOKENS_INSIDE_MOST:
                raise CallerError(
                    f"the namespace has {TOKENS_INSIDE_MOST} access tokens, the maximum: revoke some"
                )
        try:
            packed = new.packed(key, int(self.now()), None if namespace is None else namespace.id)
        except BadToken as error:
            raise CallerError(str(error)) from None
        put = await self._call("access_put", id, packed, TOKENS_MOST, new.namespace or "", self.seal)
        if put == 0:
            raise CallerError(f"there are {TOKENS_MOST} access tokens, the maximum: revoke some")
        await self.look()
        if put != 1 or id not in self.records:
            raise NoNamespace(new.namespace or "")
        return text, self.records[id]

    async def remove(self, id: str) -> bool:
        """Make a token invalid, here at once and everywhere in a moment. False if there is none."""
        gone = bool(await self._call("access_remove", id))
        await self.look()
        return gone

    async def end_session(self, session: str, until: int) -> None:
        """Make a session invalid, here at once and everywhere in a moment; `until` it would have been
        valid."""
        await self._call("access_end", session, until, SESSIONS_MOST)
        await self.look()

    # --- namespaces -----------------------------------------------------------------------------

    def namespace(self, name: str) -> NamespaceRecord:
        """A namespace that is there and not about to go. Raises `NoNamespace`."""
        found = self.namespaces.get(name)
        if found is None or found.ending:
            raise NoNamespace(name)
        return found

    async def make_namespace(self, name: str, quotas: Quotas, made_by: str | None) -> NamespaceRecord:
        """Make a namespace. Raises `CallerError` if it may not be called so or there are too many, and
        `WrongState` if there is one."""
        new = NamespaceRecord.new(name_of(name), quotas, int(time.time() * 1000), made_by)
        put = await self._call("namespace_put", name, new.packed, NAMESPACES_MOST, "")
        if put == 0:
            raise CallerError(f"there are {NAMESPACES_MOST} namespaces, the maximum: delete some")
        await self.look()
        if put < 0:
            known = self.namespaces.get(name)
            raise WrongState(
                f"the namespace `{name}` is still being deleted; try again later"
                if known is not None and known.ending
                else f"there is a namespace `{name}` already"
            )
        return new

    async def change_namespace(
        self, name: str, change: Callable[[NamespaceRecord], NamespaceRecord]
    ) -> NamespaceRecord:
        """Change what is known of a namespace, here at once and everywhere in a moment. Raises
        `NoNamespace`."""
        while True:
            await self.look()
            before = self.namespace(name)
            after = change(before)
            if await self._call("namespace_put", name, after.packed, 0, before.packed) == 1:
                await self.look()
                return after

    async def remove_namespace(self, record: NamespaceRecord) -> None:
        """Forget a namespace whose data is gone, and its tokens."""
        inside = (id for id, (_, one) in self._tokens_read.items() if one and one.namespace == record.name)
        await self._call("namespace_remove", record.name, record.packed, *inside)
        await self.look()

    async def _tell_meters(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            with contextlib.suppress(PresqueError):  # the next turn tells it
                await self.meters.tell()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._look_calmly()

    async def _look_calmly(self) -> None:
        with contextlib.suppress(PresqueError):  # the next look is a second away
            await self.look()


def _record(id: str, packed: bytes) -> Record | None:
    """What the store has of a token. None, and a line in the log, for what cannot be read: it lets nobody
    in."""
    try:
        found = codec.unpack_map(packed)
        layer = Layer(
            allow=Rules(found["allow"]),
            deny=Rules(found["deny"]),
            expires=found["expires"],
            sources=networks(found["sources"]) if found["sources"] else None,
        )
        rate = found["rate"]
        return Record(
            id, found["name"], found["key"], layer, found["namespace"], tuple(rate) if rate else None,
            found["created"], found["made_by"], found.get("namespace_id"),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        log.error("access.token_damaged id=%s reason=%r", id, str(error))
        return None


def _namespace(name: str, packed: bytes) -> NamespaceRecord | None:
    """What the store has of a namespace. None, and a line in the log, for what cannot be read."""
    try:
        return NamespaceRecord.read(name, packed)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        log.error("access.namespace_damaged name=%s reason=%r", name, str(error))
        return None


DUMMY = secrets.token_bytes(32)
"""The key of a token that does not exist, so that to find that out takes as long."""
