"""Worker processes, and the diaries that they keep."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from tests import rig

MODES = {
    "inline": ("Plain",),
    "threads": ("Plain", "--concurrency", "4"),
    "async": ("Async",),
    "fork": ("Plain", "--fork", "--concurrency", "4"),
}


@dataclass
class Process:
    """A worker that runs."""

    process: subprocess.Popen[bytes]
    diary: Path
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def notes(self, what: str | None = None) -> list[dict[str, Any]]:
        """What it wrote down so far."""
        lines = self.diary.read_text().splitlines() if self.diary.exists() else []
        found = [json.loads(line) for line in lines]
        return [one for one in found if what is None or one["what"] == what]

    def noted(self, what: str, count: int = 1, within: float = rig.PATIENCE) -> list[dict[str, Any]]:
        """Wait until it has written so many lines of this kind."""
        rig.eventually(lambda: len(self.notes(what)) >= count, within)
        return self.notes(what)

    def said(self) -> str:
        return self.log.read_text()

    def says(self, text: str, within: float = rig.PATIENCE) -> None:
        """Wait until this is in its log."""
        rig.eventually(lambda: text in self.said(), within)

    def until(self, condition: Callable[[], Any], within: float = rig.PATIENCE) -> None:
        """Wait for something that this worker brings about. Fail at once if it has ended before that."""

        def is_so() -> bool:
            ended = self.process.poll()  # before the condition, which it may have met as its last deed
            met = bool(condition())
            assert met or ended is None, f"the worker ended with {ended}:\n{self.said()[-3000:]}"
            return met

        rig.eventually(is_so, within, lambda: self.said()[-3000:])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, within: float = rig.PATIENCE) -> int:
        return self.process.wait(within)


Work = Callable[..., Process]


@pytest.fixture
def work(server: rig.Server, queue_name: str, tmp_path: Path) -> Iterator[Work]:
    """Starts workers for the queue of this test."""
    with starting(tmp_path) as start:

        def begin(
            kind: str, *flags: str, url: str = server.url, module: str = "jobs", **environment: str
        ) -> Process:
            target = f"tests.worker.{module}:{kind}"
            return start("worker", target, "--queues", queue_name, *flags, url=url, **environment)

        yield begin


@pytest.fixture
def program(server: rig.Server, queue_name: str, tmp_path: Path) -> Iterator[Work]:
    """Makes workers of shell commands."""
    with starting(tmp_path) as start:
        yield lambda command, *flags: start("work", queue_name, "--exec", command, *flags, url=server.url)


@contextlib.contextmanager
def starting(directory: Path) -> Iterator[Callable[..., Process]]:
    """Starts `presque` commands, and ends those that still run."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: str, url: str, **environment: str) -> Process:
        diary = directory / "diary"
        log = directory / f"worker-{len(running)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "presque", *command, "--url", url, "--log-format", "plain"],
                stdout=file,
                stderr=file,
                env={**os.environ, "DIARY": str(diary), "TMPDIR": str(directory), **environment},
                start_new_session=True,
            )
        running.append(process)
        return Process(process, diary, log)

    try:
        yield start
    finally:
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture
def client(server: rig.Server) -> Iterator[Client]:
    with Client(server.url) as found:
        yield found


def counts(client: Client, queue: str) -> dict[str, int]:
    """How many jobs are in which state, and how many were done and failed."""
    stats = client.stats(queue)
    names = ("ready", "scheduled", "leased", "dead", "processed", "failed")
    return {name: count for name, count in stats.items() if name in names and isinstance(count, int)}


def settled(client: Client, queue: str) -> bool:
    """Whether no job waits or is held."""
    found = counts(client, queue)
    return not (found["ready"] or found["scheduled"] or found["leased"])


def heard(pid: int) -> bool:
    """Whether this process hears TERM: a worker does until it has ended its work."""
    caught = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    assert caught is not None
    return bool(int(caught[1], 16) >> signal.SIGTERM - 1 & 1)


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends while it is read
        return False
