"""Do 500 slow clients slow a good one down?

The good client is wrk with 8 connections that push. The slow ones are 500 connections of another process, in
equal parts: a head that comes a byte at a time, a body that does, a large answer that is hardly read, and
nothing at all. One that is cut off comes again. The good client alone and beside them, in turns, once all of
them have come so far that they are slow: what it costs to make the large answers is another question.

Owed: p99 of the good client within 2 x, and every one of its requests answered.

run:          python bench/slow_clients.py
last result:  2026-11-29, 2 cores: 2.4 to 5.1 ms beside, 2.8 to 20 alone (20 after a crowd has gone), PASS
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

import rig

CROWD = 500
GOOD = 8
PUSH = rig.Request("POST", "/q/bench", rig.BODY)
HOST = b"Host: localhost\r\n"
STARTS = (
    b"GET /q/x HTTP/1.1\r\n" + HOST + b"X: ",
    b"POST /q/x HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n",
    b"GET /status/large?with_desc=1 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"",
)


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with rig.presque(bench.directory / "presque") as server:
        for _ in range(8):
            rig.ask(server.port, "POST", "/q/large", f'"{"x" * 1_000_000}"')
        rig.load(server, PUSH, rig.WARM_UP_S, GOOD)
        alone, beside, ratios = [], [], []
        for _ in range(bench.rounds):
            alone.append(rig.load(server, PUSH, bench.seconds, GOOD).p99_ms)
            with crowd(server.port):
                beside.append(rig.load(server, PUSH, bench.seconds, GOOD).p99_ms)
            ratios.append(beside[-1] / alone[-1])
    rig.table("p99 of a push, milliseconds", {"alone": alone, f"beside {CROWD} slow": beside}, "{:.2f}")
    return [rig.at_most("p99 beside slow clients / alone", sorted(ratios)[len(ratios) // 2], 2, "x")]


@contextlib.contextmanager
def crowd(port: int) -> Iterator[None]:
    """While inside, the slow clients are there."""
    command = [sys.executable, __file__, "--crowd", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # all have connected
        try:
            yield
        finally:
            process.kill()


async def be_crowd(port: int) -> None:
    connected = 0

    async def slow(start: bytes) -> None:
        nonlocal connected
        first = True
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64)
                writer.write(start)
                if start.startswith(b"GET /status"):
                    await reader.read(1)
                connected, first = connected + first, False
                if connected == CROWD:
                    print("there", flush=True)
                    connected += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(60):
                        while not reader.at_eof():
                            if start and not start.startswith(b"GET /status"):
                                writer.write(b"1")
                            with contextlib.suppress(TimeoutError):
                                async with asyncio.timeout(1):
                                    await reader.read(1)
                            await asyncio.sleep(1)
                writer.close()
            await asyncio.sleep(0.2)

    await asyncio.gather(*(slow(STARTS[number % len(STARTS)]) for number in range(CROWD)))


SCRIPT = rig.Script(measure, __doc__, rounds=5)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--crowd"]:
        asyncio.run(be_crowd(int(sys.argv[2])))
    sys.exit(rig.main([SCRIPT], __doc__))
