"""One process's part of a server: an engine on the store, and the doors. See `serving`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Protocol, Self

from presque import codec, traces
from presque.commands.call import Service
from presque.commands.times import moment
from presque.commands.who import Guard
from presque.config import settings as config
from presque.config.settings import Settings, XmppSettings
from presque.engine.engine import Engine
from presque.engine.namespaces import Namespaces
from presque.errors import SetupError
from presque.http.certificates import Certificates
from presque.http.connection import Connection
from presque.http.door import Bodies, Door
from presque.http.files import Page
from presque.http.gate import Gate
from presque.http.proxies import Proxies
from presque.http.routes import Planner
from presque.http.secured import Secured
from presque.http.starting import Starting
from presque.http.tallies import Tally
from presque.server import BACKLOG
from presque.server.about import describe, first_token, store_facts
from presque.server.board import Board
from presque.server.process_figures import process_figures
from presque.store.address import Address
from presque.store.disk import Disk
from presque.ws.endpoint import Sockets

log = logging.getLogger("presque.server")


DRAIN_S = 8
PUT_BACK_S = 20.0
"""How long a stop waits, at most, for the store to take back what clients did not take."""
QUICK_S = 1.0
"""During a start up to this long, clients wait. During a longer one they get an answer."""
TEST_CLOCK = "Presque-Test-Clock"
"""A header of all answers of a server whose clock can be moved: by how many seconds it is ahead."""
LOOK_S = 1.0  # how often the files of a certificate are looked at


class Meanwhile:
    """While the server starts, and only if that takes long, answers on its socket that it is starting."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._answer())
        return self

    async def __aexit__(self, *_of_an_error: object) -> None:
        await self.end()

    async def end(self) -> None:
        """Leave the socket to the server. Connected clients connect again."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _answer(self) -> None:
        await asyncio.sleep(QUICK_S)
        settings, tls = self._settings, self._settings.tls
        door = Door(Starting(), settings.max_body, settings.limits)
        if settings.test_clock:
            door.mark_answers(f"{TEST_CLOCK}: +0.000")
        factory: Callable[[], Any] = functools.partial(Connection, door)
        if tls is not None:
            factory = functools.partial(_secured, Certificates(tls), factory)
        serving = await asyncio.get_running_loop().create_server(
            factory, sock=self._listener.dup(), backlog=BACKLOG
        )
        try:
            await asyncio.Event().wait()  # until it is cancelled
        finally:
            serving.close()
            door.shutdown()
            await door.drained(QUICK_S)


class Server:
    """One process's part: an engine on the store, the HTTP door on a listening socket if there is one, and
    the XMPP door if the settings ask for it."""

    def __init__(
        self,
        settings: Settings,
        address: Address,
        listener: socket.socket | None,
        said: Sequence[dict[str, Any]] = (),
        board: Board | None = None,
        number: int = 0,
    ) -> None:
        """`said` are the settings as `GET /server` shows them, each with who said so. The process has this
        `number` on the `board` that it shares with others."""
        self.settings = settings
        self._said = said
        self._started_ms = time.time() * 1000
        self._board = Board(1) if board is None else board
        self._number = number
        self._service: Service
        self.disk = Disk(config.data_directory(settings), settings.min_free_disk, writers=settings.workers)
        self.engine = Engine(address, settings.namespace, self.disk, test_clock=settings.test_clock)
        self.namespaces = Namespaces(self.engine)
        self._listener = listener
        self._guard: Guard
        self._door: Door | None = None
        self._serving: asyncio.Server | None = None
        self._component: Component | None = None
        self._watchers: list[asyncio.Task[None]] = []
        self._found = (0, 0)

    async def start(self) -> dict[str, Any]:
        """Reach the store, then take requests: what /stats/ says of this server. Raises `SetupError`."""
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> dict[str, Any]:
        self.disk.look()
        await self.engine.start()
        self._found = await self.engine.count()
        if self.settings.redis is not None and self.engine.info and not self.engine.info.persistent:
            log.warning("store.not_persistent address=%s", self.engine.store.address)
        settings = self.settings
        await self.engine.access.start()
        if self._listener is not None and not self.engine.access.records:
            config.check_tokens(settings, first_token(settings))
        exposed = config.exposed(settings) is not None and not settings.insecure
        required = exposed or settings.require_tokens
        by_name = settings.tls.clients if settings.tls is not None else {}
        self._guard = Guard(self.engine.access, self.namespaces, required=required, certificates=by_name)
        self.engine.spawn(self.namespaces.run())
        service = self._service = Service(self.engine, self._guard, self.about, self.facts, self._processes)
        if self._listener is not None:
            await self._open_door(service, self._listener)
        if settings.xmpp is not None:
            bodies = Bodies(settings.limits.bodies) if self._door is None else self._door.bodies
            self._component = component(service, settings.xmpp, bodies.hold)
            self._component.start()
        if self.settings.redis is not None:
            self._watchers.append(asyncio.create_task(self.engine.store.watch_setup()))
        gc.freeze()  # what lives as long as the server need not be looked at again
        return self.about()

    async def _open_door(self, service: Service, listener: socket.socket) -> None:
        """Take requests over HTTP and WebSocket."""
        settings = self.settings
        gate = Gate.of((*settings.hosts, settings.host), settings.origins)
        sockets = Sockets(service, settings.max_body)
        planner = Planner(service, gate, _pages, settings.max_body, sockets.accept)
        proxies = Proxies(map(ip_network, settings.proxies))
        self._door = Door(planner, settings.max_body, settings.limits, proxies, service.audit.refused)
        if settings.traces:
            self._door.traced = functools.partial(tracing(), tls=settings.tls is not None)
        self._guard.on_change.append(self._door.reconsider)
        self._door.each_second += (self._guard.look_at_clock, self._tell)
        self._tell()
        if settings.test_clock:
            self._say_clock()
            self.engine.clock.others = self.namespaces.all
            self.engine.clock.on_move += (self._say_clock, self._guard.look_at_clock)
        factory: Callable[[], Any] = functools.partial(Connection, self._door)
        if settings.tls is not None:
            certificates = Certificates(settings.tls)
            factory = functools.partial(_secured, certificates, factory)
            self._watchers.append(asyncio.create_task(_watch(certificates)))
        self._serving = await asyncio.get_running_loop().create_server(
            factory, sock=listener, backlog=BACKLOG
        )

    def _say_clock(self) -> None:
        """Say in every answer that the clock of this server is none to go by."""
        assert self._door is not None
        self._door.mark_answers(f"{TEST_CLOCK}: {self.engine.clock.ahead_s:+.3f}")

    def about(self) -> dict[str, Any]:
        """What /stats/ says of this server. The store may have a new configuration since the last time."""
        assert self.engine.info is not None
        found = describe(self.settings, self.engine.store.address, self.engine.info, self.disk, self._found)
        if self.settings.test_clock:
            found["test_clock"] = {"ahead": self.engine.clock.ahead_s}
        return found | {"tokens": self._guard.required}

    async def facts(self) -> dict[str, Any]:
        """What `GET /server` says: how this process and the store are at the moment."""
        asked = time.monotonic()
        raw = await self.engine.store.call("", "INFO")
        answered_in = time.monotonic() - asked
        seconds, microseconds = await self.engine.store.call("", "TIME")
        connections = 0 if self._door is None else len(self._door.connections) + len(self._door.upgraded)
        return {
            "pid": os.getpid(),
            "started_at": moment(int(self._started_ms)),
            "now": moment(int(time.time() * 1000)),
            "connections": connections,
            "store": {
                **store_facts(raw),
                "answered_in": round(answered_in, 6),
                "now": moment(int(seconds) * 1000 + int(microseconds) // 1000),
            },
            "settings": list(self._said),
        }

    def _tell(self) -> None:
        """Let the other processes of this server read what this one counts."""
        self._board.put(self._number, codec.encode(self._figures()))

    def _processes(self) -> dict[int, dict[str, Any]]:
        """What each process of this server counts, by its number. This one tells its own first, so that the
        counts of a process never go back, whichever is asked."""
        self._tell()
        return {number: codec.decode(told) for number, told in self._board.all().items()}

    def _figures(self) -> dict[str, Any]:
        door = self._door
        assert door is not None
        return {
            "tallies": door.tallies.told(),
            "verbs": {verb: count for verb, count in self._service.counts.items() if count},
            "connections": len(door.connections),
            "websockets": len(door.upgraded),
            "under_way": door.under_way,
            "store_connected": int(self.engine.store.connected),
            **process_figures(),
        }

    async def stop(self) -> None:
        """Take no more connections, answer those who wait and those who are being served, then close."""
        for watcher in self._watchers:
            watcher.cancel()
        if self._serving is not None:
            self._serving.close()
        if self._door is not None:
            self._door.shutdown()
        if self._component is not None:
            await self._component.stop()
        self.engine.stop_waiting()
        self.namespaces.stop_waiting()
        if self._door is not None:
            await self._door.drained(DRAIN_S)
        if self.engine.store.connected:
            await asyncio.gather(
                *(one.put_back(PUT_BACK_S) for one in (self.engine, *self.namespaces.running()))
            )
        await self.engine.stop()
        await asyncio.to_thread(traces.shut_down)


def tracing() -> Callable[..., Tally]:
    """Make traces from now on: where traced requests are counted. Raises `SetupError` if that cannot be."""
    traces.set_up("presque")
    from presque.http.traced import tally_of  # it imports OpenTelemetry, which not everybody has

    return tally_of


def component(service: Service, settings: XmppSettings, hold: Callable[[int, int], bool]) -> Component:
    """presque at an XMPP server. Raises `SetupError` without the library for it."""
    try:
        from presque.xmpp.component import Component  # Only who speaks XMPP has slixmpp, and pays for it.
    except ModuleNotFoundError as error:
        if error.name != "slixmpp":
            raise
        raise SetupError(
            "XMPP needs the library slixmpp: install it with pip install 'presque[xmpp]'"
        ) from None
    return Component(service, settings, hold)


@functools.cache
def _pages() -> Mapping[str, Page]:
    from presque.dashboard.pages import pages  # a start need not wait for it

    return pages()


class Component(Protocol):
    """Something that runs beside the doors until it is stopped."""

    def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End."""


def _secured(certificates: Certificates, connection: Callable[[], Connection]) -> Secured:
    """A connection that is greeted with what the files of the certificate say now."""
    above = connection()
    return Secured(certificates.context, above, above.greeted)


async def _watch(certificates: Certificates) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        certificates.look()
