"""What does a task cost over a plain `work` of the same body, and how soon can a program push one?

The jobs do nothing, and are worked off in one process, as in `workers.py`. What `from presque import App`
takes is the processor time of an interpreter that does it, less that of one that does nothing, at their best:
the time on the wall says more about what else runs. Files are in the page cache, and compiled.

Owed: 1.3 times a plain `work`; 60 ms to import what pushes.

run:          python bench/tasks.py
last result:  2026-11-30, 2 cores, quiet: 1.03 and 1.12 x, 57.4, 46.8 and 56.9 ms, PASS
"""

from __future__ import annotations

import os
import subprocess
import sys

import rig
import workers

JOBS = 20_000


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    with rig.presque(bench.directory / "presque") as server:
        counts = bench.directory / "counts"
        rates = rig.in_turns(bench.rounds, workers.as_tasks(server, counts, JOBS))
    took = rig.in_turns(
        bench.rounds * 5,
        {"import": lambda: cpu_s("from presque import App; App()"), "pass": lambda: cpu_s("pass")},
    )
    imported = min(took["import"]) - min(took["pass"])
    rig.table(f"{JOBS:,} jobs that call a task, jobs a second", rates)
    rig.table("seconds of a processor", took, "{:.3f}")
    return [
        workers.cost_of_a_task(rates),
        rig.at_most("to import what pushes", imported * 1000, 60, "ms"),
    ]


def cpu_s(code: str) -> float:
    """Seconds of processor time that an interpreter takes for this."""
    left_out = {"PYTHONDONTWRITEBYTECODE"}
    environment = {name: value for name, value in rig.environment().items() if name not in left_out}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise rig.Broken(f"{code} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


SCRIPT = rig.Script(measure, __doc__, rounds=3)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
