"""The body of a request in parts, as it arrives: for requests whose bodies need not fit into memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from presque.errors import PresqueError
from presque.http.chunked import Framing

AHEAD_BYTES = 512 * 1024


class Parts:
    """The body of a request as it comes, in parts. Nothing more is read from the client while as much as
    AHEAD_BYTES waits to be taken."""

    __slots__ = ("_arrived", "_ended", "_error", "_ready", "_room")

    def __init__(self, room: Callable[[], None]) -> None:
        self._ready = bytearray()
        self._room = room  # called when there is room again
        self._ended = False
        self._error: PresqueError | None = None
        self._arrived: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether no more should be read."""
        return len(self._ready) >= AHEAD_BYTES

    @property
    def cut_short(self) -> bool:
        """Whether nothing more is wanted, since an error ended the body."""
        return self._error is not None

    def put(self, part: bytes, *, ended: bool = False, error: PresqueError | None = None) -> None:
        """Some more has come; or the last, or nothing more will come because of an error."""
        self._ready += part
        self._ended = ended
        self._error = error
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def _taken(self) -> bytes:
        part = bytes(self._ready)
        self._ready.clear()
        self._room()
        return part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Each part once; raises the error that cut the body short."""
        while True:
            if self._ready:
                yield self._taken()  # kept in no variable while the next one is awaited
            elif self._error is not None:
                raise self._error
            elif self._ended:
                return
            else:
                self._arrived = asyncio.get_running_loop().create_future()
                await self._arrived


class Incoming:
    """A body on its way: cut off the front of what a connection has received, and put into its parts."""

    __slots__ = ("_framing", "_left", "parts")

    def __init__(self, length: int, room: Callable[[], None], *, chunked: bool) -> None:
        self.parts = Parts(room)
        self._left = length  # to come, unless it is chunked
        self._framing = Framing(0) if chunked else None

    def take(self, buffer: bytearray) -> bool:
        """Take what has come of it. Returns whether that was the end. Raises `BadHead` for a
        framing error."""
        if self._framing is None:
            part = bytes(buffer[: self._left])
            del buffer[: len(part)]
            self._left -= len(part)
            ended = not self._left
        else:
            part = self._framing.take(buffer)
            ended = self._framing.end is not None
        self.parts.put(part, ended=ended)
        return ended

    def fail(self, error: PresqueError) -> None:
        """No more of it is wanted, or will come: that is the answer."""
        self.parts.put(b"", error=error)
