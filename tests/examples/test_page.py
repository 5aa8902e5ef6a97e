"""The page in examples/, in a real browser."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import async_playwright, expect

from tests import rig
from tests.dashboard.conftest import FLAGS

EXAMPLES = Path(__file__).parents[2] / "examples"


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def files() -> Iterator[str]:
    """Serves examples/ from an origin of its own."""
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Files, directory=str(EXAMPLES))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_the_page_consumes_a_queue_and_acks_its_jobs_but_only_from_an_allowed_origin(
    files: str,
) -> None:
    with rig.server("--memory", PRESQUE_ORIGINS=files) as allowed, rig.server("--memory") as closed:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=rig.require("chromium"), args=FLAGS)
            page = await browser.new_page()
            allowed.ask("POST", "/q/hello", '{"n": 1}')
            await page.goto(f"{files}/live.html?server=ws://127.0.0.1:{allowed.port}")
            await expect(page.locator("li")).to_have_text(['{"n":1}'])
            allowed.ask("POST", "/q/hello", '"now"')
            await expect(page.locator("li")).to_have_text(['{"n":1}', '"now"'])
            rig.eventually(lambda: allowed.ask("GET", "/stats/hello").json["processed"] == 2)
            await page.goto(f"{files}/live.html?server=ws://127.0.0.1:{closed.port}")
            await expect(page.locator("#state")).to_contain_text("Away")
            await browser.close()
