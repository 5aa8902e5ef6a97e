"""What does TLS cost a push, and is presque's own layer dearer than that of uvloop?

The same wrk load, 64 connections, on three servers: without TLS, with presque's (`http/secured.py`), and with
a change that lets uvloop speak TLS instead. Counted is user and system time of the server for each answer.
Also: what 2,000 idle connections hold in memory in each.

Owed: nothing; the layer is there for what uvloop's cannot do.

run:          python bench/tls.py
last result:  2026-11-29, 2 cores: 1.64 x without TLS, 1.24 x uvloop's; idle 14 kB, uvloop's 44
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import rig

PUSH = rig.Request("POST", "/q/bench", rig.BODY)
IDLE = 2_000
SIDES = ("without TLS", "presque's TLS", "uvloop's TLS")


class Loop:
    """The event loop, but that its servers speak TLS by themselves."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext) -> None:
        self.loop, self.context = loop, context

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    async def create_server(self, factory: Any, **options: Any) -> asyncio.Server:
        return await self.loop.create_server(factory, ssl=self.context, **options)


class Asyncio:
    """The module, but that its running loop is a `Loop`."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    def get_running_loop(self) -> Any:
        return Loop(asyncio.get_running_loop(), self.context)


def use_uvloop() -> None:
    """Called in the third server before it starts."""
    from presque.http import certificates
    from presque.server import server

    changed: Any = server

    class Certificates(certificates.Certificates):
        def __init__(self, settings: Any) -> None:
            super().__init__(settings)
            changed.asyncio = Asyncio(self.context)

    changed.Certificates = Certificates
    changed._secured = lambda _, connection: connection()


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    pem = certificate(bench.directory)
    change = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import tls; tls.use_uvloop()"
    with contextlib.ExitStack() as stack:
        servers = {}
        for name in SIDES:
            directory, port = bench.directory / name[:3], rig.free_port()
            command = rig.presque_command(directory, port, "everysec", change if name == SIDES[2] else "")
            scheme = "http" if name == SIDES[0] else "https"
            command += [] if scheme == "http" else ["--tls-cert", str(pem)]
            pid = stack.enter_context(rig.started(command, directory, functools.partial(takes, port)))
            servers[name] = rig.Program(pid, port, scheme)
            rig.load(servers[name], PUSH, rig.WARM_UP_S)
        sides = {name: functools.partial(cost, server, bench.seconds) for name, server in servers.items()}
        found = rig.in_turns(bench.rounds, sides)
        idle = {name: [held(server)] for name, server in servers.items()}
    rig.table("server CPU microseconds for each push", found, "{:.1f}")
    rig.table("bytes of an idle connection", idle, "{:.0f}")
    ratio = functools.partial(rig.median_ratio, found[SIDES[1]])
    return [
        rig.noted("push with TLS / without, server CPU", f"{ratio(found[SIDES[0]]):.2f} x"),
        rig.noted("push with presque's TLS / uvloop's, server CPU", f"{ratio(found[SIDES[2]]):.2f} x"),
    ]


def cost(server: rig.Program, seconds: int) -> float:
    """CPU microseconds of the server for each push."""
    before = rig.cpu_s(server.pid)
    load = rig.load(server, PUSH, seconds)
    return (rig.cpu_s(server.pid) - before) / load.requests * 1e6


def held(server: rig.Program) -> float:
    """Bytes of memory for each of many connections that were greeted and are idle."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as stack:
        before = rig.rss_bytes(server.pid)
        for _ in range(IDLE):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            if server.scheme == "https":
                one = stack.enter_context(context.wrap_socket(one))
            one.sendall(b"GET /q/empty HTTP/1.1\r\nHost: localhost\r\n\r\n")
            one.recv(4096)
        return (rig.rss_bytes(server.pid) - before) / IDLE


def certificate(directory: Path) -> Path:
    """A certificate for localhost and its key, in one file."""
    command = [
        rig.need("openssl", "openssl"),
        "req",
        "-x509",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    parts = [directory / "key", directory / "cert"]
    command += ["-keyout", str(parts[0]), "-out", str(parts[1])]
    subprocess.run(command, check=True, capture_output=True)
    pem = directory / "pem"
    pem.write_text("".join(part.read_text() for part in parts))
    return pem


def takes(port: int) -> bool:
    """Whether the server takes connections."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


SCRIPT = rig.Script(measure, __doc__, rounds=3)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
