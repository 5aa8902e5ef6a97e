"""Jobs that misbehave, drawn at random among good ones, into a worker of each mode.

Every good job is done once, every bad one is dead with its reason, and no process, file or memory is left.
`make faults` draws 10,000.
"""

from __future__ import annotations

import os
import random
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from presque.verbs.bounds import BATCH_MOST
from tests import rig
from tests.worker import wild
from tests.worker.conftest import Process, Work, alive, counts, settled
from tests.worker.test_outcomes import ERRORS, WILD

JOBS = int(os.environ.get("TEST_FUZZ", "150"))
ROUNDS = 3
MUCH_WORK = ("wide", "wide_and_dead", "chain", "recursion")
"""What makes so many exceptions that it is late on a busy machine."""
LATE_S = 2
"""More than a good job takes on a busy machine."""
LATE = f"took longer than its time limit of {LATE_S} s"

DONE = (
    "comes_back_from_a_fork",
    "leaves_files_open",
    "leaves_a_thread",
    "look",
    "ends_a_child",
    "tells_long_integers",
)
ALONE_DONE = ("prints", "closes", *(f"mess {what}" for what in wild.MESSES))
FORK_BAD = {
    "exits_at_once": "its process ended with exit status 3 before the job was done",
    "crashes": "its process was killed by signal 11 (SIGSEGV)",
    "fills_the_memory": "MemoryError",
}


def kinds(mode: str) -> tuple[list[str], dict[str, str]]:
    """What may be drawn in a mode: jobs that are done, and bad ones with what is said of them."""
    done, bad = list(DONE), dict(ERRORS)
    if "fork" in mode or mode == "inline":
        done += ALONE_DONE
    if "fork" in mode:
        done.append("starts_a_program")
        bad |= FORK_BAD
    if mode == "fork":
        done.append("closes_all")
    elif mode == "fork and async":  # its loop cannot go on
        bad["closes_all"] = "the job failed and could not say why, since it has closed its files"
    if mode != "threads":
        bad["swallows" if mode in ("async", "fork and async") else "hangs"] = LATE
    if mode in ("async", "fork and async"):
        for name in ("hangs", "swallows"):
            bad.pop(name, None)  # a coroutine that sleeps without awaiting holds up all others
    if "fork" not in mode:
        bad["ends_its_worker"] = "PermissionError: a job must not "
    bad["signals_its_worker"] = "PermissionError: a job must not send its own worker a signal"
    return done, bad


def draw(mode: str, count: int, dice: random.Random, first: int) -> list[Any]:
    done, bad = kinds(mode)
    slow = {"hangs", "swallows"}
    jobs: list[Any] = []
    for number in range(first, first + count):
        name = "good"
        if dice.random() < 0.5:
            name = dice.choice([*done, *bad])
            if name in slow and dice.random() < 0.7:
                name = "good"
        if name.startswith("mess "):
            jobs.append({"do": "mess", "what": name.removeprefix("mess "), "n": number})
        elif name == "ends_its_worker":
            how, thread = dice.choice(list(wild.ENDERS)), dice.random() < 0.5
            jobs.append({"do": name, "how": how, "thread": thread, "n": number})
        elif name == "signals_its_worker":
            number_sent = dice.choice([signal.SIGTERM, signal.SIGKILL, signal.SIGUSR2, signal.SIGHUP])
            jobs.append({"do": name, "number": number_sent, "parent": "fork" in mode, "n": number})
        else:
            jobs.append({"do": name, "n": number})
    return jobs


@pytest.mark.timeout(60 + JOBS)
@pytest.mark.parametrize("mode", WILD)
def test_good_jobs_are_done_once_and_bad_ones_are_dead_with_their_reason(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    dice = random.Random(JOBS)
    client.change_policy(queue_name, max_attempts=1, dead_most=20_000)
    flags = () if mode == "threads" else ("--timeout", str(LATE_S))
    worker = work(*WILD[mode], *flags, "--log-level", "error", module="wild")
    jobs: list[Any] = []
    ids: list[str] = []
    samples = []
    for _ in range(ROUNDS):
        some = draw(mode, JOBS // ROUNDS, dice, len(jobs))
        jobs += some
        for first in range(0, len(some), BATCH_MOST):
            ids += client.push_many(queue_name, some[first : first + BATCH_MOST])
        worker.until(lambda: settled(client, queue_name), within=30 + JOBS)
        samples.append((files(worker), rss_kb(worker)))
        assert worker.process.poll() is None, worker.said()[-3000:]
    _, bad = kinds(mode)
    expected = {id: bad[job["do"]] for id, job in zip(ids, jobs, strict=True) if job["do"] in bad}
    dead = all_dead(client, queue_name)
    assert set(dead) == set(expected), {id: dead.get(id) for id in set(dead) ^ set(expected)}
    late = {id for id, job in zip(ids, jobs, strict=True) if job["do"] in MUCH_WORK}
    odd = {id: error for id, error in dead.items() if not error.startswith(expected[id])}
    assert {id: error for id, error in odd.items() if id not in late or error != LATE} == {}
    assert counts(client, queue_name)["processed"] == len(jobs) - len(expected)
    done = Counter(one["n"] for one in worker.notes("good"))
    assert done == Counter(job["n"] for job in jobs if job["do"] == "good")

    assert samples[-1][0] <= samples[0][0] + 4, samples
    assert samples[-1][1] - samples[0][1] < 16_384 + JOBS, samples
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    rig.eventually(lambda: not of_worker(worker))


def test_a_worker_that_has_ended_is_not_waited_for(work: Work, client: Client, queue_name: str) -> None:
    client.push(queue_name, "fine")
    worker = work("Wild", module="wild")
    worker.noted("ended")
    worker.signal(signal.SIGKILL)
    with pytest.raises(AssertionError, match=r"the worker ended with -9:\n(?s:.*)job.started"):
        worker.until(lambda: False, within=10 * rig.PATIENCE)


def all_dead(client: Client, queue: str) -> dict[str, str]:
    """What is said of each dead job."""
    found: dict[str, str] = {}
    cursor = None
    while True:
        page = client.jobs(queue, "dead", limit=100, cursor=cursor)
        found |= {job["id"]: job["errors"][-1]["error"] for job in page["jobs"]}
        cursor = page.get("cursor")
        if not cursor:
            return found


def of_worker(worker: Process) -> list[int]:
    """The processes that were started by a worker and its jobs, and the guard."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            try:
                environment = (entry / "environ").read_bytes()
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            diary = f"DIARY={worker.diary}".encode()
            if diary in environment.split(b"\0") or str(worker.pid).encode() in words:
                found.append(int(entry.name))
    return found


def files(worker: Process) -> int:
    return len(list(Path(f"/proc/{worker.pid}/fd").iterdir()))


def rss_kb(worker: Process) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{worker.pid}/status").read_text())
    assert found is not None
    return int(found[1])
