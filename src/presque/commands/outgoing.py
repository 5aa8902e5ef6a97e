"""Messages on their way to a client over a connection that stays open, and the jobs in them that go back if
the client leaves before it has taken them; no I/O.

All messages of a turn are written at once, but for those behind one that the client does not take: they are
kept here. So it is known which of them the client cannot have. A job in any of the others is its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from presque.commands.call import Undo


class Outgoing:
    """What is sent to one client. `write` sends bytes, and may call `stick` before it returns; `closing` says
    whether the connection ends."""

    def __init__(self, write: Callable[[bytes], object], closing: Callable[[], bool]) -> None:
        self._write = write
        self._closing = closing
        self._loop = asyncio.get_running_loop()
        self._kept: deque[tuple[bytes, Undo | None]] = deque()
        self._untaken: Undo | None = None  # of the message that the client has begun to take
        self.stuck = False

    def send(self, message: bytes, undo: Undo | None = None) -> None:
        """Write a message at the end of this turn. `undo` puts back the jobs in it."""
        if not self._kept:
            self._loop.call_soon(self.flush)
        self._kept.append((message, undo))

    def stick(self) -> None:
        """The client does not read."""
        self.stuck = True

    def unstick(self) -> None:
        """The client has taken what was written."""
        self.stuck, self._untaken = False, None
        self.flush()

    def flush(self) -> None:
        """Write what the client takes. A message with jobs is the last of what is written at once: while the
        client has not taken all of that, it does not have the jobs."""
        while self._kept and not self.stuck and not self._closing():
            some: list[bytes] = []
            while self._kept and self._untaken is None:
                message, self._untaken = self._kept.popleft()
                some.append(message)
            self._write(b"".join(some))
            if not self.stuck:
                self._untaken = None
        if self._closing():
            self.end()

    def end(self) -> None:
        """The client has left: what it has not taken goes back, the last one first, so that jobs of one queue
        are in their order again."""
        undos = [self._untaken, *(undo for _, undo in self._kept)]
        self._untaken = None
        self._kept.clear()
        for undo in reversed(undos):
            if undo is not None:
                undo()
