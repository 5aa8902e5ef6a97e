"""What does `--fsync always` cost a push, against `everysec`?

`always` answers a push when the job is on disk, `everysec` up to two seconds before. One fsync serves every
push of a turn of the store's loop, so many clients share its price and a lone one pays it alone. Data must
lie on a real disk: on tmpfs fsync is free and this says nothing.

Owed: at least 0.6 x `everysec` at 64 connections. At 1 connection nothing is owed.

run:          python bench/fsync.py
last result:  2026-11-30, 2 cores, quiet: 0.73 x at 64 connections, PASS
"""

from __future__ import annotations

import functools
import os
import statistics
import sys
import time
from pathlib import Path

import rig

PUSH = rig.Request("POST", "/q/bench", rig.BODY)


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    if rig.filesystem(bench.directory) == "tmpfs":
        raise rig.Broken(f"{bench.directory} is on tmpfs, where fsync is free: choose a disk with --dir")
    print(f"an fsync after 100 bytes takes {fsync_ms(bench.directory):.2f} ms here (median)")
    verdicts = []
    with (
        rig.presque(bench.directory / "always", fsync="always") as always,
        rig.presque(bench.directory / "everysec", fsync="everysec") as everysec,
    ):
        for connections in (64, 1):
            sides = {
                "always": functools.partial(rig.load, always, PUSH, connections=connections),
                "everysec": functools.partial(rig.load, everysec, PUSH, connections=connections),
            }
            for push in sides.values():
                push(rig.WARM_UP_S)
            loads = rig.in_turns(
                bench.rounds, {name: functools.partial(push, bench.seconds) for name, push in sides.items()}
            )
            rates = {side: [load.rate for load in its] for side, its in loads.items()}
            rig.table(f"pushes a second, connections: {connections}", rates)
            ratio = rig.median_ratio(rates["always"], rates["everysec"])
            if connections == 64:
                verdicts.append(rig.at_least("always / everysec, 64 connections", ratio, 0.6))
            else:
                verdicts.append(rig.noted("always / everysec, 1 connection", f"{ratio:.2f} x"))
    return verdicts


def fsync_ms(directory: Path) -> float:
    """How long this disk takes to make a small append last."""
    took = []
    with (directory / "probe").open("ab", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 100)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1e3)
    return statistics.median(took)


SCRIPT = rig.Script(measure, __doc__, rounds=3)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
