"""What the page holds does not grow with what happens; bench/dashboard_memory.py watches it for longer."""

from __future__ import annotations

import pytest
from playwright.sync_api import CDPSession, expect

from presque import Client
from tests import rig
from tests.dashboard.conftest import Open

ROUNDS, JOBS = 10, 300  # the tail shows 500 events; a round brings up to three for each job


def held(session: CDPSession) -> tuple[int, int, int]:
    """Bytes of JavaScript, nodes and listeners once the garbage is collected."""
    session.send("HeapProfiler.collectGarbage")
    counters = session.send("Memory.getDOMCounters")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    return int(used), counters["nodes"], counters["jsEventListeners"]


def happen(client: Client) -> None:
    """All that can happen to many jobs of one queue."""
    client.push_many("busy", [{"n": n} for n in range(JOBS)])
    leased = client.lease("busy", JOBS)
    assert len(leased) == JOBS
    for job in leased:
        client.ack(job)


@pytest.mark.parametrize("at", ["#/", "#/tail", "#/queues/busy"])
def test_many_events_leave_nothing_behind(window: Open, at: str) -> None:
    with rig.server("--memory") as server, Client(server.url) as client:
        client.push_many("busy", [0])
        # Why the oldest job waits is asked, on a busy machine, when it is done already.
        page = window(server.url, at, bears=(f"404 (Not Found) {{'url': '{server.url}/j/busy/",))
        expect(page.locator(".connection.live")).to_be_visible()
        session = page.context.new_cdp_session(page)
        seen = []
        for number in range(ROUNDS):
            happen(client)
            client.push(f"last-{number}", number)
            expect(page.locator(".tabs .count").first).to_have_text(str(number + 2))  # it has heard of all
            seen.append(held(session))
            if level(seen[-3:]):
                return
        pytest.fail(f"it holds more and more: {seen}")


def level(seen: list[tuple[int, int, int]]) -> bool:
    """Whether three rounds in a row held as much. What a round left behind would be more than is let pass."""
    if len(seen) < 3:
        return False
    (first_bytes, *first), (last_bytes, *last) = seen[0], seen[-1]
    return last_bytes < 1.05 * first_bytes + 100_000 and all(
        b <= a + JOBS for a, b in zip(first, last, strict=True)
    )
