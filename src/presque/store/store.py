"""One multiplexed connection to the store, which comes back by itself.

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
from typing import Any

from presque.errors import PresqueError, SetupError, StoreLoading, StoreUnavailable
from presque.store.address import Address
from presque.store.greeting import Functions, StoreInfo, greet, load, may_listen
from presque.store.wire import PATIENCE, Receiver, Wire, command, ignore, into

log = logging.getLogger("presque.store")

GRACE = 1.5
TICK = 0.25
IN_FLIGHT_MOST = 20_000
UNWRITTEN_MOST = 64 * 1024 * 1024
BACKOFF_FIRST, BACKOFF_MOST = 0.02, 0.5


class Store:
    """A connection that comes back by itself.

    `on_message(channel, payload)` gets what arrives on subscribed channels. `on_connected()` is called
    each time the connection is ready, the first time too: messages may have been missed before.
    """

    def __init__(
        self,
        address: Address,
        functions: Functions,
        *,
        on_message: Callable[[str, bytes], None],
        on_connected: Callable[[], None],
    ) -> None:
        self.address = address
        self._functions = functions
        self.info: StoreInfo | None = None
        self.reloads = 0
        self._on_message = on_message
        self._on_connected = on_connected
        self._wire: Wire | None = None
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
        self.send(command, into(future))
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
                self.info = await greet(wire, self.address)
            async with asyncio.timeout(PATIENCE):
                await load(wire, self._functions)
                if self._channels:
                    await may_listen(wire, min(self._channels))
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

    async def _dial(self) -> Wire:
        where = self.address
        try:
            async with asyncio.timeout(PATIENCE):
                if where.unix is not None:
                    _, wire = await self._loop.create_unix_connection(Wire, where.unix)
                else:
                    context = ssl.create_default_context() if where.tls else None
                    _, wire = await self._loop.create_connection(Wire, where.host, where.port, ssl=context)
        except TimeoutError:
            asked = "it does not answer in TLS" if where.tls else "it does not answer"
            raise StoreUnavailable(asked) from None
        return wire

    def wire_lost(self, wire: Wire, reason: str) -> None:
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
        wire.send(command("FUNCTION", "LOAD", "REPLACE", self._functions.source), ignore)
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
