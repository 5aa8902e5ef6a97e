"""How long does `presque serve` take to its first answer, and `presque --help` to its end?

`serve` starts with an empty data directory, its store included, and is asked every 2 ms until `GET /status/`
answers 200. Files may be in the page cache; nothing else is warm. `python -c pass` says what the machine
takes to start Python at all.

Owed: `serve` at most 0.5 s, `--help` at most 0.1 s (medians).

run:          python bench/startup.py
last result:  2026-11-24, 2 cores: 0.20 s and 0.036 s (python -c pass 0.008 s), PASS
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from pathlib import Path

import rig


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    places = (bench.directory / str(number) for number in itertools.count())
    script = Path(sys.executable).with_name("presque")
    presque = [str(script)] if script.exists() else [sys.executable, "-m", "presque"]
    took = rig.in_turns(
        bench.rounds,
        {
            "presque serve": lambda: first_answer_s(next(places)),
            "presque --help": lambda: run_s([*presque, "--help"]),
            "python -c pass": lambda: run_s([sys.executable, "-c", "pass"]),
        },
    )
    rig.table("seconds", took, "{:.3f}")
    return [
        rig.at_most("serve to its first answer", statistics.median(took["presque serve"]), 0.5, "s"),
        rig.at_most("--help", statistics.median(took["presque --help"]), 0.1, "s"),
        rig.noted("python -c pass", f"{statistics.median(took['python -c pass']):.3f} s"),
    ]


def first_answer_s(directory: Path) -> float:
    """Seconds from starting a server to its first answer. It is stopped afterwards."""
    port = rig.free_port()
    command = rig.presque_command(directory, port, "always")
    began = time.perf_counter()
    with rig.started(command, directory, rig.answers(port, "/status/")):
        return time.perf_counter() - began


def run_s(command: list[str]) -> float:
    """Seconds that a command takes from start to end."""
    began = time.perf_counter()
    done = subprocess.run(command, env=rig.environment(), capture_output=True, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise rig.Broken(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()}")
    return took


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
