"""One multiplexed connection to the store, on hiredis.

Theory of operation. Everything that wants the store writes into one connection and gets its reply in
order, so a hundred callers cost one write and one read per turn of the event loop instead of a hundred
(implicit pipelining). Rules that follow:

- Never a blocking command here: it would hold up everybody. Who waits is woken by push messages.
- Replies cannot be skipped. A caller that has gone leaves its place in the line; a reply that does not
  come takes the whole connection down, which a watchdog on the oldest call decides (`PATIENCE`).
- A call that was written and lost its reply is never repeated: it may have pushed or fetched. Its caller
  gets `StoreUnavailable(sent=True)`. Only "function not found" is answered by loading the functions and
  asking again, since then nothing can have happened.
- While the store is away calls wait for it for a moment (`GRACE`), then fail. Together with `PATIENCE`
  nobody waits longer than 5 s for an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis

from presque.engine import library
from presque.errors import PresqueError, SetupError, StoreError, StoreFull, StoreLoading, StoreUnavailable

log = logging.getLogger("presque.store")

GRACE = 1.5
PATIENCE = 3.0
TICK = 0.25
IN_FLIGHT_MOST = 20_000
UNWRITTEN_MOST = 64 * 1024 * 1024
BACKOFF_FIRST, BACKOFF_MOST = 0.02, 0.5

Receiver = Callable[[Any], None]
"""Called exactly once, with the reply or with a `PresqueError`. Must not raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a store is and how to log in. Either `unix`, or `host` and `port`."""

    host: str = "127.0.0.1"
    port: int = 6379
    unix: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False

    def __str__(self) -> str:
        """The address as it may be shown and logged: without the password."""
        if self.unix is not None:
            return f"unix:{self.unix}"
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.db}"


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What the store says of itself."""

    product: str
    version: tuple[int, ...]
    eviction: str
    persistent: bool
    fsync: str

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))}"


def command(*parts: str | bytes | int) -> bytes:
    """Encode one command for the wire."""
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub means one part only
    return packed


class Store:
    """A connection that comes back by itself.

    `on_message(channel, payload)` gets what arrives on subscribed channels. `on_connected()` is called
    each time the connection is ready, the first time too: messages may have been missed before.
    """

    def __init__(
        self,
        address: Address,
        *,
        on_message: Callable[[str, bytes], None],
        on_connected: Callable[[], None],
    ) -> None:
        self.address = address
        self.info: StoreInfo | None = None
        self.reloads = 0
        self._on_message = on_message
        self._on_connected = on_connected
        self._wire: _Wire | None = None
        self._waiting: deque[tuple[float, bytes, Receiver]] = deque()
        self._channels: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._ticker: asyncio.TimerHandle | None = None
        self._closed = False
        self._why = "the store has not been reached yet"

    @property
    def connected(self) -> bool:
        """Whether the store can be talked to at this moment."""
        return self._wire is not None

    async def connect(self) -> None:
        """Reach the store for the first time and keep the connection from now on.

        A store that is still reading its data is waited for, however long that takes. Raises `SetupError`
        with a sentence if the store cannot be reached, does not let us in, is of a version that cannot do
        what presque needs, or is set up to lose jobs.
        """
        while True:
            try:
                await self._open()
            except StoreLoading as error:
                self._away(error)
                await asyncio.sleep(BACKOFF_MOST)
            except (OSError, StoreUnavailable) as error:
                raise SetupError(
                    f"no store at {self.address}: {_sentence(error)}; start it, or correct --redis"
                ) from None
            else:
                break
        self._keeper = asyncio.create_task(self._keep())
        self._ticker = self._loop.call_later(TICK, self._tick)

    async def close(self) -> None:
        """End the connection. Calls that still wait fail."""
        self._closed = True
        if self._ticker is not None:
            self._ticker.cancel()
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._wire is not None:
            self._wire.abort("presque is stopping")
        self._fail_waiting(self._loop.time() + GRACE)

    def send(self, command: bytes, receiver: Receiver) -> None:
        """Write one command; `receiver` gets its reply. Never raises, never blocks."""
        wire = self._wire
        if wire is not None:
            if len(wire.calls) < IN_FLIGHT_MOST and wire.unwritten() < UNWRITTEN_MOST:
                wire.send(command, receiver)
            else:
                receiver(StoreUnavailable("the store is too slow for so many requests; try again later"))
        elif self._closed or len(self._waiting) >= IN_FLIGHT_MOST:
            receiver(StoreUnavailable(f"{self._why}; try again later"))
        else:
            self._waiting.append((self._loop.time(), command, receiver))

    async def ask(self, command: bytes) -> Any:
        """Send one encoded command and wait for its reply. Raises `PresqueError`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(command, _into(future))
        return await future

    async def call(self, *parts: str | bytes | int) -> Any:
        """Encode and send one command, and wait for its reply. Raises `PresqueError`."""
        return await self.ask(command(*parts))

    def subscribe(self, channels: Iterable[str]) -> None:
        """Listen to sharded channels from now on, across reconnects."""
        for channel in channels:
            if channel not in self._channels:
                self._channels.add(channel)
                if self._wire is not None:
                    self._wire.write(command("SSUBSCRIBE", channel))

    def unsubscribe(self, channels: Iterable[str]) -> None:
        """Listen no longer."""
        for channel in channels:
            if channel in self._channels:
                self._channels.discard(channel)
                if self._wire is not None:
                    self._wire.write(command("SUNSUBSCRIBE", channel))

    async def _keep(self) -> None:
        """Connect again whenever the connection is lost, with growing, jittered pauses."""
        pause = BACKOFF_FIRST
        while True:
            await self._lost.wait()
            try:
                await self._open()
            except (OSError, PresqueError) as error:
                self._away(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 (jitter, no secret)
                pause = min(pause * 2, BACKOFF_MOST)
            else:
                pause = BACKOFF_FIRST
                log.info("store.back address=%s", self.address)

    def _away(self, error: Exception) -> None:
        """Note why there is no connection, and tell it once."""
        reason = f"the store at {self.address} is away: {_sentence(error)}"
        if reason != self._why:
            log.warning("store.away reason=%r", _sentence(error))
        self._why = reason

    async def _open(self) -> None:
        """Make a connection, log in, check the store, load the functions, then let the callers in."""
        wire = await self._dial()
        try:
            async with asyncio.timeout(PATIENCE):
                self.info = await _greet(wire, self.address)
            async with asyncio.timeout(PATIENCE):
                await _load(wire)
                if self._channels:
                    await _may_listen(wire, min(self._channels))
        except (PresqueError, TimeoutError, OSError) as error:
            wire.abort("the handshake failed")
            if isinstance(error, TimeoutError):
                raise StoreUnavailable("it does not answer") from None
            raise
        if wire.lost:
            raise StoreUnavailable("it closed the connection")
        self._lost.clear()
        wire.owner = self
        self._wire = wire
        for channel in self._channels:
            wire.write(command("SSUBSCRIBE", channel))
        waiting, self._waiting = self._waiting, deque()
        for _, sent, receiver in waiting:
            self.send(sent, receiver)
        self._on_connected()

    async def _dial(self) -> _Wire:
        where = self.address
        try:
            async with asyncio.timeout(PATIENCE):
                if where.unix is not None:
                    _, wire = await self._loop.create_unix_connection(_Wire, where.unix)
                else:
                    context = ssl.create_default_context() if where.tls else None
                    _, wire = await self._loop.create_connection(_Wire, where.host, where.port, ssl=context)
        except TimeoutError:
            asked = "it does not answer in TLS" if where.tls else "it does not answer"
            raise StoreUnavailable(asked) from None
        return wire

    def wire_lost(self, wire: _Wire, reason: str) -> None:
        """The wire calls this when it is gone; its callers know already."""
        if wire is self._wire:
            self._wire = None
            self._why = f"the store at {self.address} is away: {reason}"
            self._lost.set()
            if not self._closed:
                log.warning("store.lost reason=%r", reason)

    def message(self, channel: str, payload: bytes) -> None:
        """The wire calls this for each message on a channel."""
        self._on_message(channel, payload)

    def function_missing(self, sent: bytes, receiver: Receiver) -> None:
        """Load the functions, which some FUNCTION FLUSH or failover took away, and ask once more."""
        self.reloads += 1
        log.warning("store.functions_loaded_again count=%d", self.reloads)
        wire = self._wire
        if wire is None:
            receiver(StoreUnavailable(self._why))
            return
        wire.send(command("FUNCTION", "LOAD", "REPLACE", library.source()), _ignore)
        wire.send(sent, receiver, last_try=True)

    def _tick(self) -> None:
        """Watch the oldest call and give up those that waited too long for the store to come back."""
        self._ticker = self._loop.call_later(TICK, self._tick)
        now = self._loop.time()
        if self._wire is not None:
            self._wire.watch(now)
        elif self._waiting:
            self._fail_waiting(now)

    def _fail_waiting(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] + GRACE <= now:
            _, _, receiver = self._waiting.popleft()
            receiver(StoreUnavailable(self._why))


class _Wire(asyncio.Protocol):
    """One TCP or unix connection, from its first byte to its last."""

    def __init__(self) -> None:
        self.calls: deque[tuple[bytes, Receiver, bool]] = deque()
        self.owner: Store | None = None
        self.lost = False
        self._reader = hiredis.Reader()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._heard = 0.0
        self._asked = 0.0
        self._reason = "the connection was closed"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports share no base class
        self._heard = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.lost:
            return
        self.lost = True
        reason = str(exc) if exc else self._reason
        if self.owner is not None:
            self.owner.wire_lost(self, reason)
        calls, self.calls = self.calls, deque()
        error = StoreUnavailable(
            f"the store did not answer ({reason}); whether the request took effect is unknown", sent=True
        )
        for _, receiver, _ in calls:
            receiver(error)

    def abort(self, reason: str) -> None:
        """Drop the connection now and fail every call on it."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(None)

    def unwritten(self) -> int:
        """Bytes that the kernel has not taken yet."""
        assert self._transport is not None
        return self._transport.get_write_buffer_size()

    def send(self, command: bytes, receiver: Receiver, *, last_try: bool = False) -> None:
        """Write a command whose reply is for `receiver`."""
        self.calls.append((command, receiver, last_try))
        self.write(command)

    def write(self, command: bytes) -> None:
        """Write bytes that get no reply of their own (subscriptions are answered by push messages).

        uvloop joins what is written to one connection during a turn of the loop.
        """
        if not self.lost and self._transport is not None:
            self._transport.write(command)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        reader, calls = self._reader, self.calls
        reader.feed(data)
        while True:
            try:
                reply = reader.gets()
            except hiredis.ProtocolError as error:
                self.abort(f"it does not speak RESP: {error}")
                return
            if reply is False:
                return
            if type(reply) is hiredis.PushNotification:
                if reply[0] == b"smessage" and self.owner is not None:
                    self.owner.message(reply[1].decode(), reply[2])
                continue
            try:
                sent, receiver, last_try = calls.popleft()
            except IndexError:
                self.abort("it answered what nobody had asked")
                return
            if isinstance(reply, hiredis.ReplyError):
                text = str(reply)
                if text.startswith("ERR Function not found") and not last_try and self.owner is not None:
                    self.owner.function_missing(sent, receiver)
                    continue
                reply = _error(text)
            receiver(reply)

    def watch(self, now: float) -> None:
        """Take the connection down if an answer is owed for too long; ask something if it is quiet."""
        if self.calls:
            if now - max(self._heard, self._asked) > PATIENCE:
                self.abort(f"no answer for {PATIENCE:.0f} s")
        elif now - self._heard >= 1:
            self._asked = now
            self.send(b"PING\r\n", _ignore)


def _into(future: asyncio.Future[Any]) -> Receiver:
    def receive(reply: Any) -> None:
        if future.done():
            return
        if isinstance(reply, PresqueError):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    return receive


def _ignore(_reply: Any) -> None:
    pass


def _error(text: str) -> PresqueError:
    """What an error reply means. None of these has changed anything, by the rules of our functions."""
    word = text.split(" ", 1)[0]
    if word == "OOM":
        return StoreFull()
    if word == "LOADING":
        return StoreLoading()
    if word in _AWAY:
        return StoreUnavailable(_AWAY[word])
    return StoreError(f"the store answered: {text}")


_AWAY = {
    "BUSY": "the store is busy with a long call",
    "READONLY": "the store is a replica that takes no writes",
    "MASTERDOWN": "the store is a replica without its primary",
    "MISCONF": "the store cannot write to its disk; see whether it is full",
    "CLUSTERDOWN": "the store's cluster is down",
    "TRYAGAIN": "the store's cluster is moving this queue",
    "NOREPLICAS": "the store has too few replicas to take writes",
}


async def _ask(wire: _Wire, *parts: str | bytes | int) -> Any:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    wire.send(command(*parts), _into(future))
    return await future


async def _greet(wire: _Wire, address: Address) -> StoreInfo:
    """Log in and learn whom we talk to. Raises `SetupError` for a store that presque must not use."""
    hello: list[str] = ["HELLO", "3"]
    if address.password is not None:
        hello += ["AUTH", address.username or "default", address.password]
    try:
        await _ask(wire, *hello)
        if address.db:
            await _ask(wire, "SELECT", address.db)
        await _ask(wire, "CLIENT", "SETNAME", "presque")
        raw = await _ask(wire, "INFO")
    except StoreError as error:
        raise SetupError(_refusal(str(error), address)) from None
    facts = dict(
        line.split(":", 1) for line in bytes(raw).decode("utf-8", "replace").splitlines() if ":" in line
    )
    try:
        setting = await _ask(wire, "CONFIG", "GET", "appendfsync")
        fsync = setting[b"appendfsync"].decode()
    except (StoreError, KeyError, TypeError):
        fsync = "unknown"  # managed stores forbid CONFIG; the operator is told so
    product = "Valkey" if "valkey_version" in facts else "Redis"
    version = facts.get("valkey_version") or facts.get("redis_version", "0")
    info = StoreInfo(
        product,
        tuple(int(part) for part in version.split(".") if part.isdigit()),
        facts.get("maxmemory_policy", "noeviction"),
        facts.get("aof_enabled", "0") == "1",
        fsync,
    )
    if product == "Redis" and info.version < (7, 0):
        raise SetupError(f"the store at {address} is {info}: presque needs Redis 7.0 or later, or Valkey")
    if info.eviction != "noeviction":
        raise SetupError(
            f"the store at {address} has maxmemory-policy {info.eviction}, which throws jobs away "
            "when memory is short; set it to noeviction"
        )
    if facts.get("role") == "slave":
        raise StoreUnavailable("it is a replica; name its primary")
    return info


def _refusal(text: str, address: Address) -> str:
    """A failed login as a sentence that says what to do."""
    text = text.removeprefix("the store answered: ")
    if "unknown command" in text or "NOPROTO" in text:
        return f"the store at {address} is too old: presque needs Redis 7.0 or later, or Valkey"
    if "WRONGPASS" in text or "NOAUTH" in text or "AUTH" in text:
        return f"the store at {address} does not let presque in: check user and password"
    if "DB index" in text:
        return f"the store at {address} has no database {address.db}"
    if "NOPERM" in text:
        return f"the store at {address} does not allow its user enough: {text}"
    return f"the store at {address} refused: {text}"


async def _load(wire: _Wire) -> None:
    """Load our functions unless exactly these are there. Same version means same contract, so another
    build of it may be replaced under a server that runs."""
    source = library.source()
    try:
        found = await _ask(wire, "FUNCTION", "LIST", "LIBRARYNAME", library.NAME, "WITHCODE")
        if found and _code(found[0]) == source.encode():
            return
        await _ask(wire, "FUNCTION", "LOAD", "REPLACE", source)
    except StoreError as error:
        raise SetupError(f"the store does not take presque's functions: {error}") from None


async def _may_listen(wire: _Wire, channel: str) -> None:
    """Find out whether our user may subscribe. A refusal later would be an error that answers no call."""
    wire.write(command("SSUBSCRIBE", channel))
    try:
        await _ask(wire, "PING")
    except StoreError as error:
        namespace = channel.partition(":")[0]
        raise SetupError(
            f"the store's user may not listen to channels: {error}; allow it with `&{namespace}:*`"
        ) from None


def _code(entry: Any) -> bytes:
    if not isinstance(entry, dict):
        entry = dict(zip(entry[::2], entry[1::2], strict=True))
    return bytes(entry.get(b"library_code", b""))


def _sentence(error: BaseException) -> str:
    """An error of the network without its numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid here ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "no reason given").replace("_", " ").lower()
        return f"it does not speak TLS as presque does ({reason})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
