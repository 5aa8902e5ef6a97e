"""Gathers what many callers ask of one queue into one call of the store.

For each queue one call of a kind is under way at a time, and what is asked meanwhile goes out together
when it comes back (group commit). A request goes out at the end of its turn of the event loop, with those
that came in the same turn; with 64 connections some fifty pushes share one call, one reading of the clock and
one write to disk. If the call before it was for one caller alone nobody else is expected, and it goes out at
once, which saves a lone client a turn of the event loop (bench/before.py).

Calls would stay small if each went out as soon as the one before it came back: those who were just answered
ask again a moment later, too late for it, and the two processes wake each other for a handful of requests.
So a call under load waits until half of all who take part have asked, or for GATHER_TURNS turns of the event
loop, which pass in some ten microseconds when nobody asks.

While a call for several callers is under way the event loop does not go to sleep: it would be woken a
moment later, and under load the wake-ups of two processes cost more than the wait. This ends after
SPIN_TURNS turns, a fraction of a millisecond. Neither begins for fewer than LOAD_FROM callers, so an idle or
lightly used server sleeps and waits for nobody. bench/gathering.py prints what all of this is worth.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from presque.errors import StoreError
from presque.store.wire import UNUSABLE

log = logging.getLogger("presque.engine")

CALLS_MOST = 500
LOAD_FROM = 5
GATHER_TURNS = 4
SPIN_TURNS = 200
BYTES_MOST = 1024 * 1024
SMALL = BYTES_MOST // CALLS_MOST
"""Bytes that need not be counted: that many callers with no more each keep the bound."""

Send = Callable[[str, "Batch", Callable[[Any], None]], None]
"""Sends the call for a batch of one queue; the reply, or a `PresqueError`, goes to the function."""

Deliver = Callable[[str, "Batch", Any], None]
"""Tells everybody in a batch of one queue what the reply means for them. If it raises, it has told nobody."""


class Batch:
    """What goes out together: the callers, in the order they came, and what each of them asks."""

    __slots__ = ("args", "callers", "size")

    def __init__(self) -> None:
        self.callers: list[Any] = []
        self.args: list[Any] = []
        self.size = 0


def deal(callers: list[Any], answers: list[Any]) -> None:
    """Give each caller its answer. One that raises harms no other."""
    for caller, answer in zip(callers, answers, strict=True):
        try:
            caller(answer)
        except Exception:
            log.exception("store.receiver_failed")
            offer(caller, StoreError(UNUSABLE))


def offer(caller: Callable[[Any], bool], found: Any) -> bool:
    """Give a caller its answer; whether it took it. One that raises takes nothing and harms no other."""
    try:
        return caller(found)
    except Exception:
        log.exception("store.receiver_failed")
        return False


class _Queue:
    __slots__ = ("batch", "scheduled", "under_way")

    def __init__(self) -> None:
        self.batch = Batch()
        self.scheduled = False
        self.under_way = 0


class Batches:
    """The calls of one kind, such as all pushes."""

    def __init__(self, send: Send, deliver: Deliver) -> None:
        self._send = send
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._queues: dict[str, _Queue] = {}
        self._turns = 0  # that the loop may still take without sleeping
        self._awake = 0  # calls for which it stays awake
        self._alone = False  # whether the last call was for one caller, so that nobody else is expected

    def add(self, queue: str, caller: Any, args: Any = None, size: int = 0) -> None:
        """Let `caller` take part in the next call for `queue`, with what it asks, of so many bytes."""
        try:
            state = self._queues[queue]
        except KeyError:
            state = self._queues[queue] = _Queue()
        batch = state.batch
        callers = batch.callers
        callers.append(caller)
        batch.args.append(args)
        if size > SMALL:
            batch.size += size
            if batch.size >= BYTES_MOST:
                self._go(queue, state)
                return
        count = len(callers)
        if count == 1:  # nobody else can have seen to it that the batch goes
            if not state.scheduled and not state.under_way:
                if self._alone:
                    self._go(queue, state)
                else:
                    state.scheduled = True
                    self._loop.call_soon(self._turn_ends, queue, state, 0, 0)
        elif count == CALLS_MOST:
            self._go(queue, state)

    @property
    def busy(self) -> bool:
        """Whether anything is gathered or under way."""
        return bool(self._queues)

    def _turn_ends(self, queue: str, state: _Queue, wanted: int, turns: int) -> None:
        """Send what was gathered, but wait up to `turns` turns for `wanted` callers."""
        if turns and len(state.batch.callers) < wanted:
            self._loop.call_soon(self._turn_ends, queue, state, wanted, turns - 1)
            return
        state.scheduled = False
        if state.under_way:
            return
        if state.batch.callers:
            self._go(queue, state)
        else:
            self._forget(queue, state)

    def _forget(self, queue: str, state: _Queue) -> None:
        if self._queues.get(queue) is state:
            del self._queues[queue]

    def _go(self, queue: str, state: _Queue) -> None:
        batch, state.batch = state.batch, Batch()
        state.under_way += 1
        sent = len(batch.callers)
        busy = sent >= LOAD_FROM
        if busy:
            self._stay_awake()

        def receive(reply: Any) -> None:
            state.under_way -= 1
            if busy:
                self._awake -= 1
            # The next call first: the store works on it while the answers to this one are written.
            gathered = len(state.batch.callers)
            wanted = (sent + gathered) // 2 if sent + gathered >= LOAD_FROM else 0
            if gathered and gathered >= wanted and not state.under_way:
                self._go(queue, state)
            elif wanted and not state.scheduled:
                state.scheduled = True
                self._loop.call_soon(self._turn_ends, queue, state, wanted, GATHER_TURNS)
            self._alone = sent == 1
            try:
                self._deliver(queue, batch, reply)
            except Exception:
                log.exception("store.receiver_failed")
                for caller in batch.callers:
                    offer(caller, StoreError(UNUSABLE))
            if not (state.under_way or state.scheduled or state.batch.callers):
                self._forget(queue, state)

        self._send(queue, batch, receive)

    def _stay_awake(self) -> None:
        self._awake += 1
        if self._turns == 0:
            self._loop.call_soon(self._turn)
        self._turns = SPIN_TURNS

    def _turn(self) -> None:
        self._turns = self._turns - 1 if self._awake else 0
        if self._turns:
            self._loop.call_soon(self._turn)
