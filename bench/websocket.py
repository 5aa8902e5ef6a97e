"""How many jobs a second does one WebSocket consumer receive and ack, and how soon does a push reach it?

One server process, one consumer (presque.client.consume) with a credit of 100. First it works off a queue
that was filled before. Then jobs are pushed one by one, with 1,000 other sockets idle on 1,000 other queues,
and the time from before the push to the event is taken. What the idle ones cost is measured last.

Owed: 20,000 jobs a second; 2 ms (median); no more than 2 % of a core for the idle sockets.

run:          python bench/websocket.py
last result:  2026-11-24, 2 cores: 37,400 jobs a second, 0.72 ms, 0.1 % of a core, PASS
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time

import rig
import uvloop

from presque.client.consume import consume

CREDIT = 100
IDLE = 1000
PUSHES = 300


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with rig.presque(bench.directory / "presque") as server:
        rates = [uvloop.run(drain(server, bench.seconds * 15_000)) for _ in range(bench.rounds)]
        latency, idle = uvloop.run(waiting(server, bench.seconds))
    rig.table("jobs a second", {"received and acked": rates})
    return [
        rig.at_least("jobs a second / 20,000", statistics.median(rates) / 20_000, 1),
        rig.at_most("push to event, median", latency * 1000, 2, "ms"),
        rig.at_most("CPU of 1,000 idle sockets", idle * 100, 2, "% of a core"),
    ]


async def drain(server: rig.Program, count: int) -> float:
    """Fill a queue, then receive and ack all of it. Returns jobs a second."""
    rig.fill(server, "bench", count)
    started = time.perf_counter()
    async with consume(f"http://127.0.0.1:{server.port}", "bench", credit=CREDIT) as jobs:
        left = count
        async for job in jobs:
            job.ack()
            left -= 1
            if not left:
                break
        took = time.perf_counter() - started
    return count / took


async def waiting(server: rig.Program, seconds: int) -> tuple[float, float]:
    """The median of a push's way to a consumer among idle ones, in seconds, and the share of a core that the
    idle ones cost."""
    url = f"http://127.0.0.1:{server.port}"
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        for number in range(IDLE):
            await stack.enter_async_context(consume(url, f"idle-{number}"))
        jobs = await stack.enter_async_context(consume(url, "latency", credit=CREDIT))
        times = []
        for _ in range(PUSHES):
            before = time.perf_counter()
            pushed = loop.run_in_executor(None, rig.ask, server.port, "POST", "/q/latency", rig.BODY)
            job = await anext(jobs)
            times.append(time.perf_counter() - before)
            await pushed
            job.ack()
        await asyncio.sleep(1)
        before = rig.cpu_s(server.pid)
        await asyncio.sleep(2 * seconds)
        idle = (rig.cpu_s(server.pid) - before) / (2 * seconds)
    return statistics.median(times), idle


SCRIPT = rig.Script(measure, __doc__, rounds=3, seconds=2)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
