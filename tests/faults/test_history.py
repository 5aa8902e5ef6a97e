"""Leases under a mixed load while the store, servers and workers are killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import rig
from tests.faults import history
from tests.faults.test_kills import _servers_of
from tests.faults.worker import QUEUE, Server

JOBS = int(os.environ.get("TEST_JOBS", "2000"))
"""More of them make the same test long."""

WORKERS = 4
KILLS_LEAST = 9
BATCH = 100


class Workers:
    """Worker processes, and the logs that they write."""

    def __init__(self, port: int, directory: Path) -> None:
        self._port = port
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._started = 0

    def start(self) -> None:
        """Start one more."""
        self._started += 1
        log = self._directory / f"{self._started}.log"
        log.touch()
        command = [sys.executable, "-m", "tests.faults.worker", str(self._port), str(log), str(self._started)]
        self._processes.append(subprocess.Popen(command))

    def kill_one(self) -> None:
        """Kill one as it stands, and start another."""
        victim = self._processes.pop(0)
        victim.kill()
        victim.wait()
        self.start()

    def __enter__(self) -> Workers:
        for _ in range(WORKERS):
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def logs(self) -> list[Path]:
        return sorted(self._directory.glob("*.log"))


@contextlib.contextmanager
def pushing(port: int, jobs: int) -> Iterator[threading.Thread]:
    """Push that many numbers, each batch repeated with its key until it is acknowledged."""

    def push() -> None:
        with contextlib.closing(Server(port)) as server:
            for first in range(0, jobs, BATCH):
                numbers = list(range(first, min(first + BATCH, jobs)))
                server.ask(f"/qb/{QUEUE}?attempts=1000", {"jobs": numbers}, f"batch {first}")

    thread = threading.Thread(target=push, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(rig.PATIENCE + JOBS / 50)
        assert not thread.is_alive()


def left(server: rig.Server) -> int:
    """How many jobs are not finished; some while the server cannot say."""
    with contextlib.suppress(OSError):
        answer = server.ask("GET", f"/stats/{QUEUE}", timeout=10)
        if answer.status == 200:
            return sum(answer.json[state] for state in ("ready", "scheduled", "leased", "dead"))
    return -1


@pytest.mark.timeout(180 + JOBS // 50)
def test_nothing_is_lost_held_twice_or_stuck_whatever_is_killed(
    new_data: Callable[[], str], tmp_path: Path
) -> None:
    chance = random.Random(5)
    killed = 0
    with (
        rig.server("--data", new_data(), "--workers", "2") as server,
        Workers(server.port, tmp_path) as workers,
    ):
        with pushing(server.port, JOBS) as pusher:
            while killed < KILLS_LEAST or pusher.is_alive():
                time.sleep(chance.uniform(0.1, 0.6))
                kill_something(server, workers, killed)
                killed += 1
        rig.eventually(lambda: left(server) == 0, within=2 * rig.PATIENCE)
    assert history.problems(range(JOBS), history.read(workers.logs())) == []


def kill_something(server: rig.Server, workers: Workers, turn: int) -> None:
    """A worker, a server process, the store, in turn."""
    if turn % 3 == 0:
        workers.kill_one()
        return
    with contextlib.suppress(LookupError, OSError):  # it may be on its way back from the last time
        os.kill(_servers_of(server)[0] if turn % 3 == 1 else _store_of_fleet(server), signal.SIGKILL)


def _store_of_fleet(server: rig.Server) -> int:
    parent = server.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    stores = [int(pid) for pid in children if "valkey" in Path(f"/proc/{pid}/cmdline").read_text()]
    return stores[0]


DEFECTS = {
    "held twice": ("q.leased, steady_clock(q, now)", "q.leased, steady_clock(q, now) + 900"),
    "done twice": (
        """  leave_lease(fates, id, job)
  fates.done[#fates.done + 1] = id
""",
        "  do return 'done' end\n",
    ),
    "lost": ("fate_back(q, fates, id, job, run)\n        failed", "failed"),
}


@pytest.mark.parametrize("what", DEFECTS)
def test_the_checker_finds_a_job_that_is(what: str, new_data: Callable[[], str], tmp_path: Path) -> None:
    right, wrong = DEFECTS[what]
    defect = (
        "import presque.engine.library as library\n"
        "source = library.source()\n"
        f"assert {right!r} in source\n"
        f"library.source = lambda **_: source.replace({right!r}, {wrong!r})\n"
        "from presque.cli.main import main; main()"
    )
    jobs = 500
    with (
        rig.server("--data", new_data(), program=("-c", defect)) as server,
        Workers(server.port, tmp_path) as workers,
    ):
        with pushing(server.port, jobs):
            pass

        def found() -> list[str]:
            problems = history.problems(range(jobs), history.read(workers.logs()))
            return [problem for problem in problems if what in problem]

        if what == "lost":
            time.sleep(3)  # everything that still moves has come to its end
        rig.eventually(found)
