"""A few commands to a store whose address is a unix socket, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import socket as socket_options
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import hiredis


class Call:
    """A connection to the store for a few commands, one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._replies = hiredis.Reader(encoding="utf-8", errors="surrogateescape")

    @property
    def pid(self) -> int | None:
        """The process that listens there, as the kernel knows it; None where it does not tell."""
        peer = self._writer.get_extra_info("socket")
        if peer is None or not hasattr(socket_options, "SO_PEERCRED"):
            return None
        found = peer.getsockopt(socket_options.SOL_SOCKET, socket_options.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", found)[0])

    async def __call__(self, command: str) -> Any:
        """The reply to a command, be it an error. Raises `OSError` when the connection ends instead."""
        return await self._answer(f"{command}\r\n".encode())

    async def ask(self, *words: str) -> Any:
        """The same for a command whose words may hold anything."""
        packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub means one part only
        return await self._answer(packed)

    async def _answer(self, sent: bytes) -> Any:
        self._writer.write(sent)
        while (reply := self._replies.gets()) is False:
            part = await self._reader.read(65536)
            if not part:
                raise ConnectionResetError("the store has closed the connection")
            self._replies.feed(part)
        return reply


@contextlib.asynccontextmanager
async def connected(socket: Path) -> AsyncIterator[Call]:
    """A connection to the store. Raises `OSError` if nobody listens."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        yield Call(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def is_busy(reply: Any) -> bool:
    """Whether the store lives but answers nothing yet: it reads its data, or is in a long function."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(("LOADING", "BUSY"))
