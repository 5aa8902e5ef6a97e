"""How fast is a push over HTTP, against webdis doing RPUSH?

Both write to a Valkey of the same build with `appendonly yes` and `appendfsync everysec`, reached by a unix
socket; 64 connections, the same 25-byte body, one server process. webdis is set up as it is fastest (see
rig.py). What differs: a push of presque gives the job an id and keeps counters; an RPUSH appends 25 bytes.

Owed: at least 1.2 x webdis.

run:          python bench/push_http.py
last result:  2026-11-23, busy machine of 2 cores: 1.00 x, MISS (60 k/s; webdis 66 k/s)
"""

from __future__ import annotations

import functools
import json
import sys

import rig

PUSH = rig.Request("POST", "/q/bench", rig.BODY)
# All of webdis's forms (GET with the value in the URL, POST with the command in the body, PUT with the value
# in the body; JSON, text or raw answers) are within 5 % of each other; this one came first most often.
RPUSH = rig.Request("POST", "/", f"RPUSH/bench/{rig.BODY}.raw")


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with (
        rig.presque(bench.directory / "presque") as presque,
        rig.valkey(bench.directory / "valkey") as valkey,
        rig.webdis(bench.directory / "webdis", valkey) as webdis,
    ):
        check(presque, webdis, valkey)
        push = functools.partial(rig.load, presque, PUSH)
        rpush = functools.partial(rig.load, webdis, RPUSH)
        push(rig.WARM_UP_S)
        rpush(rig.WARM_UP_S)
        loads = rig.in_turns(
            bench.rounds, {"presque": lambda: push(bench.seconds), "webdis": lambda: rpush(bench.seconds)}
        )
    rates = {side: [load.rate for load in its] for side, its in loads.items()}
    rig.table("pushes a second", rates)
    rig.table("p99 in ms", {side: [load.p99_ms for load in its] for side, its in loads.items()}, "{:.2f}")
    return [rig.at_least("push / webdis RPUSH", rig.median_ratio(rates["presque"], rates["webdis"]), 1.2)]


def check(presque: rig.Program, webdis: rig.Program, valkey: rig.Valkey) -> None:
    """See once that each side really keeps the body."""
    status, said = rig.ask(presque.port, PUSH.method, PUSH.path, PUSH.body)
    if status != 201 or "id" not in json.loads(said):
        raise rig.Broken(f"presque answered a push with {status} {said!r}")
    if rig.get(presque.port, "/q/bench") != (200, rig.BODY.encode()):
        raise rig.Broken("presque did not give back what was pushed")
    answered = rig.ask(webdis.port, RPUSH.method, RPUSH.path, RPUSH.body)
    if answered != (200, b":1\r\n"):
        raise rig.Broken(f"webdis answered RPUSH with {answered}")
    with rig.store(valkey.socket) as store:
        if store("LPOP", "bench") != rig.BODY.encode():
            raise rig.Broken("webdis did not store what was pushed")


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
