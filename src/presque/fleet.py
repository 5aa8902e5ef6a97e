"""Several processes that serve one listening socket on one store.

Any one of them can die: it is replaced, and the others go on. All of them stop when their parent does,
even if it was killed, since each watches the pipe that it got its settings through.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Any, NamedTuple

from presque import codec
from presque.config import Settings
from presque.errors import SetupError
from presque.store.address import Address

log = logging.getLogger("presque.server")

RESTART_AFTER_S = 0.5


class Told(NamedTuple):
    """What a process of a fleet is told on its standard input."""

    settings: Settings
    address: Address
    listener: int


class Fleet:
    """Several processes that serve one listening socket on one store."""

    def __init__(self, settings: Settings, address: Address, listener: socket.socket) -> None:
        self._listener = listener
        self._told = codec.encode_typed(Told(settings, address, listener.fileno()))
        self._keepers: list[asyncio.Task[None]] = []
        self._processes: set[asyncio.subprocess.Process] = set()
        self._about: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._workers = settings.workers

    async def start(self) -> dict[str, Any]:
        """Start the processes. Returns, once one of them serves, what it says of itself."""
        self._keepers = [asyncio.create_task(self._keep()) for _ in range(self._workers)]
        return await self._about

    async def stop(self) -> None:
        """Let each process stop politely, and wait for it."""
        for keeper in self._keepers:
            keeper.cancel()
        for process in self._processes:
            process.terminate()
        await asyncio.gather(*(process.wait() for process in self._processes))

    async def _keep(self) -> None:
        """Run one process, and another in its place whenever it dies."""
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "presque.server",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                pass_fds=[self._listener.fileno()], start_new_session=True,
            )  # fmt: skip
            self._processes.add(process)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(self._told + b"\n")
            said = await process.stdout.readline()
            if said and not self._about.done():
                about = codec.decode(said)
                if "error" in about:
                    self._about.set_exception(SetupError(about["error"]))
                else:
                    self._about.set_result(about)
            status = await process.wait()
            self._processes.discard(process)
            log.error("server.died pid=%d status=%d", process.pid, status)
            await asyncio.sleep(RESTART_AFTER_S)
