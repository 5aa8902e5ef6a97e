"""A worker that is killed takes with it what its jobs have started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from tests import rig
from tests.worker.conftest import Process, Work, alive, heard

STARTS = {
    "inline": ("Wild",),
    "threads": ("Wild", "--concurrency", "2"),
    "async": ("StartsAsync",),
    "fork": ("Wild", "--fork"),
    "fork and async": ("StartsAsync", "--fork"),
}
linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only on Linux")


@linux
@pytest.mark.parametrize("mode", STARTS)
def test_what_jobs_have_started_ends_with_a_worker_that_is_killed(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.push(queue_name, "starts_programs")
    worker = work(*STARTS[mode], module="wild")
    [started] = worker.noted("started")
    rig.eventually(lambda: guards(worker))
    worker.signal(signal.SIGKILL)
    worker.wait()
    rig.eventually(lambda: not any(alive(pid) for pid in started["pids"]))
    rig.eventually(lambda: not guards(worker))


@linux
def test_a_command_and_what_it_runs_end_with_a_worker_that_is_killed(
    client: Client, queue_name: str, program: Any, tmp_path: Path
) -> None:
    client.push(queue_name, {})
    script = tmp_path / "prog.sh"
    script.write_text(f"#!/bin/sh\nwhile true; do echo x >> {tmp_path}/beats; sleep 0.05; done\n")
    script.chmod(0o755)
    worker = program(f"{script}; echo finished >&2")
    rig.eventually((tmp_path / "beats").exists)
    rig.eventually(lambda: guards(worker))
    worker.signal(signal.SIGKILL)
    worker.wait()

    def is_still() -> bool:
        before = (tmp_path / "beats").stat().st_size
        time.sleep(0.3)
        return (tmp_path / "beats").stat().st_size == before

    rig.eventually(is_still)


@linux
@pytest.mark.parametrize("mode", ["inline", "threads"])
def test_a_worker_that_is_ended_in_haste_takes_them_along_and_one_that_ends_as_it_should_does_not(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.push(queue_name, "starts_programs")
    hasty = work(*STARTS[mode], "--grace", "600", module="wild")
    [started] = hasty.noted("started")
    hasty.signal(signal.SIGTERM)
    hasty.says("worker.asked what=stop")
    hasty.signal(signal.SIGTERM)
    hasty.wait()
    rig.eventually(lambda: not any(alive(pid) for pid in started["pids"]))
    client.delete(queue_name, "1")
    client.purge(queue_name)
    client.push(queue_name, "leaves_a_program")
    calm = work(*STARTS[mode], "--burst", module="wild")
    assert calm.wait() == 0
    [left] = calm.notes("left")
    assert alive(left["program"])
    os.kill(left["program"], signal.SIGKILL)


@linux
def test_what_jobs_left_on_purpose_stays_when_a_worker_is_stopped_once(
    work: Work, client: Client, queue_name: str
) -> None:
    client.push(queue_name, "leaves_a_program")
    worker = work("Wild", module="wild")
    [left] = worker.noted("left")
    worker.noted("ended")
    rig.eventually(lambda: guards(worker))
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    rig.eventually(lambda: not guards(worker))
    assert alive(left["program"])
    os.kill(left["program"], signal.SIGKILL)


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("how", ["command", "script", "script that waits last of all"])
def test_a_worker_takes_them_along_that_is_ended_while_python_waits_for_what_a_stopped_job_has_left(
    work: Work, server: rig.Server, client: Client, queue_name: str, tmp_path: Path, how: str, number: int
) -> None:
    client.push(queue_name, "starts_programs")
    if how == "command":
        worker = work("Wild", "--grace", "600", module="wild")
    else:
        first = "from multiprocessing import util; " if how == "script that waits last of all" else ""
        start = f"from tests.worker.wild import Wild; Wild({server.url!r}, queue={queue_name!r}).start()"
        environment = {**os.environ, "DIARY": str(tmp_path / "diary")}
        script = subprocess.Popen([sys.executable, "-c", first + start], env=environment)
        worker = Process(script, tmp_path / "diary", tmp_path / "log")
    try:
        [started] = worker.noted("started")
        worker.signal(signal.SIGTERM)
        rig.eventually(lambda: not heard(worker.pid))
        worker.signal(number)
        worker.wait()
    finally:
        worker.process.kill()
    rig.eventually(lambda: not any(alive(pid) for pid in started["pids"]))


@linux
def test_a_process_whose_name_is_no_text_keeps_no_guard_from_its_work(
    work: Work, client: Client, queue_name: str, tmp_path: Path
) -> None:
    script = tmp_path / ("n" * 14 + "é")  # the kernel keeps 15 bytes
    script.write_text("#!/bin/sh\nread _\n")
    script.chmod(0o755)
    with subprocess.Popen([str(script)], stdin=subprocess.PIPE) as odd:
        rig.eventually(lambda: Path(f"/proc/{odd.pid}/comm").read_bytes() == b"n" * 14 + b"\xc3\n")
        client.push(queue_name, "starts_programs")
        worker = work("Wild", module="wild")
        [started] = worker.noted("started")
        worker.signal(signal.SIGKILL)
        worker.wait()
        rig.eventually(lambda: not any(alive(pid) for pid in started["pids"]))


@linux
def test_a_guard_ends_with_its_worker_and_is_started_again_when_it_is_killed(
    work: Work, client: Client, queue_name: str
) -> None:
    worker = work("Wild", "--fork", module="wild")
    [guard] = rig.eventually(lambda: guards(worker))
    os.kill(guard, signal.SIGKILL)
    rig.eventually(lambda: not alive(guard))
    client.push(queue_name, "fine")
    worker.noted("ended")
    [again] = rig.eventually(lambda: guards(worker))
    assert again != guard
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    rig.eventually(lambda: not alive(again))


def guards(worker: Process) -> list[int]:
    """The guards of this worker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.endswith(b"presque/worker/guard.py") for word in words) and (
                str(worker.pid).encode() in words and words[0] != b"sh" and b"-c" not in words
            ):
                found.append(int(entry.name))
    return found
