"""Makes the screenshots of the documents: a server with real workers and real traffic, looked at for a while.

run:  make screenshots
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from presque import Client
from tests import rig
from tests.dashboard.conftest import FLAGS
from tests.dashboard.world import at_work, fill

TO = Path(__file__).resolve().parents[2] / "docs" / "guides" / "images"
TRAFFIC_S = 100
MOST_BYTES = 150_000
SHOTS = (
    ("queues", "#/", "light", 1280, 760),
    ("queue", "#/queues/mail?state=history&over=5m", "light", 1280, 860),
    ("failures", "#/failures", "light", 1280, 480),
    ("job", "", "dark", 1280, 860),
    ("phone", "#/", "dark", 390, 780),
)


def main() -> None:
    """Fill a server, let it work, and take the pictures."""
    TO.mkdir(parents=True, exist_ok=True)
    with rig.server("--memory") as server, Client(server.url, worker="vm:21632") as client:
        fill(client)
        client.push("audio", {"file": "talk.flac"})
        client.lease("audio", seconds=3600)
        silent = {
            "queues": ["audio"],
            "state": "working",
            "host": "vm",
            "jobs": [{"queue": "audio", "id": "1"}],
        }
        server.ask("PUT", "/w/", json.dumps(silent), X_presque_workerid="vm:21632")
        with at_work(server.url), sync_playwright() as playwright:
            time.sleep(TRAFFIC_S)
            browser = playwright.chromium.launch(executable_path=rig.require("chromium"), args=FLAGS)
            dead = client.jobs("video", "dead", limit=1)["jobs"][0]["id"]
            for name, at, scheme, width, height in SHOTS:
                context = browser.new_context(
                    color_scheme=scheme,  # type: ignore[arg-type]
                    viewport={"width": width, "height": height},
                )
                page = context.new_page()
                page.goto(f"{server.url}/{at or f'#/jobs/video/{dead}'}")
                settled(page)
                page.screenshot(path=TO / f"dashboard-{name}.png")
                assert (TO / f"dashboard-{name}.png").stat().st_size < MOST_BYTES, name
                context.close()
            browser.close()


def settled(page: Page) -> None:
    """Wait until the view, and the strip on top, have heard all that they asked for."""
    page.locator(".triage a", has_text=re.compile("no worker|silent")).first.wait_for(timeout=30_000)
    page.wait_for_timeout(4000)  # the small lines come one after the other


if __name__ == "__main__":
    main()
