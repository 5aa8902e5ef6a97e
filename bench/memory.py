"""What does a waiting job cost in memory, and do a million of them slow down push and fetch?

A million jobs of 25 bytes wait on one queue, most of them pushed one by one. Memory is what the store gained
since it was empty, all included, divided by the jobs: as it counts itself (`used_memory`) and as the system
does (resident). A rewrite of the append-only file is waited for first.

The rates compare this server with another one whose queue is empty when a push round begins, and holds just
enough for one round when a fetch round begins.

Owed: at most 100 bytes a job by both counts; rates within 10 %.

run:          python bench/memory.py
last result:  2026-11-24, 2 cores: 90 bytes used, PASS; 112 resident, MISS; push 0.97 x, fetch 0.93 x, PASS
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable

import rig

JOBS = 1_000_000
PUSH = rig.Request("POST", "/q/bench", rig.BODY)
FETCH = rig.Request("GET", "/q/bench")
MOST_PER_S = 120_000
QUIET_WITHIN_S = 60


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with (
        rig.presque(bench.directory / "full") as full,
        rig.presque(bench.directory / "empty") as empty,
    ):
        return [*memory(full, bench.seconds), *rates(full, empty, bench)]


def memory(server: rig.Program, seconds: int) -> list[rig.Verdict]:
    """Fill the queue of an empty server, and judge what that took."""
    store = rig.store_of(server)
    with rig.store(rig.listening_socket(store)) as one:

        def used() -> int:
            return int(one.info("memory")["used_memory"])

        before = used(), rig.rss_bytes(store), rig.rss_bytes(server.pid)
        while JOBS - rig.size(server, "bench") > seconds * MOST_PER_S:
            rig.load(server, PUSH, seconds)
        rig.top_up(server, "bench", JOBS)
        wait_for_rewrite(one)
        after = used(), rig.rss_bytes(store), rig.rss_bytes(server.pid)
    jobs = rig.size(server, "bench")
    print(f"\n{jobs:,} jobs wait; store: {after[0] / 1e6:.0f} MB used, {after[1] / 1e6:.0f} MB resident")
    used_each, rss_each, server_each = (
        (end - begin) / jobs for begin, end in zip(before, after, strict=True)
    )
    return [
        rig.at_most("used_memory of the store, for each job", used_each, 100, "bytes"),
        rig.at_most("resident memory of the store, for each job", rss_each, 100, "bytes"),
        rig.noted("resident memory of the server, for each job", f"{server_each:.3g} bytes"),
    ]


def wait_for_rewrite(store: rig.Store) -> None:
    """Return when no rewrite of the append-only file runs or is due."""
    deadline = time.monotonic() + QUIET_WITHIN_S
    while True:
        info = store.info("persistence")
        if info["aof_rewrite_in_progress"] == "0" and info["aof_rewrite_scheduled"] == "0":
            return
        if time.monotonic() > deadline:
            raise rig.Broken(f"the store still rewrites its file after {QUIET_WITHIN_S} s")
        time.sleep(0.1)


def rates(full: rig.Program, empty: rig.Program, bench: rig.Bench) -> list[rig.Verdict]:
    """Push and fetch on both servers in turn."""

    def push_full() -> float:
        return rig.load(full, PUSH, bench.seconds).rate

    def push_empty() -> float:
        rig.ask(empty.port, "DELETE", "/q/bench")
        return rig.load(empty, PUSH, bench.seconds).rate

    def fetch(server: rig.Program, least: int) -> float:
        rig.top_up(server, "bench", least)
        return rig.load(server, FETCH, bench.seconds).rate

    rig.load(empty, PUSH, rig.WARM_UP_S)
    fetch(empty, bench.seconds * MOST_PER_S)
    sides: dict[str, Callable[[], float]] = {
        "push, empty": push_empty,
        "push, a million": push_full,
        "fetch, few": functools.partial(fetch, empty, bench.seconds * MOST_PER_S),
        "fetch, a million": functools.partial(fetch, full, JOBS),
    }
    measured = rig.in_turns(bench.rounds, sides)
    rig.table("requests a second", measured)
    push = rig.median_ratio(measured["push, a million"], measured["push, empty"])
    taken = rig.median_ratio(measured["fetch, a million"], measured["fetch, few"])
    return [
        rig.at_least("push with a million waiting / empty", push, 0.9),
        rig.at_least("fetch with a million waiting / few", taken, 0.9),
    ]


SCRIPT = rig.Script(measure, __doc__, rounds=3, seconds=2)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
