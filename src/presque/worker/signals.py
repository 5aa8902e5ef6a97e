"""Signals, heard in the lease loop, whichever thread that runs in.

Python runs its handlers in the main thread, which may be deep in a job, or wait for a lock that nothing
interrupts because the kernel gave the signal to another thread. So the handlers do nothing, and what counts
is the byte that Python's own handler, in C, writes into a socket at once (`signal.set_wakeup_fd`). The lease
loop reads it.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

Handlers = Mapping[int, Callable[[], None]]


class Signals:
    """The reading end: `fileno` for the loop to watch, `hear` to call when there is something."""

    def __init__(self, reading: socket.socket, handlers: Handlers) -> None:
        self._reading, self._handlers = reading, handlers

    def fileno(self) -> int:
        """What becomes readable when a signal has come."""
        return self._reading.fileno()

    def hear(self) -> None:
        """Call the handler of each signal that has come."""
        with contextlib.suppress(BlockingIOError):
            for number in self._reading.recv(4096):
                handler = self._handlers.get(number)
                if handler is not None:
                    handler()


@contextlib.contextmanager
def heard(handlers: Handlers, raising: Mapping[int, Callable[[FrameType | None], None]]) -> Iterator[Signals]:
    """Hear these signals as long as it lasts, in the main thread only. Those of before come back afterwards.

    `raising` are called in the main thread, as Python does it: they may raise in what runs there.
    """
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    before: dict[int, Any] = {number: signal.signal(number, _nothing) for number in handlers}
    before |= {number: signal.signal(number, _calling(step)) for number, step in raising.items()}
    wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    try:
        yield Signals(reading, handlers)
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        reading.close()
        writing.close()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Python's own handler has written the byte."""


def _calling(step: Callable[[FrameType | None], None]) -> Callable[[int, FrameType | None], None]:
    return lambda _number, frame: step(frame)
