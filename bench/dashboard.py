"""How soon does the dashboard show something and follow a click, with 2,000 queues and a million jobs?

A server with that many, and Debian's Chromium. The page is opened, queues are opened and left again.

Owed: first paint within 0.5 s, a view within 0.1 s of its click, all parts in 120 kB. Whether its memory
stays flat is the question of dashboard_memory.py.

run:          python bench/dashboard.py
last result:  2026-11-29, 2 cores: first paint 0.29 s, the list 0.46 s, a view 0.05 s after its click, 116 kB.
              With a load of 25 beside it: 0.56 s, 0.93 s, 0.06 s
"""

from __future__ import annotations

import statistics
import sys
import time

import rig

from presque import Client
from presque.dashboard.pages import pages

QUEUES, JOBS = 2_000, 1_000_000
CLICKS = 9


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    """Open the page, click, and watch."""
    with rig.browser() as browser, rig.presque(bench.directory) as server:
        url = f"http://127.0.0.1:{server.port}"
        rig.fill(server, "big", JOBS)
        with Client(url) as client:
            for number in range(QUEUES):
                client.push(f"tenant{number % 40}-{number:04}", {"n": number})
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        paints, lists = [], []
        for _ in range(3):
            page.goto("about:blank")
            started = time.perf_counter()
            page.goto(url, wait_until="commit")
            page.locator(".queues tbody tr").first.wait_for()
            lists.append(time.perf_counter() - started)
            paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
            page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
            paints.append(page.evaluate(paint))
        page.get_by_role("heading", name="Queues").get_by_text("2,001").wait_for()
        clicks = [page.evaluate(CLICK) for _ in range(CLICKS)]
    size = sum(len(one.packed) for one in pages().values()) / 1000
    return [
        rig.at_most("first paint", statistics.median(paints), 0.5, "s"),
        rig.noted("the list of queues", f"{statistics.median(lists):.2f} s"),
        rig.at_most("from a click to its view", statistics.median(clicks), 0.1, "s"),
        rig.at_most("all parts, packed", size, 120, "kB"),
    ]


# A click on a queue of a million jobs, until the next frame after its page stands there; and back.
CLICK = """async () => {
  const drawn = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const until = async (found) => { while (!found()) await drawn(); };
  const field = document.querySelector("#filter");
  field.value = "big";
  field.dispatchEvent(new InputEvent("input", { bubbles: true }));
  await until(() => document.querySelector('.queues a[href="#/queues/big"]'));
  const before = performance.now();
  document.querySelector('.queues a[href="#/queues/big"]').click();
  await until(() => document.querySelector("h1")?.textContent === "big");
  await drawn();
  const took = performance.now() - before;
  await until(() => document.querySelector(".jobs tbody tr"));
  history.back();
  await until(() => document.querySelector("#filter"));
  return took / 1000;
}"""


SCRIPT = rig.Script(measure, __doc__, rounds=1, seconds=1)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
