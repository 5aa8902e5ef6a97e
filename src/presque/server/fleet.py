"""Several processes that serve one listening socket on one store.

Any one of them can die: it is replaced, and the others go on. All of them stop when their parent does,
even if it was killed, since each watches the pipe that it got its settings through.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from presque import codec
from presque.config.settings import Settings
from presque.errors import NoToken, SetupError
from presque.server.board import Board
from presque.store.address import Address

log = logging.getLogger("presque.server")

RESTART_AFTER_S = 0.5


class Told(NamedTuple):
    """What a process of a fleet reads on its standard input."""

    settings: Settings
    address: Address
    listener: int
    said: list[dict[str, Any]]
    number: int = 0
    board: int | None = None


class Fleet:
    """Several processes that serve one listening socket on one store."""

    def __init__(
        self,
        settings: Settings,
        address: Address,
        listener: socket.socket,
        said: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._listener = listener
        # A domain is at one process only: its server takes one connection for it.
        others = msgspec.structs.replace(settings, xmpp=None)
        self._board = Board(settings.workers)
        fds = listener.fileno(), self._board.fd
        self._told = [
            codec.encode_typed(
                Told(settings if number == 0 else others, address, fds[0], list(said), number, fds[1])
            )
            for number in range(settings.workers)
        ]
        self._keepers: list[asyncio.Task[None]] = []
        self._processes: set[asyncio.subprocess.Process] = set()
        self._about: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def start(self) -> dict[str, Any]:
        """Start the processes. Returns, once one of them serves, what it says of itself."""
        self._keepers = [asyncio.create_task(self._keep(number)) for number in range(len(self._told))]
        return await self._about

    async def stop(self) -> None:
        """Let each process stop politely, and wait for it."""
        for keeper in self._keepers:
            keeper.cancel()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self._processes))
        self._board.close()

    async def _keep(self, number: int) -> None:
        """Run one process, and another in its place whenever it dies."""
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "presque.server",  # -P: nothing from the working directory
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                pass_fds=[self._listener.fileno(), self._board.fd], start_new_session=True,
            )  # fmt: skip
            self._processes.add(process)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(self._told[number] + b"\n")
            said = await process.stdout.readline()
            if said and not self._about.done():
                about = codec.decode(said)
                if "error" in about:
                    kind = NoToken if about["code"] == NoToken.code else SetupError
                    self._about.set_exception(kind(about["error"]))
                else:
                    self._about.set_result(about)
            status = await process.wait()
            self._processes.discard(process)
            self._board.put(number, b"")
            log.error("server.died pid=%d status=%d", process.pid, status)
            await asyncio.sleep(RESTART_AFTER_S)
