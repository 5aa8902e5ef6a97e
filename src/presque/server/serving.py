"""The roof: listens, starts the store, then a server or a fleet of them, and takes all down in reverse.

One process does it all unless `workers` asks for more. Then this one keeps the store and the listening
socket, and a `Fleet` of that many processes, each with a `Server`, shares them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop

from presque import codec, traces
from presque.config import settings as config
from presque.config.loading import Loaded
from presque.config.settings import RedisSettings, Settings
from presque.engine import library
from presque.errors import SetupError
from presque.http.certificates import context_of, described
from presque.log import catch_all, is_json
from presque.log import configure as log_to
from presque.server import BACKLOG, supervisor
from presque.server.about import first_screen, settings_said
from presque.server.board import Board
from presque.server.fleet import Fleet, Told
from presque.server.stopping import stop_signal, unless
from presque.store.address import Address
from presque.store.backup import running_at
from presque.store.data_files import Cut
from presque.store.embedded import EmbeddedSettings, Started, running

log = logging.getLogger("presque.server")


def run(found: Loaded) -> int:
    """Serve by these settings until a signal says stop.

    Returns the exit code. Raises `SetupError` if it cannot start.
    """
    # a mistake should not wait for the store
    if found.settings.traces:
        traces.set_up("presque")
    if found.settings.tls is not None:
        context_of(found.settings.tls)
    return uvloop.run(_run(found))


async def _run(found: Loaded) -> int:
    stop = stop_signal()
    with listen(found.settings) as listener:
        async with store(found.settings) as starting:
            await serve(found, listener, starting, stop)
    log.info("server.stopped")
    return 0


async def serve(found: Loaded, listener: socket.socket, starting: Started, stop: asyncio.Event) -> None:
    """Serve on this socket until `stop`, on the store that is `starting`. Raises `SetupError`."""
    settings, said = found.settings, settings_said(found)
    gc.disable()
    from presque.server.server import Meanwhile, Server  # the larger part, while the store starts

    gc.freeze()  # what is imported stays: looking through it is a tenth of a start
    gc.enable()
    _allow_many_connections()
    async with Meanwhile(settings, listener) as meanwhile:
        address, cuts = await starting
        server: Server | Fleet
        if settings.workers == 1:
            server = Server(settings, address, listener, said)
        else:
            server = Fleet(settings, address, listener, said)
        about = await unless(stop, server.start())
        await meanwhile.end()
    if about is not None:
        _tell_start(settings, listener, about, found.file, cuts)
        supervisor.tell("READY=1")
    await _serve_until(stop, server.stop)


def run_xmpp(settings: Settings) -> int:
    """Be at an XMPP server, on a store that others may serve as well, until a signal says stop.

    Returns the exit code. Raises `SetupError` if it cannot start.
    """
    if settings.traces:
        traces.set_up("presque")
    return uvloop.run(_run_xmpp(settings))


async def _run_xmpp(settings: Settings) -> int:
    assert settings.xmpp is not None
    from presque.server.server import Server  # as above

    stop = stop_signal()
    async with running_store(settings) as address:
        server = Server(settings, address, None)
        if await unless(stop, server.start()) is not None:
            log.info(
                "xmpp.started server=%s domain=%s store=%s", settings.xmpp.server, settings.xmpp.jid, address
            )
            supervisor.tell("READY=1")
        await _serve_until(stop, server.stop)
    log.info("server.stopped")
    return 0


async def _serve_until(stop: asyncio.Event, end: Callable[[], Awaitable[None]]) -> None:
    """Let a server serve until it is told to stop, then end it. Whoever supervises this process is told."""
    async with supervisor.watched():
        await stop.wait()
    log.info("server.stopping")
    supervisor.tell("STOPPING=1")
    await end()


async def serve_in_fleet() -> None:
    """One process of a fleet. It also stops when its parent is gone, which its standard input shows."""
    from presque.server.server import Server  # as above

    stop = stop_signal()
    told = codec.decode_as(sys.stdin.buffer.readline(), Told)
    log_to(told.settings.log_format, told.settings.log_level)
    catch_all()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    board = Board(told.settings.workers, told.board)
    listener = socket.socket(fileno=told.listener)
    server = Server(told.settings, told.address, listener, told.said, board, told.number)
    about: dict[str, Any] | None
    try:
        about = await unless(stop, server.start())
    except SetupError as error:
        about = {"error": str(error), "code": error.code}
        stop.set()
    if about is not None:
        sys.stdout.buffer.write(codec.encode(about) + b"\n")
        sys.stdout.buffer.flush()
    await stop.wait()
    await server.stop()


def _tell_start(
    settings: Settings, listener: socket.socket, about: dict[str, Any], file: Path | None, cuts: Sequence[Cut]
) -> None:
    """A first screen for people; among the lines of a JSON log one more of them."""
    warning = None if about["tokens"] else config.insecure_warning(settings)
    if warning:
        log.warning("server.insecure reason=%s", warning)
    if settings.test_clock:
        log.warning("server.test_clock")
    host, port = listener.getsockname()[:2]
    url = f"{'http' if settings.tls is None else 'https'}://{_authority(host, port)}"
    found, disk = about["found_at_start"], about["disk"]
    if not is_json(settings.log_format):
        tls = None if settings.tls is None else described(settings.tls)
        _show(first_screen(url, about, file, cuts, tls))
    log.info(
        "server.started url=%s version=%s store=%s durability=%s jobs=%d queues=%d disk_free=%s workers=%d "
        "tokens=%s settings=%s",
        url,
        about["version"],
        about["redis"],
        about["durability"],
        found["jobs"],
        found["queues"],
        disk and disk["free"],
        settings.workers,
        about["tokens"],
        file and str(file),
    )


def _show(text: str) -> None:
    """Print for people. Nobody may read it, or its file be on a full disk: presque serves all the same."""
    try:
        print(text, flush=True)  # noqa: T201  (meant for the terminal)
    except OSError:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (it stays open; the last flush fails no more)


@contextlib.asynccontextmanager
async def store(settings: Settings) -> AsyncIterator[Started]:
    """What brings the address of the store to use, and what had to be cut off its data; while inside, our own
    one runs if none other was named. It is a process of its own, and has been started when this begins."""
    if settings.redis is not None:
        theirs: Started = asyncio.get_running_loop().create_future()
        theirs.set_result((address_of(settings.redis), ()))
        yield theirs
        return
    embedded = EmbeddedSettings(
        directory=config.data_directory(settings),
        layout=library.LAYOUT,
        fsync=settings.fsync,
        maxmemory=settings.maxmemory,
        min_free_disk=settings.min_free_disk,
        binary=settings.valkey_bin,
    )
    async with running(embedded) as starting:
        yield starting


@contextlib.asynccontextmanager
async def running_store(settings: Settings) -> AsyncIterator[Address]:
    """The address of the store of somebody else, who serves on it. Raises `SetupError` if there is none."""
    if settings.redis is not None:
        yield address_of(settings.redis)
        return
    directory = config.data_directory(settings)
    found = None if directory is None else running_at(directory)
    if found is None:
        where = "in memory" if directory is None else f"on the data in {directory}"
        raise SetupError(
            f"no store runs {where}: start `presque serve` first, name another directory with --data, or a "
            "store of your own with --redis"
        )
    yield Address(unix=str(found))


def address_of(theirs: RedisSettings) -> Address:
    """Where a store of one's own is."""
    return Address(
        host=theirs.host,
        port=theirs.port,
        unix=_text(theirs.unix),
        db=theirs.db,
        username=theirs.username,
        password=theirs.password,
        tls=theirs.tls,
        ca=_text(theirs.ca),
        cert=_text(theirs.cert),
        key=_text(theirs.key),
        server_name=theirs.server_name,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


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


def _allow_many_connections() -> None:
    """Each connection is a file; the usual soft limit of 1024 would be a limit on waiting workers."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
