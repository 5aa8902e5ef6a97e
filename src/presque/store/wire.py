"""One connection to the store, on hiredis: replies come in the order of the calls.

A reply cannot be skipped: a caller that has gone leaves its place in the line. A reply that does not come
takes the whole connection down, which a watchdog on the oldest call decides (`PATIENCE`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import hiredis

from presque.errors import PresqueError, StoreError, StoreFull, StoreLoading, StoreUnavailable

PATIENCE = 3.0

Receiver = Callable[[Any], None]
"""Called exactly once, with the reply or with a `PresqueError`. Must not raise."""


class Owner(Protocol):
    """Whoever keeps a wire and wants to know what happens on it."""

    def wire_lost(self, wire: Wire, reason: str) -> None:
        """The wire is gone; its callers know already."""

    def message(self, channel: str, payload: bytes) -> None:
        """A message arrived on a channel."""

    def function_missing(self, sent: bytes, receiver: Receiver) -> None:
        """A call found no function, so nothing has happened yet."""


def command(*parts: str | bytes | int) -> bytes:
    """Encode one command for the wire."""
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub means one part only
    return packed


def into(future: asyncio.Future[Any]) -> Receiver:
    """A receiver that settles a future, unless its caller has gone."""

    def receive(reply: Any) -> None:
        if future.done():
            return
        if isinstance(reply, PresqueError):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    return receive


def ignore(_reply: Any) -> None:
    """A receiver for a reply that nobody wants."""


class Wire(asyncio.Protocol):
    """One TCP or unix connection, from its first byte to its last."""

    def __init__(self) -> None:
        self.calls: deque[tuple[bytes, Receiver, bool]] = deque()
        self.owner: Owner | None = None
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
                reply = error_of(text)
            receiver(reply)

    def watch(self, now: float) -> None:
        """Take the connection down if an answer is owed for too long; ask something if it is quiet."""
        if self.calls:
            if now - max(self._heard, self._asked) > PATIENCE:
                self.abort(f"no answer for {PATIENCE:.0f} s")
        elif now - self._heard >= 1:
            self._asked = now
            self.send(b"PING\r\n", ignore)

    async def ask(self, *parts: str | bytes | int) -> Any:
        """Send one command and wait for its reply. Raises `PresqueError`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(command(*parts), into(future))
        return await future


def error_of(text: str) -> PresqueError:
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
