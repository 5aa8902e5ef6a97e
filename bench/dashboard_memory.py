"""Does the memory of the dashboard stay flat while it shows live updates for a long time?

A server with 2,000 queues on which 100 jobs a second are pushed, leased, and acked or failed, and four tabs
of Debian's Chromium that stay open: the list of queues, the live tail, a queue over time with its charts,
and the workers. At each of the intervals the browser collects its garbage, and says what JavaScript holds and
how many nodes and listeners its documents have. The last quarter is compared with the second: in the first,
caches fill.

Owed: each figure of each tab grows by no more than a tenth. `--seconds` is how long it watches.

run:          python bench/dashboard_memory.py
last result:  2026-11-29, 31 minutes, 2 cores, load of 12 to 27 beside it. MB of heap, second and last part:
              queues 4.87 and 4.89, tail 5.26 and 5.30, over time 4.53 and 4.56, workers 2.99 and 3.02.
              Listeners the same, nodes the same but in the tail: 6456 and 6241
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import rig

from presque import Client
from presque.client import calls

QUEUES, BUSY = 2_000, 50
DEAD_MOST = 100
EVERY_S = 30
EACH_S = 0.01
FAILS, REPORTS = 20, 100  # of so many jobs one
TABS = {
    "queues": "#/",
    "tail": "#/tail",
    "over time": "#/queues/busy0?state=history&over=5m",
    "workers": "#/workers",
}


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    """Open the tabs, and look at them again and again."""
    with rig.browser() as browser, rig.presque(bench.directory) as server:
        url = f"http://127.0.0.1:{server.port}"
        with Client(url) as client:
            for number in range(QUEUES):
                client.push(f"tenant{number % 40}-{number:04}", {"n": number})
            for number in range(BUSY):
                client.change_policy(f"busy{number}", dead_most=DEAD_MOST)
        with traffic(url):
            tabs = {}
            for name, at in TABS.items():
                page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
                page.goto(f"{url}/{at}")
                page.locator("main").wait_for()
                tabs[name] = page.context.new_cdp_session(page)
            found: dict[str, list[dict[str, int]]] = {name: [] for name in tabs}
            until = time.monotonic() + bench.seconds
            while time.monotonic() < until:
                time.sleep(min(EVERY_S, bench.seconds / 8))
                for name, tab in tabs.items():
                    found[name].append(held(tab))
    return [verdict for name, looks in found.items() for verdict in judged(name, looks)]


def held(tab: Any) -> dict[str, int]:
    """What a tab holds once its garbage is collected."""
    tab.send("HeapProfiler.collectGarbage")
    counters = tab.send("Memory.getDOMCounters")
    return {
        "heap": int(tab.send("Runtime.getHeapUsage")["usedSize"]),
        "nodes": counters["nodes"],
        "listeners": counters["jsEventListeners"],
    }


def judged(name: str, looks: list[dict[str, int]]) -> Iterator[rig.Verdict]:
    """The last quarter against the second."""
    quarter = len(looks) // 4
    for what in looks[0]:
        before, after = (
            statistics.median(look[what] for look in some)
            for some in (looks[quarter : 2 * quarter], looks[-quarter:])
        )
        unit = 1e6 if what == "heap" else 1
        yield rig.noted(f"{name}: {what}", f"{before / unit:.4g} … {after / unit:.4g}")
        yield rig.at_most(f"{name}: {what} in the end / before", after / before, 1.1, "x")


@contextlib.contextmanager
def traffic(url: str) -> Iterator[None]:
    """Somebody pushes jobs, does some and fails some, and workers report, until the end."""
    ended = threading.Event()

    def work() -> None:
        with Client(url, worker="bench:1") as client:
            number = 0
            while not ended.wait(EACH_S):
                number += 1
                queue = f"busy{number % BUSY}"
                client.push(queue, {"n": number})
                for job in client.lease(queue, seconds=60):
                    if number % FAILS:
                        client.ack(job)
                    else:
                        client.fail(job, f"no such thing: {number}", retry=False)
                if number % REPORTS == 0:
                    held = [{"queue": queue, "id": str(number), "seconds": 1}]
                    said = {"queues": [queue], "state": "working", "host": "bench", "jobs": held}
                    client.perform(calls.workers.report("bench:1", said))

    working = threading.Thread(target=work)
    working.start()
    try:
        yield
    finally:
        ended.set()
        working.join()


SCRIPT = rig.Script(measure, __doc__, rounds=1, seconds=1800)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
