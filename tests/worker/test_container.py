"""A worker as process 1, as in a container. `unshare --pid` stands in for one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from tests import rig
from tests.worker.conftest import alive, counts

NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture(scope="module")
def namespace() -> list[str]:
    """A command that runs another as process 1. Skips where the system does not allow it."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    for command in (NAMESPACE, [NAMESPACE[0], *NAMESPACE[3:]]):
        if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0:
            return command
    pytest.skip("this system gives no namespaces of processes")


@pytest.fixture
def container(server: rig.Server, namespace: list[str], tmp_path: Path) -> Iterator[Any]:
    """Starts `presque …` as process 1."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, module: str = "presque", **environment: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*namespace, sys.executable, "-m", module, *arguments, "--url", server.url],
                env={**os.environ, "DIARY": str(tmp_path / "diary"), **environment}, stdout=log, stderr=log,
            )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


def inside(process: subprocess.Popen[bytes]) -> list[int]:
    """All processes below one, zombies too."""
    found, waiting = [], [process.pid]
    while waiting:
        pid = waiting.pop()
        children: list[int] = []
        with contextlib.suppress(OSError):  # it, or one of its threads, ends in this moment
            for thread in Path(f"/proc/{pid}/task").iterdir():
                children += [int(one) for one in (thread / "children").read_text().split()]
        found += children
        waiting += children
    return found


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def zombies(process: subprocess.Popen[bytes]) -> list[int]:
    return [pid for pid in inside(process) if Path(f"/proc/{pid}").exists() and not alive(pid)]


@pytest.mark.parametrize(
    "flags", [(), ("--concurrency", "2"), ("--fork",)], ids=["inline", "threads", "fork"]
)
def test_what_jobs_leave_behind_is_reaped(
    container: Any, client: Client, queue_name: str, flags: tuple[str, ...]
) -> None:
    process = container("worker", "tests.worker.wild:Wild", "--queues", queue_name, *flags)
    client.push_many(queue_name, ["leaves_an_orphan"] * 6)
    rig.eventually(lambda: counts(client, queue_name)["processed"] == 6)
    rig.eventually(lambda: len(inside(process)) < 6 and not zombies(process))


def test_what_programs_leave_behind_is_reaped(container: Any, client: Client, queue_name: str) -> None:
    process = container("work", queue_name, "--exec", "sleep 0.3 & sleep 0.05")
    client.push_many(queue_name, [{}] * 6)
    rig.eventually(lambda: counts(client, queue_name)["processed"] == 6)
    rig.eventually(lambda: len(inside(process)) < 6 and not zombies(process))


def test_a_job_still_hears_how_its_own_child_ended(container: Any, client: Client, queue_name: str) -> None:
    container("worker", "tests.worker.wild:Wild", "--queues", queue_name)
    client.push(queue_name, "waits_for_its_child", keep=60)
    assert client.job(queue_name, "1", wait=rig.PATIENCE)["result"] == 7


MODES = {
    "inline": ("Wild",),
    "threads": ("Wild", "--concurrency", "2"),
    "async": ("CleansUpAsync",),
    "fork": ("Wild", "--fork"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_term_to_all_of_a_container_counts_once(
    container: Any, client: Client, queue_name: str, tmp_path: Path, mode: str
) -> None:
    kind, *flags = MODES[mode]
    process = container("worker", f"tests.worker.wild:{kind}", "--queues", queue_name, *flags)
    client.push(queue_name, {"do": "cleans_up", "clean": 1})
    rig.eventually(lambda: "working" in read(tmp_path / "diary"))
    first, worker = sorted(inside(process))[:2]
    for pid in (first, worker):
        os.kill(pid, signal.SIGTERM)
    assert process.wait(rig.PATIENCE) == 0
    assert client.job(queue_name, "1")["state"] == "ready"
    assert client.job(queue_name, "1")["attempt"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_second_term_ends_a_container(
    container: Any, client: Client, queue_name: str, tmp_path: Path, mode: str
) -> None:
    kind, *flags = MODES[mode]
    long = ("--grace", "600", *flags)
    process = container("worker", f"tests.worker.wild:{kind}", "--queues", queue_name, *long)
    client.push(queue_name, {"do": "cleans_up", "clean": 600})
    rig.eventually(lambda: "working" in read(tmp_path / "diary"))
    first = min(inside(process))

    def is_ended() -> bool:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ends before what has started it
                os.kill(first, signal.SIGHUP)
            time.sleep(0.7)
        return process.poll() is not None

    rig.eventually(is_ended)
    assert process.wait() == 128 + signal.SIGHUP


@pytest.mark.parametrize("flags", [(), ("--fork",)], ids=["inline", "fork"])
def test_process_1_passes_signals_on_and_ends_as_the_worker_does(
    container: Any, client: Client, queue_name: str, flags: tuple[str, ...]
) -> None:
    process = container("worker", "tests.worker.jobs:Plain", "--queues", queue_name, *flags)
    client.push(queue_name, {"sleep": 600})
    rig.eventually(lambda: counts(client, queue_name)["leased"] == 1)
    first = min(inside(process))
    os.kill(first, signal.SIGTERM)
    assert process.wait(rig.PATIENCE) == 0
    assert client.job(queue_name, "1")["state"] == "ready"
    assert client.job(queue_name, "1")["attempt"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("module", ["presque", "presque.tasks", "presque.worker"])
def test_process_1_ends_by_a_signal_while_it_imports(
    container: Any, tmp_path: Path, module: str, number: signal.Signals
) -> None:
    slow = f"import pathlib, time; pathlib.Path({str(tmp_path / 'begun')!r}).touch(); time.sleep(600)"
    for name in ("click", "argparse"):  # what the commands import first
        (tmp_path / f"{name}.py").write_text(slow)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = ("worker", "tasks") if module == "presque" else ("tasks",)
    process = container(*command, module=module, PYTHONPATH=path)
    rig.eventually((tmp_path / "begun").exists)
    os.kill(min(inside(process)), number)
    assert process.wait(rig.PATIENCE) == 128 + number
