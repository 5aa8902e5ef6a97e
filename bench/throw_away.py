"""How soon is the server of the pytest plugin ready?

The fixture `presque` starts `python -m presque.server.throw_away`: Python, the store, the server. Files are
in the page cache, and compiled. The time on the wall says as much about what else runs, so what the process
of the server has used of a processor until then is shown as well, and what an interpreter takes that imports
only asyncio: no server on asyncio starts sooner.

Owed: ready within 100 ms.

run:          python bench/throw_away.py
last result:  2026-11-29, 2 cores busy with other work, run before all else (chrt -f 10): 0.16 s, 137 ms of a
              processor, of which 45 ms are asyncio, MISS; 0.29 s and 237 ms at e568541
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import rig

READY = [sys.executable, "-m", "presque.server.throw_away"]
ASYNCIO = [sys.executable, "-c", "import asyncio; print('answers at', flush=True); input()"]
WITHIN_S = 60.0


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    used: dict[str, list[float]] = {"server": [], "asyncio": []}
    took = rig.in_turns(
        bench.rounds,
        {
            "server": lambda: ready_s(READY, bench.directory, used["server"]),
            "asyncio": lambda: ready_s(ASYNCIO, bench.directory, used["asyncio"]),
        },
    )
    rig.table("seconds until it is ready", took, "{:.3f}")
    rig.table("seconds of a processor until then", used, "{:.3f}")
    return [
        rig.at_most("ready", statistics.median(took["server"]) * 1000, 100, "ms"),
        rig.noted("processor time, at best", f"{min(used['server']) * 1000:.0f} ms"),
        rig.noted("of that asyncio alone, at best", f"{min(used['asyncio']) * 1000:.0f} ms"),
    ]


def ready_s(command: list[str], directory: Path, used: list[float]) -> float:
    """Seconds from starting a server to the line that says where it answers, looked for every ms."""
    output = directory / "output"
    environment = {
        name: value for name, value in rig.environment().items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    with output.open("wb") as file:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, env=environment)
    try:
        while not re.search(r"answers at", output.read_text()):
            if process.poll() is not None or time.perf_counter() - began > WITHIN_S:
                raise rig.Broken(f"{command[-1]} is not ready: {output.read_text()}")
            time.sleep(0.001)
        took = time.perf_counter() - began
        used.append(processor_s(process.pid))
    finally:
        process.terminate()
        process.wait()
    return took


def processor_s(pid: int) -> float:
    """What a process has used of a processor so far, in seconds, to the nanosecond."""
    return sum(
        int(task.read_text().split()[0]) / 1e9 for task in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


SCRIPT = rig.Script(measure, __doc__, rounds=9)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
