"""How much CPU does a route cost the server that has no plan of its own, against a push?

A push is a hot verb: its plan answers it without a task. Every other route runs a handler in a task. The
same wrk load on each, 64 connections; counted is user and system time of the server's process, divided by
the answers that wrk got. `POST /settle` settles one lease that has ended, which the store refuses, so the
same body can be sent again; `GET /status/` lists one queue.

Owed: `GET /control/` and `POST /queue` with one push cost at most 4 x a push. The others are for information.

run:          python bench/slow_routes.py
last result:  2026-11-30, 2 cores, quiet: 1.75 and 2.43 x, PASS (f51ab5d: 7.1 and 8.9 x)
"""

from __future__ import annotations

import functools
import json
import sys

import rig

PUSH = rig.Request("POST", "/q/bench", rig.BODY)
ROUTES = {
    "POST /q/": PUSH,
    "GET /control/": rig.Request("GET", "/control/bench"),
    "POST /queue, a push": rig.Request("POST", "/queue", '{"cmd":"push","queue":"bench","job":1}'),
    "POST /settle": rig.Request(
        "POST", "/settle", json.dumps({"ack": [{"queue": "bench", "id": "1", "lease": "gone"}]})
    ),
    "GET /status/": rig.Request("GET", "/status/"),
    "GET /stats/{queue}": rig.Request("GET", "/stats/bench"),
}
OWED = ("GET /control/", "POST /queue, a push")


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with rig.presque(bench.directory / "presque") as server:
        for request in ROUTES.values():
            rig.load(server, request, rig.WARM_UP_S)
        sides = {
            name: functools.partial(cost, server, request, bench.seconds) for name, request in ROUTES.items()
        }
        found = rig.in_turns(bench.rounds, sides)
    rig.table("server CPU microseconds for each request", found, "{:.1f}")
    verdicts = []
    for name, costs in found.items():
        if name == "POST /q/":
            continue
        ratio = rig.median_ratio(costs, found["POST /q/"])
        if name in OWED:
            verdicts.append(rig.at_most(f"{name} / push, server CPU", ratio, 4, "x"))
        else:
            verdicts.append(rig.noted(f"{name} / push, server CPU", f"{ratio:.2f} x"))
    return verdicts


def cost(server: rig.Program, request: rig.Request, seconds: int) -> float:
    """CPU microseconds of the server for each request."""
    before = rig.cpu_s(server.pid)
    load = rig.load(server, request, seconds)
    return (rig.cpu_s(server.pid) - before) / load.requests * 1e6


SCRIPT = rig.Script(measure, __doc__, rounds=3)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
