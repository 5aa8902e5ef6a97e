"""One connection to the store, on hiredis: replies come in the order of the calls.

A reply cannot be skipped: a caller that has disconnected leaves its place in the line. A reply that does not
come takes the whole connection down, which a watchdog on the oldest call decides (`PATIENCE`).

A subscription has its place in the line, too. The store answers it with a push message, or with an ordinary
error if it refuses. Without a place that error would go to the next caller, and each one after it would get
its neighbour's reply.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import hiredis

from presque.errors import PresqueError, StoreError, StoreFull, StoreLoading, StoreUnavailable
from presque.store.trust import sentence

log = logging.getLogger("presque.store")

PATIENCE = 3.0
"""Seconds in which a store answers, or takes more of what is sent. See `Wire.patience` for large calls."""
SLOWEST = 16 * 1024 * 1024
"""Bytes that a store copies and writes to its disk in a second, at least: it does not answer meanwhile."""
JUDGE_S = 0.02
UNUSABLE = "internal error: presque could not use the answer of the store; see the server log"

Receiver = Callable[[Any], None]
"""Called once, with the reply or with a `PresqueError`. If it raises, that is logged and it is called once
more, with an error, so that its waiter gets an answer."""


class Call(NamedTuple):
    """A command on its way, and who gets its reply."""

    command: bytes
    receiver: Receiver
    answer: int = 0
    """Bytes that the reply may have, where that is worth counting."""
    again: bool = False
    """It was sent before, and its function was missing."""


class _Subscription(NamedTuple):
    """A place in the line for a push message (`ssubscribe` or `sunsubscribe`), or for an error."""

    kind: bytes
    channel: bytes
    receiver: Receiver
    answer: int = 0


class Owner(Protocol):
    """The owner of a wire. The wire calls it when something happens."""

    def wire_lost(self, wire: Wire, reason: str) -> None:
        """The wire is gone. Its callers get the error after this."""

    def answered(self, size: int) -> None:
        """A call with an `answer` of this size has its reply."""

    def function_missing(self, call: Call) -> None:
        """A call found no function, so nothing has happened yet. Its receiver waits."""

    def message(self, channel: bytes, payload: bytes) -> None:
        """A message arrived on a channel."""

    def dropped(self, channel: bytes) -> None:
        """The store ended a subscription by itself, as a Cluster does when a slot moves."""


class Nobody:
    """An owner that ignores everything, as during the greeting."""

    def wire_lost(self, wire: Wire, reason: str) -> None:
        """Do nothing."""

    def answered(self, size: int) -> None:
        """Do nothing."""

    def function_missing(self, call: Call) -> None:
        """Give the caller an error."""
        call.receiver(StoreError("the store has lost presque's functions"))

    def message(self, channel: bytes, payload: bytes) -> None:
        """Do nothing."""

    def dropped(self, channel: bytes) -> None:
        """Do nothing."""


def command(*parts: str | bytes | int) -> bytes:
    """Encode one command for the wire."""
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub means one part only
    return packed


def into(future: asyncio.Future[Any]) -> Receiver:
    """A receiver that settles a future, unless its caller has been cancelled."""

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
        self.calls: deque[Call | _Subscription] = deque()
        self.owner: Owner = Nobody()
        self.lost = False
        self._reader = hiredis.Reader()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._heard = 0.0
        self._asked = 0.0
        self._written = 0
        self._taken = 0  # by the kernel, as `watch` saw it last
        self._backed_up = False  # the kernel did not take everything then
        self.reason = "the connection was closed"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports share no base class
        self._heard = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.lost:
            return
        self.lost = True
        reason = self.reason = sentence(exc) if exc else self.reason
        self.owner.wire_lost(self, reason)
        calls, self.calls = self.calls, deque()
        error = StoreUnavailable(
            f"the store did not answer ({reason}); whether the request took effect is unknown", sent=True
        )
        for call in calls:
            _give(call.receiver, error)

    def abort(self, reason: str) -> None:
        """Drop the connection now and fail every call on it."""
        if self.lost:
            return
        self.reason = reason
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(None)

    def unwritten(self) -> int:
        """Bytes that the kernel has not taken yet."""
        assert self._transport is not None
        return self._transport.get_write_buffer_size()

    def send(self, call: Call) -> None:
        """Write a command whose reply is for the receiver of `call`."""
        if self.lost:
            _give(call.receiver, StoreUnavailable(self.reason))
            return
        if not self.calls:  # what came before does not answer this call
            self._asked = self._loop.time()
        self.calls.append(call)
        self._write(call.command)

    def subscribe(self, channel: bytes, receiver: Receiver) -> None:
        """Listen to a sharded channel; `receiver` gets None once messages arrive, or why they will not."""
        self._change(b"ssubscribe", channel, receiver)

    def unsubscribe(self, channel: bytes) -> None:
        """Stop listening to a sharded channel."""
        self._change(b"sunsubscribe", channel, ignore)

    async def ask(self, *parts: str | bytes | int) -> Any:
        """Send one command and wait for its reply. Raises `PresqueError`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(Call(command(*parts), into(future)))
        return await future

    def _change(self, kind: bytes, channel: bytes, receiver: Receiver) -> None:
        if self.lost:
            _give(receiver, StoreUnavailable(self.reason))
            return
        if not self.calls:
            self._asked = self._loop.time()
        self.calls.append(_Subscription(kind, channel, receiver))
        self._write(command(kind, channel))

    def _write(self, data: bytes) -> None:
        """uvloop joins what is written to one connection during a turn of the loop."""
        if self._transport is not None:
            self._written += len(data)
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        reader, calls = self._reader, self.calls
        reader.feed(data)
        while not self.lost:
            try:
                reply = reader.gets()
            except hiredis.ProtocolError as error:
                self.abort(f"it does not speak RESP: {error}")
                return
            if reply is False:
                return
            if type(reply) is hiredis.PushNotification:
                self._pushed(reply)
                continue
            try:
                call = calls.popleft()
            except IndexError:
                self.abort("it sent an answer that nobody had asked for")
                return
            if call.answer:
                self.owner.answered(call.answer)
            if isinstance(reply, hiredis.ReplyError):
                text = str(reply)
                if type(call) is Call and not call.again and text.startswith("ERR Function not found"):
                    self.owner.function_missing(call)
                    continue
                reply = error_of(text)
            elif type(call) is not Call:
                calls.appendleft(call)
                self.abort("it answered a subscription with something else")
                return
            try:
                call.receiver(reply)
            except Exception:
                log.exception("store.receiver_failed")
                _give(
                    call.receiver,
                    StoreError(UNUSABLE),
                )

    def _pushed(self, push: Any) -> None:
        kind, channel = push[0], push[1]
        if kind == b"smessage":
            try:
                self.owner.message(channel, push[2])
            except Exception:
                log.exception("store.hearer_failed channel=%s", channel.decode("utf-8", "replace"))
            return
        first = self.calls[0] if self.calls else None
        if type(first) is _Subscription and (first.kind, first.channel) == (kind, channel):
            self.calls.popleft()
            _give(first.receiver, None)
        elif kind == b"sunsubscribe":
            self.owner.dropped(channel)

    def watch(self, now: float) -> None:
        """Take the connection down if an answer is owed for too long; ask something if it is quiet.

        A store that goes on reading what is sent is alive: a large call over a slow link has no answer before
        it is there. Only where the kernel holds something back does it show that the store reads.
        """
        unwritten = self.unwritten()
        taken = self._written - unwritten
        if self._backed_up and taken > self._taken:
            self._heard = now
        self._taken, self._backed_up = taken, unwritten > 0
        if self.calls:
            if self._too_late(now):
                # Timers come before the socket in a turn of the loop, so an answer may be there unread.
                self._loop.call_later(JUDGE_S, self._judge)
        elif now - self._heard >= 1:
            self.send(Call(b"PING\r\n", ignore))

    def patience(self) -> float:
        """For how many seconds the store may be silent now: longer when it has large calls to work on."""
        return PATIENCE + sum(len(call.command) for call in self.calls if type(call) is Call) / SLOWEST

    def _too_late(self, now: float) -> bool:
        silence = now - max(self._heard, self._asked)
        return silence > PATIENCE and silence > self.patience()

    def _judge(self) -> None:
        now = self._loop.time()
        if self.calls and self._too_late(now):
            self.abort(f"no answer for {now - max(self._heard, self._asked):.0f} s")

    def forgive(self, seconds: float) -> None:
        """Do not count a time in which this process did not run: nothing could be read then."""
        now = self._loop.time()
        self._heard = min(now, self._heard + seconds)
        self._asked = min(now, self._asked + seconds)


def _give(receiver: Receiver, reply: Any) -> None:
    try:
        receiver(reply)
    except Exception:
        log.exception("store.receiver_failed")


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
    "READONLY": "the store is a replica that accepts no writes",
    "MASTERDOWN": "the store is a replica without its primary",
    "MISCONF": "the store cannot write to its disk; see whether it is full",
    "CLUSTERDOWN": "the store's cluster is down",
    "TRYAGAIN": "the store's cluster is moving this queue",
    "NOREPLICAS": "the store has too few replicas to take writes",
}
