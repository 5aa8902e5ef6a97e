"""The page at `/`, in a real browser."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests import rig

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def fresh() -> Iterator[rig.Server]:
    """A server without any queue."""
    with rig.server("--memory") as found:
        yield found


@contextlib.asynccontextmanager
async def browsing(url: str, scheme: str = "light") -> AsyncIterator[Page]:
    """The page of a server, opened; fails if it complained, or asked anybody else for anything."""
    complaints: list[str] = []
    asked: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=rig.require("chromium"), args=FLAGS)
        context = await browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
        page = await context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(url)
        yield page
        await browser.close()
    assert [text for text in complaints if "ERR_CONNECTION" not in text] == []
    assert asked
    assert all(address.startswith(url) for address in asked)


async def test_an_empty_server_shows_how_to_push_the_first_job(fresh: rig.Server) -> None:
    async with browsing(fresh.url) as page:
        await expect(page.locator("#try")).to_contain_text(f"curl {fresh.url}/q/hello")
        await expect(page.locator("#queues")).to_be_hidden()
        await expect(page.locator("#about")).to_contain_text("in memory")


async def test_a_job_that_is_pushed_shows_without_a_reload(fresh: rig.Server) -> None:
    async with browsing(fresh.url) as page:
        await expect(page.locator("#empty")).to_be_visible()
        fresh.ask("POST", "/q/mail", b"1")
        row = page.locator("tbody tr", has_text="mail")
        await expect(row.locator("td").nth(1)).to_have_text("1")
        fresh.ask("POST", "/control/mail", b'{"status":"stop"}')
        await expect(row).to_contain_text("stopped")


async def test_queues_can_be_sorted_and_filtered(fresh: rig.Server) -> None:
    for name, count in (("alpha", 1), ("beta", 3), ("gamma", 2)):
        fresh.ask("POST", f"/qb/{name}", b'{"jobs":[%s]}' % b",".join([b"1"] * count))
    async with browsing(fresh.url) as page:
        names = page.locator("tbody th")
        await expect(names).to_have_text(["alpha", "beta", "gamma"])
        await expect(page.locator("#shown")).to_have_text("3 queues")
        await page.get_by_role("button", name="Ready").click()
        await expect(names).to_have_text(["beta", "gamma", "alpha"])
        await expect(page.locator("th[aria-sort=descending]")).to_have_text("Ready")
        await page.get_by_label("Filter").fill("MM")
        await expect(names).to_have_text(["gamma"])
        await expect(page.locator("#shown")).to_have_text("1 of 3 queues")


async def test_the_page_says_when_the_server_is_away_and_comes_back_by_itself(fresh: rig.Server) -> None:
    async with browsing(fresh.url) as page:
        await expect(page.locator("#empty")).to_be_visible()
        fresh.stop(signal.SIGTERM)
        await expect(page.locator("#away")).to_contain_text("No answer from the server since")
        with rig.server("--memory", "--port", str(fresh.port)) as again:
            again.ask("POST", "/q/back", b"1")
            await expect(page.locator("tbody th")).to_have_text(["back"])
            await expect(page.locator("#away")).to_be_hidden()


async def test_on_a_telephone_a_long_name_leaves_room_for_the_figures(fresh: rig.Server) -> None:
    fresh.ask("POST", f"/q/{'long-' * 20}name", b"1")
    async with browsing(fresh.url) as page:
        await page.set_viewport_size({"width": 360, "height": 740})
        name = await page.locator("tbody th").bounding_box()
        assert name is not None
        assert name["width"] < 360 / 2
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        await page.locator(".scroll").evaluate("it => it.scrollTo(it.scrollWidth, 0)")
        await expect(page.locator("tbody td").last).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(251, 250, 247)"), ("dark", "rgb(20, 24, 26)")])
async def test_the_page_follows_the_colours_of_the_system(
    server: rig.Server, scheme: str, ground: str
) -> None:
    async with browsing(server.url, scheme) as page:
        await expect(page.locator("body")).to_have_css("background-color", ground)


def test_the_page_and_its_parts_are_not_sent_twice(server: rig.Server) -> None:
    for path in ("/", "/static/page.js", "/static/page.css", "/static/icon.svg"):
        first = server.ask("GET", path)
        again = server.ask("GET", path, If_None_Match=first.headers["etag"])
        assert (first.status, again.status, again.body) == (200, 304, b"")
        assert "default-src 'none'" in first.headers["content-security-policy"]
        assert server.ask("HEAD", path).status == 200
