"""What do a thousand waiting fetches cost, and how soon does a pushed job reach the one that waits for it?

A thousand connections each send `GET /q/…?wait=60` and stay silent: once every one on a queue of its own,
once all on one queue. First CPU time, compared with the same server before they came; then 500 pushes, one
at a time, each timed from before it is written to when its waiter has the whole job. A waiter that got one
waits again. Waiters and pusher live in this one Python process, whose own time is in the figures. The server
runs as it does unless told otherwise: a push is on disk before anybody gets it.

Then 20,000 connections that wait, or as many as there may be files, on 5,000 queues: what each adds to the
server's resident memory, and how much of a core they take together.

Owed: no measurable CPU for waiting (at most 1 ms a second, server and store together, above the idle
server); p50 at most 1 ms, p99 at most 5 ms. With 20,000: at most 8 kB for each, and 2 % of a core.

run:          python bench/waiters.py
last result:  2026-11-30, 2 cores: 0.1 and 0.5 ms/s; p50 1.7 and 1.5 ms, MISS, p99 5.6 (MISS) and 2.9 ms;
              19,800 that wait: 5.0 kB each, 0.61 % of a core, before what is open was counted without a list
              of it 2.8 %
              2026-11-24, 2 cores: 0.9 and 1.0 ms/s; p50 1.0 and 0.5 ms, p99 1.5 and 0.8 ms, PASS
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import rig

WAITERS = 1000
MANY = 20_000
SPARE_FILES = 200  # that the server and this process have open besides
MANY_QUEUES = 5_000
MANY_WITHIN_S = 60.0
WAIT_S = 60
PUSHES = 500
SETTLE_S = 2.0
PAUSE_S = 0.002
RECEIVED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU milliseconds a second."""

    server: float
    store: float

    @property
    def total(self) -> float:
        return self.server + self.store


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of one arrangement showed."""

    idle: Usage
    waiting: Usage
    latency_ms: list[float]


class Connection(asyncio.Protocol):
    """A keep-alive connection that sends one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[bytes, int]] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, request: bytes) -> asyncio.Future[tuple[bytes, int]]:
        """Write a request. The future gives the body, and when it was whole on `perf_counter_ns`.

        It raises `Broken` for any answer but 200 and 201, and if the connection is lost.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            return
        now = time.perf_counter_ns()
        self._received.clear()
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return
        status = head[9:12].decode()
        if status in ("200", "201"):
            answer.set_result((bytes(body), now))
        else:
            answer.set_exception(rig.Broken(f"answered {status} {bytes(body)!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(rig.Broken(f"the server closed a connection: {exc}"))


def _content_length(head: bytearray) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise rig.Broken("an answer without a length")


class Waiting:
    """Connections that wait for jobs, and wait again after each. `received` says when a body came."""

    def __init__(self, port: int, queues: Sequence[str]) -> None:
        self._port = port
        self._queues = queues
        self._bodies: dict[bytes, asyncio.Future[int]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for queue in self._queues:
            connection = await connect(self._port)
            self._tasks.append(asyncio.create_task(self._wait(connection, queue)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def expect(self, body: bytes) -> asyncio.Future[int]:
        """A future for when this body arrives at any waiter, on `perf_counter_ns`."""
        self._bodies[body] = asyncio.get_running_loop().create_future()
        return self._bodies[body]

    def check(self) -> None:
        """Raise what ended a waiter, if anything did."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _wait(self, connection: Connection, queue: str) -> None:
        request = f"GET /q/{queue}?wait={WAIT_S} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n".encode()
        try:
            while True:
                body, at = await connection.send(request)
                expected = self._bodies.pop(body, None)
                if expected is None:
                    raise rig.Broken(f"a waiter got {body!r}, which nobody pushed or somebody had already")
                expected.set_result(at)
        finally:
            connection.transport.abort()


async def connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    allow_many_connections()
    arrangements = {
        "1,000 queues": [f"x{number}" for number in range(WAITERS)],
        "one queue": ["x"] * WAITERS,
    }
    verdicts = []
    for name, queues in arrangements.items():
        results = []
        for number in range(bench.rounds):
            directory = bench.directory / f"{queues[-1]}-{number}"
            with rig.presque(directory, fsync="always") as server:
                results.append(asyncio.run(run(server, queues, bench.seconds)))
        verdicts += judge(name, results)
    with rig.presque(bench.directory / "many") as server:
        verdicts += many(server, bench.seconds)
    return verdicts


def many(server: rig.Program, seconds: int) -> list[rig.Verdict]:
    """What many connections cost that wait and get nothing."""
    path = Path(f"/proc/{server.pid}/fd")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = MANY if hard == resource.RLIM_INFINITY else min(MANY, hard - SPARE_FILES)
    before, files = rig.rss_bytes(server.pid), len(list(path.iterdir()))
    connections = []
    try:
        for number in range(count):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connections.append(connection)
            ask = f"GET /q/x{number % MANY_QUEUES}?wait={WAIT_S} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            connection.sendall(ask.encode())
        until = time.monotonic() + MANY_WITHIN_S
        while len(list(path.iterdir())) - files < count - 10:
            if time.monotonic() > until:
                raise rig.Broken(f"the server holds {len(list(path.iterdir())) - files} connections")
            time.sleep(0.1)
        time.sleep(SETTLE_S)
        each = (rig.rss_bytes(server.pid) - before) / count
        began, cpu = time.perf_counter(), rig.cpu_s(server.pid)
        time.sleep(seconds)
        share = (rig.cpu_s(server.pid) - cpu) / (time.perf_counter() - began) * 100
    finally:
        for connection in connections:
            connection.close()
    return [
        rig.at_most(f"{count:,} idle waiters: memory of the server for each", each / 1000, 8, "kB"),
        rig.at_most(f"{count:,} idle waiters: CPU of the server", share, 2, "% of a core"),
    ]


def judge(name: str, results: Sequence[Result]) -> list[rig.Verdict]:
    rig.table(
        f"{name}: CPU milliseconds a second",
        {
            "server, nobody waits": [result.idle.server for result in results],
            "server, 1,000 wait": [result.waiting.server for result in results],
            "store, nobody waits": [result.idle.store for result in results],
            "store, 1,000 wait": [result.waiting.store for result in results],
        },
        "{:.2f}",
    )
    more = statistics.median(result.waiting.total - result.idle.total for result in results)
    latencies = sorted(latency for result in results for latency in result.latency_ms)
    cuts = statistics.quantiles(latencies, n=100)
    print(f"\n{name}: {len(latencies)} pushes, slowest {latencies[-1]:.2f} ms")
    return [
        rig.at_most(f"{name}: CPU for waiting", more, 1, "ms/s"),
        rig.at_most(f"{name}: push to waiter, p50", cuts[49], 1, "ms"),
        rig.at_most(f"{name}: push to waiter, p99", cuts[98], 5, "ms"),
    ]


async def run(server: rig.Program, queues: Sequence[str], seconds: int) -> Result:
    """The idle server, the server with its waiters, and the pushes to them."""
    store = rig.store_of(server)
    await asyncio.sleep(SETTLE_S)
    idle = await usage(server.pid, store, seconds)
    async with waiting(server.port, queues) as waiters:
        # Sent is not yet read: the server gets a moment to take them all in. They wait for 60 s.
        await asyncio.sleep(SETTLE_S)
        busy = await usage(server.pid, store, seconds)
        waiters.check()
        latency_ms = await push_to(server.port, waiters, queues)
        waiters.check()
    return Result(idle, busy, latency_ms)


@contextlib.asynccontextmanager
async def waiting(port: int, queues: Sequence[str]) -> AsyncIterator[Waiting]:
    waiters = Waiting(port, queues)
    try:
        await waiters.start()
        yield waiters
    finally:
        await waiters.stop()


async def usage(server: int, store: int, seconds: int) -> Usage:
    """What the two processes take while nothing is asked of them."""
    began, server_s, store_s = time.perf_counter(), rig.cpu_s(server), rig.cpu_s(store)
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    return Usage((rig.cpu_s(server) - server_s) / took * 1e3, (rig.cpu_s(store) - store_s) / took * 1e3)


async def push_to(port: int, waiters: Waiting, queues: Sequence[str]) -> list[float]:
    """Push to random ones of the queues, one at a time. Milliseconds from each push to its waiter."""
    pusher = await connect(port)
    took = []
    choose = random.Random(1).choice
    for number in range(10_000_000, 10_000_000 + PUSHES):
        body = f'{{"to":"ana","n":{number}}}'.encode()
        head = f"POST /q/{choose(queues)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}"
        received = waiters.expect(body)
        began = time.perf_counter_ns()
        pushed = pusher.send(head.encode() + b"\r\n\r\n" + body)
        try:
            async with asyncio.timeout(RECEIVED_WITHIN_S):
                await pushed
                took.append((await received - began) / 1e6)
        except TimeoutError:
            raise rig.Broken(f"no waiter got job {number} within {RECEIVED_WITHIN_S} s") from None
        await asyncio.sleep(PAUSE_S)
    pusher.transport.close()
    return took


def allow_many_connections() -> None:
    """Raise the limit on open files to what the system grants; the servers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < 2 * WAITERS:
        raise rig.Missing(f"only {hard} open files are allowed: ulimit -n {4 * WAITERS}")


SCRIPT = rig.Script(measure, __doc__, rounds=1, seconds=10)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
