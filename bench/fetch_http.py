"""How fast is a fetch over HTTP, against webdis doing LPOP?

Both take 25-byte jobs from a queue that holds more than one round can take; 64 connections, one server
process, a Valkey of the same build with `appendonly yes` and `appendfsync everysec`. webdis runs twice: as
it is shipped, which is judged, and tuned by hand, which is reported (see push_http.py). Any answer that is
an error, or a list that ran empty, ends the script.

Owed: at least 1.25 x webdis.

run:          python bench/fetch_http.py
last result:  2026-11-30, 2 cores, quiet: 0.88 x, MISS; earlier that day 0.87 to 0.92 x, and f51ab5d in that
              hour 1.06 x. Since then a fetch costs the server and the store less, see before.py
              2026-11-24, another machine, 11 rounds: 1.24 x and 1.22 x; tuned by hand 1.17 x and 1.14 x
              before calls waited for half of the callers (decision 2): 1.13 x, 1.06 x
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable

import rig

FETCH = rig.Request("GET", "/q/bench")
LPOP = rig.Request("GET", "/LPOP/bench")
LPOP_TUNED = rig.Request("GET", "/LPOP/bench.raw")
MOST_PER_S = 150_000


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with (
        rig.presque(bench.directory / "presque") as presque,
        rig.valkey(bench.directory / "valkey") as valkey,
        rig.webdis(bench.directory / "webdis", valkey) as webdis,
        rig.webdis(bench.directory / "tuned", valkey, tuned=True) as tuned,
        rig.store(valkey.socket) as store,
    ):

        def fetch(seconds: int) -> rig.Load:
            rig.top_up(presque, "bench", seconds * MOST_PER_S)
            return rig.load(presque, FETCH, seconds)

        def lpop(program: rig.Program, request: rig.Request, seconds: int) -> rig.Load:
            while store("LLEN", "bench") < seconds * MOST_PER_S:
                store("RPUSH", "bench", *[rig.BODY] * rig.BATCH)
            load = rig.load(program, request, seconds)
            if not store("LLEN", "bench"):
                raise rig.Broken("webdis's list ran empty")
            return load

        rig.fill(presque, "bench", 1)
        store("RPUSH", "bench", rig.BODY, rig.BODY)
        check(presque, webdis, LPOP, json.dumps({"LPOP": rig.BODY}, separators=(",", ":")).encode())
        rig.fill(presque, "bench", 1)
        check(presque, tuned, LPOP_TUNED, f"$25\r\n{rig.BODY}\r\n".encode())
        sides: dict[str, Callable[[int], rig.Load]] = {
            "presque": fetch,
            "webdis": functools.partial(lpop, webdis, LPOP),
            "webdis tuned": functools.partial(lpop, tuned, LPOP_TUNED),
        }
        for load in sides.values():
            load(rig.WARM_UP_S)
        loads = rig.in_turns(
            bench.rounds, {name: functools.partial(load, bench.seconds) for name, load in sides.items()}
        )
    rates = {side: [load.rate for load in its] for side, its in loads.items()}
    rig.table("fetches a second", rates)
    rig.table("p99 in ms", {side: [load.p99_ms for load in its] for side, its in loads.items()}, "{:.2f}")
    by_hand = rig.median_ratio(rates["presque"], rates["webdis tuned"])
    return [
        rig.at_least("fetch / webdis LPOP", rig.median_ratio(rates["presque"], rates["webdis"]), 1.25),
        rig.noted("fetch / webdis LPOP, webdis tuned by hand", f"{by_hand:.2f} x"),
    ]


def check(presque: rig.Program, webdis: rig.Program, lpop: rig.Request, expected: bytes) -> None:
    """See once that each side hands out a body, from queues that hold one job."""
    status, body = rig.get(presque.port, FETCH.path)
    if status != 200 or len(body) != len(rig.BODY):
        raise rig.Broken(f"presque answered a fetch with {status} {body!r}")
    answered = rig.get(webdis.port, lpop.path)
    if answered != (200, expected):
        raise rig.Broken(f"webdis answered LPOP with {answered}")


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
