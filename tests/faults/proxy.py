"""A proxy in front of a store that does to calls what networks do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Literal

Fate = Literal["cut", "drop", "blackhole", "reset", "hold", "pass"]


class Proxy:
    """Passes everything on until a trap is set.

    Then the first bytes that hold the trap meet their `fate`: they reach the store, and instead of their
    reply the connection ends ("cut") or falls silent ("drop"); or they do not reach it, and the connection
    falls silent ("blackhole"), ends ("reset"), or brings the replies to what was sent before ("hold"); or
    nothing happens to them ("pass"). `times` is how often they reach the store, which is for showing that a
    test would notice.
    """

    def __init__(self, store_socket: str) -> None:
        self.store_socket = store_socket
        self.traps: list[tuple[bytes, Fate, int]] = []
        self.caught = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()

    def catch(self, trap: bytes, fate: Fate, times: int = 1) -> None:
        """Let the next bytes that hold `trap` meet their fate; everything after them passes.

        A trap that is set while another waits is looked at once that one was sprung.
        """
        self.traps.append((trap, fate, times))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_unix_connection(self.store_socket)
        doomed: list[Fate] = []

        async def to_store() -> None:
            while data := await reader.read(65536):
                if self.traps and self.traps[0][0] in data:
                    _, fate, times = self.traps.pop(0)
                    self.caught += 1
                    if fate == "hold":
                        await asyncio.Future()
                    if fate != "pass":
                        doomed.append(fate)
                    if fate == "reset":
                        return
                    data *= times
                if "blackhole" not in doomed:
                    store_writer.write(data)

        async def to_presque() -> None:
            while data := await store_reader.read(65536):
                if "cut" in doomed:
                    return
                if not doomed:
                    writer.write(data)

        pumps = [asyncio.create_task(to_store()), asyncio.create_task(to_presque())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, store_writer):
                end.transport.abort()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._over = asyncio.Event()

        async def main() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._over.wait()
            server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._loop.run_until_complete(main())
        self._loop.close()


@contextlib.contextmanager
def proxy(store_socket: str) -> Iterator[Proxy]:
    """Run a proxy in a thread of its own."""
    found = Proxy(store_socket)
    ready = threading.Event()
    thread = threading.Thread(target=found._run, args=(ready,))
    thread.start()
    try:
        assert ready.wait(30)
        yield found
    finally:
        found._loop.call_soon_threadsafe(found._over.set)
        thread.join(30)
