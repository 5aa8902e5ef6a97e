"""Is a queue slower when ten thousand other queues exist?

Two servers: one has a single queue, on the other 10,000 more hold a job each. Push and fetch on the one queue
in turn, 64 connections; before a fetch round it is filled with enough for the round.

Owed: within 10 % (at least 0.9 x).

run:          python bench/many_queues.py
last result:  2026-11-24, 2 cores: push 0.97 x, fetch 0.99 x, PASS
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import sys

import rig

OTHERS = 10_000
PUSH = rig.Request("POST", "/q/bench", rig.BODY)
FETCH = rig.Request("GET", "/q/bench")
MOST_PER_S = 120_000


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with (
        rig.presque(bench.directory / "alone") as alone,
        rig.presque(bench.directory / "among") as among,
    ):
        make_queues(among)

        def push(server: rig.Program) -> float:
            return rig.load(server, PUSH, bench.seconds).rate

        def fetch(server: rig.Program) -> float:
            rig.top_up(server, "bench", bench.seconds * MOST_PER_S)
            return rig.load(server, FETCH, bench.seconds).rate

        for server in (alone, among):
            rig.load(server, PUSH, rig.WARM_UP_S)
        rates = rig.in_turns(
            bench.rounds,
            {
                "push, one queue": functools.partial(push, alone),
                "push, among 10,000": functools.partial(push, among),
                "fetch, one queue": functools.partial(fetch, alone),
                "fetch, among 10,000": functools.partial(fetch, among),
            },
        )
    rig.table("requests a second", rates)
    pushed = rig.median_ratio(rates["push, among 10,000"], rates["push, one queue"])
    fetched = rig.median_ratio(rates["fetch, among 10,000"], rates["fetch, one queue"])
    return [
        rig.at_least("push among 10,000 queues / alone", pushed, 0.9),
        rig.at_least("fetch among 10,000 queues / alone", fetched, 0.9),
    ]


def make_queues(server: rig.Program) -> None:
    """Push one job to each of the other queues, and see that they are there."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        for number in range(OTHERS):
            connection.request("POST", f"/q/other-{number}", rig.BODY)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:
                raise rig.Broken(f"push to other-{number} answered {answer.status}")
    known = json.loads(rig.get(server.port, "/status/")[1])["size"]
    if known != OTHERS:
        raise rig.Broken(f"{OTHERS} queues were made, /status/ says {known}")


SCRIPT = rig.Script(measure, __doc__, rounds=3, seconds=2)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
