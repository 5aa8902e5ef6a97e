"""Leases at their limits: groups in turn, exact rates, and a hundred thousand jobs due at once."""

from __future__ import annotations

import statistics
import time

import pytest

from presque import codec
from presque.engine import replies
from presque.job import PushOptions
from tests import rig
from tests.lua.test_functions import MIB, Functions


def lease(functions: Functions, count: int = 1, ms: int | str = 60_000) -> list[bytes]:
    """The bodies of the jobs that one lease brings, asked again for as long as there may be more."""
    while True:
        reply = replies.leased(
            functions.call("lease", functions.of("q"), count, MIB, ms, "w", "n", ""), ["q"]
        )
        if reply.jobs or not reply.more:
            return [job.body for job in reply.jobs]


def test_groups_take_turns_from_one_call_to_the_next(functions: Functions) -> None:
    for body in (b"a1", b"a2", b"a3", b"a4"):
        functions.push("q", body, group="a")
    functions.push("q", b"b1", b"b2", group="b")
    functions.push("q", b"none")
    assert [lease(functions)[0] for _ in range(5)] == [b"a1", b"b1", b"none", b"a2", b"b2"]
    functions.push("q", b"c1", group="c")
    assert [lease(functions)[0] for _ in range(3)] == [b"a3", b"c1", b"a4"]
    assert lease(functions) == []


def test_jobs_that_waited_before_the_first_group_came_are_a_group_of_their_own(functions: Functions) -> None:
    functions.push("q", b"1", b"2")
    functions.push("q", b"a1", b"a2", group="a")
    assert functions.bodies("q") == [b"1", b"a1", b"2", b"a2"]


def test_a_thousand_groups_at_their_limit_do_not_hide_one_that_is_not(functions: Functions) -> None:
    functions.call("policy", functions.of("q"), codec.pack({"group_leased": 1}))
    for number in range(1000):
        functions.push("q", b"1", b"2", group=f"g{number}")
    held = 0
    while leased := lease(functions, 1000):
        held += len(leased)
    assert held == 1000
    functions.push("q", b"new", group="new")
    assert lease(functions, 10) == [b"new"]


def test_no_window_sees_more_than_the_rate_allows(functions: Functions) -> None:
    functions.call("policy", functions.of("q"), codec.pack({"rate_count": 7, "rate_ms": 50}))
    functions.push("q", *[b"1"] * 1000)
    before_after: list[tuple[float, float]] = []
    deadline = time.monotonic() + rig.PATIENCE
    while len(before_after) < 7 * 10:
        before = time.monotonic()
        assert before < deadline, "it lets through what it may"
        jobs = lease(functions, 3)
        before_after += [(before, time.monotonic())] * len(jobs)
    for first, eighth in zip(before_after, before_after[7:], strict=False):
        assert eighth[1] - first[0] >= 0.05


@pytest.mark.timeout(300)
def test_a_hundred_thousand_jobs_due_in_one_moment_are_handed_out_as_fast_as_ready_ones(
    functions: Functions,
) -> None:
    due = round(time.time() * 1000) + 3_000
    options = PushOptions(delayed=due)
    jobs = 100_000
    for _ in range(0, jobs, 1000):
        functions.push("q", *[b"1"] * 1000, delayed=options.delayed)
    time.sleep(max(0.0, due / 1000 - time.time()) + 0.001)
    found, of_due = 0, []
    while found < jobs:
        before = time.perf_counter()
        found += len(lease(functions, 100))
        of_due.append(time.perf_counter() - before)
    assert found == jobs
    # The machine may be slow: it is as slow with jobs that were never scheduled.
    of_ready = []
    for _ in range(10):
        functions.push("q", *[b"1"] * 1000)
    for _ in range(100):
        before = time.perf_counter()
        assert len(lease(functions, 100)) == 100
        of_ready.append(time.perf_counter() - before)
    assert statistics.median(of_due) < 10 * statistics.median(of_ready)
