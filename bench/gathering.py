"""What is it worth to gather pushes and fetches into calls, and to stay awake while such a call is under way?

Four servers that differ in one number of engine/batching.py: as it is; never staying awake (SPIN_TURNS); no
call waiting for half of the callers (GATHER_TURNS); and one call for each request (CALLS_MOST). 64
connections push, then fetch what was pushed.

Nothing is owed: this is the measure of a decision, docs/decisions/0002-group-commit.md.

run:          python bench/gathering.py
last result:  2026-11-24, 2 cores: push 2.32 x, fetch 2.83 x; staying awake 1.08 x, 1.06 x;
              waiting for half 1.11 x, 1.07 x
"""

from __future__ import annotations

import functools
import sys

import rig

PUSH = rig.Request("POST", "/q/bench", rig.BODY)
FETCH = rig.Request("GET", "/q/bench")
MOST_PER_S = 150_000
CHANGE = "import presque.engine.batching as batching; batching."


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with (
        rig.presque(bench.directory / "gathered") as gathered,
        rig.presque(bench.directory / "asleep", change=f"{CHANGE}SPIN_TURNS = 1") as asleep,
        rig.presque(bench.directory / "eager", change=f"{CHANGE}GATHER_TURNS = 0") as eager,
        rig.presque(bench.directory / "single", change=f"{CHANGE}CALLS_MOST = 1") as single,
    ):
        servers = {
            "as it is": gathered,
            "never staying awake": asleep,
            "not waiting for half": eager,
            "not gathered": single,
        }

        def fetch(server: rig.Program, seconds: int) -> float:
            rig.top_up(server, "bench", seconds * MOST_PER_S)
            return rig.load(server, FETCH, seconds).rate

        def push(server: rig.Program, seconds: int) -> float:
            return rig.load(server, PUSH, seconds).rate

        for server in servers.values():
            push(server, rig.WARM_UP_S)
        verdicts = []
        for verb, measured in (("push", push), ("fetch", fetch)):
            rates = rig.in_turns(
                bench.rounds,
                {
                    name: functools.partial(measured, server, bench.seconds)
                    for name, server in servers.items()
                },
            )
            rig.table(f"{verb}: requests a second", rates)
            for other in list(servers)[1:]:
                ratio = rig.median_ratio(rates["as it is"], rates[other])
                verdicts.append(rig.noted(f"{verb}: as it is / {other}", f"{ratio:.2f} x"))
    return verdicts


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
