"""A connection to the store that comes back by itself, and knows when this process was held up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

from presque.errors import PresqueError, SetupError, StoreLoading, StoreUnavailable
from presque.store.address import Address
from presque.store.trust import context_of, sentence
from presque.store.wire import PATIENCE, Nobody, Wire

log = logging.getLogger("presque.store")

GRACE = 1.5
TICK = 0.25
BACKOFF_FIRST, BACKOFF_MOST = 0.02, 0.5


class Link(Nobody):
    """Keeps one `Wire` to the store. Subclasses say what it is for."""

    carries = "calls"
    """What the log calls it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._wire: Wire | None = None
        self._loop = asyncio.get_running_loop()
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._ticker: asyncio.TimerHandle | None = None
        self._tick_due = 0.0
        self._held_up = 0.0
        self._closed = False
        self._why = "the store has not been reached yet"
        self.loading = False
        """Whether the store was still reading its data when it was last tried."""

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
                    f"no store at {self.address}: {sentence(error)}; start it, or correct --redis"
                ) from None
            else:
                break
        self._keeper = asyncio.create_task(self._keep())
        self._tick_later()

    async def close(self) -> None:
        """End the connection. What waits for it fails."""
        self._closed = True
        if self._ticker is not None:
            self._ticker.cancel()
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._wire is not None:
            self._wire.abort("presque is stopping")

    # --- for those who derive from it -----------------------------------------------------------

    async def _greet(self, wire: Wire) -> None:
        """The first words. Raises `PresqueError` if there is nothing to be had here."""

    def _up(self) -> None:
        """The connection is there, for the first time or again."""

    def _down(self) -> None:
        """The connection is gone."""

    def _watch(self, now: float) -> None:
        """A moment has passed, by `_clock`."""

    def _clock(self) -> float:
        """Seconds in which this process could run: a pause of the process is left out, once noticed."""
        return self._loop.time() - self._held_up

    # --- keeping it -----------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Connect again whenever the connection is lost, with growing, jittered pauses."""
        pause = BACKOFF_FIRST
        while True:
            await self._lost.wait()
            try:
                await self._open()
            except (OSError, PresqueError) as error:
                self._away(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 (jitter, no secret)  # nosec B311
                pause = min(pause * 2, BACKOFF_MOST)
            else:
                pause = BACKOFF_FIRST
                log.info("store.back address=%s carries=%s", self.address, self.carries)

    def _away(self, error: Exception) -> None:
        """Note why there is no connection, and log it once."""
        reason = f"the store at {self.address} is away: {sentence(error)}"
        if reason != self._why:
            log.warning("store.away reason=%r carries=%s", sentence(error), self.carries)
        self._why = reason
        self.loading = isinstance(error, StoreLoading)

    async def _open(self) -> None:
        wire = await self._dial()
        try:
            await self._greet(wire)
        except BaseException as error:
            wire.abort("the handshake failed")
            if isinstance(error, TimeoutError):
                raise StoreUnavailable("it does not answer") from None
            if isinstance(error, StoreUnavailable) and error.sent:  # nothing was asked that has an effect
                raise StoreUnavailable(wire.reason) from None
            raise
        if wire.lost:
            raise StoreUnavailable("it closed the connection")
        self._lost.clear()
        wire.owner = self
        self._wire, self.loading = wire, False
        self._up()

    async def _dial(self) -> Wire:
        where = self.address
        try:
            async with asyncio.timeout(PATIENCE):
                if where.unix is not None:
                    _, wire = await self._loop.create_unix_connection(Wire, where.unix)
                else:
                    context = context_of(where)
                    name = where.server_name if context is not None else None
                    _, wire = await self._loop.create_connection(
                        Wire, where.host, where.port, ssl=context, server_hostname=name
                    )
        except TimeoutError:
            asked = "it does not answer in TLS" if where.tls else "it does not answer"
            raise StoreUnavailable(asked) from None
        return wire

    def wire_lost(self, wire: Wire, reason: str) -> None:
        """The wire is gone. Its callers get the error after this."""
        if wire is self._wire:
            self._wire = None
            self._why = f"the store at {self.address} is away: {reason}"
            self._lost.set()
            if not self._closed:
                log.warning("store.lost reason=%r carries=%s", reason, self.carries)
            self._down()

    def _tick_later(self) -> None:
        self._tick_due = self._loop.time() + TICK
        self._ticker = self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        """Look after the connection. A tick that comes late tells that the process was held up."""
        late = self._loop.time() - self._tick_due
        self._tick_later()
        if late > TICK:
            # Answers may have arrived meanwhile: read them before judging anybody.
            self._held_up += late
            if self._wire is not None:
                self._wire.forgive(late)
            return
        if self._wire is not None:
            self._wire.watch(self._loop.time())
        self._watch(self._clock())
