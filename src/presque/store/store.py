"""Calls of the store, over one multiplexed connection.

Theory of operation. Everything that wants the store writes into one connection and gets its reply in
order, so a hundred callers cost one write and one read per turn of the event loop instead of a hundred
(implicit pipelining). Rules that follow:

- Never a blocking command here: it would hold up everybody. Waiters are woken by messages, which come over
  a second connection: see channels.py.
- Replies cannot be skipped. A caller that has disconnected leaves its place in the line; a reply that does
  not come takes the whole connection down, which a watchdog on the oldest call decides (`wire.PATIENCE`).
- A call that was written and lost its reply is never repeated: it may have pushed or fetched. Its caller
  gets `StoreUnavailable(sent=True)`. Only "function not found" is answered by loading the functions and
  asking again, since then nothing can have happened.
- While the store is away calls wait for it for a moment (`link.GRACE`), then fail. Together with `PATIENCE`
  nobody waits longer than 5 s for an answer.
- Calls with large answers say so, and wait until there is room for them: see budget.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from presque.errors import PresqueError, StoreError, StoreUnavailable
from presque.store.address import Address
from presque.store.budget import Budget
from presque.store.greeting import ASKED, Functions, StoreInfo, greet, info_of, load
from presque.store.link import GRACE, Link
from presque.store.wire import PATIENCE, Call, Receiver, Wire, command, into

log = logging.getLogger("presque.store")

LOOK_AGAIN_S = 60.0
IN_FLIGHT_MOST = 20_000
UNWRITTEN_MOST = 64 * 1024 * 1024
QUEUED_MOST = 30.0
ANSWERS_LEAST = 64 * 1024 * 1024
"""Bytes that the store should keep for us: what is asked for at once, and as much again for large jobs."""
TOO_SLOW = "the store is too slow for so many requests; try again later"


class Store(Link):
    """The store to call. `on_connected()` is called each time it can be called, the first time too."""

    def __init__(self, address: Address, functions: Functions, *, on_connected: Callable[[], None]) -> None:
        super().__init__(address)
        self.info: StoreInfo | None = None
        self.reloads = 0
        self._functions = functions
        self._on_connected = on_connected
        self._waiting: deque[tuple[float, Call]] = deque()
        self._loading = False
        self._budget = Budget()

    @property
    def connected(self) -> bool:
        """Whether the store can be called at this moment."""
        return self._wire is not None

    async def close(self) -> None:
        """End the connection. Calls that still wait fail."""
        await super().close()
        self._fail_waiting(float("inf"))

    def send(self, tag: str, command: bytes, receiver: Receiver, answer: int = 0) -> None:  # noqa: ARG002  (`tag` is for several nodes, see below)
        """Write one command; `receiver` gets its reply. Never raises, never blocks.

        `tag` is the hash tag of the keys that the command is about, what stands in braces: it says which
        node of a store of several nodes to ask. There is one node as yet. `answer` is how many bytes the
        reply may have, if it may have many: such a call waits until there is room for it.
        """
        self._send(Call(command, receiver, answer))

    async def ask(self, tag: str, command: bytes, answer: int = 0) -> Any:
        """Send one encoded command and wait for its reply. Raises `PresqueError`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(tag, command, into(future), answer)
        return await future

    async def call(self, tag: str, *parts: str | bytes | int) -> Any:
        """Encode and send one command, and wait for its reply. Raises `PresqueError`."""
        return await self.ask(tag, command(*parts))

    def _send(self, call: Call) -> None:
        wire = self._wire
        if wire is not None:
            if len(wire.calls) + len(self._budget) >= IN_FLIGHT_MOST or wire.unwritten() >= UNWRITTEN_MOST:
                call.receiver(StoreUnavailable(TOO_SLOW))
            elif not call.answer or self._budget.take(call, self._clock()):
                wire.send(call)
        elif self._closed or len(self._waiting) >= IN_FLIGHT_MOST:
            call.receiver(StoreUnavailable(f"{self._why}; try again later"))
        else:
            self._waiting.append((self._clock(), call))

    async def watch_setup(self, every_s: float = LOOK_AGAIN_S) -> None:
        """Look at the settings of the store regularly, until cancelled: they may be changed while it runs. A
        change that can lose jobs is logged, and `info` has the current settings."""
        while True:
            await asyncio.sleep(every_s)
            try:
                raw = await self.call("", "INFO")
                settings: Any = None
                with contextlib.suppress(StoreError):
                    settings = await self.call("", "CONFIG", "GET", *ASKED)
            except PresqueError:
                continue  # it is away, which is logged elsewhere
            before, self.info = self.info, info_of(raw, settings)
            now = self.info
            if before is None or (now.eviction, now.persistent) == (before.eviction, before.persistent):
                continue
            if now.eviction not in ("noeviction", before.eviction):
                log.error("store.evicts address=%s policy=%s", self.address, now.eviction)
            if before.persistent and not now.persistent:
                log.warning("store.not_persistent address=%s", self.address)

    async def _greet(self, wire: Wire) -> None:
        """Log in, check the store, load the functions."""
        async with asyncio.timeout(PATIENCE):
            info = await greet(wire, self.address)
        if self.info is None and 0 < info.answers_most < ANSWERS_LEAST:
            log.warning("store.answers_limited limit=%d needed=%d", info.answers_most, ANSWERS_LEAST)
        self.info = info
        async with asyncio.timeout(PATIENCE):
            await load(wire, self._functions)

    def _up(self) -> None:
        self._loading = False
        waiting, self._waiting = self._waiting, deque()
        for _, call in waiting:
            self._send(call)
        self._on_connected()

    def _down(self) -> None:
        now = self._clock()
        self._waiting.extend((now, call) for call in self._budget.reset())

    def answered(self, size: int) -> None:
        """A large answer has come: those that waited for room go on. The store works while we look at it."""
        for call in self._budget.free(size):
            if self._wire is not None:
                self._wire.send(call)
            else:
                self._waiting.append((self._clock(), call))

    def function_missing(self, call: Call) -> None:
        """Load the functions, which some FUNCTION FLUSH or failover took away, and ask once more.

        They are loaded once, however many calls miss them. Replies come in order, so a call that misses
        them before the loading is answered was sent before it, and finds them when it is sent again.
        """
        wire = self._wire
        if wire is None:
            call.receiver(StoreUnavailable(self._why))
            return
        if not self._loading:
            self._loading = True
            self.reloads += 1
            log.warning("store.functions_loaded_again count=%d", self.reloads)
            load = command("FUNCTION", "LOAD", "REPLACE", self._functions.source)
            wire.send(Call(load, self._loaded))
        if call.answer:
            self._budget.take_again(call.answer)
        wire.send(call._replace(again=True))

    def _loaded(self, reply: Any) -> None:
        self._loading = False
        if isinstance(reply, Exception):
            log.error("store.functions_not_loaded reason=%s", reply)

    def _watch(self, now: float) -> None:
        """Give up those that waited too long: for the store to come back, or for room."""
        if self._wire is None:
            self._fail_waiting(now)
        for call in self._budget.late(now - QUEUED_MOST):
            call.receiver(StoreUnavailable(TOO_SLOW))

    def _fail_waiting(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] + GRACE <= now:
            _, call = self._waiting.popleft()
            call.receiver(StoreUnavailable(self._why))
