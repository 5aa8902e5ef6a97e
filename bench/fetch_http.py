"""How fast is a fetch over HTTP, against webdis doing LPOP?

Both take 25-byte jobs from a queue that holds more than one round can take; 64 connections, one server
process, a Valkey of the same build with `appendonly yes` and `appendfsync everysec`. webdis is set up as it
is fastest (see rig.py). Any answer that is an error, or a list that ran empty, ends the script.

Owed: at least 1.2 x webdis.

run:          python bench/fetch_http.py
last result:  2026-11-23, busy machine of 2 cores: 1.03 x, MISS (64 k/s; webdis 62 k/s)
"""

from __future__ import annotations

import sys

import rig

FETCH = rig.Request("GET", "/q/bench")
LPOP = rig.Request("GET", "/LPOP/bench.raw")
MOST_PER_S = 150_000


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with (
        rig.presque(bench.directory / "presque") as presque,
        rig.valkey(bench.directory / "valkey") as valkey,
        rig.webdis(bench.directory / "webdis", valkey) as webdis,
        rig.store(valkey.socket) as store,
    ):

        def fetch(seconds: int) -> rig.Load:
            rig.top_up(presque, "bench", seconds * MOST_PER_S)
            return rig.load(presque, FETCH, seconds)

        def lpop(seconds: int) -> rig.Load:
            while store("LLEN", "bench") < seconds * MOST_PER_S:
                store("RPUSH", "bench", *[rig.BODY] * rig.BATCH)
            load = rig.load(webdis, LPOP, seconds)
            if not store("LLEN", "bench"):
                raise rig.Broken("webdis's list ran empty")
            return load

        rig.fill(presque, "bench", 1)
        store("RPUSH", "bench", rig.BODY)
        check(presque, webdis)
        fetch(rig.WARM_UP_S)
        lpop(rig.WARM_UP_S)
        loads = rig.in_turns(
            bench.rounds, {"presque": lambda: fetch(bench.seconds), "webdis": lambda: lpop(bench.seconds)}
        )
    rates = {side: [load.rate for load in its] for side, its in loads.items()}
    rig.table("fetches a second", rates)
    rig.table("p99 in ms", {side: [load.p99_ms for load in its] for side, its in loads.items()}, "{:.2f}")
    return [rig.at_least("fetch / webdis LPOP", rig.median_ratio(rates["presque"], rates["webdis"]), 1.2)]


def check(presque: rig.Program, webdis: rig.Program) -> None:
    """See once that each side hands out a body, from queues that hold one job."""
    status, body = rig.get(presque.port, FETCH.path)
    if status != 200 or len(body) != len(rig.BODY):
        raise rig.Broken(f"presque answered a fetch with {status} {body!r}")
    answered = rig.get(webdis.port, LPOP.path)
    if answered != (200, f"$25\r\n{rig.BODY}\r\n".encode()):
        raise rig.Broken(f"webdis answered LPOP with {answered}")


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
