"""How much CPU does a push cost the program that uses a client, against http.client by hand?

One push after the other on one connection; counted is user and system time of this process, divided by the
pushes. By hand means `http.client`, `json.dumps` and `json.loads`, and no checks at all. Nothing is owed.

run:          python bench/clients.py
last result:  2026-11-25, 2 cores, other work beside it: Client 0.72 x, AsyncClient 0.94 x
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import sys
import time

import rig

from presque import AsyncClient, Client

PUSHES = 2000
JOB = json.loads(rig.BODY)


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with rig.presque(bench.directory / "presque") as server:
        sides = {
            "http.client by hand": functools.partial(by_hand, server),
            "Client": functools.partial(one_by_one, server),
            "AsyncClient": functools.partial(on_a_loop, server),
        }
        found = rig.in_turns(bench.rounds, sides)
    rig.table("client CPU microseconds for each push", found, "{:.1f}")
    reference = found.pop("http.client by hand")
    return [
        rig.noted(f"{name} / by hand, CPU for each push", f"{rig.median_ratio(costs, reference):.2f} x")
        for name, costs in found.items()
    ]


def by_hand(server: rig.Program) -> float:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        before = time.process_time()
        for _ in range(PUSHES):
            connection.request("POST", "/q/bench", json.dumps(JOB))
            answer = connection.getresponse()
            id = json.loads(answer.read())["id"]
            if answer.status != 201 or not id:
                raise rig.Broken(f"POST /q/bench answered {answer.status}")
        return (time.process_time() - before) / PUSHES * 1e6


def one_by_one(server: rig.Program) -> float:
    with Client(f"http://127.0.0.1:{server.port}") as client:
        before = time.process_time()
        for _ in range(PUSHES):
            client.push("bench", JOB)
        return (time.process_time() - before) / PUSHES * 1e6


def on_a_loop(server: rig.Program) -> float:
    async def push() -> float:
        async with AsyncClient(f"http://127.0.0.1:{server.port}") as client:
            before = time.process_time()
            for _ in range(PUSHES):
                await client.push("bench", JOB)
            return (time.process_time() - before) / PUSHES * 1e6

    return asyncio.run(push())


SCRIPT = rig.Script(measure, __doc__, rounds=7)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
