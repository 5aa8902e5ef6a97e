"""How much CPU does a push cost the server, against nginx doing `return 200`?

The same wrk load on both: 64 connections, POST with 25 bytes. Counted is user and system time of all threads
during the run, divided by the answers that wrk got. Which processes:

- `server`: the process of presque alone. The figure owed is about this one, since nginx stores nothing.
- `server + store`: with the Valkey that presque runs as its child. For information.
- `nginx`: master and its one worker.

Owed: server at most 1.5 x nginx.

run:          python bench/cpu.py
last result:  2026-11-30, 2 cores, quiet: 1.87 x, MISS; earlier that day 1.82 x, and f51ab5d in the same hour
              1.76 x.
              More than half of what a push costs the server is the kernel's, for its sockets
              2026-11-24, another machine: 1.37 x; with the store 1.65 x
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import rig

PUSH = rig.Request("POST", "/q/bench", rig.BODY)


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of CPU for each answer: of each process counted, in the order asked for."""

    us: tuple[float, ...]
    rate: float

    @property
    def total(self) -> float:
        return sum(self.us)


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with (
        rig.presque(bench.directory / "presque") as presque,
        rig.nginx(bench.directory / "nginx") as nginx,
    ):
        ours = (presque.pid, rig.store_of(presque))
        theirs = (nginx.pid, *rig.descendants(nginx.pid))
        rig.load(presque, PUSH, rig.WARM_UP_S)
        rig.load(nginx, PUSH, rig.WARM_UP_S)
        costs = rig.in_turns(
            bench.rounds,
            {
                "presque": lambda: cost(presque, ours, bench.seconds),
                "nginx": lambda: cost(nginx, theirs, bench.seconds),
            },
        )
    reference = [one.total for one in costs["nginx"]]
    server = [one.us[0] for one in costs["presque"]]
    both = [one.total for one in costs["presque"]]
    microseconds = {
        "presque: server": server,
        "presque: store": [one.us[1] for one in costs["presque"]],
        "presque: server + store": both,
        "nginx": reference,
    }
    rig.table("CPU microseconds for each request", microseconds, "{:.2f}")
    rig.table("requests a second", {side: [one.rate for one in its] for side, its in costs.items()})
    return [
        rig.at_most("server / nginx, CPU for each push", rig.median_ratio(server, reference), 1.5, "x"),
        rig.noted("server + store / nginx", f"{rig.median_ratio(both, reference):.2f} x"),
    ]


def cost(server: rig.Program, pids: tuple[int, ...], seconds: int) -> Cost:
    """Load `server`, and see what that cost each process."""
    before = [rig.cpu_s(pid) for pid in pids]
    load = rig.load(server, PUSH, seconds)
    after = [rig.cpu_s(pid) for pid in pids]
    spent = tuple((end - begin) / load.requests * 1e6 for begin, end in zip(before, after, strict=True))
    return Cost(spent, load.rate)


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
