"""How fast is a push over HTTP, against webdis doing RPUSH?

Both write to a Valkey of the same build with `appendonly yes` and `appendfsync everysec`; 64 connections, the
same 25-byte body, one server process. What differs: a push of presque gives the job an id and keeps counters;
an RPUSH appends 25 bytes.

webdis runs twice: as Debian ships it and its documentation uses it (two threads, TCP to the store, the
command in the URL, JSON answers), which is judged, and tuned by hand until nothing made it faster (a unix
socket, one connection a thread, the command in the body, raw answers; see rig.py), which is reported.

Owed: at least 1.25 x webdis.

run:          python bench/push_http.py
last result:  2026-11-30, 2 cores, quiet: 1.01 x, MISS; earlier that day 1.04 and 1.00 x, and f51ab5d 1.06 x
              2026-11-24, another machine, 9 rounds: 1.26 x and 1.27 x; tuned by hand 1.18 x and 1.22 x
              before calls waited for half of the callers (decision 2): 1.12 x, 1.07 x
"""

from __future__ import annotations

import functools
import json
import sys
from urllib.parse import quote

import rig

PUSH = rig.Request("POST", "/q/bench", rig.BODY)
RPUSH = rig.Request("GET", f"/RPUSH/bench/{quote(rig.BODY, safe='')}")
RPUSH_TUNED = rig.Request("POST", "/", f"RPUSH/bench/{rig.BODY}.raw")


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with (
        rig.presque(bench.directory / "presque") as presque,
        rig.valkey(bench.directory / "valkey") as valkey,
        rig.webdis(bench.directory / "webdis", valkey) as webdis,
        rig.webdis(bench.directory / "tuned", valkey, tuned=True) as tuned,
    ):
        check(presque, webdis, valkey, RPUSH, b'{"RPUSH":1}')
        check(presque, tuned, valkey, RPUSH_TUNED, b":1\r\n")
        sides = {
            "presque": functools.partial(rig.load, presque, PUSH),
            "webdis": functools.partial(rig.load, webdis, RPUSH),
            "webdis tuned": functools.partial(rig.load, tuned, RPUSH_TUNED),
        }
        for load in sides.values():
            load(rig.WARM_UP_S)
        loads = rig.in_turns(
            bench.rounds, {name: functools.partial(load, bench.seconds) for name, load in sides.items()}
        )
    rates = {side: [load.rate for load in its] for side, its in loads.items()}
    rig.table("pushes a second", rates)
    rig.table("p99 in ms", {side: [load.p99_ms for load in its] for side, its in loads.items()}, "{:.2f}")
    by_hand = rig.median_ratio(rates["presque"], rates["webdis tuned"])
    return [
        rig.at_least("push / webdis RPUSH", rig.median_ratio(rates["presque"], rates["webdis"]), 1.25),
        rig.noted("push / webdis RPUSH, webdis tuned by hand", f"{by_hand:.2f} x"),
    ]


def check(
    presque: rig.Program, webdis: rig.Program, valkey: rig.Valkey, rpush: rig.Request, expected: bytes
) -> None:
    """See once that each side really keeps the body."""
    status, said = rig.ask(presque.port, PUSH.method, PUSH.path, PUSH.body)
    if status != 201 or "id" not in json.loads(said):
        raise rig.Broken(f"presque answered a push with {status} {said!r}")
    if rig.get(presque.port, "/q/bench") != (200, rig.BODY.encode()):
        raise rig.Broken("presque did not give back what was pushed")
    answered = rig.ask(webdis.port, rpush.method, rpush.path, rpush.body)
    if answered != (200, expected):
        raise rig.Broken(f"webdis answered RPUSH with {answered}")
    with rig.store(valkey.socket) as store:
        if store("LPOP", "bench") != rig.BODY.encode():
            raise rig.Broken("webdis did not store what was pushed")


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
