"""What does it cost the store to count what a namespace holds?

The functions are called on a queue of the server's own namespace, where nothing is counted, of a namespace
without quotas, and of one with quotas for queues, jobs and bytes. Counted is the CPU time of the store for
each job, with calls of one job and of fifty, which is what a busy server makes of 64 connections: pushed,
fetched, leased and acked. The calls come over one connection, many at a time.

run:          python bench/counting.py
last result:  2026-11-29, 2 busy cores (load 10), in a namespace / own, without and with quotas:
              one a call: push 1.19 and 1.34 x, fetch 1.19 and 1.13 x, lease and ack 1.07 and 1.12 x;
              50 a call: push 1.05 and 1.06 x, fetch 1.03 and 0.98 x, lease and ack 1.12 and 1.14 x
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import rig

from presque.engine import calls, library, records
from presque.engine.keys import Keys

JOBS = 10_000
AT_ONCE = 50
SIZES = (1, 50)
PLAIN, MADE, BOUND = "own", "made", "with quotas"
NAMESPACES = {PLAIN: Keys("bench"), MADE: Keys("bench").inside("made"), BOUND: Keys("bench").inside("bound")}


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with rig.valkey(bench.directory / "valkey") as valkey, rig.calls(valkey, AT_ONCE) as ask:
        with rig.store(valkey.socket) as store:
            store("FUNCTION", "LOAD", "REPLACE", library.source())
        ask([calls.encode("quota", NAMESPACES[BOUND].usage(), 1000, 100_000_000, 100_000_000_000)])
        sides: dict[str, Callable[[], float]] = {}
        for size in SIZES:
            for work in (_push, _fetch, _lease):
                for name, keys in NAMESPACES.items():
                    sides[_title(work, size, name)] = _side(valkey.pid, ask, work, keys, size)
        for side in sides.values():
            side()
        costs = rig.in_turns(bench.rounds, sides)
    rig.table("CPU microseconds of the store for each job", costs, "{:.2f}")
    verdicts = []
    for size in SIZES:
        for work in (_push, _fetch, _lease):
            for name in (MADE, BOUND):
                ratio = rig.median_ratio(costs[_title(work, size, name)], costs[_title(work, size, PLAIN)])
                verdicts.append(rig.noted(f"{_title(work, size, name)} / own", f"{ratio:.2f} x"))
    return verdicts


Work = Callable[[rig.Ask, tuple[str, ...], int], None]


def _title(work: Work, size: int, name: str) -> str:
    return f"{work.__name__[1:]}, {size} a call, {name}"


def _side(pid: int, ask: rig.Ask, work: Work, keys: Keys, size: int) -> Callable[[], float]:
    def side() -> float:
        of_queue = keys.of("mail")
        if work is not _push:
            _push(ask, of_queue, size)
        before = rig.cpu_s(pid)
        work(ask, of_queue, size)
        spent = rig.cpu_s(pid) - before
        ask([calls.encode("purge", of_queue)])
        return spent / JOBS * 1e6

    return side


def _push(ask: rig.Ask, keys: tuple[str, ...], size: int) -> None:
    body = records.seal(rig.BODY.encode())
    ask([calls.encode("push", keys, 0, 0, *[b"", body] * size)] * (JOBS // size))


def _fetch(ask: rig.Ask, keys: tuple[str, ...], size: int) -> None:
    ask([calls.encode("fetch", keys, size, 1 << 20)] * (JOBS // size))


def _lease(ask: rig.Ask, keys: tuple[str, ...], size: int) -> None:
    """Lease and ack."""
    call = calls.encode("lease", keys, size, 1 << 20, 60_000, "worker", "nonce", "")
    settles = []
    for reply in ask([call] * (JOBS // size)):
        _, ids, _, held, _ = reply[3]
        settles.append(calls.encode("settle", keys, "0.5", "ack", held[0], b"", b" ".join(ids)))
    ask(settles)


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
