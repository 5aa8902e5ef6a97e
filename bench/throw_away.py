"""How soon is the server of the pytest plugin ready?

A project with one module of tests is run by pytest as its reader would run it, without a cache of what was
there before: how long does its first test wait for the fixture `presque`? The server starts while pytest gets
ready and the module is imported, so a test waits for less than a server takes. That is measured for itself:
from the start of `python -m presque.server.throw_away` (Python, the store, the server) until it answers.
Files are in the page cache, and compiled. The time on the wall says as much about what else runs, so what
the process of the server has used of a processor until then is shown as well, and what an interpreter takes
that imports only asyncio: no server on asyncio starts sooner. After its last test a run waits for the server
to end.

Owed: the first test waits for at most 100 ms.

run:          python bench/throw_away.py
last result:  2026-11-30, 2 cores, quiet: waits 83 ms, PASS; 19 ms at its end; a server is ready within 146
              ms, 121 ms of a processor, of which 45 ms are asyncio
              2026-11-30, 2 cores busy with other work (load 7), run before all else: waits 102 ms, MISS; a
              server is ready within 135 ms, 122 ms of a processor, of which 46 ms are asyncio. It starts
              40 ms sooner than in the runs below, where it started with the import of the module:
              2 cores busy with other work, run before all else (chrt -f 10): waits 89 ms, PASS;
              19 ms at its end; a server is ready within 113 ms, 103 ms of a processor, of which 40 ms are
              asyncio. At 51f2cd9 a test waited for 0.17 s and for the import of presque.testing, and a run
              for 0.12 s at its end. On a quiet machine that was a quarter slower that hour (asyncio 43 ms):
              waits 107 ms, MISS; ready within 131 ms. Where the time goes, on a busy machine, run before all
              else: Python 20 ms, asyncio and uvloop 35, the rest of the imports 80 (9 dataclasses 7, 83
              regular expressions 8), functions into the store 6, other calls of it 6. The store needs 40 ms,
              of which it sleeps 30 to measure the processor's clock, all of it while the imports go on. To
              load the functions from a thread meanwhile gained nothing (150 ms against 146)
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


TESTS = """
from presque import App, Client

app = App(queue="mail")


@app.task
def send(to: str) -> str:
    return f"to {to}"


def test_a_letter_is_pushed_and_sent(presque):
    send.push("ana")
    assert [run.result for run in presque.run_due(app)] == ["to ana"]
"""
WAITED = """
import time

import pytest

took = {"begins": 0.0, "ends": 0.0}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item):
    began = time.perf_counter()
    yield
    took["begins"] = time.perf_counter() - began


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item):
    began = time.perf_counter()
    yield
    took["ends"] = time.perf_counter() - began


def pytest_unconfigure():
    with open("took", "w") as file:
        print(took["begins"], took["ends"], file=file)
"""


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    project = bench.directory / "project"
    project.mkdir()
    (project / "test_letters.py").write_text(TESTS)
    (project / "conftest.py").write_text(WAITED)
    ends: list[float] = []
    waited_s(project, [])  # so that the files are compiled
    used: dict[str, list[float]] = {"server": [], "asyncio": []}
    took = rig.in_turns(
        bench.rounds,
        {
            "server": lambda: ready_s(READY, bench.directory, used["server"]),
            "asyncio": lambda: ready_s(ASYNCIO, bench.directory, used["asyncio"]),
            "a test": lambda: waited_s(project, ends),
        },
    )
    waits = took.pop("a test")
    rig.table("seconds that pytest waits", {"before its first test": waits, "after its last": ends}, "{:.3f}")
    rig.table("seconds until a server is ready", took, "{:.3f}")
    rig.table("seconds of a processor until then", used, "{:.3f}")
    return [
        rig.at_most("the first test waits", statistics.median(waits) * 1000, 100, "ms"),
        rig.noted("a run waits at its end", f"{statistics.median(ends) * 1000:.0f} ms"),
        rig.noted("a server is ready within", f"{statistics.median(took['server']) * 1000:.0f} ms"),
        rig.noted("processor time, at best", f"{min(used['server']) * 1000:.0f} ms"),
        rig.noted("of that asyncio alone, at best", f"{min(used['asyncio']) * 1000:.0f} ms"),
    ]


def waited_s(project: Path, ends: list[float]) -> float:
    """Seconds in which pytest prepares the first test of a project. Those that its end takes go to `ends`."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command,
        cwd=project,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    if done.returncode != 0:
        raise rig.Broken(done.stdout)
    before, after = (project / "took").read_text().split()
    ends.append(float(after))
    return float(before)


def _environment() -> dict[str, str]:
    return {name: value for name, value in rig.environment().items() if name != "PYTHONDONTWRITEBYTECODE"}


def ready_s(command: list[str], directory: Path, used: list[float]) -> float:
    """Seconds from starting a server to the line that says where it answers, looked for every ms."""
    output = directory / "output"
    with output.open("wb") as file:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, env=_environment())
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
