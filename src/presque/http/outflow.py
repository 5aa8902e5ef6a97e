"""How the parts of an answer leave, and what is known of a client that does not take them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

READ_LEAST_BYTES = 64 * 1024  # what a client takes of an answer in `limits.unread`
SPARING_BYTES = 2048  # what the socket of a sparing answer holds; Linux doubles it and has a least of its own
ROOMY_BYTES = 1024 * 1024  # what it holds of a large part, all but its end; Linux has a most of its own
LARGE_PART_BYTES = 16 * 1024


class Stuck:
    """An answer that its client does not take for the moment."""

    __slots__ = ("_left", "_over", "size", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.size = self._left = transport.get_write_buffer_size()
        self._over: asyncio.Future[None] | None = None

    def look(self) -> None:
        """From now on it is asked how much the client takes."""
        self._left = self.transport.get_write_buffer_size()

    def moves(self) -> bool:
        """Whether the client has taken enough since we looked before."""
        before = self._left
        self.look()
        return before - self._left >= READ_LEAST_BYTES

    async def over(self) -> None:
        """Return when the client has taken it, or will not."""
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        await self._over

    def end(self) -> None:
        """The client has taken it, or will not."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


class Outflow:
    """Sends an answer part by part, each when the one before it has left for the client.

    The socket of a `sparing` answer holds little: what it holds is lost when the client leaves. A large part
    passes through a socket that holds much, all but its end, so no more than the socket holds is on its way.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        sent: Callable[[], Awaitable[None]],
        *,
        chunked: bool,
        sparing: bool,
    ) -> None:
        self._transport = transport
        self._sent = sent  # returns when what was written has left
        self._chunked = chunked
        self._sparing = sparing
        transport.set_write_buffer_limits(high=0)
        if sparing:
            self._hold_in_socket(SPARING_BYTES)

    async def send(self, part: bytes) -> None:
        """Send a part, and return when it has left. If the caller is cancelled meanwhile, all of the part is
        written nevertheless, so that a client that reads on can make sense of what follows."""
        rest = memoryview(b"%x\r\n%b\r\n" % (len(part), part) if self._chunked else part)
        if self._sparing and len(rest) > LARGE_PART_BYTES:
            self._hold_in_socket(ROOMY_BYTES)
            self._transport.write(rest[:-SPARING_BYTES])
            rest = rest[-SPARING_BYTES:]
            try:
                await self._sent()
            except asyncio.CancelledError:
                self._write(rest)
                raise
            self._hold_in_socket(SPARING_BYTES)  # before the end, which it takes only when it holds little
        self._write(rest)
        await self._sent()

    def _write(self, data: memoryview) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def end(self, *, kept: bool) -> None:
        """That was the last part. Whether the connection is `kept`: if not, all counts that the client has
        not taken."""
        if kept:
            self._transport.set_write_buffer_limits()
        if self._chunked:
            self._transport.write(b"0\r\n\r\n")

    def _hold_in_socket(self, most: int) -> None:
        """Let the socket hold so many bytes that the client has not taken yet."""
        taken = None if self._transport.is_closing() else self._transport.get_extra_info("socket")
        if taken is not None:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, most)
