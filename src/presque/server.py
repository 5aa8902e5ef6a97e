"""The roof: builds the store, the engine and the doors in order, and takes them down in reverse.

One process does it all unless `workers` asks for more. Then this one keeps the store and the listening
socket, and a `Fleet` of that many processes, each with a `Server`, shares them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from presque import codec, config
from presque.about import describe, first_screen
from presque.commands.call import Service
from presque.config import RedisSettings, Settings
from presque.dashboard.pages import pages
from presque.engine import library
from presque.engine.engine import Engine
from presque.errors import SetupError
from presque.fleet import Fleet, Told
from presque.http.connection import Connection, Door
from presque.http.gate import Gate
from presque.http.routes import Planner
from presque.log import configure as log_to
from presque.log import is_json
from presque.store.address import Address
from presque.store.data_files import Cut
from presque.store.disk import Disk
from presque.store.embedded import EmbeddedSettings, EmbeddedStore
from presque.ws.endpoint import Sockets

log = logging.getLogger("presque.server")

T = TypeVar("T")

DRAIN_S = 8
BACKLOG = 2048


def run(settings: Settings, file: Path | None = None) -> int:
    """Serve until a signal says stop. `file` is the settings file that was read, if any.

    Returns the exit code. Raises `SetupError` if it cannot start.
    """
    warning = config.check_bind(settings)
    if warning:
        log.warning("server.insecure reason=%s", warning)
    _allow_many_connections()
    return uvloop.run(_run(settings, file))


async def _run(settings: Settings, file: Path | None) -> int:
    stop = stop_signal()
    with listen(settings) as listener:
        async with store(settings) as (address, cuts):
            server: Server | Fleet
            if settings.workers == 1:
                server = Server(settings, address, listener)
            else:
                server = Fleet(settings, address, listener)
            about = await unless(stop, server.start())
            if about is not None:
                _tell_start(settings, listener, about, file, cuts)
            await stop.wait()
            log.info("server.stopping")
            await server.stop()
    log.info("server.stopped")
    return 0


def _tell_start(
    settings: Settings, listener: socket.socket, about: dict[str, Any], file: Path | None, cuts: Sequence[Cut]
) -> None:
    """A first screen for people; among the lines of a JSON log one more of them."""
    host, port = listener.getsockname()[:2]
    url = f"http://{_authority(host, port)}"
    found, disk = about["found_at_start"], about["disk"]
    if not is_json(settings.log_format):
        print(first_screen(url, about, file, cuts), flush=True)  # noqa: T201
    log.info(
        "server.started url=%s store=%s jobs=%d queues=%d disk_free=%s settings=%s",
        url,
        about["redis"],
        found["jobs"],
        found["queues"],
        disk and disk["free"],
        file and str(file),
    )


class Server:
    """One process's part: an engine on the store, and the HTTP door on a listening socket."""

    def __init__(self, settings: Settings, address: Address, listener: socket.socket) -> None:
        self.settings = settings
        self.disk = Disk(config.data_directory(settings), settings.min_free_disk, writers=settings.workers)
        self.engine = Engine(address, settings.namespace, self.disk)
        self._listener = listener
        self._door: Door | None = None
        self._serving: asyncio.Server | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._found = (0, 0)

    async def start(self) -> dict[str, Any]:
        """Reach the store, then take requests. Returns what /stats/ says of this server."""
        self.disk.look()
        await self.engine.start()
        self._found = await self.engine.count()
        if self.settings.redis is not None and self.engine.info and not self.engine.info.persistent:
            log.warning("store.not_persistent address=%s", self.engine.store.address)
        gate = Gate.of((*self.settings.hosts, self.settings.host), self.settings.origins)
        service = Service(self.engine, self.about)
        sockets = Sockets(service, self.settings.max_body)
        planner = Planner(service, gate, pages(), self.settings.max_body, sockets.accept)
        self._door = Door(planner, self.settings.max_body)
        self._serving = await asyncio.get_running_loop().create_server(
            functools.partial(Connection, self._door), sock=self._listener, backlog=BACKLOG
        )
        if self.settings.redis is not None:
            self._watcher = asyncio.create_task(self.engine.store.watch_setup())
        gc.freeze()  # what lives as long as the server need not be looked at again
        return self.about()

    def about(self) -> dict[str, Any]:
        """What /stats/ says of this server. The store may have been set up anew since the last time."""
        assert self.engine.info is not None
        return describe(self.settings, self.engine.store.address, self.engine.info, self.disk, self._found)

    async def stop(self) -> None:
        """Take no more connections, answer those who wait and those who are being served, then close."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._serving is not None:
            self._serving.close()
        if self._door is not None:
            self._door.shutdown()
        self.engine.stop_waiting()
        if self._door is not None:
            await self._door.drained(DRAIN_S)
        await self.engine.stop()


async def _serve_in_fleet() -> None:
    """One process of a fleet. It also stops when its parent is gone, which its standard input shows."""
    stop = stop_signal()
    told = codec.decode_as(sys.stdin.buffer.readline(), Told)
    log_to(told.settings.log_format, told.settings.log_level)
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    server = Server(told.settings, told.address, socket.socket(fileno=told.listener))
    about: dict[str, Any] | None
    try:
        about = await unless(stop, server.start())
    except SetupError as error:
        about = {"error": str(error)}
        stop.set()
    if about is not None:
        sys.stdout.buffer.write(codec.encode(about) + b"\n")
        sys.stdout.buffer.flush()
    await stop.wait()
    await server.stop()


@contextlib.asynccontextmanager
async def store(settings: Settings) -> AsyncIterator[tuple[Address, Sequence[Cut]]]:
    """The address of the store to use, and what had to be cut off its data; while inside, our own one runs if
    none other was named."""
    if settings.redis is not None:
        theirs = settings.redis
        yield address_of(theirs), ()
        return
    embedded = EmbeddedStore(
        EmbeddedSettings(
            directory=config.data_directory(settings),
            layout=library.LAYOUT,
            fsync=settings.fsync,
            maxmemory=settings.maxmemory,
            min_free_disk=settings.min_free_disk,
            binary=settings.valkey_bin,
        )
    )
    await embedded.start()
    try:
        yield Address(unix=str(embedded.socket)), embedded.cuts
    finally:
        await embedded.stop()


def address_of(theirs: RedisSettings) -> Address:
    """Where a store of one's own is."""
    return Address(
        host=theirs.host,
        port=theirs.port,
        unix=None if theirs.unix is None else str(theirs.unix),
        db=theirs.db,
        username=theirs.username,
        password=theirs.password,
        tls=theirs.tls,
    )


def listen(settings: Settings) -> socket.socket:
    """Bind the address to serve on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SetupError(
            f"cannot listen on {_authority(settings.host, settings.port)}: "
            f"{(error.strerror or str(error)).lower()}; {_REMEDIES.get(error.errno or 0, 'correct --host')}"
        ) from None
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


_REMEDIES = {
    errno.EADDRINUSE: "stop what uses it, or choose another with --port",
    errno.EACCES: "choose a port from 1024 on with --port",
}


def _authority(host: str, port: int) -> str:
    """Host and port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def stop_signal() -> asyncio.Event:
    """Set by the first TERM or INT, to stop politely. The second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)  # our own store follows by itself, cleanly: it gets a TERM when we die
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    return stop


async def unless(stop: asyncio.Event, starting: Coroutine[Any, Any, T]) -> T | None:
    """What `starting` brings; None, and it is cancelled, if `stop` is asked for before."""
    start, asked = asyncio.create_task(starting), asyncio.create_task(stop.wait())
    await asyncio.wait((start, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if start.done():
        return start.result()
    start.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await start
    return None


def _allow_many_connections() -> None:
    """Each connection is a file; the usual soft limit of 1024 would be a limit on waiting workers."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    uvloop.run(_serve_in_fleet())
