"""The two lanes of the HTTP door, for scenarios that must come out the same in both."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from presque.dashboard.pages import pages
from presque.engine.engine import Engine
from presque.http.app import application
from presque.store.address import Address
from tests import rig


@pytest.fixture(scope="session", params=["fast lane", "slow lane"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Door]:
    """The real server, and then the Starlette application alone, behind uvicorn as it comes."""
    running = _server(tmp_path_factory) if request.param == "fast lane" else _application()
    with running as found:
        yield found


@contextlib.contextmanager
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Door]:
    # Of its own and not the shared one, since the tests of /stats/ count queues.
    with rig.server("--data", str(tmp_path_factory.mktemp("lanes") / "presque")) as found:
        yield found


class _Application(rig.Door):
    """The Starlette application in a thread."""

    def __init__(self, store: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(store,), name="slow lane")
        self._thread.start()
        assert self._serving.wait(rig.PATIENCE)

    def _run(self, store: Path) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(store))

    async def _serve(self, store: Path) -> None:
        engine = Engine(Address(unix=str(store)))
        await engine.start()
        about = {"redis": "a store", "durability": "None.", "version": "0"}
        self._server = uvicorn.Server(
            uvicorn.Config(
                application(engine, lambda: about, pages()),
                http=HttpToolsProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
            )
        )
        self._serving.set()
        await self._server.serve(sockets=[self._listener])
        await engine.stop()

    def stop(self) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(rig.PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()


@contextlib.contextmanager
def _application() -> Iterator[rig.Door]:
    with rig.store("valkey") as store:
        found = _Application(Path(store.socket))
        try:
            yield found
        finally:
            found.stop()
